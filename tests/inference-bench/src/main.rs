//! `cargo xtask bench inference`: the local engine beside llama.cpp and ONNX Runtime, on the same
//! weights.
//!
//! Owns the order of the measurements. Each side runs as a process of its own with two threads,
//! measured in turn by one column after the other, several rounds; medians and ratios are told, and
//! how much is reached of the memory's bandwidth and of what the processor multiplies. What is
//! measured beside ours is built or installed under `target` if it is not there yet. `--quick`
//! takes one round and leaves out the larger model and the forms that models are quantized into,
//! `--only NAME` measures one alone; `--fair` does without priority over other work.

mod bandwidth;
mod dots;
mod driver;
mod embeddings;
mod forms;
mod llama;
mod load;
mod masks;
mod models;
mod onnxruntime;
mod ours;
mod place;
mod progress;
mod rounds;
mod synthetic;
mod table;

use anyhow::{Context, Result, bail};

use driver::Starter;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [ours::WORD, model, threads] => {
            return ours::serve(model.as_ref(), threads.parse()?, None);
        }
        [ours::WORD, model, threads, packed] => {
            return ours::serve(model.as_ref(), threads.parse()?, Some(packed.as_ref()));
        }
        [bandwidth::WORD, bytes, threads] => {
            return bandwidth::serve(bytes.parse()?, threads.parse()?);
        }
        [dots::WORD, threads] => return dots::serve(threads.parse()?),
        [forms::WORD, model, threads] => return forms::serve(model.as_ref(), threads.parse()?),
        [masks::WORD, model, threads] => return masks::serve(model.as_ref(), threads.parse()?),
        [embeddings::WORD, folder, threads] => {
            return embeddings::serve(folder.as_ref(), threads.parse()?);
        }
        _ => {}
    }
    let (mut as_json, mut quick, mut fair, mut only) = (false, false, false, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => as_json = true,
            "--quick" => quick = true,
            "--fair" => fair = true,
            "--only" => only = Some(words.next().context("--only takes names")?.as_str()),
            other => {
                bail!("unknown option `{other}`; there are --json, --quick, --fair and --only")
            }
        }
    }
    let names = models::names(quick, only)?;
    let starter = Starter { first: !fair && Starter::can_be_first() };
    let mut table = table::Table::default();
    if !starter.first {
        table.heading("without priority: other work on this machine shows");
    }
    beside_llama(&starter, &names, quick, &mut table)?;
    if names.contains(&embeddings::NAME) {
        let peer = onnxruntime::peer(&place::embeddings()?);
        let peer = peer.context("ONNX Runtime is not there to be measured")?;
        table.embeddings(&embeddings::run(&starter, &peer, quick)?);
    }
    table.end(as_json)
}

/// What llama.cpp is measured with, if any of it is asked for.
fn beside_llama(
    starter: &Starter,
    names: &[&str],
    quick: bool,
    table: &mut table::Table,
) -> Result<()> {
    let (models, in_forms) = (models::all(names, quick)?, names.contains(&forms::NAME));
    if models.is_empty() && !in_forms {
        return Ok(());
    }
    let peer = llama::driver().context("llama.cpp is not there to be measured")?;
    if !models.is_empty() {
        let products = dots::rate(starter, rounds::THREADS)?;
        for model in &models {
            let measured = rounds::run(starter, &peer, model)?;
            table.model(model, &measured, products);
            if model.holds {
                table.masks(model, &masks::run(starter, &model.path, rounds::THREADS)?);
            }
        }
    }
    if in_forms {
        table.forms(&forms::run(starter, &peer, quick)?);
    }
    Ok(())
}
