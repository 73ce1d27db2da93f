//! How a field of a job file is written that somebody wrote in another form.
//!
//! Owns the examples. What is wrong is the reader's to say, in the words of its types, which help
//! nobody who does not know them.

use toml::{Table, Value};

const KRUM: &str = "rule = { multi-krum = { byzantine = 1, keep = 3 } }";
const TRIMMED: &str = "rule = { trimmed = { cut = 1 } }";
const HIDDEN: &str = "hidden = [{ dense = 8 }]";
const SHAPE: &str = "shape = { flat = 2 }, or of images \
                     shape = { image = { channels = 1, height = 28, width = 28 } }";

/// Of a file that cannot be read as a job: lines with examples for what is in a wrong form, each
/// after a line's end; nothing where there is none.
pub(super) fn of(text: &str) -> String {
    let Ok(file) = toml::from_str::<Table>(text) else { return String::new() };
    let field = |table: &str, name: &str| file.get(table).and_then(|table| table.get(name));
    let rule = match field("mode", "rule").and_then(Value::as_str) {
        Some("multi-krum") => Some(KRUM),
        Some("trimmed") => Some(TRIMMED),
        Some(_) | None => None,
    };
    let is_layers =
        |hidden: &Value| hidden.as_array().is_some_and(|layers| layers.iter().all(Value::is_table));
    let hidden = field("model", "hidden").is_some_and(|hidden| !is_layers(hidden));
    let shape = field("model", "shape").is_some_and(|shape| !shape.is_table());
    let examples = [rule, hidden.then_some(HIDDEN), shape.then_some(SHAPE)];
    examples.into_iter().flatten().map(|example| format!("\nwritten so: {example}")).collect()
}
