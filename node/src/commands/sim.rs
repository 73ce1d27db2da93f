//! `selvedge sim`: whole meshes on virtual time.
//!
//! Owns the commands; the runs themselves are made by the simulator, which touches neither files
//! nor the terminal.

pub(crate) mod cli;
mod shrink;
mod source;
mod swarm;
mod told;
mod watch;

use anyhow::{Context as _, Result, bail};
use selvedge_sim::diff::{self, Traced};
use selvedge_sim::plan::FAULT_NAMES;
use selvedge_sim::{Invariant, Mark, Outcome, Timeline, Watch, run, scenarios};
use serde_json::json;

use self::cli::{Diff, List, Replay, Run, Show, Sim};
use self::source::Subject;
use self::watch::{Bar, Lines, Watchers};
use crate::ui::{self, Ink, paint};

/// Carries out a command of the simulator.
pub(crate) fn sim(command: &Sim) -> Result<()> {
    match command {
        Sim::Run(Run { source, show }) => conclude(&Subject::of(source)?, show),
        Sim::Replay(options) => replay(options),
        Sim::Swarm(options) => swarm::swarm(options),
        Sim::Shrink(options) => shrink::shrink(options),
        Sim::Diff(options) => differ(options),
        Sim::List(options) => {
            list(options);
            Ok(())
        }
    }
}

/// Makes the run and tells all that was asked for; an error when something did not hold.
fn conclude(subject: &Subject, show: &Show) -> Result<()> {
    let outcome = make(subject, show)?;
    if let Some(path) = &show.trace {
        let traced = serde_json::to_string(&Traced::new(&subject.plan, &outcome))?;
        std::fs::write(path, traced + "\n")
            .with_context(|| format!("writing {}", path.display()))?;
    }
    told::say(show.json, &told::summary(subject, &outcome));
    if let Some(failure) = told::failure(subject, &outcome) {
        told::say(show.json, &format!("\n{failure}"));
    }
    if show.json {
        ui::out(told::object(subject, &outcome));
    }
    if let Some(first) = outcome.violations.first() {
        bail!("{} did not hold: {}", first.invariant.id(), first.invariant.sentence());
    }
    match subject.scenario.map(|scenario| scenario.judge(&subject.plan, &outcome)) {
        Some(Err(unmet)) => bail!("the scenario expects otherwise: {unmet}"),
        _ => Ok(()),
    }
}

/// Makes the run with those who look on.
fn make(subject: &Subject, show: &Show) -> Result<Outcome> {
    let plan = &subject.plan;
    let mut bar = Bar::new(plan);
    let mut lines = (show.short).then(|| Lines::new(plan));
    let mut timeline = show.html.as_ref().map(|_| timeline(subject));
    let mut watchers: Vec<&mut dyn Watch> = Vec::new();
    if let Some(lines) = &mut lines {
        watchers.push(lines);
    } else if bar.is_shown() {
        watchers.push(&mut bar);
    }
    if let Some(timeline) = &mut timeline {
        watchers.push(timeline);
    }
    let outcome = run(plan, &mut Watchers(watchers));
    bar.done();
    let outcome = outcome?;
    if let (Some(path), Some(timeline)) = (&show.html, timeline) {
        std::fs::write(path, timeline.page(&outcome))
            .with_context(|| format!("writing {}", path.display()))?;
        ui::note(format_args!("timeline: {}", path.display()));
    }
    Ok(outcome)
}

fn timeline(subject: &Subject) -> Timeline {
    let timeline = Timeline::new(&subject.plan);
    match subject.scenario {
        Some(scenario) => timeline.titled(scenario.name, scenario.incident),
        None => timeline,
    }
}

/// Runs it once more than [`conclude`] does, and compares with what was recorded.
fn replay(options: &Replay) -> Result<()> {
    let subject = match &options.file {
        Some(path) => Subject::of_file(path, "")?,
        None => Subject::of(&options.source)?,
    };
    let first = Traced::new(&subject.plan, &run(&subject.plan, &mut ())?);
    let again = Traced::new(&subject.plan, &run(&subject.plan, &mut ())?);
    let mut earlier = vec![("the second run", &again)];
    if let Some(recorded) = &subject.recorded {
        earlier.push(("the recorded run", recorded));
    }
    for (name, other) in earlier {
        if let Some(range) = diff::parting(&first, other) {
            bail!(
                "{name} has the hash {}, this one {}: they part between the records {} and {}",
                other.hash,
                first.hash,
                range.start,
                range.end
            );
        }
    }
    conclude(&subject, &options.show)
}

fn differ(options: &Diff) -> Result<()> {
    let (left, right) = (Subject::of_word(&options.left)?, Subject::of_word(&options.right)?);
    // What was recorded elsewhere must be what comes out here, or that is the difference.
    for subject in [&left, &right] {
        let Some(recorded) = &subject.recorded else { continue };
        let here = Traced::new(&subject.plan, &run(&subject.plan, &mut ())?);
        if let Some(range) = diff::parting(&here, recorded) {
            let records = diff::records(&subject.plan, &range)?;
            ui::out(format_args!(
                "{}: recorded {}, but here it is {}. The first difference is among these records:",
                subject.words, recorded.hash, here.hash
            ));
            records.iter().for_each(|record| ui::out(format_args!("  {record}")));
            bail!("a plan gave another trace in another process: that must never happen");
        }
    }
    let found = diff::difference(&left.plan, &right.plan)?;
    match &found {
        None => told::say(options.json, "the same, record by record"),
        Some(found) => told::say(options.json, &told_difference(found, options)),
    }
    if options.json {
        let index = found.as_ref().map(|found| found.index);
        let records = found.as_ref().map(|found| (&found.left, &found.right));
        ui::out(json!({ "same": found.is_none(), "index": index, "records": records }));
    }
    Ok(())
}

fn told_difference(found: &diff::Difference, options: &Diff) -> String {
    let mut text = format!("the same for {} records; then\n", found.index);
    for record in &found.shared {
        text.push_str(&format!("    {record}\n"));
    }
    let sides = [
        ('-', Ink::Red, &options.left, &found.left, &found.left_lines),
        ('+', Ink::Green, &options.right, &found.right, &found.right_lines),
    ];
    for (sign, ink, _, record, _) in sides {
        let record = record.as_deref().unwrap_or("(the run is over)");
        text.push_str(&format!("{}\n", paint(ink, format_args!("  {sign} {record}"))));
    }
    for (_, _, name, _, lines) in sides {
        text.push_str(&format!("\nwhat had happened in {name}:\n"));
        for line in lines {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text.trim_end().to_owned()
}

fn list(options: &List) {
    let (head, rows): (Vec<&str>, Vec<Vec<String>>) = if options.invariants {
        let row = |one: &Invariant| vec![one.id().to_owned(), one.sentence().to_owned()];
        (vec!["id", "what holds in every run"], Invariant::ALL.iter().map(row).collect())
    } else if options.marks {
        let row = |one: &Mark| vec![one.sentence().to_owned()];
        (vec!["what happens in some run"], Mark::ALL.iter().map(row).collect())
    } else if options.faults {
        let row = |one: &&str| vec![(*one).to_owned()];
        (vec!["what can break"], FAULT_NAMES.iter().map(row).collect())
    } else {
        let row = |one: &selvedge_sim::Scenario| {
            vec![one.name.to_owned(), one.nodes.to_string(), one.incident.to_owned()]
        };
        (vec!["scenario", "nodes", "models"], scenarios().iter().map(row).collect())
    };
    if options.json {
        let object = |row: &Vec<String>| {
            let pairs =
                head.iter().zip(row).map(|(name, value)| ((*name).to_owned(), json!(value)));
            serde_json::Value::Object(pairs.collect())
        };
        ui::out(json!(rows.iter().map(object).collect::<Vec<_>>()));
        return;
    }
    let mut table = vec![head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    table.extend(rows);
    ui::out(ui::table(&table));
}
