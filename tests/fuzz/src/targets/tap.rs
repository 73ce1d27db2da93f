//! The tap on bytes that pass untranslated.
//!
//! Holds: what passes is what came, whole and in order, in any split; a rewritten body differs in
//! what was to be changed and nowhere else; the tap on an answer sees what its parser sees.

use selvedge_dialect::chat::{Event, Usage};
use selvedge_dialect::exchange::AnswerParser;
use selvedge_dialect::tap::{Kind, Rename, Rewrite, Seen, StreamTap, Took, WholeTap, look};
use selvedge_dialect::{anthropic, openai};
use serde_json::Value;

use super::{Target, check_refusal, none, pieces};

const WORDS: &[&str] = &[
    "\"model\":\"x\"",
    "\"\\u006dodel\":\"x\"",
    "\"stream\":true",
    "\"stream_options\":null",
    "\"stream_options\":{ }",
    "\"stream_options\":{\"include_usage\":false}",
    "\"max_tokens\":9",
    "\"max_completion_tokens\":9",
    "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}",
    "\"usage\":{\"input_tokens\":1,\"output_tokens\":2}",
    "\"usage\":null",
    "\"finish_reason\":\"stop\"",
    "\"stop_reason\":\"end_turn\"",
    "\"choices\":[]",
    "\"delta\":{}",
    "\"error\":{}",
    "\"type\":\"image\"",
    "\\u0022",
    "data: [DONE]\n\n",
    "\r\n\r\n",
];

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "tap.request",
        holds: "a rewritten body differs only in the model, the limit and the wish for usage",
        check: check_request,
        shares: &["openai.request", "anthropic.request"],
        seeds: none,
        words: WORDS,
    },
    Target {
        name: "tap.stream",
        holds: "all bytes pass; any split sees the same; the parser's usage is seen",
        check: check_stream,
        shares: &["openai.sse", "anthropic.sse"],
        seeds: none,
        words: WORDS,
    },
    Target {
        name: "tap.whole",
        holds: "any split sees the same; the parser's usage is seen",
        check: check_whole,
        shares: &["openai.json", "anthropic.json"],
        seeds: none,
        words: WORDS,
    },
];

/// A name that must be escaped in JSON.
const NAME: &str = "a/\"b\"\n\u{1}é";

fn check_request(body: &[u8]) {
    let seen = match look(body) {
        Ok(seen) => seen,
        Err(refusal) => return check_refusal(&refusal),
    };
    assert_eq!(seen.rewrite(body, Rewrite::default()), None, "nothing was to be changed");
    let limit = seen.max_tokens.is_none().then_some(("max_tokens", 77));
    let wishes = [
        Rewrite { model: Some(NAME), ..Rewrite::default() },
        Rewrite { ask_usage: true, ..Rewrite::default() },
        Rewrite { model: Some(NAME), ask_usage: true, limit },
    ];
    for wish in wishes {
        let out = seen.rewrite(body, wish).unwrap_or_else(|| body.to_vec());
        let text = String::from_utf8_lossy(&out);
        let again = look(&out).unwrap_or_else(|no| panic!("{}: {text}", no.message));
        check_rewritten(&seen, &again, wish, &text);
        // A number may be too large for a tree of values; the tap does not mind.
        let trees = serde_json::from_slice(body)
            .and_then(|was: Value| Ok((was, serde_json::from_slice::<Value>(&out)?)));
        let Ok((Value::Object(mut was), Value::Object(mut is))) = trees else { continue };
        if wish.model.is_some() {
            assert_eq!(is.get("model").and_then(Value::as_str), Some(NAME), "{text}");
        }
        for tree in [&mut was, &mut is] {
            tree.remove("model");
            if wish.limit.is_some() {
                tree.remove("max_tokens");
            }
            if wish.ask_usage {
                let options = tree.get_mut("stream_options").and_then(Value::as_object_mut);
                options.map(|options| options.remove("include_usage"));
                let empty = [Value::Null, Value::Object(serde_json::Map::new())];
                if tree.get("stream_options").is_some_and(|options| empty.contains(options)) {
                    tree.remove("stream_options");
                }
            }
        }
        assert_eq!(is, was, "{text}");
    }
}

fn check_rewritten(was: &Seen, is: &Seen, wish: Rewrite<'_>, text: &str) {
    assert_eq!(is.model, wish.model.unwrap_or(&was.model), "{text}");
    assert_eq!(is.asks_usage, was.asks_usage || (wish.ask_usage && was.stream), "{text}");
    let limit = wish.limit.map(|(_, tokens)| tokens);
    assert_eq!(is.max_tokens, was.max_tokens.or(limit), "{text}");
    assert_eq!((is.stream, is.n), (was.stream, was.n), "{text}");
    assert_eq!((is.has_tools, is.has_format), (was.has_tools, was.has_format), "{text}");
    assert_eq!(is.has_logprobs, was.has_logprobs, "{text}");
}

fn check_stream(input: &[u8]) {
    for kind in [Kind::OpenAi, Kind::Anthropic] {
        let pass = |tap: StreamTap, pieces: Vec<&[u8]>| -> (Vec<u8>, Took) {
            let (mut tap, mut out) = (tap, Vec::new());
            pieces.into_iter().for_each(|piece| tap.pass(piece, &mut out));
            tap.finish(&mut out);
            (out, tap.took().clone())
        };
        let (out, took) = pass(StreamTap::new(kind, false), vec![input]);
        assert_eq!(out, input, "all of it passes");
        let split = pass(StreamTap::new(kind, false), pieces(input));
        assert_eq!(split, (out, took.clone()), "split, it is another");
        let mut seeing = StreamTap::new(kind, false);
        pieces(input).into_iter().for_each(|piece| seeing.see(piece));
        assert_eq!(seeing.took(), &took);
        let changing = || StreamTap::new(kind, true).renaming(Some(NAME));
        let changed = pass(changing(), vec![input]);
        assert_eq!(pass(changing(), pieces(input)), changed, "split, it is another");
        assert_eq!(changed.1, took, "dropping and renaming change what passes, not what is seen");
        let mut renamed = Vec::new();
        Rename::to(NAME).give(input, &mut |piece| renamed.extend_from_slice(piece));
        check_told(&took, told(stream_parser(kind), input));
    }
}

fn check_whole(input: &[u8]) {
    for kind in [Kind::OpenAi, Kind::Anthropic] {
        let see = |pieces: Vec<&[u8]>| -> Took {
            let mut tap = WholeTap::new(kind);
            pieces.into_iter().for_each(|piece| tap.see(piece));
            tap.took().clone()
        };
        let took = see(vec![input]);
        assert_eq!(see(pieces(input)), took, "split, it is another");
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(input).is_ok();
        assert!(!is_json || !took.failed, "a false alarm");
        check_told(&took, told(whole_parser(kind), input));
    }
}

fn stream_parser(kind: Kind) -> Box<dyn AnswerParser> {
    match kind {
        Kind::OpenAi => Box::new(openai::Parser::default()),
        Kind::Anthropic => Box::new(anthropic::Parser::default()),
    }
}

fn whole_parser(kind: Kind) -> Box<dyn AnswerParser> {
    match kind {
        Kind::OpenAi => Box::new(openai::WholeParser::default()),
        Kind::Anthropic => Box::new(anthropic::WholeParser::default()),
    }
}

/// What a parser says an answer took, if the answer is complete.
fn told(mut parser: Box<dyn AnswerParser>, input: &[u8]) -> Option<Usage> {
    let mut events = Vec::new();
    parser.push(input, &mut events);
    parser.finish(&mut events);
    match events.last() {
        Some(Event::Finished { usage, .. }) => *usage,
        _ => None,
    }
}

/// What a complete answer took must not escape the tap: it is what is billed.
fn check_told(took: &Took, told: Option<Usage>) {
    if let Some(told) = told {
        assert_eq!(took.usage, Some(told), "the parser and the tap differ");
    }
}
