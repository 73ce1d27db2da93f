//! One target at a provider: reserve the worst case, ask, pass on what comes, settle what is
//! billed.
//!
//! Owns the order of these and the cancelling. What may be spent, whether the provider is asked and
//! what its bytes mean are decided elsewhere.

use bytes::Bytes;
use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use selvedge_core::aim::Leaving;
use selvedge_core::bill::{Bill, Took};
use selvedge_core::journey::Target;
use selvedge_core::paid::{Priced, Running};
use selvedge_dialect::chat::{ChatRequest, Event, Failure, Usage};
use selvedge_upstream::{Call, Events, Failed};

use super::{ChatCall, End, Relay};
use crate::gateway::change;
use crate::providers::{Open, counts, speak};
use crate::quota::{Reservation, Takes, Wanted};

/// The longest answer asked of a provider when a budget counts and neither the caller nor the
/// catalogue sets a limit: several screens, as in a chat. All of it is reserved beforehand.
const USUAL_ANSWER: u32 = 4_096;

impl Relay {
    /// Asks a provider's model for the whole answer.
    pub(super) async fn ask_provider(&mut self, provider: &str, model: &str) -> End {
        let Some(open) = self.shared.providers.find(provider) else {
            return End::Failed(gone(provider).into());
        };
        let only_there =
            self.aim.routed || self.journey.legs().iter().all(|leg| leg.target.is_paid());
        if let Err(refusal) = may_leave(&self.call, &open, only_there) {
            return End::Failed(refusal.into());
        }
        let (priced, request) = match self.to_say(&open, model) {
            Ok(both) => both,
            Err(refusal) => return End::Failed(refusal.into()),
        };
        let spoken =
            match speak::say(open.spec(), &request, &self.call.id.to_string(), priced.longest()) {
                Ok(spoken) => spoken,
                Err(refusal) => return End::Failed(refusal.into()),
            };
        let mut reservation = None;
        if self.shared.policies.limits(&self.call.account, self.call.key.as_ref()) {
            match self.reserve(provider, model, &priced).await {
                Ok(None) => return End::CallerLeft,
                Ok(Some(held)) if held.local_only() => return End::LocalOnly,
                Ok(Some(held)) if held.downgrade().is_some() => {
                    let model = held.downgrade().unwrap_or_default().to_owned();
                    drop(held);
                    return self.ask_mesh(model).await;
                }
                Ok(Some(held)) => reservation = Some(held),
                Err(refusal) => {
                    self.shared.counters.budget_refusals.bump();
                    return End::Failed(refusal.into());
                }
            }
        }
        self.shared.counters.provided.bump();
        let call = Call {
            model: request.model.clone(),
            method: spoken.outgoing.method,
            path: spoken.outgoing.path,
            headers: spoken.outgoing.headers,
            body: Bytes::from(spoken.outgoing.body),
            expects: spoken.expects,
            tokens: priced.worst().tokens,
            idempotent: false,
        };
        let asked = tokio::select! {
            biased;
            () = self.to_caller.closed() => return End::CallerLeft,
            asked = open.provider.ask(&call, self.deadline) => asked,
        };
        match asked {
            Ok(answer) => {
                let paying = Paying { priced, reservation, running: Running::default() };
                self.pass_on(Events::new(answer, spoken.parser), paying).await
            }
            Err(failed) => End::Failed(failure(&open, &failed)),
        }
    }

    /// What is said to the provider, and what it can cost at most.
    fn to_say(&self, open: &Open, model: &str) -> Result<(Priced, ChatRequest), Refusal> {
        let mut request = self.call.request.clone();
        let known = open.spec().model(model);
        request.model = known.map_or_else(|| model.to_owned(), |known| known.upstream.clone());
        let (account, key) = (&self.call.account, self.call.key.as_ref());
        let limited = self.shared.policies.limits(account, key);
        let money = self.shared.policies.counts_money(account, key);
        let priced = self.shared.providers.price(open, &request, USUAL_ANSWER);
        if money && !priced.is_known() {
            return Err(unpriced(open, &request.model));
        }
        if limited && request.max_tokens.is_none() {
            // What is not reserved may not be spent: the provider is told where to end.
            request.max_tokens = Some(priced.longest());
        }
        // A stream without its usage could not be settled; who did not ask for it is not shown it.
        request.include_usage = request.stream;
        Ok((priced, request))
    }

    /// What the budgets hold for it; none when the caller is gone.
    async fn reserve(
        &self,
        provider: &str,
        model: &str,
        priced: &Priced,
    ) -> Result<Option<Reservation>, Refusal> {
        let target = Target::Provider { provider: provider.to_owned(), model: model.to_owned() };
        let wanted = Wanted {
            id: self.call.id,
            account: self.call.account.clone(),
            key: self.call.key,
            model: target.to_string(),
            takes: Takes::Paid(Bill::at_most(priced.worst())),
            deadline: self.call.deadline,
        };
        tokio::select! {
            biased;
            reserved = self.shared.quota.reserve(wanted) => reserved.map(Some),
            () = self.to_caller.closed() => Ok(None),
        }
    }

    /// Passes an answer on, event by event.
    async fn pass_on(&mut self, mut events: Events, mut paying: Paying) -> End {
        let mut changes = Some(self.shared.policies.changes());
        loop {
            let next = tokio::select! {
                biased;
                () = self.to_caller.closed() => return End::CallerLeft,
                lost = paying.lost() => return End::Failed(lost.into()),
                () = change(&mut changes) => {
                    // A key that was revoked meanwhile buys no more.
                    match self.shared.policies.bars(&self.call.account, self.call.key.as_ref()) {
                        Some(barred) => return End::Failed(barred.into()),
                        None => continue,
                    }
                }
                next = events.next() => next,
            };
            let event = match next {
                Ok(Some(event)) => event,
                // The last event says that it is the last.
                Ok(None) => return End::Failed(super::nowhere().into()),
                Err(failed) => {
                    // What the provider counted before it was cut off is what it bills.
                    paying.note(events.usage(), None);
                    return End::Failed(failed.refusal().into());
                }
            };
            paying.note(events.usage(), Some(&event));
            let over = match event {
                Event::Failed(failure) => return End::Failed(failure),
                Event::Finished { .. } => true,
                _ => false,
            };
            if over {
                // Whoever has the end finds it settled.
                paying.settle();
            }
            if !self.deliver(event).await {
                return End::CallerLeft;
            }
            if over {
                return End::Answered;
            }
        }
    }
}

/// What is owed for an answer while it comes. Dropping it settles.
struct Paying {
    priced: Priced,
    reservation: Option<Reservation>,
    running: Running,
}

impl Paying {
    /// Notes what the answer took so far.
    fn note(&mut self, told: Option<Usage>, event: Option<&Event>) {
        match event {
            Some(Event::Text { .. } | Event::Thinking { .. } | Event::ToolArguments { .. }) => {
                self.running.piece();
            }
            Some(Event::Finished { usage: Some(usage), .. }) => {
                return self.bill(self.priced.cost(&counts(usage)));
            }
            _ => {}
        }
        let told = told.as_ref().map(counts);
        if let Some(took) = self.running.so_far(&self.priced, told) {
            self.bill(took);
        }
    }

    const fn bill(&mut self, took: Took) {
        if let Some(reservation) = &mut self.reservation {
            reservation.billed(took);
        }
    }

    /// Resolves when the budgets take back what they gave: why the answer must end.
    async fn lost(&mut self) -> Refusal {
        loop {
            match &mut self.reservation {
                Some(reservation) => {
                    if let Some(refusal) = reservation.answer().await {
                        return refusal;
                    }
                }
                None => return std::future::pending().await,
            }
        }
    }

    fn settle(&mut self) {
        self.reservation = None;
    }
}

/// Whether a request's data and money may go to a provider.
pub(super) fn may_leave(call: &ChatCall, open: &Open, only_there: bool) -> Result<(), Refusal> {
    let (label, keyed, costs_money) = (call.label, call.keyed, open.costs_money());
    Leaving { label, only_there, keyed, costs_money }.check(&open.spec().name)
}

/// A provider's no, with what it said in its own words.
pub(super) fn failure(open: &Open, failed: &Failed) -> Failure {
    let mut refusal = failed.refusal();
    let said = failed.said().map(|said| speak::refused(open.spec().kind, said));
    let provider = said.and_then(|failure| failure.provider);
    if let Some(provider) = &provider
        && !provider.message.is_empty()
    {
        refusal.message = format!("{}: {}", refusal.message, provider.message);
        refusal.param.clone_from(&provider.param);
    }
    Failure { refusal, provider }
}

pub(super) fn gone(provider: &str) -> Refusal {
    let message = format!("provider '{provider}' was removed");
    Refusal::new(Stage::Route, Blame::Us, Retry::Elsewhere, Code::ModelUnavailable, message)
}

fn unpriced(open: &Open, model: &str) -> Refusal {
    let message = format!(
        "a budget of money counts this account, and no price of model '{model}' of provider '{}' \
         is known; what is not priced cannot be paid for",
        open.spec().name
    );
    Refusal::new(Stage::Reserve, Blame::Us, Retry::Elsewhere, Code::QuotaExhausted, message)
}
