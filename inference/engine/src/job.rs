//! One request inside the engine, from its tokens to its last event.
//!
//! Owns what must be known to draw and deliver the next token, and the rule that exactly one
//! terminal event is sent. Does not own when it is computed: that is the schedule's.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use selvedge_base::{Blame, Code, ModelDigest, Mono, Refusal, RequestId, Retry, Stage};
use selvedge_contract::{
    Answer, Claim, EventSink, FinishReason, GenerateRequest, Input, Limits, LogProbs, Sampling,
    Scope, TokenEvent, TokenLogProb, Usage,
};

use crate::calls::{Hold, Ruled};
use crate::error::elsewhere;
use crate::llama::Cache;
use crate::sampling::{self, Draws, Past};
use crate::shared::Place;
use crate::stream::TextStream;
use crate::text::Text;
use crate::tuned::Tuned;

/// A prepared request.
pub(crate) struct Job {
    pub(crate) id: RequestId,
    /// With whom its pages may be shared.
    pub(crate) scope: Scope,
    /// Whose turn it takes.
    pub(crate) claim: Claim,
    pub(crate) model: ModelDigest,
    /// What is added to the model's matrices, from its first token to its last.
    pub(crate) tuned: Option<Arc<Tuned>>,
    pub(crate) text: Arc<Text>,
    /// Prompt and answer so far.
    pub(crate) tokens: Vec<u32>,
    pub(crate) prompt_tokens: usize,
    /// Tokens the answer may have, those produced elsewhere included.
    pub(crate) limit: usize,
    /// Tokens that prompt and answer may have together in this node's memory.
    pub(crate) room: usize,
    pub(crate) cache: Option<Cache>,
    /// Tokens that were computed or joined once, whatever a pause took away.
    reached: usize,
    /// Those of them that were joined.
    cached: usize,
    sampling: Sampling,
    logprobs: Option<LogProbs>,
    counts: BTreeMap<u32, u32>,
    stream: TextStream,
    /// What holds the answer to a schema or its calls to their form, if anything does.
    guide: Option<Box<Hold>>,
    /// Marks of calls are part of what is said, tokens that steer or not.
    shows_marks: bool,
    outlet: Outlet,
    submitted: Mono,
    first_token: Option<Mono>,
}

/// Where a request's events go. One that is dropped before its last event, because something
/// panicked, says so: nobody waits for an answer that is not coming, and its place is free again.
pub(crate) struct Outlet {
    sink: Box<dyn EventSink>,
    /// The last event was sent, or nobody listens.
    ended: bool,
    /// Held until the last event.
    place: Option<Box<Place>>,
}

/// A request that is fully answered by what was emitted elsewhere, or must be computed.
pub(crate) enum Prepared {
    Done,
    Job(Box<Job>),
}

impl Outlet {
    pub(crate) fn new(sink: Box<dyn EventSink>, place: Place) -> Self {
        Self { sink, ended: false, place: Some(Box::new(place)) }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.cancelled.load(Ordering::Relaxed))
    }

    /// How many of its model's loads had been given up when it was admitted.
    pub(crate) fn turn(&self) -> u64 {
        self.place.as_ref().map_or(u64::MAX, |place| place.turn)
    }

    /// Ends without an event: the caller hears otherwise.
    pub(crate) fn abandon(mut self) {
        self.ended = true;
    }

    /// Sends an event; false when nobody listens. A sink that panics listens no more.
    pub(crate) fn send(&mut self, event: Answer) -> bool {
        if matches!(event, Answer::Finished { .. } | Answer::Failed(_)) {
            self.ended = true;
            // Given up first: whoever hears of the end may submit the next request at once.
            self.place = None;
        }
        let sink = &mut self.sink;
        let listening = catch_unwind(AssertUnwindSafe(|| sink.send(event))).unwrap_or(false);
        if !listening {
            self.ended = true;
            self.place = None;
        }
        listening
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if !self.ended {
            self.send(Answer::Failed(elsewhere(Code::Internal, "the request was lost here")));
        }
    }
}

impl Job {
    /// Checks a request and replays what another node emitted, up to the first token to draw.
    /// On a refusal the outlet comes back, to send it.
    pub(crate) fn prepare(
        scope: Scope,
        request: GenerateRequest,
        mut outlet: Outlet,
        text: Arc<Text>,
        submitted: Mono,
    ) -> Result<Prepared, (Outlet, Refusal)> {
        let (tokens, digest, guide) = match checked(&request, &text) {
            Ok(checked) => checked,
            Err(refusal) => return Err((outlet, refusal)),
        };
        let prompt_tokens = tokens.len();
        let started =
            Answer::Started { prompt_tokens: prompt_tokens as u32, prompt_digest: digest };
        if !outlet.send(started) {
            return Ok(Prepared::Done);
        }
        let limit = request.max_tokens.min(Limits::ANSWER_TOKENS) as usize;
        let mut job = Self {
            id: request.id,
            scope,
            claim: Claim::default(),
            model: request.model,
            tuned: None,
            limit: limit.min(text.context() - prompt_tokens),
            text,
            tokens,
            prompt_tokens,
            room: usize::MAX,
            cache: None,
            reached: 0,
            cached: 0,
            sampling: request.sampling,
            logprobs: request.logprobs,
            counts: BTreeMap::new(),
            stream: TextStream::new(&request.stop),
            guide,
            shows_marks: matches!(request.input, Input::Tooled(_)),
            outlet,
            submitted,
            first_token: None,
        };
        for token in request.emitted.map(|emitted| emitted.tokens).unwrap_or_default() {
            job.append(token);
            if let Err(refusal) = job.guided(token) {
                return Err((job.outlet, refusal));
            }
            if let Some(reason) = job.complete() {
                job.finish(reason, submitted);
                return Ok(Prepared::Done);
            }
        }
        Ok(Prepared::Job(Box::new(job)))
    }

    /// Notes that its memory holds so many tokens, which were computed or joined.
    pub(crate) fn reach(&mut self, tokens: usize, joined: bool) {
        let new = tokens.saturating_sub(self.reached);
        self.reached += new;
        self.cached += if joined { new } else { 0 };
    }

    /// Draws the next token from `logits` and delivers what follows from it. The job comes back
    /// when another token is to be drawn; else its last event was sent, or nobody listens.
    pub(crate) fn deliver(
        mut self: Box<Self>,
        logits: &[f32],
        draws: &mut Draws,
        now: Mono,
    ) -> Option<Box<Self>> {
        #[cfg(test)]
        assert!(!self.tokens.starts_with(&crate::testing::FATAL_TO_DELIVER), "a test asked for it");
        let known = logits.len().min(self.text.tokenizer.len());
        let logits = logits.get(..known).unwrap_or(logits);
        let index = self.answer_tokens() as u32;
        let ruled = match self.guide.as_mut().map(|guide| guide.rule(logits)).transpose() {
            Ok(Some(Ruled::End)) => {
                self.finish(FinishReason::Stop, now);
                return None;
            }
            Ok(Some(Ruled::Only(ruled))) => Some(ruled),
            Ok(Some(Ruled::Any) | None) => None,
            Err(refusal) => {
                self.fail(refusal);
                return None;
            }
        };
        let allowed = ruled.as_deref().unwrap_or(logits);
        let past = Past { tokens: &self.tokens, counts: &self.counts };
        let Some(token) = draws.draw(allowed, &self.sampling, past, index) else {
            self.fail(elsewhere(Code::Internal, "the model computed values that are no numbers"));
            return None;
        };
        self.first_token.get_or_insert(now);
        if self.text.tokenizer.ends_answer(token) {
            self.finish(FinishReason::Stop, now);
            return None;
        }
        let logprob = self.logprobs.map(|wanted| self.scored(logits, token, wanted));
        let text = self.append(token);
        if !self.outlet.send(Answer::Token(TokenEvent { index, token, text, logprob })) {
            return None;
        }
        if let Err(refusal) = self.guided(token) {
            self.fail(refusal);
            return None;
        }
        if let Some(reason) = self.complete() {
            self.finish(reason, now);
            return None;
        }
        if self.tokens.len() >= self.room {
            self.fail(elsewhere(Code::OutOfMemory, "this node has no memory for a longer answer"));
            return None;
        }
        Some(self)
    }

    /// Ends the request without an answer.
    pub(crate) fn fail(mut self, refusal: Refusal) {
        self.outlet.send(Answer::Failed(refusal));
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.outlet.is_cancelled()
    }

    /// As [`Outlet::turn`].
    pub(crate) fn turn(&self) -> u64 {
        self.outlet.turn()
    }

    fn answer_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    fn append(&mut self, token: u32) -> String {
        self.tokens.push(token);
        *self.counts.entry(token).or_default() += 1;
        self.stream.push(self.text.shown(token, self.shows_marks))
    }

    /// Leads the answer's guide on, if it has one.
    fn guided(&mut self, token: u32) -> Result<(), Refusal> {
        let Some(guide) = &mut self.guide else { return Ok(()) };
        guide.push(token, self.text.shown(token, self.shows_marks))
    }

    fn complete(&self) -> Option<FinishReason> {
        let whole = self.guide.as_ref().is_some_and(|guide| guide.is_over());
        if whole || self.stream.stopped() {
            return Some(FinishReason::Stop);
        }
        (self.answer_tokens() >= self.limit).then_some(FinishReason::Length)
    }

    fn finish(mut self, reason: FinishReason, now: Mono) {
        let usage = Usage {
            prompt_tokens: self.prompt_tokens as u32,
            cached_tokens: self.cached.min(self.prompt_tokens) as u32,
            completion_tokens: self.answer_tokens() as u32,
            first_token: self.first_token.unwrap_or(now).since(self.submitted),
            total: now.since(self.submitted),
        };
        let text = self.stream.finish();
        self.outlet.send(Answer::Finished { reason, text, usage });
    }

    fn scored(&self, logits: &[f32], token: u32, wanted: LogProbs) -> TokenLogProb {
        let (logprob, top) = sampling::log_probabilities(logits, token, wanted.top);
        let bytes = |token| self.text.tokenizer.bytes(token).to_vec();
        let top = top.into_iter().map(|(id, score)| (bytes(id), score)).collect();
        TokenLogProb { bytes: bytes(token), logprob, top }
    }
}

/// The refusal for a request that was given up.
pub(crate) fn cancelled() -> Refusal {
    let message = "the request was cancelled";
    Refusal::new(Stage::Execute, Blame::Client, Retry::Never, Code::Cancelled, message)
}

/// The refusal for a request whose turn did not come in time.
pub(crate) fn late() -> Refusal {
    let message = "the request's deadline passed before its turn came; allow more time";
    Refusal::new(Stage::Execute, Blame::Us, Retry::Never, Code::Timeout, message)
}

/// The digest by which nodes agree that they see the same prompt.
pub(crate) fn prompt_digest(tokens: &[u32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for token in tokens {
        hasher.update(&token.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Refuses what can be refused without tokenizing.
pub(crate) fn check(request: &GenerateRequest) -> Result<(), Refusal> {
    let invalid = |message: String, field: &str| {
        Err(Refusal::client(Stage::Validate, Code::InvalidRequest, message).param(field))
    };
    sampling::check(&request.sampling)?;
    if request.max_tokens == 0 {
        return invalid("max_tokens must be at least 1".to_owned(), "max_tokens");
    }
    if request.stop.len() > Limits::STOPS {
        return invalid(format!("more than {} stop texts", Limits::STOPS), "stop");
    }
    if request.stop.iter().any(|stop| stop.is_empty() || stop.len() > Limits::STOP_BYTES) {
        return invalid(format!("stop texts have 1 to {} bytes", Limits::STOP_BYTES), "stop");
    }
    if let Input::Tooled(chat) = &request.input
        && let Err(why) = chat.check()
    {
        return invalid(why, "tools");
    }
    if request.logprobs.is_some_and(|wanted| wanted.top > Limits::TOP_LOGPROBS) {
        return invalid(
            format!("top_logprobs is at most {}", Limits::TOP_LOGPROBS),
            "top_logprobs",
        );
    }
    Ok(())
}

/// A request's tokens, their digest and what holds its answer.
type Checked = (Vec<u32>, [u8; 32], Option<Box<Hold>>);

fn checked(request: &GenerateRequest, text: &Text) -> Result<Checked, Refusal> {
    let tokens = text.prompt(&request.input)?;
    let digest = prompt_digest(&tokens);
    let guide = Hold::begin(text, &request.input, request.schema.as_deref())?.map(Box::new);
    let Some(emitted) = &request.emitted else {
        return Ok((tokens, digest, guide));
    };
    let resume =
        |code, message| Refusal::new(Stage::Resume, Blame::Us, Retry::Elsewhere, code, message);
    if emitted.prompt_digest != digest {
        let message = "this node sees another prompt than the one the answer was begun with";
        return Err(resume(Code::Unsupported, message));
    }
    let known = text.tokenizer.len() as u32;
    if emitted.tokens.len() > Limits::ANSWER_TOKENS as usize
        || emitted.tokens.iter().any(|&token| token >= known)
    {
        return Err(resume(Code::InvalidRequest, "the begun answer holds unknown tokens"));
    }
    Ok((tokens, digest, guide))
}
