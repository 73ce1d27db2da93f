//! Names in the tree of accounts: tenants, teams, apps, and the keys below them.
//!
//! Owns the grammar of paths and their order. A path that exists is well formed: reading one from
//! the wire or the disk checks it.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PolicyError;

/// The longest segment of a path and the longest name of a budget: a column of a table, and three
/// of them with their slashes still fit the 128 bytes a hand-off allows a tenant twice over.
pub const MAX_SEGMENT_BYTES: usize = 48;
/// Tenant, team, app.
pub const MAX_SEGMENTS: usize = 3;
/// The account of callers without a key on the loopback address.
pub const LOCAL_ACCOUNT: &str = "local";

/// A tenant, a team of it or an app of that: `acme`, `acme/line3`, `acme/line3/chat`. Segments are
/// made of `a-z`, `0-9`, `.`, `_` and `-`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountPath(Arc<str>);

/// Names a mesh-wide key without revealing it: the first bytes of its hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 8]);

/// What budgets hang under: an account, or one key of it as a fourth level. Written `acme/line3`
/// or `acme/line3#0123456789abcdef`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Level {
    /// The account.
    pub account: AccountPath,
    /// The key; none for the account itself.
    pub key: Option<KeyId>,
}

/// Whether a text may be a segment of a path or the name of a budget.
pub fn is_word(text: &str) -> bool {
    let fits = (1..=MAX_SEGMENT_BYTES).contains(&text.len());
    fits && text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

impl AccountPath {
    /// The account of callers without a key on the loopback address.
    pub fn local() -> Self {
        Self(Arc::from(LOCAL_ACCOUNT))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first segment.
    pub fn tenant(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The tenant as a path.
    pub fn tenant_path(&self) -> Self {
        if self.is_tenant() { self.clone() } else { Self(Arc::from(self.tenant())) }
    }

    /// Whether the path is a tenant's.
    pub fn is_tenant(&self) -> bool {
        !self.0.contains('/')
    }

    /// The path's text and those of what lies above it, up to the tenant.
    pub fn upward(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |path| Some(path.rsplit_once('/')?.0))
    }

    /// Whether this is `other` or lies above it.
    pub fn covers(&self, other: &Self) -> bool {
        other.upward().any(|path| path == self.as_str())
    }
}

impl FromStr for AccountPath {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let fits = text.len() <= MAX_SEGMENTS * (MAX_SEGMENT_BYTES + 1)
            && text.split('/').count() <= MAX_SEGMENTS
            && text.split('/').all(is_word);
        if fits {
            Ok(Self(Arc::from(text)))
        } else {
            Err(PolicyError::Path(text.chars().take(80).collect()))
        }
    }
}

impl Borrow<str> for AccountPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountPath({self})")
    }
}

impl Serialize for AccountPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AccountPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        let digits = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        digits.into_iter().try_for_each(|digit| f.write_char(digit))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let digits = text.len() == 16 && text.bytes().all(|c| c.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(value) if digits => Ok(Self(value.to_be_bytes())),
            Ok(_) | Err(_) => Err(PolicyError::KeyId(text.chars().take(80).collect())),
        }
    }
}

impl Level {
    /// The level of an account.
    pub const fn of(account: AccountPath) -> Self {
        Self { account, key: None }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            None => write!(f, "{}", self.account),
            Some(key) => write!(f, "{}#{key}", self.account),
        }
    }
}

impl FromStr for Level {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match text.split_once('#') {
            None => Ok(Self::of(text.parse()?)),
            Some((account, key)) => Ok(Self { account: account.parse()?, key: Some(key.parse()?) }),
        }
    }
}
