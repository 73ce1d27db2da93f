//! A real node that takes no part in anything, and the clock that a trace winds.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use selvedge_base::Now;
use selvedge_engine::EngineConfig;
use selvedge_runtime::{Clock, Node, NodeConfig, Replay};
use selvedge_sim::{Plan, run};
use selvedge_tests::home::TempDir;

use crate::tape::Tape;

/// The node, its directory and its clock.
pub(crate) struct Stage {
    pub(crate) node: Node,
    hand: Arc<Mutex<Now>>,
    _home: TempDir,
}

impl Stage {
    /// A node with the machines of a tape.
    pub(crate) async fn new(tape: &Tape) -> Result<Self> {
        let home = TempDir::new()?;
        let hand = Arc::new(Mutex::new(Now::default()));
        let detector = tape.detector.clone().context("the simulated process never started")?;
        let quota = tape.quota.clone().map(|origin| origin.make());
        let replay = Replay { detector, quota, clock: wound(&hand) };
        let node = Node::start_replay(config(&home)?, replay).await?;
        Ok(Self { node, hand, _home: home })
    }

    /// From now on it is this time.
    pub(crate) fn wind(&self, now: Now) {
        *self.hand.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// The life of the first node of a simulated mesh.
pub(crate) fn simulated(plan: &Plan) -> Result<Tape> {
    let mut tape = Tape::of(0);
    run(plan, &mut tape).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(tape)
}

/// A clock that shows what the hand points at.
fn wound(hand: &Arc<Mutex<Now>>) -> Clock {
    let hand = Arc::clone(hand);
    Arc::new(move || *hand.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A node alone on loopback.
fn config(home: &TempDir) -> Result<NodeConfig> {
    Ok(NodeConfig {
        home: home.path().to_path_buf(),
        name: "replay".to_owned(),
        site: String::new(),
        listen: "127.0.0.1:0".parse()?,
        static_peers: Vec::new(),
        rendezvous: None,
        mdns: false,
        engine: EngineConfig::default(),
        max_requests: NodeConfig::MAX_REQUESTS,
        max_handoffs_per_peer: NodeConfig::MAX_HANDOFFS_PER_PEER,
        serve_tenants: BTreeSet::new(),
        rollback_guard: false,
        cache: None,
        tracer: None,
        data: std::collections::BTreeMap::new(),
        bases: Vec::new(),
        create_mesh: true,
    })
}
