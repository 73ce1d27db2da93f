//! `GET /v1/models`: the union of all models that nodes within reach have.
//!
//! Owns the shape only. Each entry carries, besides what the OpenAI API defines, where the model
//! is and what it is, under `selvedge`.

use hyper::{Response, StatusCode};
use schemars::JsonSchema;
use selvedge_base::Code;
use serde::Serialize;

use super::body::{Answer, json};
use super::errors::Problem;
use super::wire;

/// All models that the caller may ask.
pub(super) fn list(
    status: &wire::Status,
    provided: &[String],
    may_ask: impl Fn(&str) -> bool,
) -> Response<Answer> {
    let mut data = entries(status);
    data.extend(provided.iter().map(|name| of_provider(name)));
    data.retain(|entry| may_ask(entry.id));
    json(StatusCode::OK, &List { object: "list", data })
}

/// One model by its name.
pub(super) fn one(
    status: &wire::Status,
    provided: &[String],
    name: &str,
) -> Result<Response<Answer>, Problem> {
    let of_providers = provided.iter().map(|name| of_provider(name));
    match entries(status).into_iter().chain(of_providers).find(|entry| entry.id == name) {
        Some(entry) => Ok(json(StatusCode::OK, &entry)),
        None => {
            let message = "no node within reach has this model; GET /v1/models lists them";
            let code = Code::ModelNotFound.as_str();
            Err(Problem::new(StatusCode::NOT_FOUND, code, message).param("model"))
        }
    }
}

/// The models of one answer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListedModelList")]
pub(super) struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

/// One model.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListedModel")]
pub(super) struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    /// Model files carry no date; the epoch says so.
    created: u64,
    owned_by: &'a str,
    /// Where it is and what it is; of a provider's model nothing is known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    selvedge: Option<Details<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListedModelDetails")]
struct Details<'a> {
    nodes: Vec<&'a str>,
    ready: bool,
    digest: &'a str,
    architecture: &'a str,
    quantization: &'a str,
    parameters: u64,
    context_length: u32,
    chat: bool,
}

/// One entry per name, in order. Where nodes have different files of one name, the first is shown.
fn entries(status: &wire::Status) -> Vec<Entry<'_>> {
    let mut all: Vec<Entry<'_>> = Vec::new();
    for node in status.nodes.iter().filter(|node| node.is_reachable()) {
        for model in node.models.iter().filter(|model| model.state != "failed") {
            let ready = model.state == "ready";
            match all.iter_mut().find(|entry| entry.id == model.name) {
                Some(Entry { selvedge: Some(details), .. }) => {
                    details.nodes.push(&node.name);
                    details.ready |= ready;
                }
                Some(_) => {}
                None => all.push(entry(model, &node.name, ready)),
            }
        }
    }
    all.sort_by_key(|entry| entry.id);
    all
}

fn entry<'a>(model: &'a wire::Model, node: &'a str, ready: bool) -> Entry<'a> {
    Entry {
        id: &model.name,
        object: "model",
        created: 0,
        owned_by: "selvedge",
        selvedge: Some(Details {
            nodes: vec![node],
            ready,
            digest: &model.digest,
            architecture: &model.architecture,
            quantization: &model.quantization,
            parameters: model.parameters,
            context_length: model.context_length,
            chat: model.chat,
        }),
    }
}

/// A provider's model, `PROVIDER/MODEL`.
fn of_provider(name: &str) -> Entry<'_> {
    let owned_by = name.split('/').next().unwrap_or(name);
    Entry { id: name, object: "model", created: 0, owned_by, selvedge: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: &str, models: &[(&str, &str)]) -> wire::Node {
        let model = |&(name, state): &(&str, &str)| wire::Model {
            name: name.to_owned(),
            state: state.to_owned(),
            ..wire::Model::default()
        };
        wire::Node {
            name: name.to_owned(),
            state: state.to_owned(),
            models: models.iter().map(model).collect(),
            ..wire::Node::default()
        }
    }

    #[test]
    fn the_list_is_the_union_of_what_can_answer() {
        let status = wire::Status {
            nodes: vec![
                node("a", "alive", &[("small", "cold"), ("broken", "failed")]),
                node("b", "alive", &[("small", "ready"), ("big", "loading")]),
                node("c", "dead", &[("gone", "ready")]),
                node("d", "frozen", &[("stuck", "ready")]),
            ],
            ..wire::Status::default()
        };
        let entries = entries(&status);
        let shown: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some((entry.id, entry.selvedge.as_ref()?)))
            .map(|(id, details)| (id, details.ready, details.nodes.clone()))
            .collect();
        assert_eq!(shown, [("big", false, vec!["b"]), ("small", true, vec!["a", "b"])]);
        let provided = ["cloud/large".to_owned()];
        assert!(one(&status, &provided, "small").is_ok());
        assert!(one(&status, &provided, "cloud/large").is_ok());
        let missing = one(&status, &provided, "gone").err().expect("not within reach");
        assert_eq!((missing.status.as_u16(), missing.code), (404, "model_not_found"));
    }
}
