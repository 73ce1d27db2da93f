//! `cargo xtask bench inference`: the local engine beside llama.cpp, on the same files.
//!
//! Owns the order of the measurements. Both run as processes of their own with two threads, each
//! measured in turn by one column after the other, several rounds; medians and ratios are told, and
//! how much of the memory's bandwidth is reached. llama.cpp is built on this machine if it is not
//! there yet. `--quick` takes one round of the real model, `--only NAME` that model alone; `--fair`
//! does without real-time priority.

mod bandwidth;
mod driver;
mod llama;
mod models;
mod ours;
mod place;
mod rounds;
mod synthetic;
mod table;

use anyhow::{Context, Result, bail};

use driver::Starter;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [ours::WORD, model, threads] => return ours::serve(model.as_ref(), threads.parse()?),
        [bandwidth::WORD, bytes, threads] => {
            return bandwidth::serve(bytes.parse()?, threads.parse()?);
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
    let models = models::all(quick, only)?;
    let peer = llama::driver().context("llama.cpp is not there to be measured")?;
    let starter = Starter { first: !fair && Starter::can_be_first() };
    let mut table = table::Table::default();
    if !starter.first {
        table.heading("without real-time priority: other work on this machine shows");
    }
    for model in &models {
        let measured = rounds::run(&starter, &peer, model)?;
        table.model(model, &measured);
    }
    table.end(as_json)
}
