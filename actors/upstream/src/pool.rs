//! Connections that wait for their next request.
//!
//! Owns how many and how old they may be. Newest first, so that a pool that was needed once shrinks
//! again. All runtimes of a node share a pool and its bounds, and each gets its own connections.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use selvedge_base::{Micros, Mono};
use tokio::runtime::{self, Handle};

use crate::Clock;
use crate::alarm::Alarm;
use crate::connect::Connection;

/// How many connections wait, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolLimits {
    pub(crate) idle: usize,
    pub(crate) idle_age: Micros,
    pub(crate) whole_age: Micros,
}

/// The pool of one target.
pub(crate) struct Pool {
    limits: PoolLimits,
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The oldest in front.
    waiting: VecDeque<Waiting>,
    sweeps: bool,
}

struct Waiting {
    lease: Lease,
    since: Mono,
}

/// A connection in use. Dropped, it is closed.
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    /// For whatever is waited for on it.
    pub(crate) alarm: Alarm<Mono>,
    born: Mono,
    /// The runtime that drives it: another one would be woken for each word.
    home: runtime::Id,
}

impl Lease {
    /// One that was made in the present runtime.
    pub(crate) fn new(connection: Connection, alarm: Alarm<Mono>, now: Mono) -> Self {
        Self { connection, alarm, born: now, home: Handle::current().id() }
    }
}

impl Pool {
    pub(crate) fn new(limits: PoolLimits, clock: Clock) -> Arc<Self> {
        Arc::new(Self { limits, clock, inner: Mutex::default() })
    }

    /// The connection of the present runtime that was used last and is still open.
    pub(crate) fn take(&self, now: Mono) -> Option<Lease> {
        let home = Handle::current().id();
        let mut inner = self.inner.lock();
        while let Some(at) = inner.waiting.iter().rposition(|one| one.lease.home == home) {
            let waiting = inner.waiting.remove(at)?;
            if self.is_good(&waiting, now) {
                return Some(waiting.lease);
            }
        }
        None
    }

    /// Takes a connection back whose answer was read to its end.
    pub(crate) fn put(self: &Arc<Self>, mut lease: Lease) {
        lease.alarm.rest();
        let now = (self.clock.mono)();
        let waiting = Waiting { lease, since: now };
        if self.limits.idle == 0 || !self.is_good(&waiting, now) {
            return;
        }
        let mut inner = self.inner.lock();
        if inner.waiting.len() >= self.limits.idle {
            inner.waiting.pop_front();
        }
        inner.waiting.push_back(waiting);
        if !std::mem::replace(&mut inner.sweeps, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Connections that wait.
    pub(crate) fn idle(&self) -> usize {
        self.inner.lock().waiting.len()
    }

    fn is_good(&self, waiting: &Waiting, now: Mono) -> bool {
        !waiting.lease.connection.sender.is_closed()
            && now.since(waiting.since) < self.limits.idle_age
            && now.since(waiting.lease.born) < self.limits.whole_age
    }

    /// Closes what has waited too long; returns when the next one will have, if any is left.
    fn swept(&self) -> Option<Micros> {
        let now = (self.clock.mono)();
        let mut inner = self.inner.lock();
        inner.waiting.retain(|waiting| self.is_good(waiting, now));
        let next = inner.waiting.front().map(|oldest| {
            let idle = oldest.since.plus(self.limits.idle_age);
            idle.min(oldest.lease.born.plus(self.limits.whole_age)).since(now)
        });
        inner.sweeps = next.is_some();
        next
    }
}

/// Closes connections whose time is over, as long as any wait.
async fn sweep(pool: Weak<Pool>) {
    /// Closing a little late harms nobody; many timers would.
    const LEAST: Micros = Micros::secs(1);
    loop {
        let Some(next) = pool.upgrade().and_then(|pool| pool.swept()) else { return };
        tokio::time::sleep(next.max(LEAST).into()).await;
    }
}
