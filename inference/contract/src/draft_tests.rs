use proptest::prelude::*;

use super::*;

/// The same by looking everywhere.
fn naive(tokens: &[u32], count: usize) -> Option<Guess> {
    let first = tokens.len().saturating_sub(WINDOW);
    let place = (LEAST_EQUAL..=MOST_EQUAL).rev().find_map(|length| {
        let end = tokens.get(tokens.len().checked_sub(length)?..)?;
        let places = (first.max(length)..tokens.len()).rev();
        places.into_iter().find(|&place| tokens[place - length..place] == *end)
    })?;
    let mut equal = 0;
    while equal < MOST_COUNTED
        && equal < place
        && tokens[place - 1 - equal] == tokens[tokens.len() - 1 - equal]
    {
        equal += 1;
    }
    let mut all = tokens.to_vec();
    for at in place..place + count {
        all.push(all[at]);
    }
    Some(Guess { tokens: all.split_off(tokens.len()), equal })
}

#[test]
fn the_longest_place_wins_and_of_equal_ones_the_last() {
    let mut lookup = Lookup::default();
    let tokens = [1, 2, 3, 9, 7, 2, 3, 8, 5, 2, 3, 6, 1, 2, 3];
    assert_eq!(lookup.guess(&tokens, 2), None, "nothing is remembered yet");
    lookup.follow(&tokens, usize::MAX);
    assert_eq!(lookup.guess(&tokens, 2), Some(Guess { tokens: vec![9, 7], equal: 3 }));
    let other = [&tokens[..], &[0, 2, 3]].concat();
    lookup.follow(&other, usize::MAX);
    assert_eq!(lookup.guess(&other, 2), Some(Guess { tokens: vec![0, 2], equal: 2 }));
}

#[test]
fn a_circle_goes_on_behind_its_end() {
    let mut lookup = Lookup::default();
    let tokens = [5, 1, 2, 1, 2];
    lookup.follow(&tokens, usize::MAX);
    let guess = lookup.guess(&tokens, 5).expect("it was said before");
    assert_eq!(guess, Guess { tokens: vec![1, 2, 1, 2, 1], equal: 2 });
}

#[test]
fn what_is_not_all_remembered_gives_no_guess() {
    let (mut lookup, tokens) = (Lookup::default(), [4; 100]);
    assert_eq!(lookup.follow(&tokens, 60), 60);
    assert_eq!(lookup.guess(&tokens, 1), None);
    assert_eq!(lookup.follow(&tokens, 60), 39);
    assert_eq!(lookup.follow(&tokens, 60), 0);
    assert_eq!(lookup.guess(&tokens, 1).map(|guess| guess.equal), Some(MOST_COUNTED));
}

#[test]
fn what_was_said_long_ago_is_forgotten() {
    let mut lookup = Lookup::default();
    let mut tokens: Vec<u32> = (0..WINDOW as u32 + 4).collect();
    tokens.extend([2, 3]);
    lookup.follow(&tokens, usize::MAX);
    assert_eq!(lookup.guess(&tokens, 1), None, "place 4 is out of sight");
    tokens.extend([9, 10, 11]);
    lookup.follow(&tokens, usize::MAX);
    assert_eq!(lookup.guess(&tokens, 1).map(|guess| guess.tokens), Some(vec![12]));
    let entries = lookup.places.iter().map(BTreeMap::len);
    assert!(entries.into_iter().all(|entries| entries <= WINDOW), "memory is bounded");
}

#[test]
fn of_a_long_text_what_is_out_of_sight_is_not_remembered_first() {
    let tokens: Vec<u32> = (0..3 * WINDOW as u32).collect();
    for known in [0, 100] {
        let mut lookup = Lookup::default();
        lookup.follow(&tokens[..known], usize::MAX);
        assert_eq!(lookup.follow(&tokens, usize::MAX), WINDOW);
        assert!(lookup.places.iter().all(|places| places.len() == WINDOW), "{known}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However a sequence grows, the index finds what looking everywhere finds.
    #[test]
    fn the_index_finds_what_a_search_finds(
        tokens in prop::collection::vec(0u32..4, 0..120),
        steps in prop::collection::vec(1usize..9, 40),
        count in 1usize..9,
    ) {
        let (mut lookup, mut end) = (Lookup::default(), 0);
        for step in steps {
            end = tokens.len().min(end + step);
            lookup.follow(&tokens[..end], usize::MAX);
            prop_assert_eq!(lookup.guess(&tokens[..end], count), naive(&tokens[..end], count));
        }
    }
}

/// The same beyond the window.
#[test]
fn the_index_finds_what_a_search_finds_in_a_long_text() {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 40) as u32 % 40
    };
    let tokens: Vec<u32> = (0..WINDOW + 2_000).map(|_| next()).collect();
    let mut lookup = Lookup::default();
    for end in (WINDOW - 100..tokens.len()).step_by(61) {
        lookup.follow(&tokens[..end], usize::MAX);
        assert_eq!(lookup.guess(&tokens[..end], 6), naive(&tokens[..end], 6), "{end} tokens");
    }
}
