//! How often a member's questions about this node's data are looked at.
//!
//! A look reads all of the data, and any member may ask. Who asked waits with the next question for
//! about as long as the look before took, so that one asker has at most half of the time in which a
//! node reads. Owns those times; whoever looks says when it began and when it is over.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Mono, NodeId};

/// The shortest wait: as many looks at small data are answered in a minute as nobody types.
const MIN_REST: Micros = Micros::secs(1);
/// Askers that are remembered: more than ask within one look, and only members come here.
const MAX_RESTING: usize = 128;

/// Until when whose questions wait.
#[derive(Debug, Default)]
pub(super) struct Rests(BTreeMap<NodeId, Mono>);

impl Rests {
    /// How long a question of such an asker still waits.
    pub(super) fn left(&self, now: Mono, asker: &NodeId) -> Micros {
        self.0.get(asker).map_or(Micros(0), |until| until.since(now))
    }

    /// A look for an asker is over, or nobody waits for it any more.
    pub(super) fn over(&mut self, now: Mono, asker: NodeId, began: Mono) {
        self.0.retain(|_, until| *until > now);
        if self.0.len() >= MAX_RESTING && !self.0.contains_key(&asker) {
            let first = self.0.iter().min_by_key(|(_, until)| **until).map(|(node, _)| *node);
            if let Some(first) = first {
                self.0.remove(&first);
            }
        }
        let until = now.plus(now.since(began).max(MIN_REST));
        let kept = self.0.entry(asker).or_insert(until);
        // One that hung up while it still waited gains nothing by it.
        *kept = until.max(*kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Mono {
        Mono(0).plus(Micros::millis(ms))
    }

    #[test]
    fn who_asked_waits_as_long_as_the_look_took_and_a_second_at_least() {
        let (mut rests, asker, other) = (Rests::default(), NodeId([1; 32]), NodeId([2; 32]));
        assert_eq!(rests.left(at(0), &asker), Micros(0));
        rests.over(at(4_000), asker, at(1_000));
        assert_eq!(rests.left(at(4_500), &asker), Micros::millis(2_500));
        assert_eq!(rests.left(at(4_500), &other), Micros(0));
        assert_eq!(rests.left(at(7_000), &asker), Micros(0));
        rests.over(at(8_000), asker, at(7_999));
        assert_eq!(rests.left(at(8_000), &asker), Micros::secs(1));
    }

    #[test]
    fn who_hangs_up_while_it_waits_does_not_wait_less() {
        let (mut rests, asker) = (Rests::default(), NodeId([1; 32]));
        rests.over(at(8_000), asker, at(0));
        rests.over(at(9_000), asker, at(16_000));
        assert_eq!(rests.left(at(9_000), &asker), Micros::secs(7));
    }

    #[test]
    fn askers_are_bounded_and_whose_wait_ends_first_is_forgotten() {
        let mut rests = Rests::default();
        let name = |at: u64| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&at.to_be_bytes());
            NodeId(name)
        };
        let most = MAX_RESTING as u64;
        for one in 0..=most {
            rests.over(at(1_000 + one), name(one), at(0));
        }
        assert_eq!(rests.0.len(), MAX_RESTING);
        assert_eq!(rests.left(at(1_500), &name(0)), Micros(0));
        assert!(rests.left(at(1_500), &name(most)) > Micros(0));
        rests.over(at(9_000), name(0), at(8_999));
        assert_eq!(rests.0.len(), 1, "those whose wait is over");
    }
}
