//! Who dies in which step: what a step is, and whether somebody is to die in it.
//!
//! Owns the count of steps and who proposes; what a death does to a node is the world's.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::Micros;
use selvedge_federated::round::{AnchorChange, Ballot, ClientChange, Effect, Message};

use super::plan::name;

/// A step of an anchor or of a client, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// An anchor orders a share to be stored.
    StoreHeld,
    /// It sends a receipt.
    SendReceipt,
    /// It orders a promise to be stored.
    StorePromised,
    /// It asks for a promise.
    SendPrepare,
    /// It promises.
    SendPromise,
    /// It proposes.
    SendPropose,
    /// It orders an acceptance to be stored.
    StoreAccepted,
    /// It accepts.
    SendAccepted,
    /// It orders the closed set to be stored.
    StoreOpened,
    /// It tells the closed set.
    SendClosed,
    /// It shows its part of the sum.
    SendOpened,
    /// It orders the end of a round to be stored.
    StoreFolded,
    /// A client's ledger orders to be stored what a contribution costs.
    StoreSpent,
    /// A client orders what it contributes to be stored.
    StoreContributed,
    /// It sends a share.
    SendShare,
    /// It orders the end of a round to be stored.
    StoreFollowed,
}

impl Moment {
    /// Those of anchors, in the order of a round.
    pub const ANCHORS: &'static [Self] = &[
        Self::StoreHeld,
        Self::SendReceipt,
        Self::StorePromised,
        Self::SendPrepare,
        Self::SendPromise,
        Self::SendPropose,
        Self::StoreAccepted,
        Self::SendAccepted,
        Self::StoreOpened,
        Self::SendClosed,
        Self::SendOpened,
        Self::StoreFolded,
    ];
    /// Those of clients, in the order of a round.
    pub const CLIENTS: &'static [Self] =
        &[Self::StoreSpent, Self::StoreContributed, Self::SendShare, Self::StoreFollowed];
}

/// A step that a proposer took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub moment: Moment,
    /// Whether nothing at all was between the one before and it: to die after that one and to die
    /// before this one is the same.
    pub follows: bool,
}

/// Which steps are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Those of one kind, whoever takes them.
    Of(Moment),
    /// All that one node takes: the one that proposes in a round, from its promise to itself on
    /// until it orders the end of that round to be stored.
    OfProposer {
        /// The round.
        round: u64,
        /// How many others began to propose in that round before it.
        turn: usize,
    },
}

/// Whoever comes to a step dies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Which steps.
    pub steps: Steps,
    /// How many of them pass before.
    pub after: u32,
    /// Whether it dies just before the step, or just after.
    pub before: bool,
    /// After how long it is back; for good without.
    pub back: Option<Micros>,
}

/// Counts the steps, and says who dies.
pub(super) struct Killer<'a> {
    kills: &'a [Kill],
    /// How many steps of each kill have passed.
    passed: Vec<u32>,
    /// Who proposed in a round, in the order in which they began.
    proposers: BTreeMap<u64, Vec<usize>>,
    /// The round that a node proposes in, and in which turn.
    proposing: BTreeMap<usize, (u64, usize)>,
    /// Who has done nothing since its last step.
    still: BTreeSet<usize>,
    /// The steps that proposers took, by round and turn.
    pub(super) taken: BTreeMap<(u64, usize), Vec<Taken>>,
}

impl<'a> Killer<'a> {
    pub(super) fn new(kills: &'a [Kill]) -> Self {
        Self {
            kills,
            passed: vec![0; kills.len()],
            proposers: BTreeMap::new(),
            proposing: BTreeMap::new(),
            still: BTreeSet::new(),
            taken: BTreeMap::new(),
        }
    }

    /// A node writes down a promise in this round; one to itself begins its turn.
    pub(super) fn promises(&mut self, node: usize, round: u64, ballot: &Ballot) {
        let proposers = self.proposers.entry(round).or_default();
        if ballot.by == name(node) && !proposers.contains(&node) {
            proposers.push(node);
            self.proposing.insert(node, (round, proposers.len() - 1));
        }
    }

    /// A node does something that is no step, or begins another answer of a machine.
    pub(super) fn acts(&mut self, node: usize) {
        self.still.remove(&node);
    }

    /// A node comes to a step: how it dies in it, if it does.
    pub(super) fn comes(&mut self, node: usize, moment: Moment) -> Option<Kill> {
        let proposing = self.proposing.get(&node).copied();
        if let Some(turn) = proposing {
            let taken = self.taken.entry(turn).or_default();
            // What came before its turn is none of these steps.
            let follows = !self.still.insert(node) && !taken.is_empty();
            taken.push(Taken { moment, follows });
            if moment == Moment::StoreFolded {
                self.proposing.remove(&node);
            }
        }
        let mut due = None;
        for (kill, passed) in self.kills.iter().zip(&mut self.passed) {
            let counts = match kill.steps {
                Steps::Of(wanted) => wanted == moment,
                Steps::OfProposer { round, turn } => proposing == Some((round, turn)),
            };
            *passed += u32::from(counts);
            if counts && *passed == kill.after + 1 && due.is_none() {
                due = Some(*kill);
            }
        }
        due
    }
}

/// The step that an order of an anchor is.
pub(super) const fn of_anchor(effect: &Effect<AnchorChange>) -> Option<Moment> {
    Some(match effect {
        Effect::Store { change, .. } => match **change {
            AnchorChange::Held(_) => Moment::StoreHeld,
            AnchorChange::Promised(_) => Moment::StorePromised,
            AnchorChange::Accepted(..) => Moment::StoreAccepted,
            AnchorChange::Opened(_) => Moment::StoreOpened,
            AnchorChange::Folded(_) => Moment::StoreFolded,
        },
        Effect::Send { message, .. } => match **message {
            Message::Receipt(_) => Moment::SendReceipt,
            Message::Prepare { .. } => Moment::SendPrepare,
            Message::Promise { .. } => Moment::SendPromise,
            Message::Propose { .. } => Moment::SendPropose,
            Message::Accepted(_) => Moment::SendAccepted,
            Message::Closed(_) => Moment::SendClosed,
            Message::Opened(_) => Moment::SendOpened,
            Message::Share { .. }
            | Message::Refused { .. }
            | Message::Behind { .. }
            | Message::Ask { .. }
            | Message::Folded(_) => return None,
        },
        Effect::Replay { .. } | Effect::Train { .. } | Effect::Spend(_) | Effect::Report(_) => {
            return None;
        }
    })
}

/// The step that an order of a client is.
pub(super) const fn of_client(effect: &Effect<ClientChange>) -> Option<Moment> {
    match effect {
        Effect::Store { change, .. } => Some(match **change {
            ClientChange::Contributed(_) => Moment::StoreContributed,
            ClientChange::Folded(_) => Moment::StoreFollowed,
        }),
        Effect::Send { message, .. } if matches!(**message, Message::Share { .. }) => {
            Some(Moment::SendShare)
        }
        Effect::Send { .. }
        | Effect::Replay { .. }
        | Effect::Train { .. }
        | Effect::Spend(_)
        | Effect::Report(_) => None,
    }
}
