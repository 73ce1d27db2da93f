//! Several nodes of one machine are killed, one right after the other and all at once: each is out
//! within the promised second, however many deaths its machine has just had to tell of.

use std::time::Duration;

use anyhow::{Result, ensure};
use selvedge_tests::admin::{Admin, state};
use selvedge_tests::{Bridge, Deadline, Host, Node, Scenario, Stopwatch, scenario};
use serde_json::Value;

/// The promise for a process that ends without a word.
const OUT: Duration = Duration::from_secs(1);
/// More deaths than a kernel answers for at once, with what QUIC asks of it besides.
const NODES: usize = 4;

#[test]
fn deaths_that_follow_each_other_are_seen_in_time() {
    scenario(|s| {
        let mut bridge = Bridge::new("deaths")?;
        let hosts = [bridge.host()?, bridge.host()?];
        s.step("one node here, four on the other machine");
        let witness = spec(s, &hosts[0], "witness").up(s, &[])?;
        let mut nodes = vec![witness];
        for number in 0..NODES {
            let code = nodes[0].admin()?.invite(600)?;
            let spec = spec(s, &hosts[1], &format!("mortal-{number}"));
            nodes.push(spec.up(s, &["--join", &code])?);
        }
        s.meet(&nodes)?;
        let admin = nodes[0].admin()?;

        s.step("they are killed one after the other");
        for node in &nodes[1..] {
            out_in_time(s, &admin, &[node.name()], || node.kill())?;
        }
        s.step("they start again, and are killed all at once");
        for node in &mut nodes[1..] {
            *node = node.spec.up(s, &[])?;
        }
        s.meet(&nodes)?;
        let names: Vec<&str> = nodes[1..].iter().map(Node::name).collect();
        out_in_time(s, &admin, &names, || nodes[1..].iter().try_for_each(Node::kill))
    });
}

fn spec(s: &Scenario, host: &Host, name: &str) -> selvedge_tests::NodeSpec {
    // Nodes of one machine do not hear each other's mDNS.
    host.node(s, name).with(&["--rendezvous", &s.rendezvous().display().to_string()])
}

fn out_in_time(
    s: &Scenario,
    admin: &Admin,
    names: &[&str],
    kill: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut watch = admin.watch(Deadline::secs(20))?;
    let all = |view: &Value, wanted: &str| names.iter().all(|name| state(view, name) == wanted);
    watch.until("the nodes alive", |view| all(view, "alive"))?;
    let killed = Stopwatch::start();
    kill()?;
    watch.until("the nodes dead", |view| all(view, "dead"))?;
    let took = killed.elapsed();
    s.say(&format!("out after {took:?}"));
    ensure!(took <= OUT, "{names:?} were out only after {took:?}");
    Ok(())
}
