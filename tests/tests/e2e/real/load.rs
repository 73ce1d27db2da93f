//! Many at once, and clients that walk away.

use std::thread;

use anyhow::{Result, anyhow, ensure};
use selvedge_tests::admin::{self, work};
use selvedge_tests::chat::{STORY, completion, with};
use selvedge_tests::{Admin, Asked, Client, Deadline, Scenario, scenario};
use serde_json::json;

/// Streams open at the same time, as the product promises.
const STREAMS: usize = 64;

#[test]
fn sixty_four_streams_and_a_client_that_leaves() {
    scenario(|s| {
        let mesh = s.mesh(&[s.node("giver").with_model()?, s.node("asker")])?;
        let (giver, asker) = (&mesh[0], &mesh[1]);
        let client = asker.client();
        many_at_once(s, &client)?;
        s.step("nothing is left of them");
        let idle = |view: &serde_json::Value| work(view) == 0;
        giver.admin()?.until("no work", Deadline::secs(5), idle)?;
        for (whose, client) in [("a peer's", &client), ("its own", &giver.client())] {
            leaves(s, client, &giver.admin()?, whose)?;
        }
        s.step("the node goes on");
        Asked::stream(&client, completion(STORY, 4))?.to_the_end()?.whole()?;
        Ok(())
    });
}

fn many_at_once(s: &Scenario, client: &Client) -> Result<()> {
    // A short prompt: what is tested is many streams, not prefill.
    let request = completion("The sun", 6);
    let alone = Asked::stream(client, request.clone())?.to_the_end()?.whole()?;
    s.step("sixty-four streams at once, each whole and each the same");
    let deadline = Deadline::secs(150);
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = || Asked::stream_until(client, request.clone(), deadline)?.to_the_end()?.whole();
        let asking: Vec<_> = (0..STREAMS).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join()).collect()
    });
    for answer in answers {
        let heard = answer.map_err(|_| anyhow!("a client thread panicked"))??;
        ensure!(heard.text == alone.text, "`{}` and alone `{}`", heard.text, alone.text);
        ensure!(heard.finish == alone.finish, "{heard:?}");
    }
    Ok(())
}

fn leaves(s: &Scenario, client: &Client, giver: &Admin, whose: &str) -> Result<()> {
    s.step(&format!("work for {whose} client is seen"));
    let mut watch = giver.watch(Deadline::patient())?;
    // Two answers of a long request, so that both have to be freed.
    let request = with(completion(STORY, 1_500), json!({"n": 2, "temperature": 1, "seed": 1}));
    let mut asked = Asked::stream(client, request)?;
    asked.until(3)?;
    watch.until("work", |view| work(view) > 0)?;
    s.step(&format!("the work is freed when {whose} client leaves"));
    drop(asked);
    let mut watch = giver.watch(Deadline::secs(5))?;
    let view = watch.until("no work", |view| work(view) == 0)?;
    ensure!(admin::alive(&view) == 2, "{view}");
    let metrics = client.get("/metrics")?.text()?;
    let value = |name: &str| metrics.lines().find(|line| line.starts_with(name));
    for gauge in ["selvedge_requests_in_flight", "selvedge_cancelled_total"] {
        ensure!(value(gauge).is_some(), "no {gauge} in {metrics}");
    }
    ensure!(!metrics.contains("selvedge_cancelled_total 0\n"), "{metrics}");
    Ok(())
}
