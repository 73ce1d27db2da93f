use std::sync::mpsc;

use proptest::prelude::*;
use selvedge_base::{Blame, Dice, ModelDigest, Retry};
use selvedge_contract::{Answer, Emitted, Engine, FinishReason, GenerateRequest, Input, Sampling};
use serde_json::json;

use super::*;
use crate::gguf::Gguf;
use crate::testing::{
    Collected, Outlet, Temporary, Writer, collect, engine, greedy, request, temporary,
};
use crate::text::Text;
use crate::{EngineConfig, LocalEngine};

const MODEL: ModelDigest = ModelDigest([1; 32]);

pub(crate) fn text() -> Text {
    let file = temporary(&Writer::tiny(1).bytes());
    Text::here(&Gguf::open(file.path()).expect("reads")).expect("reads")
}

fn refusal(schema: &str) -> Refusal {
    let text = text();
    text.guide(schema).err().unwrap_or_else(|| panic!("{schema:.80} must be refused"))
}

/// Goes on from a guide in one way or another, for so many tokens or until it ends.
pub(crate) fn explore(text: &Text, guide: &mut Guide, most: usize) {
    let logits = vec![0.0; text.tokenizer.len()];
    for step in 0..most {
        let Ok(Some(ruled)) = guide.rule(&logits) else { return };
        let allowed = ruled.iter().filter(|logit| logit.is_finite()).count();
        let wanted = step % allowed;
        let token = (0u32..).zip(&ruled).filter(|(_, l)| l.is_finite()).nth(wanted);
        let token = token.expect("one is allowed").0;
        let ended = text.tokenizer.ends_answer(token) || guide.push(token).is_err();
        if ended || guide.is_over() {
            return;
        }
    }
}

/// An answer drawn evenly from everything the guide allows, up to so many tokens; whether it is
/// whole.
fn drawn(text: &Text, guide: &mut Guide, seed: u64, most: usize) -> (String, bool) {
    let logits = vec![0.0; text.tokenizer.len()];
    let (mut dice, mut bytes) = (Dice::keyed(seed, "evenly"), Vec::new());
    for _ in 0..most {
        let Some(ruled) = guide.rule(&logits).expect("within bounds") else {
            return (String::from_utf8(bytes).expect("whole characters"), true);
        };
        let allowed: Vec<u32> =
            (0u32..).zip(&ruled).filter(|(_, logit)| logit.is_finite()).map(|(t, _)| t).collect();
        let token = allowed[dice.below(allowed.len() as u64) as usize];
        if text.tokenizer.ends_answer(token) {
            return (String::from_utf8(bytes).expect("whole characters"), true);
        }
        bytes.extend_from_slice(text.tokenizer.shown(token));
        guide.push(token).expect("it was allowed");
        if guide.is_over() {
            return (String::from_utf8(bytes).expect("whole characters"), true);
        }
    }
    (String::from_utf8_lossy(&bytes).into_owned(), false)
}

/// A number without a fraction, which `-0` is too, though the parser keeps it as one with a point.
fn whole(value: &Value) -> Option<i64> {
    let zero = || value.as_f64().filter(|number| *number == 0.0).map(|_| 0);
    value.as_i64().or_else(zero)
}

/// Whether a value holds to a schema of the kind that [`schemas`] makes: a second opinion that
/// shares nothing with the grammar.
fn holds(schema: &Value, value: &Value) -> bool {
    if let Some(options) = schema["anyOf"].as_array() {
        return options.iter().any(|option| holds(option, value));
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.contains(value);
    }
    match schema["type"].as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => whole(value).is_some_and(|number| {
            schema["minimum"].as_i64().is_none_or(|least| number >= least)
                && schema["maximum"].as_i64().is_none_or(|most| number <= most)
        }),
        Some("string") => value.as_str().is_some_and(|text| {
            schema["maxLength"].as_u64().is_none_or(|most| text.chars().count() as u64 <= most)
        }),
        Some("array") => value.as_array().is_some_and(|items| {
            items.len() as u64 >= schema["minItems"].as_u64().unwrap_or(0)
                && items.len() as u64 <= schema["maxItems"].as_u64().unwrap_or(u64::MAX)
                && items.iter().all(|item| holds(&schema["items"], item))
        }),
        Some("object") => value.as_object().is_some_and(|fields| {
            let required = schema["required"].as_array();
            let named = required.into_iter().flatten().filter_map(Value::as_str);
            named.into_iter().all(|name| fields.contains_key(name))
                && fields.iter().all(|(name, value)| {
                    let field = schema["properties"].get(name);
                    field.is_some_and(|field| holds(field, value))
                })
        }),
        _ => false,
    }
}

/// Schemas whose every answer is short.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "string", "maxLength": 6})),
        (-99i64..99, 0i64..200).prop_map(|(least, more)| {
            json!({"type": "integer", "minimum": least, "maximum": least + more})
        }),
        Just(json!({"enum": ["a", "\u{e9}\"\\", 7, null]})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0u64..2, 0u64..3).prop_map(|(items, least, more)| {
                let most = least + more;
                json!({"type": "array", "items": items, "minItems": least, "maxItems": most})
            }),
            prop::collection::vec((inner.clone(), any::<bool>()), 1..4).prop_map(|fields| {
                let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
                for (at, (field, must)) in fields.into_iter().enumerate() {
                    let name = format!("f{at}");
                    if must {
                        required.push(name.clone());
                    }
                    properties.insert(name, field);
                }
                json!({"type": "object", "properties": properties, "required": required,
                    "additionalProperties": false})
            }),
            prop::collection::vec(inner, 1..3).prop_map(|options| json!({"anyOf": options})),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_drawn_holds_to_the_schema(schema in schemas(), seed in any::<u64>()) {
        let text = text();
        let mut guide = text.guide(&schema.to_string()).expect("compiles");
        let (answer, whole) = drawn(&text, &mut guide, seed, 4_000);
        prop_assert!(whole, "{schema}: {answer}");
        let value: Value = serde_json::from_str(&answer).expect("JSON");
        prop_assert!(holds(&schema, &value), "{schema}: {answer}");
    }
}

#[test]
fn a_zero_below_zero_is_an_integer() {
    let schema = json!({"type": "integer", "minimum": -1, "maximum": 0});
    let value: Value = serde_json::from_str("-0").expect("JSON");
    assert!(holds(&schema, &value) && !holds(&schema, &json!(0.5)) && !holds(&schema, &json!(1)));
}

#[test]
fn any_object_is_an_object() {
    let text = text();
    let mut whole = 0;
    for seed in 0..20 {
        let mut guide = text.guide(r#"{"type":"object"}"#).expect("compiles");
        let (answer, ended) = drawn(&text, &mut guide, seed, 2_000);
        assert!(answer.starts_with('{'), "{answer}");
        if ended {
            whole += 1;
            // Numbers may be larger than any that this parser keeps: it need not.
            serde_json::from_str::<serde::de::IgnoredAny>(&answer).expect("JSON");
        }
    }
    assert!(whole > 0, "none of twenty came to an end");
}

#[test]
fn an_order_is_kept_and_the_answer_ends_when_it_is_whole() {
    let text = text();
    let schema = r#"{"type":"object","properties":{"z":{"const":1},"a":{"const":2}},
        "required":["z","a"],"additionalProperties":false}"#;
    let mut guide = text.guide(schema).expect("compiles");
    for token in text.tokenizer.encode(r#"{"z":1,"a":2}"#).expect("encodes") {
        assert!(!guide.is_over());
        guide.push(token).expect("is allowed");
    }
    assert!(guide.is_over(), "nothing can follow");
}

#[test]
fn what_cannot_be_held_to_is_named() {
    for (schema, word) in [
        (r#"{"not": {"type": "string"}}"#, "not"),
        (r#"{"type": "array", "uniqueItems": true}"#, "uniqueItems"),
        (r#"{"type": "array", "contains": {"type": "null"}}"#, "contains"),
        (r#"{"if": {"type": "string"}, "then": {"maxLength": 1}}"#, "if"),
        (r#"{"type": "object", "propertyNames": {"maxLength": 3}}"#, "propertyNames"),
        (r#"{"type": "wizard"}"#, "wizard"),
        (r#"{"type": "integer", "multipleOf": 1000003}"#, "multipleOf"),
        (r#"{"oneOf": [{"minimum": 1}, {"minimum": 2}]}"#, "oneOf"),
        (r##"{"$ref": "#"}"##, "no answer"),
        (
            r#"{"allOf": [{"multipleOf": 97}, {"multipleOf": 9.7}, {"multipleOf": 1013}]}"#,
            "multipleOf",
        ),
        (r##"{"$ref": "#/$defs/none"}"##, "none"),
        ("[]", "object"),
        ("false", "object"),
        ("{", "EOF"),
        (r#"{"type": "string", "pattern": "(?=a)b"}"#, "regex"),
    ] {
        let refusal = refusal(schema);
        assert_eq!((refusal.blame, refusal.retry), (Blame::Client, Retry::Never), "{schema}");
        assert_eq!(refusal.param.as_deref(), Some("response_format"), "{schema}");
        assert!(refusal.message.contains(word), "{schema}: {refusal}");
        assert!(refusal.message.chars().count() < 500, "{schema}: {refusal}");
    }
}

#[test]
fn nothing_is_fetched_for_a_schema() {
    for reference in
        ["http://127.0.0.1:1/a", "https://json-schema.org/draft-07/schema", "file:///etc/passwd"]
    {
        let refusal = refusal(&json!({ "$ref": reference }).to_string());
        assert!(refusal.message.contains("$ref"), "{refusal}");
    }
}

/// A schema whose every part leads to the next one.
fn chain(links: usize, link: impl Fn(&str) -> Value) -> String {
    let parts: serde_json::Map<String, Value> = (0..links)
        .map(|n| (n.to_string(), link(&format!("#/$defs/{}", n + 1))))
        .chain([(links.to_string(), json!({"type": "object"}))])
        .collect();
    json!({"$ref": "#/$defs/0", "$defs": parts}).to_string()
}

#[test]
fn what_the_compiler_multiplies_is_counted() {
    let many = |count: usize| (0..count).map(|n| json!({"const": n})).collect::<Vec<_>>();
    let patterns = |count: usize| -> Value {
        (0..count).map(|n| (format!("^{n}$"), json!({}))).collect::<serde_json::Map<_, _>>().into()
    };
    let other_bases = json!({"$id": "http://a/", "items": {"$id": "http://b/", "$ref": "c"},
        "prefixItems": (0..40).map(|n| json!({"$ref": format!("#/{n}")})).collect::<Vec<_>>()});
    for (schema, words) in [
        (chain(64, |link| json!({ "$ref": link })), ["$ref", "64"]),
        (other_bases.to_string(), ["$ref", "64"]),
        (json!({"patternProperties": patterns(17)}).to_string(), ["patternProperties", "16"]),
        (
            json!({"patternProperties": patterns(3), "anyOf": [{}, {}]}).to_string(),
            ["patternProperties", "2 "],
        ),
        (json!({"allOf": vec![json!({}); 65]}).to_string(), ["allOf", "64"]),
        (json!({"oneOf": many(301)}).to_string(), ["oneOf", "300"]),
        (json!({"allOf": [{"oneOf": many(9)}, {"oneOf": many(8)}]}).to_string(), ["oneOf", "16"]),
        (json!({"oneOf": many(17), "items": {}}).to_string(), ["oneOf", "16"]),
        (json!({"anyOf": many(2_001), "enum": many(2_000)}).to_string(), ["anyOf", "4000"]),
    ] {
        let refusal = refusal(&schema);
        assert_eq!((refusal.blame, refusal.code), (Blame::Client, Code::InvalidRequest));
        let said = |word: &&str| refusal.message.contains(*word);
        assert!(words.iter().all(said), "{refusal}");
    }
}

/// Each is refused, or compiled and answered, within bounds.
#[test]
fn hostile_schemas_are_bounded() {
    let text = text();
    let nested = |levels: usize| {
        let open = r#"{"type":"array","items":"#.repeat(levels);
        format!("{open}{{}}{}", "}".repeat(levels))
    };
    let all_of = |levels: usize| {
        (0..levels).fold(
            json!({"type": "string"}),
            |inner, _| json!({"allOf": [inner.clone(), {"anyOf": [inner, {"type": "null"}]}]}),
        )
    };
    let words: Vec<String> = (0..3_000).map(|n| format!("word number {n}")).collect();
    let fields: serde_json::Map<String, Value> =
        (0..800).map(|n| (format!("field{n}"), json!({"type": "string"}))).collect();
    let patterns: serde_json::Map<String, Value> =
        (0..4_500).map(|n| (format!("^a{n}$"), json!({}))).collect();
    let numbers = |from: usize| (from..from + 1_700).collect::<Vec<_>>();
    let options = json!({"oneOf": [{ "enum": numbers(1_000) }, { "enum": numbers(2_700) }]});
    let all: Vec<Value> = std::iter::once(options).chain((0..14_000).map(|_| json!({}))).collect();
    let exclusive: Vec<Value> = (0..300)
        .map(|n| json!({"type": "object", "properties": {(format!("k{n}")): {}}}))
        .collect();
    for schema in [
        nested(40),
        nested(60),
        nested(20_000),
        all_of(8).to_string(),
        json!({ "enum": words }).to_string(),
        json!({"type": "object", "properties": fields}).to_string(),
        json!({ "oneOf": exclusive }).to_string(),
        json!({"$ref": "#"}).to_string(),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"},
            "b": {"$ref": "#/$defs/a"}}})
        .to_string(),
        json!({"allOf": [{"$ref": "#"}, {"type": "object"}]}).to_string(),
        json!({"type": "string", "pattern": "^((a+)+)+$"}).to_string(),
        json!({"type": "string", "pattern": "(.*a){40}.{60}"}).to_string(),
        json!({"type": "string", "pattern": "(a|b)*a(a|b){200}"}).to_string(),
        json!({"type": "string", "pattern": "[\\p{L}]{1000}{1000}"}).to_string(),
        json!({"type": "string", "minLength": 1_000_000}).to_string(),
        json!({"type": "array", "minItems": 1_000_000}).to_string(),
        json!({"type": "integer", "multipleOf": 1_000_003}).to_string(),
        json!({"type": "object", "minProperties": 100_000}).to_string(),
        chain(2_400, |link| json!({ "$ref": link })),
        chain(1_500, |link| json!({"allOf": [{ "$ref": link }, {"type": "object"}]})),
        json!({"type": "object", "patternProperties": patterns}).to_string(),
        json!({ "allOf": all }).to_string(),
        json!({"x-guidance": {"whitespace_pattern": ".*", "lenient": true}, "not": {}}).to_string(),
        format!("\"{}\"", "x".repeat(Limits::SCHEMA_BYTES)),
    ] {
        match text.guide(&schema) {
            Err(refusal) => assert_eq!(refusal.blame, Blame::Client, "{schema:.80}"),
            Ok(mut guide) => explore(&text, &mut guide, 200),
        }
    }
}

#[test]
fn schemas_are_compiled_once_and_few_are_kept() {
    let text = text();
    let schema = |n: usize| format!(r#"{{"const": {n}}}"#);
    for n in 0..MAX_KEPT + 5 {
        text.guide(&schema(n)).expect("compiles");
    }
    let guides = text.guides();
    assert_eq!(guides.kept.lock().len(), MAX_KEPT);
    text.guide(&schema(5)).expect("is known");
    text.guide(&schema(999)).expect("compiles");
    let known = |n: usize| {
        let digest = *blake3::hash(schema(n).as_bytes()).as_bytes();
        guides.kept.lock().iter().any(|(known, _)| *known == digest)
    };
    assert!(known(5) && known(999) && !known(6), "the one used longest ago goes");
}

fn with_tiny() -> (LocalEngine, Temporary) {
    let file = temporary(&Writer::tiny(1).bytes());
    let engine = engine(EngineConfig { threads: 1, ..EngineConfig::default() });
    engine.add_model(file.path(), "tiny", MODEL).expect("a model");
    (engine, file)
}

const PERSON: &str = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":8},
    "age":{"type":"integer","minimum":0,"maximum":130},"tags":{"type":"array","maxItems":2,
    "items":{"enum":["red","green"]}}},"required":["name","age","tags"],
    "additionalProperties":false}"#;

fn shaped(id: u128, seed: u64) -> GenerateRequest {
    let sampling = Sampling { temperature: 1.5, seed, top_p: 0.95, ..greedy() };
    let schema = Some(PERSON.to_owned());
    let input = Input::Text("once upon a time".to_owned());
    GenerateRequest { sampling, schema, max_tokens: 300, ..request(id, MODEL, input) }
}

fn begin(engine: &LocalEngine, request: GenerateRequest) -> mpsc::Receiver<Answer> {
    let (sender, receiver) = mpsc::channel();
    engine.submit("acme", request, Box::new(Outlet(sender))).expect("submitted");
    receiver
}

fn answer(engine: &LocalEngine, request: GenerateRequest) -> Collected {
    collect(&begin(engine, request))
}

#[test]
fn a_model_that_knows_nothing_answers_to_the_schema() {
    let (engine, _file) = with_tiny();
    let schema: Value = serde_json::from_str(PERSON).unwrap();
    let answers = (0..8).map(|seed| shaped(seed.into(), seed));
    let greediest = GenerateRequest { sampling: greedy(), ..shaped(9, 0) };
    for request in answers.chain([greediest]) {
        let all = answer(&engine, request);
        assert_eq!(all.finished.expect("finished").0, FinishReason::Stop, "{}", all.text());
        let value: Value = serde_json::from_str(&all.text()).expect("JSON");
        assert!(holds(&schema, &value), "{}", all.text());
    }
}

#[test]
fn an_answer_that_is_cut_says_so() {
    let (engine, _file) = with_tiny();
    let all = answer(&engine, GenerateRequest { max_tokens: 9, ..shaped(1, 1) });
    assert_eq!(all.finished.expect("finished").0, FinishReason::Length);
    assert_eq!(all.tokens.len(), 9);
    assert!(all.text().starts_with('{'));
}

#[test]
fn a_schema_that_cannot_be_held_to_fails_its_request_alone() {
    let (engine, _file) = with_tiny();
    let schema = Some(r#"{"not": {}}"#.to_owned());
    let refusal = answer(&engine, GenerateRequest { schema, ..shaped(1, 1) }).failed;
    let refusal = refusal.expect("refused");
    assert_eq!((refusal.blame, refusal.stage), (Blame::Client, Stage::Validate));
    assert!(answer(&engine, shaped(2, 1)).finished.is_some());
}

/// Twelve times the levels of one, on a stack that the usual one is not enough for.
#[test]
fn as_many_references_as_are_possible_fit_the_stack() {
    let (engine, _file) = with_tiny();
    let schema = chain(63, |link| {
        (0..10).fold(json!({ "$ref": link }), |inner, _| json!({"type": "array", "items": inner}))
    });
    let all = answer(&engine, GenerateRequest { schema: Some(schema), ..shaped(1, 1) });
    assert!(all.finished.is_some() || all.failed.is_some_and(|why| why.blame == Blame::Client));
}

#[test]
fn answers_with_and_without_a_schema_do_not_change_each_other() {
    let (engine, _file) = with_tiny();
    let free =
        |id: u128, seed: u64| GenerateRequest { schema: None, max_tokens: 60, ..shaped(id, seed) };
    let alone: Vec<_> = (0..4)
        .flat_map(|seed| {
            [shaped(seed.into(), seed), free(u128::from(seed) + 10, seed)]
                .map(|request| answer(&engine, request).ids())
        })
        .collect();
    let together: Vec<_> = (0..4)
        .flat_map(|seed| {
            [shaped(u128::from(seed) + 20, seed), free(u128::from(seed) + 30, seed)]
                .map(|request| begin(&engine, request))
        })
        .collect();
    let together: Vec<_> = together.iter().map(|events| collect(events).ids()).collect();
    assert_eq!(alone, together);
}

#[test]
fn another_node_goes_on_within_the_schema() {
    let (engine, _file) = with_tiny();
    let whole = answer(&engine, shaped(1, 4));
    for split in [1, whole.tokens.len() / 2, whole.tokens.len() - 1] {
        let emitted =
            Emitted { tokens: whole.ids()[..split].to_vec(), prompt_digest: whole.digest };
        let rest = answer(&engine, GenerateRequest { emitted: Some(emitted), ..shaped(2, 4) });
        assert_eq!(rest.ids(), whole.ids()[split..], "continued after {split}");
        assert_eq!(rest.finished.map(|f| f.0), whole.finished.map(|f| f.0));
    }
}
