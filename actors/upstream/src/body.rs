//! An answer that is read as it comes.
//!
//! Owns the reading: one piece in, one piece out, nothing gathered; the times between pieces, the
//! size of the whole, and what becomes of the connection. Read to its end, an answer gives its
//! connection back; dropped before, it closes it, so that the provider stops working at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use selvedge_base::Mono;
use selvedge_core::upstream::{Ending, Phase, Watch};

use crate::Clock;
use crate::alarm::Alarm;
use crate::error::{Failed, Lost};
use crate::pool::{Lease, Pool};
use crate::provider::Guard;
use crate::target::Head;

/// What hyper says of the next frame.
type Framed = Result<Frame<Bytes>, hyper::Error>;

/// The body of one answer and what its reading needs.
pub(crate) struct Flow {
    body: Incoming,
    /// Gone once the body was read to its end.
    lease: Option<Lease>,
    pool: Arc<Pool>,
    watch: Watch,
    /// Bytes that may still come.
    left: u64,
    clock: Clock,
    /// Read ahead, to know that the answer begins.
    first: Option<Bytes>,
    /// A piece was given out, and the reader's time with it is not the provider's.
    given: bool,
}

impl Flow {
    pub(crate) const fn new(
        body: Incoming,
        lease: Lease,
        pool: Arc<Pool>,
        watch: Watch,
        most: u64,
        clock: Clock,
    ) -> Self {
        let lease = Some(lease);
        Self { body, lease, pool, watch, left: most, clock, first: None, given: false }
    }

    /// Waits for the first piece and keeps it for [`Flow::chunk`].
    pub(crate) async fn peek(&mut self) -> Result<(), Lost> {
        self.first = poll_fn(|cx| self.poll_read(cx)).await?;
        Ok(())
    }

    /// The next piece as it came; none at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Lost> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Lost>> {
        let piece = match self.first.take() {
            Some(first) => Some(first),
            None => ready!(self.poll_read(cx))?,
        };
        self.given = true;
        Poll::Ready(Ok(piece))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Lost>> {
        loop {
            if self.lease.is_none() {
                return Poll::Ready(Ok(None));
            }
            let frame = match ready!(self.poll_frame(cx)) {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Poll::Ready(Err(self.lost(Lost::exchange(&error))));
                }
                Ok(None) => {
                    self.release();
                    return Poll::Ready(Ok(None));
                }
                Err(late) => return Poll::Ready(Err(self.lost(late))),
            };
            // Trailers say nothing that is used.
            let Ok(piece) = frame.into_data() else { continue };
            let Some(left) = self.left.checked_sub(piece.len() as u64) else {
                let why = "its answer is over the limit of bytes";
                return Poll::Ready(Err(self.lost(Lost::new(Ending::Malformed, why))));
            };
            self.left = left;
            if self.body.is_end_stream() {
                self.release();
            }
            if piece.is_empty() {
                continue;
            }
            // From the second piece on, the pause before the next begins when the reader wants it.
            if self.watch.phase() != Phase::Streaming {
                self.watch.progressed((self.clock.mono)());
            }
            return Poll::Ready(Ok(Some(piece)));
        }
    }

    /// The next frame, or why none came in time. What lies ready is taken without a look at the
    /// clock.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Framed>, Lost>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(Ok(frame));
        }
        if std::mem::take(&mut self.given) {
            self.watch.resumed((self.clock.mono)());
        }
        match &mut self.lease {
            Some(lease) => poll_late(&mut lease.alarm, &self.watch, self.clock, cx).map(Err),
            None => Poll::Ready(Ok(None)),
        }
    }

    /// Reads what little follows an answer's own end, so that its connection can be used again.
    async fn drain(mut self) {
        /// Longer than the end of a chunked body is ever late; a connection is worth no more.
        const PATIENCE: Duration = Duration::from_secs(1);
        let rest = async { while let Ok(Some(_)) = self.chunk().await {} };
        // Whether it ended or not: the connection is in the pool by now, or is closed with this.
        let _ended = tokio::time::timeout(PATIENCE, rest).await;
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.pool.put(lease);
        }
    }

    /// Closes the connection.
    fn lost(&mut self, lost: Lost) -> Lost {
        self.lease = None;
        lost
    }
}

/// Waits for `what`, no longer than the watch says.
pub(crate) async fn timed<T>(
    watch: &Watch,
    clock: Clock,
    alarm: &mut Alarm<Mono>,
    what: impl Future<Output = T>,
) -> Result<T, Lost> {
    let mut what = std::pin::pin!(what);
    poll_fn(|cx| {
        if let Poll::Ready(done) = what.as_mut().poll(cx) {
            // What lies ready when a stopped process goes on may come too late.
            let late = watch.late((clock.mono)());
            return Poll::Ready(late.map_or(Ok(done), |ending| Err(Lost::late(ending))));
        }
        poll_late(alarm, watch, clock, cx).map(Err)
    })
    .await
}

/// Waits for the end of the time that the watch gives.
fn poll_late(
    alarm: &mut Alarm<Mono>,
    watch: &Watch,
    clock: Clock,
    cx: &mut Context<'_>,
) -> Poll<Lost> {
    let due = watch.wake_at();
    alarm.poll(cx, due, || {
        // tokio's clock and ours may differ by a hair: only ours decides.
        let now = (clock.mono)();
        watch.expired(now).map_or(Ok(due.since(now).into()), |ending| Err(Lost::late(ending)))
    })
}

/// A provider's answer, from its first byte on.
///
/// Dropping it before its end cancels the provider's work and counts as the caller's leaving.
pub struct Answer {
    /// Gone once nothing more is read.
    flow: Option<Flow>,
    head: Head,
    guard: Guard,
    attempts: u32,
}

impl Answer {
    pub(crate) const fn new(flow: Flow, head: Head, guard: Guard) -> Self {
        Self { flow: Some(flow), head, guard, attempts: 1 }
    }

    pub(crate) const fn after(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// HTTP status: 200 to 299.
    pub const fn status(&self) -> u16 {
        self.head.status
    }

    /// The media type, as sent.
    pub fn media_type(&self) -> &str {
        &self.head.media_type
    }

    /// Bytes that are still to come, as far as the provider said beforehand.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.flow.as_ref()?.body.size_hint().exact()
    }

    /// Tokens of the prompt, where the provider tells them beside the answer and not in it, as
    /// Bedrock does.
    pub const fn prompt_tokens(&self) -> Option<u64> {
        self.head.prompt_tokens
    }

    /// Attempts it took, this one among them.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Place of the key it was made with, in the configured list.
    pub const fn key(&self) -> usize {
        self.guard.key()
    }

    /// The next piece as it came; none at the end. After an error there is nothing more.
    ///
    /// # Errors
    /// [`Failed::Attempt`] when the provider cut, stalled or overran it, or the deadline passed.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failed> {
        let piece = self.piece().await?;
        if piece.is_none() {
            self.ended(Ending::Answered);
        }
        Ok(piece)
    }

    /// Reads to the end without judging what comes: whoever takes it says how it ended, by
    /// [`Answer::ended`].
    ///
    /// # Errors
    /// As [`Answer::chunk`].
    pub async fn read(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), Failed> {
        while let Some(piece) = self.piece().await? {
            take(&piece);
        }
        Ok(())
    }

    /// As [`Answer::chunk`], for a reader who knows more about the end than that it came.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Failed> {
        poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// The same, as it is polled.
    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Failed>> {
        let Some(flow) = &mut self.flow else { return Poll::Ready(Ok(None)) };
        Poll::Ready(match ready!(flow.poll_chunk(cx)) {
            Ok(piece) => Ok(piece),
            Err(lost) => {
                self.ended(lost.ending);
                Err(self.guard.failed(lost, self.attempts))
            }
        })
    }

    /// A failure of this answer.
    pub(crate) fn failed(&self, lost: Lost) -> Failed {
        self.guard.failed(lost, self.attempts)
    }

    /// Notes the tokens the answer took so far, as the provider counts them; the last word holds,
    /// however the answer ends.
    pub const fn used(&mut self, tokens: u64) {
        self.guard.used(tokens);
    }

    /// The answer is over, whatever bytes still come: the reader knows its end or its failure by
    /// what it says. A good one leaves its connection for the next request.
    pub fn ended(&mut self, ending: Ending) {
        self.guard.end(ending);
        let flow = self.flow.take();
        if let Some(flow) = flow.filter(|flow| ending == Ending::Answered && flow.lease.is_some()) {
            tokio::spawn(flow.drain());
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // The last piece was read, and nobody asked whether another comes.
        let whole = |flow: &Flow| flow.lease.is_none() && flow.first.is_none();
        if self.flow.as_ref().is_some_and(whole) {
            self.guard.end(Ending::Answered);
        }
    }
}
