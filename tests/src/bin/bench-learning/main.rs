//! `cargo xtask bench learning`: ten real nodes on this machine learn real digits together, and one
//! of them is killed in the middle.
//!
//! Owns the show: how the digits are divided (two shards by label for each node, so that none has
//! seen more than a few kinds), what is started, what is looked at, and the picture at the end. The
//! nodes are the shipped program, told by its own commands; nothing is measured in it that a user
//! could not see. How accurate single strategies become is `bench federated`'s.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use selvedge_tests::report::Report;
use selvedge_tests::{Deadline, Node, NodeSpec, Scenario, Stopwatch, digits, places};
use selvedge_train::{Examples, Split, split};
use serde_json::Value;

/// Nodes, each with its own digits; five of them are anchors.
const NODES: usize = 10;
/// Rounds unless told otherwise: most of what there is to learn is learned by then.
const ROUNDS: u64 = 20;
/// An anchor dies when so many rounds are over.
const KILLED_AFTER: u64 = 4;
/// Of a hundred digits at most so many are told wrong after the last round: FedAvg comes to 13 on
/// these digits in 30 rounds when all ten nodes live.
const WRONG: f64 = 25.0;
/// The longest that all of it may take: a round of ten nodes on two cores takes seconds.
const LONGEST_S: u64 = 540;
/// Letters of a bar that stands for a hundred percent.
const BAR: usize = 40;

fn main() -> Result<()> {
    let (mut as_json, mut rounds) = (false, ROUNDS);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => as_json = true,
            "--rounds" => rounds = words.next().context("--rounds N")?.parse()?,
            other => bail!("unknown option `{other}`; there are --json and --rounds N"),
        }
    }
    ensure!(rounds > KILLED_AFTER + 2, "a show needs more than {} rounds", KILLED_AFTER + 2);
    let scenario = Scenario::new()?;
    let shown = learn(&scenario, rounds);
    if shown.is_err() {
        scenario.show();
    }
    let (report, picture) = shown?;
    scenario.say(&format!("the curve of one node is in {}", picture.display()));
    report.end(as_json)
}

fn learn(s: &Scenario, rounds: u64) -> Result<(Report, PathBuf)> {
    let mut report = Report::default();
    report
        .heading("ten nodes, five anchors, two kinds of digits each; sums that nobody takes apart");
    let all = digits::load(0).context("reading the digits")?.train;
    let parts = split(&all, NODES, Split::Shards(2), 1)?;
    let specs = parts.iter().enumerate().map(|(at, part)| with_digits(s, at, part));
    let nodes = mesh(s, &specs.collect::<Result<Vec<_>>>()?)?;
    let file = s.path("job.toml");
    fs::write(&file, job(rounds))?;
    nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.success()?;
    let begun = Stopwatch::start();
    let accuracy = follow(s, &nodes, rounds)?;
    let took = begun.elapsed().as_secs_f64();
    let ends = living(&nodes).map(|node| Ok(job_of(node)?["model"].clone()));
    let ends = ends.collect::<Result<Vec<Value>>>()?;
    ensure!(ends.iter().all(|end| *end == ends[0]), "they came to different models: {ends:?}");
    s.say(&format!("{} nodes hold the same model", ends.len()));
    report.note("told wrong after the last round, percent", 100.0 - accuracy, Some(WRONG));
    report.note("seconds a round", took / rounds as f64, None);
    let picture = places::repository().join("target").join("learning.svg");
    let words = ["fed", "watch", "digits", "--picture", &picture.display().to_string()];
    nodes[0].cli(&words)?.success()?;
    Ok((report, picture))
}

/// The nodes, in a mesh: one after the other, as a node admits a few at a time only.
fn mesh(s: &Scenario, specs: &[NodeSpec]) -> Result<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::new();
    for spec in specs {
        let code = nodes.first().map(Node::invite).transpose()?;
        let join: Vec<&str> = code.iter().flat_map(|code| ["--join", code.as_str()]).collect();
        nodes.push(spec.up(s, &join)?);
    }
    s.meet(&nodes)?;
    Ok(nodes)
}

/// Shows each round as it ends, and kills a node in the middle of one; the last accuracy.
fn follow(s: &Scenario, nodes: &[Node], rounds: u64) -> Result<f64> {
    let deadline = Deadline::secs(LONGEST_S);
    let (mut shown, mut last) = (None, 0.0);
    while shown != Some(rounds) {
        let next = shown.map_or(0, |round| round + 1);
        last = deadline.until(&format!("round {next}"), || measured(nodes, next))?;
        let bar = "█".repeat((last / 100.0 * BAR as f64) as usize);
        s.say(&format!("round {next:>2}  {bar:<BAR$} {last:.1} %"));
        if next == KILLED_AFTER {
            let victim = an_anchor(nodes)?;
            victim.kill()?;
            s.say(&format!("{} is killed in the middle of the next round", victim.name()));
        }
        shown = Some(next);
    }
    Ok(last)
}

/// How many of all digits that are held out are told right after a round, in percent; none before
/// every node that lives has measured it.
fn measured(nodes: &[Node], round: u64) -> Result<Option<f64>> {
    let (mut right, mut examples) = (0, 0);
    for node in living(nodes) {
        let job = job_of(node)?;
        let all = job["measured"].as_array().context("measured")?;
        // A busy node may have left a round out for the one after it.
        let found = all.iter().find(|one| one["round"].as_u64() >= Some(round));
        let Some(found) = found else { return Ok(None) };
        right += found["right"].as_u64().context("right")?;
        examples += found["examples"].as_u64().context("examples")?;
    }
    Ok(Some(100.0 * right as f64 / examples.max(1) as f64))
}

/// An anchor that is to die: any but the first node, which is asked.
fn an_anchor(nodes: &[Node]) -> Result<&Node> {
    let job = job_of(&nodes[0])?;
    let anchors = job["anchors"].as_array().context("anchors")?;
    let dies = nodes.iter().skip(1).find(|node| anchors.iter().any(|name| *name == node.name()));
    dies.context("no anchor is known")
}

fn living(nodes: &[Node]) -> impl Iterator<Item = &Node> {
    nodes.iter().filter(|node| node.process.ended().is_none())
}

fn job_of(node: &Node) -> Result<Value> {
    let told = node.cli(&["fed", "status", "digits", "--json"])?;
    let jobs: Vec<Value> = match told.success() {
        Ok(text) => serde_json::from_str(&text)?,
        // It has not heard of the job yet.
        Err(_) => Vec::new(),
    };
    Ok(jobs.into_iter().next().unwrap_or_else(|| serde_json::json!({ "measured": [] })))
}

fn job(rounds: u64) -> String {
    format!(
        "name = \"digits\"\ndata = \"digits\"\nrounds = {rounds}\nmin_clients = 8\ntarget = 9\n\
         [model]\nshape = {{ image = {{ channels = 1, height = 28, width = 28 }} }}\n\
         classes = 10\nhidden = [{{ dense = 100 }}]\n\
         [training]\nepochs = 2\nbatch = 32\nlearning_rate = 0.05\n[pace]\npatience_ms = 8000\n"
    )
}

/// A node whose home has these digits, as the MNIST files hold them.
fn with_digits(s: &Scenario, at: usize, part: &Examples) -> Result<NodeSpec> {
    let spec = s.node(&format!("n{at}"));
    fs::create_dir_all(&spec.home)?;
    let (images, labels) = (spec.home.join("images"), spec.home.join("labels"));
    let count = u32::try_from(part.len())?;
    let bytes = part.values().iter().map(|value| (value * 255.0).round() as u8);
    write(&images, &[0x803, count, 28, 28], bytes)?;
    write(&labels, &[0x801, count], part.labels().iter().map(|label| *label as u8))?;
    let config = format!(
        "[[data]]\nname = \"digits\"\nkind = \"idx\"\nimages = \"{}\"\nlabels = \"{}\"\n",
        images.display(),
        labels.display()
    );
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec)
}

fn write(path: &Path, header: &[u32], rest: impl Iterator<Item = u8>) -> Result<()> {
    let header = header.iter().flat_map(|word| word.to_be_bytes());
    fs::write(path, header.chain(rest).collect::<Vec<u8>>())
        .with_context(|| path.display().to_string())
}
