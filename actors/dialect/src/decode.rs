//! Decoding bodies into typed fields, with errors that name the field at fault.
//!
//! Owns how a decoder's complaint becomes a refusal, the small shapes that several dialects share,
//! and the refusals for values out of range. What values mean is judged by each dialect.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use selvedge_base::{Code, Refusal, Stage};
use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::error::Category;

use crate::json::Json;
use crate::number::Number;
use crate::objects::{self, Objects};

/// Characters of a decoder's complaint that are repeated to the client: enough to recognise it.
const QUOTE_CHARS: usize = 240;
/// Elements of any list in a body: far above any client's history of messages or set of tools, far
/// below what would hold a thread for long.
pub(crate) const MAX_LIST: usize = 16_384;
/// Bytes of a model's name: far above any in use, a provider's resource name included.
pub(crate) const MODEL_BYTES: usize = 512;

/// Decodes a client's body.
pub(crate) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|first| *first != b'{') {
        return Err(refusal("the body must be a JSON object".to_owned()));
    }
    objects::from_slice(bytes).map_err(|error| blame::<T>(bytes, &error))
}

/// Decodes a value inside of a body, at `path`.
pub(crate) fn inside<T: DeserializeOwned>(path: &str, value: &Json) -> Result<T, Refusal> {
    let bytes = value.text().as_bytes();
    if bytes.first() != Some(&b'{') {
        return Err(invalid(path, format!("'{path}' must be an object")));
    }
    objects::from_slice(bytes).map_err(|error| {
        let mut refusal = blame::<T>(bytes, &error);
        if let Some(field) = refusal.param.take() {
            let whole = format!("{path}.{field}");
            refusal.message = refusal.message.replacen(&field, &whole, 1);
            refusal.param = Some(whole);
        } else {
            refusal.param = Some(path.to_owned());
        }
        refusal
    })
}

/// The refusal for a body that did not decode. Decodes it again to learn where.
fn blame<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Refusal {
    match error.classify() {
        Category::Data => {}
        Category::Syntax | Category::Eof | Category::Io => {
            return refusal(format!("the body is not valid JSON: {}", quote(error)));
        }
    }
    let mut decoder = serde_json::Deserializer::from_slice(bytes);
    let path = match serde_path_to_error::deserialize::<_, T>(Objects(&mut decoder)) {
        Ok(_) => String::new(),
        Err(error) => error.path().to_string(),
    };
    let path = if path == "." { String::new() } else { path };
    let why = error.to_string();
    if let Some(name) = why.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next())
    {
        // The path may end with the name; it has the path's own dots and any length.
        let named =
            path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let field = match path.as_str() {
            "" => name.to_owned(),
            path if named => path.to_owned(),
            path => format!("{path}.{name}"),
        };
        let field: String = field.chars().take(QUOTE_CHARS).collect();
        return invalid(&field, format!("'{field}' is not a parameter of this endpoint"));
    }
    if path.is_empty() {
        return refusal(format!("the body must be a JSON object: {}", quote(error)));
    }
    let path: String = path.chars().take(QUOTE_CHARS).collect();
    invalid(&path, format!("'{path}' is not as it should be: {}", quote(error)))
}

fn quote(error: &serde_json::Error) -> String {
    let mut why = error.to_string();
    // The decoder quotes what it met, which may be most of the body.
    if why.chars().nth(QUOTE_CHARS).is_some() {
        why = why.chars().take(QUOTE_CHARS).collect();
        why.push_str(&format!("… at line {} column {}", error.line(), error.column()));
    }
    why
}

fn refusal(message: String) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, message)
}

/// A field whose value is wrong.
pub(crate) fn invalid(field: &str, message: impl Into<String>) -> Refusal {
    refusal(message.into()).param(field)
}

/// A field that is required and absent.
pub(crate) fn required(field: &str) -> Refusal {
    invalid(field, format!("'{field}' is required"))
}

/// A field that is not honoured here.
pub(crate) fn unsupported(field: &str, message: impl Into<String>) -> Refusal {
    Refusal::client(Stage::Validate, Code::Unsupported, message).param(field)
}

/// A number in its range, or a refusal that names both.
pub(crate) fn number(
    field: &str,
    value: Option<Number>,
    range: RangeInclusive<i32>,
) -> Result<Option<Number>, Refusal> {
    let (from, to) = range.into_inner();
    match value {
        Some(value) if !value.is_within(from, to) => {
            Err(invalid(field, format!("'{field}' must be {from}.0 to {to}.0, not {value}")))
        }
        value => Ok(value),
    }
}

/// A whole number in its range, or a refusal that names both.
pub(crate) fn whole(
    field: &str,
    value: Option<i64>,
    range: RangeInclusive<i64>,
) -> Result<Option<u32>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    let (from, to) = (*range.start(), *range.end());
    match u32::try_from(value) {
        Ok(small) if range.contains(&value) => Ok(Some(small)),
        _ => Err(invalid(field, format!("'{field}' must be {from} to {to}, not {value}"))),
    }
}

/// The model's name.
pub(crate) fn model(model: Option<String>) -> Result<String, Refusal> {
    match model {
        Some(model) if !model.is_empty() && model.len() <= MODEL_BYTES => Ok(model),
        Some(_) => {
            let message = format!("'model' must have 1 to {MODEL_BYTES} bytes");
            Err(invalid("model", message))
        }
        None => Err(invalid("model", "'model' is required; GET /v1/models lists them")),
    }
}

/// A JSON object, such as a schema.
pub(crate) fn object(field: &str, value: Json) -> Result<Json, Refusal> {
    match value.text().starts_with('{') {
        true => Ok(value),
        false => Err(invalid(field, format!("'{field}' must be a JSON object"))),
    }
}

/// A list of at most [`MAX_LIST`] elements.
#[derive(Debug)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        decoder.deserialize_seq(ListVisitor(PhantomData)).map(Self)
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(element) = seq.next_element()? {
            if all.len() == MAX_LIST {
                return Err(A::Error::custom(format_args!("more than {MAX_LIST} elements")));
            }
            all.push(element);
        }
        Ok(all)
    }
}

/// A string, or a list of something: text or parts, one stop text or several.
#[derive(Debug)]
pub(crate) enum TextOr<T> {
    Text(String),
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        struct Shapes<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Shapes<T> {
            type Value = TextOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text.to_owned()))
            }
            fn visit_string<E: Error>(self, text: String) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<TextOr<T>, A::Error> {
                ListVisitor(PhantomData).visit_seq(seq).map(TextOr::List)
            }
        }
        decoder.deserialize_any(Shapes(PhantomData))
    }
}

impl TextOr<String> {
    /// One text or several, as a list.
    pub(crate) fn into_list(self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text],
            Self::List(texts) => texts,
        }
    }
}

/// The pairs of an object in their order; a name that comes twice is an error.
#[derive(Debug)]
pub(crate) struct Pairs<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        struct Shape<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Shape<T> {
            type Value = Vec<(String, T)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs: Vec<(String, T)> = Vec::new();
                let mut names = std::collections::BTreeSet::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if pairs.len() == MAX_LIST {
                        return Err(A::Error::custom(format_args!("more than {MAX_LIST} pairs")));
                    }
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom("a name comes twice"));
                    }
                    pairs.push((name, value));
                }
                Ok(pairs)
            }
        }
        decoder.deserialize_map(Shape(PhantomData)).map(Self)
    }
}
