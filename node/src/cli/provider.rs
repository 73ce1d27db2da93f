//! The command line of providers.
//!
//! Owns what can be typed and the help texts. What makes a provider is checked by the node.

use clap::{Args, Subcommand, ValueEnum};

const PROVIDER_EXAMPLES: &str = "\
Examples:
  selvedge provider key add openai                   reads the key from standard input
  selvedge provider add openai --kind openai --key openai
  selvedge provider add claude --kind anthropic --key claude --model claude-sonnet-4-5
  selvedge provider add lab --kind openai --url http://192.168.1.30:8000 --free
  selvedge ask --model openai/gpt-4o-mini --key sk-selvedge-… \"Hello\"

A model of a provider is asked for as PROVIDER/MODEL, and a model that is named here also by its
own name. What costs money needs an API key of this gateway, on loopback too. Needs the node of
this home running (`selvedge up`); providers and keys belong to the node they were added at.";

#[derive(Debug, Subcommand)]
#[command(after_help = PROVIDER_EXAMPLES)]
pub(crate) enum Provider {
    /// Add a provider, or replace the one of that name
    Add(Box<ProviderAdd>),
    /// List the providers, and why one is left alone
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a provider; requests under way at it go on
    Remove {
        /// Its name
        name: String,
    },
    /// The keys of providers, sealed on this node's disk
    #[command(subcommand)]
    Key(ProviderKey),
}

/// How a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// OpenAI, and everybody who speaks like it
    Openai,
    /// Anthropic
    Anthropic,
    /// Google's Gemini
    Gemini,
    /// Amazon Bedrock
    Bedrock,
    /// OpenAI's models at Azure
    Azure,
    /// Cohere
    Cohere,
    /// Ollama
    Ollama,
}

#[derive(Debug, Args)]
pub(crate) struct ProviderAdd {
    /// What it is called: the first part of PROVIDER/MODEL
    pub(crate) name: String,
    /// How it speaks
    #[arg(long, value_enum)]
    pub(crate) kind: Kind,
    /// Its address [default: the provider's own]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// A key stored by `selvedge provider key add`; may be repeated, requests are spread over them
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Vec<String>,
    /// A model of it, NAME or NAME=NAME_THERE; may be repeated [default: whatever is asked for]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Vec<String>,
    /// Nothing is paid for it: a server of one's own
    #[arg(long)]
    pub(crate) free: bool,
    /// How it is told to go on with an answer that broke off elsewhere [default: not, but for
    /// Ollama and the models of Anthropic that can]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) continues: Option<Continues>,
    /// Bedrock: the region, such as us-east-1
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// Azure and Anthropic: the version of the API [default: one that is known to work]
    #[arg(long, value_name = "VERSION")]
    pub(crate) api_version: Option<String>,
    /// A PEM file of further authorities for its certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<std::path::PathBuf>,
    /// Requests per minute in all; 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) requests_per_minute: u64,
    /// Seconds to the first byte of an answer; 0 is the default
    #[arg(long, value_name = "S", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub(crate) first_byte_s: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderKey {
    /// Store a key, or replace the one of that name; it is read from standard input
    #[command(after_help = "Example:\n  selvedge provider key add openai < key.txt")]
    Add {
        /// What providers call it by
        name: String,
        /// Read it from this variable of the environment instead
        #[arg(long, value_name = "VARIABLE")]
        from_env: Option<String>,
    },
    /// List the stored keys, without the keys
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a key from this node's disk
    Remove {
        /// Its name
        name: String,
    },
}

/// How a server goes on with an answer.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Continues {
    /// After a last message of the assistant (llama.cpp)
    LastMessage,
    /// The same with `"prefix": true` in it (Mistral, DeepSeek)
    Prefix,
    /// The same with `"continue_final_message": true` (vLLM, SGLang)
    ContinueFinalMessage,
}
