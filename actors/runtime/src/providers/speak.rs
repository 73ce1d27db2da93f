//! Which dialect a kind of provider speaks.
//!
//! Owns the table from kinds to dialects. What the dialects say is `selvedge-dialect`'s.

use bytes::Bytes;
use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use selvedge_core::upstream::{ProviderKind, ProviderSpec};
use selvedge_dialect::chat::{ChatRequest, Event, Failure};
use selvedge_dialect::exchange::{AnswerParser, Envelope, Outgoing};
use selvedge_dialect::tap::{Kind, Rewrite};
use selvedge_dialect::{anthropic, bedrock, cohere, gemini, ollama, openai};
use selvedge_upstream::{MediaType, Said};

use crate::relay::Passable;

/// OpenAI's own host: servers that speak alike know fields that it refuses.
const OPENAI_HOST: &str = "api.openai.com";

/// A request in a provider's words, and how its answer is read.
pub(crate) struct Spoken {
    pub(crate) outgoing: Outgoing,
    pub(crate) expects: MediaType,
    pub(crate) parser: Box<dyn AnswerParser>,
}

/// Says a request to a provider. `id` is the answer's for those who give none, `longest` the length
/// of an answer that the caller did not limit, for those who have to be told one.
///
/// # Errors
/// A refusal that names what the provider cannot be told.
pub(crate) fn say(
    spec: &ProviderSpec,
    request: &ChatRequest,
    id: &str,
    longest: u32,
) -> Result<Spoken, Refusal> {
    let json_or_events = if request.stream { MediaType::EventStream } else { MediaType::Json };
    match spec.kind {
        ProviderKind::OpenAi | ProviderKind::Azure => {
            let target = openai_target(spec);
            let parser: Box<dyn AnswerParser> = if request.stream {
                Box::<openai::Parser>::default()
            } else {
                Box::<openai::WholeParser>::default()
            };
            let outgoing = openai::render(request, target)?;
            Ok(Spoken { outgoing, expects: json_or_events, parser })
        }
        ProviderKind::Anthropic => {
            let target = anthropic::Target { max_tokens: longest };
            let parser: Box<dyn AnswerParser> = if request.stream {
                Box::<anthropic::Parser>::default()
            } else {
                Box::<anthropic::WholeParser>::default()
            };
            let outgoing = anthropic::render(request, target)?;
            Ok(Spoken { outgoing, expects: json_or_events, parser })
        }
        ProviderKind::Gemini => {
            let parser: Box<dyn AnswerParser> = if request.stream {
                Box::new(gemini::Parser::new(id))
            } else {
                Box::new(gemini::WholeParser::new(id))
            };
            Ok(Spoken { outgoing: gemini::render(request)?, expects: json_or_events, parser })
        }
        ProviderKind::Ollama => {
            // A whole answer is one line of the same.
            let expects = if request.stream { MediaType::JsonLines } else { MediaType::Json };
            let parser = Box::new(ollama::Parser::new(id));
            Ok(Spoken { outgoing: ollama::render(request)?, expects, parser })
        }
        ProviderKind::Cohere => {
            let parser: Box<dyn AnswerParser> = if request.stream {
                Box::new(cohere::Parser::new(&request.model))
            } else {
                Box::new(cohere::WholeParser::new(&request.model))
            };
            Ok(Spoken { outgoing: cohere::render(request)?, expects: json_or_events, parser })
        }
        ProviderKind::Bedrock => {
            let outgoing = bedrock::render(request)?;
            let (expects, parser): (_, Box<dyn AnswerParser>) = if request.stream {
                let parser = Box::new(bedrock::Parser::new(id, &request.model));
                (MediaType::AmazonEventStream, parser)
            } else {
                (MediaType::Json, Box::new(bedrock::WholeParser::new(id, &request.model)))
            };
            Ok(Spoken { outgoing, expects, parser })
        }
    }
}

/// A body that passes as it came to a provider that speaks the caller's own dialect, with what is
/// sent beside it; none where it must be translated. `model` is the model as the provider calls it,
/// `limit` the length of an answer that must be limited and that the caller did not limit.
pub(crate) fn pass(
    spec: &ProviderSpec,
    asked: &Passable,
    model: &str,
    limit: Option<u32>,
) -> Option<(Envelope, Bytes, MediaType)> {
    let Passable { body, kind, seen, .. } = asked;
    let strict = spec.kind == ProviderKind::Azure || spec.base.host() == OPENAI_HOST;
    let fits = match (spec.kind, kind) {
        // OpenAI's newer models refuse the older name of the limit, which translation replaces, and
        // translation refuses what OpenAI does not know so that another target is asked.
        (ProviderKind::OpenAi | ProviderKind::Azure, Kind::OpenAi) => {
            !(strict && (seen.has_old_limit || seen.is_held))
        }
        (ProviderKind::Anthropic, Kind::Anthropic) => seen.max_tokens.is_some(),
        _ => false,
    };
    if !fits {
        return None;
    }
    let name = if strict { "max_completion_tokens" } else { "max_tokens" };
    let rewrite = Rewrite {
        model: (seen.model != model).then_some(model),
        ask_usage: *kind == Kind::OpenAi,
        limit: limit.map(|tokens| (name, u64::from(tokens))),
    };
    let body = seen.rewrite(body, rewrite).map_or_else(|| body.clone(), Bytes::from);
    let envelope = match kind {
        Kind::OpenAi => openai::ENVELOPE,
        Kind::Anthropic => anthropic::ENVELOPE,
    };
    let expects = if seen.stream { MediaType::EventStream } else { MediaType::Json };
    Some((envelope, body, expects))
}

/// How strictly a server that speaks like OpenAI takes it. The deployment of Azure is put into the
/// path by whoever sends it.
pub(super) fn openai_target(spec: &ProviderSpec) -> openai::Target<'static> {
    let strict = spec.kind == ProviderKind::Azure || spec.base.host() == OPENAI_HOST;
    if strict { openai::Target::OpenAi } else { openai::Target::Compatible }
}

/// What a provider's refusal means, in its dialect.
pub(crate) fn refused(kind: ProviderKind, said: &Said) -> Failure {
    match kind {
        ProviderKind::OpenAi | ProviderKind::Azure => {
            openai::failure(said.status, None, &said.body)
        }
        ProviderKind::Anthropic => anthropic::failure(said.status, None, &said.body),
        ProviderKind::Gemini => gemini::failure(said.status, None, &said.body),
        ProviderKind::Ollama => ollama::failure(said.status, None, &said.body),
        ProviderKind::Cohere => cohere::failure(said.status, None, &said.body),
        ProviderKind::Bedrock => bedrock::failure(said.status, None, None, &said.body),
    }
}

/// What a provider's error inside of a stream means, in its dialect: the bytes of the events that
/// came with it.
pub(crate) fn failed_inside(spec: &ProviderSpec, bytes: &[u8]) -> Failure {
    let mut parser: Box<dyn AnswerParser> = match spec.kind {
        ProviderKind::Anthropic => Box::<anthropic::Parser>::default(),
        _ => Box::<openai::Parser>::default(),
    };
    let mut events = Vec::new();
    parser.push(bytes, &mut events);
    let failed = events.into_iter().find_map(|event| match event {
        Event::Failed(failure) => Some(failure),
        _ => None,
    });
    failed.unwrap_or_else(|| {
        let message = format!("provider '{}' broke off its answer", spec.name);
        let (stage, blame) = (Stage::Execute, Blame::Provider);
        Refusal::new(stage, blame, Retry::Elsewhere, Code::PeerLost, message).into()
    })
}

/// What a provider is asked when it shall only count the tokens of a prompt.
///
/// # Errors
/// A refusal when this kind of provider does not count.
pub(crate) fn say_count(spec: &ProviderSpec, request: &ChatRequest) -> Result<Outgoing, Refusal> {
    match spec.kind {
        ProviderKind::Anthropic => anthropic::render_count(request),
        ProviderKind::OpenAi
        | ProviderKind::Gemini
        | ProviderKind::Bedrock
        | ProviderKind::Azure
        | ProviderKind::Cohere
        | ProviderKind::Ollama => {
            let message =
                format!("provider '{}' does not count tokens ahead of an answer", spec.name);
            let (stage, blame) = (Stage::Validate, Blame::Client);
            Err(Refusal::new(stage, blame, Retry::Never, Code::Unsupported, message))
        }
    }
}
