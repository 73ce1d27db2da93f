//! Every kind of provider, each against a server of its own shape that its own client library
//! accepts: answers, tools, usage, and everything that can go wrong there.

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::{books, fund, until_books};
use selvedge_tests::http::Client;
use selvedge_tests::process::{self, Process};
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, Scenario, places, python, scenario};
use serde_json::{Value, json};

use super::providers::{nowhere, python_server};

/// What is planted as the key of every provider but Amazon's, which has two parts. The servers know
/// them too.
const KEY: &str = "sk-planted-5b1f0c9e7a44";
const AMAZON: &str = "AKIAPLANTED5B1F0C9E:planted/5b1f0c9e7a44+secret";

/// One kind of provider.
struct Shape {
    kind: &'static str,
    /// A model whose price the catalogue knows.
    model: &'static str,
    /// Micro-dollars that 21 tokens read and 7 written cost.
    cost: u64,
}

/// A node that knows a server of a shape, under four names.
struct World {
    _server: Process,
    client: Client,
    url: String,
    node: Node,
    key: String,
}

impl World {
    fn start(s: &Scenario, shape: &Shape) -> Result<Self> {
        let kind = [shape.kind];
        let script = ("shape_server.py", kind.as_slice());
        let (server, addr) = python_server(s, "provider", script)?;
        let spec = s.node("gateway");
        tiny::write(&spec.home.join("models"))?;
        let node = spec.up(s, &["--model", TINY])?;
        let secret = if shape.kind == "bedrock" { AMAZON } else { KEY };
        let words = ["provider", "key", "add", "main", "--from-env", "PLANTED", "--home"];
        let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        words.push(node.spec.home.display().to_string());
        let environment = [("PLANTED".to_owned(), secret.to_owned())];
        process::run(&places::selvedge()?, &words, None, &environment, Deadline::patient())?
            .success()?;
        let url = format!("http://{addr}");
        add(&node, shape, &url)?;
        let key = fund(&node, "acme", "1 usd/month")?;
        Ok(Self { _server: server, client: Client::new(addr.parse()?, None), url, node, key })
    }

    /// What the server has to say about requests that its provider would not take.
    fn wrong(&self) -> Result<()> {
        let seen = self.client.get("/seen")?.ok()?;
        ensure!(seen["wrong"] == json!([]), "{}", seen["wrong"]);
        Ok(())
    }
}

/// Adds the server under four names: as it is, without a price, in haste, and to be refused by.
fn add(node: &Node, shape: &Shape, url: &str) -> Result<()> {
    let keys: &[&str] = if shape.kind == "ollama" { &[] } else { &["main"] };
    let raw = |name: &str, cost: &str| {
        json!({
            "name": name, "kind": shape.kind, "base_url": url, "keys": keys, "cost": cost,
            "region": if shape.kind == "bedrock" { "eu-central-1" } else { "" },
        })
    };
    let kind = shape.kind;
    let cost = if shape.cost == 0 { "free" } else { "paid" };
    let mut hasty = raw(&format!("{kind}-hasty"), "free");
    hasty["attempts"] = json!(1);
    hasty["times"] = json!({"first_byte_ms": 700, "between_ms": 700, "whole_ms": 2_000});
    let all = [
        raw(kind, cost),
        raw(&format!("{kind}-lab"), "free"),
        raw(&format!("{kind}-full"), "free"),
        hasty,
    ];
    for provider in all {
        node.admin()?.client().post("/admin/providers", &provider)?.ok()?;
    }
    Ok(())
}

fn exercise(shape: &Shape) {
    scenario(|s| {
        let world = World::start(s, shape)?;
        let (kind, node) = (shape.kind, &world.node);
        let model = format!("{kind}/{}", shape.model);
        let more = [
            ("SELVEDGE_KIND", kind),
            ("SELVEDGE_SHAPE", world.url.as_str()),
            ("SELVEDGE_MODEL", model.as_str()),
        ];
        let client = node.client().with_key(&world.key);
        s.step("the provider's own client takes the server for the provider");
        let said = python::run_with("shape_judge.py", &client, &more)?;
        s.say(said.trim_end());
        s.step("clients of other providers ask it through the gateway");
        let said = python::run_with("shape_asked.py", &client, &more)?;
        s.say(said.trim_end());
        ensure!(said.trim_end().ends_with("all good"), "{said}");
        world.wrong()?;
        s.step("what it billed is what is recorded, and nothing is held");
        // On each of two surfaces: an answer, a call and the answer after it, whole and streamed.
        let answers = 2 * 2 * 3;
        until_books(node, "acme", "what it cost", Deadline::patient(), |books| {
            books.spent == answers * shape.cost && books.reserved == 0
        })?;
        wrong_counts(s, &world, kind)?;
        s.step("the key is nowhere, nor is a part of it");
        let secret = if kind == "bedrock" { AMAZON } else { KEY };
        secret.split(':').try_for_each(|part| nowhere(node, part))
    });
}

/// Usage that is missing or cannot be true.
fn wrong_counts(s: &Scenario, world: &World, kind: &str) -> Result<()> {
    s.step("usage that is not told or cannot be true is no gift and ruins nobody");
    let node = &world.node;
    for (account, model) in [("unsaid", "untold"), ("odd", "absurd")] {
        let key = fund(node, account, "100000 tokens/month")?;
        let client = node.client().with_key(&key);
        for stream in [false, true] {
            let before = books(node, account)?.spent;
            ask(&client, &format!("{kind}-lab/{model}"), stream)?;
            let after = until_books(node, account, "an end", Deadline::patient(), |books| {
                books.reserved == 0 && books.spent > before
            })?;
            let took = after.spent - before;
            s.say(&format!("{model}, stream {stream}: {took} tokens"));
            ensure!((7..1_000).contains(&took), "{model} took {took} of {}", after.whole);
        }
    }
    Ok(())
}

fn ask(client: &Client, model: &str, stream: bool) -> Result<Value> {
    let message = json!({"role": "user", "content": "Good morning!"});
    let body = json!({"model": model, "messages": [message], "max_tokens": 50, "stream": stream});
    let reply = client.post("/v1/chat/completions", &body)?;
    Ok(json!(reply.text().context("an answer")?))
}

#[test]
fn openai_is_asked_and_fails_as_it_does() {
    // At an address that is not OpenAI's nobody bills by OpenAI's prices.
    exercise(&Shape { kind: "openai", model: "gpt-4o", cost: 0 });
}

#[test]
fn azure_is_asked_and_fails_as_it_does() {
    exercise(&Shape { kind: "azure", model: "gpt-4o", cost: 123 });
}

#[test]
fn anthropic_is_asked_and_fails_as_it_does() {
    exercise(&Shape { kind: "anthropic", model: "claude-sonnet-4-5", cost: 168 });
}

#[test]
fn gemini_is_asked_and_fails_as_it_does() {
    exercise(&Shape { kind: "gemini", model: "gemini-2.5-flash", cost: 24 });
}

#[test]
fn bedrock_is_asked_and_fails_as_it_does() {
    let model = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";
    exercise(&Shape { kind: "bedrock", model, cost: 185 });
}

#[test]
fn cohere_is_asked_and_fails_as_it_does() {
    exercise(&Shape { kind: "cohere", model: "command-a-03-2025", cost: 123 });
}

#[test]
fn ollama_is_asked_and_fails_as_it_does() {
    exercise(&Shape { kind: "ollama", model: "llama3.2", cost: 0 });
}
