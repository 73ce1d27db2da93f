//! Elements of the field drawn from a seed: what hides an update in its shares.
//!
//! The stream is ChaCha20 with all its 20 rounds (RFC 8439) under a 256-bit key, which the shell
//! drew from the system's entropy; each purpose has a key of its own. An element is 32 bits of the
//! stream; the five numbers from p on are drawn again, so that every element is equally likely.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::field::Fp;

/// A stream of elements of the field. Whoever has its seed knows them all.
#[derive(Clone)]
pub struct Masks(ChaCha20Rng);

/// 256 bits of entropy of one contribution; not to be shown or sent.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// A seed of its own for one purpose and a number.
    #[must_use]
    pub fn derive(&self, purpose: &str, number: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 federated seed");
        hasher.update(&self.0);
        hasher.update(&number.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl Masks {
    /// The stream of a seed.
    pub fn new(seed: &Seed) -> Self {
        Self(ChaCha20Rng::from_seed(seed.0))
    }

    /// The next `count` words of 32 bits, as they are.
    pub(crate) fn words(&mut self, count: usize) -> Vec<u32> {
        let mut bytes = vec![0; 4 * count];
        self.0.fill_bytes(&mut bytes);
        let (words, _) = bytes.as_chunks::<4>();
        words.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    /// The next element. Draws again with a probability of 5 / 2^32, so it ends.
    pub fn element(&mut self) -> Fp {
        loop {
            if let Ok(element) = Fp::try_from(self.0.next_u32()) {
                return element;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_chacha20_of_rfc_8439() {
        // Section 2.4's block function with an all-zero key and nonce (appendix A.1, vector 1).
        let mut masks = Masks::new(&Seed([0; 32]));
        let words: Vec<u32> = (0..4).map(|_| masks.element().residue()).collect();
        assert_eq!(words, [0xade0_b876, 0x903d_f1a0, 0xe56a_5d40, 0x28bd_8653]);
        assert_eq!(Masks::new(&Seed([0; 32])).words(4), words);
    }

    #[test]
    fn purposes_have_streams_of_their_own_and_seeds_are_not_shown() {
        let seed = Seed([7; 32]);
        let streams = [seed, seed.derive("a", 0), seed.derive("a", 1), seed.derive("b", 0)];
        let firsts: std::collections::BTreeSet<u32> =
            streams.iter().map(|seed| Masks::new(seed).element().residue()).collect();
        assert_eq!(firsts.len(), 4);
        assert_eq!(format!("{seed:?}"), "Seed(..)");
    }
}
