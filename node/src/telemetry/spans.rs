//! A request as spans: one of this node's work, and one for everybody who was asked.
//!
//! Owns what stands in them. Text of prompts and answers is in none, nor a message that a provider
//! wrote: errors are told by their codes.

use selvedge_base::Code;
use selvedge_core::record::Outcome;
use selvedge_runtime::{Came, EMBEDDINGS, Story, Told, Turn, Whom};

use super::names::{Attributes, common, nanos};
use super::otlp::{CLIENT, ERROR, Event, HAS_IS_REMOTE, INTERNAL, IS_REMOTE, SERVER, Span, Status};

/// The spans of a request that is looked at.
pub(super) fn spans(told: &Told) -> Vec<Span> {
    if !told.context.sampled() {
        return Vec::new();
    }
    let turns = told.story.turns.iter().map(|turn| asked(told, turn));
    std::iter::once(served(told)).chain(turns).collect()
}

/// The code of the error that the request ended with, wherever it was told.
pub(super) fn error_of(story: &Story) -> Option<&'static str> {
    if story.error.is_some() {
        return story.error;
    }
    let failed = story.records.iter().find_map(|record| match &record.outcome {
        Outcome::Failed(refusal) => Some(refusal.code.as_str()),
        Outcome::Cancelled => Some(Code::Cancelled.as_str()),
        Outcome::Finished { .. } | Outcome::Running => None,
    });
    let left = matches!(story.came, Came::Client { .. }) && story.status.is_none();
    failed.or_else(|| left.then(|| Code::Cancelled.as_str()))
}

/// The same, where it is none of the client's: a refusal of what it sent is its own error, and
/// leaving is its right.
pub(super) fn fault_of(story: &Story) -> Option<&'static str> {
    let refused = story.status.is_some_and(|status| (400..500).contains(&status));
    error_of(story).filter(|code| !refused && *code != Code::Cancelled.as_str())
}

/// This node's work on a request.
fn served(told: &Told) -> Span {
    let story = &told.story;
    let mut attributes = Attributes::default();
    let (name, failed) = match &story.came {
        Came::Client { route, .. } => {
            let model = story.records.first().map(|record| record.model.as_str());
            let path = model.map_or((*route).to_owned(), |model| route.replace("{model}", model));
            attributes
                .text("http.request.method", "POST")
                .text("http.route", *route)
                .text("url.path", path)
                .text("url.scheme", "http");
            if let Some(status) = story.status {
                attributes.int("http.response.status_code", u64::from(status));
            }
            let failed = fault_of(story);
            attributes.maybe("error.type", failed);
            attributes.maybe("selvedge.error.code", error_of(story));
            (format!("POST {route}"), failed.is_some())
        }
        Came::Peer { origin } => {
            attributes.text("selvedge.origin", origin);
            let failed = story.turns.iter().find_map(|turn| turn.error);
            attributes.maybe("error.type", failed);
            ("hand-off".to_owned(), failed.is_some())
        }
    };
    if let Some(record) = story.records.first() {
        attributes
            .text("selvedge.request.id", record.id.to_string())
            .text("selvedge.tenant", &record.tenant)
            .text("selvedge.model", &record.model)
            .maybe("selvedge.downgraded_to", record.downgraded_to.as_ref())
            .seconds("selvedge.time_to_first_token", record.first_token);
    }
    // Whether whoever asked is elsewhere is known: no other span of this node is its parent.
    let remote = if told.parent.is_some() { IS_REMOTE } else { 0 };
    Span {
        trace_id: told.context.trace.to_be_bytes().to_vec(),
        span_id: told.context.span.to_be_bytes().to_vec(),
        trace_state: told.context.state_text().to_owned(),
        parent_span_id: told.parent.map(|span| span.to_be_bytes().to_vec()).unwrap_or_default(),
        name,
        kind: SERVER,
        start_time_unix_nano: nanos(told.began, told.began.mono),
        end_time_unix_nano: nanos(told.began, told.ended),
        attributes: attributes.0,
        events: Vec::new(),
        status: status(failed),
        flags: u32::from(told.context.flags()) | HAS_IS_REMOTE | remote,
    }
}

/// One turn of somebody who was asked.
fn asked(told: &Told, turn: &Turn) -> Span {
    let mut all = common(turn);
    all.truth("gen_ai.request.stream", turn.streams)
        .maybe("gen_ai.response.id", turn.answer_id.as_ref())
        .list("gen_ai.response.finish_reasons", turn.finish.iter().copied());
    if let Some(usage) = &turn.usage {
        all.int("gen_ai.usage.input_tokens", usage.prompt_tokens);
        // Vectors are no tokens.
        if turn.operation != EMBEDDINGS {
            all.int("gen_ai.usage.output_tokens", usage.completion_tokens);
        }
        let some = [
            ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
            ("gen_ai.usage.cache_creation.input_tokens", usage.cache_creation_tokens),
            ("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens),
        ];
        for (name, tokens) in some.into_iter().filter(|(_, tokens)| *tokens > 0) {
            all.int(name, tokens);
        }
    }
    let first = turn.first.filter(|_| turn.streams == Some(true));
    all.seconds("gen_ai.response.time_to_first_chunk", first.map(|first| first.since(turn.began)));
    let kind = match &turn.whom {
        Whom::Here => INTERNAL,
        Whom::Peer { node } => {
            all.text("selvedge.peer", node);
            CLIENT
        }
        Whom::Provider { name, .. } => {
            all.text("selvedge.provider", name).int("selvedge.attempts", turn.attempts.into());
            CLIENT
        }
    };
    let event = |first| Event {
        time_unix_nano: nanos(told.began, first),
        name: "selvedge.first_piece".to_owned(),
    };
    Span {
        trace_id: told.context.trace.to_be_bytes().to_vec(),
        span_id: turn.span.to_be_bytes().to_vec(),
        trace_state: told.context.state_text().to_owned(),
        parent_span_id: told.context.span.to_be_bytes().to_vec(),
        name: format!("{} {}", turn.operation, turn.model),
        kind,
        start_time_unix_nano: nanos(told.began, turn.began),
        end_time_unix_nano: nanos(told.began, turn.ended),
        attributes: all.0,
        events: turn.first.map(event).into_iter().collect(),
        status: status(turn.error.is_some()),
        flags: u32::from(told.context.flags()) | HAS_IS_REMOTE,
    }
}

fn status(failed: bool) -> Option<Status> {
    failed.then_some(Status { code: ERROR })
}
