//! `cargo xtask bench instructions`: instructions of a request, against those stored.
//!
//! Owns nothing but its start: it is the same program as `bench-gateway` with another first word,
//! because the mock upstream and the floor are parts of that one.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name("bench-gateway");
    let words = std::env::args().skip(1);
    let error = Command::new(&program).arg("instructions").args(words).exec();
    Err(error).with_context(|| {
        format!(
            "{} did not start: cargo build --release --package selvedge-gateway-bench",
            program.display()
        )
    })
}
