use serde_json::{Value, json};

use super::super::for_engine;
use super::*;
use crate::{anthropic, ollama, openai};

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "look_up", "description": "Finds.",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}}])
}

fn asked(more: Value) -> Result<Input, Refusal> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
    let request = openai::parse(body.to_string().as_bytes())?;
    for_engine(&request).map(|asked| asked.input)
}

fn tooled(input: Input) -> Tooled {
    match input {
        Input::Tooled(chat) => *chat,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tools_and_the_choice_among_them_are_taken() {
    let chat = tooled(asked(json!({"tools": tools()})).expect("taken"));
    let tool = &chat.tools[0];
    assert_eq!((tool.name.as_str(), tool.description.as_str()), ("look_up", "Finds."));
    let parameters: Value = serde_json::from_str(&tool.parameters).expect("JSON");
    assert_eq!(parameters, tools()[0]["function"]["parameters"]);
    assert_eq!((chat.choice, chat.parallel), (contract::ToolChoice::Auto, true));
    let named = json!({"type": "function", "function": {"name": "look_up"}});
    for (choice, wanted) in [
        (json!("auto"), contract::ToolChoice::Auto),
        (json!("required"), contract::ToolChoice::Required),
        (named, contract::ToolChoice::Named("look_up".to_owned())),
    ] {
        let more = json!({"tools": tools(), "tool_choice": choice, "parallel_tool_calls": false});
        let chat = tooled(asked(more).expect("taken"));
        assert_eq!((chat.choice, chat.parallel), (wanted, false));
    }
    let none = asked(json!({"tools": tools(), "tool_choice": "none"})).expect("taken");
    assert!(matches!(none, Input::Chat(_)), "what must not be called is not told of");
}

#[test]
fn calls_and_results_keep_their_place() {
    let call = |id: &str, q: &str| {
        let arguments = json!({ "q": q }).to_string();
        json!({"id": id, "type": "function",
            "function": {"name": "look_up", "arguments": arguments}})
    };
    let messages = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": null, "tool_calls": [call("a", "1"), call("b", "2")]},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": "two"},
    ]);
    // The second turn need not name the tools again.
    for more in [json!({}), json!({"tools": tools()})] {
        let mut more = more;
        more["messages"] = messages.clone();
        let chat = tooled(asked(more).expect("taken"));
        let said: Vec<_> =
            chat.messages.iter().map(|one| (one.role, one.content.as_str())).collect();
        let (user, tool) = (contract::Role::User, contract::Role::Tool);
        let called = (contract::Role::Assistant, "");
        assert_eq!(said, [(user, "hi"), called, (tool, "one"), (tool, "two")]);
        assert!(matches!(chat.turn(1), Some(TurnKind::Called(calls)) if calls.len() == 2));
        let wanted = TurnKind::Answers { id: "b".to_owned(), name: "look_up".to_owned() };
        assert_eq!(chat.turn(3), Some(&wanted));
    }
}

#[test]
fn results_beside_words_are_messages_of_their_own() {
    let body = json!({"model": "m", "max_tokens": 9, "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "t", "name": "look_up", "input": {"q": "1"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": "down", "is_error": true},
            {"type": "text", "text": "Well?"}]},
    ], "tools": [{"name": "look_up", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true}});
    let request = anthropic::parse(body.to_string().as_bytes()).expect("understood");
    let chat = tooled(for_engine(&request).expect("taken").input);
    let said: Vec<&str> = chat.messages.iter().map(|one| one.content.as_str()).collect();
    assert_eq!(said, ["hi", "Let me see.", "Error: down", "Well?"]);
    assert_eq!(chat.messages[2].role, contract::Role::Tool);
    assert_eq!((chat.choice, chat.parallel), (contract::ToolChoice::Required, false));
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "look_up", "arguments": {"q": "1"}}}]},
        {"role": "tool", "tool_name": "look_up", "content": "one"}], "tools": tools()});
    let request = ollama::parse(body.to_string().as_bytes()).expect("understood");
    let chat = tooled(for_engine(&request).expect("taken").input);
    assert_eq!(chat.turns.len(), 2);
}

#[test]
fn what_cannot_be_told_is_refused_by_name() {
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let many: Vec<Value> = (0..=Limits::TOOLS).map(|at| function(&format!("f{at}"))).collect();
    for (more, param) in [
        (json!({"tools": many}), "tools"),
        (json!({"tools": [function("f"), function("f")]}), "tools"),
        (json!({"tools": tools(), "response_format": {"type": "json_object"}}), "response_format"),
        (
            json!({"messages": [{"role": "tool", "tool_call_id": "x", "content": "1"}]}),
            "messages[0].tool_call_id",
        ),
    ] {
        let refusal = asked(more.clone()).expect_err("must be refused");
        assert_eq!(refusal.param.as_deref(), Some(param), "{more:.200} {refusal}");
    }
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "g"}})] {
        let refusal = asked(json!({"tool_choice": choice, "tools": []})).expect_err("refused");
        assert_eq!(refusal.param.as_deref(), Some("tool_choice"), "{refusal}");
    }
    let format = json!({"type": "json_object"});
    let both = json!({"tools": tools(), "tool_choice": "none", "response_format": format});
    assert!(asked(both).is_ok(), "without calls the format holds");
}
