//! Differential privacy over real nodes: what a node says it has spent is what the accountant says,
//! and whoever has spent what a job allows leaves it and says so.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_federated::privacy::Privacy;
use selvedge_federated::privacy::accountant::{MicroEpsilon, PicoDelta};
use selvedge_tests::{Node, NodeSpec, Scenario, scenario};
use serde_json::Value;

use super::learning;
use super::overheard::until;

/// Contributions of a node that the job allows.
const FEW: u64 = 2;
/// What a node's data may be in, in all jobs together.
const BOUND: u64 = 4;

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
    let text = fs::read_to_string(&path)?;
    fs::write(&path, format!("{text}epsilon = {}\n", written(of(BOUND))))?;
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

/// A round waits for all five as long as half a minute, so that few miss a set.
fn brief() -> String {
    job("brief", 9, FEW, 30_000)
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

fn submit(s: &Scenario, node: &Node, text: &str) -> Result<()> {
    let file = s.path("job.toml");
    fs::write(&file, text)?;
    node.cli(&["fed", "submit", &file.display().to_string()])?.success().map(drop)
}

#[test]
fn what_a_job_allows_is_spent_and_said() {
    scenario(|s| {
        let specs: Vec<NodeSpec> = (0..5)
            .map(|node| with_bound(s.node(&format!("n{node}")), node))
            .collect::<Result<_>>()?;
        let nodes = s.mesh(&specs)?;
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
        let mut left = 0;
        for node in &nodes {
            // Who missed a set waits with what it paid for: too few are left to close another.
            let job = until(node, "brief", "that it is spent", |job| {
                let count = counted(job, node.name());
                let is_out = is_said(job, &said) || count < FEW;
                let paid = job["data_epsilon_millionths"].as_u64();
                let is_paid = paid == Some(of(FEW.min(count + 1)));
                job["round"].as_u64() >= Some(FEW) && is_paid && is_out
            })?;
            let count = counted(&job, node.name());
            ensure!(number(&job, "epsilon_millionths")? == of(FEW) && count <= FEW, "{job}");
            if count < FEW {
                continue;
            }
            left += 1;
            ensure!(number(&job, "epsilon_spent_millionths")? == of(FEW), "{job}");
            let told = node.cli(&["fed", "status", "brief"])?.success()?;
            let spent = format!("{0} of {0} spent here; {0} of these data", printed(of(FEW)));
            ensure!(told.contains(&spent), "{told}");
        }
        // Two sets of three nodes of five have one in common.
        ensure!(left > 0, "two rounds are over, and nobody was in both");
        Ok(())
    });
}
