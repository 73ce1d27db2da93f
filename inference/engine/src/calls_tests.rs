use std::sync::mpsc;

use proptest::prelude::*;
use selvedge_base::{Code, Dice, ModelDigest};
use selvedge_contract::{ChatMessage, Emitted, Engine, GenerateRequest, Role, Sampling, Tool};
use serde_json::{Value, json};

use super::*;
use crate::gguf::Gguf;
use crate::testing::{Collected, Outlet, Writer, collect, engine, greedy, request, temporary};
use crate::{EngineConfig, LocalEngine};

const MODEL: ModelDigest = ModelDigest([1; 32]);

fn text() -> Text {
    let file = temporary(&Writer::tiny(1).bytes());
    Text::here(&Gguf::open(file.path()).expect("reads")).expect("reads")
}

fn tool(name: &str, parameters: Value) -> Tool {
    let parameters = parameters.to_string();
    Tool { name: name.to_owned(), description: String::new(), parameters }
}

fn tools() -> Vec<Tool> {
    let city = json!({"$ref": "#/$defs/place"});
    let place = json!({"type": "string", "maxLength": 5});
    vec![
        tool(
            "weather",
            json!({"type": "object", "properties": {"city": city}, "required": ["city"],
                "additionalProperties": false, "$defs": {"place": place}}),
        ),
        tool(
            "add",
            json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 0,
                "maximum": 99}}, "required": ["a"], "additionalProperties": false}),
        ),
    ]
}

fn chat(choice: ToolChoice, parallel: bool) -> Tooled {
    let messages = vec![ChatMessage { role: Role::User, content: "hi".to_owned() }];
    Tooled { messages, turns: Vec::new(), tools: tools(), choice, parallel }
}

fn hold(text: &Text, chat: Tooled) -> Hold {
    let input = Input::Tooled(Box::new(chat));
    Hold::begin(text, &input, None).expect("compiles").expect("something holds it")
}

/// An answer drawn evenly from everything that may come.
fn drawn(text: &Text, hold: &mut Hold, seed: u64) -> String {
    let logits = vec![0.0; text.tokenizer.len()];
    let (mut dice, mut bytes) = (Dice::keyed(seed, "evenly"), Vec::new());
    for _ in 0..2_000 {
        let Ruled::Only(ruled) = hold.rule(&logits).expect("within bounds") else { break };
        let allowed: Vec<u32> =
            (0u32..).zip(&ruled).filter(|(_, logit)| logit.is_finite()).map(|(t, _)| t).collect();
        let token = allowed[dice.below(allowed.len() as u64) as usize];
        if text.tokenizer.ends_answer(token) {
            break;
        }
        let shown = text.shown(token, true);
        bytes.extend_from_slice(shown);
        hold.push(token, shown).expect("it was allowed");
        if hold.is_over() {
            return String::from_utf8(bytes).expect("whole characters");
        }
    }
    panic!("it never ends: {}", String::from_utf8_lossy(&bytes));
}

/// Has the answer say this, token by token.
fn say(text: &Text, hold: &mut Hold, words: &str) {
    for token in text.tokens_behind(words).expect("tokenizes") {
        hold.push(token, text.shown(token, true)).expect("taken");
    }
}

fn is_call(call: &Value) -> bool {
    let arguments = &call["arguments"];
    let fields = arguments.as_object().map(serde_json::Map::len);
    match call["name"].as_str() {
        Some("weather") => fields == Some(1) && arguments["city"].is_string(),
        Some("add") => fields == Some(1) && arguments["a"].is_number(),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_must_be_a_call_is_one(seed in any::<u64>(), named in any::<bool>()) {
        let text = text();
        let choice = match named {
            true => ToolChoice::Named("add".to_owned()),
            false => ToolChoice::Required,
        };
        let mut hold = hold(&text, chat(choice, true));
        let answer = drawn(&text, &mut hold, seed);
        let call = answer.strip_prefix("<tool_call>\n").expect("the mark comes first");
        let call: Value = serde_json::from_str(call).expect("JSON");
        prop_assert!(is_call(&call), "{call}");
        prop_assert!(!named || call["name"] == "add", "{call}");
    }
}

#[test]
fn what_may_be_a_call_is_free_until_its_mark() {
    let text = text();
    let logits = vec![0.0; text.tokenizer.len()];
    let mut several = hold(&text, chat(ToolChoice::Auto, true));
    for words in ["Let me see. <tool", "_call>\n", "{\"name\": "] {
        say(&text, &mut several, words);
    }
    assert!(matches!(several.rule(&logits), Ok(Ruled::Only(_))), "held behind the mark");
    let call = "\"add\", \"arguments\": {\"a\": 7}}";
    say(&text, &mut several, call);
    assert!(matches!(several.rule(&logits), Ok(Ruled::Any)), "free behind the call");
    say(&text, &mut several, "\n</tool_call>\n<tool_call>");
    assert!(matches!(several.rule(&logits), Ok(Ruled::Only(_))), "held again");

    let mut one = hold(&text, chat(ToolChoice::Auto, false));
    say(&text, &mut one, "<tool_call>{\"name\": ");
    say(&text, &mut one, call);
    assert!(one.is_over(), "one call at most");

    let mut other = hold(&text, chat(ToolChoice::Auto, true));
    say(&text, &mut other, "no <tool> and no call");
    assert!(matches!(other.rule(&logits), Ok(Ruled::Any)));
}

#[test]
fn a_call_may_begin_within_the_token_of_its_mark() {
    let text = text();
    let logits = vec![0.0; text.tokenizer.len()];
    for (rest, held) in [("{\"name\"", true), (" \n", true), ("print(1)", false)] {
        let mut hold = hold(&text, chat(ToolChoice::Auto, true));
        hold.push(0, format!("so: <tool_call>{rest}").as_bytes()).expect("taken");
        let only = matches!(hold.rule(&logits), Ok(Ruled::Only(_)));
        assert_eq!(only, held, "{rest}");
    }
}

#[test]
fn schemas_that_cannot_be_held_to_are_refused_only_where_they_must_be() {
    let text = text();
    let odd = tool("odd", json!({"type": "object", "not": {"required": ["a"]}}));
    let with =
        |choice| Input::Tooled(Box::new(Tooled { tools: vec![odd.clone()], ..chat(choice, true) }));
    let refusal = Hold::begin(&text, &with(ToolChoice::Required), None).err().expect("refused");
    assert_eq!((refusal.code, refusal.param.as_deref()), (Code::InvalidRequest, Some("tools")));
    assert!(refusal.message.contains("schemas of the tools: "), "{refusal}");
    assert!(Hold::begin(&text, &with(ToolChoice::Auto), None).expect("fine").is_none());
    let past = Tooled { tools: Vec::new(), ..chat(ToolChoice::Auto, true) };
    let past = Input::Tooled(Box::new(past));
    assert!(Hold::begin(&text, &past, None).expect("fine").is_none());
}

fn answer(engine: &LocalEngine, request: GenerateRequest) -> Collected {
    let (sender, receiver) = mpsc::channel();
    engine.submit("acme", request, Box::new(Outlet(sender))).expect("queued");
    collect(&receiver)
}

#[test]
fn an_engine_answers_with_a_call_and_another_goes_on_with_it() {
    let mut writer = Writer::tiny(1);
    // A vocabulary of single bytes makes long prompts.
    writer.number("llama.context_length", 2_048);
    let file = temporary(&writer.bytes());
    let engine = engine(EngineConfig { threads: 1, ..EngineConfig::default() });
    engine.add_model(file.path(), "tiny", MODEL).expect("a model");
    let input = Input::Tooled(Box::new(chat(ToolChoice::Required, true)));
    let sampling = Sampling { temperature: 1.5, seed: 7, ..greedy() };
    let asked = GenerateRequest { sampling, max_tokens: 300, ..request(1, MODEL, input) };
    let whole = answer(&engine, asked.clone());
    let text = whole.text();
    let call = text.strip_prefix("<tool_call>\n").expect("a call");
    assert!(is_call(&serde_json::from_str(call).expect("JSON")), "{call}");
    for said in [1, whole.tokens.len() / 2, whole.tokens.len() - 1] {
        let tokens = whole.ids()[..said].to_vec();
        let emitted = Some(Emitted { tokens, prompt_digest: whole.digest });
        let rest = answer(&engine, GenerateRequest { emitted, ..asked.clone() });
        assert_eq!(rest.tokens, whole.tokens[said..]);
    }
    let counted = engine.count_tokens(MODEL, &asked.input).expect("counts");
    assert!(counted > 50, "the tools are part of the prompt: {counted}");
}
