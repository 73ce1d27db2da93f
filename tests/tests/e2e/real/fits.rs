//! Before a job starts, every member says whether its data fit: who does not is named with a reason
//! and what to do, nothing of the data is told, and a job of which no round could end is refused.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_tests::output::Source;
use selvedge_tests::{Deadline, Node, NodeSpec, Scenario, scenario};
use serde_json::{Value, json};

use super::learning::{job, same_end, shown, with_data};

/// Enough to see that the job runs to its end.
const ROUNDS: u64 = 3;
/// What stands in one cell and nowhere else.
const CELL: &str = "qzv73519";

/// A job that waits for no more nodes than it needs: three.
fn of_three() -> String {
    job(ROUNDS).replace("target = 4", "target = 3")
}

/// What `fed check` says at a node where it refuses: on standard output, and why.
fn refused(node: &Node, file: &str) -> Result<(String, String)> {
    let ran = node.cli(&["fed", "check", file])?;
    let out = ran.out.clone();
    Ok((out, ran.failure()?))
}

/// The line of a table that begins with a node's name.
pub(super) fn line<'a>(told: &'a str, node: &str) -> Result<&'a str> {
    let found = told.lines().find(|line| line.split_whitespace().next() == Some(node));
    found.with_context(|| format!("no line of {node}: {told}"))
}

#[test]
fn a_job_starts_once_enough_members_say_that_their_data_fit() {
    scenario(|s| {
        let spec = |node: u64| {
            let spec = s.node(&format!("n{node}"));
            if node < 2 { with_data(spec, node) } else { Ok(spec) }
        };
        let specs: Vec<NodeSpec> = (0..5).map(spec).collect::<Result<_>>()?;
        let states = specs[1].home.join("states.csv");
        fs::write(&states, format!("heat,moisture,state\n1,{CELL},ok\n"))?;
        let mut nodes = s.mesh(&specs)?;
        let file = s.path("job.toml");
        fs::write(&file, of_three())?;
        let file = file.display().to_string();
        who_does_not_fit_is_named(s, &nodes, &file)?;

        s.step("a cell that is wrong: its node's own people hear which, and nobody else does");
        fs::write(&states, format!("heat,humidity,state\n1,2,ok\n3,{CELL},ok\n"))?;
        nothing_of_a_cell_is_told(&nodes, &file)?;

        s.step("once the file is mended and the other one has data, all that are needed fit");
        with_data(specs[1].clone(), 1)?;
        nodes[2].terminate()?;
        with_data(specs[2].clone(), 2)?;
        nodes[2] = specs[2].up(s, &[])?;
        s.meet(&nodes)?;
        let told = nodes[0].cli(&["fed", "check", &file])?.success()?;
        ensure!(told.contains("3 nodes fit, and a round needs 3 nodes: enough"), "{told}");
        let told = nodes[3].cli(&["fed", "check", &file, "--json"])?.success()?;
        let told: Value = serde_json::from_str(&told)?;
        ensure!(told["outlook"] == "enough" && told["fit"] == 3, "{told}");
        ensure!(told["nodes"][0]["node"] == "n3" && told["nodes"][0]["me"] == true, "{told}");

        s.step("and the job runs to its end");
        let told = nodes[0].cli(&["fed", "submit", &file])?.success()?;
        ensure!(told.contains("job 'wear' runs"), "{told}");
        let end = same_end(&nodes, ROUNDS)?;
        let counted = end["contributions"].as_array().context("contributions")?;
        ensure!(counted.len() == 3, "{end}");
        Ok(())
    });
}

fn who_does_not_fit_is_named(s: &Scenario, nodes: &[Node], file: &str) -> Result<()> {
    s.step("each member is named with whether its data fit, why not, and what to do there");
    let (told, why) = refused(&nodes[0], file)?;
    let own = line(&told, "n0")?;
    // A fifth of 120 is held out.
    ensure!(own.contains("this node") && own.contains("fits") && own.contains("96"), "{own}");
    let wrong = line(&told, "n1")?;
    ensure!(wrong.contains("does not fit") && wrong.contains("columns"), "{wrong}");
    ensure!(wrong.contains("there, `selvedge fed check` with this job file"), "{wrong}");
    ensure!(line(&told, "n2")?.contains("no data 'line3'"), "{told}");
    ensure!(why.contains("1 node fits, and a round needs 3 nodes: too few"), "{why}");
    ensure!(why.contains("mend the data of n1"), "{why}");

    s.step("a job of which no round could end is refused, unless it is wanted all the same");
    let refused = nodes[0].cli(&["fed", "submit", file])?.failure()?;
    ensure!(refused.contains("too few") && refused.contains("--anyway"), "{refused}");
    ensure!(shown(&nodes[0])?.is_none(), "it runs");
    let anyway = nodes[0].cli(&["fed", "submit", file, "--anyway"])?;
    ensure!(anyway.err.contains("no round of 'wear' ends before 3 nodes"), "{}", anyway.err);
    anyway.success()?;
    nodes[0].cli(&["fed", "cancel", "wear"])?.success()?;
    for node in nodes {
        Deadline::patient().until("the job gone", || Ok(shown(node)?.is_none().then_some(())))?;
    }
    Ok(())
}

fn nothing_of_a_cell_is_told(nodes: &[Node], file: &str) -> Result<()> {
    let (table, why) = refused(&nodes[0], file)?;
    ensure!(line(&table, "n1")?.contains("something in its data"), "{table}");
    let asked = json!({ "text": of_three() });
    let told = nodes[0].admin()?.client().post("/admin/federated-check", &asked)?.ok()?.to_string();
    ensure!(told.contains("\"reason\":\"content\""), "{told}");
    for said in [&table, &told, &why] {
        ensure!(!said.contains(CELL), "{said}");
    }
    let log = nodes[1].process.output();
    log.wait(&mut 0, Deadline::patient(), "why in its log", |line| {
        (line.source == Source::Err && line.text.contains(CELL)).then_some(())
    })?;
    let (_, own) = refused(&nodes[1], file)?;
    ensure!(own.contains(CELL) && own.contains("line 3"), "{own}");
    Ok(())
}
