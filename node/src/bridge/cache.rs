//! The cache of answers, between the admin API's words and the runtime's.

use selvedge_base::{Code, Refusal, Stage};
use selvedge_runtime::{CacheView, Scope};
use serde_json::Value;

use super::{Bridge, done, said};
use crate::http::wire;

impl Bridge {
    pub(super) fn cache_told(&self) -> Option<wire::Cache> {
        let CacheView { entries, bytes, counts, bounds } = self.gateway.cache_view()?;
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
        })
    }

    pub(super) fn cache_show(&self) -> Result<Value, Refusal> {
        said(&self.cache_told().unwrap_or_default())
    }

    pub(super) fn cache_purge(&self, purge: wire::CachePurge) -> Result<Value, Refusal> {
        let account = purge.account.map(|path| path.parse()).transpose().map_err(|error| {
            Refusal::client(Stage::Validate, Code::InvalidRequest, format!("{error}"))
                .param("account")
        })?;
        let scope = Scope { account, model: purge.model };
        match self.gateway.purge_cache(&scope) {
            Some(count) => done(format!("{count} answers are gone")),
            None => done("no answers are kept here: the cache is off".to_owned()),
        }
    }
}
