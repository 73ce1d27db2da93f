//! Who this node is: one Ed25519 key, kept in one file.
//!
//! Owns the key's bytes in memory and on disk. The same secret gives the node's name, the libp2p
//! PeerId in its certificate and the signatures under its records. What is signed, and what a
//! signature means, belongs to `selvedge_proto`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use libp2p::PeerId;
use libp2p::identity::{Keypair, ed25519};
use selvedge_base::NodeId;
use selvedge_proto::records::Signer;
use selvedge_proto::seal;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::entropy;

/// The layout of the key file: version, secret, public key. The public key tells damage.
const FILE_VERSION: u8 = 1;
/// Version byte, 32 secret bytes, 32 public bytes.
const FILE_BYTES: usize = 1 + 32 + 32;

/// The key of this node. The secret never leaves it but into its file.
pub struct Identity {
    key: ed25519::Keypair,
    node: NodeId,
}

/// Why a key file cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Others than its owner may read or write the file.
    #[error(
        "{} can be used by others (mode {mode:04o}): type: chmod 600 {}", path.display(),
        path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not a key of this build or of an older one.
    #[error("{} is not a node key: {why}; move it away to get a new identity", path.display())]
    Corrupt {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Identity {
    /// A new identity that lives in memory only.
    pub fn generate() -> Self {
        let mut secret = Zeroizing::new(entropy::seed());
        Self::from_secret(&mut secret)
    }

    /// The identity in the file at `path`; on the first run it is made there, readable by its
    /// owner only.
    ///
    /// # Errors
    /// [`IdentityError`] when the file is exposed, damaged or out of reach. A damaged file is
    /// never overwritten: the mesh knows this node by it.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        if let Some(found) = Self::load(path)? {
            return Ok(found);
        }
        let made = Self::generate();
        if made.create(path)? {
            return Ok(made);
        }
        // Another process was faster: its key is the node's.
        Self::load(path)?.ok_or_else(|| IdentityError::Io {
            what: "read",
            path: path.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// The node's name.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// The public key, the same bytes as the name.
    pub fn public(&self) -> [u8; 32] {
        self.node.0
    }

    /// An Ed25519 signature (RFC 8032) over `message`.
    #[expect(clippy::expect_used, reason = "an Ed25519 signature has 64 bytes by definition")]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// A secret of this node for one purpose, the same in every run.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.key.secret().as_ref())
    }

    /// The secret half of the key that shares are sealed to; see [`selvedge_proto::seal`].
    pub fn opening_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(self.key.secret().as_ref());
        seal::opening_secret(&secret)
    }

    /// The same key in libp2p's type.
    pub(crate) fn keypair(&self) -> Keypair {
        Keypair::from(self.key.clone())
    }

    fn from_secret(secret: &mut [u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "any 32 bytes are an Ed25519 secret (RFC 8032)")]
        let secret = ed25519::SecretKey::try_from_bytes(secret).expect("32 bytes are a secret");
        let key = ed25519::Keypair::from(secret);
        let node = NodeId(key.public().to_bytes());
        Self { key, node }
    }

    fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        let io = |source| IdentityError::Io { what: "read", path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        refuse_exposed(path, &file)?;
        // One byte more than a key has, so that a longer file is noticed and never read whole.
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES + 1));
        file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        Self::decode(&bytes).map(Some).map_err(|why| {
            let path = path.to_owned();
            IdentityError::Corrupt { path, why }
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            None => return Err("it is empty".into()),
            Some(&FILE_VERSION) => {}
            Some(version) => return Err(format!("version {version} is not known here")),
        }
        let body: &[u8; FILE_BYTES - 1] =
            bytes[1..].try_into().map_err(|_| format!("it should have {FILE_BYTES} bytes"))?;
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(&body[..32]);
        let found = Self::from_secret(&mut secret);
        if found.public() != body[32..] {
            return Err("its two halves do not belong together".into());
        }
        Ok(found)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
        bytes.push(FILE_VERSION);
        let secret = self.key.secret();
        bytes.extend_from_slice(secret.as_ref());
        bytes.extend_from_slice(&self.node.0);
        bytes
    }

    /// Writes the file whole or not at all; false when there is one already.
    fn create(&self, path: &Path) -> Result<bool, IdentityError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { what, path, source }
        };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory {
            fs::create_dir_all(directory).map_err(io("create", directory))?;
        }
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{:016x}.new", entropy::dice().next()));
        let draft = PathBuf::from(draft);
        let written = write_private(&draft, &self.encode())
            .map_err(io("write", &draft))
            .and_then(|()| publish(&draft, path).map_err(io("create", path)));
        // The draft's job is done either way; what could not be removed holds no other secret.
        let _gone = fs::remove_file(&draft);
        if let Some(directory) = directory.filter(|_| written.is_ok()) {
            // The name must survive a power cut too; not every file system can sync directories.
            let _synced = File::open(directory).and_then(|open| open.sync_all());
        }
        written
    }
}

impl Signer for Identity {
    fn public(&self) -> [u8; 32] {
        self.public()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.sign(message)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.node)
    }
}

/// The node a libp2p PeerId names; `None` when its key is not Ed25519.
pub(crate) fn node_of(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

/// Gives the draft its final name unless that is taken; true when it got it.
fn publish(draft: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(draft, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // Some file systems have no links: renaming is whole too, only not exclusive.
        Err(_) if !path.exists() => fs::rename(draft, path).map(|()| true),
        Err(error) => Err(error),
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, file: &File) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata().map_err(|source| IdentityError::Io {
        what: "read",
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path, _: &File) -> Result<(), IdentityError> {
    Ok(())
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
