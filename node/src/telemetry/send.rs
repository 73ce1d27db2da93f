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
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

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

/// Requests on their way to the collector. Dropped without having been taken, they are lost, and
/// counted as such, also when the node stops or the task ends while they wait.
struct Batch {
    told: u64,
    tracer: Arc<Tracer>,
    /// Paths and bodies that were not taken yet.
    bodies: Vec<(&'static str, Bytes)>,
    tried: u32,
    /// Before the next try but for chance.
    wait: Micros,
    due: Instant,
}

impl Batch {
    fn taken(mut self) {
        self.tracer.sent.add(std::mem::take(&mut self.told));
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.tracer.lost.add(self.told);
    }
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

    /// Sends what is told until nobody tells any more. While a batch waits to be sent again nothing
    /// more is taken from the queue, but metrics go when they are due, and a flush at once.
    pub(super) async fn run(
        mut self,
        told: &mut mpsc::Receiver<Box<Told>>,
        flushes: &mut mpsc::Receiver<Flush>,
    ) {
        let mut due = Instant::now() + self.metric_interval;
        let mut batch = Vec::new();
        let mut waiting: Option<Batch> = None;
        loop {
            let mut flush = None;
            let again = waiting.as_ref().map(|batch| batch.due);
            tokio::select! {
                first = told.recv(), if waiting.is_none() => match first {
                    Some(first) => batch.push(*first),
                    None => return,
                },
                asked = flushes.recv() => match asked {
                    Some(asked) => flush = Some(asked),
                    None => return,
                },
                () = sleep_until(again.unwrap_or(due).min(due)) => {}
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
            // What is dropped from here on without having been taken is lost.
            let fresh: Vec<Batch> = batch.chunks(BATCH).map(|some| self.encode(some)).collect();
            batch.clear();
            if let Some(batch) = waiting.take_if(|it| flush.is_some() || it.due <= Instant::now()) {
                waiting = self.send(batch).await;
            }
            for batch in fresh {
                // More than one only comes of a flush, after which nobody tries again.
                waiting = self.send(batch).await.or(waiting);
            }
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

    /// Spans and log records of some requests, as bodies to be sent.
    fn encode(&self, told: &[Told]) -> Batch {
        let mut bodies = Vec::new();
        let spans: Vec<_> = told.iter().flat_map(spans::spans).collect();
        if self.signals.traces && !spans.is_empty() {
            let (resource, scope, schema_url) = self.origin();
            let scopes = vec![ScopeSpans { scope, spans, schema_url: schema_url.clone() }];
            let resources = vec![ResourceSpans { resource, scopes, schema_url }];
            bodies.push(("/v1/traces", Bytes::from(Traces { resources }.encode_to_vec())));
        }
        let records: Vec<_> = told.iter().flat_map(logs::records).collect();
        if self.signals.logs && !records.is_empty() {
            let (resource, scope, schema_url) = self.origin();
            let scopes = vec![ScopeLogs { scope, records, schema_url: schema_url.clone() }];
            let resources = vec![ResourceLogs { resource, scopes, schema_url }];
            bodies.push(("/v1/logs", Bytes::from(Logs { resources }.encode_to_vec())));
        }
        let (told, tracer) = (told.len() as u64, Arc::clone(&self.tracer));
        Batch { told, tracer, bodies, tried: 0, wait: FIRST_WAIT, due: Instant::now() }
    }

    /// Sends what is left of a batch once; gives it back when it is to be sent again later.
    async fn send(&mut self, mut batch: Batch) -> Option<Batch> {
        batch.tried += 1;
        while let Some((path, body)) = batch.bodies.first().cloned() {
            match self.post(path, body).await {
                Ok(()) => drop(batch.bodies.remove(0)),
                Err(Missed::Later(asked, _)) if batch.tried < TRIES => {
                    // Half of it is left to chance, so that nodes do not come back all at once.
                    let half = batch.wait.0 / 2;
                    let jitter = half + self.dice.next() % half.max(1);
                    let asked = asked.unwrap_or_default().min(LONGEST_WAIT);
                    batch.due = Instant::now() + Duration::from(Micros(jitter).max(asked));
                    batch.wait = Micros(batch.wait.0 * 2).min(LONGEST_WAIT);
                    return Some(batch);
                }
                Err(Missed::Later(..) | Missed::Never(_)) => return None,
            }
        }
        batch.taken();
        None
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
        // What was counted stays: the next ones hold it too, and nothing is tried again.
        let body = Bytes::from(Metrics { resources }.encode_to_vec());
        let _taken = self.post("/v1/metrics", body).await;
    }

    fn origin(&self) -> (Option<Resource>, Option<Scope>, String) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let scope = Scope { name: "selvedge".to_owned(), version };
        (Some(self.resource.clone()), Some(scope), schema_url())
    }

    /// Sends a body once, and tells of a change in how the collector takes them.
    async fn post(&mut self, path: &str, body: Bytes) -> Result<(), Missed> {
        let sent = self.once(path, body).await;
        match &sent {
            Ok(()) if !std::mem::replace(&mut self.well, true) => {
                tracing::info!("the collector takes what it is told again");
            }
            Err(Missed::Later(_, why) | Missed::Never(why))
                if std::mem::replace(&mut self.well, false) =>
            {
                tracing::warn!(path, why, "the collector does not take what it is told");
            }
            Ok(()) | Err(_) => {}
        }
        sent
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
    use selvedge_base::{Sampler, TraceContext};
    use selvedge_core::upstream::provider::BaseUrl;
    use selvedge_runtime::{CHAT, Came, Story};

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

    /// A collector that refuses each body for half a minute but those of metrics; what it was
    /// asked.
    async fn collector() -> (String, mpsc::UnboundedReceiver<String>) {
        use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (asked, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("a connection");
            let mut socket = BufReader::new(socket);
            loop {
                let (mut path, mut length, mut line) = (String::new(), 0, String::new());
                while socket.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                    let line = std::mem::take(&mut line).to_ascii_lowercase();
                    if let Some(bytes) = line.strip_prefix("content-length:") {
                        length = bytes.trim().parse().expect("a number");
                    } else if path.is_empty() {
                        path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                    }
                }
                if path.is_empty() || socket.read_exact(&mut vec![0; length]).await.is_err() {
                    return;
                }
                let status = if path == "/v1/metrics" { 200 } else { 503 };
                let _heard = asked.send(path);
                let head = format!("HTTP/1.1 {status} x\r\nretry-after: 30\r\n");
                let answer = format!("{head}content-length: 0\r\n\r\n");
                socket.write_all(answer.as_bytes()).await.expect("a reader");
            }
        });
        (format!("http://{address}"), heard)
    }

    fn sender(endpoint: &str) -> Sender {
        let config = TelemetryConfig {
            endpoint: BaseUrl::parse(endpoint).expect("an address"),
            headers: Vec::new(),
            certificate: None,
            signals: Signals { traces: true, metrics: true, logs: false },
            sampler: Sampler::all(true),
            service_name: "test".to_owned(),
            resource: Vec::new(),
            timeout: Duration::from_secs(60),
            delay: Duration::from_millis(1),
            metric_interval: Duration::from_millis(20),
        };
        let (tracer, _) = Tracer::new(config.sampler, Dice::keyed(1, "test"));
        let courier = Courier::new(&config.endpoint, None, None, &[]).expect("a courier");
        Sender::new(courier, &config, Resource { attributes: Vec::new() }, tracer)
    }

    fn some() -> Box<Told> {
        let now = clock::now();
        let came = Came::Client { route: "/v1/chat/completions", operation: CHAT };
        let (records, turns) = (Vec::new(), Vec::new());
        Box::new(Told {
            context: TraceContext::root(1, 2, true),
            parent: None,
            began: now,
            ended: now.mono,
            story: Story { came, status: Some(200), error: None, records, turns },
        })
    }

    /// Patience of a test: far below what the collector asks to wait.
    const SOON: Duration = Duration::from_secs(15);

    #[tokio::test]
    async fn what_is_to_be_sent_again_holds_back_neither_metrics_nor_a_flush() {
        let (endpoint, mut asked) = collector().await;
        let sender = sender(&endpoint);
        let tracer = Arc::clone(&sender.tracer);
        let ((tell, mut told), (ask, mut flushes)) = (mpsc::channel(8), mpsc::channel(1));
        let running = tokio::spawn(async move { sender.run(&mut told, &mut flushes).await });
        tell.send(some()).await.expect("a listener");
        let mut next = async || timeout(SOON, asked.recv()).await.expect("in time");
        while next().await.expect("a request") != "/v1/traces" {}
        assert_eq!(next().await.expect("a request"), "/v1/metrics", "while the batch waits");
        let (done, flushed) = oneshot::channel();
        ask.send(done).await.expect("a listener");
        timeout(SOON, flushed).await.expect("in time").expect("flushed");
        assert_eq!((tracer.sent.value(), tracer.lost.value()), (0, 0), "it waits again");
        running.abort();
        assert!(running.await.is_err_and(|ended| ended.is_cancelled()));
        assert_eq!((tracer.sent.value(), tracer.lost.value()), (0, 1), "nobody will send it");
    }
}
