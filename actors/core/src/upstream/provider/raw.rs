//! A provider as people write it, and as it is replicated.
//!
//! Owns names, defaults, documentation and bounds of every field. New fields go to the end and
//! raise the record's version.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::super::retry::RetrySettings;
use super::{Continues, CostClass, ProviderKind};

/// A cloud provider, or a server that speaks like one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = with_a_name)]
pub struct RawProvider {
    /// What it is called in this mesh: letters, digits, `-`, `_`, `.`.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// How it speaks: openai, anthropic, gemini, bedrock, azure, cohere or ollama.
    pub kind: ProviderKind,
    /// Its address. Empty: the provider's own. Keys go over plain http only if this says http.
    pub base_url: String,
    /// Names of its keys in the vault. Requests are spread over them.
    #[schemars(length(max = 64))]
    pub keys: Vec<String>,
    /// Its models. Each is asked for by its name or an alias.
    #[schemars(length(max = 1024))]
    pub models: Vec<RawModel>,
    /// What each key may be used for. 0: no limit.
    pub per_key: RawLimits,
    /// What all keys together may be used for. 0: no limit.
    pub limits: RawLimits,
    /// How long the parts of an attempt may take.
    pub times: RawTimes,
    /// Attempts at this provider for one request, the first among them.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u32,
    /// Retries in a thousand requests, so that a provider in trouble is not given more work.
    #[schemars(range(min = 0, max = 200))]
    pub retry_permille: u32,
    /// Milliseconds after which a second attempt runs beside a silent first one, for requests that
    /// may be made twice. 0: never.
    #[schemars(range(min = 0, max = 60000))]
    pub hedge_after_ms: u64,
    /// Such second attempts in a thousand requests.
    #[schemars(range(min = 0, max = 50))]
    pub hedge_permille: u32,
    /// Bedrock: the region, such as us-east-1.
    #[schemars(length(max = 64))]
    pub region: String,
    /// Azure: `api-version`. Anthropic: `anthropic-version`. Empty: one that is known to work.
    #[schemars(length(max = 64))]
    pub api_version: String,
    /// A PEM file of further authorities for its certificate, such as a company's own.
    #[schemars(length(max = 4096))]
    pub extra_ca: String,
    /// Where data goes that is sent there, such as `eu`; rules about data can name it.
    #[schemars(length(max = 64))]
    pub label: String,
    /// What it costs, roughly: free, paid or premium.
    pub cost: CostClass,
    /// How it is told to go on after the beginning of an answer that broke off elsewhere.
    pub continues: Continues,
}

impl Default for RawProvider {
    fn default() -> Self {
        let retry = RetrySettings::default();
        Self {
            name: String::new(),
            kind: ProviderKind::default(),
            base_url: String::new(),
            keys: Vec::new(),
            models: Vec::new(),
            per_key: RawLimits::default(),
            limits: RawLimits::default(),
            times: RawTimes::default(),
            attempts: retry.attempts,
            retry_permille: retry.permille,
            hedge_after_ms: 0,
            hedge_permille: 0,
            region: String::new(),
            api_version: String::new(),
            extra_ca: String::new(),
            label: String::new(),
            cost: CostClass::default(),
            continues: Continues::default(),
        }
    }
}

impl RawProvider {
    /// A provider with everything at its default.
    pub fn named(name: impl Into<String>, kind: ProviderKind) -> Self {
        Self { name: name.into(), kind, ..Self::default() }
    }
}

/// A model of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = with_a_name)]
pub struct RawModel {
    /// The name it is asked for by.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The name the provider has for it. Empty: the same.
    #[schemars(length(max = 256))]
    pub upstream: String,
    /// Other names it is asked for by.
    #[schemars(length(max = 16))]
    pub aliases: Vec<String>,
    /// Azure: the deployment that serves it. Empty: its name at the provider.
    #[schemars(length(max = 256))]
    pub deployment: String,
}

/// Limits; 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Requests in any minute.
    pub requests_per_minute: u64,
    /// Tokens of prompts and answers in any minute.
    pub tokens_per_minute: u64,
    /// Requests at the same time.
    pub concurrent: u32,
}

/// The longest times, in milliseconds; 0 is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawTimes {
    /// To a connection that is ready.
    #[schemars(range(min = 0, max = 60000))]
    pub connect_ms: u64,
    /// From the request to the first byte of the answer.
    #[schemars(range(min = 0, max = 3600000))]
    pub first_byte_ms: u64,
    /// Between two pieces of the answer.
    #[schemars(range(min = 0, max = 3600000))]
    pub between_ms: u64,
    /// For the whole attempt.
    #[schemars(range(min = 0, max = 3600000))]
    pub whole_ms: u64,
}

impl RawProvider {
    /// Appends every field of the first version in order: integers big-endian, texts and lists
    /// after their length.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        text(out, &self.name);
        text(out, self.kind.as_str());
        text(out, &self.base_url);
        texts(out, &self.keys);
        out.extend((self.models.len() as u64).to_be_bytes());
        for model in &self.models {
            text(out, &model.name);
            text(out, &model.upstream);
            texts(out, &model.aliases);
            text(out, &model.deployment);
        }
        for limits in [&self.per_key, &self.limits] {
            out.extend(limits.requests_per_minute.to_be_bytes());
            out.extend(limits.tokens_per_minute.to_be_bytes());
            out.extend(limits.concurrent.to_be_bytes());
        }
        let times = &self.times;
        for ms in [times.connect_ms, times.first_byte_ms, times.between_ms, times.whole_ms] {
            out.extend(ms.to_be_bytes());
        }
        out.extend(self.attempts.to_be_bytes());
        out.extend(self.retry_permille.to_be_bytes());
        out.extend(self.hedge_after_ms.to_be_bytes());
        out.extend(self.hedge_permille.to_be_bytes());
        for field in [&self.region, &self.api_version, &self.extra_ca, &self.label] {
            text(out, field);
        }
        out.push(match self.cost {
            CostClass::Free => 0,
            CostClass::Paid => 1,
            CostClass::Premium => 2,
        });
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_be_bytes());
    out.extend(text.as_bytes());
}

fn texts(out: &mut Vec<u8>, list: &[String]) {
    out.extend((list.len() as u64).to_be_bytes());
    list.iter().for_each(|item| text(out, item));
}

/// Says that a name is needed. It decodes to nothing when it is absent, so that whoever checks the
/// rest refuses that too and says so; nothing is no name.
fn with_a_name(schema: &mut Schema) {
    schema.insert("required".to_owned(), vec!["name"].into());
    if let Some(name) = schema.pointer_mut("/properties/name").and_then(|name| name.as_object_mut())
    {
        name.remove("default");
    }
}
