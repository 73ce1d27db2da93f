//! Usage as this dialect counts: totals that contain their parts.
//!
//! Owns reading (with the variants of compatible servers) and writing.

use serde::Deserialize;

use crate::chat::Usage;
use crate::json::Object;

/// `usage`, read leniently: servers add fields.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct UsageField {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<AnswerDetails>,
    /// DeepSeek's name for cached tokens.
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    audio_tokens: Option<u64>,
    /// Tokens written to a cache, as gateways in front of other dialects report them.
    cache_write_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct AnswerDetails {
    reasoning_tokens: Option<u64>,
    audio_tokens: Option<u64>,
    accepted_prediction_tokens: Option<u64>,
    rejected_prediction_tokens: Option<u64>,
}

impl From<UsageField> for Usage {
    fn from(field: UsageField) -> Self {
        let prompt = field.prompt_tokens_details.unwrap_or_default();
        let answer = field.completion_tokens_details.unwrap_or_default();
        let prompt_tokens = field.prompt_tokens.unwrap_or(0);
        let mut completion_tokens = field.completion_tokens.unwrap_or(0);
        let reasoning_tokens = answer.reasoning_tokens.unwrap_or(0);
        // xAI counts thinking beside the answer; its total tells.
        let beside =
            prompt_tokens.saturating_add(completion_tokens).saturating_add(reasoning_tokens);
        if reasoning_tokens > 0 && field.total_tokens == Some(beside) {
            completion_tokens += reasoning_tokens;
        }
        let cached = prompt.cached_tokens.or(field.prompt_cache_hit_tokens);
        Self {
            prompt_tokens,
            cached_tokens: cached.unwrap_or(0),
            cache_creation_tokens: prompt.cache_write_tokens.unwrap_or(0),
            prompt_audio_tokens: prompt.audio_tokens.unwrap_or(0),
            completion_tokens,
            reasoning_tokens,
            completion_audio_tokens: answer.audio_tokens.unwrap_or(0),
            accepted_prediction_tokens: answer.accepted_prediction_tokens.unwrap_or(0),
            rejected_prediction_tokens: answer.rejected_prediction_tokens.unwrap_or(0),
            ..Self::default()
        }
    }
}

/// Writes the fields of `usage`.
pub(crate) fn write(object: &mut Object<'_>, usage: &Usage) {
    object.field("prompt_tokens", &usage.prompt_tokens);
    object.field("completion_tokens", &usage.completion_tokens);
    object.field("total_tokens", &usage.total());
    object.object("prompt_tokens_details", |object| {
        object.field("cached_tokens", &usage.cached_tokens);
        object.field("audio_tokens", &usage.prompt_audio_tokens);
        if usage.cache_creation_tokens > 0 {
            object.field("cache_write_tokens", &usage.cache_creation_tokens);
        }
    });
    object.object("completion_tokens_details", |object| {
        object.field("reasoning_tokens", &usage.reasoning_tokens);
        object.field("audio_tokens", &usage.completion_audio_tokens);
        object.field("accepted_prediction_tokens", &usage.accepted_prediction_tokens);
        object.field("rejected_prediction_tokens", &usage.rejected_prediction_tokens);
    });
}
