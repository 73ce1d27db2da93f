//! The hot path: may a request run, and may it go on.
//!
//! All budgets of a request are taken or none. What is taken is promised at once, so nobody else
//! can take it, but the request is told only when the high-water marks that cover it are durable.

use std::sync::Arc;

use selvedge_base::{Micros, Mono, Now, RequestId, Wall};
use selvedge_proto::policy::{AccountPath, Budget, KeyId, OnExhausted, Unit};

use super::charge::{BlockedBudget, Charge, CostClass, QuotaRefusal, Verdict, Why};
use super::purse::{Cover, Purse, period_micros};
use super::{MAX_BUDGETS, MAX_HOLDS, MAX_LEASE, MAX_RESERVATIONS, Quota, QuotaEffect};

/// Callers whose purses are remembered; more are looked up in the policy again.
pub(super) const MAX_ROUTES: usize = 4_096;
/// Shares of one request: four levels of eight budgets, each in the window before and after a turn.
const MAX_SHARES: usize = 64;
/// When peers may soon have what is missing.
const SOON: Micros = Micros::secs(1);

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
    wanted: Vec<Share>,
    pub(super) lease_ends: Mono,
    /// Whether it was told that it may run; what it waits for then is an extension.
    pub(super) told: bool,
    state: State,
    class: CostClass,
    /// What it asked for, while it may still be downgraded.
    asked: Option<Box<Asked>>,
    downgrade: Option<String>,
    local_only: bool,
}

/// What a held request asked for.
#[derive(Clone, Debug)]
struct Asked {
    account: AccountPath,
    key: Option<KeyId>,
    worst: Charge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
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
    place: usize,
    needed: u64,
    left: u64,
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

    const fn hold_ends(&self) -> Option<Mono> {
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
        let mut request = Request {
            shares: self.spare.pop().unwrap_or_default(),
            wanted,
            lease_ends: now.mono.plus(lease.min(MAX_LEASE)),
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
                unit => charge.cost(unit),
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
    fn take_all(
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
    fn admit(
        &mut self,
        now: Now,
        id: RequestId,
        mut request: Request,
        ticket: Option<u64>,
        effects: &mut Vec<QuotaEffect>,
    ) {
        self.leases.insert((request.lease_ends, id));
        request.asked = None;
        request.state = if ticket.is_some() { State::Covering } else { State::Active };
        self.requests.insert(id, request);
        match ticket {
            None => self.covered(id, effects),
            Some(_) if self.journal.is_failing(now.mono) => self.drop_uncovered(id, effects),
            Some(ticket) => self.journal.wait(ticket, id),
        }
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

    /// Something is missing: wait for peers if one of them may have it, or end it here.
    fn hold_or_end(
        &mut self,
        now: Now,
        id: RequestId,
        mut request: Request,
        lack: Lack,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let hold = self.options.hold;
        let room = self.holds.len() < MAX_HOLDS && hold > Micros::ZERO;
        if !room || !self.ask_for_all(now, &request.wanted, effects) {
            return self.end_lacking(now, id, request, lack, effects);
        }
        request.state = State::Held { until: now.mono.plus(hold) };
        self.leases.insert((request.lease_ends, id));
        self.holds.push_back(id);
        self.requests.insert(id, request);
    }

    /// Asks peers for everything that is missing; whether anybody was asked.
    fn ask_for_all(&mut self, now: Now, wanted: &[Share], effects: &mut Vec<QuotaEffect>) -> bool {
        let mut all = true;
        for share in wanted {
            let left = self.purses[share.place].may_spend(now.mono);
            if left < share.amount && !self.purses[share.place].is_free() {
                let missing = share.amount - left;
                all &= self.ask_urgently(share.place, missing, share.amount, now, effects);
            }
        }
        all
    }

    /// Rights may have come: whoever is held tries again, in the order they came.
    pub(super) fn retry_holds(&mut self, now: Now, effects: &mut Vec<QuotaEffect>) {
        for _ in 0..self.holds.len() {
            let Some(id) = self.holds.pop_front() else { return };
            let Some(mut request) = self.requests.remove(&id) else { continue };
            if request.hold_ends().is_none() {
                self.requests.insert(id, request);
                continue;
            }
            match self.take_all(now, &mut request, effects) {
                Ok(ticket) => self.admit(now, id, request, ticket, effects),
                Err(_) => {
                    self.holds.push_back(id);
                    self.requests.insert(id, request);
                }
            }
        }
    }

    /// Waiting is over for those whose time has come: one last look, then an answer.
    pub(super) fn end_holds(&mut self, now: Now, effects: &mut Vec<QuotaEffect>) {
        for _ in 0..self.holds.len() {
            let Some(id) = self.holds.pop_front() else { return };
            let Some(mut request) = self.requests.remove(&id) else { continue };
            match request.hold_ends() {
                Some(until) if until <= now.mono => {}
                Some(_) => {
                    self.holds.push_back(id);
                    self.requests.insert(id, request);
                    continue;
                }
                None => {
                    self.requests.insert(id, request);
                    continue;
                }
            }
            match self.take_all(now, &mut request, effects) {
                Ok(ticket) => self.admit(now, id, request, ticket, effects),
                Err(lack) => self.end_lacking(now, id, request, lack, effects),
            }
        }
    }

    /// All peers asked for a budget declined: whoever waits for it need not wait on.
    pub(super) fn hurry_holds(&mut self, now: Now, place: usize) {
        for id in &self.holds {
            let Some(request) = self.requests.get_mut(id) else { continue };
            if request.wanted.iter().any(|share| share.place == place) {
                match &mut request.state {
                    State::Held { until } => *until = now.mono,
                    State::Covering | State::Active => {}
                }
            }
        }
    }

    pub(super) fn next_hold_end(&self) -> Option<Mono> {
        let ends = |id| self.requests.get(id)?.hold_ends();
        self.holds.iter().filter_map(ends).min()
    }

    /// There is not enough: a cheaper way if the budget names one, or a refusal.
    fn end_lacking(
        &mut self,
        now: Now,
        id: RequestId,
        mut request: Request,
        lack: Lack,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let refusal = self.exhausted(now, lack);
        request.wanted.clear();
        request.state = State::Active;
        let Some(asked) = request.asked.take() else {
            // An extension: what was granted before stays.
            self.requests.insert(id, request);
            return refuse(id, refusal, effects);
        };
        self.leases.remove(&(request.lease_ends, id));
        let mut charge = asked.worst;
        match &self.purses[lack.place].budget.spec.on_exhausted {
            OnExhausted::Refuse => {}
            OnExhausted::Downgrade(model) => {
                request.downgrade = Some(model.clone());
                charge.model.clone_from(model);
            }
            OnExhausted::LocalOnly => request.local_only = true,
        }
        if request.local_only || request.downgrade.is_some() {
            charge.class = CostClass::Local;
            let mut wanted = std::mem::take(&mut request.wanted);
            let known =
                self.shares_of(now, &asked.account, asked.key, &charge, &mut wanted, effects);
            request.wanted = wanted;
            request.class = CostClass::Local;
            if known && let Ok(ticket) = self.take_all(now, &mut request, effects) {
                return self.admit(now, id, request, ticket, effects);
            }
        }
        self.recycle(request);
        refuse(id, refusal, effects);
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

    /// What a charge takes of every budget of its caller; false when there is no room for another
    /// budget or share.
    fn shares_of(
        &mut self,
        now: Now,
        account: &AccountPath,
        key: Option<KeyId>,
        charge: &Charge,
        shares: &mut Vec<Share>,
        effects: &mut Vec<QuotaEffect>,
    ) -> bool {
        let known = self.routes.get(account).and_then(|keys| keys.get(&key)).cloned();
        let Some(places) = known.or_else(|| self.route(now, account, key, effects)) else {
            return false;
        };
        shares.clear();
        for place in places.iter() {
            let spec = &self.purses[*place].budget.spec;
            let cloud = charge.class == CostClass::Cloud;
            let amount = charge.cost(spec.unit);
            if amount > 0 && spec.scope.counts(&charge.model, cloud) {
                shares.push(Share { place: *place, window: 0, amount });
            }
        }
        shares.len() <= MAX_SHARES
    }

    /// Finds the purses of a caller in the policy.
    fn route(
        &mut self,
        now: Now,
        account: &AccountPath,
        key: Option<KeyId>,
        effects: &mut Vec<QuotaEffect>,
    ) -> Option<Arc<[usize]>> {
        let budgets = self.book.budgets_of(account, key.as_ref());
        let places: Option<Vec<usize>> =
            budgets.iter().map(|budget| self.place_of(budget.clone(), now, effects)).collect();
        let places: Arc<[usize]> = places?.into();
        if self.routes.len() >= MAX_ROUTES {
            self.routes.clear();
        }
        let keys = self.routes.entry(account.clone()).or_default();
        if keys.len() >= MAX_ROUTES {
            keys.clear();
        }
        keys.insert(key, places.clone());
        Some(places)
    }

    /// The purse of a budget, made if there is room.
    pub(super) fn place_of(
        &mut self,
        budget: Arc<Budget>,
        now: Now,
        effects: &mut Vec<QuotaEffect>,
    ) -> Option<usize> {
        if let Some(place) = self.places.get(&budget.id) {
            return Some(*place);
        }
        let id = budget.id;
        let place = if self.purses.len() < MAX_BUDGETS {
            self.purses.len()
        } else {
            self.purses.iter().position(|purse| self.is_forgotten(purse))?
        };
        let mut purse = self.wake(budget);
        if let Some(before) = self.purses.get_mut(place) {
            std::mem::swap(before, &mut purse);
            self.put_to_rest(purse);
        } else {
            self.purses.push(purse);
        }
        self.places.insert(id, place);
        self.refresh(place, now, effects);
        Some(place)
    }

    /// Why a budget cannot pay, and when it may.
    fn exhausted(&self, now: Now, lack: Lack) -> Box<QuotaRefusal> {
        let purse = &self.purses[lack.place];
        let budget = &purse.budget;
        let resets_at = purse.term.and_then(|term| term.resets_at);
        let whole = budget.limit.saturating_add(purse.elastic());
        let why = match purse.stop() {
            Some(stop) => Why::Stopped(stop),
            None if lack.needed > whole => Why::TooLarge,
            None => Why::Exhausted,
        };
        let retry_after = match why {
            Why::TooLarge => None,
            Why::Exhausted => Some(self.wait_for(now, purse, lack)),
            _ => Some(SOON),
        };
        let budget = Some(BlockedBudget {
            id: budget.id,
            account: budget.level.account.clone(),
            name: budget.spec.name.clone(),
            unit: budget.spec.unit,
            period: budget.spec.period,
            limit: budget.limit,
        });
        let (needed, left) = (lack.needed, lack.left);
        Box::new(QuotaRefusal { why, budget, needed, left, resets_at, retry_after })
    }

    /// The earliest moment at which the missing units may be here: from requests under way, from
    /// peers with enough to spare, from the next part of the window, from the next window.
    fn wait_for(&self, now: Now, purse: &Purse, lack: Lack) -> Micros {
        let Some(term) = purse.term else { return SOON };
        if purse.unit() == Unit::Rate {
            let period = period_micros(purse.budget.spec.period);
            let rights = purse.tightest().map_or(0, super::purse::Account::rights);
            let wait = purse.bucket.wait_for(lack.needed, rights, period);
            return wait.unwrap_or(SOON).max(Micros::millis(1));
        }
        let until = |wall: Wall| wall.since(now.wall).max(Micros::millis(1));
        let change = until(term.until);
        let reset = term.resets_at.map_or(SOON, until);
        let reserved = purse.current().map_or(0, |account| account.reserved);
        let coming = purse.unit() == Unit::Concurrent
            || lack.left.saturating_add(reserved) >= lack.needed
            || self.peers_could_give(purse, now, lack.needed - lack.left.min(lack.needed));
        let wait = if coming { SOON } else { change };
        wait.min(reset)
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
