//! Usage as this dialect counts: parts beside each other.
//!
//! Owns adding them up and taking them apart. Counts are cumulative within a stream.

use serde::Deserialize;

use crate::chat::Usage;
use crate::json::Object;

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct UsageField {
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) cache_creation_input_tokens: Option<u64>,
    pub(crate) cache_read_input_tokens: Option<u64>,
    cache_creation: Option<CreationField>,
    output_tokens_details: Option<DetailsField>,
    server_tool_use: Option<ServerField>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct CreationField {
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct DetailsField {
    thinking_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct ServerField {
    web_search_requests: Option<u64>,
}

impl UsageField {
    /// These counts, and earlier ones where these say nothing.
    pub(crate) fn over(self, earlier: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.or(earlier.input_tokens),
            output_tokens: self.output_tokens.or(earlier.output_tokens),
            cache_creation_input_tokens: self
                .cache_creation_input_tokens
                .or(earlier.cache_creation_input_tokens),
            cache_read_input_tokens: self
                .cache_read_input_tokens
                .or(earlier.cache_read_input_tokens),
            cache_creation: self.cache_creation.or(earlier.cache_creation),
            output_tokens_details: self.output_tokens_details.or(earlier.output_tokens_details),
            server_tool_use: self.server_tool_use.or(earlier.server_tool_use),
        }
    }
}

impl From<UsageField> for Usage {
    fn from(field: UsageField) -> Self {
        let cached_tokens = field.cache_read_input_tokens.unwrap_or(0);
        let cache_creation_tokens = field.cache_creation_input_tokens.unwrap_or(0);
        let hour = field.cache_creation.and_then(|field| field.ephemeral_1h_input_tokens);
        let details = field.output_tokens_details.unwrap_or_default();
        let server = field.server_tool_use.unwrap_or_default();
        Self {
            prompt_tokens: field
                .input_tokens
                .unwrap_or(0)
                .saturating_add(cached_tokens)
                .saturating_add(cache_creation_tokens),
            cached_tokens,
            cache_creation_tokens,
            cache_creation_1h_tokens: hour.unwrap_or(0),
            completion_tokens: field.output_tokens.unwrap_or(0),
            reasoning_tokens: details.thinking_tokens.unwrap_or(0),
            web_searches: server.web_search_requests.unwrap_or(0),
            ..Self::default()
        }
    }
}

/// Writes the fields of `usage`.
pub(super) fn write(object: &mut Object<'_>, usage: &Usage) {
    object.field("input_tokens", &usage.fresh_tokens());
    object.field("cache_creation_input_tokens", &usage.cache_creation_tokens);
    object.field("cache_read_input_tokens", &usage.cached_tokens);
    if usage.cache_creation_tokens > 0 {
        let hour = usage.cache_creation_1h_tokens;
        object.object("cache_creation", |object| {
            let rest = usage.cache_creation_tokens.saturating_sub(hour);
            object.field("ephemeral_5m_input_tokens", &rest);
            object.field("ephemeral_1h_input_tokens", &hour);
        });
    }
    object.field("output_tokens", &usage.completion_tokens);
    if usage.reasoning_tokens > 0 {
        object.object("output_tokens_details", |object| {
            object.field("thinking_tokens", &usage.reasoning_tokens);
        });
    }
    if usage.web_searches > 0 {
        object.object("server_tool_use", |object| {
            object.field("web_search_requests", &usage.web_searches);
        });
    }
}
