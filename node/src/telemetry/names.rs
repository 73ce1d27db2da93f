//! What is told of a request, by the names of the conventions.
//!
//! Owns the version of the conventions that is followed, names and attributes. Names that no
//! convention has begin with `selvedge.`. Does not own which of them stands where.

use selvedge_base::{Micros, Mono, Now};
use selvedge_core::upstream::ProviderKind;
use selvedge_runtime::{Turn, Whom};

use super::otlp::{AnyValue, KeyValue, List, Value};

/// The version of the OpenTelemetry semantic conventions that names are taken from: the last one
/// that has those of GenAI in it.
pub(super) const SEMCONV: &str = "1.41.1";
/// This node's own engine and its peers', where the conventions want a provider.
pub(super) const OURS: &str = "selvedge";

/// What tells that version apart from others, in everything that is sent.
pub(super) fn schema_url() -> String {
    format!("https://opentelemetry.io/schemas/{SEMCONV}")
}

/// Attributes, those without a value left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    pub(super) fn text(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.add(key, Value::Text(value.into()))
    }

    pub(super) fn maybe(&mut self, key: &str, value: Option<impl Into<String>>) -> &mut Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    pub(super) fn int(&mut self, key: &str, value: u64) -> &mut Self {
        self.add(key, Value::Int(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    pub(super) fn seconds(&mut self, key: &str, value: Option<Micros>) -> &mut Self {
        match value {
            Some(value) => self.add(key, Value::Double(seconds(value))),
            None => self,
        }
    }

    pub(super) fn truth(&mut self, key: &str, value: Option<bool>) -> &mut Self {
        match value {
            Some(value) => self.add(key, Value::Bool(value)),
            None => self,
        }
    }

    /// A list; left out when it is empty.
    pub(super) fn list(
        &mut self,
        key: &str,
        values: impl IntoIterator<Item = impl Into<String>>,
    ) -> &mut Self {
        let value = |text| AnyValue { value: Some(Value::Text(text)) };
        let values: Vec<_> = values.into_iter().map(|text| value(text.into())).collect();
        if values.is_empty() { self } else { self.add(key, Value::List(List { values })) }
    }

    fn add(&mut self, key: &str, value: Value) -> &mut Self {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value });
        self
    }
}

/// Seconds, as the conventions want durations.
pub(super) fn seconds(span: Micros) -> f64 {
    span.0 as f64 / 1e6
}

/// A moment in nanoseconds since the Unix epoch, by the clocks as they stood together once.
pub(super) fn nanos(anchor: Now, at: Mono) -> u64 {
    let (wall, after) = (anchor.wall.0.saturating_mul(1_000_000), at.since(anchor.mono));
    wall.saturating_add(after.0.saturating_mul(1_000))
}

/// Who answers, by the conventions' name (`gen_ai.provider.name`): whoever speaks OpenAI's dialect
/// under a host of its own is known by that.
pub(super) fn provider(whom: &Whom) -> &'static str {
    let Whom::Provider { kind, host, .. } = whom else { return OURS };
    match kind {
        ProviderKind::OpenAi => of_host(host),
        ProviderKind::Anthropic => "anthropic",
        ProviderKind::Gemini => "gcp.gemini",
        ProviderKind::Bedrock => "aws.bedrock",
        ProviderKind::Azure => "azure.ai.openai",
        ProviderKind::Cohere => "cohere",
        ProviderKind::Ollama => "ollama",
    }
}

fn of_host(host: &str) -> &'static str {
    let known = [
        ("deepseek.com", "deepseek"),
        ("groq.com", "groq"),
        ("mistral.ai", "mistral_ai"),
        ("perplexity.ai", "perplexity"),
        ("x.ai", "x_ai"),
    ];
    let below = |name: &str| {
        host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    known.into_iter().find(|(name, _)| below(name)).map_or("openai", |(_, known)| known)
}

/// What metrics and spans of a turn have in common.
pub(super) fn common(turn: &Turn) -> Attributes {
    let mut all = Attributes::default();
    all.text("gen_ai.operation.name", turn.operation)
        .text("gen_ai.provider.name", provider(&turn.whom))
        .text("gen_ai.request.model", &turn.model)
        .maybe("gen_ai.response.model", turn.answered_by.as_ref())
        .maybe("error.type", turn.error);
    if let Whom::Provider { host, port, .. } = &turn.whom {
        all.text("server.address", host).int("server.port", u64::from(*port));
    }
    all
}
