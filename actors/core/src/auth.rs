//! Who may call one node: API keys that only it knows.
//!
//! Keys of the whole mesh, which expire, have an account and are told apart by what they may use,
//! are records of the policy (`selvedge_proto::policy::PolicyBook::verify`).
//! Owns verification and what is stored of a key: a keyed BLAKE3 of a 256-bit random secret, so
//! that a stolen store reveals no key and a look-up needs no slow hash (the secret has full
//! entropy). Does not draw secrets: a shell hands entropy in. Does not read headers.

use std::collections::BTreeMap;

use selvedge_base::Wall;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// What every key begins with, so that people and scanners recognise one.
pub const KEY_PREFIX: &str = "sk-selvedge-";
/// Keys one node keeps: more belong to accounts of the mesh.
pub const MAX_KEYS: usize = 4_096;
/// Bytes of a key's name.
pub const MAX_KEY_NAME: usize = 64;

/// Names a key without revealing it.
pub type KeyId = String;

/// What is kept of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKey {
    /// Keyed BLAKE3 of the secret.
    hash: [u8; 32],
    /// What people call it; also the tenant its requests are charged to.
    pub name: String,
    /// When it was made.
    pub created: Wall,
}

/// A key that was just made; the secret is shown once and never stored.
pub struct NewKey {
    /// Its id.
    pub id: KeyId,
    /// The secret to give to clients.
    pub secret: String,
}

/// Why a key could not be made or removed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The name is empty, too long or holds control characters.
    #[error("a key's name needs 1 to {MAX_KEY_NAME} printable characters")]
    Name,
    /// Too many keys.
    #[error("this node already holds {MAX_KEYS} keys; revoke some first")]
    Full,
    /// No such key.
    #[error("there is no key '{0}'; `selvedge key list` shows all")]
    Unknown(KeyId),
}

/// The keys of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRing {
    /// Keys the hashes, so that two nodes' stores cannot be compared.
    pepper: [u8; 32],
    keys: BTreeMap<KeyId, StoredKey>,
}

impl KeyRing {
    /// No keys yet; `pepper` is random and never leaves the node.
    pub const fn new(pepper: [u8; 32]) -> Self {
        Self { pepper, keys: BTreeMap::new() }
    }

    /// Makes a key of 256 random bits.
    ///
    /// # Errors
    /// [`KeyError::Name`] and [`KeyError::Full`].
    pub fn create(
        &mut self,
        name: &str,
        entropy: [u8; 32],
        created: Wall,
    ) -> Result<NewKey, KeyError> {
        let printable = name.chars().all(|c| !c.is_control());
        if name.trim().is_empty() || name.len() > MAX_KEY_NAME || !printable {
            return Err(KeyError::Name);
        }
        if self.keys.len() >= MAX_KEYS {
            return Err(KeyError::Full);
        }
        let hex: String = entropy.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = format!("{KEY_PREFIX}{hex}");
        let hash = self.hash(&secret);
        // The id comes from the hash, not from the secret: it may appear in logs.
        let id: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        self.keys.insert(id.clone(), StoredKey { hash, name: name.trim().to_owned(), created });
        Ok(NewKey { id, secret })
    }

    /// The key a secret belongs to. Compares in constant time with every key, so that timing tells
    /// nothing about near misses.
    pub fn verify(&self, secret: &str) -> Option<(&KeyId, &StoredKey)> {
        let hash = self.hash(secret);
        let mut found = None;
        for entry in &self.keys {
            if bool::from(entry.1.hash.ct_eq(&hash)) {
                found = Some(entry);
            }
        }
        found
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`KeyError::Unknown`].
    pub fn revoke(&mut self, id: &str) -> Result<StoredKey, KeyError> {
        self.keys.remove(id).ok_or_else(|| KeyError::Unknown(id.chars().take(64).collect()))
    }

    /// All keys in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&KeyId, &StoredKey)> {
        self.keys.iter()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn hash(&self, secret: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.pepper, secret.as_bytes()).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_and_a_wrong_one_does_not() {
        let mut ring = KeyRing::new([1; 32]);
        let key = ring.create("shop floor", [7; 32], Wall(5)).expect("made");
        assert!(key.secret.starts_with(KEY_PREFIX));
        assert_eq!(
            ring.verify(&key.secret).map(|(_, stored)| stored.name.as_str()),
            Some("shop floor")
        );
        assert!(ring.verify(&key.secret[..key.secret.len() - 1]).is_none());
        assert!(ring.verify("").is_none());
        ring.revoke(&key.id).expect("there");
        assert!(ring.verify(&key.secret).is_none());
        assert_eq!(ring.revoke(&key.id), Err(KeyError::Unknown(key.id)));
    }

    #[test]
    fn the_store_does_not_hold_the_secret() {
        let mut ring = KeyRing::new([1; 32]);
        let key = ring.create("a", [7; 32], Wall(5)).expect("made");
        let stored = format!("{ring:?}");
        assert!(!stored.contains(&key.secret));
        assert!(!key.secret.contains(&key.id));
    }

    #[test]
    fn names_are_checked() {
        let mut ring = KeyRing::new([1; 32]);
        for bad in ["", "  ", "a\nb", &"x".repeat(65)] {
            assert_eq!(ring.create(bad, [7; 32], Wall(0)).err(), Some(KeyError::Name), "{bad:?}");
        }
    }
}
