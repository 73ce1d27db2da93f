//! The clock, providers as tests configure them, and small helpers.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use selvedge_base::{Dice, Micros, Mono, Now, Wall};
use selvedge_core::upstream::provider::RawModel;
use selvedge_core::upstream::{ProviderKind, RawProvider, Report};
use selvedge_upstream::{
    Answer, Clock, Credential, Failed, Provider, Roots, Secret, Shared, Target, TargetSettings,
};
use tokio::time::Instant;

use crate::shape;

/// tokio's own clock, so that a paused test controls all times alike.
pub(crate) fn clock() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let since = now.saturating_duration_since(*START.get_or_init(|| now));
    let micros = u64::try_from(since.as_micros()).unwrap();
    // Any moment will do; signatures have whole seconds, and a test is over within one.
    Now { mono: Mono(1_000_000 + micros), wall: Wall(1_440_938_160_000) }
}

pub(crate) const CLOCK: Clock = Clock { mono: || clock().mono, wall: || clock().wall };

pub(crate) fn soon() -> Mono {
    clock().mono.plus(Micros::secs(600))
}

pub(crate) type Reports = Arc<Mutex<Vec<Report>>>;

/// A provider's configuration for a server on loopback.
pub(crate) fn raw(kind: ProviderKind, address: SocketAddr) -> RawProvider {
    let keys = if kind == ProviderKind::Ollama { vec![] } else { vec!["main".to_owned()] };
    RawProvider {
        base_url: format!("http://{address}"),
        keys,
        models: vec![RawModel { name: "m".to_owned(), ..RawModel::default() }],
        region: shape::REGION.to_owned(),
        attempts: 1,
        ..RawProvider::named("acme", kind)
    }
}

pub(crate) fn provider(raw: &RawProvider) -> (Provider, Reports) {
    provider_with(raw, Roots::public().unwrap(), TargetSettings::default())
}

pub(crate) fn provider_with(
    raw: &RawProvider,
    roots: Roots,
    settings: TargetSettings,
) -> (Provider, Reports) {
    let spec = raw.checked().unwrap();
    let text = Secret::new(shape::vault_text(spec.kind));
    let credential = |name: &String| Some(Credential::of(spec.kind, name, &text).unwrap());
    let credentials = spec.keys.iter().map(credential).collect();
    let reports = Reports::default();
    let heard = Arc::clone(&reports);
    let watcher = Box::new(move |_: &_, report: &Report| heard.lock().push(report.clone()));
    let target = Target::new(&spec, roots, None, settings, CLOCK).unwrap();
    let shared = Shared::new(spec, credentials, Dice::keyed(1, "test"), CLOCK, watcher);
    (Provider::new(shared, target), reports)
}

/// Everything of an answer.
pub(crate) async fn all(answer: &mut Answer) -> Result<Bytes, Failed> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}
