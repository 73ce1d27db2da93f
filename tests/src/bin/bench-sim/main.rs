//! `cargo xtask bench sim`: how fast the simulator is, whether runs repeat, what it finds.
//!
//! Owns the order of the measurements and the goals. Speed is measured here, in one thread, with
//! all checkers on; what needs another build (debug, planted bugs) is asked of test programs of the
//! simulator, which print lines that are read here.

mod fleet;
mod plants;
mod repeat;
mod report;

use anyhow::{Result, bail, ensure};

use crate::report::Report;

/// One part of the measurements.
type Part = fn(&mut Report) -> Result<()>;

/// The parts, by name, with their headings.
const PARTS: [(&str, &str, Part); 4] = [
    ("speed", "speed: one thread, every invariant checked", fleet::measure),
    ("seeds", "seeds, as in the gate", fleet::swarm),
    ("repeat", "repeating: two processes, debug and release", repeat::measure),
    ("plants", "planted bugs", plants::measure),
];

fn main() -> Result<()> {
    let (mut as_json, mut only) = (false, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => as_json = true,
            "--only" => {
                let name = words.next().unwrap_or_default();
                let known = PARTS.iter().any(|(part, ..)| *part == name);
                ensure!(known, "no part `{name}`; there are speed, seeds, repeat and plants");
                only = Some(name);
            }
            other => bail!("unknown option `{other}`; there are --json and --only PART"),
        }
    }
    let mut report = Report::default();
    for (name, heading, measure) in PARTS {
        if only.as_ref().is_none_or(|only| only == name) {
            report.heading(heading);
            measure(&mut report)?;
        }
    }
    report.end(as_json)
}
