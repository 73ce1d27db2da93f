//! One entry of the configuration as the content of a setting of the mesh.
//!
//! Owns the bytes that are signed and the names under which entries are kept: a route and an alias
//! share the names that clients ask for, so that one replaces the other; an entry for the catalogue
//! has its provider's kind and its id.

use std::collections::BTreeMap;

use selvedge_base::codec;
use selvedge_proto::settings::{MAX_CONTENT_BYTES, SettingKey};
use serde::{Deserialize, Serialize};

use super::{ITEM_VERSION, RouteBook, RouteConfig, RouteError};
use crate::catalogue::Entry;

/// The version of the codec that the bytes are in; it is part of what is signed.
const CODEC_VERSION: u8 = codec::OLDEST_VERSION;
/// The kind of settings that are names clients ask for.
const NAMES: u8 = 1;
/// The kind of settings that are entries for the catalogue.
const MODELS: u8 = 2;

/// One entry of a book of routes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "few are held, and none for long")]
pub enum Item {
    /// A name and what answers for it.
    Route(RouteConfig),
    /// Another name.
    Alias {
        /// It.
        name: String,
        /// The name it stands for.
        to: String,
    },
    /// What is known of a provider's model.
    Model(Entry),
}

/// What a name means. New variants come last.
#[derive(Serialize, Deserialize)]
enum Meaning {
    Route(RouteConfig),
    Alias(String),
}

/// Entries as an operator writes them.
#[derive(Serialize)]
struct Written<'a> {
    aliases: BTreeMap<&'a String, &'a String>,
    route: Vec<&'a RouteConfig>,
    model: Vec<&'a Entry>,
}

impl Item {
    /// The key of the name that clients ask for.
    pub const fn key_of_name(name: String) -> SettingKey {
        SettingKey { kind: NAMES, name }
    }

    /// The key of a model, written `KIND/ID`.
    pub const fn key_of_model(name: String) -> SettingKey {
        SettingKey { kind: MODELS, name }
    }

    /// Where it is kept.
    pub fn key(&self) -> SettingKey {
        match self {
            Self::Route(route) => Self::key_of_name(route.name.clone()),
            Self::Alias { name, .. } => Self::key_of_name(name.clone()),
            Self::Model(entry) => Self::key_of_model(format!("{}/{}", entry.kind, entry.id)),
        }
    }

    /// What people call its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Route(_) => "route",
            Self::Alias { .. } => "alias",
            Self::Model(_) => "model",
        }
    }

    /// The entries of a book, each by itself.
    pub fn all_of(book: &RouteBook) -> Vec<Self> {
        let alias =
            |(name, to): (&String, &String)| Self::Alias { name: name.clone(), to: to.clone() };
        let routes = book.routes.iter().cloned().map(Self::Route);
        let models = book.models.iter().cloned().map(Self::Model);
        routes.chain(book.aliases.iter().map(alias)).chain(models).collect()
    }

    /// The content that is signed: the version of its shape, then the rest.
    ///
    /// # Errors
    /// [`RouteError::Bytes`] when it is too large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RouteError> {
        let most = MAX_CONTENT_BYTES - 1;
        let rest = match self {
            Self::Route(route) => {
                codec::encode_datagram_at(CODEC_VERSION, &Meaning::Route(route.clone()), most)
            }
            Self::Alias { to, .. } => {
                codec::encode_datagram_at(CODEC_VERSION, &Meaning::Alias(to.clone()), most)
            }
            Self::Model(entry) => codec::encode_datagram_at(CODEC_VERSION, entry, most),
        };
        let rest = rest.map_err(|error| RouteError::Bytes(error.to_string()))?;
        let mut bytes = vec![ITEM_VERSION];
        bytes.extend(rest);
        Ok(bytes)
    }

    /// The entry in such content. One that says another name than the setting's is refused.
    ///
    /// # Errors
    /// [`RouteError::Newer`] for what only a newer program understands, [`RouteError::Bytes`] for
    /// what nobody does.
    pub fn of_setting(key: &SettingKey, content: &[u8]) -> Result<Self, RouteError> {
        let refuse = |why: String| RouteError::Bytes(why);
        let (version, rest) = content.split_first().ok_or_else(|| refuse("it is empty".into()))?;
        if *version != ITEM_VERSION || ![NAMES, MODELS].contains(&key.kind) {
            return Err(RouteError::Newer { kind: key.kind, version: *version });
        }
        let malformed = |error: codec::CodecError| refuse(error.to_string());
        let item = if key.kind == MODELS {
            Self::Model(codec::decode_body(rest).map_err(malformed)?)
        } else {
            match codec::decode_body(rest).map_err(malformed)? {
                Meaning::Route(route) => Self::Route(route),
                Meaning::Alias(to) => Self::Alias { name: key.name.clone(), to },
            }
        };
        if item.key() != *key {
            return Err(refuse(format!("it says '{}'", item.key().name)));
        }
        Ok(item)
    }

    /// Entries as a file that an operator could have written.
    ///
    /// # Errors
    /// [`RouteError::Text`] for what TOML cannot say.
    pub fn to_toml(items: &[Self]) -> Result<String, RouteError> {
        let mut all = Written { aliases: BTreeMap::new(), route: Vec::new(), model: Vec::new() };
        for item in items {
            match item {
                Self::Route(route) => all.route.push(route),
                Self::Alias { name, to } => drop(all.aliases.insert(name, to)),
                Self::Model(entry) => all.model.push(entry),
            }
        }
        let refuse = |error: toml::ser::Error| RouteError::Text(error.to_string());
        let mut table = toml::Table::try_from(&all).map_err(refuse)?;
        prune(&mut table);
        toml::to_string(&table).map_err(refuse)
    }
}

/// Leaves out what is empty, as an operator would.
fn prune(table: &mut toml::Table) {
    for (name, value) in table.iter_mut() {
        if let Some(all) = value.as_array_mut() {
            all.iter_mut().filter_map(toml::Value::as_table_mut).for_each(prune);
        }
        // `policy = { small-first = {} }` is no emptiness.
        if let Some(all) = value.as_table_mut().filter(|_| name != "policy") {
            prune(all);
        }
    }
    let is_empty = |value: &toml::Value| {
        value.as_array().is_some_and(Vec::is_empty)
            || value.as_table().is_some_and(toml::Table::is_empty)
    };
    table.retain(|_, value| !is_empty(value));
}
