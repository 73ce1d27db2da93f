//! How soon a started node sees another one.
//!
//! Owns the starts with real processes: a member that comes back, from the start of its process to
//! its view of the other as alive, and the other way round.

use anyhow::Result;
use selvedge_tests::admin::state;
use selvedge_tests::figures::Figures;
use selvedge_tests::{Bridge, Deadline, Scenario, Stopwatch};

use crate::report::Report;

/// Starts of a whole process that is a member already.
const RETURNS: usize = 20;

/// Measures and notes everything.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let s = Scenario::new()?;
    let done = returns(&s, report);
    if done.is_err() {
        s.show();
    }
    done
}

fn returns(s: &Scenario, report: &mut Report) -> Result<()> {
    let mut bridge = Bridge::new("bench-find")?;
    let hosts = [bridge.host()?, bridge.host()?];
    let mut nodes = s.mesh(&[hosts[0].node(s, "stays"), hosts[1].node(s, "comes")])?;
    let (mut sees, mut seen) = (Figures::default(), Figures::default());
    for _ in 0..RETURNS {
        nodes[1].terminate()?;
        let stays = nodes[0].admin()?;
        let mut watch = stays.watch(Deadline::secs(30))?;
        watch.until("the node out", |view| state(view, "comes") != "alive")?;
        let begun = Stopwatch::start();
        nodes[1] = nodes[1].spec.up(s, &[])?;
        let admin = nodes[1].admin()?;
        admin.until("the other", Deadline::secs(20), |view| state(view, "stays") == "alive")?;
        sees.push(begun.elapsed());
        watch.until("the one that came", |view| state(view, "comes") == "alive")?;
        seen.push(begun.elapsed());
    }
    report.millis("process_start_to_sees", &sees, [None, None]);
    report.millis("process_start_to_seen", &seen, [None, None]);
    Ok(())
}
