//! Parsers of answers: every split gives the same events, and no bytes harm.

use proptest::prelude::*;
use selvedge_dialect::chat::{Event, Gathered};
use selvedge_dialect::exchange::{AnswerParser, Reply, StreamWriter};
use selvedge_dialect::{anthropic, bedrock, cohere, gemini, ollama, openai, responses};

use crate::corpus;

type Make = fn() -> Box<dyn AnswerParser>;

/// The corpus folder of each parser, and how it is made.
const PARSERS: &[(&str, Make)] = &[
    ("openai.sse", || Box::new(openai::Parser::default())),
    ("openai.json", || Box::new(openai::WholeParser::default())),
    ("anthropic.sse", || Box::new(anthropic::Parser::default())),
    ("anthropic.json", || Box::new(anthropic::WholeParser::default())),
    ("ollama.ndjson", || Box::new(ollama::Parser::new("r1"))),
    ("responses.sse", || Box::new(responses::Parser::default())),
    ("responses.json", || Box::new(responses::WholeParser::default())),
    ("cohere.sse", || Box::new(cohere::Parser::new("command-a"))),
    ("cohere.json", || Box::new(cohere::WholeParser::new("command-a"))),
    ("bedrock.stream", || Box::new(bedrock::Parser::new("r1", "m"))),
    ("bedrock.json", || Box::new(bedrock::WholeParser::new("r1", "m"))),
    ("gemini.sse", || Box::new(gemini::Parser::new("r1"))),
    ("gemini.json", || Box::new(gemini::WholeParser::new("r1"))),
];

type Write = fn() -> Box<dyn StreamWriter>;

/// The parser that reads what each writer writes.
const WRITERS: &[(&str, Write, Make)] = &[
    (
        "openai.",
        || Box::new(openai::Writer::new(Reply { created: 1, include_usage: true })),
        || Box::new(openai::Parser::default()),
    ),
    (
        "anthropic.",
        || Box::new(anthropic::Writer::new()),
        || Box::new(anthropic::Parser::default()),
    ),
    (
        "ollama.",
        || Box::new(ollama::Writer::new(ollama::Shape::Chat, Reply::default())),
        || Box::new(ollama::Parser::new("r1")),
    ),
    (
        "responses.",
        || Box::new(responses::Writer::new(Reply { created: 1, include_usage: true })),
        || Box::new(responses::Parser::default()),
    ),
];

fn parse<'b>(make: Make, pieces: impl IntoIterator<Item = &'b [u8]>) -> Vec<Event> {
    let mut parser = make();
    let mut events = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut events);
    }
    parser.finish(&mut events);
    assert!(parser.is_over(), "an answer whose connection ended is over");
    events
}

/// An answer ends once, with nothing after it.
fn check_order(name: &str, events: &[Event]) {
    let ends = |event: &Event| matches!(event, Event::Finished { .. } | Event::Failed(_));
    let last = events.last().unwrap_or_else(|| panic!("{name}: no events"));
    assert!(ends(last), "{name}: {last:?}");
    assert_eq!(events.iter().filter(|event| ends(event)).count(), 1, "{name}");
}

#[test]
fn every_byte_may_come_alone() {
    for (folder, make) in PARSERS {
        for (name, bytes) in corpus::files(folder) {
            let whole = parse(*make, [bytes.as_slice()]);
            check_order(&name, &whole);
            assert_eq!(parse(*make, bytes.chunks(1)), whole, "{folder}/{name}");
            for cut in 0..bytes.len().min(400) {
                let (a, b) = bytes.split_at(cut);
                assert_eq!(parse(*make, [a, b]), whole, "{folder}/{name} at {cut}");
            }
        }
    }
}

#[test]
fn a_cut_anywhere_is_a_failure_or_complete() {
    for (folder, make) in PARSERS {
        for (name, bytes) in corpus::files(folder) {
            for cut in 0..bytes.len() {
                check_order(&format!("{folder}/{name} at {cut}"), &parse(*make, [&bytes[..cut]]));
            }
        }
    }
}

/// What a client of the same dialect must see: the whole answer, whatever the events were cut into.
fn gathered(events: &[Event]) -> Gathered {
    let mut whole = Gathered::default();
    for event in events {
        whole.take(event.clone()).expect("no failure in these");
    }
    whole
}

#[test]
fn what_is_written_reads_as_what_was_read() {
    for (dialect, write, make) in WRITERS {
        for (folder, own) in PARSERS.iter().filter(|(name, _)| name.starts_with(dialect)) {
            for (name, bytes) in corpus::files(folder) {
                let events = parse(*own, [bytes.as_slice()]);
                let mut writer = write();
                let mut out = Vec::new();
                events.iter().for_each(|event| writer.write(event, &mut out));
                let again = parse(*make, [out.as_slice()]);
                if matches!(events.last(), Some(Event::Failed(_))) {
                    assert!(matches!(again.last(), Some(Event::Failed(_))), "{folder}/{name}");
                    continue;
                }
                let (mut read, mut written) = (gathered(&events), gathered(&again));
                // A count that nobody made is written as zero where the dialect must say one.
                read.usage.get_or_insert_default();
                written.usage.get_or_insert_default();
                assert_eq!(normal(written), normal(read), "{folder}/{name}");
            }
        }
    }
}

/// Without what counts bytes and what a stream of the dialect has no place for.
fn normal(mut answer: Gathered) -> String {
    answer.head.usage = None;
    let Gathered { head, choices, usage, complete, .. } = answer;
    format!("{head:#?} {choices:#?} {usage:#?} {complete}")
}

/// Found by fuzzing: a call without a name or an id cannot be answered, in no dialect.
#[test]
fn a_call_has_a_name_and_an_id() {
    let calls: &[(&str, &str)] = &[
        (
            "anthropic.json",
            concat!(
                r#"{"id":"a","model":"m","content":[{"type":"tool_use","id":"","name":"f""#,
                r#","input":{}}],"stop_reason":"tool_use","usage":{"input_tokens":1,"outp"#,
                r#"ut_tokens":1}}"#,
            ),
        ),
        (
            "cohere.json",
            concat!(
                r#"{"id":"a","message":{"tool_calls":[{"id":"","type":"function","functio"#,
                r#"n":{"name":"f","arguments":"{}"}}]},"finish_reason":"TOOL_CALL"}"#,
            ),
        ),
        (
            "responses.json",
            concat!(
                r#"{"id":"a","model":"m","status":"completed","output":[{"type":"function"#,
                r#"_call","id":"i","call_id":"","name":"f","arguments":"{}"}]}"#,
            ),
        ),
        (
            "bedrock.json",
            concat!(
                r#"{"output":{"message":{"content":[{"toolUse":{"toolUseId":"","name":"f""#,
                r#"}}]}},"stopReason":"tool_use"}"#,
            ),
        ),
        (
            "ollama.ndjson",
            concat!(
                r#"{"model":"m","message":{"role":"assistant","content":"","tool_calls":["#,
                r#"{"function":{"name":""}}]},"done":true}"#,
            ),
        ),
        (
            "gemini.json",
            concat!(
                r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":""}}]},"fi"#,
                r#"nishReason":"STOP"}]}"#,
            ),
        ),
    ];
    for (folder, body) in calls {
        let (_, make) = PARSERS.iter().find(|(name, _)| name == folder).expect("a parser");
        let events = parse(*make, [body.as_bytes()]);
        let Some(Event::Failed(failure)) = events.last() else { panic!("{folder}: {events:?}") };
        assert!(failure.refusal.message.contains("a call has no"), "{folder}: {failure:?}");
    }
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(cuts in prop::collection::vec(0_usize..4_000, 0..12)) {
        for (folder, make) in PARSERS {
            for (name, bytes) in corpus::files(folder) {
                let whole = parse(*make, [bytes.as_slice()]);
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
                cuts.sort_unstable();
                let mut at = 0;
                let mut pieces = Vec::new();
                for cut in cuts {
                    pieces.push(&bytes[at..cut]);
                    at = cut;
                }
                pieces.push(&bytes[at..]);
                prop_assert_eq!(parse(*make, pieces), whole, "{}/{}", folder, name);
            }
        }
    }

    #[test]
    fn hostile_bytes_end_in_an_ordinary_way(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..4_000,
        drop in 0_usize..40,
    ) {
        for (folder, make) in PARSERS {
            check_order(folder, &parse(*make, [noise.as_slice()]));
            for (name, mut bytes) in corpus::files(folder) {
                let from = at % (bytes.len() + 1);
                let to = (from + drop).min(bytes.len());
                bytes.splice(from..to, noise.iter().copied());
                let events = parse(*make, bytes.chunks(7));
                check_order(&name, &events);
                prop_assert!(events.len() <= bytes.len() + 2);
            }
        }
    }
}
