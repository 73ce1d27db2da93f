//! What became of a request, for the account that made it, and what its answer should have been.
//!
//! Owns who is told. What is remembered and for how long is the node's; how it reads is
//! `crate::record`'s.

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::body::{Answer, json};
use super::errors::Problem;
use super::route::Surface;
use super::router::Exchange;
use super::wire;
use crate::record::Record;

impl Exchange<'_> {
    /// The record of a past request. Any key reads its own; those of its account a key that opens
    /// `models`. One that is another account's, or about a model that the key does not open, is not
    /// told apart from one that never was.
    pub(super) fn past(&self, id: &str, parts: &Parts) -> Result<Response<Answer>, Problem> {
        let holder = self.caller(parts)?;
        let id = id.parse().map_err(|error| Problem::invalid("id", format!("{error}")))?;
        let record = self.app.backend.record_of(id, holder);
        // What is its own it asked for itself, by whatever name led to the model.
        let may_see = |record: &Record| !holder.reads_account() || holder.may_ask(&record.model);
        match record.filter(may_see) {
            Some(record) => Ok(json(StatusCode::OK, &record)),
            None => Err(unknown()),
        }
    }

    /// Labels of a past request to a learned model, from whoever made it: this node may learn from
    /// them.
    pub(super) async fn label(
        &self,
        id: &str,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Response<Answer>, Problem> {
        let id = id.parse().map_err(|error| Problem::invalid("id", format!("{error}")))?;
        let (caller, received) = self.receive(parts, body, Surface::Inference).await?;
        let wire::Labels { labels } = super::admin::decode(&received.bytes)?;
        let told = self.app.backend.label(id, &caller.holder, labels).await?;
        Ok(json(StatusCode::OK, &told))
    }
}

fn unknown() -> Problem {
    let message = "no such request of this key's account is remembered here: a node keeps its \
                   latest records, and only of the requests that were sent to it";
    Problem::new(StatusCode::NOT_FOUND, "not_found", message).param("id")
}
