#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use proptest::prelude::*;

const NEED: Need = Need { prompt_tokens: 200, output_tokens: 50 };

fn peer(name: u8) -> Candidate {
    Candidate {
        node: NodeId([name; 32]),
        is_me: false,
        state: PeerState::Alive,
        rtt: Some(Micros::millis(1)),
        model_state: Readiness::Ready,
        running: 0,
        queued: 0,
        pending_prompt_tokens: 0,
        prefill_rate: 1_000,
        step_us: 10_000,
        in_flight_from_here: 0,
        strain: None,
    }
}

fn me(name: u8) -> Candidate {
    Candidate { is_me: true, rtt: None, ..peer(name) }
}

fn dice() -> Dice {
    Dice::keyed(1, "choice")
}

fn verdict_of(choice: &Choice, name: u8) -> Verdict {
    let node = NodeId([name; 32]);
    choice.ranked.iter().find(|scored| scored.node == node).unwrap().verdict
}

#[test]
fn the_estimate_adds_trip_prefill_and_tokens() {
    let mut candidate = peer(1);
    candidate.pending_prompt_tokens = 300;
    // 1 ms + 500 tokens at 1,000/s + 50 tokens of 10 ms.
    assert_eq!(estimate(NEED, &candidate), Micros(1_000 + 500_000 + 500_000));
    candidate.model_state = Readiness::Cold;
    assert_eq!(estimate(NEED, &candidate), Micros(1_001_000).plus(LOAD_TIME));
}

#[test]
fn the_clearly_faster_node_is_taken() {
    let slow = Candidate { step_us: 100_000, ..me(1) };
    let choice = choose(NEED, &[slow, peer(2)], &mut dice());
    assert_eq!(choice.chosen, Some(NodeId([2; 32])));
    assert_eq!(verdict_of(&choice, 2), Verdict::Fastest);
    assert_eq!(verdict_of(&choice, 1), Verdict::Slower);
}

#[test]
fn this_node_is_taken_unless_a_peer_is_better_by_enough() {
    let almost = Candidate { step_us: 11_000, ..me(1) };
    let choice = choose(NEED, &[almost, peer(2)], &mut dice());
    assert_eq!(choice.chosen, Some(NodeId([1; 32])));
    assert_eq!(verdict_of(&choice, 1), Verdict::Local);
}

#[test]
fn unwell_peers_are_excluded_with_the_reason() {
    let unwell = |name, state| Candidate { state, ..peer(name) };
    let list = [
        unwell(1, PeerState::Suspect),
        unwell(2, PeerState::Frozen),
        unwell(3, PeerState::Dead),
        Candidate { model_state: Readiness::Failed, ..peer(4) },
    ];
    let choice = choose(NEED, &list, &mut dice());
    assert_eq!(choice.chosen, None);
    let verdicts = [1, 2, 3, 4].map(|name| verdict_of(&choice, name));
    let expected = [Verdict::Suspect, Verdict::Frozen, Verdict::Dead, Verdict::Failed];
    assert_eq!(verdicts, expected);
}

#[test]
fn a_ready_model_beats_one_that_must_load_however_fast() {
    let cold = Candidate { model_state: Readiness::Cold, step_us: 1, ..peer(1) };
    let loading = Candidate { model_state: Readiness::Loading, step_us: 1, ..peer(2) };
    let busy = Candidate { queued: 10, running: 1, ..peer(3) };
    let order: Vec<u8> = choose(NEED, &[cold.clone(), loading, busy], &mut dice())
        .ranked
        .iter()
        .map(|scored| scored.node.0[0])
        .collect();
    assert_eq!(order, [3, 2, 1]);
    let only_cold = choose(NEED, &[cold], &mut dice());
    assert_eq!(only_cold.chosen, Some(NodeId([1; 32])));
    assert_eq!(verdict_of(&only_cold, 1), Verdict::Cold);
}

#[test]
fn near_equal_peers_share_the_load() {
    let list: Vec<Candidate> = (1..=4).map(peer).collect();
    let mut dice = dice();
    let mut taken = [0u32; 5];
    for _ in 0..400 {
        taken[usize::from(choose(NEED, &list, &mut dice).chosen.unwrap().0[0])] += 1;
    }
    // Drawing two and taking the better leaves out only the worst of a tie: three share.
    assert!(taken.iter().filter(|count| **count > 50).count() >= 3, "{taken:?}");
}

#[test]
fn of_two_drawn_the_one_with_less_in_flight_is_taken() {
    let loaded = Candidate { in_flight_from_here: 3, ..peer(1) };
    for seed in 0..20 {
        let choice = choose(NEED, &[loaded.clone(), peer(2)], &mut Dice::keyed(seed, "choice"));
        assert_eq!(choice.chosen, Some(NodeId([2; 32])));
    }
}

#[test]
fn a_peer_with_unusually_many_in_flight_comes_later() {
    let mut list: Vec<Candidate> = (1..=8).map(peer).collect();
    list[0].in_flight_from_here = 40;
    list[0].step_us = 8_000;
    let choice = choose(NEED, &list, &mut dice());
    assert_eq!(verdict_of(&choice, 1), Verdict::Busy);
    assert_ne!(choice.chosen, Some(NodeId([1; 32])));

    (list[0].step_us, list[0].prefill_rate) = (1_000, 10_000);
    let choice = choose(NEED, &list, &mut dice());
    assert_eq!(choice.chosen, Some(NodeId([1; 32])), "a far faster one keeps its share");
}

#[test]
fn nobody_is_an_answer_too() {
    assert_eq!(choose(NEED, &[], &mut dice()), Choice::default());
}

#[test]
fn a_machine_that_runs_low_or_hot_comes_after_the_others_with_its_reason() {
    let low = Candidate { strain: Some(Strain::Battery { percent: 14 }), step_us: 1_000, ..me(1) };
    let hot = Candidate { strain: Some(Strain::Hot { decidegrees: 912 }), ..peer(2) };
    let slow = Candidate { step_us: 100_000, ..peer(3) };
    let choice = choose(NEED, &[low.clone(), hot.clone(), slow], &mut dice());
    assert_eq!(choice.chosen, Some(NodeId([3; 32])));
    assert_eq!(verdict_of(&choice, 1).to_string(), "on battery at 14 %: after others");
    assert_eq!(verdict_of(&choice, 2).to_string(), "at 91.2 °C: after others");
    let near = Strain::NearLimit { decidegrees: -5 };
    assert_eq!(near.to_string(), "-0.5 °C below its critical point");

    // Among those that are to be spared the better one is asked, and before one that must load.
    let cold = Candidate { model_state: Readiness::Cold, ..peer(4) };
    let choice = choose(NEED, &[cold, hot, low.clone()], &mut dice());
    assert_eq!(choice.chosen, Some(NodeId([1; 32])));
    let alone = choose(NEED, &[low], &mut dice());
    assert_eq!(alone.chosen, Some(NodeId([1; 32])));
    assert_eq!(verdict_of(&alone, 1).to_string(), "on battery at 14 %: after others");
}

fn any_strain() -> impl Strategy<Value = Strain> {
    prop_oneof![
        any::<u8>().prop_map(|percent| Strain::Battery { percent }),
        any::<i16>().prop_map(|decidegrees| Strain::Hot { decidegrees }),
        any::<i16>().prop_map(|decidegrees| Strain::NearLimit { decidegrees }),
    ]
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    let state = prop_oneof![
        Just(PeerState::Alive),
        Just(PeerState::Suspect),
        Just(PeerState::Frozen),
        Just(PeerState::Dead)
    ];
    let model = prop_oneof![
        Just(Readiness::Ready),
        Just(Readiness::Loading),
        Just(Readiness::Cold),
        Just(Readiness::Failed)
    ];
    let strain = prop_oneof![
        3 => Just(None),
        1 => any_strain().prop_map(Some),
    ];
    let numbers = (any::<[u32; 6]>(), any::<Option<u64>>());
    (any::<u8>(), any::<bool>(), state, model, numbers, strain).prop_map(
        |(name, is_me, state, model_state, (numbers, rtt), strain)| Candidate {
            node: NodeId([name; 32]),
            is_me,
            state,
            rtt: rtt.map(Micros),
            model_state,
            running: numbers[0],
            queued: numbers[1],
            pending_prompt_tokens: numbers[2],
            prefill_rate: numbers[3],
            step_us: numbers[4],
            in_flight_from_here: numbers[5],
            strain,
        },
    )
}

proptest! {
    #[test]
    fn every_candidate_has_its_verdict_and_the_chosen_one_is_usable(
        list in proptest::collection::vec(any_candidate(), 0..12),
        need in any::<(u32, u32)>(),
        seed in any::<u64>(),
    ) {
        let need = Need { prompt_tokens: need.0, output_tokens: need.1 };
        let choice = choose(need, &list, &mut Dice::keyed(seed, "choice"));
        prop_assert_eq!(choice.ranked.len(), list.len());
        let any_usable = choice.ranked.iter().any(|scored| scored.verdict.usable());
        prop_assert_eq!(choice.chosen.is_some(), any_usable);
        if let Some(chosen) = choice.chosen {
            prop_assert_eq!(choice.ranked[0].node, chosen);
            prop_assert!(choice.ranked[0].verdict.usable());
        }
        let unusable = choice.ranked.iter().skip_while(|scored| scored.verdict.usable());
        prop_assert!(unusable.into_iter().all(|scored| !scored.verdict.usable()));
    }

    #[test]
    fn strain_excludes_nobody_and_comes_after_whoever_is_ready(
        list in proptest::collection::vec(any_candidate(), 0..12),
        strain in any_strain(),
        seed in any::<u64>(),
    ) {
        let rested: Vec<Candidate> =
            list.iter().map(|one| Candidate { strain: None, ..one.clone() }).collect();
        let dice = || Dice::keyed(seed, "choice");
        let usable = |choice: &Choice| choice.ranked.iter().filter(|s| s.verdict.usable()).count();
        let (with, without) = (choose(NEED, &list, &mut dice()), choose(NEED, &rested, &mut dice()));
        prop_assert_eq!(usable(&with), usable(&without));
        prop_assert_eq!(with.chosen.is_some(), without.chosen.is_some());
        // Where all are strained somebody is asked all the same.
        let all: Vec<Candidate> =
            rested.iter().map(|one| Candidate { strain: Some(strain), ..one.clone() }).collect();
        prop_assert_eq!(choose(NEED, &all, &mut dice()).chosen.is_some(), with.chosen.is_some());
        // Whoever is taken is spared only if nobody ready is not.
        let is_ready = |one: &&Candidate| {
            let ready = one.model_state == Readiness::Ready && one.state == PeerState::Alive;
            ready && one.strain.is_none()
        };
        let spared = matches!(with.ranked.first(), Some(Scored { verdict: Verdict::Spared(_), .. }));
        prop_assert!(!spared || !list.iter().any(|one| is_ready(&one)));
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(
        seed in any::<u64>(),
        steps in proptest::collection::vec(1_000u32..200_000, 2..8),
    ) {
        let mut list: Vec<Candidate> = steps
            .iter()
            .enumerate()
            .map(|(at, step_us)| Candidate { step_us: *step_us, ..peer(at as u8) })
            .collect();
        let forward = choose(NEED, &list, &mut Dice::keyed(seed, "choice"));
        list.reverse();
        prop_assert_eq!(forward, choose(NEED, &list, &mut Dice::keyed(seed, "choice")));
    }
}

#[test]
fn one_that_must_load_is_the_last_choice_until_all_that_are_ready_are_overloaded() {
    let cold = Candidate { model_state: Readiness::Cold, ..me(1) };
    // Half a second of tokens for each that waits; the load takes ten.
    let queued = |queued| Candidate { running: 1, queued, ..peer(2) };
    let choice = choose(NEED, &[cold.clone(), queued(10)], &mut dice());
    assert_eq!(
        choice.chosen,
        Some(NodeId([2; 32])),
        "waiting there is over sooner than a load here"
    );
    assert_eq!(verdict_of(&choice, 1), Verdict::Cold);
    let choice = choose(NEED, &[cold.clone(), queued(60)], &mut dice());
    assert_eq!(choice.chosen, Some(NodeId([1; 32])));
    assert_eq!(verdict_of(&choice, 1), Verdict::Cold, "it says that it must load");
    assert_eq!(choice.ranked.len(), 2);
    // One that may be gone is no reason to wait, and none to hurry.
    let gone = Candidate { state: PeerState::Dead, ..queued(60) };
    let choice = choose(NEED, &[cold, gone], &mut dice());
    assert_eq!(choice.chosen, Some(NodeId([1; 32])));
}
