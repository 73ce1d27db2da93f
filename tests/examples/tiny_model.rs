//! `tiny_model DIR` writes the tiny model of the tests into a directory and prints its path.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use selvedge_tests::tiny;

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).context("usage: tiny_model DIR")?;
    writeln!(io::stdout(), "{}", tiny::write(Path::new(&dir))?.display())?;
    Ok(())
}
