//! The JSON of providers and their keys.
//!
//! Owns names and shapes, as its parent does. A provider itself is said in its raw form.

use std::fmt;

use schemars::JsonSchema;
use selvedge_core::routes::Item;
use selvedge_core::upstream::RawProvider;
use selvedge_proto::settings::SettingKey;
use serde::{Deserialize, Serialize};

/// `POST /admin/provider-keys`: the only place where a provider's key is said.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct StoredKey {
    /// Its name.
    pub(crate) name: String,
    /// Its last characters; empty when it is too short to show any.
    pub(crate) hint: String,
    /// When it was added.
    pub(crate) added_ms: u64,
}

/// `GET` and `POST /admin/routes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Routes {
    /// Counts the changes at this node; not said when they are sent.
    #[serde(default)]
    pub(crate) sequence: u64,
    /// What the operator wrote, in TOML.
    pub(crate) text: String,
    /// What of it is not used as it is, and why.
    #[serde(default)]
    pub(crate) troubles: Vec<String>,
    /// What trying small models first came to, at this node since its start; not said when they
    /// are sent.
    #[serde(default)]
    pub(crate) savings: Vec<RouteSaving>,
}

/// What trying small models first came to at one route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RouteSaving {
    /// The route.
    pub(crate) route: String,
    /// Answers.
    pub(crate) answers: u64,
    /// Those for which a larger model was asked, since a smaller one's was found wanting.
    pub(crate) escalated: u64,
    /// Paid for those whose largest model has a price, in millionths of a dollar.
    pub(crate) paid_micro_dollars: u64,
    /// What that model alone would have cost for them.
    pub(crate) instead_micro_dollars: u64,
}

/// One version of an entry of the mesh's routes: `GET /admin/mesh-routes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RouteEntry {
    /// `route`, `alias` or `model`; `removed`; or `unknown`, of a newer program.
    pub(crate) kind: String,
    /// The name that clients ask for, or the model's `KIND/ID`.
    pub(crate) name: String,
    /// Counts the versions from 1.
    pub(crate) version: u64,
    /// The version, and what tells it from another of the same number.
    pub(crate) label: String,
    /// When it was signed.
    pub(crate) issued_ms: u64,
    /// The node that signed as a steward; none for the root key.
    pub(crate) signer: Option<String>,
    /// Whether it says that the entry is removed.
    pub(crate) removed: bool,
    /// As an operator would write it, in TOML.
    pub(crate) text: Option<String>,
    /// Why this node does not use it as it is.
    pub(crate) trouble: Option<String>,
}

/// What an entry is found under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EntryKind {
    /// The name that clients ask for.
    #[default]
    Name,
    /// A model, written `KIND/ID`.
    Model,
}

/// `POST /admin/mesh-routes/remove` and `/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryOrder {
    /// Which kind.
    #[serde(default)]
    pub(crate) kind: EntryKind,
    /// Its name.
    pub(crate) name: String,
    /// The version to go back to; the one before when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
}

impl EntryKind {
    /// As it stands in a path.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Model => "model",
        }
    }

    /// The key of an entry of this kind.
    pub(crate) const fn key(self, name: String) -> SettingKey {
        match self {
            Self::Name => Item::key_of_name(name),
            Self::Model => Item::key_of_model(name),
        }
    }
}

/// One line of `GET /admin/providers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
