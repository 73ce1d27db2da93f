//! Names and seeds of requests, drawn without asking the system each time.
//!
//! Owns a keyed counter: the key is entropy drawn once, so names are unique across the mesh and
//! nobody can guess the next one or the seed that goes with it.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use selvedge_base::RequestId;
use selvedge_net::entropy;

/// Bytes of one draw: an id and a seed.
const DRAW_BYTES: usize = 24;
/// Draws that are made at once: eight fill three blocks of the hash's output, so that less than
/// half a block is computed for each, where one alone takes a whole one.
const BATCH: usize = 8;

type Batch = [[u8; DRAW_BYTES]; BATCH];

/// A source of request ids and seeds.
pub(super) struct Ids {
    key: [u8; 32],
    next: AtomicU64,
    /// Draws that nobody has yet, and how many of them are taken.
    made: Mutex<(Batch, usize)>,
}

impl Ids {
    pub(super) fn new() -> Self {
        let made = Mutex::new(([[0; DRAW_BYTES]; BATCH], BATCH));
        Self { key: entropy::seed(), next: AtomicU64::new(0), made }
    }

    /// A new id and a seed for it. The id's last byte is zero: the answers to one request are
    /// numbered there.
    pub(super) fn draw(&self) -> (RequestId, u64) {
        let drawn = self.bytes();
        let (mut id, mut seed) = ([0; 16], [0; 8]);
        id.copy_from_slice(&drawn[..16]);
        seed.copy_from_slice(&drawn[16..]);
        (RequestId(u128::from_be_bytes(id) & !0xff), u64::from_le_bytes(seed))
    }

    fn bytes(&self) -> [u8; DRAW_BYTES] {
        // While somebody else draws, nobody waits: there are enough batches.
        let Some(mut made) = self.made.try_lock() else { return self.batch()[0] };
        let (batch, taken) = &mut *made;
        if *taken == BATCH {
            (*batch, *taken) = (self.batch(), 0);
        }
        *taken += 1;
        batch[*taken - 1]
    }

    /// Draws that were never made before.
    fn batch(&self) -> Batch {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut batch = [[0; DRAW_BYTES]; BATCH];
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&count.to_le_bytes()).finalize_xof().fill(batch.as_flattened_mut());
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_draw_differs() {
        let (here, there) = (Ids::new(), Ids::new());
        let mut drawn: Vec<_> = (0..100).flat_map(|_| [here.draw(), there.draw()]).collect();
        drawn.sort_unstable();
        drawn.dedup_by(|a, b| a.0 == b.0 || a.1 == b.1);
        assert_eq!(drawn.len(), 200);
        assert!(drawn.iter().all(|(id, _)| id.0 & 0xff == 0));
    }

    #[test]
    fn draws_differ_whoever_draws_at_the_same_time() {
        let ids = Ids::new();
        let draw = || (0..500).map(|_| ids.draw()).collect::<Vec<_>>();
        let mut drawn: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("drawn")).collect()
        });
        // One that finds the batch in use has one of its own.
        let held = ids.made.lock();
        drawn.extend((0..3).map(|_| ids.draw()));
        drop(held);
        drawn.sort_unstable();
        drawn.dedup_by(|a, b| a.0 == b.0 || a.1 == b.1);
        assert_eq!(drawn.len(), 2_003);
    }
}
