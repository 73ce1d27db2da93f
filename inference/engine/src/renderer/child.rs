//! The process that renders one template.
//!
//! Owns its loop and the bounds it puts on itself before it reads anything: memory, files, the
//! time of one rendering. It needs no more than its standard input and output, and ends when the
//! input does, as it does when the node is killed.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

use super::host::DEADLINE;
use super::speech::{self, Ask, Fault, Told, VERSION};
use crate::error::EngineError;
use crate::template::Template;

/// Bytes of data a rendering may take. The largest chat has 8 MiB; its text, its values, a prompt
/// that grows by doubling and the answer's frame make some 100 MiB of it.
#[cfg(unix)]
const DATA_BYTES: u64 = 384 << 20;

/// Renders one template for the process that started this one, until it closes standard input.
///
/// # Errors
/// When the other side says what cannot be understood, or reads no more.
pub fn serve_templates() -> io::Result<()> {
    confine();
    let watch = Watch::start()?;
    serve(&mut io::stdin().lock(), &mut io::stdout().lock(), &watch)
}

fn serve(input: &mut impl Read, output: &mut impl Write, watch: &Watch) -> io::Result<()> {
    let Some(Ask::Open { version, source, bos, eos, control }) = speech::read(input)? else {
        return Ok(());
    };
    watch.begins();
    let template = match version {
        VERSION => Template::compile(&source, &bos, &eos).map_err(|error| fault(&error)),
        _ => Err(Fault::Version(VERSION)),
    };
    watch.ends();
    let template = match template {
        Ok(template) => template,
        Err(fault) => return tell(output, &Told::Unusable(fault)),
    };
    tell(output, &Told::Opened)?;
    while let Some(ask) = speech::read(input)? {
        watch.begins();
        let rendered = match ask {
            Ask::Open { .. } => break,
            Ask::Render(messages) => template.render(&messages, &control),
            Ask::RenderTooled(chat) => template.render_tooled(&chat, &control),
        };
        watch.ends();
        tell(output, &rendered.map_or_else(Told::Refused, Told::Rendered))?;
    }
    Ok(())
}

fn tell(output: &mut impl Write, told: &Told) -> io::Result<()> {
    let frame = speech::frame(told).or_else(|_| speech::frame(&Told::TooLong));
    speech::write(output, &frame.map_err(io::Error::other)?)
}

fn fault(error: &EngineError) -> Fault {
    match error {
        EngineError::Unsupported(reason) => Fault::Unsupported(reason.clone()),
        other => Fault::Corrupt(other.to_string()),
    }
}

/// A thread that ends the process when a rendering takes too long. The node does so too; but one
/// that was killed meanwhile cannot, and nobody else would.
struct Watch {
    renders: SyncSender<bool>,
}

impl Watch {
    fn start() -> io::Result<Self> {
        let (renders, states) = sync_channel(1);
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || watch(&states))?;
        Ok(Self { renders })
    }

    fn begins(&self) {
        // The thread lives as long as this sender.
        let _ = self.renders.send(true);
    }

    fn ends(&self) {
        let _ = self.renders.send(false);
    }
}

fn watch(states: &Receiver<bool>) {
    while let Ok(renders) = states.recv() {
        if renders && states.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
            std::process::abort();
        }
    }
}

/// Gives up what rendering does not need. A system that does not have one of the limits refuses to
/// set it; the deadline holds everywhere.
#[cfg(unix)]
fn confine() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let only = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    let _ = setrlimit(Resource::Data, only(DATA_BYTES));
    // No file can be opened or written any more, and a crash leaves none behind.
    let _ = setrlimit(Resource::Nofile, only(0));
    let _ = setrlimit(Resource::Fsize, only(0));
    let _ = setrlimit(Resource::Core, only(0));
}

#[cfg(not(unix))]
fn confine() {}
