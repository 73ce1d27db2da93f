//! Which digests a node keeps, in brief: a set that may say yes to what is not in it.
//!
//! A Bloom filter (B. H. Bloom, 1970). The digests are as good as random, so their own bytes choose
//! the bits (Kirsch and Mitzenmacher, 2006). Owns sizes and bounds; who is told is decided above.

use serde::{Deserialize, Serialize};

/// Bits for each digest. With [`PROBES`] bits set, one of a hundred that are not kept seems to be.
const BITS_EACH: usize = 10;
/// Bits that each digest sets.
const PROBES: u64 = 5;
/// Words of the smallest set: fifty digests.
const MIN_WORDS: usize = 8;
/// Words of the largest: 64 KiB on the wire and in memory for each peer. Beyond
/// [`MAX_DIGESTS`] it says yes more often, and whoever asks in vain asks less.
pub const MAX_WORDS: usize = 8_192;
/// Digests that the largest set holds well.
pub const MAX_DIGESTS: usize = MAX_WORDS * 64 / BITS_EACH;

/// A set of digests, in brief.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    words: Vec<u64>,
}

impl Digests {
    /// An empty set with room for so many.
    pub fn for_so_many(count: usize) -> Self {
        let words = (count.saturating_mul(BITS_EACH) / 64 + 1).next_power_of_two();
        Self { words: vec![0; words.clamp(MIN_WORDS, MAX_WORDS)] }
    }

    /// How many it holds well.
    pub const fn room(&self) -> usize {
        self.words.len() * 64 / BITS_EACH
    }

    /// Whether its size is one that [`Digests::for_so_many`] makes, or it is empty.
    pub fn is_within_bounds(&self) -> bool {
        let len = self.words.len();
        len == 0 || (MIN_WORDS..=MAX_WORDS).contains(&len) && len.is_power_of_two()
    }

    /// Puts one in.
    pub fn put(&mut self, digest: &[u8; 32]) {
        for bit in bits(digest, self.words.len()) {
            self.words[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Whether it may be in.
    pub fn may_have(&self, digest: &[u8; 32]) -> bool {
        let len = self.words.len();
        len > 0 && bits(digest, len).all(|bit| self.words[bit / 64] >> (bit % 64) & 1 == 1)
    }
}

fn bits(digest: &[u8; 32], words: usize) -> impl Iterator<Item = usize> + use<> {
    let word = |at: usize| {
        digest[at..at + 8].iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
    };
    let (first, step) = (word(0), word(8) | 1);
    let all = (words * 64).max(1) as u64;
    (0..PROBES).map(move |nth| (first.wrapping_add(step.wrapping_mul(nth)) % all) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> [u8; 32] {
        *blake3::hash(&number.to_be_bytes()).as_bytes()
    }

    #[test]
    fn what_is_in_is_found_and_little_else() {
        for count in [0, 1, 50, 5_000] {
            let mut set = Digests::for_so_many(count);
            assert!(set.is_within_bounds() && set.room() >= count);
            (0..count as u64).for_each(|number| set.put(&digest(number)));
            assert!((0..count as u64).all(|number| set.may_have(&digest(number))));
            let wrong = (1 << 40..(1 << 40) + 10_000).filter(|n| set.may_have(&digest(*n)));
            let wrong = wrong.count();
            assert!(wrong < 200, "{wrong} of 10,000 with {count}");
        }
    }

    #[test]
    fn a_set_is_bounded_and_an_empty_one_has_nothing() {
        let largest = Digests::for_so_many(usize::MAX / 16);
        assert_eq!(largest.words.len(), MAX_WORDS);
        assert!(!Digests::default().may_have(&digest(1)));
        assert!(Digests::default().is_within_bounds());
        assert!(!Digests { words: vec![0; MAX_WORDS * 2] }.is_within_bounds());
        assert!(!Digests { words: vec![0; 9] }.is_within_bounds());
    }
}
