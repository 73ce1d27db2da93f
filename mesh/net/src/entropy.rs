//! The only place that draws the operating system's entropy.
//!
//! Owns the draw. Machines get a seed or [`Dice`] from here and never come back for more.

use rustls::crypto::aws_lc_rs;
use selvedge_base::Dice;

/// Fills `out` with random bytes of the operating system.
#[expect(clippy::disallowed_methods, reason = "this module is where entropy is drawn")]
#[expect(
    clippy::expect_used,
    reason = "a node without entropy has no identity and must not go on; the system call cannot \
              fail for a valid buffer once the kernel's pool is initialised, and it waits for that"
)]
pub fn fill(out: &mut [u8]) {
    getrandom::fill(out).expect("the operating system gives entropy");
}

/// A fresh 256-bit seed.
pub fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    fill(&mut seed);
    seed
}

/// A fresh stream of dice.
pub fn dice() -> Dice {
    Dice::from_seed(seed())
}

/// Draws once from the cryptography library, whose first draw takes tens of milliseconds of CPU:
/// better at start than inside the first handshake. Blocks; call it off the async threads.
pub fn prewarm() {
    let mut spill = [0; 1];
    if aws_lc_rs::default_provider().secure_random.fill(&mut spill).is_err() {
        tracing::warn!("the cryptography library could not draw entropy at start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ() {
        assert_ne!(seed(), seed());
        assert_ne!(dice().next(), dice().next());
        prewarm();
    }
}
