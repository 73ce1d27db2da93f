//! Providers' keys on this node: sealed on disk, in memory while it runs, seen by nobody.
//!
//! Owns the sealed form, the names, and the operations add, list and remove. A sealed key is
//! `version | nonce | ciphertext`: XChaCha20-Poly1305 under a key that only this node has, with the
//! version and the name as associated data, so that entries cannot be swapped. Does not own the
//! file: a [`VaultStore`] does. Keys never leave the node; the mesh knows them by name.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use parking_lot::RwLock;
use selvedge_base::Wall;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Mutex;
use zeroize::{Zeroize, Zeroizing};

use crate::secret::Secret;

/// For BLAKE3's `derive_key`: what the node's secret key is used for here.
pub const CONTEXT: &str = "selvedge 2026 vault of provider keys";
/// Keys of one node: some forty providers, each with a few.
pub const MAX_ENTRIES: usize = 256;
/// Bytes of a key. Amazon's session tokens have two thousand.
pub const MAX_KEY_BYTES: usize = 4_096;
/// Bytes of a name.
const MAX_NAME: usize = 64;
/// The version of the sealed form.
const VERSION: u8 = 1;
/// XChaCha20's nonce: long enough to be drawn at random for each entry.
const NONCE_BYTES: usize = 24;

/// A store's answer that is still to come.
pub type Pending<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// Where sealed entries lie. What it is given it may write anywhere: it is sealed.
pub trait VaultStore: Send + Sync {
    /// All entries: names and sealed bytes.
    ///
    /// # Errors
    /// What the disk said.
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, String>;

    /// Writes an entry; done when it is on the disk.
    fn save(&self, name: &str, sealed: Vec<u8>) -> Pending<'_>;

    /// Removes an entry; done when it is gone from the disk.
    fn remove(&self, name: &str) -> Pending<'_>;
}

/// Why the vault does not do something. Never holds a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VaultError {
    /// The store failed.
    #[error("the keys cannot be read or written: {0}")]
    Store(String),
    /// A name that is none.
    #[error("'{0}' is not a name for a key; use 1 to 64 letters, digits, '-', '_' and '.'")]
    Name(String),
    /// A text that is no key.
    #[error(
        "this is not a key: it must have 1 to {MAX_KEY_BYTES} printable characters without spaces"
    )]
    Key,
    /// No room.
    #[error("{MAX_ENTRIES} keys are stored, which is all there is room for; remove one")]
    Full,
    /// Nothing has this name.
    #[error("no key is called '{0}'; `list` shows the names")]
    Unknown(String),
    /// An entry of a newer build.
    #[error("key '{name}' is stored in version {version}; this build reads {VERSION}")]
    Version {
        /// Its name.
        name: String,
        /// Its version.
        version: u8,
    },
    /// An entry that does not open: damaged, or another node's.
    #[error("key '{0}' does not open with this node's key; add it again")]
    Sealed(String),
    /// Sealing failed, which only a text beyond all limits can cause.
    #[error("the key could not be sealed")]
    Seal,
}

/// A key as people may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyListing {
    /// Its name.
    pub name: String,
    /// Its last four characters; empty when it is too short to show any.
    pub hint: String,
    /// When it was added.
    pub added: Wall,
}

/// The keys of this node.
pub struct Vault {
    cipher: XChaCha20Poly1305,
    store: Arc<dyn VaultStore>,
    entries: RwLock<BTreeMap<String, Entry>>,
    /// Changes happen one after another, so that memory and disk see them in one order.
    changes: Mutex<()>,
}

struct Entry {
    secret: Secret,
    added: Wall,
}

/// What is inside a sealed entry.
#[derive(Serialize, Deserialize)]
struct Plain {
    added: u64,
    key: String,
}

impl Vault {
    /// Opens the vault of a node. `key` is derived from the node's secret key with [`CONTEXT`]; it
    /// is wiped. Entries that do not open are told beside the vault, and left as they are.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub fn open(
        mut key: [u8; 32],
        store: Arc<dyn VaultStore>,
    ) -> Result<(Self, Vec<VaultError>), VaultError> {
        let cipher = XChaCha20Poly1305::new(&Key::from(key));
        key.zeroize();
        let (mut entries, mut closed) = (BTreeMap::new(), Vec::new());
        for (name, sealed) in store.load().map_err(VaultError::Store)? {
            match unseal(&cipher, &name, &sealed) {
                Ok(entry) if entries.len() < MAX_ENTRIES => {
                    entries.insert(name, entry);
                }
                Ok(_) => closed.push(VaultError::Full),
                Err(error) => closed.push(error),
            }
        }
        let entries = RwLock::new(entries);
        Ok((Self { cipher, store, entries, changes: Mutex::new(()) }, closed))
    }

    /// The vault's key of a node's secret key.
    pub fn derive(secret: &[u8; 32]) -> [u8; 32] {
        blake3::derive_key(CONTEXT, secret)
    }

    /// Adds a key or replaces the one of that name; done when it is on the disk. `nonce` is 24
    /// fresh random bytes.
    ///
    /// # Errors
    /// Any [`VaultError`]; then everything is as before.
    pub async fn add(
        &self,
        name: &str,
        key: Secret,
        now: Wall,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<(), VaultError> {
        check_name(name)?;
        let text = key.expose();
        let fits = (1..=MAX_KEY_BYTES).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(VaultError::Key);
        }
        let _turn = self.changes.lock().await;
        {
            let entries = self.entries.read();
            if entries.len() >= MAX_ENTRIES && !entries.contains_key(name) {
                return Err(VaultError::Full);
            }
        }
        let sealed = seal(&self.cipher, name, &key, now, nonce)?;
        self.store.save(name, sealed).await.map_err(VaultError::Store)?;
        self.entries.write().insert(name.to_owned(), Entry { secret: key, added: now });
        Ok(())
    }

    /// Removes a key; done when it is gone from the disk.
    ///
    /// # Errors
    /// [`VaultError::Unknown`], [`VaultError::Store`].
    pub async fn remove(&self, name: &str) -> Result<(), VaultError> {
        check_name(name)?;
        let _turn = self.changes.lock().await;
        if !self.entries.read().contains_key(name) {
            return Err(VaultError::Unknown(name.to_owned()));
        }
        self.store.remove(name).await.map_err(VaultError::Store)?;
        self.entries.write().remove(name);
        Ok(())
    }

    /// What there is, by name.
    pub fn list(&self) -> Vec<KeyListing> {
        let entries = self.entries.read();
        let listing = |(name, entry): (&String, &Entry)| KeyListing {
            name: name.clone(),
            hint: entry.secret.hint(),
            added: entry.added,
        };
        entries.iter().map(listing).collect()
    }

    /// The key of a name.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.entries.read().get(name).map(|entry| entry.secret.clone())
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({} keys)", self.entries.read().len())
    }
}

fn check_name(name: &str) -> Result<(), VaultError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    // Whoever mixes up name and key must not find the key in a message.
    let shown = if name.len() > MAX_NAME { "(too long)" } else { "(this)" };
    Err(VaultError::Name(shown.to_owned()))
}

fn bound_to(name: &str) -> Vec<u8> {
    let mut data = vec![VERSION];
    data.extend(name.as_bytes());
    data
}

fn seal(
    cipher: &XChaCha20Poly1305,
    name: &str,
    key: &Secret,
    now: Wall,
    nonce: [u8; NONCE_BYTES],
) -> Result<Vec<u8>, VaultError> {
    let mut plain = Plain { added: now.0, key: key.expose().to_owned() };
    let bytes = postcard::to_allocvec(&plain).map(Zeroizing::new).map_err(|_| VaultError::Seal);
    plain.key.zeroize();
    let bytes = bytes?;
    let payload = Payload { msg: &bytes, aad: &bound_to(name) };
    let text = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| VaultError::Seal)?;
    let mut sealed = vec![VERSION];
    sealed.extend(nonce);
    sealed.extend(text);
    Ok(sealed)
}

fn unseal(cipher: &XChaCha20Poly1305, name: &str, sealed: &[u8]) -> Result<Entry, VaultError> {
    let damaged = || VaultError::Sealed(name.to_owned());
    let (version, rest) = sealed.split_first().ok_or_else(damaged)?;
    if *version != VERSION {
        return Err(VaultError::Version { name: name.to_owned(), version: *version });
    }
    let (nonce, text) = rest.split_at_checked(NONCE_BYTES).ok_or_else(damaged)?;
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| damaged())?;
    let payload = Payload { msg: text, aad: &bound_to(name) };
    let bytes = cipher.decrypt(&XNonce::from(nonce), payload).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| damaged())?;
    let plain: Plain = postcard::from_bytes(&bytes).map_err(|_| damaged())?;
    Ok(Entry { secret: Secret::new(plain.key), added: Wall(plain.added) })
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
