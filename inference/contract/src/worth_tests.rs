use proptest::prelude::*;

use super::*;

/// Times of a machine on which a step takes so many microseconds and each row so many more.
fn machine(fixed: u64, row: u64) -> RowTimes {
    let mut times = RowTimes::default();
    for _ in 0..50 {
        for rows in 1..=GUESS_ROWS {
            times.measured(rows, Micros(fixed + row * rows as u64));
        }
    }
    times
}

/// What is offered behind so many equal tokens; nothing where it is none.
fn offers(equal: &[usize]) -> Vec<Vec<u64>> {
    let chances = Chances::default();
    let of = |equal: &usize| match equal {
        0 => Vec::new(),
        equal => chances.of(*equal, MOST_GUESSED).collect(),
    };
    equal.iter().map(of).collect()
}

#[test]
fn a_copy_is_guessed_far_and_a_coincidence_not_at_all() {
    let times = machine(5_000, 700);
    assert!(choose(&times, &offers(&[16]))[0] >= 7);
    assert_eq!(choose(&times, &offers(&[2])), [0]);
    assert_eq!(choose(&times, &[Vec::new()]), [0]);
    assert_eq!(choose(&times, &[]), [0; 0]);
}

#[test]
fn nothing_is_guessed_before_a_step_was_measured() {
    assert_eq!(choose(&RowTimes::default(), &offers(&[16])), [0]);
}

#[test]
fn where_rows_cost_as_much_as_steps_nothing_is_guessed() {
    let times = machine(10, 5_000);
    assert_eq!(choose(&times, &offers(&[16, 16, 16])), [0, 0, 0]);
    assert_eq!(choose(&times, &offers(&[16])), [0]);
}

#[test]
fn the_rows_of_a_full_batch_are_all_answers() {
    let times = machine(5_000, 100);
    assert_eq!(choose(&times, &offers(&[16; GUESS_ROWS])), [0; GUESS_ROWS]);
    assert_eq!(choose(&times, &offers(&[16; 40])), [0; 40]);
    let counts = choose(&times, &offers(&[16; 6]));
    assert_eq!(counts.iter().sum::<usize>(), GUESS_ROWS - 6, "{counts:?}");
}

#[test]
fn who_has_no_guess_waits_little_longer() {
    let times = machine(4_000, 500);
    let counts = choose(&times, &offers(&[16, 0, 0, 0]));
    assert!(counts[0] > 0 && counts[1..] == [0; 3], "{counts:?}");
    let (with, without) = (times.of(4 + counts[0]), times.of(4));
    assert!(with * PATIENCE.1 <= without * PATIENCE.0, "{with} ns, {without} ns without");
    // With equal chances for all, nobody has to be patient.
    assert!(choose(&times, &offers(&[16; 4])).iter().sum::<usize>() > counts[0]);
}

#[test]
fn guesses_that_prove_wrong_are_given_up_and_taken_up_again() {
    let (times, mut chances) = (machine(5_000, 700), Chances::default());
    let guessed = |chances: &Chances| choose(&times, &[chances.of(8, 7).collect()])[0];
    assert!(guessed(&chances) > 2);
    for _ in 0..20 {
        chances.judge(8, false);
        chances.judge(16, false);
    }
    assert_eq!(guessed(&chances), 0);
    for _ in 0..20 {
        chances.judge(8, true);
        chances.judge(16, true);
    }
    assert!(guessed(&chances) > 2);
}

#[test]
fn one_slow_moment_is_forgotten() {
    let mut times = machine(5_000, 700);
    for _ in 0..30 {
        times.measured(8, Micros(90_000));
    }
    assert!(choose(&times, &offers(&[16]))[0] != 7, "eight rows are believed to be slow");
    for _ in 0..3_000 {
        times.measured(1, Micros(5_700));
    }
    let (eight, assumed) = (times.of(8), scaled(times.of(1), 1, 8));
    assert!(eight < assumed * 5 / 4, "{eight} ns, {assumed} ns assumed");
}

#[test]
fn unmeasured_rows_are_assumed_from_their_neighbours() {
    let mut times = RowTimes::default();
    times.measured(4, Micros(9));
    assert_eq!(times.of(4), 9_000);
    assert_eq!(times.of(1), 6_000);
    assert_eq!(times.of(13), 18_000);
    times.measured(1_000, Micros(1));
    assert_eq!(times.of(4), 9_000, "more rows than are told apart say nothing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is measured and offered: bounds hold, nobody is given more than was offered, and
    /// what is taken is expected to win by the margin.
    #[test]
    fn what_is_chosen_fits_and_wins(
        measured in prop::collection::vec((1usize..80, 1u64..100_000), 0..60),
        offered in prop::collection::vec((0usize..20, 0usize..16, 0u32..30), 0..20),
    ) {
        let mut times = RowTimes::default();
        for (rows, took) in measured {
            times.measured(rows, Micros(took));
        }
        let offers: Vec<Vec<u64>> = offered
            .iter()
            .map(|&(equal, count, right)| {
                let mut chances = Chances::default();
                (0..30).for_each(|at| chances.judge(equal, at < right));
                chances.of(equal, count).collect()
            })
            .collect();
        let counts = choose(&times, &offers);
        prop_assert_eq!(counts.len(), offers.len());
        let extra: usize = counts.iter().sum();
        prop_assert!(extra == 0 || extra + offers.len() <= GUESS_ROWS);
        let mut tokens = ONE * offers.len() as u64;
        for (count, offer) in counts.iter().zip(&offers) {
            prop_assert!(*count <= offer.len());
            prop_assert!(offer.windows(2).all(|pair| pair[1] <= pair[0]));
            tokens += offer[..*count].iter().sum::<u64>();
        }
        if extra > 0 {
            let plain = times.of(offers.len());
            let with = times.of(offers.len() + extra).max(plain);
            let won = u128::from(tokens) * u128::from(plain) * u128::from(MARGIN.1);
            let even = u128::from(ONE) * offers.len() as u128;
            prop_assert!(won > even * u128::from(with) * u128::from(MARGIN.0));
        }
    }
}
