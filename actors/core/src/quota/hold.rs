//! Requests that found too little: waiting for peers, a cheaper way, or a refusal that says when to
//! come back.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono, Now, RequestId, Wall};
use selvedge_proto::policy::{OnExhausted, Unit};

use super::charge::{BlockedBudget, CostClass, QuotaRefusal, Why};
use super::purse::{Account, Purse, period_micros};
use super::reserve::{Lack, Request, SOON, Share, State, refuse};
use super::status::WitnessStatus;
use super::{MAX_HOLDS, Quota, QuotaEffect};

/// How long a request waits when its rights are here and only witnesses have not heard of it: two
/// disks after each other and a round trip, even by satellite. A refusal would make the caller wait
/// as long.
const WITNESSED_HOLD: Micros = SOON;

impl Quota {
    /// Something is missing: wait for peers if one of them may have it, or end it here.
    pub(super) fn hold_or_end(
        &mut self,
        now: Now,
        id: RequestId,
        mut request: Request,
        lack: Lack,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let mut hold = self.options.hold;
        if self.lacks_only_word(now, &request.wanted) {
            hold = hold.max(WITNESSED_HOLD);
        }
        // Peers are asked also where nobody waits for them: whoever comes back, as the refusal
        // says, then finds what they gave. Calm asks would not do, since a peer that was asked
        // lately keeps its last permit from them.
        let room = self.holds.len() < MAX_HOLDS && hold > Micros::ZERO;
        let asks = room || !plant::is_on(Plant::RefusedUnasked);
        let asked = asks && self.ask_for_all(now, &request.wanted, effects);
        if !room || !asked {
            return self.end_lacking(now, id, request, lack, effects);
        }
        request.state = State::Held { until: now.mono.plus(hold) };
        self.leases.insert((request.lease_ends, id));
        self.holds.push_back(id);
        self.requests.insert(id, request);
    }

    /// Whether all that is missing is the word of witnesses.
    fn lacks_only_word(&mut self, now: Now, wanted: &[Share]) -> bool {
        wanted.iter().all(|share| {
            let purse = &mut self.purses[share.place];
            let seat = purse.current().filter(|account| account.seat.is_some());
            let here = seat.map_or(0, |account| account.in_reach(0));
            here.max(purse.may_spend(now.mono)) >= share.amount || purse.is_free()
        })
    }

    /// Asks peers for everything that is missing; whether anybody was asked.
    fn ask_for_all(&mut self, now: Now, wanted: &[Share], effects: &mut Vec<QuotaEffect>) -> bool {
        let mut all = true;
        for share in wanted {
            let left = self.purses[share.place].may_spend(now.mono);
            if left < share.amount && !self.purses[share.place].is_free() {
                let seat = self.purses[share.place].current().filter(|one| one.seat.is_some());
                let here = seat.map_or(left, |account| account.in_reach(0));
                if seat.is_some() && !self.has_quorum(share.place) {
                    // Neither rights nor witnesses will come.
                    return false;
                }
                if here >= share.amount {
                    // Only the witnesses' word is missing.
                    continue;
                }
                let missing = share.amount - here;
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

    /// Why a budget cannot pay, and when it may.
    pub(super) fn exhausted(&self, now: Now, lack: Lack) -> Box<QuotaRefusal> {
        let purse = &self.purses[lack.place];
        let budget = &purse.budget;
        let resets_at = purse.term.and_then(|term| term.resets_at);
        let whole = budget.limit.saturating_add(purse.elastic());
        let (why, retry_after) = match purse.stop() {
            Some(stop) => (Why::Stopped(stop), Some(SOON)),
            // A limit on how many run at once may be lowered to nothing; no request is too large.
            None if lack.needed > whole && purse.unit() != Unit::Concurrent => {
                (Why::TooLarge, None)
            }
            None if !purse.is_vouched(now.mono) => (Why::Unvouched, Some(SOON)),
            None if let Some(why) = self.unwitnessed(purse, lack.needed) => (why, Some(SOON)),
            None => (Why::Exhausted, Some(self.wait_for(now, purse, lack))),
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

    /// Whether only witnesses are missing, and cannot be asked now.
    fn unwitnessed(&self, purse: &Purse, wanted: u64) -> Option<Why> {
        let account = purse.current().filter(|account| account.in_reach(0) >= wanted)?;
        let WitnessStatus { needed, reached } = self.witnesses_of(account)?;
        (!self.is_quorum_here(account)).then_some(Why::Unwitnessed { reached, needed })
    }

    /// The earliest moment at which the missing units may be here: from requests under way, from
    /// peers with enough to spare, from the next part of the window, from the next window.
    fn wait_for(&self, now: Now, purse: &Purse, lack: Lack) -> Micros {
        let Some(term) = purse.term else { return SOON };
        if purse.unit() == Unit::Rate {
            let period = period_micros(purse.budget.spec.period);
            let rights = purse.tightest().map_or(0, Account::rights);
            let wait = purse.bucket.wait_for(lack.needed, rights, period);
            return wait.unwrap_or(SOON).max(Micros::millis(1));
        }
        let until = |wall: Wall| wall.since(now.wall).max(Micros::millis(1));
        let change = until(term.until);
        let reset = term.resets_at.map_or(SOON, until);
        let reserved = purse.current().map_or(0, |account| account.reserved);
        let witnessed = purse.current().filter(|account| account.seat.is_some());
        let coming = purse.unit() == Unit::Concurrent
            || witnessed.is_some_and(|account| account.in_reach(0) >= lack.needed)
            || lack.left.saturating_add(reserved) >= lack.needed
            || self.peers_could_give(purse, now, lack.needed - lack.left.min(lack.needed));
        let wait = if coming { SOON } else { change };
        wait.min(reset)
    }
}
