//! What a mesh is told to do by configuration, as signed records that every node keeps.
//!
//! A *setting* has a kind and a name, and is changed by signing its next version; removing it is a
//! version without content, going back is a version with the content of an older one. Two sides of
//! a cut may both change it: the higher version governs, of two alike the one with the larger name
//! of its own ([`Setting::id`]), and the other stays in the history. So all nodes that have heard
//! the same hold the same, whatever came first.
//! Owns the records, their signed bytes, their checks, their history and how they spread. Does not
//! know what their contents mean, and holds no private key.

mod book;
mod exchange;
mod issue;
mod record;

use selvedge_base::Micros;
use thiserror::Error;

use crate::records::{CLOCK_SKEW, MAX_LEASE, RecordError};

pub use book::{SettingPart, SettingsBook};
pub use exchange::{
    SETTINGS_BUDGET_BYTES, SettingsChanged, SettingsDelta, SettingsDigest, SettingsMessage,
};
pub use issue::{Which, sign_setting};
pub use record::{Setting, SettingKey, SettingNotice};

/// Settings of one mesh, removed ones that are remembered among them: all routes, aliases and
/// entries for the catalogue that one book may hold (256, 1,024 and 512), and some more.
pub const MAX_SETTINGS: usize = 2_048;
/// Versions kept of one setting: a working day's changes to go back over.
pub const MAX_HISTORY: usize = 8;
/// The longest name of a setting: a model of a provider has the longest, 256 bytes and its kind.
pub const MAX_SETTING_NAME: usize = 320;
/// The largest content: a route of 32 targets, each with a provider, a model and a region of the
/// longest names.
pub const MAX_CONTENT_BYTES: usize = 32 << 10;
/// What all settings may take together, history included: 2,048 of them with eight versions of
/// 500 bytes, which is a usual route.
pub const MAX_SETTINGS_BYTES: usize = 8 << 20;
/// How long a removed setting is remembered, so that nobody brings it back who has not heard. A
/// node that was out of contact for longer has no membership that any other finds good.
pub const REMOVED_KEPT: Micros = Micros(MAX_LEASE.0 + CLOCK_SKEW.0);

/// What is wrong with a setting, or with the wish to sign one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingError {
    /// The name cannot be used.
    #[error("a setting's name needs 1 to {MAX_SETTING_NAME} printable ASCII characters")]
    Name,
    /// The content cannot be used.
    #[error("'{name}' has {bytes} bytes of content; 1 to {MAX_CONTENT_BYTES} are allowed")]
    Content {
        /// Whose.
        name: String,
        /// How many.
        bytes: usize,
    },
    /// Versions count from 1.
    #[error("'{0}' has no version")]
    Version(String),
    /// Somebody took the greatest number there is.
    #[error("'{0}' has no next version; replace the root key with `selvedge mesh root rotate`")]
    LastVersion(String),
    /// Records of several settings came as one.
    #[error("the history of '{0}' names another setting")]
    Mixed(String),
    /// There is no such setting.
    #[error("there is no '{0}' in this mesh")]
    Unknown(String),
    /// There is nothing to go back to.
    #[error("'{name}' has no version {which} here; its history shows what is kept")]
    NoVersion {
        /// The setting.
        name: String,
        /// What was asked for.
        which: String,
    },
    /// The signer's right stems from a root key that was replaced since.
    #[error(
        "'{name}' was changed under root key {theirs}, and this node's right to sign is of root \
         key {ours}: change it where the root key is, or renew this steward"
    )]
    OldRoot {
        /// The setting.
        name: String,
        /// The generation that changed it.
        theirs: u32,
        /// The signer's.
        ours: u32,
    },
    /// The signature or its signer's right.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No room is left.
    #[error("no room for another setting: {limit} {what} are held, removed ones among them")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many are held.
        limit: usize,
    },
}

#[cfg(test)]
mod tests;
