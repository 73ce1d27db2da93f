//! One budget at this node: what it may spend and give now, and what it promised.
//!
//! All arithmetic of rights is here and is O(1). A purse decides nothing by itself and emits no
//! effect; it keeps apart what is planned (`own`), what is durable and what others said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono};
use selvedge_crdt::escrow::{Backing, EscrowRow, Holder, Ledger, LedgerKey, SignedRow};
use selvedge_proto::policy::{Budget, Hardness, Period, Standing, Stop, Unit};

use super::demand::{Demand, units_in, whole_units_in};
use super::grants::Term;
use super::guest::Vouching;
use super::rate::Bucket;
use super::seat::{Seat, Takeover};

/// A block, by which the high-water mark runs ahead of spending, is at most this part of the
/// limit: what a crash loses must not be seen in a bill.
const BLOCK_AT_MOST: u64 = 64;
/// And at least this part, so that a window costs at most a thousand writes per node.
const BLOCK_AT_LEAST: u64 = 1_000;
/// In between, half a second of demand: two writes per second keep up with any load.
const BLOCKS_PER_SECOND: u64 = 2;

/// A budget and its ledgers.
#[derive(Clone, Debug)]
pub(super) struct Purse {
    pub(super) budget: Arc<Budget>,
    /// What the policy said last, and of which revision of it.
    pub(super) term: Option<Term>,
    pub(super) asked_policy: Option<u64>,
    /// Ledgers of windows before this one were dropped and are never opened again.
    pub(super) floor: u64,
    /// By window, oldest first; the last is the current one.
    pub(super) accounts: Vec<Account>,
    pub(super) demand: Demand,
    /// Overruns that no window has taken on yet.
    pub(super) debt: u64,
    /// [`Unit::Concurrent`]: permits out, whatever the ledger they were taken in.
    pub(super) permits: u64,
    /// [`Unit::Rate`]: the limiter.
    pub(super) bucket: Bucket,
    /// What holders said of its ledger, where this node holds nothing by the epoch in force.
    pub(super) vouching: Vouching,
    pub(super) asking: Asking,
    /// A row of somebody else that is being taken over.
    pub(super) takeover: Option<Box<Takeover>>,
}

/// When peers were asked for rights.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking {
    /// Last without hurry.
    pub(super) calm_at: Option<Mono>,
    /// Last with a request waiting.
    pub(super) urgent_at: Option<Mono>,
    /// Urgent asks that were neither granted nor declined yet.
    pub(super) open: u32,
}

/// One ledger, seen from its holder here.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// Rows of the other holders.
    pub(super) ledger: Ledger,
    /// Which of them are paid for.
    pub(super) backing: Backing,
    /// When a peer was last asked for rows that are missing here.
    pub(super) inquired_at: Option<Mono>,
    /// This node's row as planned: never behind what is durable.
    pub(super) own: EscrowRow,
    /// This node's newest durable row.
    pub(super) durable: EscrowRow,
    /// `durable` with a signature, made when somebody wants it.
    pub(super) signed: Option<SignedRow>,
    /// Whether `own` differs from the row last written.
    pub(super) changed: bool,
    /// The write that makes `own.hw` durable.
    pub(super) raise_ticket: u64,
    /// The grant as vested now.
    pub(super) granted: u64,
    /// Sum of `own.out`.
    pub(super) given: u64,
    /// Gifts that are durable here, by donor.
    pub(super) credited: BTreeMap<Holder, u64>,
    /// Their sum.
    pub(super) counted: u64,
    /// Some row may hold a gift that is not counted yet.
    pub(super) gifts: bool,
    /// Rows of others that came since the last write. A subset of the ledger's holders.
    pub(super) fresh: BTreeSet<Holder>,
    /// Settled.
    pub(super) spent: u64,
    /// Promised to requests under way.
    pub(super) reserved: u64,
    /// Overruns this window takes on; they become spent as soon as the mark covers them.
    pub(super) owed: u64,
    /// Rights of permits and rates that a lowered limit takes away here; see `withhold`.
    pub(super) withheld: u64,
    /// Marks of the others, as last seen, for what is left of the whole budget.
    pub(super) others_hw: u64,
    /// Whether any of them has demand; a budget nobody asks for costs nothing to look after.
    pub(super) others_demand: bool,
    /// The row peers were last told of their own accord.
    pub(super) told: u64,
    /// Whether the disk holds anything of this ledger.
    pub(super) stored: bool,
    /// In a witnessed ledger; `durable` is then what a quorum has.
    pub(super) seat: Option<Box<Seat>>,
}

/// Whether the high-water mark covers what is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// Durably.
    Durable,
    /// Once the write that is planned or under way is durable.
    Planned,
}

impl Purse {
    pub(super) fn new(budget: Arc<Budget>, floor: u64, debt: u64, bucket: Bucket) -> Self {
        Self {
            budget,
            term: None,
            asked_policy: None,
            floor,
            accounts: Vec::new(),
            demand: Demand::default(),
            debt,
            permits: 0,
            bucket,
            vouching: Vouching::default(),
            asking: Asking::default(),
            takeover: None,
        }
    }

    pub(super) fn unit(&self) -> Unit {
        self.budget.spec.unit
    }

    /// The account spending happens in now; `None` when the budget is stopped or counts nothing.
    pub(super) fn current(&self) -> Option<&Account> {
        self.account(self.first()?.window)
    }

    pub(super) fn current_mut(&mut self) -> Option<&mut Account> {
        self.account_mut(self.first()?.window)
    }

    fn first(&self) -> Option<LedgerKey> {
        match self.term?.standing {
            Standing::Open(ledgers) => Some(ledgers.first),
            Standing::Free | Standing::Stopped(_) => None,
        }
    }

    /// Whether the budget counts nothing now.
    pub(super) fn is_free(&self) -> bool {
        self.term.is_some_and(|term| term.standing == Standing::Free)
    }

    /// Why nothing can be spent of it.
    pub(super) fn stop(&self) -> Option<Stop> {
        match self.term?.standing {
            Standing::Stopped(stop) => Some(stop),
            Standing::Free | Standing::Open(_) => None,
        }
    }

    /// Whether rights of this ledger are needed now.
    pub(super) fn is_open(&self, key: &LedgerKey) -> bool {
        match self.term.map(|term| term.standing) {
            Some(Standing::Open(ledgers)) => ledgers.iter().any(|open| open == *key),
            Some(Standing::Free | Standing::Stopped(_)) | None => false,
        }
    }

    /// Of the ledgers that rights are needed of, the one with the fewest. There is more than one
    /// only around a change of the grants of permits and rates.
    pub(super) fn tightest(&self) -> Option<&Account> {
        let open = self.accounts.iter().filter(|account| self.is_open(&account.own.key));
        match self.term?.standing {
            // A ledger that could not be opened has no rights.
            Standing::Open(ledgers) if open.clone().count() < ledgers.iter().count() => None,
            Standing::Open(_) => open.min_by_key(|account| account.rights()),
            Standing::Free | Standing::Stopped(_) => None,
        }
    }

    pub(super) fn account(&self, window: u64) -> Option<&Account> {
        self.accounts.iter().rev().find(|account| account.own.key.window == window)
    }

    pub(super) fn account_mut(&mut self, window: u64) -> Option<&mut Account> {
        self.accounts.iter_mut().rev().find(|account| account.own.key.window == window)
    }

    /// What an elastic budget lets every node spend beyond its rights.
    pub(super) fn elastic(&self) -> u64 {
        match self.budget.spec.hardness {
            Hardness::Hard => 0,
            Hardness::Elastic { block } => block,
        }
    }

    /// How many units may be promised at this moment.
    pub(super) fn may_spend(&mut self, now: Mono) -> u64 {
        let (unit, elastic, permits) = (self.unit(), self.elastic(), self.permits);
        let period = period_micros(self.budget.spec.period);
        if unit.is_windowed() {
            return self.current().map_or(0, |account| account.may_spend(elastic));
        }
        let Some(account) = self.tightest().filter(|account| !account.own.sealed) else {
            return 0;
        };
        let rights = account.rights().saturating_add(elastic);
        let vouched = self.is_vouched(now);
        if unit == Unit::Concurrent {
            return if vouched { rights.saturating_sub(permits) } else { 0 };
        }
        self.bucket.fill(now, rights, period);
        if vouched { self.bucket.cells(period) } else { 0 }
    }

    /// Lets the time until now pass for a limiter at the rate it had: called before that changes,
    /// so that what comes late counts from now on alone.
    pub(super) fn pass_time(&mut self, now: Mono) {
        if self.unit() == Unit::Rate {
            let _cells = self.may_spend(now);
        }
    }

    /// How many units of a ledger may be given away at this moment.
    pub(super) fn may_give(&self, window: u64) -> u64 {
        let Some(account) = self.account(window) else { return 0 };
        if account.own.sealed || !self.is_open(&account.own.key) || !account.may_write() {
            return 0;
        }
        match self.unit() {
            Unit::Tokens | Unit::Requests | Unit::MicroDollars
                if plant::is_on(Plant::GiveFromSpent) =>
            {
                account.rights().saturating_sub(account.spent)
            }
            Unit::Tokens | Unit::Requests | Unit::MicroDollars => {
                account.rights().saturating_sub(account.own.hw)
            }
            Unit::Concurrent => account.rights().saturating_sub(self.permits),
            Unit::Rate => account.rights(),
        }
    }

    /// What demand needs for so many seconds, rounded up. A rate is needed for as long as the
    /// demand lasts.
    pub(super) fn need(&self, milli_per_second: u64, seconds: u64) -> u64 {
        units_in(milli_per_second, self.lasting(seconds))
    }

    /// The same, rounded down: what nobody may go without.
    pub(super) fn need_whole(&self, milli_per_second: u64, seconds: u64) -> u64 {
        whole_units_in(milli_per_second, self.lasting(seconds))
    }

    fn lasting(&self, seconds: u64) -> u64 {
        match self.unit() {
            Unit::Rate => period_micros(self.budget.spec.period).0 / 1_000_000,
            Unit::Tokens | Unit::Requests | Unit::MicroDollars | Unit::Concurrent => seconds,
        }
    }

    /// By how much the mark runs ahead of what is promised.
    pub(super) fn block(&self, now: Mono) -> u64 {
        let limit = self.budget.spec.limit;
        let demand = units_in(self.demand.milli_at(now), 1) / BLOCKS_PER_SECOND;
        demand.clamp(limit / BLOCK_AT_LEAST, limit / BLOCK_AT_MOST).max(1)
    }

    /// Promises units of a windowed budget, which [`Purse::may_spend`] has found to be there.
    pub(super) fn promise(&mut self, window: u64, amount: u64) {
        if let Some(account) = self.account_mut(window) {
            account.reserved = account.reserved.saturating_add(amount);
        }
    }
}

impl Account {
    pub(super) fn new(key: LedgerKey, holder: Holder, granted: u64) -> Self {
        let own = EscrowRow::new(key, holder);
        Self {
            ledger: Ledger::new(key),
            backing: Backing::default(),
            inquired_at: None,
            durable: own.clone(),
            own,
            signed: None,
            changed: false,
            raise_ticket: 0,
            granted,
            given: 0,
            credited: BTreeMap::new(),
            counted: 0,
            gifts: false,
            fresh: BTreeSet::new(),
            spent: 0,
            reserved: 0,
            owed: 0,
            withheld: 0,
            others_hw: 0,
            others_demand: false,
            told: 0,
            stored: false,
            seat: None,
        }
    }

    /// The account after a restart: everything up to the mark counts as spent.
    pub(super) fn restored(row: EscrowRow) -> Self {
        let mut account = Self::new(row.key, row.holder, 0);
        account.spent = if plant::is_on(Plant::CrashForgetsBlock) { row.hw / 2 } else { row.hw };
        account.given = u64::try_from(row.given()).unwrap_or(u64::MAX);
        account.durable = row.clone();
        account.own = row;
        account.stored = true;
        account
    }

    /// Grant and gifts minus what was given away, planned gifts included, and minus what is
    /// withheld.
    pub(super) fn rights(&self) -> u64 {
        let lost = self.given.saturating_add(self.withheld);
        self.granted.saturating_add(self.counted).saturating_sub(lost)
    }

    /// What is promised, settled or owed: never above the mark, once that is durable.
    pub(super) fn used(&self) -> u64 {
        self.spent.saturating_add(self.reserved).saturating_add(self.owed)
    }

    /// How high the mark may rise.
    pub(super) fn reach(&self, elastic: u64) -> u64 {
        self.rights().saturating_add(elastic)
    }

    pub(super) fn may_spend(&self, elastic: u64) -> u64 {
        let witnessed = self.seat.as_ref().map_or(u64::MAX, |_| self.durable.hw);
        self.in_reach(elastic).min(witnessed.saturating_sub(self.used()))
    }

    /// The same once all witnesses have heard of it.
    pub(super) fn in_reach(&self, elastic: u64) -> u64 {
        if self.own.sealed { 0 } else { self.reach(elastic).saturating_sub(self.used()) }
    }

    /// Plans a higher mark when what is promised needs it, or will soon. `ticket` is the write
    /// that would make it durable.
    pub(super) fn cover(&mut self, block: u64, elastic: u64, ticket: u64) -> Cover {
        let used = self.used();
        // Nobody may wait for witnesses, so their next block is planned while there is any left.
        let low = if self.seat.is_some() { block.div_ceil(2) } else { block / 2 };
        let short = used > self.own.hw;
        // With less than half a block left the next one is fetched before anybody waits for it.
        let soon = self.own.hw == self.durable.hw && self.own.hw - used.min(self.own.hw) < low;
        if (short || soon) && self.may_write() {
            let mark = used.saturating_add(block).min(self.reach(elastic));
            if mark > self.own.hw {
                self.own.hw = mark;
                self.raise_ticket = ticket;
                self.changed = true;
            }
        }
        let durable = used <= self.durable.hw || plant::is_on(Plant::GrantBeforeStored);
        if durable { Cover::Durable } else { Cover::Planned }
    }

    /// Settles part of what was promised: `actual` is spent, the rest of `reserved` comes back.
    pub(super) fn settle(&mut self, reserved: u64, actual: u64) {
        self.reserved = self.reserved.saturating_sub(reserved);
        let again = if plant::is_on(Plant::SettledTwice) { actual } else { 0 };
        self.spent = self.spent.saturating_add(actual.min(reserved)).saturating_add(again);
    }

    /// Overruns become spending as far as the durable mark covers them.
    pub(super) fn pay(&mut self) {
        let room = self.durable.hw.saturating_sub(self.spent.saturating_add(self.reserved));
        let paid = self.owed.min(room);
        self.owed -= paid;
        self.spent += paid;
    }

    /// Plans a gift.
    pub(super) fn give(&mut self, to: Holder, amount: u64) {
        let entry = self.own.out.entry(to).or_default();
        *entry = entry.saturating_add(amount);
        self.given = self.given.saturating_add(amount);
        self.changed = true;
    }

    /// Counts a gift that is durable now; how much it added.
    pub(super) fn credit(&mut self, donor: Holder, amount: u64) -> u64 {
        let known = self.credited.entry(donor).or_default();
        let added = match plant::is_on(Plant::GiftCountedTwice) {
            true => amount,
            false => amount.saturating_sub(*known),
        };
        *known += added;
        self.counted = self.counted.saturating_add(added);
        added
    }

    /// Adds up what the others say.
    pub(super) fn count_others(&mut self) {
        self.others_demand = self.ledger.rows().any(|signed| signed.row.demand > 0);
        let marks = self.ledger.rows().map(|signed| signed.row.hw);
        self.others_hw = marks.fold(0, u64::saturating_add);
    }
}

/// The period of a rate. Months have none that is fixed; thirty days are close enough to space
/// requests evenly.
pub(super) const fn period_micros(period: Period) -> Micros {
    match period {
        Period::Second => Micros::secs(1),
        Period::Minute => Micros::secs(60),
        Period::Hour => Micros::secs(3_600),
        Period::Day => Micros::secs(86_400),
        Period::Month => Micros::secs(30 * 86_400),
    }
}
