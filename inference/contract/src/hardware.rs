//! What a node's machine is and how it stands now, as plain integers and short texts.
//!
//! Owns the shapes that nodes tell each other, their bounds, and the rounding that keeps a fact
//! from being told anew for every flicker of a sensor. What is not known is `None` or empty, never
//! a guess. Reading a machine is a shell's business (`actors/runtime`), what follows from it
//! routing's.

use serde::{Deserialize, Serialize};

/// Bytes of a name: the longest that processors and cards are sold under have about 50.
pub const MAX_NAME: usize = 64;
/// Features told: the ones that matter to kernels are fewer on any processor.
pub const MAX_FEATURES: usize = 24;
/// Bytes of a feature's name; the longest of Linux, `avx512_vp2intersect`, matters to no kernel.
pub const MAX_FEATURE: usize = 16;
/// Cards told: the largest servers hold sixteen.
pub const MAX_CARDS: usize = 16;

/// Temperatures that can be of a machine that runs, in tenths of a degree Celsius: sensors that are
/// not connected say things far outside.
const POSSIBLE_HEAT: std::ops::RangeInclusive<i16> = -400..=1_500;
/// A temperature is told again once it has moved by two degrees: sensors flicker by one.
const HEAT_STEP: i16 = 20;
/// Available memory is told again once it has moved by this share of all memory ...
const MEMORY_SHARE: u64 = 32;
/// ... or by this much, where that is more: what a busy program takes and gives back.
const MEMORY_STEP: u64 = 64 << 20;
/// Memory is told in whole 16 MiB: finer is out of date when it arrives.
const MEMORY_UNIT: u64 = 16 << 20;

/// A machine: what it is, and how it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What does not change while the node runs.
    pub made: Hardware,
    /// What does.
    pub now: Condition,
}

/// What a machine is, as far as the node may use it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Operating system (`linux`).
    pub os: String,
    /// Instruction set (`x86_64`).
    pub architecture: String,
    /// The processor or, where that says nothing, the board, as its maker calls it.
    pub processor: String,
    /// Which kernels the engine computes with (`avx2`).
    pub kernels: String,
    /// What of the processor's features kernels could use.
    pub features: Vec<String>,
    /// Cores that the node may run on.
    pub physical_cores: Option<u32>,
    /// Threads of those cores.
    pub logical_cores: Option<u32>,
    /// Thousandths of a thread's time that the node may use all together: less than its threads
    /// where a quota is set.
    pub usable_millicores: Option<u32>,
    /// Bytes of memory, or the limit set for the node.
    pub memory: Option<u64>,
    /// Cards that compute or draw.
    pub cards: Vec<Card>,
}

/// A card, or what is built in as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// As its maker calls it.
    pub name: String,
    /// Bytes of its own memory.
    pub memory: Option<u64>,
}

/// How a machine stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Bytes that programs could still take.
    pub memory_available: Option<u64>,
    /// The hottest sensor, in tenths of a degree Celsius.
    pub temperature: Option<i16>,
    /// What is left to a sensor's critical point, at the sensor where least is left, in tenths of
    /// a degree: at 0 the machine throttles or stops.
    pub headroom: Option<i16>,
    /// Whether it has a battery that can carry it.
    pub has_battery: Option<bool>,
    /// How full that is.
    pub battery_percent: Option<u8>,
    /// Whether it runs on it.
    pub on_battery: Option<bool>,
}

impl Machine {
    /// A machine that another node tells of: none where it is out of bounds. What it may print is
    /// cleaned, what cannot be is not known.
    pub fn received(mut self) -> Option<Self> {
        let made = &mut self.made;
        let texts = [&mut made.os, &mut made.architecture, &mut made.processor, &mut made.kernels];
        let (features, cards) = (&mut made.features, &mut made.cards);
        if features.len() > MAX_FEATURES || cards.len() > MAX_CARDS {
            return None;
        }
        let named = texts.into_iter().chain(cards.iter_mut().map(|card| &mut card.name));
        let named = named.map(|text| (text, MAX_NAME));
        for (text, most) in named.chain(features.iter_mut().map(|text| (text, MAX_FEATURE))) {
            if text.len() > most {
                return None;
            }
            *text = clean(text, most);
        }
        self.now = self.now.possible();
        Some(self)
    }
}

impl Condition {
    /// Without what cannot be.
    #[must_use]
    pub fn possible(self) -> Self {
        Self {
            temperature: self.temperature.filter(|heat| POSSIBLE_HEAT.contains(heat)),
            battery_percent: self.battery_percent.filter(|percent| *percent <= 100),
            ..self
        }
    }

    /// These facts as they are told after `last`, by a machine with `memory` bytes: rounded, and
    /// the same as before where they have hardly moved.
    #[must_use]
    pub fn settled(self, last: &Self, memory: Option<u64>) -> Self {
        let step = (memory.unwrap_or(0) / MEMORY_SHARE).max(MEMORY_STEP);
        let whole = |heat: i16| heat.saturating_add(if heat < 0 { -5 } else { 5 }) / 10 * 10;
        let heat = |now: Option<i16>, last: Option<i16>| match (now, last) {
            (Some(now), Some(last)) if now.abs_diff(last) < HEAT_STEP.unsigned_abs() => Some(last),
            (now, _) => now.map(whole),
        };
        let memory_available = match (self.memory_available, last.memory_available) {
            (Some(now), Some(last)) if now.abs_diff(last) < step => Some(last),
            (now, _) => now.map(|bytes| bytes / MEMORY_UNIT * MEMORY_UNIT),
        };
        Self {
            memory_available,
            temperature: heat(self.temperature, last.temperature),
            headroom: heat(self.headroom, last.headroom),
            ..self
        }
    }
}

/// A text that is safe to print: what of it is printable ASCII, blanks made one, cut to `most`
/// bytes.
pub fn clean(text: &str, most: usize) -> String {
    let printable = |c: char| if c.is_ascii_whitespace() { ' ' } else { c };
    let kept: String =
        text.chars().map(printable).filter(|c| *c == ' ' || c.is_ascii_graphic()).collect();
    let mut one = String::new();
    for word in kept.split_ascii_whitespace() {
        if !one.is_empty() {
            one.push(' ');
        }
        one.push_str(word);
        if one.len() >= most {
            break;
        }
    }
    one.truncate(most);
    one.trim_end().to_owned()
}

#[cfg(test)]
#[path = "hardware_tests.rs"]
mod tests;
