#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use selvedge_base::Micros;

use super::*;

fn mesh(model: &str) -> (Target, String) {
    (Target::Mesh { model: model.to_owned() }, "first".to_owned())
}

fn paid(model: &str) -> (Target, String) {
    let (provider, model) = ("cloud".to_owned(), model.to_owned());
    (Target::Provider { provider, model }, "next".to_owned())
}

fn refusal(code: Code, blame: Blame, retry: Retry) -> Refusal {
    Refusal::new(Stage::Execute, blame, retry, code, code.as_str())
}

fn lost() -> Refusal {
    refusal(Code::PeerLost, Blame::Provider, Retry::Elsewhere)
}

#[test]
fn targets_are_asked_in_order_until_one_answers() {
    let mut journey = Journey::new([paid("a"), paid("b"), mesh("c")]);
    assert_eq!(journey.begin(), Step::Ask(0));
    assert_eq!(journey.failed(lost()), Step::Ask(1));
    let slow = refusal(Code::Overloaded, Blame::Provider, Retry::After(Micros::secs(9)));
    assert_eq!(journey.failed(slow), Step::Ask(2));
    assert_eq!(journey.target(), Some(&mesh("c").0));
    journey.came();
    let asked: Vec<bool> = journey.legs().iter().map(|leg| leg.asked).collect();
    assert_eq!(asked, [true, true, true]);
    assert!(journey.legs()[2].ended.is_none());
}

fn rising(legs: usize) -> Option<Rising> {
    Some(Rising { legs, min_millinats: -800 })
}

#[test]
fn a_doubted_answer_goes_to_the_next_larger_model_and_the_largest_is_not_doubted() {
    let mut journey = Journey::new([mesh("small"), mesh("middle"), paid("large"), mesh("tiny")]);
    assert_eq!(journey.doubt(1), None, "no route from small to large");
    journey = journey.rising(rising(3));
    assert_eq!(journey.begin(), Step::Ask(0));
    let judgement = Judgement::Escalate { mean_millinats: -900 };
    for next in [1, 2] {
        assert_eq!(journey.doubt(1), Some(Doubt::new(-800)));
        assert_eq!(journey.doubt(2), None, "each would have to be judged");
        journey.judged(judgement);
        assert_eq!(journey.doubted(), Step::Ask(next));
    }
    assert_eq!(journey.doubt(1), None, "nobody is larger");
    let told: Vec<_> = journey.legs().iter().map(|leg| (leg.judged, leg.ended.is_some())).collect();
    let doubted = (Some(judgement), true);
    assert_eq!(told, [doubted, doubted, (None, false), (None, false)]);
}

#[test]
fn a_doubtful_answer_is_better_than_none_and_than_a_smaller_models() {
    let mut journey =
        Journey::new([mesh("middle"), paid("large"), mesh("small")]).rising(rising(2));
    journey.begin();
    assert_eq!(journey.doubted(), Step::Ask(1));
    assert_eq!(journey.failed(lost()), Step::Ask(3));
    assert_eq!(journey.target(), Some(&mesh("middle").0), "and not the smaller one");
    assert_eq!(journey.doubt(1), None, "it is taken as it is");
    assert_eq!(journey.failed(lost()), Step::Fail(lost()), "once");
}

#[test]
fn nothing_is_doubted_when_the_larger_models_cannot_be_paid() {
    let mut journey = Journey::new([mesh("small"), paid("large")]).rising(rising(2));
    journey.begin();
    journey.doubted();
    assert_eq!(journey.local_only(), Step::Ask(2), "what the small one says is taken as it is");
    let mut journey = Journey::new([paid("a"), mesh("small"), paid("large")]).rising(rising(3));
    journey.begin();
    assert_eq!(journey.local_only(), Step::Ask(1));
    assert_eq!(journey.doubt(1), None);
}

#[test]
fn an_answer_that_began_is_not_begun_again() {
    let mut journey = Journey::new([paid("a"), mesh("b")]);
    journey.begin();
    journey.came();
    assert_eq!(journey.failed(lost()), Step::Fail(lost()));
}

#[test]
fn an_answer_that_broke_off_goes_on_at_the_next_who_can_or_once_more_at_the_same() {
    let mut journey = Journey::new([paid("a"), paid("b"), mesh("c")]);
    journey.begin();
    assert_eq!(journey.broke_off(lost(), &[true; 3], None), Step::Ask(1), "nothing was given yet");
    journey.came();
    assert_eq!(journey.broke_off(lost(), &[true, true, true], None), Step::Continue(2));
    assert_eq!(journey.broke_off(lost(), &[false, false, false], None), Step::Fail(lost()));
    let mut journey = Journey::new([paid("a"), mesh("b")]);
    journey.begin();
    journey.came();
    assert_eq!(journey.broke_off(lost(), &[true, false], None), Step::Continue(2));
    assert_eq!(journey.target(), Some(&paid("a").0));
    assert_eq!(journey.broke_off(lost(), &[true, false, true], None), Step::Fail(lost()), "once");
    assert!(journey.legs().iter().filter(|leg| leg.asked).all(|leg| leg.ended.is_some()));
}

#[test]
fn nobody_is_asked_for_more_than_the_caller_wanted() {
    let mut journey = Journey::new([paid("a"), paid("b")]);
    journey.begin();
    assert_eq!(journey.broke_off(lost(), &[true; 2], Some(0)), Step::Ask(1), "nothing was given");
    journey.came();
    assert_eq!(journey.broke_off(lost(), &[true; 2], Some(0)), Step::Whole);
    let mut journey = Journey::new([paid("a"), paid("b")]);
    journey.begin();
    journey.came();
    assert_eq!(journey.broke_off(lost(), &[true; 2], Some(0)), Step::Whole);
    assert!(!journey.legs()[1].asked, "{:?}", journey.legs());
}

#[test]
fn nobody_goes_on_for_whom_the_request_is_over() {
    for refusal in [
        refusal(Code::Timeout, Blame::Client, Retry::After(Micros::secs(1))),
        refusal(Code::QuotaExhausted, Blame::Client, Retry::Never),
        refusal(Code::Unauthorized, Blame::Client, Retry::Never),
    ] {
        let mut journey = Journey::new([paid("a"), mesh("b")]);
        journey.begin();
        journey.came();
        assert_eq!(journey.broke_off(refusal.clone(), &[true; 2], None), Step::Fail(refusal));
    }
    let mut journey = Journey::new([paid("a"), paid("b"), mesh("c")]);
    journey.begin();
    assert_eq!(journey.local_only(), Step::Ask(2));
    journey.came();
    let step = journey.broke_off(lost(), &[true, true, false], None);
    assert_eq!(step, Step::Fail(lost()), "no money for those who can");
}

proptest! {
    /// Whatever breaks off, an answer is gone on with a bounded number of times, by those who can
    /// and may.
    #[test]
    fn going_on_ends(
        able in prop::collection::vec(any::<bool>(), 1..8),
        paid_ones in prop::collection::vec(any::<bool>(), 8),
        local in any::<bool>(),
    ) {
        let target = |at: usize| match paid_ones[at] {
            true => paid(&at.to_string()),
            false => mesh(&at.to_string()),
        };
        let mut journey = Journey::new((0..able.len()).map(target));
        let mut step = journey.begin();
        if local && journey.target().is_some_and(Target::is_paid) {
            step = journey.local_only();
        }
        journey.came();
        let mut continued = 0;
        while matches!(step, Step::Ask(_) | Step::Continue(_)) {
            let able: Vec<bool> = journey.legs().iter().map(|leg| {
                let name = match &leg.target {
                    Target::Mesh { model } | Target::Provider { model, .. } => model,
                };
                able[name.parse::<usize>().unwrap()]
            }).collect();
            step = journey.broke_off(lost(), &able, None);
            if let Step::Continue(at) = step {
                continued += 1;
                prop_assert!(able.get(at).copied().unwrap_or(true));
                prop_assert_eq!(at, journey.at());
                prop_assert!(journey.legs()[at].asked);
            }
        }
        prop_assert!(continued <= MAX_CONTINUED);
    }
}

#[test]
fn what_is_wrong_with_the_request_is_said_at_once() {
    let mut journey = Journey::new([paid("a"), mesh("b")]);
    journey.begin();
    let wrong = Refusal::client(Stage::Validate, Code::InvalidRequest, "no");
    assert_eq!(journey.failed(wrong.clone()), Step::Fail(wrong));
}

#[test]
fn what_one_target_lacks_another_may_have() {
    for code in [
        Code::ModelNotFound,
        Code::Unsupported,
        Code::ContextLengthExceeded,
        Code::ModelUnavailable,
        Code::QuotaExhausted,
    ] {
        let mut journey = Journey::new([paid("a"), mesh("b")]);
        journey.begin();
        let lacks = Refusal::client(Stage::Route, code, "not here");
        assert_eq!(journey.failed(lacks), Step::Ask(1), "{code:?}");
    }
}

#[test]
fn a_deadline_that_passed_is_over_everywhere() {
    let mut journey = Journey::new([paid("a"), mesh("b")]);
    journey.begin();
    let late = refusal(Code::Timeout, Blame::Us, Retry::After(Micros::secs(1)));
    assert_eq!(journey.failed(late.clone()), Step::Fail(late));
}

#[test]
fn a_provider_that_is_too_slow_is_not_the_end() {
    let mut journey = Journey::new([paid("a"), mesh("b")]);
    journey.begin();
    let silent = refusal(Code::Timeout, Blame::Provider, Retry::Elsewhere);
    assert_eq!(journey.failed(silent), Step::Ask(1));
}

#[test]
fn without_money_the_models_of_the_mesh_still_answer() {
    let mut journey = Journey::new([paid("a"), paid("b"), mesh("c")]);
    journey.begin();
    assert_eq!(journey.local_only(), Step::Ask(2));
    assert!(!journey.legs()[0].asked && journey.legs()[1].ended.is_some());
    let mut poor = Journey::new([paid("a")]);
    poor.begin();
    let Step::Fail(refusal) = poor.local_only() else { panic!("{poor:?}") };
    assert!(refusal.message.contains("money"), "{refusal:?}");
}

#[test]
fn a_used_up_budget_is_what_the_caller_hears_of() {
    let mut journey = Journey::new([paid("a"), mesh("b")]);
    journey.begin();
    let poor = refusal(Code::QuotaExhausted, Blame::Client, Retry::After(Micros::secs(60)));
    assert_eq!(journey.failed(poor.clone()), Step::Ask(1));
    assert_eq!(journey.failed(lost()), Step::Fail(poor));
}

proptest! {
    #[test]
    fn every_way_ends_and_never_begins_twice(
        kinds in proptest::collection::vec(any::<bool>(), 0..20),
        ends in proptest::collection::vec((0usize..5, any::<bool>()), 1..40),
    ) {
        let targets = kinds.iter().map(|paid| if *paid { self::paid("p") } else { mesh("m") });
        let mut journey = Journey::new(targets);
        let mut asked = Vec::new();
        let mut step = journey.begin();
        for (kind, delivered) in ends {
            let Step::Ask(leg) = step else { break };
            prop_assert!(asked.last().is_none_or(|before| *before < leg));
            asked.push(leg);
            if delivered {
                journey.came();
            }
            step = match kind {
                0 => journey.failed(lost()),
                // Asked only of budgets that a paid target is reserved against.
                1 if journey.target().is_some_and(Target::is_paid) => journey.local_only(),
                2 => journey.failed(Refusal::client(Stage::Route, Code::ModelNotFound, "no")),
                3 => journey.failed(refusal(Code::QuotaExhausted, Blame::Client, Retry::Never)),
                _ => journey.failed(Refusal::client(Stage::Validate, Code::TooLarge, "no")),
            };
            prop_assert!(!(delivered && kind != 1 && matches!(step, Step::Ask(_))));
        }
        prop_assert!(asked.len() <= MAX_LEGS);
    }
}
