#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use proptest::prelude::*;

/// The example of the specification.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn parse(parent: &str, states: &[&str]) -> Option<TraceContext> {
    TraceContext::parse(parent.as_bytes(), states.iter().map(|state| state.as_bytes()))
}

#[test]
fn the_specifications_example_is_read_and_written() {
    let state = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";
    let context = parse(PARENT, &[state]).expect("a context");
    assert_eq!(context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    assert_eq!(context.span, 0x00f0_67aa_0ba9_02b7);
    assert!(context.sampled());
    assert_eq!((context.parent_text().as_str(), context.state_text()), (PARENT, state));
    let child = context.child(7, false);
    assert_eq!(child.parent_text(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-00");
    assert_eq!(child.state_text(), state);
}

#[test]
fn parents_that_are_none() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let wrong = [
        String::new(),
        "00".to_owned(),
        PARENT[..54].to_owned(),
        format!("{PARENT}-"),
        format!("{PARENT}-what"),
        format!(" {PARENT}"),
        PARENT.to_uppercase(),
        PARENT.replacen("00", "ff", 1),
        PARENT.replacen("00", "0g", 1),
        PARENT.replace('-', "_"),
        format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        format!("00-{trace}-{}-01", "0".repeat(16)),
        format!("00-{trace}-00f067aa0ba902b7-0x"),
        format!("00-{trace}-00f067aa0ba902bG-01"),
        format!("01-{trace}-00f067aa0ba902b7-01.more"),
    ];
    for wrong in wrong {
        assert_eq!(parse(&wrong, &[]), None, "{wrong}");
    }
}

#[test]
fn later_versions_are_read_as_this_one() {
    let later = PARENT.replacen("00", "cc", 1);
    let known = parse(&later, &[]).expect("a context");
    assert_eq!(parse(&format!("{later}-and-more"), &[]), Some(known.clone()));
    assert_eq!(known.parent_text(), PARENT);
    // Flags nobody knows yet are not passed on.
    let flags = PARENT.replace("-01", "-ff");
    assert!(parse(&flags, &[]).expect("a context").parent_text().ends_with("-03"));
}

#[test]
fn states_are_joined_bounded_or_left_out() {
    let told = |states: &[&str]| parse(PARENT, states).expect("a context").state;
    assert_eq!(told(&["a=1", " b=2 ,, c=3\t"]), "a=1,b=2,c=3");
    assert_eq!(told(&["fw529a3039@dt=FfffffFFff;x:y"]), "fw529a3039@dt=FfffffFFff;x:y");
    for wrong in ["a", "=1", "a=", "A=1", "a=1=2", "a=\u{e9}", "a b=1", "a=1,b"] {
        assert_eq!(told(&[wrong]), "", "{wrong}");
    }
    let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    assert_eq!(told(&[&many(MAX_STATE_MEMBERS)]), many(MAX_STATE_MEMBERS));
    assert_eq!(told(&[&many(MAX_STATE_MEMBERS + 1)]), "");
    let long = format!("a={},b={},c=3", "x".repeat(250), "y".repeat(250));
    assert_eq!(told(&[&format!("{long},d={}", "z".repeat(100))]), long);
    assert_eq!(told(&[&format!("a={}", "x".repeat(257))]), "");
}

#[test]
fn a_share_of_traces_is_looked_at() {
    let caller = |sampled| Some(TraceContext::root(5, 6, sampled));
    let half = Sampler::ratio(500_000_000, true);
    assert!(half.samples(u128::from(u64::MAX / 2) - 9, None));
    assert!(!half.samples(u128::from(u64::MAX / 2) + 9, None));
    assert!(half.samples(u128::MAX, caller(true).as_ref()));
    assert!(!half.samples(0, caller(false).as_ref()));
    assert!(!Sampler::ratio(0, false).samples(0, caller(true).as_ref()));
    assert!(Sampler::ratio(1_000_000_000, false).samples(u128::MAX, caller(false).as_ref()));
}

proptest! {
    #[test]
    fn whatever_comes_is_none_or_what_is_written_again(
        parent in "[0-9a-f]{2}-[0-9a-f]{30,34}-[0-9a-f]{16}-[0-9a-g]{2}.{0,4}",
        states in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..4),
    ) {
        let states = states.iter().map(Vec::as_slice);
        if let Some(context) = TraceContext::parse(parent.as_bytes(), states) {
            prop_assert!(context.is_within_bounds());
            let (parent, state) = (context.parent_text(), context.state_text());
            let again = TraceContext::parse(parent.as_bytes(), [state.as_bytes()]);
            prop_assert_eq!(again, Some(context));
        }
    }
}
