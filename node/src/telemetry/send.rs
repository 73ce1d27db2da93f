//! Tellings on their way to a collector: gathered, sent, sent again, given up.
//!
//! Owns the one task that does it. While a collector is slow or gone, tellings wait in their
//! bounded queue and are dropped and counted when it is full; no request ever waits. Does not own
//! what is told.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use selvedge_base::{Dice, Micros};
use selvedge_net::{clock, entropy};
use selvedge_runtime::{Told, Tracer};
use selvedge_upstream::post::{Courier, Receipt};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::meters::Meters;
use super::names::schema_url;
use super::otlp::{
    Logs, Metrics, Resource, ResourceLogs, ResourceMetrics, ResourceSpans, Scope, ScopeLogs,
    ScopeMetrics, ScopeSpans, Taken, Traces,
};
use super::{logs, spans};
use crate::config::{Signals, TelemetryConfig};

/// Requests in one batch: what OpenTelemetry's own exporters send at most.
const BATCH: usize = 512;
/// Times one batch is sent; with the waits between them a collector may be gone for half a minute.
const TRIES: u32 = 6;
/// The first wait between two of them; each is twice the one before.
const FIRST_WAIT: Micros = Micros::secs(1);
/// The longest wait, also when the collector asks for a longer one.
const LONGEST_WAIT: Micros = Micros::secs(30);
/// What every body is.
const PROTOBUF: &str = "application/x-protobuf";

/// Asks for everything told so far to be sent now.
pub(super) type Flush = oneshot::Sender<()>;

/// Sends tellings.
pub(super) struct Sender {
    courier: Courier,
    signals: Signals,
    timeout: Duration,
    delay: Duration,
    metric_interval: Duration,
    resource: Resource,
    tracer: Arc<Tracer>,
    meters: Meters,
    dice: Dice,
    /// Whether the last body was taken, so that a change is told once.
    well: bool,
}

/// Why one body was not taken.
enum Missed {
    /// It may be taken later.
    Later(Option<Micros>, String),
    /// It will never be.
    Never(String),
}

impl Sender {
    pub(super) fn new(
        courier: Courier,
        config: &TelemetryConfig,
        resource: Resource,
        tracer: Arc<Tracer>,
    ) -> Self {
        Self {
            courier,
            signals: config.signals,
            timeout: config.timeout,
            delay: config.delay,
            metric_interval: config.metric_interval,
            resource,
            tracer,
            meters: Meters::new(clock::wall()),
            dice: entropy::dice(),
            well: true,
        }
    }

    /// Sends what is told until nobody tells any more.
    pub(super) async fn run(
        mut self,
        told: &mut mpsc::Receiver<Box<Told>>,
        flushes: &mut mpsc::Receiver<Flush>,
    ) {
        let mut due = Instant::now() + self.metric_interval;
        let mut batch = Vec::new();
        loop {
            let mut flush = None;
            tokio::select! {
                first = told.recv() => match first {
                    Some(first) => batch.push(*first),
                    None => return,
                },
                asked = flushes.recv() => match asked {
                    Some(asked) => flush = Some(asked),
                    None => return,
                },
                () = sleep_until(due) => {}
            }
            if flush.is_none() && !batch.is_empty() {
                flush = self.gather(told, flushes, &mut batch, due).await;
            }
            if flush.is_some() {
                while let Ok(more) = told.try_recv() {
                    batch.push(*more);
                }
            }
            for told in &batch {
                self.meters.count(told);
            }
            for some in batch.chunks(BATCH) {
                self.tell(some).await;
            }
            batch.clear();
            if flush.is_some() || Instant::now() >= due {
                self.measure().await;
                due = Instant::now() + self.metric_interval;
            }
            if let Some(flush) = flush {
                // Whoever asked may not wait any more.
                let _told = flush.send(());
            }
        }
    }

    /// Waits a little for more to send at once; less when a flush is asked for, or metrics are due.
    async fn gather(
        &self,
        told: &mut mpsc::Receiver<Box<Told>>,
        flushes: &mut mpsc::Receiver<Flush>,
        batch: &mut Vec<Told>,
        due: Instant,
    ) -> Option<Flush> {
        let until = due.min(Instant::now() + self.delay);
        while batch.len() < BATCH {
            tokio::select! {
                biased;
                asked = flushes.recv() => return asked,
                more = timeout_at(until, told.recv()) => match more {
                    Ok(Some(more)) => batch.push(*more),
                    Ok(None) | Err(_) => return None,
                },
            }
        }
        None
    }

    /// Sends spans and log records of some requests.
    async fn tell(&mut self, told: &[Told]) {
        let mut taken = true;
        let spans: Vec<_> = told.iter().flat_map(spans::spans).collect();
        if self.signals.traces && !spans.is_empty() {
            let (resource, scope, schema_url) = self.origin();
            let scopes = vec![ScopeSpans { scope, spans, schema_url: schema_url.clone() }];
            let resources = vec![ResourceSpans { resource, scopes, schema_url }];
            taken &= self.post("/v1/traces", Traces { resources }.encode_to_vec()).await;
        }
        let records: Vec<_> = told.iter().flat_map(logs::records).collect();
        if self.signals.logs && !records.is_empty() {
            let (resource, scope, schema_url) = self.origin();
            let scopes = vec![ScopeLogs { scope, records, schema_url: schema_url.clone() }];
            let resources = vec![ResourceLogs { resource, scopes, schema_url }];
            taken &= self.post("/v1/logs", Logs { resources }.encode_to_vec()).await;
        }
        let count = if taken { &self.tracer.sent } else { &self.tracer.lost };
        count.add(told.len() as u64);
    }

    /// Sends all metrics as they are.
    async fn measure(&mut self) {
        let metrics = self.meters.metrics(clock::wall());
        if !self.signals.metrics || metrics.is_empty() {
            return;
        }
        let (resource, scope, schema_url) = self.origin();
        let scopes = vec![ScopeMetrics { scope, metrics, schema_url: schema_url.clone() }];
        let resources = vec![ResourceMetrics { resource, scopes, schema_url }];
        // What was counted stays: the next ones hold it too.
        let _taken = self.post("/v1/metrics", Metrics { resources }.encode_to_vec()).await;
    }

    fn origin(&self) -> (Option<Resource>, Option<Scope>, String) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let scope = Scope { name: "selvedge".to_owned(), version };
        (Some(self.resource.clone()), Some(scope), schema_url())
    }

    /// Sends a body until it is taken or given up; whether it was taken.
    async fn post(&mut self, path: &str, body: Vec<u8>) -> bool {
        let body = Bytes::from(body);
        let mut wait = FIRST_WAIT;
        for tried in 1..=TRIES {
            let (asked, why, last) = match self.once(path, body.clone()).await {
                Ok(()) => {
                    if !std::mem::replace(&mut self.well, true) {
                        tracing::info!("the collector takes what it is told again");
                    }
                    return true;
                }
                Err(Missed::Later(asked, why)) => (asked, why, tried == TRIES),
                Err(Missed::Never(why)) => (None, why, true),
            };
            if std::mem::replace(&mut self.well, false) {
                tracing::warn!(path, why, "the collector does not take what it is told");
            }
            if last {
                return false;
            }
            // Half of it is left to chance, so that nodes do not come back all at once.
            let half = wait.0 / 2;
            let jitter = half + self.dice.next() % half.max(1);
            let asked = asked.unwrap_or_default().min(LONGEST_WAIT);
            sleep(Micros(jitter).max(asked).into()).await;
            wait = Micros(wait.0 * 2).min(LONGEST_WAIT);
        }
        false
    }

    async fn once(&mut self, path: &str, body: Bytes) -> Result<(), Missed> {
        match timeout(self.timeout, self.courier.post(path, PROTOBUF, body)).await {
            Ok(Ok(receipt)) => judged(&receipt),
            Ok(Err(missed)) => Err(Missed::Later(None, missed.to_string())),
            Err(_) => Err(Missed::Later(None, "it does not answer in time".to_owned())),
        }
    }
}

/// What an answer means (OTLP specification 1.5, "OTLP/HTTP Response").
fn judged(receipt: &Receipt) -> Result<(), Missed> {
    match receipt.status {
        200..=299 => {
            let taken = Taken::decode(receipt.body.clone()).unwrap_or_default();
            match taken.partial.filter(|partial| partial.rejected > 0) {
                // What it rejects it will reject again.
                Some(partial) => Err(Missed::Never(format!(
                    "it rejects {} of what it is told",
                    partial.rejected
                ))),
                None => Ok(()),
            }
        }
        status @ (429 | 502 | 503 | 504) => {
            Err(Missed::Later(receipt.retry_after, format!("it answers with status {status}")))
        }
        status => Err(Missed::Never(format!("it answers with status {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_the_specification_says() {
        let of = |status, body: &[u8]| {
            let body = Bytes::copy_from_slice(body);
            judged(&Receipt { status, retry_after: Some(Micros::secs(7)), body })
        };
        assert!(of(200, b"").is_ok());
        assert!(of(200, b"not protobuf").is_ok(), "what it says beside is no matter");
        let partial = super::super::otlp::Partial { rejected: 3, message: "no".to_owned() };
        let partial = Taken { partial: Some(partial) }.encode_to_vec();
        assert!(matches!(of(200, &partial), Err(Missed::Never(why)) if why.contains('3')));
        for status in [429, 502, 503, 504] {
            let missed = of(status, b"");
            assert!(matches!(missed, Err(Missed::Later(Some(Micros(7_000_000)), _))), "{status}");
        }
        for status in [400, 401, 404, 413, 500] {
            assert!(matches!(of(status, b""), Err(Missed::Never(_))), "{status}");
        }
    }
}
