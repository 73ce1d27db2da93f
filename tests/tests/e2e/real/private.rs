//! Differential privacy over real nodes: what a node says it has spent is what the accountant says,
//! whoever has spent what a job allows leaves it and says so, no kill, no cut and no second job
//! makes a node's data spend more than their bound, and where they have none, a job that is run
//! again gives no more than it allows.
//!
//! Who misses which round is up to the machine. What is held is true whoever does: waited for is
//! only what must come.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_federated::privacy::Privacy;
use selvedge_federated::privacy::accountant::{MicroEpsilon, PicoDelta};
use selvedge_tests::{Bridge, Deadline, Host, Node, NodeSpec, Scenario, scenario};
use serde_json::Value;

use super::learning;
use super::overheard::until;

/// Nodes with data, all of which are anchors: the smallest job has so many.
const NODES: usize = 5;
/// Distinct nodes of a set.
const FLOOR: u64 = 3;
/// Contributions of a node that the short job allows.
const FEW: u64 = 2;
/// Rounds of the long job, which allows a contribution in each: on a slow machine some pass while a
/// node starts again.
const ROUNDS: u64 = 12;
/// What a node's data may be in, in all jobs together: both jobs, and a few more.
const BOUND: u64 = FEW + ROUNDS + 3;
/// More rounds than there can be: all data together have not so many contributions.
const ENDLESS: u64 = NODES as u64 * BOUND / FLOOR + 1;
/// How long their rounds wait for who is not there: a round takes less where nobody is missed.
const PATIENCE_MS: u64 = 1_000;
/// The nodes that are killed and cut off; the first one is the steward's.
const KILLED: usize = 1;
const CUT: usize = 3;
/// A job that stalls has come to that by then: some rounds in which nodes are missed.
const STALLS_SECS: u64 = 120;

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
        "name = \"{name}\"\ndata = \"line3\"\nrounds = {rounds}\nmin_clients = {FLOOR}\n\
         target = {NODES}\n\
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

fn cancel(nodes: &[Node], name: &str) -> Result<()> {
    nodes[0].cli(&["fed", "cancel", name])?.success()?;
    for node in nodes {
        Deadline::patient().until(&format!("{name} gone at {}", node.name()), || {
            let told = node.cli(&["fed", "status", "--json"])?.success()?;
            let jobs: Vec<Value> = serde_json::from_str(&told)?;
            Ok(jobs.is_empty().then_some(()))
        })?;
    }
    Ok(())
}

/// What is known of each node's data, in contributions of all jobs together.
#[derive(Default)]
struct Books {
    /// Those of the jobs that are over.
    before: [u64; NODES],
    /// With the present one: what its chain has, and what anchors said that they hold. All of that
    /// has left the node, and was spent before it did.
    left: [u64; NODES],
    /// What must be spent at least.
    spent: [u64; NODES],
}

impl Books {
    /// Holds what a node says of its data against all that is known; what they have spent.
    fn look(&mut self, at: usize, node: &Node, name: &str) -> Result<u64> {
        let is_told = |job: &Value| job["data_epsilon_millionths"].is_u64();
        let job = until(node, name, "what its data have spent", is_told)?;
        let told = number(&job, "data_epsilon_millionths")?;
        let spent = (0..=BOUND).find(|count| of(*count) == told);
        let spent = spent.with_context(|| {
            format!("{told} of {} is what no {BOUND} contributions cost: {job}", of(BOUND))
        })?;
        let receipted = job["clients"][0]["receipted"].as_u64().unwrap_or(0);
        let left = self.before[at] + receipted.max(counted(&job, node.name()));
        self.left[at] = self.left[at].max(left);
        let least = self.left[at].max(self.spent[at]);
        ensure!(spent >= least, "{}: {spent}, and {least} before: {job}", node.name());
        self.spent[at] = spent;
        let own = job["epsilon_spent_millionths"].as_u64().unwrap_or(0);
        ensure!(own <= number(&job, "epsilon_millionths")? && own <= told, "{job}");
        Ok(spent)
    }

    fn look_at_all(&mut self, nodes: &[Node], name: &str) -> Result<()> {
        for (at, node) in nodes.iter().enumerate() {
            self.look(at, node, name)?;
        }
        Ok(())
    }

    /// A node was killed. It may have shown one contribution that was on its way to the disk: that
    /// one had not left, and is not spent.
    fn killed(&mut self, at: usize) {
        self.spent[at] = self.spent[at].saturating_sub(1).max(self.left[at]);
    }

    /// A job is over, and another one begins its numbers anew.
    fn is_over(&mut self) {
        self.before = self.left;
    }
}

/// Killed as by a loss of power, and started again.
fn kill(
    s: &Scenario,
    (specs, nodes): (&[NodeSpec], &mut [Node]),
    at: usize,
    books: &mut Books,
) -> Result<()> {
    nodes[at].kill()?;
    books.killed(at);
    nodes[at] = specs[at].up(s, &[])?;
    Ok(())
}

#[test]
fn what_may_be_spent_is_spent_and_said_and_no_more_whatever_happens() {
    scenario(|s| {
        let mut bridge = Bridge::new("spent")?;
        let hosts: Vec<Host> = (0..NODES).map(|_| bridge.host()).collect::<Result<_>>()?;
        let mut specs = Vec::new();
        for (node, host) in (0..).zip(&hosts) {
            specs.push(with_bound(host.node(s, &format!("n{node}")), node)?);
        }
        let mut nodes = s.mesh(&specs)?;
        let mut books = Books::default();
        what_a_job_allows(s, &nodes)?;
        books.look_at_all(&nodes, "brief")?;
        cancel(&nodes, "brief")?;
        books.is_over();

        a_kill_and_a_cut(s, &hosts, (&specs, &mut nodes), &mut books)?;
        cancel(&nodes, "wear")?;
        books.is_over();

        what_is_left(s, (&specs, &mut nodes), &mut books)
    });
}

#[test]
fn a_job_that_is_run_again_gets_no_epsilon_twice_where_data_have_no_bound() {
    scenario(|s| {
        let spec = |node: u64| learning::with_data(s.node(&format!("n{node}")), node);
        let specs: Vec<NodeSpec> = (0..NODES as u64).map(spec).collect::<Result<_>>()?;
        let nodes = s.mesh(&specs)?;
        what_a_job_allows(s, &nodes)?;
        cancel(&nodes, "brief")?;

        s.step("run again, it is refused: in each of its two rounds were at least three of five");
        let file = s.path("job.toml");
        fs::write(&file, brief())?;
        let refused = nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.failure()?;
        ensure!(refused.contains("too few"), "{refused}");

        s.step("started all the same, nobody gives more than it allows");
        nodes[0].cli(&["fed", "submit", &file.display().to_string(), "--anyway"])?.success()?;
        let used_up = "the data have no cap, so what they gave to all jobs counts";
        let mut out = 0;
        for node in &nodes {
            // Who was in one round only may have one contribution left, and waits with it.
            let job = until(node, "brief", "that it gives no more, or the last of it", |job| {
                let gives = job["clients"][0]["written"].as_u64() > Some(0);
                is_said(job, used_up) || gives
            })?;
            out += u64::from(is_said(&job, used_up));
            let spent = number(&job, "data_epsilon_millionths")?;
            ensure!(spent <= of(FEW), "{spent} of {}: {job}", of(FEW));
        }
        ensure!(out > 0, "two rounds are over, and nobody was in both");
        cancel(&nodes, "brief")?;

        s.step("a job that allows more goes on from what was spent");
        submit(s, &nodes[0], &job("brief", 1, FEW + 2, PATIENCE_MS))?;
        let mut most = 0;
        for node in &nodes {
            let end = until(node, "brief", "the end", |job| job["round"].as_u64() == Some(1))?;
            most = most.max(number(&end, "data_epsilon_millionths")?);
        }
        ensure!(most > of(FEW), "three of five gave once more, and nobody has spent more");
        Ok(())
    });
}

/// The job's own bound: whoever has spent it leaves, and says so.
fn what_a_job_allows(s: &Scenario, nodes: &[Node]) -> Result<()> {
    s.step("what a job would cost is what the accountant says");
    let file = s.path("job.toml");
    fs::write(&file, brief())?;
    let told = nodes[0].cli(&["fed", "check", &file.display().to_string()])?.success()?;
    ensure!(told.contains(&format!("{} for all rounds", printed(of(9)))), "{told}");
    let most = format!("may spend {}: it leaves after {FEW}", printed(of(FEW)));
    ensure!(told.contains(&most), "{told}");

    s.step("nodes spend what it allows, say that it is spent, and contribute no more");
    submit(s, &nodes[0], &brief())?;
    let said = format!("contributes no more: its epsilon is spent, {} on this", printed(of(FEW)));
    let mut left = 0;
    for node in nodes {
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
}

/// Neither gives back what a node has spent, nor makes it spend again what it has.
fn a_kill_and_a_cut(
    s: &Scenario,
    hosts: &[Host],
    (specs, nodes): (&[NodeSpec], &mut [Node]),
    books: &mut Books,
) -> Result<()> {
    s.step("a node is killed in the middle of a job: what it spent stays spent");
    submit(s, &nodes[0], &job("wear", ROUNDS, ROUNDS, PATIENCE_MS))?;
    until(&nodes[KILLED], "wear", "a round", |job| job["round"].as_u64() >= Some(1))?;
    let before = books.look(KILLED, &nodes[KILLED], "wear")?;
    kill(s, (specs, &mut *nodes), KILLED, books)?;
    let after = books.look(KILLED, &nodes[KILLED], "wear")?;
    s.say(&format!("{before} contributions were spent before, {after} after"));

    s.step("another one is cut off: it pays for what it trained, and waits");
    let open = number(&until(&nodes[0], "wear", "its round", |_| true)?, "round")?;
    ensure!(open < ROUNDS, "it was over before the cut");
    hosts[CUT].unplug()?;
    let before = books.look(CUT, &nodes[CUT], "wear")?;
    let next = ROUNDS.min(open + 2);
    until(&nodes[0], "wear", "rounds without it", |job| job["round"].as_u64() >= Some(next))?;
    // What was under way when the cable went may still have come.
    let after = books.look(CUT, &nodes[CUT], "wear")?;
    ensure!(after <= before + 2, "{after} after {before}, and nobody heard of any");
    hosts[CUT].plug()?;

    s.step("at the end each has spent for all that it gave, and within its bound");
    for (at, node) in nodes.iter().enumerate() {
        let end = until(node, "wear", "the end", |job| job["round"].as_u64() == Some(ROUNDS))?;
        let spent = books.look(at, node, "wear")?;
        s.say(&format!("{}: {} counted, {spent} spent", node.name(), counted(&end, node.name())));
    }
    Ok(())
}

/// A second job on the same data goes on with what is left of them. It has more rounds than they
/// have contributions: it stalls, since there is no floor of nodes any more.
fn what_is_left(
    s: &Scenario,
    (specs, nodes): (&[NodeSpec], &mut [Node]),
    books: &mut Books,
) -> Result<()> {
    s.step("another job on the same data spends what is left, and those that have no more say so");
    submit(s, &nodes[0], &job("wear", ENDLESS, ENDLESS, PATIENCE_MS))?;
    let used_up = "the data's privacy is used up";
    let is_out = |job: &Value| is_said(job, used_up);
    let out = Deadline::secs(STALLS_SECS).until("too few nodes with something left", || {
        let mut out = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            books.look(at, node, "wear")?;
            let job = until(node, "wear", "it", |_| true)?;
            out.extend(is_out(&job).then_some((at, job)));
        }
        Ok((out.len() as u64 >= FLOOR).then_some(out))
    })?;
    let most = format!(" of {}; ", printed(of(BOUND)));
    for (at, job) in &out {
        ensure!(is_said(job, &most) && is_said(job, "raise the cap of this source"), "{job}");
        ensure!(number(job, "round")? < ENDLESS, "rounds without contributions: {job}");
        // To the last contribution that fits, and none beyond.
        let spent = books.look(*at, &nodes[*at], "wear")?;
        ensure!(spent == BOUND, "{spent} of {BOUND}, and none fits: {job}");
    }

    s.step("one more job on these data is refused before it starts");
    let file = s.path("job.toml");
    fs::write(&file, job("more", ENDLESS, ENDLESS, PATIENCE_MS))?;
    let refused = nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.failure()?;
    ensure!(refused.contains("too few"), "{refused}");

    s.step("killed and started again, it has as much as before, and says so once more");
    let (at, _) = out.into_iter().find(|(at, _)| *at > 0).context("one that may be killed")?;
    kill(s, (specs, &mut *nodes), at, books)?;
    until(&nodes[at], "wear", "why not", is_out)?;
    let spent = books.look(at, &nodes[at], "wear")?;
    ensure!(spent == BOUND, "{spent} of {BOUND}: given back or overspent");
    books.look_at_all(nodes, "wear")
}
