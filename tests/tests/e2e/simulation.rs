//! `selvedge sim` as people and machines use it, and its timeline in a real browser.
//!
//! What the simulator finds out is tested beside it; here it is the program: what it prints, how
//! it ends, that another process comes to the same hash, and that the page works.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use selvedge_tests::places::{self, repository};
use selvedge_tests::process::{Finished, run};
use selvedge_tests::{Deadline, Scenario, scenario};
use serde_json::Value;

/// How the list of documented commands names this test.
const PROOF: &str = "tests/tests/e2e/simulation.rs::documented_simulations_run";
/// The story of the page's test: a cut in two halves, budgets, requests.
const STORY: [&str; 6] = ["--scenario", "partition", "--nodes", "5", "--seed", "42"];

fn sim(words: &[&str]) -> Result<Finished> {
    let mut all = vec!["sim".to_owned()];
    all.extend(words.iter().map(|&word| word.to_owned()));
    run(&places::selvedge()?, &all, None, &[], Deadline::secs(120))
}

fn last_object(printed: &str) -> Result<Value> {
    let last = printed.lines().last().context("nothing was printed")?;
    serde_json::from_str(last).with_context(|| last.to_owned())
}

fn story(words: &[&str]) -> Result<String> {
    let mut all = vec!["run"];
    all.extend(STORY);
    all.extend(words);
    sim(&all)?.success()
}

#[test]
fn two_processes_come_to_the_same_hash() {
    scenario(|s| {
        s.step("a scenario, twice");
        let (first, again) = (story(&["--json"])?, story(&["--json"])?);
        let object = last_object(&first)?;
        ensure!(first == again, "{first}\n{again}");
        ensure!(object["hash"].as_str().is_some_and(|hash| hash.len() == 32), "{object}");
        ensure!(object["seed"] == 42 && object["nodes"] == 5, "{object}");
        ensure!(object["scenario"] == "partition" && object["passed"] == true, "{object}");
        ensure!(object["violations"] == serde_json::json!([]), "{object}");
        s.step("the same plan from a recorded run");
        let trace = s.path("trace.json").display().to_string();
        story(&["--trace", &trace])?;
        let replayed = last_object(&sim(&["replay", &trace, "--json"])?.success()?)?;
        ensure!(replayed["hash"] == object["hash"], "{replayed}");
        s.step("somebody who looks on changes nothing");
        let watched = last_object(&story(&["--json", "--short"])?)?;
        ensure!(watched["hash"] == object["hash"], "{watched}");
        s.step("a recorded run that is not what comes out here");
        let text = fs::read_to_string(&trace)?;
        let hash = object["hash"].as_str().unwrap_or_default();
        fs::write(&trace, text.replace(hash, &"0".repeat(32)))?;
        let refused = sim(&["replay", &trace])?.failure()?;
        ensure!(refused.contains("part between the records"), "{refused}");
        Ok(())
    });
}

#[test]
fn a_swarm_tells_the_same_on_any_number_of_threads() {
    scenario(|s| {
        let swarm = |threads: &str| -> Result<String> {
            s.step(&format!("twelve seeds on {threads} threads"));
            sim(&["swarm", "--seeds", "12", "--threads", threads, "--json"])?.success()
        };
        let (alone, together) = (swarm("1")?, swarm("3")?);
        ensure!(alone == together, "{alone}\n{together}");
        let object = last_object(&alone)?;
        ensure!(object["runs"] == 12 && object["failed"] == 0, "{object}");
        s.step("two seeds differ, and it is told where");
        let told = sim(&["diff", "1", "2"])?.success()?;
        ensure!(told.contains("  - #") && told.contains("  + #"), "{told}");
        let same = last_object(&sim(&["diff", "3", "3", "--json"])?.success()?)?;
        ensure!(same["same"] == true, "{same}");
        s.step("what holds is not shrunk");
        let refused = sim(&["shrink", "--seed", "1"])?.failure()?;
        ensure!(refused.contains("nothing to shrink"), "{refused}");
        s.step("wrong names are refused with the right ones");
        let refused = sim(&["run", "--scenario", "partitoin"])?.failure()?;
        ensure!(refused.contains("selvedge sim list"), "{refused}");
        Ok(())
    });
}

#[test]
fn the_timeline_works_in_a_browser() {
    scenario(|s| {
        s.step("a run with a timeline");
        let page = s.path("run.html").display().to_string();
        story(&["--html", &page])?;
        ensure!(fs::metadata(&page)?.len() < 4_000_000, "the page is too large to open");
        in_browser(s, "timeline.py", &page)?;
        s.step("a large mesh, drawn in counts");
        let page = s.path("large.html").display().to_string();
        sim(&["run", "--scenario", "demand-moves", "--nodes", "60", "--html", &page])?.success()?;
        in_browser(s, "timeline.py", &page)
    });
}

/// Runs a script of tests/python; it prints one line per check and ends at the first that fails.
fn in_browser(s: &Scenario, script: &str, page: &str) -> Result<()> {
    s.step(&format!("{script} {page}"));
    let path = repository().join("tests/python").join(script);
    let words = [path.display().to_string(), page.to_owned()];
    let environment = [("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())];
    let told =
        run(&places::python()?, &words, None, &environment, Deadline::secs(120))?.success()?;
    ensure!(told.lines().filter(|line| line.starts_with("ok ")).count() > 20, "{told}");
    Ok(())
}

#[derive(serde::Deserialize)]
struct Commands {
    command: Vec<Listed>,
}

#[derive(serde::Deserialize)]
struct Listed {
    line: String,
    proof: String,
}

#[test]
fn documented_simulations_run() {
    scenario(|s| {
        let text = fs::read_to_string(repository().join("tests/commands.toml"))?;
        let listed: Commands = toml::from_str(&text).context("tests/commands.toml")?;
        let lines = listed.command.iter().filter(|listed| listed.proof == PROOF);
        let lines: Vec<&str> = lines.map(|listed| listed.line.as_str()).collect();
        ensure!(!lines.is_empty(), "no documented command names {PROOF}");
        let binary = places::selvedge()?;
        let folder = binary.parent().context("the binary lies in a folder")?.display().to_string();
        let path = format!("{folder}:{}", std::env::var("PATH")?);
        let environment = [("PATH".to_owned(), path)];
        for line in lines {
            s.step(line);
            // In a folder of its own: some of them write files, others read those.
            let typed = format!("cd '{}' && {line}", s.dir().display());
            let words = ["-c".to_owned(), typed];
            run(Path::new("/bin/sh"), &words, None, &environment, Deadline::secs(120))?
                .success()?;
        }
        Ok(())
    });
}
