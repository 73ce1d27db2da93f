//! A whole answer: gathered from its pieces and written as one JSON object.
//!
//! Owns the shapes `chat.completion` and `text_completion`, and usage. Streams are `events`.

use futures::StreamExt;
use hyper::Response;
use hyper::StatusCode;
use selvedge_base::{ModelDigest, NodeId, RequestId};
use selvedge_contract::{FinishReason, TokenLogProb, Usage};
use selvedge_core::Piece;
use selvedge_dialect::chat::tier_of;
use selvedge_net::clock;
use serde::Serialize;

use super::answers::Answers;
use super::body::{Answer, json};
use super::errors::Problem;
use super::logprobs::{ChatLogProbs, TextLogProbs};
use super::metrics::Progress;
use super::params::{Plan, Shape};

/// What every part of an answer repeats.
#[derive(Clone, Debug)]
pub(super) struct Heading {
    /// `chatcmpl-…` or `cmpl-…`.
    pub(super) id: String,
    /// Seconds since the Unix epoch.
    pub(super) created: u64,
    /// The model as the caller wrote it.
    pub(super) model: String,
    /// Names the model file: the same fingerprint and seed give the same answer.
    pub(super) fingerprint: Option<String>,
    /// The shape.
    pub(super) shape: Shape,
    /// Answers per prompt.
    pub(super) n: usize,
    /// Whether log probabilities were asked for.
    pub(super) logprobs: bool,
    /// The class of service, where the caller named one.
    pub(super) tier: Option<&'static str>,
}

impl Heading {
    pub(super) fn new(plan: &Plan, id: RequestId, digest: Option<ModelDigest>) -> Self {
        let prefix = match plan.shape {
            Shape::Chat => "chatcmpl",
            Shape::Text => "cmpl",
        };
        Self {
            id: format!("{prefix}-{:032x}", id.0),
            created: clock::wall().as_secs(),
            model: plan.model.clone(),
            fingerprint: digest.map(|digest| format!("fp_{}", digest.short())),
            shape: plan.shape,
            n: plan.n,
            logprobs: plan.logprobs.is_some(),
            tier: plan.tier.map(tier_of),
        }
    }
}

/// Usage of all answers to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    prompt: u64,
    cached: u64,
    answer: u64,
}

impl Totals {
    /// Adds the answer with this index; the answers to one prompt count the prompt once.
    pub(super) fn add(&mut self, index: usize, n: usize, usage: &Usage) {
        if index.is_multiple_of(n) {
            self.prompt += u64::from(usage.prompt_tokens);
            self.cached += u64::from(usage.cached_tokens);
        }
        self.answer += u64::from(usage.completion_tokens);
    }

    /// The `usage` object.
    pub(super) fn object(&self) -> impl Serialize + use<> {
        UsageObject {
            prompt_tokens: self.prompt,
            completion_tokens: self.answer,
            total_tokens: self.prompt + self.answer,
            prompt_tokens_details: PromptDetails { cached_tokens: self.cached, audio_tokens: 0 },
            completion_tokens_details: AnswerDetails::default(),
        }
    }
}

/// The word for why an answer ended.
pub(super) const fn reason_text(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        // No word of the API says this. `length` would hide why a longer limit does not help, and
        // the official clients take a reason that they do not know as it is.
        FinishReason::Quota => "quota",
    }
}

/// Gathers all answers and writes them; also tells which node ended the first one.
pub(super) async fn whole(
    heading: Heading,
    mut answers: Answers,
    mut progress: Progress,
    count: usize,
) -> Result<(Response<Answer>, Option<NodeId>), Problem> {
    let mut gathered: Vec<Gathered> = Vec::new();
    gathered.resize_with(count, Gathered::default);
    let mut totals = Totals::default();
    let mut node = None;
    while let Some((index, piece)) = answers.next().await {
        let Some(answer) = gathered.get_mut(index) else { continue };
        match piece {
            Piece::Started { prompt_tokens, .. } => progress.started(prompt_tokens),
            Piece::Token(token) => {
                progress.token();
                answer.text.push_str(&token.text);
                answer.logprobs.extend(token.logprob);
            }
            Piece::Moved { .. } => {}
            Piece::Finished { reason, text, usage, served_by } => {
                answer.text.push_str(&text);
                answer.reason = Some(reason);
                totals.add(index, heading.n, &usage);
                if index == 0 {
                    node = Some(served_by);
                }
            }
            // One answer short is no answer: the others are dropped, which frees their work.
            Piece::Failed(refusal) => return Err(Problem::from(refusal)),
        }
    }
    Ok((json(StatusCode::OK, &object(&heading, gathered, totals)), node))
}

/// One answer while it is gathered.
#[derive(Default)]
struct Gathered {
    text: String,
    logprobs: Vec<TokenLogProb>,
    reason: Option<FinishReason>,
}

fn object(heading: &Heading, gathered: Vec<Gathered>, totals: Totals) -> impl Serialize + '_ {
    let choices = gathered.into_iter().enumerate();
    Object {
        id: &heading.id,
        object: match heading.shape {
            Shape::Chat => "chat.completion",
            Shape::Text => "text_completion",
        },
        created: heading.created,
        model: &heading.model,
        system_fingerprint: heading.fingerprint.as_deref(),
        service_tier: heading.tier,
        choices: choices.map(|(index, answer)| choice(heading, index, answer)).collect(),
        usage: totals.object(),
    }
}

fn choice(heading: &Heading, index: usize, answer: Gathered) -> Choice {
    let finish_reason = answer.reason.map(reason_text);
    let tokens = heading.logprobs.then_some(answer.logprobs);
    match heading.shape {
        Shape::Chat => Choice::Chat {
            index,
            message: Message { role: "assistant", content: answer.text, refusal: () },
            logprobs: tokens.map(|tokens| ChatLogProbs::new(&tokens)),
            finish_reason,
        },
        Shape::Text => Choice::Text {
            text: answer.text,
            index,
            logprobs: tokens.map(|tokens| TextLogProbs::new(&tokens, 0).0),
            finish_reason,
        },
    }
}

#[derive(Serialize)]
struct Object<'a, U> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    choices: Vec<Choice>,
    usage: U,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Choice {
    Chat {
        index: usize,
        message: Message,
        logprobs: Option<ChatLogProbs>,
        finish_reason: Option<&'static str>,
    },
    Text {
        text: String,
        index: usize,
        logprobs: Option<TextLogProbs>,
        finish_reason: Option<&'static str>,
    },
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: String,
    refusal: (),
}

#[derive(Serialize)]
struct UsageObject {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: AnswerDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Default, Serialize)]
struct AnswerDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}
