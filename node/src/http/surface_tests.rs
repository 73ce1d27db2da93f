//! The surface over real sockets, with raw clients that behave well and badly.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use selvedge_base::{Blame, Code, Micros, Refusal, RequestId, Retry, Stage};
use selvedge_contract::Priority;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::script::{
    EXPIRED_KEY, KEY, NARROW_KEY, Script, Step, finished, out_of_budget, started, token,
};
use super::{AdminToken, Allowance, Settings, Stop, lasting};
use crate::amount::Measure;

const CHAT: &str = "/v1/chat/completions";

/// A surface under test.
struct Surface {
    script: Arc<Script>,
    stop: Stop,
    serving: JoinHandle<Result<(), String>>,
    /// Kept as its supervisor keeps it.
    _run: selvedge_runtime::Run,
    port: u16,
}

/// A response as a raw client sees it.
#[derive(Debug)]
struct Seen {
    status: u16,
    head: String,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn error(&self) -> Value {
        self.json()["error"].clone()
    }
}

fn settings() -> Settings {
    Settings {
        admin_token: Some(AdminToken::new("orchard")),
        body_limit: 64 << 10,
        grace: Duration::from_millis(100),
        ..Settings::default()
    }
}

/// Cuts off the slow soon; a busy machine may make anybody slow, so other tests do not use it.
fn impatient() -> Settings {
    let soon = Duration::from_millis(150);
    Settings { header_timeout: soon, body_timeout: soon, ..settings() }
}

async fn surface_at(address: &str, script: Arc<Script>, settings: Settings) -> Surface {
    let listener = TcpListener::bind(address).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let stop = Stop::new();
    let backend: Arc<dyn super::Backend> = Arc::<Script>::clone(&script);
    let run = lasting(listener, backend, settings, stop.clone()).expect("a socket");
    let serving = tokio::spawn(run());
    Surface { script, stop, serving, _run: run, port }
}

async fn surface(script: Arc<Script>) -> Surface {
    surface_at("127.0.0.1:0", script, settings()).await
}

impl Surface {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.expect("it listens")
    }

    /// Sends bytes as they are on a connection of their own and reads until the surface closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect().await;
        socket.write_all(bytes).await.expect("sent");
        rest(&mut socket).await
    }

    /// One request on a connection of its own.
    async fn ask(&self, method: &str, path: &str, lines: &str, body: &str) -> Seen {
        let request = request(method, path, &format!("connection: close\r\n{lines}"), body);
        seen(&self.raw(request.as_bytes()).await)
    }

    async fn post(&self, path: &str, body: &Value) -> Seen {
        self.ask("POST", path, "content-type: application/json\r\n", &body.to_string()).await
    }

    async fn chat(&self, extra: &Value) -> Seen {
        self.post(CHAT, &chat(extra)).await
    }
}

fn request(method: &str, path: &str, lines: &str, body: &str) -> String {
    let length = match body.is_empty() {
        true => String::new(),
        false => format!("content-length: {}\r\n", body.len()),
    };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{length}{lines}\r\n{body}")
}

fn chat(extra: &Value) -> Value {
    let mut body = json!({"model": "small", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

async fn rest(socket: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset after the answer is the client's loss only if it read nothing.
    let read = timeout(Duration::from_secs(10), socket.read_to_end(&mut text)).await;
    read.expect("the surface closes in time").ok();
    String::from_utf8(text).expect("UTF-8")
}

/// Reads until `part` was seen.
async fn until(socket: &mut TcpStream, part: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4_096];
    while !text.contains(part) {
        let read = timeout(Duration::from_secs(10), socket.read(&mut buffer)).await;
        let len = read.expect("in time").expect("readable");
        assert!(len > 0, "closed before {part:?}: {text}");
        text.push_str(std::str::from_utf8(&buffer[..len]).expect("UTF-8"));
    }
    text
}

fn seen(text: &str) -> Seen {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let chunked = head.contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body) } else { body.to_owned() };
    Seen { status, head: head.to_owned(), body }
}

fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, after)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        text.push_str(&after[..size]);
        body = &after[size + 2..];
    }
    text
}

/// Bytes of a request under way, which hyper moves: what is seldom wanted is boxed.
const MOST_UNDER_WAY: usize = 4_096;

#[test]
fn a_request_under_way_takes_little_room() {
    fn size_of_answer<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }
    let size = size_of_answer(super::router::handle);
    assert!((1..=MOST_UNDER_WAY).contains(&size), "{size} bytes");
}

#[tokio::test]
async fn a_chat_is_answered_whole() {
    let surface = surface(Script::hello()).await;
    let seen = surface.chat(&json!({})).await;
    assert_eq!(seen.status, 200, "{seen:?}");
    assert_eq!(seen.header("x-selvedge-node"), Some("there"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let id = seen.header("x-request-id").expect("an id").to_owned();
    let answer = seen.json();
    assert_eq!(answer["id"], json!(id.replace("req_", "chatcmpl-")));
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(
        (&answer["model"], &answer["system_fingerprint"]),
        (&json!("small"), &json!("fp_abababab"))
    );
    assert!(answer["created"].as_u64().is_some_and(|at| at > 1_700_000_000));
    let choices = json!([{"index": 0, "finish_reason": "stop", "logprobs": null,
        "message": {"role": "assistant", "content": "Hello, world", "refusal": null}}]);
    assert_eq!(answer["choices"], choices);
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}});
    assert_eq!(answer["usage"], usage);
    let call = surface.script.calls.lock().pop().expect("asked");
    assert_eq!((call.id.to_string(), call.tenant.as_str()), (id, "local"));
}

#[tokio::test]
async fn a_class_of_service_is_a_priority_and_is_said() {
    let surface = surface(Script::hello()).await;
    for (asked, said, priority) in [
        (json!({"service_tier": "flex"}), json!("flex"), Priority::Low),
        (json!({"service_tier": "auto"}), json!("default"), Priority::Normal),
        (json!({"service_tier": "priority"}), json!("priority"), Priority::High),
        (json!({}), json!(null), Priority::Normal),
    ] {
        assert_eq!(surface.chat(&asked).await.json()["service_tier"], said);
        assert_eq!(surface.script.calls.lock().pop().expect("asked").priority, priority);
    }
}

#[tokio::test]
async fn several_answers_and_prompts_keep_their_indexes() {
    let surface = surface(Script::hello()).await;
    let body = json!({"model": "small", "prompt": ["a", "b"], "n": 2});
    let answer = surface.post("/v1/completions", &body).await.json();
    let choices = answer["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 4);
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!((&choice["index"], &choice["text"]), (&json!(index), &json!("Hello, world")));
    }
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["usage"]["prompt_tokens"], 14, "each prompt once");
    assert_eq!(answer["usage"]["completion_tokens"], 12);
    let mut seeds: Vec<u64> =
        surface.script.calls.lock().iter().map(|call| call.sampling.seed).collect();
    seeds.dedup();
    assert_eq!(seeds.len(), 4);
}

#[tokio::test]
async fn a_stream_arrives_while_it_is_made() {
    let script =
        Script::new(|_| vec![started(), token(0, "a"), Step::Gate, token(1, "b"), finished("", 2)]);
    let surface = surface(script).await;
    let mut socket = surface.connect().await;
    let body = chat(&json!({"stream": true})).to_string();
    let lines = "content-type: application/json\r\nconnection: close\r\n";
    socket.write_all(request("POST", CHAT, lines, &body).as_bytes()).await.expect("sent");
    let mut text = until(&mut socket, "\"content\":\"a\"").await;
    assert!(!text.contains("[DONE]"));
    surface.script.gate.add_permits(1);
    text.push_str(&rest(&mut socket).await);
    let seen = seen(&text);
    assert_eq!(seen.header("content-type"), Some("text/event-stream"));
    assert_eq!(seen.header("x-selvedge-node"), Some("there"));
    assert_eq!(seen.header("cache-control"), Some("no-store"));
    assert!(seen.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
    assert!(seen.body.ends_with("data: [DONE]\n\n"), "{}", seen.body);
}

#[tokio::test]
async fn refusals_before_the_first_piece_have_their_own_status() {
    let retry = Retry::After(Micros::secs(2));
    let full = Refusal::new(Stage::Admit, Blame::Us, retry, Code::Overloaded, "full");
    let missing =
        Refusal::client(Stage::Route, Code::ModelNotFound, "no such model").param("model");
    for stream in [false, true] {
        let full =
            surface(Script::refusing(full.clone())).await.chat(&json!({ "stream": stream })).await;
        assert_eq!((full.status, full.header("retry-after")), (503, Some("2")), "{full:?}");
        assert!(full.header("x-request-id").is_some());
        let missing = surface(Script::refusing(missing.clone()))
            .await
            .chat(&json!({ "stream": stream }))
            .await;
        assert_eq!(missing.status, 404);
        let wanted = json!({"message": "no such model", "type": "invalid_request_error",
            "param": "model", "code": "model_not_found"});
        assert_eq!(missing.error(), wanted);
    }
}

#[tokio::test]
async fn wrong_requests_get_their_status() {
    let surface = surface(Script::hello()).await;
    let typed = "content-type: application/json\r\n";
    let table = [
        ("GET", "/nothing", "", "", 404),
        ("GET", CHAT, "", "", 405),
        ("POST", "/v1/models", typed, "{}", 405),
        ("POST", CHAT, "", "{}", 415),
        ("POST", CHAT, typed, "{}", 400),
        ("POST", CHAT, typed, "", 400),
        ("POST", CHAT, "content-type: application/json\r\norigin: http://evil\r\n", "{}", 403),
        ("GET", "/v1/models", "authorization: Bearer sk-selvedge-9\r\n", "", 401),
        ("GET", "/v1/models/none", "", "", 404),
        ("GET", "/admin/status", "", "", 401),
        ("GET", "/admin/watch", "", "", 401),
        ("GET", "/admin/status", "authorization: Bearer wrong\r\n", "", 401),
        ("POST", "/admin/invite", "authorization: Bearer orchard\r\n", "{}", 415),
        ("DELETE", "/admin/status", "authorization: Bearer orchard\r\n", "", 405),
    ];
    for (method, path, lines, body, status) in table {
        let seen = surface.ask(method, path, lines, body).await;
        assert_eq!(seen.status, status, "{method} {path} {lines}: {seen:?}");
        assert!(seen.error()["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(seen.header("x-request-id").is_some(), "{method} {path}");
        assert!(!seen.head.contains("access-control"), "no CORS");
        if status == 405 {
            assert!(seen.header("allow").is_some_and(|allow| allow.contains("OPTIONS")));
        }
    }
}

#[tokio::test]
async fn malformed_json_tells_where() {
    let surface = surface(Script::hello()).await;
    let lines = "content-type: application/json\r\n";
    let seen = surface.ask("POST", CHAT, lines, "{\"model\": \"small\",,}").await;
    assert_eq!(seen.status, 400);
    let message = seen.error()["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("line 1 column 19"), "{message}");
    assert!(surface.script.calls.lock().is_empty());
}

#[tokio::test]
async fn reading_endpoints_answer() {
    let surface = surface(Script::hello()).await;
    let models = surface.ask("GET", "/v1/models", "", "").await.json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("small")));
    assert_eq!(models["data"][0]["selvedge"]["nodes"], json!(["here", "there"]));
    let one = surface.ask("GET", "/v1/models/small", "", "").await.json();
    assert_eq!((&one["object"], &one["owned_by"]), (&json!("model"), &json!("selvedge")));
    assert_eq!(surface.ask("GET", "/health", "", "").await.json(), json!({"status": "ok"}));
    let head = surface.ask("HEAD", "/v1/models", "", "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.header("content-length").is_some_and(|length| length != "0"));
    for (path, allow) in [("*", "DELETE"), (CHAT, "POST, OPTIONS"), ("/health", "GET, HEAD")] {
        let options = surface.ask("OPTIONS", path, "", "").await;
        assert_eq!(options.status, 204, "{path}");
        assert!(options.header("allow").is_some_and(|methods| methods.contains(allow)), "{path}");
    }
    let token = "authorization: Bearer orchard\r\n";
    let status = surface.ask("GET", "/admin/status", token, "").await.json();
    assert_eq!(status["nodes"][1]["name"], "there");
}

#[tokio::test]
async fn a_past_request_is_told_to_its_account_alone() {
    let surface = surface(Script::hello()).await;
    let path = format!("/v1/requests/{}", RequestId(0xfeed));
    let bearer = format!("authorization: Bearer {KEY}\r\n");
    let told = surface.ask("GET", &path, &bearer, "").await;
    assert_eq!((told.status, &told.json()["id"]), (200, &json!(RequestId(0xfeed).to_string())));
    let other = format!("/v1/requests/{}", RequestId(0xbeef));
    for (path, headers, status) in [
        (path.as_str(), "", 404),
        (&other, &bearer, 404),
        ("/v1/requests/latest", &bearer, 400),
        (&path, "authorization: Bearer sk-selvedge-none\r\n", 401),
        // Of the same account, but it does not open the model.
        (&path, &format!("authorization: Bearer {NARROW_KEY}\r\n"), 404),
    ] {
        let refused = surface.ask("GET", path, headers, "").await;
        assert_eq!(refused.status, status, "{path} {headers}");
    }
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let surface = surface(Script::hello()).await;
    surface.chat(&json!({})).await;
    surface.chat(&json!({"stream": true})).await;
    surface.chat(&json!({"n": 99})).await;
    let page = surface.ask("GET", "/metrics", "", "").await;
    assert_eq!(page.status, 200);
    for line in [
        "selvedge_requests_total{surface=\"chat\",code=\"200\"} 2",
        "selvedge_requests_total{surface=\"chat\",code=\"400\"} 1",
        "selvedge_refusals_total{code=\"invalid_request\"} 1",
        "selvedge_answer_tokens_total 6",
        "selvedge_prompt_tokens_total 14",
        "selvedge_requests_in_flight 0",
        "selvedge_first_token_seconds_count 2",
        "selvedge_nodes{state=\"alive\"} 2",
        "selvedge_nodes{state=\"dead\"} 0",
        "selvedge_engine_queued{model=\"small\"} 3",
        "selvedge_engine_drafted_tokens_total{model=\"small\"} 9",
        "selvedge_engine_accepted_tokens_total{model=\"small\"} 7",
        "selvedge_engine_memory_bytes 70",
        "selvedge_engine_memory_budget_bytes 100",
        "selvedge_engine_loads_waiting 1",
        "selvedge_engine_loads_total{reason=\"request\"} 4",
        "selvedge_engine_evictions_total{reason=\"copy_elsewhere\"} 2",
        "selvedge_engine_evictions_total{reason=\"least_recently_used\"} 0",
        "selvedge_engine_load_refusals_total{reason=\"others_at_work\"} 0",
        "selvedge_handed_off_total 5",
        "selvedge_build_info{version=",
    ] {
        assert!(page.body.contains(line), "{line} in:\n{}", page.body);
    }
}

#[tokio::test]
async fn an_account_hears_what_it_has_left() {
    let surface = surface(Script::hello()).await;
    let (limit, remaining) = (20_000, 13_500);
    let (measure, reset) = (Measure::Tokens, Micros::secs(61));
    surface.script.allowances.lock().push(Allowance { measure, limit, remaining, reset });
    let bearer = format!("content-type: application/json\r\nauthorization: Bearer {KEY}\r\n");
    for extra in [json!({}), json!({"stream": true}), json!({"temperature": 9})] {
        let seen = surface.ask("POST", CHAT, &bearer, &chat(&extra).to_string()).await;
        assert_eq!(seen.header("x-ratelimit-limit-tokens"), Some("20000"), "{extra}");
        assert_eq!(seen.header("x-ratelimit-remaining-tokens"), Some("13500"));
        assert_eq!(seen.header("x-ratelimit-reset-tokens"), Some("1m1s"));
        assert_eq!(seen.header("x-ratelimit-limit-requests"), None);
    }
    let others = surface.chat(&json!({})).await;
    assert_eq!(others.header("x-ratelimit-limit-tokens"), None, "no key, another account");
}

#[tokio::test]
async fn a_spent_budget_says_when_to_come_back() {
    let retry = Retry::After(Micros::millis(1_200));
    let message = "the budget tokens-hour of team has nothing left";
    let refusal = Refusal::new(Stage::Reserve, Blame::Client, retry, Code::QuotaExhausted, message);
    let surface = surface(Script::refusing(refusal)).await;
    for stream in [false, true] {
        let seen = surface.chat(&json!({ "stream": stream })).await;
        assert_eq!(seen.status, 429);
        assert_eq!(seen.header("retry-after"), Some("2"));
        assert_eq!(seen.header("retry-after-ms"), Some("1200"));
        let wanted = json!({"message": message, "type": "rate_limit_exceeded", "param": null,
            "code": "budget_exhausted"});
        assert_eq!(seen.error(), wanted);
    }
}

#[tokio::test]
async fn an_answer_that_its_budget_ended_says_so() {
    let surface = surface(Script::new(|_| vec![started(), token(0, "Hel"), out_of_budget()])).await;
    let whole = surface.chat(&json!({})).await.json();
    assert_eq!(whole["choices"][0]["finish_reason"], "quota");
    assert_eq!(whole["choices"][0]["message"]["content"], "Hel");
    let stream = surface.chat(&json!({"stream": true})).await;
    assert!(stream.body.contains("\"finish_reason\":\"quota\""), "{stream:?}");
    assert!(stream.body.contains("[DONE]"), "{stream:?}");
}

#[tokio::test]
async fn a_narrow_key_opens_what_it_names() {
    let surface = surface(Script::hello()).await;
    let bearer = |key| format!("content-type: application/json\r\nauthorization: Bearer {key}\r\n");
    let narrow = bearer(NARROW_KEY);
    let ask = |path, body: Value| {
        let (surface, narrow) = (&surface, &narrow);
        async move { surface.ask("POST", path, narrow, &body.to_string()).await }
    };
    assert_eq!(ask(CHAT, chat(&json!({}))).await.status, 200);
    let other = ask(CHAT, chat(&json!({"model": "big"}))).await;
    assert_eq!((other.status, &other.error()["param"]), (403, &json!("model")));
    assert_eq!(other.error()["type"], "permission_error");
    let text = ask("/v1/completions", json!({"model": "small", "prompt": "x"})).await;
    assert_eq!(text.status, 403, "{text:?}");
    for (path, status) in [("/v1/models/small", 200), ("/v1/models/big", 403), ("/metrics", 403)] {
        assert_eq!(surface.ask("GET", path, &narrow, "").await.status, status, "{path}");
    }
    let expired = surface.ask("GET", "/v1/models", &bearer(EXPIRED_KEY), "").await;
    assert_eq!(expired.status, 401);
    assert!(expired.error()["message"].as_str().is_some_and(|text| text.contains("expired")));
    assert_eq!(surface.script.calls.lock().len(), 1, "what is refused is not asked for");
}

#[tokio::test]
async fn budgets_are_among_the_metrics() {
    let surface = surface(Script::hello()).await;
    let page = surface.ask("GET", "/metrics", "", "").await.body;
    let labels = "{account=\"team\",budget=\"tokens-hour\",unit=\"tokens\"}";
    for (name, value) in [("limit", 20_000), ("spent", 6_000), ("reserved", 500), ("rights", 7_000)]
    {
        let line = format!("selvedge_budget_{name}{labels} {value}");
        assert!(page.contains(&line), "{line}\n{page}");
    }
}

#[tokio::test]
async fn other_addresses_need_a_key() {
    let surface = surface_at("0.0.0.0:0", Script::hello(), settings()).await;
    let good = format!("authorization: Bearer {KEY}\r\n");
    for path in ["/v1/models", "/metrics", "/v1/models/small"] {
        assert_eq!(surface.ask("GET", path, "", "").await.status, 401, "{path}");
        assert_eq!(surface.ask("GET", path, &good, "").await.status, 200, "{path}");
    }
    assert_eq!(surface.chat(&json!({})).await.status, 401);
    assert_eq!(surface.ask("GET", "/health", "", "").await.status, 200);
    assert!(surface.script.calls.lock().is_empty());
}

#[tokio::test]
async fn a_host_of_somebody_else_is_refused() {
    let surface = surface(Script::hello()).await;
    let text =
        surface.raw(b"GET /v1/models HTTP/1.1\r\nhost: evil\r\nconnection: close\r\n\r\n").await;
    assert_eq!(seen(&text).status, 403);
    let text = surface.raw(b"GET /v1/models HTTP/1.0\r\n\r\n").await;
    assert_eq!(seen(&text).status, 400, "no Host");
}

#[tokio::test]
async fn a_body_announced_too_large_is_refused_and_its_sender_hears_it() {
    let surface = surface(Script::hello()).await;
    let body = " ".repeat(10 << 20);
    let mut socket = surface.connect().await;
    let lines = "content-type: application/json\r\nconnection: close\r\n";
    let request = request("POST", CHAT, lines, &body);
    let (mut reading, mut writing) = socket.split();
    let (sent, text) = tokio::join!(writing.write_all(request.as_bytes()), async {
        let mut text = String::new();
        reading.read_to_string(&mut text).await.map(|_| text)
    });
    sent.expect("all of it was taken");
    let seen = seen(&text.expect("and the answer came"));
    assert_eq!((seen.status, seen.error()["code"].as_str()), (413, Some("too_large")));
}

#[tokio::test]
async fn a_chunked_body_is_cut_off_at_the_limit() {
    let surface = surface(Script::hello()).await;
    let mut request = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    for _ in 0..65 {
        request.push_str(&format!("400\r\n{}\r\n", " ".repeat(1_024)));
    }
    request.push_str("0\r\n\r\n");
    assert_eq!(seen(&surface.raw(request.as_bytes()).await).status, 413);
}

#[tokio::test]
async fn who_asks_before_sending_too_much_is_told_before() {
    let surface = surface(Script::hello()).await;
    let lines =
        "content-type: application/json\r\ncontent-length: 999999\r\nexpect: 100-continue\r\n";
    let text = surface.raw(request("POST", CHAT, lines, "").as_bytes()).await;
    assert_eq!(seen(&text).status, 413, "and no 100: {text}");
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off() {
    let surface = surface_at("127.0.0.1:0", Script::hello(), impatient()).await;
    let text = surface.raw(b"GET /v1/models HTTP/1.1\r\nhost: loc").await;
    assert!(text.is_empty() || seen(&text).status == 408, "{text}");
    let lines = "content-type: application/json\r\ncontent-length: 100\r\n";
    let text = surface.raw(request("POST", CHAT, lines, "").as_bytes()).await;
    assert_eq!(seen(&text).status, 408, "{text}");
}

#[tokio::test]
async fn silence_is_cut_off_before_a_request_and_between_two() {
    let settings = Settings { workers: 2, ..impatient() };
    let surface = surface_at("127.0.0.1:0", Script::hello(), settings).await;
    for first in ["", "P"] {
        assert_eq!(surface.raw(first.as_bytes()).await, "", "after '{first}'");
    }
    let whole = request("GET", "/health", "", "");
    for next in ["", "G", "GET /v1/models HTTP/1.1\r\nhost: loc"] {
        let text = surface.raw(format!("{whole}{next}").as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "after '{next}': {text}");
        assert!(!text.contains("\"small\""), "half a head was served: {text}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let surface = surface(Script::hello()).await;
    let first = request("GET", "/health", "", "");
    let second = request("GET", "/v1/models/small", "connection: close\r\n", "");
    let text = surface.raw(format!("{first}{second}").as_bytes()).await;
    let health = text.find("\"status\":\"ok\"").expect("the first answer");
    let model = text.find("\"id\":\"small\"").expect("the second answer");
    assert!(health < model, "{text}");
}

#[tokio::test]
async fn garbage_is_answered_or_closed_and_others_are_served() {
    let surface = surface_at("127.0.0.1:0", Script::hello(), impatient()).await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(100_000));
    let many = request("GET", "/health", &"a: b\r\n".repeat(100), "");
    let table: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello there\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ];
    for bytes in table {
        let text = surface.raw(bytes).await;
        let refused = text.is_empty() || (400..=431).contains(&seen(&text).status);
        assert!(refused, "{:?}: {text}", &bytes[..bytes.len().min(40)]);
    }
    assert_eq!(surface.ask("GET", "/health", "", "").await.status, 200);
}

#[tokio::test]
async fn a_smuggled_request_does_not_pass() {
    let surface = surface(Script::hello()).await;
    let text = surface
        .raw(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\
              transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\n\
              host: localhost\r\nconnection: close\r\n\r\n",
        )
        .await;
    assert!(!text.contains("\"object\":\"list\""), "{text}");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_work() {
    for stream in [false, true] {
        for leave_half in [false, true] {
            let surface =
                surface(Script::new(|_| vec![started(), token(0, "a"), Step::Forever])).await;
            let mut socket = surface.connect().await;
            let body = chat(&json!({"stream": stream, "n": 2})).to_string();
            let lines = "content-type: application/json\r\n";
            socket.write_all(request("POST", CHAT, lines, &body).as_bytes()).await.expect("sent");
            if stream {
                until(&mut socket, "\"content\":\"a\"").await;
            } else {
                while surface.script.calls.lock().len() < 2 {
                    tokio::task::yield_now().await;
                }
            }
            if leave_half {
                socket.shutdown().await.expect("half closed");
            } else {
                drop(socket);
            }
            while surface.script.cancelled.load(Ordering::SeqCst) < 2 {
                let heard = surface.script.cancelling.notified();
                timeout(Duration::from_secs(5), heard).await.expect("the work is freed");
            }
        }
    }
}

#[tokio::test]
async fn watching_goes_line_by_line_until_the_surface_stops() {
    let surface = surface(Script::hello()).await;
    let mut socket = surface.connect().await;
    let lines = "authorization: Bearer orchard\r\n";
    socket.write_all(request("GET", "/admin/watch", lines, "").as_bytes()).await.expect("sent");
    let mut text = until(&mut socket, "}\n\r\n").await;
    if text.matches("}\n\r\n").count() < 2 {
        text.push_str(&until(&mut socket, "}\n\r\n").await);
    }
    surface.stop.request();
    text.push_str(&rest(&mut socket).await);
    let seen = seen(&text);
    assert_eq!(seen.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(seen.body.lines().count(), 2, "{}", seen.body);
    for line in seen.body.lines() {
        let status: Value = serde_json::from_str(line).expect("one object a line");
        assert_eq!(status["nodes"][0]["name"], "here");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let few = Settings { connections: 1, ..settings() };
    let surface = surface_at("127.0.0.1:0", Script::hello(), few).await;
    let mut first = surface.connect().await;
    first.write_all(request("GET", "/health", "", "").as_bytes()).await.expect("sent");
    until(&mut first, "ok").await;
    let mut second = surface.connect().await;
    let seen = seen(&rest(&mut second).await);
    assert_eq!((seen.status, seen.error()["code"].as_str()), (503, Some("overloaded")));
    drop(first);
    // The place is free again once the surface has seen the first one leave; until then it turns
    // away, which may reset the connection before the request is sent.
    let again = request("GET", "/health", "connection: close\r\n", "");
    let served = timeout(Duration::from_secs(5), async {
        loop {
            let mut socket = surface.connect().await;
            let sent = socket.write_all(again.as_bytes()).await;
            if sent.is_ok() && rest(&mut socket).await.contains("200 OK") {
                break;
            }
        }
    });
    served.await.expect("served again");
}

#[tokio::test]
async fn stopping_lets_answers_finish_then_ends_them() {
    let script = Script::new(|_| vec![started(), token(0, "a"), Step::Gate, finished("b", 2)]);
    let patient = Settings { grace: Duration::from_secs(5), ..settings() };
    for (settings, opens) in [(patient, true), (self::settings(), false)] {
        let surface = surface_at("127.0.0.1:0", Arc::clone(&script), settings).await;
        let mut idle = surface.connect().await;
        let mut socket = surface.connect().await;
        let body = chat(&json!({"stream": true})).to_string();
        let lines = "content-type: application/json\r\n";
        socket.write_all(request("POST", CHAT, lines, &body).as_bytes()).await.expect("sent");
        until(&mut socket, "\"content\":\"a\"").await;
        surface.stop.request();
        assert_eq!(rest(&mut idle).await, "", "an idle connection is let go at once");
        let port = surface.port;
        let refused = timeout(Duration::from_secs(5), async move {
            while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {}
        });
        refused.await.expect("nobody waits in a queue that nobody serves");
        if opens {
            surface.script.gate.add_permits(1);
        }
        let text = rest(&mut socket).await;
        assert_eq!(text.contains("[DONE]"), opens, "{text}");
        assert_eq!(text.contains("the node stopped"), !opens, "{text}");
        let ended = timeout(Duration::from_secs(5), surface.serving).await.expect("in time");
        ended.expect("no panic").expect("no error");
    }
}

#[path = "relay_tests.rs"]
mod relayed;

#[path = "audio_tests.rs"]
mod audio;

#[path = "embed_tests.rs"]
mod embed;

#[path = "infer_tests.rs"]
mod infer;

#[tokio::test]
async fn several_texts_are_continued_by_what_their_name_leads_to_in_the_mesh() {
    let surface = surface(Script::hello()).await;
    let body = json!({"model": "routed", "prompt": ["Once", "Twice"]});
    let answer = surface.post("/v1/completions", &body).await.json();
    assert_eq!(answer["model"], "routed", "{answer}");
    assert_eq!(surface.script.calls.lock().pop().map(|call| call.model).as_deref(), Some("small"));
    let body = json!({"model": "cloud/large", "prompt": ["Once", "Twice"]});
    let refused = surface.post("/v1/completions", &body).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("unsupported")));
}
