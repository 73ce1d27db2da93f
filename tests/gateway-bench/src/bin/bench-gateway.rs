//! `cargo xtask bench gateway`: what a gateway costs, side by side with others in one run.
//!
//! Owns the words of its command line. The first word of the parts it starts itself as (the mock
//! upstream, the load generator, the floor) is theirs; everything else is in the library.

#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use std::io::Read;
use std::net::TcpListener;

use anyhow::{Context, Result};
use selvedge_gateway_bench::{floor, instructions, load, mock, process, run};

/// What the floor is measured with, as docs/decisions/0002-dependencies.md says.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("mock") => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            println!("{}", listener.local_addr()?);
            mock::serve(listener)
        }
        Some("load") => {
            let mut job = String::new();
            std::io::stdin().read_to_string(&mut job)?;
            load::main(&job)
        }
        Some("floor") => floor::main(words.get(1).context("the floor's configuration")?),
        Some("instructions") => instructions::main(&words[1..]),
        _ => {
            let options = run::Options::read(&words)?;
            process::enter_namespace(&words);
            run::main(options)
        }
    }
}
