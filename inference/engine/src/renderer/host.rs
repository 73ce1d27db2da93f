//! The node's side of a template that is rendered in a process of its own.
//!
//! Owns the process: it is started with the model, asked one thing at a time, ended when it takes
//! too long, and started again at the next request, later each time it was the template's fault.
//! What the process says is bounded and believed no further than a template's text would be.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use selvedge_base::{Blame, Code, Micros, Mono, Refusal, Retry, Stage};
use selvedge_contract::{ChatMessage, Tooled};

use super::Source;
use super::speech::{self, Ask, Fault, Told, VERSION};
use crate::error::{EngineError, elsewhere, overloaded};

/// A prompt takes about a millisecond, the longest chat on a slow and busy machine a second.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// What starting a process and compiling a template take at most: usually some 20 ms, but a machine
/// that swaps or starts much else may take seconds for it. The process itself ends a compiler that
/// takes more than [`DEADLINE`] once it is at it, so this long is waited only for a machine.
const OPENED_WITHIN: Duration = Duration::from_secs(30);
/// Milliseconds from the end of a process's output to its own: usually less than one.
const REAPED_WITHIN_MS: u32 = 500;
/// When to come back where others wait for the same template: a prompt takes about a millisecond.
const BUSY_WAIT: Micros = Micros::secs(1);
/// How long a template is left alone after its first hang or crash; it doubles with each more.
const FIRST_REST: Micros = Micros::secs(1);
/// Doublings of it: a template that always hangs takes five seconds of one core in four minutes.
const MAX_DOUBLINGS: u32 = 8;
/// A template that did well for so long begins afresh.
const FORGIVEN_AFTER: Micros = Micros::secs(3_600);
/// Characters of an error that are shown: the text is the template's.
const SHOWN_CHARS: usize = 500;

/// One model's template and the process that renders it.
pub(super) struct Host {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The first message to every process.
    opening: Vec<u8>,
    clock: Arc<dyn Fn() -> Mono + Send + Sync>,
    /// Held while one rendering is waited for.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    process: Option<Process>,
    /// Hangs and crashes that are not forgiven.
    faults: u32,
    /// When the last one was.
    faulted: Option<Mono>,
    /// Who may be asked after it.
    retry: Option<Retry>,
}

/// A running process. The thread that writes to it and reads from it is apart, so that whoever
/// waits can stop waiting.
struct Process {
    child: Child,
    asks: SyncSender<Vec<u8>>,
    answers: Receiver<Told>,
}

/// Why there is no answer.
enum Silence {
    TooLong,
    Ended,
}

impl Host {
    /// Starts the process and has it compile the template.
    pub(super) fn open(
        program: PathBuf,
        arguments: Vec<OsString>,
        source: Source<'_>,
        clock: Arc<dyn Fn() -> Mono + Send + Sync>,
    ) -> Result<Self, EngineError> {
        let opening = speech::frame(&Ask::Open {
            version: VERSION,
            source: Cow::Borrowed(source.text),
            bos: Cow::Borrowed(source.bos),
            eos: Cow::Borrowed(source.eos),
            control: Cow::Borrowed(source.control),
        });
        let opening = opening.map_err(|error| {
            EngineError::unsupported(format!("a chat template and control tokens: {error}"))
        })?;
        let host = Self { program, arguments, opening, clock, state: Mutex::default() };
        let process = host.start()?;
        host.state.lock().process = Some(process);
        Ok(host)
    }

    pub(super) fn process(&self) -> Option<u32> {
        self.state.lock().process.as_ref().map(|process| process.child.id())
    }

    pub(super) fn render(&self, messages: &[ChatMessage]) -> Result<Vec<String>, Refusal> {
        self.ask(&Ask::Render(Cow::Borrowed(messages)))
    }

    pub(super) fn render_tooled(&self, chat: &Tooled) -> Result<Vec<String>, Refusal> {
        self.ask(&Ask::RenderTooled(Cow::Borrowed(chat)))
    }

    fn ask(&self, ask: &Ask<'_>) -> Result<Vec<String>, Refusal> {
        let ask = speech::frame(ask).map_err(|error| {
            let message = format!("the messages are too long for a chat template: {error}");
            Refusal::client(Stage::Validate, Code::TooLarge, message).param("messages")
        })?;
        // Threads that wait are few and everybody's: they are not kept longer than for one prompt.
        let Some(mut state) = self.state.try_lock_for(DEADLINE) else {
            let message = "other prompts wait for the model's chat template already";
            return Err(overloaded(message, BUSY_WAIT));
        };
        self.check_rest(&state)?;
        // One that ended while nobody asked it anything was ended by the system or by somebody.
        let mut process = match state.process.take().and_then(Process::running) {
            Some(process) => process,
            None => match self.start() {
                Ok(process) => process,
                Err(error) => {
                    if matches!(error, EngineError::Corrupt(_)) {
                        // What compiled once and does not now has taken its time or crashed.
                        self.fault(&mut state);
                    }
                    return Err(error.to_refusal());
                }
            },
        };
        match process.ask(ask, DEADLINE) {
            Ok(told) => {
                state.process = Some(process);
                answer(told)
            }
            Err(silence) => {
                drop(process);
                let wait = self.fault(&mut state);
                tracing::warn!(seconds = wait.0 / 1_000_000, "a chat template {}", silence.what());
                state.retry = Some(silence.retry());
                Err(at_fault(silence.what(), wait, silence.retry()))
            }
        }
    }

    fn start(&self) -> Result<Process, EngineError> {
        let mut process = Process::spawn(&self.program, &self.arguments)?;
        match process.ask(self.opening.clone(), OPENED_WITHIN) {
            Ok(Told::Opened) => Ok(process),
            Ok(Told::Unusable(Fault::Corrupt(reason))) => Err(EngineError::Corrupt(short(&reason))),
            Ok(Told::Unusable(Fault::Unsupported(reason))) => {
                Err(EngineError::Unsupported(short(&reason)))
            }
            Ok(Told::Unusable(Fault::Version(_))) => Err(EngineError::Renderer(
                "the program on disk is not the one that runs; restart the node".to_owned(),
            )),
            Ok(Told::Rendered(_) | Told::Refused(_) | Told::TooLong) => {
                Err(EngineError::Renderer("the program does not render chat templates".to_owned()))
            }
            Err(Silence::Ended) if process.crashed() => {
                let what = Silence::Ended.what();
                Err(EngineError::corrupt(format!("its chat template {what}")))
            }
            Err(Silence::Ended) => {
                Err(EngineError::Renderer("the process for it ended at once".to_owned()))
            }
            Err(Silence::TooLong) => {
                let seconds = OPENED_WITHIN.as_secs();
                let message = format!("the process for it said nothing for {seconds} s");
                Err(EngineError::Renderer(message))
            }
        }
    }

    /// Refuses while a template that was at fault is left alone.
    fn check_rest(&self, state: &State) -> Result<(), Refusal> {
        let Some(faulted) = state.faulted else { return Ok(()) };
        let since = (self.clock)().since(faulted);
        let rest = rest_after(state.faults);
        if since >= rest {
            return Ok(());
        }
        let retry = state.retry.unwrap_or(Retry::Never);
        Err(at_fault("hung or crashed lately", Micros(rest.0 - since.0), retry))
    }

    /// Notes a fault; how long the template is left alone now.
    fn fault(&self, state: &mut State) -> Micros {
        let now = (self.clock)();
        if state.faulted.is_some_and(|last| now.since(last) >= FORGIVEN_AFTER) {
            state.faults = 0;
        }
        state.faults = state.faults.saturating_add(1);
        state.faulted = Some(now);
        rest_after(state.faults)
    }
}

impl Process {
    fn spawn(program: &PathBuf, arguments: &[OsString]) -> Result<Self, EngineError> {
        let failed = |error: std::io::Error| EngineError::Renderer(error.to_string());
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        // It says what there is to say in its answers; a crash's last words would be a template's.
        command.stderr(Stdio::null());
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
            return Err(EngineError::Renderer("it has no pipes".to_owned()));
        };
        std::thread::Builder::new()
            .name("selvedge-template".to_owned())
            .spawn(move || carry(&asked, &told, input, output))
            .map_err(failed)?;
        Ok(process)
    }

    /// The process, unless it has ended.
    fn running(mut self) -> Option<Self> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }

    /// Whether a process that closed its output ended by a crash of its own, as it does when a
    /// template takes its stack or its time; not when somebody else ended it.
    fn crashed(&mut self) -> bool {
        for _ in 0..REAPED_WITHIN_MS {
            match self.child.try_wait() {
                Ok(Some(status)) => return by_crash(status),
                Ok(None) => std::thread::park_timeout(Duration::from_millis(1)),
                Err(_) => return false,
            }
        }
        false
    }

    /// Asks one thing and waits for the answer. After a silence the process is of no use.
    fn ask(&mut self, frame: Vec<u8>, within: Duration) -> Result<Told, Silence> {
        // One thing at a time: there is always room for it.
        self.asks.send(frame).map_err(|_| Silence::Ended)?;
        self.answers.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::TooLong,
            RecvTimeoutError::Disconnected => Silence::Ended,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already. It holds nothing that is worth a farewell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Silence {
    const fn what(&self) -> &'static str {
        match self {
            Self::TooLong => "took too long and was stopped",
            Self::Ended => "made the process that renders it end",
        }
    }

    /// The same file takes too long at any node; a process may also be ended for want of memory,
    /// which another node may have.
    const fn retry(&self) -> Retry {
        match self {
            Self::TooLong => Retry::Never,
            Self::Ended => Retry::Elsewhere,
        }
    }
}

/// Writes what is asked and reads what is told, until one of the sides is gone.
fn carry(
    asked: &Receiver<Vec<u8>>,
    told: &SyncSender<Told>,
    mut input: ChildStdin,
    mut output: ChildStdout,
) {
    while let Ok(frame) = asked.recv() {
        let answer = speech::write(&mut input, &frame).and_then(|()| speech::read(&mut output));
        let Ok(Some(answer)) = answer else { return };
        if told.send(answer).is_err() {
            return;
        }
    }
}

fn answer(told: Told) -> Result<Vec<String>, Refusal> {
    match told {
        Told::Rendered(pieces) => Ok(pieces),
        Told::Refused(mut refusal) => {
            refusal.message = short(&refusal.message);
            Err(refusal)
        }
        Told::TooLong => {
            let message = "the prompt that the model's chat template makes of these messages is \
                           too long";
            Err(Refusal::client(Stage::Validate, Code::TooLarge, message).param("messages"))
        }
        Told::Opened | Told::Unusable(_) => {
            Err(elsewhere(Code::Internal, "what renders chat templates answers something else"))
        }
    }
}

#[cfg(unix)]
fn by_crash(status: ExitStatus) -> bool {
    use rustix::process::Signal;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let crashes = [Signal::ABORT, Signal::SEGV, Signal::BUS];
    signal.is_some_and(|signal| crashes.iter().any(|crash| crash.as_raw() == signal))
}

/// Where nobody tells why a process ended, only that it failed.
#[cfg(not(unix))]
fn by_crash(status: ExitStatus) -> bool {
    !status.success()
}

/// The refusal for a template that hangs or crashes.
fn at_fault(what: &str, rest: Micros, retry: Retry) -> Refusal {
    let seconds = rest.0.div_ceil(1_000_000);
    let message = format!(
        "the model's chat template {what}; it is tried again in {seconds} s at the earliest. Use \
         another file of this model, or ask for a completion of text"
    );
    Refusal::new(Stage::Execute, Blame::Us, retry, Code::Corrupt, message)
}

fn rest_after(faults: u32) -> Micros {
    match faults.checked_sub(1) {
        None => Micros(0),
        Some(doublings) => Micros(FIRST_REST.0 << doublings.min(MAX_DOUBLINGS)),
    }
}

fn short(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}
