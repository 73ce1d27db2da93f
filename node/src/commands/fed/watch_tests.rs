#![allow(clippy::unwrap_used)]

use super::*;
use crate::http::wire::FederatedRound;
use crate::scratch::Scratch;

fn at(secs: u64) -> Mono {
    Mono(0).plus(Micros::secs(secs))
}

/// What is said of a round without a figure.
const OVER: &str = "round  30   is over";

/// A job of five anchors at a node that is one of them and trains.
fn job(round: u64) -> FederatedJob {
    let phase = "gathering".to_owned();
    let none = FederatedRound::default();
    let open = FederatedRound { round, phase, needed: 5, contributed: 2, ..none };
    FederatedJob {
        name: "priv3".to_owned(),
        round,
        rounds: 30,
        anchors: (0..5).map(|node| format!("n{node}")).collect(),
        anchors_needed: 3,
        examples: Some(96),
        open_round: Some(open),
        ..FederatedJob::default()
    }
}

fn measured(round: u64) -> FederatedMeasured {
    FederatedMeasured { round, right: 9, examples: 10, loss_micronats: None }
}

#[test]
fn why_a_round_does_not_come_is_told_once_for_each_reason_and_not_at_once() {
    let mut watched = Watched::new(at(0));
    let mut job = job(3);
    assert!(watched.passed(at(1), &job).len() <= 2);
    assert_eq!(watched.waits(at(20), &job), None, "too early");
    let said = watched.waits(at(21), &job).unwrap();
    assert_eq!(said, "round 4 waits: this anchor holds contributions of 2 nodes, and it takes 5");
    assert_eq!(watched.waits(at(60), &job), None, "it was told");
    job.has_left = true;
    let said = watched.waits(at(61), &job).unwrap();
    assert!(said.ends_with("5; this node's data left, as their epsilon is spent"), "{said}");
    job.anchors_not_reached = vec!["n3".to_owned()];
    let said = watched.waits(at(62), &job).unwrap();
    assert!(said.contains("its anchors n3 are not reached from here: it takes"), "{said}");
    job.anchors_not_reached = ["n2", "n3", "n4"].map(str::to_owned).to_vec();
    let said = watched.waits(at(63), &job).unwrap();
    assert!(said.contains("of its 5 anchors n2, n3, n4 are not reached"), "{said}");
    assert!(said.contains("and it takes 3"), "{said}");
    let open = job.open_round.iter_mut();
    open.for_each(|open| open.phase = "proposing".to_owned());
    let said = watched.waits(at(63), &job).unwrap();
    assert!(!said.contains("this anchor holds"), "the others held enough: {said}");
    job.open_round = None;
    let said = watched.waits(at(64), &job).unwrap();
    assert!(said.contains("as an anchor; `selvedge fed status priv3` at one says who"), "{said}");
    let reads = Watched::new(at(0)).waits(at(64), &FederatedJob { examples: None, ..job.clone() });
    assert!(reads.unwrap().contains("this node still reads its data"));
    job.round = 4;
    assert!(watched.passed(at(65), &job).iter().all(|line| line.contains("round ")));
    assert_eq!(watched.waits(at(84), &job), None, "a round ended");
    assert!(watched.waits(at(85), &job).unwrap().starts_with("round 5 waits"));
}

#[test]
fn reasons_that_change_to_and_fro_are_bounded() {
    let mut watched = Watched::new(at(0));
    let mut job = job(0);
    let told = (0..40).filter(|&nodes| {
        let open = job.open_round.iter_mut();
        open.for_each(|open| (open.contributed, open.needed) = (nodes, 99));
        watched.waits(at(30), &job).is_some()
    });
    assert_eq!(told.count(), MAX_REASONS);
}

#[test]
fn a_node_without_data_tells_each_round_and_once_that_it_has_no_figures() {
    let mut watched = Watched::new(at(0));
    let no_data = |round| FederatedJob {
        examples: None,
        not_training: Some("it has no data 'line3'".to_owned()),
        ..job(round)
    };
    assert_eq!(watched.passed(at(0), &no_data(0)).len(), 1, "that there are no figures");
    assert_eq!(watched.passed(at(1), &no_data(0)), Vec::<String>::new());
    let passed = watched.passed(at(2), &no_data(2));
    assert_eq!(passed, ["round   1   is over", "round   2   is over"]);
    assert!(!watched.is_done(at(2), &no_data(2)));
    assert_eq!(watched.passed(at(3), &no_data(3)), ["round   3   is over"]);
    assert_eq!(watched.passed(at(3), &no_data(2)), Vec::<String>::new(), "older word");
    // Whoever comes late is not told all that was before.
    let late = Watched::new(at(0)).passed(at(0), &no_data(7));
    assert_eq!(late[1..], ["round   7   is over"]);
    assert!(watched.is_done(at(4), &no_data(30)));
}

#[test]
fn a_node_with_data_tells_its_figures_and_waits_for_the_last_one() {
    let mut watched = Watched::new(at(0));
    let with = |round, of: &[u64]| FederatedJob {
        measured: of.iter().copied().map(measured).collect(),
        ..job(round)
    };
    assert_eq!(watched.passed(at(0), &with(1, &[])), Vec::<String>::new(), "they come later");
    let passed = watched.passed(at(1), &with(2, &[1, 2]));
    assert_eq!(passed, ["round   1    90.0 % (9 of 10)", "round   2    90.0 % (9 of 10)"]);
    assert_eq!(watched.passed(at(2), &with(30, &[1, 2])), Vec::<String>::new());
    assert!(!watched.is_done(at(3), &with(30, &[1, 2])));
    assert!(!watched.is_done(at(301), &with(30, &[1, 2])), "measuring may take minutes");
    assert!(watched.is_done(at(302), &with(30, &[1, 2])), "there may be none");
    let lacks = Some("the figure of round 30 is not there yet");
    assert_eq!(watched.lacks(&with(30, &[1, 2])).as_deref(), lacks);
    assert_eq!(watched.waits(at(60), &with(30, &[1, 2])).as_deref(), lacks, "no round 31 waits");
    assert_eq!(watched.passed(at(303), &with(30, &[1, 2, 30])).len(), 1);
    assert!(watched.is_done(at(303), &with(30, &[1, 2, 30])));
    assert_eq!(watched.lacks(&with(30, &[1, 2, 30])), None);
}

#[test]
fn figures_that_come_late_are_shown_all_the_same() {
    let mut watched = Watched::new(at(0));
    let with = |of: &[u64]| FederatedJob {
        measured: of.iter().copied().map(measured).collect(),
        ..job(30)
    };
    let passed = watched.passed(at(0), &with(&[]));
    assert_eq!(passed[..], ["no figures are here yet: rounds without their figures", OVER]);
    assert!(!watched.is_done(at(1), &with(&[])), "it has data");
    assert!(watched.is_done(at(20), &with(&[])), "and may hold nothing of them out");
    assert_eq!(watched.passed(at(2), &with(&[29, 30])).len(), 2);
    assert!(watched.is_done(at(2), &with(&[29, 30])));
}

#[test]
fn watching_goes_on_where_others_may_contribute_and_ends_where_the_job_is_given_up() {
    let of = |has_left, too_few| {
        let mut job = FederatedJob { has_left, ..job(3) };
        job.open_round.iter_mut().for_each(|open| open.too_few = too_few);
        job
    };
    for (has_left, too_few) in [(true, false), (false, true), (true, true)] {
        let job = of(has_left, too_few);
        assert_eq!(given_up(&job), None);
        let said = Watched::new(at(0)).waits(at(20), &job).unwrap();
        assert_eq!(said.contains("only if others contribute"), has_left && too_few, "{said}");
        assert_eq!(said.contains("`selvedge fed cancel priv3`"), has_left && too_few, "{said}");
    }
    let stopped = Some("it failed eight times".to_owned());
    let why = given_up(&FederatedJob { stopped, ..job(3) }).unwrap();
    assert!(why.ends_with("does not go on at this node: it failed eight times"), "{why}");
}

#[test]
fn a_picture_that_cannot_be_drawn_is_refused_before_the_first_round() {
    let scratch = Scratch::new("watch");
    let file = |name: &str| scratch.path().join(name);
    for name in ["curve.png", "none/curve.svg", ""] {
        assert!(may_be_drawn(&file(name)).is_err(), "{name}");
    }
    let refused = may_be_drawn(&file("curve.png")).unwrap_err().to_string();
    assert!(refused.contains("ends in .svg"), "{refused}");
    for name in ["curve.svg", "curve.SVG", "curve"] {
        may_be_drawn(&file(name)).unwrap();
        assert!(!file(name).exists(), "nothing is drawn yet");
    }
    std::fs::write(file("curve.svg"), "an older one").unwrap();
    may_be_drawn(&file("curve.svg")).unwrap();
    draw(&job(3), &file("curve.svg")).unwrap();
    let kept = std::fs::read_to_string(file("curve.svg")).unwrap();
    assert_eq!(kept, "an older one", "nothing is measured");
    draw(&FederatedJob { measured: vec![measured(1)], ..job(3) }, &file("curve.svg")).unwrap();
    assert!(std::fs::read_to_string(file("curve.svg")).unwrap().starts_with("<svg"));
}
