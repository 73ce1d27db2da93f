//! Models of providers: real servers of two shapes on loopback, the official clients of both, keys
//! in the vault, and what is spent.

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::until_books;
use selvedge_tests::http::{Client, Reply};
use selvedge_tests::process::{self, Process};
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, NodeSpec, Scenario, places, python, scenario};
use serde_json::{Value, json};

/// Planted in the vault; it must be found nowhere but in what the provider receives.
pub(super) const SECRET: &str = "sk-planted-5b1f0c9e7a44";
/// A model whose price the catalogue knows: 3 dollars per million tokens read, 15 written.
pub(super) const PRICED: &str = "claude-sonnet-4-5";
/// What the provider's answer to anything costs: 21 tokens read, 7 written.
pub(super) const COST: u64 = 168;

/// A server of `tests/python`, with its arguments, that says its port when it is ready, and where
/// it listens.
pub(super) fn python_server(
    s: &Scenario,
    name: &str,
    (script, more): (&str, &[&str]),
) -> Result<(Process, String)> {
    let script = places::repository().join("tests/python").join(script);
    let more = more.iter().map(|&word| word.to_owned());
    let arguments: Vec<_> = [script.display().to_string()].into_iter().chain(more).collect();
    let process = Process::start(name, &places::python()?, &arguments, None, &[])?;
    s.show_on_failure(process.output());
    let mut cursor = 0;
    let wanted = "its port";
    let port = process.output().wait(&mut cursor, Deadline::secs(20), wanted, |line| {
        line.text.strip_prefix("ready ").map(str::to_owned)
    })?;
    Ok((process, format!("127.0.0.1:{port}")))
}

/// A provider of both shapes.
pub(super) struct Provider {
    process: Process,
    pub(super) url: String,
}

impl Provider {
    pub(super) fn start(s: &Scenario) -> Result<Self> {
        let (process, addr) = python_server(s, "provider", ("provider_server.py", &[]))?;
        Ok(Self { process, url: format!("http://{addr}") })
    }

    pub(super) fn get(&self, path: &str) -> Result<Value> {
        let addr = self.url.trim_start_matches("http://").parse()?;
        Client::new(addr, None).get(path)?.ok()
    }
}

/// A node with a model of its own, two providers, and a key of an account that may spend this much.
fn gateway(s: &Scenario, provider: &Provider, budget: &str) -> Result<(Node, String)> {
    gateway_with(s, provider, budget, "")
}

/// The same with a configuration.
pub(super) fn gateway_with(
    s: &Scenario,
    provider: &Provider,
    budget: &str,
    configuration: &str,
) -> Result<(Node, String)> {
    gateway_in(s, s.node("gateway"), provider, budget, configuration)
}

/// The same, started as told.
pub(super) fn gateway_in(
    s: &Scenario,
    spec: NodeSpec,
    provider: &Provider,
    budget: &str,
    configuration: &str,
) -> Result<(Node, String)> {
    tiny::write(&spec.home.join("models"))?;
    std::fs::write(spec.home.join("config.toml"), configuration)?;
    let node = spec.up(s, &["--model", TINY])?;
    let words = ["provider", "key", "add", "main", "--from-env", "PLANTED", "--home"];
    let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    words.push(node.spec.home.display().to_string());
    let environment = [("PLANTED".to_owned(), SECRET.to_owned())];
    process::run(&places::selvedge()?, &words, None, &environment, Deadline::patient())?
        .success()?;
    let url = provider.url.as_str();
    let lab = ["provider", "add", "lab", "--kind", "openai", "--url", url, "--key", "main"];
    let models = ["large", "busy", "broken", "cut", "talkative", "held"];
    let models = models.iter().flat_map(|model| ["--model", model]);
    node.cli(&lab.iter().copied().chain(models).chain(["--free"]).collect::<Vec<_>>())?
        .success()?;
    let claude = ["provider", "add", "claude", "--kind", "anthropic", "--url", url];
    let own = ["--key", "main", "--model", PRICED];
    node.cli(&claude.iter().copied().chain(own).collect::<Vec<_>>())?.success()?;
    let key = selvedge_tests::budgets::fund(&node, "acme", budget)?;
    Ok((node, key))
}

#[test]
fn official_clients_reach_models_of_providers() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway(s, &provider, "1 usd/month")?;
        let client = node.client().with_key(&key);
        let priced = format!("claude/{PRICED}");
        let more = [("SELVEDGE_MODEL", TINY), ("SELVEDGE_ANTHROPIC", priced.as_str())];
        for script in ["ollama_provider.py", "anthropic_provider.py", "openai_provider.py"] {
            s.step(script);
            let said = python::run_with(script, &client, &more)?;
            s.say(said.trim_end());
            ensure!(said.trim_end().ends_with("all good"), "{said}");
        }
        s.step("a client that leaves is followed to the provider");
        ensure!(provider.get("/left")?["left"] == true, "the provider goes on");
        s.step("the key reached the provider in its header, and is nowhere else");
        let seen = provider.get("/seen")?;
        let requests = seen["seen"].as_array().context("requests")?;
        for request in requests {
            let headers = &request["headers"];
            let shown = match headers["x-api-key"].as_str() {
                Some(key) => key.to_owned(),
                None => headers["authorization"].as_str().unwrap_or_default().to_owned(),
            };
            ensure!(shown.ends_with(SECRET), "{request}");
            ensure!(!request["path"].to_string().contains(SECRET), "{request}");
        }
        planted_nowhere(&node)
    });
}

#[test]
fn money_is_spent_to_the_cent_and_then_local_models_answer() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        // Enough for a few answers: each reserves its worst case and pays what it cost.
        let (node, key) = gateway(s, &provider, "0.01 usd/month")?;
        let client = node.client().with_key(&key);
        let ask = |model: &str| {
            let message = json!({"role": "user", "content": "Good morning!"});
            let body = json!({"model": model, "messages": [message], "max_tokens": 100});
            client.post("/v1/chat/completions", &body)
        };
        let priced = format!("claude/{PRICED}");
        s.step("answers are paid for until the worst case of another one does not fit");
        let mut answers = 0;
        let refused = loop {
            let reply = ask(&priced)?;
            if reply.status != 200 {
                break reply.refused(429)?;
            }
            reply.ok()?;
            answers += 1;
            ensure!(answers * COST <= 10_000, "{answers} answers for a cent");
        };
        s.say(&format!("{answers} answers, then: {refused}"));
        ensure!(answers > 20, "{answers}");
        ensure!(refused["code"] == "budget_exhausted", "{refused}");
        until_books(&node, "acme", "what it cost", Deadline::patient(), |books| {
            books.spent == answers * COST && books.reserved == 0
        })?;
        s.step("a model of the mesh costs nothing and still answers");
        ask(TINY)?.ok()?;
        s.step("without a key no money is spent, on loopback either");
        let message = json!({"role": "user", "content": "Good morning!"});
        let body = json!({"model": priced, "messages": [message]});
        let refused = node.client().post("/v1/chat/completions", &body)?.refused(401)?;
        ensure!(refused["message"].to_string().contains("key"), "{refused}");
        s.step("data that may not leave does not");
        let kept = client.with_header("x-selvedge-label", "mesh");
        kept.post("/v1/chat/completions", &body)?.refused(403)?;
        s.step("the record says where it went and why");
        let reply = ask("lab/large")?;
        let id = reply.header("x-request-id").context("an id")?.to_owned();
        reply.ok()?;
        let told = node.cli(&["explain", &id])?.success()?;
        ensure!(told.contains("lab/large") && told.contains("answered"), "{told}");
        Ok(())
    });
}

#[test]
fn providers_and_their_keys_survive_a_restart() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway(s, &provider, "1 usd/month")?;
        node.kill()?;
        let node = node.spec.up(s, &["--model", TINY])?;
        let list = node.cli(&["provider", "list"])?.success()?;
        ensure!(list.contains("lab") && list.contains("claude"), "{list}");
        let keys = node.cli(&["provider", "key", "list"])?.success()?;
        ensure!(
            keys.contains("main") && keys.contains("7a44") && !keys.contains("planted"),
            "{keys}"
        );
        let message = json!({"role": "user", "content": "Good morning!"});
        let body = json!({"model": "lab/large", "messages": [message]});
        node.client().with_key(&key).post("/v1/chat/completions", &body)?.ok()?;
        s.step("a provider without its key says what is missing; removed, it is not found");
        node.cli(&["provider", "key", "remove", "main"])?.success()?;
        let refused = node.client().with_key(&key).post("/v1/chat/completions", &body)?;
        ensure!(refused.refused(503)?["message"].to_string().contains("vault"));
        node.cli(&["provider", "remove", "lab"])?.success()?;
        let gone = node.admin()?.client().send(
            "DELETE",
            "/admin/models/nobody",
            b"",
            Deadline::patient(),
        )?;
        ensure!(gone.refused(404)?["code"] == "model_not_found");
        node.client().with_key(&key).post("/v1/chat/completions", &body)?.refused(404)?;
        ensure!(provider.process.ended().is_none());
        planted_nowhere(&node)
    });
}

/// A price of this node's own, and another one for the whole mesh.
fn price(dollars: u64) -> String {
    format!(
        "[[model]]\nkind = \"anthropic\"\nid = \"{PRICED}\"\nas_of = \"2026-11-01\"\n\
         price = {{ input = {dollars}_000_000, output = {dollars}_000_000 }}\n"
    )
}

/// Micro-dollars below one dollar, as people are told them.
fn usd(micro_dollars: u64) -> String {
    format!("0.{}", format!("{micro_dollars:06}").trim_end_matches('0')) + " usd"
}

#[test]
fn what_is_billed_is_what_the_catalogue_in_force_says() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway(s, &provider, "1 usd/month")?;
        let client = node.client().with_key(&key);
        let file = s.path("prices.toml");
        let mut spent = 0;
        let mut pays = |what: &str, cost: u64| -> Result<()> {
            s.step(what);
            let reply = greet(&client, &format!("claude/{PRICED}"))?;
            let id = reply.header("x-request-id").context("an id")?.to_owned();
            reply.ok()?;
            spent += cost;
            until_books(&node, "acme", what, Deadline::patient(), |books| {
                books.spent == spent && books.reserved == 0
            })?;
            let record = client.get(&format!("/v1/requests/{id}"))?.ok()?;
            ensure!(record["micro_dollars"] == cost, "{record}");
            ensure!(record["legs"][0]["micro_dollars"] == cost, "{record}");
            let told = node.cli(&["explain", &id])?.success()?;
            ensure!(told.contains(&format!("28 tokens for {}", usd(cost))), "{told}");
            let metrics = node.admin()?.client().get("/metrics")?.text()?;
            let line = format!("selvedge_provided_micro_dollars_total {spent}");
            ensure!(metrics.contains(&line), "no `{line}` in {metrics}");
            Ok(())
        };
        pays("the program's own list", COST)?;
        std::fs::write(&file, price(10))?;
        node.cli(&["routes", "set", &file.display().to_string()])?.success()?;
        pays("an entry of the mesh", 280)?;
        std::fs::write(&file, price(100))?;
        node.cli(&["routes", "set", "--here", &file.display().to_string()])?.success()?;
        pays("an entry of this node's own, which comes first", 2_800)?;
        node.cli(&["routes", "rollback", "--here"])?.success()?;
        node.cli(&["routes", "remove", &format!("anthropic/{PRICED}"), "--model"])?.success()?;
        pays("the program's own list again", COST)
    });
}

/// Small models first: the mesh's own, then two of providers. `unsure` doubts everything that is
/// not nearly certain, `sure` nothing.
const RISING: &str = r#"
    [[model]]
    kind = "openai-compatible"
    id = "large"
    as_of = "2026-11-01"
    context = 32_768
    input = ["text"]
    output = ["text"]
    can = ["streaming", "logprobs"]
    price = { input = 0, output = 0 }
    [[route]]
    name = "unsure"
    policy = { small-first = { min_confidence = -1 } }
    [[route.target]]
    mesh = "tiny"
    up_to = 30
    [[route.target]]
    provider = "lab"
    model = "large"
    up_to = 60
    [[route.target]]
    provider = "claude"
    model = "claude-sonnet-4-5"
    [[route]]
    name = "sure"
    policy = { small-first = { min_confidence = -20000 } }
    [[route.target]]
    mesh = "tiny"
    up_to = 30
    [[route.target]]
    provider = "claude"
    model = "claude-sonnet-4-5"
    [[route]]
    name = "alone"
    policy = { small-first = { min_confidence = -1 } }
    [[route.target]]
    mesh = "tiny"
    up_to = 30
    [[route.target]]
    provider = "lab"
    model = "broken"
"#;

#[test]
fn larger_models_are_asked_when_a_small_one_is_unsure_and_the_saving_is_told() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway(s, &provider, "1 usd/month")?;
        let file = s.path("routes.toml");
        std::fs::write(&file, RISING)?;
        node.cli(&["routes", "set", "--here", &file.display().to_string()])?.success()?;
        let client = node.client().with_key(&key);
        s.step("two are unsure, the largest answers; each attempt is told and paid for");
        let reply = greet(&client, "unsure")?;
        let id = reply.header("x-request-id").context("an id")?.to_owned();
        let answer = reply.ok()?;
        let choice = &answer["choices"][0];
        ensure!(choice["message"]["content"] == "Good morning, how are you?", "{answer}");
        ensure!(choice["logprobs"].is_null(), "nobody asked for them: {answer}");
        let record = client.get(&format!("/v1/requests/{id}"))?.ok()?;
        let legs = record["legs"].as_array().context("legs")?;
        for (leg, tokens) in legs.iter().zip([None, Some(28), Some(28)]) {
            let took = leg["tokens"].as_u64().unwrap_or_default();
            ensure!(tokens.map_or(took > 20, |tokens| took == tokens), "{record}");
        }
        ensure!(legs[0]["judged"].to_string().contains("too low"), "{record}");
        ensure!(legs[1]["judged"] == "confidence -2500 thousandths: too low", "{record}");
        ensure!(legs[2]["judged"].is_null() && legs[2]["ended"].is_null(), "{record}");
        ensure!(record["attempts"].as_array().is_some_and(|turns| turns.len() == 1), "{record}");
        ensure!(record["saved_micro_dollars"] == 0, "{record}");
        let told = node.cli(&["explain", &id])?.success()?;
        for part in ["too low", "a larger model is asked", "small models first: saved 0"] {
            ensure!(told.contains(part), "no {part} in {told}");
        }
        s.step("a stream is judged too, and comes from one model alone");
        let message = json!({"role": "user", "content": "Good morning!"});
        let body = json!({"model": "unsure", "messages": [message], "max_tokens": 20,
            "temperature": 0});
        let heard = selvedge_tests::Asked::stream(&client, body)?.to_the_end()?.whole()?;
        ensure!(heard.text == "Good morning, how are you?", "{heard:?}");
        s.step("a small model that is sure enough answers, and what that saved is told");
        let reply = greet(&client, "sure")?;
        let id = reply.header("x-request-id").context("an id")?.to_owned();
        let usage = reply.ok()?["usage"].clone();
        let count = |name: &str| usage[name].as_u64().context("usage");
        let saved = count("prompt_tokens")? * 3 + count("completion_tokens")? * 15;
        let record = client.get(&format!("/v1/requests/{id}"))?.ok()?;
        ensure!(record["saved_micro_dollars"] == saved, "{record}");
        ensure!(record["legs"][0]["judged"].to_string().contains("good enough"), "{record}");
        let table = node.cli(&["routes", "savings"])?.success()?;
        ensure!(table.contains("sure") && table.contains(&usd(saved)), "{table}");
        let metrics = node.admin()?.client().get("/metrics")?.text()?;
        let instead = format!("small_first_instead_micro_dollars_total {}", saved + 2 * COST);
        ensure!(metrics.contains(&instead), "no {instead} in {metrics}");
        ensure!(metrics.contains("selvedge_escalated_total 4"), "{metrics}");
        s.step("when no larger model answers, the small one does after all");
        let reply = greet(&client, "alone")?;
        let id = reply.header("x-request-id").context("an id")?.to_owned();
        ensure!(reply.ok()?["usage"]["completion_tokens"] == 20);
        let told = node.cli(&["explain", &id])?.success()?;
        ensure!(told.contains("no larger model answers"), "{told}");
        Ok(())
    });
}

/// Three ways to a model.
const ROUTES: &str = r#"
    [aliases]
    "gpt-4o" = "chat"
    [[route]]
    name = "chat"
    policy = "fallback"
    [[route.target]]
    provider = "lab"
    model = "broken"
    [[route.target]]
    provider = "claude"
    model = "claude-sonnet-4-5"
    [[route.target]]
    mesh = "tiny"
    [[route]]
    name = "thrifty"
    policy = "cheapest"
    [[route.target]]
    provider = "claude"
    model = "claude-sonnet-4-5"
    [[route.target]]
    mesh = "tiny"
"#;

#[test]
fn routes_lead_from_one_target_to_the_next() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway(s, &provider, "1 usd/month")?;
        let file = s.path("routes.toml");
        std::fs::write(&file, ROUTES)?;
        let file = file.display().to_string();
        node.cli(&["routes", "set", "--here", &file])?.success()?;
        let client = node.client().with_key(&key);
        let told = |id: &str| node.cli(&["explain", id])?.success();
        s.step("the first target fails, the next one answers; an alias leads there too");
        for model in ["chat", "gpt-4o"] {
            let reply = greet(&client, model)?;
            let id = reply.header("x-request-id").context("an id")?.to_owned();
            let answer = reply.ok()?;
            let said = &answer["choices"][0]["message"]["content"];
            ensure!(said == "Good morning, how are you?", "{answer}");
            ensure!(answer["model"] == model, "{answer}");
            let told = told(&id)?;
            for part in ["lab/broken", "failed", "claude/claude-sonnet-4-5", "answered", "tiny"] {
                ensure!(told.contains(part), "no {part} in {told}");
            }
        }
        s.step("what costs nothing is cheapest");
        let answer = greet(&client, "thrifty")?.ok()?;
        ensure!(answer["usage"]["completion_tokens"] == 20, "{answer}");
        s.step("data that stays in the mesh passes the providers by");
        let kept = client.with_header("x-selvedge-label", "mesh");
        let reply = greet(&kept, "chat")?;
        let id = reply.header("x-request-id").context("an id")?.to_owned();
        ensure!(reply.ok()?["usage"]["completion_tokens"] == 20);
        ensure!(told(&id)?.contains("not asked"), "{}", told(&id)?);
        s.step("a text is gone on with by whoever its name leads to and can do it");
        for model in ["gpt-4o", "thrifty"] {
            let body = json!({"model": model, "prompt": "Once", "max_tokens": 5,
                "temperature": 0});
            let answer = client.post("/v1/completions", &body)?.ok()?;
            ensure!(answer["model"] == model, "{answer}");
            ensure!(answer["usage"]["completion_tokens"] == 5, "{answer}");
        }
        let body = json!({"model": "lab/large", "prompt": ["Once", "Twice"]});
        let refused = client.post("/v1/completions", &body)?.refused(400)?;
        ensure!(refused["code"] == "unsupported", "{refused}");
        s.step("routes are listed as models");
        let models = client.get("/v1/models")?.ok()?.to_string();
        ensure!(models.contains("thrifty") && models.contains("gpt-4o"), "{models}");
        taken_back(s, node, &client, &file)
    });
}

/// Asks a model something short.
fn greet(client: &Client, model: &str) -> Result<Reply> {
    let message = json!({"role": "user", "content": "Good morning!"});
    let body = json!({"model": model, "messages": [message], "max_tokens": 20, "temperature": 0});
    client.post("/v1/chat/completions", &body)
}

/// Wrong routes change nothing, and others can be taken back, also after a restart.
fn taken_back(s: &Scenario, node: Node, client: &Client, file: &str) -> Result<()> {
    s.step("wrong routes change nothing, and routes can be taken back");
    std::fs::write(file, ROUTES.replace("\"claude\"", "\"nobody\""))?;
    let refused = node.cli(&["routes", "set", "--here", file])?.failure()?;
    ensure!(refused.contains("nobody"), "{refused}");
    std::fs::write(file, "")?;
    node.cli(&["routes", "set", "--here", file])?.success()?;
    greet(client, "chat")?.refused(404)?;
    node.cli(&["routes", "rollback", "--here"])?.success()?;
    node.kill()?;
    let node = node.spec.up(s, &["--model", TINY])?;
    greet(&node.client().with_key(client.key.as_deref().unwrap_or_default()), "chat")?.ok()?;
    let shown = node.cli(&["routes", "show", "--here"])?.success()?;
    ensure!(shown.contains("thrifty"), "{shown}");
    Ok(())
}

/// The planted key is in no file, no log line and no answer of the node.
pub(super) fn planted_nowhere(node: &Node) -> Result<()> {
    nowhere(node, SECRET)
}

/// The same of any text.
pub(super) fn nowhere(node: &Node, secret: &str) -> Result<()> {
    let log = node.process.output().tail();
    ensure!(!log.contains(secret), "the log holds {secret}");
    for path in ["/admin/providers", "/admin/provider-keys", "/metrics"] {
        let text = node.admin()?.client().get(path)?.text()?;
        ensure!(!text.contains(secret), "{path} shows {secret}");
    }
    let state = std::fs::read(node.spec.home.join("state.redb"))?;
    let planted = secret.as_bytes();
    ensure!(!state.windows(planted.len()).any(|bytes| bytes == planted), "the store has {secret}");
    Ok(())
}
