//! The nodes of the demo.
//!
//! Owns starting one as a process of this executable, waiting for its `ready` line, and calls to
//! its API. A node ends when its player is dropped or when its standard input closes, which it
//! does even if this process is killed outright.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::stage;
use crate::brood::{Brood, Chick, Pipes};
use crate::client::Client;
use crate::home::Home;
use crate::http::wire::{Invite, InviteRequest, Node, Status};
use crate::record::Record;

/// How long a node may take to be ready: it opens its store and joins, which takes well below a
/// second.
const READY: Duration = Duration::from_secs(60);
/// How long a join code is good for: the next node uses it at once.
const INVITE_S: u64 = 120;

/// How long the nodes may take to know each other and to load a model: generous for a small
/// machine with a slow disk; the usual time is about a second.
const MEETING: Duration = Duration::from_secs(90);

/// One of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) name: &'static str,
}

impl Role {
    pub(super) const ALDER: Self = Self { name: "alder" };
    pub(super) const BIRCH: Self = Self { name: "birch" };
    pub(super) const CEDAR: Self = Self { name: "cedar" };
    pub(super) const ELDER: Self = Self { name: "elder" };
    pub(super) const HAZEL: Self = Self { name: "hazel" };
}

/// A running node.
pub(super) struct Player {
    role: Role,
    api: String,
    client: Client,
    chick: Chick,
    /// Whether nobody has killed it.
    lives: bool,
    /// Its closing is the order to stop.
    _stdin: Option<ChildStdin>,
}

/// Where and how the nodes are started.
pub(super) struct Cast<'a> {
    pub(super) place: &'a Path,
    /// How often `-v` was given.
    pub(super) verbose: u8,
}

impl Cast<'_> {
    /// Where a node keeps its things; it need not be there yet.
    pub(super) fn home(&self, role: Role) -> PathBuf {
        self.place.join(role.name)
    }

    /// Starts a node; it may serve a model and join by a code.
    pub(super) fn start(
        &self,
        role: Role,
        model: Option<&Path>,
        join: Option<&str>,
    ) -> Result<Player> {
        let home = self.home(role);
        let mut command = command(self.place, &home, role)?;
        command.args((0..self.verbose).map(|_| "-v"));
        if let Some(model) = model {
            command.arg("--model").arg(model);
        }
        if let Some(code) = join {
            command.args(["--join", code]);
        }
        let mut chick = Brood::shared()
            .start(&mut command)
            .with_context(|| format!("cannot start {}", role.name))?;
        let Pipes { stdin, stdout, .. } = chick.pipes();
        let stdout = stdout.context("the node's output is a pipe")?;
        let ready = wait_until_ready(role, stdout)?;
        let api = ready
            .split_whitespace()
            .find_map(|word| word.strip_prefix("api="))
            .ok_or_else(|| anyhow!("{} said '{ready}', without its address", role.name))?;
        let contact = Home::locate(Some(&home))?.running()?;
        let client = Client::admin(&contact);
        Ok(Player { role, api: api.to_owned(), client, chick, lives: true, _stdin: stdin })
    }
}

impl Player {
    pub(super) const fn name(&self) -> &'static str {
        self.role.name
    }

    pub(super) const fn role(&self) -> Role {
        self.role
    }

    /// Its process.
    pub(super) const fn pid(&self) -> u32 {
        self.chick.pid()
    }

    /// Whether nobody has killed it.
    pub(super) const fn lives(&self) -> bool {
        self.lives
    }

    /// One line about the node.
    pub(super) fn introduction(&self, what: &str) -> String {
        let api = self.api.trim_start_matches("http://");
        format!("{}  process {}, API on {api}; {what}", stage::named(self.role.name), self.pid())
    }

    /// The API of the node, with its admin token.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// A code for one more node.
    pub(super) fn invite(&self) -> Result<String> {
        let request = InviteRequest { ttl_s: Some(INVITE_S) };
        Ok(self.client.post::<Invite>("/admin/invite", &request)?.code)
    }

    pub(super) fn record(&self, request: &str) -> Result<Record> {
        self.client.get(&format!("/admin/requests/{request}"))
    }

    /// A whole answer at once.
    pub(super) fn whole(&self, path: &str, body: &Value) -> Result<Value> {
        Ok(self.client.ask(path, body)?.0)
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        self.chick.kill();
        self.lives = false;
    }
}

/// Waits until every node sees every other one alive and so many with a model ready; what the last
/// one sees.
pub(super) fn meet(players: &[Player], ready: usize) -> Result<Status> {
    let mut last = None;
    for player in players {
        let mut seen = player.client().lines::<Status>("/admin/watch", MEETING)?;
        last = loop {
            match seen.next() {
                Some(Ok(status)) if is_whole(&status, players.len(), ready) => break Some(status),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => bail!(
                    "{} does not see the other nodes after {} s; run the demo with -v to see why",
                    player.name(),
                    MEETING.as_secs()
                ),
            }
        };
    }
    last.context("there are no nodes")
}

fn is_whole(status: &Status, count: usize, ready: usize) -> bool {
    let alive = status.nodes.iter().filter(|node| node.me || node.state == "alive").count();
    let is_ready = |node: &&Node| node.models.iter().any(|model| model.state == "ready");
    alive == count && status.nodes.iter().filter(is_ready).count() == ready
}

fn command(place: &Path, home: &Path, role: Role) -> Result<Command> {
    let program: PathBuf = std::env::current_exe().context("cannot find this program's file")?;
    let mut command = Command::new(program);
    command
        .args(["up", "--exit-with-parent", "--no-mdns", "--name", role.name])
        .args(["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--threads", &threads()])
        .arg("--home")
        .arg(home)
        .arg("--rendezvous")
        .arg(place.join("rendezvous"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    // The person's own settings are for the person's own node.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SELVEDGE_") {
            command.env_remove(name);
        }
    }
    // That a node of the demo goes away is part of the demo and no news.
    command.env("SELVEDGE_LOG_FILTER", "error");
    // One packed copy of the model for all, which goes with the demo.
    command.env("SELVEDGE_ENGINE_PACKED_DIR", place.join("packed"));
    Ok(command)
}

/// Two nodes compute at the same time at most: each gets half of the machine.
fn threads() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 256).to_string()
}

/// The `ready` line. What the node says later is read and dropped, so that it never waits for us.
fn wait_until_ready(role: Role, stdout: std::process::ChildStdout) -> Result<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name(format!("{} output", role.name)).spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line.starts_with("ready ") {
                // The other end is gone when the demo has given up.
                let _ = sender.send(line);
            }
        }
    })?;
    match receiver.recv_timeout(READY) {
        Ok(line) => Ok(line),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            bail!("{} was not ready after {} s", role.name, READY.as_secs())
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            bail!("{} ended before it was ready; what it said is above", role.name)
        }
    }
}
