//! Providers and their keys, between the admin API's words and the runtime's.

use selvedge_base::Refusal;
use selvedge_core::upstream::RawProvider;
use serde_json::Value;

use super::{Bridge, done, said};
use crate::http::wire;

impl Bridge {
    pub(super) async fn provider_add(&self, provider: RawProvider) -> Result<Value, Refusal> {
        let name = provider.name.clone();
        self.admin.provider_add(provider).await?;
        done(format!("provider '{name}' is asked from now on"))
    }

    pub(super) fn providers(&self) -> Result<Value, Refusal> {
        let line = |view: selvedge_runtime::ProviderView| wire::Provider {
            provider: view.raw,
            address: view.address,
            missing_keys: view.missing_keys,
            running: view.running,
            left_alone: view.left_alone,
        };
        said(&wire::List { data: self.admin.providers().into_iter().map(line).collect() })
    }

    pub(super) async fn provider_key_add(&self, key: wire::ProviderKey) -> Result<Value, Refusal> {
        self.admin.provider_key_add(&key.name, key.key).await?;
        done(format!("stored key '{}', sealed with this node's own", key.name))
    }

    pub(super) fn provider_keys(&self) -> Result<Value, Refusal> {
        let line = |key: selvedge_runtime::KeyListing| wire::StoredKey {
            name: key.name,
            hint: key.hint,
            added_ms: key.added.0 / 1_000,
        };
        said(&wire::List { data: self.admin.provider_keys().into_iter().map(line).collect() })
    }

    pub(super) async fn provider_remove(&self, name: &str) -> Result<Value, Refusal> {
        self.admin.provider_remove(name).await?;
        done(format!("provider '{name}' is not asked any more"))
    }

    pub(super) async fn provider_key_remove(&self, name: &str) -> Result<Value, Refusal> {
        self.admin.provider_key_remove(name).await?;
        done(format!("removed key '{name}'"))
    }
}
