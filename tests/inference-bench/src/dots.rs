//! How fast this machine multiplies bytes: the ceiling of computing prompts.
//!
//! Owns a sweep of the kernels' product of a tile in the nearest cache, by as many threads as
//! compute. It is a process of its own, started like the others.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use selvedge_kernels::Isa;

use crate::driver::{Measured, Starter, tell};
use crate::place::now;

/// The argument that makes this program the sweep.
pub(crate) const WORD: &str = "--multiply";

/// Sweeps of which the best counts: the first ones find a processor that sleeps.
const SWEEPS: usize = 8;
/// Rounds of a sweep: some tens of milliseconds with vectors.
const ROUNDS: u32 = 1_000_000;
/// In what products are told.
const MILLION: u64 = 1_000_000;

/// Products of two bytes, each added to a sum, per second of `threads` threads.
pub(crate) fn rate(starter: &Starter, threads: usize) -> Result<f64> {
    let mut driver = starter.start(&std::env::current_exe()?, &[WORD, &threads.to_string()])?;
    Ok(driver.ask("sweep")?.rate() * MILLION as f64)
}

/// Tells the best of several sweeps in millions of products.
pub(crate) fn serve(threads: usize) -> Result<()> {
    tell(Measured { tokens: 0, took: Duration::ZERO })?;
    let (products, took) = best(threads, ROUNDS)?;
    tell(Measured { tokens: u32::try_from(products / MILLION)?, took })
}

/// Products of a sweep, and the time of the best one.
fn best(threads: usize, rounds: u32) -> Result<(u64, Duration)> {
    let mut best = (0, Duration::MAX);
    for _ in 0..SWEEPS {
        let swept = sweep(threads, rounds)?;
        if swept.1 < best.1 {
            best = swept;
        }
    }
    Ok(best)
}

fn sweep(threads: usize, rounds: u32) -> Result<(u64, Duration)> {
    let (start, isa) = (Barrier::new(threads), Isa::detect());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let began = now();
                    let (products, sum) = isa.sweep(black_box(rounds));
                    black_box(sum);
                    (products, began.elapsed())
                })
            })
            .collect();
        let (mut all, mut slowest) = (0, Duration::ZERO);
        for worker in workers {
            let (products, took) = worker.join().ok().context("a sweep panicked")?;
            all += products;
            slowest = slowest.max(took);
        }
        Ok((all, slowest))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_count() {
        let (one, took) = best(1, 1_000).unwrap();
        assert!(one > 0 && took > Duration::ZERO);
        assert_eq!(best(2, 1_000).unwrap().0, 2 * one);
    }
}
