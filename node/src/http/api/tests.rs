//! The document says what the router does.

use std::collections::BTreeSet;

use super::*;

/// The methods of a described path, as the router writes them.
fn said(item: &Value) -> BTreeSet<String> {
    let keys = item.as_object().expect("an object").keys();
    keys.filter(|key| *key != "parameters").map(|key| key.to_uppercase()).collect()
}

#[test]
fn every_path_is_described_with_its_methods_and_nothing_else_is() {
    let document = document();
    let described = document["paths"].as_object().expect("paths");
    let paths = paths();
    assert_eq!(described.len(), paths.len());
    for (path, _, methods) in &paths {
        let known: BTreeSet<String> = methods.split(", ").map(str::to_owned).collect();
        assert_eq!(said(&described[path]), known, "{path}");
    }
    for one in OPERATIONS {
        let known = paths.iter().find(|(path, ..)| path == one.path);
        let (_, _, methods) = known.unwrap_or_else(|| panic!("no route to {}", one.path));
        assert!(methods.contains(one.method), "{} {}", one.method, one.path);
    }
}

#[test]
fn references_lead_somewhere_and_names_are_used_once() {
    fn walk(value: &Value, references: &mut BTreeSet<String>, ids: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                ids.extend(fields.get("operationId").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| walk(value, references, ids));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, references, ids)),
            _ => {}
        }
    }
    let document = document();
    let (mut references, mut ids) = (BTreeSet::new(), Vec::new());
    walk(&document, &mut references, &mut ids);
    assert!(references.len() > 30, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("inside of the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let unique: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
}

#[test]
fn whoever_asks_a_model_has_an_example() {
    let form = |one: &&Operation| matches!(one.takes, Takes::Form(_));
    // A file is no example to read.
    for one in OPERATIONS.iter().filter(|one| one.takes_caller() && !form(one)) {
        let example = examples::of(one.path).unwrap_or_else(|| panic!("none for {}", one.path));
        let mut made = SchemaGenerator::default();
        let Some(mut body) = body(&one.takes, &mut made) else {
            panic!("{} takes no body", one.path)
        };
        let mut schema = body["content"]["application/json"]["schema"].take();
        let named = schema["$ref"].as_str().and_then(|all| all.rsplit('/').next());
        if let Some(named) = named.map(str::to_owned) {
            schema = made.definitions()[&named].clone();
        }
        for name in example.as_object().expect("an object").keys() {
            assert!(schema["properties"][name].is_object(), "{}: {name}", one.path);
        }
    }
}

#[test]
fn refusals_are_in_the_shape_of_their_surface() {
    let document = document();
    for (path, shape) in [
        ("/v1/chat/completions", "Error"),
        ("/v1/messages", "AnthropicError"),
        ("/api/chat", "TextError"),
        ("/v2/models/{model}/infer", "TextError"),
    ] {
        let refused = &document["paths"][path]["post"]["responses"]["401"];
        let schema = &refused["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(*schema, format!("#/components/schemas/{shape}"), "{path}");
    }
}
