//! What a request at a provider can cost, and what its answer did.
//!
//! Owns finding the price list that applies and the bounds of a request's size. Prices and their
//! arithmetic are [`selvedge_core::catalogue`]'s.

use std::sync::Arc;

use selvedge_core::bill::Took;
use selvedge_core::catalogue::{self, Ask, Catalogue, Counts, Model, Price};
use selvedge_core::upstream::provider::CostClass;
use selvedge_core::upstream::{ProviderKind, ProviderSpec};
use selvedge_dialect::chat::{Cache, ChatRequest, Content, Part, Tool, Usage};

/// Tokens around each message, call and tool: role, begin and end marks.
const AROUND: u64 = 32;
/// Tokens of a picture or a page at most: the dearest provider counts 1,600 for its largest
/// picture, another one 2,500 for its finest detail.
const PICTURE: u64 = 4_096;
/// Bytes of base64 per token of sound or document at the least: a second of the densest sound has
/// 6 KB and 25 tokens, a page of a document 20 KB and 3,000 tokens of text and picture.
const BYTES_PER_TOKEN: u64 = 4;

/// A request with its price list.
#[derive(Clone, Debug)]
pub(crate) struct Priced {
    model: Option<Arc<Model>>,
    free: bool,
    /// Tokens of one of its answers at most.
    longest: u32,
    ask: Ask,
}

impl Priced {
    /// The request's bounds and what is known of its model.
    pub(super) fn new(spec: &ProviderSpec, request: &ChatRequest, usual: u32) -> Self {
        let found = Catalogue::built_in()
            .ok()
            .and_then(|all| all.find(list_of(spec), &request.model))
            .map(|found| Arc::clone(found.model()));
        let most = found.as_ref().and_then(|model| model.abilities.max_output_tokens);
        let usual = most.map_or(usual, |most| most.min(usual));
        let answers = u64::from(request.n.unwrap_or(1));
        let longest = request.max_tokens.unwrap_or(usual);
        let output_tokens = u64::from(longest).saturating_mul(answers);
        let ask = Ask {
            prompt_tokens: prompt_at_most(request),
            output_tokens,
            audio_in: parts(request).any(|part| matches!(part.content, Content::Audio(_))),
            audio_out: false,
            cache_hour: parts(request).any(|part| part.cache == Some(Cache::Hour)),
            web_searches: 0,
        };
        Self { model: found, free: spec.cost == CostClass::Free, longest, ask }
    }

    /// Whether what it costs can be told.
    pub(crate) fn is_known(&self) -> bool {
        self.free || self.price().is_some_and(|price| price.worst_case(&self.ask).is_ok())
    }

    /// Tokens of one answer at most.
    pub(crate) const fn longest(&self) -> u32 {
        self.longest
    }

    /// The most it can take.
    pub(crate) fn worst(&self) -> Took {
        let tokens = self.ask.prompt_tokens.saturating_add(self.ask.output_tokens);
        Took { tokens, micro_dollars: self.money(|price| price.worst_case(&self.ask).ok()) }
    }

    /// What an answer took.
    pub(crate) fn cost(&self, usage: &Usage) -> Took {
        let counts = Counts {
            prompt: usage.prompt_tokens,
            cached: usage.cached_tokens,
            cache_write: usage.cache_creation_tokens,
            cache_write_1h: usage.cache_creation_1h_tokens,
            prompt_audio: usage.prompt_audio_tokens,
            completion: usage.completion_tokens,
            reasoning: usage.reasoning_tokens,
            completion_audio: usage.completion_audio_tokens,
            web_searches: usage.web_searches,
        };
        let micro_dollars = self.money(|price| price.cost(&counts).ok());
        Took { tokens: usage.total(), micro_dollars }
    }

    /// What a prompt takes that the provider has not counted yet: the most it can.
    pub(crate) fn unread(&self) -> Usage {
        Usage { prompt_tokens: self.ask.prompt_tokens, ..Usage::default() }
    }

    fn price(&self) -> Option<&Price> {
        self.model.as_ref().map(|model| &model.price)
    }

    /// Nothing where nothing is billed or no price is known (budgets of money refused it then).
    fn money(&self, of: impl Fn(&Price) -> Option<u64>) -> u64 {
        if self.free { 0 } else { self.price().and_then(of).unwrap_or(0) }
    }
}

/// Whose price list a provider bills by. One that only speaks like OpenAI is told by its address.
pub(crate) fn list_of(spec: &ProviderSpec) -> catalogue::ProviderKind {
    use catalogue::ProviderKind as List;
    match spec.kind {
        ProviderKind::Anthropic => List::Anthropic,
        ProviderKind::Gemini => List::Gemini,
        ProviderKind::Bedrock => List::Bedrock,
        ProviderKind::Azure => List::Azure,
        ProviderKind::Cohere => List::Cohere,
        ProviderKind::Ollama => List::Ollama,
        ProviderKind::OpenAi => {
            let known = [
                ("openai.com", List::OpenAi),
                ("mistral.ai", List::Mistral),
                ("groq.com", List::Groq),
                ("together.xyz", List::Together),
                ("deepseek.com", List::DeepSeek),
                ("openrouter.ai", List::OpenRouter),
                ("x.ai", List::Xai),
                ("fireworks.ai", List::Fireworks),
                ("perplexity.ai", List::Perplexity),
            ];
            let host = spec.base.host();
            let of = |domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
            known.iter().find(|(domain, _)| of(domain)).map_or(List::Compatible, |(_, list)| *list)
        }
    }
}

fn parts(request: &ChatRequest) -> impl Iterator<Item = &Part> {
    request.messages.iter().flat_map(|message| &message.parts)
}

/// Tokens of a prompt at most. No tokenizer makes more tokens than a text has bytes.
fn prompt_at_most(request: &ChatRequest) -> u64 {
    let tools = request.tools.iter().map(|tool| match tool {
        Tool::Function(function) => {
            let schema = function.schema.as_ref().map_or(0, |schema| schema.text().len());
            let words = function.description.as_ref().map_or(0, String::len);
            AROUND + (function.name.len() + words + schema) as u64
        }
        Tool::Native { value, .. } => AROUND + value.text().len() as u64,
    });
    let messages = request
        .messages
        .iter()
        .map(|message| AROUND + message.parts.iter().map(part_at_most).sum::<u64>());
    AROUND + tools.sum::<u64>() + messages.sum::<u64>()
}

fn part_at_most(part: &Part) -> u64 {
    use selvedge_dialect::chat::Source;
    let of = |text: &str| text.len() as u64;
    let source = |source: &Source| match source {
        Source::Text(text) => of(text),
        Source::Bytes { base64, .. } => PICTURE.max(of(base64) / BYTES_PER_TOKEN),
        // What the provider fetches has no size that is known here.
        Source::Url(_) | Source::File(_) => PICTURE,
    };
    match &part.content {
        Content::Text(text) | Content::Refusal(text) | Content::Redacted(text) => of(text),
        Content::Image { .. } => PICTURE,
        Content::Audio(sound) => source(sound),
        Content::Document { source: document, .. } => source(document),
        Content::ToolUse { id, name, arguments } => AROUND + of(id) + of(name) + of(arguments),
        Content::ToolResult { id, parts, .. } => {
            AROUND + of(id) + parts.iter().map(part_at_most).sum::<u64>()
        }
        Content::Thinking { text, signature } => of(text) + signature.as_deref().map_or(0, of),
        Content::Native { value, .. } => of(value.text()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use selvedge_core::upstream::RawProvider;

    use super::*;

    #[test]
    fn several_answers_are_reserved_for_each_at_the_limit_they_are_told() {
        let raw = RawProvider {
            keys: vec!["k".to_owned()],
            ..RawProvider::named("cloud", ProviderKind::OpenAi)
        };
        let spec = raw.checked().unwrap();
        for n in [1, 3] {
            let request = ChatRequest { n: Some(n), ..ChatRequest::default() };
            let priced = Priced::new(&spec, &request, 100);
            assert_eq!(priced.longest(), 100);
            assert_eq!(priced.worst().tokens, priced.unread().prompt_tokens + u64::from(n) * 100);
        }
    }
}
