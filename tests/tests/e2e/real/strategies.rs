//! Jobs whose rounds need more of a node than a mean does, over real nodes: SCAFFOLD, whose clients
//! keep a control variate each through a kill, a norm that follows the updates, and rounds that ask
//! a part of the clients first.
//!
//! What is held is read from the chain that a node writes, folded once more here, and from what
//! nodes left on their disks.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use selvedge_base::{Micros, NodeId};
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::Seal;
use selvedge_federated::fixed::MODEL_BITS;
use selvedge_federated::round::{Folded, Job, Tip};
use selvedge_federated::select::is_asked;
use selvedge_proto::seal::is_signed;
use selvedge_runtime::{ChainReader, Store};
use selvedge_tests::{Node, NodeSpec, Scenario, scenario};
use tokio::runtime::Builder;

use super::kinds::same_end;
use super::learning;
use super::overheard::until;

const NODES: usize = 6;
/// Rounds of the short jobs: of a part of the clients some two dozen contributions, half of them of
/// nodes that nobody asked if nobody heeds who is.
const ROUNDS: u64 = 12;
/// Rounds of the job that outlasts two kills.
const MORE_ROUNDS: u64 = 20;
/// The nodes that are killed; the first one is the steward's.
const KILLED: [usize; 2] = [1, 2];
/// How far the servers' control variate may be from the mean of the clients': all of it is counted
/// in 2^-20, and a round rounds twice: 3e-6 after twenty. Without one client's it is 1e-3 and more.
const TOLERANCE: f64 = 2e-5;

/// Two contributions of the three nodes, more or less, that are asked.
const LOTS: &str = "sample_permille = 500\n";
const SCAFFOLD: &str = "[strategy]\nkind = \"scaffold\"\nclients = 6\n";
/// Noise that leaves something of a model.
const FOLLOWS: &str = "[privacy]\nnoise = 0.5\nnorm = 0.5\nhonest = 2\ndelta = 1e-5\n\
                       epsilon = 900.0\nquantile = 0.5\n";

/// A job's chain, every round of it folded again.
pub(super) struct Chain {
    /// The model that it proves; it is beside that.
    pub(super) model: PathBuf,
    pub(super) job: Job,
    pub(super) rounds: Vec<Folded>,
    /// What was before each of the rounds, and what is after the last one.
    pub(super) tips: Vec<Tip>,
}

/// Signs nothing, and looks at every signature.
struct Looks;

impl Seal for Looks {
    fn sign(&self, _: &[u8]) -> Signature {
        Signature([0; 32], [0; 32])
    }

    fn is_signed(&self, signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool {
        is_signed(signer, bytes, signature)
    }
}

impl Chain {
    /// The chain of a job that is over, as a node writes it.
    pub(super) fn of(s: &Scenario, node: &Node, name: &str) -> Result<Self> {
        let model = s.path(&format!("{name}.safetensors"));
        node.cli(&["fed", "model", "export", name, &model.display().to_string()])?.success()?;
        let mut reader = ChainReader::open(fs::File::open(model.with_extension("chain"))?)?;
        let (job, mut tip) = (reader.told().job.clone(), reader.told().first()?);
        let (mut rounds, mut tips) = (Vec::new(), vec![tip.clone()]);
        while let Some(folded) = reader.round()? {
            tip = tip.fold(&job, &folded, &Looks)?;
            tips.push(tip.clone());
            rounds.push(folded);
        }
        Ok(Self { model, job, rounds, tips })
    }

    pub(super) fn last(&self) -> Result<&Tip> {
        self.tips.last().context("a chain without a beginning")
    }
}

fn job(name: &str, rounds: u64, (least, target): (usize, usize), more: &str) -> String {
    let job = learning::job(rounds).replace("\"wear\"", &format!("\"{name}\""));
    let job = job.replace("min_clients = 3", &format!("min_clients = {least}"));
    let job = job.replace("target = 4\n", &format!("target = {target}\n"));
    // All are asked after it: long beside a round also where the machine is slow.
    let job = match more {
        LOTS => job.replace("patience_ms = 1500", "patience_ms = 4000"),
        _ => job,
    };
    // A table's place is before another table's, a field's before the first one's.
    let before = if more.starts_with('[') { "[pace]" } else { "[model]" };
    job.replace(before, &format!("{more}{before}"))
}

fn submit(s: &Scenario, node: &Node, text: &str) -> Result<()> {
    let file = s.path("job.toml");
    fs::write(&file, text)?;
    node.cli(&["fed", "submit", &file.display().to_string()])?.success().map(drop)
}

#[test]
fn what_a_strategy_a_norm_and_a_lot_need_is_kept_through_kills() {
    scenario(|s| {
        let specs: Vec<NodeSpec> = (0..NODES)
            .map(|node| learning::with_data(s.node(&format!("n{node}")), node as u64))
            .collect::<Result<_>>()?;
        let mut nodes = s.mesh(&specs)?;
        s.step("a job that asks half of the clients, and one whose norm follows the updates");
        submit(s, &nodes[0], &job("lots", ROUNDS, (2, 2), LOTS))?;
        submit(s, &nodes[0], &job("norms", ROUNDS, (3, 4), FOLLOWS))?;
        for name in ["lots", "norms"] {
            same_end(&nodes, name, ROUNDS)?;
        }
        who_was_asked_contributes(s, &Chain::of(s, &nodes[0], "lots")?)?;
        a_norm_follows(s, &Chain::of(s, &nodes[0], "norms")?)?;

        s.step("SCAFFOLD: two nodes are killed, one after the other, and are back");
        submit(s, &nodes[0], &job("variates", MORE_ROUNDS, (3, NODES), SCAFFOLD))?;
        for at in KILLED {
            let begun = until(&nodes[at], "variates", "what counts", |job| {
                job["counted"].as_u64() >= Some(2)
            })?;
            ensure!(begun["round"].as_u64() < Some(MORE_ROUNDS - 4), "it is over early: {begun}");
            nodes[at].kill()?;
            nodes[at] = specs[at].up(s, &[])?;
        }
        same_end(&nodes, "variates", MORE_ROUNDS)?;
        control_variates_are_kept(s, &specs, &nodes)
    });
}

/// Half of the nodes is asked by each record. More may be once a round has waited for its patience,
/// and train for a later round than the one that asked: few, where it is heeded at all.
fn who_was_asked_contributes(s: &Scenario, chain: &Chain) -> Result<()> {
    s.step("contributions are of those that the record before asked");
    let nodes: Vec<NodeId> = chain.last()?.done.keys().map(|client| client.node).collect();
    let Job { sample_permille, min_clients, pace, .. } = &chain.job;
    let was_asked = |tip: &Tip, node: &NodeId| {
        is_asked(&tip.record, node, *sample_permille, Micros(0), pace.patience)
    };
    let (mut all, mut unasked) = (0, 0);
    for folded in &chain.rounds {
        for entry in &folded.certificate.close.entries {
            let base = chain.tips.get(entry.header.base_round as usize).context("a base")?;
            // Where the lot fell on too few the others have to come.
            if nodes.iter().filter(|node| was_asked(base, node)).count() < *min_clients {
                continue;
            }
            all += 1;
            unasked += usize::from(!was_asked(base, &entry.header.id.client.node));
        }
    }
    s.say(&format!("{unasked} of {all} contributions are of nodes that were not asked"));
    ensure!(*sample_permille == 500 && all >= 12, "{all} contributions");
    ensure!(unasked * 4 <= all, "{unasked} of {all} were not asked");
    Ok(())
}

/// All nodes came to one record, which has the norm of each round in it.
fn a_norm_follows(s: &Scenario, chain: &Chain) -> Result<()> {
    s.step("the norm of the updates is another one from round to round");
    let norms: Vec<u32> = chain.tips.iter().map(|tip| tip.norm).collect();
    s.say(&format!("in units of 2^-20: {norms:?}"));
    ensure!(chain.job.follows_norm() && norms.iter().all(|norm| *norm > 0), "{norms:?}");
    let moved = norms.iter().zip(norms.iter().skip(1)).filter(|(before, after)| before != after);
    ensure!(moved.count() >= 3, "{norms:?}");
    for (round, folded) in (0..).zip(&chain.rounds) {
        for entry in &folded.certificate.close.entries {
            // What was shortened to another norm counts nowhere.
            ensure!(entry.header.base_round == round && entry.weight == 1, "{entry:?} in {round}");
        }
    }
    Ok(())
}

/// The servers' control variate is the mean of the clients', which a node that had lost its own
/// would have told apart: what it sends is the change of what it has.
fn control_variates_are_kept(s: &Scenario, specs: &[NodeSpec], nodes: &[Node]) -> Result<()> {
    s.step("what the nodes have on their disks adds up to what the chain has");
    let chain = Chain::of(s, &nodes[0], "variates")?;
    let last = chain.last()?;
    let common: Vec<f64> = last
        .server
        .control()
        .iter()
        .map(|units| *units as f64 / f64::from(1_u32 << MODEL_BITS))
        .collect();
    ensure!(common.len() == chain.job.dim, "{} values", common.len());
    let digest = until(&nodes[0], "variates", "its digest", |_| true)?;
    let digest = digest["job"].as_str().context("a digest")?;
    let mut own = Vec::new();
    for (spec, node) in specs.iter().zip(nodes) {
        is_written(node, last)?;
        node.terminate()?;
        own.push(control(spec, digest)?);
    }
    let apart = |but: Option<usize>| {
        let kept = || own.iter().enumerate().filter(move |(at, _)| Some(*at) != but);
        let sum = |value: usize| -> f64 {
            kept().filter_map(|(_, own)| own.get(value)).map(|own| f64::from(*own)).sum()
        };
        let far = |(value, common): (usize, &f64)| (sum(value) / NODES as f64 - common).abs();
        common.iter().enumerate().map(far).fold(0.0, f64::max)
    };
    let found = apart(None);
    ensure!(found < TOLERANCE, "{found} from the mean of the clients'");
    for at in KILLED {
        let without = apart(Some(at));
        s.say(&format!("{found:.2e} from their mean, {without:.2e} without n{at}'s"));
        ensure!(without > 20.0 * TOLERANCE, "n{at} has next to none: {without}");
    }
    Ok(())
}

/// Waits until a node has heard what became of its last contribution: of one that missed the last
/// round nothing will.
fn is_written(node: &Node, last: &Tip) -> Result<()> {
    let id: NodeId = node.id.parse()?;
    let own = last.done.iter().filter(|(client, _)| client.node == id);
    let ended = own.map(|(_, number)| *number).max().unwrap_or_default();
    let is_so = |job: &serde_json::Value| {
        let own = &job["clients"][0];
        own["under_way"].is_null() || own["written"].as_u64() > Some(ended)
    };
    until(node, "variates", "the end of its contributions", is_so).map(drop)
}

/// The control variate that a node which was ended has on its disk.
fn control(spec: &NodeSpec, job: &str) -> Result<Vec<f32>> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(&spec.home.join("state.redb")).await?;
        let found: Option<Vec<f32>> = store.load(&format!("federated/{job}/client/control"))?;
        store.close().await;
        found.with_context(|| format!("{} has no control variate", spec.name))
    })
}
