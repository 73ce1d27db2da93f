//! How large a request at a provider is, and what the provider counted, for its price.
//!
//! Owns the bounds of a request's size. What it costs is [`selvedge_core::paid`]'s.

use std::sync::Arc;

use selvedge_core::catalogue::{Counts, Model};
use selvedge_core::paid::{Priced, Size};
use selvedge_core::upstream::ProviderSpec;
use selvedge_dialect::chat::{Cache, ChatRequest, Content, Extension, Part, Tool, Usage};

use crate::relay::Passable;

/// Tokens around each message, call and tool: role, begin and end marks.
pub(super) const AROUND: u64 = 32;
/// Tokens of a picture or a page at most: the dearest provider counts 1,600 for its largest
/// picture, another one 2,500 for its finest detail.
const PICTURE: u64 = 4_096;
/// Bytes of base64 per token of sound or document at the least: a second of the densest sound has
/// 6 KB and 25 tokens, a page of a document 20 KB and 3,000 tokens of text and picture.
const BYTES_PER_TOKEN: u64 = 4;

/// A request with the price list of its model, as far as that is known. `usual` bounds an answer
/// that nothing else does.
pub(super) fn priced(
    spec: &ProviderSpec,
    model: Option<Arc<Model>>,
    request: &ChatRequest,
    usual: u32,
) -> Priced {
    let size = Size {
        prompt_tokens: prompt_at_most(request),
        answers: request.n.unwrap_or(1),
        max_tokens: request.max_tokens,
        usual,
        audio_in: parts(request).any(|part| matches!(part.content, Content::Audio(_))),
        cache_hour: parts(request).any(|part| part.cache == Some(Cache::Hour)),
    };
    Priced::new(spec, model, size)
}

/// The size of a body that holds nothing but text: no tokenizer makes more tokens than a text has
/// bytes, and what stands around a message has fewer tokens than its JSON has bytes.
pub(super) fn size_of_bytes(asked: &Passable, usual: u32) -> Size {
    let within = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Size {
        prompt_tokens: AROUND + asked.body.len() as u64,
        answers: within(asked.seen.n),
        max_tokens: asked.seen.max_tokens.map(within),
        usual,
        audio_in: false,
        cache_hour: false,
    }
}

/// What a provider counted, as price lists count.
pub(crate) const fn counts(usage: &Usage) -> Counts {
    Counts {
        prompt: usage.prompt_tokens,
        cached: usage.cached_tokens,
        cache_write: usage.cache_creation_tokens,
        cache_write_1h: usage.cache_creation_1h_tokens,
        prompt_audio: usage.prompt_audio_tokens,
        completion: usage.completion_tokens,
        reasoning: usage.reasoning_tokens,
        completion_audio: usage.completion_audio_tokens,
        web_searches: usage.web_searches,
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
    let messages = request.messages.iter().map(|message| {
        let parts = message.parts.iter().map(part_at_most).sum::<u64>();
        AROUND + parts + own_at_most(&message.extensions)
    });
    let own = own_at_most(&request.extensions);
    AROUND + tools.sum::<u64>() + messages.sum::<u64>() + own
}

/// Tokens of fields that one dialect alone has: some of them are read with the prompt.
fn own_at_most(fields: &[Extension]) -> u64 {
    fields.iter().map(|field| field.value.text().len() as u64).sum()
}

fn part_at_most(part: &Part) -> u64 {
    own_at_most(&part.extensions) + content_at_most(&part.content)
}

fn content_at_most(content: &Content) -> u64 {
    use selvedge_dialect::chat::Source;
    let of = |text: &str| text.len() as u64;
    let source = |source: &Source| match source {
        Source::Text(text) => of(text),
        Source::Bytes { base64, .. } => PICTURE.max(of(base64) / BYTES_PER_TOKEN),
        // What the provider fetches has no size that is known here.
        Source::Url(_) | Source::File(_) => PICTURE,
    };
    match content {
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
    use selvedge_core::upstream::{ProviderKind, RawProvider};

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
            let priced = priced(&spec, None, &request, 100);
            assert_eq!(priced.longest(), 100);
            assert_eq!(priced.worst().tokens, priced.unread().prompt + u64::from(n) * 100);
        }
    }

    #[test]
    fn what_is_read_with_a_prompt_is_reserved_wherever_it_stands() {
        let text = |more: &str| {
            let body = format!(r#"{{"model": "m", "prompt": "Once"{more}}}"#);
            prompt_at_most(&selvedge_dialect::openai::parse_text(body.as_bytes()).unwrap())
        };
        let suffix = "x".repeat(10_000);
        assert!(text(&format!(r#", "suffix": "{suffix}""#)) >= text("") + 10_000);
        let chat = |more: &str| {
            let body = r#""messages": [{"role": "user", "content": "Hi"}]"#;
            let body = format!(r#"{{"model": "m", {body}{more}}}"#);
            prompt_at_most(&selvedge_dialect::openai::parse(body.as_bytes()).unwrap())
        };
        let guess = format!(r#", "prediction": {{"type": "content", "content": "{suffix}"}}"#);
        assert!(chat(&guess) >= chat("") + 10_000);
    }
}
