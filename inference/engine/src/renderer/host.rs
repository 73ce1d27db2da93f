//! The node's side of a template that is rendered in a process of its own.
//!
//! Owns when there is a process: it is started with the model, ended when it takes too long, and
//! started again at the next request, later each time it was the template's fault. What the process
//! says is bounded and believed no further than a template's text would be.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use selvedge_base::{Blame, Code, Micros, Mono, Refusal, Retry, Stage};
use selvedge_contract::{ChatMessage, Tooled};

use super::Source;
use super::speech::{self, Ask, Fault, Told, VERSION};
use crate::apart::{self, Faults, Heard, Silence, short};
use crate::error::{EngineError, elsewhere, overloaded};

/// A prompt takes about a millisecond, the longest chat on a slow and busy machine a second.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// What starting a process and compiling a template take at most: usually some 20 ms, but a machine
/// that swaps or starts much else may take seconds for it. The process itself ends a compiler that
/// takes more than [`DEADLINE`] once it is at it, so this long is waited only for a machine.
const OPENED_WITHIN: Duration = Duration::from_secs(30);
/// When to come back where others wait for the same template: a prompt takes about a millisecond.
const BUSY_WAIT: Micros = Micros::secs(1);

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
    faults: Faults,
    /// Who may be asked after the last one.
    retry: Option<Retry>,
}

/// A process that renders.
type Process = apart::Process<Vec<u8>, Told>;

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
        self.state.lock().process.as_ref().map(|process| process.id())
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
                        state.faults.note((self.clock)());
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
                let wait = state.faults.note((self.clock)());
                tracing::warn!(seconds = wait.0 / 1_000_000, "a chat template {}", what(silence));
                state.retry = Some(retry(silence));
                Err(at_fault(what(silence), wait, retry(silence)))
            }
        }
    }

    fn start(&self) -> Result<Process, EngineError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        let process = Process::spawn(command, "selvedge-template", exchange);
        let mut process = process.map_err(|error| EngineError::Renderer(error.to_string()))?;
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
            Err(Silence::Ended) if process.ended().is_some_and(by_crash) => {
                let what = what(Silence::Ended);
                Err(EngineError::corrupt(format!("its chat template {what}")))
            }
            Err(Silence::Ended) => {
                Err(EngineError::Renderer("the process for it ended at once".to_owned()))
            }
            Err(Silence::TooLong | Silence::Unwanted) => {
                let seconds = OPENED_WITHIN.as_secs();
                let message = format!("the process for it said nothing for {seconds} s");
                Err(EngineError::Renderer(message))
            }
        }
    }

    /// Refuses while a template that was at fault is left alone.
    fn check_rest(&self, state: &State) -> Result<(), Refusal> {
        let Some(rest) = state.faults.rests((self.clock)()) else { return Ok(()) };
        let retry = state.retry.unwrap_or(Retry::Never);
        Err(at_fault("hung or crashed lately", rest, retry))
    }
}

const fn what(silence: Silence) -> &'static str {
    match silence {
        Silence::TooLong | Silence::Unwanted => "took too long and was stopped",
        Silence::Ended => "made the process that renders it end",
    }
}

/// The same file takes too long at any node; a process may also be ended for want of memory, which
/// another node may have.
const fn retry(silence: Silence) -> Retry {
    match silence {
        Silence::TooLong | Silence::Unwanted => Retry::Never,
        Silence::Ended => Retry::Elsewhere,
    }
}

/// Says what is asked and hears what is told.
fn exchange(ask: Vec<u8>, input: &mut ChildStdin, output: &mut ChildStdout) -> Heard<Told> {
    match speech::write(input, &ask).and_then(|()| speech::read(output)) {
        Ok(Some(told)) => Heard::Answer(told),
        Ok(None) | Err(_) => Heard::Nothing,
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

/// Whether a process ended by a crash of its own, as it does when a template takes its stack or its
/// time; not when somebody else ended it.
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
