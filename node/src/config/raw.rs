//! The configuration file as people write it.
//!
//! Owns names, defaults, documentation and bounds of every field: the comments and attributes here
//! are the reference that `selvedge config defaults`, `schema` and the documentation are made
//! from, and the bounds here are the ones that are checked.

use schemars::JsonSchema;
use selvedge_engine::{EngineConfig, Keeping};
use selvedge_runtime::NodeConfig;
use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// A Selvedge node's configuration. Every field has a default that works.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawConfig {
    /// What this node is called.
    pub(crate) node: RawNode,
    /// The HTTP API that clients use.
    pub(crate) api: RawApi,
    /// How this node finds and talks to the other nodes.
    pub(crate) mesh: RawMesh,
    /// The engine that runs models on this machine.
    pub(crate) engine: RawEngine,
    /// Budgets of accounts.
    pub(crate) quota: RawQuota,
    /// Answers kept for equal requests.
    pub(crate) cache: RawCache,
    /// Where models come from.
    pub(crate) models: RawModels,
    /// What the node writes to its log (standard error).
    pub(crate) log: RawLog,
    /// Traces, metrics and logs for an OpenTelemetry collector.
    pub(crate) telemetry: RawTelemetry,
    /// Data of this node that jobs may train on here, one `[[data]]` table each. Jobs know a
    /// source by its name only; its files never leave the node, and what is trained from them does.
    #[schemars(length(max = 64))]
    pub(crate) data: Vec<RawData>,
    /// Models of which this node has several files, in more or fewer bits, one `[[model]]` table
    /// each. When it starts it serves the one that suits its memory, its kernels and its speed best
    /// under the name; `selvedge models list` says which and why. Files that are named here are not
    /// served under names of their own.
    #[schemars(length(max = 32))]
    pub(crate) model: Vec<RawModel>,
}

/// A model of which there are several files.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawModel {
    /// The name in requests.
    pub(crate) name: String,
    /// The files: names of models of this home, paths, or sources as `selvedge models pull` takes
    /// them, which count once they are here.
    #[schemars(length(min = 1, max = 16))]
    pub(crate) variants: Vec<RawVariant>,
    /// Tokens a second that one answer should have at least; slower files are taken only where none
    /// is faster.
    #[serde(default = "reading_rate")]
    #[schemars(range(min = 0, max = 10000))]
    pub(crate) min_tokens_per_s: u32,
}

/// One file of a model.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RawVariant {
    /// Which one.
    Named(String),
    /// The same, and how large it is.
    Sized(RawSized),
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSized {
    /// Which one.
    pub(crate) source: String,
    /// Bytes of the file: with it `selvedge models pull NAME` can choose it before it is here.
    pub(crate) bytes: u64,
}

/// People read about so fast.
const fn reading_rate() -> u32 {
    5
}

/// A source of examples.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum RawData {
    /// A table whose first line names the columns.
    Csv {
        /// The name that jobs use.
        name: String,
        /// Which part of the data of this name it is: each part is a client of its own.
        part: Option<String>,
        /// The file.
        path: String,
        /// The column with the label.
        label: String,
        /// The columns with the values, in the order of the model. Empty: all but the label.
        #[serde(default)]
        values: Vec<String>,
        /// The names of the classes, in the order of the model. Empty: labels are numbers from 0.
        #[serde(default)]
        classes: Vec<String>,
        /// Every value is divided by this.
        #[serde(default = "one")]
        scale: f32,
        /// What all jobs together may spend of the data's privacy, as an epsilon. With it only jobs
        /// with privacy train on the data.
        #[schemars(range(min = 0.000001, max = 1000.0))]
        epsilon: Option<f64>,
        /// The delta that this epsilon is counted at.
        #[schemars(range(min = 1e-12, max = 0.001))]
        delta: Option<f64>,
    },
    /// A table in Apache Parquet, packed with Snappy, gzip or not.
    Parquet {
        /// The name that jobs use.
        name: String,
        /// Which part of the data of this name it is: each part is a client of its own.
        part: Option<String>,
        /// The file.
        path: String,
        /// The column with the label.
        label: String,
        /// The columns with the values, in the order of the model. Empty: all but the label.
        #[serde(default)]
        values: Vec<String>,
        /// The names of the classes, in the order of the model. Empty: labels are numbers from 0.
        #[serde(default)]
        classes: Vec<String>,
        /// Every value is divided by this.
        #[serde(default = "one")]
        scale: f32,
        /// What all jobs together may spend of the data's privacy, as an epsilon. With it only jobs
        /// with privacy train on the data.
        #[schemars(range(min = 0.000001, max = 1000.0))]
        epsilon: Option<f64>,
        /// The delta that this epsilon is counted at.
        #[schemars(range(min = 1e-12, max = 0.001))]
        delta: Option<f64>,
    },
    /// Texts, for jobs that tune a language model.
    Text {
        /// The name that jobs use.
        name: String,
        /// Which part of the data of this name it is: each part is a client of its own.
        part: Option<String>,
        /// A file of plain text in UTF-8; a file that ends in .jsonl, with an object a line whose
        /// 'text' is one; or a directory of such files and of .txt and .md files.
        path: String,
        /// What all jobs together may spend of the data's privacy, as an epsilon. With it only jobs
        /// with privacy train on the data.
        #[schemars(range(min = 0.000001, max = 1000.0))]
        epsilon: Option<f64>,
        /// The delta that this epsilon is counted at.
        #[schemars(range(min = 1e-12, max = 0.001))]
        delta: Option<f64>,
    },
    /// Requests to a model that a job of learning made, once people gave them labels. With it this
    /// node keeps what such requests ask; without it nothing of them.
    Requests {
        /// The name that jobs use.
        name: String,
        /// Which part of the data of this name it is: each part is a client of its own.
        part: Option<String>,
        /// The model: the name of the job that makes it.
        model: String,
        /// What all jobs together may spend of the data's privacy, as an epsilon. With it only jobs
        /// with privacy train on the data.
        #[schemars(range(min = 0.000001, max = 1000.0))]
        epsilon: Option<f64>,
        /// The delta that this epsilon is counted at.
        #[schemars(range(min = 1e-12, max = 0.001))]
        delta: Option<f64>,
    },
    /// Images and labels as the MNIST files hold them, not compressed.
    Idx {
        /// The name that jobs use.
        name: String,
        /// Which part of the data of this name it is: each part is a client of its own.
        part: Option<String>,
        /// The file of images.
        images: String,
        /// The file of labels.
        labels: String,
        /// What all jobs together may spend of the data's privacy, as an epsilon. With it only jobs
        /// with privacy train on the data.
        #[schemars(range(min = 0.000001, max = 1000.0))]
        epsilon: Option<f64>,
        /// The delta that this epsilon is counted at.
        #[schemars(range(min = 1e-12, max = 0.001))]
        delta: Option<f64>,
    },
    /// A directory of images: PNG, JPEG or PNM, in one folder for each class.
    Images {
        /// The name that jobs use.
        name: String,
        /// Which part of the data of this name it is: each part is a client of its own.
        part: Option<String>,
        /// The directory.
        path: String,
        /// The names of the folders, in the order of the model, the same at all nodes. Empty:
        /// folders are called by the numbers of the classes, from 0.
        #[serde(default)]
        classes: Vec<String>,
        /// Whether images of another size are scaled to the job's; otherwise they are refused.
        #[serde(default)]
        resize: bool,
        /// What all jobs together may spend of the data's privacy, as an epsilon. With it only jobs
        /// with privacy train on the data.
        #[schemars(range(min = 0.000001, max = 1000.0))]
        epsilon: Option<f64>,
        /// The delta that this epsilon is counted at.
        #[schemars(range(min = 1e-12, max = 0.001))]
        delta: Option<f64>,
    },
}

const fn one() -> f32 {
    1.0
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawNode {
    /// The name other nodes and people see. Empty: the machine's host name.
    #[schemars(length(max = 64))]
    pub(crate) name: String,
    /// The place this node stands in. Requests whose data may not leave the site stay among nodes
    /// of the same one. Empty: no site.
    #[schemars(length(max = 64))]
    pub(crate) site: String,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawApi {
    /// Address and port of the API; port 0 takes any free one. On a loopback address no API key
    /// is needed; on any other one it is (`selvedge key create`).
    pub(crate) listen: String,
    /// Host names, beside localhost and the listening address, that requests may be addressed to.
    /// Others are refused, so that a web page cannot reach this API by rebinding its own name. On
    /// any address but loopback, where every request needs a key, every name is served.
    #[schemars(length(max = 64))]
    pub(crate) allowed_hosts: Vec<String>,
    /// The largest request body, in bytes. Hand-offs between nodes carry at most 8 MiB.
    #[schemars(range(min = 1024, max = 8388608))]
    pub(crate) max_body_bytes: u64,
    /// Requests served at the same time; more are refused with 503 and a Retry-After.
    #[schemars(range(min = 1, max = 65536))]
    pub(crate) max_requests: u64,
    /// How long one request may take, in seconds. Nodes take no request of each other for longer
    /// than an hour.
    #[schemars(range(min = 1, max = 3600))]
    pub(crate) request_timeout_s: u64,
}

impl Default for RawApi {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8420".to_owned(),
            allowed_hosts: Vec::new(),
            max_body_bytes: 8 << 20,
            max_requests: NodeConfig::MAX_REQUESTS as u64,
            request_timeout_s: 600,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawMesh {
    /// Address and UDP port that other nodes reach this one at; port 0 takes any free one.
    pub(crate) listen: String,
    /// Addresses (HOST:PORT) of nodes to try even when discovery does not see them.
    #[schemars(length(max = 64))]
    pub(crate) peers: Vec<String>,
    /// A directory shared by the nodes of one machine, where each leaves its address, since
    /// discovery by mDNS does not see loopback. Empty: none.
    pub(crate) rendezvous: String,
    /// Whether to look for nodes on the local network by mDNS.
    pub(crate) mdns: bool,
    /// Requests of one other node that this node serves at the same time.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) max_handoffs_per_peer: u64,
    /// Tenants whose requests this node takes from other nodes. Empty: all.
    #[schemars(length(max = 256))]
    pub(crate) serve_tenants: Vec<String>,
}

impl Default for RawMesh {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8421".to_owned(),
            peers: Vec::new(),
            rendezvous: String::new(),
            mdns: true,
            max_handoffs_per_peer: NodeConfig::MAX_HANDOFFS_PER_PEER as u64,
            serve_tenants: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawEngine {
    /// Threads that compute. 0: one per CPU core.
    #[schemars(range(min = 0, max = 256))]
    pub(crate) threads: u64,
    /// What computes: "cpu", "cuda:N" or "metal:N" (the last two need a build with that feature).
    pub(crate) device: String,
    /// Answers one model computes in the same step.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) max_batch: u64,
    /// Requests that may wait for a place; more are refused and go elsewhere. Beside others a
    /// tenant has half of the places at most, alone seven eighths.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) max_queue: u64,
    /// Memory for all models and their caches together, in bytes, 16777216 at least. 0: half of
    /// the machine's memory, or of the limit that is set for the node, and no more than 4294967296
    /// (always that on a card, or where the system does not tell its memory as Linux does). Where
    /// not all models fit, those that are asked for are in memory in turn.
    #[schemars(range(min = 0, max = 17592186044416_u64))]
    pub(crate) memory_budget_bytes: u64,
    /// Load a model at its first request instead of at the start.
    pub(crate) lazy: bool,
    /// Compute, with a token, those that followed when the same was said before, and keep them
    /// where the model says the same: answers that repeat their prompt come sooner, and none is
    /// another. Off until what it wins and loses on real texts is measured. Takes up to 2 MB for
    /// each answer that is computed, on top of the budget.
    pub(crate) speculation: bool,
    /// Models that stay in memory once they are loaded, by name; `*` means all. The others make
    /// room for one that is asked for and does not fit.
    #[schemars(length(max = 256))]
    pub(crate) keep_loaded: Vec<String>,
    /// Disk for packed copies of language models, in bytes, on the processor: a model that was
    /// loaded once is mapped from its copy from then on, which takes a fraction of the time, and
    /// processes that map the same copy share its memory. The least recently used copies go first,
    /// and 1 GiB of the disk stays free. 0: none are kept.
    #[schemars(range(min = 0, max = 17592186044416_u64))]
    pub(crate) packed_max_bytes: u64,
    /// Where they are kept, on a disk of this machine. Empty: `packed` in the home. Nodes of one
    /// user may have the same directory.
    pub(crate) packed_dir: String,
}

impl Default for RawEngine {
    fn default() -> Self {
        let engine = EngineConfig::default();
        Self {
            threads: engine.threads as u64,
            device: "cpu".to_owned(),
            max_batch: engine.max_batch as u64,
            max_queue: engine.max_queue as u64,
            // What that comes to, the machine decides.
            memory_budget_bytes: 0,
            lazy: engine.lazy,
            speculation: engine.speculation,
            keep_loaded: engine.keep_loaded,
            packed_max_bytes: Keeping::USUAL_BYTES,
            packed_dir: String::new(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawQuota {
    /// Whether this node spends from budgets after a start only once another node has confirmed
    /// that it knows nothing newer: for homes on disks that are restored from backups or
    /// snapshots. A node that reaches no other one then serves no account with a budget.
    pub(crate) rollback_guard: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawCache {
    /// Whether this node keeps answers to chats and embeddings in memory and gives them to equal
    /// requests of the same account, here and at peers that do the same. They cost nothing and
    /// count against no budget.
    pub(crate) enabled: bool,
    /// Memory for all kept answers, in bytes.
    #[schemars(range(min = 1048576, max = 68719476736_u64))]
    pub(crate) max_bytes: u64,
    /// The most answers kept; the least used go first.
    #[schemars(range(min = 1, max = 16777216))]
    pub(crate) max_entries: u64,
    /// The largest answer kept, in bytes.
    #[schemars(range(min = 1024, max = 16777216))]
    pub(crate) max_answer_bytes: u64,
    /// How long an answer is given again, in seconds.
    #[schemars(range(min = 1, max = 2592000))]
    pub(crate) ttl_s: u64,
    /// Keep answers whose words are drawn by chance, too: those to requests without temperature 0
    /// and without a seed. A caller allows it for one request with `x-selvedge-cache: sampled`.
    pub(crate) sampled: bool,
}

impl Default for RawCache {
    fn default() -> Self {
        Self {
            enabled: false,
            max_bytes: 64 << 20,
            max_entries: 65_536,
            max_answer_bytes: 1 << 20,
            ttl_s: 3_600,
            sampled: false,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawModels {
    /// Where hf:OWNER/REPO/FILE is fetched from; the variable HF_ENDPOINT is honoured too.
    pub(crate) hub: String,
    /// Access token for the hub, for models that need one; HF_TOKEN is honoured too.
    #[schemars(with = "String")]
    pub(crate) hub_token: Secret,
    /// How long to wait for a download server to answer before trying elsewhere, in milliseconds.
    #[schemars(range(min = 100, max = 60000))]
    pub(crate) connect_timeout_ms: u64,
    /// The largest model file to accept, in bytes.
    #[schemars(range(min = 1048576, max = 1099511627776_u64))]
    pub(crate) max_bytes: u64,
}

impl Default for RawModels {
    fn default() -> Self {
        Self {
            hub: "https://huggingface.co".to_owned(),
            hub_token: Secret::default(),
            connect_timeout_ms: 4_000,
            max_bytes: 64 << 30,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawLog {
    /// How much to log: error, warn, info, debug, trace, or filters such as
    /// "info,selvedge_net=debug".
    #[schemars(length(max = 1024))]
    pub(crate) filter: String,
    /// "text" for people, "json" for log collectors.
    #[schemars(with = "String")]
    pub(crate) format: LogFormat,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { filter: "warn".to_owned(), format: LogFormat::Text }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawTelemetry {
    /// Address of a collector that takes OTLP over HTTP, such as "http://127.0.0.1:4318";
    /// `/v1/traces`
    /// and its like are added. Empty: nothing is told. OTEL_EXPORTER_OTLP_ENDPOINT is honoured
    /// too.
    #[schemars(length(max = 512))]
    pub(crate) endpoint: String,
    /// Tell nothing, whatever else is set; OTEL_SDK_DISABLED is honoured too.
    pub(crate) disabled: bool,
    /// How OTLP is spoken: "http/protobuf", and nothing else; OTEL_EXPORTER_OTLP_PROTOCOL is
    /// honoured too.
    pub(crate) protocol: String,
    /// Headers for the collector, such as "api-key=SECRET,other=value", with percent-encoded
    /// values. Never shown. OTEL_EXPORTER_OTLP_HEADERS is honoured too.
    #[schemars(with = "String")]
    pub(crate) headers: Secret,
    /// A PEM file with authorities to believe beside those of the public web;
    /// OTEL_EXPORTER_OTLP_CERTIFICATE is honoured too.
    pub(crate) certificate: String,
    /// What is told: "traces", "metrics", "logs".
    #[schemars(length(max = 3))]
    pub(crate) signals: Vec<String>,
    /// Which traces: "always_on", "always_off", "traceidratio", or the same after "parentbased_",
    /// which goes by the caller's decision where there is one. OTEL_TRACES_SAMPLER is honoured
    /// too. Metrics and logs are of all requests.
    pub(crate) sampler: String,
    /// The share of traces for "traceidratio", 0 to 1; OTEL_TRACES_SAMPLER_ARG is honoured too.
    pub(crate) sampler_arg: String,
    /// The name of the service; OTEL_SERVICE_NAME is honoured too.
    #[schemars(length(max = 64))]
    pub(crate) service_name: String,
    /// More about this node, such as "deployment.environment.name=test,team=a", with
    /// percent-encoded values; OTEL_RESOURCE_ATTRIBUTES is honoured too.
    #[schemars(length(max = 4096))]
    pub(crate) resource_attributes: String,
    /// How long the collector may take to answer, in milliseconds; OTEL_EXPORTER_OTLP_TIMEOUT is
    /// honoured too.
    #[schemars(range(min = 100, max = 60000))]
    pub(crate) timeout_ms: u64,
    /// How long spans and log records are gathered before they are sent, in milliseconds;
    /// OTEL_BSP_SCHEDULE_DELAY is honoured too.
    #[schemars(range(min = 10, max = 60000))]
    pub(crate) delay_ms: u64,
    /// How often metrics are sent, in milliseconds; OTEL_METRIC_EXPORT_INTERVAL is honoured too.
    #[schemars(range(min = 100, max = 3600000))]
    pub(crate) metric_interval_ms: u64,
}

impl Default for RawTelemetry {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            disabled: false,
            protocol: "http/protobuf".to_owned(),
            headers: Secret::default(),
            certificate: String::new(),
            signals: ["traces", "metrics", "logs"].map(str::to_owned).to_vec(),
            sampler: "parentbased_always_on".to_owned(),
            sampler_arg: "1".to_owned(),
            service_name: "selvedge".to_owned(),
            resource_attributes: String::new(),
            timeout_ms: 10_000,
            delay_ms: 1_000,
            metric_interval_ms: 60_000,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}
