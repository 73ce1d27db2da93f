//! One `selvedge up`: how it is started, spoken to and hurt.
//!
//! Owns the command line of a node and its `ready` line. A node that is restarted keeps its home
//! and its arguments, nothing else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::admin::{self, Admin};
use crate::http::Client;
use crate::output::{Line, Source};
use crate::process::{self, Finished, Process};
use crate::scenario::Scenario;
use crate::time::{Deadline, Stopwatch};
use crate::{namespaces, places};

/// Threads of one test node's engine: several nodes share two cores.
const THREADS: &str = "2";

/// How to start a node.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// What people call it.
    pub name: String,
    /// Its data directory.
    pub home: PathBuf,
    /// Its network namespace.
    pub namespace: Option<String>,
    /// Where its HTTP interface listens.
    pub api: String,
    /// Where its QUIC socket listens.
    pub listen: String,
    /// Further arguments of `selvedge up`.
    pub arguments: Vec<String>,
    /// Further environment.
    pub environment: Vec<(String, String)>,
}

/// A node that has been started and has not yet said that it is ready.
#[derive(Debug)]
pub struct Starting {
    spec: NodeSpec,
    process: Process,
    begun: Stopwatch,
}

/// A node that serves.
#[derive(Debug)]
pub struct Node {
    /// How it was started.
    pub spec: NodeSpec,
    /// Its process.
    pub process: Process,
    /// Its HTTP address.
    pub api: SocketAddr,
    /// Its QUIC address as it printed it.
    pub quic: SocketAddr,
    /// Its PeerId.
    pub id: String,
    /// From its start to its `ready` line.
    pub start: Duration,
}

impl NodeSpec {
    /// A node on loopback, alone, without a model.
    pub fn new(name: &str, home: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            home,
            namespace: None,
            api: "127.0.0.1:0".to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With further arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&word| word.to_owned()));
        self
    }

    /// With the test model. The file is linked, not copied.
    ///
    /// # Errors
    /// When the model is missing.
    pub fn with_model(self) -> Result<Self> {
        let model = places::model()?;
        Ok(self.with(&["--model", &model.display().to_string()]))
    }

    /// On another API address.
    #[must_use]
    pub fn with_api(mut self, api: &str) -> Self {
        self.api = api.to_owned();
        self
    }

    /// Starts the process. `extra` is for this start only, such as `--join CODE`.
    ///
    /// # Errors
    /// When the binary is missing or cannot be started.
    pub fn start(&self, scenario: &Scenario, extra: &[&str]) -> Result<Starting> {
        let mut arguments: Vec<String> = ["up", "--name", &self.name, "--api", &self.api]
            .iter()
            .chain(&["--listen", &self.listen, "--threads", THREADS, "--home"])
            .map(|&word| word.to_owned())
            .collect();
        arguments.push(self.home.display().to_string());
        arguments.extend(self.arguments.iter().cloned());
        arguments.extend(extra.iter().map(|&word| word.to_owned()));
        let begun = Stopwatch::start();
        let namespace = self.namespace.as_deref();
        let binary = places::selvedge()?;
        let process =
            Process::start(&self.name, &binary, &arguments, namespace, &self.environment)?;
        scenario.show_on_failure(process.output());
        Ok(Starting { spec: self.clone(), process, begun })
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn up(&self, scenario: &Scenario, extra: &[&str]) -> Result<Node> {
        self.start(scenario, extra)?.ready()
    }
}

impl Starting {
    /// Waits for the `ready` line.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn ready(self) -> Result<Node> {
        let mut cursor = 0;
        let output = self.process.output();
        let line = output.wait(&mut cursor, Deadline::patient(), "its ready line", |line| {
            let ready = line.source == Source::Out && line.text.starts_with("ready ");
            ready.then(|| line.clone())
        })?;
        let node = parse_ready(&line).with_context(|| format!("ready line `{}`", line.text))?;
        let (api, quic, id) = node;
        let start = line.at.since(&self.begun);
        Ok(Node { spec: self.spec, process: self.process, api, quic, id, start })
    }

    /// Waits for its refusal to start: what it says on standard error.
    ///
    /// # Errors
    /// When it starts, crashes or says nothing.
    pub fn refused(self) -> Result<String> {
        let status = self.process.wait(Deadline::patient())?;
        let output = self.process.output();
        output.closed(Deadline::secs(5))?;
        let (out, err) = (output.text(Source::Out), output.text(Source::Err));
        Finished { status, out, err }.failure()
    }

    /// Its process, to hurt it before it is ready.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl Node {
    /// What people call it.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// A client of its HTTP interface.
    pub fn client(&self) -> Client {
        // A node on all addresses is reached by loopback.
        let ip = if self.api.ip().is_unspecified() { [127, 0, 0, 1].into() } else { self.api.ip() };
        Client::new(SocketAddr::new(ip, self.api.port()), self.spec.namespace.clone())
    }

    /// Its admin interface.
    ///
    /// # Errors
    /// When it has written no token.
    pub fn admin(&self) -> Result<Admin> {
        Admin::of(&self.spec.home, &self.client())
    }

    /// Runs a command of the command line against this node's home.
    ///
    /// # Errors
    /// When it cannot be run or does not end.
    pub fn cli(&self, arguments: &[&str]) -> Result<Finished> {
        cli(&self.spec.home, self.spec.namespace.as_deref(), arguments)
    }

    /// A join code, by the command line.
    ///
    /// # Errors
    /// When it prints none.
    pub fn invite(&self) -> Result<String> {
        admin::code_in(&self.cli(&["mesh", "invite"])?.success()?)
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Stops it in its tracks: sockets stay open, nothing moves.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Asks it to end and checks that it does so cleanly within the promised two seconds.
    ///
    /// # Errors
    /// When it does not.
    pub fn terminate(&self) -> Result<()> {
        let asked = Stopwatch::start();
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(Deadline::secs(10))?;
        let took = asked.elapsed();
        ensure!(status.success(), "{} ended with {status}", self.name());
        ensure!(took < Duration::from_secs(3), "{} took {took:?} to end", self.name());
        Ok(())
    }
}

/// Runs `selvedge ARGUMENTS --home HOME` to its end.
///
/// # Errors
/// When it cannot be run or does not end.
pub fn cli(home: &Path, namespace: Option<&str>, arguments: &[&str]) -> Result<Finished> {
    let mut words: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    words.extend(["--home".to_owned(), home.display().to_string()]);
    process::run(&places::selvedge()?, &words, namespace, &[], Deadline::patient())
}

/// Links the test model into a home under a name, so that a test may damage its own copy of others.
///
/// # Errors
/// When the model is missing or cannot be linked.
pub fn link_model(home: &Path, name: &str) -> Result<PathBuf> {
    let path = home.join("models").join(format!("{name}.gguf"));
    fs::create_dir_all(home.join("models"))?;
    link(&places::model()?, &path).with_context(|| format!("cannot link {}", path.display()))?;
    Ok(path)
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(from, to)
}

fn parse_ready(line: &Line) -> Result<(SocketAddr, SocketAddr, String)> {
    let field = |name: &str| {
        let mut words = line.text.split_whitespace();
        words.find_map(|word| word.strip_prefix(name)).with_context(|| format!("no {name}"))
    };
    let api = field("api=http://")?.parse()?;
    let quic = field("quic=")?.parse()?;
    let id = field("node=")?.to_owned();
    ensure!(id.starts_with("12D3KooW"), "`{id}` is no PeerId");
    ensure!(namespaces::nonzero(&api) && namespaces::nonzero(&quic), "a port of zero");
    Ok((api, quic, id))
}
