//! Updates that are poison, from a member of a real mesh: within the clip a mean follows them and
//! the rules do not; beyond it whoever was in the sum is named, and none of them moves the model.
//!
//! The liar is that of `lies`. Jobs wait for one contribution more than there are honest nodes, so
//! that no round ends without it. What rounds made is read from the chain.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use selvedge_base::NodeId;
use selvedge_federated::fixed::{LEVEL_MAX, MODEL_BITS};
use selvedge_federated::privacy::Privacy;
use selvedge_federated::privacy::accountant::{MicroEpsilon, PicoDelta};
use selvedge_federated::round::{Folded, Job, Refused, Tip};
use selvedge_tests::liar::Answer;
use selvedge_tests::{Deadline, Liar, Node, NodeSpec, Scenario, rounds, scenario};
use serde_json::{Value, json};

use super::kinds::same_end;
use super::learning;
use super::lies::{Known, NAME, Shares, joined, recorded};
use super::strategies::Chain;

/// Honest nodes: two for each of three groups.
const NODES: u64 = 6;
const ROUNDS: u64 = 3;
/// Examples that the liar says to have: as many as count, so that it weighs 64, and the others one.
const EXAMPLES: u32 = 10_000;
/// A level that is far beyond the clip; 64 of it do not wrap around.
const BEYOND: i32 = 1 << 24;
/// How far poison within the clip moves all weights at once where it is followed, in parts of the
/// clip: nine tenths, and a little less where it came late.
const FOLLOWED: f64 = 0.7;
/// How far rounds of honest updates move their mean at most. One of two that are kept, or of two
/// in a group, would move it by half.
const HONEST: f64 = 0.35;

/// A job that is poisoned.
struct Poisoned {
    name: &'static str,
    rules: &'static str,
    /// Distinct nodes of each sum.
    least: usize,
    /// So many of the liar's contributions are beyond the clip, the others just within.
    beyond: u64,
    /// What becomes of a round with one that is within.
    follows: bool,
}

const JOBS: [Poisoned; 5] = [
    Poisoned { name: "sum", rules: "", least: 3, beyond: ROUNDS, follows: false },
    Poisoned {
        name: "mean",
        rules: "[mode]\nkind = \"plain\"\nrule = \"mean\"\n",
        least: 3,
        beyond: 0,
        follows: true,
    },
    Poisoned {
        name: "median",
        rules: "[mode]\nkind = \"plain\"\nrule = \"median\"\n",
        least: 3,
        beyond: 0,
        follows: false,
    },
    Poisoned {
        name: "krum",
        rules: "[mode]\nkind = \"plain\"\nrule = { multi-krum = { byzantine = 1, keep = 2 } }\n",
        least: 5,
        beyond: 0,
        follows: false,
    },
    Poisoned {
        name: "groups",
        rules: "[mode]\nkind = \"secure\"\ngroups = 3\nrule = \"median\"\n",
        least: 2,
        beyond: 1,
        follows: false,
    },
];

/// Six nodes and the liar; a round that lacks one waits longer than all of the job takes.
fn text(one: &Poisoned) -> String {
    let Poisoned { name, rules, least, .. } = one;
    learning::job(ROUNDS)
        .replace("\"wear\"", &format!("\"{name}\""))
        .replace("min_clients = 3", &format!("min_clients = {least}"))
        .replace("target = 4\n", &format!("target = {}\n", NODES + 1))
        .replace("patience_ms = 1500", "patience_ms = 60000")
        .replace("[pace]", &format!("{rules}[pace]"))
}

/// A contribution to a round that is all poison.
fn poison(known: &Known, me: NodeId, number: u64, round: u64, is_beyond: bool) -> Shares {
    let mut pending = known.pending(me);
    (pending.id.seq, pending.base_round, pending.examples) = (number, round, EXAMPLES);
    if !is_beyond {
        pending.levels.fill(LEVEL_MAX);
        return known.shares(&known.job, pending);
    }
    pending.levels.fill(BEYOND);
    // With privacy, which the job has not, the product's client shares levels beyond the clip: it
    // takes them for noise. Nothing else of these numbers is looked at.
    let privacy = Privacy {
        noise_milli: 2_000,
        norm: 1 << 20,
        honest: 2,
        delta: PicoDelta(10_000_000),
        epsilon: MicroEpsilon(1_000_000),
        adaptive: None,
    };
    let noisy = Job { privacy: Some(privacy), ..(*known.job).clone() };
    known.shares(&Arc::new(noisy), pending)
}

#[test]
fn poison_moves_a_mean_and_no_rule_and_whoever_is_beyond_the_clip_is_named() {
    scenario(|s| {
        let specs: Vec<NodeSpec> = (0..NODES)
            .map(|node| learning::with_data(s.node(&format!("n{node}")), node))
            .collect::<Result<_>>()?;
        let nodes = s.mesh(&specs)?;
        s.step("five jobs, in each of which a member lies");
        for one in &JOBS {
            // Without asking all members first, which takes a second for each job.
            let job = json!({ "text": text(one), "anyway": true });
            nodes[0].admin()?.client().post("/admin/federated", &job)?.ok()?;
        }
        let mut liar = joined(s, &nodes)?;
        let mut told = Vec::new();
        for one in &JOBS {
            let known = Known::of(&nodes[0], one.name)?;
            told.push((one, known, 0));
        }
        for round in 0..ROUNDS {
            s.step(&format!("poison in round {round} of each"));
            for (one, known, given) in &mut told {
                poisoned(&mut liar, &nodes, (one, known, given), round)?;
            }
        }
        for one in &JOBS {
            s.step(&format!("{}: one model everywhere, and what the poison did to it", one.name));
            same_end(&nodes, one.name, ROUNDS)?;
            let chain = Chain::of(s, &nodes[1], one.name)?;
            what_it_did(s, one, &chain, &liar.node())?;
            if one.beyond > 0 {
                is_named(&nodes, (one, &chain), &liar.node())?;
            }
        }
        Ok(())
    });
}

/// Poison for a round that is open everywhere, unless what was given before is still to be counted.
fn poisoned(
    liar: &mut Liar,
    nodes: &[Node],
    (one, known, given): (&Poisoned, &Known, &mut u64),
    round: u64,
) -> Result<()> {
    let mut counted = 0;
    for node in nodes {
        let what = format!("round {round} of {} at {}", one.name, node.name());
        let job = Deadline::patient().until(&what, || {
            let job = rounds::job(node, one.name)?;
            Ok(job.filter(|job| job["round"].as_u64() >= Some(round)))
        })?;
        counted = counted.max(recorded(&job).unwrap_or(0));
    }
    if counted < *given {
        return Ok(());
    }
    let is_beyond = *given < one.beyond;
    *given += 1;
    let shares = poison(known, liar.node(), *given, round, is_beyond);
    // Who hears late that the round before is over is told again; for others this one may be over.
    Deadline::patient().until("receipts of all anchors", || {
        let answers = liar.contribute(known.name, shares.clone(), Deadline::patient())?;
        let is_timing = |answer: &Answer| answer.err().is_none_or(|why| why.is_of_timing());
        ensure!(answers.values().all(is_timing), "{}: {answers:?}", one.name);
        let is_held = |answer: &Answer| matches!(answer, Ok(()) | Err(Refused::Replayed { .. }));
        Ok(answers.values().all(is_held).then_some(()))
    })
}

/// Whether a node is in the set of a round.
fn is_in(folded: &Folded, node: &NodeId) -> bool {
    folded.certificate.close.entries.iter().any(|entry| entry.header.id.client.node == *node)
}

/// By how much a round moved the mean of all weights, in parts of the clip, which is one.
fn moved(before: &Tip, after: &Tip) -> f64 {
    let (before, after) = (before.server.model(), after.server.model());
    let changes = before.iter().zip(after).map(|(before, after)| f64::from(*after - *before));
    changes.sum::<f64>() / before.len() as f64 / f64::from(1_u32 << MODEL_BITS)
}

/// The rounds with the liar, as the job's rule has them.
fn what_it_did(s: &Scenario, one: &Poisoned, chain: &Chain, liar: &NodeId) -> Result<()> {
    let mut seen = 0;
    for (folded, pair) in chain.rounds.iter().zip(chain.tips.windows(2)) {
        let [before, after] = pair else { continue };
        let by = moved(before, after);
        s.say(&format!("{}: round {} moved by {by:.3}", one.name, before.round));
        if !is_in(folded, liar) {
            continue;
        }
        seen += 1;
        let is_so = if one.follows {
            by > FOLLOWED
        } else if one.beyond == ROUNDS {
            before.server == after.server
        } else {
            // All but the poison goes on, also where a group is left out.
            by.abs() < HONEST && before.server != after.server
        };
        ensure!(is_so, "round {} of {} moved by {by}", before.round, one.name);
    }
    ensure!(seen >= 2, "{seen} rounds of {} with poison", one.name);
    Ok(())
}

/// Every node names the liar for what was beyond, and the chain has how often anybody was left out.
fn is_named(nodes: &[Node], (one, chain): (&Poisoned, &Chain), liar: &NodeId) -> Result<()> {
    let id = liar.to_string();
    for node in nodes {
        let told = rounds::job(node, one.name)?.context("no such job")?;
        let all = told["refusals"].as_array().context("no refusals")?;
        let own = all.iter().find(|one| one["id"].as_str() == Some(id.as_str()));
        let times = own.and_then(|own| own["reasons"]["beyond"].as_u64());
        ensure!(times >= Some(1), "{}: {told}", node.name());
        let told = node.cli(&["fed", "status", one.name])?.success()?;
        let named = format!("{NAME} (");
        let is_it = |line: &str| line.contains(&named) && line.contains(" beyond");
        ensure!(told.contains("refused of") && told.lines().any(is_it), "{told}");
    }

    let path = chain.model.display().to_string();
    let told = nodes[1].cli(&["fed", "verify", &path, "--json"])?.success()?;
    let told: Value = serde_json::from_str(&told)?;
    let left_out: BTreeMap<&str, u64> = told["left_out"]
        .as_array()
        .context("nobody is left out")?
        .iter()
        .filter_map(|one| Some((one["node"].as_str()?, one["contributions"].as_u64()?)))
        .collect();
    let with = chain.rounds.iter().filter(|folded| is_in(folded, liar)).count() as u64;
    let times = left_out.get(id.as_str()).copied();
    ensure!(times == Some(with.min(one.beyond)), "{times:?} of {with}: {told}");
    let worst = left_out.values().copied().max();
    ensure!(times == worst && left_out.len() > 1, "it is among them every time: {told}");
    if one.beyond < ROUNDS {
        // Those of its group, and of no other.
        ensure!(left_out.len() <= 3, "{told}");
    }
    let said = nodes[1].cli(&["fed", "verify", &path])?.success()?;
    ensure!(said.contains("left out of") && said.contains(&format!("{id} ")), "{said}");
    Ok(())
}
