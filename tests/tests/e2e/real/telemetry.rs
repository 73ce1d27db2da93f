//! What a node tells a collector: a real receiver, which reads with OpenTelemetry's own classes,
//! traces that begin at a client and go on at providers and peers, and what is never told.

use anyhow::{Context, Result, ensure};
use selvedge_tests::http::Client;
use selvedge_tests::process::Process;
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, NodeSpec, Scenario, scenario};
use serde_json::{Value, json};

use super::providers::{PRICED, Provider, SECRET, gateway_in, planted_nowhere, python_server};

/// The collector's own key, which is for nobody else.
const COLLECTOR_KEY: &str = "otlp-planted-9d31c7aa52";
/// What is asked and answered; it must not be told.
const QUESTION: &str = "my-private-question-4471";
/// A client's trace and span.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A collector.
struct Receiver {
    _process: Process,
    client: Client,
    url: String,
}

impl Receiver {
    fn start(s: &Scenario) -> Result<Self> {
        let (process, addr) = python_server(s, "receiver", ("otlp_receiver.py", &[]))?;
        let client = Client::new(addr.parse()?, None);
        Ok(Self { _process: process, client, url: format!("http://{addr}") })
    }

    /// The variables by which a node finds it.
    fn environment(&self) -> Vec<(String, String)> {
        let headers = format!("api-key={COLLECTOR_KEY}");
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.url.as_str()),
            ("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str()),
            ("OTEL_SERVICE_NAME", "gate"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    fn told(&self) -> Result<Value> {
        let told = self.client.get("/told")?.ok()?;
        ensure!(told["wrong"] == json!([]), "{}", told["wrong"]);
        Ok(told)
    }

    /// Everything told, once it is enough.
    fn until(&self, what: &str, enough: impl Fn(&Value) -> bool) -> Result<Value> {
        Deadline::patient().until(what, || {
            let told = self.told()?;
            Ok(enough(&told).then_some(told))
        })
    }

    fn holds(&self, text: &str) -> Result<bool> {
        let text = text.replace(' ', "%20");
        Ok(self.client.get(&format!("/holds?{text}"))?.ok()?["holds"] == true)
    }
}

/// The spans of a trace that fit.
fn spans(told: &Value, fits: impl Fn(&Value) -> bool) -> Vec<&Value> {
    told["spans"].as_array().into_iter().flatten().filter(|span| fits(span)).collect()
}

fn one<'a>(told: &'a Value, what: &str, fits: impl Fn(&Value) -> bool) -> Result<&'a Value> {
    let found = spans(told, fits);
    ensure!(found.len() == 1, "{} spans are {what}: {told:#}", found.len());
    Ok(found[0])
}

fn traced(client: &Client, flags: &str) -> Client {
    let client = client.with_header("traceparent", &format!("00-{TRACE}-{SPAN}-{flags}"));
    client.with_header("tracestate", "vendor=1,other=a:b")
}

fn ask(client: &Client, model: &str, stream: bool) -> Result<selvedge_tests::http::Reply> {
    let message = json!({"role": "user", "content": QUESTION});
    // The small model never ends by itself only where it is not drawn at random.
    let body = json!({"model": model, "messages": [message], "max_tokens": 20, "stream": stream,
        "temperature": 0});
    client.post("/v1/chat/completions", &body)
}

#[test]
fn requests_are_told_to_a_collector_by_the_conventions() {
    scenario(|s| {
        let (provider, receiver) = (Provider::start(s)?, Receiver::start(s)?);
        let mut spec = s.node("gateway");
        spec.environment = receiver.environment();
        let (node, key) = gateway_in(s, spec, &provider, "1 usd/month", "")?;
        let client = node.client().with_key(&key);
        at_a_provider(s, &client, &provider, &receiver)?;
        streamed_and_failed(s, &client, &receiver)?;
        at_home(s, &node, &client, &receiver)?;
        s.step("keys and texts are told to nobody");
        let told = receiver.told()?;
        for header in told["headers"].as_array().context("headers")? {
            ensure!(header["api-key"] == COLLECTOR_KEY, "{header}");
        }
        ensure!(!told.to_string().replace(COLLECTOR_KEY, "").contains("planted"), "{told:#}");
        for text in [SECRET, COLLECTOR_KEY, QUESTION, &key, "Good morning"] {
            ensure!(!receiver.holds(text)?, "the collector was told '{text}'");
        }
        ensure!(receiver.holds("lab/large")?, "nothing is ever found");
        let log = node.process.output().tail();
        ensure!(!log.contains(COLLECTOR_KEY), "the log holds the collector's key");
        planted_nowhere(&node)
    });
}

/// A client's trace goes on at a provider, under a span of this node.
fn at_a_provider(
    s: &Scenario,
    client: &Client,
    provider: &Provider,
    receiver: &Receiver,
) -> Result<()> {
    s.step("a client's trace goes on at the provider, under a span of this node");
    ask(&traced(client, "01"), "lab/large", false)?.ok()?;
    let told = receiver.until("two spans and a record", |told| {
        spans(told, |span| span["trace"] == TRACE).len() == 2
            && told["logs"].as_array().is_some_and(|logs| !logs.is_empty())
            && told["metrics"].get("gen_ai.client.token.usage").is_some()
    })?;
    let served = one(&told, "the node's", |span| span["kind"] == "SPAN_KIND_SERVER")?;
    let asked = one(&told, "the provider's", |span| span["kind"] == "SPAN_KIND_CLIENT")?;
    ensure!(served["parent"] == SPAN && asked["parent"] == served["span"], "{told:#}");
    ensure!(served["state"] == "vendor=1,other=a:b", "{served:#}");
    ensure!(served["name"] == "POST /v1/chat/completions", "{served:#}");
    let attributes = &served["attributes"];
    ensure!(attributes["http.response.status_code"] == 200, "{attributes:#}");
    ensure!(attributes["selvedge.tenant"] == "acme", "{attributes:#}");
    ensure!(asked["name"] == "chat large" && asked["status"] == 0, "{asked:#}");
    for (name, value) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("openai")),
        ("gen_ai.request.model", json!("large")),
        ("gen_ai.usage.input_tokens", json!(21)),
        ("gen_ai.usage.output_tokens", json!(7)),
        ("gen_ai.response.finish_reasons", json!(["stop"])),
        ("selvedge.provider", json!("lab")),
        ("selvedge.attempts", json!(1)),
        ("server.address", json!("127.0.0.1")),
    ] {
        ensure!(asked["attributes"][name] == value, "{name}: {asked:#}");
    }
    let seen = provider.get("/seen")?;
    let headers = &seen["seen"].as_array().and_then(|seen| seen.last()).context("none")?["headers"];
    let span = asked["span"].as_str().unwrap_or_default();
    ensure!(headers["traceparent"] == format!("00-{TRACE}-{span}-01"), "{headers:#}");
    ensure!(headers["tracestate"] == "vendor=1,other=a:b", "{headers:#}");
    let record = &told["logs"][0];
    ensure!(record["trace"] == TRACE && record["span"] == served["span"], "{record:#}");
    ensure!(record["event"] == "selvedge.request" && record["severity"] == "INFO", "{record:#}");
    ensure!(record["attributes"]["selvedge.targets"] == json!(["lab/large"]), "{record:#}");
    let tokens = told["metrics"]["gen_ai.client.token.usage"]["rows"].as_array();
    let sums: Vec<_> = tokens.into_iter().flatten().map(|row| row["sum"].as_f64()).collect();
    ensure!(sums == [Some(21.0), Some(7.0)], "{sums:?}");
    let resource = &told["resources"][0];
    ensure!(resource["service.name"] == "gate", "{resource:#}");
    ensure!(resource["deployment.environment.name"] == "test", "{resource:#}");
    s.step("what its caller does not look at is counted, and no span is told");
    let before = seen_requests(&told);
    ask(&traced(client, "00"), "lab/large", false)?.ok()?;
    let told = receiver.until("another one counted", |told| seen_requests(told) > before)?;
    ensure!(spans(&told, |_| true).len() == 2, "{told:#}");
    Ok(())
}

fn seen_requests(told: &Value) -> u64 {
    let rows = told["metrics"]["gen_ai.server.request.duration"]["rows"].as_array();
    rows.into_iter().flatten().filter_map(|row| row["count"].as_u64()).sum()
}

/// Streams tell when their first piece came; failures by their codes, as the node's own fault or
/// not.
fn streamed_and_failed(s: &Scenario, client: &Client, receiver: &Receiver) -> Result<()> {
    s.step("a stream tells when its first piece came");
    ask(client, &format!("claude/{PRICED}"), true)?.text()?;
    let fits = |span: &Value| span["attributes"]["gen_ai.provider.name"] == "anthropic";
    let told = receiver.until("its span", |told| !spans(told, fits).is_empty())?;
    let asked = one(&told, "Anthropic's", fits)?;
    let attributes = &asked["attributes"];
    ensure!(attributes["gen_ai.request.stream"] == true, "{asked:#}");
    ensure!(attributes["gen_ai.response.time_to_first_chunk"].is_f64(), "{asked:#}");
    ensure!(asked["events"] == json!(["selvedge.first_piece"]), "{asked:#}");
    ensure!(attributes["gen_ai.usage.input_tokens"] == 21, "{asked:#}");
    ensure!(asked["trace"] != TRACE && asked["parent"] != "", "{asked:#}");
    s.step("failures are told by their codes");
    let refused = ask(client, "lab/broken", false)?;
    ensure!(refused.status >= 500, "{}", refused.status);
    ask(client, "no such model", false)?.refused(404)?;
    a_stranger(client, receiver)?;
    let fits = |span: &Value| span["attributes"]["gen_ai.request.model"] == "broken";
    let told = receiver.until("its span", |told| !spans(told, fits).is_empty())?;
    let asked = one(&told, "of the broken model", fits)?;
    ensure!(asked["status"] == 2 && asked["attributes"]["error.type"].is_string(), "{asked:#}");
    let of =
        |status: u16| move |span: &Value| span["attributes"]["http.response.status_code"] == status;
    let failed = one(&told, "failed", of(refused.status))?;
    ensure!(failed["status"] == 2 && failed["span"] == asked["parent"], "{failed:#}");
    Ok(())
}

/// What is refused before anything is known of it is told, too.
fn a_stranger(client: &Client, receiver: &Receiver) -> Result<()> {
    let stranger = client.with_key("sk-nobody-knows-me");
    stranger
        .post("/v1/chat/completions", &json!({"model": 3, "messages": QUESTION}))?
        .refused(400)?;
    let fits = |span: &Value| span["attributes"]["http.response.status_code"] == 400;
    let told = receiver.until("its span", |told| !spans(told, fits).is_empty())?;
    let refused = one(&told, "refused", fits)?;
    ensure!(refused["status"] == 0, "a client's error is none of the server: {refused:#}");
    ensure!(refused["attributes"]["selvedge.error.code"].is_string(), "{refused:#}");
    ensure!(!receiver.holds("sk-nobody-knows-me")?);
    Ok(())
}

/// A model of this node, and a stop that loses nothing.
fn at_home(s: &Scenario, node: &Node, client: &Client, receiver: &Receiver) -> Result<()> {
    s.step("a model of this node is asked inside it");
    ask(client, TINY, false)?.ok()?;
    let fits = |span: &Value| span["attributes"]["gen_ai.request.model"] == TINY;
    let told = receiver.until("its span", |told| !spans(told, fits).is_empty())?;
    let asked = one(&told, "of the engine", fits)?;
    ensure!(asked["kind"] == "SPAN_KIND_INTERNAL", "{asked:#}");
    ensure!(asked["attributes"]["gen_ai.usage.output_tokens"] == 20, "{asked:#}");
    ensure!(asked["attributes"]["gen_ai.response.finish_reasons"] == json!(["length"]));
    let told = receiver.until("its metrics", |told| {
        told["metrics"].get("gen_ai.server.time_per_output_token").is_some()
    })?;
    for name in ["http.server.request.duration", "gen_ai.server.time_to_first_token"] {
        ensure!(told["metrics"].get(name).is_some(), "no {name}");
    }
    let page = node.client().get("/metrics")?.text()?;
    let count = |name: &str| metric(&page, name);
    ensure!(count("telemetry_sent") > 4 && count("telemetry_dropped") == 0, "{page}");
    Ok(())
}

fn metric(page: &str, name: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("selvedge_{name}_total ")));
    line.and_then(|value| value.parse().ok()).unwrap_or(u64::MAX)
}

fn with_tiny(spec: NodeSpec) -> Result<NodeSpec> {
    tiny::write(&spec.home.join("models"))?;
    Ok(spec.with(&["--model", TINY]))
}

#[test]
fn a_trace_goes_on_at_the_peer_that_answers() {
    scenario(|s| {
        let receiver = Receiver::start(s)?;
        let specs = [s.node("front"), with_tiny(s.node("back"))?].map(|mut spec| {
            spec.environment = receiver.environment();
            spec
        });
        let nodes = s.mesh(&specs)?;
        s.step("a node without the model hands the request over, and the trace with it");
        ask(&traced(&nodes[0].client(), "01"), TINY, true)?.text()?;
        let told = receiver
            .until("four spans", |told| spans(told, |span| span["trace"] == TRACE).len() == 4)?;
        let at = |node: &Node, kind: &str| {
            let (id, kind) = (node.id.clone(), format!("SPAN_KIND_{kind}"));
            move |span: &Value| span["instance"] == id && span["kind"] == kind
        };
        let front = one(&told, "the front's", at(&nodes[0], "SERVER"))?;
        let asking = one(&told, "its asking", at(&nodes[0], "CLIENT"))?;
        let back = one(&told, "the back's", at(&nodes[1], "SERVER"))?;
        let engine = one(&told, "its engine's", at(&nodes[1], "INTERNAL"))?;
        ensure!(front["parent"] == SPAN, "{front:#}");
        ensure!(asking["parent"] == front["span"], "{asking:#}");
        ensure!(asking["attributes"]["selvedge.peer"] == "back", "{asking:#}");
        ensure!(back["parent"] == asking["span"], "{back:#}");
        ensure!(back["attributes"]["selvedge.origin"] == "front", "{back:#}");
        ensure!(engine["parent"] == back["span"], "{engine:#}");
        for span in [asking, engine] {
            ensure!(span["attributes"]["gen_ai.usage.output_tokens"] == 20, "{span:#}");
            ensure!(span["attributes"]["gen_ai.request.model"] == TINY, "{span:#}");
            ensure!(span["state"] == "vendor=1,other=a:b", "{span:#}");
        }
        ensure!(!receiver.holds(QUESTION)?, "the collector was told the question");
        s.step("one node counts it, and records it");
        ensure!(told["logs"].as_array().is_some_and(|logs| logs.len() <= 1), "{told:#}");
        Ok(())
    });
}

#[test]
fn a_collector_that_refuses_or_is_gone_costs_nothing_but_tellings() {
    scenario(|s| {
        let receiver = Receiver::start(s)?;
        receiver.client.post("/answer/400", &json!({}))?.ok()?;
        let mut spec = with_tiny(s.node("refused"))?;
        spec.environment = receiver.environment();
        let node = spec.up(s, &[])?;
        ask(&node.client(), TINY, false)?.ok()?;
        s.step("what a collector never takes is counted as lost");
        Deadline::patient().until("one lost", || {
            let page = node.client().get("/metrics")?.text()?;
            Ok((metric(&page, "telemetry_lost") == 1).then_some(()))
        })?;
        node.terminate()?;
        s.step("a collector that is gone keeps no request and no stop waiting");
        let mut spec = with_tiny(s.node("gone"))?;
        spec.environment = receiver.environment();
        spec.environment[0].1 = "http://127.0.0.1:9".to_owned();
        let node = spec.up(s, &[])?;
        for _ in 0..5 {
            ask(&node.client(), TINY, false)?.ok()?;
        }
        node.terminate()?;
        let log = node.process.output().tail();
        ensure!(log.contains("the collector does not take"), "{log}");
        ensure!(!log.contains(COLLECTOR_KEY), "{log}");
        s.step("a node that tells nobody passes a client's trace on as it came");
        let provider = Provider::start(s)?;
        let (node, key) = gateway_in(s, s.node("quiet"), &provider, "1 usd/month", "")?;
        ask(&traced(&node.client().with_key(&key), "01"), "lab/large", false)?.ok()?;
        let headers = provider.get("/seen")?["seen"][0]["headers"].clone();
        ensure!(headers["traceparent"] == format!("00-{TRACE}-{SPAN}-01"), "{headers:#}");
        ask(&node.client().with_key(&key), "lab/large", false)?.ok()?;
        let headers = provider.get("/seen")?["seen"][1]["headers"].clone();
        ensure!(headers.get("traceparent").is_none(), "{headers:#}");
        let page = node.client().get("/metrics")?.text()?;
        ensure!(!page.contains("telemetry"), "{page}");
        Ok(())
    });
}
