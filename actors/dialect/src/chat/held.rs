//! What an answer must be, said in other words than a format's: a grammar, a regular expression,
//! one of some texts.
//!
//! Owns the fields that servers which speak like OpenAI's have for it, and what they mean to a
//! model of the mesh: vLLM's `structured_outputs` and the `guided_*` that were before it,
//! llama.cpp's `grammar`. Whether a grammar can be read is the engine's to judge. Only one dialect
//! has these fields, so that a request keeps them as its extensions: another dialect refuses them
//! by name.

use schemars::JsonSchema;
use selvedge_base::Refusal;
use selvedge_contract::{Constraint, Limits};
use serde::Deserialize;

use super::request::{ChatRequest, Extension};
use crate::decode::{self, List, invalid};
use crate::exchange::Dialect;
use crate::json::Json;

/// The fields.
pub const HELD: [&str; 6] = [
    "structured_outputs",
    "grammar",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
];

/// The schema of whatever is a JSON object.
pub(super) const ANY_OBJECT: &str = r#"{"type":"object"}"#;

/// What an answer is held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The field that says so.
    pub field: String,
    /// What it says, as [`Constraint`] reads it.
    pub text: String,
}

/// `structured_outputs`, of which one is given.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Given {
    /// A JSON Schema, as an object or as text.
    json: Option<Json>,
    /// Any JSON object.
    json_object: Option<bool>,
    /// A regular expression that the whole answer matches.
    #[schemars(with = "Option<String>")]
    regex: Option<Json>,
    /// Texts, one of which is the answer.
    #[schemars(with = "Option<List<String>>")]
    choice: Option<Json>,
    /// A grammar in GBNF, whose rule `root` is the answer.
    #[schemars(with = "Option<String>")]
    grammar: Option<Json>,
}

/// Whether a field of a request says what an answer must be.
pub(crate) fn is_held(field: &Extension) -> bool {
    field.dialect == Dialect::OpenAi && HELD.contains(&field.name.as_str())
}

impl ChatRequest {
    /// The field that says what the answer must be beyond its format, if there is one.
    pub fn held_by(&self) -> Option<&str> {
        self.extensions.iter().find(|field| is_held(field)).map(|field| field.name.as_str())
    }
}

/// What fields mean to a model of the mesh; those that are none of [`HELD`] are skipped.
///
/// # Errors
/// A refusal that names the field whose value is wrong, or the second one of two.
pub fn held<'f>(
    fields: impl IntoIterator<Item = (&'f str, &'f Json)>,
) -> Result<Option<Held>, Refusal> {
    let mut all: Vec<Held> = Vec::new();
    for (name, value) in fields {
        match name {
            "grammar" | "guided_grammar" => all.extend(grammar(name, value)?),
            "guided_json" => all.push(schema(name, value)?),
            "guided_regex" => all.push(regex(name, value)?),
            "guided_choice" => all.push(choice(name, value)?),
            "structured_outputs" => all.extend(structured(name, value)?),
            _ => {}
        }
    }
    if let [one, other, ..] = all.as_slice() {
        return Err(both(&one.field, &other.field));
    }
    Ok(all.pop())
}

/// The refusal for two fields of which each says what an answer must be.
pub fn both(one: &str, other: &str) -> Refusal {
    let message =
        format!("'{one}' and '{other}' both say what an answer must be; give one of them");
    invalid(other, message)
}

fn structured(name: &str, value: &Json) -> Result<Vec<Held>, Refusal> {
    let given: Given = decode::inside(name, value)?;
    let path = |field: &str| format!("{name}.{field}");
    let mut all = Vec::new();
    if let Some(value) = &given.json {
        all.push(schema(&path("json"), value)?);
    }
    if given.json_object == Some(true) {
        all.push(Held { field: path("json_object"), text: ANY_OBJECT.to_owned() });
    }
    if let Some(value) = &given.regex {
        all.push(regex(&path("regex"), value)?);
    }
    if let Some(value) = &given.choice {
        all.push(choice(&path("choice"), value)?);
    }
    if let Some(value) = &given.grammar {
        all.extend(grammar(&path("grammar"), value)?);
    }
    if all.is_empty() && given.json_object.is_none() && given.grammar.is_none() {
        let message =
            format!("'{name}' must hold one of json, json_object, regex, choice, grammar");
        return Err(invalid(name, message));
    }
    Ok(all)
}

fn regex(field: &str, value: &Json) -> Result<Held, Refusal> {
    fits(field, Constraint::Regex(&text(field, value)?))
}

/// Clients of llama.cpp send an empty one where there is none.
fn grammar(field: &str, value: &Json) -> Result<Option<Held>, Refusal> {
    let text = text(field, value)?;
    match text.is_empty() {
        true => Ok(None),
        false => fits(field, Constraint::Grammar(&text)).map(Some),
    }
}

fn choice(field: &str, value: &Json) -> Result<Held, Refusal> {
    let wrong = || invalid(field, format!("'{field}' must be an array of strings, at least one"));
    let List(texts) = serde_json::from_str::<List<String>>(value.text()).map_err(|_| wrong())?;
    if texts.is_empty() {
        return Err(wrong());
    }
    let texts = Json::of(&texts).map_err(|_| wrong())?;
    fits(field, Constraint::Choice(texts.text()))
}

fn schema(field: &str, value: &Json) -> Result<Held, Refusal> {
    let wrong = || invalid(field, format!("'{field}' must be a JSON Schema, which is an object"));
    let text = match value.text().starts_with('"') {
        true => serde_json::from_str::<Json>(&text(field, value)?).map_err(|_| wrong())?,
        false => value.clone(),
    };
    match text.text().starts_with('{') {
        true => fits(field, Constraint::Schema(text.text())),
        false => Err(wrong()),
    }
}

fn text(field: &str, value: &Json) -> Result<String, Refusal> {
    let wrong = |_| invalid(field, format!("'{field}' must be a string"));
    serde_json::from_str(value.text()).map_err(wrong)
}

fn fits(field: &str, constraint: Constraint<'_>) -> Result<Held, Refusal> {
    let (bytes, most) = (constraint.body().len(), Limits::SCHEMA_BYTES);
    if bytes > most {
        return Err(invalid(
            field,
            format!("'{field}' may have at most {most} bytes, not {bytes}"),
        ));
    }
    Ok(Held { field: field.to_owned(), text: constraint.to_text() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(fields: &Value) -> Result<Option<Held>, Refusal> {
        let fields = fields.as_object().unwrap();
        let fields: Vec<(String, Json)> = fields
            .iter()
            .map(|(name, value)| (name.clone(), Json::parse(value.to_string()).unwrap()))
            .collect();
        held(fields.iter().map(|(name, value)| (name.as_str(), value)))
    }

    #[test]
    fn the_words_of_several_servers_mean_the_same() {
        let grammar = "root ::= \"a\"\n";
        let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
        for (fields, field, wanted) in [
            (json!({ "grammar": grammar }), "grammar", Constraint::Grammar(grammar)),
            (json!({ "guided_grammar": grammar }), "guided_grammar", Constraint::Grammar(grammar)),
            (
                json!({"structured_outputs": {"grammar": grammar, "regex": null}}),
                "structured_outputs.grammar",
                Constraint::Grammar(grammar),
            ),
            (json!({"guided_regex": "a+"}), "guided_regex", Constraint::Regex("a+")),
            (
                json!({"structured_outputs": {"regex": "a+"}}),
                "structured_outputs.regex",
                Constraint::Regex("a+"),
            ),
            (
                json!({"guided_choice": ["a", "\u{e9}"]}),
                "guided_choice",
                Constraint::Choice("[\"a\",\"\u{e9}\"]"),
            ),
            (
                json!({"structured_outputs": {"choice": ["a"]}}),
                "structured_outputs.choice",
                Constraint::Choice("[\"a\"]"),
            ),
            (
                json!({ "guided_json": schema }),
                "guided_json",
                Constraint::Schema(&schema.to_string()),
            ),
            (
                json!({"structured_outputs": {"json": schema.to_string()}}),
                "structured_outputs.json",
                Constraint::Schema(&schema.to_string()),
            ),
            (
                json!({"structured_outputs": {"json_object": true}}),
                "structured_outputs.json_object",
                Constraint::Schema(ANY_OBJECT),
            ),
        ] {
            let held = read(&fields).expect("understood").expect("something");
            assert_eq!((held.field.as_str(), Constraint::of(&held.text)), (field, wanted));
        }
        for nothing in [
            json!({}),
            json!({"grammar": ""}),
            json!({"structured_outputs": {"json_object": false}}),
            json!({"response_format": {"type": "json_object"}}),
        ] {
            assert_eq!(read(&nothing), Ok(None), "{nothing}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = "x".repeat(Limits::SCHEMA_BYTES + 1);
        for (fields, param) in [
            (json!({"grammar": 1}), "grammar"),
            (json!({ "grammar": long }), "grammar"),
            (json!({"guided_regex": ["a"]}), "guided_regex"),
            (json!({"guided_choice": "a"}), "guided_choice"),
            (json!({"guided_choice": []}), "guided_choice"),
            (json!({"guided_choice": [1]}), "guided_choice"),
            (json!({"guided_json": "no JSON"}), "guided_json"),
            (json!({"guided_json": []}), "guided_json"),
            (json!({"guided_json": "[]"}), "guided_json"),
            (json!({"structured_outputs": {}}), "structured_outputs"),
            (json!({"structured_outputs": "a"}), "structured_outputs"),
            (json!({"structured_outputs": {"regex": 1}}), "structured_outputs.regex"),
            (json!({"structured_outputs": {"json": 1}}), "structured_outputs.json"),
            (
                json!({"structured_outputs": {"structural_tag": "a"}}),
                "structured_outputs.structural_tag",
            ),
            // Two at once.
            (json!({"grammar": "a", "guided_regex": "a"}), "guided_regex"),
            (
                json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}),
                "structured_outputs.choice",
            ),
        ] {
            let refusal = read(&fields).expect_err("must be refused");
            assert_eq!(refusal.param.as_deref(), Some(param), "{fields} {refusal}");
            assert!(refusal.message.contains(param), "{fields} {refusal}");
        }
    }
}
