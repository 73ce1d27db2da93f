//! What a node must be told to start; checked by whoever read it from a file or flags.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use selvedge_core::cache::Bounds;
use selvedge_engine::EngineConfig;

use crate::federated::{BaseModel, DataParts};
use crate::trace::Tracer;

/// A node's settings.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where everything durable lives.
    pub home: PathBuf,
    /// The name people see.
    pub name: String,
    /// The place the node stands in.
    pub site: String,
    /// The QUIC endpoint's address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Peers to try whatever discovery says.
    pub static_peers: Vec<SocketAddr>,
    /// A directory in which nodes of one machine leave their addresses.
    pub rendezvous: Option<PathBuf>,
    /// Whether to look for peers on the LAN by mDNS.
    pub mdns: bool,
    /// The local engine's settings.
    pub engine: EngineConfig,
    /// Requests answered at a time.
    pub max_requests: usize,
    /// Requests one peer may have running here.
    pub max_handoffs_per_peer: usize,
    /// Tenants served for peers; empty = every tenant.
    pub serve_tenants: BTreeSet<String>,
    /// Spend from budgets after a start only once a peer confirmed that this node's store was not
    /// rolled back.
    pub rollback_guard: bool,
    /// The cache of answers, if there is one.
    pub cache: Option<CacheConfig>,
    /// Who is told of requests, if anybody is.
    pub tracer: Option<Arc<Tracer>>,
    /// Data of this node that jobs may train on, by the names that jobs use.
    pub data: BTreeMap<String, DataParts>,
    /// Language models of this node that jobs may tune.
    pub bases: Vec<BaseModel>,
    /// Make a mesh of one when this home belongs to none.
    pub create_mesh: bool,
}

/// The settings of the cache of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// How much is kept, and for how long.
    pub bounds: Bounds,
    /// Keep answers whose words are drawn by chance, too, though the caller did not allow it.
    pub sampled: bool,
}

impl NodeConfig {
    /// Requests answered at a time, unless told otherwise: two thousand streams of providers, which
    /// wait more than they work, and room beside them; a stream takes some 50 KiB. What an engine
    /// of this node takes at a time is bounded by the engine.
    pub const MAX_REQUESTS: usize = 2_560;
    /// Requests one peer may have running here, unless told otherwise: a peer that hands over more
    /// should have found other nodes too.
    pub const MAX_HANDOFFS_PER_PEER: usize = 128;
}
