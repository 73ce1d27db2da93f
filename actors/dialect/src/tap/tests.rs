use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn looked(body: &str) -> Seen {
    look(body.as_bytes()).expect("understood")
}

#[test]
fn the_few_fields_are_found() {
    let seen = looked(
        r#" {"messages":[{"role":"user","content":"\"model\":\"x\""}],"model":"a\"b","stream":true,
        "max_tokens":5,"n":2,"tools":[{}],"response_format":{"type":"json_object"},
        "odd":[1,{"model":2}]}"#,
    );
    assert_eq!((seen.model.as_str(), seen.stream, seen.n), ("a\"b", true, 2));
    assert_eq!((seen.max_tokens, seen.has_tools, seen.has_format), (Some(5), true, true));
    assert!(!seen.asks_usage && !seen.has_logprobs && !seen.is_held);
    for field in crate::chat::HELD {
        let held = looked(&format!(r#"{{"model":"a","{field}":"x"}}"#));
        assert!(held.is_held && held.has_format && held.is_bounded(Kind::OpenAi), "{field}");
        let none = looked(&format!(r#"{{"model":"a","{field}":null}}"#));
        assert!(!none.is_held && !none.has_format, "{field}");
    }
    for (body, part) in [
        ("[]", "JSON object"),
        ("{", "not valid JSON"),
        ("{}", "'model' is required"),
        (r#"{"model":1}"#, "'model'"),
        (r#"{"model":"a","model":"b"}"#, "duplicate field"),
        (r#"{"model":"a","stream":null,"stream":true}"#, "duplicate field"),
        (r#"{"model":"a","modalities":null,"modalities":["audio"]}"#, "duplicate field"),
        (r#"{"model":"a","stream":"yes"}"#, "'stream'"),
        (r#"{"model":"a","stream_options":[]}"#, "'stream_options' must be"),
    ] {
        let refusal = look(body.as_bytes()).expect_err(body);
        assert!(refusal.message.contains(part), "{body}: {refusal}");
    }
}

#[test]
fn bodies_are_changed_by_splicing() {
    for (body, wanted) in [
        (
            r#"{"model":"a","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"new","stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{},"model":"a"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"new"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"x":1},"model":"a"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"x":1},"model":"new"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":false},"model":"a"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"new"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":null},"model":"a"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"new"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":null,"model":"a"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"new"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"a"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"new"}"#,
        ),
        (r#"{"model":"a","b":"keep  this"}"#, r#"{"model":"new","b":"keep  this"}"#),
    ] {
        let changed = looked(body)
            .rewrite(body.as_bytes(), Rewrite { model: Some("new"), ask_usage: true, limit: None })
            .expect("changed");
        assert_eq!(String::from_utf8_lossy(&changed), wanted);
        assert_eq!(looked(body).rewrite(body.as_bytes(), Rewrite::default()), None);
    }
}

#[test]
fn usage_is_asked_for_only_where_a_stream_does_not_tell_it() {
    let rewrite = Rewrite { ask_usage: true, ..Rewrite::default() };
    for (body, changes) in [
        (r#"{"model":"a"}"#, false),
        (r#"{"model":"a","stream":false}"#, false),
        (r#"{"model":"a","stream":true,"stream_options":{"include_usage":true}}"#, false),
        (r#"{"model":"a","stream":true}"#, true),
    ] {
        assert_eq!(looked(body).rewrite(body.as_bytes(), rewrite).is_some(), changes, "{body}");
    }
}

#[test]
fn a_limit_is_put_in_front() {
    let body = r#" {"model":"a","n":1}"#;
    let limit = Some(("max_tokens", 9));
    let changed = looked(body).rewrite(body.as_bytes(), Rewrite { limit, ..Rewrite::default() });
    let changed = changed.expect("changed");
    assert_eq!(String::from_utf8_lossy(&changed), r#" {"max_tokens":9,"model":"a","n":1}"#);
}

#[test]
fn only_text_and_tools_are_plain() {
    let plain = |body: &str| looked(body).is_plain;
    assert!(plain(
        r#"{"model":"a","messages":[{"role":"user","content":"a \"type\":\"image\" in words"}]}"#
    ));
    assert!(plain(
        r#"{"model":"a","tools":[{"type" : "function","function":{"p":{"type":"object"}}}]}"#
    ));
    assert!(plain(r#"{"model":"a","messages":[{"content":[{"type":"text","text":"\u00e9"}]}]}"#));
    for dear in [
        r#"{"model":"a","messages":[{"content":[{"type":"image_url","image_url":{}}]}]}"#,
        r#"{"model":"a","messages":[{"content":[{"type" :
            "input_audio"}]}]}"#,
        r#"{"model":"a","messages":[{"content":[{"t\u0079pe":"image_url"}]}]}"#,
        r#"{"model":"a","messages":[{"content":[{"type":"text","cache_control":{}}]}]}"#,
        r#"{"model":"a","modalities":["text","audio"]}"#,
        r#"{"model":"a","tools":[{"type":"web_search_20250305"}]}"#,
        r#"{"model":"a","odd":{"type":["text"]}}"#,
        r#"{"model":"a","odd":{"type":"what comes next year"}}"#,
    ] {
        assert!(!plain(dear), "{dear}");
    }
}

#[test]
fn fields_that_may_cost_more_are_told_apart() {
    let is_bounded =
        |body: &str, kind| look(body.as_bytes()).is_ok_and(|seen| seen.is_bounded(kind));
    let bounded = |body: &str| is_bounded(body, Kind::OpenAi);
    assert!(bounded(r#"{"model":"a","messages":[{"plugins":1}],"max_tokens":5,"n":2}"#));
    for dear in [
        r#"{"model":"a","models":["dearer"]}"#,
        r#"{"model":"a","pl\u0075gins":[]}"#,
        r#"{"model":"a","n_predict":100000}"#,
        "[]",
        "{",
    ] {
        assert!(!bounded(dear), "{dear}");
    }
    assert!(is_bounded(r#"{"model":"a","system":"b","max_tokens":1}"#, Kind::Anthropic));
    assert!(!is_bounded(r#"{"model":"a","container":"b"}"#, Kind::Anthropic));
    let both = looked(r#"{"model":"a","max_tokens":900,"max_completion_tokens":1}"#);
    assert_eq!(both.max_tokens, Some(900));
}

fn chunk(choices: Value, usage: Value) -> String {
    format!("data: {}\n\n", json!({"id": "c", "choices": choices, "usage": usage}))
}

fn openai_stream() -> (String, String) {
    let text =
        chunk(json!([{"index": 0, "delta": {"content": "say \"usage\":{ 🦀"}}]), Value::Null);
    let end = chunk(json!([{"index": 0, "delta": {}, "finish_reason": "length"}]), Value::Null);
    let usage = chunk(json!([]), json!({"prompt_tokens": 3, "completion_tokens": 4}));
    let head = format!(": comment\r\n\r\n{text}{end}");
    (format!("{head}{usage}data: [DONE]\n\n"), format!("{head}data: [DONE]\n\n"))
}

#[test]
fn usage_is_found_and_only_what_was_added_is_dropped() {
    let (all, without) = openai_stream();
    let mut keeping = StreamTap::new(Kind::OpenAi, false);
    keeping.see(all.as_bytes());
    let took = keeping.took().clone();
    let usage = took.usage.expect("told");
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (3, 4));
    assert_eq!((took.finish, took.done, took.pieces), (Some(Finish::Length), true, 2));
    let (mut dropping, mut out) = (StreamTap::new(Kind::OpenAi, true), Vec::new());
    dropping.pass(all.as_bytes(), &mut out);
    assert_eq!(String::from_utf8_lossy(&out), without);
}

#[test]
fn usage_beside_an_answer_is_not_dropped() {
    let last = chunk(
        json!([{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]),
        json!({"prompt_tokens": 1, "completion_tokens": 1}),
    );
    let (mut tap, mut out) = (StreamTap::new(Kind::OpenAi, true), Vec::new());
    tap.pass(last.as_bytes(), &mut out);
    assert_eq!(out, last.as_bytes());
    assert!(tap.took().usage.is_some());
}

#[test]
fn a_whole_event_is_passed_at_once_and_a_long_one_in_pieces() {
    let (mut tap, mut out) = (StreamTap::new(Kind::OpenAi, true), Vec::new());
    tap.pass(b"data: {\"a\":1}\n\ndata: {\"b\"", &mut out);
    assert_eq!(out, b"data: {\"a\":1}\n\n");
    tap.finish(&mut out);
    assert_eq!(out, b"data: {\"a\":1}\n\ndata: {\"b\"");
    let (mut tap, mut out) = (StreamTap::new(Kind::OpenAi, true), Vec::new());
    let piece = vec![b'x'; 1 << 10];
    for _ in 0..1_000 {
        tap.pass(&piece, &mut out);
    }
    assert!(out.len() >= 700 << 10, "{}", out.len());
    let (all, without) = openai_stream();
    tap.pass(b"\n\n", &mut out);
    out.clear();
    tap.pass(all.as_bytes(), &mut out);
    assert_eq!(String::from_utf8_lossy(&out), without);
}

#[test]
fn anthropics_counts_are_put_together() {
    let mut tap = StreamTap::new(Kind::Anthropic, false);
    tap.see(include_bytes!("../../tests/corpus/anthropic.sse/tools.sse"));
    let took = tap.took();
    let usage = took.usage.expect("told");
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (602, 89));
    assert_eq!((&took.finish, took.done, took.failed), (&Some(Finish::ToolCalls), true, false));
    let mut tap = StreamTap::new(Kind::Anthropic, false);
    tap.see(include_bytes!("../../tests/corpus/anthropic.sse/overloaded.sse"));
    assert!(tap.took().failed && !tap.took().done);
}

#[test]
fn whole_answers_are_watched_at_their_own_depth() {
    let body = json!({"choices": [{"message": {"content": "{\"usage\":{}}", "finish_reason": "no",
        "tool": {"usage": {"prompt_tokens": 9}}}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "x": {"usage": {}}}});
    let bytes = body.to_string();
    for size in [1, 3, 7, bytes.len()] {
        let mut tap = WholeTap::new(Kind::OpenAi);
        bytes.as_bytes().chunks(size).for_each(|piece| tap.see(piece));
        let usage = tap.took().usage.expect("told");
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (1, 2));
        assert_eq!((&tap.took().finish, tap.took().done), (&Some(Finish::Stop), true));
    }
    let message = include_bytes!("../../tests/corpus/anthropic.json/message.json");
    for size in [1, 5, 64] {
        let mut tap = WholeTap::new(Kind::Anthropic);
        message.chunks(size).for_each(|piece| tap.see(piece));
        assert_eq!(tap.took().usage.map(|usage| usage.prompt_tokens), Some(2_107));
    }
    let mut tap = WholeTap::new(Kind::Anthropic);
    tap.see(message);
    assert_eq!(tap.took().usage.map(|usage| usage.prompt_tokens), Some(2_107));
    assert_eq!(tap.took().finish, Some(Finish::StopText));
}

#[test]
fn a_kept_value_is_the_same_wherever_it_is_split_and_bounded() {
    let told = |body: &str, size: usize| {
        let mut tap = WholeTap::new(Kind::OpenAi);
        body.as_bytes().chunks(size).for_each(|piece| tap.see(piece));
        assert!(tap.took().done && !tap.took().failed, "{size}");
        tap.took().clone()
    };
    let reason = r#"{"choices" : [ { "finish_reason" : "str\u0061n\"ge" , "n" : -1.5E+3 } ]}"#;
    let whole = told(reason, reason.len());
    assert!(whole.finish.is_some());
    let around = r#"{"usage":{"prompt_tokens":7,"completion_tokens":8,"x":[{"y":null}]}}"#;
    let usage = told(around, around.len()).usage.expect("told");
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (7, 8));
    for size in 1..reason.len() {
        assert_eq!(told(reason, size), whole, "{size}");
        assert_eq!(told(around, size).usage, Some(usage), "{size}");
    }
    // Of one that is over the bound nothing is believed, in one piece or in many.
    let room = " ".repeat(16 << 10);
    let long = format!(r#"{{"usage":{{"prompt_tokens":7,{room}"completion_tokens":8}}}}"#);
    for size in [1, 1_000, long.len()] {
        assert_eq!(told(&long, size).usage, None, "{size}");
    }
}

proptest! {
    #[test]
    fn splits_change_nothing(cuts in prop::collection::vec(0_usize..700, 0..8)) {
        let (all, without) = openai_stream();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % all.len()).collect();
        cuts.sort_unstable();
        cuts.push(all.len());
        let (mut tap, mut out, mut from) = (StreamTap::new(Kind::OpenAi, true), Vec::new(), 0);
        for cut in cuts {
            tap.pass(&all.as_bytes()[from..cut], &mut out);
            from = cut;
        }
        prop_assert_eq!(String::from_utf8_lossy(&out), without);
        prop_assert!(tap.took().usage.is_some() && tap.took().done);
    }

    #[test]
    fn any_bytes_pass_untouched(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        size in 1_usize..9,
    ) {
        let (mut tap, mut out) = (StreamTap::new(Kind::OpenAi, true), Vec::new());
        let mut whole = WholeTap::new(Kind::Anthropic);
        for piece in bytes.chunks(size) {
            tap.pass(piece, &mut out);
            whole.see(piece);
        }
        tap.finish(&mut out);
        prop_assert_eq!(out, bytes.clone());
        let _ = look(&bytes);
    }
}

#[test]
fn what_is_not_json_is_noticed_as_it_passes() {
    let whole = |text: &str| {
        let mut tap = WholeTap::new(Kind::Anthropic);
        tap.see(text.as_bytes());
        tap.took().failed
    };
    let deep = format!("{}{}", "[{\"a\":".repeat(200), "}]".repeat(200));
    for good in ["{}", " {\"a\":[1.5e-3,true,false,null,\"<]}\"]}\n", &deep] {
        assert!(!whole(good), "{good}");
    }
    for bad in ["<html>", "{\"a\"=1}", "{\"a\":[1}", "{\"a\":(1)}", "]", "Internal error"] {
        assert!(whole(bad), "{bad}");
    }
    let stream = |kind, text: &str| {
        let mut tap = StreamTap::new(kind, false);
        tap.see(text.as_bytes());
        tap.took().failed
    };
    for kind in [Kind::OpenAi, Kind::Anthropic] {
        for good in ["data: {}\n\n", ": ping\n\n", "data: [DONE]\n\n", "data:\n\n", "event: a\n\n"]
        {
            assert!(!stream(kind, good), "{good}");
        }
        for bad in ["data: [\"id\":1}\n\n", "data: <html>\n\n", "event: a\ndata: no\n\n"] {
            assert!(stream(kind, bad), "{bad}");
        }
    }
}
