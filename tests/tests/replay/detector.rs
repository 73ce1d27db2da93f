//! The failure detector behind the mesh actor.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use selvedge_base::{Micros, Now};
use selvedge_engine::EngineConfig;
use selvedge_proto::swim::{SwimEffect, SwimInput};
use selvedge_runtime::{Clock, Node, NodeConfig, Replay};
use selvedge_sim::{Plan, run};
use selvedge_tests::home::TempDir;

use crate::tape::{Step, Tape};

/// Seeds of the simulated meshes; each is another network with other faults.
const SEEDS: [u64; 12] = [1, 2, 3, 5, 7, 11, 21, 42, 77, 99, 123, 1_000];

#[tokio::test]
async fn a_simulated_detector_and_the_one_behind_the_actor_order_the_same() -> Result<()> {
    let (mut steps, mut sends, mut verdicts) = (0, 0, 0);
    for seed in SEEDS {
        let tape = simulated(seed)?;
        let orders = through_the_actor(&tape, Micros(0)).await?;
        for (index, (step, ordered)) in tape.detector_steps.iter().zip(&orders).enumerate() {
            let Step { at, input, orders } = step;
            ensure!(
                ordered == orders,
                "seed {seed}, step {index} at {at:?}: {input:?} made the machine order {orders:?} \
                 in the simulator and {ordered:?} behind the actor"
            );
        }
        ensure!(orders.len() == tape.detector_steps.len(), "seed {seed}: steps are missing");
        let all = || orders.iter().flatten();
        steps += orders.len();
        sends += all().filter(|order| matches!(order, SwimEffect::Send { .. })).count();
        verdicts += all().filter(|order| matches!(order, SwimEffect::Declare { .. })).count();
    }
    // Otherwise nothing of interest was compared.
    ensure!(steps > 5_000 && sends > 1_000 && verdicts > 10, "{steps} {sends} {verdicts}");
    Ok(())
}

#[tokio::test]
async fn a_clock_that_runs_ahead_is_noticed() -> Result<()> {
    let tape = simulated(SEEDS[0])?;
    let orders = through_the_actor(&tape, Micros::secs(5)).await?;
    let simulated = tape.detector_steps.iter().map(|step| &step.orders);
    ensure!(!simulated.eq(orders.iter()), "the comparison cannot fail");
    Ok(())
}

/// The life of the first node of a simulated mesh.
fn simulated(seed: u64) -> Result<Tape> {
    let mut tape = Tape::of(0);
    run(&Plan::seeded(seed), &mut tape).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(tape)
}

/// What the machine orders behind the mesh actor of a real node, step by step. From the middle of
/// the trace on the clock runs ahead by `ahead`.
async fn through_the_actor(tape: &Tape, ahead: Micros) -> Result<Vec<Vec<SwimEffect>>> {
    let home = TempDir::new()?;
    let hand = Arc::new(Mutex::new(Now::default()));
    let detector = tape.detector.clone().context("the simulated process never started")?;
    let clock = wound(&hand);
    let replay = Replay { detector, clock };
    let node = Node::start_replay(config(&home)?, replay).await?;
    let mut all = Vec::new();
    for (index, Step { at, input, .. }) in tape.detector_steps.iter().enumerate() {
        let late = index > tape.detector_steps.len() / 2;
        let ahead = if late { ahead } else { Micros(0) };
        let now = Now { mono: at.mono.plus(ahead), wall: at.wall };
        *hand.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let input: SwimInput = input.clone();
        all.push(node.replay(input).await.context("the mesh actor is gone")?);
    }
    node.shutdown().await;
    Ok(all)
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
        create_mesh: true,
    })
}
