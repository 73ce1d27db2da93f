//! `selvedge transcribe`: a file with sound to the mesh, and what is said in it.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use selvedge_contract::speech::hears;
use selvedge_net::clock;

use super::ask::first_model;
use crate::cli;
use crate::client::Client;
use crate::home::Home;
use crate::ui::{self, Ink, bytes_text, paint_err, span_text};

/// The largest file, as the node takes it.
const MAX_FILE_BYTES: u64 = 25 << 20;

/// Sends a file, and says on standard error who heard it.
pub(crate) fn transcribe(home: &Home, options: &cli::Transcribe) -> Result<()> {
    let contact = match &options.api {
        Some(_) => None,
        None => Some(home.running()?),
    };
    let base = options.api.as_deref().or(contact.as_ref().map(|contact| contact.api.as_str()));
    let client = Client::new(base.unwrap_or_default(), options.key.clone());
    let sound = read(options)?;
    let model = match &options.model {
        Some(model) => model.clone(),
        None => first_model(&client, hears, MISSING)?,
    };
    let mut fields = vec![("model", model.as_str()), ("response_format", options.format.as_str())];
    fields.extend(options.language.as_deref().map(|language| ("language", language)));
    fields.extend(options.prompt.as_deref().map(|prompt| ("prompt", prompt)));
    let path = match options.translate {
        true => "/v1/audio/translations",
        false => "/v1/audio/transcriptions",
    };
    let name = options.file.file_name().unwrap_or_default().to_string_lossy();
    let size = bytes_text(sound.len() as u64);
    ui::note(paint_err(Ink::Dim, format_args!("{name} ({size}) to {model} …")));
    let begun = clock::mono();
    let answer = client.form(path, &fields, (&name, &sound))?;
    ui::out_part(&answer.text);
    if !answer.text.ends_with('\n') {
        ui::out("");
    }
    let took = span_text(clock::mono().since(begun).0);
    let said = format!("— {}, {took}; {}", answer.node, answer.request);
    ui::note(paint_err(Ink::Dim, said));
    Ok(())
}

/// Said where no model hears.
const MISSING: &str = "no node of the mesh has a model that hears: place the directory of one, \
                       such as Whisper, in the home's models";

fn read(options: &cli::Transcribe) -> Result<Vec<u8>> {
    let shown = options.file.display();
    let file = File::open(&options.file).with_context(|| format!("cannot open {shown}"))?;
    let mut sound = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut sound);
    read.with_context(|| format!("cannot read {shown}"))?;
    if sound.len() as u64 > MAX_FILE_BYTES {
        bail!(
            "{shown} is larger than {}, which is what a node takes: cut it into parts, or pack it",
            bytes_text(MAX_FILE_BYTES)
        );
    }
    Ok(sound)
}
