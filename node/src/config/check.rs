//! The configuration as the program uses it.
//!
//! Owns turning texts into addresses, devices and paths, and refusing what is out of bounds. All
//! problems are reported together, each with the field, the value and what would be allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use selvedge_base::Micros;
use selvedge_core::NodeRow;
use selvedge_engine::{Device, EngineConfig, Keeping, Rendering, Running};
use selvedge_federated::privacy::accountant::{MicroEpsilon, PicoDelta};
use selvedge_federated::privacy::ledger::Cap;
use selvedge_federated::round::MAX_PER_NODE;
use selvedge_runtime::{Bounds, CacheConfig, DataParts, DataSource, JobSpec, Probe};
use selvedge_train::{Idx, Images, Requests, Source, Table, Texts};

use super::budget::Budget;
use super::raw::{LogFormat, RawCache, RawConfig, RawData, RawModel, RawVariant};
use super::reference::{Field, fields};
use super::secret::Secret;
use super::telemetry::{self, TelemetryConfig};
use crate::home::Home;
use crate::pull::check_name;

/// Sources of one node: each is a client of its jobs, and there are not more of those on one.
const MAX_SOURCES: usize = 64;
/// Models with several files: a node serves a handful.
const MAX_MODELS: usize = 32;
/// Files of one model: there are not many more quantizations.
const MAX_VARIANTS: usize = 16;
/// Tokens a second that somebody may want: no model writes faster for one reader.
const MAX_RATE: u32 = 10_000;
/// Parts of the data of one name: as many clients as a job may count of one node.
const MAX_PARTS: usize = MAX_PER_NODE as usize;
/// The least epsilon that is counted, which is also its unit.
const MIN_EPSILON: f64 = 1e-6;
/// Beyond this epsilon promises nothing.
const MAX_EPSILON: f64 = 1_000.0;
/// The least delta that is counted, which is also its unit.
const MIN_DELTA: f64 = 1e-12;
/// A greater chance that the promise does not hold is none.
const MAX_DELTA: f64 = 1e-3;
/// The delta unless told otherwise: what most papers count epsilon at.
const USUAL_DELTA: f64 = 1e-5;

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) api: ApiConfig,
    pub(crate) mesh: MeshConfig,
    pub(crate) engine: EngineConfig,
    /// Packed copies of models on the disk.
    pub(crate) packed: PackedConfig,
    /// The engine's memory, and why so much.
    pub(crate) budget: Budget,
    /// Spend only once a peer confirmed that the store was not rolled back.
    pub(crate) rollback_guard: bool,
    /// The cache of answers, if it is on.
    pub(crate) cache: Option<CacheConfig>,
    pub(crate) models: ModelsConfig,
    /// Where to tell of requests, if anywhere.
    pub(crate) telemetry: Option<TelemetryConfig>,
    pub(crate) log_filter: String,
    pub(crate) log_format: LogFormat,
    /// What jobs may train on here, by name.
    pub(crate) data: BTreeMap<String, DataParts>,
    /// Models with several files to choose from.
    pub(crate) variants: Vec<VariantsConfig>,
}

/// A model with several files to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VariantsConfig {
    pub(crate) name: String,
    /// Each as it was written, with its bytes where they were.
    pub(crate) files: Vec<(String, Option<u64>)>,
    pub(crate) wanted_rate: u32,
}

/// The HTTP API.
#[derive(Clone, Debug)]
pub(crate) struct ApiConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_requests: usize,
    pub(crate) request_timeout: Duration,
}

/// The data plane and discovery.
#[derive(Clone, Debug)]
pub(crate) struct MeshConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) rendezvous: Option<PathBuf>,
    pub(crate) mdns: bool,
    pub(crate) max_handoffs_per_peer: usize,
    pub(crate) serve_tenants: BTreeSet<String>,
}

/// Packed copies of models on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackedConfig {
    /// In the home, unless somebody says where.
    pub(crate) directory: Option<PathBuf>,
    /// 0 = none are kept.
    pub(crate) max_bytes: u64,
}

/// Where models come from.
#[derive(Clone, Debug)]
pub(crate) struct ModelsConfig {
    /// Without a trailing slash.
    pub(crate) hub: String,
    pub(crate) hub_token: Secret,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_bytes: u64,
}

/// Every problem found in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigErrors(Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0.as_slice() else {
            return f.write_str("the configuration is invalid");
        };
        if rest.is_empty() {
            return f.write_str(first);
        }
        write!(f, "{} problems in the configuration:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigErrors {}

impl PackedConfig {
    /// Where the node of a home keeps packed copies, if it keeps any.
    pub(crate) fn keeping(&self, home: &Home) -> Option<Keeping> {
        let directory = self.directory.clone().unwrap_or_else(|| home.packed());
        (self.max_bytes > 0).then_some(Keeping { directory, max_bytes: self.max_bytes })
    }
}

impl Config {
    /// Checks what people wrote.
    pub(crate) fn checked(raw: &RawConfig) -> Result<Self, ConfigErrors> {
        let mut problems = Problems::default();
        problems.bounds(raw);
        let device = problems.device(&raw.engine.device);
        let budget = problems.budget(raw.engine.memory_budget_bytes, device);
        let config = Self {
            name: problems.name(&raw.node.name),
            site: problems.site(&raw.node.site),
            api: ApiConfig {
                listen: problems.address("api.listen", &raw.api.listen),
                allowed_hosts: raw.api.allowed_hosts.iter().map(|h| h.to_lowercase()).collect(),
                max_body_bytes: to_usize(raw.api.max_body_bytes),
                max_requests: to_usize(raw.api.max_requests),
                request_timeout: Duration::from_secs(raw.api.request_timeout_s),
            },
            mesh: MeshConfig {
                listen: problems.address("mesh.listen", &raw.mesh.listen),
                peers: problems.peers(&raw.mesh.peers),
                rendezvous: Some(&raw.mesh.rendezvous)
                    .filter(|text| !text.is_empty())
                    .map(PathBuf::from),
                mdns: raw.mesh.mdns,
                max_handoffs_per_peer: to_usize(raw.mesh.max_handoffs_per_peer),
                serve_tenants: raw.mesh.serve_tenants.iter().cloned().collect(),
            },
            engine: EngineConfig {
                threads: to_usize(raw.engine.threads),
                device,
                max_batch: to_usize(raw.engine.max_batch),
                max_queue: to_usize(raw.engine.max_queue),
                memory_budget_bytes: budget.bytes,
                lazy: raw.engine.lazy,
                speculation: raw.engine.speculation,
                keep_loaded: raw.engine.keep_loaded.clone(),
                // In a home, which `up` knows.
                keeping: None,
                // A matter of the program, not of its user: `up` decides it.
                rendering: Rendering::Here,
                running: Running::Here,
            },
            packed: PackedConfig {
                directory: Some(&raw.engine.packed_dir)
                    .filter(|text| !text.is_empty())
                    .map(PathBuf::from),
                max_bytes: raw.engine.packed_max_bytes,
            },
            budget,
            rollback_guard: raw.quota.rollback_guard,
            cache: raw.cache.enabled.then(|| cache(&raw.cache)),
            models: ModelsConfig {
                hub: problems.url("models.hub", &raw.models.hub),
                hub_token: raw.models.hub_token.clone(),
                connect_timeout: Duration::from_millis(raw.models.connect_timeout_ms),
                max_bytes: raw.models.max_bytes,
            },
            telemetry: telemetry::checked(&raw.telemetry, &mut problems),
            log_filter: problems.filter(&raw.log.filter),
            log_format: raw.log.format,
            data: problems.sources(&raw.data),
            variants: problems.variants(&raw.model),
        };
        if problems.0.is_empty() { Ok(config) } else { Err(ConfigErrors(problems.0)) }
    }
}

#[derive(Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn say(
        &mut self,
        field: &str,
        value: impl fmt::Display,
        allowed: impl fmt::Display,
    ) {
        self.0.push(format!("{field} is '{value}'; allowed: {allowed}"));
    }

    fn bounds(&mut self, raw: &RawConfig) {
        let table = toml::Table::try_from(raw).unwrap_or_default();
        for field in fields() {
            let value = table.get(&field.section).and_then(|section| section.get(&field.name));
            if let (Some(value), Some(bounds)) = (value, field.bounds())
                && !within(&field, value)
            {
                self.say(&field.path(), value, bounds);
            }
        }
    }

    fn name(&mut self, name: &str) -> String {
        if name.is_empty() {
            return host_name();
        }
        if name.trim() != name || name.chars().any(char::is_control) {
            self.say("node.name", name, "a name without control characters or outer spaces");
        }
        name.to_owned()
    }

    /// Other nodes ignore one whose site moves a terminal's cursor, or is longer than they keep.
    fn site(&mut self, site: &str) -> String {
        if site.len() > NodeRow::MAX_NAME || site.chars().any(char::is_control) {
            let fits = format!("{} bytes at most, without control characters", NodeRow::MAX_NAME);
            self.say("node.site", site, fits);
        }
        site.to_owned()
    }

    fn sources(&mut self, written: &[RawData]) -> BTreeMap<String, DataParts> {
        if written.len() > MAX_SOURCES {
            self.say("data", format!("{} tables", written.len()), format!("at most {MAX_SOURCES}"));
        }
        let mut sources: BTreeMap<String, DataParts> = BTreeMap::new();
        let mut asked = BTreeSet::new();
        for raw in written {
            let (name, part, source, bound) = source(raw);
            if let Source::Requests(Requests { model }) = &source {
                if !JobSpec::is_name(model) {
                    let allowed = "the name of a job, whose model is asked";
                    self.say("data.model", model.escape_debug(), allowed);
                } else if !asked.insert(model.clone()) {
                    // Two clients would learn from the same rows, and each be counted as a node's.
                    let allowed = "a model that no other [[data]] table of kind 'requests' names";
                    self.say("data.model", model, allowed);
                }
            }
            let cap = self.cap(bound);
            let allowed = "1 to 64 letters a-z, digits, '-' and '_'";
            if !JobSpec::is_name(&name) {
                self.say("data.name", name.escape_debug(), allowed);
                continue;
            }
            if let Some(part) = part.as_ref().filter(|part| !JobSpec::is_name(part)) {
                self.say("data.part", part.escape_debug(), allowed);
                continue;
            }
            let parts = sources.entry(name.clone()).or_default();
            let (count, is_new) = (parts.len(), !parts.contains_key(&part));
            if is_new && count < MAX_PARTS {
                parts.insert(part, DataSource { source, cap });
            } else if is_new {
                let allowed = format!("at most {MAX_PARTS} [[data]] tables of one name");
                self.say("data.name", name, allowed);
            } else if let Some(part) = part {
                let allowed = format!("a part that no other [[data]] table of '{name}' is");
                self.say("data.part", part, allowed);
            } else {
                let allowed = "a name that no other [[data]] table has, or a 'part' of its own \
                               beside it, which makes it a client of its own";
                self.say("data.name", name, allowed);
            }
        }
        sources
    }

    fn variants(&mut self, written: &[RawModel]) -> Vec<VariantsConfig> {
        if written.len() > MAX_MODELS {
            let many = format!("{} tables", written.len());
            self.say("model", many, format!("at most {MAX_MODELS}"));
        }
        let mut names = BTreeSet::new();
        let each = written.iter().map(|raw| {
            if check_name(&raw.name).is_err() {
                let allowed = "up to 64 of a-z 0-9 . _ - that begin with a letter or digit";
                self.say("model.name", raw.name.escape_debug(), allowed);
            } else if !names.insert(&raw.name) {
                self.say("model.name", &raw.name, "a name that no other [[model]] table has");
            }
            if !(1..=MAX_VARIANTS).contains(&raw.variants.len()) {
                let (count, allowed) = (raw.variants.len(), format!("1 to {MAX_VARIANTS}"));
                self.say("model.variants", format!("{count} files"), allowed);
            }
            if raw.min_tokens_per_s > MAX_RATE {
                let allowed = format!("0 to {MAX_RATE}");
                self.say("model.min_tokens_per_s", raw.min_tokens_per_s, allowed);
            }
            let file = |raw: &RawVariant| match raw {
                RawVariant::Named(source) => (source.clone(), None),
                RawVariant::Sized(sized) => (sized.source.clone(), Some(sized.bytes)),
            };
            let files: Vec<_> = raw.variants.iter().map(file).collect();
            if files.iter().any(|(source, _)| *source == raw.name) {
                let allowed = "files under other names than the model's own";
                self.say("model.variants", &raw.name, allowed);
            }
            let (name, wanted_rate) = (raw.name.clone(), raw.min_tokens_per_s);
            VariantsConfig { name, files, wanted_rate }
        });
        each.collect()
    }

    /// The bound of a source's privacy, as its ledger counts it.
    fn cap(&mut self, (epsilon, delta): (Option<f64>, Option<f64>)) -> Option<Cap> {
        let delta = match (epsilon, delta) {
            (None, None) => return None,
            (None, Some(delta)) => {
                self.say("data.delta", delta, "only beside 'epsilon', which it belongs to");
                return None;
            }
            (Some(_), delta) => delta.unwrap_or(USUAL_DELTA),
        };
        let epsilon = epsilon.unwrap_or_default();
        if !(MIN_EPSILON..=MAX_EPSILON).contains(&epsilon) {
            self.say("data.epsilon", epsilon, format!("{MIN_EPSILON} to {MAX_EPSILON}"));
        }
        if !(MIN_DELTA..=MAX_DELTA).contains(&delta) {
            self.say("data.delta", delta, format!("{MIN_DELTA} to {MAX_DELTA}"));
        }
        let epsilon = MicroEpsilon((epsilon / MIN_EPSILON).round() as u64);
        Some(Cap { epsilon, delta: PicoDelta((delta / MIN_DELTA).round() as u64) })
    }

    fn address(&mut self, field: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.say(field, text, "an address and port such as 127.0.0.1:8420 or [::1]:8420");
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    /// Peers may be named by host: they are looked up once, here.
    fn peers(&mut self, texts: &[String]) -> Vec<SocketAddr> {
        let mut peers = Vec::new();
        for text in texts {
            match std::net::ToSocketAddrs::to_socket_addrs(text.as_str()) {
                Ok(found) => peers.extend(found),
                Err(error) => {
                    let allowed = format!("HOST:PORT of a node that can be found ({error})");
                    self.say("mesh.peers", text, allowed);
                }
            }
        }
        peers
    }

    fn device(&mut self, text: &str) -> Device {
        let (kind, index) = text.split_once(':').unwrap_or((text, "0"));
        match (kind, index.parse()) {
            ("cpu", _) if text == "cpu" => Device::Cpu,
            ("cuda", Ok(index)) => Device::Cuda(index),
            ("metal", Ok(index)) => Device::Metal(index),
            _ => {
                self.say("engine.device", text, "cpu, cuda:N or metal:N");
                Device::Cpu
            }
        }
    }

    /// Here and not where models are loaded, so that whoever counts before that in the node counts
    /// alike. A command that is run apart from it may see another limit than the node has.
    fn budget(&mut self, said: u64, device: Device) -> Budget {
        if let Some(allowed) = Budget::check(said) {
            self.say("engine.memory_budget_bytes", said, allowed);
        }
        Budget::of(said, device, Probe::here("").memory())
    }

    fn url(&mut self, field: &str, text: &str) -> String {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        if !host.is_some_and(|host| !host.is_empty() && !host.contains(char::is_whitespace)) {
            self.say(field, text, "an address that begins with https:// or http://");
        }
        text.trim_end_matches('/').to_owned()
    }

    fn filter(&mut self, text: &str) -> String {
        if let Err(error) = text.parse::<tracing_subscriber::filter::EnvFilter>() {
            self.say("log.filter", text, format!("error, warn, info, debug or trace ({error})"));
        }
        text.to_owned()
    }
}

fn within(field: &Field, value: &toml::Value) -> bool {
    if let Some(number) = value.as_integer() {
        let Ok(number) = u64::try_from(number) else { return false };
        return number >= field.minimum.unwrap_or(0) && number <= field.maximum.unwrap_or(u64::MAX);
    }
    let length = value
        .as_str()
        .map(|text| text.chars().count())
        .or_else(|| value.as_array().map(Vec::len))
        .unwrap_or(0);
    length as u64 <= field.max_length.unwrap_or(u64::MAX)
}

fn cache(raw: &RawCache) -> CacheConfig {
    let bounds = Bounds {
        entries: to_usize(raw.max_entries),
        bytes: raw.max_bytes,
        entry_bytes: raw.max_answer_bytes,
        ttl: Micros::secs(raw.ttl_s),
    };
    CacheConfig { bounds, sampled: raw.sampled }
}

/// What a `[[data]]` table says: its name and part, where the data are, and the bound of their
/// privacy, epsilon and delta.
type Told = (String, Option<String>, Source, (Option<f64>, Option<f64>));

fn source(raw: &RawData) -> Told {
    match raw {
        RawData::Csv { name, part, path, label, values, classes, scale, epsilon, delta } => {
            let table = table((path, label), values, classes, *scale);
            (name.clone(), part.clone(), Source::Csv(table), (*epsilon, *delta))
        }
        RawData::Parquet { name, part, path, label, values, classes, scale, epsilon, delta } => {
            let table = table((path, label), values, classes, *scale);
            (name.clone(), part.clone(), Source::Parquet(table), (*epsilon, *delta))
        }
        RawData::Text { name, part, path, epsilon, delta } => (
            name.clone(),
            part.clone(),
            Source::Text(Texts { path: path.into() }),
            (*epsilon, *delta),
        ),
        RawData::Requests { name, part, model, epsilon, delta } => {
            let asked = Requests { model: model.clone() };
            (name.clone(), part.clone(), Source::Requests(asked), (*epsilon, *delta))
        }
        RawData::Idx { name, part, images, labels, epsilon, delta } => {
            let pair = Idx { images: images.into(), labels: labels.into() };
            (name.clone(), part.clone(), Source::Idx(pair), (*epsilon, *delta))
        }
        RawData::Images { name, part, path, classes, resize, epsilon, delta } => {
            let (classes, resize) = (classes.clone(), *resize);
            let folder = Images { path: path.into(), classes, resize };
            (name.clone(), part.clone(), Source::Images(folder), (*epsilon, *delta))
        }
    }
}

fn table((path, label): (&str, &str), values: &[String], classes: &[String], scale: f32) -> Table {
    let (values, classes) = (values.to_vec(), classes.to_vec());
    Table { path: path.into(), label: label.to_owned(), values, classes, scale }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The machine's name up to the first dot, or `node` where it has none.
fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let short: String = name.split('.').next().unwrap_or_default().chars().take(64).collect();
    if short.is_empty() || short == "(none)" { "node".to_owned() } else { short }
}
