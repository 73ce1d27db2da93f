//! A future that waits beside the work, and is looked at only when it was woken.
//!
//! Owns the bell between the two. A stream of events is polled several times for each event, and
//! what could end it (a revoked key, a timer, the node's stop) hardly ever has something to say:
//! asking each of them every time costs more than passing the event.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// Waits beside something else, or is a stream that is asked oftener than it gives. A look at it
/// costs two comparisons while it has nothing to say.
pub struct Aside<F> {
    waits: F,
    bell: Arc<Bell>,
    /// Who is woken when the bell rings.
    told: Option<Waker>,
}

/// What the future that waits wakes.
struct Bell {
    /// Cleared, and set by what rings, under the lock of the waiter, so that the waiter is there
    /// whenever it is not set; read without it.
    rung: AtomicBool,
    /// There from a look until the bell rings.
    waiter: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waiter = {
            let mut waiter = self.waiter.lock();
            self.rung.store(true, Ordering::Release);
            waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl<F> Aside<F> {
    /// Puts a future aside; it is looked at once, and then when it wakes.
    pub fn new(waits: F) -> Self {
        let bell = Bell { rung: AtomicBool::new(true), waiter: Mutex::new(None) };
        Self { waits, bell: Arc::new(bell), told: None }
    }

    /// The future, to change what it waits for; it is looked at again after that.
    pub fn change(&mut self) -> &mut F {
        self.bell.rung.store(true, Ordering::Release);
        &mut self.waits
    }

    /// Nobody is woken any more until the next look.
    pub(crate) fn rest(&mut self) {
        self.told = None;
        drop(self.bell.waiter.lock().take());
    }

    /// A look at what waits, unless it was found waiting and has not woken since. What gave
    /// something, as a stream does, is looked at again.
    pub fn look<T>(
        &mut self,
        cx: &mut Context<'_>,
        look: impl FnOnce(&mut F, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let told = self.told.as_ref().is_some_and(|told| told.will_wake(cx.waker()));
        if told && !self.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        if !told {
            self.told = Some(cx.waker().clone());
        }
        let rung = {
            let mut waiter = self.bell.waiter.lock();
            waiter.clone_from(&self.told);
            self.bell.rung.swap(false, Ordering::AcqRel)
        };
        // What rings from here on wakes the task, which then looks again.
        if !rung {
            return Poll::Pending;
        }
        let bell = Waker::from(Arc::clone(&self.bell));
        let seen = look(&mut self.waits, &mut Context::from_waker(&bell));
        if seen.is_ready() {
            self.bell.rung.store(true, Ordering::Release);
        }
        seen
    }
}

impl<F: Future + Unpin> Aside<F> {
    /// Waits for `what`, unless this comes first; a look at this comes before each at `what`, which
    /// is not taken by value: each move of a large future is a copy.
    ///
    /// # Errors
    /// What came instead.
    pub async fn unless<T>(
        &mut self,
        mut what: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, F::Output> {
        poll_fn(|cx| match Pin::new(&mut *self).poll(cx) {
            Poll::Ready(instead) => Poll::Ready(Err(instead)),
            Poll::Pending => what.as_mut().poll(cx).map(Ok),
        })
        .await
    }
}

impl<F: Future + Unpin> Future for Aside<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.get_mut().look(cx, |waits, cx| Pin::new(waits).poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    /// Counts wakings.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn what_waits_is_looked_at_only_when_it_woke() {
        let looked = AtomicUsize::new(0);
        let (tell, mut told) = oneshot::channel::<u8>();
        let mut aside = Aside::new(poll_fn(|cx| {
            looked.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut told).poll(cx).map(Result::ok)
        }));
        let (first, waker) = counted();
        let mut cx = Context::from_waker(&waker);
        for _ in 0..5 {
            assert!(Pin::new(&mut aside).poll(&mut cx).is_pending());
        }
        assert_eq!(looked.load(Ordering::SeqCst), 1);
        // Another task takes over: it is the one that is woken.
        let (second, waker) = counted();
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut aside).poll(&mut cx).is_pending());
        tell.send(7).unwrap();
        assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
        assert_eq!(Pin::new(&mut aside).poll(&mut cx), Poll::Ready(Some(7)));
        assert_eq!(looked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_waking_is_lost_between_a_look_and_the_bell() {
        const MANY: u32 = 200_000;
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let teller = std::thread::spawn(move || {
            for number in 0..MANY {
                tell.send(number).unwrap();
                // So that who hears is waiting about as often as not.
                for _ in 0..number % 64 {
                    std::hint::spin_loop();
                }
            }
        });
        let mut aside = Aside::new(told);
        let heard = tokio::spawn(async move {
            let mut heard = 0;
            while poll_fn(|cx| aside.look(cx, |told, cx| told.poll_recv(cx))).await.is_some() {
                heard += 1;
            }
            heard
        });
        let limit = std::time::Duration::from_secs(30);
        assert_eq!(tokio::time::timeout(limit, heard).await.unwrap().unwrap(), MANY);
        teller.join().unwrap();
    }

    #[tokio::test]
    async fn what_comes_aside_comes_first() {
        let (tell, told) = oneshot::channel::<u8>();
        let mut aside = Aside::new(told);
        let mut work = std::future::ready(1);
        assert_eq!(aside.unless(Pin::new(&mut work)).await.ok(), Some(1));
        tell.send(2).unwrap();
        let mut work = std::future::ready(1);
        assert_eq!(aside.unless(Pin::new(&mut work)).await.err(), Some(Ok(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_changed_is_looked_at_again() {
        use tokio::time::{Duration, Instant, sleep, timeout};
        let mut alarm = Aside::new(Box::pin(sleep(Duration::from_secs(9))));
        assert!(timeout(Duration::from_secs(1), &mut alarm).await.is_err());
        alarm.change().as_mut().reset(Instant::now() + Duration::from_secs(2));
        let before = Instant::now();
        alarm.await;
        assert_eq!(before.elapsed(), Duration::from_secs(2));
    }
}
