//! What the configuration's fields are, as data: names, documentation, defaults and bounds.
//!
//! Owns turning [`RawConfig`]'s own definition into a list of fields, and the texts made from that
//! list: the commented default file, the JSON schema and the Markdown reference. Does not own the
//! checks that are more than bounds.

use serde_json::Value;

use super::raw::RawConfig;

/// One field of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) section: String,
    pub(crate) name: String,
    pub(crate) docs: String,
    pub(crate) default: toml::Value,
    pub(crate) minimum: Option<u64>,
    pub(crate) maximum: Option<u64>,
    /// Characters of a text, or items of a list.
    pub(crate) max_length: Option<u64>,
}

impl Field {
    /// `section.name`, as errors name it.
    pub(crate) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("SELVEDGE_{}_{}", self.section.to_uppercase(), self.name.to_uppercase())
    }

    /// The allowed values in words, when there is a bound.
    pub(crate) fn bounds(&self) -> Option<String> {
        match (self.minimum, self.maximum, self.max_length) {
            (minimum, Some(maximum), _) => {
                Some(format!("{} to {maximum}", minimum.unwrap_or_default()))
            }
            (_, None, Some(length)) if self.default.is_array() => {
                Some(format!("at most {length} entries"))
            }
            (_, None, Some(length)) => Some(format!("at most {length} characters")),
            (_, None, None) => None,
        }
    }
}

/// The JSON schema of the configuration file.
pub(crate) fn schema() -> Value {
    schemars::schema_for!(RawConfig).to_value()
}

/// The JSON schema, as text.
pub(crate) fn schema_json() -> String {
    format!("{:#}", schema())
}

/// Sections in order, each with its documentation and fields.
pub(crate) fn sections() -> Vec<(String, String, Vec<Field>)> {
    let schema = schema();
    let defaults = toml::Table::try_from(RawConfig::default()).unwrap_or_default();
    let resolve = |value: &Value| match value["$ref"].as_str() {
        Some(reference) => {
            let name = reference.rsplit('/').next().unwrap_or_default();
            schema["$defs"][name].clone()
        }
        None => value.clone(),
    };
    let mut sections = Vec::new();
    for (section, value) in schema["properties"].as_object().into_iter().flatten() {
        // A list of tables has no defaults; it is shown apart.
        if value["type"] == "array" {
            continue;
        }
        let definition = resolve(value);
        let mut fields = Vec::new();
        for (name, field) in definition["properties"].as_object().into_iter().flatten() {
            let default = defaults.get(section).and_then(|table| table.get(name));
            let Some(default) = default.cloned() else { continue };
            let length = field["maxLength"].as_u64().or_else(|| field["maxItems"].as_u64());
            fields.push(Field {
                section: section.clone(),
                name: name.clone(),
                docs: one_line(&field["description"]),
                default,
                minimum: field["minimum"].as_u64(),
                maximum: field["maximum"].as_u64(),
                max_length: length,
            });
        }
        sections.push((section.clone(), one_line(&value["description"]), fields));
    }
    sections
}

/// All fields, section by section.
pub(crate) fn fields() -> Vec<Field> {
    sections().into_iter().flat_map(|(_, _, fields)| fields).collect()
}

/// A configuration file with every default, each explained, ready to be edited.
pub(crate) fn commented_defaults() -> String {
    let mut text = String::from(
        "# Selvedge configuration: every field with its default. Keep what you change.\n\
         # Each field can also be set by the environment variable named beside it.\n",
    );
    for (section, docs, fields) in sections() {
        text.push_str(&format!("\n# {docs}\n[{section}]\n"));
        for field in fields {
            let bounds = field.bounds().map_or(String::new(), |bounds| format!("; {bounds}"));
            let note = format!("{} ({}{bounds})", field.docs, field.variable());
            for line in wrap(&note, 96) {
                text.push_str(&format!("# {line}\n"));
            }
            text.push_str(&format!("{} = {}\n", field.name, field.default));
        }
    }
    text.push('\n');
    for line in wrap(&data_docs(), 96) {
        text.push_str(&format!("# {line}\n"));
    }
    for line in DATA_EXAMPLE.lines() {
        text.push_str(&format!("# {line}\n").replace(" \n", "\n"));
    }
    text.push('\n');
    for line in wrap(&model_docs(), 96) {
        text.push_str(&format!("# {line}\n"));
    }
    for line in MODEL_EXAMPLE.lines() {
        text.push_str(&format!("# {line}\n"));
    }
    text
}

/// A model with several files; `config::tests` reads it.
pub(crate) const MODEL_EXAMPLE: &str = "\
[[model]]
name = \"assistant\"
variants = [
  \"assistant-q8_0\",
  \"/srv/models/assistant.Q4_K_M.gguf\",
  { source = \"hf:OWNER/REPO/assistant.Q4_0.gguf\", bytes = 900000000 },
]
min_tokens_per_s = 8
";

/// Sources, one of each kind; `config::tests` reads it.
pub(crate) const DATA_EXAMPLE: &str = "\
[[data]]
name = \"line3\"
kind = \"csv\"
path = \"/var/lib/line3/states.csv\"
label = \"state\"
values = [\"heat\", \"humidity\"]
classes = [\"ok\", \"worn\"]
scale = 100.0

[[data]]
name = \"line4\"
kind = \"parquet\"
path = \"/var/lib/line4/states.parquet\"
label = \"state\"
values = [\"heat\", \"humidity\"]
classes = [\"ok\", \"worn\"]

[[data]]
name = \"digits\"
kind = \"idx\"
images = \"/var/lib/digits/images-idx3-ubyte\"
labels = \"/var/lib/digits/labels-idx1-ubyte\"

[[data]]
name = \"welds\"
kind = \"images\"
path = \"/var/lib/welds\"
classes = [\"crack\", \"good\", \"pore\"]
resize = true

[[data]]
name = \"notes\"
kind = \"text\"
path = \"/var/lib/notes\"

[[data]]
name = \"line3\"
part = \"asked\"
kind = \"requests\"
model = \"wear\"
";

fn model_docs() -> String {
    one_line(&schema()["properties"]["model"]["description"])
}

fn data_docs() -> String {
    one_line(&schema()["properties"]["data"]["description"])
}

/// The reference as Markdown tables, for the documentation.
pub(crate) fn markdown() -> String {
    let mut text = String::from("# Configuration reference\n");
    for (section, docs, fields) in sections() {
        text.push_str(&format!("\n## [{section}]\n\n{docs}\n\n"));
        text.push_str("| field | default | allowed | what |\n|---|---|---|---|\n");
        for field in fields {
            let bounds = field.bounds().unwrap_or_default();
            text.push_str(&format!(
                "| `{}` | `{}` | {bounds} | {} `{}` |\n",
                field.name,
                field.default,
                field.docs,
                field.variable()
            ));
        }
    }
    text.push_str(&format!("\n## [[data]]\n\n{}\n\n```toml\n{DATA_EXAMPLE}```\n", data_docs()));
    let model = model_docs();
    text.push_str(&format!("\n## [[model]]\n\n{model}\n\n```toml\n{MODEL_EXAMPLE}```\n"));
    text
}

fn one_line(description: &Value) -> String {
    description.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
