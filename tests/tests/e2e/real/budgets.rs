//! Budgets and keys of the mesh through the API: what clients are told, and what operators can
//! change while they ask.

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::{fund, until_books};
use selvedge_tests::chat::with;
use selvedge_tests::http::Client;
use selvedge_tests::output::Source;
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, Scenario, Stopwatch, python, scenario};
use serde_json::{Value, json};

/// A second model that answers the same.
const OTHER: &str = "other";
const ACCOUNT: &str = "acme/line3";
/// How soon a node that is in contact obeys what was ordered at another one.
const SOON: u64 = 2;

#[test]
fn the_official_client_spends_a_budget_to_its_end() {
    const LIMIT: u64 = 3_000;
    scenario(|s| {
        let nodes = pair(s)?;
        let key = fund(&nodes[0], ACCOUNT, &format!("{LIMIT} tokens/month"))?;
        for node in &nodes {
            until_books(node, ACCOUNT, "the budget", Deadline::patient(), |books| {
                books.limit == LIMIT && books.whole["in_force"] == true
            })?;
        }
        s.step("the node without the model: a client asks until it is refused");
        let limit = LIMIT.to_string();
        let more =
            [("SELVEDGE_MODEL", TINY), ("SELVEDGE_LIMIT", &limit), ("SELVEDGE_ACCOUNT", ACCOUNT)];
        let client = nodes[1].client().with_key(&key);
        let said = python::run_with("openai_budget.py", &client, &more)?;
        s.say(said.trim_end());
        let spent = said.lines().find_map(|line| line.strip_prefix("spent "));
        let spent = spent.and_then(|rest| rest.split(' ').next()).context("nothing spent")?;
        let spent: u64 = spent.parse()?;

        s.step("the other node has no more to give: the budget is one");
        let client = nodes[0].client().with_key(&key);
        let mut elsewhere = 0;
        let refused = loop {
            let reply = client.post("/v1/completions", &asked(TINY))?;
            if reply.status != 200 {
                break reply;
            }
            elsewhere += reply.ok()?["usage"]["total_tokens"].as_u64().context("usage")?;
            ensure!(spent + elsewhere <= LIMIT, "{spent} and {elsewhere} of {LIMIT}");
        };
        ensure!(refused.header("retry-after").is_some());
        ensure!(refused.header("x-ratelimit-limit-tokens") == Some(limit.as_str()));
        let error = refused.refused(429)?;
        ensure!(error["code"] == "budget_exhausted", "{error}");

        s.step("the books add up at both nodes");
        for node in &nodes {
            balanced(node, spent + elsewhere, LIMIT)?;
        }
        s.step("a restart forgets nothing that was spent");
        nodes[1].kill()?;
        let node = nodes[1].spec.up(s, &[])?;
        let books = balanced(&node, spent + elsewhere, LIMIT)?;
        s.say(&format!("after the restart: {books}"));
        node.client().with_key(&key).post("/v1/completions", &asked(TINY))?.refused(429)?;
        secret_nowhere(&nodes, &key)?;
        Ok(())
    });
}

#[test]
fn keys_open_what_they_name_at_every_node() {
    scenario(|s| {
        let nodes = pair(s)?;
        nodes[0].cli(&["tenant", "create", "acme", "--title", "Acme Ltd"])?.success()?;
        nodes[0].cli(&["tenant", "create", ACCOUNT])?.success()?;
        s.step("a narrow key, made at one node and used at the other");
        let (id, key) = make_key(&nodes[0], &["--models", "ti*", "--routes", "completions"])?;
        until_key(&nodes[1], &id)?;
        let client = nodes[1].client().with_key(&key);
        client.post("/v1/completions", &asked(TINY))?.ok()?;
        s.step("another model, another endpoint: 403 that says why");
        let error = client.post("/v1/completions", &asked(OTHER))?.refused(403)?;
        ensure!(error["message"].as_str().is_some_and(|text| text.contains("ti*")), "{error}");
        client.get("/v1/models")?.refused(403)?;
        s.step("a key that has ended");
        let request = json!({"name": "brief", "account": ACCOUNT, "expires_s": 2});
        let brief = nodes[0].admin()?.client().post("/admin/keys", &request)?.ok()?;
        let brief = brief["secret"].as_str().context("a secret")?;
        let error = until_refused(&nodes[0].client().with_key(brief), 401, Deadline::secs(10))?;
        ensure!(error["message"].as_str().is_some_and(|text| text.contains("expired")), "{error}");

        s.step("revoked at one node, refused at the other");
        let revoked = Stopwatch::start();
        nodes[0].cli(&["keys", "revoke", &id])?.success()?;
        until_refused(&client, 401, Deadline::secs(SOON))?;
        s.say(&format!("after {:?}", revoked.elapsed()));

        s.step("a suspended account");
        let (id, key) = make_key(&nodes[0], &[])?;
        until_key(&nodes[1], &id)?;
        let client = nodes[1].client().with_key(&key);
        client.post("/v1/completions", &asked(TINY))?.ok()?;
        nodes[0].cli(&["tenant", "suspend", "acme"])?.success()?;
        until_refused(&client, 403, Deadline::secs(SOON))?;

        s.step("what a person reads");
        let list = nodes[1].cli(&["key", "list"])?.success()?;
        ensure!(list.contains(&id) && list.contains("suspended"), "{list}");
        ensure!(!list.contains("ti*"), "a revoked key is listed: {list}");
        let list = nodes[1].cli(&["tenant", "list"])?.success()?;
        ensure!(list.contains("Acme Ltd") && list.contains("suspended"), "{list}");
        secret_nowhere(&nodes, &key)
    });
}

#[test]
fn a_budget_is_lowered_at_once_and_another_model_answers_instead() {
    const LIMIT: u64 = 100_000;
    scenario(|s| {
        let nodes = pair(s)?;
        let key = fund(&nodes[0], "acme", &format!("{LIMIT} tokens/month"))?;
        let instead = ["--name", "tiny", "--on-exhausted", "downgrade=other"];
        let scope = ["--scope", "model=tiny"];
        let set = ["budget", "set", "acme", "300 tokens/month"];
        nodes[0].cli(&[&set[..], &instead, &scope].concat())?.success()?;
        s.step("when its own budget is spent, the other model answers");
        let client = nodes[0].client().with_key(&key);
        let models = (0..8).map(|_| -> Result<String> {
            let reply = client.post("/v1/completions", &asked(TINY))?;
            let id = reply.header("x-request-id").context("an id")?.to_owned();
            reply.ok()?;
            let told = nodes[0].admin()?.client().get(&format!("/admin/requests/{id}"))?.ok()?;
            let answered = told["downgraded_to"].as_str().or(told["model"].as_str());
            Ok(answered.unwrap_or_default().to_owned())
        });
        let models = models.collect::<Result<Vec<_>>>()?;
        ensure!(models.first().is_some_and(|model| model == TINY), "{models:?}");
        ensure!(models.last().is_some_and(|model| model == OTHER), "{models:?}");

        s.step("lowered at one node below what is spent: the other one refuses at once");
        let far = nodes[1].client().with_key(&key);
        far.post("/v1/completions", &asked(OTHER))?.ok()?;
        let lowered = Stopwatch::start();
        let lower = ["budget", "lower", "acme", "tokens-month", "500"];
        nodes[0].cli(&lower)?.success()?;
        until_refused_asking(&far, &asked(OTHER), 429, Deadline::secs(SOON))?;
        s.say(&format!("after {:?}", lowered.elapsed()));
        s.step("lowering never raises");
        nodes[0].cli(&["budget", "lower", "acme", "tokens-month", "900k"])?.failure()?;

        s.step("what a person reads");
        let shown = nodes[1].cli(&["budget", "show", "acme"])?.success()?;
        for part in ["acme", "tokens-month", "500 tokens/month", "resets in", "founder"] {
            ensure!(shown.contains(part), "no {part}: {shown}");
        }
        let json = nodes[1].cli(&["budget", "show", "--json"])?.success()?;
        let json: Value = serde_json::from_str(&json)?;
        ensure!(json["data"].as_array().is_some_and(|all| all.len() == 2), "{json}");
        s.step("wrong orders say what to write");
        let wrong = nodes[0].cli(&["budget", "set", "acme", "20000 tokens"])?.failure()?;
        ensure!(wrong.contains("tokens/hour"), "{wrong}");
        let wrong = nodes[0].cli(&["budget", "set", "nobody", "5 tokens/hour"])?.failure()?;
        ensure!(wrong.contains("nobody"), "{wrong}");
        let refused = nodes[1].cli(&["budget", "set", "acme", "20000 tokens/hour"])?.failure()?;
        ensure!(refused.contains("root key"), "{refused}");
        Ok(())
    });
}

/// A node with the tiny model under two names, which made the mesh, and one without any.
fn pair(s: &Scenario) -> Result<Vec<Node>> {
    let model = tiny::write(&s.path("model"))?;
    let other = tiny::twin(&model, OTHER)?;
    let (model, other) = (model.display().to_string(), other.display().to_string());
    let founder = s.node("founder").with(&["--model", &model, "--model", &other, "-vv"]);
    s.mesh(&[founder, s.node("second").with(&["-vv"])])
}

fn asked(model: &str) -> Value {
    let request = json!({"model": model, "prompt": "x".repeat(90)});
    with(request, json!({"max_tokens": 10, "temperature": 0}))
}

/// A key for the account with more options: its id and its secret.
fn make_key(node: &Node, options: &[&str]) -> Result<(String, String)> {
    let before = key_ids(node)?;
    let create = ["key", "create", "app", "--account", ACCOUNT];
    let secret = node.cli(&[&create[..], options].concat())?.success()?.trim().to_owned();
    ensure!(secret.starts_with("sk-selvedge-") && !secret.contains(' '), "not only a key");
    let id = key_ids(node)?.into_iter().find(|id| !before.contains(id));
    Ok((id.context("the new key is not listed")?, secret))
}

fn key_ids(node: &Node) -> Result<Vec<String>> {
    let keys = node.admin()?.client().get("/admin/keys")?.ok()?;
    let keys = keys["data"].as_array().map_or(&[][..], Vec::as_slice);
    Ok(keys.iter().filter_map(|key| key["id"].as_str()).map(str::to_owned).collect())
}

/// Waits until a node has heard of a key.
fn until_key(node: &Node, id: &str) -> Result<()> {
    let deadline = Deadline::secs(SOON);
    while deadline.left().is_some() {
        if key_ids(node)?.iter().any(|known| known == id) {
            return Ok(());
        }
    }
    anyhow::bail!("{} did not hear of key {id}", node.name())
}

/// Asks until the answer is this refusal.
fn until_refused(client: &Client, status: u16, deadline: Deadline) -> Result<Value> {
    until_refused_asking(client, &asked(TINY), status, deadline)
}

fn until_refused_asking(
    client: &Client,
    request: &Value,
    status: u16,
    deadline: Deadline,
) -> Result<Value> {
    loop {
        let reply = client.post("/v1/completions", request)?;
        if reply.status != 200 {
            return reply.refused(status);
        }
        ensure!(deadline.left().is_some(), "still answered");
    }
}

/// The books of a quiet node: all that was served is spent, nothing is set aside, nothing is lost.
fn balanced(node: &Node, served: u64, limit: u64) -> Result<String> {
    let books = until_books(node, ACCOUNT, "balanced books", Deadline::secs(20), |books| {
        let sum = books.reserved == 0 && books.spent + books.left == limit;
        sum && books.spent >= served
    })?;
    Ok(format!("spent {}, left {}", books.spent, books.left))
}

/// No log holds the secret, at the most talkative level.
fn secret_nowhere(nodes: &[Node], secret: &str) -> Result<()> {
    let bare = secret.strip_prefix("sk-selvedge-").context("a key of ours")?;
    ensure!(bare.len() >= 40, "too short a secret");
    for node in nodes {
        let output = node.process.output();
        for source in [Source::Out, Source::Err] {
            let text = output.text(source);
            ensure!(!text.contains(bare), "{} logs a secret", node.name());
        }
        ensure!(output.text(Source::Err).contains("DEBUG"), "{} logs nothing", node.name());
    }
    Ok(())
}
