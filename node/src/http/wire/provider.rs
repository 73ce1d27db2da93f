//! The JSON of providers and their keys.
//!
//! Owns names and shapes, as its parent does. A provider itself is said in its raw form.

use std::fmt;

use selvedge_core::upstream::RawProvider;
use serde::{Deserialize, Serialize};

/// `POST /admin/provider-keys`: the only place where a provider's key is said.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderKey {
    /// What providers call it by.
    pub(crate) name: String,
    /// The key.
    pub(crate) key: String,
}

impl fmt::Debug for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One line of `GET /admin/provider-keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredKey {
    /// Its name.
    pub(crate) name: String,
    /// Its last characters; empty when it is too short to show any.
    pub(crate) hint: String,
    /// When it was added.
    pub(crate) added_ms: u64,
}

/// `GET` and `POST /admin/routes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Routes {
    /// Counts the changes at this node; not said when they are sent.
    #[serde(default)]
    pub(crate) sequence: u64,
    /// What the operator wrote, in TOML.
    pub(crate) text: String,
}

/// One line of `GET /admin/providers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Provider {
    /// What is configured.
    pub(crate) provider: RawProvider,
    /// Where it is.
    pub(crate) address: String,
    /// Those of its keys that this node does not have.
    pub(crate) missing_keys: Vec<String>,
    /// Requests under way.
    pub(crate) running: u32,
    /// Why it would not be asked now, if so.
    pub(crate) left_alone: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed() {
        let key = ProviderKey { name: "main".to_owned(), key: "sk-planted-1".to_owned() };
        let shown = format!("{key:?}");
        assert!(shown.contains("main") && !shown.contains("planted"), "{shown}");
    }
}
