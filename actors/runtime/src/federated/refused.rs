//! Who was refused in a job, as people are told of it: in the log and in the job's status.
//!
//! Owns the words, and the names in them. How often something is said, and what is remembered, is
//! [`Refusals`]' to decide. Nothing of what a node sent is repeated, only what is wrong with it. A
//! node writes its name itself and may take another's, so the log has the end of its id as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::{Mono, NodeId};
use selvedge_federated::refusals::Refusals;
use selvedge_federated::round::Refused;

use crate::shared::Shared;

/// The reason, in a word, where somebody sent what is no contribution and cannot be.
const MISDEED: &str = "misdeed";

/// What people call a node.
pub(super) type Naming = Box<dyn Fn(&NodeId) -> String + Send + Sync>;

/// Refusals by node and reason, as they are written down.
pub(super) type Recorded = Vec<(NodeId, String, u64)>;

/// The names that the mesh has for nodes, as this node knows them when it is asked.
pub(super) fn names_of(shared: &Arc<Shared>) -> Naming {
    // What has the names has the jobs, too.
    let shared = Arc::downgrade(shared);
    Box::new(move |node| match shared.upgrade() {
        Some(shared) => shared.view.load().name_of(node),
        None => node.short(),
    })
}

/// What was noted of a refusal, and is to be written down.
pub(super) struct Noted {
    /// What people shall be told; nothing where nodes that do all they should come to it too.
    pub(super) line: Option<String>,
}

impl Noted {
    const fn said(line: String) -> Self {
        Self { line: Some(line) }
    }
}

/// Who was refused in one job.
pub(super) struct Refusees {
    job: String,
    naming: Naming,
    book: Mutex<Refusals>,
}

impl Refusees {
    /// Nobody yet; nodes have no names.
    pub(super) fn new(job: &str) -> Self {
        let naming: Naming = Box::new(NodeId::short);
        Self { job: job.to_owned(), naming, book: Mutex::default() }
    }

    /// The same with the names that the mesh has for nodes.
    pub(super) fn named(self, naming: Naming) -> Self {
        Self { naming, ..self }
    }

    /// What people call a node, without what would move a terminal's cursor.
    fn called(&self, node: &NodeId) -> String {
        (self.naming)(node).chars().filter(|letter| !letter.is_control()).collect()
    }

    /// The same with the end of the node's id: a node may call itself as another does.
    pub(super) fn name(&self, node: &NodeId) -> String {
        let (called, id) = (self.called(node), node.short());
        if called == id { id } else { format!("{called} ({id})") }
    }

    /// What earlier lives of this node wrote down, unless this one knows more.
    pub(super) fn restore(&self, recorded: Recorded) {
        let mut book = self.book.lock();
        if book.is_empty() {
            let mut reasons = Refused::KINDS.to_vec();
            reasons.push(MISDEED);
            *book = Refusals::restored(recorded, &reasons);
        }
    }

    /// How often each node was refused, by reason.
    pub(super) fn counts(&self) -> BTreeMap<NodeId, BTreeMap<&'static str, u64>> {
        self.book.lock().counts()
    }

    /// The same, to be written down.
    pub(super) fn recorded(&self) -> Recorded {
        let each = |(node, reasons): (NodeId, BTreeMap<&'static str, u64>)| {
            reasons.into_iter().map(move |(why, times)| (node, why.to_owned(), times))
        };
        self.counts().into_iter().flat_map(each).collect()
    }

    /// Counts a node that was in a sum which cannot be; people are told of all of them together.
    pub(super) fn beyond(&self, node: NodeId) {
        // The sum that it was in is written down with it.
        let _ = self.book.lock().count(node, Refused::Beyond.kind(), 1);
    }

    /// A contribution that this node refused as an anchor. Where nodes that do all they should come
    /// to it too it is counted, and nobody is told.
    pub(super) fn contribution(&self, now: Mono, from: NodeId, why: Refused) -> Option<Noted> {
        let reason = why.kind();
        if why.is_of_timing() {
            let is_first = self.book.lock().count(from, reason, 1);
            return is_first.then_some(Noted { line: None });
        }
        let times = self.book.lock().note(now, from, reason, 1)?;
        let (job, node, id) = (&self.job, self.called(&from), from.short());
        tracing::warn!(job, node, id, reason, times, %why, "a contribution is refused");
        let what = match times {
            1 => "a contribution".to_owned(),
            _ => format!("{times} contributions"),
        };
        Some(Noted::said(format!("refused {what} of {}: {why}", self.name(&from))))
    }

    /// Something that nobody may send.
    pub(super) fn misdeed(&self, now: Mono, by: NodeId, what: &str) -> Option<Noted> {
        let times = self.book.lock().note(now, by, MISDEED, 1)?;
        let (job, node, id) = (&self.job, self.called(&by), by.short());
        tracing::warn!(job, node, id, times, what, "a node sent what cannot be");
        let more = match times {
            1 => String::new(),
            _ => format!(", and {} times before since that was last told", times - 1),
        };
        Some(Noted::said(format!("{} sent {what}{more}", self.name(&by))))
    }
}

#[cfg(test)]
mod tests {
    use selvedge_federated::refusals::SAY_EVERY;

    use super::*;

    const LIAR: NodeId = NodeId([1; 32]);

    fn named() -> Refusees {
        Refusees::new("wear").named(Box::new(|node| match *node {
            LIAR => "li\u{1b}[2Jar\n".to_owned(),
            other => other.short(),
        }))
    }

    fn line(noted: Option<Noted>) -> Option<String> {
        noted.and_then(|noted| noted.line)
    }

    #[test]
    fn the_line_names_the_sender_and_the_reason_and_how_often() {
        let all = named();
        let first = line(all.contribution(Mono(0), LIAR, Refused::Sealed));
        let id = LIAR.short();
        let said = format!("refused a contribution of li[2Jar ({id}): the share cannot be opened");
        assert_eq!(first, Some(said));
        for _ in 0..3 {
            assert!(all.contribution(Mono(1), LIAR, Refused::Sealed).is_none(), "too soon");
        }
        let later = line(all.contribution(Mono(SAY_EVERY.0), LIAR, Refused::Sealed));
        let said = format!("refused 4 contributions of li[2Jar ({id}): the share cannot be opened");
        assert_eq!(later, Some(said));
        let other = NodeId([2; 32]);
        let sent = line(all.misdeed(Mono(3), other, "a receipt that does not fit"));
        assert_eq!(sent, Some(format!("{} sent a receipt that does not fit", other.short())));
        let counts = all.counts();
        assert_eq!(counts[&LIAR], BTreeMap::from([("sealed", 5)]));
        assert_eq!(counts[&other], BTreeMap::from([("misdeed", 1)]));
    }

    #[test]
    fn what_honest_nodes_come_to_is_counted_and_blames_nobody() {
        let all = named();
        let noted = || all.contribution(Mono(0), LIAR, Refused::Replayed { last: 3 });
        assert!(noted().is_some_and(|noted| noted.line.is_none()), "the first one is written down");
        assert!(noted().is_none());
        assert_eq!(all.counts()[&LIAR], BTreeMap::from([("replayed", 2)]));
    }

    #[test]
    fn what_was_written_down_is_known_to_the_next_life_and_no_other() {
        let all = named();
        let _said = all.contribution(Mono(0), LIAR, Refused::Digest);
        let _said = all.misdeed(Mono(0), LIAR, "a receipt that does not fit");
        all.beyond(LIAR);
        let next = named();
        next.restore(all.recorded());
        assert_eq!(next.counts(), all.counts());
        let known = BTreeMap::from([("beyond", 1), ("digest", 1), ("misdeed", 1)]);
        assert_eq!(next.counts()[&LIAR], known);
        // A run that begins anew in the same life knows what came since.
        let _said = next.contribution(Mono(0), LIAR, Refused::Digest);
        next.restore(all.recorded());
        assert_eq!(next.counts()[&LIAR]["digest"], 2);
    }
}
