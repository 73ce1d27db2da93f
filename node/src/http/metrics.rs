//! What is counted, and the page a Prometheus server reads.
//!
//! Owns the surface's own counters. Facts about the mesh (nodes by state, queues) and what the
//! node counts itself (hand-offs, resumes) are read from the backend when the page is made, so
//! they are never stale and cost nothing in between.

use std::fmt;
use std::sync::{Arc, OnceLock};

use hyper::{Response, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use selvedge_base::Mono;
use selvedge_contract::residence::Why;
use selvedge_engine::MemoryUse;
use selvedge_net::clock;
use selvedge_proto::policy::AccountPath;

use super::backend::{Backend, Holder};
use super::body::{Answer, whole};
use super::route::Surface;
use super::wire;

/// Upper bounds of the time to the first token, in seconds: from a cached prompt on a fast machine
/// to a long one on a small board.
const FIRST_TOKEN_BUCKETS: [f64; 12] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// What Prometheus expects of this page.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The status of a request whose client left before there was one (as nginx logs it).
const CLIENT_LEFT: u16 = 499;

/// The counters of one surface.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    /// Of those the good ones of each surface, which are nearly all: found without a look-up.
    good: [OnceLock<Counter>; Surface::COUNT],
    refusals: Family<Refused, Counter>,
    in_flight: Gauge,
    prompt_tokens: Counter,
    answer_tokens: Counter,
    first_token: Histogram,
}

/// One request, from its arrival to the head of its response.
pub(super) struct Tally {
    metrics: Arc<Metrics>,
    surface: Surface,
    status: u16,
}

/// One request's answers, from the question to their end.
pub(super) struct Progress {
    metrics: Arc<Metrics>,
    arrived: Mono,
    tokens: u64,
}

impl Metrics {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        let mut registry = Registry::with_prefix("selvedge");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", build);
        registry.register_collector(Box::new(Mesh(backend)));
        let mut metrics = Self {
            registry,
            requests: Family::default(),
            good: Default::default(),
            refusals: Family::default(),
            in_flight: Gauge::default(),
            prompt_tokens: Counter::default(),
            answer_tokens: Counter::default(),
            first_token: Histogram::new(FIRST_TOKEN_BUCKETS),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let help = "Requests by surface and status; 499: the client left before the answer began";
        registry.register("requests", help, self.requests.clone());
        let help = "Refusals by code, those inside a stream included";
        registry.register("refusals", help, self.refusals.clone());
        let help = "Requests whose answers are being made";
        registry.register("requests_in_flight", help, self.in_flight.clone());
        registry.register("prompt_tokens", "Tokens of prompts", self.prompt_tokens.clone());
        registry.register("answer_tokens", "Tokens of answers", self.answer_tokens.clone());
        let help = "From a request's arrival to its first token";
        let histogram = self.first_token.clone();
        registry.register_with_unit("first_token", help, Unit::Seconds, histogram);
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&Refused { code }).inc();
    }

    /// The page, as `holder` may see it: whoever calls with a key of the mesh reads the budgets of
    /// its own account and of what hangs below it, not what other tenants have and spend.
    pub(super) fn page(&self, holder: &Holder) -> Response<Answer> {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) if holder.key.is_some() => {
                whole(StatusCode::OK, CONTENT_TYPE, without_others(&text, &holder.account))
            }
            Ok(()) => whole(StatusCode::OK, CONTENT_TYPE, text),
            // Writing to a string fails only if a metric's own encoding does.
            Err(fmt::Error) => whole(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "no page\n"),
        }
    }
}

impl Tally {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        Self { metrics: Arc::clone(metrics), surface: Surface::Other, status: CLIENT_LEFT }
    }

    /// The request was understood as one of this surface.
    pub(super) fn surface(&mut self, surface: Surface) {
        self.surface = surface;
    }

    /// What it was understood as.
    pub(super) const fn surface_of(&self) -> Surface {
        self.surface
    }

    /// The response has this status.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let counter = || {
            let request = Request { surface: self.surface.as_str(), code: self.status };
            self.metrics.requests.get_or_create_owned(&request)
        };
        match self.metrics.good.get(self.surface as usize) {
            Some(good) if self.status == StatusCode::OK.as_u16() => good.get_or_init(counter).inc(),
            _ => counter().inc(),
        };
    }
}

impl Progress {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.in_flight.inc();
        Self { metrics: Arc::clone(metrics), arrived: clock::mono(), tokens: 0 }
    }

    /// A node began an answer to a prompt of this many tokens.
    pub(super) fn started(&self, prompt_tokens: u32) {
        self.metrics.prompt_tokens.inc_by(u64::from(prompt_tokens));
    }

    /// A token came.
    pub(super) fn token(&mut self) {
        if self.tokens == 0 {
            let waited = clock::mono().since(self.arrived);
            self.metrics.first_token.observe(waited.0 as f64 / 1e6);
        }
        self.tokens += 1;
    }

    /// A whole answer took this much, as its end says.
    pub(super) fn took(&mut self, prompt: u64, answer: u64) {
        self.metrics.prompt_tokens.inc_by(prompt);
        self.tokens = answer;
    }

    /// An answer failed after the response had begun.
    pub(super) fn failed(&self, code: &'static str) {
        self.metrics.refused(code);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.answer_tokens.inc_by(self.tokens);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    surface: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    code: &'static str,
}

/// Facts read from the backend when the page is made.
struct Mesh(Arc<dyn Backend>);

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mesh")
    }
}

impl Collector for Mesh {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = self.0.status();
        gauges(
            &mut encoder,
            ("nodes", "Nodes of the mesh by state, this one included"),
            ["alive", "suspect", "frozen", "dead"].map(|state| {
                let count = status.nodes.iter().filter(|node| node.state == state).count();
                ([("state", state.to_owned())], count as i64)
            }),
        )?;
        let own = || status.nodes.iter().filter(|node| node.me).flat_map(|node| &node.models);
        gauges(
            &mut encoder,
            ("engine_running", "Sequences this node's engine computes, by model"),
            own().map(|model| ([("model", model.name.clone())], i64::from(model.running))),
        )?;
        gauges(
            &mut encoder,
            ("engine_queued", "Requests waiting in this node's engine, by model"),
            own().map(|model| ([("model", model.name.clone())], i64::from(model.queued))),
        )?;
        drafts(&mut encoder, &self.0.drafts())?;
        memory(&mut encoder, self.0.memory())?;
        if let Some(me) = status.nodes.iter().find(|node| node.me) {
            machine(&mut encoder, &me.machine)?;
        }
        budgets(&mut encoder, &self.0.budgets(None))?;
        cache(&mut encoder, self.0.cache())?;
        for (name, help, value) in self.0.totals() {
            let counter = ConstCounter::<u64>::new(value);
            let line = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(line)?;
        }
        Ok(())
    }
}

/// How many tokens were computed before they were drawn, and how many of them for something.
fn drafts(
    encoder: &mut DescriptorEncoder<'_>,
    drafts: &[(String, u64, u64)],
) -> Result<(), fmt::Error> {
    let kind = ConstCounter::<u64>::new(0).metric_type();
    let help = "Tokens this node's engine computed ahead, by model, since it was loaded";
    let mut family = encoder.encode_descriptor("engine_drafted_tokens", help, None, kind)?;
    for (model, drafted, _) in drafts {
        let labels = [("model", model.clone())];
        ConstCounter::new(*drafted).encode(family.encode_family(&labels)?)?;
    }
    let help = "Those of them that the model then said";
    let kind = ConstCounter::<u64>::new(0).metric_type();
    let mut family = encoder.encode_descriptor("engine_accepted_tokens", help, None, kind)?;
    for (model, _, accepted) in drafts {
        let labels = [("model", model.clone())];
        ConstCounter::new(*accepted).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// What models take of the engine's memory, and how often they came and went, by the few reasons
/// that there are.
fn memory(
    encoder: &mut DescriptorEncoder<'_>,
    memory: Option<MemoryUse>,
) -> Result<(), fmt::Error> {
    let Some(MemoryUse { taken, budget, waiting, counts }) = memory else { return Ok(()) };
    let level = |value: u64| [([], i64::try_from(value).unwrap_or(i64::MAX))];
    let help = "Bytes of the models in memory, as the engine counts them";
    gauges(encoder, ("engine_memory_bytes", help), level(taken))?;
    let help = "Bytes that models and their caches may take";
    gauges(encoder, ("engine_memory_budget_bytes", help), level(budget))?;
    let help = "Models that are asked for and wait for memory";
    gauges(encoder, ("engine_loads_waiting", help), level(waiting))?;
    let reasons = [
        (
            ("engine_loads", "Models loaded, by why: before anybody asked, or for a request"),
            vec![("ahead", counts.loaded_ahead), ("request", counts.loaded_asked)],
        ),
        (
            ("engine_evictions", "Models unloaded to make room for others, by why these"),
            vec![
                (Why::Copied.as_str(), counts.evicted_copied),
                (Why::Oldest.as_str(), counts.evicted_oldest),
            ],
        ),
        (
            ("engine_load_refusals", "Loads that were refused, by why"),
            vec![
                ("larger_than_budget", counts.refused_too_large),
                ("others_stay_loaded", counts.refused_kept),
                ("others_at_work", counts.refused_busy),
            ],
        ),
    ];
    let kind = ConstCounter::<u64>::new(0).metric_type();
    for ((name, help), lines) in reasons {
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (reason, value) in lines {
            let counter = ConstCounter::<u64>::new(value);
            counter.encode(family.encode_family(&[("reason", reason)])?)?;
        }
    }
    Ok(())
}

/// How this node's machine stands; a line for what is known alone.
fn machine(encoder: &mut DescriptorEncoder<'_>, machine: &wire::Machine) -> Result<(), fmt::Error> {
    let bytes = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    for (name, help, value) in [
        ("machine_memory_bytes", "Memory of this machine", bytes(machine.memory_bytes)),
        (
            "machine_memory_available_bytes",
            "What programs could still take of it",
            bytes(machine.memory_available_bytes),
        ),
        (
            "machine_temperature_decidegrees",
            "The hottest sensor, in tenths of a degree Celsius",
            machine.temperature_decidegrees.map(i64::from),
        ),
        (
            "machine_headroom_decidegrees",
            "What is left to the nearest critical point",
            machine.headroom_decidegrees.map(i64::from),
        ),
        (
            "machine_battery_percent",
            "How full the battery is",
            machine.battery_percent.map(i64::from),
        ),
        (
            "machine_on_battery",
            "Whether the battery carries the machine",
            machine.on_battery.map(i64::from),
        ),
        (
            "machine_spared",
            "Whether requests go to other nodes first",
            Some(i64::from(machine.spared.is_some())),
        ),
    ] {
        if let Some(value) = value {
            gauges(encoder, (name, help), [([], value)])?;
        }
    }
    Ok(())
}

/// What the cache of answers keeps and how often it helped; nothing where there is none.
fn cache(
    encoder: &mut DescriptorEncoder<'_>,
    cache: Option<wire::Cache>,
) -> Result<(), fmt::Error> {
    let Some(cache) = cache else { return Ok(()) };
    let level = |value: u64| [([], i64::try_from(value).unwrap_or(i64::MAX))];
    gauges(encoder, ("cache_entries", "Answers kept"), level(cache.entries))?;
    gauges(encoder, ("cache_bytes", "Bytes of answers kept"), level(cache.bytes))?;
    for (name, help, value) in [
        ("cache_hits", "Requests answered by what was kept", cache.hits),
        ("cache_misses", "Requests that nothing was kept for", cache.misses),
        ("cache_coalesced", "Requests that waited for an equal one", cache.coalesced),
        ("cache_evictions", "Answers that went for want of room", cache.evicted),
        ("cache_expirations", "Answers that grew too old", cache.expired),
        ("cache_purged", "Answers that were purged", cache.purged),
        ("cache_fetched", "Requests answered by what a peer kept", cache.fetched),
        ("cache_lent", "Answers given to peers", cache.lent),
    ] {
        let counter = ConstCounter::<u64>::new(value);
        let line = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
        counter.encode(line)?;
    }
    Ok(())
}

/// The page without the lines of budgets that `account` does not cover.
fn without_others(page: &str, account: &AccountPath) -> String {
    let covered = |line: &&str| {
        let labels = line.strip_prefix("selvedge_budget_").and_then(|rest| rest.split_once('{'));
        let Some((_, labels)) = labels else { return true };
        let named = labels.strip_prefix("account=\"").and_then(|rest| rest.split_once('"'));
        // A budget of a key is named by the key's account, `#` and the key.
        let path = named.and_then(|(level, _)| level.split('#').next());
        path.and_then(|path| path.parse().ok()).is_some_and(|of| account.covers(&of))
    };
    page.split_inclusive('\n').filter(covered).collect()
}

/// What is limited, spent, reserved and held here, in the smallest unit of what a budget counts.
fn budgets(
    encoder: &mut DescriptorEncoder<'_>,
    budgets: &[wire::Budget],
) -> Result<(), fmt::Error> {
    type Read = fn(&wire::Budget) -> u64;
    let families: [(&str, &str, Read); 4] = [
        ("budget_limit", "What a budget allows per window", |budget| budget.limit),
        ("budget_spent", "Spent in the window by all nodes, as known here", |budget| budget.spent),
        ("budget_reserved", "Reserved by answers this node is making", |budget| budget.reserved),
        ("budget_rights", "What this node may spend without asking", |b| b.spendable_here),
    ];
    for (name, help, read) in families {
        let lines = budgets.iter().map(|budget| {
            let labels = [
                ("account", budget.account.clone()),
                ("budget", budget.name.clone()),
                ("unit", budget.unit.as_str().to_owned()),
            ];
            (labels, i64::try_from(read(budget)).unwrap_or(i64::MAX))
        });
        gauges(encoder, (name, help), lines)?;
    }
    Ok(())
}

fn gauges<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    lines: impl IntoIterator<Item = ([(&'static str, String); N], i64)>,
) -> Result<(), fmt::Error> {
    let kind = ConstGauge::<i64>::new(0).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    let mut lines = lines.into_iter();
    if N == 0 {
        // A set of no labels would be written, as `{}`.
        let Some((_, value)) = lines.next() else { return Ok(()) };
        return ConstGauge::<i64>::new(value).encode(family);
    }
    for (labels, value) in lines {
        let gauge = ConstGauge::<i64>::new(value);
        gauge.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::without_others;

    #[test]
    fn a_key_reads_its_own_budgets_only() {
        let line = |account: &str| format!("selvedge_budget_spent{{account=\"{account}\"}} 1\n");
        let others = ["acme2", "acme", "rival/app", "rival#0011223344556677"];
        let own = ["acme/line3", "acme/line3/chat", "acme/line3#0011223344556677"];
        let rest = "# HELP selvedge_budget_spent Spent.\nselvedge_nodes{state=\"alive\"} 2\n";
        let page = |accounts: &[&[&str]]| {
            let lines = accounts.iter().flat_map(|some| some.iter()).map(|one| line(one));
            format!("{rest}{}# EOF\n", lines.collect::<String>())
        };
        let account = "acme/line3".parse().expect("an account");
        assert_eq!(without_others(&page(&[&others, &own]), &account), page(&[&own]));
    }
}
