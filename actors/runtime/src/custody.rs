//! Where the mesh's root key lives, and how it is backed up and brought back.
//!
//! Owns the file `mesh/root.key` (0600) on the one node that holds it, and sealed backups. A backup
//! is worthless without its recovery code: 256 random bits shown once, which are the key of
//! XChaCha20-Poly1305 directly, so no password needs stretching. What the root key signs is
//! decided elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::Aead;
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use selvedge_net::{Identity, entropy};
use selvedge_proto::base32;
use thiserror::Error;

/// What a backup begins with: a name and the version of the layout
/// (magic, version, 24-byte nonce, sealed key file).
const MAGIC: &[u8; 12] = b"selvedgeroot";
/// The version this build writes and reads.
const VERSION: u8 = 1;
/// Bytes of an XChaCha20 nonce.
const NONCE: usize = 24;
/// A backup is under 200 bytes; anything larger is another file.
const MAX_BACKUP: u64 = 4_096;

/// Why the root key cannot be used, exported or imported.
#[derive(Debug, Error)]
pub enum CustodyError {
    /// This node does not hold the key.
    #[error(
        "this node does not hold the mesh's root key ({}): run this on the node where the mesh was \
         made, or bring the key here with `selvedge mesh root import`", .0.display()
    )]
    Absent(PathBuf),
    /// The key file cannot be used.
    #[error(transparent)]
    Key(#[from] selvedge_net::IdentityError),
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a backup.
    #[error("{} is not a backup of a root key", .0.display())]
    NotABackup(PathBuf),
    /// The code does not open the backup.
    #[error("the recovery code does not open this backup; check it for typing errors")]
    Code,
    /// There is a key already.
    #[error("{} exists already; move it away first if it should be replaced", .0.display())]
    Exists(PathBuf),
}

/// The root key's file in a home.
pub fn root_key_path(home: &Path) -> PathBuf {
    home.join("mesh").join("root.key")
}

/// Where a rotation keeps the successor until everything that names it is stored.
pub fn next_root_key_path(home: &Path) -> PathBuf {
    home.join("mesh").join("root.next.key")
}

/// Ends a rotation: the successor takes the place of the old key, which is kept beside it as
/// `root.old.key` for nodes that were cut off meanwhile.
///
/// # Errors
/// [`CustodyError::Io`].
pub fn finish_rotation(home: &Path) -> Result<(), CustodyError> {
    let (current, next) = (root_key_path(home), next_root_key_path(home));
    let old = current.with_file_name("root.old.key");
    // Absent after a crash between the two steps.
    if current.exists() {
        fs::rename(&current, &old).map_err(|source| io("move", &current, source))?;
    }
    fs::rename(&next, &current).map_err(|source| io("move", &next, source))
}

/// Ends a rotation that a crash interrupted: when the successor's key is the root key that the
/// roster names, it takes its place now.
///
/// # Errors
/// [`CustodyError::Key`] and [`CustodyError::Io`].
pub fn resume_rotation(home: &Path, root: [u8; 32]) -> Result<(), CustodyError> {
    let next = next_root_key_path(home);
    if next.exists() && Identity::load_or_create(&next)?.public() == root {
        return finish_rotation(home);
    }
    Ok(())
}

/// Moves the root key of a mesh that this home has left out of the way; it is not destroyed. False
/// where there is none.
///
/// # Errors
/// [`CustodyError::Io`].
pub fn retire_root(home: &Path) -> Result<bool, CustodyError> {
    let current = root_key_path(home);
    if !current.exists() {
        return Ok(false);
    }
    let left = current.with_file_name("root.left.key");
    fs::rename(&current, &left).map_err(|source| io("move", &current, source))?;
    Ok(true)
}

/// Takes back a [`retire_root`] that moved the key, where leaving failed after it.
///
/// # Errors
/// [`CustodyError::Io`].
pub fn restore_root(home: &Path) -> Result<(), CustodyError> {
    let current = root_key_path(home);
    let left = current.with_file_name("root.left.key");
    fs::rename(&left, &current).map_err(|source| io("move", &left, source))
}

/// The root key of this home.
///
/// # Errors
/// [`CustodyError::Absent`] when this node does not hold it.
pub fn load_root(home: &Path) -> Result<Identity, CustodyError> {
    let path = root_key_path(home);
    if !path.exists() {
        return Err(CustodyError::Absent(path));
    }
    Ok(Identity::load_or_create(&path)?)
}

/// Makes the root key of a new mesh, or loads the one an interrupted start left.
///
/// # Errors
/// [`CustodyError::Key`] and [`CustodyError::Io`].
pub fn create_root(path: &Path) -> Result<Identity, CustodyError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| io("create", folder, source))?;
    }
    Ok(Identity::load_or_create(path)?)
}

/// Writes a sealed backup of the root key; returns the recovery code to write down.
///
/// # Errors
/// Any [`CustodyError`] but `Code` and `NotABackup`.
pub fn export(home: &Path, backup: &Path) -> Result<String, CustodyError> {
    load_root(home)?;
    let path = root_key_path(home);
    let plain =
        zeroize::Zeroizing::new(fs::read(&path).map_err(|source| io("read", &path, source))?);
    let code = zeroize::Zeroizing::new(entropy::seed());
    let mut nonce = [0; NONCE];
    entropy::fill(&mut nonce);
    let cipher = XChaCha20Poly1305::new(&Key::from(*code));
    let sealed =
        cipher.encrypt(&XNonce::from(nonce), plain.as_slice()).map_err(|_| CustodyError::Code)?;
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    bytes.extend(nonce);
    bytes.extend(sealed);
    write_new(backup, &bytes)?;
    Ok(base32::grouped(code.as_slice()))
}

/// Opens a backup with its recovery code and makes this home the holder of the root key.
///
/// # Errors
/// Any [`CustodyError`] but `Absent`.
pub fn import(home: &Path, backup: &Path, code: &str) -> Result<(), CustodyError> {
    let path = root_key_path(home);
    if path.exists() {
        return Err(CustodyError::Exists(path));
    }
    let mut bytes = Vec::new();
    File::open(backup)
        .and_then(|file| file.take(MAX_BACKUP).read_to_end(&mut bytes))
        .map_err(|source| io("read", backup, source))?;
    let rest = bytes.strip_prefix(MAGIC.as_slice()).and_then(|rest| rest.strip_prefix(&[VERSION]));
    let (nonce, sealed) = rest
        .and_then(|rest| rest.split_first_chunk::<NONCE>())
        .ok_or_else(|| CustodyError::NotABackup(backup.to_owned()))?;
    let key: [u8; 32] =
        base32::decode(code).and_then(|bytes| bytes.try_into().ok()).ok_or(CustodyError::Code)?;
    let plain = XChaCha20Poly1305::new(&Key::from(key))
        .decrypt(&XNonce::from(*nonce), sealed)
        .map_err(|_| CustodyError::Code)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| io("create", folder, source))?;
    }
    write_new(&path, &plain)?;
    // Reading it back proves that what was sealed is a key.
    load_root(home).map(drop)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), CustodyError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match created {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(CustodyError::Exists(path.to_owned()));
        }
        other => other.map_err(|source| io("create", path, source))?,
    };
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|source| io("write", path, source))
}

fn io(what: &'static str, path: &Path, source: std::io::Error) -> CustodyError {
    CustodyError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("selvedge-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        folder
    }

    #[test]
    fn a_backup_brings_the_same_key_back_and_only_with_its_code() {
        let folder = folder("custody");
        let (old, new) = (folder.join("old"), folder.join("new"));
        let made = create_root(&root_key_path(&old)).expect("made").public();
        let backup = folder.join("root.backup");
        let code = export(&old, &backup).expect("exported");
        assert!(matches!(export(&old, &backup), Err(CustodyError::Exists(_))));
        let other = if code.starts_with('0') { '1' } else { '0' };
        let wrong = format!("{other}{}", &code[1..]);
        assert!(matches!(import(&new, &backup, &wrong), Err(CustodyError::Code)));
        import(&new, &backup, &code).expect("imported");
        assert_eq!(load_root(&new).expect("there").public(), made);
        assert!(matches!(import(&new, &backup, &code), Err(CustodyError::Exists(_))));
        fs::remove_dir_all(&folder).expect("cleans up");
    }

    #[test]
    fn a_rotation_cut_short_is_finished() {
        let home = folder("custody-rotation");
        create_root(&root_key_path(&home)).expect("made");
        let next = create_root(&next_root_key_path(&home)).expect("made").public();
        resume_rotation(&home, [0; 32]).expect("another root: nothing to do");
        assert_ne!(load_root(&home).expect("there").public(), next);
        fs::remove_file(root_key_path(&home)).expect("the crash was between the steps");
        resume_rotation(&home, next).expect("finished");
        assert_eq!(load_root(&home).expect("there").public(), next);
        fs::remove_dir_all(&home).expect("cleans up");
    }

    #[test]
    fn other_files_are_no_backups() {
        let folder = folder("custody-other");
        let file = folder.join("x");
        fs::write(&file, b"hello").expect("written");
        assert!(matches!(import(&folder, &file, "abc"), Err(CustodyError::NotABackup(_))));
        assert!(matches!(load_root(&folder), Err(CustodyError::Absent(_))));
        fs::remove_dir_all(&folder).expect("cleans up");
    }
}
