//! Finding out that this node's store was rolled back, copied or lost.
//!
//! A row is only ever told once it is durable. So when a peer holds a row of ours that our disk
//! does not know, the disk went back in time, or another copy of it is at work. Either way what it
//! says of our rights is wrong; the incarnation ends and its successor begins without rights. The
//! proof is our own signature: a peer's word alone ends nothing.

use std::collections::BTreeMap;

use selvedge_base::NodeId;
use selvedge_base::plant::{self, Plant};
use selvedge_crdt::escrow::{Backing, EscrowRow, Holder, LedgerKey, SignedRow};

use super::charge::{QuotaRefusal, Why};
use super::purse::Account;
use super::{
    MAX_HEADS, MAX_PAYLOAD_BYTES, MAX_PEERS, Quota, QuotaEffect, QuotaEvent, QuotaMessage, Verdict,
};

/// Incarnations are drawn this far apart: a store that is restored from the same copy twice never
/// lands on a name it already had.
const INCARNATION_STEP: u64 = 1 << 32;
/// Rows in an answer to a recall. One is proof.
const MAX_RECALLED: usize = 2;

impl Quota {
    /// A member can be reached: ask what it holds of ours.
    pub(super) fn met(&mut self, node: NodeId, effects: &mut Vec<QuotaEffect>) {
        if node == self.holder.node || self.peers.len() >= MAX_PEERS {
            return;
        }
        self.peers.entry(node).or_insert(None);
        self.absent.remove(&node);
        self.recall(node, effects);
    }

    pub(super) fn recall(&self, node: NodeId, effects: &mut Vec<QuotaEffect>) {
        let heads = self
            .accounts()
            .map(|account| (account.own.key, account.written()))
            .filter(|(_, seq)| *seq > 0)
            .take(MAX_HEADS)
            .collect();
        let message = QuotaMessage::Recall { holder: self.holder, heads };
        effects.push(QuotaEffect::Send { to: node, message });
    }

    /// A peer wants to know what is held of it.
    pub(super) fn recalled_by(
        &mut self,
        from: NodeId,
        holder: Holder,
        heads: &[(LedgerKey, u64)],
        effects: &mut Vec<QuotaEffect>,
    ) {
        if !self.note_peer(from, holder) {
            return;
        }
        let heads: BTreeMap<_, _> = heads.iter().copied().collect();
        let named = |key: &LedgerKey| heads.get(key);
        let mut rows: Vec<SignedRow> = Vec::new();
        let mut left = MAX_PAYLOAD_BYTES;
        for account in self.accounts() {
            let Some(signed) = account.ledger.get(&holder) else { continue };
            let size = signed.wire_bytes();
            let newer = named(&signed.row.key).is_none_or(|seq| *seq < signed.row.seq);
            if newer && rows.len() < MAX_RECALLED && size <= left {
                left -= size;
                rows.push(signed.clone());
            }
        }
        for ((key, of), kept) in &self.kept {
            let newest = kept.accepted.as_ref().filter(|_| *of == holder);
            let Some(signed) = newest.filter(|signed| signed.row.signer() == holder.node) else {
                continue;
            };
            let newer = named(key).is_none_or(|seq| *seq < signed.row.seq);
            if newer && rows.len() < MAX_RECALLED && signed.wire_bytes() <= left {
                left -= signed.wire_bytes();
                rows.push(signed.clone());
            }
        }
        let message = QuotaMessage::Recalled { holder, rows };
        effects.push(QuotaEffect::Send { to: from, message });
    }

    /// The answer to this node's recall.
    pub(super) fn recalled(
        &mut self,
        from: NodeId,
        holder: Holder,
        rows: Vec<SignedRow>,
        effects: &mut Vec<QuotaEffect>,
    ) {
        if holder != self.holder {
            return;
        }
        for signed in rows {
            if signed.row.holder == self.holder {
                self.met_own_row(signed, effects);
            }
        }
        let heard = !plant::is_on(Plant::ConfirmationUnheard);
        if holder == self.holder && !self.confirmed && heard {
            self.confirmed = true;
            self.freed = true;
            effects.push(QuotaEffect::Report(QuotaEvent::Confirmed { by: from }));
        }
    }

    /// Notes which holder a peer says it is; false when it speaks for another node.
    pub(super) fn note_peer(&mut self, from: NodeId, holder: Holder) -> bool {
        if holder.node != from || from == self.holder.node {
            return false;
        }
        // The latest word counts: names of stores are drawn, so a newer one may be the smaller.
        if let Some(known) = self.peers.get_mut(&from) {
            *known = Some(holder);
        }
        true
    }

    /// Somebody sent a row of this very holder.
    pub(super) fn met_own_row(&mut self, signed: SignedRow, effects: &mut Vec<QuotaEffect>) {
        let key = signed.row.key;
        if self.is_witnessed(&key) && !self.met_own_witnessed(&signed, effects) {
            return;
        }
        let held = self.accounts().find(|account| account.own.key == key);
        let ours = match held {
            Some(account) if account.seat.is_some() => account.own.seq,
            // Rows between the durable one and the planned one were never told.
            Some(account) if signed.row.seq < account.durable.seq => return,
            Some(account) if signed.row == account.durable => return,
            Some(account) => account.durable.seq,
            // Its ledger was dropped.
            None if self.floor_of(&key) > key.window => return,
            None => 0,
        };
        if !signed.is_signed(&*self.seal) {
            return;
        }
        if plant::is_on(Plant::RollbackUnnoticed) {
            return;
        }
        let theirs = signed.row.seq;
        self.new_incarnation();
        self.confirmed = true;
        for account in self.accounts_mut().filter(|account| account.own.key == key) {
            let _held = account.ledger.merge(signed.clone(), |_| true);
            account.backing = Backing::default();
            account.backing.doubt_all();
        }
        let incarnation = self.holder.incarnation;
        let event = QuotaEvent::RolledBack { key, ours, theirs, incarnation };
        effects.push(QuotaEffect::Report(event));
        for id in self.journal.forget() {
            let refusal = QuotaRefusal::plain(Why::Unknown, None);
            if self.forget_request(id) {
                effects.push(QuotaEffect::Answer { id, verdict: Verdict::Refused(refusal) });
            }
        }
    }

    /// Ends the incarnation. Its rows stay as those of a stranger; its reservations settle to
    /// nothing, since everything up to its marks is spent already.
    pub(super) fn new_incarnation(&mut self) {
        let ended = self.holder;
        let step = 1 + self.dice.below(INCARNATION_STEP);
        self.holder.incarnation = ended.incarnation.saturating_add(step);
        let (holder, seal) = (self.holder, self.seal.clone());
        for account in self.accounts_mut() {
            let row =
                std::mem::replace(&mut account.durable, EscrowRow::new(account.own.key, holder));
            let mut next = Account::new(row.key, holder, 0);
            next.ledger = account.ledger.clone();
            next.stored = account.stored;
            if row.seq > 0 && row.signer() == holder.node {
                let _held = next.ledger.merge(SignedRow::seal(row, &*seal), |_| true);
            }
            next.backing.doubt_all();
            *account = next;
        }
        for purse in &mut self.purses {
            purse.takeover = None;
            purse.asked_policy = None;
            purse.permits = 0;
            purse.bucket.drain();
        }
        for request in self.requests.values_mut() {
            request.void();
        }
        self.retired = false;
        self.journal.header = true;
        self.journal.urgent = true;
    }

    fn floor_of(&self, key: &LedgerKey) -> u64 {
        let purse = self.places.get(&key.budget).map(|at| self.purses[*at].floor);
        purse.or_else(|| self.floors.get(&key.budget).copied()).unwrap_or(0)
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = &Account> {
        let purses = self.purses.iter().flat_map(|purse| &purse.accounts);
        purses.chain(self.dormant.values().flatten())
    }

    fn accounts_mut(&mut self) -> impl Iterator<Item = &mut Account> {
        let purses = self.purses.iter_mut().flat_map(|purse| &mut purse.accounts);
        purses.chain(self.dormant.values_mut().flatten())
    }
}
