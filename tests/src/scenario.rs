//! One test: named steps, its nodes, and everything worth seeing when it fails.
//!
//! Owns the order of events at the end of a test: on failure the step and the output of every
//! process are printed first, then processes and directories go.

use std::cell::RefCell;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::home::TempDir;
use crate::node::{Node, NodeSpec, Starting};
use crate::output::Output;
use crate::time::{Deadline, Stopwatch};

/// A running test.
#[derive(Debug)]
pub struct Scenario {
    dir: TempDir,
    begun: Stopwatch,
    step: RefCell<String>,
    outputs: RefCell<Vec<Output>>,
}

/// Runs a test to its end and panics with the step that failed and all that its processes said.
///
/// # Panics
/// When the test fails.
pub fn scenario(test: impl FnOnce(&Scenario) -> Result<()>) {
    let scenario = match Scenario::new() {
        Ok(scenario) => scenario,
        Err(error) => panic!("{error:#}"),
    };
    match panic::catch_unwind(AssertUnwindSafe(|| test(&scenario))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            scenario.show();
            panic!("failed at: {}: {error:#}", scenario.step.borrow());
        }
        Err(payload) => {
            scenario.show();
            scenario.say(&format!("panicked at: {}", scenario.step.borrow()));
            panic::resume_unwind(payload);
        }
    }
}

impl Scenario {
    /// A test that is run by hand, as benches do.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn new() -> Result<Self> {
        Ok(Self {
            dir: TempDir::new()?,
            begun: Stopwatch::start(),
            step: RefCell::new("the start".to_owned()),
            outputs: RefCell::default(),
        })
    }

    /// Names what is checked from here on.
    pub fn step(&self, name: &str) {
        self.say(name);
        name.clone_into(&mut self.step.borrow_mut());
    }

    /// Notes something worth reading in the test's output.
    pub fn say(&self, text: &str) {
        let line = format!("[{:6.2} s] {text}\n", self.begun.elapsed().as_secs_f64());
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A node on loopback that meets the test's other nodes by rendezvous files.
    pub fn node(&self, name: &str) -> NodeSpec {
        let rendezvous = self.path("rendezvous").display().to_string();
        NodeSpec::new(name, self.path(name)).with(&["--no-mdns", "--rendezvous", &rendezvous])
    }

    /// The directory of the rendezvous files.
    pub fn rendezvous(&self) -> PathBuf {
        self.path("rendezvous")
    }

    /// Starts a mesh: the first node makes it, the others join by invitation, all at once.
    ///
    /// # Errors
    /// When a node does not become ready or the nodes do not find each other.
    pub fn mesh(&self, specs: &[NodeSpec]) -> Result<Vec<Node>> {
        let Some((first, others)) = specs.split_first() else { return Ok(Vec::new()) };
        let founder = first.up(self, &[])?;
        let mut starting: Vec<Starting> = Vec::new();
        for spec in others {
            let code = founder.admin()?.invite(600)?;
            starting.push(spec.start(self, &["--join", &code])?);
        }
        let mut nodes = vec![founder];
        for start in starting {
            nodes.push(start.ready()?);
        }
        self.meet(&nodes)?;
        Ok(nodes)
    }

    /// Waits until every node sees all nodes alive and every model ready.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn meet(&self, nodes: &[Node]) -> Result<()> {
        let with_model = |node: &&Node| node.spec.arguments.iter().any(|word| word == "--model");
        let models = nodes.iter().filter(with_model).count();
        for node in nodes {
            let admin = node.admin()?;
            let met = admin.until_alive(nodes.len(), Deadline::patient());
            met.with_context(|| format!("{} did not see all nodes", node.name()))?;
            let offered = admin.until_offered(models, Deadline::patient());
            offered.with_context(|| format!("{} did not see all models", node.name()))?;
        }
        Ok(())
    }

    /// Shows this output when the test fails.
    pub fn show_on_failure(&self, output: &Output) {
        self.outputs.borrow_mut().push(output.clone());
    }

    /// The directory of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Prints the last output of every process.
    pub fn show(&self) {
        for output in self.outputs.borrow().iter() {
            let _ = io::stderr().write_all(output.tail().as_bytes());
        }
    }
}
