//! The models of a home.
//!
//! Owns `models/`: one `NAME.gguf` or `NAME.onnx` per model, or a directory `NAME` of a model of
//! embeddings or of a classifier, and beside it `NAME.toml` with where it came from and its
//! digests. What was placed there by hand is a model too; its digest is taken when it is first
//! seen. Parts on their way in are in
//! `models/incoming/`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use selvedge_base::ModelDigest;
use serde::{Deserialize, Serialize};

use super::digest::Sha256Digest;
use super::part::Part;
use super::source::{Place, Source};
use super::{folder, kind};
use crate::home::{Home, write_private};

/// Models one home lists: more than any disk of today holds.
const MAX_MODELS: usize = 1_024;
/// The format of the files beside the models.
const VERSION: u32 = 1;
/// What the names of files end with: of GGUF, and of ONNX.
const ENDINGS: [&str; 2] = [".gguf", ".onnx"];
/// Characters of a name.
const MAX_NAME: usize = 64;

/// The models of a home.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    home: Home,
}

/// A model in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) digest: ModelDigest,
    pub(crate) bytes: u64,
    /// `None` for a file placed by hand.
    pub(crate) sha256: Option<Sha256Digest>,
    pub(crate) source: Option<String>,
}

/// The file beside a model.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sidecar {
    version: u32,
    source: Option<String>,
    sha256: Option<String>,
    blake3: String,
    bytes: u64,
}

impl Store {
    pub(crate) fn of(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    /// Makes the directories.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.home.make_dir(&self.incoming())
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.home.models().join("incoming")
    }

    pub(crate) fn part_path(&self, name: &str, key: &str) -> PathBuf {
        self.incoming().join(format!("{name}-{key}.part"))
    }

    /// The file of a model; where there is none, where one of GGUF would be.
    fn file(&self, name: &str) -> PathBuf {
        let [gguf, onnx] = ENDINGS.map(|ending| self.home.models().join(format!("{name}{ending}")));
        if !gguf.is_file() && onnx.is_file() { onnx } else { gguf }
    }

    /// Where a file that begins like this is kept.
    fn place(&self, name: &str, head: &[u8]) -> PathBuf {
        let ending = ENDINGS[usize::from(kind::is_onnx(head))];
        self.home.models().join(format!("{name}{ending}"))
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.home.models().join(name)
    }

    fn sidecar(&self, name: &str) -> PathBuf {
        self.home.models().join(format!("{name}.toml"))
    }

    /// All models, by name.
    pub(crate) fn list(&self) -> Result<Vec<Stored>> {
        let directory = self.home.models();
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", directory.display()));
            }
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|file| match ENDINGS.iter().find_map(|ending| file.strip_suffix(ending)) {
                Some(name) => Some(name.to_owned()),
                None => folder::is_model(&directory.join(&file)).then_some(file),
            })
            .filter(|name| check_name(name).is_ok())
            .take(MAX_MODELS)
            .collect();
        names.sort();
        names.dedup();
        let found: Result<Vec<Option<Stored>>> = names.iter().map(|name| self.find(name)).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// The model of this name.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Stored>> {
        check_name(name)?;
        let mut path = self.file(name);
        let bytes = match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => {
                path = self.folder(name);
                if !folder::is_model(&path) {
                    return Ok(None);
                }
                folder::bytes(&path)
            }
        };
        let sidecar = match self.read_sidecar(name)? {
            Some(sidecar) if sidecar.bytes == bytes => sidecar,
            // None, or the file is not the one it was written for.
            _ => self.adopt(name, &path, bytes)?,
        };
        Ok(Some(Stored {
            name: name.to_owned(),
            path,
            digest: sidecar.blake3.parse().with_context(|| self.damaged(name))?,
            bytes,
            sha256: sidecar.sha256.as_deref().and_then(|text| text.parse().ok()),
            source: sidecar.source,
        }))
    }

    fn damaged(&self, name: &str) -> String {
        format!("{} is damaged; remove it and it is made anew", self.sidecar(name).display())
    }

    fn read_sidecar(&self, name: &str) -> Result<Option<Sidecar>> {
        let text = match std::fs::read_to_string(self.sidecar(name)) {
            Ok(text) => text,
            Err(_) => return Ok(None),
        };
        let sidecar: Sidecar = toml::from_str(&text).with_context(|| self.damaged(name))?;
        if sidecar.version != VERSION {
            bail!(
                "{} has version {}, and this program reads version {VERSION}",
                self.sidecar(name).display(),
                sidecar.version
            );
        }
        Ok(Some(sidecar))
    }

    /// Takes the digest of a file that was placed by hand, and notes it.
    fn adopt(&self, name: &str, path: &Path, bytes: u64) -> Result<Sidecar> {
        let digest = digest_of(path)?;
        let sidecar = Sidecar {
            version: VERSION,
            source: None,
            sha256: None,
            blake3: digest.to_string(),
            bytes,
        };
        write_private(&self.sidecar(name), &toml::to_string(&sidecar)?)?;
        Ok(sidecar)
    }

    /// Gives a complete, checked part its name.
    pub(crate) fn admit(&self, name: &str, source: &str, part: Part) -> Result<Stored> {
        let sidecar = Sidecar {
            version: VERSION,
            source: Some(source.to_owned()),
            sha256: Some(part.sha256().to_string()),
            blake3: part.blake3().to_string(),
            bytes: part.len(),
        };
        write_private(&self.sidecar(name), &toml::to_string(&sidecar)?)?;
        let mut head = [0; kind::HEAD_BYTES];
        let read = File::open(part.path()).and_then(|mut file| file.read(&mut head));
        let head =
            &head[..read.with_context(|| format!("cannot read {}", part.path().display()))?];
        let path = self.place(name, head);
        std::fs::rename(part.path(), &path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let stored = Stored {
            name: name.to_owned(),
            path,
            digest: part.blake3(),
            bytes: part.len(),
            sha256: Some(part.sha256()),
            source: sidecar.source,
        };
        part.discard();
        Ok(stored)
    }

    /// Gives a complete, checked directory its name.
    pub(crate) fn admit_folder(&self, name: &str, source: &str, from: &Path) -> Result<Stored> {
        let (digest, bytes) = (folder::digest(from)?, folder::bytes(from));
        let source = Some(source.to_owned());
        let blake3 = digest.to_string();
        let sidecar =
            Sidecar { version: VERSION, source: source.clone(), sha256: None, blake3, bytes };
        write_private(&self.sidecar(name), &toml::to_string(&sidecar)?)?;
        let path = self.folder(name);
        std::fs::rename(from, &path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Stored { name: name.to_owned(), path, digest, bytes, sha256: None, source })
    }

    /// Removes a model; whether there was one.
    pub(crate) fn remove(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        let path = self.folder(name);
        if !self.file(name).exists() && folder::is_model(&path) {
            // A link to a directory elsewhere is removed, not what it leads to.
            let removed = match path.is_symlink() {
                true => std::fs::remove_file(&path),
                false => std::fs::remove_dir_all(&path),
            };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
            let _ = std::fs::remove_file(self.sidecar(name));
            return Ok(true);
        }
        let path = self.file(name);
        let removed = match std::fs::remove_file(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
        };
        let _ = std::fs::remove_file(self.sidecar(name));
        Ok(removed)
    }
}

/// Name and digest of a model outside any store.
pub(crate) fn file_digest(path: &Path) -> Result<(String, ModelDigest)> {
    let name = Source::At(Place::File(path.to_owned())).default_name();
    check_name(&name)?;
    Ok((name, digest_of(path)?))
}

/// The digest the mesh knows a model by.
fn digest_of(path: &Path) -> Result<ModelDigest> {
    if path.is_dir() {
        return folder::digest(path);
    }
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        match file.read(&mut chunk).with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(ModelDigest(*hasher.finalize().as_bytes())),
            read => hasher.update(&chunk[..read]),
        };
    }
}

/// Whether a text can be a model's name: it becomes a file name and part of addresses.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'));
    if !fine {
        bail!(
            "'{name}' cannot be a model's name: use up to {MAX_NAME} of a-z 0-9 . _ - and begin \
             with a letter or digit"
        );
    }
    Ok(())
}
