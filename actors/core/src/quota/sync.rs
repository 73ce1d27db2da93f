//! Exchanging rows: what comes in, what goes out and to whom.
//!
//! Rows travel three ways: a gift's row goes straight to its receiver, changed rows go to a few
//! peers every second, and digests find what was lost on the way.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::{NodeId, Now};
use selvedge_crdt::escrow::{LedgerKey, Misdeed, RowMerged, SignedRow, Standing};

use super::purse::Account;
use super::{MAX_PAYLOAD_BYTES, Quota, QuotaDigest, QuotaEffect, QuotaEvent, QuotaMessage};

/// Peers told of changed rows every second. With three, news reaches a hundred nodes in about five
/// seconds, and a node's traffic does not grow with the mesh.
const FANOUT: usize = 3;
/// Peers a digest goes to every second.
const DIGEST_FANOUT: usize = 1;
/// Bytes of one ledger's key and of one holder with a number in a digest, at most.
const KEY_BYTES: usize = 26;
const HEAD_BYTES: usize = 52;

impl Quota {
    /// A member said something.
    pub(super) fn received(
        &mut self,
        now: Now,
        from: NodeId,
        message: QuotaMessage,
        effects: &mut Vec<QuotaEffect>,
    ) {
        if from == self.holder.node || !message.is_within_bounds() {
            return;
        }
        match message {
            QuotaMessage::Digest(digest) => self.compared(now, from, &digest, effects),
            QuotaMessage::Rows(rows) => {
                let ledgers: BTreeSet<_> = rows.iter().map(|signed| signed.row.key).collect();
                for signed in rows {
                    self.met_row(now, from, signed, effects);
                }
                for key in ledgers {
                    if let Some(place) = self.places.get(&key.budget).copied() {
                        self.withhold(place, &key, now.wall);
                    }
                }
            }
            QuotaMessage::Ask(ask) => self.asked_for_rights(now, from, ask, effects),
            QuotaMessage::Declined { key } => self.declined(now, key, effects),
            QuotaMessage::Recall { holder, heads } => {
                self.recalled_by(from, holder, &heads, effects);
            }
            QuotaMessage::Recalled { holder, rows } => self.recalled(from, holder, rows, effects),
        }
    }

    /// A row came.
    fn met_row(
        &mut self,
        now: Now,
        from: NodeId,
        signed: SignedRow,
        effects: &mut Vec<QuotaEffect>,
    ) {
        if signed.row.holder == self.holder {
            return self.met_own_row(signed, effects);
        }
        let (key, holder) = (signed.row.key, signed.row.holder);
        let Some(place) = self.place_of_ledger(&key, now, effects) else { return };
        let elastic = self.purses[place].elastic();
        let Some(account) = self.purses[place].account_mut(key.window) else { return };
        let seal = &*self.seal;
        match account.ledger.merge(signed, |signed| signed.is_signed(seal)) {
            RowMerged::Known => return,
            RowMerged::Newer => {
                account.fresh.insert(holder);
                // A row that became known may be what another was waiting for.
                account.gifts = true;
                account.count_others();
            }
            RowMerged::Conflict(misdeed) => report_misdeed(misdeed, effects),
            RowMerged::Refused(why) => {
                return effects.push(QuotaEffect::Report(QuotaEvent::RowRefused { from, why }));
            }
        }
        let Some(signed) = account.ledger.get(&holder) else { return };
        if let Some(ceiling) = self.book.ceiling(&key, &holder) {
            let allowed = ceiling.saturating_add(elastic);
            if account.ledger.standing(&signed.row, allowed, &account.own) == Standing::Overdrawn {
                effects.push(QuotaEffect::Report(QuotaEvent::Overdrawn { key, holder }));
            }
        }
        if account.has_uncounted_gifts(&self.holder) {
            self.journal.mark(place, key.window);
            self.journal.urgent = true;
        }
    }

    /// A peer says what it has: it gets what it lacks, and is asked when it knows more of this
    /// node than this node itself.
    fn compared(
        &mut self,
        now: Now,
        from: NodeId,
        digest: &QuotaDigest,
        effects: &mut Vec<QuotaEffect>,
    ) {
        if !self.note_peer(from, digest.holder) {
            return;
        }
        let mut rows = Vec::new();
        let mut left = MAX_PAYLOAD_BYTES;
        let mut suspicious = false;
        for (key, heads) in &digest.heads {
            let Some(place) = self.place_of_ledger(key, now, effects) else { continue };
            let (me, seal) = (self.holder, self.seal.clone());
            let Some(account) = self.purses[place].account_mut(key.window) else { continue };
            let named: BTreeMap<_, _> = heads.iter().copied().collect();
            let theirs = |holder| named.get(holder).copied().unwrap_or(0);
            suspicious |= theirs(&me) > account.durable.seq;
            if account.durable.seq > theirs(&me) {
                account.sign(&*seal);
                push_row(account.signed.as_ref(), &mut rows, &mut left);
            }
            for signed in account.ledger.rows() {
                if signed.row.seq > theirs(&signed.row.holder) {
                    push_row(Some(signed), &mut rows, &mut left);
                }
            }
        }
        if !rows.is_empty() {
            effects.push(QuotaEffect::Send { to: from, message: QuotaMessage::Rows(rows) });
        }
        if suspicious {
            self.recall(from, effects);
        }
    }

    /// Tells a few peers what changed here, and one of them what this node has.
    pub(super) fn tell(&mut self, _now: Now, effects: &mut Vec<QuotaEffect>) {
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        if peers.is_empty() {
            return;
        }
        let rows = self.changed_rows();
        for peer in self.draw(&peers, FANOUT) {
            for rows in in_messages(&rows) {
                effects.push(QuotaEffect::Send { to: peer, message: QuotaMessage::Rows(rows) });
            }
        }
        for peer in self.draw(&peers, DIGEST_FANOUT) {
            let digest = QuotaMessage::Digest(self.digest());
            effects.push(QuotaEffect::Send { to: peer, message: digest });
        }
    }

    /// The rows of this node that changed since it last told them.
    fn changed_rows(&mut self) -> Vec<SignedRow> {
        let mut rows = Vec::new();
        let seal = self.seal.clone();
        for purse in &mut self.purses {
            let Some(account) = purse.current_mut() else { continue };
            if account.durable.seq > account.told {
                account.told = account.durable.seq;
                account.sign(&*seal);
                rows.extend(account.signed.clone());
            }
        }
        rows
    }

    /// What this node has, as much as fits a message; the next one goes on where this ends.
    fn digest(&mut self) -> QuotaDigest {
        let mut heads = Vec::new();
        let mut left = MAX_PAYLOAD_BYTES;
        let count = self.purses.len();
        for step in 0..count {
            let place = (self.digest_from + step) % count;
            let Some(account) = self.purses[place].current() else { continue };
            let size = KEY_BYTES + HEAD_BYTES * (1 + account.ledger.len());
            if size > left && !heads.is_empty() {
                self.digest_from = place;
                break;
            }
            left = left.saturating_sub(size);
            let mut known = Vec::with_capacity(1 + account.ledger.len());
            if account.durable.seq > 0 {
                known.push((self.holder, account.durable.seq));
            }
            let rows = account.ledger.rows().map(|signed| (signed.row.holder, signed.row.seq));
            known.extend(rows);
            heads.push((account.own.key, known));
        }
        QuotaDigest { holder: self.holder, heads }
    }

    /// This node's durable row of a ledger and the rows it counts on, so that the receiver can
    /// check it at once.
    pub(super) fn proof_of(&mut self, place: usize, key: LedgerKey) -> Vec<SignedRow> {
        let seal = self.seal.clone();
        let account = self.purses.get_mut(place).and_then(|purse| purse.account_mut(key.window));
        let Some(account) = account.filter(|account| account.durable.seq > 0) else {
            return Vec::new();
        };
        account.sign(&*seal);
        let (mut rows, mut left) = (Vec::new(), MAX_PAYLOAD_BYTES);
        push_row(account.signed.as_ref(), &mut rows, &mut left);
        for donor in account.durable.basis.keys() {
            push_row(account.ledger.get(donor), &mut rows, &mut left);
        }
        rows
    }

    /// The place of a ledger that is open here, made if its budget is known and it is the current
    /// one. Ledgers that only others have opened yet are met again later.
    pub(super) fn place_of_ledger(
        &mut self,
        key: &LedgerKey,
        now: Now,
        effects: &mut Vec<QuotaEffect>,
    ) -> Option<usize> {
        let place = match self.places.get(&key.budget) {
            Some(place) => *place,
            None => self.place_of(self.book.budget(&key.budget)?, now, effects)?,
        };
        self.refresh(place, now, effects);
        self.purses[place].account(key.window)?;
        Some(place)
    }

    /// Up to `count` of the peers, by chance.
    fn draw(&mut self, peers: &[NodeId], count: usize) -> Vec<NodeId> {
        let start = self.dice.below(peers.len() as u64) as usize;
        let around = peers.iter().cycle().skip(start).copied();
        around.take(count.min(peers.len())).collect()
    }
}

impl Account {
    /// Makes the signed form of the durable row.
    fn sign(&mut self, seal: &dyn selvedge_crdt::escrow::Seal) {
        if self.signed.is_none() {
            self.signed = Some(SignedRow::seal(self.durable.clone(), seal));
        }
    }

    fn has_uncounted_gifts(&self, me: &selvedge_crdt::escrow::Holder) -> bool {
        self.ledger.gifts_to(me).any(|(signed, amount)| {
            amount > self.credited.get(&signed.row.holder).copied().unwrap_or(0)
        })
    }

    /// After a restart: gifts on disk count if this node's row named them, or will.
    pub(super) fn count_durable_gifts(&mut self, me: &selvedge_crdt::escrow::Holder) {
        let named: Vec<_> = self
            .ledger
            .gifts_to(me)
            .filter(|(signed, _)| {
                let basis = self.own.basis.get(&signed.row.holder);
                basis.is_some_and(|seq| *seq <= signed.row.seq)
            })
            .map(|(signed, amount)| (signed.row.holder, amount))
            .collect();
        for (donor, amount) in named {
            let _added = self.credit(donor, amount);
        }
        self.gifts = true;
        self.count_others();
    }
}

fn push_row(signed: Option<&SignedRow>, rows: &mut Vec<SignedRow>, left: &mut usize) {
    if let Some(signed) = signed.filter(|signed| signed.wire_bytes() <= *left) {
        *left -= signed.wire_bytes();
        rows.push(signed.clone());
    }
}

/// Rows in as few messages as they fit.
fn in_messages(rows: &[SignedRow]) -> Vec<Vec<SignedRow>> {
    let mut messages: Vec<Vec<SignedRow>> = Vec::new();
    let mut left = 0;
    for signed in rows {
        let size = signed.wire_bytes();
        match messages.last_mut() {
            Some(message) if size <= left => message.push(signed.clone()),
            Some(_) | None => {
                messages.push(vec![signed.clone()]);
                left = MAX_PAYLOAD_BYTES;
            }
        }
        left = left.saturating_sub(size);
    }
    messages
}

fn report_misdeed(misdeed: Box<Misdeed>, effects: &mut Vec<QuotaEffect>) {
    effects.push(QuotaEffect::Report(QuotaEvent::Evidence(misdeed)));
}
