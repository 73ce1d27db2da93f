//! `POST /v1/completions`: from the body to a plan.
//!
//! Owns the parameters only text completions have.

use selvedge_contract::{Input, Limits, LogProbs};
use selvedge_dialect::chat::{ChatRequest, Message, Role};

use super::errors::Problem;
use super::fields::{Fields, LogProbsField, Prompt, TEXT};
use super::params::{Plan, Shape, whole};

/// Tokens of an answer when the caller does not say, as the OpenAI API defines this endpoint.
const DEFAULT_MAX_TOKENS: i64 = 16;

/// What a text completion's body may hold, as JSON Schema.
pub(super) fn body_schema() -> serde_json::Value {
    Fields::schema(TEXT)
}

/// What a text completion's body asks for.
pub(super) fn plan(body: &[u8]) -> Result<Plan, Problem> {
    let mut fields = Fields::decode(body, TEXT)?;
    refuse_unsupported(&fields)?;
    let logprobs = logprobs(&fields)?;
    let inputs = inputs(fields.prompt.take())?;
    fields.max_tokens.get_or_insert(DEFAULT_MAX_TOKENS);
    Plan::new(Shape::Text, &mut fields, inputs, logprobs)
}

/// What routing goes by: the texts as if a user had said them, and the longest answer.
pub(super) fn as_chat(plan: &Plan) -> ChatRequest {
    let texts = plan.inputs.iter().filter_map(|input| match input {
        Input::Text(text) => Some(Message::text(Role::User, text.as_str())),
        Input::Tokens(_) | Input::Chat(_) | Input::Tooled(_) => None,
    });
    ChatRequest {
        model: plan.model.clone(),
        messages: texts.collect(),
        max_tokens: plan.max_tokens,
        ..ChatRequest::default()
    }
}

fn refuse_unsupported(fields: &Fields) -> Result<(), Problem> {
    if fields.echo == Some(true) {
        let message = "'echo' may not be true: the prompt is not repeated";
        return Err(Problem::unsupported("echo", message));
    }
    if fields.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(Problem::unsupported("suffix", "'suffix' is not supported"));
    }
    // As many candidates as answers leave nothing to select.
    if fields.best_of.is_some_and(|best_of| best_of != fields.n.unwrap_or(1)) {
        let message = "'best_of' is not supported; leave it out or equal to 'n'";
        return Err(Problem::unsupported("best_of", message));
    }
    Ok(())
}

fn logprobs(fields: &Fields) -> Result<Option<LogProbs>, Problem> {
    let most = i64::from(Limits::TOP_LOGPROBS);
    match fields.logprobs {
        None => Ok(None),
        Some(LogProbsField::Count(top)) => {
            let top = whole("logprobs", Some(top), 0..=most)?;
            Ok(top.map(|top| LogProbs { top: top as u8 }))
        }
        Some(LogProbsField::Switch(_)) => {
            let message = format!("'logprobs' must be a whole number here, 0 to {most}");
            Err(Problem::invalid("logprobs", message))
        }
    }
}

fn inputs(prompt: Option<Prompt>) -> Result<Vec<Input>, Problem> {
    let inputs: Vec<Input> = match prompt {
        Some(Prompt::Texts(texts)) => texts.into_iter().map(Input::Text).collect(),
        Some(Prompt::Tokens(lists)) => lists.into_iter().map(Input::Tokens).collect(),
        None => return Err(Problem::invalid("prompt", "'prompt' is required")),
    };
    let is_empty = |input: &Input| match input {
        Input::Text(text) => text.is_empty(),
        Input::Tokens(tokens) => tokens.is_empty(),
        Input::Chat(messages) => messages.is_empty(),
        Input::Tooled(chat) => chat.messages.is_empty(),
    };
    if inputs.iter().any(is_empty) {
        return Err(Problem::invalid("prompt", "'prompt' must not be empty"));
    }
    Ok(inputs)
}

#[cfg(test)]
#[path = "completions_tests.rs"]
mod tests;
