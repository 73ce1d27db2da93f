//! Which of several files of one model a node should load, as a pure function.
//!
//! Owns the order of variants and the words for it. What a file needs is read by whoever opens it,
//! what the machine has by whoever asks the system. Integers only: the same facts choose the same
//! file on every machine.

use std::cmp::Reverse;
use std::fmt;

/// Tenths of a bit that the processor's kernels keep of a weight at most: floats are rounded to
/// eight bits with a scale for each 32.
const KEPT_TENTHS: u64 = 85;
/// A float of 16 bits, which is what cards compute with.
const CARD_TENTHS: u64 = 160;
/// Multiplications by a weight that a core does in a second with AVX-512: half of what was measured
/// with prompts, where memory does not hold it up.
const AVX512_RATE: u64 = 60_000_000_000;
/// The same with AVX2, whose vectors are half as long and which needs two instructions for one.
const AVX2_RATE: u64 = 20_000_000_000;
/// The same with NEON: a quarter as long.
const NEON_RATE: u64 = 10_000_000_000;
/// Without vectors, or with instructions not listed here.
const OTHER_RATE: u64 = 1_000_000_000;

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// As it was listed.
    pub name: String,
    /// Quantization, as people write it.
    pub quantization: String,
    /// Number of weights.
    pub weights: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes that its weights take in memory.
    pub held_bytes: u64,
    /// Bytes that answers take beside them.
    pub answer_bytes: u64,
    /// Whether it can be loaded now.
    pub present: bool,
}

/// What a node has for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes that the model may take.
    pub memory: u64,
    /// What bounds them, for people (`the memory that is free`).
    pub bound: String,
    /// Which kernels compute (`avx2`); `cuda` or `metal` where a card does.
    pub kernels: String,
    /// Thousandths of a core that they may use; 0 = not known.
    pub millicores: u32,
    /// Bytes of memory read in a second; 0 = not known.
    pub bandwidth: u64,
    /// Tokens a second that an answer should have at least.
    pub wanted_rate: u32,
    /// Whether files that are not here may be fetched.
    pub may_fetch: bool,
}

/// What became of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is the one.
    Chosen,
    /// It would do; another keeps more of the model.
    Lesser,
    /// It would do; another keeps as much in a smaller file.
    Larger,
    /// It would answer slower than wanted: tokens a second.
    Slow(u64),
    /// It does not fit, by so many bytes.
    TooLarge(u64),
    /// Its file is not here.
    Absent,
}

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The place of the chosen one in the list, if any fits.
    pub at: Option<usize>,
    /// One for each variant, in their order.
    pub fates: Vec<Fate>,
    /// Why this one, or why none: one sentence without a full stop.
    pub reason: String,
}

impl Variant {
    /// What it needs to be loaded and to answer.
    pub const fn needs(&self) -> u64 {
        self.held_bytes.saturating_add(self.answer_bytes)
    }

    /// How much of the model it keeps there: its weights times the tenths of a bit left of each.
    fn kept(&self, place: &Place) -> u64 {
        let most = if place.is_card() { CARD_TENTHS } else { KEPT_TENTHS };
        let bits = self.file_bytes.saturating_mul(80);
        bits.min(self.weights.saturating_mul(most))
    }
}

impl Place {
    fn is_card(&self) -> bool {
        matches!(self.kernels.as_str(), "cuda" | "metal")
    }

    /// Tokens a second of one answer, as far as can be told before trying: each needs every weight
    /// once from memory and once in a multiplication.
    fn rate(&self, variant: &Variant) -> Option<u64> {
        if self.is_card() {
            return None;
        }
        let read = |held: u64| (self.bandwidth > 0).then(|| self.bandwidth / held.max(1));
        let core = match self.kernels.as_str() {
            kernels if kernels.starts_with("avx512") => AVX512_RATE,
            kernels if kernels.starts_with("avx") => AVX2_RATE,
            kernels if kernels.starts_with("neon") => NEON_RATE,
            _ => OTHER_RATE,
        };
        let all = (core / 1_000).saturating_mul(u64::from(self.millicores));
        let multiplied = (all > 0).then(|| all / variant.weights.max(1));
        [read(variant.held_bytes), multiplied].into_iter().flatten().min()
    }
}

/// Chooses among variants: those that are not here or do not fit are out; then those that answer
/// as fast as wanted, the one that keeps most of the model first; if none does, the fastest.
pub fn choose(place: &Place, variants: &[Variant]) -> Chosen {
    let fast = |variant: &Variant| {
        place.rate(variant).is_none_or(|rate| rate >= u64::from(place.wanted_rate))
    };
    let usable = |variant: &Variant| variant.present || place.may_fetch;
    let fits = |variant: &Variant| variant.needs() <= place.memory;
    let worth = |at: usize, variant: &Variant| {
        let (is_fast, rate) = (fast(variant), place.rate(variant).unwrap_or(u64::MAX));
        let main = if is_fast { variant.kept(place) } else { rate };
        // Ties go to the smaller file, then to the one listed first.
        (is_fast, main, Reverse(variant.file_bytes), Reverse(at))
    };
    let best = variants
        .iter()
        .enumerate()
        .filter(|(_, variant)| usable(variant) && fits(variant))
        .max_by_key(|(at, variant)| worth(*at, variant));
    let at = best.map(|(at, _)| at);
    let fates = variants.iter().enumerate().map(|(index, variant)| {
        if at == Some(index) {
            Fate::Chosen
        } else if !usable(variant) {
            Fate::Absent
        } else if !fits(variant) {
            Fate::TooLarge(variant.needs() - place.memory)
        } else if !fast(variant) {
            Fate::Slow(place.rate(variant).unwrap_or(0))
        } else {
            let same = best.is_some_and(|(_, best)| best.kept(place) == variant.kept(place));
            if same { Fate::Larger } else { Fate::Lesser }
        }
    });
    let fates: Vec<Fate> = fates.collect();
    let reason = match best {
        Some((_, variant)) => why(place, variant, &fates, fast(variant)),
        None => why_none(place, variants, usable),
    };
    Chosen { at, fates, reason }
}

fn why(place: &Place, variant: &Variant, fates: &[Fate], fast: bool) -> String {
    let (kind, free) = (&variant.quantization, Bytes(place.memory));
    let takes = format!("{kind} takes {} of {free} ({})", Bytes(variant.needs()), place.bound);
    let speed = match place.rate(variant) {
        None => String::new(),
        Some(rate) => format!(", at about {rate} tokens a second on {}", place.kernels),
    };
    let rest = match (fast, fates.len()) {
        (_, 1) => "it is the only one",
        (true, _) => "no other that fits and is fast enough keeps more of the model",
        (false, _) => "none that fits is as fast as wanted, and this one is the fastest",
    };
    format!("{takes}{speed}; {rest}")
}

fn why_none(place: &Place, variants: &[Variant], usable: impl Fn(&Variant) -> bool) -> String {
    let least = variants.iter().filter(|variant| usable(variant)).min_by_key(|v| v.needs());
    let Some(least) = least else {
        return "none of its files is here".to_owned();
    };
    format!(
        "the smallest, {}, takes {}: {} more than {} ({})",
        least.name,
        Bytes(least.needs()),
        Bytes(least.needs().saturating_sub(place.memory)),
        Bytes(place.memory),
        place.bound
    )
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen"),
            Self::Lesser => f.write_str("keeps less of the model"),
            Self::Larger => f.write_str("keeps no more in a larger file"),
            Self::Slow(rate) => write!(f, "about {rate} tokens a second, fewer than wanted"),
            Self::TooLarge(missing) => write!(f, "needs {} more memory", Bytes(*missing)),
            Self::Absent => f.write_str("not here"),
        }
    }
}

/// Bytes as people write them.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000_000 => (1_000, "kB"),
            1_000_000..1_000_000_000 => (1_000_000, "MB"),
            _ => (1_000_000_000, "GB"),
        };
        let tenths = self.0 / (unit / 10);
        write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
#[path = "variants_tests.rs"]
mod tests;
