//! The node that answers dies, freezes or vanishes in the middle: another one goes on.
//!
//! The promise is an exact prefix and a valid continuation; on one machine, with the likeliest
//! token each time, that is the very text of an undisturbed run.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use selvedge_tests::chat::{STORY, chat, completion, with};
use selvedge_tests::{Asked, Deadline, Heard, Node, Scenario, Stopwatch, scenario};
use serde_json::{Value, json};

/// Tokens of the answers that are interrupted.
const TOKENS: u32 = 40;
/// Pieces heard before the server is hurt.
const BEFORE: usize = 8;
/// The promise is 1 s plus the time to read prompt and answer again. Reading some 60 tokens again
/// takes a debug build with two busy cores up to this long.
const REREAD: Duration = Duration::from_secs(8);

#[test]
fn a_killed_server_is_replaced() {
    scenario(|s| {
        let nodes = three(s)?;
        let undisturbed = undisturbed(s, &nodes)?;
        s.step("the serving node is killed in the middle of an answer");
        let (heard, server) = hurt(s, &nodes, |server| server.kill())?;
        same(s, &heard, &undisturbed, &nodes, server)?;

        s.step("the mesh knows who is dead and still answers");
        let dead = |view: &Value| selvedge_tests::admin::state(view, server) == "dead";
        nodes[2].admin()?.until("a dead node", Deadline::secs(5), dead)?;
        let again = ask(&nodes[2])?.to_the_end()?.whole()?;
        ensure!(again.text == undisturbed && again.node != server, "{again:?}");

        s.step("the other one is killed too: the stream ends with an error that says so");
        let (heard, _) = hurt(s, &nodes, |server| server.kill())?;
        let error = heard.error.as_ref().context("the stream ended without an error event")?;
        ensure!(error["message"].as_str().is_some_and(|m| m.len() > 10), "{error}");
        ensure!(!heard.done && undisturbed.starts_with(&heard.text), "{heard:?}");

        s.step("once it is known, requests are refused at once");
        let alone = |view: &Value| selvedge_tests::admin::alive(view) == 1;
        nodes[2].admin()?.until("nobody else", Deadline::secs(5), alone)?;
        let asked = Stopwatch::start();
        let reply = nodes[2].client().post("/v1/completions", &completion(STORY, 4))?;
        let status = reply.status;
        ensure!(status == 404 || status == 503, "status {status}");
        reply.refused(status)?;
        ensure!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        Ok(())
    });
}

#[test]
fn a_frozen_server_is_replaced() {
    scenario(|s| {
        let nodes = three(s)?;
        let undisturbed = undisturbed(s, &nodes)?;
        s.step("the serving node freezes in the middle of an answer");
        let (heard, server) = hurt(s, &nodes, |server| server.freeze())?;
        same(s, &heard, &undisturbed, &nodes, server)?;

        s.step("the frozen node wakes up and writes nothing into anybody's answer");
        let frozen = nodes.iter().find(|node| node.name() == server).context("no server")?;
        frozen.thaw()?;
        nodes[2].admin()?.until_alive(3, Deadline::secs(20))?;
        s.meet(&nodes)?;
        let again = ask(&nodes[2])?.to_the_end()?.whole()?;
        ensure!(again.text == undisturbed, "{again:?}");
        for node in &nodes {
            node.admin()?.until("no work", Deadline::secs(20), |view| {
                selvedge_tests::admin::work(view) == 0
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_chat_is_resumed_and_explained() {
    scenario(|s| {
        let nodes = three(s)?;
        let question = chat("Write a short story about a dog who finds a key.", TOKENS);
        s.step("an undisturbed chat");
        let client = nodes[2].client();
        let whole = Asked::stream(&client, question.clone())?.to_the_end()?.whole()?;
        s.step("the same chat with a killed server");
        let mut asked = Asked::stream(&client, question)?;
        asked.until(BEFORE)?;
        let server = asked.heard().node.clone();
        by_name(&nodes, &server)?.kill()?;
        let heard = asked.to_the_end()?.whole()?;
        ensure!(heard.text == whole.text, "`{}`, undisturbed `{}`", heard.text, whole.text);
        s.step("the record says who answered and why it moved");
        let record = nodes[2].cli(&["explain", &heard.request])?.success()?;
        for node in &nodes[..2] {
            ensure!(record.contains(node.name()), "{record}");
        }
        Ok(())
    });
}

#[test]
fn drawn_answers_and_orderly_ends_are_resumed_too() {
    scenario(|s| {
        let mut nodes = three(s)?;
        let client = nodes[2].client();
        // A token is drawn from the seed and its position alone, so another node draws the same.
        let fields = json!({"temperature": 0.9, "top_p": 0.9, "seed": 11, "frequency_penalty": 0.3,
                            "stream_options": {"include_usage": true}});
        let drawn = with(completion(STORY, TOKENS), fields);
        s.step("an undisturbed answer with drawn tokens");
        let whole = Asked::stream(&client, drawn.clone())?.to_the_end()?.whole()?;
        s.step("the same with a killed server: the same text, the same usage");
        let mut asked = Asked::stream(&client, drawn.clone())?;
        asked.until(BEFORE)?;
        let server = asked.heard().node.clone();
        by_name(&nodes, &server)?.kill()?;
        let heard = asked.to_the_end()?.whole()?;
        ensure!(heard.text == whole.text, "`{}`, undisturbed `{}`", heard.text, whole.text);
        let counts = |heard: &Heard, field: &str| heard.usage.as_ref().map(|u| u[field].clone());
        for field in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            ensure!(counts(&heard, field) == counts(&whole, field), "{heard:?} {whole:?}");
        }
        back(s, &mut nodes, &server)?;

        s.step("several answers at once with a killed server, not streamed");
        let many = with(drawn, json!({"n": 2, "stream_options": null}));
        let texts = |answer: &Value| -> Vec<String> {
            let choices = answer["choices"].as_array().into_iter().flatten();
            choices.filter_map(|c| c["text"].as_str()).map(str::to_owned).collect()
        };
        let undisturbed = client.post("/v1/completions", &many)?.ok()?;
        let mut watch = nodes[2].admin()?.watch(Deadline::patient())?;
        let answer = std::thread::scope(|scope| {
            let asking = scope.spawn(|| client.post("/v1/completions", &many)?.ok());
            let view = watch.until("work", |view| busy(view).is_some())?;
            by_name(&nodes, &busy(&view).unwrap_or_default())?.kill()?;
            asking.join().map_err(|_| anyhow!("the asking thread panicked"))?
        })?;
        ensure!(texts(&answer) == texts(&undisturbed), "{answer}, undisturbed {undisturbed}");
        Ok(())
    });
}

#[test]
fn a_server_may_die_at_any_token() {
    scenario(|s| {
        let mut nodes = three(s)?;
        let whole = ask(&nodes[2])?.to_the_end()?.whole()?;
        for pieces in [1, 2, 5, 12, 25, whole.pieces - 1] {
            s.step(&format!("the server is killed after piece {pieces} of {}", whole.pieces));
            let mut asked = ask(&nodes[2])?;
            asked.until(pieces)?;
            let name = asked.heard().node.clone();
            by_name(&nodes, &name)?.kill()?;
            let heard = asked.to_the_end()?.whole()?;
            ensure!(heard.text == whole.text, "`{}`, undisturbed `{}`", heard.text, whole.text);
            back(s, &mut nodes, &name)?;
        }
        s.step("the server is killed while it reads a long prompt");
        let long = completion(&"The sea was calm and the boat was small. ".repeat(60), 4);
        let client = nodes[2].client();
        let whole = Asked::stream(&client, long.clone())?.to_the_end()?.whole()?;
        let mut watch = nodes[2].admin()?.watch(Deadline::patient())?;
        let (heard, name) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| Asked::stream(&client, long)?.to_the_end()?.whole());
            let view = watch.until("work", |view| busy(view).is_some())?;
            let name = busy(&view).unwrap_or_default();
            by_name(&nodes, &name)?.kill()?;
            let heard = asking.join().map_err(|_| anyhow!("the asking thread panicked"))??;
            anyhow::Ok((heard, name))
        })?;
        ensure!(heard.text == whole.text, "{heard:?}, undisturbed {whole:?}");
        back(s, &mut nodes, &name)
    });
}

#[test]
fn a_server_that_ends_in_order_hands_over() {
    scenario(|s| {
        let nodes = three(s)?;
        let undisturbed = undisturbed(s, &nodes)?;
        s.step("the serving node is asked to end in the middle of an answer");
        let (heard, server) = hurt(s, &nodes, |server| server.terminate())?;
        same(s, &heard, &undisturbed, &nodes, server)?;
        s.step("the node that takes requests is asked to end in the middle of an answer");
        let mut asked = Asked::stream(&nodes[2].client(), completion(STORY, 1_000))?;
        asked.until(3)?;
        nodes[2].terminate()?;
        match asked.to_the_end() {
            Ok(heard) => ensure!(heard.error.is_some() && !heard.done, "{heard:?}"),
            Err(error) => s.say(&format!("the stream was cut: {error:#}")),
        }
        Ok(())
    });
}

/// Starts a killed node again; it needs no code.
fn back(s: &Scenario, nodes: &mut [Node], name: &str) -> Result<()> {
    let index = nodes.iter().position(|node| node.name() == name).context("an unknown node")?;
    nodes[index] = nodes[index].spec.up(s, &[])?;
    s.meet(nodes)
}

/// The name of the node that computes, if one does.
fn busy(view: &Value) -> Option<String> {
    let running = |model: &Value| model["running"].as_u64().unwrap_or(0) > 0;
    let works = |node: &&Value| node["models"].as_array().is_some_and(|m| m.iter().any(running));
    let node = selvedge_tests::admin::nodes(view).iter().find(works)?;
    node["name"].as_str().map(str::to_owned)
}

/// Two nodes with the model and, last, one without, which all requests are sent to.
fn three(s: &Scenario) -> Result<Vec<Node>> {
    s.mesh(&[s.node("left").with_model()?, s.node("right").with_model()?, s.node("asker")])
}

fn ask(node: &Node) -> Result<Asked> {
    Asked::stream(&node.client(), completion(STORY, TOKENS))
}

fn undisturbed(s: &Scenario, nodes: &[Node]) -> Result<String> {
    s.step("every node gives the same undisturbed answer");
    let mut texts = Vec::new();
    for node in nodes {
        texts.push(ask(node)?.to_the_end()?.whole()?.text);
    }
    ensure!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    Ok(texts.swap_remove(0))
}

/// Hurts whichever node serves an answer in its middle; what was then heard, and who it was.
fn hurt<'a>(
    s: &Scenario,
    nodes: &'a [Node],
    how: impl FnOnce(&Node) -> Result<()>,
) -> Result<(Heard, &'a str)> {
    let mut asked = ask(&nodes[2])?;
    asked.until(BEFORE)?;
    let server = by_name(nodes, &asked.heard().node)?;
    let hurt = Stopwatch::start();
    how(server)?;
    let heard = asked.to_the_end()?;
    s.say(&format!(
        "{} was hurt after {BEFORE} pieces; longest pause {:?}, end {:?} later",
        server.name(),
        heard.gap,
        hurt.elapsed()
    ));
    Ok((heard, server.name()))
}

fn same(s: &Scenario, heard: &Heard, text: &str, nodes: &[Node], server: &str) -> Result<()> {
    let heard = heard.clone().whole()?;
    ensure!(heard.text == text, "`{}`, undisturbed `{text}`", heard.text);
    // Frozen peers may take 2 s to be noticed, dead ones 1 s.
    let noticing = Duration::from_secs(2);
    ensure!(heard.gap < noticing + REREAD, "a pause of {:?}", heard.gap);
    s.step("the record names the node that was left and the one that went on");
    let record = nodes[2].cli(&["explain", &heard.request])?.success()?;
    ensure!(record.contains(server), "{record}");
    Ok(())
}

fn by_name<'a>(nodes: &'a [Node], name: &str) -> Result<&'a Node> {
    let found = nodes.iter().find(|node| node.name() == name);
    found.with_context(|| format!("the answer came from `{name}`, which is no node of this test"))
}
