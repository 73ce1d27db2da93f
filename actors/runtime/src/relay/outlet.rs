//! What a relay says, handed to whoever polls it: both run in one task.
//!
//! Owns the hand-over and nothing else. There is no queue: the relay goes on when what it said was
//! taken, so that a slow caller holds it back, and a caller that leaves drops it with all it holds.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use selvedge_dialect::chat::{Event, Head, Usage};

/// One thing that is said of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// An event of a dialect's own making.
    Event(Event),
    /// Bytes of a provider that speaks the client's own dialect, as they came: events of a stream,
    /// or a whole answer.
    Bytes {
        /// What goes to the client.
        bytes: Bytes,
        /// Pieces of the answer in them, about a token each.
        pieces: u64,
        /// Nothing comes after it.
        last: bool,
        /// What the answer took, with the last bytes.
        usage: Option<Usage>,
    },
    /// The bytes so far were these events, and events follow: another target goes on. Nothing of
    /// it goes to the client.
    Taken {
        /// How the answer began.
        head: Head,
        /// Its text; none when not even an empty one was begun.
        text: Option<String>,
    },
}

impl Said {
    /// Whether nothing comes after it.
    pub const fn is_last(&self) -> bool {
        match self {
            Self::Event(event) => matches!(event, Event::Finished { .. } | Event::Failed(_)),
            Self::Bytes { last, .. } => *last,
            Self::Taken { .. } => false,
        }
    }
}

/// Where the relay puts what it says.
#[derive(Clone, Default)]
pub(super) struct Outlet(Arc<Mutex<Option<Said>>>);

impl Outlet {
    /// Says one thing, and goes on when it was taken.
    pub(super) async fn say(&self, said: Said) {
        *self.0.lock() = Some(said);
        // Nobody has to be woken: who takes it polls again.
        poll_fn(|_| if self.0.lock().is_none() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Says the last thing: nothing is left to go on with.
    pub(super) fn end(&self, said: Said) {
        *self.0.lock() = Some(said);
    }
}

/// What a relay does. Boxed where it is made: it is large, and each move of it is a copy.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One answer as it comes, ending with one for which [`Said::is_last`] holds; dropping it cancels
/// the work, which is done only while it is polled.
pub struct ChatStream {
    work: Option<Work>,
    outlet: Outlet,
}

impl ChatStream {
    /// The answer of a relay that speaks through `outlet`.
    pub(super) fn new(outlet: Outlet, work: Work) -> Self {
        Self { work: Some(work), outlet }
    }

    /// How many bytes the work takes.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.work.as_ref().map_or(0, |work| size_of_val(&**work))
    }

    /// One that says a single thing.
    pub(super) fn over(said: Said) -> Self {
        let outlet = Outlet::default();
        outlet.end(said);
        Self { work: None, outlet }
    }
}

impl Stream for ChatStream {
    type Item = Said;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Said>> {
        if let Some(said) = self.outlet.0.lock().take() {
            return Poll::Ready(Some(said));
        }
        let Some(work) = &mut self.work else { return Poll::Ready(None) };
        let ended = work.as_mut().poll(cx).is_ready();
        if ended {
            self.work = None;
        }
        match self.outlet.0.lock().take() {
            Some(said) => Poll::Ready(Some(said)),
            None if ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn piece(text: &'static str, last: bool) -> Said {
        Said::Bytes { bytes: Bytes::from(text), pieces: 1, last, usage: None }
    }

    #[test]
    fn a_relay_goes_on_only_when_what_it_said_was_taken() {
        let outlet = Outlet::default();
        let said = Arc::new(Mutex::new(0));
        let (own, counted) = (outlet.clone(), Arc::clone(&said));
        let work = async move {
            for text in ["a", "b"] {
                *counted.lock() += 1;
                own.say(piece(text, false)).await;
            }
            own.end(piece("c", true));
        };
        let mut stream = ChatStream::new(outlet, Box::pin(work));
        let mut next = || stream.next().now_or_never().flatten();
        assert_eq!(next(), Some(piece("a", false)));
        assert_eq!(*said.lock(), 1);
        assert_eq!(next(), Some(piece("b", false)));
        let last = next().unwrap();
        assert!(last.is_last());
        assert_eq!(next(), None);
    }

    #[test]
    fn what_was_dropped_is_not_worked_on() {
        let outlet = Outlet::default();
        let kept = Arc::new(());
        let held = Arc::clone(&kept);
        let own = outlet.clone();
        let work = async move {
            let _held = held;
            own.say(piece("a", false)).await;
            std::future::pending::<()>().await;
        };
        let mut stream = ChatStream::new(outlet, Box::pin(work));
        assert!(stream.next().now_or_never().is_some());
        assert!(stream.next().now_or_never().is_none());
        drop(stream);
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
