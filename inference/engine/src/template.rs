//! Chat templates: a model's own Jinja text turned into a prompt.
//!
//! Owns the sandbox: a template is part of an untrusted file, so it runs with fuel, a bounded
//! output and no access to anything but the messages. It sees no clock: `strftime_now` is
//! undefined (templates that know it test for it), so that every node renders the same prompt.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, State, UndefinedBehavior, Value, context};
use selvedge_base::{Code, Refusal, Stage};
use selvedge_contract::{ChatMessage, Tooled};

use crate::error::{EngineError, elsewhere};
use crate::texts::{Begins, Texts};
use crate::tools;

/// Characters of what a template raises that a refusal repeats: a sentence for people has fewer,
/// and a template may raise all that somebody wrote.
const RAISED_CHARS: usize = 500;

/// The longest published templates have about 20 KiB.
const MAX_SOURCE_BYTES: usize = 128 << 10;
/// Instructions plus one unit per 64 bytes of data: the published templates spend fewer than 100
/// per message, and 4,096 messages are allowed. No text is longer than 64 MiB by that.
const FUEL: u64 = 1_000_000;
/// Bytes of one tag outside of its string literals: the longest published ones have some 200. Each
/// may be an operator that nests in the one before, and the parser's stack is not told to stop.
const MAX_TAG_BYTES: usize = 768;
/// Spaces of one level of JSON: published templates use four.
const MAX_INDENT: u64 = 16;
/// Bytes that one replacement may make, or that may stand between what is joined: as much as a
/// message may have.
const MAX_REPLACED_BYTES: usize = 8 << 20;
/// The name under which the template is kept; error messages show it.
const NAME: &str = "chat_template";
/// Stands between the halves of control text that a person wrote; from a private-use plane, so that
/// texts hardly ever hold it (one that does gets another).
const MARKS: std::ops::RangeInclusive<char> = '\u{10ff00}'..='\u{10fffd}';

/// A compiled chat template. Public so that what a model's file may hold can be tried on it alone.
pub struct Template {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

impl Template {
    /// Compiles a template's text; `bos` and `eos` are the texts of the model's first and last
    /// token.
    ///
    /// # Errors
    /// [`EngineError`] when it is too long or no template.
    pub fn compile(source: &str, bos: &str, eos: &str) -> Result<Self, EngineError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(EngineError::unsupported(format!(
                "chat template of {} bytes (limit {MAX_SOURCE_BYTES})",
                source.len()
            )));
        }
        check_tags(source)?;
        let mut environment = Environment::new();
        // What published templates are written for.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| fault_of_syntax(&error))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(method);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |message: String| -> Result<String, _> {
            let said: String = message.chars().take(RAISED_CHARS).collect();
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, said))
        });
        let added = environment.add_template_owned(NAME, source.to_owned());
        added.map_err(|error| fault_of_syntax(&error))?;
        Ok(Self { environment, source: source.to_owned(), bos: bos.into(), eos: eos.into() })
    }

    /// The prompt for `messages`, cut where a person wrote the text of one of `control`: the
    /// pieces are tokenized apart, so that such text stays text and steers nothing.
    ///
    /// # Errors
    /// A refusal when the template raises one, fails or takes too long.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        control: &[String],
    ) -> Result<Vec<String>, Refusal> {
        let mark = self.mark(|mark| messages.iter().any(|m| m.content.contains(mark)))?;
        let control = Control::new(control);
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                let content = control.cut(&message.content, mark);
                context! { role => message.role.as_str(), content }
            })
            .collect();
        self.run(messages, None, mark)
    }

    /// The same for a chat with functions: `tools`, `tool_calls` and messages of tools as published
    /// templates know them. What stands in their JSON is cut too, names included.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_tooled(&self, chat: &Tooled, control: &[String]) -> Result<Vec<String>, Refusal> {
        let said = chat.messages.iter().enumerate();
        let messages = said.map(|(at, message)| tools::message(message, chat.turn(at))).collect();
        let messages = serde_json::Value::Array(messages);
        let declared = tools::declared(&chat.tools);
        let told = [messages.to_string(), declared.to_string()];
        let mark = self.mark(|mark| told.iter().any(|told| told.contains(mark)))?;
        let control = Control::new(control);
        let cut = |value| Value::from(Serde(control.cut_all(value, mark)));
        let messages = cut(messages).try_iter().map_err(|error| fault(&error))?.collect();
        let tools = (!chat.tools.is_empty()).then(|| cut(declared));
        self.run(messages, tools, mark)
    }

    /// A character that is in none of the texts.
    fn mark(&self, is_used: impl Fn(char) -> bool) -> Result<char, Refusal> {
        let mark = MARKS.clone().find(|&mark| !self.source.contains(mark) && !is_used(mark));
        mark.ok_or_else(|| {
            let message = "the messages use every private-use character of plane 16";
            Refusal::client(Stage::Validate, Code::InvalidRequest, message).param("messages")
        })
    }

    fn run(
        &self,
        messages: Vec<Value>,
        tools: Option<Value>,
        mark: char,
    ) -> Result<Vec<String>, Refusal> {
        let template = self.environment.get_template(NAME).map_err(|error| fault(&error))?;
        let rendered = template
            .render(context! {
                ..tools.map_or_else(|| context! {}, |tools| context! { tools }),
                ..context! {
                    messages,
                    add_generation_prompt => true,
                    bos_token => self.bos.as_str(),
                    eos_token => self.eos.as_str(),
                }
            })
            .map_err(|error| fault(&error))?;
        Ok(rendered.split(mark).map(str::to_owned).collect())
    }
}

/// `text`, cut where a person wrote control text, to be tokenized piece by piece.
pub(crate) fn apart(text: &str, control: &[String]) -> Result<Vec<String>, Refusal> {
    let Some(mark) = MARKS.clone().find(|&mark| !text.contains(mark)) else {
        let message = "the text uses every private-use character of plane 16";
        return Err(Refusal::client(Stage::Validate, Code::InvalidRequest, message));
    };
    Ok(Control::new(control).cut(text, mark).split(mark).map(str::to_owned).collect())
}

/// Refuses what would nest deeper than a stack holds.
fn check_tags(source: &str) -> Result<(), EngineError> {
    let mut rest = source.as_bytes();
    while let Some(open) = rest.windows(2).position(|two| matches!(two, b"{{" | b"{%")) {
        let (mut code, mut quote) = (0, None);
        rest = &rest[open + 2..];
        while let Some((byte, after)) = rest.split_first() {
            match quote {
                Some(_) if *byte == b'\\' => rest = after.get(1..).unwrap_or_default(),
                Some(mark) => {
                    quote = (*byte != mark).then_some(mark);
                    rest = after;
                }
                None if rest.starts_with(b"}}") || rest.starts_with(b"%}") => break,
                None => {
                    quote = matches!(byte, b'"' | b'\'').then_some(*byte);
                    code += 1;
                    rest = after;
                }
            }
        }
        if code > MAX_TAG_BYTES {
            return Err(EngineError::unsupported(format!(
                "chat template with a tag of {code} bytes (limit {MAX_TAG_BYTES})"
            )));
        }
    }
    Ok(())
}

/// Python's methods. What replaces or joins has no fuel of its own.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, minijinja::Error> {
    if name == "replace"
        && let (Some(text), Some(old), Some(new)) =
            (value.as_str(), text_of(arguments, 0), text_of(arguments, 1))
    {
        let made = text.matches(old).count().saturating_mul(new.len());
        if made.saturating_add(text.len()) > MAX_REPLACED_BYTES {
            return Err(minijinja::Error::from(ErrorKind::OutOfFuel));
        }
    }
    if name == "join"
        && let (Some(between), Some(list)) = (value.as_str(), arguments.first())
        && list.len().is_none_or(|count| count.saturating_mul(between.len()) > MAX_REPLACED_BYTES)
    {
        return Err(minijinja::Error::from(ErrorKind::OutOfFuel));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)
}

fn text_of(arguments: &[Value], at: usize) -> Option<&str> {
    arguments.get(at).and_then(Value::as_str)
}

/// The filter, with a bound on the spaces before each line, which have no fuel.
fn to_json(value: &Value, indent: Option<Value>, more: Kwargs) -> Result<Value, minijinja::Error> {
    let named = more.peek::<Option<Value>>("indent").ok().flatten();
    let indent = indent.or(named).and_then(|indent| u64::try_from(indent).ok());
    if indent.is_some_and(|spaces| spaces > MAX_INDENT) {
        return Err(minijinja::Error::from(ErrorKind::OutOfFuel));
    }
    // As Python's, with a space behind commas and colons, and nothing escaped for web pages: so it
    // was when the models learned to read it.
    let text = match indent {
        None => tools::spaced(value),
        Some(spaces) => tools::indented(value, spaces as usize),
    };
    let failed = || minijinja::Error::new(ErrorKind::BadSerialization, "this has no JSON");
    text.map(Value::from_safe_string).ok_or_else(failed)
}

/// Control texts: Gemma's vocabulary has more than six thousand of them.
struct Control {
    texts: Texts,
    /// Their lengths, each with the bytes that texts of it begin with.
    lengths: Vec<(usize, Begins)>,
}

impl Control {
    fn new(control: &[String]) -> Self {
        let texts = Texts::new(control.iter().map(|text| (text.as_str(), 0)));
        let lengths = texts.lengths().map(|(length, begins)| (length, *begins)).collect();
        Self { texts, lengths }
    }

    /// The same for all texts of a value.
    fn cut_all(&self, value: serde_json::Value, mark: char) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::String(text) => self.cut(&text, mark).into(),
            Value::Array(all) => all.into_iter().map(|one| self.cut_all(one, mark)).collect(),
            Value::Object(all) => {
                let entry = |(name, value): (String, Value)| {
                    (self.cut(&name, mark), self.cut_all(value, mark))
                };
                Value::Object(all.into_iter().map(entry).collect())
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
        }
    }

    /// `text` with `mark` after the first character of each control text in it.
    fn cut(&self, text: &str, mark: char) -> String {
        let mut out = String::with_capacity(text.len());
        let bytes = text.as_bytes();
        for (at, character) in text.char_indices() {
            out.push(character);
            let is_there = |(length, begins): &(usize, Begins)| {
                let word = bytes.get(at..at + length).filter(|word| begins[usize::from(word[0])]);
                word.is_some_and(|word| self.texts.find(word).is_some())
            };
            if self.lengths.iter().any(is_there) {
                out.push(mark);
            }
        }
        out
    }
}

fn fault_of_syntax(error: &minijinja::Error) -> EngineError {
    EngineError::corrupt(format!("the chat template cannot be parsed: {error}"))
}

/// Whose fault a template's error is: what it raises itself is about the messages, running dry or
/// failing otherwise is about the file.
fn fault(error: &minijinja::Error) -> Refusal {
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidOperation if !detail.is_empty() => Refusal::client(
            Stage::Validate,
            Code::InvalidRequest,
            format!("the model's chat template refuses these messages: {detail}"),
        )
        .param("messages"),
        ErrorKind::OutOfFuel => Refusal::client(
            Stage::Validate,
            Code::InvalidRequest,
            "rendering these messages with the model's chat template takes too long",
        )
        .param("messages"),
        _ => elsewhere(Code::Corrupt, format!("the model's chat template fails: {error}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "template_tests.rs"]
mod tests;
