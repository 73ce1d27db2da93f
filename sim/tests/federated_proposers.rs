//! The proposer of a round dies around every single step of its turn, in otherwise calm jobs.
//!
//! The gate sweeps five anchors and a little of nine; `SELVEDGE_SIM_SWEEPS` sweeps all numbers of
//! anchors and all kinds of jobs, each in so many seeds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use selvedge_base::Micros;
use selvedge_federated::robust::Rule;
use selvedge_federated::round::{Guard, Mode};
use selvedge_federated::shamir::Scheme;
use selvedge_sim::federated::{Kill, Moment, Plan, Steps, run};

/// The first seed of a sweep: one in which the first proposer of a calm job meets no other.
const FIRST: u64 = 11;
/// Rounds of a job: one before the last turn that somebody dies in, and one after.
const ROUNDS: u64 = 3;

/// What whoever proposes does in a round, one after the other.
const PROPOSES: &[Moment] = &[
    Moment::StorePromised,
    Moment::SendPrepare,
    Moment::StoreAccepted,
    Moment::SendPropose,
    Moment::StoreOpened,
    Moment::SendClosed,
    Moment::SendOpened,
    Moment::StoreFolded,
];

/// When a node that is killed is back: soon, when the others have long gone on, and never.
const BACK: [Option<Micros>; 3] = [Some(Micros::millis(50)), Some(Micros::secs(20)), None];

const SCHEMES: [Scheme; 3] = [Scheme::Five, Scheme::Nine, Scheme::Sixteen];

/// How a job adds up, and whether proposers meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One secure sum.
    Sums,
    /// Secure sums of three groups, and the median of their means.
    Groups,
    /// The median of open updates.
    Medians,
    /// One secure sum; several propose at once, and the first of them may be overtaken.
    Crowded,
}

const KINDS: [Kind; 4] = [Kind::Sums, Kind::Groups, Kind::Medians, Kind::Crowded];

/// A turn to sweep.
#[derive(Clone, Copy, Debug)]
struct Turn {
    scheme: Scheme,
    kind: Kind,
    seed: u64,
    round: u64,
    /// When the dead are back: each way is tried.
    back: &'static [Back],
}

impl Turn {
    /// The job without faults; all but the crowded one give a proposer the time to come to its end
    /// before the next one begins.
    fn calm(&self) -> Plan {
        let mode = match self.kind {
            Kind::Medians => Mode::Plain(Rule::Median),
            Kind::Sums | Kind::Groups | Kind::Crowded => Mode::Secure,
        };
        let mut plan = Plan::calm(self.seed, self.scheme, mode, ROUNDS);
        if self.kind == Kind::Groups {
            plan = plan.with_groups(Guard { groups: 3, rule: Rule::Median });
        }
        let mut job = (*plan.job).clone();
        // A set as soon as one can be: whoever proposes later holds more, and would make another.
        job.target = job.floor();
        if self.kind != Kind::Crowded {
            job.pace.stagger = Micros::secs(3);
        }
        plan.job = Arc::new(job);
        assert_eq!(plan.job.check(), Ok(()), "{self:?}");
        plan
    }

    /// What has to be among the steps of the first proposer.
    const fn wanted(&self) -> &'static [Moment] {
        match self.kind {
            Kind::Crowded => PROPOSES.split_at(2).0,
            Kind::Sums | Kind::Groups | Kind::Medians => PROPOSES,
        }
    }

    /// The same job in which somebody dies around one of these steps.
    fn with(calm: &Plan, steps: Steps, (after, before): (u32, bool), back: Back) -> Plan {
        let mut plan = calm.clone();
        plan.kills.push(Kill { steps, after, before, back });
        plan
    }
}

type Back = Option<Micros>;

/// One run of a sweep.
struct Point {
    name: String,
    plan: Plan,
}

/// What a sweep came to.
#[derive(Default)]
struct Swept {
    turns: usize,
    steps: usize,
    runs: usize,
    killed: u64,
    failed: Vec<String>,
}

/// Who dies in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dies {
    /// Whoever proposes first, before and after each of its steps.
    First,
    /// That one before each of its steps, and whoever proposes next at its beginning or further on.
    Both,
}

/// The runs of these turns.
fn points(turns: &[Turn], dies: Dies, swept: &mut Swept) -> Vec<Point> {
    let mut points = Vec::new();
    for turn in turns {
        let calm = turn.calm();
        let steps = run(&calm).proposed.remove(&(turn.round, 0)).unwrap();
        let came: BTreeSet<Moment> = steps.iter().map(|step| step.moment).collect();
        let missing: Vec<_> = turn.wanted().iter().filter(|step| !came.contains(step)).collect();
        assert!(missing.is_empty(), "{turn:?}: {missing:?} of {steps:?}");
        (swept.turns, swept.steps) = (swept.turns + 1, swept.steps + steps.len());
        let of = |turn_of| Steps::OfProposer { round: turn.round, turn: turn_of };
        for (after, step) in (0..).zip(&steps) {
            match dies {
                Dies::First => {
                    // What is between this step and the one before is tried once.
                    let sides: &[bool] = if step.follows { &[false] } else { &[true, false] };
                    for (before, back) in
                        sides.iter().flat_map(|at| turn.back.iter().map(move |back| (*at, *back)))
                    {
                        let name =
                            format!("{turn:?}: step {after}, before {before}, back {back:?}");
                        let plan = Turn::with(&calm, of(0), (after, before), back);
                        points.push(Point { name, plan });
                    }
                }
                Dies::Both => {
                    let back = Some(Micros::secs(20));
                    let first = Turn::with(&calm, of(0), (after, true), back);
                    for then in BTreeSet::from([0, after / 2, after]) {
                        let name =
                            format!("{turn:?}: step {after}, and the next one's step {then}");
                        let plan = Turn::with(&first, of(1), (then, true), back);
                        points.push(Point { name, plan });
                    }
                }
            }
        }
    }
    points
}

/// Runs all points on all cores.
fn sweep(turns: &[Turn], dies: Dies) -> Swept {
    let mut swept = Swept::default();
    let points = points(turns, dies, &mut swept);
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut killed, mut failed) = (0, Vec::new());
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = run(&point.plan);
            let died = outcome.counters.seen.get("a proposer killed").copied().unwrap_or(0);
            killed += died;
            if let Some(broken) = outcome.broken.first() {
                failed.push(format!("{}: {:?}: {}", point.name, broken.promise, broken.story));
            } else if died == 0 {
                failed.push(format!("{}: nobody died", point.name));
            }
        }
        (killed, failed)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (killed, failed) = worker.join().unwrap();
            swept.killed += killed;
            swept.failed.extend(failed);
        }
    });
    swept.failed.sort();
    swept.runs = points.len();
    swept
}

impl Swept {
    /// Says what it came to; all held.
    fn holds(&self, scheme: Scheme, who: &str) {
        println!(
            "{} anchors, {who}: {} proposers killed around {} steps, {} turns, {} runs, {} failed",
            scheme.anchors(),
            self.killed,
            self.steps,
            self.turns,
            self.runs,
            self.failed.len()
        );
        let told: Vec<_> = self.failed.iter().take(20).collect();
        assert!(self.failed.is_empty(), "{told:#?}");
        assert!(self.killed >= self.runs as u64);
    }
}

/// Seeds of the whole sweep; none where only the gate's part is wanted.
fn sweeps() -> u64 {
    std::env::var("SELVEDGE_SIM_SWEEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Turns in jobs of all kinds, in so many seeds: in one the first round's, in the next the
/// second's.
/// In the first seed whoever dies is back in all ways, in each other one in another way.
fn turns(scheme: Scheme, seeds: u64) -> Vec<Turn> {
    let of = |at: u64| {
        let way = at as usize % BACK.len();
        let back = if at == 0 { &BACK[..] } else { &BACK[way..=way] };
        KINDS.map(|kind| Turn { scheme, kind, seed: FIRST + at, round: at % 2, back })
    };
    (0..seeds).flat_map(of).collect()
}

/// What the gate has the time for.
fn few() -> Vec<(Scheme, Vec<Turn>)> {
    let turn = |scheme, kind, round, back| Turn { scheme, kind, seed: FIRST, round, back };
    let of_five = [(Kind::Sums, 0), (Kind::Sums, 1), (Kind::Groups, 1), (Kind::Medians, 1)];
    let of_five = of_five.iter().chain(&[(Kind::Crowded, 0)]);
    let five = of_five.map(|(kind, round)| turn(Scheme::Five, *kind, *round, &BACK[..]));
    let nine = turn(Scheme::Nine, Kind::Groups, 1, &BACK[1..2]);
    vec![(Scheme::Five, five.collect()), (Scheme::Nine, vec![nine])]
}

#[test]
fn the_proposer_may_die_between_any_two_of_its_steps() {
    let swept = match sweeps() {
        0 => few(),
        seeds => SCHEMES.map(|scheme| (scheme, turns(scheme, seeds))).to_vec(),
    };
    for (scheme, turns) in swept {
        sweep(&turns, Dies::First).holds(scheme, "the first");
    }
}

#[test]
fn who_proposes_after_a_dead_proposer_may_die_as_well() {
    let schemes = if sweeps() == 0 { &SCHEMES[..1] } else { &SCHEMES };
    for scheme in schemes.iter().copied() {
        let turn = Turn { scheme, kind: Kind::Sums, seed: FIRST, round: 0, back: &[] };
        let swept = sweep(&[turn], Dies::Both);
        swept.holds(scheme, "the first and the next");
        // Once the first one has told the closed set nobody proposes any more.
        let both = swept.killed - swept.runs as u64;
        assert!(both >= swept.steps as u64, "{scheme:?}: {both} of {}", swept.steps);
    }
}

/// A sweep can fail: anchors that do not tell what they accepted do no harm in a calm job, and
/// close a second set once a proposer dies between having its own accepted and telling so.
#[cfg(feature = "plants")]
#[test]
fn a_sweep_finds_what_only_the_death_of_a_proposer_shows() {
    use selvedge_base::plant::{self, Plant};
    use selvedge_sim::federated::Promise;

    let turn = Turn { scheme: Scheme::Five, kind: Kind::Sums, seed: FIRST, round: 0, back: &BACK };
    let points = points(&[turn], Dies::First, &mut Swept::default());
    let breaks = |plan: &Plan| run(plan).broken.first().map(|broken| broken.promise);
    plant::plant(Some(Plant::AcceptedUntold));
    let calm = breaks(&turn.calm());
    let found = points.iter().find_map(|point| Some((&point.name, breaks(&point.plan)?)));
    plant::plant(None);
    println!("planted {}: {found:?}", Plant::AcceptedUntold.as_str());
    assert_eq!(calm, None);
    assert_eq!(found.map(|(_, promise)| promise), Some(Promise::OneClosedSet));
}
