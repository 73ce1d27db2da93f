//! The configuration as an operator hands it in: one file.
//!
//! A node's own book is replaced as a whole. For the mesh each entry of it is a record of its own:
//! see [`super::Item`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BOOK_VERSION, RouteConfig, RouteError};
use crate::catalogue::Entry;

/// Routes, aliases and an operator's entries for the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteBook {
    /// Its shape: [`BOOK_VERSION`].
    #[serde(default = "current")]
    pub version: u8,
    /// Other names, and the name each stands for.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// The routes.
    #[serde(rename = "route", default)]
    pub routes: Vec<RouteConfig>,
    /// Entries that replace fields of the catalogue's, or add to it.
    #[serde(rename = "model", default)]
    pub models: Vec<Entry>,
}

const fn current() -> u8 {
    BOOK_VERSION
}

impl Default for RouteBook {
    fn default() -> Self {
        Self {
            version: BOOK_VERSION,
            aliases: BTreeMap::new(),
            routes: Vec::new(),
            models: Vec::new(),
        }
    }
}

impl RouteBook {
    /// A book as an operator writes it, in TOML. Nothing is checked yet but its shape.
    ///
    /// # Errors
    /// [`RouteError::Text`] with line and column.
    pub fn from_toml(text: &str) -> Result<Self, RouteError> {
        toml::from_str(text).map_err(|error| RouteError::Text(error.to_string()))
    }
}
