//! The process that renders one template.
//!
//! Owns its loop, and how tight the bounds are that it puts on itself before it reads anything:
//! memory, files, the time of one rendering. It needs no more than its standard input and output,
//! and ends when the input does, as it does when the node is killed.

use std::io::{self, Read, Write};

use super::host::DEADLINE;
use super::speech::{self, Ask, Fault, Told, VERSION};
use crate::apart::{Watch, confine};
use crate::error::EngineError;
use crate::template::Template;

/// Bytes of data a rendering may take. The largest chat has 8 MiB; its text, its values, a prompt
/// that grows by doubling and the answer's frame make some 100 MiB of it.
const DATA_BYTES: u64 = 384 << 20;

/// Renders one template for the process that started this one, until it closes standard input.
///
/// # Errors
/// When the other side says what cannot be understood, or reads no more.
pub fn serve_templates() -> io::Result<()> {
    confine(DATA_BYTES);
    let watch = Watch::start()?;
    serve(&mut io::stdin().lock(), &mut io::stdout().lock(), &watch)
}

fn serve(input: &mut impl Read, output: &mut impl Write, watch: &Watch) -> io::Result<()> {
    let Some(Ask::Open { version, source, bos, eos, control }) = speech::read(input)? else {
        return Ok(());
    };
    watch.begins(DEADLINE);
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
        watch.begins(DEADLINE);
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
