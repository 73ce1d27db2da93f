//! The thread that hears: one loop over windows of sound, for all models of an engine.
//!
//! Owns what a request is there. Requests take turns window by window; one that was given up ends
//! within a layer or a token. The loop is [`desk`]'s.

use selvedge_base::{ModelDigest, Refusal};
use selvedge_contract::{Samples, SpeechRequest, SpeechSink, Transcript};
use selvedge_kernels::SpeechCrew;

use super::listener::Listener;
use super::listening::Listening;
use crate::desk::{self, GoOn, Kind, Step, Turns, Work};
use crate::mailbox::Mailbox;
use crate::shared::{Place, Shared};

/// The thread's state.
pub(crate) type Desk = desk::Desk<Hearing>;
/// A request under way.
pub(crate) type Job = desk::Job<Hearing>;
/// What the thread is told.
pub(crate) type Message = desk::Message<Hearing, Listener>;

/// What is to be heard, and who hears of it.
pub(crate) struct Hearing {
    listening: Listening,
    sink: SpeechSink,
}

impl Job {
    pub(crate) fn new(
        request: SpeechRequest,
        sound: Samples,
        sink: SpeechSink,
        place: Place,
    ) -> Self {
        Self { work: Hearing { listening: Listening::new(request, sound), sink }, place }
    }
}

impl Work for Hearing {
    type Told = Transcript;

    fn model(&self) -> ModelDigest {
        self.listening.request().model
    }

    fn tell(self, end: Result<Transcript, Refusal>) {
        (self.sink)(end);
    }
}

impl Kind for Hearing {
    type Model = Listener;
    type Crew = SpeechCrew;

    const DOES: &'static str = "hears";
    const STEP: &'static str = "hearing a window";
    const BROKEN: &'static str = "the computation of this transcript broke down";

    fn mailbox(shared: &Shared) -> &Mailbox<Message> {
        &shared.hearing
    }

    fn crew(threads: usize) -> std::io::Result<SpeechCrew> {
        SpeechCrew::new(threads)
    }

    fn step(desk: &mut Desk, at: usize) {
        desk.turn(at);
    }
}

impl Turns for Hearing {
    fn advance(
        &mut self,
        listener: &mut Listener,
        crew: &mut SpeechCrew,
        go_on: &mut GoOn<'_>,
    ) -> Result<Step, Refusal> {
        self.listening.step(listener, crew, go_on)
    }

    fn finish(&mut self, _: &Listener) -> Result<Transcript, Refusal> {
        Ok(self.listening.finish())
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "desk_tests.rs"]
mod tests;
