//! Bodies of the floor's answers: whole, or a stream that is counted while it passes.
//!
//! Owns the tap: every frame goes on as it came, and the usage is read from the event that has it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::checks::{self, Usage};
use super::log::{Entry, Log};
use super::upstream::Lease;

/// Bytes of an event kept until its end comes; a longer one is not looked into.
const LONGEST_EVENT: usize = 64 * 1024;

/// A body to a client.
pub(super) enum Out {
    Whole(Option<Bytes>),
    Tap(Tap),
}

/// A stream on its way from the upstream.
pub(super) struct Tap {
    body: Incoming,
    lease: Option<Lease>,
    log: Log,
    entry: Option<Entry>,
    usage: Usage,
    /// The beginning of an event whose end has not come.
    open: Vec<u8>,
}

impl Tap {
    pub(super) fn new(body: Incoming, lease: Lease, log: Log, entry: Entry) -> Self {
        let (lease, entry) = (Some(lease), Some(entry));
        Self { body, lease, log, entry, usage: Usage::default(), open: Vec::new() }
    }

    fn look(&mut self, bytes: &Bytes) {
        if self.open.is_empty() && bytes.ends_with(b"\n") {
            scan(bytes, &mut self.usage);
            return;
        }
        self.open.extend_from_slice(bytes);
        if self.open.ends_with(b"\n") || self.open.len() > LONGEST_EVENT {
            scan(&self.open, &mut self.usage);
            self.open.clear();
        }
    }

    fn end(&mut self, whole: bool) {
        if let Some(entry) = self.entry.take() {
            self.log.note(entry.with(self.usage));
        }
        if let Some(lease) = self.lease.take().filter(|_| whole) {
            lease.give_back();
        }
    }
}

/// Reads usage from events; most have `null` there or nothing.
fn scan(bytes: &[u8], usage: &mut Usage) {
    let Some(at) = memchr::memmem::find(bytes, b"\"usage\":{") else { return };
    let start = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |end| end + 1);
    let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
    let line = &bytes[start..end];
    *usage = checks::usage(line.strip_prefix(b"data: ").unwrap_or(line));
}

impl Body for Out {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Tap(tap) => {
                let frame = ready!(Pin::new(&mut tap.body).poll_frame(context));
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(bytes) = frame.data_ref() {
                            tap.look(bytes);
                        }
                    }
                    Some(Err(_)) => tap.end(false),
                    None => tap.end(true),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Tap(tap) => tap.body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_found_among_events() {
        let mut usage = Usage::default();
        scan(b"data: {\"usage\":null}\n\n", &mut usage);
        assert_eq!(usage.prompt_tokens, 0);
        let events =
            b"data: {\"a\":1}\n\ndata: {\"usage\":{\"prompt_tokens\":5}}\n\ndata: [DONE]\n\n";
        scan(events, &mut usage);
        assert_eq!(usage.prompt_tokens, 5);
    }
}
