//! `cargo xtask bench learning`: ten clients on five real nodes on this machine learn real digits
//! together; the node that proposes is killed in the middle of its round, and comes back.
//!
//! Owns the show: how the digits are divided (two shards by label for each client, so that none has
//! seen more than a few kinds), what is started, what is looked at, and the picture at the end.
//! With `--nodes 10` each client has a node of its own. The nodes are the shipped program, told by
//! its own commands; nothing is measured in it that a user could not see. How accurate single
//! strategies become is `bench federated`'s.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use selvedge_tests::report::Report;
use selvedge_tests::rounds::{self, Hunt, Killed};
use selvedge_tests::{Deadline, Node, NodeSpec, Scenario, Stopwatch, digits, places};
use selvedge_train::curve::svg;
use selvedge_train::{Examples, Split, split};
use serde_json::Value;

/// Clients, each with digits of its own.
const CLIENTS: usize = 10;
/// Nodes unless told otherwise: each is two clients, and all five are anchors.
const NODES: usize = 5;
/// Rounds unless told otherwise: most of what there is to learn is learned by then.
const ROUNDS: u64 = 20;
/// The next node that proposes once so many rounds are over dies.
const KILLED_AFTER: u64 = 4;
/// It is started again when so many more are: the others have learned on without it by then.
const BACK_AFTER: u64 = 4;
/// How long somebody may take to propose and be caught: some rounds.
const CATCH_S: u64 = 120;
/// What the job is called.
const JOB: &str = "digits";
/// Of a hundred digits at most so many are told wrong after the last round: FedAvg comes to 13 on
/// these digits in 30 rounds when all ten clients live.
const WRONG: f64 = 25.0;
/// The longest that all of it may take: a round of ten clients on two cores takes seconds.
const LONGEST_S: u64 = 540;
/// Letters of a bar that stands for a hundred percent.
const BAR: usize = 40;

fn main() -> Result<()> {
    let (mut as_json, mut rounds, mut nodes) = (false, ROUNDS, NODES);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => as_json = true,
            "--rounds" => rounds = words.next().context("--rounds N")?.parse()?,
            "--nodes" => nodes = words.next().context("--nodes N")?.parse()?,
            other => bail!("unknown option `{other}`; there are --json, --rounds N and --nodes N"),
        }
    }
    let least = KILLED_AFTER + BACK_AFTER + 2;
    ensure!(rounds >= least, "a show needs {least} rounds or more");
    ensure!([5, 10].contains(&nodes), "the ten clients live on 5 nodes or on 10");
    let scenario = Scenario::new()?;
    let shown = learn(&scenario, rounds, nodes);
    if shown.is_err() {
        scenario.show();
    }
    let (report, picture) = shown?;
    scenario.say(&format!("the curve is in {}", picture.display()));
    report.end(as_json)
}

fn learn(s: &Scenario, rounds: u64, count: usize) -> Result<(Report, PathBuf)> {
    let mut report = Report::default();
    report.heading(&format!(
        "ten clients on {count} nodes, five anchors, two kinds of digits each; sums that nobody \
         takes apart"
    ));
    let all = digits::load().context("reading the digits")?.train;
    let parts = split(&all, CLIENTS, Split::Shards(2), 1)?;
    let each = CLIENTS / count;
    let specs = parts.chunks(each).enumerate().map(|(at, parts)| with_digits(s, at, parts));
    let specs = specs.collect::<Result<Vec<_>>>()?;
    let mut nodes = mesh(s, &specs)?;
    let file = s.path("job.toml");
    fs::write(&file, job(rounds, count))?;
    nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.success()?;
    let begun = Stopwatch::start();
    let shown = follow(s, &specs, &mut nodes, rounds)?;
    let took = begun.elapsed().as_secs_f64();
    let deadline = Deadline::patient();
    let ends = nodes.iter().map(|node| deadline.until("the end", || ended(node, rounds)));
    let ends = ends.collect::<Result<Vec<Value>>>()?;
    let is_same = |end: &Value| end["model"] == ends[0]["model"];
    ensure!(ends.iter().all(is_same), "they came to different models: {ends:?}");
    s.say(&format!("{} nodes hold the same model", ends.len()));
    let contributed = ends[0]["contributions"].as_array().context("contributions")?.len();
    ensure!(contributed == count, "{contributed} nodes contributed");
    let clients = |end: &Value| end["parts"].as_array().map_or(0, Vec::len).max(1);
    let clients: usize = ends.iter().map(clients).sum();
    ensure!(clients == CLIENTS, "{clients} clients took part");
    let last = shown.points.last().context("no round was shown")?.1;
    report.note("told wrong after the last round, percent", 100.0 * (1.0 - last), Some(WRONG));
    report.note("seconds a round", took / rounds as f64, None);
    let picture = places::repository().join("target").join("learning.svg");
    fs::write(&picture, drawn(&shown, &ends))
        .with_context(|| format!("cannot write {}", picture.display()))?;
    Ok((report, picture))
}

/// What the terminal showed, and beside it each node by its own digits.
fn drawn(shown: &Shown, ends: &[Value]) -> String {
    let share = |one: &Value| {
        let [round, right, all] = ["round", "right", "examples"].map(|what| one[what].as_u64());
        Some((round?, right? as f64 / all?.max(1) as f64))
    };
    let own = |end: &Value| -> Vec<(u64, f64)> {
        end["measured"].as_array().into_iter().flatten().filter_map(share).collect()
    };
    let own: Vec<_> = ends.iter().map(own).collect();
    svg("digits told right: all nodes together, each alone", &shown.points, &own, &shown.marks)
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

/// A job as a node shows it once it is done there.
fn ended(node: &Node, rounds: u64) -> Result<Option<Value>> {
    Ok(Some(job_of(node)?).filter(|job| job["round"] == rounds))
}

/// What was shown.
#[derive(Default)]
struct Shown {
    /// The share of all digits that are held out which was told right, by round.
    points: Vec<(u64, f64)>,
    /// What happened in a round, which is the one that was over next.
    marks: Vec<(u64, String)>,
}

/// Shows each round as it ends, kills the node that proposes in the middle of one and starts it
/// again later.
fn follow(s: &Scenario, specs: &[NodeSpec], nodes: &mut [Node], rounds: u64) -> Result<Shown> {
    let deadline = Deadline::secs(LONGEST_S);
    let mut shown = Shown::default();
    let (mut next, mut back_after, mut dead) = (0, None, 0);
    loop {
        let share = deadline.until(&format!("round {next}"), || measured(nodes, next))?;
        let bar = "█".repeat((share * BAR as f64) as usize);
        s.say(&format!("round {next:>2}  {bar:<BAR$} {:.1} %", share * 100.0));
        shown.points.push((next, share));
        if next == KILLED_AFTER {
            let killed = one_dies(s, specs, nodes)?;
            let mark = format!("{} killed as it proposes", nodes[killed.node].name());
            shown.marks.push((killed.round + 1, mark));
            back_after = Some(killed.round + BACK_AFTER);
            dead = killed.node;
        }
        if back_after.is_some_and(|after| next >= after || next == rounds) {
            back_after = None;
            nodes[dead] = specs[dead].up(s, &[])?;
            s.say(&format!("{} is back, and goes on from its disk", nodes[dead].name()));
            shown.marks.push((next + 1, format!("{} is back", nodes[dead].name())));
        }
        if next == rounds {
            return Ok(shown);
        }
        next += 1;
    }
}

/// Kills whoever proposes next, in the middle of its round.
fn one_dies(s: &Scenario, specs: &[NodeSpec], nodes: &mut [Node]) -> Result<Killed> {
    let (among, deadline) = ((0, nodes.len()), Deadline::secs(CATCH_S));
    let hunt = Hunt { job: JOB, among, phases: rounds::PROPOSES, deadline };
    let killed = rounds::kill_a_proposer(s, (specs, nodes), hunt)?;
    let what = match killed.phase.as_str() {
        "asking" => "asked the anchors what they hold",
        _ => "proposed the set",
    };
    let (who, round) = (nodes[killed.node].name(), killed.round + 1);
    s.say(&format!(
        "{who} is killed in the middle of round {round}, while it {what}: no other node has the \
         end of that round"
    ));
    Ok(killed)
}

/// The share of all digits that are held out which is told right after a round; none before every
/// node that lives has measured it.
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
    Ok(Some(right as f64 / examples.max(1) as f64))
}

fn living(nodes: &[Node]) -> impl Iterator<Item = &Node> {
    nodes.iter().filter(|node| node.process.ended().is_none())
}

fn job_of(node: &Node) -> Result<Value> {
    // It may not have heard of the job yet.
    Ok(rounds::job(node, JOB)?.unwrap_or_else(|| serde_json::json!({ "measured": [] })))
}

/// The floor is of nodes: with one of them dead it must be reached.
fn job(rounds: u64, nodes: usize) -> String {
    let (floor, each) = (nodes - nodes / 5, CLIENTS / nodes);
    format!(
        "name = \"{JOB}\"\ndata = \"digits\"\nrounds = {rounds}\nmin_clients = {floor}\n\
         target = 8\nclients_per_node = {each}\n\
         [model]\nshape = {{ image = {{ channels = 1, height = 28, width = 28 }} }}\n\
         classes = 10\nhidden = [{{ dense = 100 }}]\n\
         [training]\nepochs = 2\nbatch = 32\nlearning_rate = 0.05\n[pace]\npatience_ms = 8000\n"
    )
}

/// A node whose home has these digits, as the MNIST files hold them: one part of its data for each
/// of its clients.
fn with_digits(s: &Scenario, at: usize, parts: &[Examples]) -> Result<NodeSpec> {
    let spec = s.node(&format!("n{at}"));
    fs::create_dir_all(&spec.home)?;
    let mut config = String::new();
    for (one, part) in parts.iter().enumerate() {
        let (images, labels) = (format!("images{one}"), format!("labels{one}"));
        let (images, labels) = (spec.home.join(images), spec.home.join(labels));
        let count = u32::try_from(part.len())?;
        let bytes = part.values().iter().map(|value| (value * 255.0).round() as u8);
        write(&images, &[0x803, count, 28, 28], bytes)?;
        write(&labels, &[0x801, count], part.labels().iter().map(|label| *label as u8))?;
        config += &format!(
            "[[data]]\nname = \"digits\"\nkind = \"idx\"\nimages = \"{}\"\nlabels = \"{}\"\n",
            images.display(),
            labels.display()
        );
        if parts.len() > 1 {
            config += &format!("part = \"ward-{one}\"\n");
        }
    }
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec)
}

fn write(path: &Path, header: &[u32], rest: impl Iterator<Item = u8>) -> Result<()> {
    let header = header.iter().flat_map(|word| word.to_be_bytes());
    fs::write(path, header.chain(rest).collect::<Vec<u8>>())
        .with_context(|| path.display().to_string())
}
