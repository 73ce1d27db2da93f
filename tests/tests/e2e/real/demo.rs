//! The demo, as a new user runs it, and its end at any moment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use selvedge_tests::{Deadline, Process, Scenario, Stopwatch, places, scenario};

#[test]
fn the_demo_shows_a_mesh_and_ends_well() {
    scenario(|s| {
        s.step("the demo runs to its end");
        let home = s.path("demo");
        let demo = start(s, &home)?;
        let status = demo.wait(Deadline::secs(150))?;
        demo.output().closed(Deadline::secs(5))?;
        ensure!(status.success(), "{status}");
        let said = demo.output().text(selvedge_tests::output::Source::Out);
        s.say(&said);
        s.step("it says that one machine's nodes meet by files, not by mDNS");
        ensure!(said.contains("rendezvous"), "{said}");
        s.step("it ends with what to type next");
        let end: Vec<&str> = said.lines().rev().take(12).collect();
        ensure!(end.iter().any(|line| line.contains("selvedge up")), "{said}");
        nothing_left(s, &home)
    });
}

#[test]
fn ctrl_c_leaves_no_process_behind() {
    scenario(|s| {
        // Before anything runs, while nodes start, and while they answer.
        for lines in [1, 6, 14] {
            s.step(&format!("Ctrl-C after line {lines}"));
            let home = s.path(&format!("demo-{lines}"));
            let demo = start(s, &home)?;
            let mut cursor = 0;
            let mut seen = 0;
            let line = |_: &selvedge_tests::output::Line| {
                seen += 1;
                (seen == lines).then_some(())
            };
            demo.output().wait(&mut cursor, Deadline::patient(), "enough lines", line)?;
            let asked = Stopwatch::start();
            demo.signal_group(Signal::INT)?;
            let status = demo.wait(Deadline::secs(10))?;
            s.say(&format!("it ended {:?} later with {status}", asked.elapsed()));
            ensure!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
            nothing_left(s, &home)?;
        }
        s.step("the demo is killed: its nodes end by themselves");
        let home = s.path("killed");
        let demo = start(s, &home)?;
        let mut cursor = 0;
        let mut seen = 0;
        let line = |_: &selvedge_tests::output::Line| {
            seen += 1;
            (seen == 8).then_some(())
        };
        demo.output().wait(&mut cursor, Deadline::patient(), "enough lines", line)?;
        demo.kill()?;
        // Its nodes hold the pipe it wrote to: the end of the pipe is the end of the last one.
        demo.output().closed(Deadline::secs(10))?;
        nothing_left(s, &home)
    });
}

fn start(s: &Scenario, home: &Path) -> Result<Process> {
    let model = places::model()?.display().to_string();
    let home = home.display().to_string();
    let words = ["demo", "--plain", "--yes", "--model", &model, "--home", &home];
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let demo = Process::start("demo", &places::selvedge()?, &words, None, &[])?;
    s.show_on_failure(demo.output());
    Ok(demo)
}

/// No process has the demo's home in its command line.
fn nothing_left(s: &Scenario, home: &Path) -> Result<()> {
    s.step("no process is left behind");
    let home = home.display().to_string();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Processes may end while they are looked at.
        let Ok(words) = fs::read(path.join("cmdline")) else { continue };
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        ensure!(!words.contains(&home), "{} is left: {words}", path.display());
    }
    Ok(())
}
