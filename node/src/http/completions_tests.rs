//! Every parameter only text completions have: honoured, or refused by name.

use selvedge_contract::Constraint;
use serde_json::{Value, json};

use super::*;

fn body(extra: &Value) -> Vec<u8> {
    let mut fields = json!({"model": "small", "prompt": "once"});
    for (name, value) in extra.as_object().expect("an object") {
        fields[name] = value.clone();
    }
    serde_json::to_vec(&fields).expect("plain")
}

#[test]
fn values_reach_the_plan() {
    let text = |text: &str| Input::Text(text.to_owned());
    let inputs = [
        (json!("a"), vec![text("a")]),
        (json!(["a", "b"]), vec![text("a"), text("b")]),
        (json!([1, 2, 3]), vec![Input::Tokens(vec![1, 2, 3])]),
        (json!([[1], [2, 3]]), vec![Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])]),
    ];
    for (prompt, wanted) in inputs {
        let plan = plan(&body(&json!({ "prompt": prompt }))).expect("good");
        assert_eq!(plan.inputs, wanted, "{prompt}");
        assert_eq!((plan.shape, plan.max_tokens), (Shape::Text, Some(16)));
    }
    let held = plan(&body(&json!({"grammar": "root ::= \"a\""}))).expect("good").schema;
    assert_eq!(held, Some(Constraint::Grammar("root ::= \"a\"").to_text()));
    let held = plan(&body(&json!({"structured_outputs": {"choice": ["a"]}}))).expect("good").schema;
    assert_eq!(held, Some(Constraint::Choice("[\"a\"]").to_text()));
    let plan = plan(&body(&json!({"logprobs": 3, "max_tokens": 5, "n": 2}))).expect("good");
    assert_eq!(plan.logprobs, Some(LogProbs { top: 3 }));
    assert_eq!((plan.max_tokens, plan.n), (Some(5), 2));
}

#[test]
fn what_asks_for_nothing_changes_nothing() {
    let plain = plan(&body(&json!({}))).expect("good");
    for extra in [
        json!({"echo": false}),
        json!({"suffix": ""}),
        json!({"best_of": 1}),
        json!({"user": "a"}),
        json!({"logit_bias": {}}),
    ] {
        assert_eq!(plan(&body(&extra)), Ok(plain.clone()), "{extra}");
    }
    for name in TEXT.iter().filter(|name| !["model", "prompt"].contains(name)) {
        let mut extra = json!({});
        extra[*name] = Value::Null;
        assert_eq!(plan(&body(&extra)), Ok(plain.clone()), "{name}");
    }
}

#[test]
fn everything_else_is_refused_by_name() {
    let table = [
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [[]]}), "prompt"),
        (json!({"prompt": ["a", 1]}), "prompt"),
        (json!({"prompt": [-1]}), "prompt"),
        (json!({"prompt": [4_294_967_296u64]}), "prompt"),
        (json!({"prompt": {"a": 1}}), "prompt"),
        (json!({"prompt": vec!["a"; 17]}), "prompt"),
        (json!({"prompt": ["a", "b"], "n": 9}), "n"),
        (json!({"echo": true}), "echo"),
        (json!({"suffix": "end"}), "suffix"),
        (json!({"best_of": 4}), "best_of"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"grammar": 1}), "grammar"),
        (json!({"grammar": "a", "guided_regex": "a"}), "guided_regex"),
        (json!({"structured_outputs": {"whitespace": 1}}), "structured_outputs.whitespace"),
        (json!({"response_format": {"type": "text"}}), "response_format"),
        (json!({"messages": []}), "messages"),
        (json!({"tools": []}), "tools"),
        (json!({"max_completion_tokens": 4}), "max_completion_tokens"),
    ];
    for (extra, param) in table {
        let problem = plan(&body(&extra)).expect_err(&extra.to_string());
        assert_eq!(problem.status.as_u16(), 400, "{extra}");
        assert_eq!(problem.param.as_deref(), Some(param), "{extra}: {}", problem.message);
    }
}
