//! From what people wrote to what the program uses.
//!
//! Owns the bounds and the messages. All problems are reported together, each with the provider,
//! the field, the value and what would be allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use selvedge_base::Micros;
use thiserror::Error;

use super::super::breaker::BreakerSettings;
use super::super::desk::DeskSettings;
use super::super::keys::MAX_KEYS;
use super::super::patience::TimeLimits;
use super::super::rate::Limits;
use super::super::retry::{HedgeSettings, RetrySettings};
use super::{
    BaseUrl, Continues, ModelRef, ProviderKind, ProviderRecord, ProviderSpec, RawLimits,
    RawProvider, RawTimes, millis,
};

/// Names of models of one provider, aliases among them: the largest public catalogues.
pub const MAX_MODELS_NAMED: usize = 1_024;
/// Providers of one mesh. There are some forty worth naming, and each may be there per region.
const MAX_PROVIDERS: usize = 256;
/// Bytes of a name of a provider, a key, a region, a version or a label.
const MAX_NAME: usize = 64;
/// Bytes of a model's name: the longest are Bedrock's ARNs.
const MAX_MODEL_NAME: usize = 256;
/// Other names of one model.
const MAX_ALIASES: usize = 16;
/// Bytes of a path: Linux's own limit.
const MAX_PATH: usize = 4_096;
/// No part of an attempt takes longer than requests may.
const MAX_TIME_MS: u64 = 3_600_000;
/// A connection that takes longer than a minute never comes.
const MAX_CONNECT_MS: u64 = 60_000;
/// More attempts than this at one provider are a loop.
const MAX_ATTEMPTS: u32 = 10;
/// What Azure's stable interface is called; all chat features in use are in it.
const AZURE_VERSION: &str = "2024-10-21";
/// The only version Anthropic has had since it has versions.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// What is wrong with a provider's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProviderError {
    /// A field is out of bounds.
    #[error("provider '{provider}': {field} is '{value}'; allowed: {allowed}")]
    Field {
        /// Which provider, as written.
        provider: String,
        /// Which field.
        field: &'static str,
        /// What it says, cut to a length.
        value: String,
        /// What would be right.
        allowed: String,
    },
    /// Two have the same name.
    #[error("two providers are called '{0}'; give each a name of its own")]
    Twice(String),
    /// A record of a version that is not known here.
    #[error(
        "the provider's record is of version {0}; this build reads version {known}: start a newer \
         selvedge here",
        known = ProviderRecord::VERSION
    )]
    Version(u8),
    /// More providers than a mesh can have.
    #[error("{0} providers; a mesh can have at most {MAX_PROVIDERS}")]
    TooMany(usize),
}

/// Checks all providers of a configuration.
///
/// # Errors
/// Everything that is wrong.
pub fn check_all(raw: &[RawProvider]) -> Result<Vec<ProviderSpec>, Vec<ProviderError>> {
    if raw.len() > MAX_PROVIDERS {
        return Err(vec![ProviderError::TooMany(raw.len())]);
    }
    let (mut specs, mut errors, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for provider in raw {
        if !names.insert(provider.name.as_str()) {
            errors.push(ProviderError::Twice(provider.name.clone()));
        }
        match provider.checked() {
            Ok(spec) => specs.push(spec),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() { Ok(specs) } else { Err(errors) }
}

impl RawProvider {
    /// The provider as the program uses it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn checked(&self) -> Result<ProviderSpec, Vec<ProviderError>> {
        let mut problems = Problems { provider: cut(&self.name), found: Vec::new() };
        problems.name("name", &self.name, false);
        problems.name("region", &self.region, self.kind != ProviderKind::Bedrock);
        problems.name("api_version", &self.api_version, true);
        problems.name("label", &self.label, true);
        problems.continues(self);
        let keys = problems.keys(self);
        let base = problems.base(self);
        let models = problems.models(self);
        let desk = problems.desk(self);
        let times = problems.times(&self.times);
        if self.extra_ca.len() > MAX_PATH || self.extra_ca.contains('\0') {
            problems.say("extra_ca", &self.extra_ca, "a path of at most 4096 bytes");
        }
        let (Some(base), true) = (base, problems.found.is_empty()) else {
            return Err(problems.found);
        };
        Ok(ProviderSpec {
            name: self.name.clone(),
            kind: self.kind,
            base,
            keys,
            models,
            desk,
            times,
            region: self.region.clone(),
            api_version: self.version(),
            extra_ca: Some(self.extra_ca.clone()).filter(|path| !path.is_empty()),
            label: self.label.clone(),
            cost: self.cost,
            continues: self.continues,
        })
    }

    fn version(&self) -> String {
        let known = match self.kind {
            ProviderKind::Azure => AZURE_VERSION,
            ProviderKind::Anthropic => ANTHROPIC_VERSION,
            ProviderKind::OpenAi
            | ProviderKind::Gemini
            | ProviderKind::Bedrock
            | ProviderKind::Cohere
            | ProviderKind::Ollama => "",
        };
        if self.api_version.is_empty() { known.to_owned() } else { self.api_version.clone() }
    }
}

struct Problems {
    provider: String,
    found: Vec<ProviderError>,
}

impl Problems {
    fn say(&mut self, field: &'static str, value: impl fmt::Display, allowed: impl fmt::Display) {
        self.found.push(ProviderError::Field {
            provider: self.provider.clone(),
            field,
            value: cut(&value.to_string()),
            allowed: allowed.to_string(),
        });
    }

    fn continues(&mut self, raw: &RawProvider) {
        let alike = match raw.kind {
            ProviderKind::OpenAi => true,
            ProviderKind::Anthropic | ProviderKind::Ollama => {
                matches!(raw.continues, Continues::No | Continues::LastMessage)
            }
            ProviderKind::Gemini
            | ProviderKind::Bedrock
            | ProviderKind::Azure
            | ProviderKind::Cohere => raw.continues == Continues::No,
        };
        if !alike {
            let kind = raw.kind.as_str();
            self.say(
                "continues",
                format!("{:?}", raw.continues),
                format!(
                    "no; for kind openai also last-message, prefix and continue-final-message, for \
                 anthropic and ollama last-message ({kind} is another)"
                ),
            );
        }
    }

    /// Names end up in headers, addresses and lines of the log.
    fn name(&mut self, field: &'static str, name: &str, may_lack: bool) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let lacks = name.is_empty() && !may_lack;
        if lacks || name.len() > MAX_NAME || !name.bytes().all(plain) {
            self.say(field, name, "1 to 64 letters, digits, '-', '_' and '.'");
        }
    }

    fn keys(&mut self, raw: &RawProvider) -> Vec<String> {
        if raw.keys.len() > MAX_KEYS {
            self.say("keys", format!("{} names", raw.keys.len()), "at most 64");
            return Vec::new();
        }
        if raw.keys.is_empty() && !raw.kind.works_without_key() {
            self.say("keys", "", "the name of a key in the vault: this kind needs one");
        }
        let mut seen = BTreeSet::new();
        for key in &raw.keys {
            self.name("keys", key, false);
            if !seen.insert(key) {
                self.say("keys", key, "each name once");
            }
        }
        raw.keys.clone()
    }

    fn base(&mut self, raw: &RawProvider) -> Option<BaseUrl> {
        let own = raw.kind.default_base_url().replace("{region}", &raw.region);
        let text = if raw.base_url.is_empty() { own.as_str() } else { raw.base_url.as_str() };
        if text.is_empty() {
            self.say("base_url", "", "your resource's address: https://NAME.openai.azure.com");
            return None;
        }
        match BaseUrl::parse(text) {
            Ok(base) => Some(base),
            Err(allowed) => {
                // An address that is wrong may hold a password: it is not repeated.
                let value = if text.contains('@') { "(with a user name)" } else { text };
                self.say("base_url", value, allowed);
                None
            }
        }
    }

    fn models(&mut self, raw: &RawProvider) -> BTreeMap<String, ModelRef> {
        let mut models = BTreeMap::new();
        let names: usize = raw.models.iter().map(|model| 1 + model.aliases.len()).sum();
        if names > MAX_MODELS_NAMED {
            self.say("models", format!("{names} names"), "at most 1024, aliases among them");
            return models;
        }
        for model in &raw.models {
            if model.aliases.len() > MAX_ALIASES {
                self.say("models.aliases", model.aliases.len(), "at most 16");
            }
            let or_name = |text: &String, name: &String| {
                if text.is_empty() { name.clone() } else { text.clone() }
            };
            let upstream = or_name(&model.upstream, &model.name);
            let deployment = or_name(&model.deployment, &upstream);
            for text in [&upstream, &deployment] {
                if !is_model_name(text) {
                    self.say("models", text, MODEL_NAMES);
                }
            }
            for name in std::iter::once(&model.name).chain(&model.aliases) {
                if !is_model_name(name) {
                    self.say("models", name, MODEL_NAMES);
                }
                let found = ModelRef { upstream: upstream.clone(), deployment: deployment.clone() };
                if models.insert(name.clone(), found).is_some() {
                    self.say("models", name, "each name and alias once");
                }
            }
        }
        models
    }

    fn desk(&mut self, raw: &RawProvider) -> DeskSettings {
        if !(1..=MAX_ATTEMPTS).contains(&raw.attempts) {
            self.say("attempts", raw.attempts, "1 to 10");
        }
        let retry = RetrySettings::default();
        if raw.retry_permille > retry.permille {
            self.say("retry_permille", raw.retry_permille, "0 to 200");
        }
        if raw.hedge_permille > HedgeSettings::MOST_PERMILLE {
            self.say("hedge_permille", raw.hedge_permille, "0 to 50");
        }
        if raw.hedge_after_ms > MAX_CONNECT_MS {
            self.say("hedge_after_ms", raw.hedge_after_ms, "0 to 60000");
        }
        let hedges = raw.hedge_after_ms > 0 && raw.hedge_permille > 0;
        DeskSettings {
            keys: raw.keys.len(),
            per_key: limits(&raw.per_key),
            whole: limits(&raw.limits),
            breaker: BreakerSettings::default(),
            retry: RetrySettings { attempts: raw.attempts, permille: raw.retry_permille, ..retry },
            hedge: hedges.then(|| HedgeSettings {
                after: millis(raw.hedge_after_ms),
                permille: raw.hedge_permille,
            }),
        }
    }

    fn times(&mut self, raw: &RawTimes) -> TimeLimits {
        let known = TimeLimits::default();
        let mut time = |field, ms: u64, most: u64, known: Micros| {
            if ms > most {
                self.say(field, ms, format!("0 to {most}"));
            }
            if ms == 0 { known } else { millis(ms) }
        };
        TimeLimits {
            connect: time("times.connect_ms", raw.connect_ms, MAX_CONNECT_MS, known.connect),
            first_byte: time(
                "times.first_byte_ms",
                raw.first_byte_ms,
                MAX_TIME_MS,
                known.first_byte,
            ),
            between: time("times.between_ms", raw.between_ms, MAX_TIME_MS, known.between),
            whole: time("times.whole_ms", raw.whole_ms, MAX_TIME_MS, known.whole),
        }
    }
}

/// What a model's name may be.
const MODEL_NAMES: &str = "1 to 256 printable ASCII characters without spaces";

fn is_model_name(name: &str) -> bool {
    (1..=MAX_MODEL_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

fn limits(raw: &RawLimits) -> Limits {
    Limits {
        requests_per_minute: Some(raw.requests_per_minute).filter(|limit| *limit > 0),
        tokens_per_minute: Some(raw.tokens_per_minute).filter(|limit| *limit > 0),
        concurrent: Some(raw.concurrent).filter(|limit| *limit > 0),
    }
}

/// The beginning of a text, for messages.
fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
