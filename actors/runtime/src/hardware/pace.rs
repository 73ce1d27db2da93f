//! How fast memory is read: what bounds the answers of models on a processor.
//!
//! Owns the measurement. It takes some hundredths of a second, and is made only where several files
//! of one model are to choose from.

use std::hint::black_box;

use selvedge_net::clock;

/// Bytes read by all threads together: beyond what caches of machines at the edge hold.
const BYTES: usize = 64 << 20;
/// Threads that read: more get nothing more out of the memory of a machine at the edge.
const MAX_THREADS: usize = 8;
/// Times it is read: the first brings pages in, of the others the fastest counts.
const TIMES: usize = 4;

/// Bytes of memory that so many threads read in a second together; 0 where it cannot be told.
pub fn read_rate(threads: usize) -> u64 {
    let threads = threads.clamp(1, MAX_THREADS);
    let words: Vec<u64> = (0..(BYTES / size_of::<u64>()) as u64).collect();
    let part = words.len().div_ceil(threads);
    let mut best = u64::MAX;
    for _ in 0..TIMES {
        let begun = clock::mono();
        std::thread::scope(|scope| {
            for part in words.chunks(part) {
                scope.spawn(move || {
                    // Eight sums, so that reading is what takes the time.
                    let mut sums = [0u64; 8];
                    for eight in part.chunks_exact(8) {
                        for (sum, word) in sums.iter_mut().zip(eight) {
                            *sum = sum.wrapping_add(*word);
                        }
                    }
                    black_box(sums);
                });
            }
        });
        best = best.min(clock::mono().since(begun).0);
    }
    (BYTES as u64).saturating_mul(1_000_000).checked_div(best).unwrap_or(0)
}
