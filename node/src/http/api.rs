//! The description of every HTTP surface, as OpenAPI 3.1, at `/openapi.json`.
//!
//! Owns turning the router's own paths and the definitions of bodies into one document: what is
//! said of a path is in `operations`, what answers look like in `answers`, a good body of each in
//! `examples`. Decides nothing about a request. gRPC has a description of its own and is not in
//! here.

mod answers;
mod examples;
mod operations;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::route::{Surface, paths};
use operations::{Gives, OPERATIONS, Operation, Takes};

/// The document, made when it is first asked for.
static DESCRIPTION: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());

/// The document's text.
pub(super) fn description() -> Bytes {
    DESCRIPTION.clone()
}

/// The document.
fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    answers::define_errors(&mut generator);
    let mut all = Map::new();
    for (path, surface, methods) in paths() {
        all.insert(path.clone(), item(&path, surface, methods, &mut generator));
    }
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Selvedge",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": INTRODUCTION,
        },
        "servers": [{ "url": "/" }],
        "paths": all,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": schemes(),
            "headers": headers(),
            "parameters": parameters(),
        },
    })
}

/// What holds for all paths.
const INTRODUCTION: &str = "Every path answers OPTIONS with the methods it knows, and any other \
    method with 405 and the same list in 'allow'; a path that is not here is answered with 404. \
    Requests of a web page of another origin, and on a loopback address those for another host, \
    are refused with 403. Bodies are bounded in size and time. The Open Inference Protocol is also \
    spoken over gRPC on the same port.";

fn schemes() -> Value {
    json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key of the mesh; a loopback address needs none.",
        },
        "x-api-key": {
            "type": "apiKey",
            "in": "header",
            "name": "x-api-key",
            "description": "The same, for clients that cannot set Authorization.",
        },
        "admin": {
            "type": "http",
            "scheme": "bearer",
            "description": "The token in run/admin.token of the node's home.",
        },
    })
}

fn headers() -> Value {
    let text = |about: &str| json!({ "description": about, "schema": { "type": "string" } });
    let number = json!({ "type": "integer", "minimum": 0 });
    let count = |about: &str| json!({ "description": about, "schema": number });
    json!({
        "x-request-id": text("Names the request; `selvedge explain` tells about it."),
        "x-selvedge-node": text("The node that answered."),
        "x-selvedge-cache": json!({
            "description": "What the cache of answers did; absent where it is off.",
            "schema": { "enum": ["hit", "miss", "bypass"] },
        }),
        "x-selvedge-cache-reason": text("Why it did that, in one word."),
        "age": count("The age of an answer that was kept, in seconds."),
        "x-ratelimit-limit-requests": count("The tightest budget of requests."),
        "x-ratelimit-remaining-requests": count("What is left of it."),
        "x-ratelimit-reset-requests": text("Time to its next window: 20ms, 1s, 6m0s."),
        "x-ratelimit-limit-tokens": count("The tightest budget of tokens."),
        "x-ratelimit-remaining-tokens": count("What is left of it."),
        "x-ratelimit-reset-tokens": text("Time to its next window."),
        "retry-after": count("Seconds after which another try can help."),
        "retry-after-ms": count("The same in milliseconds."),
        "x-should-retry": text("`false`: the same request will be refused again."),
        "allow": text("The methods of this path."),
    })
}

/// Words of `x-selvedge-cache`, without the two that exclude each other.
const CACHE_WORDS: &str = "^((no-cache|no-store|sampled)(, ?(no-cache|no-store|sampled))*\
    |(only-if-cached|no-store|sampled)(, ?(only-if-cached|no-store|sampled))*|)$";

fn parameters() -> Value {
    json!({
        "label": {
            "name": "x-selvedge-label",
            "in": "header",
            "description": "How far the request's data may go.",
            "schema": { "enum": ["node", "site", "mesh", "anywhere"] },
        },
        "cache": {
            "name": "x-selvedge-cache",
            "in": "header",
            "description": "What the cache of answers may do: no-cache, no-store, sampled, \
                only-if-cached, separated by commas.",
            "schema": { "type": "string", "pattern": CACHE_WORDS },
        },
        "timeout": {
            "name": "x-selvedge-timeout-ms",
            "in": "header",
            "description": "How long the caller waits.",
            "schema": { "type": "integer", "minimum": 1, "maximum": super::guard::LONGEST_MS },
        },
    })
}

/// What is said of one path.
fn item(path: &str, surface: Surface, methods: &str, generator: &mut SchemaGenerator) -> Value {
    let mut item = Map::new();
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let about = |name: &str| {
        let schema = json!({ "type": "string", "minLength": 1 });
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    };
    let names: Vec<Value> = names.map(about).collect();
    if !names.is_empty() {
        item.insert("parameters".to_owned(), Value::Array(names));
    }
    let known = |method: &str| {
        let found = |one: &&Operation| one.path == path && one.method == method;
        OPERATIONS.iter().find(found)
    };
    for method in methods.split(", ") {
        let said = match (method, known(if method == "HEAD" { "GET" } else { method })) {
            ("OPTIONS", _) => Some(options(path, surface)),
            (_, Some(one)) => Some(operation(one, method, surface, generator)),
            (_, None) => None,
        };
        item.extend(said.map(|said| (method.to_lowercase(), said)));
    }
    Value::Object(item)
}

fn options(path: &str, surface: Surface) -> Value {
    json!({
        "operationId": id("OPTIONS", path),
        "summary": "The methods of this path",
        "security": [],
        "responses": {
            "204": {
                "description": "They are in 'allow'.",
                "headers": named(&["x-request-id", "allow"]),
            },
            "400": refused(400, surface),
            "403": refused(403, surface),
        },
    })
}

/// A name that no other operation has.
fn id(method: &str, path: &str) -> String {
    let words = path.split(|char: char| !char.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    format!("{}_{}", method.to_lowercase(), words.join("_"))
}

fn operation(
    one: &Operation,
    method: &str,
    surface: Surface,
    generator: &mut SchemaGenerator,
) -> Value {
    let mut responses = Map::new();
    for status in one.refusals(surface) {
        responses.insert(status.to_string(), refused(status, surface));
    }
    let mut names = vec!["x-request-id"];
    if one.is_generation() {
        names.push("x-selvedge-node");
    }
    if one.is_kept() {
        names.extend(["x-selvedge-cache", "x-selvedge-cache-reason", "age"]);
    }
    if one.takes_key(surface) {
        names.extend(RATE_LIMITS);
    }
    let mut good = json!({ "description": "It was done.", "headers": named(&names) });
    let content = content(&one.gives, generator);
    if method != "HEAD" {
        good["content"] = content.clone();
    }
    responses.insert(one.status().to_string(), good);
    if one.says_when_it_stops() {
        let mut stopping = json!({ "description": "The node is stopping." });
        if method != "HEAD" {
            stopping["content"] = content;
        }
        responses.insert("503".to_owned(), stopping);
    }
    if method == "HEAD" {
        let objects = responses.values_mut().filter_map(Value::as_object_mut);
        objects.for_each(|response| drop(response.remove("content")));
    }
    let mut said = json!({
        "operationId": id(method, one.path),
        "summary": one.about,
        "tags": [surface.as_str()],
        "security": security(one, surface),
        "responses": responses,
    });
    if one.takes_caller() {
        let mut names = vec!["label", "timeout"];
        names.extend(one.is_kept().then_some("cache"));
        let reference = |name| json!({ "$ref": format!("#/components/parameters/{name}") });
        said["parameters"] = names.into_iter().map(reference).collect();
    }
    if let Some(mut body) = body(&one.takes, generator) {
        if let Some(example) = examples::of(one.path) {
            body["content"]["application/json"]["example"] = example;
        }
        said["requestBody"] = body;
    }
    said
}

fn security(one: &Operation, surface: Surface) -> Value {
    match surface {
        Surface::Admin => json!([{ "admin": [] }]),
        // On a loopback address no key is needed.
        _ if one.takes_key(surface) => json!([{ "bearer": [] }, { "x-api-key": [] }, {}]),
        _ => json!([]),
    }
}

fn body(takes: &Takes, generator: &mut SchemaGenerator) -> Option<Value> {
    let json = |required: bool, schema: Value| {
        Some(json!({
            "required": required,
            "content": { "application/json": { "schema": schema } },
        }))
    };
    match takes {
        Takes::Nothing => None,
        Takes::Empty => json(false, json!({ "type": "object", "maxProperties": 0 })),
        Takes::Optional(shape) => json(false, shape(generator)),
        Takes::Body(shape) => json(true, shape(generator)),
        Takes::Form(shape) => Some(json!({
            "required": true,
            "content": { "multipart/form-data": { "schema": shape(generator) } },
        })),
        Takes::Tensors(shape) => {
            let mut said = json(true, shape(generator))?;
            // JSON of the length that a header tells, then bytes.
            said["content"]["application/octet-stream"] = json!({});
            Some(said)
        }
    }
}

fn content(gives: &Gives, generator: &mut SchemaGenerator) -> Value {
    // What events and lines hold is defined by the APIs they belong to.
    let parts = |kind: &str| (kind.to_owned(), json!({}));
    let (shape, streamed) = match gives {
        Gives::Json(shape) | Gives::Accepted(shape) => (shape, None),
        Gives::Tensors(shape) => (shape, Some("application/octet-stream")),
        Gives::OrEvents(shape) => (shape, Some("text/event-stream")),
        Gives::OrLines(shape) => (shape, Some("application/x-ndjson")),
        Gives::OrText(shape) => {
            let text = json!({ "schema": { "type": "string" } });
            return json!({
                "application/json": { "schema": shape(generator) },
                "text/plain": text,
                "text/vtt": text,
            });
        }
        Gives::Text(kind) => return json!({ *kind: { "schema": { "type": "string" } } }),
    };
    let mut content = Map::new();
    content.insert("application/json".to_owned(), json!({ "schema": shape(generator) }));
    content.extend(streamed.map(parts));
    Value::Object(content)
}

/// The headers of budgets.
const RATE_LIMITS: [&str; 6] = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];

fn named(names: &[&str]) -> Value {
    let reference =
        |name: &&str| (name.to_string(), json!({ "$ref": format!("#/components/headers/{name}") }));
    json!(names.iter().map(reference).collect::<BTreeMap<String, Value>>())
}

/// A refusal in the shape of its surface.
fn refused(status: u16, surface: Surface) -> Value {
    let about = match status {
        400 => "The request is not right; the message says what is wrong with it.",
        401 => "The key or token is missing, wrong or revoked.",
        403 => "The key does not open this, or the request comes from another site.",
        404 => "There is nothing of this name.",
        408 => "The body did not arrive in time, or the caller's own deadline passed.",
        413 => "The body is larger than the limit.",
        415 => "The body is not declared as what this path takes.",
        429 => "A budget or share is used up.",
        500 => "A fault of the node.",
        502 => "A peer or a provider failed.",
        503 => "Nothing can serve this now; another try may help.",
        _ => "No answer came in time.",
    };
    let shape = match surface {
        Surface::Messages => "AnthropicError",
        Surface::Ollama | Surface::Inference => "TextError",
        _ => "Error",
    };
    let mut names = vec!["x-request-id"];
    if matches!(status, 408 | 429 | 500..) {
        names.extend(["retry-after", "retry-after-ms", "x-should-retry"]);
    }
    let schema = json!({ "$ref": format!("#/components/schemas/{shape}") });
    json!({
        "description": about,
        "headers": named(&names),
        "content": { "application/json": { "schema": schema } },
    })
}
