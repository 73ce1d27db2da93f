//! What a provider is asked for embeddings, and what they can cost.
//!
//! Owns the table from kinds of providers to their dialects' words for embeddings, and the cutting
//! of a request into as many parts as a provider takes. What the dialects say is
//! `selvedge-dialect`'s.

use std::sync::Arc;

use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use selvedge_core::catalogue::Model;
use selvedge_core::paid::{Priced, Size};
use selvedge_core::upstream::{ProviderKind, ProviderSpec};
use selvedge_dialect::embed::{EmbedInput, EmbedRequest, MAX_INPUTS, Read};
use selvedge_dialect::exchange::Outgoing;
use selvedge_dialect::{bedrock, cohere, gemini, ollama, openai};

use super::Open;
use super::prices::AROUND;
use super::speak::openai_target;

/// Requests to a provider for one of a client. They are made one after the other, some 50 ms each:
/// what takes longer than a few seconds is better asked in several requests.
const MAX_PARTS: usize = 64;

/// A request in a provider's words, in parts.
pub(crate) struct Spoken {
    pub(crate) parts: Vec<Part>,
    /// How the answers are read.
    pub(crate) read: Read,
}

/// One part.
pub(crate) struct Part {
    pub(crate) outgoing: Outgoing,
    /// Inputs in it.
    pub(crate) inputs: usize,
    /// Tokens it can take at most.
    pub(crate) tokens: u64,
}

/// Says a request to a provider.
///
/// # Errors
/// A refusal that names what the provider cannot be told, or that it has no embeddings.
pub(crate) fn say(spec: &ProviderSpec, request: &EmbedRequest) -> Result<Spoken, Refusal> {
    let (most, read): (usize, Read) = match spec.kind {
        ProviderKind::OpenAi | ProviderKind::Azure => (MAX_INPUTS, openai::read_embed),
        ProviderKind::Ollama => (MAX_INPUTS, ollama::read_embed),
        ProviderKind::Gemini => (gemini::EMBED_INPUTS, gemini::read_embed),
        ProviderKind::Cohere => (cohere::EMBED_INPUTS, cohere::read_embed),
        ProviderKind::Bedrock => (bedrock::embed_inputs(&request.model), bedrock::read_embed),
        ProviderKind::Anthropic => return Err(none_there(spec)),
    };
    if request.inputs.len() > most * MAX_PARTS {
        return Err(too_many(spec, most * MAX_PARTS));
    }
    let parts = request.inputs.chunks(most).map(|inputs| {
        let outgoing = match inputs.len() == request.inputs.len() {
            true => rendered(spec, request),
            false => rendered(spec, &request.part(inputs)),
        }?;
        Ok(Part { outgoing, inputs: inputs.len(), tokens: at_most(inputs) })
    });
    Ok(Spoken { parts: parts.collect::<Result<_, Refusal>>()?, read })
}

fn rendered(spec: &ProviderSpec, request: &EmbedRequest) -> Result<Outgoing, Refusal> {
    match spec.kind {
        ProviderKind::OpenAi | ProviderKind::Azure => {
            openai::render_embed(request, openai_target(spec))
        }
        ProviderKind::Gemini => gemini::render_embed(request),
        ProviderKind::Ollama => ollama::render_embed(request),
        ProviderKind::Cohere => cohere::render_embed(request),
        ProviderKind::Bedrock => bedrock::render_embed(request),
        ProviderKind::Anthropic => Err(none_there(spec)),
    }
}

/// What a request for a model that is known so far can cost there.
pub(crate) fn priced(open: &Open, model: Option<Arc<Model>>, request: &EmbedRequest) -> Priced {
    let size = Size { prompt_tokens: at_most(&request.inputs), ..Size::default() };
    Priced::new(open.spec(), model, size)
}

/// Tokens of inputs at most. No tokenizer makes more tokens than a text has bytes.
fn at_most(inputs: &[EmbedInput]) -> u64 {
    let tokens = |input: &EmbedInput| match input {
        EmbedInput::Text(text) => AROUND + text.len() as u64,
        EmbedInput::Tokens(tokens) => AROUND + tokens.len() as u64,
    };
    inputs.iter().map(tokens).sum()
}

fn none_there(spec: &ProviderSpec) -> Refusal {
    let kind = spec.kind.as_str();
    cannot(format!("provider '{}' is of kind {kind}, whose API has no embeddings", spec.name))
        .param("model")
}

fn too_many(spec: &ProviderSpec, most: usize) -> Refusal {
    let provider = &spec.name;
    cannot(format!("provider '{provider}' is asked for at most {most} inputs of one request"))
        .param("input")
}

fn cannot(message: String) -> Refusal {
    let (stage, blame) = (Stage::Validate, Blame::Client);
    Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use selvedge_core::upstream::RawProvider;

    use super::*;

    fn said(kind: ProviderKind, model: &str, inputs: usize) -> Result<Spoken, Refusal> {
        let raw = RawProvider {
            keys: vec!["k".to_owned()],
            base_url: "https://one.example".to_owned(),
            region: "eu-central-1".to_owned(),
            ..RawProvider::named("cloud", kind)
        };
        let request = EmbedRequest {
            model: model.to_owned(),
            inputs: vec![EmbedInput::Text("ab".to_owned()); inputs],
            ..EmbedRequest::default()
        };
        say(&raw.checked().unwrap(), &request)
    }

    #[test]
    fn a_provider_is_asked_in_parts_it_takes() {
        for (kind, model, inputs, parts) in [
            (ProviderKind::OpenAi, "m", 2_048, 1),
            (ProviderKind::Gemini, "m", 101, 2),
            (ProviderKind::Cohere, "m", 200, 3),
            (ProviderKind::Bedrock, "amazon.titan-embed-text-v2:0", 3, 3),
        ] {
            let spoken = said(kind, model, inputs).unwrap();
            assert_eq!(spoken.parts.len(), parts, "{kind:?}");
            assert_eq!(spoken.parts.iter().map(|part| part.inputs).sum::<usize>(), inputs);
            let tokens: u64 = spoken.parts.iter().map(|part| part.tokens).sum();
            assert_eq!(tokens, (AROUND + 2) * inputs as u64);
        }
    }

    #[test]
    fn what_a_provider_lacks_is_refused_so_that_another_may_be_asked() {
        for (kind, model, inputs, param) in [
            (ProviderKind::Anthropic, "m", 1, "model"),
            (ProviderKind::Bedrock, "amazon.titan-embed-text-v2:0", 65, "input"),
            (ProviderKind::Bedrock, "m", 1, "model"),
        ] {
            let refusal = said(kind, model, inputs).err().unwrap();
            assert_eq!(refusal.param.as_deref(), Some(param), "{refusal}");
            assert_eq!(refusal.retry, Retry::Elsewhere);
        }
    }
}
