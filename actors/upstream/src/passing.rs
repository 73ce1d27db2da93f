//! An answer that passes as it comes: bytes in, the same bytes out, watched by a tap.
//!
//! Owns the tie between the two, as [`crate::events`] does for answers that are translated: what
//! the provider counts is noted for the limits before anything can cut the answer, and an answer
//! without its dialect's own end is a failure of the provider.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use selvedge_core::upstream::Ending;
use selvedge_dialect::chat::Usage;
use selvedge_dialect::tap::{Kind, Rename, StreamTap, Took, WholeTap};

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
        /// Whether something is left out or changed in what passes.
        edits: bool,
    },
    /// Watches a whole answer, which is gathered: a caller gets all of it or a refusal.
    Whole(Box<Whole>),
}

/// Bytes of an answer that room is made for at once, on the provider's word: a megabyte is more
/// than any answer but pictures has, and little to be fooled about.
const ANNOUNCED_BYTES: usize = 1 << 20;

struct Whole {
    tap: WholeTap,
    gathered: BytesMut,
    rename: Option<Rename>,
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
    /// `rename`: the model's name as the client knows it, where the provider's is another.
    pub fn stream(answer: Answer, kind: Kind, drops: bool, rename: Option<&str>) -> Self {
        let tap = Box::new(StreamTap::new(kind, drops).renaming(rename));
        let tap = Tap::Stream { tap, edits: drops || rename.is_some() };
        Self { answer, tap, over: false }
    }

    /// Watches a whole answer; `rename` as for a stream.
    pub fn whole(answer: Answer, kind: Kind, rename: Option<&str>) -> Self {
        let rename = rename.map(Rename::to);
        let (tap, gathered) = (WholeTap::new(kind), BytesMut::new());
        let tap = Tap::Whole(Box::new(Whole { tap, gathered, rename }));
        Self { answer, tap, over: false }
    }

    /// The next bytes; none after the last.
    ///
    /// # Errors
    /// [`Failed::Attempt`] when the connection was lost, too slow, over its limits, or ended
    /// without the answer's end.
    pub async fn next(&mut self) -> Result<Option<Passed>, Failed> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Passed>, Failed>> {
        while !self.over {
            let piece = match ready!(self.answer.poll_piece(cx)) {
                Ok(piece) => piece,
                Err(failed) => {
                    self.over = true;
                    return Poll::Ready(Err(failed));
                }
            };
            let passed = match piece {
                Some(bytes) => {
                    let more = self.answer.announced().unwrap_or(0);
                    self.take(bytes, usize::try_from(more).unwrap_or(usize::MAX))
                }
                None => self.finish()?,
            };
            if matches!(self.tap, Tap::Whole(_)) && self.took().failed {
                let why = "its answer is malformed: it is not JSON";
                return Poll::Ready(Err(self.malformed(why)));
            }
            if let Some(usage) = self.took().usage {
                self.answer.used(usage.total());
            }
            if passed.last {
                self.over = true;
                let failed = Ending::Failed { status: 500, retry_after: None };
                self.answer.ended(if passed.failed { failed } else { Ending::Answered });
            }
            if passed.last || !passed.bytes.is_empty() {
                return Poll::Ready(Ok(Some(passed)));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// What was seen so far.
    pub fn took(&self) -> &Took {
        match &self.tap {
            Tap::Stream { tap, .. } => tap.took(),
            Tap::Whole(whole) => whole.tap.took(),
        }
    }

    /// What the answer took so far, as the provider told it last: what a cut one is billed as.
    pub fn usage(&self) -> Option<Usage> {
        self.took().usage
    }

    /// Takes what came; `more` bytes are said to follow.
    fn take(&mut self, bytes: Bytes, more: usize) -> Passed {
        match &mut self.tap {
            Tap::Stream { tap, edits } => {
                let bytes = if *edits {
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
            Tap::Whole(whole) => whole.take(bytes, more),
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
        self.malformed("its answer ended before it was complete")
    }

    fn malformed(&mut self, why: &str) -> Failed {
        self.over = true;
        self.answer.ended(Ending::Malformed);
        self.answer.failed(Lost::new(Ending::Malformed, why))
    }
}

impl Whole {
    fn take(&mut self, bytes: Bytes, more: usize) -> Passed {
        self.tap.see(&bytes);
        if !self.tap.took().done {
            // Grown bit by bit, what was gathered would be copied again and again.
            self.gathered.reserve(bytes.len() + more.min(ANNOUNCED_BYTES));
            self.gathered.extend_from_slice(&bytes);
            return Passed { bytes: Bytes::new(), last: false, failed: false };
        }
        let mut whole = bytes;
        if !self.gathered.is_empty() {
            self.gathered.extend_from_slice(&whole);
            whole = self.gathered.split().freeze();
        }
        if let Some(rename) = &self.rename {
            let mut out = Vec::with_capacity(whole.len() + 64);
            rename.give(&whole, &mut |piece| out.extend_from_slice(piece));
            whole = Bytes::from(out);
        }
        Passed { bytes: whole, last: true, failed: false }
    }
}
