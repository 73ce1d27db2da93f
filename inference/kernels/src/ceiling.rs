//! How fast a processor multiplies bytes when nothing has to be brought: the ceiling of prompts.
//!
//! Owns a sweep of the one multiplication that products are made of, over numbers that stay in
//! registers. What it sums up means nothing.

use crate::simd::{Isa, Kernel, LANES, Simd, Words};

/// Chains that do not wait for each other: more than a multiplication takes steps where there are
/// registers for them.
const CHAINS: usize = 12;
/// Where there are half as many registers of half the width.
const FEW_CHAINS: usize = 4;
/// Rounds of one call at most: the sums stay exact.
const MOST_ROUNDS: u32 = 1 << 26;

struct Sweep {
    rounds: u32,
}

impl Isa {
    /// Multiplies bytes in so many rounds: how many products were added, and their sum.
    pub fn sweep(self, rounds: u32) -> (u64, i32) {
        self.run(Sweep { rounds: rounds.min(MOST_ROUNDS) })
    }
}

impl Kernel for Sweep {
    type Output = (u64, i32);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (u64, i32) {
        match S::ROOMY {
            true => chains::<S, CHAINS>(s, self.rounds),
            false => chains::<S, FEW_CHAINS>(s, self.rounds),
        }
    }
}

#[inline(always)]
fn chains<S: Simd, const COUNT: usize>(s: S, rounds: u32) -> (u64, i32) {
    const WEIGHTS: Words = [0x0102_0301; LANES];
    let weights = s.bytes(&WEIGHTS);
    let mut sums = [s.splat_integer(0); COUNT];
    for round in 0..rounds {
        // Ones and zeros, so that seven are the most that a lane grows by.
        let by = round & 0x0101_0101;
        for sum in &mut sums {
            *sum = s.dot(*sum, weights, by);
        }
    }
    let all = sums.into_iter().fold(s.splat_integer(0), |all, sum| s.add_integers(all, sum));
    let mut lanes = [0.0; LANES];
    s.store(s.to_float(all), &mut lanes);
    let products = u64::from(rounds) * (COUNT * LANES * 4) as u64;
    (products, lanes[0] as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_instructions_multiplies_all_of_it() {
        for isa in Isa::available() {
            let (products, sum) = isa.sweep(1_000);
            let chains = products / (1_000 * LANES as u64 * 4);
            assert!([CHAINS, FEW_CHAINS].contains(&(chains as usize)), "{}", isa.name());
            // Bit 0 of a round times the lowest byte, bit 8 times the next one.
            let one: u32 = (0..1_000).map(|round| (round & 1) + (round >> 8 & 1) * 3).sum();
            assert_eq!(sum as u64, chains * u64::from(one), "{}", isa.name());
        }
        assert_eq!(Isa::scalar().sweep(0), (0, 0));
    }
}
