//! Jobs of learning as their nodes tell of them, and the death of a node that proposes.
//!
//! Owns reading a job's status from the admin interface, and catching the aggregator of an open
//! round: the node that itself says that it proposes. Whether it was caught is said by the others,
//! after it is dead: none of them has the end of that round.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http::Reply;
use crate::node::{Node, NodeSpec};
use crate::scenario::Scenario;
use crate::time::Deadline;

/// The phases in which the set of a round is not closed, and a node can be said to propose it.
pub const PROPOSES: &[&str] = &["asking", "proposing"];

/// Whom to kill.
#[derive(Clone, Copy, Debug)]
pub struct Hunt<'a> {
    /// The job.
    pub job: &'a str,
    /// The first of the nodes that may die, and the one after the last.
    pub among: (usize, usize),
    /// In which phases; all of [`PROPOSES`] unless a test wants one of them.
    pub phases: &'a [&'a str],
    /// When to give up.
    pub deadline: Deadline,
}

/// A node that was killed while it proposed the set of a round that was open everywhere.
#[derive(Clone, Debug)]
pub struct Killed {
    /// Its place among the nodes.
    pub node: usize,
    /// The round, counted from 0: so many were over at all nodes that live.
    pub round: u64,
    /// What it said last that the round waits for: `asking` or `proposing`.
    pub phase: String,
    /// All that it said last.
    pub told: Value,
}

/// A job as a node tells of it; none before it heard of it.
///
/// # Errors
/// When the node does not answer.
pub fn job(node: &Node, name: &str) -> Result<Option<Value>> {
    Ok(named(&node.admin()?.client().get("/admin/federated")?.ok()?, name))
}

/// Kills a node, as a power cut would, while it proposes the set of a round that is open: the
/// first one that says so and turns out to have died in time. One that died after the
/// end of its round was known elsewhere is started again, and the next one is waited for.
///
/// # Errors
/// When nobody is caught before the deadline, or a node does not answer.
pub fn kill_a_proposer(
    s: &Scenario,
    (specs, nodes): (&[NodeSpec], &mut [Node]),
    hunt: Hunt<'_>,
) -> Result<Killed> {
    loop {
        let killed = strike(nodes, hunt)?;
        let Killed { node, round, phase, .. } = &killed;
        let (node, number) = (*node, round + 1);
        let living = nodes.iter().filter(|one| one.process.ended().is_none());
        let over = |one: &Node| Ok(job(one, hunt.job)?.context("no such job")?["round"].as_u64());
        let over = living.map(over).collect::<Result<Vec<_>>>()?;
        if over.iter().all(|over| over.is_some_and(|over| over <= *round)) {
            return Ok(killed);
        }
        let who = nodes[node].name();
        s.say(&format!("{who} died {phase} in round {number}, which was over by then: once more"));
        nodes[node] = specs[node].up(s, &[])?;
    }
}

/// Kills the first node that says that it proposes.
fn strike(nodes: &[Node], hunt: Hunt<'_>) -> Result<Killed> {
    let Hunt { job: name, among: (first, end), phases, deadline } = hunt;
    let (tell, told) = mpsc::channel();
    for (at, node) in nodes.iter().enumerate().take(end).skip(first) {
        let client = node.admin()?.client().clone();
        let changes = client.send("GET", "/admin/federated-watch", b"", deadline)?;
        ensure!(changes.status == 200, "status {}", changes.status);
        let tell = tell.clone();
        thread::spawn(move || pass_on(at, changes, &tell));
    }
    drop(tell);
    loop {
        let left = deadline.left().context("no node was caught while it proposed")?;
        let first = told.recv_timeout(left).context("no node was caught while it proposed")?;
        // Only what each said last: a round may be over by the time that its beginning is read.
        let newest: BTreeMap<usize, Value> =
            std::iter::once(first).chain(told.try_iter()).collect();
        for (at, view) in newest {
            let Some(job) = named(&view, name) else { continue };
            let open = &job["open_round"];
            let (Some(round), Some(phase)) = (open["round"].as_u64(), open["phase"].as_str())
            else {
                continue;
            };
            if open["here"] == true && phases.contains(&phase) {
                nodes[at].kill()?;
                let phase = phase.to_owned();
                return Ok(Killed { node: at, round, phase, told: job });
            }
        }
    }
}

/// Passes on what a node says, until it ends or nobody listens.
fn pass_on(at: usize, mut changes: Reply, tell: &mpsc::Sender<(usize, Value)>) {
    while let Ok(Some(line)) = changes.line()
        && let Ok(view) = serde_json::from_str(&line)
        && tell.send((at, view)).is_ok()
    {}
}

fn named(view: &Value, name: &str) -> Option<Value> {
    view["data"].as_array()?.iter().find(|job| job["name"] == name).cloned()
}
