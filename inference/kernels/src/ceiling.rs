//! How fast a processor multiplies bytes when nothing has to be brought: the ceiling of prompts.
//!
//! Owns a sweep of the one multiplication that products are made of: the same tile by the same
//! rows, which stay in the nearest cache. What it sums up means nothing.

use crate::act::{Act, BLOCK};
use crate::simd::{Isa, Kernel, LANES, Simd};
use crate::tile::Tile4;

/// Rows that a tile is held for, as in products.
const ROWS: usize = 8;

struct Sweep {
    rounds: u32,
}

impl Isa {
    /// Multiplies bytes in so many rounds: how many products were added, and a sum of them.
    pub fn sweep(self, rounds: u32) -> (u64, i32) {
        self.run(Sweep { rounds })
    }
}

impl Kernel for Sweep {
    type Output = (u64, i32);
    const TILES: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (u64, i32) {
        // Every code is one; a half of one as the factor, nothing beside it.
        let tile =
            Tile4 { factor: [0x3c00; LANES], offset: [0; LANES], low: [[0x1111_1111; LANES]; 4] };
        let one = Act { words: [0x0101_0101; BLOCK / 4], scale: 1.0, sum: 32.0, halves: [16; 2] };
        let (acts, mut sums) = ([one; ROWS], [s.splat(0.0); ROWS]);
        for _ in 0..self.rounds {
            s.multiply(std::hint::black_box(&tile), &acts, &mut sums);
        }
        let mut lanes = [0.0; LANES];
        s.store(sums[ROWS - 1], &mut lanes);
        let products = u64::from(self.rounds) * (ROWS * LANES * BLOCK) as u64;
        (products, lanes[LANES - 1] as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_instructions_multiplies_all_of_it() {
        let rounds: u32 = if cfg!(miri) { 2 } else { 100 };
        for isa in Isa::available() {
            // Thirty-two ones a round.
            let all = (u64::from(rounds) * 8 * 16 * 32, 32 * rounds as i32);
            assert_eq!(isa.sweep(rounds), all, "{}", isa.name());
        }
    }
}
