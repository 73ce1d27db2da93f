//! Traces, metrics and logs for an OpenTelemetry collector, by OTLP over HTTP.
//!
//! ```text
//! request ─▶ Trace ─▶ bounded queue ─▶ send ─▶ spans · logs · meters ─▶ collector
//!          (runtime)   (full: dropped)  (one task)
//! ```
//!
//! Owns the form in which requests are told, by the semantic conventions of [`names::SEMCONV`], and
//! the sending. Does not own what is noted on the way of a request: the runtime does. Text of
//! prompts and answers never gets here.

mod logs;
mod meters;
mod names;
mod otlp;
mod send;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use selvedge_net::entropy;
use selvedge_runtime::{Run, Told, Tracer};
use selvedge_upstream::post::Courier;
use selvedge_upstream::{Proxy, Roots, Secret};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use self::names::Attributes;
use self::otlp::Resource;
use self::send::{Flush, Sender};
use crate::config::TelemetryConfig;

/// How long a stop waits for the last requests to be told: a collector nearby takes milliseconds.
const FLUSHING: Duration = Duration::from_millis(300);

/// What is told before there is a node to tell of.
pub(crate) struct Telemetry {
    config: TelemetryConfig,
    tracer: Arc<Tracer>,
    told: mpsc::Receiver<Box<Told>>,
    roots: Option<Roots>,
}

/// Has everything told when the node stops.
pub(crate) struct Last(mpsc::Sender<Flush>);

/// Who tells.
pub(crate) struct Who<'a> {
    /// The node's id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: &'a str,
    /// The place it stands in; empty for none.
    pub(crate) site: &'a str,
}

impl Telemetry {
    /// Reads the file of authorities, if one is named: call it off the async threads.
    pub(crate) fn new(config: TelemetryConfig) -> Result<Self> {
        let roots = config.certificate.as_deref().map(Roots::with_file).transpose();
        let roots = roots.context("telemetry.certificate cannot be used")?;
        let (tracer, told) = Tracer::new(config.sampler, entropy::dice());
        Ok(Self { config, tracer, told, roots })
    }

    /// Whom requests are told to.
    pub(crate) fn tracer(&self) -> Arc<Tracer> {
        Arc::clone(&self.tracer)
    }

    /// The sending, as a task to be kept running, and how it is asked for the last of it. What was
    /// told before it was started again goes on from the queue.
    pub(crate) fn sending(self, who: &Who<'_>) -> Result<(Run, Last)> {
        let Self { config, tracer, told, roots } = self;
        let resource = resource(&config, who);
        let (last, flushes) = mpsc::channel(1);
        let queues = Arc::new(Mutex::new((told, flushes)));
        let proxy = Proxy::of_environment(|name| std::env::var(name).ok())?;
        let secret = |(name, value): &(String, crate::config::Secret)| {
            (name.clone(), Secret::new(value.reveal().unwrap_or_default().to_owned()))
        };
        let headers: Vec<_> = config.headers.iter().map(secret).collect();
        let courier = move || {
            let (roots, proxy) = (roots.clone(), proxy.clone());
            Courier::new(&config.endpoint, roots, proxy, &headers)
                .map(|courier| Sender::new(courier, &config, resource.clone(), Arc::clone(&tracer)))
        };
        // So that what cannot be used is told at the start.
        drop(courier()?);
        let run: Run = Arc::new(move || {
            let (queues, sender) = (Arc::clone(&queues), courier());
            Box::pin(async move {
                let sender = sender.map_err(|error| error.to_string())?;
                let (told, flushes) = &mut *queues.lock().await;
                sender.run(told, flushes).await;
                Ok(())
            })
        });
        Ok((run, Last(last)))
    }
}

impl Last {
    /// Has everything told that was told of so far, within a moment.
    pub(crate) async fn flush(&self) {
        let flushed = async {
            let (done, sent) = oneshot::channel();
            if self.0.send(done).await.is_ok() {
                // Gone with the task, there is nothing left to wait for.
                let _sent = sent.await;
            }
        };
        if timeout(FLUSHING, flushed).await.is_err() {
            tracing::warn!("the collector was not told of the last requests");
        }
    }
}

/// What is said of the node with everything it tells. The operator's own words come last, and stand
/// where they name the same.
fn resource(config: &TelemetryConfig, who: &Who<'_>) -> Resource {
    let mut all = Attributes::default();
    all.text("service.name", &config.service_name)
        .text("service.version", env!("CARGO_PKG_VERSION"))
        .text("service.instance.id", &who.id)
        .text("telemetry.sdk.name", "selvedge")
        .text("telemetry.sdk.language", "rust")
        .text("telemetry.sdk.version", env!("CARGO_PKG_VERSION"))
        .text("selvedge.node", who.name)
        .maybe("selvedge.site", Some(who.site).filter(|site| !site.is_empty()));
    for (name, value) in &config.resource {
        // A name that was set by itself is the more certain one.
        if name == "service.name" && config.service_name != "selvedge" {
            continue;
        }
        all.0.retain(|known| known.key != *name);
        all.text(name, value);
    }
    Resource { attributes: all.0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
