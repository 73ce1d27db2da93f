//! Permits and rates under a limit that was lowered after some of them were passed on.
//!
//! A cut lowers every holder's grant, but not what it got from others: a holder that gave away more
//! than is left of its grant is short, and somebody else has too much for as long as the ledger
//! lasts, which for permits and rates is no window. So what all together are short of is withheld
//! from those that have something, in the order of their names. Everybody works it out from the
//! same rows, so nobody need be asked; a node that lacks rows withholds too little until it has
//! them, as one that has not heard of the cut does.

use std::collections::BTreeSet;

use selvedge_base::Now;
use selvedge_crdt::escrow::{Holder, LedgerKey};

use super::Quota;

impl Quota {
    /// Works out anew what is withheld here of a ledger of permits or rates.
    pub(super) fn withhold(&mut self, place: usize, key: &LedgerKey, now: Now) {
        let Some(purse) = self.purses.get(place).filter(|purse| !purse.unit().is_windowed()) else {
            return;
        };
        let Some(account) = purse.account(key.window) else { return };
        let ledger = &account.ledger;
        let mut holders: BTreeSet<Holder> = self.book.members(key, now.wall);
        holders.extend(ledger.rows().map(|signed| signed.row.holder));
        holders.remove(&self.holder);
        let (mut short, mut before) = (0u128, 0u128);
        for holder in holders.iter().filter(|holder| !ledger.is_quarantined(holder)) {
            let granted = u128::from(self.book.grant(key, holder, now.wall));
            let has = granted + ledger.inflow(holder, &account.own);
            let gave = ledger.get(holder).map_or(0, |signed| signed.row.given());
            short += gave.saturating_sub(has);
            if *holder < self.holder {
                before += has.saturating_sub(gave);
            }
        }
        let withheld = u64::try_from(short.saturating_sub(before)).unwrap_or(u64::MAX);
        let purse = &mut self.purses[place];
        purse.pass_time(now.mono);
        if let Some(account) = purse.account_mut(key.window) {
            self.freed |= withheld < account.withheld;
            account.withheld = withheld;
        }
    }
}
