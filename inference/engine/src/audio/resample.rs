//! From one rate to another, exactly in time: a windowed sinc for each phase that two whole rates
//! can have to each other (Smith, "Digital Audio Resampling").
//!
//! Owns the filter. Memory is bounded by its length, whatever comes.

use std::f64::consts::PI;

/// Zeros of the sinc on each side: with this window, what would fold back is 80 dB down.
const ZEROS: usize = 24;
/// The window's shape (Kaiser), for the same.
const BETA: f64 = 8.0;
/// How much of what fits the lower rate passes; the rest is the filter's slope.
const PASSED: f64 = 0.94;
/// Terms of the series of the window's Bessel function; more change nothing in 64 bits.
const TERMS: u32 = 40;
/// Numbers of a filter: that of 44,056, a rate of early tapes, has 280,000, and takes a tenth of a
/// second to make where nothing is optimised.
const MOST_WEIGHTS: usize = 1 << 19;
/// Samples that were used are dropped this many at a time.
const DROP: usize = 1 << 14;

/// A stream of samples on its way to another rate.
pub(super) struct Resampler {
    /// Phases between two samples.
    up: u64,
    /// Phases between two results.
    down: u64,
    half: usize,
    /// Phase after phase: what each of the `2 * half` samples around weighs.
    weights: Vec<f32>,
    /// Samples that are still needed, and the place of the first; the stream's own begin at
    /// `half - 1`.
    held: Vec<f32>,
    first: u64,
    came: u64,
    made: u64,
}

impl Resampler {
    /// From a rate to a rate, both above zero; none where the two have too many phases to each
    /// other, as those that no device has.
    pub(super) fn new(from: u32, to: u32) -> Option<Self> {
        let common = gcd(from, to);
        let (up, down) = (u64::from(to / common), u64::from(from / common));
        if up == down {
            let weights = vec![1.0, 0.0];
            return Some(Self { up, down, weights, ..EMPTY });
        }
        // Against the input's rate.
        let pass = PASSED * f64::from(to.min(from)) / f64::from(from);
        let half = (ZEROS as f64 / pass).ceil() as usize;
        let count = up as usize * 2 * half;
        if count > MOST_WEIGHTS {
            return None;
        }
        let mut weights = Vec::with_capacity(count);
        for phase in 0..up {
            let begin = weights.len();
            for tap in 0..2 * half {
                let apart = (half - 1) as f64 - tap as f64 + phase as f64 / up as f64;
                weights.push((pass * sinc(pass * apart) * kaiser(apart / half as f64)) as f32);
            }
            // Silence and steady values stay what they are, in each phase.
            let sum: f32 = weights[begin..].iter().sum();
            weights[begin..].iter_mut().for_each(|weight| *weight /= sum);
        }
        Some(Self { up, down, half, weights, held: vec![0.0; half - 1], ..EMPTY })
    }

    /// Takes samples and gives what can be known by them.
    pub(super) fn push(&mut self, samples: &[f32], give: impl FnMut(f32)) {
        self.held.extend_from_slice(samples);
        self.came += samples.len() as u64;
        self.advance(u64::MAX, give);
    }

    /// Gives what is left.
    pub(super) fn end(&mut self, give: impl FnMut(f32)) {
        self.held.resize(self.held.len() + self.half, 0.0);
        let all = (self.came * self.up).div_ceil(self.down);
        self.advance(all, give);
    }

    fn advance(&mut self, until: u64, mut give: impl FnMut(f32)) {
        while self.made < until {
            let place = self.made * self.down;
            let (at, phase) = (place / self.up - self.first, (place % self.up) as usize);
            let Some(around) = self.held.get(at as usize..at as usize + 2 * self.half) else {
                break;
            };
            let weights = &self.weights[phase * 2 * self.half..][..2 * self.half];
            give(weights.iter().zip(around).map(|(weight, sample)| weight * sample).sum());
            self.made += 1;
        }
        let used = (self.made * self.down / self.up - self.first) as usize;
        if used >= DROP {
            let used = used.min(self.held.len());
            self.held.drain(..used);
            self.first += used as u64;
        }
    }
}

const EMPTY: Resampler = Resampler {
    up: 1,
    down: 1,
    half: 1,
    weights: Vec::new(),
    held: Vec::new(),
    first: 0,
    came: 0,
    made: 0,
};

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-12 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// The window, at -1 to 1.
fn kaiser(at: f64) -> f64 {
    bessel(BETA * (1.0 - at * at).max(0.0).sqrt()) / bessel(BETA)
}

/// The modified Bessel function of the first kind, of order zero.
fn bessel(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..TERMS {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}
