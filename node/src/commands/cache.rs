//! `selvedge cache`: the answers that this node and its peers keep.

use anyhow::Result;

use crate::cli;
use crate::client::Client;
use crate::home::Home;
use crate::http::wire;
use crate::ui;

/// Carries out a command on the cache.
pub(crate) fn cache(home: &Home, command: &cli::Cache) -> Result<()> {
    let client = Client::admin(&home.running()?);
    match command {
        cli::Cache::Show { json } => {
            let cache: wire::Cache = client.get("/admin/cache")?;
            if *json {
                ui::out(format_args!("{:#}", serde_json::to_value(&cache)?));
            } else {
                ui::out(told(&cache));
            }
        }
        cli::Cache::Purge(purge) => {
            let purge =
                wire::CachePurge { account: purge.account.clone(), model: purge.model.clone() };
            let done: wire::Done = client.post("/admin/cache/purge", &purge)?;
            ui::out(done.done);
        }
    }
    Ok(())
}

fn told(cache: &wire::Cache) -> String {
    if !cache.enabled {
        return "the cache is off; [cache] enabled = true in the configuration switches it on"
            .to_owned();
    }
    let peers = cache.peers.iter().map(|(name, answers)| format!("\n{name} keeps {answers}"));
    format!(
        "{} of at most {} answers, {} of at most {} bytes, each for {} s\n\
         {} hits, {} misses, {} waited for an equal one\n\
         {} stored, {} evicted, {} too old, {} purged\n\
         {} from other nodes, {} given to them{}",
        cache.entries,
        cache.max_entries,
        cache.bytes,
        cache.max_bytes,
        cache.ttl_s,
        cache.hits,
        cache.misses,
        cache.coalesced,
        cache.stored,
        cache.evicted,
        cache.expired,
        cache.purged,
        cache.fetched,
        cache.lent,
        peers.collect::<String>()
    )
}
