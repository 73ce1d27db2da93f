//! Leaving for good: nothing new, everything settled, everything given away, every row sealed.

use selvedge_base::Now;
use selvedge_crdt::escrow::{Holder, LedgerKey};

use super::{Quota, QuotaEffect, QuotaEvent};

impl Quota {
    /// Goes on leaving as far as it can at this moment.
    pub(super) fn retire(&mut self, now: Now, effects: &mut Vec<QuotaEffect>) {
        if !self.requests.is_empty() {
            return;
        }
        let mut sealing = false;
        // Alone there is nobody to give to, nor to tell.
        let places = if self.peers.is_empty() { 0 } else { self.purses.len() };
        for place in 0..places {
            self.refresh(place, now, effects);
            let purse = &self.purses[place];
            let open = purse.accounts.iter().map(|account| &account.own);
            let next = open.filter(|own| !own.sealed).map(|own| own.key).next_back();
            if let Some(key) = next {
                sealing = true;
                self.bequeath(place, key, now);
            }
        }
        if sealing || !self.journal.is_quiet() || self.waits_for_witnesses() {
            return;
        }
        self.retired = true;
        self.journal.header = true;
        self.journal.urgent = true;
        effects.push(QuotaEffect::Report(QuotaEvent::Retired));
        self.tell(now, effects);
    }

    /// The node stays after all. What it gave away and sealed stays so, under a name that ends
    /// here; under the next one it has what peers give it, and its share of the next configuration.
    pub(super) fn stay(&mut self) {
        if !std::mem::take(&mut self.draining) {
            return;
        }
        if self.accounts().any(|account| account.own.sealed) {
            self.new_incarnation();
        }
        if std::mem::take(&mut self.retired) {
            self.journal.header = true;
            self.journal.urgent = true;
        }
        self.freed = true;
    }

    /// Gives all of one budget's rights to the reachable peer with the greatest demand, and seals.
    fn bequeath(&mut self, place: usize, key: LedgerKey, now: Now) {
        let purse = &self.purses[place];
        let Some(account) = purse.account(key.window) else { return };
        let rows = account.ledger.rows().filter(|signed| {
            account.may_receive(&signed.row.holder)
                && !signed.row.sealed
                && !account.ledger.is_quarantined(&signed.row.holder)
        });
        let by_demand = rows
            .filter(|signed| self.is_up(&signed.row.holder.node))
            .max_by_key(|signed| signed.row.demand)
            .map(|signed| signed.row.holder);
        let anybody = || {
            let known = self.peers.values().copied().flatten();
            known.into_iter().find(|holder| account.may_receive(holder))
        };
        let heir: Option<Holder> = by_demand.or_else(anybody);
        let amount = purse.may_give(key.window);
        if amount > 0
            && let Some(heir) = heir
            && !self.give(place, key, heir, amount, now)
        {
            // The disk or the outbox is busy: a moment later.
            return;
        }
        let Some(account) = self.purses[place].account_mut(key.window) else { return };
        account.own.sealed = true;
        account.changed = true;
        self.journal.mark(place, key.window);
        self.journal.urgent = true;
    }
}
