//! The failure detector behind the mesh actor.

use anyhow::{Context, Result, ensure};
use selvedge_base::{Micros, Now};
use selvedge_proto::swim::SwimEffect;
use selvedge_sim::Plan;

use crate::stage::{Stage, simulated};
use crate::tape::{Step, Tape};

/// Seeds of the simulated meshes; each is another network with other faults.
const SEEDS: [u64; 12] = [1, 2, 3, 5, 7, 11, 21, 42, 77, 99, 123, 1_000];

#[tokio::test]
async fn a_simulated_detector_and_the_one_behind_the_actor_order_the_same() -> Result<()> {
    let (mut steps, mut sends, mut verdicts) = (0, 0, 0);
    for seed in SEEDS {
        let tape = simulated(&Plan::seeded(seed))?;
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
    let tape = simulated(&Plan::seeded(SEEDS[0]))?;
    let orders = through_the_actor(&tape, Micros::secs(5)).await?;
    let simulated = tape.detector_steps.iter().map(|step| &step.orders);
    ensure!(!simulated.eq(orders.iter()), "the comparison cannot fail");
    Ok(())
}

/// What the machine orders behind the mesh actor of a real node, step by step. From the middle of
/// the trace on the clock runs ahead by `ahead`.
async fn through_the_actor(tape: &Tape, ahead: Micros) -> Result<Vec<Vec<SwimEffect>>> {
    let stage = Stage::new(tape).await?;
    let mut all = Vec::new();
    for (index, Step { at, input, .. }) in tape.detector_steps.iter().enumerate() {
        let late = index > tape.detector_steps.len() / 2;
        let ahead = if late { ahead } else { Micros(0) };
        stage.wind(Now { mono: at.mono.plus(ahead), wall: at.wall });
        let ordered = stage.node.replay(input.clone()).await;
        all.push(ordered.context("the mesh actor is gone")?);
    }
    stage.node.shutdown().await;
    Ok(all)
}
