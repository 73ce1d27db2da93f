//! A canonical request as local engines take it.
//!
//! Owns what a local text model can do, and the refusal, by name, of what it cannot. Messages and
//! tools are `tools`'; how a model is told of tools is the engine's, and what it calls is read back
//! from its text by `calls`.

use selvedge_base::Refusal;
use selvedge_contract::{self as contract, Further, Input, Limits, Priority};

use super::held::{self, ANY_OBJECT, Held, is_held};
use super::request::{ChatRequest, Effort, Extension, Format, Thinking};
use super::tools;
use crate::decode::{invalid, unsupported};
use crate::exchange::Dialect;
use crate::number::Number;

/// The option of Ollama's that says how many tokens a penalty on repetition looks at.
const WINDOW: &str = "options.repeat_last_n";

/// What an engine is asked, but for ids, the model's digest and a drawn seed.
#[derive(Clone, Debug, PartialEq)]
pub struct ForEngine {
    /// The chat.
    pub input: Input,
    /// Answers wanted.
    pub n: usize,
    /// How to draw tokens; its seed is filled in per answer.
    pub sampling: contract::Sampling,
    /// The caller's seed; its 64 bits count.
    pub seed: Option<u64>,
    /// Most tokens per answer; none = as many as fit.
    pub max_tokens: Option<u32>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Log probabilities wanted.
    pub logprobs: Option<contract::LogProbs>,
    /// What answers must hold to, as [`contract::Constraint`] reads it.
    pub schema: Option<String>,
    /// How urgent it is, where a class of service was named.
    pub tier: Option<Priority>,
}

/// How urgent a class of service makes a request; none where models of the mesh do not have it.
pub fn priority_of(tier: &str) -> Option<Priority> {
    match tier {
        "auto" | "default" => Some(Priority::Normal),
        "flex" => Some(Priority::Low),
        "priority" => Some(Priority::High),
        _ => None,
    }
}

/// The class of service that a request named, as answers say it again.
pub const fn tier_of(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "priority",
        Priority::Normal => "default",
        Priority::Low => "flex",
    }
}

/// What a local text model is asked.
///
/// # Errors
/// A refusal that names the field which such a model cannot honour or whose value it cannot take.
pub fn for_engine(request: &ChatRequest) -> Result<ForEngine, Refusal> {
    refuse_unsupported(request)?;
    let n = request.n.unwrap_or(1);
    if n > u32::from(Limits::CHOICES) {
        return Err(invalid("n", format!("'n' must be 1 to {}, not {n}", Limits::CHOICES)));
    }
    if let Some(max) = request.max_tokens.filter(|max| *max > Limits::ANSWER_TOKENS) {
        let most = Limits::ANSWER_TOKENS;
        return Err(invalid("max_tokens", format!("'max_tokens' must be 1 to {most}, not {max}")));
    }
    let fits = |text: &String| (1..=Limits::STOP_BYTES).contains(&text.len());
    if request.stop.len() > Limits::STOPS || !request.stop.iter().all(fits) {
        let (most, bytes) = (Limits::STOPS, Limits::STOP_BYTES);
        let message = format!("'stop' may be at most {most} strings of 1 to {bytes} bytes each");
        return Err(invalid("stop", message));
    }
    let input = match tools::input(request)? {
        Input::Chat(only) if request.raw => {
            Input::Text(only.into_iter().map(|one| one.content).collect())
        }
        input => input,
    };
    let held = held(request)?;
    let calls = matches!(&input, Input::Tooled(chat) if !chat.tools.is_empty());
    if let Some(held) = held.as_ref().filter(|_| calls) {
        let message = "models of this mesh hold an answer to a schema or let it call tools, not \
                       both; leave out 'tools', or set 'tool_choice' to none";
        return Err(unsupported(&held.field, message));
    }
    Ok(ForEngine {
        input,
        n: n as usize,
        sampling: sampling(request)?,
        seed: request.sampling.seed.map(i64::cast_unsigned),
        max_tokens: request.max_tokens,
        stop: request.stop.clone(),
        logprobs: request.logprobs.map(|logprobs| contract::LogProbs { top: logprobs.top }),
        schema: held.map(|held| held.text),
        tier: request.service_tier.as_deref().and_then(priority_of),
    })
}

fn refuse_unsupported(request: &ChatRequest) -> Result<(), Refusal> {
    let sampling = &request.sampling;
    let reasoning = request.reasoning.unwrap_or_default();
    let thinks = matches!(reasoning.thinking, Some(Thinking::On | Thinking::Adaptive));
    let fields = [
        ("logit_bias", !sampling.logit_bias.is_empty()),
        ("reasoning_effort", !matches!(reasoning.effort, None | Some(Effort::None))),
        ("thinking", thinks || reasoning.budget_tokens.is_some()),
        (
            "service_tier",
            request.service_tier.as_deref().is_some_and(|tier| priority_of(tier).is_none()),
        ),
    ];
    let unknown = request.extensions.iter().find(|field| !is_window(field) && !is_held(field));
    let extension = unknown.map(|field| field.name.as_str());
    let found = fields.iter().find(|(_, present)| *present).map(|(name, _)| *name);
    match found.or(extension) {
        None => Ok(()),
        Some(name) => {
            Err(unsupported(name, format!("'{name}' is not supported by models of this mesh")))
        }
    }
}

/// Whether a field is the one that [`further`] reads.
fn is_window(field: &Extension) -> bool {
    field.dialect == Dialect::Ollama && field.name == WINDOW
}

/// What the answer is held to, by its format or by another field.
fn held(request: &ChatRequest) -> Result<Option<Held>, Refusal> {
    let format = schema(request.format.as_ref())?;
    let format = format.map(|text| Held { field: "response_format".to_owned(), text });
    let fields = request.extensions.iter().filter(|field| is_held(field));
    let held = held::held(fields.map(|field| (field.name.as_str(), &field.value)))?;
    match (format, held) {
        (Some(format), Some(held)) => Err(held::both(&format.field, &held.field)),
        (format, held) => Ok(format.or(held)),
    }
}

/// The schema that a format means. One that says only JSON means an object, as everywhere.
fn schema(format: Option<&Format>) -> Result<Option<String>, Refusal> {
    match format {
        None | Some(Format::Text) => Ok(None),
        Some(Format::JsonObject) => Ok(Some(ANY_OBJECT.to_owned())),
        Some(Format::JsonSchema { schema, .. }) if schema.text().len() > Limits::SCHEMA_BYTES => {
            let (most, bytes) = (Limits::SCHEMA_BYTES, schema.text().len());
            let message = format!("a JSON Schema may have at most {most} bytes, not {bytes}");
            Err(invalid("response_format", message))
        }
        Some(Format::JsonSchema { schema, .. }) => Ok(Some(schema.text().to_owned())),
    }
}

fn sampling(request: &ChatRequest) -> Result<contract::Sampling, Refusal> {
    let sampling = &request.sampling;
    let one = Number::from(1);
    let top_p = sampling.top_p.unwrap_or(one);
    if !(top_p > Number::from(0) && top_p <= one) {
        let message = "'top_p' must be above 0.0 and at most 1.0; for the likeliest token \
                       always, use 'temperature' 0";
        return Err(invalid("top_p", message));
    }
    Ok(contract::Sampling {
        temperature: sampling.temperature.unwrap_or(one).single(),
        top_p: top_p.share(),
        top_k: sampling.top_k.unwrap_or(0),
        presence_penalty: sampling.presence_penalty.unwrap_or_default().single(),
        frequency_penalty: sampling.frequency_penalty.unwrap_or_default().single(),
        seed: 0,
        further: further(request)?,
    })
}

/// What more is asked of a draw.
fn further(request: &ChatRequest) -> Result<Further, Refusal> {
    let sampling = &request.sampling;
    let penalty = sampling.repetition_penalty.unwrap_or(Number::from(1));
    // What divides by less makes logits that are no numbers.
    if !(Number::ratio(1, 100)..=Number::from(2)).contains(&penalty) {
        let message = "'repetition_penalty' must be 0.01 to 2.0; 1 is none";
        return Err(invalid("repetition_penalty", message));
    }
    let window = match request.extensions.iter().find(|field| is_window(field)) {
        None => Further::WINDOW,
        Some(field) => window(field.value.text())?,
    };
    Ok(Further {
        min_p: sampling.min_p.unwrap_or_default().single(),
        repetition_penalty: penalty.single(),
        repetition_window: window,
    })
}

/// How many tokens a penalty looks at: -1 is all of them, 0 none, as with Ollama.
fn window(text: &str) -> Result<u32, Refusal> {
    let wrong = || invalid(WINDOW, format!("'{WINDOW}' must be a count of tokens, or -1 for all"));
    match serde_json::from_str::<Option<i64>>(text) {
        Ok(None) => Ok(Further::WINDOW),
        Ok(Some(-1)) => Ok(u32::MAX),
        Ok(Some(tokens)) => u32::try_from(tokens).map_err(|_| wrong()),
        Err(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use selvedge_contract::ChatMessage;
    use serde_json::{Value, json};

    use super::*;
    use crate::openai;

    fn asked(more: Value) -> Result<ForEngine, Refusal> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        for_engine(&openai::parse(body.to_string().as_bytes()).expect("understood"))
    }

    #[test]
    fn a_plain_chat_is_taken_as_it_is() {
        let more = json!({"temperature": 0, "seed": -1, "n": 2, "user": "u", "tool_choice": "auto",
            "reasoning_effort": "none", "messages": [
                {"role": "developer", "content": "a"},
                {"role": "user", "content": [{"type": "text", "text": "b"},
                    {"type": "text", "text": "c"}]}]});
        let asked = asked(more).expect("taken");
        let message = |role, content: &str| ChatMessage { role, content: content.to_owned() };
        let wanted =
            vec![message(contract::Role::System, "a"), message(contract::Role::User, "b\nc")];
        assert_eq!(asked.input, Input::Chat(wanted));
        assert_eq!((asked.n, asked.seed), (2, Some(u64::MAX)));
        assert_eq!((asked.sampling.temperature, asked.sampling.top_p), (0.0, 1.0));
    }

    #[test]
    fn a_class_of_service_is_a_priority_and_said_again() {
        assert_eq!(asked(json!({})).expect("taken").tier, None);
        for (tier, priority, said) in [
            ("auto", Priority::Normal, "default"),
            ("default", Priority::Normal, "default"),
            ("flex", Priority::Low, "flex"),
            ("priority", Priority::High, "priority"),
        ] {
            let taken = asked(json!({"service_tier": tier})).expect("taken").tier;
            assert_eq!(taken, Some(priority), "{tier}");
            assert_eq!(tier_of(priority), said);
        }
    }

    #[test]
    fn what_more_a_draw_heeds_is_taken() {
        assert_eq!(asked(json!({})).expect("taken").sampling.further, Further::NONE);
        let more = json!({"min_p": 0.25, "repetition_penalty": 1.5});
        let further = asked(more).expect("taken").sampling.further;
        let wanted = Further { min_p: 0.25, repetition_penalty: 1.5, repetition_window: 64 };
        assert_eq!(further, wanted);
        let options = |options: Value| {
            let messages = json!([{"role": "user", "content": "hi"}]);
            let body = json!({"model": "m", "messages": messages, "options": options});
            for_engine(&crate::ollama::parse(body.to_string().as_bytes()).expect("understood"))
        };
        let further = |given: Value| options(given).expect("taken").sampling.further;
        let given = json!({"min_p": 0.25, "repeat_penalty": 1.5, "repeat_last_n": 9});
        assert_eq!(further(given), Further { repetition_window: 9, ..wanted });
        for (given, window) in [(json!(0), 0), (json!(-1), u32::MAX), (json!(null), 64)] {
            let given = further(json!({ "repeat_last_n": given }));
            assert_eq!(given.repetition_window, window);
        }
        for wrong in [json!(-2), json!(1.5), json!("9"), json!(1u64 << 40)] {
            let refusal = options(json!({ "repeat_last_n": wrong })).expect_err("must be refused");
            assert_eq!(refusal.param.as_deref(), Some(WINDOW), "{refusal}");
        }
        let refusal = options(json!({"num_ctx": 9})).expect_err("nothing else is");
        assert_eq!(refusal.param.as_deref(), Some("options.num_ctx"));
    }

    #[test]
    fn a_format_is_a_schema() {
        let format = |format: Value| asked(json!({"response_format": format}));
        let schema = |format_is: Value| format(format_is).expect("taken").schema;
        assert_eq!(schema(json!({"type": "text"})), None);
        assert_eq!(schema(json!({"type": "json_object"})).as_deref(), Some(ANY_OBJECT));
        let own = json!({"type": "object", "properties": {"b": {}, "a": {}}});
        let given = json!({"name": "n", "schema": own, "strict": true});
        let taken = schema(json!({"type": "json_schema", "json_schema": given}));
        assert_eq!(taken, Some(own.to_string()));
        let long = json!({"description": "x".repeat(Limits::SCHEMA_BYTES)});
        let given = json!({"name": "n", "schema": long});
        let refusal = format(json!({"type": "json_schema", "json_schema": given}));
        let refusal = refusal.expect_err("too long");
        assert_eq!(refusal.param.as_deref(), Some("response_format"));
    }

    #[test]
    fn what_other_fields_say_holds_the_answer_too() {
        let held = |more: Value| asked(more).expect("taken").schema;
        let grammar = "root ::= [a-z]+";
        let wanted = contract::Constraint::Grammar(grammar).to_text();
        assert_eq!(held(json!({ "grammar": grammar })), Some(wanted.clone()));
        assert_eq!(held(json!({"structured_outputs": {"grammar": grammar}})), Some(wanted));
        let plain = json!({"response_format": {"type": "text"}, "guided_json": {}});
        assert_eq!(held(plain).as_deref(), Some("{}"));
        // A bare text is held to it as well.
        let body = json!({"model": "m", "prompt": "a", "guided_choice": ["b"]});
        let text = openai::parse_text(body.to_string().as_bytes()).expect("understood");
        let wanted = contract::Constraint::Choice("[\"b\"]").to_text();
        assert_eq!(for_engine(&text).expect("taken").schema, Some(wanted));
    }

    #[test]
    fn what_a_local_text_model_cannot_do_is_refused_by_name() {
        let user = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
        for (more, param) in [
            (
                json!({"tools": [{"type": "function", "function": {"name": "f"}}],
                    "response_format": {"type": "json_object"}}),
                "response_format",
            ),
            (
                json!({"tools": [{"type": "function", "function": {"name": "f"}}],
                    "grammar": "root ::= \"a\""}),
                "grammar",
            ),
            (
                json!({"guided_regex": "a", "response_format": {"type": "json_object"}}),
                "guided_regex",
            ),
            (json!({"grammar": "a", "structured_outputs": {"regex": "a"}}), "grammar"),
            (json!({"logit_bias": {"1": 1}}), "logit_bias"),
            (json!({"repetition_penalty": 0}), "repetition_penalty"),
            (json!({"reasoning_effort": "low"}), "reasoning_effort"),
            (json!({"service_tier": "scale"}), "service_tier"),
            (json!({"store": true}), "store"),
            (json!({"top_p": 0}), "top_p"),
            (json!({"n": 17}), "n"),
            (json!({"max_tokens": 131_073}), "max_tokens"),
            (json!({"stop": "x".repeat(257)}), "stop"),
            (
                user(json!({"type": "image_url", "image_url": {"url": "https://a/b"}})),
                "messages[0].content[0].type",
            ),
            (
                json!({"messages": [{"role": "user", "name": "a", "content": "b"}]}),
                "messages[0].name",
            ),
        ] {
            let refusal = asked(more.clone()).expect_err("must be refused");
            assert_eq!(refusal.param.as_deref(), Some(param), "{more} {refusal}");
        }
    }

    #[test]
    fn what_is_not_text_is_named() {
        let named = [
            (json!({"type": "image_url", "image_url": {"url": "https://a/b"}}), "an image"),
            (
                json!({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}),
                "audio",
            ),
            (json!({"type": "file", "file": {"file_id": "a"}}), "a document"),
        ];
        for (part, name) in named {
            let body = json!({"messages": [{"role": "user", "content": [part]}]});
            let refusal = asked(body).expect_err("must be refused");
            assert!(refusal.to_string().contains(name), "{refusal}");
        }
    }
}
