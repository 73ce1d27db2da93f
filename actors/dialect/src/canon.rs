//! A body's canonical form: equal for requests that say the same in another order or layout.
//!
//! Owns what counts as the same: the order of an object's names, white space and escapes do not
//! matter, all else does. Below what says the form of an answer or of a call the order does matter:
//! whoever holds an answer to a schema writes its fields in the schema's order. No field is left
//! out, so that what is new in a dialect tells requests apart on the day it appears. What is done
//! with the form is the caller's business.

use std::fmt;

use selvedge_base::plant::{self, Plant};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::number::Double;

/// From here on a number with a fraction or too many digits may stand for several texts (IEEE 754,
/// binary64 has 53 bits).
const LARGEST_EXACT: Double = 9_007_199_254_740_992.0;

/// Where a dialect says how words are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knobs {
    /// Beside the messages: OpenAI, Anthropic.
    Top,
    /// In an object `options`: Ollama.
    Options,
}

/// A request's canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canon {
    /// Equal where requests say the same, different where they do not: every value stands with its
    /// kind and its length.
    pub form: Vec<u8>,
    /// Whether words are drawn by chance, so that an equal request may get another answer: the
    /// temperature is not 0 (where nothing is said it is not), and no seed is given.
    pub sampled: bool,
}

/// The canonical form of a body, in one pass.
///
/// # Errors
/// When it is not JSON, or when readers may differ about what it says: a name that comes twice, a
/// number beyond what every reader can hold.
pub fn canon(body: &[u8], knobs: Knobs) -> Result<Canon, serde_json::Error> {
    let mut writer = Writer { form: Vec::with_capacity(body.len() + 64), path: Path::Top };
    let mut seen = Seen::default();
    let mut reader = serde_json::Deserializer::from_slice(body);
    Value { writer: &mut writer, seen: &mut seen, knobs }.deserialize(&mut reader)?;
    reader.end()?;
    let sampled = !seen.cold && !seen.seeded;
    Ok(Canon { form: writer.form, sampled })
}

/// What was seen of how words are chosen.
#[derive(Default)]
struct Seen {
    cold: bool,
    seeded: bool,
}

/// Where a value stands, as far as it matters.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    /// The body itself.
    Top,
    /// The object `options` in it.
    Options,
    Temperature,
    Seed,
    /// What says the form of the answer, and all below.
    Form,
    Elsewhere,
}

/// Where bodies say the form of an answer: OpenAI's chats, its responses, Anthropic's messages of
/// two versions, Ollama, servers that speak like OpenAI; and where all of them say what may be
/// called.
const FORMS: [&str; 8] = [
    "response_format",
    "text",
    "output_config",
    "output_format",
    "format",
    "structured_outputs",
    "guided_json",
    "tools",
];

impl Path {
    fn enter(self, name: &str, knobs: Knobs) -> Self {
        match (self, knobs, name) {
            (Self::Form, ..) => Self::Form,
            (Self::Top, _, name) if FORMS.contains(&name) => Self::Form,
            (Self::Top, Knobs::Options, "options") => Self::Options,
            (Self::Top, Knobs::Top, "temperature")
            | (Self::Options, Knobs::Options, "temperature") => Self::Temperature,
            (Self::Top, Knobs::Top, "seed") | (Self::Options, Knobs::Options, "seed") => Self::Seed,
            _ => Self::Elsewhere,
        }
    }
}

struct Writer {
    form: Vec<u8>,
    path: Path,
}

impl Writer {
    fn number(&mut self, kind: u8, bits: u64) {
        self.form.push(kind);
        self.form.extend_from_slice(&bits.to_be_bytes());
    }

    fn name(&mut self, name: &str) {
        self.number(b's', name.len() as u64);
        self.form.extend_from_slice(name.as_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(b's', text.len() as u64);
        if !plant::is_on(Plant::CanonForgetsText) {
            self.form.extend_from_slice(text.as_bytes());
        }
    }
}

/// Writes one value's form.
struct Value<'a> {
    writer: &'a mut Writer,
    seen: &'a mut Seen,
    knobs: Knobs,
}

impl Value<'_> {
    fn again(&mut self) -> Value<'_> {
        Value { writer: &mut *self.writer, seen: &mut *self.seen, knobs: self.knobs }
    }

    fn counted(&mut self, kind: u8, bits: u64, is_zero: bool) {
        match self.writer.path {
            Path::Temperature => self.seen.cold = is_zero,
            Path::Seed => self.seen.seeded = true,
            Path::Top | Path::Options | Path::Form | Path::Elsewhere => {}
        }
        self.writer.number(kind, bits);
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.writer.form.push(b'n');
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.writer.form.push(if value { b't' } else { b'f' });
        Ok(())
    }

    fn visit_u64<E>(mut self, value: u64) -> Result<(), E> {
        self.counted(b'u', value, value == 0);
        Ok(())
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<(), E> {
        self.counted(b'i', value.cast_unsigned(), value == 0);
        Ok(())
    }

    fn visit_f64<E: Error>(mut self, value: Double) -> Result<(), E> {
        if value.abs() >= LARGEST_EXACT {
            return Err(E::custom("a number beyond 2^53 cannot be told from its neighbours"));
        }
        self.counted(b'd', value.to_bits(), value == 0.0);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.writer.text(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<(), A::Error> {
        self.writer.form.push(b'[');
        let below = if self.writer.path == Path::Form { Path::Form } else { Path::Elsewhere };
        self.writer.path = below;
        while values.next_element_seed(self.again())?.is_some() {
            self.writer.path = below;
        }
        self.writer.form.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.writer.form.push(b'{');
        let here = self.writer.path;
        // Where each entry begins, with its name.
        let mut starts: Vec<usize> = Vec::new();
        loop {
            starts.push(self.writer.form.len());
            let name = Name { writer: &mut *self.writer, knobs: self.knobs };
            let Some(path) = entries.next_key_seed(name)? else { break };
            self.writer.path = path;
            entries.next_value_seed(self.again())?;
            self.writer.path = here;
        }
        self.writer.path = here;
        let keeps = here == Path::Form;
        sort(&mut self.writer.form, &starts, keeps).map_err(A::Error::custom)?;
        self.writer.form.push(b'}');
        Ok(())
    }
}

/// Writes a name where it stands in the form, and tells where its value stands.
struct Name<'a> {
    writer: &'a mut Writer,
    knobs: Knobs,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Path;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Path, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Path;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Path, E> {
        self.writer.name(name);
        Ok(self.writer.path.enter(name, self.knobs))
    }
}

/// The name that an entry begins with.
fn name_of(entry: &[u8]) -> &[u8] {
    let Some((len, rest)) = entry.get(1..).and_then(|rest| rest.split_first_chunk()) else {
        return &[];
    };
    let len = usize::try_from(u64::from_be_bytes(*len)).unwrap_or(usize::MAX);
    rest.get(..len).unwrap_or_default()
}

/// Puts the entries of an object, which lie at the end of `form`, in the order of their names,
/// unless it `keeps` the order that they have. `starts`: where each of them begins, and where the
/// last one ends.
fn sort(form: &mut [u8], starts: &[usize], keeps: bool) -> Result<(), String> {
    let name = |at: &usize| name_of(&form[*at..]);
    let Some((end, entries)) = starts.split_last() else { return Ok(()) };
    let in_order = entries.is_sorted_by(|one, other| name(one) < name(other));
    if in_order || plant::is_on(Plant::CanonKeepsOrder) {
        return Ok(());
    }
    let ends = starts.iter().skip(1);
    let mut spans: Vec<_> = entries.iter().zip(ends).map(|(at, end)| *at..*end).collect();
    spans.sort_unstable_by_key(|span| name(&span.start));
    if let Some(twice) = spans.windows(2).find(|two| name(&two[0].start) == name(&two[1].start)) {
        let twice = String::from_utf8_lossy(name(&twice[0].start));
        return Err(format!("the name '{twice}' comes twice"));
    }
    if keeps {
        return Ok(());
    }
    let mut sorted = Vec::with_capacity(end - entries[0]);
    for span in spans {
        sorted.extend_from_slice(&form[span]);
    }
    form[entries[0]..].copy_from_slice(&sorted);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn form(text: &str) -> Vec<u8> {
        canon(text.as_bytes(), Knobs::Top).unwrap().form
    }

    #[test]
    fn order_layout_and_escapes_do_not_matter() {
        let one = r#"{"a":1,"b":{"c":"é\n","d":[null,true]}}"#;
        let other = "{ \"b\" : {\"d\":[null , true], \"c\":\"\\u00e9\\u000a\"},\r\n\t\"a\":1 }";
        assert_eq!(form(one), form(other));
    }

    #[test]
    fn the_order_of_a_schema_matters() {
        let bodies = |fields: &str| {
            let schema = format!(r#"{{"anyOf":[{{"properties":{{{fields}}}}}]}}"#);
            [
                format!(r#"{{"response_format":{{"json_schema":{{"schema":{schema}}}}}}}"#),
                format!(r#"{{"text":{{"format":{{"schema":{schema}}}}}}}"#),
                format!(r#"{{"output_config":{{"format":{{"schema":{schema}}}}}}}"#),
                format!(r#"{{"output_format":{{"schema":{schema}}}}}"#),
                format!(r#"{{"format":{schema}}}"#),
                format!(r#"{{"structured_outputs":{{"json":{schema}}}}}"#),
                format!(r#"{{"guided_json":{schema}}}"#),
                format!(r#"{{"tools":[{{"function":{{"parameters":{schema}}}}}]}}"#),
            ]
        };
        let (one, other) = (bodies(r#""a":{},"b":{}"#), bodies(r#""b":{},"a":{}"#));
        for (one, other) in one.iter().zip(&other) {
            assert_ne!(form(one), form(other), "{one}");
            assert_eq!(form(one), form(&one.replace(':', " : ")));
        }
        for twice in bodies(r#""b":{},"a":{},"b":{}"#) {
            assert!(canon(twice.as_bytes(), Knobs::Top).is_err(), "{twice}");
        }
        // Around it the order is nobody's.
        let [one, other] =
            [r#"{"a":1,"format":{"z":1,"b":2}}"#, r#"{"format":{"z":1,"b":2},"a":1}"#];
        assert_eq!(form(one), form(other));
    }

    #[test]
    fn what_is_said_matters() {
        let texts = [
            r#"{"a":1}"#,
            r#"{"a":-1}"#,
            r#"{"a":1.5}"#,
            r#"{"a":"1"}"#,
            r#"{"a":true}"#,
            r#"{"a":false}"#,
            r#"{"a":null}"#,
            r#"{"a":[1]}"#,
            r#"{"a":[1,1]}"#,
            r#"{"a":[[1],1]}"#,
            r#"{"a":{}}"#,
            r#"{"a":[]}"#,
            r#"{"b":1}"#,
            r#"{"a":1,"b":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":"bs"}"#,
            r#"{"ab":"s"}"#,
            r#"{"a":["x","y"]}"#,
            r#"{"a":["y","x"]}"#,
            "{}",
            "[]",
        ];
        let forms: std::collections::BTreeSet<_> = texts.iter().map(|text| form(text)).collect();
        assert_eq!(forms.len(), texts.len());
    }

    #[test]
    fn what_readers_may_differ_about_has_no_form() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"x":{"b":1,"a":1,"b":1}}"#,
            r#"{"seed":123456789012345678901}"#,
            r#"{"a":1e300}"#,
            r#"{"a":1"#,
            "{} {}",
            "",
        ] {
            assert!(canon(text.as_bytes(), Knobs::Top).is_err(), "{text}");
        }
    }

    #[test]
    fn chance_is_seen_where_the_dialect_says_it() {
        let sampled = |text: &str, knobs| canon(text.as_bytes(), knobs).unwrap().sampled;
        for (text, top, options) in [
            (r#"{"messages":[]}"#, true, true),
            (r#"{"temperature":0}"#, false, true),
            (r#"{"temperature":0.0}"#, false, true),
            (r#"{"temperature":-0.0}"#, false, true),
            (r#"{"temperature":0.1}"#, true, true),
            (r#"{"temperature":null}"#, true, true),
            (r#"{"temperature":1,"seed":7}"#, false, true),
            (r#"{"temperature":1,"seed":null}"#, true, true),
            (r#"{"options":{"temperature":0}}"#, true, false),
            (r#"{"options":{"seed":0}}"#, true, false),
            (r#"{"messages":[{"temperature":0,"seed":1}]}"#, true, true),
            (r#"{"x":{"options":{"temperature":0}}}"#, true, true),
            (r#"{"x":{"y":1},"temperature":0}"#, false, true),
        ] {
            assert_eq!(sampled(text, Knobs::Top), top, "{text}");
            assert_eq!(sampled(text, Knobs::Options), options, "{text}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c\"\\\\é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// The same value with the names of every object in another order, spread out.
    fn mixed(value: &Value) -> String {
        match value {
            Value::Object(map) => {
                let entries: Vec<String> = map
                    .iter()
                    .rev()
                    .map(|(k, v)| format!("{} :\n{}", json!(k), mixed(v)))
                    .collect();
                format!("{{ {} }}", entries.join(" , "))
            }
            Value::Array(values) => {
                let values: Vec<String> = values.iter().map(mixed).collect();
                format!("[ {} ]", values.join(" ,\t"))
            }
            other => other.to_string(),
        }
    }

    /// The form of a document without forms in it, made the long way: whole, names sorted first.
    fn written(value: &Value, form: &mut Vec<u8>) {
        fn counted(form: &mut Vec<u8>, kind: u8, bits: u64) {
            form.push(kind);
            form.extend(bits.to_be_bytes());
        }
        fn text(form: &mut Vec<u8>, text: &str) {
            counted(form, b's', text.len() as u64);
            form.extend(text.as_bytes());
        }
        match value {
            Value::Null => form.push(b'n'),
            Value::Bool(value) => form.push(if *value { b't' } else { b'f' }),
            Value::Number(number) => match number.as_u64() {
                Some(number) => counted(form, b'u', number),
                None => counted(form, b'i', number.as_i64().unwrap().cast_unsigned()),
            },
            Value::String(value) => text(form, value),
            Value::Array(values) => {
                form.push(b'[');
                for value in values {
                    written(value, form);
                }
                form.push(b']');
            }
            Value::Object(map) => {
                form.push(b'{');
                let entries: std::collections::BTreeMap<_, _> = map.iter().collect();
                for (name, value) in entries {
                    text(form, name);
                    written(value, form);
                }
                form.push(b'}');
            }
        }
    }

    proptest! {
        /// Reference: the form written from the whole document. Answers are kept under it, also by
        /// nodes of other versions.
        #[test]
        fn the_form_is_the_same_as_ever(value in values()) {
            let mut long = Vec::new();
            written(&value, &mut long);
            prop_assert_eq!(form(&value.to_string()), long.clone());
            prop_assert_eq!(form(&mixed(&value)), long);
        }

        /// Reference: equality of documents.
        #[test]
        fn forms_are_equal_where_documents_are(one in values(), other in values()) {
            prop_assert_eq!(form(&one.to_string()), form(&mixed(&one)));
            let equal = form(&one.to_string()) == form(&other.to_string());
            prop_assert_eq!(equal, one == other);
        }
    }
}
