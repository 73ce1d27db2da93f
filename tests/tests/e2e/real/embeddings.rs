//! Embeddings: the official clients, every kind of provider that has them, and what is spent.

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::{fund, until_books};
use selvedge_tests::process;
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, Scenario, places, python, scenario};
use serde_json::json;

use super::providers::Provider;

/// Models of embeddings, a provider of each kind. The catalogue knows prices of the last three:
/// 0.12, 0.15 and 0.02 dollars per million tokens.
const MODELS: [(&str, &str, &str); 6] = [
    ("lab", "openai", "embed"),
    ("here", "ollama", "nomic-embed-text"),
    ("azure", "azure", "text-embedding-3-small"),
    ("cohere", "cohere", "embed-v4.0"),
    ("gemini", "gemini", "gemini-embedding-001"),
    ("aws", "bedrock", "amazon.titan-embed-text-v2:0"),
];

/// The models, as clients name them.
pub(super) fn names() -> String {
    let names = MODELS.iter().map(|(provider, _, model)| format!("{provider}/{model}"));
    names.collect::<Vec<_>>().join(",")
}

/// A node with a model of its own, a provider of each kind, and a key of an account that may spend
/// this much.
pub(super) fn gateway(s: &Scenario, provider: &Provider, budget: &str) -> Result<(Node, String)> {
    let spec = s.node("gateway");
    tiny::write(&spec.home.join("models"))?;
    let node = spec.up(s, &["--model", TINY])?;
    let home = node.spec.home.display().to_string();
    for (name, secret) in [("main", "sk-planted-1"), ("pair", "AKIAPLANTED:secret")] {
        let words = ["provider", "key", "add", name, "--from-env", "PLANTED", "--home", &home];
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let environment = [("PLANTED".to_owned(), secret.to_owned())];
        process::run(&places::selvedge()?, &words, None, &environment, Deadline::patient())?
            .success()?;
    }
    for (name, kind, model) in MODELS {
        let url = provider.url.as_str();
        let mut words = vec!["provider", "add", name, "--kind", kind, "--url", url];
        words.extend(["--model", model]);
        match kind {
            "ollama" => words.push("--free"),
            "bedrock" => words.extend(["--key", "pair", "--region", "eu-central-1"]),
            "openai" => words.extend(["--key", "main", "--free", "--model", "embed-short"]),
            _ => words.extend(["--key", "main"]),
        }
        if kind == "openai" {
            words.extend(["--model", "embed-shaky"]);
        }
        node.cli(&words)?.success()?;
    }
    let url = provider.url.as_str();
    let claude = ["provider", "add", "claude", "--kind", "anthropic", "--url", url];
    let own = ["--key", "main", "--model", "claude-sonnet-4-5"];
    node.cli(&claude.iter().copied().chain(own).collect::<Vec<_>>())?.success()?;
    let key = fund(&node, "acme", budget)?;
    Ok((node, key))
}

#[test]
fn official_clients_get_embeddings_of_every_kind_of_provider() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway(s, &provider, "1 usd/month")?;
        let client = node.client().with_key(&key);
        let names = names();
        let more = [("SELVEDGE_MODEL", TINY), ("SELVEDGE_EMBED", names.as_str())];
        for script in ["openai_embeddings.py", "ollama_embeddings.py"] {
            s.step(script);
            let said = python::run_with(script, &client, &more)?;
            s.say(said.trim_end());
            ensure!(said.trim_end().ends_with("all good"), "{said}");
        }
        Ok(())
    });
}

#[test]
fn embeddings_are_paid_for_by_what_the_provider_counted() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        // A thousand micro-dollars.
        let (node, key) = gateway(s, &provider, "0.001 usd/month")?;
        let client = node.client().with_key(&key);
        let ask = |model: &str, text: &str| {
            client.post("/v1/embeddings", &json!({"model": model, "input": text}))
        };
        s.step("a hundred words are a hundred tokens there, and cost 12 micro-dollars");
        let words = vec!["word"; 100].join(" ");
        let reply = ask("cohere/embed-v4.0", &words)?;
        let id = reply.header("x-request-id").context("an id")?.to_owned();
        ensure!(reply.ok()?["usage"]["total_tokens"] == 100);
        until_books(&node, "acme", "what it cost", Deadline::patient(), |books| {
            books.spent == 12 && books.reserved == 0
        })?;
        let told = node.cli(&["explain", &id])?.success()?;
        ensure!(told.contains("cohere/embed-v4.0") && told.contains("100 prompt"), "{told}");
        s.step("what could cost more than is left is not sent");
        let refused = ask("cohere/embed-v4.0", &"word ".repeat(2_000))?.refused(429)?;
        ensure!(refused["code"] == "budget_exhausted", "{refused}");
        s.step("a model without a price is refused by a budget of money");
        let azure = ["provider", "add", "other", "--kind", "cohere", "--url", &provider.url];
        let own = ["--key", "main", "--model", "embed-unheard-of"];
        node.cli(&azure.iter().copied().chain(own).collect::<Vec<_>>())?.success()?;
        ask("other/embed-unheard-of", "hi")?.refused(503)?;
        s.step("neither without a key, nor against the data's label, nor beyond the key's scope");
        let body = json!({"model": "cohere/embed-v4.0", "input": "hi"});
        node.client().post("/v1/embeddings", &body)?.refused(401)?;
        let kept = client.with_header("x-selvedge-label", "mesh");
        kept.post("/v1/embeddings", &body)?.refused(403)?;
        let made = ["key", "create", "chats", "--account", "acme", "--routes", "chat"];
        let made = node.cli(&made)?.success()?;
        let narrow = made.split_whitespace().find(|word| word.starts_with("sk-selvedge-"));
        let narrow = node.client().with_key(narrow.context("a key")?);
        narrow.post("/v1/embeddings", &body)?.refused(403)?;
        until_books(&node, "acme", "nothing more", Deadline::patient(), |books| books.spent == 12)?;
        Ok(())
    });
}

/// Vectors of two targets do not compare, so that who writes such a route must mean it.
const ROUTES: &str = r#"
    [[route]]
    name = "vectors"
    policy = "fallback"
    [[route.target]]
    mesh = "tiny"
    [[route.target]]
    provider = "lab"
    model = "embed-short"
    [[route.target]]
    provider = "cohere"
    model = "embed-v4.0"
"#;

#[test]
fn routes_lead_embeddings_past_what_makes_none() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway(s, &provider, "1 usd/month")?;
        let file = s.path("routes.toml");
        std::fs::write(&file, ROUTES)?;
        node.cli(&["routes", "set", &file.display().to_string()])?.success()?;
        let client = node.client().with_key(&key);
        let reply = client.post("/v1/embeddings", &json!({"model": "vectors", "input": "a b"}))?;
        let id = reply.header("x-request-id").context("an id")?.to_owned();
        let answer = reply.ok()?;
        ensure!(answer["model"] == "vectors" && answer["usage"]["total_tokens"] == 2, "{answer}");
        let told = node.cli(&["explain", &id])?.success()?;
        for part in ["not asked: it lacks embeddings", "lab/embed-short", "one vector", "cohere/"] {
            ensure!(told.contains(part), "no {part} in {told}");
        }
        s.step("the account's own clients are told the same, and nobody else");
        let path = format!("/v1/requests/{id}");
        let own = client.get(&path)?.ok()?;
        ensure!(own["id"] == id && own["outcome"] == "finished", "{own}");
        let legs = own["legs"].as_array().context("legs")?;
        let told = legs.iter().map(|leg| (&leg["target"], &leg["asked"], leg["ended"].is_null()));
        let wanted = [
            (&json!("lab/embed-short"), &json!(true), false),
            (&json!("cohere/embed-v4.0"), &json!(true), true),
            (&json!(TINY), &json!(false), false),
        ];
        ensure!(told.eq(wanted), "{own}");
        let other = node.client().with_key(&fund(&node, "other", "1 usd/month")?);
        other.get(&path)?.refused(404)?;
        s.step("a key for embeddings alone reads its own requests, and no others of its account");
        let made = ["key", "create", "vectors", "--account", "acme", "--routes", "embeddings"];
        let made = node.cli(&made)?.success()?;
        let narrow = made.split_whitespace().find(|word| word.starts_with("sk-selvedge-"));
        let narrow = node.client().with_key(narrow.context("a key")?);
        narrow.get(&path)?.refused(404)?;
        let reply = narrow.post("/v1/embeddings", &json!({"model": "vectors", "input": "a"}))?;
        let own = reply.header("x-request-id").context("an id")?.to_owned();
        reply.ok()?;
        ensure!(narrow.get(&format!("/v1/requests/{own}"))?.ok()?["outcome"] == "finished");
        narrow.get("/v1/models")?.refused(403)?;
        node.client().get(&path)?.refused(404)?;
        Ok(())
    });
}
