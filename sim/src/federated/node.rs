//! A simulated node: its anchor, and its clients, each with a ledger, on disks that may lose the
//! end of what they were told.
//!
//! Owns what a node is made of and how it starts; what happens to it is the world's.

use std::sync::Arc;

use selvedge_crdt::escrow::Holder;
use selvedge_federated::privacy::ledger::{Ledger, LedgerChange, LedgerStored};
use selvedge_federated::round::{
    Anchor, AnchorChange, AnchorStored, Client, ClientChange, ClientStored, Tip,
};

use super::disk::Disk;
use super::plan::{Plan, key, name};
use crate::names::StandIn;
use crate::stream::Stream;

pub(super) struct Node {
    /// Counts its starts; what is under way of an earlier one is lost.
    pub(super) life: u32,
    pub(super) is_up: bool,
    pub(super) is_dead: bool,
    pub(super) members: Vec<Member>,
    pub(super) anchor: Anchor,
    pub(super) anchor_disk: Disk<AnchorStored, AnchorChange>,
    pub(super) dice: Stream,
    /// How control variates change, where a job has them.
    pub(super) controls: Stream,
}

/// One client of a node: a part of its data.
pub(super) struct Member {
    pub(super) client: Client,
    pub(super) disk: Disk<ClientStored, ClientChange>,
    pub(super) ledger: Ledger,
    pub(super) ledger_disk: Disk<LedgerStored, LedgerChange>,
}

/// Who the clients of a node are, in their order.
pub(super) fn holders(plan: &Plan, index: usize) -> impl Iterator<Item = Holder> {
    let node = name(index);
    (1..=plan.clients(index)).map(move |incarnation| Holder { node, incarnation })
}

fn anchor_of(plan: &Plan, index: usize, stored: AnchorStored) -> Anchor {
    let me = name(index);
    Anchor::new(plan.job.clone(), me, key(index), Arc::new(StandIn(me)), stored)
}

fn client_of(plan: &Plan, index: usize, me: Holder, stored: ClientStored) -> Client {
    let client = Client::new(plan.job.clone(), me, Arc::new(StandIn(me.node)), stored);
    client.beside(holders(plan, index))
}

impl Node {
    /// A node at the beginning of a job.
    pub(super) fn new(plan: &Plan, index: usize, first: &Tip) -> Self {
        let dice = |purpose, at| Stream::keyed(plan.seed, purpose, index, at);
        let member = |me: Holder| {
            let stored = ClientStored::new(first.clone());
            let at = me.incarnation as usize - 1;
            Member {
                client: client_of(plan, index, me, stored.clone()),
                disk: Disk::new(stored, dice(10, at), plan.slow_disks),
                ledger: Ledger::new(Some(plan.cap(index)), LedgerStored::default()),
                ledger_disk: Disk::new(LedgerStored::default(), dice(13, at), plan.slow_disks),
            }
        };
        let anchor = AnchorStored::new(first.clone());
        Self {
            life: 0,
            is_up: true,
            is_dead: false,
            members: holders(plan, index).map(member).collect(),
            anchor: anchor_of(plan, index, anchor.clone()),
            anchor_disk: Disk::new(anchor, dice(11, 0), plan.slow_disks),
            dice: dice(12, 0),
            controls: dice(14, 0),
        }
    }

    /// It starts again with what its disks have.
    pub(super) fn starts(&mut self, plan: &Plan, index: usize) {
        self.is_up = true;
        for (me, member) in holders(plan, index).zip(&mut self.members) {
            member.client = client_of(plan, index, me, member.disk.durable.clone());
            member.ledger = Ledger::new(Some(plan.cap(index)), member.ledger_disk.durable.clone());
        }
        self.anchor = anchor_of(plan, index, self.anchor_disk.durable.clone());
    }

    /// The chain as far as its first client follows it.
    pub(super) fn tip(&self) -> &Tip {
        self.members.first().map_or_else(|| self.anchor.tip(), |first| first.client.tip())
    }

    /// Whether its disks have all rounds of the job; those of its clients, if it trains.
    pub(super) fn has_all(&self, rounds: u64, trains: bool) -> bool {
        let mut follow = self.members.iter().map(|member| member.disk.durable.tip.round);
        let has_anchor = self.anchor_disk.durable.tip.round >= rounds;
        has_anchor && (!trains || follow.all(|round| round >= rounds))
    }

    /// Where it stands, for whoever reads why a job did not end.
    pub(super) fn story(&self) -> String {
        let stored = self.anchor.stored();
        let holds_all = stored.opened.as_ref().map(|one| {
            let entries = &one.close.entries;
            entries.iter().filter(|entry| !stored.held.contains_key(&entry.header.id)).count()
        });
        format!(
            "{} round {} epoch {}, holds {}, promised {}, accepted {}, misses of the closed {:?}",
            if self.is_dead { "dead" } else { "lives" },
            stored.tip.round,
            stored.tip.committee.epoch,
            stored.held.len(),
            stored.promised.map_or(0, |ballot| ballot.number),
            stored.accepted.is_some(),
            holds_all,
        )
    }
}
