//! A directory of images: one folder a class, as torchvision's ImageFolder has it.
//!
//! Owns which files are taken and in which order; a picture's bytes are `picture`'s. A folder's
//! place among its neighbours numbers nothing: a node without one class would number the others
//! differently. Links are not followed, so that what is in the directory is what is learned from.

use std::fs::{DirEntry, File, OpenOptions};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::classes;
use super::picture::{self, MAX_FILE_BYTES};
use crate::examples::{MAX_CLASSES, MAX_VALUES};
use crate::{Examples, Schema, Shape, TrainError, Wrong};

/// A directory of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Its folders are the classes, and what is in those the images: PNG, JPEG or PNM.
    pub path: PathBuf,
    /// The names of the classes, in the order of the model; empty: folders are numbers from 0.
    pub classes: Vec<String>,
    /// Whether images of another size are scaled to the job's; they are refused otherwise.
    pub resize: bool,
}

/// Entries of one folder that are looked at: what a folder holds that fits into memory as images
/// of 16 by 16, and a second's worth of names.
const MAX_ENTRIES: usize = MAX_VALUES >> 8;

pub(super) fn read(folder: &Images, schema: &Schema) -> Result<Examples, TrainError> {
    let width = schema.check()?;
    let Shape::Image { channels: 1 | 3, .. } = schema.shape else {
        return Err(TrainError::Schema(format!(
            "{} holds images, and the job's examples are {:?}: images have a shape of 1 channel \
             (grey) or 3 (colours)",
            folder.path.display(),
            schema.shape
        )));
    };
    classes::check(&folder.path, &folder.classes, schema)?;
    let mut files = Vec::new();
    for (label, path) in folders(folder, schema)? {
        for file in images(&path)? {
            files.push((label, file));
            if files.len().saturating_mul(width) > MAX_VALUES {
                let what = format!("{}: {} images", folder.path.display(), files.len());
                return Err(TrainError::TooLarge { what, limit: MAX_VALUES / width });
            }
        }
    }
    if files.is_empty() {
        return Err(TrainError::wrong(Wrong::Empty, &folder.path, "no images in its folders"));
    }
    // Folders come in the order of their numbers and files in that of their names.
    let mut values = Vec::new();
    let mut labels = Vec::with_capacity(files.len());
    for (label, path) in files {
        let bytes = bytes(&path)?;
        picture::append(&path, &bytes, schema.shape, folder.resize, &mut values)?;
        labels.push(label);
    }
    Examples::new(schema.clone(), values, labels)
}

/// Looks at the folders of the classes.
pub(super) fn glance(folder: &Images) -> Result<(), TrainError> {
    // Which classes there are only a job says where they are not named.
    let classes = if folder.classes.is_empty() { MAX_CLASSES } else { folder.classes.len() };
    let schema = Schema { shape: Shape::Flat(1), classes };
    if folders(folder, &schema)?.is_empty() {
        return Err(TrainError::wrong(Wrong::Empty, &folder.path, "no images in its folders"));
    }
    Ok(())
}

/// The folders of the classes that are there, with their numbers, in the order of those.
fn folders(folder: &Images, schema: &Schema) -> Result<Vec<(u32, PathBuf)>, TrainError> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in entries(&folder.path)? {
        let path = entry.path();
        if !kind(&entry)?.is_dir() {
            let reason = "not a folder; images stand in folders, one for each class";
            return Err(TrainError::malformed(&path, reason));
        }
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| classes::number(&folder.classes, name, schema))
            .ok_or_else(|| {
                let reason = if folder.classes.is_empty() {
                    format!(
                        "no class of the job: without 'classes' in [[data]] folders are called 0 \
                         to {}; with it, by the names it lists, in the same order at all nodes",
                        schema.classes - 1
                    )
                } else {
                    "no class of the job: 'classes' in [[data]] does not list it".to_owned()
                };
                TrainError::wrong(Wrong::Classes, &path, reason)
            })?;
        found.push((number, path));
    }
    found.sort_unstable();
    if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let reason = format!("the same class as {}", pair[0].1.display());
        return Err(TrainError::malformed(&pair[1].1, reason));
    }
    Ok(found)
}

/// The files of a folder, by name.
fn images(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut found = Vec::new();
    for entry in entries(folder)? {
        let path = entry.path();
        if !kind(&entry)?.is_file() {
            let reason = "not a file; the folder of a class holds images and nothing else";
            return Err(TrainError::malformed(&path, reason));
        }
        found.push(path);
    }
    found.sort_unstable();
    Ok(found)
}

/// What is in a folder, but for names that begin with a dot: those are the system's own.
fn entries(folder: &Path) -> Result<Vec<DirEntry>, TrainError> {
    let failed = |source| TrainError::Io { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if found.len() == MAX_ENTRIES {
            let what = format!("{}: what is in it", folder.display());
            return Err(TrainError::TooLarge { what, limit: MAX_ENTRIES });
        }
        found.push(entry);
    }
    Ok(found)
}

/// What an entry is, without following it.
fn kind(entry: &DirEntry) -> Result<std::fs::FileType, TrainError> {
    let path = entry.path();
    let kind = entry.file_type();
    let kind = kind.map_err(|source| TrainError::Io { path: path.clone(), source })?;
    if kind.is_symlink() {
        let reason = "a link, which is not followed; put what it leads to into the directory";
        return Err(TrainError::malformed(&path, reason));
    }
    Ok(kind)
}

/// The bytes of a file, as many as an image may have.
fn bytes(path: &Path) -> Result<Vec<u8>, TrainError> {
    let failed = |source| TrainError::Io { path: path.to_owned(), source };
    let file = open(path).map_err(failed)?;
    // It may have become something else since it was listed.
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(TrainError::malformed(path, "not a file any more"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let what = format!("{}: its size in bytes", path.display());
        return Err(TrainError::TooLarge { what, limit: MAX_FILE_BYTES as usize });
    }
    Ok(bytes)
}

/// Opens a file, not what a link leads to, and waits for nobody at the other end of a pipe.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;

        use rustix::fs::OFlags;
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    }
    options.open(path)
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
