//! The demo, as a new user runs it, and its end at any moment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use selvedge_tests::output::Source;
use selvedge_tests::{Deadline, Process, Scenario, Stopwatch, places, scenario};

/// The longest that the demo of learning may take here: it takes ten seconds where nothing
/// else runs, and each round may wait for its patience where much does.
const LEARNING_S: u64 = 300;

#[test]
fn the_demo_shows_a_mesh_and_ends_well() {
    scenario(|s| {
        s.step("the demo runs to its end");
        let home = s.path("demo");
        let demo = start(s, &home)?;
        let status = demo.wait(Deadline::secs(150))?;
        demo.output().closed(Deadline::secs(5))?;
        ensure!(status.success(), "{status}");
        let said = demo.output().text(Source::Out);
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

#[test]
fn the_learning_demo_comes_to_one_model_though_a_node_dies() {
    scenario(|s| {
        s.step("it runs to its end");
        let (home, picture) = (s.path("learning"), s.path("learning.svg"));
        let demo = start_learning(s, &home, &picture)?;
        let status = demo.wait(Deadline::secs(LEARNING_S))?;
        demo.output().closed(Deadline::secs(5))?;
        let said = demo.output().text(Source::Out);
        s.say(&said);
        ensure!(status.success(), "{status}");
        s.step("a bar for each round, and the last one is far up");
        let bars = said.lines().filter(|line| line.trim_start().starts_with("round "));
        let bars: Vec<f64> = bars.filter_map(percent).collect();
        ensure!(bars.len() == 16, "{} bars: {bars:?}", bars.len());
        let (first, last) = (bars[0], bars[15]);
        ensure!(first < 40.0 && last >= 82.0, "from {first} % to {last} %");
        s.step("it says who died, where, and that all came to one model");
        for part in [
            "[kill -9 ",
            "in the middle of round ",
            "no other node has the end of that round",
            " is back]",
            "all 5 nodes hold the same model",
            "It was meant to be ",
            "such digits right",
            "selvedge fed submit",
            "docs/federated.md",
        ] {
            ensure!(in_one_line(&said).contains(part), "no `{part}`");
        }
        s.step("the picture has a line for all, one for each node, and both marks");
        let drawn = fs::read_to_string(&picture)?;
        ensure!(drawn.matches("<polyline").count() == 6, "{drawn}");
        ensure!(drawn.contains("killed as it proposes") && drawn.contains(" is back"), "{drawn}");
        nothing_left(s, &home)?;
        s.step("another file in the picture's place stays, and nothing is started");
        fs::write(&picture, "mine")?;
        let demo = start_learning(s, &home, &picture)?;
        let status = demo.wait(Deadline::secs(10))?;
        demo.output().closed(Deadline::secs(5))?;
        ensure!(status.code() == Some(1), "{status}");
        let said = demo.output().text(Source::Err);
        ensure!(said.contains("--picture FILE"), "{said}");
        ensure!(fs::read_to_string(&picture)? == "mine", "it was written over");
        ensure!(demo.output().text(Source::Out).is_empty(), "it began");
        Ok(())
    });
}

#[test]
fn ctrl_c_ends_the_learning_demo_in_the_middle_of_a_round() {
    scenario(|s| {
        s.step("it runs until a round is over");
        let (home, picture) = (s.path("learning"), s.path("learning.svg"));
        let demo = start_learning(s, &home, &picture)?;
        let mut cursor = 0;
        let is_bar = |line: &selvedge_tests::output::Line| {
            line.text.trim_start().starts_with("round  1").then_some(())
        };
        demo.output().wait(&mut cursor, Deadline::patient(), "the first round", is_bar)?;
        s.step("Ctrl-C");
        demo.signal_group(Signal::INT)?;
        demo.wait(Deadline::secs(5))?;
        nothing_left(s, &home)
    });
}

/// The number before the percent sign of a bar.
fn percent(line: &str) -> Option<f64> {
    line.split('%').next()?.split_whitespace().next_back()?.parse().ok()
}

/// The text without its line breaks, as the demo breaks lines where it likes.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ") + " "
}

fn start_learning(s: &Scenario, home: &Path, picture: &Path) -> Result<Process> {
    let (home, picture) = (home.display().to_string(), picture.display().to_string());
    let words = ["demo", "--learning", "--plain", "--picture", &picture, "--home", &home];
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let demo = Process::start("demo", &places::selvedge()?, &words, None, &[])?;
    s.show_on_failure(demo.output());
    Ok(demo)
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
