//! Ends of a round that are told and that their parts do not show.
//!
//! An end of k parts is one anchor's word: who lies has made one up as soon as k - 1 others showed
//! their parts. It is taken when another anchor said the same, or when the round after it was
//! closed on top of it, which a quorum of anchors signed. So a node that reaches one other only
//! follows all rounds but the last of a job, where that was made of so few.
//!
//! Owns what was told of the round that is next and who said what; whether an end follows from what
//! is told was worked out before.

use std::collections::BTreeMap;

use selvedge_base::NodeId;
use selvedge_crdt::escrow::Seal;

use super::Digest;
use super::certificate::Certificate;
use super::job::Job;
use super::tip::{Folded, Tip};

/// Ends that are kept at once: that of the honest, and those of some anchors that lie.
const MAX_ENDS: usize = 4;

/// What was told of the end of the next round.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    /// What each anchor said last.
    told: BTreeMap<NodeId, Digest>,
    /// By its record what follows, and from what.
    ends: BTreeMap<Digest, (Tip, Folded)>,
}

/// What word of the end of a round is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Another anchor said the same.
    Seconded,
    /// It is the first that is heard of this end.
    First,
    /// It says nothing new.
    Idle,
}

impl Hearsay {
    /// Somebody tells an end of the round. Only anchors second each other, so there is no more to
    /// keep of who said what than there are anchors.
    pub(super) fn hears(
        &mut self,
        (from, is_anchor): (NodeId, bool),
        folded: &Folded,
        tip: &Tip,
    ) -> Word {
        let record = tip.record;
        let is_new = !self.ends.contains_key(&record) && self.ends.len() < MAX_ENDS;
        if is_new {
            self.ends.insert(record, (tip.clone(), folded.clone()));
        }
        if is_anchor {
            self.told.insert(from, record);
            if self.told.iter().any(|(other, told)| *other != from && *told == record) {
                return Word::Seconded;
            }
        }
        if is_new { Word::First } else { Word::Idle }
    }

    /// The round after was closed: the end that it was closed on top of, if that was told.
    pub(super) fn before(&self, next: &Certificate, job: &Job, seal: &dyn Seal) -> Option<Folded> {
        let (tip, folded) = self.ends.get(&next.close.previous)?;
        next.check(job, tip, seal).is_ok().then(|| folded.clone())
    }

    /// The round is over. Who told another end is not named: it may have believed somebody else.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}
