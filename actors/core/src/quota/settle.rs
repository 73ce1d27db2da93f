//! The end of a reservation: once, by its settlement or by the end of its lease.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Now, RequestId};
use selvedge_proto::policy::Unit;

use super::charge::{Charge, QuotaRefusal, Why};
use super::reserve::{Lack, Share, refuse};
use super::{Quota, QuotaEffect, QuotaEvent};

/// What became of a lease that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewed {
    /// Its permits were taken anew.
    Yes,
    /// It was lost, or never told.
    Over,
    /// This budget has fewer permits than are out.
    Lost(usize),
}

impl Quota {
    /// A request is over and took `actual`. What is left comes back; what is over is taken from
    /// the rights here, and what those cannot pay is debt of the next window.
    pub(super) fn settled(
        &mut self,
        now: Now,
        id: RequestId,
        actual: &Charge,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let Some(request) = self.requests.remove(&id) else { return };
        self.leases.remove(&(request.lease_ends, id));
        let mut at = 0;
        while let Some(first) = request.shares.get(at) {
            let place = first.place;
            let mut left = actual.cost(self.purses[place].unit());
            while let Some(share) = request.shares.get(at).filter(|share| share.place == place) {
                let took = left.min(share.amount);
                if !plant::is_on(Plant::ReservationLeaks) {
                    self.settle_share(share, took);
                }
                left -= took;
                at += 1;
            }
            if left > 0 {
                self.overran(now, place, left, effects);
            }
        }
        self.recycle(request);
    }

    /// Leases that ended: the request is lost, and nobody will ever know what it took.
    pub(super) fn end_leases(&mut self, now: Now, effects: &mut Vec<QuotaEffect>) {
        while let Some((_, id)) = self.leases.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.leases.pop_first();
            let renewed = self.renew_permits(now, id);
            if renewed == Renewed::Yes {
                continue;
            }
            let Some(request) = self.requests.remove(&id) else { continue };
            let mut amount = 0u64;
            for share in &request.shares {
                // One that still waited for the disk never ran.
                let took = if request.told { share.amount } else { 0 };
                self.settle_share(share, took);
                amount = amount.saturating_add(took);
            }
            match renewed {
                Renewed::Lost(place) => {
                    let lack = Lack { place, needed: 1, left: 0 };
                    refuse(id, self.exhausted(now, lack), effects);
                }
                Renewed::Yes | Renewed::Over if request.told => {}
                Renewed::Yes | Renewed::Over => {
                    refuse(id, QuotaRefusal::plain(Why::Overloaded, None), effects);
                }
            }
            effects.push(QuotaEffect::Report(QuotaEvent::LeaseEnded { amount }));
            self.recycle(request);
        }
    }

    /// A request that runs for longer than permits last takes its permits anew, if the rights of
    /// today allow as many as are out; otherwise it is told that it is over.
    fn renew_permits(&mut self, now: Now, id: RequestId) -> Renewed {
        let Some(request) = self.requests.get(&id) else { return Renewed::Over };
        if request.ends <= now.mono || !request.told {
            return Renewed::Over;
        }
        let exceeds = |share: &&Share| {
            let purse = &self.purses[share.place];
            let rights = purse.tightest().map_or(0, super::purse::Account::rights);
            let held = rights.saturating_add(purse.elastic());
            purse.unit() == Unit::Concurrent
                && (purse.permits > held || !purse.is_vouched(now.mono))
        };
        if let Some(share) = request.shares.iter().find(exceeds) {
            return Renewed::Lost(share.place);
        }
        let ends = self.lease_of(now.mono, request);
        if let Some(request) = self.requests.get_mut(&id) {
            request.lease_ends = ends;
            self.leases.insert((ends, id));
        }
        Renewed::Yes
    }

    /// Gives back what a request took and never used.
    pub(super) fn release(&mut self, shares: &[Share]) {
        for share in shares {
            self.settle_share(share, 0);
        }
    }

    fn settle_share(&mut self, share: &Share, took: u64) {
        let Some(purse) = self.purses.get_mut(share.place) else { return };
        match purse.unit() {
            Unit::Tokens | Unit::Requests | Unit::MicroDollars => {
                if let Some(account) = purse.account_mut(share.window) {
                    account.settle(share.amount, took);
                }
                self.freed |= took < share.amount;
            }
            Unit::Concurrent => {
                purse.permits = purse.permits.saturating_sub(share.amount);
                self.freed = true;
            }
            // What passed a limiter has passed.
            Unit::Rate => {}
        }
    }

    /// More was used than promised.
    fn overran(&mut self, now: Now, place: usize, over: u64, effects: &mut Vec<QuotaEffect>) {
        let purse = &mut self.purses[place];
        match purse.unit() {
            Unit::Tokens | Unit::Requests | Unit::MicroDollars => {}
            Unit::Concurrent | Unit::Rate => return,
        }
        if plant::is_on(Plant::OverrunForgotten) {
            return;
        }
        purse.debt = purse.debt.saturating_add(over);
        self.take_on_debt(now, place);
        let purse = &self.purses[place];
        if purse.debt > 0 {
            self.journal.header = true;
            let (budget, amount) = (purse.budget.id, purse.debt.min(over));
            effects.push(QuotaEffect::Report(QuotaEvent::DebtBooked { budget, amount }));
        }
    }

    /// The current window takes on as much debt as it has rights for.
    pub(super) fn take_on_debt(&mut self, now: Now, place: usize) {
        let purse = &mut self.purses[place];
        if purse.debt == 0 || !purse.unit().is_windowed() {
            return;
        }
        let taken = purse.may_spend(now.mono).min(purse.debt);
        let Some(account) = purse.current_mut() else { return };
        if taken == 0 {
            return;
        }
        account.owed = account.owed.saturating_add(taken);
        account.pay();
        let window = account.own.key.window;
        purse.debt -= taken;
        self.journal.header = true;
        self.journal.mark(place, window);
        let _ticket = self.cover(now, place, window);
    }
}
