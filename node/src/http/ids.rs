//! Names and seeds of requests, drawn without asking the system each time.
//!
//! Owns a keyed counter: the key is entropy drawn once, so names are unique across the mesh and
//! nobody can guess the next one or the seed that goes with it.

use std::sync::atomic::{AtomicU64, Ordering};

use selvedge_base::RequestId;
use selvedge_net::entropy;

/// A source of request ids and seeds.
pub(super) struct Ids {
    key: [u8; 32],
    next: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { key: entropy::seed(), next: AtomicU64::new(0) }
    }

    /// A new id and a seed for it. The id's last byte is zero: the answers to one request are
    /// numbered there.
    pub(super) fn draw(&self) -> (RequestId, u64) {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let hash = *blake3::keyed_hash(&self.key, &count.to_le_bytes()).as_bytes();
        let (mut id, mut seed) = ([0; 16], [0; 8]);
        id.copy_from_slice(&hash[..16]);
        seed.copy_from_slice(&hash[16..24]);
        (RequestId(u128::from_be_bytes(id) & !0xff), u64::from_le_bytes(seed))
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
}
