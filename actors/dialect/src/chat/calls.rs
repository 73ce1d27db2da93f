//! Calls in what a model of the mesh says.
//!
//! Owns telling calls from text while it comes. Only a model's own template knows how the model
//! calls, and that lies at the node that has the model; so all forms are taken from every one: JSON
//! objects with a name and arguments, one or a list of them, behind one of the [`MARKS`] or, where
//! an answer begins with it, bare. A call is said when it is whole, names one of the tools and has
//! an object of arguments. Everything else is text, and none of it is lost; only what may still
//! become a call is held back, and no more than [`CALL_BYTES`] of it. The same text gives the same
//! events, however it is cut.

use std::borrow::Cow;

use selvedge_contract::Tooled;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::event::Event;
use crate::limits::CALLS;

/// What calls stand behind.
const MARKS: [&str; 3] = ["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"];
/// What may stand behind a call.
const CLOSING: &str = "</tool_call>";
/// What a bare call begins with, behind its brace: other objects are text at once.
const FIRST_NAMES: [&str; 5] =
    ["\"name\"", "\"function\"", "\"type\"", "\"arguments\"", "\"parameters\""];
/// Bytes of one call, or of a list of them: a file that a model writes fits, and a model that never
/// closes what it opened is text from here on.
const CALL_BYTES: usize = 256 << 10;
/// Bytes before the first name of a bare call, or white space before any: models write some two.
const LEAD_BYTES: usize = 64;
/// Levels of a call's JSON: as deep as it is parsed.
const DEPTH: usize = 64;

/// One answer's calls.
#[derive(Clone, Debug)]
pub struct Calls {
    choice: u32,
    /// What ids begin with.
    id: String,
    names: Vec<String>,
    /// Calls that this answer may have.
    most: usize,
    called: usize,
    /// What is neither text nor a call yet.
    held: String,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing was said but white space, which is held.
    Start,
    /// Text; held is what may become a mark.
    Text,
    /// A mark, or the beginning of a bare call, is held with all that came behind it.
    Open { json: Option<Json>, mark: Option<usize> },
    /// A call just ended; what belongs to it is left out.
    After { mark: Option<usize> },
}

/// JSON on its way, as far as its brackets and strings tell.
#[derive(Clone, Debug, Default)]
struct Json {
    /// Where in what is held it begins.
    at: usize,
    open: Vec<char>,
    string: bool,
    escaped: bool,
}

/// A call as models write it. What else stands in it is nobody's.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    function: Option<Cow<'a, str>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

impl Calls {
    /// What tells the calls of one answer; ids begin with `id`.
    pub fn new(choice: u32, id: String, chat: &Tooled) -> Self {
        let names = chat.callable().map(|tool| tool.name.clone()).collect();
        let most = if chat.parallel { CALLS } else { 1 };
        let (called, held) = (0, String::new());
        Self { choice, id, names, most, called, held, state: State::Start }
    }

    /// Whether there was a call.
    pub const fn any(&self) -> bool {
        self.called > 0
    }

    /// Takes more of what the model says.
    pub fn push(&mut self, text: &str, events: &mut Vec<Event>) {
        let mut out = Out { choice: self.choice, text: String::new(), events };
        for char in text.chars() {
            self.step(char, &mut out);
        }
        out.flush();
    }

    /// Nothing follows.
    pub fn finish(&mut self, events: &mut Vec<Event>) {
        let mut out = Out { choice: self.choice, text: String::new(), events };
        out.text.push_str(&std::mem::take(&mut self.held));
        self.state = State::Text;
        out.flush();
    }

    fn step(&mut self, char: char, out: &mut Out<'_>) {
        match &mut self.state {
            State::Start => self.start(char, out),
            State::Text => self.text(char, out),
            State::Open { .. } => self.open(char, out),
            State::After { .. } => self.after(char, out),
        }
    }

    fn start(&mut self, char: char, out: &mut Out<'_>) {
        self.held.push(char);
        let said = self.held.trim_start();
        if said.is_empty() {
            if self.held.len() >= LEAD_BYTES {
                self.retell(out);
            }
            return;
        }
        if let Some(mark) = MARKS.iter().position(|mark| *mark == said) {
            self.state = State::Open { json: None, mark: Some(mark) };
            return;
        }
        if MARKS.iter().any(|mark| mark.starts_with(said)) {
            return;
        }
        let listed = said.strip_prefix('[').map(str::trim_start);
        if said.starts_with('{') || listed.is_some_and(|rest| rest.starts_with('{')) {
            let bare = said.to_owned();
            self.state = State::Open { json: None, mark: None };
            // White space before a call is no answer, but it is text if there is no call.
            self.held.truncate(self.held.len() - bare.len());
            bare.chars().for_each(|char| self.step(char, out));
            return;
        }
        if listed.is_some_and(str::is_empty) && self.held.len() < LEAD_BYTES {
            return;
        }
        self.retell(out);
    }

    fn text(&mut self, char: char, out: &mut Out<'_>) {
        self.held.push(char);
        if let Some(mark) = MARKS.iter().position(|mark| *mark == self.held) {
            self.state = State::Open { json: None, mark: Some(mark) };
            return;
        }
        // The longest end of it that may become a mark stays.
        while !MARKS.iter().any(|mark| mark.starts_with(self.held.as_str())) {
            out.text.push(self.held.remove(0));
        }
    }

    fn open(&mut self, char: char, out: &mut Out<'_>) {
        let State::Open { json, mark } = &mut self.state else { return };
        let fits = self.held.len() + char.len_utf8() <= CALL_BYTES;
        let json = match json {
            _ if !fits => return self.spoilt(char, out),
            None if char.is_whitespace() => return self.held.push(char),
            None if matches!(char, '{' | '[') => {
                json.insert(Json { at: self.held.len(), ..Json::default() })
            }
            None => return self.spoilt(char, out),
            Some(json) => json,
        };
        if !json.take(char) {
            return self.spoilt(char, out);
        }
        let (at, whole, bare) = (json.at, json.open.is_empty(), mark.is_none());
        self.held.push(char);
        if whole {
            return self.close(out);
        }
        if bare && !begins_call(&self.held[at..]) {
            self.retell(out);
        }
    }

    /// Held JSON is whole: it is calls, or text.
    fn close(&mut self, out: &mut Out<'_>) {
        let State::Open { json: Some(json), mark } = &self.state else { return };
        let mark = *mark;
        match calls(&self.held[json.at..], &self.names) {
            Some(calls) if self.called + calls.len() <= self.most => {
                for (name, arguments) in calls {
                    out.call(&self.id, self.called as u32, name, arguments);
                    self.called += 1;
                }
                self.held.clear();
                self.state = State::After { mark };
            }
            _ => {
                out.text.push_str(&std::mem::take(&mut self.held));
                self.state = State::Text;
            }
        }
    }

    fn after(&mut self, char: char, out: &mut Out<'_>) {
        let State::After { mark } = self.state else { return };
        if self.held.is_empty() && char.is_whitespace() {
            return;
        }
        // Only the form that has no end may go on with the next call at once.
        let endless = mark != Some(0) && mark != Some(1);
        if endless && self.held.is_empty() && matches!(char, ';' | ',') {
            return;
        }
        if endless && self.held.is_empty() && char == '{' {
            self.state = State::Open { json: None, mark };
            return self.step(char, out);
        }
        self.held.push(char);
        if self.held == CLOSING {
            self.held.clear();
        } else if !CLOSING.starts_with(self.held.as_str()) {
            self.retell(out);
        }
    }

    /// What is held is no call: all of it is text, but for what may become one again.
    fn spoilt(&mut self, char: char, out: &mut Out<'_>) {
        out.text.push_str(&std::mem::take(&mut self.held));
        self.state = State::Text;
        self.step(char, out);
    }

    /// What is held is text, in which a mark may stand.
    fn retell(&mut self, out: &mut Out<'_>) {
        self.state = State::Text;
        let held = std::mem::take(&mut self.held);
        held.chars().for_each(|char| self.step(char, out));
    }
}

impl Json {
    /// Takes the next character; false where JSON has none such.
    fn take(&mut self, char: char) -> bool {
        if self.string {
            match char {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.string = false,
                '\0'..='\u{1f}' => return false,
                _ => {}
            }
            return true;
        }
        match char {
            '{' | '[' => {
                self.open.push(char);
                self.open.len() <= DEPTH
            }
            '}' => self.open.pop() == Some('{'),
            ']' => self.open.pop() == Some('['),
            '"' => {
                self.string = true;
                true
            }
            ':' | ',' | '-' | '+' | '.' | ' ' | '\t' | '\r' | '\n' => true,
            other => other.is_ascii_alphanumeric(),
        }
    }
}

/// Whether JSON may be the beginning of a call or of a list of them.
fn begins_call(json: &str) -> bool {
    // Further on it was looked at already.
    if json.len() > LEAD_BYTES {
        return true;
    }
    let inner = json.strip_prefix('[').map_or(json, str::trim_start);
    let Some(first) = inner.strip_prefix('{').map(str::trim_start) else {
        return inner.is_empty() && json.len() < LEAD_BYTES;
    };
    let more = json.len() < LEAD_BYTES;
    FIRST_NAMES.iter().any(|name| first.starts_with(name) || more && name.starts_with(first))
}

/// The calls that whole JSON means: names and arguments.
fn calls(json: &str, names: &[String]) -> Option<Vec<(String, String)>> {
    let written: Vec<Written<'_>> = match json.starts_with('[') {
        true => serde_json::from_str(json).ok()?,
        false => vec![serde_json::from_str(json).ok()?],
    };
    let call = |written: Written<'_>| {
        let name = written.name.or(written.function)?;
        let known = names.iter().find(|known| **known == *name)?;
        Some((known.clone(), arguments(written.arguments.or(written.parameters))?))
    };
    let calls: Vec<_> = written.into_iter().map(call).collect::<Option<_>>()?;
    (!calls.is_empty()).then_some(calls)
}

/// Arguments as JSON text: an object, or a text that is one.
fn arguments(written: Option<&RawValue>) -> Option<String> {
    let Some(written) = written.map(RawValue::get) else { return Some("{}".to_owned()) };
    match written.chars().next()? {
        '{' => Some(written.to_owned()),
        '"' => {
            let inner: String = serde_json::from_str(written).ok()?;
            let inner: Box<RawValue> = serde_json::from_str(&inner).ok()?;
            inner.get().starts_with('{').then(|| inner.get().to_owned())
        }
        _ => None,
    }
}

/// Where events go; text in between is one event.
struct Out<'a> {
    choice: u32,
    text: String,
    events: &'a mut Vec<Event>,
}

impl Out<'_> {
    fn call(&mut self, id: &str, call: u32, name: String, json: String) {
        self.flush();
        let (choice, id) = (self.choice, format!("{id}{call:03}"));
        self.events.extend([
            Event::ToolBegin { choice, call, id, name },
            Event::ToolArguments { choice, call, json },
            Event::ToolEnd { choice, call },
        ]);
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            self.events.push(Event::Text { choice: self.choice, text });
        }
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
