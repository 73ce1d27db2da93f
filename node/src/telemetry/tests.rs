//! What a record becomes, line by line.

use std::fmt::Write as _;

use selvedge_base::{
    Blame, Code, Micros, Mono, Now, Refusal, RequestId, Retry, Stage, TraceContext, Wall,
};
use selvedge_contract::FinishReason;
use selvedge_core::RequestRecord;
use selvedge_core::record::Outcome;
use selvedge_core::upstream::ProviderKind;
use selvedge_dialect::chat::Usage;
use selvedge_runtime::{CHAT, Came, Story, Told, Turn, Whom};

use super::meters::Meters;
use super::otlp::{AnyValue, KeyValue, Span, Value};
use super::{logs, names, spans};

const ROUTE: &str = "/v1/chat/completions";

fn record(outcome: Outcome) -> RequestRecord {
    RequestRecord {
        id: RequestId(0xa00),
        model: "large".to_owned(),
        downgraded_to: None,
        tenant: "acme".to_owned(),
        legs: Vec::new(),
        attempts: Vec::new(),
        outcome,
        took: Micros::millis(900),
        first_token: Some(Micros::millis(300)),
        longest_gap: None,
        saving: None,
    }
}

fn finished() -> Outcome {
    let usage = selvedge_contract::Usage {
        prompt_tokens: 21,
        completion_tokens: 7,
        ..selvedge_contract::Usage::default()
    };
    Outcome::Finished { reason: FinishReason::Stop, usage }
}

fn turn(span: u64, whom: Whom) -> Turn {
    Turn {
        span,
        whom,
        operation: CHAT,
        model: "gpt-x".to_owned(),
        streams: Some(true),
        began: Mono(2_000),
        ended: Mono(9_000),
        first: Some(Mono(5_000)),
        answered_by: Some("gpt-x-2".to_owned()),
        answer_id: Some("chatcmpl-1".to_owned()),
        usage: Some(Usage {
            prompt_tokens: 21,
            completion_tokens: 7,
            cached_tokens: 4,
            ..Usage::default()
        }),
        finish: vec!["stop"],
        error: None,
        attempts: 2,
    }
}

fn provider(host: &str) -> Whom {
    let (name, host) = ("lab".to_owned(), host.to_owned());
    Whom::Provider { name, kind: ProviderKind::OpenAi, host, port: 443 }
}

fn told(came: Came, records: Vec<RequestRecord>, turns: Vec<Turn>) -> Told {
    Told {
        context: TraceContext::root(0xabc, 0xdef, true),
        parent: Some(0x123),
        began: Now { mono: Mono(1_000), wall: Wall(1_700_000_000_000) },
        ended: Mono(10_000),
        story: Story { came, status: Some(200), error: None, records, turns },
    }
}

fn client() -> Came {
    Came::Client { route: ROUTE, operation: CHAT }
}

fn value(value: &AnyValue) -> String {
    match value.value.as_ref().expect("a value") {
        Value::Text(text) => text.clone(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => format!("{number}s"),
        Value::List(list) => {
            format!("{:?}", list.values.iter().map(self::value).collect::<Vec<_>>())
        }
    }
}

fn lines(attributes: &[KeyValue]) -> String {
    attributes.iter().fold(String::new(), |mut text, pair| {
        let _written = writeln!(text, "  {} = {}", pair.key, value(pair.value.as_ref().unwrap()));
        text
    })
}

fn shown(spans: &[Span]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    spans.iter().fold(String::new(), |mut text, span| {
        let (id, parent) = (hex(&span.span_id), hex(&span.parent_span_id));
        let from = span.start_time_unix_nano - 1_700_000_000_000_000_000;
        let to = span.end_time_unix_nano - 1_700_000_000_000_000_000;
        let status = span.status.as_ref().map_or(0, |status| status.code);
        let (name, kind, flags) = (&span.name, span.kind, span.flags);
        let _written = writeln!(
            text,
            "{name} kind={kind} {id}<{parent} {from}-{to} status={status} flags={flags:#x}"
        );
        text.push_str(&lines(&span.attributes));
        for event in &span.events {
            let at = event.time_unix_nano - 1_700_000_000_000_000_000;
            let _written = writeln!(text, "  @{at} {}", event.name);
        }
        text
    })
}

#[test]
fn a_request_to_a_provider_as_spans() {
    let told = told(client(), vec![record(finished())], vec![turn(1, provider("api.groq.com"))]);
    let expected = "\
POST /v1/chat/completions kind=2 0000000000000def<0000000000000123 0-9000000 status=0 flags=0x303
  http.request.method = POST
  http.route = /v1/chat/completions
  url.path = /v1/chat/completions
  url.scheme = http
  http.response.status_code = 200
  selvedge.request.id = req_00000000000000000000000000000a00
  selvedge.tenant = acme
  selvedge.model = large
  selvedge.time_to_first_token = 0.3s
chat gpt-x kind=3 0000000000000001<0000000000000def 1000000-8000000 status=0 flags=0x103
  gen_ai.operation.name = chat
  gen_ai.provider.name = groq
  gen_ai.request.model = gpt-x
  gen_ai.response.model = gpt-x-2
  server.address = api.groq.com
  server.port = 443
  gen_ai.request.stream = true
  gen_ai.response.id = chatcmpl-1
  gen_ai.response.finish_reasons = [\"stop\"]
  gen_ai.usage.input_tokens = 21
  gen_ai.usage.output_tokens = 7
  gen_ai.usage.cache_read.input_tokens = 4
  gen_ai.response.time_to_first_chunk = 0.003s
  selvedge.provider = lab
  selvedge.attempts = 2
  @4000000 selvedge.first_piece
";
    assert_eq!(shown(&spans::spans(&told)), expected);
}

#[test]
fn a_request_that_a_peer_handed_over_as_spans() {
    let bare = Turn {
        streams: None,
        first: None,
        answered_by: None,
        answer_id: None,
        usage: None,
        finish: Vec::new(),
        error: Some("out_of_memory"),
        ..turn(1, Whom::Here)
    };
    let told = told(Came::Peer { origin: "front".to_owned() }, Vec::new(), vec![bare]);
    let expected = "\
hand-off kind=2 0000000000000def<0000000000000123 0-9000000 status=2 flags=0x303
  selvedge.origin = front
  error.type = out_of_memory
chat gpt-x kind=1 0000000000000001<0000000000000def 1000000-8000000 status=2 flags=0x103
  gen_ai.operation.name = chat
  gen_ai.provider.name = selvedge
  gen_ai.request.model = gpt-x
  error.type = out_of_memory
";
    assert_eq!(shown(&spans::spans(&told)), expected);
    assert!(logs::records(&told).is_empty(), "it is recorded where it came from");
    let mut meters = Meters::new(Wall(1));
    meters.count(&told);
    assert!(meters.metrics(Wall(2)).is_empty(), "and counted there");
}

#[test]
fn records_as_log_records_without_a_providers_words() {
    let words = "the prompt was: my secret";
    let refusal =
        Refusal::new(Stage::Execute, Blame::Provider, Retry::Never, Code::Overloaded, words);
    let failed = told(client(), vec![record(Outcome::Failed(refusal))], Vec::new());
    let [failed] = &logs::records(&failed)[..] else { panic!("one record") };
    assert_eq!(
        lines(&failed.attributes),
        "  http.route = /v1/chat/completions\n  gen_ai.operation.name = chat\n  \
         http.response.status_code = 200\n  \
         selvedge.request.id = req_00000000000000000000000000000a00\n  \
         selvedge.tenant = acme\n  gen_ai.request.model = large\n  selvedge.duration = 0.9s\n  \
         selvedge.time_to_first_token = 0.3s\n  selvedge.nodes_tried = 0\n  \
         error.type = overloaded\n  selvedge.outcome = failed\n"
    );
    assert_eq!((failed.severity_number, failed.event_name.as_str()), (17, "selvedge.request"));
    let mut refused = told(client(), Vec::new(), Vec::new());
    (refused.story.status, refused.story.error) = (Some(401), Some("invalid_api_key"));
    let [refused] = &logs::records(&refused)[..] else { panic!("one record") };
    assert!(lines(&refused.attributes).contains("error.type = invalid_api_key"));
    assert_eq!(refused.severity_text, "WARN");
}

#[test]
fn metrics_count_rows_apart_and_no_more_than_there_is_room_for() {
    let mut meters = Meters::new(Wall(1));
    for _ in 0..2 {
        let turns = vec![turn(1, provider("api.openai.com"))];
        meters.count(&told(client(), vec![record(finished())], turns));
    }
    let metrics = meters.metrics(Wall(2));
    let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "http.server.request.duration",
            "gen_ai.server.request.duration",
            "gen_ai.server.time_to_first_token",
            "gen_ai.server.time_per_output_token",
            "gen_ai.client.operation.duration",
            "gen_ai.client.operation.time_to_first_chunk",
            "gen_ai.client.token.usage",
        ]
    );
    let tokens = metrics.last().unwrap().histogram.as_ref().unwrap();
    let sums: Vec<_> = tokens.points.iter().map(|point| (point.count, point.sum)).collect();
    assert_eq!(sums, [(2, Some(42.0)), (2, Some(14.0))]);
    for index in 0..3_000 {
        let model = format!("model {index}");
        let known = RequestRecord { model, ..record(finished()) };
        meters.count(&told(client(), vec![known], Vec::new()));
    }
    let metrics = meters.metrics(Wall(2));
    let served = metrics[1].histogram.as_ref().unwrap();
    assert_eq!(served.points.len(), 2_000);
    assert_eq!(served.points.iter().map(|point| point.count).sum::<u64>(), 3_002);
    assert_eq!(lines(&served.points[0].attributes), "  otel.metric.overflow = true\n");
}

#[test]
fn nothing_is_shown_of_who_is_not_looked_at() {
    let told = Told {
        context: TraceContext::root(1, 2, false),
        ..told(client(), vec![record(finished())], vec![turn(1, Whom::Here)])
    };
    assert!(spans::spans(&told).is_empty());
    assert_eq!(logs::records(&told).len(), 1);
}

#[test]
fn whoever_speaks_openais_dialect_is_known_by_its_host() {
    for (host, name) in [
        ("api.openai.com", "openai"),
        ("api.mistral.ai", "mistral_ai"),
        ("x.ai", "x_ai"),
        ("notx.ai", "openai"),
        ("127.0.0.1", "openai"),
    ] {
        assert_eq!(names::provider(&provider(host)), name, "{host}");
    }
    assert_eq!(names::provider(&Whom::Here), "selvedge");
}
