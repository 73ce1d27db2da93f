//! One request to a provider, as plain data.
//!
//! Owns what a sender of bytes must know. What the bytes say is the dialect's; a body may also be
//! the caller's own, passed through as it came. Secrets are added when it is sent.

use std::borrow::Cow;

use bytes::Bytes;
use selvedge_core::upstream::{ProviderKind, ProviderSpec};
use selvedge_dialect::exchange::{Envelope, Framing, Outgoing, encode};

/// Media types an answer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// One JSON document.
    Json,
    /// Server-sent events.
    EventStream,
    /// A JSON document per line.
    JsonLines,
    /// Amazon's binary event stream.
    AmazonEventStream,
    /// Whatever comes: bytes that are passed on.
    Any,
}

impl From<Framing> for MediaType {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Json => Self::Json,
            Framing::Sse => Self::EventStream,
            Framing::Ndjson => Self::JsonLines,
            Framing::AwsEventStream => Self::AmazonEventStream,
        }
    }
}

impl MediaType {
    /// Whether a `content-type` is of this kind.
    pub fn allows(self, content_type: &str) -> bool {
        // As nearly all providers write it.
        if matches!(
            (self, content_type),
            (Self::Json, "application/json") | (Self::EventStream, "text/event-stream")
        ) {
            return true;
        }
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let one_of = |names: &[&str]| names.iter().any(|name| essence.eq_ignore_ascii_case(name));
        match self {
            Self::Json => one_of(&["application/json"]),
            Self::EventStream => one_of(&["text/event-stream"]),
            Self::JsonLines => one_of(&["application/x-ndjson", "application/jsonl"]),
            Self::AmazonEventStream => one_of(&["application/vnd.amazon.eventstream"]),
            Self::Any => true,
        }
    }
}

/// A request without its secrets. Cheap to clone: attempts share the body.
#[derive(Clone, Debug)]
pub struct Call {
    /// The model, as the provider calls it: breakers are per model.
    pub model: String,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path below the provider's base address, beginning with `/`, percent-encoded; with a query
    /// where there is one. Never holds a secret.
    pub path: Cow<'static, str>,
    /// Headers besides those of authentication, `content-length` and `host`.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body.
    pub body: Bytes,
    /// What a good answer's type is; anything else is refused before a byte of it is read.
    pub expects: MediaType,
    /// Tokens it may take, prompt and answer, for limits per minute.
    pub tokens: u64,
    /// Whether asking twice does nothing that asking once does not: such requests may be hedged.
    pub idempotent: bool,
}

impl Call {
    /// A request that a dialect has written, for a model as the provider calls it, which may take
    /// so many tokens.
    pub fn of(outgoing: Outgoing, model: &str, expects: impl Into<MediaType>, tokens: u64) -> Self {
        let headers = outgoing.headers.into_iter();
        Self {
            model: model.to_owned(),
            method: outgoing.method,
            path: outgoing.path.into(),
            headers: headers.map(|(name, value)| (name, value.into())).collect(),
            body: outgoing.body.into(),
            expects: expects.into(),
            tokens,
            idempotent: false,
        }
    }

    /// The same with a body that passes as it came.
    pub fn passing(
        envelope: Envelope,
        body: Bytes,
        model: &str,
        expects: impl Into<MediaType>,
        tokens: u64,
    ) -> Self {
        let headers = envelope.headers.iter();
        Self {
            model: model.to_owned(),
            method: "POST",
            path: Cow::Borrowed(envelope.path),
            headers: headers.map(|(name, value)| (*name, Cow::Borrowed(*value))).collect(),
            body,
            expects: expects.into(),
            tokens,
            idempotent: false,
        }
    }
}

/// The path of a call as it goes on the wire: below the provider's base address, and for Azure
/// below the model's deployment, with the version it wants.
pub(crate) fn on_wire(spec: &ProviderSpec, call: &Call) -> String {
    let base = spec.base.path();
    // The dialect knows Azure's own paths; a body that is passed through comes with OpenAI's.
    if spec.kind != ProviderKind::Azure || call.path.starts_with("/openai/") {
        return format!("{base}{}", call.path);
    }
    let path = call.path.strip_prefix("/v1").unwrap_or(&call.path);
    let model = spec.models.values().find(|model| model.upstream == call.model);
    let deployment = encode(model.map_or(call.model.as_str(), |model| &model.deployment));
    let joint = if path.contains('?') { '&' } else { '?' };
    let version = &spec.api_version;
    format!("{base}/openai/deployments/{deployment}{path}{joint}api-version={version}")
}

#[cfg(test)]
mod tests {
    use selvedge_core::upstream::RawProvider;
    use selvedge_core::upstream::provider::RawModel;

    use super::*;

    #[test]
    fn azures_paths_name_the_deployment() {
        let model = RawModel {
            name: "m".to_owned(),
            upstream: "gpt-x".to_owned(),
            deployment: "my gpt/x".to_owned().replace(' ', "+"),
            ..RawModel::default()
        };
        let raw = RawProvider {
            base_url: "https://me.openai.azure.com".to_owned(),
            keys: vec!["k".to_owned()],
            models: vec![model],
            ..RawProvider::named("a", ProviderKind::Azure)
        };
        let call = Call {
            model: "gpt-x".to_owned(),
            method: "POST",
            path: "/v1/chat/completions".into(),
            headers: Vec::new(),
            body: Bytes::new(),
            expects: MediaType::Json,
            tokens: 1,
            idempotent: false,
        };
        assert_eq!(
            on_wire(&raw.checked().unwrap(), &call),
            "/openai/deployments/my%2Bgpt%2Fx/chat/completions?api-version=2024-10-21"
        );
    }

    #[test]
    fn media_types_are_compared_without_their_parameters() {
        assert!(MediaType::Json.allows("Application/JSON; charset=utf-8"));
        assert!(!MediaType::Json.allows("text/html"));
        assert!(!MediaType::Json.allows(""));
        assert!(MediaType::EventStream.allows("text/event-stream;charset=UTF-8"));
        assert!(!MediaType::EventStream.allows("application/json"));
        assert!(MediaType::Any.allows(""));
    }
}
