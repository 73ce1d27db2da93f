//! How many rows of one peer are checked: each costs the check of a signature.
//!
//! Owns a count per peer that fills with time. A message beyond it is not looked at; rows come
//! again with the next digest.

use std::collections::BTreeMap;

use selvedge_base::{Mono, NodeId};

use super::MAX_PEERS;

/// Rows of one peer at once: all holders of eight budgets, as after a day apart.
const BURST: u64 = 2_048;
/// And per second from then on, a twentieth of a core. A peer that changes every row of fifty
/// budgets in a second, and passes on those of others, needs half of it.
const PER_SECOND: u64 = 1_024;

/// What peers may still have checked.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    /// Millionths of a row that are used up, and as of when. At most [`MAX_PEERS`].
    used: BTreeMap<NodeId, (u64, Mono)>,
}

impl Intake {
    /// Whether so many rows of a peer are checked now; if so they count.
    pub fn admit(&mut self, now: Mono, from: NodeId, rows: usize) -> bool {
        let left = |(used, at): &(u64, Mono)| {
            used.saturating_sub(now.since(*at).0.saturating_mul(PER_SECOND))
        };
        if self.used.len() >= MAX_PEERS && !self.used.contains_key(&from) {
            self.used.retain(|_, entry| left(entry) > 0);
        }
        let used = self.used.get(&from).map_or(0, left);
        let used = used.saturating_add((rows as u64).saturating_mul(1_000_000));
        if used > BURST * 1_000_000 || self.used.len() > MAX_PEERS {
            return false;
        }
        self.used.insert(from, (used, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_checked_at_its_pace_and_others_go_on() {
        let (mut intake, flood, other) = (Intake::default(), NodeId([1; 32]), NodeId([2; 32]));
        let mut checked = 0;
        for ms in 0..10_000u64 {
            let now = Mono(ms * 1_000);
            checked += if intake.admit(now, flood, 100) { 100 } else { 0 };
            assert!(ms % 500 > 0 || intake.admit(now, other, 400), "at {ms} ms");
        }
        assert!((11_000..=12_300).contains(&checked), "{checked} in ten seconds");
        assert!(!intake.admit(Mono(u64::MAX), flood, usize::MAX), "nor all at once, ever");
        assert!(intake.admit(Mono(u64::MAX), flood, 2_048));
    }
}
