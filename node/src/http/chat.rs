//! `POST /v1/chat/completions`: from the body to a plan.
//!
//! Owns the parameters only chats have and how messages become the model's input. Chats with tools
//! are read by the dialect instead, whoever answers them.

use selvedge_contract::{ChatMessage, Input, Limits, LogProbs, Priority, Role};
use selvedge_dialect::chat::{both, priority_of};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::errors::Problem;
use super::fields::{CHAT, Content, Fields, LogProbsField, Message, Messages, Part};
use super::params::{Plan, Shape, held, refuse_unless, refuse_unless_empty, whole};

/// Key-value pairs in `metadata` (as in the OpenAI API). They are accepted and not kept.
const METADATA_PAIRS: usize = 16;

/// The schema of whatever is a JSON object.
const ANY_OBJECT: &str = r#"{"type":"object"}"#;

/// `response_format`. What else stands in it changes no answer here: all are held to the schema.
#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    schema: Option<Box<RawValue>>,
}

/// What a chat's body asks for.
pub(super) fn plan(body: &[u8]) -> Result<Plan, Problem> {
    let mut fields = Fields::decode(body, CHAT)?;
    refuse_unsupported(&fields)?;
    let logprobs = logprobs(&fields)?;
    let messages = messages(fields.messages.take())?;
    let schema = schema(fields.response_format.as_deref())?;
    let tier = tier(fields.service_tier.as_ref())?;
    if schema.is_some()
        && let Some(held) = held(&fields)?
    {
        return Err(both("response_format", &held.field).into());
    }
    let plan = Plan::new(Shape::Chat, &mut fields, vec![Input::Chat(messages)], logprobs)?;
    let schema = schema.or(plan.schema);
    Ok(Plan { schema, tier, ..plan })
}

/// Whether messages of a body that was refused may be calls of tools or their results. Quotes
/// within a text have a backslash before them, so that nobody's words are taken for it.
pub(super) fn speaks_of_calls(body: &[u8]) -> bool {
    let has = |word: &[u8]| body.windows(word.len()).any(|window| window == word);
    has(b"\"tool_calls\"") || has(b"\"tool\"")
}

fn refuse_unsupported(fields: &Fields) -> Result<(), Problem> {
    // `user`, `safety_identifier` and `prompt_cache_key` name the end user or group requests for
    // the operator of a service; no value of them changes an answer, so all are fine.
    refuse_unless_empty("tools", fields.tools.as_ref())?;
    refuse_unless_empty("functions", fields.functions.as_ref())?;
    refuse_unless("tool_choice", fields.tool_choice.as_ref(), &["none", "auto"])?;
    refuse_unless("function_call", fields.function_call.as_ref(), &["none", "auto"])?;
    refuse_unless("reasoning_effort", fields.reasoning_effort.as_ref(), &["none"])?;
    refuse_unless("verbosity", fields.verbosity.as_ref(), &["medium"])?;
    refuse_unless("audio", fields.audio.as_ref(), &[])?;
    refuse_unless("prediction", fields.prediction.as_ref(), &[])?;
    refuse_unless("web_search_options", fields.web_search_options.as_ref(), &[])?;
    let only = |name, value: &Option<Value>, harmless: Value| match value {
        Some(value) if *value != harmless => {
            Err(Problem::unsupported(name, format!("'{name}' may only be {harmless} here")))
        }
        Some(_) | None => Ok(()),
    };
    only("modalities", &fields.modalities, json!(["text"]))?;
    if fields.store == Some(true) {
        let message = "'store' may not be true: answers are not stored";
        return Err(Problem::unsupported("store", message));
    }
    metadata(fields.metadata.as_ref())
}

/// How urgent `service_tier` makes a chat.
fn tier(tier: Option<&Value>) -> Result<Option<Priority>, Problem> {
    let Some(tier) = tier else { return Ok(None) };
    let Some(priority) = tier.as_str().and_then(priority_of) else {
        let message = "'service_tier' may only be auto, default, flex or priority here";
        return Err(Problem::unsupported("service_tier", message));
    };
    Ok(Some(priority))
}

/// The schema that `response_format` means, in the caller's own words and order.
fn schema(format: Option<&RawValue>) -> Result<Option<String>, Problem> {
    let Some(format) = format else { return Ok(None) };
    let format: Format = serde_json::from_str(format.get()).map_err(|_| {
        let message = "'response_format' must be an object with a 'type' of text, json_object or \
                       json_schema";
        Problem::invalid("response_format", message)
    })?;
    let schema = match (format.kind.as_str(), format.json_schema) {
        ("text", None) => return Ok(None),
        ("json_object", None) => return Ok(Some(ANY_OBJECT.to_owned())),
        ("json_schema", Some(Named { schema: Some(schema) })) => schema,
        ("json_schema", _) => {
            let path = "response_format.json_schema.schema";
            return Err(Problem::invalid(path, format!("'{path}' is required")));
        }
        ("text" | "json_object", Some(_)) => {
            let message = "'json_schema' needs 'type': \"json_schema\"";
            return Err(Problem::invalid("response_format.json_schema", message));
        }
        _ => {
            let message = "'type' must be text, json_object or json_schema";
            return Err(Problem::invalid("response_format.type", message));
        }
    };
    if schema.get().len() > Limits::SCHEMA_BYTES {
        let message = format!("a JSON Schema may have at most {} bytes", Limits::SCHEMA_BYTES);
        return Err(Problem::invalid("response_format.json_schema.schema", message));
    }
    Ok(Some(schema.get().to_owned()))
}

fn metadata(metadata: Option<&Value>) -> Result<(), Problem> {
    let fits = match metadata {
        None => true,
        Some(Value::Object(pairs)) => {
            pairs.len() <= METADATA_PAIRS && pairs.values().all(Value::is_string)
        }
        Some(_) => false,
    };
    let message = "'metadata' must be an object of at most 16 strings";
    if fits { Ok(()) } else { Err(Problem::invalid("metadata", message)) }
}

fn logprobs(fields: &Fields) -> Result<Option<LogProbs>, Problem> {
    let on = match fields.logprobs {
        None => false,
        Some(LogProbsField::Switch(on)) => on,
        Some(LogProbsField::Count(_)) => {
            let message = "'logprobs' must be true or false; 'top_logprobs' is the number";
            return Err(Problem::invalid("logprobs", message));
        }
    };
    let most = i64::from(Limits::TOP_LOGPROBS);
    match (on, whole("top_logprobs", fields.top_logprobs, 0..=most)?) {
        (true, top) => Ok(Some(LogProbs { top: top.unwrap_or(0) as u8 })),
        (false, None) => Ok(None),
        (false, Some(_)) => {
            let message = "'top_logprobs' needs 'logprobs': true";
            Err(Problem::invalid("top_logprobs", message))
        }
    }
}

fn messages(messages: Option<Messages>) -> Result<Vec<ChatMessage>, Problem> {
    match messages {
        Some(Messages(messages)) if !messages.is_empty() => messages
            .into_iter()
            .enumerate()
            .map(|(at, message)| self::message(at, message))
            .collect(),
        Some(_) => Err(Problem::invalid("messages", "'messages' must hold at least one message")),
        None => Err(Problem::invalid("messages", "'messages' is required")),
    }
}

fn message(at: usize, message: Message) -> Result<ChatMessage, Problem> {
    let path = |field: &str| format!("messages[{at}].{field}");
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => {
            let message = "messages of tools and functions are not supported";
            return Err(Problem::unsupported(path("role"), message));
        }
        _ => {
            let message = "'role' must be system, developer, user or assistant";
            return Err(Problem::invalid(path("role"), message));
        }
    };
    refuse_unless_empty(&path("tool_calls"), message.tool_calls.as_ref())?;
    refuse_unless_empty(&path("annotations"), message.annotations.as_ref())?;
    for (field, value) in [
        // Chat templates have no place for a speaker's name; dropping it would change who spoke.
        ("name", &message.name),
        ("refusal", &message.refusal),
        ("audio", &message.audio),
        ("function_call", &message.function_call),
        ("tool_call_id", &message.tool_call_id),
    ] {
        refuse_unless(&path(field), value.as_ref(), &[])?;
    }
    let content = match message.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => text_of(at, parts)?,
        None => return Err(Problem::invalid(path("content"), "'content' is required")),
    };
    Ok(ChatMessage { role, content })
}

/// The text of a message given in parts, which are separate paragraphs of it.
fn text_of(at: usize, parts: Vec<Part>) -> Result<String, Problem> {
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let path = |field: &str| format!("messages[{at}].content[{index}].{field}");
        let foreign = [&part.image_url, &part.input_audio, &part.file, &part.refusal];
        if part.kind != "text" || foreign.iter().any(|value| value.is_some()) {
            let message = "only parts of the type \"text\" are supported";
            return Err(Problem::unsupported(path("type"), message));
        }
        match part.text {
            Some(text) => texts.push(text),
            None => return Err(Problem::invalid(path("text"), "'text' is required")),
        }
    }
    if texts.is_empty() {
        let message = "'content' must hold at least one part";
        return Err(Problem::invalid(format!("messages[{at}].content"), message));
    }
    Ok(texts.join("\n"))
}

#[cfg(test)]
#[path = "chat_tests.rs"]
mod tests;
