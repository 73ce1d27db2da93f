//! Windows: which one is spent from now, and what becomes of the ones before.
//!
//! A window is opened when the policy says it is now, and never one that lies before another that
//! was opened: a clock that jumps back spends on from the newest window. The ledger before the
//! current one is kept for requests that began in it; older ones are dropped, and the floor that
//! keeps them shut is durable with the drop. Permits and rates have a new ledger whenever grants
//! change, and for a while need rights of the old one too.

use std::sync::Arc;

use selvedge_base::{Now, Wall};
use selvedge_crdt::escrow::LedgerKey;
use selvedge_proto::policy::{Budget, Ledgers, Standing};

use super::grants::Term;
use super::purse::{Account, Purse};
use super::{BEAT, MAX_FLOORS, Quota, QuotaEffect, QuotaEvent};

/// Ledgers that are kept besides the current one: requests are shorter than most windows, and a
/// late one settles in its own.
const KEPT_WINDOWS: u64 = 1;

impl Quota {
    /// Brings a purse up to the policy and the clock. Costs nothing while neither changed.
    pub(super) fn refresh(&mut self, place: usize, now: Now, effects: &mut Vec<QuotaEffect>) {
        let purse = &self.purses[place];
        let same = purse.asked_policy == Some(self.revision);
        if same && purse.term.is_some_and(|term| (term.since..term.until).contains(&now.wall)) {
            return;
        }
        let term = self.term_of(purse, now.wall);
        let changed = purse.asked_policy != Some(self.revision);
        self.purses[place].pass_time(now.mono);
        self.purses[place].asked_policy = Some(self.revision);
        self.purses[place].term = Some(term);
        let Standing::Open(ledgers) = term.standing else { return };
        for key in ledgers.iter() {
            self.open(place, key, now);
            self.seat(place, &key, now.wall);
        }
        let purse = &mut self.purses[place];
        if changed {
            for account in &mut purse.accounts {
                account.backing.doubt_all();
                account.gifts = true;
            }
        }
        purse.accounts.sort_by_key(|account| account.own.key);
        let oldest = if purse.unit().is_windowed() {
            ledgers.first.window.saturating_sub(KEPT_WINDOWS)
        } else {
            ledgers.iter().map(|key| key.window).min().unwrap_or(0)
        };
        purse.floor = purse.floor.max(oldest);
        self.close_old(place, effects);
        self.close_registers(place);
        self.take_on_debt(now, place);
    }

    /// Makes sure a ledger is open, and that its grant is the one of this moment.
    fn open(&mut self, place: usize, key: LedgerKey, now: Now) {
        let granted = self.book.grant(&key, &self.holder, now.wall);
        let purse = &mut self.purses[place];
        let floor = purse.floor;
        match purse.account_mut(key.window) {
            Some(account) => {
                self.freed |= account.granted < granted;
                account.granted = granted;
            }
            None if key.window < floor => {}
            None => {
                purse.accounts.push(Account::new(key, self.holder, granted));
                purse.asking = super::purse::Asking::default();
                self.freed = true;
            }
        }
        self.withhold(place, &key, now);
    }

    fn term_of(&self, purse: &Purse, wall: Wall) -> Term {
        let standing = self.book.standing(&purse.budget.id, wall);
        let (until, resets_at) = match standing {
            Standing::Open(ledgers) => {
                let newest = purse.accounts.last().map(|account| account.own.key);
                if let Some(newest) = newest
                    && purse.unit().is_windowed()
                    && ledgers.first.window < newest.window
                {
                    // The clock went back. What was granted of the newest window stays.
                    return Term {
                        standing: Standing::Open(Ledgers { first: newest, ..ledgers }),
                        since: wall,
                        until: wall.plus(BEAT),
                        resets_at: self.book.resets_at(&newest),
                    };
                }
                let changes = self.book.changes_at(&purse.budget.id, wall);
                (changes, self.book.resets_at(&ledgers.first))
            }
            // Only a new policy or the clock can change that; once a second is often enough.
            Standing::Free | Standing::Stopped(_) => (wall.plus(BEAT), None),
        };
        Term { standing, since: wall, until, resets_at }
    }

    /// Drops ledgers that nobody can need any more.
    fn close_old(&mut self, place: usize, effects: &mut Vec<QuotaEffect>) {
        let Some(purse) = self.purses.get_mut(place) else { return };
        let floor = purse.floor;
        let journal = &mut self.journal;
        purse.accounts.retain(|account| {
            let key = account.own.key;
            let busy = account.reserved > 0 || account.owed > 0;
            if key.window >= floor || busy {
                return true;
            }
            if account.stored {
                journal.dropped.push(key);
                journal.header = true;
            }
            effects.push(QuotaEffect::Report(QuotaEvent::Dropped { key }));
            false
        });
    }

    /// A purse for a budget, with what the disk held of it.
    pub(super) fn wake(&mut self, budget: Arc<Budget>) -> Purse {
        let id = budget.id;
        let floor = self.floors.remove(&id).unwrap_or(0);
        let debt = self.debts.remove(&id).unwrap_or(0);
        let mut purse = Purse::new(budget, floor, debt, self.bucket);
        purse.accounts = self.dormant.remove(&id).unwrap_or_default();
        purse.accounts.sort_by_key(|account| account.own.key);
        purse
    }

    /// Whether a purse may make room for another: the policy knows its budget no more and no
    /// request refers to it.
    pub(super) fn is_forgotten(&self, purse: &Purse) -> bool {
        let place = self.places.get(&purse.budget.id);
        let named = |share: &super::reserve::Share| Some(&share.place) == place;
        self.book.budget(&purse.budget.id).is_none()
            && self.floors.len() < MAX_FLOORS
            && !self.requests.values().any(|request| request.names(named))
            && !self.journal.is_busy_with(place)
    }

    /// Puts a purse away that made room for another. Its rows stay on disk and in memory.
    pub(super) fn put_to_rest(&mut self, purse: Purse) {
        let id = purse.budget.id;
        self.places.remove(&id);
        self.floors.insert(id, purse.floor);
        if purse.debt > 0 {
            self.debts.insert(id, purse.debt);
        }
        if !purse.accounts.is_empty() {
            self.dormant.insert(id, purse.accounts);
        }
    }
}
