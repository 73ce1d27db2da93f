//! `cargo xtask fuzz TARGET`: goes on with mutations of a target's corpus and keeps what fails.
//!
//! Owns two roles. The parent stores and minimizes. The child runs inputs, each written to a file
//! before it runs, so that one which ends the process (a full stack, too much memory) is known too.

#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use selvedge_fuzz::{Target, corpus, guard, targets};

/// Inputs tried to make a failing one smaller: some seconds of starting processes.
const MINIMIZING: usize = 1_500;
/// Inputs between two looks at the clock.
const BETWEEN: u64 = 64;

/// Runs mutations of a target's corpus; what fails is minimized and stored in the corpus.
#[derive(Parser)]
#[command(name = "cargo xtask fuzz", bin_name = "cargo xtask fuzz")]
struct Cli {
    /// The target, or `all`, one after the other; without one they are listed.
    target: Option<String>,
    /// For how long, each.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Names the sequence of inputs; the gate replays the beginning of 0.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs inputs and writes each to this file first.
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
    /// Runs one input from standard input.
    #[arg(long, hide = true)]
    one: bool,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let Some(name) = &cli.target else {
        targets::all().for_each(|target| println!("{:22} {}", target.name, target.holds));
        return Ok(ExitCode::SUCCESS);
    };
    let chosen: Vec<&Target> =
        targets::all().filter(|target| name == "all" || target.name == name).collect();
    let [first, ..] = chosen.as_slice() else { bail!("no target '{name}'; give none for a list") };
    guard::bound_memory();
    if cli.one {
        let mut input = Vec::new();
        std::io::stdin().read_to_end(&mut input)?;
        guard::check(first, &input);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &cli.child {
        child(first, &cli, file)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut sound = true;
    for target in chosen {
        sound &= parent(target, &cli)?;
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs inputs until the time is over or one fails, which ends the process.
fn child(target: &Target, cli: &Cli, file: &Path) -> Result<()> {
    let file = File::create(file).context("the file for the input at hand")?;
    let inputs = corpus::load(target)?;
    let (from, mut count) = (now_s(), 0_u64);
    let run = |input: &[u8]| -> Result<()> {
        file.write_all_at(&(input.len() as u64).to_le_bytes(), 0)?;
        file.write_all_at(input, 8)?;
        guard::check(target, input);
        Ok(())
    };
    inputs.iter().try_for_each(|input| run(input))?;
    for input in corpus::mutations(target, &inputs, cli.seed) {
        run(&input)?;
        count += 1;
        if count.is_multiple_of(BETWEEN) && now_s() >= from + cli.seconds {
            break;
        }
    }
    println!("{}: {count} inputs, {} a second", target.name, count / cli.seconds.max(1));
    Ok(())
}

/// Starts a child; whether nothing failed.
fn parent(target: &Target, cli: &Cli) -> Result<bool> {
    let name = format!("selvedge-fuzz-{}-{}", target.name, std::process::id());
    let file = std::env::temp_dir().join(name);
    let mut command = Command::new(std::env::current_exe()?);
    command.args([target.name, "--seconds", &cli.seconds.to_string()]);
    command.args(["--seed", &cli.seed.to_string(), "--child"]).arg(&file);
    let status = command.status().context("the child did not start")?;
    if status.success() {
        std::fs::remove_file(&file)?;
        return Ok(true);
    }
    let kept = std::fs::read(&file).context("the child ended before its first input")?;
    std::fs::remove_file(&file)?;
    let Some((length, rest)) = kept.split_first_chunk() else { bail!("no input was begun") };
    let input = rest.get(..u64::from_le_bytes(*length) as usize).context("the input is cut")?;
    let input = minimized(target, input.to_vec())?;
    let path = corpus::add(target, &input)?;
    println!("{}: failed ({status}); the input is in {}", target.name, path.display());
    println!("{}", String::from_utf8_lossy(&input));
    Ok(false)
}

/// The input without what it fails without. Each try is a process of its own, since some end it.
fn minimized(target: &Target, mut input: Vec<u8>) -> Result<Vec<u8>> {
    let (mut piece, mut tries) = (input.len() / 2, 0);
    while piece > 0 && tries < MINIMIZING {
        let (mut at, mut smaller) = (0, false);
        while at < input.len() && tries < MINIMIZING {
            let mut without = input.clone();
            without.drain(at..(at + piece).min(input.len()));
            tries += 1;
            if fails(target, &without)? {
                (input, smaller) = (without, true);
            } else {
                at += piece;
            }
        }
        if !smaller || piece > 1 {
            piece /= 2;
        }
    }
    Ok(input)
}

fn fails(target: &Target, input: &[u8]) -> Result<bool> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([target.name, "--one"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // One that ends without reading all of it has failed; its status says so.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    Ok(!child.wait()?.success())
}

fn now_s() -> u64 {
    clock_gettime(ClockId::Monotonic).tv_sec as u64
}
