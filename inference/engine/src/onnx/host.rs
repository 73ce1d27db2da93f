//! The node's side of an ONNX model that runs in a process of its own.
//!
//! Owns the process: it is started with the model, asked one thing at a time, ended when whoever
//! asked waits no longer, and started again at the next request, later each time it was the model's
//! fault. What the process says is bounded and checked against what the file promised.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use selvedge_base::{Blame, Code, Micros, Mono, Refusal, Retry, Stage};
use selvedge_contract::{Signature, Tensor};

use super::file::{File, Settings};
use super::runtime::{Failed, Runtime};
use super::speech::{self, Ask, Head, Told, VERSION};
use crate::error::{EngineError, elsewhere};
use crate::job::cancelled;

/// The longest run: a model of vision over a large batch takes seconds of a slow core.
pub(super) const MAX_RUN: Duration = Duration::from_secs(120);
/// What starting a process and loading a file take at most: a second for half a gigabyte, but a
/// machine that swaps may take long.
pub(super) const OPENED_WITHIN: Duration = Duration::from_secs(60);
/// How often one that waits looks whether anybody still wants the outputs.
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// How long a model is left alone after its first crash; it doubles with each more.
const FIRST_REST: Micros = Micros::secs(1);
/// Doublings of it: a model that always crashes is started every four minutes.
const MAX_DOUBLINGS: u32 = 8;
/// A model that did well for so long begins afresh.
const FORGIVEN_AFTER: Micros = Micros::secs(3_600);
/// Characters of an error that are shown: the text is in part the file's.
const SHOWN_CHARS: usize = 500;

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

/// Crashes that are not forgiven.
#[derive(Default)]
struct Faults {
    count: u32,
    last: Option<Mono>,
}

/// A running process. The thread that writes to it and reads from it is apart, so that whoever
/// waits can stop waiting.
struct Process {
    child: Child,
    asks: SyncSender<Order>,
    answers: Receiver<(Told, Vec<Tensor>)>,
}

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

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    /// Nobody waits any more.
    Unwanted,
    /// The time is over.
    TooLong,
    /// The process ended.
    Ended,
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
        match process.ask(order, Duration::from_millis(within_ms), patience.wanted) {
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
        let Some(last) = self.last else { return Ok(()) };
        let (since, rest) = (now.since(last), self.rest());
        if since >= rest {
            return Ok(());
        }
        Err(crashed(Micros(rest.0 - since.0), Retry::Elsewhere))
    }

    /// Notes a crash; how long the model is left alone now.
    fn note(&mut self, now: Mono) -> Micros {
        if self.last.is_some_and(|last| now.since(last) >= FORGIVEN_AFTER) {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        self.rest()
    }

    fn rest(&self) -> Micros {
        match self.count.checked_sub(1) {
            None => Micros(0),
            Some(doublings) => Micros(FIRST_REST.0 << doublings.min(MAX_DOUBLINGS)),
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
    let mut process = Process::spawn(program, arguments)?;
    let order = Order { ask, file: bytes, tensors: Vec::new() };
    match process.ask(order, OPENED_WITHIN, kept) {
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

impl Process {
    fn spawn(program: &PathBuf, arguments: &[OsString]) -> Result<Self, EngineError> {
        let failed = |error: std::io::Error| EngineError::Runner(error.to_string());
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        // It says what there is to say in its answers; a crash's last words would be a file's. What
        // the environment may ask of the library is not asked by this node.
        command.stderr(Stdio::null()).env_clear();
        #[cfg(unix)]
        {
            // A key that interrupts the node on a terminal is not for its helpers.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let mut child = command.spawn().map_err(failed)?;
        let (asks, asked) = sync_channel(1);
        let (told, answers) = sync_channel(1);
        let pipes = child.stdin.take().zip(child.stdout.take());
        // From here on the process ends with this value.
        let process = Self { child, asks, answers };
        let Some((input, output)) = pipes else {
            return Err(EngineError::Runner("it has no pipes".to_owned()));
        };
        std::thread::Builder::new()
            .name("selvedge-onnx-io".to_owned())
            .spawn(move || carry(&asked, &told, input, output))
            .map_err(failed)?;
        Ok(process)
    }

    /// The process, unless it has ended.
    fn running(mut self) -> Option<Self> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }

    /// Asks one thing and waits for the answer. After a silence the process is of no use.
    fn ask(
        &mut self,
        order: Order,
        within: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(Told, Vec<Tensor>), Silence> {
        // One thing at a time: there is always room for it.
        self.asks.send(order).map_err(|_| Silence::Ended)?;
        let mut left = within;
        loop {
            let look = left.min(LOOKS_EVERY);
            left = left.saturating_sub(look);
            match self.answers.recv_timeout(look) {
                Ok(told) => return Ok(told),
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Ended),
                Err(RecvTimeoutError::Timeout) if !wanted() => return Err(Silence::Unwanted),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Err(Silence::TooLong),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already. It holds nothing that is worth a farewell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes what is asked and reads what is told, until one of the sides is gone.
fn carry(
    asked: &Receiver<Order>,
    told: &SyncSender<(Told, Vec<Tensor>)>,
    mut input: ChildStdin,
    mut output: ChildStdout,
) {
    while let Ok(Order { ask, file, tensors }) = asked.recv() {
        let file = std::iter::once(file.as_slice());
        let bytes = file.chain(tensors.iter().map(|tensor| tensor.data.as_slice()));
        // One that refuses a file may do so before it has read it whole.
        let wrote = speech::write(&mut input, &ask, bytes);
        let heard = match speech::read(&mut output) {
            Ok(Some(Told::Made(heads))) => {
                let tensors = speech::read_tensors(&mut output, heads);
                tensors.map(|tensors| Some((Told::Made(Vec::new()), tensors)))
            }
            Ok(other) => Ok(other.map(|told| (told, Vec::new()))),
            Err(error) => Err(error),
        };
        let Ok(Some(heard)) = heard else { return };
        if told.send(heard).is_err() || wrote.is_err() {
            return;
        }
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

fn short(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "host_tests.rs"]
mod tests;
