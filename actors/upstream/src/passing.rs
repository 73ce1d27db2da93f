//! An answer that passes as it comes: bytes in, the same bytes out, watched by a tap.
//!
//! Owns the tie between the two, as [`crate::events`] does for answers that are translated: what
//! the provider counts is noted for the limits before anything can cut the answer, and an answer
//! without its dialect's own end is a failure of the provider.

use bytes::{Bytes, BytesMut};
use selvedge_core::upstream::Ending;
use selvedge_dialect::chat::Usage;
use selvedge_dialect::tap::{Kind, StreamTap, Took, WholeTap};

use crate::body::Answer;
use crate::error::{Failed, Lost};

/// The bytes of one answer.
///
/// Dropping it before the last ones cancels the provider's work.
pub struct Passing {
    answer: Answer,
    tap: Tap,
    over: bool,
}

enum Tap {
    /// Watches a stream.
    Stream {
        tap: Box<StreamTap>,
        /// Whether a chunk with nothing but usage is left out.
        drops: bool,
    },
    /// Watches a whole answer, which is gathered: a caller gets all of it or a refusal.
    Whole { tap: Box<WholeTap>, gathered: BytesMut },
}

/// Bytes that pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What came; never empty but for the last.
    pub bytes: Bytes,
    /// They end the answer.
    pub last: bool,
    /// The provider says in them that it failed.
    pub failed: bool,
}

impl Passing {
    /// Watches a streamed answer. `drops`: the chunk of usage was not asked for by the client.
    pub fn stream(answer: Answer, kind: Kind, drops: bool) -> Self {
        let tap = Tap::Stream { tap: Box::new(StreamTap::new(kind, drops)), drops };
        Self { answer, tap, over: false }
    }

    /// Watches a whole answer.
    pub fn whole(answer: Answer, kind: Kind) -> Self {
        let tap = Tap::Whole { tap: Box::new(WholeTap::new(kind)), gathered: BytesMut::new() };
        Self { answer, tap, over: false }
    }

    /// The next bytes; none after the last.
    ///
    /// # Errors
    /// [`Failed::Attempt`] when the connection was lost, too slow, over its limits, or ended
    /// without the answer's end.
    pub async fn next(&mut self) -> Result<Option<Passed>, Failed> {
        while !self.over {
            let piece = match self.answer.piece().await {
                Ok(piece) => piece,
                Err(failed) => {
                    self.over = true;
                    return Err(failed);
                }
            };
            let passed = match piece {
                Some(bytes) => self.take(bytes),
                None => self.finish()?,
            };
            if let Some(usage) = self.took().usage {
                self.answer.used(usage.total());
            }
            if passed.last {
                self.over = true;
                let failed = Ending::Failed { status: 500, retry_after: None };
                self.answer.ended(if passed.failed { failed } else { Ending::Answered });
            }
            if passed.last || !passed.bytes.is_empty() {
                return Ok(Some(passed));
            }
        }
        Ok(None)
    }

    /// What was seen so far.
    pub fn took(&self) -> &Took {
        match &self.tap {
            Tap::Stream { tap, .. } => tap.took(),
            Tap::Whole { tap, .. } => tap.took(),
        }
    }

    /// What the answer took so far, as the provider told it last: what a cut one is billed as.
    pub fn usage(&self) -> Option<Usage> {
        self.took().usage
    }

    fn take(&mut self, bytes: Bytes) -> Passed {
        match &mut self.tap {
            Tap::Stream { tap, drops } => {
                let bytes = if *drops {
                    let mut out = Vec::with_capacity(bytes.len());
                    tap.pass(&bytes, &mut out);
                    Bytes::from(out)
                } else {
                    tap.see(&bytes);
                    bytes
                };
                let took = tap.took();
                Passed { bytes, last: took.done || took.failed, failed: took.failed }
            }
            Tap::Whole { tap, gathered } => {
                tap.see(&bytes);
                if !tap.took().done {
                    gathered.extend_from_slice(&bytes);
                    return Passed { bytes: Bytes::new(), last: false, failed: false };
                }
                let whole = if gathered.is_empty() {
                    bytes
                } else {
                    gathered.extend_from_slice(&bytes);
                    gathered.split().freeze()
                };
                Passed { bytes: whole, last: true, failed: false }
            }
        }
    }

    /// The connection's end: of a stream that said why its answer ended, the answer's end too.
    fn finish(&mut self) -> Result<Passed, Failed> {
        self.over = true;
        let Tap::Stream { tap, .. } = &mut self.tap else { return Err(self.cut()) };
        if tap.took().finish.is_none() {
            return Err(self.cut());
        }
        let mut rest = Vec::new();
        tap.finish(&mut rest);
        Ok(Passed { bytes: Bytes::from(rest), last: true, failed: false })
    }

    fn cut(&mut self) -> Failed {
        self.answer.ended(Ending::Malformed);
        self.answer.failed(Lost::new(Ending::Malformed, "its answer ended before it was complete"))
    }
}
