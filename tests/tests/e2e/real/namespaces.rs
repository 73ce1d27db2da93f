//! Three machines on a bridge, as far as the network can tell: discovery, cuts, power loss.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_tests::admin::{self, named, state};
use selvedge_tests::chat::{STORY, completion};
use selvedge_tests::{Asked, Bridge, Deadline, Heard, Host, Node, Scenario, Stopwatch, scenario};

/// A silent peer is out within 3 s, and the view is published with the next change.
const SILENT: Duration = Duration::from_millis(3_500);
/// Pieces heard before the server is hurt.
const BEFORE: usize = 6;
/// Tokens of the answers that are interrupted.
const TOKENS: u32 = 30;

#[test]
fn three_hosts_find_each_other_and_survive_cuts() {
    scenario(|s| {
        let (_bridge, hosts) = three_hosts("cuts")?;
        s.step("three hosts meet by mDNS");
        let nodes = meet(s, &hosts)?;
        s.step("addresses and round-trip times are known");
        let view = nodes[2].admin()?.until("round-trip times", Deadline::secs(10), |view| {
            admin::nodes(view).iter().all(|node| node["me"] == true || node["rtt_us"].is_u64())
        })?;
        for (host, node) in hosts.iter().zip(&nodes) {
            let addrs = named(&view, node.name()).context("missing")?["addrs"].to_string();
            ensure!(addrs.contains(&host.addr.to_string()), "{addrs}");
        }
        let undisturbed = answer(&nodes[2])?;

        s.step("a link goes down: its node is out in time, for both sides");
        let down = Stopwatch::start();
        let mut far = nodes[2].admin()?.watch(Deadline::secs(20))?;
        let mut near = nodes[0].admin()?.watch(Deadline::secs(20))?;
        hosts[0].link_down()?;
        far.until("the cut host dead", |view| state(view, "one") == "dead")?;
        let seen = down.elapsed();
        near.until("the others dead", |view| admin::alive(view) == 1)?;
        s.say(&format!("the cut was seen after {seen:?}; from the other side too"));
        ensure!(seen < SILENT, "{seen:?}");
        s.step("the others answer meanwhile, and so does the cut one for itself");
        ensure!(answer(&nodes[2])? == undisturbed && answer(&nodes[0])? == undisturbed);

        s.step("the link comes back: all meet again");
        let up = Stopwatch::start();
        hosts[0].link_up()?;
        s.meet(&nodes)?;
        s.say(&format!("met again after {:?}", up.elapsed()));
        ensure!(up.elapsed() < Duration::from_secs(15), "{:?}", up.elapsed());

        s.step("a cable is pulled where no system notices: the same");
        let down = Stopwatch::start();
        hosts[1].unplug()?;
        far.until("the cut host dead", |view| state(view, "two") == "dead")?;
        ensure!(down.elapsed() < SILENT, "{:?}", down.elapsed());
        hosts[1].plug()?;
        s.meet(&nodes)
    });
}

#[test]
fn a_host_that_serves_loses_power_or_freezes_or_is_cut_off() {
    scenario(|s| {
        let (_bridge, hosts) = three_hosts("power")?;
        s.step("three hosts meet by mDNS");
        let mut nodes = meet(s, &hosts)?;
        let undisturbed = answer(&nodes[2])?;

        s.step("the serving host's cable is pulled in the middle of an answer");
        let (heard, server) = hurt(s, &nodes, |index| hosts[index].unplug())?;
        same(&heard, &undisturbed)?;
        hosts[server].plug()?;
        s.meet(&nodes)?;

        s.step("the serving node freezes in the middle of an answer");
        let (heard, server) = hurt(s, &nodes, |index| nodes[index].freeze())?;
        same(&heard, &undisturbed)?;
        nodes[server].thaw()?;
        s.meet(&nodes)?;

        s.step("the serving node is killed in the middle of an answer");
        let (heard, server) = hurt(s, &nodes, |index| nodes[index].kill())?;
        same(&heard, &undisturbed)?;
        s.step("it restarts and belongs to the mesh without a code");
        nodes[server] = nodes[server].spec.up(s, &[])?;
        s.meet(&nodes)
    });
}

#[test]
fn static_peers_do_without_discovery() {
    scenario(|s| {
        let (_bridge, hosts) = three_hosts("static")?;
        let quiet = |host: &Host, name: &str| {
            let mut spec = host.node(s, name).with(&["--no-mdns"]);
            spec.listen = "0.0.0.0:8421".to_owned();
            spec
        };
        s.step("a mesh without mDNS, by join codes");
        let one = quiet(&hosts[0], "one").with_model()?.up(s, &[])?;
        let peer = format!("{}:8421", hosts[0].addr);
        let mut nodes = vec![one];
        for (host, name) in [(&hosts[1], "two"), (&hosts[2], "three")] {
            let spec = quiet(host, name).with(&["--peer", &peer]);
            nodes.push(spec.up(s, &["--join", &nodes[0].invite()?])?);
        }
        s.meet(&nodes)?;
        answer(&nodes[2])?;
        s.step("all restart at once and find each other by the static address alone");
        for node in &nodes {
            node.kill()?;
        }
        let mut starting = Vec::new();
        for node in &nodes {
            starting.push(node.spec.start(s, &[])?);
        }
        drop(nodes);
        let nodes: Result<Vec<Node>> = starting.into_iter().map(|start| start.ready()).collect();
        let nodes = nodes?;
        s.meet(&nodes)?;
        answer(&nodes[2]).map(|_| ())
    });
}

fn three_hosts(label: &str) -> Result<(Bridge, Vec<Host>)> {
    let mut bridge = Bridge::new(label)?;
    let hosts: Result<Vec<Host>> = (0..3).map(|_| bridge.host()).collect();
    Ok((bridge, hosts?))
}

/// `one` and `two` have the model, `three` has not.
fn meet(s: &Scenario, hosts: &[Host]) -> Result<Vec<Node>> {
    let specs = [
        hosts[0].node(s, "one").with_model()?,
        hosts[1].node(s, "two").with_model()?,
        hosts[2].node(s, "three"),
    ];
    s.mesh(&specs)
}

fn answer(node: &Node) -> Result<String> {
    let request = completion(STORY, TOKENS);
    Ok(Asked::stream(&node.client(), request)?.to_the_end()?.whole()?.text)
}

/// Hurts whoever serves an answer in its middle; what was heard, and which node it was.
fn hurt(
    s: &Scenario,
    nodes: &[Node],
    how: impl FnOnce(usize) -> Result<()>,
) -> Result<(Heard, usize)> {
    let mut asked = Asked::stream(&nodes[2].client(), completion(STORY, TOKENS))?;
    asked.until(BEFORE)?;
    let name = asked.heard().node.clone();
    let server = nodes.iter().position(|node| node.name() == name);
    let server = server.with_context(|| format!("`{name}` is no node of this test"))?;
    how(server)?;
    let heard = asked.to_the_end()?;
    s.say(&format!("{name} was hurt; the longest pause was {:?}", heard.gap));
    Ok((heard, server))
}

fn same(heard: &Heard, undisturbed: &str) -> Result<()> {
    let heard = heard.clone().whole()?;
    ensure!(heard.text == undisturbed, "`{}`, undisturbed `{undisturbed}`", heard.text);
    // Noticing takes at most 3 s, reading prompt and answer again the rest.
    ensure!(heard.gap < Duration::from_secs(10), "a pause of {:?}", heard.gap);
    Ok(())
}
