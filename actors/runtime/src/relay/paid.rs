//! One target at a provider: reserve the worst case, ask, pass on what comes, settle what is
//! billed.
//!
//! Owns the order of these and the cancelling. What may be spent, whether the provider is asked and
//! what its bytes mean are decided elsewhere.

use std::borrow::Cow;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, Refusal, RequestId, Retry, Stage};
use selvedge_core::aim::{Aim, Leaving};
use selvedge_core::bill::{Bill, Took};
use selvedge_core::catalogue::{Capability, Counts, Model};
use selvedge_core::journey::Target;
use selvedge_core::paid::{Priced, Running};
use selvedge_dialect::chat::{Event, Failure, LogProbs, Usage};
use selvedge_dialect::exchange::AnswerParser;
use selvedge_dialect::tap::Kind;
use selvedge_proto::policy::{AccountPath, KeyId};
use selvedge_upstream::{Answer, Aside, Call, Events, Failed, Passing};
use tokio::sync::watch;

use super::{ChatCall, End, Passable, Relay, Said};
use crate::gateway::change;
use crate::providers::{Open, counts, speak};
use crate::quota::{Reservation, Takes, Wanted, word};
use crate::shared::Shared;
use crate::trace::{Trace, finish_at, whom};

/// The longest answer asked of a provider when a budget counts and neither the caller nor the
/// catalogue sets a limit: several screens, as in a chat. All of it is reserved beforehand.
const USUAL_ANSWER: u32 = 4_096;

/// What is asked of a provider, and how its answer is read.
struct ToSay {
    priced: Priced,
    call: Call,
    reading: Reading,
    /// A budget counts it.
    limited: bool,
}

/// How an answer is read.
enum Reading {
    /// By its dialect, event by event.
    Translated(Box<dyn AnswerParser>),
    /// Its bytes pass.
    Passed {
        kind: Kind,
        stream: bool,
        /// Whether usage at a stream's end was asked for by us alone.
        drops: bool,
    },
}

impl Reading {
    /// In whose dialect bytes of a stream pass, if they do.
    const fn kind(&self) -> Option<Kind> {
        match self {
            Self::Passed { kind, stream: true, .. } => Some(*kind),
            Self::Passed { .. } | Self::Translated(_) => None,
        }
    }
}

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
        // An earlier target may have taken its time: a key that was revoked meanwhile buys nothing.
        let changes = Some(self.shared.policies.changes());
        if let Some(barred) = self.bars() {
            return End::Failed(barred.into());
        }
        let ToSay { priced, mut call, reading, limited } = match self.prepare(&open, model) {
            Ok(to_say) => to_say,
            Err(refusal) => return End::Failed(refusal.into()),
        };
        let mut reservation = None;
        if limited {
            match self.reserve(provider, model, &priced).await {
                // Another answer does not begin after a part of this one.
                Ok(held) if held.local_only() && self.going.is_some() => {
                    return End::Failed(no_money().into());
                }
                Ok(held) if held.local_only() => return End::LocalOnly,
                Ok(held) if held.downgrade().is_some() => {
                    let model = held.downgrade().unwrap_or_default().to_owned();
                    drop(held);
                    return Box::pin(self.ask_mesh(model)).await;
                }
                Ok(held) => reservation = Some(held),
                Err(refusal) => {
                    self.shared.counters.budget_refusals.bump();
                    return End::Failed(refusal.into());
                }
            }
        }
        self.shared.counters.provided.bump();
        self.begin_asking(&open, &mut call);
        let mut paying = Paying::new(priced, reservation, self.call.asked.stream());
        self.begin_keeping(reading.kind());
        let interrupted = pin!(self.interrupted(&mut paying, changes));
        let mut interrupted: Interrupted<'_> = Aside::new(interrupted);
        let asked = {
            let asking = pin!(open.provider.ask(&call, self.deadline));
            match interrupted.unless(asking).await {
                Ok(asked) => asked,
                Err(why) => return End::Failed(why.into()),
            }
        };
        self.asking.note(|turn| turn.attempts = attempts(&asked));
        let answer = match asked {
            Ok(answer) => answer,
            Err(failed) => return self.refused(&open, &failed),
        };
        match reading {
            Reading::Translated(parser) => {
                Box::pin(self.translate(&open, (answer, parser), paying, interrupted)).await
            }
            Reading::Passed { kind, stream, drops } => {
                let rename = self.renamed(&call);
                let mut passing = match stream {
                    true => Passing::stream(answer, kind, drops, rename),
                    false => Passing::whole(answer, kind, rename),
                };
                self.pass(&open, &mut passing, &mut paying, &mut interrupted).await
            }
        }
    }

    /// A provider gives no answer.
    fn refused(&self, open: &Open, failed: &Failed) -> End {
        let mut failure = failure(open, failed);
        // A model that only knows chats refuses a text itself; others may take it.
        if self.call.asked.is_raw() && failure.refusal.code == Code::InvalidRequest {
            failure.refusal.code = Code::Unsupported;
        }
        End::Failed(failure)
    }

    /// The name that an answer comes under, where it is not the provider's: the one asked for.
    fn renamed(&self, call: &Call) -> Option<&str> {
        Some(self.call.asked.model()).filter(|asked| *asked != call.model)
    }

    /// Notes for the trace that the provider is asked, and tells it of the trace.
    fn begin_asking(&mut self, open: &Open, call: &mut Call) {
        let trace = self.call.trace.as_ref();
        self.asking = Trace::ask(trace, &call.model, || whom(open.spec()));
        let streams = self.call.asked.stream();
        self.asking.note(|turn| turn.streams = Some(streams));
        let traced = self.asking.headers().into_iter();
        call.headers.extend(traced.map(|(name, value)| (name, Cow::Owned(value))));
    }

    /// What is said to the provider, and what it can cost at most.
    fn prepare(&mut self, open: &Open, model: &str) -> Result<ToSay, Refusal> {
        let known = open.spec().model(model);
        let upstream = known.map_or(model, |known| known.upstream.as_str());
        let known = known_of(&self.shared, &self.aim, open, (model, upstream));
        // Who does not tell how sure it is cannot be judged by it.
        self.judging = self.judging.take().filter(|_| tells_logprobs(known.as_deref()));
        let judged = self.judging.is_some();
        let limited = self.shared.policies.limits(&self.call.account, self.call.key.as_ref());
        // What a provider may charge more for than can be reserved is translated or refused.
        let bounded = |asked: &&Passable| !limited || asked.seen.is_bounded(asked.kind);
        if let Some(asked) =
            self.call.asked.passable().filter(|_| !judged && self.going.is_none()).filter(bounded)
        {
            let priced = open.price_passed(known.clone(), asked, USUAL_ANSWER);
            self.check_price(open, upstream, &priced)?;
            // What is not reserved may not be spent: the provider is told where to end.
            let limit = (limited && asked.seen.max_tokens.is_none()).then(|| priced.longest());
            let passed = speak::pass(open.spec(), asked, upstream, limit);
            if let Some((envelope, body, expects)) = passed {
                let (kind, stream) = (asked.kind, asked.seen.stream);
                let drops = kind == Kind::OpenAi && stream && !asked.seen.asks_usage;
                let reading = Reading::Passed { kind, stream, drops };
                let call = Call::passing(envelope, body, upstream, expects, priced.worst().tokens);
                return Ok(ToSay { priced, call, reading, limited });
            }
        }
        let mut request = self.to_ask(Some((open, known.as_deref())))?.into_owned();
        upstream.clone_into(&mut request.model);
        let priced = open.price(known, &request, USUAL_ANSWER);
        self.check_price(open, upstream, &priced)?;
        if limited && request.max_tokens.is_none() {
            request.max_tokens = Some(priced.longest());
        }
        if judged && request.logprobs.is_none() {
            request.logprobs = Some(LogProbs { top: 0 });
            self.hides_logprobs = true;
        }
        // A stream without its usage could not be settled; who did not ask for it is not shown it.
        request.include_usage = request.stream;
        let id = self.call.id.to_string();
        let speak::Spoken { outgoing, expects, parser } =
            speak::say(open.spec(), &request, &id, priced.longest())?;
        let call = Call::of(outgoing, upstream, expects, priced.worst().tokens);
        Ok(ToSay { priced, call, reading: Reading::Translated(parser), limited })
    }

    fn check_price(&self, open: &Open, model: &str, priced: &Priced) -> Result<(), Refusal> {
        let (account, key) = (&self.call.account, self.call.key.as_ref());
        if !priced.is_known() && self.shared.policies.counts_money(account, key) {
            return Err(unpriced(open, model));
        }
        Ok(())
    }

    /// What the budgets hold for it.
    async fn reserve(
        &self,
        provider: &str,
        model: &str,
        priced: &Priced,
    ) -> Result<Reservation, Refusal> {
        let times = (self.call.id, self.call.deadline);
        let payer = (&self.call.account, self.call.key);
        let wanted = wanted_at((provider, model), priced, times, payer);
        self.shared.quota.reserve(wanted).await
    }

    /// Passes an answer on in the caller's dialect, event by event. Boxed where it is asked for:
    /// what passes as it came does not carry it along.
    async fn translate(
        &mut self,
        open: &Open,
        (answer, parser): (Answer, Box<dyn AnswerParser>),
        mut paying: Paying,
        mut interrupted: Interrupted<'_>,
    ) -> End {
        let mut events = Events::new(answer, parser);
        loop {
            let event = match interrupted.unless(pin!(events.next())).await {
                Err(why) => return End::Failed(why.into()),
                Ok(next) => next,
            };
            let event = match event {
                Ok(Some(event)) => event,
                // The last event says that it is the last.
                Ok(None) => return End::Failed(super::nowhere().into()),
                Err(failed) => {
                    // What the provider counted before it was cut off is what it bills.
                    paying.note(events.usage(), None);
                    self.took(&paying);
                    return End::Failed(failed.refusal().into());
                }
            };
            paying.note(events.usage(), Some(&event));
            self.took(&paying);
            match event {
                Event::Failed(failure) => return End::Failed(named(open, failure)),
                // Whoever has the end finds it settled.
                Event::Finished { .. } => return End::Answered(Said::Event(event)),
                _ if self.deliver(event).await => {}
                _ => return End::Doubted,
            }
        }
    }

    /// Passes an answer's bytes on as they come. What is taken by value would be in the work of a
    /// chat twice, which is copied once for each.
    async fn pass(
        &mut self,
        open: &Open,
        passing: &mut Passing,
        paying: &mut Paying,
        interrupted: &mut Interrupted<'_>,
    ) -> End {
        // Pieces that were counted, and of those the ones whose bytes are held back.
        let (mut told, mut unsaid) = (0, 0);
        loop {
            let next = match interrupted.unless(pin!(passing.next())).await {
                Err(why) => return End::Failed(why.into()),
                Ok(next) => next,
            };
            let took = passing.took();
            let pieces = took.pieces - told;
            told = took.pieces;
            unsaid += pieces;
            paying.passed(pieces, took.usage);
            self.took(paying);
            let passed = match next {
                Ok(Some(passed)) => passed,
                // The last bytes say that they are the last.
                Ok(None) => return End::Failed(super::nowhere().into()),
                Err(failed) => return End::Failed(failed.refusal().into()),
            };
            if passed.failed {
                let said = speak::failed_inside(open.spec(), &passed.bytes);
                return End::Failed(named(open, said));
            }
            if passed.last {
                paying.ended(took.usage);
                self.took(paying);
                let usage = took.usage;
                let bytes = self.keep(passed.bytes, true);
                let finish = took.finish.as_ref().map(finish_at);
                self.asking.note(|turn| turn.finish.extend(finish));
                return End::Answered(Said::Bytes { bytes, pieces: unsaid, last: true, usage });
            }
            let bytes = self.keep(passed.bytes, false);
            if bytes.is_empty() {
                continue;
            }
            let pieces = std::mem::take(&mut unsaid);
            let said = Said::Bytes { bytes, pieces, last: false, usage: None };
            self.begin_giving();
            self.outlet.say(said).await;
        }
    }

    /// Notes what the answer took so far.
    fn took(&mut self, paying: &Paying) {
        self.journey.took(paying.took);
        self.counted = paying.counted;
    }

    /// Why the caller may not go on, if it may not.
    pub(super) fn bars(&mut self) -> Option<Refusal> {
        let (account, key) = (&self.call.account, self.call.key.as_ref());
        self.shared.policies.bars_again(account, key, &mut self.let_in)
    }

    /// Resolves when an answer that is asked for or comes must end at once: its budgets take back
    /// what they gave, or its key was revoked, which buys no more. It is asked before each piece,
    /// so that an answer that never pauses can be ended too.
    fn interrupted(
        &self,
        paying: &mut Paying,
        mut changes: Option<watch::Receiver<()>>,
    ) -> impl Future<Output = Refusal> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        let (account, key) = (self.call.account.clone(), self.call.key);
        let mut lost = paying.reservation.as_mut().and_then(Reservation::loss);
        async move {
            loop {
                tokio::select! {
                    biased;
                    Some(lost) = word(&mut lost) => return lost,
                    () = change(&mut changes) => {
                        if let Some(barred) = shared.policies.bars(&account, key.as_ref()) {
                            return barred;
                        }
                    }
                }
            }
        }
    }
}

/// Says why an answer must end, beside its coming.
type Interrupted<'a> = Aside<Pin<&'a mut (dyn Future<Output = Refusal> + Send)>>;

/// What a request wants of its budgets for an answer of a provider's model: the most it can take.
pub(super) fn wanted_at(
    (provider, model): (&str, &str),
    priced: &Priced,
    (id, deadline): (RequestId, Micros),
    (account, key): (&AccountPath, Option<KeyId>),
) -> Wanted {
    Wanted {
        id,
        account: account.clone(),
        key,
        model: [provider, "/", model].concat(),
        takes: Takes::Paid(Bill::at_most(priced.worst())),
        deadline,
    }
}

/// What is known of a provider's model, which the provider calls `upstream`: what it can cost.
pub(super) fn known_of(
    shared: &Shared,
    aim: &Aim,
    open: &Open,
    (model, upstream): (&str, &str),
) -> Option<Arc<Model>> {
    let spec = open.spec();
    let by_name = || shared.routing.model_of(spec, upstream);
    if aim.known.is_empty() {
        return by_name();
    }
    let target = Target::Provider { provider: spec.name.clone(), model: model.to_owned() };
    aim.known_of(&target, upstream, by_name)
}

/// Whether a model tells the probabilities of its tokens, as far as anybody knows.
fn tells_logprobs(model: Option<&Model>) -> bool {
    model.is_some_and(|model| model.abilities.can.contains(&Capability::Logprobs))
}

/// Times it was sent.
const fn attempts(asked: &Result<Answer, Failed>) -> u32 {
    match asked {
        Ok(answer) => answer.attempts(),
        Err(Failed::Attempt { attempts, .. }) => *attempts,
        Err(Failed::Denied { .. }) => 0,
    }
}

/// What is owed for an answer while it comes. Dropping it settles.
struct Paying {
    priced: Priced,
    reservation: Option<Reservation>,
    running: Running,
    streams: bool,
    /// What it comes to so far, and by which counts.
    took: Took,
    counted: Usage,
}

impl Paying {
    fn new(priced: Priced, reservation: Option<Reservation>, streams: bool) -> Self {
        let (running, took) = (Running::default(), Took::default());
        Self { priced, reservation, running, streams, took, counted: Usage::default() }
    }

    /// Notes what the answer took so far.
    fn note(&mut self, told: Option<Usage>, event: Option<&Event>) {
        match event {
            Some(Event::Text { .. } | Event::Thinking { .. } | Event::ToolArguments { .. }) => {
                self.running.piece();
            }
            Some(Event::Finished { usage, .. }) => return self.ended(*usage),
            _ => {}
        }
        self.seen(told);
    }

    /// Bills what was told and seen so far.
    fn seen(&mut self, told: Option<Usage>) {
        let counted = self.running.counts(&self.priced, told.as_ref().map(counts));
        let Some(counted) = counted else { return };
        self.bill(self.priced.cost(&counted));
        self.count(told, counted);
    }

    /// The answer is whole.
    fn ended(&mut self, told: Option<Usage>) {
        let told_counts = told.as_ref().map(counts);
        let (took, counted) = self.running.at_end(&self.priced, told_counts, self.streams);
        self.bill(took);
        if let Some(counted) = counted {
            self.count(told, counted);
        }
    }

    /// Notes what is counted; what else the provider told of it stays.
    fn count(&mut self, told: Option<Usage>, counted: Counts) {
        let (prompt_tokens, completion_tokens) = (counted.prompt, counted.completion);
        // Of what was not believed nothing stays.
        let told = told.filter(|told| told.prompt_tokens == prompt_tokens).unwrap_or_default();
        self.counted = Usage { prompt_tokens, completion_tokens, ..told };
    }

    const fn bill(&mut self, took: Took) {
        self.took = took;
        if let Some(reservation) = &mut self.reservation {
            reservation.billed(took);
        }
    }

    /// Notes what passed of an answer.
    fn passed(&mut self, pieces: u64, told: Option<Usage>) {
        for _ in 0..pieces {
            self.running.piece();
        }
        self.seen(told);
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

/// What a provider's dialect says of an answer that is none, with whose it was.
fn named(open: &Open, mut failure: Failure) -> Failure {
    let name = format!("provider '{}'", open.spec().name);
    let message = &mut failure.refusal.message;
    if !message.contains(&name) {
        message.insert_str(0, &format!("{name}: "));
    }
    failure
}

pub(super) fn gone(provider: &str) -> Refusal {
    let message = format!("provider '{provider}' was removed");
    Refusal::new(Stage::Route, Blame::Us, Retry::Elsewhere, Code::ModelUnavailable, message)
}

/// Why an answer does not go on at a provider.
fn no_money() -> Refusal {
    let message = "the budget for money is used up, so no provider goes on with the answer";
    let (stage, blame) = (Stage::Reserve, Blame::Client);
    Refusal::new(stage, blame, Retry::Elsewhere, Code::QuotaExhausted, message)
}

pub(super) fn unpriced(open: &Open, model: &str) -> Refusal {
    let message = format!(
        "a budget of money counts this account, and no price of model '{model}' of provider '{}' \
         is known; what is not priced cannot be paid for",
        open.spec().name
    );
    Refusal::new(Stage::Reserve, Blame::Us, Retry::Elsewhere, Code::QuotaExhausted, message)
}
