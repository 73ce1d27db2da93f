//! Every parameter of a chat: honoured, or refused by name.

use selvedge_contract::{Constraint, Further, Sampling};
use serde_json::Map;

use super::super::backend::Holder;
use super::super::fields::CHAT;
use super::super::guard::Caller;
use super::*;
use selvedge_base::{Micros, RequestId};
use selvedge_proto::wire::Label;

/// A body with `extra` fields over the least a chat needs.
fn body(extra: &Value) -> Vec<u8> {
    let mut fields = json!({"model": "small", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in extra.as_object().expect("an object") {
        fields[name] = value.clone();
    }
    serde_json::to_vec(&fields).expect("plain")
}

fn planned(extra: &Value) -> Plan {
    plan(&body(extra)).unwrap_or_else(|problem| panic!("{extra}: {problem:?}"))
}

fn default_sampling() -> Sampling {
    Sampling {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
        further: Further::NONE,
    }
}

type Check = fn(&Plan) -> bool;

/// Values that reach the plan.
fn honoured() -> Vec<(Value, Check)> {
    vec![
        (json!({}), |p| p.sampling == default_sampling() && p.n == 1 && !p.stream),
        (json!({"model": "other"}), |p| p.model == "other"),
        (json!({"response_format": {"type": "json_object"}}), |p| p.schema.is_some()),
        (json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}), |p| {
            p.schema.is_some()
        }),
        (json!({"structured_outputs": {"regex": "a"}}), |p| {
            p.schema == Some(Constraint::Regex("a").to_text())
        }),
        (json!({"structured_outputs": {"choice": ["a"]}}), |p| {
            p.schema == Some(Constraint::Choice("[\"a\"]").to_text())
        }),
        (json!({"structured_outputs": {"json": {}}, "response_format": {"type": "text"}}), |p| {
            p.schema.as_deref() == Some("{}")
        }),
        (json!({"grammar": "a"}), |p| p.schema == Some(Constraint::Grammar("a").to_text())),
        (json!({"guided_grammar": "a"}), |p| p.schema == Some(Constraint::Grammar("a").to_text())),
        (json!({"guided_json": {}}), |p| p.schema.as_deref() == Some("{}")),
        (json!({"guided_regex": "a"}), |p| p.schema == Some(Constraint::Regex("a").to_text())),
        (json!({"guided_choice": ["a"]}), |p| p.schema.is_some()),
        (json!({"service_tier": "flex"}), |p| p.tier == Some(Priority::Low)),
        (json!({"service_tier": "priority"}), |p| p.tier == Some(Priority::High)),
        (json!({"service_tier": "default"}), |p| p.tier == Some(Priority::Normal)),
        (json!({"stream": true}), |p| p.stream && !p.include_usage),
        (json!({"stream": true, "stream_options": {"include_usage": true}}), |p| p.include_usage),
        (json!({"stream": true, "stream_options": {"include_obfuscation": false}}), |p| p.stream),
        (json!({"temperature": 0}), |p| p.sampling.temperature == 0.0),
        (json!({"temperature": 2.0}), |p| p.sampling.temperature == 2.0),
        (json!({"top_p": 0.5}), |p| p.sampling.top_p == 0.5),
        (json!({"top_p": 1e-300}), |p| p.sampling.top_p > 0.0),
        (json!({"top_k": 40}), |p| p.sampling.top_k == 40),
        (json!({"min_p": 0.25}), |p| p.sampling.further.min_p == 0.25),
        (json!({"repetition_penalty": 1.5}), |p| p.sampling.further.repetition_penalty == 1.5),
        (json!({"repetition_penalty": 0.01}), |p| p.sampling.further.penalizes()),
        (json!({"seed": 42}), |p| p.seed == Some(42)),
        (json!({"seed": -1}), |p| p.seed == Some(u64::MAX)),
        (json!({"seed": u64::MAX}), |p| p.seed == Some(u64::MAX)),
        (json!({"stop": "x"}), |p| p.stop == ["x"]),
        (json!({"stop": ["x", "y"]}), |p| p.stop == ["x", "y"]),
        (json!({"stop": []}), |p| p.stop.is_empty()),
        (json!({"max_tokens": 5}), |p| p.max_tokens == Some(5)),
        (json!({"max_completion_tokens": 6}), |p| p.max_tokens == Some(6)),
        (json!({"max_tokens": 6, "max_completion_tokens": 6}), |p| p.max_tokens == Some(6)),
        (json!({"presence_penalty": -2}), |p| p.sampling.presence_penalty == -2.0),
        (json!({"frequency_penalty": 1.5}), |p| p.sampling.frequency_penalty == 1.5),
        (json!({"logprobs": true}), |p| p.logprobs == Some(LogProbs { top: 0 })),
        (json!({"logprobs": true, "top_logprobs": 20}), |p| {
            p.logprobs == Some(LogProbs { top: 20 })
        }),
        (json!({"logprobs": false}), |p| p.logprobs.is_none()),
        (json!({"n": 16}), |p| p.n == 16),
    ]
}

/// Values that ask for nothing a plan would hold.
fn harmless() -> Vec<Value> {
    vec![
        json!({"user": "somebody"}),
        json!({"safety_identifier": "a"}),
        json!({"prompt_cache_key": "a"}),
        json!({"logit_bias": {}}),
        json!({"min_p": 0}),
        json!({"repetition_penalty": 1}),
        json!({"store": false}),
        json!({"metadata": {"a": "b"}}),
        json!({"tools": []}),
        json!({"tool_choice": "none"}),
        json!({"tool_choice": "auto"}),
        json!({"parallel_tool_calls": true}),
        json!({"functions": []}),
        json!({"function_call": "none"}),
        json!({"response_format": {"type": "text"}}),
        json!({"grammar": ""}),
        json!({"structured_outputs": {"json_object": false}}),
        json!({"modalities": ["text"]}),
        json!({"reasoning_effort": "none"}),
        json!({"verbosity": "medium"}),
    ]
}

/// Values refused, and the parameter the refusal must name.
fn refused() -> Vec<(Value, &'static str)> {
    let long = "x".repeat(257);
    vec![
        (json!({"model": null}), "model"),
        (json!({"model": ""}), "model"),
        (json!({"model": 7}), "model"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": [{"content": "hi"}]}), "messages"),
        (json!({"messages": [{"role": "user", "content": "hi", "mood": 1}]}), "messages"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"stream": true, "stream_options": {"other": true}}), "stream_options"),
        (
            json!({"stream": true, "stream_options": {"include_obfuscation": true}}),
            "stream_options.include_obfuscation",
        ),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_p": 1.1}), "top_p"),
        (json!({"top_k": -1}), "top_k"),
        (json!({"min_p": 1.1}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"repetition_penalty": 2.1}), "repetition_penalty"),
        (json!({"top_k": 1.5}), "top_k"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"seed": "x"}), "seed"),
        (json!({"seed": 1e30}), "seed"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
        (json!({"stop": ""}), "stop"),
        (json!({ "stop": long }), "stop"),
        (json!({"stop": 3}), "stop"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 131_073}), "max_tokens"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"max_tokens": 1, "max_completion_tokens": 2}), "max_tokens"),
        (json!({"presence_penalty": 2.5}), "presence_penalty"),
        (json!({"frequency_penalty": -2.5}), "frequency_penalty"),
        (json!({"logprobs": 3}), "logprobs"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
    ]
}

/// The same of fields that most callers never send.
fn refused_rarely() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"n": 0}), "n"),
        (json!({"n": 17}), "n"),
        (json!({"user": 1}), "user"),
        (json!({"logit_bias": {"5": 1}}), "logit_bias"),
        (json!({"store": true}), "store"),
        (json!({"metadata": {"a": 1}}), "metadata"),
        (json!({"metadata": "a"}), "metadata"),
        (json!({"tools": [{"type": "function"}]}), "tools"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": {"type": "function"}}), "tool_choice"),
        (json!({"parallel_tool_calls": 1}), "parallel_tool_calls"),
        (json!({"functions": [{}]}), "functions"),
        (json!({"function_call": {"name": "f"}}), "function_call"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": "json"}), "response_format"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}),
            "response_format.json_schema.schema",
        ),
        (
            json!({"response_format": {"type": "text", "json_schema": {"name": "n"}}}),
            "response_format.json_schema",
        ),
        (json!({"structured_outputs": {}}), "structured_outputs"),
        (json!({"structured_outputs": {"backend": "a"}}), "structured_outputs.backend"),
        (json!({"structured_outputs": {"regex": "a", "json": {}}}), "structured_outputs.regex"),
        (json!({"grammar": ["a"]}), "grammar"),
        (json!({"guided_json": 1}), "guided_json"),
        (json!({"guided_regex": 1}), "guided_regex"),
        (json!({"guided_choice": "a"}), "guided_choice"),
        (json!({"guided_grammar": 1}), "guided_grammar"),
        (json!({"grammar": "a", "guided_grammar": "a"}), "guided_grammar"),
        (json!({"grammar": "a", "response_format": {"type": "json_object"}}), "grammar"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
        (json!({"audio": {"voice": "a"}}), "audio"),
        (json!({"prediction": {"type": "content"}}), "prediction"),
        (json!({"reasoning_effort": "high"}), "reasoning_effort"),
        (json!({"verbosity": "low"}), "verbosity"),
        (json!({"service_tier": "scale"}), "service_tier"),
        (json!({"service_tier": 1}), "service_tier"),
        (json!({"web_search_options": {}}), "web_search_options"),
        (json!({"safety_identifier": 1}), "safety_identifier"),
        (json!({"prompt_cache_key": 1}), "prompt_cache_key"),
        (json!({"prompt": "hi"}), "prompt"),
        (json!({"no_such": 1}), "no_such"),
    ]
}

#[test]
fn values_reach_the_plan() {
    for (extra, check) in honoured() {
        let plan = planned(&extra);
        assert!(check(&plan), "{extra}: {plan:?}");
    }
}

#[test]
fn what_asks_for_nothing_changes_nothing() {
    for extra in harmless() {
        assert_eq!(planned(&extra), planned(&json!({})), "{extra}");
    }
}

#[test]
fn everything_else_is_refused_by_name() {
    for (extra, param) in refused().into_iter().chain(refused_rarely()) {
        let problem = plan(&body(&extra)).expect_err(&extra.to_string());
        assert_eq!(problem.status.as_u16(), 400, "{extra}");
        assert_eq!(problem.param.as_deref(), Some(param), "{extra}: {}", problem.message);
        let last = param.rsplit('.').next().unwrap_or(param);
        assert!(problem.message.contains(last), "{extra}: {}", problem.message);
    }
}

#[test]
fn every_parameter_is_in_the_tables() {
    let mut named = Map::new();
    let honoured = honoured().into_iter().map(|(extra, _)| extra).chain(harmless());
    for extra in honoured {
        named.extend(extra.as_object().cloned().expect("an object"));
    }
    let mut refusals = Map::new();
    for (extra, _) in refused().into_iter().chain(refused_rarely()) {
        refusals.extend(extra.as_object().cloned().expect("an object"));
    }
    for name in CHAT {
        let only_refused = ["messages", "audio", "prediction", "web_search_options"];
        assert!(named.contains_key(*name) || only_refused.contains(name), "{name}");
        assert!(refusals.contains_key(*name), "{name}");
    }
}

#[test]
fn ranges_are_named() {
    for (extra, range) in [
        (json!({"temperature": 3}), "0.0 to 2.0"),
        (json!({"n": 17}), "1 to 16"),
        (json!({"top_logprobs": 99, "logprobs": true}), "0 to 20"),
        (json!({"max_tokens": 0}), "1 to 131072"),
        (json!({"frequency_penalty": 9}), "-2.0 to 2.0"),
    ] {
        let problem = plan(&body(&extra)).expect_err("out of range");
        assert!(problem.message.contains(range), "{}", problem.message);
    }
}

#[test]
fn null_counts_as_absent() {
    let nothing = planned(&json!({}));
    for name in CHAT.iter().filter(|name| !["model", "messages"].contains(name)) {
        let mut extra = json!({});
        extra[*name] = Value::Null;
        assert_eq!(planned(&extra), nothing, "{name}");
    }
}

fn said(messages: Value) -> Result<Vec<(Role, String)>, Problem> {
    let plan = plan(&body(&json!({ "messages": messages })))?;
    let Some(Input::Chat(messages)) = plan.inputs.into_iter().next() else {
        panic!("a chat has one input");
    };
    Ok(messages.into_iter().map(|message| (message.role, message.content)).collect())
}

#[test]
fn an_array_is_no_message_no_part_and_no_options() {
    for messages in
        [json!([["user", "hi"]]), json!([{"role": "user", "content": [["text", "hi"]]}])]
    {
        let problem = said(messages).expect_err("an array");
        assert_eq!(problem.param.as_deref(), Some("messages"));
    }
    let problem = plan(&body(&json!({"stream": true, "stream_options": [true]})));
    assert_eq!(problem.expect_err("an array").param.as_deref(), Some("stream_options"));
}

#[test]
fn messages_become_the_models_input() {
    let messages = json!([
        {"role": "developer", "content": "be kind"},
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [
            {"type": "text", "text": "one"},
            {"type": "text", "text": "two"},
        ]},
        {"role": "assistant", "content": "", "refusal": null, "annotations": [],
         "audio": null, "function_call": null, "tool_calls": null},
        {"role": "user", "content": "é\u{1f600}"},
    ]);
    let wanted = [
        (Role::System, "be kind"),
        (Role::System, "be brief"),
        (Role::User, "one\ntwo"),
        (Role::Assistant, ""),
        (Role::User, "é\u{1f600}"),
    ];
    let wanted: Vec<_> = wanted.map(|(role, text)| (role, text.to_owned())).into();
    assert_eq!(said(messages), Ok(wanted));
}

#[test]
fn messages_of_other_kinds_are_refused_where_they_stand() {
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let part = |part: Value| user(json!([{"type": "text", "text": "a"}, part]));
    let table = [
        (json!([{"role": "tool", "content": "a", "tool_call_id": "b"}]), "messages[0].role"),
        (json!([{"role": "function", "content": "a", "name": "b"}]), "messages[0].role"),
        (json!([{"role": "narrator", "content": "a"}]), "messages[0].role"),
        (json!([{"role": "user", "content": "a", "name": "b"}]), "messages[0].name"),
        (json!([{"role": "user", "content": null}]), "messages[0].content"),
        (json!([{"role": "assistant", "tool_calls": [{}]}]), "messages[0].tool_calls"),
        (json!([{"role": "assistant", "content": "a", "refusal": "no"}]), "messages[0].refusal"),
        (user(json!([])), "messages[0].content"),
        (part(json!({"type": "image_url", "image_url": {}})), "messages[0].content[1].type"),
        (part(json!({"type": "input_audio", "input_audio": {}})), "messages[0].content[1].type"),
        (part(json!({"type": "text", "text": "a", "file": {}})), "messages[0].content[1].type"),
        (part(json!({"type": "text"})), "messages[0].content[1].text"),
    ];
    for (messages, param) in table {
        let problem = said(messages.clone()).expect_err(&messages.to_string());
        assert_eq!(problem.param.as_deref(), Some(param), "{messages}");
        assert_eq!(problem.status.as_u16(), 400);
    }
}

#[test]
fn broken_bodies_tell_where() {
    let table: [(&[u8], &str); 9] = [
        (b"", "line 1 column 0"),
        (b"{", "line 1 column 1"),
        (b"[1]", "must be a JSON object"),
        (b"\"x\"", "must be a JSON object"),
        (b"{\"model\": \"a\",}", "line 1 column 15"),
        (b"{\"model\": \"a\"} x", "line 1 column 16"),
        (b"{\"model\": \"a\", \"model\": \"b\"}", "duplicate field"),
        (b"{\"user\": \"\xff\"}", "line 1 column"),
        (b"{\"user\": \"\\ud800\"}", "line 1 column"),
    ];
    for (body, part) in table {
        let problem = plan(body).expect_err(part);
        assert_eq!(problem.status.as_u16(), 400);
        assert!(problem.message.contains(part), "{part}: {}", problem.message);
    }
}

#[test]
fn a_complaint_does_not_repeat_the_body() {
    let problem = plan(&body(&json!({"temperature": "x".repeat(1 << 20)}))).expect_err("a string");
    assert_eq!(problem.param.as_deref(), Some("temperature"));
    assert!(problem.message.len() < 400, "{} bytes", problem.message.len());
    assert!(problem.message.contains("at line 1 column"), "{}", problem.message);
    let problem = plan(&body(&json!({"x".repeat(1 << 20): 1}))).expect_err("an unknown name");
    assert!(problem.message.len() < 400, "{} bytes", problem.message.len());
}

#[test]
fn damaged_bodies_never_panic() {
    let extra = json!({"n": 2, "stop": ["a"], "seed": 1, "logprobs": true, "metadata": {"a": "b"},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "\u{e9}\n"}]}]});
    let good = body(&extra);
    plan(&good).expect("good");
    let mut dice = selvedge_base::Dice::keyed(1, "damaged bodies");
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..=dice.below(3) {
            let at = dice.below(bad.len() as u64) as usize;
            match dice.below(3) {
                0 => bad[at] = dice.next() as u8,
                1 => bad.truncate(at.max(1)),
                _ => bad.insert(at, b"\"{}[],:0"[dice.below(8) as usize]),
            }
        }
        refused += u32::from(plan(&bad).is_err());
    }
    assert!(refused > 15_000, "most damage is noticed: {refused}");
}

#[test]
fn deep_and_long_bodies_are_refused() {
    let deep = format!(r#"{{"tools": {}"#, "[".repeat(10_000));
    assert!(plan(deep.as_bytes()).is_err());
    let many = vec![json!({"role": "user", "content": ""}); Limits::MESSAGES + 1];
    let problem = plan(&body(&json!({ "messages": many }))).expect_err("too many");
    assert!(problem.message.contains("4096"), "{}", problem.message);
}

#[test]
fn calls_carry_everything_and_differ_in_seed_and_id() {
    let extra = json!({"n": 3, "seed": 9, "temperature": 0.5, "stop": "x", "max_tokens": 4,
        "logprobs": true, "top_k": 5});
    let caller = Caller {
        holder: Holder { tenant: "team".to_owned(), ..Holder::local() },
        label: Some(Label::Site),
        deadline: Micros::secs(3),
    };
    let calls = planned(&extra).calls(RequestId(0x100), 1, &caller);
    assert_eq!(calls.len(), 3);
    for (index, call) in calls.iter().enumerate() {
        assert_eq!(call.id, RequestId(0x100 + index as u128));
        assert_eq!((call.tenant.as_str(), call.label), ("team", Label::Site));
        assert_eq!((call.deadline, call.model.as_str()), (Micros::secs(3), "small"));
        assert_eq!((call.max_tokens, call.logprobs), (Some(4), Some(LogProbs { top: 0 })));
        assert_eq!((call.sampling.temperature, call.sampling.top_k), (0.5, 5));
        assert_eq!(call.stop, ["x"]);
    }
    assert_eq!(calls[0].sampling.seed, 9);
    assert_ne!(calls[1].sampling.seed, calls[2].sampling.seed);
    let again = planned(&extra).calls(RequestId(0x500), 2, &caller);
    assert_eq!(again[2].sampling.seed, calls[2].sampling.seed, "the seed decides, not the id");
    let drawn = planned(&json!({})).calls(RequestId(0), 77, &caller);
    assert_eq!(drawn[0].sampling.seed, 77);
}
