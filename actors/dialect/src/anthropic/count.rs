//! Counting the tokens of a request without answering it.
//!
//! Owns `POST /v1/messages/count_tokens` in both roles.

use selvedge_base::Refusal;
use serde::Deserialize;

use super::fields::{body_schema, parse_any};
use super::render::render_at;
use crate::chat::ChatRequest;
use crate::decode::{body, invalid};
use crate::exchange::Outgoing;
use crate::json::Object;

#[derive(Deserialize)]
struct Counted {
    input_tokens: u64,
}

/// What a body of `POST /v1/messages/count_tokens` may hold, as JSON Schema.
pub fn count_schema() -> serde_json::Value {
    let mut schema = body_schema();
    if let Some(fields) = schema["properties"].as_object_mut() {
        fields.remove("max_tokens");
    }
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|field| field != "max_tokens");
    }
    schema
}

/// The canonical request whose tokens a body asks to count.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse_count(bytes: &[u8]) -> Result<ChatRequest, Refusal> {
    let request = parse_any(bytes)?;
    if request.max_tokens.is_some() {
        let message = "'max_tokens' is not a parameter of this endpoint";
        return Err(invalid("max_tokens", message));
    }
    Ok(request)
}

/// What to send to have the tokens of a chat counted.
///
/// # Errors
/// A refusal that names the field which the target cannot be told.
pub fn render_count(request: &ChatRequest) -> Result<Outgoing, Refusal> {
    // What only matters while answering is not part of this endpoint.
    let plain = ChatRequest {
        model: request.model.clone(),
        messages: request.messages.clone(),
        tools: request.tools.clone(),
        tool_choice: request.tool_choice.clone(),
        reasoning: request.reasoning,
        ..ChatRequest::default()
    };
    render_at("/v1/messages/count_tokens", &plain, |_| {})
}

/// The answer to a client that asked for a count.
pub fn count_body(tokens: u64) -> Vec<u8> {
    let mut out = Vec::new();
    Object::write(&mut out, |object| object.field("input_tokens", &tokens));
    out
}

/// The count in a provider's answer.
///
/// # Errors
/// When there is none.
pub fn read_count(bytes: &[u8]) -> Result<u64, Refusal> {
    body::<Counted>(bytes).map(|counted| counted.input_tokens)
}
