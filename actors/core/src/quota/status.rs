//! What there is to say about budgets: for people, for headers of answers, for checks.

use selvedge_base::{Micros, Now, RequestId, Wall};
use selvedge_crdt::escrow::{Ballot, BudgetId, Holder, LedgerKey};
use selvedge_proto::policy::{AccountPath, KeyId, Level, Unit};
use serde::{Deserialize, Serialize};

use super::Quota;
use super::purse::{Account, Purse};

/// One budget as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// Its identity.
    pub id: BudgetId,
    /// Whose it is.
    pub level: Level,
    /// What people call it.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// How much per window, for the whole mesh.
    pub limit: u64,
    /// The ledger of the current window; `None` while no policy is in force.
    pub ledger: Option<LedgerKey>,
    /// Settled here in this window; permits in use of a concurrency limit.
    pub spent: u64,
    /// Promised here to requests under way.
    pub reserved: u64,
    /// The high-water mark here: what a crash now would count as spent.
    pub hw: u64,
    /// What this node may use in this window, spent included.
    pub rights: u64,
    /// What this node could still promise.
    pub available: u64,
    /// Overruns that no window has paid yet.
    pub debt: u64,
    /// When the window ends.
    pub resets_at: Option<Wall>,
    /// Of a reclaimable budget: who keeps its rows.
    pub witnesses: Option<WitnessStatus>,
    /// What is known of all holders, this node's first.
    pub holders: Vec<HolderStatus>,
}

/// Who keeps the rows of a reclaimable budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessStatus {
    /// How many must have a row before it counts.
    pub needed: u64,
    /// How many can be reached, this node among them.
    pub reached: u64,
}

/// One holder of a budget as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderStatus {
    /// Who.
    pub holder: Holder,
    /// What it may use in this window.
    pub rights: u64,
    /// Its high-water mark.
    pub hw: u64,
    /// Units asked of it per second, in thousandths.
    pub demand: u64,
    /// The newest of its rows seen here; 0 for none.
    pub seq: u64,
    /// It retired.
    pub sealed: bool,
    /// It was caught lying.
    pub quarantined: bool,
    /// Who took over what it had left, until it was back.
    pub reclaimed_by: Option<Holder>,
}

/// What is left of one budget, for headers of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// What it counts.
    pub unit: Unit,
    /// How much per window.
    pub limit: u64,
    /// What is left of it in the whole mesh, as far as known here.
    pub remaining: u64,
    /// When the window ends.
    pub resets_in: Option<Micros>,
}

/// The exact state of one ledger at one node, for those who check all of them together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerAudit {
    /// Which ledger.
    pub key: LedgerKey,
    /// This node's holder.
    pub holder: Holder,
    /// What it counts.
    pub unit: Unit,
    /// This node's grant as vested.
    pub granted: u64,
    /// Gifts counted.
    pub counted: u64,
    /// Gifts made or planned.
    pub given: u64,
    /// The durable mark.
    pub hw: u64,
    /// The planned mark.
    pub planned_hw: u64,
    /// Settled; permits in use of a concurrency limit.
    pub spent: u64,
    /// Promised.
    pub reserved: u64,
    /// Overruns this window takes on.
    pub owed: u64,
    /// What an elastic budget allows above the rights.
    pub elastic: u64,
}

impl Quota {
    /// All budgets that are known to this node's requests or peers.
    pub fn status(&self, now: Now) -> Vec<BudgetStatus> {
        self.purses.iter().map(|purse| self.status_of(purse, now)).collect()
    }

    fn status_of(&self, purse: &Purse, now: Now) -> BudgetStatus {
        let spec = &purse.budget.spec;
        let account = purse.current();
        let used = |account: &Account| match purse.unit() {
            Unit::Concurrent => purse.permits,
            Unit::Tokens | Unit::Requests | Unit::MicroDollars | Unit::Rate => account.spent,
        };
        let mut holders = Vec::new();
        if let Some(account) = account {
            holders.push(HolderStatus {
                holder: self.holder,
                rights: account.rights(),
                hw: account.durable.hw,
                demand: purse.demand.milli_at(now.mono),
                seq: account.durable.seq,
                sealed: account.durable.sealed,
                quarantined: false,
                reclaimed_by: account.written_by_another(),
            });
            holders.extend(self.others(account, now.wall));
        }
        BudgetStatus {
            id: purse.budget.id,
            level: purse.budget.level.clone(),
            name: spec.name.clone(),
            unit: spec.unit,
            limit: purse.budget.limit,
            ledger: account.map(|account| account.own.key),
            spent: account.map_or(0, used),
            reserved: account.map_or(0, |account| account.reserved),
            hw: account.map_or(0, |account| account.durable.hw),
            rights: account.map_or(0, Account::rights),
            available: account
                .map_or(0, |account| self.available(purse, account))
                .saturating_sub(purse.permits),
            debt: purse.debt,
            resets_at: purse.term.and_then(|term| term.resets_at),
            witnesses: account.and_then(|account| self.witnesses_of(account)),
            holders,
        }
    }

    /// What could be promised; of a reclaimable budget, with its witnesses' help if they are there.
    fn available(&self, purse: &Purse, account: &Account) -> u64 {
        let quorum = account.seat.is_some() && self.is_quorum_here(account);
        let elastic = purse.elastic();
        if quorum { account.in_reach(elastic) } else { account.may_spend(elastic) }
    }

    pub(super) fn witnesses_of(&self, account: &Account) -> Option<WitnessStatus> {
        let voters = &account.seat.as_ref()?.voters;
        let reached = self.reached(voters).len() as u64;
        Some(WitnessStatus { needed: voters.needed() as u64, reached })
    }

    /// What is known of the other holders: members without a row too.
    fn others(&self, account: &Account, wall: Wall) -> Vec<HolderStatus> {
        let key = account.own.key;
        let ledger = &account.ledger;
        let mut holders = self.book.members(&key, wall);
        holders.extend(ledger.rows().map(|signed| signed.row.holder));
        holders.remove(&self.holder);
        let status = |holder: &Holder| {
            let row = ledger.get(holder).map(|signed| &signed.row);
            HolderStatus {
                holder: *holder,
                rights: ledger.rights(holder, self.book.grant(&key, holder, wall), &account.own),
                hw: row.map_or(0, |row| row.hw),
                demand: row.map_or(0, |row| row.demand),
                seq: row.map_or(0, |row| row.seq),
                sealed: row.is_some_and(|row| row.sealed),
                quarantined: ledger.is_quarantined(holder),
                reclaimed_by: row.and_then(|row| writer_besides(holder, row.ballot)),
            }
        };
        holders.iter().map(status).collect()
    }

    /// What is left of the budgets of a caller that were used here before.
    pub fn remaining(
        &self,
        account: &AccountPath,
        key: Option<&KeyId>,
        now: Now,
    ) -> Vec<Remaining> {
        self.each_remaining(account, key, now).collect()
    }

    /// The same, one by one.
    pub fn each_remaining(
        &self,
        account: &AccountPath,
        key: Option<&KeyId>,
        now: Now,
    ) -> impl Iterator<Item = Remaining> {
        let places = self.routes.get(account).and_then(|keys| keys.get(&key.copied()));
        let places = places.map_or(&[][..], |places| places);
        places.iter().map(move |place| remaining_of(&self.purses[*place], now))
    }

    /// All that is on the books of a budget here: what was settled in its open windows, what those
    /// took on of overruns, and overruns that none has taken on.
    pub fn charged(&self, id: &BudgetId) -> u64 {
        let Some(purse) = self.places.get(id).map(|place| &self.purses[*place]) else { return 0 };
        let of = |account: &Account| account.spent.saturating_add(account.owed);
        purse.accounts.iter().map(of).sum::<u64>().saturating_add(purse.debt)
    }

    /// Whether a request holds a reservation that was granted.
    pub fn is_active(&self, id: &RequestId) -> bool {
        self.requests.get(id).is_some_and(|request| request.told)
    }

    /// Every ledger that is open here, exactly.
    pub fn audit(&self) -> Vec<LedgerAudit> {
        let mut audits = Vec::new();
        for purse in &self.purses {
            for account in &purse.accounts {
                let spent = match purse.unit() {
                    Unit::Concurrent => purse.permits,
                    Unit::Tokens | Unit::Requests | Unit::MicroDollars | Unit::Rate => {
                        account.spent
                    }
                };
                audits.push(LedgerAudit {
                    key: account.own.key,
                    holder: self.holder,
                    unit: purse.unit(),
                    granted: account.granted,
                    counted: account.counted,
                    given: account.given,
                    hw: account.durable.hw,
                    planned_hw: account.own.hw,
                    spent,
                    reserved: account.reserved,
                    owed: account.owed,
                    elastic: purse.elastic(),
                });
            }
        }
        audits
    }
}

impl Account {
    fn written_by_another(&self) -> Option<Holder> {
        let writer = &self.seat.as_ref()?.writer;
        writer_besides(&self.own.holder, writer.ballot())
    }
}

fn writer_besides(holder: &Holder, ballot: Option<Ballot>) -> Option<Holder> {
    ballot.map(|ballot| ballot.by).filter(|by| by != holder)
}

fn remaining_of(purse: &Purse, now: Now) -> Remaining {
    let limit = purse.budget.limit;
    let used = match (purse.unit(), purse.current()) {
        (_, None) if purse.is_free() => 0,
        (_, None) => limit,
        (Unit::Concurrent, Some(_)) => purse.permits,
        (Unit::Rate, Some(account)) => limit.saturating_sub(account.rights()),
        (Unit::Tokens | Unit::Requests | Unit::MicroDollars, Some(account)) => {
            account.used().saturating_add(account.others_hw)
        }
    };
    let resets_in = purse.term.and_then(|term| term.resets_at).map(|at| at.since(now.wall));
    Remaining { unit: purse.unit(), limit, remaining: limit.saturating_sub(used), resets_in }
}
