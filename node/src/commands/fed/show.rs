//! Jobs of learning as people look at them: a table, and one job in full.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::client::Client;
use crate::home::Home;
use crate::http::wire::{
    self, FederatedJob, FederatedMeasured, FederatedPart, FederatedPersonal, FederatedRefusal,
    FederatedRound,
};
use crate::ui::{self, Ink};

/// What losses are counted in.
pub(super) const NATS: f64 = 1e6;
/// Parts of a bar of rounds: beside the six other columns it fits a terminal of 80.
const BAR: u64 = 8;
/// What the columns of the table of jobs are.
const HEAD: [&str; 7] = ["JOB", "ROUNDS", "HELD OUT", "NODES", "EPSILON", "HERE", "MODEL"];
/// Digits of a digest that tell it from others beside other columns.
const SHORTER: usize = 8;
/// What a node does that contributes no more.
const LEFT: &str = "has left: its epsilon is spent";

/// `selvedge fed status`.
pub(super) fn show(home: &Home, job: Option<&str>, json: bool) -> Result<()> {
    let mut jobs = jobs(&Client::admin(&home.running()?))?;
    if let Some(name) = job {
        jobs.retain(|job| job.name == name);
        if jobs.is_empty() {
            bail!("there is no job '{name}'; `selvedge fed status` lists them");
        }
    }
    if json {
        ui::out(serde_json::to_string_pretty(&jobs)?);
        return Ok(());
    }
    if let (Some(_), [one]) = (job, jobs.as_slice()) {
        ui::out(ui::table(&in_full(one)));
        one.lines.iter().for_each(|line| ui::out(format_args!("  {line}")));
        return Ok(());
    }
    if jobs.is_empty() {
        ui::out("no jobs; `selvedge fed submit FILE` starts one");
        return Ok(());
    }
    ui::out(listed(&jobs));
    Ok(())
}

/// All jobs as a table.
fn listed(jobs: &[FederatedJob]) -> String {
    let head = HEAD.map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(jobs.iter().map(row)).collect();
    ui::table(&rows)
}

/// The jobs of the mesh, as the node sees them now.
pub(super) fn jobs(client: &Client) -> Result<Vec<FederatedJob>> {
    Ok(client.get::<wire::List<FederatedJob>>("/admin/federated")?.data)
}

fn row(job: &FederatedJob) -> Vec<String> {
    let nothing = || "-".to_owned();
    if let Some(why) = &job.not_here {
        let [name, why, no] = [job.name.clone(), why.clone(), "no".to_owned()];
        return vec![name, nothing(), nothing(), nothing(), nothing(), no, why];
    }
    let measured = job.measured.last().map_or_else(nothing, briefly);
    let rounds = format!("{} {} of {}", bar_of(job.round, job.rounds), job.round, job.rounds);
    let spent = job.epsilon_spent_millionths.zip(job.epsilon_millionths);
    let spent = spent.map(|(spent, most)| format!("{} of {}", epsilon(spent), epsilon(most)));
    let nodes = job.contributions.len().to_string();
    // For which round is told of one job alone.
    let here = doing(job);
    let here = match here.as_str() {
        LEFT => "epsilon spent".to_owned(),
        here => here.split(" for round").next().unwrap_or_default().to_owned(),
    };
    let model = job.model.get(..SHORTER).unwrap_or(&job.model).to_owned();
    vec![job.name.clone(), rounds, measured, nodes, spent.unwrap_or_else(nothing), here, model]
}

/// How far a job has come, as a bar of text.
fn bar_of(done: u64, all: u64) -> String {
    let filled = (done.saturating_mul(BAR) / all.max(1)).min(BAR) as usize;
    format!("{}{}", "━".repeat(filled), "╌".repeat(BAR as usize - filled))
}

/// What this node does for a job, in words.
fn doing(job: &FederatedJob) -> String {
    if job.round >= job.rounds {
        return "done".to_owned();
    }
    if job.stopped.is_some() {
        return "does not go on".to_owned();
    }
    if let Some(since) = job.personal.as_ref().and_then(|own| own.no_quorum_since_s) {
        return format!("mixing with peers (no quorum since {})", moment(since));
    }
    match (&job.not_training, job.training) {
        (Some(_), _) => "follows".to_owned(),
        (None, _) if job.has_left => LEFT.to_owned(),
        (None, Some(round)) => format!("trains for round {}", round + 1),
        (None, None) => "takes part".to_owned(),
    }
}

fn in_full(job: &FederatedJob) -> Vec<Vec<String>> {
    let mut rows = vec![("job", ui::paint(Ink::Bold, &job.name))];
    if let Some(why) = &job.not_here {
        rows.push(("this node", format!("does not run it: {why}")));
        return rows.into_iter().map(|(what, text)| vec![what.to_owned(), text]).collect();
    }
    let several = match job.clients_per_node {
        0 | 1 => String::new(),
        most => format!(", up to {most} clients of each"),
    };
    let nodes = format!("{} nodes{several}", job.min_clients);
    let (rule, groups) = (&job.rule, job.groups);
    let mode = match (job.secure, groups) {
        (true, 0 | 1) => format!("sums of at least {nodes}, that nobody can take apart"),
        (true, _) => format!(
            "sums of at least {nodes}, that nobody can take apart; {groups} of them in a round, \
             the {rule} of whose means counts"
        ),
        (false, _) => {
            format!("plain, the {rule} of updates from {nodes}: every anchor SEES every update")
        }
    };
    rows.push(("digest", job.job.clone()));
    let bar = bar_of(job.round, job.rounds);
    rows.push(("rounds", format!("{bar} {} of {} by {}", job.round, job.rounds, job.strategy)));
    rows.push(("mode", mode));
    rows.push(("model", format!("{} weights, {}", job.weights, job.model)));
    rows.push(("served", served(job)));
    rows.push(("record", job.record.clone()));
    rows.push(("anchors", anchors(job)));
    rows.extend(job.open_round.iter().map(|open| ("round", stands(open))));
    rows.push(("contributed", contributed(job)));
    if !job.refused.is_empty() {
        rows.push(("refused here", counts(&job.refused)));
    }
    rows.extend(job.refusals.iter().map(|one| ("refused of", refusal(one))));
    let node = match (&job.not_training, job.examples) {
        (Some(why), _) => format!("follows and does not train: {why}"),
        (None, Some(examples)) if doing(job) == LEFT => {
            format!("{LEFT}; {examples} examples of '{}'", job.data)
        }
        (None, Some(examples)) => {
            format!("{} with {examples} examples of '{}'", doing(job), job.data)
        }
        (None, None) => "begins".to_owned(),
    };
    rows.push(("this node", node));
    rows.push(("sent here", ui::bytes_text(job.sent_bytes)));
    if let (Some(spent), Some(most)) = (job.epsilon_spent_millionths, job.epsilon_millionths) {
        let all = job.data_epsilon_millionths.map(epsilon);
        let all = all.map(|all| format!("; {all} of these data by all jobs"));
        let (spent, most, all) = (epsilon(spent), epsilon(most), all.unwrap_or_default());
        rows.push(("epsilon", format!("{spent} of {most} spent here{all}")));
    }
    if let Some(last) = job.measured.last() {
        rows.push(("held out", format!("{} after round {}", accuracy(last), last.round)));
    }
    for part in &job.parts {
        rows.push(("part", in_words(part)));
    }
    if let Some(own) = &job.personal {
        rows.push(("own model", personal(own)));
    }
    rows.into_iter().map(|(what, text)| vec![what.to_owned(), text]).collect()
}

/// The anchors, and what to do where some of them are away.
fn anchors(job: &FederatedJob) -> String {
    let (all, lost, wanted) = (&job.anchors, &job.anchors_not_reached, &job.anchors_wanted);
    let mut text = all.join(", ");
    if job.round >= job.rounds {
        return text;
    }
    if !lost.is_empty() {
        let there = all.len().saturating_sub(lost.len()) as u64;
        let what = match there < job.anchors_needed {
            true => format!("rounds end again when {} are there", job.anchors_needed),
            false => format!(
                "rounds wait for them and take longer; if that is for good: `selvedge fed anchors \
                 {}`",
                job.name
            ),
        };
        text += &format!(" ({} not reached from here; {what})", lost.join(", "));
    }
    if wanted.iter().any(|name| !all.contains(name)) {
        text += &format!("; after them, as asked: {}", wanted.join(", "));
    }
    text
}

/// Where the round that is open stands, in words.
fn stands(open: &FederatedRound) -> String {
    let who = open.proposer.as_deref().unwrap_or("nobody");
    let here = if open.here { ", this node," } else { "" };
    let what = match open.phase.as_str() {
        "asking" => {
            let few = of_needed(open).map_or_else(String::new, |few| format!(": {few}"));
            format!("{who}{here} asks the anchors what they hold{few}")
        }
        "proposing" => format!("{who}{here} proposes the set"),
        "closed" => format!("{who}{here} closed the set, of which this node does not hold all"),
        "opening" => format!("{who}{here} closed the set, whose sum is being opened"),
        "gathering" => match of_needed(open) {
            Some(few) => format!("it waits for more contributions: {few}"),
            None => "contributions are gathered, nobody proposes yet".to_owned(),
        },
        // A newer node's.
        other => format!("{other}, {who}{here} proposes"),
    };
    format!("{}: {what}", open.round.saturating_add(1))
}

/// Of how many nodes this anchor holds contributions to a round whose set is not found yet, where
/// it takes more. Others may hold more.
pub(super) fn of_needed(open: &FederatedRound) -> Option<String> {
    let FederatedRound { contributed, needed, ref phase, .. } = *open;
    if contributed >= needed || !matches!(phase.as_str(), "gathering" | "asking") {
        return None;
    }
    let nodes = if contributed == 1 { "1 node".to_owned() } else { format!("{contributed} nodes") };
    Some(format!("this anchor holds contributions of {nodes}, and it takes {needed}"))
}

/// Who contributed, and how often.
fn contributed(job: &FederatedJob) -> String {
    let who = job.contributions.iter().map(|one| format!("{} {}", one.node, one.contributions));
    let who: Vec<String> = who.collect();
    let all =
        job.contributions.iter().fold(0_u64, |all, one| all.saturating_add(one.contributions));
    match who.len() {
        0 => "nobody yet".to_owned(),
        1 => format!("{}: {all} of 1 node", who.join(", ")),
        nodes => format!("{}: {all} of {nodes} nodes", who.join(", ")),
    }
}

/// A part of the node's data in words.
fn in_words(part: &FederatedPart) -> String {
    let mut words = match (&part.not_training, part.examples) {
        (Some(why), _) => format!("{}: does not train: {why}", part.part),
        (None, Some(examples)) => format!("{}: {examples} examples", part.part),
        (None, None) => format!("{}: begins", part.part),
    };
    if part.has_left {
        words += ", has left: its epsilon is spent";
    }
    if let Some(round) = part.training {
        words += &format!(", trains for round {}", round + 1);
    }
    words += &format!(", {} contributions count", part.counted);
    if part.expired > 0 {
        words += &format!(", {} never will", part.expired);
    }
    if let Some(last) = part.measured.last() {
        words += &format!("; held out {} after round {}", accuracy(last).trim_start(), last.round);
    }
    if let Some(spent) = part.epsilon_spent_millionths {
        words += &format!("; epsilon {}", epsilon(spent));
        if let Some(all) = part.data_epsilon_millionths {
            words += &format!(", {} by all jobs", epsilon(all));
        }
    }
    words
}

/// A node's own model in words.
fn personal(own: &FederatedPersonal) -> String {
    let measured = own.measured.as_ref().map_or_else(|| "not measured".to_owned(), accuracy);
    let refused = counts(&own.refused);
    let refused = if refused.is_empty() { "none" } else { &refused };
    format!(
        "{}, {} steps from round {}; mixed {} models of peers, refused {refused}",
        measured.trim_start(),
        own.age,
        own.round,
        own.mixed
    )
}

/// Whom this node refused, with the end of the id: a node could take another's name.
fn refusal(one: &FederatedRefusal) -> String {
    let FederatedRefusal { node, id, reasons } = one;
    let end = id.get(id.len().saturating_sub(SHORTER)..).unwrap_or(id);
    let who = if node == end { node.clone() } else { format!("{node} ({end})") };
    format!("{who}: {}", counts(reasons))
}

/// What was refused, by reason.
fn counts(refused: &BTreeMap<String, u64>) -> String {
    refused.iter().map(|(why, count)| format!("{count} {why}")).collect::<Vec<_>>().join(", ")
}

/// A time of day in UTC, of seconds since 1970: that which says since when is not days ago.
fn moment(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02} UTC", seconds % 60)
}

/// Whether its model answers here, in words.
fn served(job: &FederatedJob) -> String {
    match (&job.not_served, job.served) {
        (Some(why), _) => format!("no: {why}"),
        (None, Some(version)) => {
            let order = if job.writes_text { "ask --model" } else { "infer" };
            format!("version {version}, by `selvedge {order} {}`", job.name)
        }
        (None, None) => "once the first round is over".to_owned(),
    }
}

/// Millionths of epsilon, rounded up to hundredths.
fn epsilon(millionths: u64) -> String {
    let hundredths = millionths.div_ceil(10_000);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// A mean loss, as what it is for people, and of how many tokens.
fn loss(micronats: u64, tokens: u64) -> String {
    let nats = micronats as f64 / NATS;
    format!("loss {nats:.4}, perplexity {:.2} ({tokens} tokens)", nats.exp())
}

/// How well a model did, without what it is of.
fn briefly(one: &FederatedMeasured) -> String {
    let words = accuracy(one);
    words.split(" (").next().unwrap_or(&words).split(',').next().unwrap_or(&words).to_owned()
}

/// A share in percent with one decimal, and what it is of; of a language model its loss.
pub(super) fn accuracy(one: &FederatedMeasured) -> String {
    if let Some(micronats) = one.loss_micronats {
        return loss(micronats, one.examples);
    }
    let permille = one.right * 1_000 / one.examples.max(1);
    format!("{:>3}.{} % ({} of {})", permille / 10, permille % 10, one.right, one.examples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_told_in_words() {
        let measured =
            |round, right| FederatedMeasured { round, right, examples: 200, loss_micronats: None };
        let mut job = FederatedJob {
            name: "digits".to_owned(),
            round: 2,
            rounds: 3,
            examples: Some(1_800),
            training: Some(2),
            measured: vec![measured(1, 101), measured(2, 163)],
            epsilon_spent_millionths: Some(1_000_001),
            epsilon_millionths: Some(16_000_000),
            ..FederatedJob::default()
        };
        let told = |job: &FederatedJob| in_full(job).concat().join(" ");
        for part in ["81.5 % (163 of 200) after round 2", "trains for round 3", "1.01 of 16.00"] {
            assert!(told(&job).contains(part), "no {part} in {}", told(&job));
        }
        assert!(row(&job).concat().contains("━━━━━╌╌╌ 2 of 3"), "{:?}", row(&job));
        assert!(!told(&job).contains("refused"), "{}", told(&job));
        job.refused = [("replayed".to_owned(), 3), ("digest".to_owned(), 1)].into();
        assert!(told(&job).contains("refused here 1 digest, 3 replayed"), "{}", told(&job));
        assert!(!told(&job).contains("refused of"), "{}", told(&job));
        let refusal = |node: &str, why: &str, times| FederatedRefusal {
            node: node.to_owned(),
            id: "12D3KooWliarliar".to_owned(),
            reasons: [(why.to_owned(), times)].into(),
        };
        job.refusals = vec![refusal("n2", "digest", 1), refusal("liarliar", "replayed", 3)];
        for part in ["refused of n2 (liarliar): 1 digest", "refused of liarliar: 3 replayed"] {
            assert!(told(&job).contains(part), "no {part} in {}", told(&job));
        }
        job.personal = Some(FederatedPersonal {
            no_quorum_since_s: Some(1_800_000_061),
            round: 2,
            age: 40,
            mixed: 31,
            refused: [("stale".to_owned(), 2), ("full".to_owned(), 1)].into(),
            measured: Some(measured(2, 150)),
        });
        for part in [
            "mixing with peers (no quorum since 08:01:01 UTC) with 1800 examples",
            "75.0 % (150 of 200), 40 steps from round 2; mixed 31",
            "refused 1 full, 2 stale",
        ] {
            assert!(told(&job).contains(part), "no {part} in {}", told(&job));
        }
        let told_loss = FederatedMeasured { loss_micronats: Some(3_000_000), ..measured(2, 50) };
        assert_eq!(accuracy(&told_loss), "loss 3.0000, perplexity 20.09 (200 tokens)");
        assert!(told(&job).contains("once the first round is over"), "{}", told(&job));
        job.served = Some(2);
        assert!(told(&job).contains("version 2, by `selvedge infer digits`"), "{}", told(&job));
        job.writes_text = true;
        assert!(told(&job).contains("by `selvedge ask --model digits`"), "{}", told(&job));
        job.not_served = Some("a route has the name".to_owned());
        assert!(told(&job).contains("no: a route has the name"), "{}", told(&job));
        job.round = 3;
        assert!(row(&job).concat().contains("done"), "{:?}", row(&job));
        job.not_here = Some("32 jobs run here already".to_owned());
        assert!(row(&job).concat().contains("32 jobs") && told(&job).contains("32 jobs"));
    }

    fn private_job() -> FederatedJob {
        let client = |node: &str, contributions| wire::FederatedClient {
            node: node.to_owned(),
            contributions,
        };
        let measured =
            FederatedMeasured { round: 9, right: 163, examples: 200, loss_micronats: None };
        FederatedJob {
            name: "digits".to_owned(),
            round: 9,
            rounds: 30,
            examples: Some(1_800),
            training: Some(9),
            measured: vec![measured],
            contributions: vec![client("n0", 9), client("n1", 7), client("n3", 8)],
            epsilon_spent_millionths: Some(1_000_001),
            epsilon_millionths: Some(16_000_000),
            model: "0123456789abcdef".to_owned(),
            ..FederatedJob::default()
        }
    }

    #[test]
    fn the_table_says_how_far_how_well_of_whom_and_for_which_epsilon() {
        let plain = FederatedJob {
            name: "wear".to_owned(),
            rounds: 4,
            model: "ff".to_owned(),
            ..FederatedJob::default()
        };
        let other = FederatedJob {
            name: "verses".to_owned(),
            not_here: Some("32 jobs run".to_owned()),
            ..FederatedJob::default()
        };
        let table = listed(&[private_job(), plain, other]);
        let lines: Vec<&str> = table.lines().collect();
        // In bold where this is a terminal.
        let head = "JOB     ROUNDS            HELD OUT  NODES  EPSILON        HERE        MODEL";
        assert!(lines[0].contains(head), "{table}");
        assert_eq!(
            lines[1..],
            [
                "digits  ━━╌╌╌╌╌╌ 9 of 30   81.5 %   3      1.01 of 16.00  trains      01234567",
                "wear    ╌╌╌╌╌╌╌╌ 0 of 4   -         0      -              takes part  ff",
                "verses  -                 -         -      -              no          32 jobs run",
            ]
        );
        assert!(lines[1..3].iter().all(|line| line.chars().count() <= 80), "{table}");
    }

    #[test]
    fn one_job_says_who_contributed_how_often_and_who_proposes() {
        let mut job = private_job();
        let told = |job: &FederatedJob| in_full(job).concat().join(" ");
        assert!(told(&job).contains("contributed n0 9, n1 7, n3 8: 24 of 3 nodes"));
        assert!(in_full(&job).iter().all(|row| row[0] != "round"), "it is no anchor");
        for (phase, proposer, here, said) in [
            ("gathering", None, false, "round 10: contributions are gathered, nobody proposes yet"),
            ("asking", Some("n3"), false, "round 10: n3 asks the anchors what they hold"),
            ("proposing", Some("n0"), true, "round 10: n0, this node, proposes the set"),
            ("closed", Some("n3"), false, "round 10: n3 closed the set, of which this node does"),
            ("opening", Some("n3"), false, "round 10: n3 closed the set, whose sum is being"),
            ("resting", Some("n3"), false, "round 10: resting, n3 proposes"),
        ] {
            let (phase, proposer) = (phase.to_owned(), proposer.map(str::to_owned));
            let none = FederatedRound::default();
            job.open_round = Some(FederatedRound { round: 9, phase, proposer, here, ..none });
            assert!(told(&job).contains(said), "no {said} in {}", told(&job));
        }
        job.contributions.truncate(1);
        assert!(told(&job).contains("contributed n0 9: 9 of 1 node "), "{}", told(&job));
        job.contributions.clear();
        assert!(told(&job).contains("contributed nobody yet"), "{}", told(&job));
    }

    #[test]
    fn one_job_says_by_which_rule_updates_become_one() {
        let krum = FederatedJob {
            rule: "multi-Krum (byzantine 1, keep 3)".to_owned(),
            groups: 1,
            min_clients: 5,
            ..private_job()
        };
        let told = |job: &FederatedJob| in_full(job).concat().join(" ");
        let said = told(&krum);
        assert!(said.contains("plain, the multi-Krum (byzantine 1, keep 3) of updates from 5"));
        let sums = FederatedJob { secure: true, ..krum };
        assert!(!told(&sums).contains("multi-Krum"), "there is one sum: {}", told(&sums));
        let groups = told(&FederatedJob { groups: 5, ..sums });
        assert!(groups.contains("5 of them in a round, the multi-Krum"), "{groups}");
    }

    #[test]
    fn a_node_whose_epsilon_is_spent_says_so_and_who_waits_says_for_what() {
        let mut job = private_job();
        let told = |job: &FederatedJob| in_full(job).concat().join(" ");
        job.training = None;
        assert!(told(&job).contains("takes part with 1800 examples"), "{}", told(&job));
        assert_eq!(row(&job)[5], "takes part");
        job.has_left = true;
        assert!(told(&job).contains("has left: its epsilon is spent; 1800"), "{}", told(&job));
        assert_eq!(row(&job)[5], "epsilon spent");
        let few = "of 4 nodes, and it takes 5";
        for (phase, contributed, said) in [
            ("gathering", 1, "more contributions: this anchor holds contributions of 1 node, and"),
            ("gathering", 4, few),
            ("gathering", 5, "round 10: contributions are gathered, nobody proposes yet"),
            ("asking", 4, "what they hold: this anchor holds contributions of 4 nodes, and it"),
        ] {
            let phase = phase.to_owned();
            let none = FederatedRound::default();
            let open = FederatedRound { round: 9, phase, contributed, needed: 5, ..none };
            job.open_round = Some(open);
            assert!(told(&job).contains(said), "no {said} in {}", told(&job));
        }
        let open = job.open_round.iter_mut();
        open.for_each(|open| open.phase = "proposing".to_owned());
        assert!(!told(&job).contains(few), "the others held enough: {}", told(&job));
        job.stopped = Some("given up".to_owned());
        assert_eq!(row(&job)[5], "does not go on");
        job.round = 30;
        assert_eq!(row(&job)[5], "done");
    }

    #[test]
    fn a_node_of_before_says_nothing_of_open_rounds_and_clients() {
        let mut told = serde_json::to_value(private_job()).unwrap_or_default();
        let fields = told.as_object_mut().into_iter();
        fields.for_each(|all| all.retain(|name, _| name != "open_round" && name != "clients"));
        let read: Option<FederatedJob> = serde_json::from_value(told).ok();
        assert_eq!(read, Some(private_job()));
    }

    #[test]
    fn the_parts_of_a_nodes_data_are_told_one_by_one() {
        let held_out =
            FederatedMeasured { round: 2, right: 150, examples: 200, loss_micronats: None };
        let parts = vec![
            FederatedPart {
                part: "ward-a".to_owned(),
                examples: Some(90),
                training: Some(2),
                counted: 2,
                measured: vec![held_out],
                epsilon_spent_millionths: Some(1_000_001),
                ..FederatedPart::default()
            },
            FederatedPart {
                part: "ward-b".to_owned(),
                not_training: Some("no such file".to_owned()),
                ..FederatedPart::default()
            },
        ];
        let job = FederatedJob {
            name: "digits".to_owned(),
            round: 2,
            rounds: 3,
            clients_per_node: 2,
            parts,
            ..FederatedJob::default()
        };
        let told = in_full(&job).concat().join(" ");
        for part in [
            "ward-a: 90 examples, trains for round 3, 2 contributions count; held out 75.0 %",
            "after round 2; epsilon 1.01",
            "ward-b: does not train: no such file",
            "up to 2 clients of each",
        ] {
            assert!(told.contains(part), "no {part} in {told}");
        }
    }
}
