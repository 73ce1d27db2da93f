//! A job of learning over real nodes: shared data stay home, an anchor is killed, all come to the
//! same model, and nothing is folded twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_tests::rounds::{self, Hunt, Killed};
use selvedge_tests::{Bridge, Deadline, Host, Node, NodeSpec, Scenario, Stopwatch, scenario};
use serde_json::Value;

const ROUNDS: u64 = 24;
/// Rounds of the job that outlasts a cut: three nodes of five take two seconds for one, and on a
/// slow machine many pass while a node starts again.
const MANY_ROUNDS: u64 = 60;

/// Rounds after which a contribution that did not count is recorded as expired, and one more.
const STALE: u64 = 6;

/// How long two of five machines are cut off.
const CUT: Duration = Duration::from_secs(20);

/// A job whose rounds take a fraction of a second.
pub(super) fn job(rounds: u64) -> String {
    format!(
        "name = \"wear\"\ndata = \"line3\"\nrounds = {rounds}\nmin_clients = 3\ntarget = 4\n\
         held_out_permille = 200\n\
         [model]\nshape = {{ flat = 2 }}\nclasses = 2\nhidden = [{{ dense = 16 }}]\n\
         [training]\nepochs = 4\nbatch = 8\nlearning_rate = 0.2\n\
         [pace]\ntick_ms = 50\nstagger_ms = 100\ngather_ms = 150\npatience_ms = 1500\n"
    )
}

/// What one machine of a line tells: machines wear where heat and humidity are far apart. Each node
/// sees another part of the world.
fn states(node: u64) -> String {
    let mut text = "heat,humidity,state\n".to_owned();
    for at in 0..120_u64 {
        let heat = (at * 37 + node * 11) % 100;
        let humidity = (at * 53 + node * 29 + at / 7) % 100;
        let state = if heat > humidity + 10 { "worn" } else { "ok" };
        let _written = writeln!(text, "{heat},{humidity},{state}");
    }
    text
}

/// A node that has data unless it is to have none.
pub(super) fn with_data(spec: NodeSpec, node: u64) -> Result<NodeSpec> {
    fs::create_dir_all(&spec.home)?;
    let path = spec.home.join("states.csv");
    fs::write(&path, states(node))?;
    let config = format!(
        "[[data]]\nname = \"line3\"\nkind = \"csv\"\npath = \"{}\"\nlabel = \"state\"\n\
         values = [\"heat\", \"humidity\"]\nclasses = [\"ok\", \"worn\"]\nscale = 100.0\n",
        path.display()
    );
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec)
}

/// The job as a node shows it; none before it heard of it.
pub(super) fn shown(node: &Node) -> Result<Option<Value>> {
    let told = node.cli(&["fed", "status", "--json"])?.success()?;
    let jobs: Vec<Value> = serde_json::from_str(&told).with_context(|| told.clone())?;
    Ok(jobs.into_iter().find(|job| job["name"] == "wear"))
}

/// Waits until a node has so many rounds.
pub(super) fn until_round(node: &Node, round: u64) -> Result<Value> {
    Deadline::patient().until(&format!("round {round} at {}", node.name()), || {
        Ok(shown(node)?.filter(|job| job["round"].as_u64() >= Some(round)))
    })
}

pub(super) fn submit(s: &Scenario, node: &Node, rounds: u64) -> Result<String> {
    let file = s.path("job.toml");
    fs::write(&file, job(rounds))?;
    node.cli(&["fed", "submit", &file.display().to_string()])?.success()
}

/// All nodes hold the same model and record at the end, and the same count of contributions.
pub(super) fn same_end(nodes: &[Node], rounds: u64) -> Result<Value> {
    let ends: Vec<Value> =
        nodes.iter().map(|node| until_round(node, rounds)).collect::<Result<_>>()?;
    let counts = |job: &Value| -> BTreeMap<String, u64> {
        let all = job["contributions"].as_array().into_iter().flatten();
        let one =
            |one: &Value| Some((one["node"].as_str()?.to_owned(), one["contributions"].as_u64()?));
        all.filter_map(one).collect()
    };
    for end in &ends {
        for what in ["model", "record", "job"] {
            ensure!(end[what] == ends[0][what] && end[what] != "", "{what}: {end} and {}", ends[0]);
        }
        ensure!(counts(end) == counts(&ends[0]), "{end} and {}", ends[0]);
    }
    Ok(ends[0].clone())
}

#[test]
fn nodes_learn_together_and_the_death_of_an_anchor_costs_nothing() {
    scenario(|s| {
        let mut specs = Vec::new();
        for node in 0..5_u64 {
            let spec = s.node(&format!("n{node}"));
            specs.push(if node == 4 { spec } else { with_data(spec, node)? });
        }
        let mut nodes = s.mesh(&specs)?;

        s.step("only a steward starts a job, and a file that is wrong is refused");
        let file = s.path("job.toml");
        fs::write(&file, job(ROUNDS))?;
        let words = ["fed", "submit", &file.display().to_string()].map(str::to_owned);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let refused = nodes[2].cli(&words)?.failure()?;
        ensure!(refused.contains("steward") && refused.contains("mesh promote"), "{refused}");
        fs::write(&file, job(ROUNDS).replace("classes = 2", "classes = 1"))?;
        let refused = nodes[0].cli(&words)?.failure()?;
        ensure!(refused.contains("classes"), "{refused}");
        fs::write(&file, job(ROUNDS).replace("flat = 2", "flat = 3"))?;
        let refused = nodes[0].cli(&words)?.failure()?;
        ensure!(refused.contains("data 'line3' do not fit"), "{refused}");
        ensure!(
            refused.contains("2 columns of values, and the job's examples have 3"),
            "{refused}"
        );
        ensure!(shown(&nodes[0])?.is_none(), "a job that was refused runs");

        s.step("a job runs at all nodes; those that have the data train");
        let told = submit(s, &nodes[0], ROUNDS)?;
        ensure!(told.contains("anchors") && told.contains("n3"), "{told}");
        let again = submit(s, &nodes[0], ROUNDS).err().context("a name is taken once")?;
        ensure!(format!("{again:#}").contains("fed cancel wear"), "{again:#}");
        until_round(&nodes[3], 3)?;
        let follows = until_round(&nodes[4], 1)?;
        ensure!(follows["not_training"].to_string().contains("no data 'line3'"), "{follows}");
        let told = nodes[4].cli(&["fed", "status", "wear"])?.success()?;
        ensure!(told.contains("follows and does not train"), "{told}");
        ensure!(told.contains(" nodes") && told.contains("contributed"), "{told}");
        let table = nodes[0].cli(&["fed", "status"])?.success()?;
        ensure!(table.contains("NODES") && table.contains("EPSILON"), "{table}");

        s.step("an anchor that trains is killed while it proposes; the others go on");
        // The first node is looked at, and the last one only follows.
        let hunt = hunt((1, 4), rounds::PROPOSES);
        let Killed { node, .. } = rounds::kill_a_proposer(s, (&specs, &mut nodes), hunt)?;
        let before = until_round(&nodes[0], 4)?["round"].as_u64().context("a round")?;
        ensure!(before + 4 < ROUNDS, "it is over too early: {before}");
        until_round(&nodes[0], before + 3)?;

        s.step("it comes back, catches up and takes part again");
        nodes[node] = specs[node].up(s, &[])?;
        let end = same_end(&nodes, ROUNDS)?;
        let measured = end["measured"].as_array().context("measured")?;
        let last = measured.last().context("nothing was measured")?;
        let (right, all) = (last["right"].as_u64(), last["examples"].as_u64());
        ensure!(all == Some(24) && right > Some(20), "{last} after {}", measured[0]);
        let picture = s.path("curve.svg").display().to_string();
        let words = ["fed", "watch", "wear", "--picture", &picture];
        let watched = nodes[0].cli(&words)?.success()?;
        ensure!(watched.contains(&format!("done: {ROUNDS} rounds")), "{watched}");
        let drawn = fs::read_to_string(&picture)?;
        ensure!(drawn.starts_with("<svg") && drawn.contains("wear"), "{drawn}");
        what_does_not_fit_is_told(s, &specs[4], &mut nodes[4])?;
        the_model_is_written_and_proven(s, &nodes[4], &end)?;

        what_is_cancelled_is_gone(s, &specs[3], &nodes)
    });
}

/// A node gets data that are not what the job says: it follows on, and its status says why.
fn what_does_not_fit_is_told(s: &Scenario, spec: &NodeSpec, node: &mut Node) -> Result<()> {
    s.step("a node whose data do not fit does not train, and says which and why");
    node.terminate()?;
    with_data(spec.clone(), 4)?;
    fs::write(spec.home.join("states.csv"), "heat,moisture,state\n1,2,ok\n")?;
    *node = spec.up(s, &[])?;
    let why = Deadline::patient().until("a reason", || {
        Ok(shown(node)?.and_then(|job| job["not_training"].as_str().map(str::to_owned)))
    })?;
    ensure!(why.contains("its data 'line3' do not fit"), "{why}");
    ensure!(why.contains("states.csv: no column 'humidity'"), "{why}");
    Ok(())
}

/// A node that only follows hands out the model, and whoever has its files can check them.
fn the_model_is_written_and_proven(s: &Scenario, node: &Node, end: &Value) -> Result<()> {
    s.step("the model is written with the chain that proves it");
    let (model, chain) = (s.path("wear.safetensors"), s.path("wear.chain"));
    let path = model.display().to_string();
    let told = node.cli(&["fed", "model", "export", "wear", &path])?.success()?;
    ensure!(told.contains(&format!("after {ROUNDS} of {ROUNDS} rounds")), "{told}");
    let proven = node.cli(&["fed", "verify", &path, "--json"])?.success()?;
    let proven: Value = serde_json::from_str(&proven)?;
    ensure!(proven["record"] == end["record"] && proven["job"] == end["job"], "{proven}");
    s.step("a chain that was changed proves nothing");
    let mut bytes = fs::read(&chain)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&chain, bytes)?;
    let refused = node.cli(&["fed", "verify", &path])?.failure()?;
    ensure!(refused.contains("NOT proven"), "{refused}");
    let unknown = node.cli(&["fed", "model", "export", "none", &path])?.failure()?;
    ensure!(unknown.contains("no job 'none'"), "{unknown}");
    Ok(())
}

fn what_is_cancelled_is_gone(s: &Scenario, spec: &NodeSpec, nodes: &[Node]) -> Result<()> {
    s.step("what is cancelled is gone everywhere");
    nodes[0].cli(&["fed", "cancel", "wear"])?.success()?;
    for node in nodes {
        Deadline::patient().until("the job gone", || Ok(shown(node)?.is_none().then_some(())))?;
    }
    s.step("its name is free again, and who starts a job may stay and look on");
    let file = s.path("job.toml");
    fs::write(&file, job(2))?;
    let words = ["fed", "submit", &file.display().to_string(), "--watch"].map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let watched = nodes[0].cli(&words)?.success()?;
    ensure!(watched.contains("round   2") && watched.contains("done: 2 rounds"), "{watched}");
    s.step("a node that was off when a job was taken away hears of it");
    nodes[3].terminate()?;
    nodes[0].cli(&["fed", "cancel", "wear"])?.success()?;
    let back = spec.up(s, &[])?;
    Deadline::patient().until("the job gone", || Ok(shown(&back)?.is_none().then_some(())))?;
    let unknown = back.cli(&["fed", "cancel", "wear"])?.failure()?;
    ensure!(unknown.contains("no job 'wear'"), "{unknown}");
    Ok(())
}

#[test]
fn five_machines_learn_through_a_kill_a_restart_and_a_cut() {
    scenario(|s| {
        let mut bridge = Bridge::new("learn")?;
        let hosts: Vec<Host> = (0..5).map(|_| bridge.host()).collect::<Result<_>>()?;
        let mut specs = Vec::new();
        for (node, host) in (0..).zip(&hosts) {
            specs.push(with_data(host.node(s, &format!("n{node}")), node)?);
        }
        let mut nodes = s.mesh(&specs)?;
        s.step("all five train, and all five are anchors");
        submit(s, &nodes[0], MANY_ROUNDS)?;
        until_round(&nodes[0], 2)?;

        let mut safe = Safe::default();
        let mut dead = 0;
        for phase in rounds::PROPOSES {
            dead = one_dies(s, (&specs, &mut nodes), phase, &mut safe)?;
        }
        s.step("another one is restarted");
        let restarted = (dead + 1) % 5;
        nodes[restarted].terminate()?;
        nodes[restarted] = specs[restarted].up(s, &[])?;
        until_round(&nodes[restarted], round(&nodes[dead])?)?;

        two_are_cut_off(s, &hosts, &nodes, &mut safe)?;

        s.step("together again, all come to the same model, and count the same");
        for host in &hosts[3..] {
            host.plug()?;
        }
        let end = same_end(&nodes, MANY_ROUNDS)?;
        let counted = end["contributions"].as_array().context("contributions")?;
        ensure!(counted.len() == 5, "everybody contributed: {end}");
        each_is_folded_once(s, &nodes, &end, &safe)
    });
}

fn hunt<'a>(among: (usize, usize), phases: &'a [&'a str]) -> Hunt<'a> {
    Hunt { job: "wear", among, phases, deadline: Deadline::patient() }
}

/// Whoever proposes is killed before its round is over anywhere, and comes back; who it was.
fn one_dies(
    s: &Scenario,
    (specs, nodes): (&[NodeSpec], &mut [Node]),
    phase: &str,
    safe: &mut Safe,
) -> Result<usize> {
    s.step(&format!("the one that proposes is killed while its round is {phase}"));
    let killed = rounds::kill_a_proposer(s, (specs, nodes), hunt((0, 5), &[phase]))?;
    let Killed { node: dead, round: open, .. } = killed;
    s.say(&format!("{} died in round {}", nodes[dead].name(), open + 1));
    safe.note(&nodes[dead], &killed.told)?;

    s.step("another one proposes: the round comes to its end, and two more do");
    let other = usize::from(dead == 0);
    for (at, node) in nodes.iter().enumerate().filter(|(at, _)| *at != dead) {
        let job = until_round(node, open + if at == other { 3 } else { 1 })?;
        safe.note(node, &job)?;
    }

    s.step("it is started again, and catches up");
    nodes[dead] = specs[dead].up(s, &[])?;
    until_round(&nodes[dead], open + 3)?;
    Ok(dead)
}

/// Nobody may lose what was receipted, whatever happens to whom.
fn two_are_cut_off(s: &Scenario, hosts: &[Host], nodes: &[Node], safe: &mut Safe) -> Result<()> {
    s.step("two are cut off together for twenty seconds: three go on, two wait");
    for host in &hosts[3..] {
        host.plug_aside()?;
    }
    let cut = Stopwatch::start();
    let at = round(&nodes[3])?;
    for node in nodes {
        safe.note(node, &shown(node)?.context("no such job")?)?;
    }
    Deadline::patient().until("the end of the cut", || {
        Ok((cut.elapsed() >= CUT && round(&nodes[0])? >= at + 3).then_some(()))
    })?;
    let (here, there) = (round(&nodes[0])?, round(&nodes[3])?);
    s.say(&format!("round {here} on one side, round {there} on the other"));
    // What they trained before they were cut off must come to be counted or to expire.
    ensure!(here + STALE < MANY_ROUNDS, "it was over before the cut was, or soon after");
    // What was under way when the cables went may still have come.
    ensure!(there <= at + 1 && round(&nodes[4])? <= at + 1, "{there} after {at}");
    for node in nodes {
        safe.note(node, &shown(node)?.context("no such job")?)?;
    }
    Ok(())
}

/// A client of a node, as files and statuses call it.
type Client = (String, String);

/// The last contribution of each client of which it was told that it is safe.
#[derive(Default)]
struct Safe(BTreeMap<Client, u64>);

impl Safe {
    /// Notes what a node says of its own clients.
    fn note(&mut self, node: &Node, job: &Value) -> Result<()> {
        for (client, one) in own(node, job)? {
            let last = self.0.entry(client).or_default();
            *last = (*last).max(one["receipted"].as_u64().context("receipted")?);
        }
        Ok(())
    }
}

/// What a node says of its own clients.
fn own(node: &Node, job: &Value) -> Result<Vec<(Client, Value)>> {
    let all = job["clients"].as_array().context("clients")?;
    let one = |one: &Value| {
        let client = one["client"].as_str().context("a client")?.to_owned();
        Ok(((node.id.clone(), client), one.clone()))
    };
    all.iter().map(one).collect()
}

/// What the chains of all nodes say is the same, and nothing is in them twice, nothing passed over
/// and nothing lost.
fn each_is_folded_once(s: &Scenario, nodes: &[Node], end: &Value, safe: &Safe) -> Result<()> {
    s.step("the chains of all five prove one history");
    let (mut chains, mut files) = (Vec::new(), BTreeSet::new());
    for node in nodes {
        let path = s.path(&format!("{}.safetensors", node.name())).display().to_string();
        node.cli(&["fed", "model", "export", "wear", &path])?.success()?;
        let told = node.cli(&["fed", "verify", &path, "--json", "--contributions"])?.success()?;
        chains.push((fs::read(&path)?, serde_json::from_str::<Value>(&told)?));
        files.insert(fs::read(s.path(&format!("{}.chain", node.name())))?);
    }
    // Each node keeps the acceptances and the parts of a sum that came to it first.
    s.say(&format!("{} different files prove it", files.len()));
    let (model, first) = &chains[0];
    for (other, told) in &chains {
        ensure!(other == model && told == first, "{told} and {first}");
    }
    ensure!(first["record"] == end["record"] && first["model"] == end["model"], "{first} {end}");

    s.step("each client's contributions are in it once, in order and without a gap");
    let each = first["each_contribution"].as_array().context("each contribution")?;
    let text = |one: &Value, what: &str| one[what].as_str().map(str::to_owned).context("a text");
    let mut last: BTreeMap<Client, u64> = BTreeMap::new();
    let (mut weighed, mut seen) = (0, BTreeSet::new());
    for one in each {
        let client = (text(one, "node")?, text(one, "client")?);
        let number = one["number"].as_u64().context("a number")?;
        ensure!(seen.insert((client.clone(), number)), "it is there twice: {one}");
        let before = last.insert(client, number).unwrap_or(0);
        ensure!(number == before + 1, "{before} is before {one}");
        ensure!(one["weight"].as_u64() > Some(0) || one["expired"].is_string(), "{one}");
        weighed += u64::from(one["weight"].is_u64());
    }
    ensure!(last.len() == 5, "five clients of five nodes: {last:?}");
    let counted = first["contributions"].as_array().into_iter().flatten();
    let counted: u64 = counted.filter_map(|one| one["contributions"].as_u64()).sum();
    ensure!(
        counted == weighed && seen.len() as u64 == weighed + count(&first["expired"])?,
        "{first}"
    );
    s.say(&format!("{} contributions, {weighed} count: {last:?}", seen.len()));

    s.step("what was receipted is in it, and of each client all but what came too late");
    for (client, receipted) in &safe.0 {
        ensure!(last.get(client) >= Some(receipted), "{client:?} {receipted}: {last:?}");
    }
    ensure!(safe.0.len() == 5 && safe.0.values().all(|number| *number > 0), "{:?}", safe.0);
    for node in nodes {
        for (client, one) in own(node, &until_round(node, MANY_ROUNDS)?)? {
            let (written, recorded) = (count(&one["written"])?, last.get(&client).copied());
            // What was trained for one of the last rounds may have missed them, and none is left.
            let late = u64::from(!one["under_way"].is_null());
            ensure!(Some(written) == recorded.map(|last| last + late), "{one}: {recorded:?}");
            ensure!(late == 0 || count(&one["under_way"])? + STALE >= MANY_ROUNDS, "{one}");
        }
    }
    Ok(())
}

fn count(value: &Value) -> Result<u64> {
    value.as_u64().context("a count")
}

fn round(node: &Node) -> Result<u64> {
    shown(node)?.and_then(|job| job["round"].as_u64()).context("no such job")
}

#[test]
fn anchors_that_are_lost_for_good_are_replaced() {
    scenario(|s| {
        let specs: Vec<NodeSpec> = (0..7_u64)
            .map(|node| with_data(s.node(&format!("n{node}")), node))
            .collect::<Result<_>>()?;
        let nodes = s.mesh(&specs)?;
        submit(s, &nodes[0], MANY_ROUNDS)?;
        let begun = until_round(&nodes[0], 2)?;
        let all = nodes[0].cli(&["fed", "anchors", "wear"])?.failure()?;
        ensure!(all.contains("none has to be replaced"), "{all}");

        s.step("two anchors are gone; those who are left hand the job on");
        let is_anchor = |job: &Value, node: &Node| {
            let all = job["anchors"].as_array().into_iter().flatten();
            all.filter_map(Value::as_str).any(|name| name == node.name())
        };
        let lost: Vec<usize> = (1..7).filter(|at| is_anchor(&begun, &nodes[*at])).take(2).collect();
        ensure!(lost.len() == 2, "{begun}");
        for at in &lost {
            nodes[*at].kill()?;
        }
        let living = |at: &usize| !lost.contains(at);
        let has_moved = |job: &Value| lost.iter().all(|at| !is_anchor(job, &nodes[*at]));
        let moved = Deadline::patient().until("a job with other anchors", || {
            // One may be missed before the other is; then somebody asks again, as a steward would.
            let asked = nodes[0].cli(&["fed", "anchors", "wear"])?;
            let said = format!("{}{}", asked.out, asked.err);
            let is_answer = |one: &&str| said.contains(one);
            let answers = [
                "are to be the anchors of wear",
                "none has to be replaced",
                // A node that is busy may be missed for a moment, too.
                "can be reached from here",
            ];
            ensure!(answers.iter().any(is_answer), "{said}");
            Ok(shown(&nodes[0])?.filter(has_moved))
        })?;
        ensure!(moved["anchors"].as_array().is_some_and(|all| all.len() == 5), "{moved}");
        ensure!(moved["anchors_needed"] == 3, "{moved}");

        s.step("another one of the first anchors is gone, more than the scheme bears: it goes on");
        let third = (1..7).filter(living).find(|at| is_anchor(&begun, &nodes[*at]));
        let third = third.context("a third anchor")?;
        nodes[third].kill()?;
        let left: Vec<Node> = (0..)
            .zip(nodes)
            .filter(|(at, _)| living(at) && *at != third)
            .map(|(_, node)| node)
            .collect();
        let died = round(&left[0])?;
        ensure!(died + STALE < MANY_ROUNDS, "it was over before the third one died");
        let goes_on = |node: &Node| until_round(node, died + 4).map(drop);
        left.iter().try_for_each(goes_on)
    });
}
