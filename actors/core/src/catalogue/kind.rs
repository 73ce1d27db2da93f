//! The words of the catalogue: kinds of providers, modalities, capabilities.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a provider is spoken to and whose price list applies. Several configured providers may be of
/// one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// OpenAI.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
    /// Amazon Bedrock.
    Bedrock,
    /// Azure OpenAI and what else Azure serves under that API.
    Azure,
    /// Cohere.
    Cohere,
    /// An Ollama server, which bills nothing.
    Ollama,
    /// Mistral.
    Mistral,
    /// Groq.
    Groq,
    /// Together.
    Together,
    /// DeepSeek.
    #[serde(rename = "deepseek")]
    DeepSeek,
    /// OpenRouter.
    #[serde(rename = "openrouter")]
    OpenRouter,
    /// xAI.
    Xai,
    /// Fireworks.
    Fireworks,
    /// Perplexity.
    Perplexity,
    /// Any other server of the OpenAI API: of its models only what the operator says is known.
    #[serde(rename = "openai-compatible")]
    Compatible,
}

impl ProviderKind {
    /// Its name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
            Self::Azure => "azure",
            Self::Cohere => "cohere",
            Self::Ollama => "ollama",
            Self::Mistral => "mistral",
            Self::Groq => "groq",
            Self::Together => "together",
            Self::DeepSeek => "deepseek",
            Self::OpenRouter => "openrouter",
            Self::Xai => "xai",
            Self::Fireworks => "fireworks",
            Self::Perplexity => "perplexity",
            Self::Compatible => "openai-compatible",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What goes in or comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modality {
    /// Text.
    Text,
    /// Pictures.
    Image,
    /// Sound.
    Audio,
    /// Files such as PDF.
    Document,
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Image => "images",
            Self::Audio => "audio",
            Self::Document => "documents",
        })
    }
}

/// What a model or its server can do besides answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Calls tools.
    Tools,
    /// Calls several tools at once.
    ParallelTools,
    /// Answers with some JSON object on demand.
    JsonObject,
    /// Answers with JSON of a given schema on demand.
    JsonSchema,
    /// Thinks before it answers.
    Reasoning,
    /// Bills less for a prompt it has seen before.
    PromptCache,
    /// Streams.
    Streaming,
    /// Continues an answer begun elsewhere, given as its own last message.
    Prefill,
    /// Tells how likely each token of an answer was.
    Logprobs,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tools => "tools",
            Self::ParallelTools => "parallel tools",
            Self::JsonObject => "JSON objects",
            Self::JsonSchema => "JSON schemas",
            Self::Reasoning => "reasoning",
            Self::PromptCache => "prompt caching",
            Self::Streaming => "streaming",
            Self::Prefill => "continuing an answer",
            Self::Logprobs => "probabilities of tokens",
        })
    }
}
