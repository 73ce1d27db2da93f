//! What must hold of rounds, checked by an observer that sees every order and every disk.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::NodeId;
use selvedge_crdt::escrow::Holder;
use selvedge_federated::privacy::accountant::Rho;
use selvedge_federated::privacy::ledger::Cap;
use selvedge_federated::round::{
    Ballot, ContributionId, Digest, Entry, Folded, Header, Job, Opening, Pending, SignedAccept, Tip,
};
use selvedge_federated::server::Strategy;

use super::reference::{self, Reference, Update};

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// One set is closed in a round.
    OneClosedSet,
    /// At most one sum is opened in a round.
    OneSumOpened,
    /// No part of a sum is shown without a certificate that was written down.
    OpenedWithCertificate,
    /// A sum is of as many nodes as the job says.
    FloorKept,
    /// No node has more contributions in a sum than the job counts of one.
    NodeBounded,
    /// A contribution is folded once at most.
    FoldedOnce,
    /// A job is handed to anchors that were asked for, and to no others; an anchor accepts none
    /// that it was not told of.
    AnchorsAsked,
    /// The anchors of all nodes are of one line of epochs, each after the one before.
    OneLineOfAnchors,
    /// What all who may propose know to be asked for is served with the next round that begins, or
    /// overtaken.
    WishesEnd,
    /// What has a receipt is folded or recorded as expired.
    ReceiptedEnds,
    /// An anchor that says it has a contribution has it.
    ReceiptIsTrue,
    /// The number of a contribution names one update.
    NumberBound,
    /// All nodes come to the same record and model.
    SameModel,
    /// The model is what the reference makes of the updates that were folded.
    ModelIsSum,
    /// What left a node with privacy was written down as spent before.
    SpentFirst,
    /// No more leaves a node, and no more of it is folded, than its data and the job allow.
    PrivacyKept,
    /// Of what cannot be only who did it is named.
    LiarsNamed,
    /// After all faults the job comes to its end.
    Ends,
    /// A personal model is mixed once at most into another.
    MixedOnce,
    /// Only drifts from one common model are mixed.
    MixedOfOneBase,
    /// A personal model that leaves is on its node's disk.
    ToldIsDurable,
    /// A node keeps no more of others' personal models than it may, and sends its own no more
    /// often.
    MixingBounded,
}

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub promise: Promise,
    /// What happened.
    pub story: String,
}

/// The observer.
#[derive(Default)]
pub(super) struct Observer {
    pub(super) broken: Vec<Broken>,
    updates: BTreeMap<ContributionId, Pending>,
    commitments: BTreeMap<ContributionId, Digest>,
    accepts: BTreeMap<(u64, Ballot, Digest), BTreeSet<NodeId>>,
    closed: BTreeMap<u64, Digest>,
    shown: BTreeMap<u64, BTreeSet<Digest>>,
    records: BTreeMap<u64, (Digest, Digest)>,
    /// The model before each round, and the norm of its updates.
    models: BTreeMap<u64, (Reference, u32)>,
    /// What left each client with privacy, by its commitment.
    left: BTreeMap<Holder, BTreeSet<Digest>>,
    /// Where contributions ended: folded or not.
    pub(super) ended: BTreeMap<ContributionId, bool>,
    /// Contributions with enough receipts: the round from which they are due, and whose receipts.
    pub(super) receipted: BTreeMap<ContributionId, (u64, u64)>,
    /// Of how many contributions that counted it was a round or more later.
    pub(super) carried: u64,
}

/// Broken promises that are told of one run: the first says what happened.
const MAX_TOLD: usize = 8;

impl Observer {
    pub(super) fn require(
        &mut self,
        holds: bool,
        promise: Promise,
        story: impl FnOnce() -> String,
    ) {
        if !holds && self.broken.len() < MAX_TOLD {
            self.broken.push(Broken { promise, story: story() });
        }
    }

    /// The model before the first round.
    pub(super) fn begins(&mut self, job: &Job, tip: &Tip) {
        let first = Reference::new(job.strategy, tip.server.model());
        self.models.insert(0, (first, tip.norm));
    }

    /// A client wrote down what it contributes.
    pub(super) fn contributed(&mut self, pending: &Pending) {
        let before = self.updates.insert(pending.id, pending.clone());
        self.require(
            before.as_ref().is_none_or(|before| before == pending),
            Promise::NumberBound,
            || format!("contribution {:?} was written down twice", pending.id),
        );
    }

    /// A share went out, or is held: its number is of one update for ever.
    pub(super) fn named(&mut self, id: ContributionId, commitment: Digest) {
        let first = *self.commitments.entry(id).or_insert(commitment);
        self.require(first == commitment, Promise::NumberBound, || {
            format!("contribution {id:?} is of two updates")
        });
    }

    /// A contribution leaves a node of a job with privacy. `spent` is what its ledger has on disk,
    /// `cap` what it may spend.
    pub(super) fn leaves(&mut self, job: &Job, header: &Header, spent: Rho, cap: Cap) {
        let Some(privacy) = job.privacy else { return };
        let client = header.id.client;
        let left = self.left.entry(client).or_default();
        left.insert(header.commitment);
        let count = left.len() as u64;
        let cost = privacy.cost().times(count);
        self.require(cost <= spent, Promise::SpentFirst, || {
            format!("{count} contributions left {client:?} and {spent:?} is spent")
        });
        let within = cost.epsilon(cap.delta) <= cap.epsilon && count <= privacy.contributions();
        self.require(within, Promise::PrivacyKept, || {
            format!("{count} contributions left {client:?}")
        });
    }

    /// An anchor says that it has a contribution.
    pub(super) fn receipt(&mut self, id: ContributionId, is_durable: bool) {
        self.require(is_durable, Promise::ReceiptIsTrue, || {
            format!("a receipt for {id:?} before it was durable")
        });
    }

    /// An anchor accepts: once a quorum did in one turn, the set is closed.
    pub(super) fn accepts(&mut self, accept: &SignedAccept, quorum: usize) {
        let key = (accept.round, accept.ballot, accept.close);
        let anchors = self.accepts.entry(key).or_default();
        anchors.insert(accept.anchor);
        if anchors.len() >= quorum {
            self.closes(accept.round, accept.close);
        }
    }

    /// A set passes for closed.
    pub(super) fn closes(&mut self, round: u64, close: Digest) {
        let first = *self.closed.entry(round).or_insert(close);
        self.require(first == close, Promise::OneClosedSet, || {
            format!("two sets are closed in round {round}")
        });
    }

    /// An anchor shows a part of a sum.
    pub(super) fn shows(&mut self, opening: &Opening, written: Option<Digest>) {
        let (round, close) = (opening.round, opening.close);
        let is_closed = self.closed.get(&round) == Some(&close) && written == Some(close);
        self.require(is_closed, Promise::OpenedWithCertificate, || {
            format!("a part of a sum of round {round} without a certificate")
        });
        let sums = self.shown.entry(round).or_default();
        sums.insert(close);
        let one = sums.len() == 1;
        self.require(one, Promise::OneSumOpened, || format!("two sums of round {round}"));
    }

    /// A node came to the end of a round.
    pub(super) fn folds(&mut self, job: &Job, folded: &Folded, tip: &Tip) {
        let close = &folded.certificate.close;
        let round = close.round;
        self.closes(round, close.digest());
        let reached = (tip.record, tip.server.digest());
        let first = self.records.get(&round).copied();
        self.require(first.is_none_or(|first| first == reached), Promise::SameModel, || {
            format!("two models after round {round}")
        });
        if first.is_some() {
            return;
        }
        self.records.insert(round, reached);
        for group in close.groups(job) {
            let of = |entry: &&Entry| entry.header.id.client.node;
            let nodes = group.iter().map(of).collect::<BTreeSet<NodeId>>().len();
            self.require(nodes >= job.min_clients, Promise::FloorKept, || {
                format!("round {round} has a sum of {nodes} nodes")
            });
        }
        let mut of_nodes: BTreeMap<NodeId, usize> = BTreeMap::new();
        for entry in &close.entries {
            *of_nodes.entry(entry.header.id.client.node).or_default() += 1;
        }
        let most = of_nodes.values().copied().max().unwrap_or_default();
        self.require(most <= usize::from(job.per_node), Promise::NodeBounded, || {
            format!("round {round} has a sum with {most} contributions of one node")
        });
        let counted = close.entries.iter().map(|entry| (entry.header.id, true));
        let gone = close.expired.iter().map(|expired| (expired.id, false));
        for (id, folded) in counted.chain(gone) {
            let before = self.ended.insert(id, folded);
            self.require(before.is_none(), Promise::FoldedOnce, || {
                format!("contribution {id:?} ended once more in round {round}")
            });
        }
        if let Some(privacy) = job.privacy {
            let mut of_clients: BTreeMap<Holder, u64> = BTreeMap::new();
            for (id, _) in self.ended.iter().filter(|(_, folded)| **folded) {
                *of_clients.entry(id.client).or_default() += 1;
            }
            let most = of_clients.into_values().max().unwrap_or_default();
            self.require(most <= privacy.contributions(), Promise::PrivacyKept, || {
                format!("{most} contributions of one client count after round {round}")
            });
        }
        self.carried +=
            close.entries.iter().filter(|entry| entry.header.base_round < round).count() as u64;
        // A set below the floor is broken already, and no rule need cope with it.
        if close.nodes() >= job.floor() {
            self.is_sum(job, folded, tip);
        }
    }

    /// The model after a round is that of the reference, which knows the updates from their
    /// clients' disks.
    fn is_sum(&mut self, job: &Job, folded: &Folded, tip: &Tip) {
        let close = &folded.certificate.close;
        let round = close.round;
        let weighs = |entry: &&Entry| {
            i128::from(entry.weight) == reference::weight(job, &entry.header, round)
        };
        let weighed = close.entries.iter().filter(weighs).count();
        let of = |entry: &&Entry| {
            let update = self.updates.get(&entry.header.id)?;
            (update.levels.len() == job.payload_len()).then_some((entry.weight, &*update.levels))
        };
        // Who is in which group is the machines' own; that each is in one, and each has the floor,
        // is asked apart.
        let groups: Vec<Vec<Update<'_>>> =
            close.groups(job).iter().map(|own| own.iter().filter_map(of).collect()).collect();
        let count: usize = groups.iter().map(Vec::len).sum();
        let is_known = count == close.entries.len() && weighed == count;
        let before = self.models.get(&round).cloned().filter(|_| is_known);
        let next = before.map(|(before, norm)| {
            let updates = groups.iter().flatten();
            let votes = updates.filter_map(|(_, levels)| levels.get(job.trained_len()));
            let votes: i64 = votes.map(|vote| i64::from(*vote)).sum();
            let privacy = job.privacy.map(|privacy| privacy.at(norm));
            let next = privacy.filter(|_| job.follows_norm());
            let norm =
                next.map_or(norm, |privacy| privacy.next_norm(job.clip, votes, count as u32));
            (before.after(job, &groups), norm)
        });
        let is_so = next.as_ref().is_some_and(|(reference, norm)| {
            let model = tip.server.model().iter().map(|weight| i128::from(*weight));
            let control = tip.server.control().iter().map(|control| i128::from(*control));
            let has_control = matches!(job.strategy, Strategy::Scaffold { .. });
            reference.model.iter().copied().eq(model)
                && (!has_control || reference.first.iter().copied().eq(control))
                && *norm == tip.norm
        });
        self.models.extend(next.map(|next| (round + 1, next)));
        self.require(is_so, Promise::ModelIsSum, || {
            format!("the model after round {round} is not what follows from the updates")
        });
    }

    /// The end: what has receipts ended, or an anchor still has it, or it was not due before the
    /// job was over and its client, unless that is dead, has it. What only anchors had receipts of
    /// that were replaced since is worth as much as its client (docs/federated.md, "Known limits").
    pub(super) fn ends(
        &mut self,
        job: &Job,
        held: &BTreeSet<ContributionId>,
        kept: &BTreeSet<ContributionId>,
        dead: &BTreeSet<NodeId>,
        epoch: u64,
    ) {
        // With a norm that follows, what missed its round is void, and no record says so.
        let owed = if job.follows_norm() { BTreeMap::new() } else { self.receipted.clone() };
        for (id, (base_round, receipts)) in owed {
            let not_due = base_round + job.max_staleness() >= job.rounds;
            let is_kept = kept.contains(&id) || dead.contains(&id.client.node);
            let is_lost = receipts < epoch && dead.contains(&id.client.node);
            let waits = held.contains(&id) || (not_due && is_kept) || is_lost;
            let has_ended = self.ended.contains_key(&id);
            self.require(has_ended || waits, Promise::ReceiptedEnds, || {
                format!("contribution {id:?} has receipts and is neither folded nor expired")
            });
        }
    }
}
