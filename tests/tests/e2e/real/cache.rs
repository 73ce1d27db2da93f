//! The exact cache: the official client, a provider that counts, the command line, and the money.

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::{key, until_books};
use selvedge_tests::http::Client;
use selvedge_tests::tiny::TINY;
use selvedge_tests::{Deadline, python, scenario};
use serde_json::{Value, json};

use super::providers::{COST, PRICED, Provider, gateway_with};

/// Switches it on.
const ON: &str = "[cache]\nenabled = true\n";

fn asked(provider: &Provider) -> Result<usize> {
    let seen = provider.get("/seen")?;
    Ok(seen["seen"].as_array().context("requests")?.len())
}

/// A model of the mesh, asked the OpenAI way, whole and as a stream.
fn by_a_model_of_the_mesh(client: &Client) -> Result<()> {
    for stream in [false, true] {
        let message = json!({"role": "user", "content": "Good morning!"});
        let body = json!({
            "model": TINY, "temperature": 0, "max_tokens": 4, "messages": [message],
            "stream": stream,
        });
        let mut answers = Vec::new();
        for did in ["miss", "hit"] {
            let reply = client.post("/v1/chat/completions", &body)?;
            ensure!(reply.header("x-selvedge-cache") == Some(did), "{:?}", reply.headers);
            answers.push(reply.text()?);
        }
        ensure!(answers[0] == answers[1] && answers[0].len() > 20, "{answers:?}");
    }
    Ok(())
}

#[test]
fn equal_requests_are_answered_by_what_is_kept() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, mine) = gateway_with(s, &provider, "1 usd/month", ON)?;
        let other = key(&node, "rival")?;
        let client = node.client().with_key(&mine);
        let priced = format!("claude/{PRICED}");
        let more = [
            ("SELVEDGE_MODEL", TINY),
            ("SELVEDGE_ANTHROPIC", priced.as_str()),
            ("SELVEDGE_OTHER", other.as_str()),
            ("SELVEDGE_PROVIDER", provider.url.as_str()),
        ];
        let said = python::run_with("openai_cache.py", &client, &more)?;
        s.say(said.trim_end());
        ensure!(said.trim_end().ends_with("all good"), "{said}");

        s.step("what was given again was not paid for");
        // Whole, as a stream, and whole after the stream.
        until_books(&node, "acme", "what was paid for", Deadline::patient(), |books| {
            books.spent == 3 * COST && books.reserved == 0
        })?;

        s.step("a purge of an account leaves the others'");
        let show = || -> Result<Value> {
            Ok(serde_json::from_str(&node.cli(&["cache", "show", "--json"])?.success()?)?)
        };
        let before = show()?["entries"].as_u64().context("entries")?;
        let gone = node.cli(&["cache", "purge", "--account", "acme"])?.success()?;
        ensure!(gone.trim() == format!("{} answers are gone", before - 1), "{gone} of {before}");
        ensure!(show()?["entries"] == 1, "{}", show()?);
        s.step("what was purged is asked again");
        let message = json!({"role": "user", "content": "whole lab/large"});
        let body = json!({
            "model": "lab/large", "temperature": 0, "max_tokens": 50, "messages": [message]
        });
        let before = asked(&provider)?;
        for (did, asks) in [("miss", 1), ("hit", 1)] {
            let reply = client.post("/v1/chat/completions", &body)?;
            ensure!(reply.header("x-selvedge-cache") == Some(did), "{:?}", reply.headers);
            reply.ok()?;
            ensure!(asked(&provider)? == before + asks, "{did}");
        }
        node.cli(&["cache", "purge"])?.success()?;
        ensure!(show()?["entries"] == 0, "{}", show()?);
        let told = node.cli(&["cache", "show"])?.success()?;
        ensure!(told.contains("0 of at most 65536 answers"), "{told}");

        s.step("a model of the mesh, whole and as a stream");
        by_a_model_of_the_mesh(&client)?;
        s.step("a hit has a record of its own");
        let reply = client.post("/v1/chat/completions", &body)?;
        reply.ok()?;
        let reply = client.post("/v1/chat/completions", &body)?;
        let id = reply.header("x-request-id").context("an id")?.to_owned();
        reply.ok()?;
        let told = node.cli(&["explain", &id])?.success()?;
        ensure!(told.contains("the cache answered it"), "{told}");
        Ok(())
    });
}
