//! What is asked: a chat request that no dialect owns.
//!
//! Owns plain data and its small constructors. Whether values are in range is judged by the dialect
//! that parsed them; whether a target can say them is judged by the dialect that renders them.

use crate::exchange::Dialect;
use crate::json::Json;
use crate::number::Number;

/// A chat request. What is `None` or empty was not said, and a target's own default holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    /// The model as whoever asks names it; routing may write another one here.
    pub model: String,
    /// The conversation, oldest first. Instructions are messages of [`Role::System`].
    pub messages: Vec<Message>,
    /// The text of the only message is to be gone on with as it stands, without a chat around it.
    pub raw: bool,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether it must, may or must not call them.
    pub tool_choice: Option<ToolChoice>,
    /// Whether one turn may hold several calls.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    pub format: Option<Format>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// At most this many tokens of answer, thinking included.
    pub max_tokens: Option<u32>,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Log probabilities wanted.
    pub logprobs: Option<LogProbs>,
    /// Answers wanted; `None` is one.
    pub n: Option<u32>,
    /// Whether the answer is to come as it is made.
    pub stream: bool,
    /// Whether a stream is to end with its usage, in dialects that let the caller choose.
    pub include_usage: bool,
    /// How much to think before answering.
    pub reasoning: Option<Reasoning>,
    /// The end user, as the caller names them. A hint: no value changes an answer.
    pub user: Option<String>,
    /// The end user for the provider's abuse detection. A hint.
    pub safety_id: Option<String>,
    /// Groups requests with a common prefix. A hint.
    pub cache_key: Option<String>,
    /// Pairs the caller attaches for its own books. A hint.
    pub metadata: Vec<(String, String)>,
    /// The class of service, in the words of the dialect it came in (`auto`, `flex`, `priority`…).
    pub service_tier: Option<String>,
    /// Fields of the body that only one dialect has.
    pub extensions: Vec<Extension>,
}

/// Something only one dialect can say, kept as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Extension {
    /// The dialect that has it.
    pub dialect: Dialect,
    /// The field's name there.
    pub name: String,
    /// Its value.
    pub value: Json,
}

/// Who said a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Instructions by whoever built the application.
    System,
    /// The same, in the newer word of one dialect; elsewhere it is [`Role::System`].
    Developer,
    /// The person or program asking.
    #[default]
    User,
    /// The model's own earlier words.
    Assistant,
    /// Results of calls. Only [`Content::ToolResult`] parts stand here.
    Tool,
}

impl Role {
    /// The role's name in most dialects.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// Whether the message instructs the model.
    pub const fn is_instruction(self) -> bool {
        matches!(self, Self::System | Self::Developer)
    }
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// Tells speakers of one role apart.
    pub name: Option<String>,
    /// What was said, in order. Results of calls may stand in messages of [`Role::User`] too,
    /// before everything else there (as one dialect writes them).
    pub parts: Vec<Part>,
    /// Fields of the message that only one dialect has.
    pub extensions: Vec<Extension>,
}

impl Message {
    /// A message of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::text(text)], ..Self::default() }
    }
}

/// One part of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it holds.
    pub content: Content,
    /// Everything up to here is worth caching. A hint.
    pub cache: Option<Cache>,
    /// Fields of the part that only one dialect has.
    pub extensions: Vec<Extension>,
}

impl Part {
    /// A part of text.
    pub fn text(text: impl Into<String>) -> Self {
        Content::Text(text.into()).into()
    }
}

impl From<Content> for Part {
    fn from(content: Content) -> Self {
        Self { content, cache: None, extensions: Vec::new() }
    }
}

/// What a part holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text.
    Text(String),
    /// A picture.
    Image {
        /// Where it is.
        source: Source,
        /// How closely to look (`auto`, `low`, `high`).
        detail: Option<String>,
    },
    /// Sound. Its media type tells the coding (`audio/wav`, `audio/mpeg`).
    Audio(Source),
    /// A document.
    Document {
        /// Where it is.
        source: Source,
        /// The file's name or the document's title.
        name: Option<String>,
    },
    /// The model called a tool.
    ToolUse {
        /// Ties the result to the call.
        id: String,
        /// The tool.
        name: String,
        /// The arguments as JSON text, exactly as the model wrote them (it need not be valid).
        arguments: String,
    },
    /// A call's result.
    ToolResult {
        /// The call.
        id: String,
        /// The tool, where the dialect repeats it.
        name: Option<String>,
        /// The result: text, pictures or documents, no calls and no further results.
        parts: Vec<Part>,
        /// Whether the call failed.
        is_error: bool,
    },
    /// The model's own thinking, to be handed back unchanged.
    Thinking {
        /// The thinking, or what the provider shows of it.
        text: String,
        /// The provider's proof that it is genuine; opaque.
        signature: Option<String>,
    },
    /// Thinking that the provider shows to nobody; opaque.
    Redacted(String),
    /// The model declined.
    Refusal(String),
    /// A part only one dialect has, whole.
    Native {
        /// The dialect.
        dialect: Dialect,
        /// The part as it was written.
        value: Json,
    },
}

/// Where the content of a picture, sound or document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// At an address the provider fetches.
    Url(String),
    /// Here.
    Bytes {
        /// The media type, such as `image/png`.
        media_type: String,
        /// The bytes in base64 with the standard alphabet, as all dialects write them.
        base64: String,
    },
    /// Here, as text.
    Text(String),
    /// Uploaded earlier to the provider, under this id.
    File(String),
}

/// How long what is cached is to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// As long as the provider does by itself.
    #[default]
    Default,
    /// Five minutes.
    FiveMinutes,
    /// One hour.
    Hour,
}

/// Something the model may call.
#[derive(Clone, Debug, PartialEq)]
pub enum Tool {
    /// A function of the caller's.
    Function(Function),
    /// A tool only one dialect has, most often run by the provider, whole.
    Native {
        /// The dialect.
        dialect: Dialect,
        /// The tool as it was written.
        value: Json,
    },
}

/// A function of the caller's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it does and when to call it.
    pub description: Option<String>,
    /// JSON Schema of its arguments; none = no arguments.
    pub schema: Option<Json>,
    /// Whether arguments must hold to the schema exactly.
    pub strict: Option<bool>,
    /// Everything up to here is worth caching. A hint.
    pub cache: Option<Cache>,
    /// Fields of the tool that only one dialect has.
    pub extensions: Vec<Extension>,
}

/// Whether tools must, may or must not be called.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolChoice {
    /// May.
    Auto,
    /// Must not.
    None,
    /// Must, whichever.
    Required,
    /// Must, this function.
    Named(String),
    /// A choice only one dialect has, whole.
    Native {
        /// The dialect.
        dialect: Dialect,
        /// The choice as it was written.
        value: Json,
    },
}

/// The form of the answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// Text.
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that holds to a schema.
    JsonSchema {
        /// The schema's name, where the dialect wants one.
        name: Option<String>,
        /// What the answer is for.
        description: Option<String>,
        /// The JSON Schema.
        schema: Json,
        /// Whether the answer must hold to it exactly.
        strict: Option<bool>,
    },
}

/// How tokens are drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// 0 = always the likeliest token.
    pub temperature: Option<Number>,
    /// Keep the smallest set of tokens whose probabilities reach this.
    pub top_p: Option<Number>,
    /// Keep this many tokens.
    pub top_k: Option<u32>,
    /// Drop tokens less likely than this share of the likeliest one.
    pub min_p: Option<Number>,
    /// Lowered logit for tokens already in the answer, once.
    pub presence_penalty: Option<Number>,
    /// Lowered logit for tokens already in the answer, per occurrence.
    pub frequency_penalty: Option<Number>,
    /// Divides the logit of tokens already seen.
    pub repetition_penalty: Option<Number>,
    /// Equal seeds draw equally, as far as the target promises.
    pub seed: Option<i64>,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, Number)>,
}

/// Log probabilities wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogProbs {
    /// How many alternatives per token.
    pub top: u8,
}

/// How much to think before answering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// Whether to think at all.
    pub thinking: Option<Thinking>,
    /// How much, as a word.
    pub effort: Option<Effort>,
    /// How much, at most, in tokens.
    pub budget_tokens: Option<u32>,
    /// Whether the thinking, or a summary of it, is to be part of the answer.
    pub show: Option<bool>,
}

/// Whether to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// Yes.
    On,
    /// No.
    Off,
    /// As the model sees fit.
    Adaptive,
}

/// How much to think, as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Not at all.
    None,
    /// As little as the model can.
    Minimal,
    /// Little.
    Low,
    /// The default of most models.
    Medium,
    /// Much.
    High,
    /// More than much.
    XHigh,
    /// As much as the model can.
    Max,
}

impl Effort {
    /// Every word, from little to much.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::XHigh, Self::Max];

    /// The word itself, alike in every dialect that has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The effort a word means.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effort| effort.as_str() == word)
    }
}
