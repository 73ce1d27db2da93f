//! One generation request and the events that answer it.
//!
//! Everything here crosses the wire between nodes, so it is plain data with bounds stated in
//! [`Limits`]. A request carries all that another node needs to continue an answer elsewhere:
//! sampling is a function of (seed, token index), so no hidden state has to travel.

use selvedge_base::{Micros, ModelDigest, Refusal, RequestId};
use serde::{Deserialize, Serialize};

use crate::tools::Tooled;

/// Bounds on a request, checked before any work.
pub struct Limits;

impl Limits {
    /// Messages in one chat: far above any client's history, far below what a parser chokes on.
    pub const MESSAGES: usize = 4_096;
    /// Stop strings (the OpenAI API allows 4).
    pub const STOPS: usize = 4;
    /// Bytes of one stop string: longer ones would hold back too much of a stream.
    pub const STOP_BYTES: usize = 256;
    /// Alternatives per token in `top_logprobs` (the OpenAI API allows 20).
    pub const TOP_LOGPROBS: u8 = 20;
    /// Answers to one request (`n`): each is a sequence of its own in the batch.
    pub const CHOICES: u8 = 16;
    /// Tokens one answer may have, whatever the model's context.
    pub const ANSWER_TOKENS: u32 = 131_072;
    /// Bytes of a JSON Schema or of a grammar that an answer must hold to: generated ones have a
    /// few thousand.
    pub const SCHEMA_BYTES: usize = 64 << 10;
    /// Functions that a chat may name (the OpenAI API allows 128).
    pub const TOOLS: usize = 128;
    /// Bytes of all functions with their schemas: more than any model's context is worth.
    pub const TOOL_BYTES: usize = 512 << 10;
    /// Bytes of a function's name (the OpenAI API allows 64, servers of tools write longer ones).
    pub const TOOL_NAME_BYTES: usize = 256;
    /// Calls in one message, as many as there may be functions.
    pub const CALLS: usize = 128;
}

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Instructions by whoever built the application.
    System,
    /// The person or program asking.
    User,
    /// The model's own earlier words.
    Assistant,
    /// The result of a call; only in [`Input::Tooled`]. On the wire since version 10.
    Tool,
}

impl Role {
    /// The name chat templates know.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// What the model continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A chat, rendered by the model's own template with a generation prompt.
    Chat(Vec<ChatMessage>),
    /// Text, tokenized as it is (with the model's begin-of-text token where it has one).
    Text(String),
    /// Tokens as they are.
    Tokens(Vec<u32>),
    /// A chat with functions. On the wire since version 10.
    Tooled(Box<Tooled>),
}

/// How the next token is drawn. Probabilities are floats: they reach arithmetic, never a hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 = always the likeliest token; else logits are divided by it. `0.0..=2.0`.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probabilities reach this. `(0.0, 1.0]`.
    pub top_p: f32,
    /// Keep this many tokens; 0 = all.
    pub top_k: u32,
    /// Lowered logit for tokens already in the answer, once. `-2.0..=2.0`.
    pub presence_penalty: f32,
    /// Lowered logit for tokens already in the answer, per occurrence. `-2.0..=2.0`.
    pub frequency_penalty: f32,
    /// Token `i` of the answer is drawn from a stream of (seed, i) alone.
    pub seed: u64,
    /// What more is asked of the draw. It crosses the wire beside the request, to peers whose
    /// version knows it.
    #[serde(skip)]
    pub further: Further,
}

/// What a draw heeds since wire version 13.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Further {
    /// Drop tokens whose probability is below this share of the likeliest one's; 0 = none.
    /// `0.0..=1.0`.
    pub min_p: f32,
    /// Divides the logit of a token that was said lately where it is positive, and multiplies it
    /// where it is not (Keskar et al. 2019); 1 = none. `0.01..=2.0`.
    pub repetition_penalty: f32,
    /// How many of the last tokens, the prompt's counted, that penalty looks at; 0 = none.
    pub repetition_window: u32,
}

impl Further {
    /// Nothing more.
    pub const NONE: Self =
        Self { min_p: 0.0, repetition_penalty: 1.0, repetition_window: Self::WINDOW };
    /// The window where a caller names none: llama.cpp's.
    pub const WINDOW: u32 = 64;

    /// Whether draws are as without it.
    pub fn is_none(&self) -> bool {
        self.min_p == 0.0 && !self.penalizes()
    }

    /// Whether tokens that were said lately are penalized.
    pub fn penalizes(&self) -> bool {
        self.repetition_penalty != 1.0 && self.repetition_window > 0
    }
}

impl Default for Further {
    fn default() -> Self {
        Self::NONE
    }
}

/// What crosses the wire beside a request, to peers of version 13 and newer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// As in [`GenerateRequest`].
    pub schema: Option<String>,
    /// As in [`Sampling`].
    pub further: Further,
}

/// Which log probabilities to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogProbs {
    /// How many alternatives per token, at most [`Limits::TOP_LOGPROBS`].
    pub top: u8,
}

/// A request to generate one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerateRequest {
    /// Unique per answer (a request with `n` answers has `n` of these).
    pub id: RequestId,
    /// Which model, by content.
    pub model: ModelDigest,
    /// What to continue.
    pub input: Input,
    /// How to draw tokens.
    pub sampling: Sampling,
    /// At most this many answer tokens, those in `emitted` included.
    pub max_tokens: u32,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Log probabilities wanted.
    pub logprobs: Option<LogProbs>,
    /// What the answer holds to, a JSON Schema most often, as [`crate::Constraint`] reads it: at
    /// most [`Limits::SCHEMA_BYTES`] without what says its form. It crosses the wire beside the
    /// request, to peers whose version knows it.
    #[serde(skip)]
    pub schema: Option<String>,
    /// An answer already begun elsewhere: continue after it.
    pub emitted: Option<Emitted>,
}

impl GenerateRequest {
    /// What crosses the wire beside the request; taken out of it.
    pub fn take_details(&mut self) -> Details {
        let further = std::mem::take(&mut self.sampling.further);
        Details { schema: self.schema.take(), further }
    }

    /// The request with what came beside it.
    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.schema = details.schema;
        self.sampling.further = details.further;
        self
    }
}

/// The part of an answer that some node has already produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emitted {
    /// The answer's tokens so far, in order.
    pub tokens: Vec<u32>,
    /// Digest of the prompt's tokens as the first node saw them (see [`Answer::Started`]): the
    /// continuing node refuses when its own differs.
    pub prompt_digest: [u8; 32],
}

/// One event of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// The prompt was tokenized and the request stands in the engine's queue.
    Started {
        /// Tokens in the prompt.
        prompt_tokens: u32,
        /// BLAKE3 of the prompt's tokens as little-endian `u32`s.
        prompt_digest: [u8; 32],
    },
    /// The next token.
    Token(TokenEvent),
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Text held back until now (possible stop text, possible partial characters).
        text: String,
        /// What it took.
        usage: Usage,
    },
    /// The answer cannot be completed here.
    Failed(Refusal),
}

/// One token of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenEvent {
    /// Position in the answer, from 0, counting those produced elsewhere.
    pub index: u32,
    /// The token.
    pub token: u32,
    /// The text that became certain with this token: whole UTF-8 characters, never part of a stop
    /// string; may be empty. A function of the prompt-independent token sequence alone, so another
    /// node continues it exactly.
    pub text: String,
    /// Log probabilities, if asked for.
    pub logprob: Option<TokenLogProb>,
}

/// A token's log probability and its likeliest alternatives (natural logarithm, before sampling
/// parameters are applied).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogProb {
    /// The token's own bytes.
    pub bytes: Vec<u8>,
    /// Its log probability.
    pub logprob: f32,
    /// Likeliest first: bytes and log probability.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// The model ended it, or a stop string was met.
    Stop,
    /// `max_tokens` or the model's context was reached.
    Length,
    /// A budget had nothing left while the answer grew. Decided where the request came in; no
    /// engine says it.
    Quota,
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Prompt tokens that needed no computing.
    pub cached_tokens: u32,
    /// Tokens of the answer, those produced elsewhere included.
    pub completion_tokens: u32,
    /// From submission to the first token here.
    pub first_token: Micros,
    /// From submission to the end here.
    pub total: Micros,
}

/// Where an engine puts its answers. Called on the engine's thread: it must not block.
pub trait EventSink: Send {
    /// Takes one event; `false` means that nobody listens any more and the work can be freed.
    fn send(&mut self, event: Answer) -> bool;
}
