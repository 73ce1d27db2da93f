//! The node's side of an ONNX model that runs in a process of its own.
//!
//! Owns when there is a process: it is started with the model, ended when whoever asked waits no
//! longer, and started again at the next request, later each time it was the model's fault. What
//! the process says is bounded and checked against what the file promised.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::Arc;
use std::time::Duration;

use selvedge_base::{Blame, Code, Micros, Mono, Refusal, Retry, Stage};
use selvedge_contract::{Signature, Tensor};

use super::file::{File, Settings};
use super::runtime::{Failed, Runtime};
use super::speech::{self, Ask, Head, Told, VERSION};
use crate::apart::{self, Faults, Heard, Silence, short};
use crate::error::{EngineError, elsewhere};
use crate::job::cancelled;

/// The longest run: a model of vision over a large batch takes seconds of a slow core.
pub(super) const MAX_RUN: Duration = Duration::from_secs(120);
/// What starting a process and loading a file take at most: a second for half a gigabyte, but a
/// machine that swaps may take long.
pub(super) const OPENED_WITHIN: Duration = Duration::from_secs(60);

/// Where ONNX models run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Running {
    /// In this process: for programs that chose their files themselves, as tests do.
    #[default]
    Here,
    /// In a process of its own for each model: this program with these arguments, which must call
    /// [`serve_onnx`](crate::serve_onnx) and nothing else.
    Apart {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<OsString>,
    },
}

/// One model and where it runs.
pub(crate) struct Host {
    pub(super) signature: Arc<Signature>,
    file: File,
    threads: u32,
    place: Place,
}

enum Place {
    Here(Box<dyn Runtime>),
    Apart(Box<Apart>),
}

struct Apart {
    program: PathBuf,
    arguments: Vec<OsString>,
    process: Option<Process>,
    faults: Faults,
}

/// A process that runs a model.
type Process = apart::Process<Order, (Told, Vec<Tensor>)>;

/// What is said, and what follows it.
struct Order {
    ask: Ask,
    file: Vec<u8>,
    tensors: Vec<Tensor>,
}

/// How long somebody waits for outputs.
pub(crate) struct Patience<'a> {
    /// Until when.
    pub(super) until: Mono,
    /// What time it is.
    pub(super) clock: &'a dyn Fn() -> Mono,
    /// Whether whoever asked waits still.
    pub(super) wanted: &'a dyn Fn() -> bool,
    /// Whether the model is kept: a process that is being started is of use to the next request,
    /// and to nobody once the model is removed.
    pub(super) kept: &'a dyn Fn() -> bool,
}

impl Host {
    /// Loads a model where it is to run.
    pub(crate) fn open(file: File, running: &Running, threads: usize) -> Result<Self, EngineError> {
        let signature = Arc::new(file.signature());
        let threads = u32::try_from(threads).unwrap_or(1);
        let place = match running {
            Running::Here => Place::Here(file.load_here(threads)?),
            Running::Apart { program, arguments } => {
                let (program, arguments) = (program.clone(), arguments.clone());
                let process = start(&program, &arguments, &file, threads, &|| true)?;
                let (process, faults) = (Some(process), Faults::default());
                Place::Apart(Box::new(Apart { program, arguments, process, faults }))
            }
        };
        Ok(Self { signature, file, threads, place })
    }

    /// The outputs for inputs that fit the signature, while somebody waits for them.
    pub(crate) fn run(
        &mut self,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
        patience: &Patience<'_>,
    ) -> Result<Vec<Tensor>, Refusal> {
        let tensors = match &mut self.place {
            Place::Here(runtime) => runtime.run(&inputs, &outputs).map_err(failed)?,
            Place::Apart(apart) => {
                apart.run((&self.file, self.threads), inputs, &outputs, patience)?
            }
        };
        self.check(tensors, &outputs)
    }

    /// Whether outputs are those that were wanted; their sides may be others than the file says.
    fn check(&self, tensors: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, Refusal> {
        let names: Vec<&str> = match outputs {
            [] => self.signature.outputs.iter().map(|spec| spec.name.as_str()).collect(),
            names => names.iter().map(String::as_str).collect(),
        };
        let spec = |name: &str| self.signature.outputs.iter().find(|spec| spec.name == name);
        let fits = |(tensor, name): (&Tensor, &&str)| {
            tensor.name == **name
                && spec(name).is_some_and(|spec| spec.datatype == tensor.datatype)
                && tensor.check().is_ok()
        };
        if tensors.len() == names.len() && tensors.iter().zip(&names).all(fits) {
            return Ok(tensors);
        }
        let message = "the model gave other outputs than its file promises";
        Err(elsewhere(Code::Internal, message))
    }
}

impl Patience<'_> {
    /// What is left of the time.
    fn left(&self) -> Micros {
        self.until.since((self.clock)())
    }
}

impl Apart {
    fn run(
        &mut self,
        (file, threads): (&File, u32),
        inputs: Vec<Tensor>,
        outputs: &[String],
        patience: &Patience<'_>,
    ) -> Result<Vec<Tensor>, Refusal> {
        self.faults.check((patience.clock)())?;
        let mut process = self.started(file, threads, patience)?;
        // Meanwhile the time may have passed, or whoever asked left: the next one has use for it.
        let left = patience.left();
        if left == Micros(0) || !(patience.wanted)() {
            self.process = Some(process);
            return Err(if left == Micros(0) { late() } else { cancelled() });
        }
        let most = u64::try_from(MAX_RUN.as_millis()).unwrap_or(u64::MAX);
        let within_ms = (left.0 / 1_000).clamp(1, most);
        let heads = inputs.iter().map(Head::of).collect();
        let ask = Ask::Run { inputs: heads, outputs: outputs.to_vec(), within_ms };
        let order = Order { ask, file: Vec::new(), tensors: inputs };
        match process.ask_while(order, Duration::from_millis(within_ms), patience.wanted) {
            Ok((told, tensors)) => {
                self.process = Some(process);
                match told {
                    Told::Made(_) => Ok(tensors),
                    Told::Refused(why) => Err(failed(Failed::Inputs(why))),
                    Told::Failed(why) => Err(failed(Failed::Model(why))),
                    Told::Opened | Told::Unusable(_) | Told::Version(_) => {
                        let message = "what runs the model answers something else";
                        Err(elsewhere(Code::Internal, message))
                    }
                }
            }
            Err(Silence::Unwanted) => Err(cancelled()),
            Err(Silence::TooLong) => {
                if within_ms == most {
                    self.faults.note((patience.clock)());
                }
                Err(late())
            }
            Err(Silence::Ended) => {
                let rest = self.faults.note((patience.clock)());
                tracing::warn!(seconds = rest.0 / 1_000_000, "a model's process ended");
                // What ended this process would end those of peers, one after the other.
                Err(crashed(rest, Retry::Never))
            }
        }
    }

    /// The process as it was left, or one that is started now.
    fn started(
        &mut self,
        file: &File,
        threads: u32,
        patience: &Patience<'_>,
    ) -> Result<Process, Refusal> {
        if let Some(process) = self.process.take().and_then(Process::running) {
            return Ok(process);
        }
        let started = start(&self.program, &self.arguments, file, threads, patience.kept);
        started.map_err(|error| {
            if !(patience.kept)() {
                return cancelled();
            }
            let rest = self.faults.note((patience.clock)());
            tracing::warn!(seconds = rest.0 / 1_000_000, %error, "a model did not start again");
            error.to_refusal()
        })
    }
}

impl Faults {
    /// Refuses while a model that crashed is left alone.
    fn check(&self, now: Mono) -> Result<(), Refusal> {
        match self.rests(now) {
            Some(rest) => Err(crashed(rest, Retry::Elsewhere)),
            None => Ok(()),
        }
    }
}

/// Starts a process and has it load the model, as long as that is kept.
fn start(
    program: &PathBuf,
    arguments: &[OsString],
    file: &File,
    threads: u32,
    kept: &dyn Fn() -> bool,
) -> Result<Process, EngineError> {
    let bytes = file.bytes()?;
    let (data_bytes, settings) = file.opening();
    let (classifies, settings) = (settings.is_some(), settings.unwrap_or_default());
    let Settings { text, labels } = settings;
    let (version, file_bytes) = (VERSION, bytes.len() as u64);
    let ask = Ask::Open { version, file_bytes, data_bytes, threads, classifies, text, labels };
    let mut command = Command::new(program);
    // What the environment may ask of the library is not asked by this node.
    command.args(arguments).env_clear();
    let process = Process::spawn(command, "selvedge-onnx-io", exchange);
    let mut process = process.map_err(|error| EngineError::Runner(error.to_string()))?;
    let order = Order { ask, file: bytes, tensors: Vec::new() };
    match process.ask_while(order, OPENED_WITHIN, kept) {
        Ok((Told::Opened, _)) => Ok(process),
        Ok((Told::Unusable(why), _)) => Err(EngineError::unsupported(short(&why))),
        Ok((Told::Version(_), _)) => Err(EngineError::Runner(
            "the program on disk is not the one that runs; restart the node".to_owned(),
        )),
        Ok((Told::Made(_) | Told::Refused(_) | Told::Failed(_), _)) => {
            Err(EngineError::Runner("the program does not run models".to_owned()))
        }
        Err(Silence::Unwanted) => {
            Err(EngineError::Runner("it was removed while it was loaded".to_owned()))
        }
        Err(Silence::Ended) => {
            let mebibytes = data_bytes >> 20;
            Err(EngineError::corrupt(format!(
                "loading it ended its process, which may take {mebibytes} MiB of memory"
            )))
        }
        Err(Silence::TooLong) => {
            let seconds = OPENED_WITHIN.as_secs();
            Err(EngineError::Runner(format!("it was not loaded within {seconds} s")))
        }
    }
}

/// Says what is asked and hears what is told.
fn exchange(
    Order { ask, file, tensors }: Order,
    input: &mut ChildStdin,
    output: &mut ChildStdout,
) -> Heard<(Told, Vec<Tensor>)> {
    let file = std::iter::once(file.as_slice());
    let bytes = file.chain(tensors.iter().map(|tensor| tensor.data.as_slice()));
    // One that refuses a file may do so before it has read it whole.
    let wrote = speech::write(input, &ask, bytes);
    let heard = match speech::read(output) {
        Ok(Some(Told::Made(heads))) => {
            let tensors = speech::read_tensors(output, heads);
            tensors.map(|tensors| Some((Told::Made(Vec::new()), tensors)))
        }
        Ok(other) => Ok(other.map(|told| (told, Vec::new()))),
        Err(error) => Err(error),
    };
    match heard {
        Ok(Some(heard)) if wrote.is_ok() => Heard::Answer(heard),
        Ok(Some(heard)) => Heard::Last(heard),
        Ok(None) | Err(_) => Heard::Nothing,
    }
}

fn failed(failed: Failed) -> Refusal {
    match failed {
        Failed::Inputs(why) => {
            let message = format!("the model cannot be run with these inputs: {}", short(&why));
            Refusal::client(Stage::Execute, Code::InvalidRequest, message).param("inputs")
        }
        Failed::Model(why) => {
            elsewhere(Code::Internal, format!("the model gave no outputs: {}", short(&why)))
        }
    }
}

pub(super) fn late() -> Refusal {
    let message = "the outputs were not there within the request's time";
    Refusal::new(Stage::Execute, Blame::Us, Retry::Never, Code::Timeout, message)
}

fn crashed(rest: Micros, retry: Retry) -> Refusal {
    let seconds = rest.0.div_ceil(1_000_000);
    let message = format!(
        "running the model took more memory than it may, or crashed; it is tried again in \
         {seconds} s at the earliest. Ask with smaller inputs"
    );
    Refusal::new(Stage::Execute, Blame::Us, retry, Code::OutOfMemory, message)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "host_tests.rs"]
mod tests;
