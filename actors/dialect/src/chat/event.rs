//! What is answered: the events of a stream. A whole answer is the same events at once.
//!
//! Order: [`Event::Head`] first; then pieces of any choice, in the order they were made; each
//! choice ends with one [`Event::Ended`]; the answer ends with one [`Event::Finished`], or with
//! [`Event::Failed`] at any point, after which nothing comes.

use selvedge_base::Refusal;

use super::request::Extension;
use super::usage::{Timing, Usage};
use crate::exchange::Dialect;
use crate::json::Json;
use crate::number::Number;

/// One event of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The answer begins.
    Head(Head),
    /// The next piece of text.
    Text {
        /// Which of the `n` answers, from 0.
        choice: u32,
        /// The piece.
        text: String,
    },
    /// The next piece of thinking.
    Thinking {
        /// Which of the `n` answers.
        choice: u32,
        /// The piece.
        text: String,
    },
    /// The thinking so far is genuine; closes the block of thinking it follows.
    Signature {
        /// Which of the `n` answers.
        choice: u32,
        /// The next piece of the opaque proof.
        signature: String,
    },
    /// A block of thinking that nobody is shown.
    Redacted {
        /// Which of the `n` answers.
        choice: u32,
        /// Opaque.
        data: String,
    },
    /// A call of a tool begins.
    ToolBegin {
        /// Which of the `n` answers.
        choice: u32,
        /// Which call of this answer, from 0, without gaps.
        call: u32,
        /// Ties the result to the call. Never empty: parsers of dialects without ids make one up
        /// from the answer's id and `call`.
        id: String,
        /// The tool. Never empty: an answer that calls a nameless one is malformed.
        name: String,
    },
    /// The next piece of the arguments' JSON text.
    ToolArguments {
        /// Which of the `n` answers.
        choice: u32,
        /// Which call.
        call: u32,
        /// The piece.
        json: String,
    },
    /// The call is complete.
    ToolEnd {
        /// Which of the `n` answers.
        choice: u32,
        /// Which call.
        call: u32,
    },
    /// The next piece of a refusal by the model.
    Refusal {
        /// Which of the `n` answers.
        choice: u32,
        /// The piece.
        text: String,
    },
    /// Log probabilities of the text of the event before.
    LogProbs {
        /// Which of the `n` answers.
        choice: u32,
        /// Token by token.
        tokens: Vec<TokenLogProb>,
        /// Whether they belong to a refusal and not to the text.
        refusal: bool,
    },
    /// A source of what was said.
    Citation(Citation),
    /// Something only one dialect says, for a client of the same dialect; others leave it out.
    Native {
        /// Which of the `n` answers.
        choice: u32,
        /// The dialect.
        dialect: Dialect,
        /// What it is: a field of the message, or a kind of block.
        name: String,
        /// It.
        value: Json,
    },
    /// What the answer took so far; a later one replaces it.
    Usage(Usage),
    /// One choice is complete.
    Ended {
        /// Which of the `n` answers.
        choice: u32,
        /// Why.
        reason: Finish,
        /// The text that ended it, where the dialect tells.
        stop: Option<String>,
    },
    /// The answer is complete.
    Finished {
        /// What it took, as billed; `None` when the one who answered did not say.
        usage: Option<Usage>,
        /// How long it took, where it was told.
        timing: Option<Timing>,
    },
    /// The answer cannot be completed.
    Failed(Failure),
}

/// How an answer begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// The answer's id.
    pub id: String,
    /// The model that answers, as it names itself.
    pub model: String,
    /// Seconds since the Unix epoch.
    pub created: Option<u64>,
    /// Names the model's exact build.
    pub fingerprint: Option<String>,
    /// The class of service it got.
    pub service_tier: Option<String>,
    /// What the prompt took, where it is known at the beginning.
    pub usage: Option<Usage>,
    /// Fields only one dialect has.
    pub extensions: Vec<Extension>,
}

/// A token's log probability and its likeliest alternatives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenLogProb {
    /// The token.
    pub top: TopLogProb,
    /// Its alternatives, likeliest first; the token itself may be among them.
    pub alternatives: Vec<TopLogProb>,
}

/// One token and its log probability (natural logarithm).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopLogProb {
    /// The token as text; bytes that are no UTF-8 are written as the dialect does.
    pub token: String,
    /// Its bytes, where they are told.
    pub bytes: Option<Vec<u8>>,
    /// Its log probability.
    pub logprob: Number,
}

/// A source of what was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Citation {
    /// Which of the `n` answers.
    pub choice: u32,
    /// The dialect whose shape it has.
    pub dialect: Dialect,
    /// It, as that dialect writes it.
    pub value: Json,
}

/// Why a choice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    Stop,
    /// A stop text was met, where the dialect tells this from [`Finish::Stop`].
    StopText,
    /// `max_tokens` was reached.
    Length,
    /// The model's context was reached, where the dialect tells this from [`Finish::Length`].
    Context,
    /// The model wants its calls answered.
    ToolCalls,
    /// A filter of the provider's stopped it.
    Filtered,
    /// The model declined.
    Refused,
    /// The provider paused a long turn; asking again with the answer so far goes on.
    Paused,
    /// A budget of ours had nothing left.
    Quota,
    /// Any other word, as the provider wrote it.
    Other(String),
}

/// Why an answer cannot be completed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Stage, blame, whether to retry, and a message that is safe to show.
    pub refusal: Refusal,
    /// What the provider said, when one did.
    pub provider: Option<Provider>,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, provider: None }
    }
}

/// What a provider said when it failed; every text is bounded and without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provider {
    /// The HTTP status; 0 when the failure came inside a stream.
    pub status: u16,
    /// Its own kind of error (`rate_limit_error`, `ThrottlingException`).
    pub kind: Option<String>,
    /// Its own code (`context_length_exceeded`).
    pub code: Option<String>,
    /// The field it names.
    pub param: Option<String>,
    /// Its own message.
    pub message: String,
}
