//! Whose request is begun next, and how many a tenant may have.
//!
//! Owns the shares of tenants: what each was given, whose turn it is among those that wait, and
//! the places that one may take. Deliberately lacks the queue, which is the schedule's, and what
//! tokens take in time: shares are counted in tokens, prompt and answer alike.
//!
//! The rules: whoever was given least is next. What a request may yet take is given when it begins,
//! and what it did not take is given back when it ends, so that it does not matter how many run at
//! once. Nobody saves up: who comes begins at what the last one really had who was begun. What is
//! computed raises that, so that others who come again and again go before nobody for ever. Of one
//! tenant's the urgent ones are first, then those whose deadline is first, then those that came
//! first. What is not urgent at all goes behind everybody else's. None is overtaken without end:
//! after [`MOST_OVERTAKEN`] that came later it is its tenant's first.
//!
//! Urgency orders a tenant's own requests and never goes before another tenant's, so that calling
//! all of them urgent is worth nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use selvedge_base::{Micros, Mono};

use crate::sequence::Sequence;

/// Later requests that may go before one: of its own tenant, or of anybody where its priority is
/// low. As many as wait by default, so that a full queue that comes later goes before it once.
pub const MOST_OVERTAKEN: u32 = 64;
/// Bytes of a name that tell a tenant from others: a peer's id and the longest name that a hand-off
/// may give its tenant come to fewer.
const NAME_BYTES: usize = 256;
/// Of the places to wait, one of so many is kept for tenants that have fewer than that: enough for
/// a few who come, and hardly missed by who is alone.
const KEPT_PART: usize = 8;

/// Among whom an engine is shared out.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// The tenant of a name, of which the first 256 bytes count.
    pub fn new(name: &str) -> Self {
        let cut = name.floor_char_boundary(NAME_BYTES);
        Self(Arc::from(name.get(..cut).unwrap_or(name)))
    }
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before the others of its tenant.
    High,
    /// As most are.
    #[default]
    Normal,
    /// Behind everybody's.
    Low,
}

/// What a request claims of the turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Whose share it counts against.
    pub tenant: Tenant,
    /// How urgent it is.
    pub priority: Priority,
    /// From when on nobody wants it any more; `None` = never.
    pub deadline: Option<Mono>,
}

impl Claim {
    /// The claim of a tenant's request of which nothing else is known.
    pub fn of(tenant: &str) -> Self {
        Self { tenant: Tenant::new(tenant), ..Self::default() }
    }
}

/// Who asks an engine, and how its request stands beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker<'a> {
    /// With whom what is computed of prompts may be shared.
    pub scope: &'a str,
    /// Whose share it counts against.
    pub tenant: &'a str,
    /// Among whose requests its place is counted: a peer's tenants have places together, whatever
    /// it calls them.
    pub group: &'a str,
    /// How urgent it is.
    pub priority: Priority,
    /// The time until nobody wants an answer any more; `None` = endless.
    pub within: Option<Micros>,
}

impl<'a> Asker<'a> {
    /// A tenant of whom nothing else is known.
    pub const fn new(tenant: &'a str) -> Self {
        Self { scope: tenant, tenant, group: tenant, priority: Priority::Normal, within: None }
    }

    /// What its request claims, asked now.
    pub fn claim(&self, now: Mono) -> Claim {
        Claim {
            tenant: Tenant::new(self.tenant),
            priority: self.priority,
            deadline: self.within.map(|within| now.plus(within)),
        }
    }
}

/// Places for the requests of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Requests that run together.
    pub running: usize,
    /// Requests that may wait.
    pub waiting: usize,
}

/// Why there is no place for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// All places are taken, or the last ones are kept for others.
    Everybody,
    /// Its tenant has so many requests already as it may have beside others.
    Tenant(usize),
}

impl Places {
    /// Whether a tenant that has `own` of `all` requests may have one more. Beside others it has
    /// half of the places to wait at most, and the last ones are for those who have few, so that
    /// whoever comes finds one.
    ///
    /// # Errors
    /// Why not.
    pub const fn admit(self, all: usize, own: usize) -> Result<(), Crowded> {
        let Self { running, waiting } = self;
        let kept = waiting / KEPT_PART;
        let most = running + waiting.div_ceil(2);
        if all > own && own >= most {
            return Err(Crowded::Tenant(most));
        }
        let kept = if own >= kept { kept } else { 0 };
        if all + kept >= running + waiting {
            return Err(Crowded::Everybody);
        }
        Ok(())
    }
}

/// How a request stands among those of its tenant; the least is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Too many went before it.
    Overtaken,
    /// Urgent, until its deadline.
    High(Mono),
    /// As most are.
    Normal(Mono),
    /// Behind everybody's.
    Low(Mono),
}

impl Rank {
    const fn is_low(self) -> bool {
        match self {
            Self::Overtaken | Self::High(_) | Self::Normal(_) => false,
            Self::Low(_) => true,
        }
    }
}

/// What one tenant has been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Account {
    /// Tokens, counted from an arbitrary start that all have in common.
    given: u64,
    /// What it began with in this line: what is given back does not go below it.
    floor: u64,
    /// It waits with more than what goes behind everybody's.
    in_line: bool,
}

/// The shares of all tenants of one model.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    accounts: BTreeMap<Tenant, Account>,
    /// Where who comes begins: what whoever was begun last had been given before, less what its
    /// requests that run may yet take; and more by what all were given since, divided among as many
    /// as are remembered, which is no more than any of those has who waits.
    level: u64,
    /// Tokens that were taken and have not raised the level by one.
    taken: u64,
    /// Tenants that are remembered: as many as there are places for requests.
    most: usize,
}

impl Shares {
    pub(crate) const fn new(most: usize) -> Self {
        Self { accounts: BTreeMap::new(), level: 0, taken: 0, most }
    }

    /// Where in the queue, in which the oldest are in front, whoever is next stands. Whoever was
    /// paused is in front of all, and first.
    pub(crate) fn next(&mut self, queue: &VecDeque<Sequence>) -> Option<usize> {
        if queue.front()?.begun {
            return Some(0);
        }
        let mut firsts: BTreeMap<&Tenant, (Rank, usize)> = BTreeMap::new();
        for (at, sequence) in queue.iter().enumerate() {
            let this = (sequence.rank(), at);
            let first = firsts.entry(&sequence.claim.tenant).or_insert(this);
            *first = this.min(*first);
        }
        self.line_up(&firsts);
        let stand = |(tenant, (rank, at)): (&&Tenant, &(Rank, usize))| {
            (rank.is_low(), self.start(tenant), *at)
        };
        firsts.iter().map(stand).min().map(|(_, _, at)| at)
    }

    /// Notes that a tenant's request begins, which may take so many tokens, beside others of the
    /// tenant that may yet take so many, `open`.
    pub(crate) fn begin(&mut self, tenant: &Tenant, tokens: u32, open: u64) {
        let (start, level) = (self.start(tenant), self.level);
        let new = Account { given: start, floor: level, in_line: false };
        let account = self.accounts.entry(tenant.clone()).or_insert(new);
        if !account.in_line {
            account.floor = level;
        }
        account.given = start.saturating_add(u64::from(tokens));
        self.level = level.max(start.saturating_sub(open));
    }

    /// Notes that a tenant's request ended, which has taken so many of the tokens that it might
    /// have taken and left so many.
    pub(crate) fn end(&mut self, tenant: &Tenant, taken: u32, left: u32) {
        if let Some(account) = self.accounts.get_mut(tenant) {
            account.given = account.given.saturating_sub(u64::from(left)).max(account.floor);
        }
        let (all, most) = (self.taken + u64::from(taken), self.most.max(1) as u64);
        self.level = self.level.saturating_add(all / most);
        self.taken = all % most;
    }

    /// Nobody waits and nothing runs: nobody has had more than another wanted.
    pub(crate) fn rest(&mut self) {
        self.accounts.clear();
        (self.level, self.taken) = (0, 0);
    }

    /// What a tenant counts as given, were it begun now.
    fn start(&self, tenant: &Tenant) -> u64 {
        match self.accounts.get(tenant) {
            Some(account) if account.in_line => account.given,
            Some(account) => account.given.max(self.level),
            None => self.level,
        }
    }

    /// Notes who is in line now. Who was not begins at the level.
    fn line_up(&mut self, firsts: &BTreeMap<&Tenant, (Rank, usize)>) {
        let level = self.level;
        let new = Account { given: level, floor: level, in_line: false };
        for (tenant, _) in firsts.iter().filter(|(_, (rank, _))| !rank.is_low()) {
            self.accounts.entry((*tenant).clone()).or_insert(new);
        }
        for (tenant, account) in &mut self.accounts {
            let in_line = firsts.get(tenant).is_some_and(|(rank, _)| !rank.is_low());
            if in_line && !account.in_line {
                (account.given, account.floor) = (account.given.max(level), level);
            }
            account.in_line = in_line;
        }
        // Whoever is behind the level would begin there in any case.
        self.accounts.retain(|_, account| account.in_line || account.given > level);
        while self.accounts.len() > self.most {
            let idle = self.accounts.iter().filter(|(_, account)| !account.in_line);
            let least = idle.min_by_key(|(_, account)| account.given);
            let Some(tenant) = least.map(|(tenant, _)| tenant.clone()) else { break };
            self.accounts.remove(&tenant);
        }
    }

    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.accounts.len()
    }
}

#[cfg(test)]
#[path = "fair_tests.rs"]
mod tests;
