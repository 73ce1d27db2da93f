//! What providers answer: whole bodies and streams, and the frames around them.
//!
//! Holds: any split of the bytes gives the same events; an answer ends exactly once; it holds no
//! more events than bytes; it can be written in every dialect.

use selvedge_dialect::chat::{Event, Gathered};
use selvedge_dialect::embed::{EmbedParser, Read};
use selvedge_dialect::exchange::{AnswerParser, Reply, StreamWriter};
use selvedge_dialect::frame::{aws, lines, sse};
use selvedge_dialect::{anthropic, bedrock, cohere, failure, gemini, ollama, openai, responses};

use super::{Target, none, pieces};

type Make = fn() -> Box<dyn AnswerParser>;

macro_rules! target {
    ($name:literal, $make:expr) => {
        Target {
            name: concat!("answer.", $name),
            holds: "any split gives the same events; ends once; written in every dialect",
            check: |input| check($make, input),
            shares: &[$name],
            seeds: none,
            words: WORDS,
        }
    };
}

const WORDS: &[&str] = &[
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n",
    "data: {\"error\":{\"message\":\"a\"}}\n\n",
    "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    "{\"done\":true}\n",
    "{\"message\":{\"role\":\"assistant\",\"content\":\"a\"},\"done\":false}\n",
    "\"index\":4294967295",
    "\"index\":127",
    "\"usage\":null",
    "\"usage\":{}",
    "\"finish_reason\":\"stop\"",
    "\"tool_calls\":[{\"index\":1,\"id\":\"a\",\"function\":{\"name\":\"b\"}}]",
    "\"delta\":{}",
    "\"content\":null",
    "\"type\"",
    "18446744073709551615",
];

pub(super) const TARGETS: &[Target] = &[
    target!("openai.sse", || Box::new(openai::Parser::default())),
    target!("openai.json", || Box::new(openai::WholeParser::default())),
    target!("anthropic.sse", || Box::new(anthropic::Parser::default())),
    target!("anthropic.json", || Box::new(anthropic::WholeParser::default())),
    target!("ollama.ndjson", || Box::new(ollama::Parser::new("r1"))),
    target!("responses.sse", || Box::new(responses::Parser::default())),
    target!("responses.json", || Box::new(responses::WholeParser::default())),
    target!("cohere.sse", || Box::new(cohere::Parser::new("command-a"))),
    target!("cohere.json", || Box::new(cohere::WholeParser::new("command-a"))),
    target!("bedrock.stream", || Box::new(bedrock::Parser::new("r1", "m"))),
    target!("bedrock.json", || Box::new(bedrock::WholeParser::new("r1", "m"))),
    target!("gemini.sse", || Box::new(gemini::Parser::new("r1"))),
    target!("gemini.json", || Box::new(gemini::WholeParser::new("r1"))),
    Target {
        name: "answer.bedrock.events",
        holds: "as the others, with checksums that hold: each line is an event",
        check: check_bedrock,
        shares: &[],
        seeds: bedrock_events,
        words: WORDS,
    },
    Target {
        name: "answer.frames",
        holds: "any split gives the same lines, events and messages",
        check: check_frames,
        shares: &["openai.sse", "ollama.ndjson", "bedrock.stream"],
        seeds: none,
        words: &["data:", "event:", "id: 1", "retry: 3", ":", "\r\n\r\n", "\n\r"],
    },
    Target {
        name: "answer.embed",
        holds: "any split gives the same vectors, one for each input, all finite",
        check: check_embed,
        shares: &[],
        seeds: none,
        words: &["\"embedding\"", "\"data\"", "\"index\":0", "[0.1,-2e38]", "\"AACAPw==\"", "1e39"],
    },
    Target {
        name: "answer.error",
        holds: "an error answer becomes a failure of few words",
        check: check_error,
        shares: &[],
        seeds: none,
        words: &["\"error\"", "\"message\"", "\"type\"", "\"code\"", "\"status\"", "\"__type\""],
    },
];

fn parse<'b>(make: Make, pieces: impl IntoIterator<Item = &'b [u8]>) -> Vec<Event> {
    let (mut parser, mut events) = (make(), Vec::new());
    for piece in pieces {
        parser.push(piece, &mut events);
    }
    parser.finish(&mut events);
    assert!(parser.is_over(), "an answer whose connection ended is over");
    let before = events.len();
    parser.push(b"data: {}\n\n", &mut events);
    parser.finish(&mut events);
    assert_eq!(events.len(), before, "events after the end");
    events
}

fn check(make: Make, input: &[u8]) {
    let events = parse(make, [input]);
    let ends = |event: &Event| matches!(event, Event::Finished { .. } | Event::Failed(_));
    assert_eq!(events.iter().filter(|event| ends(event)).count(), 1, "{events:?}");
    assert!(events.last().is_some_and(ends), "{events:?}");
    assert!(events.len() <= input.len() + 3, "{} events of {} bytes", events.len(), input.len());
    for event in &events {
        if let Event::ToolBegin { id, name, .. } = event {
            assert!(!id.is_empty() && !name.is_empty(), "{event:?}");
        }
    }
    assert_eq!(parse(make, pieces(input)), events, "split, it is another answer");
    write(&events, input.len());
}

/// Writes the events in every dialect, as a stream and whole.
fn write(events: &[Event], length: usize) {
    let reply = Reply { created: 1, include_usage: true };
    let writers: [(Box<dyn StreamWriter>, Option<Make>); 5] = [
        (Box::new(openai::Writer::new(reply)), Some(|| Box::new(openai::Parser::default()))),
        (Box::new(anthropic::Writer::new()), Some(|| Box::new(anthropic::Parser::default()))),
        (Box::new(responses::Writer::new(reply)), Some(|| Box::new(responses::Parser::default()))),
        (
            Box::new(ollama::Writer::new(ollama::Shape::Chat, reply)),
            Some(|| Box::new(ollama::Parser::new("r1"))),
        ),
        (Box::new(ollama::Writer::new(ollama::Shape::Generate, reply)), None),
    ];
    let finished = |events: &[Event]| matches!(events.last(), Some(Event::Finished { .. }));
    for (at, (mut writer, read)) in writers.into_iter().enumerate() {
        let mut out = Vec::new();
        events.iter().for_each(|event| writer.write(event, &mut out));
        assert!(out.len() <= 64 * length + (events.len() + 4) * 2_048, "{} bytes", out.len());
        if let Some(make) = read {
            let again = parse(make, [out.as_slice()]);
            let text = String::from_utf8_lossy(&out);
            assert_eq!(finished(&again), finished(events), "writer {at}: {text}");
        }
    }
    let mut whole = Gathered::default();
    if events.iter().all(|event| whole.take(event.clone()).is_ok()) {
        let bodies = [
            openai::whole(&whole, reply),
            anthropic::whole(&whole),
            responses::whole(&whole, reply),
            ollama::whole(&whole, ollama::Shape::Chat, reply),
            ollama::whole(&whole, ollama::Shape::Generate, reply),
        ];
        for body in bodies {
            let json = serde_json::from_slice::<serde::de::IgnoredAny>(&body);
            assert!(json.is_ok(), "no JSON: {}", String::from_utf8_lossy(&body));
        }
    }
}

/// Each line is `name payload` and becomes an event, or an exception after `!`.
fn check_bedrock(input: &[u8]) {
    let mut framed = Vec::new();
    for line in input.split(|byte| *byte == b'\n').take(512) {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (name, payload) = line.split_at(space);
        let name = String::from_utf8_lossy(&name[..name.len().min(64)]);
        let (kind, name) = match name.strip_prefix('!') {
            Some(name) => ("exception", name),
            None => ("event", &*name),
        };
        aws::write(kind, name, payload, &mut framed);
    }
    check(|| Box::new(bedrock::Parser::new("r1", "m")), &framed);
}

/// The stored streams, with their frames taken off.
fn bedrock_events() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let stored = include_bytes!("../../../../actors/dialect/tests/corpus/bedrock.stream/tools.bin");
    let read = aws::Messages::default().push(stored, |message| {
        out.extend_from_slice(message.name.as_bytes());
        out.push(b' ');
        out.extend_from_slice(message.payload);
        out.push(b'\n');
    });
    assert_eq!(read, Ok(()), "the stored stream is sound");
    vec![out, b"!throttlingException {\"message\":\"slow\"}".to_vec()]
}

fn check_frames(input: &[u8]) {
    let lines = |pieces: Vec<&[u8]>| {
        let (mut lines, mut all) = (lines::Lines::default(), Vec::new());
        for piece in pieces {
            let kept = lines.push(piece, |line| all.push(line.to_vec()));
            assert!(kept.is_ok(), "an input is shorter than a line may be");
        }
        (all, lines.finish())
    };
    let (whole, rest) = lines(vec![input]);
    let bytes: usize = whole.iter().map(Vec::len).sum();
    assert!(bytes + rest.as_ref().map_or(0, Vec::len) <= input.len());
    assert_eq!(lines(pieces(input)), (whole, rest));
    let events = |pieces: Vec<&[u8]>| {
        let (mut events, mut all) = (sse::Events::default(), Vec::new());
        for piece in pieces {
            let kept = events.push(piece, |name, data| all.push((name.to_owned(), data.to_vec())));
            assert!(kept.is_ok(), "an input is shorter than an event may be");
        }
        all
    };
    assert_eq!(events(pieces(input)), events(vec![input]));
    let messages = |pieces: Vec<&[u8]>| {
        let (mut messages, mut all) = (aws::Messages::default(), Vec::new());
        for piece in pieces {
            let read = messages.push(piece, |message| {
                all.push((message.kind.to_owned(), message.payload.to_vec()));
            });
            if read.is_err() {
                return (all, read);
            }
        }
        (all, Ok(()))
    };
    assert_eq!(messages(pieces(input)), messages(vec![input]));
}

fn check_embed(input: &[u8]) {
    let reads: [Read; 5] = [
        openai::read_embed,
        ollama::read_embed,
        gemini::read_embed,
        cohere::read_embed,
        bedrock::read_embed,
    ];
    for read in reads {
        let (mut whole, mut split) = (EmbedParser::new(read), EmbedParser::new(read));
        whole.push(input);
        pieces(input).into_iter().for_each(|piece| split.push(piece));
        let answer = whole.finish(2);
        let again = split.finish(2);
        assert_eq!(format!("{again:?}"), format!("{answer:?}"), "split, it is another answer");
        let Ok(answer) = answer else { continue };
        assert_eq!(answer.vectors.len(), 2);
        let bodies = [
            openai::embed_body(&answer, selvedge_dialect::embed::Encoding::Float),
            openai::embed_body(&answer, selvedge_dialect::embed::Encoding::Base64),
            ollama::embed_body(&answer),
            ollama::embeddings_body(&answer),
        ];
        for body in bodies {
            let json = serde_json::from_slice::<serde::de::IgnoredAny>(&body);
            assert!(json.is_ok(), "no JSON: {}", String::from_utf8_lossy(&body));
        }
    }
    let read = anthropic::read_count(input);
    drop((read, ollama::read_tags(input)));
}

/// The first byte chooses the status; the body is the rest, which is a header's value too.
fn check_error(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    let status = [0, 400, 401, 403, 404, 408, 413, 429, 500, 529][usize::from(*first) % 10];
    let value = String::from_utf8_lossy(body);
    let wait = failure::retry_after([("retry-after", &*value)]);
    let failures = [
        openai::failure(status, wait, body),
        anthropic::failure(status, wait, body),
        gemini::failure(status, wait, body),
        cohere::failure(status, wait, body),
        ollama::failure(status, wait, body),
        bedrock::failure(status, Some(&value), wait, body),
        bedrock::failure(status, None, wait, body),
    ];
    for failure in failures {
        super::check_refusal(&failure.refusal);
        for out in [
            openai::error_body(&failure.refusal),
            anthropic::error_body(&failure.refusal),
            ollama::error_body(&failure.refusal),
        ] {
            let json = serde_json::from_slice::<serde::de::IgnoredAny>(&out);
            assert!(json.is_ok(), "no JSON: {}", String::from_utf8_lossy(&out));
        }
    }
}
