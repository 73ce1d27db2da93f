//! An answer that broke off at a provider: what of it the caller has, and asking somebody to go on.
//!
//! Owns keeping what was said, which is done only where somebody could go on after it, and the
//! request for the rest. Whether an answer can be gone on with, by whom and with which seam is
//! [`selvedge_core::continuing`]'s, who is asked [`selvedge_core::journey`]'s.
//!
//! Bytes that pass are kept as they are and read only when the answer broke off. Events of a
//! stream that are cut in two are held back until their other half came: whoever goes on begins a
//! new one.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use selvedge_contract::Input;
use selvedge_core::catalogue::Model;
use selvedge_core::continuing::{self, Seam, SoFar};
use selvedge_core::journey::{Leg, Step, Target};
use selvedge_core::upstream::ProviderKind;
use selvedge_core::upstream::provider::Continues;
use selvedge_dialect::chat::{
    ChatRequest, Event, Extension, Failure, Finish, Format, Head, Message, Role,
};
use selvedge_dialect::exchange::{AnswerParser, Dialect};
use selvedge_dialect::json::Json;
use selvedge_dialect::tap::Kind;
use selvedge_dialect::{anthropic, openai};

use super::paid::known_of;
use super::{End, Relay, Said};
use crate::providers::Open;

/// Bytes of events that are kept: a token takes some 250 of them, so this is eight times as much as
/// the text that is kept of them, and of two thousand streams a gigabyte.
const MAX_KEPT_EVENTS: usize = 8 * continuing::MAX_KEPT_BYTES;

/// What the caller has, while somebody could go on after it.
pub(super) enum Had {
    /// The text of events that were written for it.
    Text(SoFar),
    /// Bytes of a provider that speaks its dialect.
    Passed {
        kind: Kind,
        parts: Vec<Bytes>,
        bytes: usize,
        /// The beginning of an event whose end has not come, which the caller has not.
        tail: Bytes,
    },
}

/// The present target goes on with an answer.
pub(super) struct Going {
    /// What it is given as its own beginning.
    begun: String,
    seam: Seam,
    /// Tokens the caller has of it, as they were counted.
    tokens: u64,
}

impl Relay {
    /// The first target at a provider is about to be asked: what it says is kept if somebody could
    /// go on after it.
    pub(super) fn begin_keeping(&mut self, passes: Option<Kind>) {
        if self.going.is_some() {
            return;
        }
        let somebody = || self.journey.legs().iter().any(|leg| self.is_able(leg));
        let keeps = self.call.asked.stream() && self.is_plain() && somebody();
        self.kept = keeps.then(|| match passes {
            None => Had::Text(SoFar::default()),
            Some(kind) => Had::Passed { kind, parts: Vec::new(), bytes: 0, tail: Bytes::new() },
        });
    }

    /// Whether the request wants one answer of plain text.
    fn is_plain(&self) -> bool {
        if let Some(asked) = self.call.asked.passable() {
            let seen = &asked.seen;
            return seen.n == 1 && !seen.has_logprobs && !seen.has_format;
        }
        self.call.asked.request().is_ok_and(|asked| {
            // Nobody is told how to go on with a bare text that another one went on with.
            !asked.raw
                && asked.n.is_none_or(|n| n == 1)
                && asked.logprobs.is_none()
                && matches!(asked.format, None | Some(Format::Text))
                && asked.held_by().is_none()
        })
    }

    /// Of each leg, whether it can go on with an answer.
    fn able(&self) -> Vec<bool> {
        self.journey.legs().iter().map(|leg| self.is_able(leg)).collect()
    }

    fn is_able(&self, leg: &Leg) -> bool {
        match &leg.target {
            // Its tokens must be known here.
            Target::Mesh { model } => self.shared.view.load().own_model(model).is_some(),
            Target::Provider { provider, model } => {
                let Some(open) = self.shared.providers.find(provider) else { return false };
                let spec = open.spec();
                let known = (spec.kind == ProviderKind::Anthropic).then(|| {
                    let known = spec.model(model);
                    let upstream = known.map_or(model.as_str(), |known| known.upstream.as_str());
                    known_of(&self.shared, &self.aim, &open, (model, upstream))
                });
                continuing::way(spec, known.flatten().as_deref()) != Continues::No
            }
        }
    }

    /// Keeps bytes that are to pass: those that may pass now.
    pub(super) fn keep(&mut self, came: Bytes, last: bool) -> Bytes {
        let Some(Had::Passed { parts, bytes, tail, .. }) = &mut self.kept else { return came };
        let came = joined(std::mem::take(tail), came);
        let end = if last { came.len() } else { end_of_events(&came) };
        let mut passes = came;
        *tail = passes.split_off(end);
        *bytes += passes.len();
        if *bytes + tail.len() > MAX_KEPT_EVENTS {
            let rest = std::mem::take(tail);
            self.kept = None;
            return joined(passes, rest);
        }
        if !passes.is_empty() {
            parts.push(passes.clone());
        }
        passes
    }

    /// Keeps what is said in events.
    pub(super) fn keep_event(&mut self, event: &Event) {
        if let Some(Had::Text(so_far)) = &mut self.kept {
            note(so_far, event);
        }
    }

    /// The present target failed: what is done now.
    pub(super) fn after(&mut self, failure: &Failure) -> Step {
        self.read_kept();
        let refusal = failure.refusal.clone();
        match &self.kept {
            Some(Had::Text(so_far)) if so_far.is_plain() && self.call.asked.request().is_ok() => {
                let able = match so_far.text().trim_end() {
                    // Whoever answers begins at the beginning.
                    "" => vec![true; self.journey.legs().len()],
                    _ => self.able(),
                };
                let had = self.carried.plus(&self.counted).completion_tokens;
                let left = self.limit().map(|limit| u64::from(limit).saturating_sub(had));
                self.journey.broke_off(refusal, &able, left)
            }
            _ => self.journey.failed(refusal),
        }
    }

    /// Reads the bytes that passed: from here on there are events.
    fn read_kept(&mut self) {
        let Some(Had::Passed { kind, parts, .. }) = &self.kept else { return };
        let mut parser: Box<dyn AnswerParser> = match kind {
            Kind::OpenAi => Box::<openai::Parser>::default(),
            Kind::Anthropic => Box::<anthropic::Parser>::default(),
        };
        let mut events = Vec::new();
        parts.iter().for_each(|part| parser.push(part, &mut events));
        let says = |what: &str| {
            let what = what.as_bytes();
            parts.iter().any(|part| part.windows(what.len()).any(|bytes| bytes == what))
        };
        let mut so_far = SoFar::default();
        events.iter().for_each(|event| note(&mut so_far, event));
        // A block that is closed is not opened again.
        if *kind == Kind::Anthropic && says("event: content_block_stop") {
            so_far.spoil();
        }
        let opened = *kind == Kind::OpenAi || says("event: content_block_start");
        let head = events.into_iter().find_map(|event| match event {
            Event::Head(head) => Some(head),
            _ => None,
        });
        let text = opened.then(|| so_far.text().to_owned());
        self.passed = head.map(|head| (head, text));
        self.kept = Some(Had::Text(so_far));
    }

    /// Tokens that the caller wants at most.
    fn limit(&self) -> Option<u32> {
        self.call.asked.request().ok().and_then(|asked| asked.max_tokens)
    }

    /// The present target is to go on.
    pub(super) async fn go_on(&mut self) {
        self.shared.counters.continued.bump();
        self.take_over().await;
    }

    /// The caller has as much as it asked for: what its answer ends with.
    pub(super) async fn end_whole(&mut self) -> End {
        self.take_over().await;
        let (reason, stop) = (Finish::Length, None);
        self.give(Event::Ended { choice: 0, reason, stop }).await;
        let usage = Some(selvedge_dialect::chat::Usage::default());
        End::Answered(Said::Event(Event::Finished { usage, timing: None }))
    }

    /// From here on the answer is said in events, after what the caller has of it.
    async fn take_over(&mut self) {
        self.carried = self.carried.plus(&std::mem::take(&mut self.counted));
        self.judging = None;
        if let Some((head, text)) = self.passed.take() {
            self.outlet.say(Said::Taken { head, text }).await;
        }
        let Some(Had::Text(so_far)) = &self.kept else { return };
        let (begun, seam) = so_far.split();
        let tokens = self.carried.completion_tokens;
        self.going = Some(Going { begun: begun.to_owned(), seam, tokens });
    }

    /// What a target is asked: the request, or the rest of its answer.
    pub(super) fn to_ask(
        &self,
        open: Option<(&Open, Option<&Model>)>,
    ) -> Result<Cow<'_, ChatRequest>, Refusal> {
        let asked = self.call.asked.request()?;
        let Some(going) = &self.going else { return Ok(Cow::Borrowed(asked)) };
        let mut request = asked.clone();
        if let Some(limit) = self.limit() {
            let left = u64::from(limit).saturating_sub(going.tokens).max(1);
            request.max_tokens = u32::try_from(left).ok();
        }
        let Some((open, model)) = open.filter(|_| !going.begun.is_empty()) else {
            return Ok(Cow::Owned(request));
        };
        let own = |name: &str, value: bool| -> Result<Extension, Refusal> {
            let value = Json::of(&value).map_err(|_| super::nowhere())?;
            Ok(Extension { dialect: Dialect::OpenAi, name: name.to_owned(), value })
        };
        let mut message = Message::text(Role::Assistant, going.begun.clone());
        match continuing::way(open.spec(), model) {
            Continues::No => return Err(cannot_go_on(&open.spec().name)),
            Continues::LastMessage => {}
            Continues::Prefix => message.extensions.push(own("prefix", true)?),
            Continues::ContinueFinalMessage => {
                request.extensions.push(own("continue_final_message", true)?);
                request.extensions.push(own("add_generation_prompt", false)?);
            }
        }
        request.messages.push(message);
        Ok(Cow::Owned(request))
    }

    /// What a model of the mesh goes on with, where it is to.
    pub(super) async fn begun(
        &mut self,
        model: &str,
        input: Input,
        shaped: bool,
    ) -> Result<Input, Refusal> {
        let Some(going) = self.going.as_ref().filter(|going| !going.begun.is_empty()) else {
            return Ok(input);
        };
        if shaped || matches!(input, Input::Tooled(_)) {
            // What holds an answer to a schema begins with it, and not within; nor is it known
            // whether what was begun is a call.
            return Err(cannot_go_on(model));
        }
        let digest = self.shared.view.load().own_model(model).ok_or_else(|| cannot_go_on(model))?;
        let begun = going.begun.clone();
        self.shared.begun(digest, input, begun).await.map(Input::Tokens)
    }

    /// What the caller has not got yet of an event; none when it has it all.
    pub(super) fn joined(&mut self, event: Event) -> Option<Event> {
        let Some(going) = &mut self.going else { return Some(event) };
        match event {
            Event::Head(_) => None,
            Event::Text { choice, text } => {
                let text = going.seam.join(&text).to_owned();
                (!text.is_empty()).then_some(Event::Text { choice, text })
            }
            Event::Usage(usage) => Some(Event::Usage(self.carried.plus(&usage))),
            other => Some(other),
        }
    }
}

fn note(so_far: &mut SoFar, event: &Event) {
    match event {
        Event::Text { choice: 0, text } => so_far.said(text),
        Event::Head(Head { .. }) | Event::Usage(_) => {}
        _ => so_far.spoil(),
    }
}

fn joined(first: Bytes, then: Bytes) -> Bytes {
    if first.is_empty() {
        return then;
    }
    if then.is_empty() {
        return first;
    }
    let mut both = BytesMut::with_capacity(first.len() + then.len());
    both.extend_from_slice(&first);
    both.extend_from_slice(&then);
    both.freeze()
}

/// Where the last event that is whole ends: after a blank line.
fn end_of_events(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\n\n") || bytes.ends_with(b"\n\r\n") {
        return bytes.len();
    }
    let plain = bytes.windows(2).rposition(|two| two == b"\n\n").map(|at| at + 2);
    let crlf = bytes.windows(3).rposition(|three| three == b"\n\r\n").map(|at| at + 3);
    plain.max(crlf).unwrap_or(0)
}

fn cannot_go_on(who: &str) -> Refusal {
    let message = format!("'{who}' cannot go on with an answer that another one began");
    let (stage, blame) = (Stage::Execute, Blame::Us);
    Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_held_back_until_they_are_whole() {
        for (bytes, end) in [
            ("data: a\n\n", 9),
            ("data: a\n\ndata: b", 9),
            ("data: a\r\n\r\ndata: b\n", 11),
            ("data: a", 0),
            ("", 0),
            ("\n\n\n", 3),
        ] {
            assert_eq!(end_of_events(bytes.as_bytes()), end, "{bytes:?}");
        }
        assert_eq!(joined(Bytes::from_static(b"a"), Bytes::from_static(b"b")), "ab");
    }
}
