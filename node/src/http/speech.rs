//! The dialects that clients speak here.
//!
//! Owns the table from a surface to a dialect's server side. What a dialect says is
//! `selvedge-dialect`'s.

use selvedge_base::Refusal;
use selvedge_dialect::canon::Knobs;
use selvedge_dialect::chat::{ChatRequest, Gathered};
use selvedge_dialect::exchange::{Reply, StreamWriter};
use selvedge_dialect::tap::Kind;
use selvedge_dialect::{anthropic, ollama, openai, responses};

/// How one surface speaks.
#[derive(Clone, Copy)]
pub(super) struct Speech {
    /// What an answer's id begins with.
    pub(super) id_prefix: &'static str,
    /// The dialect, where a body can pass to a provider as it came.
    pub(super) kind: Option<Kind>,
    /// Reads a body.
    pub(super) parse: fn(&[u8]) -> Result<ChatRequest, Refusal>,
    /// The dialect's name in the cache of answers and where it says how words are chosen; none
    /// where answers are not kept.
    pub(super) cache: Option<(&'static str, Knobs)>,
    /// Writes a stream.
    pub(super) writer: fn(Reply) -> Box<dyn StreamWriter>,
    /// Writes a whole answer.
    pub(super) whole: fn(&Gathered, Reply) -> Vec<u8>,
}

/// OpenAI's chat completions.
pub(super) const OPENAI: Speech = Speech {
    id_prefix: "chatcmpl-",
    kind: Some(Kind::OpenAi),
    parse: openai::parse,
    cache: Some(("openai.chat", Knobs::Top)),
    writer: |reply| Box::new(openai::Writer::new(reply)),
    whole: openai::whole,
};

/// OpenAI's text completions.
pub(super) const TEXT: Speech = Speech {
    id_prefix: "cmpl-",
    kind: None,
    parse: openai::parse_text,
    cache: Some(("openai.completions", Knobs::Top)),
    writer: |reply| Box::new(openai::TextWriter::new(reply)),
    whole: openai::whole_text,
};

/// Anthropic's messages.
pub(super) const ANTHROPIC: Speech = Speech {
    id_prefix: "msg_",
    kind: Some(Kind::Anthropic),
    parse: anthropic::parse,
    cache: Some(("anthropic.messages", Knobs::Top)),
    writer: |_| Box::new(anthropic::Writer::new()),
    whole: |gathered, _| anthropic::whole(gathered),
};

/// OpenAI's responses.
pub(super) const RESPONSES: Speech = Speech {
    id_prefix: "resp_",
    kind: None,
    parse: responses::parse,
    // A response can be named by a later request.
    cache: None,
    writer: |reply| Box::new(responses::Writer::new(reply)),
    whole: responses::whole,
};

/// Ollama's chats.
pub(super) const OLLAMA_CHAT: Speech = Speech {
    id_prefix: "",
    kind: None,
    parse: ollama::parse,
    cache: Some(("ollama.chat", Knobs::Options)),
    writer: |reply| Box::new(ollama::Writer::new(ollama::Shape::Chat, reply)),
    whole: |gathered, reply| ollama::whole(gathered, ollama::Shape::Chat, reply),
};

/// Ollama's generation from a single prompt.
pub(super) const OLLAMA_GENERATE: Speech = Speech {
    id_prefix: "",
    kind: None,
    parse: ollama::parse_generate,
    cache: Some(("ollama.generate", Knobs::Options)),
    writer: |reply| Box::new(ollama::Writer::new(ollama::Shape::Generate, reply)),
    whole: |gathered, reply| ollama::whole(gathered, ollama::Shape::Generate, reply),
};
