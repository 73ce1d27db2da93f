//! Selvedge itself: the shipped binary, with a provider of its own that leads to the mock.
//!
//! Owns its configuration for this bench: a thousand keys of one account whose budget of tokens
//! counts every request. It is made once through the node's own commands and copied for each
//! start, so that a start is measured as a node's that was set up before.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Gateway, KEYS, Setup, USED, repository, start_with};
use crate::answers::{MODELS, UPSTREAM_KEY};
use crate::clock;
use crate::scenario::Scenario;

/// Patience with the start that configures it: a debug build needs a second.
const STARTING: Duration = Duration::from_secs(20);
/// The account of all keys.
const ACCOUNT: &str = "bench";
/// More than any run takes in a day, and counted like a small one.
const BUDGET: &str = "100000M tokens/day";

/// `SELVEDGE_BIN`, or the release build of this tree.
pub(super) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("SELVEDGE_BIN").map(PathBuf::from);
    Some(named.unwrap_or_else(|| repository().join("target/release/selvedge")))
}

/// A home with provider, budget and keys in the setup's directory.
pub(super) fn prepare(setup: &Setup) -> Result<()> {
    let ready = setup.dir.parent().unwrap_or(&setup.dir).join("selvedge-home");
    if !ready.join(KEY).is_file() {
        std::fs::create_dir_all(&ready)?;
        configure(&program().context("no program")?, setup, &ready)?;
    }
    let copied =
        Command::new("cp").arg("-a").arg(&ready).arg(setup.dir.join("home")).status()?.success();
    ensure!(copied, "the home cannot be copied");
    Ok(())
}

/// Where the key that clients show is written down.
const KEY: &str = "bench.key";

fn configure(program: &Path, setup: &Setup, home: &Path) -> Result<()> {
    let process = up(program, setup, home)?;
    let ready = || process.said().contains("ready api=").then_some(());
    clock::poll(STARTING, Duration::from_millis(20), ready)
        .with_context(|| format!("selvedge did not start: {}", process.said()))?;
    let cli = |words: &[&str]| cli(program, home, words);
    cli(&["provider", "key", "add", "mock", "--from-env", "UPSTREAM_KEY"])?;
    let url = format!("http://{}", setup.upstream);
    let provider = ["provider", "add", "mock", "--kind", "openai", "--url", &url, "--key", "mock"];
    let models = MODELS.iter().flat_map(|model| ["--model", model.name]);
    cli(&provider.into_iter().chain(models).chain(["--free"]).collect::<Vec<_>>())?;
    cli(&["tenant", "create", ACCOUNT])?;
    cli(&["budget", "set", ACCOUNT, BUDGET])?;
    let token = std::fs::read_to_string(home.join("run/admin.token"))?;
    for number in 0..KEYS {
        let key = key(setup, token.trim(), number)?;
        if number == USED {
            std::fs::write(home.join(KEY), key)?;
        }
    }
    process.end();
    Ok(())
}

fn cli(program: &Path, home: &Path, words: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(words).arg("--home").arg(home).env("UPSTREAM_KEY", UPSTREAM_KEY);
    let done = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "selvedge {}: {said}", words.join(" "));
    Ok(())
}

/// Has a key made, and gives it.
fn key(setup: &Setup, token: &str, number: usize) -> Result<String> {
    let body = format!(r#"{{"name":"client {number:04}","account":"{ACCOUNT}"}}"#);
    let mut request = format!("POST /admin/keys HTTP/1.1\r\nhost: {}\r\n", setup.listen);
    write!(request, "authorization: Bearer {token}\r\ncontent-type: application/json\r\n")?;
    write!(request, "connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    let mut stream = TcpStream::connect(setup.listen)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let key = answer.split('"').find(|word| word.starts_with("sk-selvedge-"));
    key.map(str::to_owned).with_context(|| format!("no key in {answer}"))
}

fn up(program: &Path, setup: &Setup, home: &Path) -> Result<crate::process::Process> {
    let home = home.display().to_string();
    // As on a LAN, where every request needs a key.
    let api = format!("0.0.0.0:{}", setup.listen.port());
    let args = ["up", "--home", &home, "--api", &api, "--listen", "127.0.0.1:0", "--no-mdns"];
    start_with(program, setup, &args)
}

pub(super) fn start(program: &Path, setup: &Setup, scenario: Scenario) -> Result<Gateway> {
    let home = setup.dir.join("home");
    // The requests of the bench set no temperature.
    let cache = format!("[cache]\nenabled = {}\nsampled = true\n", scenario == Scenario::Cached);
    std::fs::write(home.join("config.toml"), cache)?;
    let key = std::fs::read_to_string(home.join(KEY))?;
    let process = up(program, setup, &home)?;
    Ok(Gateway { key, exact: false, ..Gateway::plain(process, setup) })
}
