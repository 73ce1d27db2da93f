//! `cargo xtask bench quota`: what a budget costs a request.
//!
//! Owns the order of the measurements: the machine alone, a simulated mesh, then a real node that
//! answers the same requests with and without a budget. Takes about a minute.

mod gateway;
mod machine;
mod share;

use anyhow::{Result, bail};
use selvedge_tests::report::Report;

fn main() -> Result<()> {
    let mut as_json = false;
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--json" => as_json = true,
            other => bail!("unknown option `{other}`; there is only --json"),
        }
    }
    let mut report = Report::default();
    report.heading("reserve and settle: the machine alone, writes answered at once");
    machine::measure(&mut report)?;
    report.heading("served where it is asked for: ten simulated nodes, demand moves at half time");
    share::measure(&mut report)?;
    report.heading("a real node: the same requests with a key without and with a budget");
    gateway::measure(&mut report)?;
    report.end(as_json)
}
