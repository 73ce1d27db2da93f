//! A node with more models than memory: they are in memory in turn, and no answer is cut for it.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::thread;
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use selvedge_tests::chat::Asked;
use selvedge_tests::http::Client;
use selvedge_tests::node::{Node, NodeSpec};
use selvedge_tests::time::Deadline;
use selvedge_tests::{scenario, tiny};
use serde_json::{Value, json};

/// The least that a node may be given: one of the two models fits.
const BUDGET: u64 = 16 << 20;

/// Gives a home two models of the same size.
fn two_models(spec: &NodeSpec) -> Result<()> {
    let model = tiny::wide(&spec.home.join("models"), "first")?;
    tiny::twin(&model, "second")?;
    Ok(())
}

fn short_of_memory(spec: &NodeSpec, more: &str) -> Result<()> {
    let lines = format!("[engine]\nmemory_budget_bytes = {BUDGET}\n{more}");
    Ok(fs::write(spec.home.join("config.toml"), lines)?)
}

fn question(model: &str, max_tokens: u32) -> Value {
    json!({"model": model, "prompt": "once upon a time", "max_tokens": max_tokens,
           "temperature": 0})
}

/// An answer and the node that gave it.
fn ask(client: &Client, model: &str) -> Result<(String, String)> {
    let reply = client.post("/v1/completions", &question(model, 4))?;
    let node = reply.header("x-selvedge-node").unwrap_or_default().to_owned();
    let answer = reply.ok().with_context(|| format!("an answer of {model}"))?;
    let text = answer["choices"][0]["text"].as_str().unwrap_or_default().to_owned();
    ensure!(text.len() == 4, "{answer}");
    Ok((text, node))
}

/// A number of the page of metrics.
fn counted(node: &Node, name: &str) -> Result<u64> {
    let page = node.client().get("/metrics")?.text()?;
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("no {name} in {page}"))?;
    Ok(line.trim().parse()?)
}

fn evictions(node: &Node) -> Result<u64> {
    let of =
        |reason| counted(node, &format!("selvedge_engine_evictions_total{{reason=\"{reason}\"}}"));
    Ok(of("least_recently_used")? + of("copy_elsewhere")?)
}

fn within_the_budget(node: &Node) -> Result<()> {
    let taken = counted(node, "selvedge_engine_memory_bytes")?;
    ensure!((BUDGET / 2..=BUDGET).contains(&taken), "{taken} bytes: one model, and not two");
    ensure!(counted(node, "selvedge_engine_memory_budget_bytes")? == BUDGET);
    Ok(())
}

fn state(node: &Node, model: &str) -> Result<Value> {
    let view = node.admin()?.status()?;
    let nodes = view["nodes"].as_array().into_iter().flatten();
    let own = nodes.filter(|node| node["me"] == json!(true));
    let mut models = own.flat_map(|node| node["models"].as_array().into_iter().flatten());
    let found = models.find(|one| one["name"] == json!(model)).cloned();
    found.with_context(|| format!("no {model}: {view}"))
}

#[test]
fn two_models_answer_in_turn_where_one_fits() {
    scenario(|s| {
        let spec = s.node("small");
        two_models(&spec)?;
        short_of_memory(&spec, "")?;
        let node = spec.up(s, &[])?;
        let client = node.client();
        s.step("whoever is asked for comes");
        let (first, _) = ask(&client, "first")?;
        for model in ["second", "first", "second", "first"] {
            let (text, _) = ask(&client, model)?;
            ensure!(text == first, "the same weights say the same: {text} {first}");
            within_the_budget(&node)?;
        }
        ensure!(evictions(&node)? >= 4, "one went each time");
        s.step("who was thrown out, and why");
        // The view of a node follows its engine a few times a second.
        node.admin()?.until("the second one cold", Deadline::patient(), |view| {
            let nodes = view["nodes"].as_array().into_iter().flatten();
            let mut models = nodes.flat_map(|n| n["models"].as_array().into_iter().flatten());
            models.any(|model| model["name"] == "second" && model["state"] == "cold")
        })?;
        let cold = state(&node, "second")?;
        ensure!(cold["state"] == "cold" && cold["memory_bytes"] == json!(0), "{cold}");
        ensure!(cold["evicted"]["for"] == "first", "{cold}");
        ensure!(cold["evicted"]["reason"] == "least_recently_used", "{cold}");
        let listed = node.cli(&["models", "list"])?.success()?;
        ensure!(listed.contains("second made room for first"), "{listed}");
        ensure!(listed.contains(" s ago") && listed.contains("last use"), "{listed}");
        s.step("an answer that runs is not cut");
        let before = evictions(&node)?;
        // Seconds of tokens, and within the half minute that a model waits for another.
        let mut stream = Asked::stream(&client, question("first", 2_000))?;
        stream.until(3)?;
        let other = {
            let client = client.clone();
            thread::spawn(move || ask(&client, "second"))
        };
        // Metrics are read from the engine as it is.
        Deadline::patient().until("the other one waiting", || {
            let waiting = counted(&node, "selvedge_engine_loads_waiting")? == 1;
            Ok(waiting.then_some(()))
        })?;
        ensure!(evictions(&node)? == before, "nobody went while it ran");
        let heard = stream.to_the_end()?.whole()?;
        ensure!(heard.finish.as_deref() == Some("length"), "{heard:?}");
        let (text, _) = other.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
        ensure!(text == first && evictions(&node)? == before + 1);
        within_the_budget(&node)
    });
}

#[test]
fn a_model_that_stays_loaded_is_not_thrown_out() {
    scenario(|s| {
        let spec = s.node("small");
        two_models(&spec)?;
        short_of_memory(&spec, "lazy = true\nkeep_loaded = [\"first\"]\n")?;
        let node = spec.up(s, &[])?;
        ask(&node.client(), "first")?;
        let refused = node.client().post("/v1/completions", &question("second", 4))?;
        let error = refused.refused(503)?;
        let message = error["message"].as_str().unwrap_or_default();
        ensure!(message.contains("keep_loaded") && message.contains("first"), "{message}");
        ask(&node.client(), "first")?;
        ensure!(evictions(&node)? == 0);
        within_the_budget(&node)
    });
}

/// The packed copies of a home's models.
fn packed(spec: &NodeSpec) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(spec.home.join("packed"))?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let is_copy = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "packed");
    Ok(paths?.into_iter().filter(is_copy).collect())
}

#[test]
fn a_model_is_packed_once_and_mapped_from_then_on() {
    scenario(|s| {
        let spec = s.node("small");
        two_models(&spec)?;
        short_of_memory(&spec, "lazy = true\n")?;
        let node = spec.up(s, &[])?;
        let (said, _) = ask(&node.client(), "first")?;
        let copies = packed(&spec)?;
        ensure!(copies.len() == 1, "{copies:?}");
        let copy = &copies[0];
        let made = fs::metadata(copy)?;
        ensure!(made.mode() & 0o777 == 0o600, "{made:?}");
        s.step("the next start maps it");
        node.terminate()?;
        let node = spec.up(s, &[])?;
        ensure!(ask(&node.client(), "first")?.0 == said);
        let found = fs::metadata(copy)?;
        ensure!((found.ino(), found.len()) == (made.ino(), made.len()), "it was made anew");
        s.step("one that is damaged is made anew");
        node.terminate()?;
        let mut bytes = fs::read(copy)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(copy, &bytes)?;
        let node = spec.up(s, &[])?;
        ensure!(ask(&node.client(), "first")?.0 == said);
        ensure!(fs::metadata(copy)?.len() == made.len() && fs::read(copy)? != bytes);
        s.step("a model that is removed leaves none");
        ask(&node.client(), "second")?;
        ensure!(packed(&spec)?.len() == 2);
        node.cli(&["models", "rm", "first"])?.success()?;
        ensure!(!copy.exists() && packed(&spec)?.len() == 1);
        s.step("nor does one whose file is gone");
        node.terminate()?;
        fs::remove_file(spec.home.join("models/second.gguf"))?;
        let _node = spec.up(s, &[])?;
        ensure!(packed(&spec)?.is_empty());
        Ok(())
    });
}

#[test]
fn a_peer_that_has_the_model_in_memory_answers_in_place_of_a_load() {
    scenario(|s| {
        let (small, large) = (s.node("small"), s.node("large"));
        for spec in [&small, &large] {
            two_models(spec)?;
        }
        short_of_memory(&small, "lazy = true\n")?;
        let mesh = s.mesh(&[small, large])?;
        let client = mesh[0].client();
        mesh[0].admin()?.until("both models at the peer", Deadline::patient(), |view| {
            let nodes = view["nodes"].as_array().into_iter().flatten();
            let peers = nodes.filter(|node| node["name"] == "large");
            let models = peers.flat_map(|n| n["models"].as_array().into_iter().flatten());
            models.filter(|model| model["state"] == "ready").count() == 2
        })?;
        s.step("its own copies are cold, and the last choice");
        for model in ["first", "second", "first"] {
            let (_, node) = ask(&client, model)?;
            ensure!(node == "large", "answered by {node}");
        }
        ensure!(counted(&mesh[0], "selvedge_engine_memory_bytes")? == 0);
        s.step("without the peer they are loaded, in turn");
        mesh[1].terminate()?;
        mesh[0].admin()?.until("the peer gone", Deadline::patient(), |view| {
            let nodes = view["nodes"].as_array().into_iter().flatten();
            let mut others = nodes.filter(|node| node["name"] == "large");
            others.all(|node| node["state"] != "alive")
        })?;
        for model in ["first", "second"] {
            let (_, node) = ask(&client, model)?;
            ensure!(node == "small", "answered by {node}");
        }
        ensure!(evictions(&mesh[0])? == 1);
        within_the_budget(&mesh[0])
    });
}
