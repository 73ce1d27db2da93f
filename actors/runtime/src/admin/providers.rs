//! An operator's verbs about providers, their keys, and the routes that lead to them.

use std::collections::BTreeMap;

use selvedge_base::Refusal;
use selvedge_core::upstream::RawProvider;
use selvedge_proto::settings::{SettingKey, Which};
use selvedge_upstream::KeyListing;

use super::Admin;
use crate::providers::{ProviderView, ProvidersError};
use crate::routing::{RouteSaving, SharedEntry, StoredBook};

impl Admin {
    /// Adds a provider or replaces the one of that name.
    ///
    /// # Errors
    /// A refusal that says what is wrong with it, or that the disk does not take it.
    pub async fn provider_add(&self, provider: RawProvider) -> Result<(), Refusal> {
        let added = self.shared.providers.add(provider).await;
        // Routes that lead there are of use now, or lead there otherwise.
        self.shared.routing.rebuild();
        added.map_err(|error: ProvidersError| error.refusal())
    }

    /// Removes a provider; requests under way at it go on.
    ///
    /// # Errors
    /// A refusal when there is none of this name, or the disk does not take it.
    pub async fn provider_remove(&self, name: &str) -> Result<(), Refusal> {
        let removed = self.shared.providers.remove(name).await;
        self.shared.routing.rebuild();
        removed.map_err(|error| error.refusal())
    }

    /// All providers, by name.
    pub fn providers(&self) -> Vec<ProviderView> {
        self.shared.providers.list()
    }

    /// Stores a provider's key, sealed with this node's own.
    ///
    /// # Errors
    /// A refusal that says what is wrong with it, without it.
    pub async fn provider_key_add(&self, name: &str, key: String) -> Result<(), Refusal> {
        self.shared.providers.key_add(name, key).await.map_err(|error| error.refusal())
    }

    /// Removes a provider's key.
    ///
    /// # Errors
    /// A refusal when there is none of this name, or the disk does not take it.
    pub async fn provider_key_remove(&self, name: &str) -> Result<(), Refusal> {
        self.shared.providers.key_remove(name).await.map_err(|error| error.refusal())
    }

    /// The stored keys, without the keys.
    pub fn provider_keys(&self) -> Vec<KeyListing> {
        self.shared.providers.keys()
    }

    /// What trying small models first came to at this node, by route.
    pub fn routes_savings(&self) -> BTreeMap<String, RouteSaving> {
        self.shared.routing.savings()
    }

    /// This node's own routes, as they were written.
    pub fn routes(&self) -> StoredBook {
        self.shared.routing.book()
    }

    /// What of them is not used as it is, and why.
    pub fn routes_troubles(&self) -> Vec<String> {
        self.shared.routing.troubles()
    }

    /// Puts own routes of this node in force, replacing those before; their number.
    ///
    /// # Errors
    /// A refusal that names what is wrong with them; then those before stay in force.
    pub async fn routes_set(&self, text: String) -> Result<u64, Refusal> {
        self.shared.routing.set(text).await
    }

    /// Puts this node's own routes before the present ones in force again; their new number.
    ///
    /// # Errors
    /// A refusal when there are none, or they do not fit the providers any more.
    pub async fn routes_roll_back(&self) -> Result<u64, Refusal> {
        self.shared.routing.roll_back().await
    }

    /// The entries of the mesh's routes, aliases and catalogue.
    pub fn shared_routes(&self) -> Vec<SharedEntry> {
        self.shared.routing.shared()
    }

    /// The versions of one of them, the one that governs first.
    pub fn shared_history(&self, key: &SettingKey) -> Vec<SharedEntry> {
        self.shared.routing.history(key)
    }

    /// Signs the entries of a text for the whole mesh; others stay as they are.
    ///
    /// # Errors
    /// A refusal when one of them could not be used at this node, or this node may not sign.
    pub async fn shared_set(&self, text: &str) -> Result<Vec<SharedEntry>, Refusal> {
        self.shared.routing.share(text).await
    }

    /// Removes an entry from the whole mesh.
    ///
    /// # Errors
    /// A refusal when there is none, something else leads to it, or this node may not sign.
    pub async fn shared_remove(&self, key: SettingKey) -> Result<Vec<SharedEntry>, Refusal> {
        self.shared.routing.unshare(key).await
    }

    /// Signs what an older version of an entry said as its next one.
    ///
    /// # Errors
    /// A refusal when there is no such version, it cannot be used any more, or this node may not
    /// sign.
    pub async fn shared_roll_back(
        &self,
        key: SettingKey,
        which: Which,
    ) -> Result<Vec<SharedEntry>, Refusal> {
        self.shared.routing.go_back(key, which).await
    }
}
