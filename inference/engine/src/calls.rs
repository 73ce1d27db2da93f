//! What holds an answer to a form: a schema from its first token on, or calls of functions.
//!
//! Owns when a call begins and ends. An answer that must be a call begins with the tokens of its
//! form's mark and is then held to the call's schema, until that is whole: it is right by
//! construction. One that may be a call is free until it has written the mark, and free again after
//! the call. All of it is a function of the answer's tokens, so that another node goes on with it.

use selvedge_base::{Refusal, Stage};
use selvedge_contract::{Input, ToolChoice, Tooled};

use crate::guide::Guide;
use crate::text::Text;
use crate::tools::Form;

/// What the next token may be.
pub(crate) enum Ruled {
    /// Any.
    Any,
    /// What is not minus infinity here.
    Only(Vec<f32>),
    /// The answer can only end.
    End,
}

/// What holds an answer.
pub(crate) enum Hold {
    /// To a schema.
    Answer(Box<Guide>),
    /// To calls in their form.
    Calls(Box<CallHold>),
}

/// Calls in one answer.
pub(crate) struct CallHold {
    mark: &'static str,
    /// At the beginning of each call.
    fresh: Guide,
    /// Whether the answer is one call and nothing else.
    must: bool,
    /// Whether it goes on after a call.
    several: bool,
    state: State,
}

enum State {
    /// These tokens come first, from there on.
    Lead { tokens: Vec<u32>, at: usize },
    /// Text; the last bytes of it, fewer than a mark has.
    Free(Vec<u8>),
    /// The mark is written and nothing of the call, but for white space.
    Marked(Guide),
    /// A call.
    Call(Guide),
    /// Nothing follows.
    Over,
}

impl Hold {
    /// What holds the answer to this request, if anything does.
    pub(crate) fn begin(
        text: &Text,
        input: &Input,
        schema: Option<&str>,
    ) -> Result<Option<Self>, Refusal> {
        if let Some(schema) = schema {
            return text.guide(schema).map(|guide| Some(Self::Answer(Box::new(guide))));
        }
        match input {
            Input::Tooled(chat) if !chat.tools.is_empty() => CallHold::begin(text, chat),
            _ => Ok(None),
        }
    }

    /// What the next token may be, by the logits of this step.
    pub(crate) fn rule(&mut self, logits: &[f32]) -> Result<Ruled, Refusal> {
        match self {
            Self::Answer(guide) => ruled(guide, logits),
            Self::Calls(calls) => calls.rule(logits),
        }
    }

    /// Takes the next token of the answer, of which this is shown.
    pub(crate) fn push(&mut self, token: u32, shown: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Answer(guide) => guide.push(token),
            Self::Calls(calls) => calls.push(token, shown),
        }
    }

    /// Whether nothing can follow.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Answer(guide) => guide.is_over(),
            Self::Calls(calls) => matches!(calls.state, State::Over),
        }
    }
}

impl CallHold {
    fn begin(text: &Text, chat: &Tooled) -> Result<Option<Hold>, Refusal> {
        let form = text.form().unwrap_or(Form::Tagged);
        let must = chat.choice != ToolChoice::Auto;
        let guide = match form.schema(chat) {
            Some(schema) => text.guide(&schema),
            None => Err(Refusal::client(
                Stage::Validate,
                selvedge_base::Code::InvalidRequest,
                "a tool's parameters are no JSON object",
            )),
        };
        let fresh = match guide {
            Ok(fresh) => fresh,
            Err(refusal) if must => return Err(of_tools(refusal)),
            // Its schemas are more than can be held to: the model may call all the same.
            Err(_) => return Ok(None),
        };
        let lead = match must {
            true => text.tokens_behind(form.lead())?,
            false => Vec::new(),
        };
        let state = match (must, lead.is_empty()) {
            (true, true) => State::Call(fresh.fork()),
            (true, false) => State::Lead { tokens: lead, at: 0 },
            (false, _) => State::Free(Vec::new()),
        };
        // A list holds all calls of an answer.
        let several = !must && chat.parallel && form != Form::Listed;
        let hold = Self { mark: form.mark(), fresh, must, several, state };
        Ok(Some(Hold::Calls(Box::new(hold))))
    }

    fn rule(&mut self, logits: &[f32]) -> Result<Ruled, Refusal> {
        match &mut self.state {
            State::Lead { tokens, at } => {
                let mut only = vec![f32::NEG_INFINITY; logits.len()];
                let token = tokens.get(*at).map_or(usize::MAX, |token| *token as usize);
                if let (Some(only), Some(logit)) = (only.get_mut(token), logits.get(token)) {
                    // A model may think it impossible; it has to say it.
                    *only = if logit.is_finite() { *logit } else { 0.0 };
                }
                Ok(Ruled::Only(only))
            }
            State::Free(_) => Ok(Ruled::Any),
            State::Marked(guide) | State::Call(guide) => match ruled(guide, logits) {
                Err(_) if !self.must => {
                    // Whoever may call is not refused an answer for a call that cannot be held.
                    self.state = State::Free(Vec::new());
                    Ok(Ruled::Any)
                }
                ruled => ruled.map_err(of_tools),
            },
            State::Over => Ok(Ruled::End),
        }
    }

    fn push(&mut self, token: u32, shown: &[u8]) -> Result<(), Refusal> {
        match &mut self.state {
            State::Lead { tokens, at } => {
                *at += 1;
                if *at >= tokens.len() {
                    self.state = State::Call(self.fresh.fork());
                }
            }
            State::Free(last) => {
                last.extend_from_slice(shown);
                let mark = self.mark.as_bytes();
                let found = last.windows(mark.len()).position(|window| window == mark);
                if let Some(at) = found {
                    let rest = last.split_off(at + mark.len());
                    self.open(rest.trim_ascii_start());
                } else {
                    let more = last.len().saturating_sub(mark.len() - 1);
                    last.drain(..more);
                }
            }
            State::Marked(_) => {
                let begun = shown.trim_ascii_start();
                if !begun.is_empty() {
                    let begun = begun.to_vec();
                    self.open(&begun);
                }
            }
            State::Call(guide) => match guide.push(token) {
                Err(refusal) if self.must => return Err(of_tools(refusal)),
                // It was let go of, here or by the node that began the answer.
                Err(_) => self.state = State::Free(Vec::new()),
                Ok(()) if guide.is_over() => {
                    let free = !self.must && self.several;
                    self.state = if free { State::Free(Vec::new()) } else { State::Over };
                }
                Ok(()) => {}
            },
            State::Over => {}
        }
        Ok(())
    }

    /// A mark was written, and this much of the call with it.
    fn open(&mut self, begun: &[u8]) {
        let mut call = self.fresh.fork();
        if begun.is_empty() {
            self.state = State::Marked(call);
            return;
        }
        // What cannot be gone on with is no call, and whoever reads it takes it for text.
        self.state = match call.begun(begun) {
            true => State::Call(call),
            false => State::Free(Vec::new()),
        };
    }
}

fn ruled(guide: &mut Guide, logits: &[f32]) -> Result<Ruled, Refusal> {
    guide.rule(logits).map(|ruled| ruled.map_or(Ruled::End, Ruled::Only))
}

/// The same refusal, about what the caller wrote.
fn of_tools(mut refusal: Refusal) -> Refusal {
    if refusal.param.as_deref() == Some("response_format") {
        let why = refusal.message.split_once(": ").map_or("", |(_, why)| why).to_owned();
        refusal.message = format!("calls cannot be held to the schemas of the tools: {why}");
        refusal = refusal.param("tools");
    }
    refusal
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "calls_tests.rs"]
mod tests;
