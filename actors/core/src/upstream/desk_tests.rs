use proptest::prelude::*;
use selvedge_base::{Dice, Micros, Mono};

use super::{Ask, Denied, Desk, DeskSettings, Ended, Report, Ticket};
use crate::upstream::keys::KeyTurn;
use crate::upstream::{Decision, Ending, HedgeSettings, Limits};

const FAILED: Ending = Ending::Failed { status: 503, retry_after: None };

fn at(seconds: u64) -> Mono {
    Mono(0).plus(Micros::secs(seconds))
}

fn ask(model: &str) -> Ask<'_> {
    Ask { model, tokens: 10, tried: &[] }
}

fn fail(desk: &mut Desk, now: Mono, model: &str, ending: Ending, times: usize) -> Vec<Report> {
    let mut reports = Vec::new();
    for _ in 0..times {
        let Ok(ticket) = desk.admit(now, &ask(model)) else { break };
        desk.ended(now, ticket, ending, None, &mut reports);
    }
    reports
}

#[test]
fn a_failing_model_does_not_take_the_others_with_it() {
    let mut desk = Desk::new(DeskSettings::default());
    let reports = fail(&mut desk, at(0), "large", FAILED, 9);
    assert_eq!(reports, [Report::Opened { model: Some("large".to_owned()), until: at(5) }]);
    assert_eq!(desk.admit(at(1), &ask("large")), Err(Denied::Open(at(5))));
    assert!(desk.admit(at(1), &ask("small")).is_ok());
}

#[test]
fn a_provider_out_of_reach_is_so_for_all_models() {
    let mut desk = Desk::new(DeskSettings::default());
    let reports = fail(&mut desk, at(0), "large", Ending::Unreachable, 9);
    assert_eq!(reports, [Report::Opened { model: None, until: at(5) }]);
    assert_eq!(desk.allows(at(1), &ask("small")), Err(Denied::Open(at(5))));
    assert_eq!(desk.running(), 0);
}

#[test]
fn limits_of_the_provider_hold_over_all_keys() {
    let whole = Limits { concurrent: Some(2), requests_per_minute: Some(3), ..Limits::default() };
    let mut desk = Desk::new(DeskSettings { keys: 5, whole, ..DeskSettings::default() });
    let first = desk.admit(at(0), &ask("m")).unwrap();
    desk.admit(at(0), &ask("m")).unwrap();
    assert_eq!(desk.admit(at(0), &ask("m")), Err(Denied::Full));
    desk.ended(at(0), first, Ending::Answered, Some(10), &mut Vec::new());
    desk.admit(at(0), &ask("m")).unwrap();
    assert_eq!(desk.admit(at(0), &ask("m")), Err(Denied::Limited(at(65))));
}

#[test]
fn a_429_rests_the_key_and_leaves_the_provider_open() {
    let mut desk = Desk::new(DeskSettings { keys: 2, ..DeskSettings::default() });
    let limited = Ending::Limited { retry_after: Some(Micros::secs(30)) };
    let ticket = desk.admit(at(0), &ask("m")).unwrap();
    let mut reports = Vec::new();
    desk.ended(at(0), ticket, limited, None, &mut reports);
    assert_eq!(reports, [Report::Key { key: 0, turn: KeyTurn::Cooling { until: at(30) } }]);
    let ended = Ended {
        model: "m",
        ending: limited,
        attempts: 1,
        delivered: false,
        tried: &[0],
        deadline: at(60),
    };
    let mut dice = Dice::keyed(1, "desk");
    assert_eq!(desk.again(at(0), &ended, &mut dice), Decision::Again { after: Micros::ZERO });
    let ask = Ask { tried: &[0], ..ask("m") };
    assert_eq!(desk.admit(at(0), &ask).map(|ticket| ticket.key()), Ok(1));
    let both = Ask { tried: &[0, 1], ..ask };
    assert_eq!(desk.admit(at(0), &both), Err(Denied::NoKey));
}

#[test]
fn an_open_breaker_gets_no_retry_and_none_is_spent_on_it() {
    let mut desk = Desk::new(DeskSettings::default());
    fail(&mut desk, at(0), "m", FAILED, 5);
    let ended = Ended {
        model: "m",
        ending: FAILED,
        attempts: 1,
        delivered: false,
        tried: &[],
        deadline: at(60),
    };
    let mut dice = Dice::keyed(1, "desk");
    for _ in 0..9 {
        assert_eq!(desk.again(at(0), &ended, &mut dice), Decision::Elsewhere);
    }
    let elsewhere = Ended { model: "other", ..ended };
    let decision = desk.again(at(0), &elsewhere, &mut dice);
    assert!(matches!(decision, Decision::Again { .. }), "the share is still there");
}

#[test]
fn hedging_is_off_unless_configured_and_at_most_one_in_twenty() {
    let mut desk = Desk::new(DeskSettings::default());
    desk.requested();
    assert!(!desk.hedge(true));
    let hedge = Some(HedgeSettings { after: Micros::secs(1), permille: 900 });
    let mut desk = Desk::new(DeskSettings { hedge, ..DeskSettings::default() });
    let mut hedged = 0;
    for _ in 0..1_000 {
        desk.requested();
        assert!(!desk.hedge(false), "only what may be asked twice");
        hedged += u32::from(desk.hedge(true));
    }
    assert_eq!(hedged, 50);
}

#[test]
fn models_beyond_the_bound_share_one_breaker() {
    let mut desk = Desk::new(DeskSettings::default());
    for n in 0..2 * super::MAX_MODELS {
        fail(&mut desk, at(0), &format!("m{n}"), Ending::Answered, 1);
    }
    assert_eq!(desk.models.len(), super::MAX_MODELS + 1);
}

proptest! {
    /// Whatever happens in whatever order, what is taken is given back once, and an open breaker
    /// lets nothing through but one probe.
    #[test]
    fn every_attempt_is_accounted_for(
        steps in prop::collection::vec((0u64..3_000, 0u8..10, 0usize..3), 1..300)
    ) {
        let whole = Limits { concurrent: Some(6), ..Limits::default() };
        let per_key = Limits { requests_per_minute: Some(30), ..Limits::default() };
        let settings = DeskSettings { keys: 3, whole, per_key, ..DeskSettings::default() };
        let mut desk = Desk::new(settings);
        let mut running: Vec<Ticket> = Vec::new();
        let mut now = at(1);
        for (millis, what, model) in steps {
            now = now.plus(Micros::millis(millis));
            if what < 4 {
                let name = format!("model-{model}");
                let allowed = desk.allows(now, &ask(&name));
                let admitted = desk.admit(now, &ask(&name));
                prop_assert!(allowed.is_ok() || admitted.is_err());
                running.extend(admitted);
            } else if !running.is_empty() {
                let ticket = running.swap_remove(usize::from(what) % running.len());
                let ending = match what {
                    4 => Ending::Answered,
                    5 => FAILED,
                    6 => Ending::Unreachable,
                    7 => Ending::Limited { retry_after: None },
                    8 => Ending::Stalled,
                    _ => Ending::Left,
                };
                desk.ended(now, ticket, ending, None, &mut Vec::new());
            }
            prop_assert_eq!(desk.running() as usize, running.len());
            prop_assert!(running.len() <= 6);
            let keys: u32 = (0..3).map(|key| desk.keys.running(key)).sum();
            prop_assert_eq!(keys, desk.running());
        }
    }
}
