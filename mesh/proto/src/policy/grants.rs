//! Accounts, keys and cuts: what a steward or the root signs, and the secret of a key.
//!
//! A cut tightens: it revokes a key, suspends an account or lowers a limit. It counts at once
//! wherever it is known and never loosens. What loosens again is the operator's: a limit chosen
//! anew in an epoch, or an account confirmed by the root key.

use selvedge_base::{MeshId, Wall};
use serde::{Deserialize, Serialize};

use super::account::is_word;
use super::epoch::{put_level, put_text, put_texts, put_wall};
use super::terms::is_model;
use super::{AccountPath, KeyId, Level, MAX_SCOPE_MODELS, PolicyError};
use crate::records::{CLOCK_SKEW, MAX_LEASE, MAX_NAME_BYTES, Record, Signed, Steward};

/// What every key begins with, so that people and scanners recognise one.
pub const KEY_PREFIX: &str = "sk-selvedge-";
/// Routes one key may list: the surface has a handful.
const MAX_ROUTES: usize = 16;

/// A tenant, team or app has a name. It gives no right, and nothing needs it to exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountGrant {
    /// The mesh.
    pub mesh: MeshId,
    /// The account.
    pub path: AccountPath,
    /// What people call it.
    pub title: String,
    /// When it was signed. Signed by the root, it lifts suspensions from before.
    pub issued: Wall,
}

/// A key opens the mesh's surface for an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyGrant {
    /// The mesh.
    pub mesh: MeshId,
    /// The first bytes of the hash.
    pub id: KeyId,
    /// Of the secret: see [`KeyGrant::hash_of`].
    pub hash: [u8; 32],
    /// What people call it.
    pub name: String,
    /// Whose requests it makes.
    pub account: AccountPath,
    /// Models it may use: names, or prefixes that end in `*`; none listed means all.
    pub models: Vec<String>,
    /// Routes it may use; none listed means all.
    pub routes: Vec<String>,
    /// When it was signed.
    pub issued: Wall,
    /// When it expires, if it does.
    pub not_after: Option<Wall>,
}

/// Something is tightened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The mesh.
    pub mesh: MeshId,
    /// What.
    pub order: CutOrder,
    /// When it was signed.
    pub at: Wall,
}

/// What a cut does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CutOrder {
    /// A key without an end opens nothing any more, for good.
    Key(KeyId),
    /// An account and all below it are suspended.
    Account(AccountPath),
    /// A budget's limit is at most this.
    Budget {
        /// Whose.
        level: Level,
        /// Its name.
        name: String,
        /// The limit; zero stops it.
        limit: u64,
    },
    /// A key that ends anyhow opens nothing any more.
    KeyUntil {
        /// Which.
        key: KeyId,
        /// When it ends, as its own record says. A while after that the cut is of no use.
        end: Wall,
    },
}

impl CutOrder {
    /// The key it closes, if it closes one.
    pub const fn key(&self) -> Option<KeyId> {
        match self {
            Self::Key(key) | Self::KeyUntil { key, .. } => Some(*key),
            Self::Account(_) | Self::Budget { .. } => None,
        }
    }

    /// When nobody needs it any more: a key that it closes is refused as expired on every clock on
    /// which a node can still be in contact. None when that never comes.
    ///
    /// A node without the key and without the cut could only take the key again from one that never
    /// heard of the cut. It refuses, since the key is over, unless its own clock was set back to
    /// before the key's end; and a clock that is further back than the longest membership lasts
    /// finds no peer's membership good, so that nobody tells its node anything.
    pub(super) fn is_needed_until(&self) -> Option<Wall> {
        match self {
            Self::KeyUntil { end, .. } => Some(end.plus(MAX_LEASE).plus(CLOCK_SKEW)),
            Self::Key(_) | Self::Account(_) | Self::Budget { .. } => None,
        }
    }
}

/// A record of a steward or the root, with what shows the signer's right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantNotice<T> {
    /// The record.
    pub signed: Signed<T>,
    /// The signer's steward record; none when a root key signed.
    pub steward: Option<Signed<Steward>>,
}

/// A key with its signer's right.
pub type KeyNotice = GrantNotice<KeyGrant>;
/// A cut with its signer's right.
pub type CutNotice = GrantNotice<Cut>;

/// A key that was just made; the secret is shown once and never stored.
pub struct NewKey {
    /// Its record, to be told to the mesh.
    pub notice: KeyNotice,
    /// The secret to give to clients.
    pub secret: String,
}

impl KeyGrant {
    /// What is kept of a secret: BLAKE3 bound to the mesh, so that hashes of two meshes cannot be
    /// compared. The secret has 256 random bits; a slow hash would protect nothing more.
    pub fn hash_of(mesh: &MeshId, secret: &str) -> [u8; 32] {
        Self::hash_by(&Self::pepper_of(mesh), secret)
    }

    /// What keys the hashes of a mesh's keys.
    pub(super) fn pepper_of(mesh: &MeshId) -> [u8; 32] {
        blake3::derive_key("selvedge 2026 key of a mesh", &mesh.0)
    }

    /// As [`KeyGrant::hash_of`], for who asks about many secrets.
    pub(super) fn hash_by(pepper: &[u8; 32], secret: &str) -> [u8; 32] {
        *blake3::keyed_hash(pepper, secret.as_bytes()).as_bytes()
    }

    /// The id that belongs to a hash.
    pub fn id_of(hash: &[u8; 32]) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        KeyId(id)
    }

    /// Everything that needs no other record.
    ///
    /// # Errors
    /// [`PolicyError::Grant`] with what to write instead.
    pub fn check(&self) -> Result<(), PolicyError> {
        check_title(&self.name)?;
        if self.id != Self::id_of(&self.hash) {
            return Err(PolicyError::Grant("the key's id does not belong to its hash"));
        }
        if self.models.len() > MAX_SCOPE_MODELS || !self.models.iter().all(|name| is_model(name)) {
            return Err(PolicyError::Grant(
                "a key lists at most 16 models of 1 to 128 printable characters; use prefixes \
                 that end in *",
            ));
        }
        if self.routes.len() > MAX_ROUTES || !self.routes.iter().all(|route| is_word(route)) {
            return Err(PolicyError::Grant(
                "a key lists at most 16 routes of a-z, 0-9, '.', '_' and '-'",
            ));
        }
        if self.not_after.is_some_and(|end| end <= self.issued) {
            return Err(PolicyError::Grant("the key expires before it begins"));
        }
        Ok(())
    }
}

impl AccountGrant {
    /// Everything that needs no other record.
    ///
    /// # Errors
    /// [`PolicyError::Grant`] with what to write instead.
    pub fn check(&self) -> Result<(), PolicyError> {
        check_title(&self.title)
    }
}

impl Cut {
    /// Everything that needs no other record.
    ///
    /// # Errors
    /// [`PolicyError::Cut`].
    pub fn check(&self) -> Result<(), PolicyError> {
        match &self.order {
            CutOrder::Budget { name, .. } if !is_word(name) => {
                Err(PolicyError::Cut("the cut names no budget"))
            }
            CutOrder::Budget { .. }
            | CutOrder::Key(_)
            | CutOrder::KeyUntil { .. }
            | CutOrder::Account(_) => Ok(()),
        }
    }
}

/// What people call an account or a key.
fn check_title(title: &str) -> Result<(), PolicyError> {
    let fits = (1..=MAX_NAME_BYTES).contains(&title.len()) && !title.trim().is_empty();
    if fits && !title.chars().any(char::is_control) {
        return Ok(());
    }
    Err(PolicyError::Grant("a name needs 1 to 64 bytes and no control characters"))
}

impl Record for AccountGrant {
    const KIND: &'static str = "account";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.mesh.0);
        put_text(out, self.path.as_str());
        put_text(out, &self.title);
        put_wall(out, self.issued);
    }
}

impl Record for KeyGrant {
    const KIND: &'static str = "key";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.mesh.0);
        out.extend(self.id.0);
        out.extend(self.hash);
        put_text(out, &self.name);
        put_text(out, self.account.as_str());
        put_texts(out, &self.models);
        put_texts(out, &self.routes);
        put_wall(out, self.issued);
        match self.not_after {
            None => out.push(0),
            Some(end) => {
                out.push(1);
                put_wall(out, end);
            }
        }
    }
}

impl Record for Cut {
    const KIND: &'static str = "cut";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.mesh.0);
        match &self.order {
            CutOrder::Key(key) => {
                out.push(1);
                out.extend(key.0);
            }
            CutOrder::Account(path) => {
                out.push(2);
                put_text(out, path.as_str());
            }
            CutOrder::Budget { level, name, limit } => {
                out.push(3);
                put_level(out, level);
                put_text(out, name);
                out.extend(limit.to_be_bytes());
            }
            CutOrder::KeyUntil { key, end } => {
                out.push(4);
                out.extend(key.0);
                put_wall(out, *end);
            }
        }
        put_wall(out, self.at);
    }
}
