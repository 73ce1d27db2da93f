//! The cache of answers, between the admin API's words and the runtime's.

use selvedge_base::{Code, Refusal, Stage};
use selvedge_runtime::{CacheView, Purged, Scope};
use serde_json::Value;

use super::{Bridge, done, said};
use crate::http::wire;

impl Bridge {
    pub(super) fn cache_told(&self) -> Option<wire::Cache> {
        let CacheView { entries, bytes, counts, bounds, peers } = self.gateway.cache_view()?;
        Some(wire::Cache {
            enabled: true,
            entries,
            max_entries: bounds.entries as u64,
            bytes,
            max_bytes: bounds.bytes,
            ttl_s: bounds.ttl.0 / 1_000_000,
            hits: counts.hits,
            misses: counts.misses,
            coalesced: counts.coalesced,
            stored: counts.stored,
            evicted: counts.evicted,
            expired: counts.expired,
            purged: counts.purged,
            fetched: counts.fetched,
            lent: counts.lent,
            peers,
        })
    }

    pub(super) fn cache_show(&self) -> Result<Value, Refusal> {
        said(&self.cache_told().unwrap_or_default())
    }

    pub(super) async fn cache_purge(&self, purge: wire::CachePurge) -> Result<Value, Refusal> {
        let account = purge.account.map(|path| path.parse()).transpose().map_err(|error| {
            Refusal::client(Stage::Validate, Code::InvalidRequest, format!("{error}"))
                .param("account")
        })?;
        let scope = Scope { account, model: purge.model };
        done(told(&self.gateway.purge_cache(scope).await?))
    }
}

/// What became of a purge, in words.
fn told(purged: &Purged) -> String {
    let Purged { gone, told, linked, older } = purged;
    let mut said = match gone {
        Some(count) => format!("{count} answers are gone"),
        None => "no answers are kept here: the cache is off".to_owned(),
    };
    if *linked > 0 {
        said.push_str(&format!("; {told} of {linked} other nodes know of it"));
    }
    if told < linked {
        said.push_str(", the others hear of it when they are back");
    }
    if !older.is_empty() {
        let older = older.join(", ");
        said.push_str(&format!("; purge by hand at these, of an older version: {older}"));
    }
    said
}
