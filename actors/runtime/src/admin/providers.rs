//! An operator's verbs about providers, their keys, and the routes that lead to them.

use selvedge_base::Refusal;
use selvedge_core::upstream::RawProvider;
use selvedge_upstream::KeyListing;

use super::Admin;
use crate::providers::{ProviderView, ProvidersError};
use crate::routing::StoredBook;

impl Admin {
    /// Adds a provider or replaces the one of that name.
    ///
    /// # Errors
    /// A refusal that says what is wrong with it, or that the disk does not take it.
    pub async fn provider_add(&self, provider: RawProvider) -> Result<(), Refusal> {
        self.shared.providers.add(provider).await.map_err(|error: ProvidersError| error.refusal())
    }

    /// Removes a provider; requests under way at it go on.
    ///
    /// # Errors
    /// A refusal when there is none of this name, or the disk does not take it.
    pub async fn provider_remove(&self, name: &str) -> Result<(), Refusal> {
        self.shared.providers.remove(name).await.map_err(|error| error.refusal())
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

    /// The routes in force, as they were written.
    pub fn routes(&self) -> StoredBook {
        self.shared.routing.book()
    }

    /// Puts routes in force, replacing those before; their number.
    ///
    /// # Errors
    /// A refusal that names what is wrong with them; then those before stay in force.
    pub async fn routes_set(&self, text: String) -> Result<u64, Refusal> {
        self.shared.routing.set(text, &self.shared.providers).await
    }

    /// Puts the routes before the present ones in force again; their new number.
    ///
    /// # Errors
    /// A refusal when there are none, or they do not fit the providers any more.
    pub async fn routes_roll_back(&self) -> Result<u64, Refusal> {
        self.shared.routing.roll_back(&self.shared.providers).await
    }
}
