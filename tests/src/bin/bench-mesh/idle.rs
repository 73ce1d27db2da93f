//! What a node costs that has a link and nothing to do.
//!
//! Owns one measurement: the CPU time of two real processes on loopback, read from the kernel's
//! accounts of their threads before and after a quiet time.

use std::time::Duration;

use anyhow::{Result, ensure};
use selvedge_tests::report::Report;
use selvedge_tests::{Deadline, Node, Scenario};

/// How long nothing happens: long enough for everything that is done every few seconds.
const QUIET: Duration = Duration::from_secs(30);
/// Before that the start has to be over: caches, addresses, the first exchanges of state.
const SETTLE: Duration = Duration::from_secs(10);

/// Measures and notes everything.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let s = Scenario::new()?;
    let nodes = s.mesh(&[s.node("left"), s.node("right")])?;
    lives_on(&nodes, SETTLE)?;
    let before = [nodes[0].process.cpu_time()?, nodes[1].process.cpu_time()?];
    lives_on(&nodes, QUIET)?;
    for (node, before) in nodes.iter().zip(before) {
        let used = node.process.cpu_time()?.saturating_sub(before);
        let per_second = used.as_secs_f64() * 1e3 / QUIET.as_secs_f64();
        report.note(&format!("idle_{}_cpu_ms_per_s", node.name()), per_second, None);
    }
    Ok(())
}

/// Nothing ends within this time.
fn lives_on(nodes: &[Node], time: Duration) -> Result<()> {
    let ended = nodes[0].process.wait(Deadline::after(time)).is_ok();
    ensure!(!ended && nodes.iter().all(|node| node.process.ended().is_none()), "a node ended");
    Ok(())
}
