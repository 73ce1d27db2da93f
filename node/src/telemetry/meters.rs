//! Requests as metrics: histograms since the node started.
//!
//! Owns the sums and their bounds. Names of models come from clients, so the number of rows is
//! bounded; what is over goes into one row that says so, as OpenTelemetry's own counters do.
//! Requests that a peer handed over are counted where they came from.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Wall};
use selvedge_core::record::Outcome;
use selvedge_runtime::{Came, EMBEDDINGS, Told, Turn};

use super::names::{Attributes, OURS, common, provider, seconds};
use super::otlp::{AnyValue, CUMULATIVE, Histogram, KeyValue, Metric, Point, Value};
use super::spans::{error_of, fault_of};

/// Rows of one metric ("cardinality limit" of the metrics SDK specification, its default).
const MAX_ROWS: usize = 2_000;

/// Seconds of whole operations, as the conventions advise.
const DURATION: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// Seconds to a first token or chunk, likewise.
const FIRST: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds between tokens, likewise.
const BETWEEN: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// Tokens, likewise: powers of four.
const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// Seconds of HTTP requests, as the conventions of HTTP advise.
const HTTP: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// All metrics of this node.
pub(super) struct Meters {
    began: Wall,
    http: Meter,
    served: Meter,
    first_token: Meter,
    per_token: Meter,
    asked: Meter,
    first_chunk: Meter,
    tokens: Meter,
}

impl Meters {
    /// Nothing is counted yet.
    pub(super) fn new(began: Wall) -> Self {
        let meter = |name, help, unit, bounds| Meter::new([name, help, unit], bounds);
        Self {
            began,
            http: meter(
                "http.server.request.duration",
                "Duration of requests for answers",
                "s",
                HTTP,
            ),
            served: meter(
                "gen_ai.server.request.duration",
                "From a request's arrival to the end of its answer",
                "s",
                DURATION,
            ),
            first_token: meter(
                "gen_ai.server.time_to_first_token",
                "From a request's arrival to its first token",
                "s",
                FIRST,
            ),
            per_token: meter(
                "gen_ai.server.time_per_output_token",
                "Between tokens after the first",
                "s",
                BETWEEN,
            ),
            asked: meter(
                "gen_ai.client.operation.duration",
                "Duration of asking an engine, a peer or a provider",
                "s",
                DURATION,
            ),
            first_chunk: meter(
                "gen_ai.client.operation.time_to_first_chunk",
                "From asking to the first piece of a streamed answer",
                "s",
                FIRST,
            ),
            tokens: meter(
                "gen_ai.client.token.usage",
                "Tokens of prompts and answers",
                "{token}",
                TOKENS,
            ),
        }
    }

    /// Counts a request.
    pub(super) fn count(&mut self, told: &Told) {
        let story = &told.story;
        let Came::Client { route, operation } = &story.came else { return };
        let took = told.ended.since(told.began.mono);
        let error = error_of(story);
        let mut http = Attributes::default();
        http.text("http.request.method", "POST")
            .text("url.scheme", "http")
            .text("http.route", *route);
        if let Some(status) = story.status {
            http.int("http.response.status_code", u64::from(status));
        }
        http.maybe("error.type", fault_of(story));
        self.http.note(http, seconds(took));
        let last = story.turns.last();
        let mut served = Attributes::default();
        served
            .text("gen_ai.operation.name", last.map_or(*operation, |turn| turn.operation))
            .text("gen_ai.provider.name", last.map_or(OURS, |turn| provider(&turn.whom)))
            .maybe("gen_ai.request.model", story.records.first().map(|record| &record.model))
            .maybe("gen_ai.response.model", last.and_then(|turn| turn.answered_by.as_ref()))
            .maybe("error.type", error);
        for record in &story.records {
            let Outcome::Finished { usage, .. } = &record.outcome else { continue };
            let Some(first) = record.first_token else { continue };
            self.first_token.note(served.clone(), seconds(first));
            let after = Micros(record.took.0.saturating_sub(first.0));
            if let Some(gaps) = usage.completion_tokens.checked_sub(1).filter(|gaps| *gaps > 0) {
                self.per_token.note(served.clone(), seconds(after) / f64::from(gaps));
            }
        }
        self.served.note(served, seconds(took));
        for turn in &story.turns {
            self.turn(turn);
        }
    }

    fn turn(&mut self, turn: &Turn) {
        self.asked.note(common(turn), seconds(turn.ended.since(turn.began)));
        if let Some(first) = turn.first.filter(|_| turn.streams == Some(true)) {
            self.first_chunk.note(common(turn), seconds(first.since(turn.began)));
        }
        let Some(usage) = &turn.usage else { return };
        for (kind, tokens) in [("input", usage.prompt_tokens), ("output", usage.completion_tokens)]
        {
            if kind == "output" && turn.operation == EMBEDDINGS {
                continue;
            }
            let mut attributes = common(turn);
            // It is no attribute of this metric.
            attributes.0.retain(|attribute| attribute.key != "error.type");
            attributes.text("gen_ai.token.type", kind);
            self.tokens.note(attributes, tokens as f64);
        }
    }

    /// What was counted until now; metrics of which nothing was counted are left out.
    pub(super) fn metrics(&self, now: Wall) -> Vec<Metric> {
        let all = [
            &self.http,
            &self.served,
            &self.first_token,
            &self.per_token,
            &self.asked,
            &self.first_chunk,
            &self.tokens,
        ];
        let nanos = |wall: Wall| wall.0.saturating_mul(1_000_000);
        let counted = all.into_iter().filter(|meter| !meter.rows.is_empty());
        counted.map(|meter| meter.metric((nanos(self.began), nanos(now)))).collect()
    }
}

/// One histogram.
struct Meter {
    name: &'static str,
    help: &'static str,
    unit: &'static str,
    bounds: &'static [f64],
    /// By the attributes' text, which tells them apart and has an order.
    rows: BTreeMap<String, Row>,
}

struct Row {
    attributes: Attributes,
    counts: Vec<u64>,
    sum: f64,
    min: f64,
    max: f64,
}

impl Meter {
    fn new([name, help, unit]: [&'static str; 3], bounds: &'static [f64]) -> Self {
        Self { name, help, unit, bounds, rows: BTreeMap::new() }
    }

    fn note(&mut self, attributes: Attributes, value: f64) {
        let (mut key, mut attributes) = (format!("{attributes:?}"), attributes);
        if !self.rows.contains_key(&key) && self.rows.len() >= MAX_ROWS - 1 {
            let value = Some(AnyValue { value: Some(Value::Bool(true)) });
            attributes.0 = vec![KeyValue { key: "otel.metric.overflow".to_owned(), value }];
            key = String::new();
        }
        let row = self.rows.entry(key).or_insert_with(|| Row {
            attributes,
            counts: vec![0; self.bounds.len() + 1],
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        });
        // Bounds are inclusive.
        row.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        row.sum += value;
        row.min = row.min.min(value);
        row.max = row.max.max(value);
    }

    fn metric(&self, (start, now): (u64, u64)) -> Metric {
        let point = |row: &Row| Point {
            start_time_unix_nano: start,
            time_unix_nano: now,
            count: row.counts.iter().sum(),
            sum: Some(row.sum),
            bucket_counts: row.counts.clone(),
            explicit_bounds: self.bounds.to_vec(),
            attributes: row.attributes.0.clone(),
            min: Some(row.min),
            max: Some(row.max),
        };
        Metric {
            name: self.name.to_owned(),
            description: self.help.to_owned(),
            unit: self.unit.to_owned(),
            histogram: Some(Histogram {
                points: self.rows.values().map(point).collect(),
                temporality: CUMULATIVE,
            }),
        }
    }
}
