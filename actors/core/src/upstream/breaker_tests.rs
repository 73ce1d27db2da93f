use proptest::prelude::*;
use selvedge_base::{Micros, Mono};

use super::{Breaker, BreakerSettings, Pass, Turn};
use crate::upstream::Ending;

const FAILED: Ending = Ending::Failed { status: 500, retry_after: None };

fn at(seconds: u64) -> Mono {
    Mono(1_000_000_000).plus(Micros::secs(seconds))
}

fn tripped() -> Breaker {
    let mut breaker = Breaker::new(BreakerSettings::default());
    for n in 0..5 {
        let pass = breaker.take(at(0)).unwrap();
        let turn = breaker.ended(at(0), pass, FAILED);
        assert_eq!(turn.is_some(), n == 4);
    }
    breaker
}

#[test]
fn failures_open_it_and_probes_close_it() {
    let mut breaker = tripped();
    assert_eq!(breaker.take(at(4)), Err(at(5)));
    let probe = breaker.take(at(5)).unwrap();
    assert!(probe.is_probe());
    assert!(breaker.take(at(6)).is_err(), "one probe at a time");
    assert_eq!(breaker.ended(at(6), probe, Ending::Answered), None);
    let probe = breaker.take(at(6)).unwrap();
    assert_eq!(breaker.ended(at(7), probe, Ending::Answered), Some(Turn::Closed));
    assert!(!breaker.take(at(7)).unwrap().is_probe());
}

#[test]
fn a_failed_probe_doubles_the_wait() {
    let mut breaker = tripped();
    for (now, wait) in [(5, 10), (15, 20), (35, 40), (75, 80), (155, 120), (275, 120)] {
        let probe = breaker.take(at(now)).unwrap();
        let until = at(now + wait);
        assert_eq!(breaker.ended(at(now), probe, Ending::Silent), Some(Turn::Opened { until }));
    }
}

#[test]
fn callers_and_keys_cannot_open_it() {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let harmless = [
        Ending::Refused { status: 400 },
        Ending::Limited { retry_after: None },
        Ending::KeyRejected { status: 401 },
        Ending::Left,
        Ending::Expired,
        Ending::Unsent,
    ];
    for ending in harmless.iter().cycle().take(600) {
        let pass = breaker.take(at(1)).unwrap();
        assert_eq!(breaker.ended(at(1), pass, *ending), None);
    }
    assert!(breaker.is_closed());
}

#[test]
fn a_caller_that_leaves_a_probe_frees_it_and_proves_nothing() {
    let mut breaker = tripped();
    for _ in 0..9 {
        let probe = breaker.take(at(5)).unwrap();
        assert_eq!(breaker.ended(at(5), probe, Ending::Left), None);
    }
    assert!(!breaker.is_closed());
}

#[test]
fn a_lost_probe_lapses_and_its_late_ending_is_not_the_next_ones() {
    let mut breaker = tripped();
    let lost = breaker.take(at(5)).unwrap();
    assert_eq!(breaker.take(at(100)), Err(at(125)));
    let probe = breaker.take(at(125)).unwrap();
    assert_eq!(breaker.ended(at(126), lost, FAILED), None);
    assert!(breaker.take(at(126)).is_err(), "the second probe still runs");
    assert_eq!(breaker.ended(at(126), probe, Ending::Answered), None);
}

#[test]
fn attempts_that_began_before_it_opened_say_nothing_after() {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let passes: Vec<Pass> = (0..20).map(|_| breaker.take(at(0)).unwrap()).collect();
    let turns: Vec<_> = passes.iter().map(|p| breaker.ended(at(0), *p, FAILED)).collect();
    assert_eq!(turns.iter().flatten().count(), 1);
    assert_eq!(breaker.allows(at(4)), Err(at(5)), "the first wait, not a longer one");
}

#[test]
fn old_failures_are_forgotten() {
    let mut breaker = Breaker::new(BreakerSettings::default());
    for second in (0..400).step_by(10) {
        let pass = breaker.take(at(second)).unwrap();
        // Four in any thirty seconds: never five.
        assert_eq!(breaker.ended(at(second), pass, FAILED), None, "at {second}");
    }
}

fn endings() -> impl Strategy<Value = Ending> {
    prop_oneof![
        3 => Just(Ending::Answered),
        3 => Just(FAILED),
        1 => Just(Ending::Stalled),
        1 => Just(Ending::Left),
        1 => Just(Ending::Limited { retry_after: None }),
        1 => Just(Ending::Refused { status: 422 }),
    ]
}

proptest! {
    /// Against a model that keeps every ending: closed, it trips exactly when the failures within
    /// the window are enough and many; and never are two probes out within one lease.
    #[test]
    fn it_trips_when_the_model_says_so(
        steps in prop::collection::vec((0u64..4_000, endings()), 1..200)
    ) {
        let settings = BreakerSettings::default();
        let slice = settings.window.0 / 10;
        let mut breaker = Breaker::new(settings);
        let mut now = at(0);
        let mut seen: Vec<(u64, bool)> = Vec::new();
        for (millis, ending) in steps {
            now = now.plus(Micros::millis(millis));
            let was_closed = breaker.is_closed();
            let Ok(pass) = breaker.take(now) else { continue };
            prop_assert_eq!(pass.is_probe(), !was_closed);
            if pass.is_probe() {
                prop_assert!(breaker.take(now).is_err(), "a second probe beside the first");
            }
            let turn = breaker.ended(now, pass, ending);
            if !was_closed {
                seen.clear();
                continue;
            }
            let bad = ending.fault() == crate::upstream::Fault::Provider;
            if bad || ending.shows_life() {
                seen.push((now.0 / slice, bad));
            }
            let fresh: Vec<_> = seen.iter().filter(|(n, _)| now.0 / slice - n < 10).collect();
            let failures = fresh.iter().filter(|(_, bad)| *bad).count();
            let trips = bad && fresh.len() >= 5 && failures * 2 >= fresh.len();
            prop_assert_eq!(turn.is_some(), trips);
        }
    }
}
