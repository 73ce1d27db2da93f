//! What a model hears of sound: the logarithm of its energy in bands, a hundred times a second.
//!
//! Owns the window, the transform and the bands (Slaney's, of one area each), all computed here,
//! and the order of operations: doubles, so that a value does not depend on the processor.

use std::f64::consts::TAU;

/// Samples of a row, and from one to the next: 25 and 10 milliseconds.
const SPAN: usize = 400;
/// See [`SPAN`].
pub(super) const HOP: usize = 160;
/// What [`SPAN`] is a product of, for the transform.
const OUTER: usize = 16;
/// See [`OUTER`].
const INNER: usize = 25;
/// Frequencies of a row: 0 to 8,000 Hz, 40 Hz apart.
const LINES: usize = SPAN / 2 + 1;
/// Hertz between them.
const APART: f64 = 40.0;
/// Less energy counts as this.
const LEAST: f64 = 1e-10;
/// How far below the loudest value the others may be, in powers of ten.
const DEPTH: f32 = 8.0;
/// Slaney's scale is even up to this many hertz, one for each so many, and logarithmic above: 27
/// bands for a factor of 6.4.
const EVEN: f64 = 1_000.0;
/// See [`EVEN`].
const EVEN_STEP: f64 = 200.0 / 3.0;

/// The transform of a number of bands.
pub(super) struct Spectrum {
    window: Vec<f64>,
    /// Cosine and sine of each part of a circle.
    circle: Vec<(f64, f64)>,
    /// For each band the first line and the weights from there on.
    bands: Vec<(usize, Vec<f64>)>,
}

/// Memory for one transform.
struct Work {
    given: Vec<(f64, f64)>,
    middle: Vec<(f64, f64)>,
    lines: Vec<(f64, f64)>,
}

impl Spectrum {
    pub(super) fn new(bands: usize) -> Self {
        let part = |at: usize| TAU * at as f64 / SPAN as f64;
        Self {
            window: (0..SPAN).map(|at| 0.5 - 0.5 * part(at).cos()).collect(),
            circle: (0..SPAN).map(|at| (part(at).cos(), -part(at).sin())).collect(),
            bands: filters(bands),
        }
    }

    /// Rows of so many samples.
    pub(super) const fn rows(samples: usize) -> usize {
        samples / HOP
    }

    /// The greatest value of some rows.
    pub(super) fn loudest(&self, sound: &[i16], from: usize, count: usize) -> f32 {
        let mut most = f32::NEG_INFINITY;
        self.raw(sound, from, count, |_, values| {
            most = values.iter().fold(most, |most, value| most.max(*value));
        });
        most
    }

    /// A window of `out.len()` numbers: `count` rows of sound from `from` on, then silence,
    /// relative to the loudest value of all.
    pub(super) fn window(
        &self,
        sound: &[i16],
        (from, count): (usize, usize),
        loudest: f32,
        out: &mut [f32],
    ) {
        let bands = self.bands.len();
        out.fill(0.0);
        self.raw(sound, from, count, |row, values| {
            for (out, value) in out[row * bands..][..bands].iter_mut().zip(values) {
                *out = (value.max(loudest - DEPTH) + 4.0) / 4.0;
            }
        });
    }

    /// Calls with each row's number and its values.
    fn raw(&self, sound: &[i16], from: usize, count: usize, mut row: impl FnMut(usize, &[f32])) {
        let mut work = Work {
            given: vec![(0.0, 0.0); SPAN],
            middle: vec![(0.0, 0.0); SPAN],
            lines: vec![(0.0, 0.0); SPAN],
        };
        let mut values = vec![0.0; self.bands.len()];
        // Two rows of real numbers are one of complex ones.
        for first in (0..count).step_by(2) {
            for at in 0..SPAN {
                let begin = ((from + first) * HOP + at) as isize - (SPAN / 2) as isize;
                let weight = self.window[at];
                let second =
                    if first + 1 < count { sample(sound, begin + HOP as isize) } else { 0.0 };
                work.given[at] = (weight * sample(sound, begin), weight * second);
            }
            self.transform(&mut work);
            for side in 0..2.min(count - first) {
                self.banded(&work.lines, side, &mut values);
                row(first + side, &values);
            }
        }
    }

    /// Cooley and Tukey's way, in two steps.
    fn transform(&self, work: &mut Work) {
        let turned = |sum: (f64, f64), number: (f64, f64), turn: (f64, f64)| {
            let real = sum.0 + number.0 * turn.0 - number.1 * turn.1;
            (real, sum.1 + number.0 * turn.1 + number.1 * turn.0)
        };
        for outer in 0..OUTER {
            for line in 0..INNER {
                let mut sum = (0.0, 0.0);
                for inner in 0..INNER {
                    let turn = self.circle[inner * line % INNER * OUTER];
                    sum = turned(sum, work.given[outer + OUTER * inner], turn);
                }
                let turn = self.circle[outer * line];
                work.middle[outer * INNER + line] = turned((0.0, 0.0), sum, turn);
            }
        }
        for line in 0..INNER {
            for upper in 0..OUTER {
                let mut sum = (0.0, 0.0);
                for outer in 0..OUTER {
                    let turn = self.circle[outer * upper % OUTER * INNER];
                    sum = turned(sum, work.middle[outer * INNER + line], turn);
                }
                work.lines[line + INNER * upper] = sum;
            }
        }
    }

    /// The values of the first or of the second row in a transform of two.
    fn banded(&self, lines: &[(f64, f64)], side: usize, values: &mut [f32]) {
        let energy = |line: usize| {
            let (a, b) = (lines[line], lines[(SPAN - line) % SPAN]);
            let (real, imaginary) = match side {
                0 => (a.0 + b.0, a.1 - b.1),
                _ => (a.1 + b.1, b.0 - a.0),
            };
            (real * real + imaginary * imaginary) / 4.0
        };
        for ((first, weights), value) in self.bands.iter().zip(values) {
            let sum: f64 = weights.iter().enumerate().map(|(at, w)| w * energy(first + at)).sum();
            *value = sum.max(LEAST).log10() as f32;
        }
    }
}

/// A sample: mirrored before the beginning, silence after the end.
fn sample(sound: &[i16], at: isize) -> f64 {
    sound.get(at.unsigned_abs()).map_or(0.0, |sample| f64::from(*sample) / 32_768.0)
}

/// Triangles between points that are evenly apart on Slaney's scale.
fn filters(bands: usize) -> Vec<(usize, Vec<f64>)> {
    let step = 6.4_f64.ln() / 27.0;
    let even = EVEN / EVEN_STEP;
    let highest = even + (APART * (LINES - 1) as f64 / EVEN).ln() / step;
    let point = |at: usize| {
        let mel = highest * at as f64 / (bands + 1) as f64;
        match mel < even {
            true => mel * EVEN_STEP,
            false => EVEN * (step * (mel - even)).exp(),
        }
    };
    let filter = |band: usize| {
        let (low, middle, high) = (point(band), point(band + 1), point(band + 2));
        let weight = |line: usize| {
            let hertz = APART * line as f64;
            let slope = ((hertz - low) / (middle - low)).min((high - hertz) / (high - middle));
            slope.max(0.0) * 2.0 / (high - low)
        };
        let first = (0..LINES).find(|line| weight(*line) > 0.0).unwrap_or(0);
        let weights = (first..LINES).map(weight).take_while(|weight| *weight > 0.0).collect();
        (first, weights)
    };
    (0..bands).map(filter).collect()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "spectrum_tests.rs"]
mod tests;
