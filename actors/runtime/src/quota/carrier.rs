//! What the budgets' machine ordered and takes time: the disk's answers, messages to peers, ticks.
//!
//! Owns one supervised task and the bound on messages under way. Losing a message is harmless, as
//! every one of them is said again or made up for by the next digest; losing the disk's answer is
//! not, so each is awaited by a task of its own that outlives a failure here.

use std::sync::Arc;

use selvedge_base::{Micros, NodeId};
use selvedge_core::Opening;
use selvedge_core::quota::{QuotaInput, QuotaMessage};
use selvedge_net::{Endpoint, clock};
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::{Order, QuotaLine};
use crate::handoff::deliver;
use crate::store::StoreError;
use crate::task::Run;

/// Messages about rights go before the exchange of state, as requests may wait for them, and after
/// requests themselves.
const PRIORITY: i32 = 5;
/// Messages under way to all peers: several to each peer of a large mesh.
const IN_FLIGHT: usize = 256;
/// A message that takes longer is lost; the peer that lacks it asks.
const SEND_WITHIN: Micros = Micros::secs(5);
/// The machine is looked at this often even if it asked for nothing: a wall clock that was set
/// changes windows without anybody telling.
const LOOK_EVERY: Micros = Micros::secs(1);
/// The least rest between two ticks: the clock's own steps.
const LEAST_REST: Micros = Micros::millis(1);

/// The carrying as a supervised task; orders wait while it is started again.
pub(crate) fn child(
    line: QuotaLine,
    endpoint: Arc<Endpoint>,
    orders: mpsc::UnboundedReceiver<Order>,
) -> Run {
    let orders = Arc::new(Mutex::new(orders));
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    Arc::new(move || {
        let carrier = Carrier {
            line: line.clone(),
            endpoint: Arc::clone(&endpoint),
            places: Arc::clone(&places),
        };
        let orders = Arc::clone(&orders);
        Box::pin(async move {
            carrier.run(&mut *orders.lock().await).await;
            Ok(())
        })
    })
}

struct Carrier {
    line: QuotaLine,
    endpoint: Arc<Endpoint>,
    places: Arc<Semaphore>,
}

impl Carrier {
    /// Runs until the line is gone.
    async fn run(&self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        let mut ticked = clock::mono();
        loop {
            let rest = self.line.rest().unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
            let now = clock::mono();
            // Orders that keep coming must not hold back the time.
            if rest == Micros(0) && now.since(ticked) >= LEAST_REST {
                ticked = now;
                self.line.tell(QuotaInput::Ticked);
                continue;
            }
            let rest = rest.max(LEAST_REST);
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order),
                    None => return,
                },
                () = tokio::time::sleep(rest.into()) => self.line.tell(QuotaInput::Ticked),
            }
        }
    }

    fn carry_out(&self, order: Order) {
        match order {
            Order::Await { ticket, written } => {
                let line = self.line.clone();
                tokio::spawn(async move {
                    let result = written.await.unwrap_or(Err(StoreError::Closed));
                    line.tell(match result {
                        Ok(()) => QuotaInput::Persisted { ticket },
                        Err(error) => QuotaInput::PersistFailed { ticket, why: error.to_string() },
                    });
                });
            }
            Order::Send { to, message } => self.send(to, message),
            // The loop reads the next time anew.
            Order::WakeSooner => {}
            Order::Flush(flushed) => {
                let places = Arc::clone(&self.places);
                tokio::spawn(async move {
                    // All places are free when every message has left; they are never closed.
                    let _all = places.acquire_many(IN_FLIGHT as u32).await;
                    // Whoever gave up waiting needs no answer.
                    let _gone = flushed.send(());
                });
            }
        }
    }

    fn send(&self, to: NodeId, message: QuotaMessage) {
        let Some(link) = self.endpoint.link(&to) else { return };
        // An older peer is told what it can read.
        let Some(message) = message.spoken_at(link.version()) else { return };
        let opening = Opening::Quota(Box::new(message));
        if link.version() < opening.since() {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::debug!(peer = %to.short(), "too many messages about budgets: one is dropped");
            return;
        };
        tokio::spawn(async move {
            let _place = place;
            let told = deliver(&link, PRIORITY, &opening);
            if let Ok(Err(error)) = tokio::time::timeout(SEND_WITHIN.into(), told).await {
                tracing::debug!(peer = %to.short(), %error, "a message about budgets was lost");
            }
        });
    }
}
