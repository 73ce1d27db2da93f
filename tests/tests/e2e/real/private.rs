//! Differential privacy over real nodes: what a node says it has spent is what the accountant says,
//! and no second run of a job, no kill and no start spends more than the data's bound.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_federated::privacy::Privacy;
use selvedge_federated::privacy::accountant::{MicroEpsilon, PicoDelta};
use selvedge_tests::{Deadline, Node, NodeSpec, Scenario, scenario};
use serde_json::Value;

use super::learning;
use super::overheard::until;

/// Contributions of a node that the short job allows, and those of the long one, which has as many
/// rounds.
const FEW: u64 = 2;
const MANY: u64 = 10;
/// What one node's data may be in, in all jobs together: both jobs, and two rounds of a second run.
const BOUND: u64 = FEW + MANY + 2;
/// The node whose data are bounded so; the others' have room for everything.
const SHORT_OF: usize = 1;

/// What a job promises; the library's arithmetic is the accountant.
fn privacy() -> Privacy {
    Privacy {
        noise_milli: 2_000,
        norm: 1 << 20,
        honest: 2,
        delta: PicoDelta(10_000_000),
        epsilon: MicroEpsilon(0),
        adaptive: None,
    }
}

/// Epsilon of so many contributions, in millionths.
fn of(contributions: u64) -> u64 {
    privacy().spent(contributions).0
}

/// Millionths as a person writes them into a file.
fn written(millionths: u64) -> String {
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

/// The same as commands print them: hundredths, rounded up.
fn printed(millionths: u64) -> String {
    let hundredths = millionths.div_ceil(10_000);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn with_bound(spec: NodeSpec, node: u64) -> Result<NodeSpec> {
    let spec = learning::with_data(spec, node)?;
    let path = spec.home.join("config.toml");
    let most = if node == SHORT_OF as u64 { BOUND } else { 10 * BOUND };
    let text = fs::read_to_string(&path)?;
    fs::write(&path, format!("{text}epsilon = {}\n", written(of(most))))?;
    Ok(spec)
}

/// A job that allows a node so many contributions, and waits so long for who is not there.
fn job(name: &str, rounds: u64, contributions: u64, patience_ms: u64) -> String {
    format!(
        "name = \"{name}\"\ndata = \"line3\"\nrounds = {rounds}\nmin_clients = 3\ntarget = 5\n\
         [model]\nshape = {{ flat = 2 }}\nclasses = 2\nhidden = [{{ dense = 8 }}]\n\
         [training]\nepochs = 1\nbatch = 8\nlearning_rate = 0.2\n\
         [privacy]\nnoise = 2.0\nnorm = 1.0\nhonest = 2\ndelta = 1e-5\nepsilon = {}\n\
         [pace]\ntick_ms = 50\nstagger_ms = 100\ngather_ms = 150\npatience_ms = {patience_ms}\n",
        written(of(contributions))
    )
}

/// Everybody contributes to every round: the slowest machine comes to it within this.
fn brief() -> String {
    job("brief", 9, FEW, 30_000)
}

/// A node may be out for some rounds, which take a while then.
fn wear() -> String {
    job("wear", MANY, MANY, 4_000)
}

fn number(job: &Value, what: &str) -> Result<u64> {
    job[what].as_u64().with_context(|| format!("{what} in {job}"))
}

/// Contributions of a node that the chain has.
fn counted(job: &Value, node: &str) -> u64 {
    let all = job["contributions"].as_array().into_iter().flatten();
    let own = all.filter(|one| one["node"] == node);
    own.filter_map(|one| one["contributions"].as_u64()).sum()
}

fn is_said(job: &Value, what: &str) -> bool {
    let lines = job["lines"].as_array().into_iter().flatten();
    lines.filter_map(Value::as_str).any(|line| line.contains(what))
}

/// What all jobs have spent of a node's data is what the accountant says of so many contributions,
/// or of up to two more: one that missed the last round, and one whose node was killed between the
/// ledger's word and its own.
fn data_spent(job: &Value, contributions: u64) -> Result<u64> {
    let spent = number(job, "data_epsilon_millionths")?;
    let could = (contributions..=contributions + 2).map(of);
    ensure!(could.clone().any(|one| one == spent), "{spent} of {could:?} in {job}");
    Ok(spent)
}

/// A job once this is true of it and what the node says it has spent is what the accountant says
/// of its contributions: a node's client hears of the end of a round a moment after its anchor.
fn settled(node: &Node, name: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    until(node, name, "what the accountant says", |job| {
        let spent = job["epsilon_spent_millionths"].as_u64();
        is_so(job) && spent == Some(of(counted(job, node.name())))
    })
}

fn submit(s: &Scenario, node: &Node, text: &str) -> Result<()> {
    let file = s.path("job.toml");
    fs::write(&file, text)?;
    node.cli(&["fed", "submit", &file.display().to_string()])?.success().map(drop)
}

fn cancel(nodes: &[Node], name: &str) -> Result<()> {
    nodes[0].cli(&["fed", "cancel", name])?.success()?;
    for node in nodes {
        Deadline::patient().until("the job gone", || {
            let told = node.cli(&["fed", "status", "--json"])?.success()?;
            let jobs: Vec<Value> = serde_json::from_str(&told)?;
            Ok(jobs.is_empty().then_some(()))
        })?;
    }
    Ok(())
}

/// Killed as by a loss of power, and started again.
fn killed(s: &Scenario, nodes: &mut [Node], specs: &[NodeSpec]) -> Result<()> {
    nodes[SHORT_OF].kill()?;
    nodes[SHORT_OF] = specs[SHORT_OF].up(s, &[])?;
    Ok(())
}

#[test]
fn what_data_may_spend_is_spent_once_whatever_runs_again() {
    scenario(|s| {
        let mut specs = Vec::new();
        for node in 0..5 {
            specs.push(with_bound(s.node(&format!("n{node}")), node)?);
        }
        let mut nodes = s.mesh(&specs)?;
        a_job_that_allows_few(s, &nodes)?;
        let before = a_job_with_a_kill(s, &mut nodes, &specs)?;
        the_same_again(s, &mut nodes, &specs, before)
    });
}

/// The job's own bound: everybody leaves once it is spent, and says so.
fn a_job_that_allows_few(s: &Scenario, nodes: &[Node]) -> Result<()> {
    s.step("what a job would cost is what the accountant says");
    let file = s.path("job.toml");
    fs::write(&file, brief())?;
    let told = nodes[0].cli(&["fed", "check", &file.display().to_string()])?.success()?;
    ensure!(told.contains(&format!("{} for all rounds", printed(of(9)))), "{told}");
    let most = format!("may spend {}: it leaves after {FEW}", printed(of(FEW)));
    ensure!(told.contains(&most), "{told}");

    s.step("nodes spend what it allows, say that it is spent, and contribute no more");
    submit(s, &nodes[0], &brief())?;
    let said = format!("contributes no more: it has spent {} millionths", of(FEW));
    for node in nodes {
        let job = until(node, "brief", "that it is spent", |job| is_said(job, &said))?;
        ensure!(number(&job, "round")? == FEW && counted(&job, node.name()) == FEW, "{job}");
        for what in ["epsilon_spent_millionths", "epsilon_millionths", "data_epsilon_millionths"] {
            ensure!(number(&job, what)? == of(FEW), "{what} is not {}: {job}", of(FEW));
        }
        let told = node.cli(&["fed", "status", "brief"])?.success()?;
        let spent = format!("{0} of {0} spent here; {0} of these data", printed(of(FEW)));
        ensure!(told.contains(&spent), "{told}");
    }
    cancel(nodes, "brief")
}

/// A node is killed while it trains: nothing of what it spent is given back. What it has spent at
/// the end.
fn a_job_with_a_kill(s: &Scenario, nodes: &mut [Node], specs: &[NodeSpec]) -> Result<u64> {
    s.step("a job of all that its epsilon allows; a node is killed in the middle");
    submit(s, &nodes[0], &wear())?;
    let reached = |job: &Value| job["round"].as_u64() >= Some(2);
    let job = until(&nodes[SHORT_OF], "wear", "two rounds", reached)?;
    let before = data_spent(&job, FEW + counted(&job, nodes[SHORT_OF].name()))?;
    killed(s, nodes, specs)?;
    let shown = |job: &Value| job["data_epsilon_millionths"].as_u64() >= Some(before);
    until(&nodes[SHORT_OF], "wear", "what was spent before", shown)?;

    s.step("at the end every node has spent what the accountant says of its contributions");
    let mut spent = 0;
    for (at, node) in nodes.iter().enumerate() {
        let is_over = |job: &Value| job["round"].as_u64() == Some(MANY);
        let job = settled(node, "wear", is_over)?;
        let count = counted(&job, node.name());
        ensure!((MANY - 3..=MANY).contains(&count), "{count} contributions of {}", node.name());
        ensure!(number(&job, "epsilon_millionths")? == of(MANY), "{job}");
        let data = data_spent(&job, FEW + count)?;
        if at == SHORT_OF {
            spent = data;
        }
    }
    cancel(nodes, "wear")?;
    Ok(spent)
}

/// The same job is another one to the ledger: what is left is spent, and no more.
fn the_same_again(s: &Scenario, nodes: &mut [Node], specs: &[NodeSpec], before: u64) -> Result<()> {
    s.step("run again, it costs again; the node whose data are used up says so and stays out");
    submit(s, &nodes[0], &wear())?;
    let used_up = "the data's privacy is used up";
    let job = until(&nodes[SHORT_OF], "wear", "why not", |job| is_said(job, used_up))?;
    let most = format!("{} are allowed", of(BOUND));
    ensure!(is_said(&job, &most) && is_said(&job, "raise the cap of this source"), "{job}");
    // What is left of the bound is spent to the last contribution that fits, and none beyond.
    let spent = number(&job, "data_epsilon_millionths")?;
    ensure!(before < spent && spent == of(BOUND), "{before}, {spent} of {}", of(BOUND));
    let left = BOUND - (0..BOUND).rfind(|count| of(*count) == before).context("a count")?;
    let count = counted(&job, nodes[SHORT_OF].name());
    ensure!(count <= left, "it contributed {count} times of {left}: {job}");

    s.step("killed and started again, it has as much as before, and says why once more");
    ensure!(number(&job, "round")? < MANY - 2, "it is over too early: {job}");
    killed(s, nodes, specs)?;
    let job = until(&nodes[SHORT_OF], "wear", "why not", |job| is_said(job, used_up))?;
    ensure!(number(&job, "data_epsilon_millionths")? == spent, "given back or overspent: {job}");

    s.step("the others go on, by what their data have left");
    let next = number(&job, "round")? + 1;
    for (at, node) in nodes.iter().enumerate() {
        let has_passed = |job: &Value| job["round"].as_u64() >= Some(next);
        let job = settled(node, "wear", has_passed)?;
        let own = counted(&job, node.name());
        if at == SHORT_OF {
            ensure!(own <= left && number(&job, "data_epsilon_millionths")? == spent, "{job}");
        } else {
            ensure!(own > left, "{own} contributions of another: {job}");
        }
    }
    Ok(())
}
