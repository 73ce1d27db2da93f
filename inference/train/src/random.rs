//! Chance from a seed: the same numbers for the same seed and purpose, on every machine.
//!
//! Owns how a seed and a purpose become one stream. Not for secrets: those are the shell's.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a stream of numbers is for, so that two uses of one seed never share a stream.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// First weights of a model.
    Weights = 1,
    /// The order of a client's examples.
    Order = 2,
    /// Dividing a set among clients.
    Division = 3,
}

/// The stream for a seed and a purpose.
pub(crate) fn stream(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose as u64);
    rng
}
