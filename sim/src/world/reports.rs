//! What budgets say of themselves at each node, and what the observer makes of it.
//!
//! Owns the reading of reports, whom a node may hold for a liar, and the audit of what machines say
//! against the observer's own accounts. What budgets do is in `quota`.

use selvedge_base::NodeId;
use selvedge_core::quota::QuotaEvent;
use selvedge_crdt::escrow::{Holder, LedgerKey, RowRefused};
use selvedge_proto::policy::Unit;

use super::World;
use crate::invariant::Invariant;
use crate::marks::Mark;
use crate::plan::FaultKind;
use crate::watch::{Event, EventKind};

impl World<'_> {
    pub(super) fn reported(&mut self, node: usize, event: &QuotaEvent) {
        let cut = self.network.is_cut();
        match event {
            QuotaEvent::Gave { key, to, amount } => {
                let at = self.now.0;
                if let Some(ledger) = self.books.ledgers.get_mut(key) {
                    ledger.gave_at = at;
                }
                self.hit(Mark::RightsGiven);
                if cut {
                    self.hit(Mark::RightsGivenWhileCut);
                }
                self.record("gave", [node, node], &amount.to_be_bytes());
                self.show_transfer(EventKind::TransferMade, node, to.node, (*key, *amount));
            }
            QuotaEvent::Got { key, from, amount } => {
                self.record("got", [node, node], &amount.to_be_bytes());
                self.show_transfer(EventKind::TransferTaken, node, from.node, (*key, *amount));
            }
            QuotaEvent::AskedPeer { urgent: true, .. } => {
                let memory = &mut self.nodes[node].memory;
                let asking = memory.asking.and_then(|request| memory.taken.get_mut(&request));
                if let Some(taken) = asking {
                    taken.drawn.held = true;
                    self.hit(Mark::HeldForAnswer);
                }
            }
            QuotaEvent::Reclaimed { amount, .. } => {
                self.hit(Mark::RightsReclaimed);
                self.record("reclaimed", [node, node], &amount.to_be_bytes());
            }
            QuotaEvent::TakenOver { .. } => self.hit(Mark::RowTakenOver),
            QuotaEvent::Regained { .. } => self.hit(Mark::RowRegained),
            QuotaEvent::RolledBack { .. } => self.hit(Mark::RollbackDetected),
            QuotaEvent::DebtBooked { .. } => self.hit(Mark::DebtBooked),
            QuotaEvent::Evidence(misdeed) => {
                self.hit(Mark::EquivocationSeen);
                self.accuse(node, &misdeed.holder().node, "equivocation");
            }
            QuotaEvent::Overdrawn { key, holder, by } if !self.had_of_a_liar(key, holder) => {
                self.accuse(node, by, "overdrawn");
            }
            QuotaEvent::RowRefused { from, why } => {
                if self.liars.contains(&self.names.index(from)) {
                    return self.hit(Mark::ForgeryRefused);
                }
                // Whoever has just joined is a stranger to those that have not heard of it yet;
                // its rows come again. One that was put out is to those that started since, unless
                // the configuration names it: what it gave counts elsewhere.
                if let RowRefused::Stranger(who) = why {
                    let who = self.names.index(who);
                    if self.joins(who) || self.nodes[who].is_revoked {
                        return;
                    }
                }
                let seen = format!("node {node} from {}: {why}", from.short());
                self.broken(Invariant::QuotaHonestRowsTaken, seen);
            }
            _ => {}
        }
        if self.watch.wants_events()
            && !matches!(event, QuotaEvent::Gave { .. } | QuotaEvent::Got { .. })
        {
            let text = format!("{event:?}");
            self.show(EventKind::QuotaReported, node, None, || text);
        }
    }

    /// Whether a node becomes a member in the course of the run.
    fn joins(&self, node: usize) -> bool {
        let joins =
            |kind: &FaultKind| matches!(kind, FaultKind::Join { node: one } if *one == node);
        self.plan.faults.iter().any(|fault| joins(&fault.kind))
    }

    /// A node holds another for a liar. Only those that are made to lie, or whose disks forgot,
    /// may be.
    fn accuse(&mut self, node: usize, who: &NodeId, of: &str) {
        let peer = self.names.index(who);
        // Whose own disk forgot what it gave cannot judge what others got of it.
        if !self.liars.contains(&peer) && !self.liars.contains(&node) {
            let seen = format!("node {node} holds {peer} for a liar: {of}");
            self.broken(Invariant::QuotaHonestRowsTaken, seen);
        }
    }

    /// Whether a disk that forgot had given to a holder: until the two stories of that disk meet,
    /// whoever knows the one without the gift finds the holder's row uncovered.
    fn had_of_a_liar(&self, key: &LedgerKey, holder: &Holder) -> bool {
        let Some(ledger) = self.books.ledgers.get(key) else { return false };
        let mut donors = ledger.holders.iter().filter(|(_, held)| held.out.contains_key(holder));
        donors.any(|(donor, _)| self.liars.contains(&self.names.index(&donor.node)))
    }

    fn show_transfer(
        &mut self,
        kind: EventKind,
        node: usize,
        peer: NodeId,
        (key, amount): (LedgerKey, u64),
    ) {
        if !self.watch.wants_events() {
            return;
        }
        let budget = self.places.get(&key.budget).map(|place| self.budget_number(*place));
        let event = Event {
            at: self.now.0,
            kind,
            node: Some(node),
            peer: Some(self.names.index(&peer)),
            request: None,
            span: None,
            budget,
            amount: Some(amount),
            text: format!("{amount}"),
        };
        self.watch.event(event);
    }

    /// Holds what all machines say of themselves against the observer's accounts.
    pub(super) fn audit(&mut self) {
        let mut wrong = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.acts()) {
            let Some(quota) = &node.memory.quota else { continue };
            for audit in quota.audit() {
                let windowed = !matches!(audit.unit, Unit::Concurrent | Unit::Rate);
                let Some(ledger) = self.books.ledgers.get(&audit.key) else { continue };
                let got = ledger.gifts(&audit.holder);
                if audit.counted > got + ledger.forgotten {
                    let seen = format!("node {index} counts {} of {got}: {audit:?}", audit.counted);
                    wrong.push((Invariant::QuotaConserved, seen));
                }
                if windowed && audit.spent > audit.planned_hw.max(audit.hw) {
                    wrong.push((Invariant::QuotaSpentWithinHw, format!("node {index}: {audit:?}")));
                }
            }
        }
        for (invariant, seen) in wrong {
            self.broken(invariant, seen);
        }
    }
}
