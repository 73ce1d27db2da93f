//! Which models there are, as clients of Ollama's API ask it.
//!
//! Owns the translation from the mesh's status; the shapes are the dialect's. A model of a provider
//! has a name here and nothing else that is known.

use hyper::{Response, StatusCode};
use selvedge_base::Code;
use selvedge_contract::embed::embeds;
use selvedge_contract::speech::hears;
use selvedge_dialect::ollama::{self, Card};

use super::body::{Answer, whole};
use super::errors::Problem;
use super::wire;

/// `GET /api/tags`: all models that the caller may ask.
pub(super) fn tags(
    status: &wire::Status,
    provided: &[String],
    may_ask: impl Fn(&str) -> bool,
) -> Response<Answer> {
    let mut cards = cards(status, provided);
    cards.retain(|card| may_ask(&card.name));
    whole(StatusCode::OK, "application/json", ollama::tags_body(&cards))
}

/// `POST /api/show`: one model by its name.
pub(super) fn show(
    status: &wire::Status,
    provided: &[String],
    name: &str,
) -> Result<Response<Answer>, Problem> {
    let found = cards(status, provided).into_iter().find(|card| card.name == name);
    let Some(card) = found else {
        let message = format!("model '{name}' not found; GET /api/tags lists them");
        let code = Code::ModelNotFound.as_str();
        return Err(Problem::new(StatusCode::NOT_FOUND, code, message).param("model"));
    };
    Ok(whole(StatusCode::OK, "application/json", ollama::show_body(&card)))
}

/// `GET /api/version`: clients look whether it answers at all.
pub(super) fn version() -> Response<Answer> {
    let version = serde_json::json!({ "version": env!("CARGO_PKG_VERSION") });
    super::body::json(StatusCode::OK, &version)
}

/// One card per name, in order.
fn cards(status: &wire::Status, provided: &[String]) -> Vec<Card> {
    let reachable = status.nodes.iter().filter(|node| node.is_reachable());
    let models = reachable.flat_map(|node| &node.models);
    let mut cards: Vec<Card> = models.filter(|model| model.state != "failed").map(card).collect();
    cards.extend(provided.iter().map(|name| Card {
        name: name.clone(),
        capabilities: vec!["completion"],
        ..Card::default()
    }));
    cards.sort_by(|a, b| a.name.cmp(&b.name));
    cards.dedup_by(|a, b| a.name == b.name);
    cards
}

fn card(model: &wire::Model) -> Card {
    // As Ollama rounds: billions with one digit, millions without.
    let parameter_size = match model.parameters {
        0..1_000_000_000 => format!("{}M", model.parameters / 1_000_000),
        more => format!("{}.{}B", more / 1_000_000_000, more / 100_000_000 % 10),
    };
    Card {
        name: model.name.clone(),
        modified: 0,
        bytes: model.bytes,
        digest: model.digest.clone(),
        family: model.architecture.clone(),
        parameter_size,
        quantization: model.quantization.clone(),
        context_length: model.context_length,
        capabilities: if embeds(&model.architecture) {
            vec!["embedding"]
        } else if hears(&model.architecture) {
            vec!["audio"]
        } else {
            vec!["completion", "tools"]
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_say_them() {
        let of =
            |parameters| card(&wire::Model { parameters, ..Default::default() }).parameter_size;
        assert_eq!((of(134_515_008).as_str(), of(8_030_261_248).as_str()), ("134M", "8.0B"));
    }
}
