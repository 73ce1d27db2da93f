//! The request path of embeddings, top to bottom: admit → targets → for each: reserve → ask →
//! settle.
//!
//! Owns one task per request, which walks a journey along the targets of its model as chats do
//! ([`super`]). A request is answered whole or not at all: by this node, where it has a model made
//! for that ([`here`]), or by a provider. What a budget would have another model answer instead is
//! refused, since vectors of two models do not compare.

mod here;

use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, Mono, Refusal, RequestId, Retry, Stage};
use selvedge_contract::{self as contract, ModelCard};
use selvedge_core::aim::{Aim, Leaving};
use selvedge_core::bill::Took;
use selvedge_core::catalogue::Needs;
use selvedge_core::journey::{Journey, Leg, Step, Target};
use selvedge_core::paid::Priced;
use selvedge_core::routes::{Boundary, Request, Signals};
use selvedge_core::upstream::Ending;
use selvedge_dialect::chat::{Failure, Usage};
use selvedge_dialect::embed::{EmbedInput, EmbedParser, EmbedRequest, Embeddings, Read};
use selvedge_dialect::inference::Makes;
use selvedge_net::clock;
use selvedge_proto::policy::{AccountPath, KeyId};
use selvedge_proto::wire::Label;
use selvedge_upstream::{Call, MediaType};

use super::aim::{self, BYTES_PER_TOKEN};
use super::errand::{self, Past, lost};
use super::paid;
use crate::gateway::Gateway;
use crate::providers::embed::{self, Part};
use crate::providers::{Open, counts};
use crate::quota::Reservation;
use crate::shared::Shared;
use crate::trace::{EMBEDDINGS, Trace, whom};

/// One request for embeddings, authenticated and understood.
#[derive(Clone, Debug)]
pub struct EmbedCall {
    /// Names the answer everywhere.
    pub id: RequestId,
    /// Whose request it is, for records.
    pub tenant: String,
    /// Whose budgets it counts against.
    pub account: AccountPath,
    /// The key of the mesh it came with, whose own budgets count too.
    pub key: Option<KeyId>,
    /// Whether the caller showed a key at all: only then money is spent.
    pub keyed: bool,
    /// How far the data may travel, if the caller said.
    pub label: Option<Label>,
    /// Time the answer may take.
    pub deadline: Micros,
    /// Where chance comes from.
    pub drawn: u64,
    /// Its place in a trace, if it has one.
    pub trace: Option<Arc<Trace>>,
    /// What is asked.
    pub request: EmbedRequest,
}

impl Gateway {
    /// What a model makes of texts, as far as anything tells; none when there is no such model.
    /// Where a route leads may differ by request.
    pub fn makes(&self, model: &str) -> Option<Makes> {
        if self.shared.routing.has(model) {
            return Some(Makes::Unknown);
        }
        let (target, _) = aim::by_name(&self.shared, model).targets.into_iter().next()?;
        match target {
            Target::Mesh { model } => {
                let view = self.shared.view.load();
                let card = view.card_of(&model)?;
                // Those that hear are asked elsewhere.
                if card.infers() || card.hears() {
                    return None;
                }
                Some(match card.embeds() {
                    true => Makes::Embeddings(self.shared.engine.dimensions(card.digest)),
                    false => Makes::Text,
                })
            }
            Target::Provider { provider, model } => {
                let open = self.shared.providers.find(&provider)?;
                let known = open.spec().model(&model);
                let upstream = known.map_or(model.as_str(), |known| known.upstream.as_str());
                let found = self.shared.routing.model_of(open.spec(), upstream);
                let Some(found) = found else { return Some(Makes::Unknown) };
                Some(match found.abilities.embedding_dimensions {
                    Some(dimensions) => Makes::Embeddings(Some(dimensions)),
                    None => Makes::Text,
                })
            }
        }
    }

    /// The vectors of a request's inputs, all of them. Dropping the future cancels the work. Must
    /// be called inside a tokio runtime.
    ///
    /// # Errors
    /// Why there are none, with what the provider said.
    pub async fn embed(&self, call: EmbedCall) -> Result<Embeddings, Failure> {
        errand::carry_out::<Errand>(&self.shared, call).await
    }
}

/// How one target's turn ended without an answer.
enum Missed {
    Failed(Failure),
    /// The budgets allow no more money.
    LocalOnly,
}

impl Missed {
    const fn code(&self) -> &'static str {
        match self {
            Self::Failed(failure) => failure.refusal.code.as_str(),
            Self::LocalOnly => Code::QuotaExhausted.as_str(),
        }
    }
}

impl From<Refusal> for Missed {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal.into())
    }
}

/// One request under way.
struct Errand {
    shared: Arc<Shared>,
    call: EmbedCall,
    journey: Journey,
    aim: Aim,
    arrived: Mono,
    deadline: Mono,
}

impl errand::Errand for Errand {
    type Call = EmbedCall;
    type Made = Embeddings;
    type Failure = Failure;

    fn new(shared: Arc<Shared>, call: EmbedCall) -> Self {
        let arrived = clock::mono();
        let mut aim = aimed(&shared, &call);
        let targets = std::mem::take(&mut aim.targets);
        let deadline = arrived.plus(call.deadline);
        Self { journey: Journey::new(targets), aim, shared, call, arrived, deadline }
    }

    async fn run(&mut self) -> Result<Embeddings, Failure> {
        let barred = self.shared.policies.bars(&self.call.account, self.call.key.as_ref());
        let mut step = match barred.or_else(|| self.aim.refusal.take()) {
            Some(refusal) => Step::Fail(refusal),
            None => self.journey.begin(),
        };
        loop {
            if let Step::Fail(refusal) = step {
                return Err(refusal.into());
            }
            let ended = match self.journey.target().cloned() {
                Some(Target::Mesh { model }) => self.ask_here(&model).await,
                Some(Target::Provider { provider, model }) => self.ask(&provider, &model).await,
                None => Err(super::nowhere().into()),
            };
            step = match ended {
                Ok(embeddings) => {
                    self.measure();
                    return Ok(embeddings);
                }
                Err(Missed::LocalOnly) => self.journey.local_only(),
                Err(Missed::Failed(failure)) => {
                    match self.journey.failed(failure.refusal.clone()) {
                        // The same refusal, with what the provider said.
                        Step::Fail(refusal) if refusal == failure.refusal => return Err(failure),
                        step => step,
                    }
                }
            };
        }
    }

    /// Keeps the record of the request; `None`: its caller left.
    fn record(mut self, ended: Option<&Result<Embeddings, Failure>>) {
        let counters = &self.shared.counters;
        let ended = ended.map(|ended| match ended {
            Ok(embeddings) => {
                let tokens = embeddings.usage.unwrap_or_default().prompt_tokens;
                counters.prompt_tokens.add(tokens);
                let prompt_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
                Ok(contract::Usage { prompt_tokens, ..contract::Usage::default() })
            }
            Err(failure) => Err(&failure.refusal),
        });
        let mut legs: Vec<Leg> = self.journey.take_legs();
        legs.append(&mut self.aim.passed_over);
        counters.paid(&legs);
        let EmbedCall { id, tenant, account, key, trace, request, .. } = self.call;
        let (arrived, attempts, model) = (self.arrived, Vec::new(), request.model);
        let past = Past { id, model, tenant, account, key, trace, arrived, legs, attempts };
        past.record(&self.shared, ended);
    }
}

impl Errand {
    /// Asks a provider's model for all vectors.
    async fn ask(&mut self, provider: &str, model: &str) -> Result<Embeddings, Missed> {
        let open = self.shared.providers.find(provider).ok_or_else(|| paid::gone(provider))?;
        let EmbedCall { label, keyed, .. } = self.call;
        let leaving = Leaving { label, keyed, only_there: true, costs_money: open.costs_money() };
        leaving.check(provider)?;
        let known = open.spec().model(model);
        let upstream = known.map_or_else(|| model.to_owned(), |known| known.upstream.clone());
        let request = EmbedRequest { model: upstream, ..self.call.request.clone() };
        let known = paid::known_of(&self.shared, &self.aim, &open, (model, &request.model));
        let priced = embed::priced(&open, known, &request);
        let (account, key) = (&self.call.account, self.call.key.as_ref());
        if self.shared.policies.counts_money(account, key) && !priced.is_known() {
            return Err(paid::unpriced(&open, &request.model).into());
        }
        let spoken = embed::say(open.spec(), &request)?;
        let reservation = match self.shared.policies.limits(account, key) {
            true => Some(self.reserve(provider, model, &priced).await?),
            false => None,
        };
        self.shared.counters.provided.bump();
        let mut paying = Paying { priced, reservation, took: Usage::default() };
        let trace = self.call.trace.as_ref();
        let mut asking = Trace::ask(trace, &request.model, || whom(open.spec()));
        asking.note(|turn| turn.operation = EMBEDDINGS);
        let mut all = Embeddings::default();
        for part in spoken.parts {
            let mut part = part;
            part.outgoing.headers.extend(asking.headers());
            let got = self.part(&open, &request.model, part, spoken.read, &mut paying).await;
            self.journey.took(paying.cost());
            let got = match got {
                Ok(got) => got,
                Err(missed) => {
                    asking.failed(missed.code());
                    return Err(missed);
                }
            };
            all.vectors.extend(got.vectors);
        }
        asking.finished(Some(paying.took));
        // Whoever has the answer finds it settled.
        paying.reservation = None;
        all.model.clone_from(&self.call.request.model);
        all.usage = Some(paying.took);
        Ok(all)
    }

    /// What the budgets hold for it.
    async fn reserve(
        &self,
        provider: &str,
        model: &str,
        priced: &Priced,
    ) -> Result<Reservation, Missed> {
        let times = (self.call.id, self.call.deadline);
        let wanted = paid::wanted_at((provider, model), priced, times, self.payer());
        let refused = |refusal: Refusal| {
            self.shared.counters.budget_refusals.bump();
            refusal
        };
        let held = self.shared.quota.reserve(wanted).await.map_err(refused)?;
        if held.local_only() {
            return Err(Missed::LocalOnly);
        }
        match held.downgrade() {
            Some(model) => Err(refused(no_stand_in(model)).into()),
            None => Ok(held),
        }
    }

    /// One part, asked and billed.
    async fn part(
        &self,
        open: &Open,
        model: &str,
        part: Part,
        read: Read,
        paying: &mut Paying,
    ) -> Result<Embeddings, Missed> {
        // The same vectors come each time. Where they are paid for, so would be a second asking
        // beside the first, for which nothing is reserved.
        let idempotent = !open.costs_money();
        let call = Call::of(part.outgoing, model, MediaType::Json, part.tokens);
        let call = Call { idempotent, ..call };
        let bound = Usage { prompt_tokens: part.tokens, ..Usage::default() };
        let mut begun = false;
        let asked = tokio::select! {
            biased;
            lost = lost(&mut paying.reservation) => Err(lost.into()),
            barred = errand::barred(&self.shared, self.payer()) => Err(barred.into()),
            asked = exchange(open, &call, self.deadline, (read, part.inputs), &mut begun) => asked,
        };
        match &asked {
            Ok(answer) => paying.bill(&answer.usage.unwrap_or(bound)),
            // It answered, and nothing tells what it bills: the most it can.
            Err(_) if begun => paying.bill(&bound),
            Err(_) => {}
        }
        asked
    }

    /// Whose budgets it counts against.
    const fn payer(&self) -> (&AccountPath, Option<KeyId>) {
        (&self.call.account, self.call.key)
    }

    /// Notes how fast the target answered, for routes that go by it. There is no second token.
    fn measure(&self) {
        if let Some(target) = self.journey.target() {
            let took = clock::mono().since(self.arrived);
            self.shared.routing.observe(target, took, Micros::ZERO);
        }
    }
}

/// What is owed so far. Dropping it settles.
struct Paying {
    priced: Priced,
    reservation: Option<Reservation>,
    took: Usage,
}

impl Paying {
    /// A part took this much.
    fn bill(&mut self, usage: &Usage) {
        self.took.prompt_tokens = self.took.prompt_tokens.saturating_add(usage.prompt_tokens);
        let cost = self.cost();
        if let Some(reservation) = &mut self.reservation {
            reservation.billed(cost);
        }
    }

    /// What it cost so far.
    fn cost(&self) -> Took {
        self.priced.cost(&counts(&self.took))
    }
}

/// One request to a provider; `begun` once it answered with anything but a refusal.
async fn exchange(
    open: &Open,
    call: &Call,
    deadline: Mono,
    (read, inputs): (Read, usize),
    begun: &mut bool,
) -> Result<Embeddings, Missed> {
    let told = |failed| Missed::Failed(paid::failure(open, &failed));
    let mut answer = open.provider.ask(call, deadline).await.map_err(told)?;
    *begun = true;
    let mut parser = EmbedParser::new(read);
    answer.read(|piece| parser.push(piece)).await.map_err(told)?;
    match parser.finish(inputs) {
        Ok(mut embeddings) => {
            let beside = answer.prompt_tokens();
            let beside = beside.map(|prompt_tokens| Usage { prompt_tokens, ..Usage::default() });
            embeddings.usage = embeddings.usage.or(beside);
            if let Some(usage) = &embeddings.usage {
                answer.used(usage.prompt_tokens);
            }
            answer.ended(Ending::Answered);
            Ok(embeddings)
        }
        Err(why) => {
            answer.ended(Ending::Malformed);
            Err(unreadable(&open.spec().name, why).into())
        }
    }
}

/// Who would be asked first.
pub(super) fn first(shared: &Shared, call: &EmbedCall) -> Option<Target> {
    aimed(shared, call).targets.into_iter().next().map(|(target, _)| target)
}

/// Where a request may go.
fn aimed(shared: &Shared, call: &EmbedCall) -> Aim {
    let mut aim = aim::aim_by(shared, &facts_of(shared, call));
    // A model of the mesh that has the name of a provider's and makes no vectors is none that could
    // be meant.
    if aim.targets.iter().any(|(target, _)| target.is_paid()) {
        let view = shared.view.load();
        aim.targets.retain(|(target, _)| match target {
            Target::Mesh { model } => view.card_of(model).is_some_and(ModelCard::embeds),
            Target::Provider { .. } => true,
        });
    }
    aim
}

fn facts_of(shared: &Shared, call: &EmbedCall) -> Request {
    let request = &call.request;
    let tokens = |input: &EmbedInput| match input {
        EmbedInput::Text(text) => text.len() / BYTES_PER_TOKEN + 1,
        EmbedInput::Tokens(tokens) => tokens.len(),
    };
    // Each input has the model's whole context to itself.
    let longest = request.inputs.iter().map(tokens).max().unwrap_or(0);
    Request {
        model: request.model.clone(),
        needs: Needs {
            prompt_tokens: u32::try_from(longest).unwrap_or(u32::MAX),
            embeddings: true,
            dimensions: request.dimensions,
            ..Needs::default()
        },
        boundary: call.label.map_or(Boundary::Anywhere, Boundary::from),
        tenant: call.tenant.clone(),
        user: request.user.clone(),
        conversation: None,
        money: aim::money(shared, &call.account, call.key.as_ref()),
        signals: Signals::default(),
        seed: call.drawn,
    }
}

fn no_stand_in(model: &str) -> Refusal {
    let message = format!(
        "the budget for this model is used up, and '{model}', which stands in for it, makes no \
         embeddings that compare with its own"
    );
    let (stage, blame) = (Stage::Reserve, Blame::Client);
    Refusal::new(stage, blame, Retry::Never, Code::QuotaExhausted, message)
}

fn unreadable(provider: &str, why: &str) -> Refusal {
    let message = format!("provider '{provider}' answered with no good embeddings: {why}");
    let (stage, blame) = (Stage::Execute, Blame::Provider);
    Refusal::new(stage, blame, Retry::Elsewhere, Code::ModelUnavailable, message)
}
