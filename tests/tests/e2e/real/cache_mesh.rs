//! The cache of the whole mesh: an answer kept at one node is given at another one, and a purge
//! that is ordered at a third holds at all, also at one that was cut off meanwhile.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::{self, until_taken};
use selvedge_tests::http::Reply;
use selvedge_tests::{Deadline, Node, Scenario, scenario};
use serde_json::{Value, json};

use super::providers::Provider;

/// Switches it on.
const ON: &str = "[cache]\nenabled = true\n";

#[test]
fn an_answer_kept_at_one_node_is_given_at_others_until_a_purge_anywhere() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let mut nodes = three(s, &provider)?;
        let (one, two, three) = (&nodes[0], &nodes[1], &nodes[2]);
        // What is asked without a key stays at the machine where it was asked.
        let key = budgets::key(one, "acme")?;
        nodes.iter().try_for_each(|node| until_taken(node, &key, Deadline::patient()))?;
        let does = |node: &Node, request: &_, wanted: &str| does((node, &key), request, wanted);
        s.step("asked at one node, given at another one");
        let first = does(one, &chat("a", false), "miss")?;
        told(two, "one", 1)?;
        let again = does(two, &chat("a", false), "hit peer one")?;
        ensure!(first.json()? == again.json()?, "another answer");
        does(two, &chat("a", false), "hit")?;
        ensure!(asked(&provider, "a")? == 1, "asked more than once");
        let (gave, got) = (show(one)?, show(two)?);
        ensure!(gave["lent"] == 1 && got["fetched"] == 1 && got["misses"] == 1, "{gave} {got}");

        s.step("as a stream");
        let first = does(one, &chat("b", true), "miss")?.text()?;
        told(two, "one", 2)?;
        let reply = does(two, &chat("b", true), "hit peer one")?;
        let id = reply.header("x-request-id").context("an id")?.to_owned();
        ensure!(reply.text()? == first, "another stream");
        let explained = two.cli(&["explain", &id])?.success()?;
        ensure!(explained.contains("the cache of node 'one' answered it"), "{explained}");

        s.step("embeddings, in both directions");
        does(two, &embedding(), "miss")?;
        does(two, &embedding(), "hit")?;
        told(one, "two", 3)?;
        does(one, &embedding(), "hit peer two")?;
        ensure!(asked(&provider, "vectors")? == 1, "asked more than once");

        s.step("a purge at a node that keeps nothing holds at all");
        let said = three.cli(&["cache", "purge"])?.success()?;
        ensure!(said.contains("2 of 2 other nodes know of it"), "{said}");
        for node in [one, two] {
            ensure!(show(node)?["entries"] == 0, "{}", show(node)?);
        }
        does(two, &chat("a", false), "miss")?;
        ensure!(asked(&provider, "a")? == 2);
        told(one, "two", 1)?;
        does(one, &chat("a", false), "hit peer two")?;

        s.step("who is cut off heeds it when it is back");
        two.freeze()?;
        let said = three.cli(&["cache", "purge", "--model", "lab/large"])?.success()?;
        ensure!(!said.contains("2 of 2"), "{said}");
        ensure!(show(one)?["entries"] == 0);
        two.thaw()?;
        until(two, "the purge", |show| show["entries"] == 0)?;
        does(one, &chat("a", false), "miss")?;
        ensure!(asked(&provider, "a")? == 3);

        s.step("who was away meanwhile learns it, and gives and gets again");
        two.kill()?;
        let said = three.cli(&["cache", "purge"])?.success()?;
        ensure!(said.contains("know of it"), "{said}");
        nodes[1] = nodes[1].spec.up(s, &[])?;
        s.meet(&nodes)?;
        let (one, two) = (&nodes[0], &nodes[1]);
        does(one, &chat("a", false), "miss")?;
        told(two, "one", 1)?;
        does(two, &chat("a", false), "hit peer one")?;
        ensure!(asked(&provider, "a")? == 4);
        Ok(())
    });
}

/// Two nodes with a cache and a provider each, and one with neither.
fn three(s: &Scenario, provider: &Provider) -> Result<Vec<Node>> {
    let specs = ["one", "two", "three"].map(|name| s.node(name));
    for spec in &specs[..2] {
        fs::create_dir_all(&spec.home)?;
        fs::write(spec.home.join("config.toml"), ON)?;
    }
    let nodes = s.mesh(&specs)?;
    for node in &nodes[..2] {
        let lab = ["provider", "add", "lab", "--kind", "openai", "--url", &provider.url];
        let models = ["--model", "large", "--model", "embed", "--free"];
        node.cli(&[&lab[..], &models].concat())?.success()?;
    }
    Ok(nodes)
}

fn chat(text: &str, stream: bool) -> (&'static str, Value) {
    let message = json!({"role": "user", "content": format!("question {text}")});
    let body = json!({
        "model": "lab/large", "temperature": 0, "messages": [message], "stream": stream,
    });
    ("/v1/chat/completions", body)
}

fn embedding() -> (&'static str, Value) {
    ("/v1/embeddings", json!({"model": "lab/embed", "input": "question vectors"}))
}

/// Asks, and checks what the cache did.
fn does((node, key): (&Node, &str), (path, body): &(&str, Value), expected: &str) -> Result<Reply> {
    let reply = node.client().with_key(key).post(path, body)?;
    let said = ["x-selvedge-cache", "x-selvedge-cache-reason", "x-selvedge-cache-from"];
    let said: Vec<&str> = said.iter().filter_map(|name| reply.header(name)).collect();
    // A peer that has just let go of it may have been asked.
    let as_expected =
        said.join(" ") == expected || (expected, said.first()) == ("miss", Some(&"miss"));
    ensure!(reply.status == 200 && as_expected, "{said:?}, not {expected}");
    Ok(reply)
}

/// How often the provider was asked this.
fn asked(provider: &Provider, text: &str) -> Result<usize> {
    let seen = provider.get("/seen")?;
    let seen = seen["seen"].as_array().context("requests")?;
    let text = format!("question {text}");
    Ok(seen.iter().filter(|one| one["body"].to_string().contains(&text)).count())
}

fn show(node: &Node) -> Result<Value> {
    Ok(serde_json::from_str(&node.cli(&["cache", "show", "--json"])?.success()?)?)
}

fn until(node: &Node, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
    Deadline::patient().until(what, || Ok(is_so(&show(node)?).then_some(())))
}

/// A node was told that a peer keeps so many answers.
fn told(node: &Node, peer: &str, answers: u64) -> Result<()> {
    let what = format!("{peer} tells that it keeps {answers}");
    until(node, &what, |show| show["peers"][peer] == answers)
}
