//! What a provider is: as people and records say it, and as the program uses it.
//!
//! Owns the raw form, its defaults and documentation, the checked form, and the canonical bytes
//! under a signature. The raw form is also what is replicated: each node checks it anew, so a
//! record of a newer or careless node can do no more than be refused. Holds names of keys, never
//! keys.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use selvedge_base::Micros;
use selvedge_proto::records::Record;
use serde::{Deserialize, Serialize};

mod address;
mod check;
mod raw;

pub use address::BaseUrl;
pub use check::{MAX_MODELS_NAMED, ProviderError, check_all};
pub use raw::{RawLimits, RawModel, RawProvider, RawTimes};

use super::desk::DeskSettings;
use super::patience::TimeLimits;

/// How a provider speaks and how it is authenticated to.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// OpenAI, and everyone who speaks like it.
    #[default]
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Google's Gemini.
    Gemini,
    /// Amazon Bedrock.
    Bedrock,
    /// OpenAI's models at Azure.
    Azure,
    /// Cohere.
    Cohere,
    /// Ollama.
    Ollama,
}

impl ProviderKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::OpenAi,
        Self::Anthropic,
        Self::Gemini,
        Self::Bedrock,
        Self::Azure,
        Self::Cohere,
        Self::Ollama,
    ];

    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
            Self::Azure => "azure",
            Self::Cohere => "cohere",
            Self::Ollama => "ollama",
        }
    }

    /// Where it is found when nothing else is said; `{region}` is the region's place. Azure gives
    /// each customer an address of their own.
    pub const fn default_base_url(self) -> &'static str {
        match self {
            Self::OpenAi => "https://api.openai.com",
            Self::Anthropic => "https://api.anthropic.com",
            Self::Gemini => "https://generativelanguage.googleapis.com",
            Self::Bedrock => "https://bedrock-runtime.{region}.amazonaws.com",
            Self::Azure => "",
            Self::Cohere => "https://api.cohere.com",
            Self::Ollama => "http://127.0.0.1:11434",
        }
    }

    /// Whether requests without a key make sense.
    pub const fn works_without_key(self) -> bool {
        matches!(self, Self::OpenAi | Self::Ollama)
    }
}

/// What using a provider costs, for rules that do not look at prices.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum CostClass {
    /// Nothing by the token: one's own machines.
    Free,
    /// By the token, at list prices.
    #[default]
    Paid,
    /// By the token, dearer than the rest.
    Premium,
}

/// How a server is told to go on after the beginning of an answer that another one made.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Continues {
    /// Not at all, unless its kind or the catalogue knows that it can: Ollama, and those of
    /// Anthropic's models with `prefill`.
    #[default]
    No,
    /// By a last message of the assistant (llama.cpp).
    LastMessage,
    /// By a last message of the assistant with `"prefix": true` (Mistral, DeepSeek).
    Prefix,
    /// By a last message of the assistant and `"continue_final_message": true` (vLLM, SGLang).
    ContinueFinalMessage,
}

/// A provider as the program uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSpec {
    /// Its name in this mesh.
    pub name: String,
    /// How it speaks.
    pub kind: ProviderKind,
    /// Where it is.
    pub base: BaseUrl,
    /// Names of its keys in the vault; empty when it needs none.
    pub keys: Vec<String>,
    /// Its models by every name they are asked for by: aliases and own names.
    pub models: BTreeMap<String, ModelRef>,
    /// Limits, breaker, retries, hedging.
    pub desk: DeskSettings,
    /// How long the parts of an attempt may take.
    pub times: TimeLimits,
    /// Bedrock: the region, in the address and in signatures.
    pub region: String,
    /// Azure: `api-version`. Anthropic: `anthropic-version`.
    pub api_version: String,
    /// A PEM file with further authorities, on each node.
    pub extra_ca: Option<String>,
    /// Where data that is sent to it goes, for rules about data.
    pub label: String,
    /// What it costs, roughly.
    pub cost: CostClass,
    /// How it is told to go on after the beginning of an answer.
    pub continues: Continues,
}

/// A model of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef {
    /// As the provider calls it.
    pub upstream: String,
    /// Azure: the deployment that serves it.
    pub deployment: String,
}

impl ProviderSpec {
    /// What `name` is called at the provider, if it has it.
    pub fn model(&self, name: &str) -> Option<&ModelRef> {
        self.models.get(name)
    }
}

/// A provider's configuration as a record for the mesh, which a steward signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRecord {
    /// The version of this record's canonical bytes.
    pub version: u8,
    /// Counts up with each change, so that the newest is known.
    pub revision: u64,
    /// What is configured.
    pub provider: RawProvider,
}

impl ProviderRecord {
    /// The version this build writes.
    pub const VERSION: u8 = 2;
    /// The oldest it reads: without [`RawProvider::continues`].
    pub const OLDEST: u8 = 1;

    /// The record of a provider's configuration.
    pub const fn new(revision: u64, provider: RawProvider) -> Self {
        Self { version: Self::VERSION, revision, provider }
    }

    /// The provider, if this build understands the record.
    ///
    /// # Errors
    /// [`ProviderError::Version`], and all that is wrong with what it says.
    pub fn checked(&self) -> Result<ProviderSpec, Vec<ProviderError>> {
        if !(Self::OLDEST..=Self::VERSION).contains(&self.version) {
            return Err(vec![ProviderError::Version(self.version)]);
        }
        self.provider.checked()
    }
}

impl Record for ProviderRecord {
    const KIND: &'static str = "provider";

    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.version);
        out.extend(self.revision.to_be_bytes());
        self.provider.write(out);
        if self.version > Self::OLDEST {
            out.push(self.provider.continues as u8);
        }
    }
}

/// Whole milliseconds, as configuration says them.
const fn millis(ms: u64) -> Micros {
    Micros::millis(ms)
}

#[cfg(test)]
#[path = "provider_tests.rs"]
mod tests;
