//! The request path of sound, top to bottom: decode → admit → targets → for each: reserve → ask a
//! node → settle.
//!
//! Owns one task per request, which walks a journey along the targets of its model as chats do
//! ([`super`]). A transcript comes whole or not at all, from this node's engine or from a peer's
//! ([`peer`]); a node that is lost or refuses is left for another that has the model. Providers are
//! not asked for transcripts.

pub(crate) mod peer;
mod sound;

use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, ModelDigest, Mono, NodeId, Refusal, RequestId};
use selvedge_base::{Retry, Stage};
use selvedge_contract::speech::{SpeechTask, lasting_ms, tokens_of};
use selvedge_contract::{self as contract, SpeechRequest, Transcript};
use selvedge_core::aim::Aim;
use selvedge_core::bill::Took;
use selvedge_core::catalogue::{Modality, Needs};
use selvedge_core::journey::{Journey, Leg, Step, Target};
use selvedge_core::meter::Meter;
use selvedge_core::record::Attempt;
use selvedge_core::route::{self, Need};
use selvedge_core::routes::{Boundary, Request, Signals};
use selvedge_dialect::chat::Usage;
use selvedge_net::clock;
use selvedge_proto::choice::Choice;
use selvedge_proto::policy::{AccountPath, KeyId};
use selvedge_proto::wire::{Label, MAX_RECEIPT_BUDGETS, Receipt};

pub use self::sound::Sound;
pub(crate) use self::sound::Sounds;
use super::aim;
use super::errand::{self, Past, lost};
use crate::gateway::Gateway;
use crate::quota::Reservation;
use crate::shared::Shared;
use crate::trace::{Asking, TRANSCRIPTION, Trace, Whom};

/// Nodes that are asked for one transcript: sound is large, and what three nodes refuse a fourth
/// will, too.
const MAX_NODES: usize = 3;

/// One request for what is said in sound, authenticated and understood.
#[derive(Debug)]
pub struct SpeechCall {
    /// Names the answer everywhere.
    pub id: RequestId,
    /// Whose request it is, for records and for what peers serve.
    pub tenant: String,
    /// Whose budgets it counts against.
    pub account: AccountPath,
    /// The key of the mesh it came with, whose own budgets count too.
    pub key: Option<KeyId>,
    /// How far the data may travel, if the caller said.
    pub label: Option<Label>,
    /// Time the answer may take.
    pub deadline: Micros,
    /// Where chance comes from.
    pub drawn: u64,
    /// Its place in a trace, if it has one.
    pub trace: Option<Arc<Trace>>,
    /// The model's name.
    pub model: String,
    /// What is to be written.
    pub task: SpeechTask,
    /// The language, as ISO 639-1 has it; none: the model says which it is.
    pub language: Option<String>,
    /// Text that comes before.
    pub prompt: String,
    /// How freely words are drawn, in thousandths.
    pub temperature_milli: u32,
    /// What is heard.
    pub sound: Sound,
}

/// A transcript, and who made it.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcribed {
    /// What was said.
    pub transcript: Transcript,
    /// The node whose engine heard it.
    pub by: NodeId,
}

impl Gateway {
    /// The sound in a file, of a request that may take so long. What is decoded and held at a time
    /// is bounded; it waits for its turn.
    ///
    /// # Errors
    /// Why it cannot be heard, or that too much is held.
    pub async fn sound(&self, file: bytes::Bytes, within: Micros) -> Result<Sound, Refusal> {
        self.shared.sounds.decode(file, within).await
    }

    /// What is said in sound. Dropping the future cancels the work. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// Why there is no transcript.
    pub async fn hear(&self, call: SpeechCall) -> Result<Transcribed, Refusal> {
        errand::carry_out::<Errand>(&self.shared, call).await
    }
}

/// One request under way.
struct Errand {
    shared: Arc<Shared>,
    call: SpeechCall,
    journey: Journey,
    aim: Aim,
    attempts: Vec<Attempt>,
    arrived: Mono,
    deadline: Mono,
}

impl errand::Errand for Errand {
    type Call = SpeechCall;
    type Made = Transcribed;
    type Failure = Refusal;

    fn new(shared: Arc<Shared>, call: SpeechCall) -> Self {
        // Its time runs while its file is decoded, too.
        let arrived = call.sound.came().unwrap_or_else(clock::mono);
        let mut aim = aimed(&shared, &call);
        let targets = std::mem::take(&mut aim.targets);
        let deadline = arrived.plus(call.deadline);
        let journey = Journey::new(targets);
        Self { journey, aim, shared, call, attempts: Vec::new(), arrived, deadline }
    }

    async fn run(&mut self) -> Result<Transcribed, Refusal> {
        let barred = self.shared.policies.bars(&self.call.account, self.call.key.as_ref());
        let mut step = match barred.or_else(|| self.aim.refusal.take()) {
            Some(refusal) => Step::Fail(refusal),
            None => self.journey.begin(),
        };
        loop {
            if let Step::Fail(refusal) = step {
                return Err(refusal);
            }
            let ended = match self.journey.target().cloned() {
                Some(Target::Mesh { model }) => self.ask_mesh(&model).await,
                Some(Target::Provider { provider, .. }) => Err(no_provider(&provider)),
                None => Err(super::nowhere()),
            };
            step = match ended {
                Ok(told) => return Ok(told),
                Err(refusal) => self.journey.failed(refusal),
            };
        }
    }

    /// Keeps the record of the request; `None`: its caller left.
    fn record(mut self, ended: Option<&Result<Transcribed, Refusal>>) {
        let counters = &self.shared.counters;
        let ended = ended.map(|ended| {
            ended.as_ref().map(|Transcribed { transcript, .. }| {
                let Transcript { prompt_tokens, completion_tokens, .. } = *transcript;
                counters.prompt_tokens.add(u64::from(prompt_tokens));
                counters.answer_tokens.add(u64::from(completion_tokens));
                contract::Usage { prompt_tokens, completion_tokens, ..contract::Usage::default() }
            })
        });
        let mut legs: Vec<Leg> = self.journey.take_legs();
        legs.append(&mut self.aim.passed_over);
        let SpeechCall { id, tenant, account, key, trace, model, .. } = self.call;
        let (arrived, attempts) = (self.arrived, self.attempts);
        let past = Past { id, model, tenant, account, key, trace, arrived, legs, attempts };
        past.record(&self.shared, ended);
    }
}

impl Errand {
    /// Has a node of the mesh hear it, or after that another one.
    async fn ask_mesh(&mut self, model: &str) -> Result<Transcribed, Refusal> {
        let (prompt, written) = tokens_of(self.call.sound.len());
        // The text before counts too: half of what such a model's text has room for.
        let mut meter = Meter::counted(prompt.saturating_add(TEXT_BEFORE), Some(written));
        // Refused before anything is reserved.
        let (mut digest, mut choice) = self.choose(model, None, &[])?;
        let mut reservation = self.reserve(model, &meter).await?;
        self.shared.counters.admitted.bump();
        let (mut tried, mut last) = (Vec::new(), None);
        while tried.len() < MAX_NODES {
            let Some(node) = choice.chosen else { break };
            self.attempts.push(Attempt { node, choice, from_index: 0, ended: None });
            tried.push(node);
            let receipt = self.receipt(node, tried.len() as u64, reservation.as_ref(), &meter);
            let asking = self.asking(model, node);
            let heard = tokio::select! {
                biased;
                lost = lost(&mut reservation) => return Err(lost),
                barred = errand::barred(&self.shared, self.payer()) => return Err(barred),
                heard = self.ask(node, digest, tried.len() as u64, receipt, &asking) => heard,
            };
            match heard {
                Ok(transcript) => {
                    let transcript = self.believed(transcript);
                    self.settle(reservation.as_mut(), &mut meter, &transcript);
                    asking.finished(Some(usage_of(&transcript)));
                    // Whoever has the answer finds it settled.
                    drop(reservation);
                    return Ok(Transcribed { transcript, by: node });
                }
                Err(refusal) => {
                    asking.failed(refusal.code.as_str());
                    if let Some(attempt) = self.attempts.last_mut() {
                        attempt.ended = Some(refusal.code.as_str().to_owned());
                    }
                    if refusal.retry == Retry::Never {
                        return Err(refusal);
                    }
                    last = Some(refusal);
                }
            }
            (digest, choice) = self.choose(model, Some(digest), &tried)?;
        }
        Err(last.unwrap_or_else(|| nobody(model)))
    }

    /// Which node is asked next, and for which file.
    fn choose(
        &self,
        model: &str,
        digest: Option<ModelDigest>,
        tried: &[NodeId],
    ) -> Result<(ModelDigest, Choice), Refusal> {
        let (prompt_tokens, _) = tokens_of(self.call.sound.len());
        let label = self.call.label.unwrap_or_default();
        let need =
            Need { model: model.to_owned(), digest, prompt_tokens, answer_tokens: None, label };
        let view = self.shared.view.load();
        let in_flight = self.shared.in_flight.snapshot();
        let mut dice = self.shared.dice.lock();
        route::choose_listener(&view, &need, tried, &in_flight, &mut dice)
    }

    /// One node's turn, within what is left of the request's time.
    async fn ask(
        &self,
        node: NodeId,
        model: ModelDigest,
        fence: u64,
        receipt: Option<Receipt>,
        asking: &Asking,
    ) -> Result<Transcript, Refusal> {
        let left = self.deadline.since(clock::mono());
        let heard = async {
            if node == self.shared.me {
                let request = self.request(self.shared.run_id(), model);
                return peer::here(&self.shared, request, self.call.sound.samples()).await;
            }
            let handed = peer::Handed {
                to: node,
                tenant: self.call.tenant.clone(),
                label: self.call.label.unwrap_or_default(),
                deadline: left,
                fence,
                receipt,
                trace: asking.context(),
                request: self.request(self.call.id, model),
            };
            self.shared.counters.handed_off.bump();
            let _in_flight = self.shared.in_flight.hold(node);
            peer::ask(&self.shared, handed, &self.call.sound.samples()).await
        };
        // Far larger than the rest of the way.
        match tokio::time::timeout(left.into(), Box::pin(heard)).await {
            Ok(heard) => heard,
            Err(_) => {
                let message = "the sound was not written down within the request's time";
                Err(ours(Retry::Never, Code::Timeout, message))
            }
        }
    }

    fn request(&self, id: RequestId, model: ModelDigest) -> SpeechRequest {
        SpeechRequest {
            id,
            model,
            task: self.call.task,
            language: self.call.language.clone(),
            prompt: self.call.prompt.clone(),
            temperature_milli: self.call.temperature_milli,
            seed: self.call.drawn,
        }
    }

    fn asking(&self, model: &str, node: NodeId) -> Asking {
        let mut asking = Trace::ask(self.call.trace.as_ref(), model, || {
            if node == self.shared.me {
                return Whom::Here;
            }
            Whom::Peer { node: self.shared.view.load().name_of(&node) }
        });
        asking.note(|turn| turn.operation = TRANSCRIPTION);
        asking
    }

    /// What the budgets hold for it.
    async fn reserve(&self, model: &str, meter: &Meter) -> Result<Option<Reservation>, Refusal> {
        let times = (self.call.id, self.call.deadline);
        let asks = || (self.shared.view.load().plain_model_name(model), meter.clone());
        errand::reserve(&self.shared, times, self.payer(), asks, no_stand_in).await
    }

    /// What a serving peer is shown of the reservation, as for chats.
    fn receipt(
        &self,
        serving: NodeId,
        fence: u64,
        reservation: Option<&Reservation>,
        meter: &Meter,
    ) -> Option<Receipt> {
        let (tokens, budgets) = match reservation {
            Some(reservation) => (reservation.answers_for(), reservation.budgets()),
            None if self.shared.policies.is_hard(self.call.account.tenant()) => {
                (meter.answers_for(), &[][..])
            }
            None => return None,
        };
        Some(Receipt {
            request: self.call.id,
            ingest: self.shared.me,
            serving,
            account: self.call.account.to_string(),
            key: self.call.key.map(|key| key.to_string()),
            tokens,
            not_after_in: self.call.deadline,
            fence,
            budgets: budgets.iter().take(MAX_RECEIPT_BUDGETS).map(|budget| budget.0).collect(),
        })
    }

    /// A transcript whose counts are what they can be, whatever a peer says.
    fn believed(&self, mut transcript: Transcript) -> Transcript {
        let samples = self.call.sound.len();
        let (prompt, most) = tokens_of(samples);
        let before = if self.call.prompt.trim().is_empty() { 0 } else { TEXT_BEFORE };
        let longest = prompt.saturating_add(before);
        transcript.prompt_tokens = transcript.prompt_tokens.clamp(prompt, longest);
        transcript.completion_tokens = transcript.completion_tokens.min(most);
        transcript.duration_ms = lasting_ms(samples);
        transcript
    }

    fn settle(
        &mut self,
        reservation: Option<&mut Reservation>,
        meter: &mut Meter,
        transcript: &Transcript,
    ) {
        meter.started(transcript.prompt_tokens);
        let written = transcript.completion_tokens;
        if let Some(reservation) = reservation {
            reservation.started(transcript.prompt_tokens);
            (0..written).for_each(|_| reservation.token());
        }
        let tokens = meter.used().saturating_add(u64::from(written));
        self.journey.took(Took { tokens, micro_dollars: 0 });
    }

    /// Whose budgets it counts against.
    const fn payer(&self) -> (&AccountPath, Option<KeyId>) {
        (&self.call.account, self.call.key)
    }
}

/// Tokens of the text before, at most: half of what published models have room for.
const TEXT_BEFORE: u32 = 224;

/// Where a request may go.
fn aimed(shared: &Shared, call: &SpeechCall) -> Aim {
    let request = Request {
        model: call.model.clone(),
        needs: Needs { input: [Modality::Audio].into(), ..Needs::default() },
        boundary: call.label.map_or(Boundary::Anywhere, Boundary::from),
        tenant: call.tenant.clone(),
        user: None,
        conversation: None,
        money: aim::money(shared, &call.account, call.key.as_ref()),
        signals: Signals::default(),
        seed: call.drawn,
    };
    aim::aim_by(shared, &request)
}

fn usage_of(transcript: &Transcript) -> Usage {
    Usage {
        prompt_tokens: u64::from(transcript.prompt_tokens),
        completion_tokens: u64::from(transcript.completion_tokens),
        ..Usage::default()
    }
}

fn nobody(model: &str) -> Refusal {
    let message = format!(
        "no node that has model '{model}' can be reached now; `selvedge status` shows them"
    );
    Refusal::new(Stage::Route, Blame::Us, Retry::Elsewhere, Code::ModelUnavailable, message)
        .param("model")
}

fn no_provider(provider: &str) -> Refusal {
    let message = format!(
        "provider '{provider}' is not asked to write down what is said: name a model of the mesh \
         that does, such as Whisper"
    );
    let (stage, blame) = (Stage::Route, Blame::Client);
    Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message).param("model")
}

fn no_stand_in(model: &str) -> Refusal {
    let message = format!(
        "the budget for this model is used up, and '{model}', which stands in for it, is not asked \
         to hear"
    );
    let (stage, blame) = (Stage::Reserve, Blame::Client);
    Refusal::new(stage, blame, Retry::Never, Code::QuotaExhausted, message)
}

fn ours(retry: Retry, code: Code, message: &str) -> Refusal {
    Refusal::new(Stage::Execute, Blame::Us, retry, code, message)
}
