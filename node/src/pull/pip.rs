//! Getting a Python package's file through pip, without installing it.
//!
//! Owns the call of pip and watching its progress. pip brings the person's own settings (mirrors,
//! proxies, credentials); only ready-made wheels are accepted, as building one would run its code.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::brood::Brood;
use crate::scratch::Scratch;
use crate::ui::Progress;

/// How often the growing file is looked at: smooth to the eye, nothing to the disk.
const GLANCE: Duration = Duration::from_millis(100);
/// Directory entries looked at per glance: pip makes a handful.
const MAX_ENTRIES: usize = 64;
/// Levels of directories looked into: pip uses one.
const MAX_DEPTH: usize = 3;
/// How much of what pip complains about is shown.
const MAX_COMPLAINT_BYTES: u64 = 64 << 10;

/// Which package.
pub(crate) struct Wanted<'a> {
    pub(crate) package: &'a str,
    pub(crate) version: Option<&'a str>,
    /// Roughly how large it is, when that is known.
    pub(crate) about_bytes: Option<u64>,
}

/// A downloaded wheel; it vanishes with this value.
#[derive(Debug)]
pub(crate) struct Wheel {
    path: PathBuf,
    _scratch: Scratch,
}

impl Wheel {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Downloads a package's wheel below `parent`.
pub(crate) fn fetch_wheel(
    wanted: &Wanted,
    parent: &Path,
    max_bytes: u64,
    progress: &mut Progress,
) -> Result<Wheel> {
    let scratch = Scratch::within(parent, "pip")?;
    let child = Brood::shared().start(&mut command(wanted, &scratch)?);
    let mut child = child.context(
        "cannot run python3; install Python 3 with pip (Debian: apt-get install python3-pip)",
    )?;
    progress.set_total(wanted.about_bytes);
    let complaints = hear(child.pipes().stderr.context("pip's output is a pipe")?)?;
    let complaints = loop {
        match complaints.recv_timeout(GLANCE) {
            Ok(text) => break text,
            Err(RecvTimeoutError::Disconnected) => break String::new(),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let size = size_below(scratch.path(), MAX_DEPTH);
        if size > max_bytes.saturating_mul(2) {
            bail!("the package is larger than models.max_bytes allows ({max_bytes} bytes)");
        }
        progress.at(size);
    };
    check(child.wait()?, &complaints)?;
    let path = the_wheel(&scratch.path().join("wheel"))?;
    Ok(Wheel { path, _scratch: scratch })
}

fn command(wanted: &Wanted, scratch: &Scratch) -> Result<Command> {
    let requirement = match wanted.version {
        Some(version) => format!("{}=={version}", wanted.package),
        None => wanted.package.to_owned(),
    };
    let unpacking = scratch.path().join("unpacking");
    std::fs::create_dir(&unpacking)?;
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"])
        .args(["--disable-pip-version-check", "--no-cache-dir", "--progress-bar=off", "--dest"])
        .arg(scratch.path().join("wheel"))
        .arg(requirement)
        // pip downloads into a temporary directory first: there its file can be seen growing.
        .env("TMPDIR", &unpacking)
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(command)
}

/// What the process complains about, sent once it has ended or closed its output.
fn hear(stderr: ChildStderr) -> Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("pip output".to_owned()).spawn(move || {
        let (mut kept, mut reader) = (Vec::new(), stderr);
        // What cannot be read is not shown; the rest is read so that pip never waits for us.
        let _ = (&mut reader).take(MAX_COMPLAINT_BYTES).read_to_end(&mut kept);
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
        // Nobody listens when the download was given up.
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    })?;
    Ok(receiver)
}

fn check(status: ExitStatus, text: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines.iter().rev().find(|line| line.starts_with("ERROR")).or(lines.last());
    if text.contains("No module named pip") {
        bail!("python3 has no pip; install it (Debian: apt-get install python3-pip)");
    }
    bail!("pip could not fetch the package ({status}): {}", said.unwrap_or(&"it said nothing"));
}

fn the_wheel(directory: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(directory).context("pip fetched nothing")?;
    let mut wheels = entries
        .take(MAX_ENTRIES)
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension() == Some(OsStr::new("whl")));
    match (wheels.next(), wheels.next()) {
        (Some(wheel), None) => Ok(wheel),
        _ => bail!("pip did not fetch exactly one wheel"),
    }
}

fn size_below(directory: &Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .take(MAX_ENTRIES)
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() && depth > 0 => size_below(&entry.path(), depth - 1),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
