//! What the HTTP interface answers and what it refuses, on one node.

use anyhow::{Result, ensure};
use selvedge_tests::chat::{self, chat, completion, with};
use selvedge_tests::places::MODEL;
use selvedge_tests::{Client, Scenario, scenario};
use serde_json::{Value, json};

#[test]
fn every_request_is_answered_or_refused_clearly() {
    scenario(|s| {
        let node = s.node("solo").with_model()?.up(s, &[])?;
        node.admin()?.until_offered(1, selvedge_tests::Deadline::patient())?;
        let client = node.client();
        listings(s, &client)?;
        whole_answers(s, &client)?;
        refused_requests(s, &client)?;
        refused_origins(s, &client)?;
        admin_is_closed(s, &client)?;
        s.step("metrics speak Prometheus and have counted");
        let metrics = client.get("/metrics")?;
        ensure!(metrics.status == 200, "status {}", metrics.status);
        let metrics = metrics.text()?;
        ensure!(metrics.contains("# TYPE selvedge_"), "{metrics}");
        let counted = metrics.lines().filter(|line| line.starts_with("selvedge_"));
        let counted = counted.filter_map(|line| line.split(' ').next_back());
        ensure!(counted.filter_map(|n| n.parse::<f64>().ok()).any(|n| n > 0.0), "{metrics}");
        s.step("the node ends on request");
        node.terminate()
    });
}

fn listings(s: &Scenario, client: &Client) -> Result<()> {
    s.step("health");
    ensure!(client.get("/health")?.status == 200);
    s.step("the list of models");
    let models = client.get("/v1/models")?.ok()?;
    ensure!(models["object"] == "list", "{models}");
    let listed: Vec<&Value> = models["data"].as_array().into_iter().flatten().collect();
    ensure!(listed.len() == 1 && listed[0]["id"] == MODEL, "{models}");
    ensure!(listed[0]["object"] == "model" && listed[0]["created"].is_u64(), "{models}");
    s.step("one model");
    let model = client.get(&format!("/v1/models/{MODEL}"))?.ok()?;
    ensure!(model["id"] == MODEL, "{model}");
    s.step("a model that is not there");
    let error = client.get("/v1/models/gpt-17")?.refused(404)?;
    ensure!(error["code"] == "model_not_found", "{error}");
    s.step("a path that is not there");
    client.get("/v1/no-such-thing")?.refused(404)?;
    s.step("a method that is not there");
    let reply = client.delete("/v1/models")?;
    ensure!(reply.status == 405, "status {}", reply.status);
    Ok(())
}

fn whole_answers(s: &Scenario, client: &Client) -> Result<()> {
    s.step("a chat in one piece");
    let reply = client.post("/v1/chat/completions", &chat("Say hello.", 8))?;
    let id = reply.header("x-request-id").unwrap_or_default().to_owned();
    ensure!(id.starts_with("req_"), "request id `{id}`");
    ensure!(reply.header("x-selvedge-node") == Some("solo"), "{:?}", reply.headers);
    let answer = reply.ok()?;
    ensure!(answer["object"] == "chat.completion", "{answer}");
    ensure!(answer["choices"][0]["message"]["role"] == "assistant", "{answer}");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    ensure!(!text.is_empty(), "{answer}");
    let usage = &answer["usage"];
    let count = |field: &str| usage[field].as_u64().unwrap_or_default();
    ensure!(count("prompt_tokens") > 5 && count("completion_tokens") <= 8, "{answer}");
    let sum = count("prompt_tokens") + count("completion_tokens");
    ensure!(count("total_tokens") == sum, "{answer}");
    s.step("a text completion in one piece");
    let answer = client.post("/v1/completions", &completion("One, two, three,", 6))?.ok()?;
    ensure!(answer["object"] == "text_completion", "{answer}");
    ensure!(answer["choices"][0]["finish_reason"] == "length", "{answer}");
    ensure!(answer["usage"]["completion_tokens"] == 6, "{answer}");
    Ok(())
}

fn refused_requests(s: &Scenario, client: &Client) -> Result<()> {
    let chats = "/v1/chat/completions";
    s.step("an unknown model");
    let request = with(chat("Hi", 4), json!({"model": "gpt-17"}));
    let error = client.post(chats, &request)?.refused(404)?;
    ensure!(error["code"] == "model_not_found", "{error}");
    s.step("malformed JSON");
    for body in ["{", "", "[]", "null", "{\"model\": 1}", "{\"messages\": \u{1}}"] {
        let deadline = selvedge_tests::Deadline::patient();
        client.send("POST", chats, body.as_bytes(), deadline)?.refused(400)?;
    }
    s.step("another content type");
    let reply = client.with_header("Content-Type", "text/plain").post(chats, &chat("Hi", 4))?;
    let status = reply.status;
    reply.refused(status)?;
    ensure!(status == 400 || status == 415, "status {status}");
    // Field at fault, and the request's fields that make it so.
    let refused = [
        ("temperature", json!({"temperature": 3})),
        ("temperature", json!({"temperature": "warm"})),
        ("top_p", json!({"top_p": 1.5})),
        ("n", json!({"n": 0})),
        ("n", json!({"n": 1000})),
        ("max_tokens", json!({"max_tokens": -1})),
        ("presence_penalty", json!({"presence_penalty": 9})),
        ("frequency_penalty", json!({"frequency_penalty": -9})),
        ("stop", json!({"stop": ["a", "b", "c", "d", "e"]})),
        ("stop", json!({"stop": [""]})),
        ("top_logprobs", json!({"logprobs": true, "top_logprobs": 50})),
        ("logit_bias", json!({"logit_bias": {"50256": -100}})),
        ("tools", json!({"tools": [{"type": "function", "function": {}}]})),
        ("response_format", json!({"response_format": {"type": "xml"}})),
        ("messages", json!({"messages": []})),
        ("messages", json!({"messages": [{"role": "wizard", "content": "hi"}]})),
        ("messages", json!({"messages": "hi"})),
    ];
    for (field, fields) in refused {
        s.step(&format!("a request with {fields}"));
        let error = client.post(chats, &with(chat("Hi", 4), fields))?.refused(400)?;
        let named = error["param"].as_str().unwrap_or_default();
        ensure!(named.starts_with(field), "the field at fault should be {field}: {error}");
    }
    s.step("a prompt beyond the model's context");
    let request = completion(&"word ".repeat(20_000), 4);
    let error = client.post("/v1/completions", &request)?.refused(400)?;
    ensure!(error["code"] == "context_length_exceeded", "{error}");
    Ok(())
}

fn refused_origins(s: &Scenario, client: &Client) -> Result<()> {
    s.step("names of loopback are welcome");
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        let host = format!("{host}:{}", client.addr.port());
        ensure!(client.with_host(&host).get("/v1/models")?.status == 200, "{host}");
    }
    s.step("a rebound name is refused");
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil"] {
        for path in ["/v1/models", "/metrics", "/admin/status"] {
            let reply = client.with_host(host).get(path)?;
            ensure!((400..500).contains(&reply.status), "{host} {path}: {}", reply.status);
        }
    }
    s.step("a page of another site is refused");
    let asked = chat("Hi", 4);
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        let reply = client.with_header("Origin", origin).post("/v1/chat/completions", &asked)?;
        ensure!((400..500).contains(&reply.status), "{origin}: {}", reply.status);
        let cors = reply.headers.iter().find(|(name, _)| name.starts_with("access-control-"));
        ensure!(cors.is_none(), "{cors:?}");
    }
    s.step("a preflight gets no permission");
    let deadline = selvedge_tests::Deadline::patient();
    let asking = client
        .with_header("Origin", "https://evil.example")
        .with_header("Access-Control-Request-Method", "POST");
    let reply = asking.send("OPTIONS", "/v1/chat/completions", b"", deadline)?;
    ensure!(reply.header("access-control-allow-origin").is_none(), "{:?}", reply.headers);
    Ok(())
}

fn admin_is_closed(s: &Scenario, client: &Client) -> Result<()> {
    s.step("admin calls need the token even here");
    for path in ["/admin/status", "/admin/members", "/admin/keys", "/admin/watch"] {
        client.get(path)?.refused(401)?;
        client.with_key("sk-selvedge-wrong").get(path)?.refused(401)?;
    }
    client.post("/admin/invite", &json!({"ttl_s": 60}))?.refused(401)?;
    client.post("/admin/shutdown", &json!({}))?.refused(401)?;
    s.step("the node still answers");
    let answer = client.post("/v1/completions", &completion(chat::STORY, 2))?.ok()?;
    ensure!(answer["usage"]["completion_tokens"] == 2, "{answer}");
    Ok(())
}
