//! The configuration as one record: its bytes, and which of two governs.
//!
//! A book is replaced as a whole and never edited, so that rolling back is a new book with old
//! content, and every node can say exactly what it routes by. Owns the bytes and the rule. Signing
//! and spreading are done with the bytes by whoever holds the keys, as for the records of
//! [`selvedge_proto::policy`].

use std::collections::BTreeMap;

use selvedge_base::{MeshId, codec};
use serde::{Deserialize, Serialize};

use super::{BOOK_VERSION, MAX_BOOK_BYTES, RouteConfig, RouteError};
use crate::catalogue::Entry;

/// The version of the codec that a book's bytes are in. It is part of what is signed, so it does
/// not follow what two nodes agree on.
const CODEC_VERSION: u8 = codec::OLDEST_VERSION;

/// Routes, aliases and an operator's entries for the catalogue, under one number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteBook {
    /// Its shape: [`BOOK_VERSION`].
    #[serde(default = "current")]
    pub version: u8,
    /// Counts the books of a mesh from 1; 0 in a file that is not published yet.
    #[serde(default)]
    pub sequence: u64,
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

/// What decides between two published books. All of it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookHead {
    /// The mesh.
    pub mesh: MeshId,
    /// The generation of the root key that signed.
    pub generation: u32,
    /// See [`RouteBook::sequence`].
    pub sequence: u64,
    /// The [`RouteBook::hash`] of what was signed.
    pub hash: [u8; 32],
}

/// Which of two books governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Governs {
    /// The one that was held.
    Held,
    /// The one that came.
    Come,
    /// They are the same.
    Same,
    /// Both have one number: two hands have signed, and the operator should be told. The one with
    /// the smaller hash governs, so that all nodes go by the same until there is a later one.
    Rivals {
        /// Whether that is the one that came.
        come: bool,
    },
    /// They are of two meshes and have nothing to do with each other.
    Foreign,
}

const fn current() -> u8 {
    BOOK_VERSION
}

impl Default for RouteBook {
    fn default() -> Self {
        Self {
            version: BOOK_VERSION,
            sequence: 0,
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

    /// The bytes that are signed, stored and sent: the version of the book, then the rest.
    ///
    /// # Errors
    /// [`RouteError::Bytes`] when the book is larger than [`MAX_BOOK_BYTES`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, RouteError> {
        let rest = codec::encode_datagram_at(CODEC_VERSION, self, MAX_BOOK_BYTES)
            .map_err(|error| RouteError::Bytes(error.to_string()))?;
        let mut bytes = vec![self.version];
        bytes.extend(rest);
        Ok(bytes)
    }

    /// The book in such bytes.
    ///
    /// # Errors
    /// [`RouteError::Version`] for the bytes of a newer program, [`RouteError::Bytes`] for others.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RouteError> {
        let refuse = |why: String| RouteError::Bytes(why);
        let (version, rest) = bytes.split_first().ok_or_else(|| refuse("it is empty".into()))?;
        if *version != BOOK_VERSION {
            return Err(RouteError::Version(*version));
        }
        if bytes.len() > MAX_BOOK_BYTES + 1 {
            return Err(refuse(format!("it has more than {MAX_BOOK_BYTES} bytes")));
        }
        let book: Self = codec::decode_body(rest).map_err(|error| refuse(error.to_string()))?;
        if book.version != *version {
            return Err(RouteError::Version(book.version));
        }
        Ok(book)
    }

    /// The name of a book: a hash over its bytes.
    ///
    /// # Errors
    /// As [`Self::to_bytes`].
    pub fn hash(&self) -> Result<[u8; 32], RouteError> {
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 book of routes");
        hasher.update(&self.to_bytes()?);
        Ok(*hasher.finalize().as_bytes())
    }

    /// This book's content under the number that follows `governing`: what a rollback publishes.
    pub fn again_after(&self, governing: &Self) -> Self {
        Self { sequence: governing.sequence.saturating_add(1), ..self.clone() }
    }
}

/// Which of two books governs, whatever the order in which they came: that of the later root key,
/// then the higher number, then the smaller hash. A root key that was replaced cannot bring back an
/// old book by giving it a high number.
pub fn governing(held: &BookHead, come: &BookHead) -> Governs {
    if held.mesh != come.mesh {
        return Governs::Foreign;
    }
    if held == come {
        return Governs::Same;
    }
    let rank = |head: &BookHead| (head.generation, head.sequence);
    match rank(held).cmp(&rank(come)) {
        std::cmp::Ordering::Greater => Governs::Held,
        std::cmp::Ordering::Less => Governs::Come,
        std::cmp::Ordering::Equal => Governs::Rivals { come: come.hash < held.hash },
    }
}
