//! The process that runs one ONNX model.
//!
//! Owns its loop, and how tight the bounds are that it puts on itself before it reads the file:
//! memory, files, the time of one run. It needs no more than its standard input and output, and
//! ends when the input does, as it does when the node is killed.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use selvedge_contract::Tensor;

use super::file::{self, Settings};
use super::host::{MAX_RUN, OPENED_WITHIN};
use super::runtime::Failed;
use super::speech::{self, Ask, Head, Told, VERSION};
use crate::apart::{Watch, confine, short};

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

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "child_tests.rs"]
mod tests;
