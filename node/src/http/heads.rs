//! The time that the head of a request may take, as hyper asks for it.
//!
//! Owns one timer for each connection. hyper makes one for every head and throws it away when the
//! head has come, which enters it into the runtime's list and takes it out again for each request;
//! this one stays entered while the times that hyper asks for come and go.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use selvedge_net::clock::SystemInstant;
use selvedge_upstream::Alarm;
use tokio::time::Instant;

/// The timer of one connection, which waits for one head at a time.
#[derive(Clone, Default)]
pub(super) struct Heads(Arc<Mutex<Alarm<Instant>>>);

/// One head's time.
struct Due {
    at: Instant,
    heads: Heads,
}

impl Timer for Heads {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: SystemInstant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Due { at: deadline.into(), heads: self.clone() })
    }

    fn now(&self) -> SystemInstant {
        Instant::now().into()
    }
}

impl Sleep for Due {}

impl Future for Due {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.at;
        self.heads.0.lock().poll(cx, due, || {
            let now = Instant::now();
            if now >= due { Err(()) } else { Ok(due - now) }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_own_time() {
        let heads = Heads::default();
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        for secs in [10, 11, 15] {
            let early = timeout(Duration::from_secs(1), heads.sleep_until(after(secs).into()));
            assert!(early.await.is_err(), "the head came before");
        }
        heads.sleep_until(after(16).into()).await;
        assert_eq!(start.elapsed().as_secs(), 16);
        heads.sleep(Duration::from_secs(10)).await;
        assert_eq!(start.elapsed().as_secs(), 26);
    }
}
