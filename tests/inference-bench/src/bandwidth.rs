//! How fast this machine reads memory: the ceiling of computing one answer at a time.
//!
//! Owns a sweep over as many bytes as a model's weights have, which is what a step reads; what lies
//! in the processor's caches is part of that. It is a process of its own, started like the others.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::driver::{Measured, Starter, tell};
use crate::place::now;

/// Sweeps of which the best counts: the first ones bring the pages.
const SWEEPS: usize = 8;
/// Words summed side by side, so that additions do not wait for each other.
const LANES: usize = 32;

/// The argument that makes this program the sweep.
pub(crate) const WORD: &str = "--sweep";

/// Bytes per second of `threads` threads that read `bytes` bytes.
pub(crate) fn read(starter: &Starter, bytes: u64, threads: usize) -> Result<f64> {
    let (bytes_word, threads) = (bytes.to_string(), threads.to_string());
    let swept = starter.start(&std::env::current_exe()?, &[WORD, &bytes_word, &threads])?;
    Ok(bytes as f64 / swept.load.as_secs_f64().max(1e-6))
}

/// Reads `bytes` bytes several times and tells the best time, as a driver tells its loading.
pub(crate) fn serve(bytes: u64, threads: usize) -> Result<()> {
    let took = Duration::from_secs_f64(best(bytes, threads)?);
    tell(Measured { tokens: 0, took })
}

/// Seconds of the best of some sweeps.
fn best(bytes: u64, threads: usize) -> Result<f64> {
    let words = usize::try_from(bytes / 8)?.next_multiple_of(LANES * threads);
    let memory: Vec<u64> = (0..words as u64).collect();
    let mut best = f64::MAX;
    for _ in 0..SWEEPS {
        best = best.min(sweep(&memory, threads)?);
    }
    Ok(best)
}

/// Seconds of one sweep.
fn sweep(memory: &[u64], threads: usize) -> Result<f64> {
    let start = Barrier::new(threads);
    let part = memory.len() / threads;
    thread::scope(|scope| {
        let workers: Vec<_> = memory
            .chunks_exact(part)
            .map(|part| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let began = now();
                    black_box(sum(part));
                    began.elapsed().as_secs_f64()
                })
            })
            .collect();
        let mut slowest = 0.0_f64;
        for worker in workers {
            slowest = slowest.max(worker.join().ok().context("a sweep panicked")?);
        }
        Ok(slowest)
    })
}

fn sum(part: &[u64]) -> u64 {
    let mut sums = [0_u64; LANES];
    for chunk in part.chunks_exact(LANES) {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..LANES as u64 * 3).collect();
        assert_eq!(sum(&words), words.iter().sum::<u64>());
        assert!(best(1 << 20, 2).unwrap() > 0.0);
    }
}
