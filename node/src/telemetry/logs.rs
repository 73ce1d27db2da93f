//! A request as log records: one for each answer that was wanted, or for why there was none.
//!
//! Owns what stands in them: the terminal record's figures, without any text of prompts, answers
//! or providers.

use selvedge_base::Blame;
use selvedge_core::RequestRecord;
use selvedge_core::record::Outcome;
use selvedge_runtime::{Came, Told};

use super::names::{Attributes, nanos};
use super::otlp::{AnyValue, LogRecord, Value};
use super::spans::error_of;

/// The name of the event.
const EVENT: &str = "selvedge.request";
/// `SeverityNumber` and its text.
const INFO: (i32, &str) = (9, "INFO");
const WARN: (i32, &str) = (13, "WARN");
const ERROR: (i32, &str) = (17, "ERROR");

/// The records of a request that came from a client; what a peer handed over is told of where it
/// came from.
pub(super) fn records(told: &Told) -> Vec<LogRecord> {
    let story = &told.story;
    let Came::Client { route, operation } = &story.came else { return Vec::new() };
    let mut all = Attributes::default();
    all.text("http.route", *route).text("gen_ai.operation.name", *operation);
    if let Some(status) = story.status {
        all.int("http.response.status_code", u64::from(status));
    }
    if story.records.is_empty() {
        all.text("selvedge.outcome", "refused").maybe("error.type", error_of(story));
        return vec![record(told, "request refused", WARN, all)];
    }
    story.records.iter().map(|known| one(told, known, all.clone())).collect()
}

fn one(told: &Told, known: &RequestRecord, mut all: Attributes) -> LogRecord {
    all.text("selvedge.request.id", known.id.to_string())
        .text("selvedge.tenant", &known.tenant)
        .text("gen_ai.request.model", &known.model)
        .maybe("selvedge.downgraded_to", known.downgraded_to.as_ref())
        .seconds("selvedge.duration", Some(known.took))
        .seconds("selvedge.time_to_first_token", known.first_token)
        .seconds("selvedge.longest_gap", known.longest_gap)
        .int("selvedge.nodes_tried", known.attempts.len() as u64);
    let asked = known.legs.iter().filter(|leg| leg.asked).map(|leg| leg.target.to_string());
    all.list("selvedge.targets", asked);
    let (said, outcome, severity) = match &known.outcome {
        Outcome::Finished { usage, .. } => {
            all.int("gen_ai.usage.input_tokens", u64::from(usage.prompt_tokens))
                .int("gen_ai.usage.output_tokens", u64::from(usage.completion_tokens));
            ("request finished", "finished", INFO)
        }
        Outcome::Failed(refusal) => {
            all.text("error.type", refusal.code.as_str());
            let theirs = refusal.blame == Blame::Client;
            ("request failed", "failed", if theirs { WARN } else { ERROR })
        }
        Outcome::Cancelled | Outcome::Running => ("request cancelled", "cancelled", WARN),
    };
    all.text("selvedge.outcome", outcome);
    record(told, said, severity, all)
}

fn record(
    told: &Told,
    said: &str,
    (severity_number, severity): (i32, &str),
    attributes: Attributes,
) -> LogRecord {
    let at = nanos(told.began, told.ended);
    LogRecord {
        time_unix_nano: at,
        observed_time_unix_nano: at,
        severity_number,
        severity_text: severity.to_owned(),
        body: Some(AnyValue { value: Some(Value::Text(said.to_owned())) }),
        attributes: attributes.0,
        flags: u32::from(told.context.flags()),
        trace_id: told.context.trace.to_be_bytes().to_vec(),
        span_id: told.context.span.to_be_bytes().to_vec(),
        event_name: EVENT.to_owned(),
    }
}
