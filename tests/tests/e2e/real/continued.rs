//! Answers that break off at a provider and go on elsewhere: the client sees one answer.

use anyhow::{Context, Result, ensure};
use selvedge_tests::http::Client;
use selvedge_tests::{Asked, Node, Scenario, scenario};
use serde_json::{Value, json};

use super::providers::{PRICED, Provider, gateway_with, planted_nowhere};

/// A model of Anthropic's that goes on after its own beginning; here it breaks off at first.
const CUTTER: &str = "claude-3-haiku-20240307";
/// What all providers answer here.
const WHOLE: &str = "Good morning, how are you?";

/// The first target breaks off; who is next differs.
const ROUTES: &str = r#"
    [[route]]
    name = "to-vllm"
    policy = "fallback"
    [[route.target]]
    provider = "lab"
    model = "cut"
    [[route.target]]
    provider = "lab"
    model = "large"
    [[route.target]]
    provider = "vllm"
    model = "large"
    [[route]]
    name = "to-mesh"
    policy = "fallback"
    [[route.target]]
    provider = "lab"
    model = "cut"
    [[route.target]]
    mesh = "tiny"
    [[route]]
    name = "to-nobody"
    policy = "fallback"
    [[route.target]]
    provider = "lab"
    model = "cut"
    [[route.target]]
    provider = "lab"
    model = "large"
"#;

#[test]
fn an_answer_that_breaks_off_goes_on_elsewhere_without_a_seam() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway_with(s, &provider, "1 usd/month", "")?;
        let url = provider.url.as_str();
        let vllm = ["provider", "add", "vllm", "--kind", "openai", "--url", url, "--key", "main"];
        let more = ["--model", "large", "--free", "--continues", "continue-final-message"];
        node.cli(&[&vllm[..], &more].concat())?.success()?;
        let claude = ["provider", "add", "claude", "--kind", "anthropic", "--url", url];
        let more = ["--key", "main", "--model", PRICED, "--model", CUTTER];
        node.cli(&[&claude[..], &more].concat())?.success()?;
        let file = s.path("routes.toml");
        std::fs::write(&file, ROUTES)?;
        node.cli(&["routes", "set", "--here", &file.display().to_string()])?.success()?;
        let client = node.client().with_key(&key);
        at_another_server(s, &node, &client)?;
        at_the_same_model(s, &node, &client)?;
        s.step("a model of the mesh goes on from its own tokens of the text");
        let heard = Asked::stream(&client, ask("to-mesh"))?.to_the_end()?.whole()?;
        ensure!(heard.text.starts_with("Good morning,"), "{heard:?}");
        ensure!(heard.text.len() > "Good morning,".len(), "{heard:?}");
        ensure!(heard.usage.context("usage")?["completion_tokens"].as_u64() > Some(3));
        s.step("where nobody can, the error is honest and what came stays");
        let heard = Asked::stream(&client, ask("to-nobody"))?.to_the_end()?;
        ensure!(heard.text == "Good morning," && !heard.done, "{heard:?}");
        let error = heard.error.context("an error")?;
        ensure!(error["message"].to_string().contains("lab"), "{error}");
        let metrics = node.admin()?.client().get("/metrics")?.text()?;
        ensure!(metrics.contains("selvedge_continued_total 4"), "{metrics}");
        planted_nowhere(&node)
    });
}

fn ask(model: &str) -> Value {
    let message = json!({"role": "user", "content": "Good morning!"});
    json!({"model": model, "messages": [message], "max_tokens": 20, "temperature": 0,
        "stream_options": {"include_usage": true}})
}

/// Bytes passed until the cut; events of another server follow, told to go on in its own words.
fn at_another_server(s: &Scenario, node: &Node, client: &Client) -> Result<()> {
    s.step("another server goes on, in the same stream, under the same id");
    let mut asked = ask("to-vllm");
    asked["stream"] = json!(true);
    let text = client.post("/v1/chat/completions", &asked)?.text()?;
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: {"));
    let events: Vec<Value> = lines
        .map(|line| serde_json::from_str(&format!("{{{line}")).context("an event"))
        .collect::<Result<_>>()?;
    ensure!(events.iter().all(|event| event["id"] == events[0]["id"]), "{text}");
    ensure!(events.iter().all(|event| event["model"] == "to-vllm"), "{text}");
    let roles = events.iter().filter(|event| !event["choices"][0]["delta"]["role"].is_null());
    ensure!(roles.count() == 1, "{text}");
    ensure!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    s.step("the text is whole, and the usage is what both attempts are billed");
    let heard = Asked::stream(client, ask("to-vllm"))?.to_the_end()?.whole()?;
    ensure!(heard.text == WHOLE && heard.finish.as_deref() == Some("stop"), "{heard:?}");
    let record = client.get(&format!("/v1/requests/{}", heard.request))?.ok()?;
    let legs = record["legs"].as_array().context("legs")?;
    let took: u64 = legs.iter().filter_map(|leg| leg["tokens"].as_u64()).sum();
    ensure!(heard.usage.context("usage")?["total_tokens"] == took, "{record}");
    ensure!(legs[0]["tokens"].as_u64() > Some(3) && legs[2]["tokens"] == 28, "{record}");
    ensure!(legs[1]["asked"] == false, "it cannot go on: {record}");
    let told = node.cli(&["explain", &heard.request])?.success()?;
    ensure!(told.contains("goes on where the answer broke off"), "{told}");
    Ok(())
}

/// A client of Anthropic's dialect at a model that is asked once more.
fn at_the_same_model(s: &Scenario, node: &Node, client: &Client) -> Result<()> {
    s.step("the same model goes on, and the blocks of the message stay whole");
    let message = json!({"role": "user", "content": "Good morning!"});
    let body = json!({"model": format!("claude/{CUTTER}"), "messages": [message],
        "max_tokens": 20, "stream": true});
    let text = client.post("/v1/messages", &body)?.text()?;
    let count = |what: &str| text.matches(what).count();
    for once in [
        "event: message_start",
        "event: content_block_start",
        "event: content_block_stop",
        "event: message_delta",
        "event: message_stop",
    ] {
        ensure!(count(once) == 1, "{once} is there {} times in {text}", count(once));
    }
    let deltas = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut said = String::new();
    for delta in deltas {
        let event: Value = serde_json::from_str(delta).context("an event")?;
        if event["type"] == "content_block_delta" {
            ensure!(event["index"] == 0, "{event}");
            said.push_str(event["delta"]["text"].as_str().unwrap_or_default());
        }
    }
    ensure!(said == WHOLE, "{said} in {text}");
    let metrics = node.admin()?.client().get("/metrics")?.text()?;
    ensure!(metrics.contains("selvedge_continued_total 3"), "{metrics}");
    Ok(())
}
