//! How long a lost node is believed in, and how long an answer pauses when its server dies.
//!
//! Owns the rounds with real processes in network namespaces. A node that ends says so, a killed
//! one cannot, though its kernel tells of it; a pulled cable and a stopped process are silent.
//! The order is the adverse one: deaths on one machine follow each other within a second.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_tests::admin::state;
use selvedge_tests::chat::{STORY, completion, with};
use selvedge_tests::figures::Figures;
use selvedge_tests::report::Report;
use selvedge_tests::{Admin, Asked, Bridge, Deadline, Host, Node, Scenario, Stopwatch};
use serde_json::{Value, json};

/// Rounds per way to lose a node: enough for a worst case worth the name within two minutes.
const ROUNDS: usize = 6;
/// Nodes on one machine that are killed within a second.
const TOGETHER: usize = 5;
/// How often they are: each round starts them all again.
const ROUNDS_TOGETHER: usize = 3;
/// Interrupted answers: each needs the killed node to load its model again.
const RESUMES: usize = 6;
/// Pieces heard before the server is killed.
const BEFORE: usize = 12;
/// Tokens of an interrupted answer.
const TOKENS: u32 = 40;

/// Measures and notes everything.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let s = Scenario::new()?;
    let done = exclusions(&s, report)
        .and_then(|()| deaths_together(&s, report))
        .and_then(|()| resumes(&s, report));
    if done.is_err() {
        s.show();
    }
    done
}

fn exclusions(s: &Scenario, report: &mut Report) -> Result<()> {
    let mut bridge = Bridge::new("bench-loss")?;
    let hosts = [bridge.host()?, bridge.host()?, bridge.host()?];
    let specs = [hosts[0].node(s, "sees"), hosts[1].node(s, "lost"), hosts[2].node(s, "third")];
    let mut nodes = s.mesh(&specs)?;
    let observer = nodes[0].admin()?;
    let mut times = [const { None }; 4].map(|_: Option<()>| Figures::default());
    for _ in 0..ROUNDS {
        let [ended, killed, silent, stopped] = &mut times;
        ended.push(until_out(&observer, || nodes[1].terminate())?);
        back(s, &mut nodes)?;
        // A kernel says that a port is closed six times at once and then once a second, so kills
        // right after another end show whether anything hangs on that.
        for _ in 0..2 {
            killed.push(until_out(&observer, || nodes[1].kill())?);
            back(s, &mut nodes)?;
        }
        silent.push(until_out(&observer, || hosts[1].unplug())?);
        hosts[1].plug()?;
        s.meet(&nodes)?;
        stopped.push(until_out(&observer, || nodes[1].freeze())?);
        nodes[1].thaw()?;
        s.meet(&nodes)?;
    }
    let [ended, killed, silent, stopped] = &times;
    report.worst("ended_out", ended, Some(1_000.0));
    report.worst("killed_out", killed, Some(1_000.0));
    report.worst("silent_out", silent, Some(3_000.0));
    report.worst("stopped_out", stopped, Some(3_000.0));
    Ok(())
}

/// Several nodes of one machine die: one after the other, and all at once.
fn deaths_together(s: &Scenario, report: &mut Report) -> Result<()> {
    let mut bridge = Bridge::new("bench-deaths")?;
    let hosts = [bridge.host()?, bridge.host()?];
    let directory = s.rendezvous().display().to_string();
    let spec = |host: &Host, name: &str| host.node(s, name).with(&["--rendezvous", &directory]);
    let names: Vec<String> = (0..TOGETHER).map(|n| format!("mortal-{n}")).collect();
    let mut nodes = vec![spec(&hosts[0], "witness").up(s, &[])?];
    let observer = nodes[0].admin()?;
    for name in &names {
        // One address may join once at a time.
        nodes.push(spec(&hosts[1], name).up(s, &["--join", &observer.invite(600)?])?);
    }
    s.meet(&nodes)?;
    let (mut one_by_one, mut at_once) = (Figures::default(), Figures::default());
    for _ in 0..ROUNDS_TOGETHER {
        for node in &nodes[1..] {
            one_by_one.push(until_gone(&observer, &[node.name()], || node.kill())?);
        }
        all_back(s, &mut nodes)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let kill = || nodes[1..].iter().try_for_each(Node::kill);
        at_once.push(until_gone(&observer, &names, kill)?);
        all_back(s, &mut nodes)?;
    }
    report.worst("killed_one_by_one_out", &one_by_one, Some(1_000.0));
    report.worst("killed_at_once_all_out", &at_once, Some(1_000.0));
    Ok(())
}

fn all_back(s: &Scenario, nodes: &mut [Node]) -> Result<()> {
    for node in &mut nodes[1..] {
        *node = node.spec.up(s, &[])?;
    }
    s.meet(nodes)
}

/// Starts the lost node again; it needs no code.
fn back(s: &Scenario, nodes: &mut [Node]) -> Result<()> {
    nodes[1] = nodes[1].spec.up(s, &[])?;
    s.meet(nodes)
}

/// From the loss to the observer's view without the node.
fn until_out(observer: &Admin, lose: impl FnOnce() -> Result<()>) -> Result<Duration> {
    until_gone(observer, &["lost"], lose)
}

/// From the loss to the observer's view without any of these nodes.
fn until_gone(
    observer: &Admin,
    names: &[&str],
    lose: impl FnOnce() -> Result<()>,
) -> Result<Duration> {
    let mut watch = observer.watch(Deadline::secs(20))?;
    let alive = |view: &Value| names.iter().all(|name| state(view, name) == "alive");
    watch.until("the nodes alive", alive)?;
    let begun = Stopwatch::start();
    lose()?;
    let out = |view: &Value, name| !matches!(state(view, name).as_str(), "alive" | "suspect");
    watch.until("the nodes out", |view| names.iter().all(|name| out(view, name)))?;
    Ok(begun.elapsed())
}

fn resumes(s: &Scenario, report: &mut Report) -> Result<()> {
    let mut bridge = Bridge::new("bench-resume")?;
    let hosts: [Host; 3] = [bridge.host()?, bridge.host()?, bridge.host()?];
    let specs = [
        hosts[0].node(s, "left").with_model()?,
        hosts[1].node(s, "right").with_model()?,
        hosts[2].node(s, "asker"),
    ];
    let mut nodes = s.mesh(&specs)?;
    let whole = ask(&nodes[2])?.to_the_end()?.whole()?.text;
    let (mut gaps, mut noticing) = (Figures::default(), Figures::default());
    for _ in 0..RESUMES {
        let mut asked = ask(&nodes[2])?;
        let before = asked.until(BEFORE)?.text.clone();
        let name = asked.heard().node.clone();
        let server = nodes.iter().position(|node| node.name() == name);
        let server = server.with_context(|| format!("`{name}` is no node of this bench"))?;
        nodes[server].kill()?;
        let heard = asked.to_the_end()?.whole()?;
        ensure!(heard.text == whole, "`{}`, undisturbed `{whole}`", heard.text);
        // The node that went on had to read this much again before its first own token.
        let read = with(completion(&format!("{STORY}{before}"), 1), json!({}));
        let again = Asked::stream(&nodes[2].client(), read)?.to_the_end()?.whole()?;
        gaps.push(heard.gap);
        noticing.push(heard.gap.saturating_sub(again.first));
        nodes[server] = nodes[server].spec.up(s, &[])?;
        s.meet(&nodes)?;
    }
    report.worst("resume_gap", &gaps, None);
    report.worst("resume_gap_less_reading_again", &noticing, Some(1_000.0));
    Ok(())
}

fn ask(node: &Node) -> Result<Asked> {
    Asked::stream(&node.client(), completion(STORY, TOKENS))
}
