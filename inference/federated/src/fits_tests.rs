#![allow(clippy::unwrap_used)]

use selvedge_base::{Micros, NodeId};

use super::*;
use crate::fixed::Clip;
use crate::privacy::Privacy;
use crate::privacy::accountant::{MicroEpsilon, PicoDelta};
use crate::robust::Rule;
use crate::round::{Committee, Guard, Mode, Pace, Seat};
use crate::server::Strategy;
use crate::shamir::Scheme;

/// A job with a floor of three nodes, of each of which two clients count.
fn job() -> Job {
    let seat = |index| Seat { node: NodeId([index; 32]), key: [index; 32] };
    let span = Micros::millis(100);
    Job {
        nonce: 1,
        task: [7; 32],
        dim: 3,
        clip: Clip::new(1 << 20).unwrap(),
        mode: Mode::Secure,
        scheme: Scheme::Five,
        committee: Committee { epoch: 0, seats: (0..5).map(seat).collect() },
        min_clients: 3,
        target: 3,
        sample_permille: 1_000,
        max_examples: 100,
        receipts: 4,
        rounds: 9,
        strategy: Strategy::Average { proximal_permille: 0 },
        privacy: None,
        pace: Pace { tick: span, stagger: span, gather: span, patience: span },
        per_node: 2,
        guard: None,
    }
}

fn private() -> Job {
    let privacy = Privacy {
        noise_milli: 2_000,
        norm: 1 << 19,
        honest: 2,
        delta: PicoDelta(10_000_000),
        epsilon: MicroEpsilon(100_000_000),
        adaptive: None,
    };
    Job { privacy: Some(privacy), ..job() }
}

fn fits(clients: u8) -> Answer {
    Answer::Said(Fit { clients, examples: Some(9), misfit: None })
}

const NOT: Answer = Answer::Said(Fit::not(Misfit::Columns));

#[test]
fn nodes_count_and_their_clients_do_not() {
    let verdict = Verdict::of(&job(), [fits(2), fits(2), NOT]);
    assert_eq!((verdict.needed, verdict.nodes, verdict.clients), (3, 2, 4));
    assert_eq!(verdict.outlook(), Outlook::TooFew);
    let verdict = Verdict::of(&job(), [fits(1), fits(1), fits(1), NOT]);
    assert_eq!((verdict.nodes, verdict.outlook()), (3, Outlook::Enough));
}

#[test]
fn whoever_is_there_and_did_not_say_may_train_and_whoever_is_away_may_not() {
    for unsaid in [Answer::Busy, Answer::Late, Answer::Older, Answer::Unreached] {
        let verdict = Verdict::of(&job(), [fits(1), fits(1), unsaid]);
        assert_eq!((verdict.unsaid, verdict.outlook()), (1, Outlook::Unsure), "{unsaid:?}");
        let verdict = Verdict::of(&job(), [fits(1), unsaid, NOT]);
        assert_eq!(verdict.outlook(), Outlook::TooFew, "{unsaid:?}");
    }
    let verdict = Verdict::of(&job(), [fits(1), fits(1), Answer::Away, Answer::Away]);
    assert_eq!((verdict.away, verdict.outlook()), (2, Outlook::TooFew));
    let none = Verdict::of(&job(), []);
    assert_eq!(none, Verdict { needed: 3, ..Verdict::default() });
    assert_eq!(none.outlook(), Outlook::TooFew);
}

#[test]
fn a_set_in_groups_needs_the_floor_of_each() {
    let groups = Guard { groups: 2, rule: Rule::Median };
    let job = Job { per_node: 1, guard: Some(groups), ..job() };
    let verdict = |nodes| Verdict::of(&job, std::iter::repeat_n(fits(1), nodes));
    assert_eq!((verdict(5).needed, verdict(5).outlook()), (6, Outlook::TooFew));
    assert_eq!(verdict(6).outlook(), Outlook::Enough);
}

#[test]
fn examples_are_told_where_rounds_tell_them() {
    let two = Fit::default().with(&job(), 7).with(&job(), u64::MAX).but(Misfit::Few);
    assert_eq!(two, Fit { clients: 2, examples: Some(u64::MAX), misfit: Some(Misfit::Few) });
    assert_eq!(two.but(Misfit::File).misfit, Some(Misfit::Few), "the first one");
    let hidden = Fit::default().with(&private(), 7);
    assert_eq!(hidden, Fit { clients: 1, examples: None, misfit: None });
}

#[test]
fn of_a_peers_word_remains_what_can_be_true() {
    let loud = Fit { clients: 200, examples: Some(5), misfit: None };
    assert_eq!(loud.within(&job()), Fit { clients: 2, ..loud });
    assert_eq!(loud.within(&private()), Fit { clients: 2, examples: None, misfit: None });
    let silent = Fit { clients: 0, examples: Some(5), misfit: None };
    assert_eq!(silent.within(&job()), Fit::not(Misfit::Failed));
    let fit = Fit { clients: 1, examples: Some(5), misfit: Some(Misfit::File) };
    assert_eq!(fit.within(&job()), fit, "a part of it");
}

#[test]
fn every_reason_has_a_word_of_its_own() {
    let all = [
        Misfit::Source,
        Misfit::File,
        Misfit::Content,
        Misfit::Columns,
        Misfit::Classes,
        Misfit::Few,
        Misfit::Large,
        Misfit::Privacy,
        Misfit::Base,
        Misfit::Program,
        Misfit::Processor,
        Misfit::Full,
        Misfit::Failed,
        Misfit::Spent,
    ];
    let words: std::collections::BTreeSet<&str> = all.iter().map(|one| one.word()).collect();
    assert_eq!(words.len(), all.len());
}
