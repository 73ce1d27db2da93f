//! An answer that may be doubted: held back until it is judged, then given or dropped.
//!
//! Owns the holding back, which is short, and nothing that decides: how much is looked at and what
//! follows from it is [`selvedge_core::routes::Doubt`]'s, who is asked then
//! [`selvedge_core::journey`]'s.

use selvedge_core::journey::{Step, Target};
use selvedge_core::routes::{Doubt, Judgement};
use selvedge_dialect::chat::{ChatRequest, Event, Usage};

use super::Relay;

/// An answer that is held back.
pub(super) struct Judging {
    doubt: Doubt,
    /// What came of it, in order: until it is judged, which comes soon.
    held: Vec<Event>,
}

impl Judging {
    fn take(&mut self, event: Event) -> Option<Judgement> {
        self.doubt.event();
        match &event {
            Event::Text { .. } | Event::Thinking { .. } => self.doubt.piece(),
            Event::LogProbs { tokens, refusal: false, .. } => {
                let told = tokens.iter().map(|token| token.top.logprob.millionths());
                told.for_each(|micronats| self.doubt.token(micronats));
            }
            Event::ToolBegin { .. } => self.doubt.called(),
            _ => {}
        }
        self.held.push(event);
        self.doubt.is_enough().then(|| self.doubt.judge())
    }
}

impl Relay {
    /// The next target is asked: whether its answer may be doubted.
    pub(super) fn begin_leg(&mut self) {
        (self.usage, self.hides_logprobs, self.counted) = (None, false, Usage::default());
        (self.kept, self.passed, self.going) = (None, None, None);
        // What is said again of the prompt tells nothing of who says it.
        let echoes = |asked: &ChatRequest| asked.extensions.iter().any(|own| own.name == "echo");
        let answers = || match self.call.asked.request() {
            Ok(asked) if !echoes(asked) => asked.n.unwrap_or(1),
            _ => 0,
        };
        // The body is only read whole where it matters.
        let doubt = self.aim.rising.and_then(|_| self.journey.doubt(answers()));
        self.judging = doubt.map(|doubt| Judging { doubt, held: Vec::new() });
    }

    /// Takes an event of an answer that is held back; whether the answer goes on.
    pub(super) async fn judge(&mut self, event: Event) -> bool {
        let Some(judging) = &mut self.judging else { return true };
        match judging.take(event) {
            Some(judgement) => self.judged(judgement).await,
            None => true,
        }
    }

    /// The answer is over: whether it stands.
    pub(super) async fn stands(&mut self) -> bool {
        let Some(judging) = &self.judging else { return true };
        let judgement = judging.doubt.judge();
        Box::pin(self.judged(judgement)).await
    }

    async fn judged(&mut self, judgement: Judgement) -> bool {
        self.journey.judged(judgement);
        let held = self.judging.take().map(|judging| judging.held);
        if judgement.escalates() {
            return false;
        }
        for event in held.into_iter().flatten() {
            self.give(event).await;
        }
        true
    }

    /// The answer was found wanting: who is asked now.
    pub(super) fn doubted(&mut self) -> Step {
        self.shared.counters.escalated.bump();
        self.escalated = true;
        self.judging = None;
        self.head = None;
        let usage = self.usage;
        self.asking.note(|turn| turn.usage = usage);
        // Told as cut short, which it was or may have been.
        drop(std::mem::take(&mut self.asking));
        self.leave_mesh();
        self.journey.doubted()
    }

    /// Keeps the turns of nodes at a target that does not answer after all.
    pub(super) fn leave_mesh(&mut self) {
        if !self.journey.target().is_some_and(Target::is_paid)
            && let Some(known) = self.shared.records.find(self.call.id)
            && !self.turns.ends_with(&known.attempts)
        {
            self.turns.extend_from_slice(&known.attempts);
        }
    }
}
