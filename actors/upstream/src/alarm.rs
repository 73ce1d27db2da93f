//! A timer that outlives what it is set for.
//!
//! Owns when it is set: anew only when it would ring too late, or has rung too early. Nearly all
//! that is timed ends long before its time is over, so that one setting serves thousands of
//! exchanges, where a timer for each of them is put into the runtime's list and taken out again.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::aside::Aside;

/// Rings when a time may be over; whoever is waited for looks at the clock then. `T` is how that
/// clock tells moments.
pub struct Alarm<T>(Option<Set<T>>);

struct Set<T> {
    rings_at: T,
    sleep: Aside<Pin<Box<Sleep>>>,
}

impl<T> Default for Alarm<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy + Ord> Alarm<T> {
    /// Waits until the time that is over at `due` is, as `look` says: it tells what follows then,
    /// or else how long there is left. It is asked only when the alarm rang or has to be set.
    pub fn poll<W>(
        &mut self,
        cx: &mut Context<'_>,
        due: T,
        mut look: impl FnMut() -> Result<Duration, W>,
    ) -> Poll<W> {
        loop {
            if let Some(set) = self.0.as_mut().filter(|set| set.rings_at <= due) {
                ready!(Pin::new(&mut set.sleep).poll(cx));
            }
            match look() {
                Ok(left) => self.set(due, Instant::now() + left),
                Err(over) => return Poll::Ready(over),
            }
        }
    }

    /// Nobody waits for now: whoever did is not woken any more.
    pub fn rest(&mut self) {
        if let Some(set) = &mut self.0 {
            set.sleep.rest();
        }
    }

    fn set(&mut self, due: T, at: Instant) {
        match &mut self.0 {
            Some(set) => {
                set.rings_at = due;
                set.sleep.change().as_mut().reset(at);
            }
            None => {
                let sleep = Aside::new(Box::pin(sleep_until(at)));
                self.0 = Some(Set { rings_at: due, sleep });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Waits until `due`; how often the clock was looked at.
    async fn waits(alarm: &mut Alarm<Instant>, due: Instant) -> u32 {
        let mut looks = 0;
        poll_fn(|cx| {
            alarm.poll(cx, due, || {
                looks += 1;
                let now = Instant::now();
                if now >= due { Err(()) } else { Ok(due - now) }
            })
        })
        .await;
        looks
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_when_the_time_is_over_whatever_it_was_set_for_before() {
        let second = Duration::from_secs(1);
        let mut alarm = Alarm::default();
        let start = Instant::now();
        for due in [start + 9 * second, start + 3 * second, start + 12 * second] {
            // What is given up leaves the alarm as it was set.
            let given_up = tokio::time::timeout(second / 2, waits(&mut alarm, due)).await;
            assert!(given_up.is_err());
        }
        for due in [start + 5 * second, start + 7 * second, start + 30 * second] {
            waits(&mut alarm, due).await;
            // Timers of the runtime are good for a millisecond.
            let late = Instant::now().checked_duration_since(due);
            assert!(late.is_some_and(|late| late < Duration::from_millis(5)), "{late:?}");
        }
        assert_eq!(waits(&mut alarm, start).await, 1, "it was over before");
    }

    #[tokio::test(start_paused = true)]
    async fn one_setting_serves_what_ends_before_it() {
        let minute = Duration::from_secs(60);
        let mut alarm = Alarm::default();
        let mut looks = 0;
        for _ in 0..100 {
            let due = Instant::now() + minute;
            let exchange = poll_fn(|cx| {
                alarm.poll(cx, due, || {
                    looks += 1;
                    Ok::<_, ()>(due - Instant::now())
                })
            });
            let _ended = tokio::time::timeout(minute / 1_000, exchange).await;
            alarm.rest();
        }
        assert_eq!(looks, 1);
    }
}
