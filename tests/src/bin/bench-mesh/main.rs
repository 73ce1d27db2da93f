//! `cargo xtask bench mesh`: how fast nodes find each other, hand requests over, and notice loss.
//!
//! Owns the order of the measurements. Each prints its figures as it goes; all together take less
//! than ten minutes. Needs root for the network namespaces.

mod bare;
mod discovery;
mod echo;
mod faults;
mod idle;

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
    report.heading("hand-off of nothing, against the bare transport, in the same run");
    echo::measure(&mut report)?;
    report.heading("discovery: the second node seen, in two namespaces");
    discovery::measure(&mut report)?;
    report.heading("loss of a node, real processes");
    faults::measure(&mut report)?;
    report.heading("two linked nodes that do nothing");
    idle::measure(&mut report)?;
    report.end(as_json)
}
