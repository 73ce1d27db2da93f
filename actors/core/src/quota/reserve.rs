//! The hot path: may a request run, and may it go on.
//!
//! All budgets of a request are taken or none. What is taken is promised at once, so nobody else
//! can take it, but the request is told only when the high-water marks that cover it are durable.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono, Now, RequestId};
use selvedge_proto::policy::{AccountPath, KeyId, PERMIT_LEASE, Unit};

use super::charge::{Charge, CostClass, QuotaRefusal, Verdict, Why};
use super::purse::{Cover, period_micros};
use super::{MAX_LEASE, MAX_RESERVATIONS, Quota, QuotaEffect};

/// Shares of one request: four levels of eight budgets, each in the window before and after a turn.
pub(super) const MAX_SHARES: usize = 64;
/// When peers may soon have what is missing.
pub(super) const SOON: Micros = Micros::secs(1);

/// What a request took, or wants to take, of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) place: usize,
    /// The ledger it was taken from.
    pub(super) window: u64,
    pub(super) amount: u64,
}

/// A request that was asked for and is not settled.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Taken. Shares of one budget stand together, oldest window first.
    pub(super) shares: Vec<Share>,
    /// Waiting for rights: everything at first, later an extension.
    pub(super) wanted: Vec<Share>,
    pub(super) lease_ends: Mono,
    /// When the lease ends that was asked for: permits are looked at again before.
    pub(super) ends: Mono,
    /// Whether it was told that it may run; what it waits for then is an extension.
    pub(super) told: bool,
    pub(super) state: State,
    pub(super) class: CostClass,
    /// What it asked for, while it may still be downgraded.
    pub(super) asked: Option<Box<Asked>>,
    pub(super) downgrade: Option<String>,
    pub(super) local_only: bool,
}

/// What a held request asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) account: AccountPath,
    pub(super) key: Option<KeyId>,
    pub(super) worst: Charge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for rights until then.
    Held { until: Mono },
    /// Waits for a write.
    Covering,
    /// Waits for nothing.
    Active,
}

/// The first budget that has not enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lack {
    pub(super) place: usize,
    pub(super) needed: u64,
    pub(super) left: u64,
}

impl Request {
    /// The incarnation it was promised by has ended.
    pub(super) fn void(&mut self) {
        self.shares.clear();
        self.wanted.clear();
    }

    /// Whether any of its shares is such a one.
    pub(super) fn names(&self, share: impl Fn(&Share) -> bool) -> bool {
        self.shares.iter().chain(&self.wanted).any(share)
    }

    pub(super) const fn hold_ends(&self) -> Option<Mono> {
        match self.state {
            State::Held { until } => Some(until),
            State::Covering | State::Active => None,
        }
    }
}

impl Quota {
    /// A request wants to run.
    #[expect(clippy::too_many_arguments, reason = "the fields of one input, not to be boxed")]
    pub(super) fn asked(
        &mut self,
        now: Now,
        id: RequestId,
        account: AccountPath,
        key: Option<KeyId>,
        worst: Charge,
        lease: Micros,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let refused = if self.requests.contains_key(&id) {
            // Whoever asked first gets the answer; a second reservation would never be settled.
            Some((Why::Unknown, None))
        } else if self.draining || self.retired {
            Some((Why::Retiring, None))
        } else if self.requests.len() >= MAX_RESERVATIONS {
            Some((Why::Overloaded, Some(SOON)))
        } else {
            None
        };
        if let Some((why, retry)) = refused {
            return refuse(id, QuotaRefusal::plain(why, retry), effects);
        }
        let mut wanted = self.spare.pop().unwrap_or_default();
        if !self.shares_of(now, &account, key, &worst, &mut wanted, effects) {
            return refuse(id, QuotaRefusal::plain(Why::Overloaded, None), effects);
        }
        for share in &wanted {
            self.purses[share.place].demand.add(now.mono, share.amount);
        }
        if !self.confirmed && !wanted.is_empty() {
            return refuse(id, QuotaRefusal::plain(Why::Unconfirmed, Some(SOON)), effects);
        }
        let ends = now.mono.plus(lease.min(MAX_LEASE));
        let mut request = Request {
            shares: self.spare.pop().unwrap_or_default(),
            wanted,
            lease_ends: ends,
            ends,
            told: false,
            state: State::Active,
            class: worst.class,
            asked: None,
            downgrade: None,
            local_only: false,
        };
        match self.take_all(now, &mut request, effects) {
            Ok(ticket) => self.admit(now, id, request, ticket, effects),
            Err(lack) => {
                request.asked = Some(Box::new(Asked { account, key, worst }));
                self.hold_or_end(now, id, request, lack, effects);
            }
        }
    }

    /// A request needs more than was reserved.
    pub(super) fn extended(
        &mut self,
        now: Now,
        id: RequestId,
        more: &Charge,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let Some(mut request) = self.requests.remove(&id) else {
            return refuse(id, QuotaRefusal::plain(Why::Unknown, None), effects);
        };
        if request.state != State::Active {
            self.requests.insert(id, request);
            return refuse(id, QuotaRefusal::plain(Why::Unknown, None), effects);
        }
        let charge = Charge { class: request.class, ..more.clone() };
        let mut last = None;
        for at in 0..request.shares.len() {
            let place = request.shares[at].place;
            let purse = &mut self.purses[place];
            let repeated = last.replace(place) == Some(place);
            let amount = match purse.unit() {
                // Permits and rates count requests, and this is the same request.
                Unit::Concurrent | Unit::Rate => 0,
                Unit::Tokens | Unit::Requests | Unit::MicroDollars => charge.cost(purse.unit()),
            };
            if repeated || amount == 0 {
                continue;
            }
            purse.demand.add(now.mono, amount);
            request.wanted.push(Share { place, window: 0, amount });
        }
        match self.take_all(now, &mut request, effects) {
            Ok(ticket) => self.admit(now, id, request, ticket, effects),
            Err(lack) => self.hold_or_end(now, id, request, lack, effects),
        }
    }

    /// Moves what is wanted to what is taken, if all of it is there. The ticket is that of the
    /// write the promise needs, if it needs one.
    pub(super) fn take_all(
        &mut self,
        now: Now,
        request: &mut Request,
        effects: &mut Vec<QuotaEffect>,
    ) -> Result<Option<u64>, Lack> {
        for at in 0..request.wanted.len() {
            let Share { place, amount, .. } = request.wanted[at];
            self.refresh(place, now, effects);
            let left = self.purses[place].may_spend(now.mono);
            if left < amount && !self.purses[place].is_free() {
                self.plan_marks(now, &request.wanted);
                return Err(Lack { place, needed: amount, left });
            }
        }
        let mut ticket = None;
        for at in 0..request.wanted.len() {
            let mut share = request.wanted[at];
            let (place, purse) = (share.place, &mut self.purses[share.place]);
            if purse.is_free() {
                continue;
            }
            share.window = purse.current().map_or(0, |account| account.own.key.window);
            match purse.unit() {
                Unit::Tokens | Unit::Requests | Unit::MicroDollars => {
                    purse.promise(share.window, share.amount);
                    ticket = ticket.max(self.cover(now, place, share.window));
                }
                Unit::Concurrent if plant::is_on(Plant::PermitsUncounted) => {}
                Unit::Concurrent => purse.permits = purse.permits.saturating_add(share.amount),
                Unit::Rate => {
                    let period = period_micros(purse.budget.spec.period);
                    let _taken = purse.bucket.take(share.amount, period);
                }
            }
            add_share(&mut request.shares, share);
            if self.purses[place].asking.calm_at.is_none_or(|at| now.mono >= at.plus(super::BEAT)) {
                self.ask_calmly(place, now, effects);
            }
        }
        request.wanted.clear();
        if request.shares.is_empty() {
            return Ok(ticket);
        }
        Ok(ticket.max(self.reach_horizon(now.wall)))
    }

    /// Plans a higher mark if one is needed; the write to wait for, if somebody must wait.
    pub(super) fn cover(&mut self, now: Now, place: usize, window: u64) -> Option<u64> {
        let next = self.journal.next_ticket();
        let purse = &mut self.purses[place];
        let (block, elastic) = (purse.block(now.mono), purse.elastic());
        let account = purse.account_mut(window)?;
        let planned = account.own.hw;
        let cover = account.cover(block, elastic, next);
        let waits = cover == Cover::Planned;
        if waits && self.journal.is_under_way(account.raise_ticket) {
            return Some(account.raise_ticket);
        }
        if waits || account.own.hw > planned {
            account.changed = true;
            self.journal.mark(place, window);
            self.journal.urgent = true;
        }
        waits.then_some(next)
    }

    /// A request has what it wants: tell it now, or when the write is durable.
    pub(super) fn admit(
        &mut self,
        now: Now,
        id: RequestId,
        mut request: Request,
        ticket: Option<u64>,
        effects: &mut Vec<QuotaEffect>,
    ) {
        if !request.told {
            self.leases.remove(&(request.lease_ends, id));
            request.lease_ends = self.lease_of(now.mono, &request);
            self.leases.insert((request.lease_ends, id));
        }
        request.asked = None;
        request.state = if ticket.is_some() { State::Covering } else { State::Active };
        self.requests.insert(id, request);
        match ticket {
            None => self.covered(id, effects),
            Some(_) if self.journal.is_failing(now.mono) => self.drop_uncovered(id, effects),
            Some(ticket) => self.journal.wait(ticket, id),
        }
    }

    /// When a request's lease ends, or its permits are looked at again.
    pub(super) fn lease_of(&self, now: Mono, request: &Request) -> Mono {
        let permit = |share: &Share| self.purses[share.place].unit() == Unit::Concurrent;
        let permits = request.shares.iter().any(permit);
        if permits { request.ends.min(now.plus(PERMIT_LEASE)) } else { request.ends }
    }

    /// What a request took is covered durably.
    pub(super) fn covered(&mut self, id: RequestId, effects: &mut Vec<QuotaEffect>) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if request.hold_ends().is_some() {
            return;
        }
        request.state = State::Active;
        let more = std::mem::replace(&mut request.told, true);
        let verdict = if more { Verdict::Extended } else { self.good(id) };
        effects.push(QuotaEffect::Answer { id, verdict });
    }

    /// What a request took is not covered, since the disk takes no writes: it is given back. An
    /// extension stays reserved instead, and comes back with the settlement.
    pub(super) fn drop_uncovered(&mut self, id: RequestId, effects: &mut Vec<QuotaEffect>) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if request.state != State::Covering {
            return;
        }
        request.state = State::Active;
        if !request.told
            && let Some(request) = self.requests.remove(&id)
        {
            self.leases.remove(&(request.lease_ends, id));
            self.release(&request.shares);
            self.recycle(request);
        }
        refuse(id, QuotaRefusal::plain(Why::Storage, Some(SOON)), effects);
    }

    fn good(&self, id: RequestId) -> Verdict {
        let mut budgets = Vec::new();
        let Some(request) = self.requests.get(&id) else {
            return Verdict::Granted { budgets, downgrade: None, local_only: false };
        };
        budgets.reserve_exact(request.shares.len());
        for share in &request.shares {
            let id = self.purses[share.place].budget.id;
            if budgets.last() != Some(&id) {
                budgets.push(id);
            }
        }
        let (downgrade, local_only) = (request.downgrade.clone(), request.local_only);
        Verdict::Granted { budgets, downgrade, local_only }
    }

    /// Forgets a request of an incarnation that ended; whether it still waited for its answer.
    pub(super) fn forget_request(&mut self, id: RequestId) -> bool {
        let Some(request) = self.requests.remove(&id) else { return false };
        let waited = !request.told || request.state != State::Active;
        self.leases.remove(&(request.lease_ends, id));
        self.recycle(request);
        waited
    }

    pub(super) fn recycle(&mut self, request: Request) {
        for mut shares in [request.shares, request.wanted] {
            if self.spare.len() < MAX_RESERVATIONS && shares.capacity() > 0 {
                shares.clear();
                self.spare.push(shares);
            }
        }
    }
}

/// Adds a share next to those of its budget.
fn add_share(shares: &mut Vec<Share>, share: Share) {
    match shares.iter().rposition(|held| held.place == share.place) {
        Some(at) if shares[at].window == share.window => {
            shares[at].amount = shares[at].amount.saturating_add(share.amount);
        }
        Some(at) if shares.len() < MAX_SHARES => shares.insert(at + 1, share),
        Some(_) | None => shares.push(share),
    }
}

pub(super) fn refuse(id: RequestId, refusal: Box<QuotaRefusal>, effects: &mut Vec<QuotaEffect>) {
    effects.push(QuotaEffect::Answer { id, verdict: Verdict::Refused(refusal) });
}
