//! What bodies may hold, as JSON Schema (2020-12).
//!
//! Owns the schemas of shapes that decode by hand. Those of bodies come from their own definitions,
//! so that a field cannot be in one and not in the other; ranges and rules between fields are
//! judged while a body is read, and are not said here.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::decode::{List, MAX_LIST, Pairs, TextOr};
use crate::json::Json;
use crate::number::Number;

/// The schema of a body, with nothing outside of it.
pub(crate) fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    // The names of private types say nothing.
    schema.remove("title");
    schema.to_value()
}

/// Implements a schema that is never referred to by its name.
macro_rules! inline {
    ($type:ty $(, $of:ident)?; $generator:ident => $schema:expr) => {
        impl$(<$of: JsonSchema>)? JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                std::any::type_name::<Self>().into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

inline!(Json; _generator => json_schema!(true));
inline!(Number; _generator => json_schema!({ "type": "number" }));
inline!(List<T>, T; generator => json_schema!({
    "type": "array",
    "items": generator.subschema_for::<T>(),
    "maxItems": MAX_LIST,
}));
inline!(TextOr<T>, T; generator => json_schema!({
    "anyOf": [{ "type": "string" }, generator.subschema_for::<List<T>>()],
}));
inline!(Pairs<T>, T; generator => json_schema!({
    "type": "object",
    "additionalProperties": generator.subschema_for::<T>(),
    "maxProperties": MAX_LIST,
}));

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{anthropic, inference, ollama, openai, responses};

    #[test]
    fn bodies_say_their_fields_and_no_others() {
        let all: [(Value, &[&str]); 11] = [
            (openai::body_schema(), &["model", "messages"]),
            (openai::embed_schema(), &["model", "input"]),
            (anthropic::body_schema(), &["model", "max_tokens", "messages"]),
            (anthropic::count_schema(), &["model", "messages"]),
            (ollama::chat_schema(), &["model", "messages"]),
            (ollama::generate_schema(), &["model"]),
            (ollama::embed_schema(), &["model", "input"]),
            (ollama::embeddings_schema(), &["model", "prompt"]),
            (ollama::show_schema(), &[]),
            (responses::body_schema(), &["model", "input"]),
            (inference::infer_schema(), &["inputs"]),
        ];
        for (schema, required) in all {
            assert_eq!(schema["type"], "object", "{schema}");
            assert_eq!(schema["additionalProperties"], false, "{schema}");
            assert!(schema["$defs"].is_null(), "{schema}");
            let said = schema["required"].as_array().cloned().unwrap_or_default();
            assert_eq!(json!(said), json!(required), "{schema}");
            let text = schema.to_string();
            assert!(!text.contains("$ref"), "{text}");
        }
    }

    #[test]
    fn a_schema_tells_shapes_that_decode_by_hand() {
        let schema = openai::body_schema();
        assert_eq!(schema["properties"]["temperature"]["type"], json!(["number", "null"]));
        let content = &schema["properties"]["messages"]["items"]["properties"]["content"];
        assert!(content.to_string().contains("image_url"), "{content}");
        assert!(anthropic::count_schema()["properties"]["max_tokens"].is_null());
    }
}
