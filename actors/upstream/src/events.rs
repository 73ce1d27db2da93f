//! An answer read through a dialect: bytes in, canonical events out, as they come.
//!
//! Owns the tie between the two: every piece goes to the parser at once, what the provider counts
//! is noted for the limits before anything can cut the answer, and an answer that is not complete
//! by its dialect's own sign is a failure of the provider, however politely the connection ended.

use std::collections::VecDeque;

use selvedge_base::{Blame, Code, Retry};
use selvedge_core::upstream::Ending;
use selvedge_dialect::chat::{Event, Failure, Usage};
use selvedge_dialect::exchange::AnswerParser;

use crate::body::Answer;
use crate::error::Failed;

/// The events of one answer.
///
/// Dropping it before the last event cancels the provider's work.
pub struct Events {
    answer: Answer,
    parser: Box<dyn AnswerParser>,
    /// Those of the piece that came last.
    ready: VecDeque<Event>,
    parsed: Vec<Event>,
    over: bool,
}

impl Events {
    /// Reads an answer with its dialect's parser.
    pub const fn new(answer: Answer, parser: Box<dyn AnswerParser>) -> Self {
        Self { answer, parser, ready: VecDeque::new(), parsed: Vec::new(), over: false }
    }

    /// The next event; none after the last, which is [`Event::Finished`] or [`Event::Failed`].
    ///
    /// # Errors
    /// [`Failed::Attempt`] when the connection was lost, too slow or over its limits.
    pub async fn next(&mut self) -> Result<Option<Event>, Failed> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            match self.answer.piece().await {
                Ok(Some(piece)) => self.parser.push(&piece, &mut self.parsed),
                Ok(None) => {
                    self.parser.finish(&mut self.parsed);
                    self.over = true;
                }
                Err(failed) => {
                    self.over = true;
                    return Err(failed);
                }
            }
            self.note();
        }
    }

    /// What the answer took so far, as the provider told it last: what a cut one is billed as.
    pub fn usage(&self) -> Option<Usage> {
        self.parser.usage()
    }

    /// The answer itself.
    pub const fn answer(&self) -> &Answer {
        &self.answer
    }

    fn note(&mut self) {
        if let Some(usage) = self.parser.usage() {
            self.answer.used(usage.total());
        }
        let ending = match self.parsed.last() {
            Some(Event::Failed(failure)) => Some(ending_of(failure)),
            Some(Event::Finished { .. }) => Some(Ending::Answered),
            _ if self.over || self.parser.is_over() => Some(Ending::Answered),
            _ => None,
        };
        self.ready.extend(self.parsed.drain(..));
        if let Some(ending) = ending {
            self.over = true;
            self.answer.ended(ending);
        }
    }
}

/// Whose fault it is when an answer breaks off by its own words.
fn ending_of(failure: &Failure) -> Ending {
    let status = failure.provider.as_ref().map_or(0, |provider| provider.status);
    let refusal = &failure.refusal;
    let retry_after = match refusal.retry {
        Retry::After(wait) => Some(wait),
        Retry::Never | Retry::Elsewhere => None,
    };
    match (refusal.blame, refusal.code) {
        (Blame::Client, _) => Ending::Refused { status: if status == 0 { 400 } else { status } },
        (_, Code::PeerLost) => Ending::Cut,
        (_, Code::Overloaded) => Ending::Failed { status: 503, retry_after },
        _ if failure.provider.is_none() => Ending::Malformed,
        _ => Ending::Failed { status: 500, retry_after },
    }
}
