//! The gateways that are measured: how each is found, set up and started.
//!
//! Owns the list and what they have in common. Each is given the same upstream, the same thousand
//! keys where it can hold keys, and the same duties where it has them: key check, log, limits.

mod ai;
mod haproxy;
mod nginx;
mod selvedge;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::answers::{MODELS, UPSTREAM_KEY};
use crate::floor;
use crate::process::{Process, Starter};
use crate::scenario::{Expected, Scenario, Template};

/// Keys a gateway knows: a small company's.
const KEYS: usize = 1_000;
/// The one that is used, from the middle.
const USED: usize = 500;

/// A gateway that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The product.
    Selvedge,
    /// A bare proxy on hyper; see [`crate::floor`].
    Floor,
    /// nginx from Debian.
    Nginx,
    /// HAProxy from Debian.
    Haproxy,
    /// llmg-gateway from the crates registry (Rust).
    Llmg,
    /// LiteLLM from the Python registry.
    LiteLlm,
    /// Portkey from the npm registry.
    Portkey,
}

/// What a gateway is set up with.
#[derive(Debug)]
pub struct Setup {
    /// How processes are started.
    pub starter: Starter,
    /// The mock upstream.
    pub upstream: SocketAddr,
    /// A directory of its own, empty.
    pub dir: PathBuf,
    /// Where it should listen.
    pub listen: SocketAddr,
}

/// A gateway that was started; whether it answers is not known yet.
#[derive(Debug)]
pub struct Gateway {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub addr: SocketAddr,
    /// The key clients show.
    pub key: String,
    /// What else requests to it carry.
    pub headers: Vec<(String, String)>,
    /// What it wants in front of the names of models.
    pub prefix: &'static str,
    /// It passes bytes on as they came.
    pub exact: bool,
}

/// What makes a gateway impossible to measure here.
#[derive(Clone, Debug)]
pub struct Absent {
    /// Why.
    pub reason: String,
    /// The command that helps, if one does.
    pub command: Option<String>,
}

impl Peer {
    /// All, the product first.
    pub const ALL: [Self; 7] = [
        Self::Selvedge,
        Self::Floor,
        Self::Nginx,
        Self::Haproxy,
        Self::Llmg,
        Self::LiteLlm,
        Self::Portkey,
    ];

    /// Its name in figures, tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Selvedge => "selvedge",
            Self::Floor => "floor",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Llmg => "llmg",
            Self::LiteLlm => "litellm",
            Self::Portkey => "portkey",
        }
    }

    /// Whether it knows what a model is: those are what Selvedge is compared with by throughput.
    pub fn is_ai_gateway(self) -> bool {
        matches!(self, Self::Llmg | Self::LiteLlm | Self::Portkey)
    }

    /// Whether it can do what a scenario asks for.
    pub fn serves(self, scenario: Scenario) -> bool {
        match scenario {
            // Messages to an OpenAI upstream: plain proxies translate nothing, and llmg has no
            // such surface. LiteLLM and Portkey do.
            Scenario::Translate => {
                matches!(self, Self::Selvedge | Self::Floor | Self::LiteLlm | Self::Portkey)
            }
            // HAProxy caches no POST; Portkey's cache needs an outside store; llmg's is not
            // reached from its configuration file.
            Scenario::Cached => {
                matches!(self, Self::Selvedge | Self::Floor | Self::Nginx | Self::LiteLlm)
            }
            _ => true,
        }
    }

    /// Connections that saturate it; more only add waiting.
    pub fn connections(self, scenario: Scenario) -> usize {
        match (self, scenario) {
            (Self::LiteLlm, _) => 32,
            (_, Scenario::SsePaced) => 512,
            _ => 64,
        }
    }

    /// Load before anything counts, in milliseconds: programs that are compiled while they run
    /// need longer.
    pub fn warm_ms(self) -> u64 {
        match self {
            Self::LiteLlm | Self::Portkey => 2_000,
            _ => 500,
        }
    }

    /// The program that is started.
    ///
    /// # Errors
    /// When it is not on this machine; with what installs it.
    pub fn program(self) -> Result<PathBuf, Absent> {
        let found = match self {
            Self::Floor => std::env::current_exe().ok(),
            Self::Selvedge => selvedge::program(),
            Self::Nginx => on_path("nginx"),
            Self::Haproxy => on_path("haproxy"),
            Self::Llmg => Some(peers().join("llmg/bin/llmg-gateway")),
            Self::LiteLlm => Some(peers().join("litellm/bin/litellm")),
            Self::Portkey => on_path("node").filter(|_| ai::portkey_script().is_file()),
        };
        found.filter(|path| path.is_file()).ok_or_else(|| Absent {
            reason: "not installed".to_owned(),
            command: Some(match self {
                Self::Selvedge => "cargo build --release --package selvedge".to_owned(),
                _ => format!("tests/gateway-bench/install {}", self.name()),
            }),
        })
    }

    /// Gives it what it keeps on disk before it is started; not part of its start.
    ///
    /// # Errors
    /// When it cannot be configured.
    pub fn prepare(self, setup: &Setup) -> Result<()> {
        match self {
            Self::Selvedge => selvedge::prepare(setup),
            _ => Ok(()),
        }
    }

    /// Starts it for a scenario.
    ///
    /// # Errors
    /// When it cannot be set up or started.
    pub fn start(self, program: &Path, setup: &Setup, scenario: Scenario) -> Result<Gateway> {
        match self {
            Self::Selvedge => selvedge::start(program, setup, scenario),
            Self::Floor => start_floor(program, setup, scenario),
            Self::Nginx => nginx::start(program, setup, scenario),
            Self::Haproxy => haproxy::start(program, setup),
            Self::Llmg => ai::start_llmg(program, setup),
            Self::LiteLlm => ai::start_litellm(program, setup, scenario),
            Self::Portkey => ai::start_portkey(program, setup),
        }
    }
}

impl Gateway {
    /// One that passes bytes on and knows all keys.
    fn plain(process: Process, setup: &Setup) -> Self {
        let headers = Vec::new();
        Self { process, addr: setup.listen, key: key(USED), headers, prefix: "", exact: true }
    }

    /// The request it gets in a scenario.
    pub fn template(&self, scenario: Scenario) -> Template {
        scenario.template(&self.key, &self.headers, self.prefix)
    }

    /// The same with a key nobody has.
    pub fn stranger(&self, scenario: Scenario) -> Template {
        scenario.template("sk-bench-stranger", &self.headers, self.prefix)
    }

    /// What a right answer of it is.
    pub fn expected(&self, scenario: Scenario) -> Expected {
        scenario.expected(self.exact)
    }
}

fn start_floor(program: &Path, setup: &Setup, scenario: Scenario) -> Result<Gateway> {
    let config = floor::Config {
        listen: setup.listen,
        upstream: setup.upstream,
        upstream_key: UPSTREAM_KEY.to_owned(),
        models: MODELS.iter().map(|model| model.name.to_owned()).collect(),
        keys: keys(),
        log: setup.dir.join("requests.log"),
        cache: scenario == Scenario::Cached,
    };
    let config = serde_json::to_string(&config)?;
    let log = setup.dir.join("out.log");
    let process = setup.starter.gateway(program, log, |command| {
        command.args(["floor", &config]);
    })?;
    Ok(Gateway::plain(process, setup))
}

/// Starts a gateway whose arguments are all there is to say.
fn start_with(program: &Path, setup: &Setup, args: &[&str]) -> Result<Process> {
    setup.starter.gateway(program, setup.dir.join("out.log"), |command| {
        command.args(args).current_dir(&setup.dir);
    })
}

/// Writes a file of a setup and gives back its path.
fn write(setup: &Setup, name: &str, text: &str) -> Result<String> {
    let path = setup.dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}

/// A client's key by its number.
fn key(number: usize) -> String {
    format!("sk-bench-{number:04}-{}", "3f9a".repeat(8))
}

fn keys() -> Vec<String> {
    (0..KEYS).map(key).collect()
}

/// An address nobody listens on.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}

/// Where the install script puts what is not a Debian package.
fn peers() -> PathBuf {
    repository().join("target/peers")
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian's servers are outside a user's usual path.
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|path| path.is_file())
}
