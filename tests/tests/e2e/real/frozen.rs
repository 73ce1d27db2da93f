//! The engine of the node that answers stands still while everything else of it goes on: pings are
//! answered, the API is served. Only that it computes without progress gives it away.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use selvedge_tests::admin::{self, named, state};
use selvedge_tests::chat::{STORY, completion};
use selvedge_tests::stall::Stall;
use selvedge_tests::{Asked, Deadline, Node, Stopwatch, scenario};
use serde_json::Value;

/// Tokens of the interrupted answer: more than can be computed before the threads are stopped.
const TOKENS: u32 = 80;
/// Pieces heard before.
const BEFORE: usize = 6;
/// The promise.
const NOTICED: Duration = Duration::from_secs(2);
/// A node that does not answer pings is out before this; one that does is not.
const SILENT: Duration = Duration::from_secs(3);
/// The threads that compute, as the kernel cuts their names: the loop of steps and its pool.
const THREADS: [&str; 2] = ["selvedge-engine", "selvedge-comput"];

#[test]
fn a_node_whose_engine_stands_still_is_left_in_time() {
    scenario(|s| {
        let nodes = s.mesh(&[
            s.node("left").with_model()?,
            s.node("right").with_model()?,
            s.node("asker"),
        ])?;
        let asker = &nodes[2];
        s.step("an undisturbed answer");
        let whole = ask(asker)?.to_the_end()?.whole()?;

        s.step("the threads that compute are stopped in the middle of an answer");
        let mut asked = ask(asker)?;
        asked.until(BEFORE)?;
        let name = asked.heard().node.clone();
        let server = nodes.iter().find(|node| node.name() == name).context("no such node")?;
        let mut watch = asker.admin()?.watch(Deadline::secs(20))?;
        let stall = Stall::begin(&server.process, &THREADS)?;
        ensure!(stall.threads >= 2, "{stall:?}");
        let (heard, noticed) = std::thread::scope(|scope| {
            let hearing = scope.spawn(|| asked.to_the_end()?.whole());
            watch.until("a frozen node", |view| state(view, &name) == "frozen")?;
            let noticed = stall.begun.elapsed();
            let heard = hearing.join().map_err(|_| anyhow!("the hearing thread panicked"))??;
            anyhow::Ok((heard, noticed))
        })?;
        s.say(&format!("frozen after {noticed:?}; the longest pause was {:?}", heard.gap));
        ensure!(noticed <= NOTICED, "frozen only after {noticed:?}");
        ensure!(heard.text == whole.text, "`{}`, undisturbed `{}`", heard.text, whole.text);
        ensure!(heard.pieces == whole.pieces, "{} pieces, not {}", heard.pieces, whole.pieces);

        s.step("all else of it goes on: it serves its API and answers pings");
        let left = SILENT.saturating_sub(stall.begun.elapsed());
        ensure!(server.process.wait(Deadline::after(left)).is_err(), "{name} ended");
        healthy(server)?;
        let view = asker.admin()?.status()?;
        ensure!(state(&view, &name) == "frozen", "{view}");
        let rtt = |node: &Value| node["rtt_us"].is_u64();
        ensure!(named(&view, &name).is_some_and(rtt), "{view}");
        let again = ask(asker)?.to_the_end()?.whole()?;
        ensure!(again.text == whole.text && again.node != name, "{again:?}");

        s.step("the threads go on, and the node is taken back");
        stall.end()?;
        asker.admin()?.until_alive(3, Deadline::secs(20))?;
        for node in &nodes {
            node.admin()?.until("no work", Deadline::secs(20), |view| admin::work(view) == 0)?;
        }
        s.meet(&nodes)?;
        ensure!(ask(server)?.to_the_end()?.whole()?.text == whole.text, "not the same any more");
        Ok(())
    });
}

fn ask(node: &Node) -> Result<Asked> {
    Asked::stream(&node.client(), completion(STORY, TOKENS))
}

/// Its API answers as fast as ever.
fn healthy(node: &Node) -> Result<()> {
    let asked = Stopwatch::start();
    let health = node.client().get("/health")?;
    ensure!(health.status == 200, "health is {}", health.status);
    node.admin()?.status()?;
    ensure!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    Ok(())
}
