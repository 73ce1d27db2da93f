//! Randomness handed to machines as a seeded stream.
//!
//! Owns the stream and how sub-streams are derived from a seed and a purpose, so that removing one
//! consumer does not shift the others. Does not own entropy: a shell draws the seed.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

/// A deterministic stream of random numbers (ChaCha12, RFC 8439's core with 12 rounds).
#[derive(Clone, Debug)]
pub struct Dice(ChaCha12Rng);

impl Dice {
    /// The stream of a 256-bit seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// The stream of `seed` for one purpose; streams of different purposes are independent.
    pub fn keyed(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 dice");
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self::from_seed(*hasher.finalize().as_bytes())
    }

    /// The next 64 random bits.
    #[expect(clippy::should_implement_trait, reason = "the stream never ends: no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`; zero when `bound` is zero.
    ///
    /// Multiply-shift (Lemire 2019) without the rejection step: the bias is below `bound / 2^64`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True with a probability of `permille` in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    /// A number in `[0, 1)` with 24 bits, for sampling; never used in replicated state.
    pub fn unit_f32(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }
}
