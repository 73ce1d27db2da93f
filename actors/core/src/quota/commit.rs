//! Writing ahead: what has changed, the one write under way, and what waits for it.
//!
//! One write is under way at a time; what changes meanwhile goes into the next. Nothing that
//! depends on a change leaves this node before the write with it is durable: grants wait here,
//! gifts wait here, and rows are only ever told in their durable form. A write that failed may
//! have happened, so its changes stay planned (nothing planned is ever taken back) and are written
//! again.

use std::collections::BTreeSet;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, NodeId, Now, Wall};
use selvedge_crdt::escrow::{Holder, LedgerKey, MAX_BASIS};

use super::journal::{Credit, Gift, Horizon, UnderWay};
use super::purse::Account;
use super::{
    Quota, QuotaEffect, QuotaEvent, QuotaHeader, QuotaMessage, QuotaStored, QuotaWrite, StoredRow,
};

/// Rows of others that ride along in one write, newest marks only: they help peers to notice that
/// their store was rolled back, and need not all be there.
const MAX_RIDERS: usize = 64;

/// How far ahead of the clock the horizon is planned: one small write every few seconds of
/// spending, and a new policy waits this much longer after a crash.
const HORIZON_AHEAD: Micros = Micros::secs(10);
/// With less than this left the next horizon is planned before anybody waits for it.
const HORIZON_LOW: Micros = Micros::secs(5);

impl Quota {
    /// Takes over what the disk held.
    pub(super) fn restore(&mut self, stored: QuotaStored) {
        let fresh = stored.header.is_none();
        let header = stored.header.unwrap_or_default();
        self.holder.incarnation = header.incarnation;
        self.horizon = Horizon { planned: header.horizon, durable: header.horizon };
        self.floors = header.floors;
        self.debts = header.debts;
        for ((key, holder), stored) in stored.rows {
            let row = stored.row;
            if row.key != key || row.holder != holder || !row.is_within_bounds() {
                continue;
            }
            let accounts = self.dormant.entry(key.budget).or_default();
            let at = match accounts.iter().position(|account| account.own.key == key) {
                Some(at) => at,
                None => {
                    let mut account = Account::new(key, self.holder, 0);
                    account.stored = true;
                    accounts.push(account);
                    accounts.len() - 1
                }
            };
            if holder == self.holder {
                let ledger = accounts[at].ledger.clone();
                accounts[at] = Account { ledger, ..Account::restored(row) };
            } else if let Some(signature) = stored.signature {
                let signed = selvedge_crdt::escrow::SignedRow { row, signature };
                let _known = accounts[at].ledger.merge(signed, |_| true);
            }
        }
        self.restore_kept(stored.kept);
        for account in self.dormant.values_mut().flatten() {
            account.count_durable_gifts(&self.holder);
        }
        if fresh || header.retired {
            self.new_incarnation();
        }
    }

    /// Starts a write when somebody waits for one or it is time, and none is under way.
    pub(super) fn commit(&mut self, now: Now, effects: &mut Vec<QuotaEffect>) {
        let wanted = self.journal.urgent || self.journal.due;
        if !wanted || self.journal.under_way.is_some() {
            return;
        }
        if self.journal.is_failing(now.mono) {
            return;
        }
        (self.journal.urgent, self.journal.due) = (false, false);
        let (write, under_way) = self.draft(now);
        if write.is_empty() {
            return;
        }
        self.journal.ticket = under_way.ticket;
        effects.push(QuotaEffect::Persist { ticket: under_way.ticket, write });
        if plant::is_on(Plant::SendBeforeStored) {
            for (place, row) in &under_way.rows {
                let account = self.purses[*place].account_mut(row.key.window);
                if let Some(account) = account.filter(|account| account.seat.is_none()) {
                    (account.durable, account.signed) = (row.clone(), None);
                }
            }
            self.deliver(under_way.ticket, effects);
        }
        self.journal.under_way = Some(under_way);
    }

    fn draft(&mut self, now: Now) -> (QuotaWrite, UnderWay) {
        let mut under_way = UnderWay {
            ticket: self.journal.next_ticket(),
            holder: self.holder,
            header: std::mem::take(&mut self.journal.header),
            horizon: self.horizon.planned,
            dropped: std::mem::take(&mut self.journal.dropped),
            rows: Vec::new(),
            credits: Vec::new(),
            kept: BTreeSet::new(),
        };
        let mut write = QuotaWrite {
            header: under_way.header.then(|| self.header()),
            rows: Vec::new(),
            kept: Vec::new(),
            dropped: under_way.dropped.clone(),
        };
        for (place, window) in std::mem::take(&mut self.journal.dirty) {
            self.draft_account(now, place, window, &mut write, &mut under_way);
        }
        under_way.kept = std::mem::take(&mut self.journal.kept);
        self.draft_kept(&under_way.kept, &mut write);
        (write, under_way)
    }

    fn draft_account(
        &mut self,
        now: Now,
        place: usize,
        window: u64,
        write: &mut QuotaWrite,
        under_way: &mut UnderWay,
    ) {
        let Some(purse) = self.purses.get_mut(place) else { return };
        let demand = purse.demand.milli_at(now.mono);
        purse.settle_backing(window, &*self.book);
        let Some(account) = purse.account_mut(window) else { return };
        if std::mem::take(&mut account.gifts) {
            let gifts: Vec<_> = account
                .ledger
                .gifts_to(&self.holder)
                .filter(|(signed, amount)| {
                    *amount > account.credited.get(&signed.row.holder).copied().unwrap_or(0)
                })
                .map(|(signed, amount)| (signed.clone(), amount))
                .collect();
            for (signed, amount) in gifts {
                let donor = signed.row.holder;
                let known = account.own.basis.contains_key(&donor);
                let room = known || account.own.basis.len() < MAX_BASIS;
                if !room || !account.backing.covers(&donor) {
                    continue;
                }
                account.own.basis.insert(donor, signed.row.seq);
                account.changed = true;
                under_way.credits.push(Credit { place, window, donor, amount });
                account.fresh.insert(donor);
            }
        }
        let named = |holder: &Holder| account.own.basis.contains_key(holder);
        let (must, may): (Vec<_>, Vec<_>) =
            std::mem::take(&mut account.fresh).into_iter().partition(named);
        let room = MAX_RIDERS.saturating_sub(write.rows.len());
        for holder in must.into_iter().chain(may.into_iter().take(room)) {
            if let Some(signed) = account.ledger.get(&holder) {
                let (row, signature) = (signed.row.clone(), Some(signed.signature));
                write.rows.push(StoredRow { row, signature });
                account.stored = true;
            }
        }
        if account.seat.is_some() {
            if let Some(row) = account.draft_witnessed(demand) {
                account.stored = true;
                under_way.rows.push((place, row.clone()));
                self.keep_own(row);
            }
            return;
        }
        if std::mem::take(&mut account.changed) {
            account.own.seq += 1;
            account.own.demand = demand;
            under_way.rows.push((place, account.own.clone()));
            write.rows.push(StoredRow { row: account.own.clone(), signature: None });
            account.stored = true;
        }
    }

    /// Makes sure the horizon lies ahead; the write to wait for, if it does not yet.
    pub(super) fn reach_horizon(&mut self, wall: Wall) -> Option<u64> {
        self.spent_at = self.spent_at.max(wall);
        if wall.plus(HORIZON_LOW) >= self.horizon.planned {
            self.horizon.planned = wall.plus(HORIZON_AHEAD);
            self.journal.header = true;
            self.journal.urgent = true;
        }
        if wall < self.horizon.durable {
            return None;
        }
        let under_way = self.journal.under_way.as_ref();
        if let Some(write) = under_way.filter(|write| write.header && wall < write.horizon) {
            return Some(write.ticket);
        }
        self.journal.header = true;
        self.journal.urgent = true;
        Some(self.journal.next_ticket())
    }

    fn header(&self) -> QuotaHeader {
        let mut header = QuotaHeader {
            incarnation: self.holder.incarnation,
            retired: self.retired,
            horizon: self.horizon.planned,
            floors: self.floors.clone(),
            debts: self.debts.clone(),
        };
        for purse in &self.purses {
            header.floors.insert(purse.budget.id, purse.floor);
            if purse.debt > 0 {
                header.debts.insert(purse.budget.id, purse.debt);
            }
        }
        header
    }

    /// A write became durable: what waited for it goes out.
    pub(super) fn persisted(&mut self, now: Now, ticket: u64, effects: &mut Vec<QuotaEffect>) {
        let Some(under_way) = self.journal.under_way.take_if(|write| write.ticket == ticket) else {
            return;
        };
        self.journal.failed_at = None;
        if under_way.header {
            self.horizon.durable = under_way.horizon;
        }
        if under_way.holder == self.holder {
            let witnessed = self.adopt(now, under_way, effects);
            self.deliver(ticket, effects);
            self.say_kept(now, ticket, &witnessed, effects);
        }
        self.grant_waiting(ticket, effects);
    }

    /// What was planned is durable. The witnessed ledgers among it.
    fn adopt(
        &mut self,
        now: Now,
        under_way: UnderWay,
        effects: &mut Vec<QuotaEffect>,
    ) -> Vec<(usize, LedgerKey)> {
        let mut witnessed = Vec::new();
        for (place, row) in under_way.rows {
            let account = self.purses.get_mut(place).and_then(|purse| {
                let same = |account: &&mut Account| account.own.key == row.key;
                purse.accounts.iter_mut().find(same)
            });
            let Some(account) = account else { continue };
            if let Some(seat) = &mut account.seat {
                seat.stored |= seat.open.as_ref() == Some(&row);
                witnessed.push((place, row.key));
                continue;
            }
            account.durable = row;
            account.signed = None;
            account.pay();
        }
        for credit in under_way.credits {
            let Some(purse) = self.purses.get_mut(credit.place) else { continue };
            purse.pass_time(now.mono);
            let Some(account) = purse.account_mut(credit.window) else { continue };
            let amount = account.credit(credit.donor, credit.amount);
            if amount > 0 {
                let key = account.own.key;
                purse.asking.open = purse.asking.open.saturating_sub(1);
                self.freed = true;
                let event = QuotaEvent::Got { key, from: credit.donor, amount };
                effects.push(QuotaEffect::Report(event));
            }
        }
        witnessed
    }

    /// Tells receivers of gifts that are durable.
    fn deliver(&mut self, ticket: u64, effects: &mut Vec<QuotaEffect>) {
        while let Some((_, gift)) =
            self.journal.outbox.pop_front_if(|(waits_for, _)| *waits_for <= ticket)
        {
            let rows = self.proof_of(gift.place, gift.key);
            if !rows.is_empty() {
                let message = QuotaMessage::Rows(rows);
                effects.push(QuotaEffect::Send { to: gift.to.node, message });
            }
            let Gift { key, to, amount, .. } = gift;
            effects.push(QuotaEffect::Report(QuotaEvent::Gave { key, to, amount }));
        }
    }

    fn grant_waiting(&mut self, ticket: u64, effects: &mut Vec<QuotaEffect>) {
        while let Some((_, id)) =
            self.journal.waiting.pop_front_if(|(waits_for, _)| *waits_for <= ticket)
        {
            self.covered(id, effects);
        }
    }

    /// A write is not durable, or nobody knows: it stays planned and is tried again.
    pub(super) fn persist_failed(
        &mut self,
        now: Now,
        ticket: u64,
        why: String,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let Some(under_way) = self.journal.under_way.take_if(|write| write.ticket == ticket) else {
            return;
        };
        self.journal.failed_at = Some(now.mono);
        self.journal.header |= under_way.header;
        self.journal.dropped.extend(under_way.dropped);
        self.journal.kept.extend(under_way.kept);
        // Whoever waits for a witness's word asks again.
        self.journal.replies.retain(|(waits_for, _, _)| *waits_for > ticket);
        self.journal.urgent = true;
        if under_way.holder == self.holder {
            for (place, row) in under_way.rows {
                self.plan_again(place, row.key.window);
            }
            for credit in under_way.credits {
                self.plan_again(credit.place, credit.window);
            }
        }
        effects.push(QuotaEffect::Report(QuotaEvent::StorageFailed { why }));
        let waited: Vec<_> = self.journal.waiting.drain(..).map(|(_, id)| id).collect();
        for id in waited {
            self.drop_uncovered(id, effects);
        }
    }

    fn plan_again(&mut self, place: usize, window: u64) {
        let next = self.journal.next_ticket();
        let account = self.purses.get_mut(place).and_then(|purse| purse.account_mut(window));
        if let Some(account) = account {
            account.changed = true;
            account.gifts = true;
            account.raise_ticket = next;
            if let Some(seat) = account.seat.as_mut().filter(|seat| !seat.stored) {
                seat.open = None;
            }
            self.journal.mark(place, window);
        }
    }

    /// A peer this node would send to.
    pub(super) fn is_up(&self, node: &NodeId) -> bool {
        self.peers.contains_key(node)
    }
}
