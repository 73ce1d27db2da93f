//! JSON as it was written, and a writer that needs no document tree.
//!
//! Owns [`Json`], a value kept as text, and [`Object`] and [`Array`], which append to a buffer.
//! Values that only pass through (schemas, fields of one dialect) keep their text, so neither the
//! order of keys nor the digits of numbers change, which would also spoil a provider's prompt
//! cache.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A JSON value as it was written. Equal when the texts are equal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// The value `text` is, if it is one.
    ///
    /// # Errors
    /// When the text is not one JSON value.
    pub fn parse(text: impl Into<String>) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text.into()).map(Self)
    }

    /// The value of anything that serializes.
    ///
    /// # Errors
    /// When it has no form in JSON, as a map without string keys.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// Its text.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// Its text without white space between tokens, for comparing short values.
    pub(crate) fn compact(&self) -> String {
        let mut quoted = false;
        let mut escaped = false;
        let keep = |char: &char| {
            if quoted {
                quoted = *char != '"' || escaped;
                escaped = *char == '\\' && !escaped;
            } else {
                quoted = *char == '"';
            }
            quoted || !char.is_ascii_whitespace()
        };
        self.text().chars().filter(keep).collect()
    }

    /// Whether it is an object whose `type` is one of `kinds`.
    pub(crate) fn has_type(&self, kinds: &[&str]) -> bool {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            kind: String,
        }
        let typed = serde_json::from_str::<Typed>(self.text());
        typed.is_ok_and(|typed| kinds.contains(&typed.kind.as_str()))
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl From<&RawValue> for Json {
    fn from(raw: &RawValue) -> Self {
        Self(raw.to_owned())
    }
}

/// Appends a JSON object to a buffer, field by field.
pub struct Object<'b> {
    out: &'b mut Vec<u8>,
    any: bool,
}

impl<'b> Object<'b> {
    /// Writes one object: what `fields` adds between its braces.
    pub fn write(out: &'b mut Vec<u8>, fields: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        let mut object = Object { out, any: false };
        fields(&mut object);
        out.push(b'}');
    }

    fn key(&mut self, name: &str) {
        if self.any {
            self.out.push(b',');
        }
        self.any = true;
        value(self.out, name);
        self.out.push(b':');
    }

    /// A field of anything that serializes.
    pub fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.key(name);
        self::value(self.out, value);
    }

    /// A field that is left out when absent.
    pub fn maybe<T: Serialize>(&mut self, name: &str, value: Option<&T>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// A field whose value is JSON text already; it is written in one line.
    pub fn raw(&mut self, name: &str, json: &str) {
        self.key(name);
        one_line(self.out, json);
    }

    /// A field that is an object.
    pub fn object(&mut self, name: &str, fields: impl FnOnce(&mut Object<'_>)) {
        self.key(name);
        Object::write(self.out, fields);
    }

    /// A field that is an array.
    pub fn array(&mut self, name: &str, items: impl FnOnce(&mut Array<'_>)) {
        self.key(name);
        Array::write(self.out, items);
    }
}

/// Appends a JSON array to a buffer, item by item.
pub struct Array<'b> {
    out: &'b mut Vec<u8>,
    any: bool,
}

impl<'b> Array<'b> {
    /// Writes one array: what `items` adds between its brackets.
    pub fn write(out: &'b mut Vec<u8>, items: impl FnOnce(&mut Array<'_>)) {
        out.push(b'[');
        let mut array = Array { out, any: false };
        items(&mut array);
        out.push(b']');
    }

    fn comma(&mut self) {
        if self.any {
            self.out.push(b',');
        }
        self.any = true;
    }

    /// An item of anything that serializes.
    pub fn item<T: Serialize + ?Sized>(&mut self, item: &T) {
        self.comma();
        value(self.out, item);
    }

    /// An item that is JSON text already; it is written in one line.
    pub fn raw(&mut self, json: &str) {
        self.comma();
        one_line(self.out, json);
    }

    /// An item that is an object.
    pub fn object(&mut self, fields: impl FnOnce(&mut Object<'_>)) {
        self.comma();
        Object::write(self.out, fields);
    }
}

/// Appends JSON text. Streams are framed by lines, and a model may break those of its arguments; a
/// line break stands between tokens only, where a blank means the same.
fn one_line(out: &mut Vec<u8>, json: &str) {
    let from = out.len();
    out.extend_from_slice(json.as_bytes());
    if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_some() {
        let breaks = out[from..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r'));
        breaks.for_each(|byte| *byte = b' ');
    }
}

/// Appends anything that serializes; what has no form in JSON becomes `null`.
pub fn value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let before = out.len();
    // Writing to memory does not fail, and only maps without string keys have no form.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}
