//! Federated rounds under seeded faults: what must hold holds, and what is planted is found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;

use selvedge_base::Micros;
use selvedge_federated::epidemic::Epidemic;
use selvedge_federated::robust::Rule;
use selvedge_federated::round::Mode;
use selvedge_federated::shamir::Scheme;
use selvedge_sim::federated::{Cut, Kill, Moment, Outcome, Plan, Promise, Step, Steps, run};

/// Seeds of the gate; `SELVEDGE_SIM_SEEDS` runs more by hand.
const SEEDS: u64 = 100;

/// Seeds beyond the gate's that once found something, and what. They found it as plans of means,
/// without deaths in a client's step, and are run as such, too.
const FOUND: &[u64] = &[
    // A receipt that waited for the disk was sent after its contribution had gone with its anchors.
    248, 297, 316, 356, 454, 789,
    // Receipts of the last round, whose anchors were replaced and whose client died after the end.
    791, 842,
];

/// Seeds from which on what is rare has to happen, too: a tenth of the jobs has sixteen anchors,
/// and few of them lose five.
const MANY: u64 = 1_000;
/// What is rare.
const RARE: &[&str] = &[
    "a spend lost in a crash",
    "an earlier wish for anchors closed",
    "closed by the fewest of nine",
    "closed by the fewest of sixteen",
    "more anchors dead than one set of them bears",
];

/// Runs after which a line says how far it is.
const PROGRESS: u64 = 100;

fn seeds() -> u64 {
    std::env::var("SELVEDGE_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

/// What many seeds came to.
#[derive(Default)]
struct Tally {
    runs: u64,
    seen: BTreeMap<&'static str, u64>,
    failed: Vec<String>,
}

impl Tally {
    fn take(&mut self, name: &str, outcome: &Outcome) {
        for (what, count) in &outcome.counters.seen {
            *self.seen.entry(what).or_default() += count;
        }
        if let Some(broken) = outcome.broken.first() {
            self.failed.push(format!("{name}: {:?}: {}", broken.promise, broken.story));
        }
        self.runs += 1;
        if self.runs.is_multiple_of(PROGRESS) {
            println!("{} runs, the last one {name}, {} failed", self.runs, self.failed.len());
        }
    }

    /// All held, and everything that is to happen did.
    fn holds(&self, wanted: &[&str]) {
        println!("{} runs, {} failed, {:#?}", self.runs, self.failed.len(), self.seen);
        assert!(self.failed.is_empty(), "{:#?}", self.failed);
        for what in wanted {
            assert!(self.seen.contains_key(what), "never happened: {what}");
        }
    }
}

#[test]
fn rounds_hold_under_faults() {
    let mut tally = Tally::default();
    for seed in (0..seeds()).chain(FOUND.iter().copied()) {
        tally.take(&format!("seed {seed}"), &run(&Plan::seeded(seed)));
    }
    for seed in FOUND {
        tally.take(&format!("seed {seed} of means"), &run(&Plan::averaging(*seed)));
    }
    let wanted = &[
        "a proposal of other anchors waits",
        "a proposer killed",
        "a wish heard after another anchor accepted it",
        "a wish heard late by an anchor",
        "a wish on one side of a cut",
        "a wish told twice to an anchor",
        "anchors replaced",
        "anchors replaced after a death",
        "anchors replaced again",
        "as many anchors dead as may be",
        "bad update refused",
        "carried",
        "closed",
        "closed by the fewest of five",
        "closed on one side of a cut",
        "contribution refused",
        "crash",
        "cuts felt with a quorum on no side",
        "cuts felt with a quorum on one side",
        "death",
        "expired",
        "fewer anchors up than a quorum",
        "jobs of FedAdam",
        "jobs of FedAvg",
        "jobs of FedProx",
        "jobs of SCAFFOLD",
        "jobs of medians",
        "jobs of multi-Krum",
        "jobs of open means",
        "jobs of secure sums",
        "jobs of sums in groups",
        "jobs of trimmed means",
        "killed in a client's step",
        "killed in an anchor's step",
        "norm followed",
        "later turn",
        "privacy of a node used up",
        "lost in a cut",
        "messages that came after a later one",
        "messages that came twice",
        "other anchors asked for",
        "receipted",
        "round told again",
        "several clients of a node in a sum",
        "two stewards with different wishes",
        "two stewards with wishes of different epochs",
        "wishes heard in another order",
        "wishes of both sides of a cut heard",
        "wishes on both sides of a cut",
        "wishes told again at a start",
        "writes in part lost in a crash",
        "writes kept in a crash that nobody was told of",
        "writes lost in a crash",
    ];
    let rare = if seeds() < MANY { &[][..] } else { RARE };
    tally.holds(&[wanted, rare].concat());
}

#[test]
fn an_anchor_that_lies_about_its_parts_is_named_and_changes_no_model() {
    let mut tally = Tally::default();
    for seed in 0..seeds() {
        tally.take(&format!("seed {seed} with a liar"), &run(&Plan::lying(seed)));
    }
    tally.holds(&[
        "a part of a sum that is a lie",
        "an end of a round that is a lie",
        "crash",
        "jobs of open means",
        "jobs of secure sums",
        "jobs of sums in groups",
        "misdeed",
    ]);
}

#[test]
fn what_a_seed_draws_are_jobs_that_pass_their_checks() {
    for seed in 0..2_000 {
        let plan = Plan::seeded(seed);
        assert_eq!(plan.job.check(), Ok(()), "seed {seed}");
        let mixing = Plan::mixing(seed);
        assert_eq!(mixing.job.check(), Ok(()), "seed {seed}");
        assert_eq!(mixing.epidemic.unwrap().check(&mixing.job), Ok(()), "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_rounds() {
    for seed in 0..4 {
        assert_eq!(run(&Plan::seeded(seed)), run(&Plan::seeded(seed)), "seed {seed}");
    }
    assert_ne!(run(&Plan::seeded(0)).hash, run(&Plan::seeded(1)).hash);
}

#[test]
fn whoever_comes_to_a_step_may_die_there() {
    let mut killed = 0;
    let moments = [Moment::ANCHORS, Moment::CLIENTS].concat();
    for moment in moments.iter().copied() {
        for (before, after) in [(true, 0), (false, 0), (true, 3), (false, 2), (false, 7)] {
            // There is more than enough of privacy, so that clients come to all of their steps.
            let mut plan = Plan::calm(7, Scheme::Five, Mode::Secure, 3).with_privacy(50);
            // One is back soon, the other one only when the others have long gone on.
            let back = Some([Micros::millis(50), Micros::secs(20)][after as usize % 2]);
            plan.kills.push(Kill { steps: Steps::Of(moment), after, before, back });
            let outcome = run(&plan);
            assert!(outcome.broken.is_empty(), "{moment:?} {before} {after}: {outcome:?}");
            killed += outcome.counters.seen.get("killed in a step").copied().unwrap_or(0);
        }
    }
    assert_eq!(killed, 5 * moments.len() as u64);
}

#[test]
fn every_scheme_comes_to_its_end_without_the_anchors_it_may_lose() {
    for scheme in [Scheme::Five, Scheme::Nine, Scheme::Sixteen] {
        for mode in [Mode::Secure, Mode::Plain(Rule::Mean)] {
            let mut plan = Plan::calm(3, scheme, mode, 3);
            let lost = scheme.anchors() - plan.job.gathering();
            plan.deaths = (0..lost).map(|node| (node, Micros::millis(1_500))).collect();
            let outcome = run(&plan);
            assert!(outcome.broken.is_empty(), "{scheme:?} {mode:?}: {outcome:?}");
            // One more is too many: nothing is closed any more, and nothing breaks but the end.
            plan.deaths.push((lost, Micros::millis(1_500)));
            let broken = run(&plan).broken;
            assert!(broken.iter().all(|one| one.promise == Promise::Ends), "{broken:?}");
            assert_eq!(broken.len(), 1);
        }
    }
}

#[test]
fn a_job_stops_asking_whoever_has_spent_what_it_allows() {
    for mode in [Mode::Secure, Mode::Plain(Rule::Mean)] {
        // Every client may contribute twice: there is no third round, and nothing else breaks.
        let outcome = run(&Plan::calm(5, Scheme::Five, mode, 3).with_privacy(2));
        let broken: Vec<Promise> = outcome.broken.iter().map(|one| one.promise).collect();
        assert_eq!(broken, [Promise::Ends], "{mode:?}: {outcome:?}");
        let seen = &outcome.counters.seen;
        assert_eq!(seen.get("privacy of a job used up").copied(), Some(8), "{mode:?} {seen:?}");
        let enough = run(&Plan::calm(5, Scheme::Five, mode, 2).with_privacy(2));
        assert!(enough.broken.is_empty(), "{mode:?}: {enough:?}");
    }
}

#[test]
fn personal_models_hold_under_faults_and_leave_the_rounds_as_they_are() {
    let mut tally = Tally::default();
    for seed in 0..seeds() {
        let plan = Plan::mixing(seed);
        let outcome = run(&plan);
        tally.take(&format!("seed {seed} of personal models"), &outcome);
        // Every message of a round at its moment, and every record: without them it is the same.
        let alone = run(&Plan { epidemic: None, ..plan });
        assert!(alone.steps.is_empty());
        if (alone.hash, alone.took) != (outcome.hash, outcome.took) {
            tally.failed.push(format!("seed {seed}: the rounds are others with personal models"));
        }
    }
    tally.holds(&[
        "a personal model lost in a crash",
        "learned alone",
        "mixed",
        "mixing begun",
        "mixing over",
        "personal misdeed",
        "personal model lost",
        "personal model refused",
    ]);
}

/// How far apart the first weights of these models are.
fn spread<'a>(steps: impl Iterator<Item = &'a Step> + Clone) -> i32 {
    let firsts = steps.map(|step| step.told.drift[0]);
    firsts.clone().max().unwrap() - firsts.min().unwrap()
}

#[test]
fn a_side_without_a_quorum_comes_together_and_then_follows_the_others() {
    const LEARNS: u64 = 5;
    const ALONE: std::ops::Range<usize> = 4..8;
    for seed in 0..8 {
        let mut plan = Plan::calm(seed, Scheme::Five, Mode::Plain(Rule::Mean), 4);
        plan.learns = LEARNS;
        // The others wait for their target as long as the patience, and never as long as this.
        let after = plan.job.pace.patience.times(3);
        plan.epidemic = Some(Epidemic { peers: 2, after, every: Micros::secs(1) });
        let (from, until) = (Micros(1), Micros::secs(60));
        plan.cuts.push(Cut { from, until, side: ALONE.collect(), one_way: false });
        let outcome = run(&plan);
        assert!(outcome.broken.is_empty(), "{outcome:?}");
        let of = |node| {
            let own = move |step: &&Step| step.node == node && step.at < until;
            outcome.steps.iter().filter(own)
        };
        let learned = ALONE.filter_map(|node| of(node).find(|step| step.told.seq == LEARNS));
        let last = ALONE.filter_map(|node| of(node).next_back());
        assert_eq!((learned.clone().count(), last.clone().count()), (4, 4), "seed {seed}");
        // What they learned apart is a part of what all of them have; each began from nothing.
        let (before, after) = (spread(learned), spread(last.clone()));
        assert!(before > 1 << 12 && after <= 4, "seed {seed}: {before} {after}");
        assert!(last.clone().all(|step| step.told.base.round == 0 && step.told.age > 40));
        assert!(outcome.steps.iter().all(|step| ALONE.contains(&step.node)), "the others go on");
    }
}
