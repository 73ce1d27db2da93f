//! Cheap random streams, one per purpose and entity.
//!
//! A mesh of a thousand nodes has a million directions, each with a stream of its own, so that
//! what one direction draws never shifts another's: eight bytes each (SplitMix64, Steele et al.
//! 2014). Machines under test get the production [`selvedge_base::Dice`].

/// A stream of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream(u64);

/// The golden ratio in 64 bits: SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Stream {
    /// The stream of a seed for one purpose and up to two entities.
    pub(crate) fn keyed(seed: u64, purpose: u64, one: usize, other: usize) -> Self {
        let keys = [purpose, one as u64, other as u64];
        Self(keys.iter().fold(mix(seed), |state, key| mix(state ^ mix(key.wrapping_add(STEP)))))
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number in `0..bound`; zero when `bound` is zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True with a probability of `permille` in a thousand; draws nothing for zero.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        permille > 0 && self.below(1_000) < permille
    }

    /// A number between two, both included.
    pub(crate) fn between(&mut self, (least, most): (u32, u32)) -> u32 {
        least + self.below(u64::from(most - least) + 1) as u32
    }
}

/// Scrambles 64 bits (the finalizer of SplitMix64).
pub(crate) const fn mix(bits: u64) -> u64 {
    let mut z = bits;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
