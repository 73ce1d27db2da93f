//! `cargo xtask bench sim`: how fast the simulator is, whether runs repeat, what it finds.
//!
//! Owns the order of the measurements and the goals. Speed is measured here, in one thread, with
//! all checkers on; what needs another build (debug, planted bugs) is asked of test programs of the
//! simulator, which print lines that are read here.

mod fleet;
mod plants;
mod repeat;
mod report;

use anyhow::{Result, bail};

use crate::report::Report;

fn main() -> Result<()> {
    let mut as_json = false;
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--json" => as_json = true,
            other => bail!("unknown option `{other}`; there is only --json"),
        }
    }
    let mut report = Report::default();
    report.heading("speed: one thread, every invariant checked");
    fleet::measure(&mut report)?;
    report.heading("seeds, as in the gate");
    fleet::swarm(&mut report)?;
    report.heading("repeating: two processes, debug and release");
    repeat::measure(&mut report)?;
    report.heading("planted bugs");
    plants::measure(&mut report)?;
    report.end(as_json)
}
