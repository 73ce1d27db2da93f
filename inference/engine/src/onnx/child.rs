//! The process that runs one ONNX model.
//!
//! Owns its loop and the bounds it puts on itself before it reads the file: memory, files, the time
//! of one run. It needs no more than its standard input and output, and ends when the input does,
//! as it does when the node is killed.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use selvedge_contract::Tensor;

use super::file::{self, Settings};
use super::host::{MAX_RUN, OPENED_WITHIN};
use super::runtime::Failed;
use super::speech::{self, Ask, Head, Told, VERSION};

/// How much later than the node this process ends a run that takes too long: the node's end of it
/// says why.
const GRACE: Duration = Duration::from_secs(5);

/// Runs one model for the process that started this one, until it closes standard input.
///
/// # Errors
/// When the other side says what cannot be understood, or reads no more.
pub fn serve_onnx() -> io::Result<()> {
    let watch = Watch::start()?;
    let mut input = BufReader::new(io::stdin().lock());
    let mut output = BufWriter::new(io::stdout().lock());
    serve(&mut input, &mut output, &watch, &confine)
}

fn serve(
    input: &mut impl Read,
    output: &mut impl Write,
    watch: &Watch,
    confine: &dyn Fn(u64),
) -> io::Result<()> {
    let Some(Ask::Open { version, file_bytes, data_bytes, threads, classifies, text, labels }) =
        speech::read(input)?
    else {
        return Ok(());
    };
    if version != VERSION {
        return tell(output, &Told::Version(VERSION));
    }
    confine(data_bytes);
    watch.begins(OPENED_WITHIN);
    let file = speech::read_file(input, file_bytes)?;
    let settings = classifies.then_some(Settings { text, labels });
    // The node has read the file too, but this process trusts nobody else's word.
    let model = caught(|| file::load(file, settings.as_ref(), threads));
    watch.ends();
    let model = match model {
        Ok(model) => model,
        Err(why) => return tell(output, &Told::Unusable(why)),
    };
    tell(output, &Told::Opened)?;
    while let Some(ask) = speech::read(input)? {
        let Ask::Run { inputs, outputs, within_ms } = ask else { break };
        let inputs = speech::read_tensors(input, inputs)?;
        watch.begins(Duration::from_millis(within_ms).min(MAX_RUN) + GRACE);
        let made = caught(|| Ok(model.run(&inputs, &outputs)));
        watch.ends();
        match made {
            Ok(Ok(tensors)) => made_of(output, &tensors)?,
            Ok(Err(Failed::Inputs(why))) => tell(output, &Told::Refused(why))?,
            Ok(Err(Failed::Model(why))) | Err(why) => tell(output, &Told::Failed(why))?,
        }
    }
    Ok(())
}

/// A panic costs what was asked, and no more: the library's values are made anew for each run.
fn caught<T>(body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let caught = catch_unwind(AssertUnwindSafe(body));
    caught.unwrap_or_else(|_| Err("the computation broke down".to_owned()))
}

fn tell(output: &mut impl Write, told: &Told) -> io::Result<()> {
    let told = match told {
        Told::Unusable(why) => Told::Unusable(short(why)),
        Told::Refused(why) => Told::Refused(short(why)),
        Told::Failed(why) => Told::Failed(short(why)),
        Told::Opened | Told::Version(_) | Told::Made(_) => told.clone(),
    };
    speech::write(output, &told, std::iter::empty())
}

fn made_of(output: &mut impl Write, tensors: &[Tensor]) -> io::Result<()> {
    let told = Told::Made(tensors.iter().map(Head::of).collect());
    speech::write(output, &told, tensors.iter().map(|tensor| tensor.data.as_slice()))
}

/// An error's text is in part the file's.
fn short(text: &str) -> String {
    text.chars().take(500).collect()
}

/// A thread that ends the process when a run takes too long. The node does so too; but one that was
/// killed meanwhile cannot, and nobody else would.
struct Watch {
    runs: SyncSender<Option<Duration>>,
}

impl Watch {
    fn start() -> io::Result<Self> {
        let (runs, states) = sync_channel(1);
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || watch(&states))?;
        Ok(Self { runs })
    }

    fn begins(&self, within: Duration) {
        // The thread lives as long as this sender.
        let _ = self.runs.send(Some(within));
    }

    fn ends(&self) {
        let _ = self.runs.send(None);
    }
}

fn watch(states: &Receiver<Option<Duration>>) {
    while let Ok(state) = states.recv() {
        if let Some(within) = state
            && states.recv_timeout(within) == Err(RecvTimeoutError::Timeout)
        {
            std::process::abort();
        }
    }
}

/// Gives up what running a model does not need. A system that does not have one of the limits
/// refuses to set it; the time holds everywhere.
#[cfg(unix)]
fn confine(data_bytes: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let only = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    let _ = setrlimit(Resource::Data, only(data_bytes));
    // No file can be opened or written any more, and a crash leaves none behind.
    let _ = setrlimit(Resource::Nofile, only(0));
    let _ = setrlimit(Resource::Fsize, only(0));
    let _ = setrlimit(Resource::Core, only(0));
}

#[cfg(not(unix))]
fn confine(_data_bytes: u64) {}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "child_tests.rs"]
mod tests;
