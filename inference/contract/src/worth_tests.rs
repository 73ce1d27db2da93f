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

/// What is chosen where nobody else waits.
fn chosen(times: &RowTimes, offers: &[Vec<u64>]) -> Vec<usize> {
    choose(times, offers, true)
}

#[test]
fn a_copy_is_guessed_far_and_a_coincidence_not_at_all() {
    let times = machine(5_000, 700);
    assert!(chosen(&times, &offers(&[16]))[0] >= 7);
    assert_eq!(chosen(&times, &offers(&[2])), [0]);
    assert_eq!(chosen(&times, &[Vec::new()]), [0]);
    assert_eq!(chosen(&times, &[]), [0; 0]);
}

#[test]
fn nothing_is_guessed_before_a_step_was_measured() {
    assert_eq!(chosen(&RowTimes::default(), &offers(&[16])), [0]);
}

#[test]
fn where_rows_cost_as_much_as_steps_nothing_is_guessed() {
    let times = machine(10, 5_000);
    assert_eq!(chosen(&times, &offers(&[16, 16, 16])), [0, 0, 0]);
    assert_eq!(chosen(&times, &offers(&[16])), [0]);
}

#[test]
fn the_rows_of_a_full_batch_are_all_answers() {
    let times = machine(5_000, 100);
    assert_eq!(chosen(&times, &offers(&[16; GUESS_ROWS])), [0; GUESS_ROWS]);
    assert_eq!(chosen(&times, &offers(&[16; 40])), [0; 40]);
    let counts = chosen(&times, &offers(&[16; 6]));
    assert_eq!(counts.iter().sum::<usize>(), GUESS_ROWS - 6, "{counts:?}");
}

#[test]
fn who_has_no_guess_waits_little_longer() {
    let times = machine(4_000, 500);
    let counts = chosen(&times, &offers(&[16, 0, 0, 0]));
    assert!(counts[0] > 0 && counts[1..] == [0; 3], "{counts:?}");
    let (with, without) = (times.of(4 + counts[0]), times.of(4));
    assert!(with * PATIENCE.1 <= without * PATIENCE.0, "{with} ns, {without} ns without");
    // With equal chances for all, nobody has to be patient.
    assert!(chosen(&times, &offers(&[16; 4])).iter().sum::<usize>() > counts[0]);
}

#[test]
fn a_guess_that_is_worth_little_buys_no_patience() {
    for (fixed, row) in [(4_000, 500), (2_000, 500), (5_000, 100)] {
        let times = machine(fixed, row);
        for equal in [[16, 2], [8, 2]] {
            let offers = offers(&equal);
            let counts = chosen(&times, &offers);
            assert!(counts[0] > 0, "{equal:?}");
            let (with, without) = (times.of(2 + counts[0] + counts[1]), times.of(2));
            for (offer, count) in offers.iter().zip(counts) {
                let own = ONE + offer[..count].iter().sum::<u64>();
                let (waits, gains) = (with * PATIENCE.1 * ONE, without * PATIENCE.0 * own);
                assert!(waits <= gains, "{equal:?}: {with} ns for {own}, {without} ns for {ONE}");
            }
        }
    }
}

#[test]
fn answers_of_other_models_wait_little_longer() {
    let times = machine(4_000, 500);
    for offers in [offers(&[16]), offers(&[16; 4])] {
        let (alone, beside) = (chosen(&times, &offers), choose(&times, &offers, false));
        let rows = offers.len() + beside.iter().sum::<usize>();
        assert!(offers.len() < rows && rows < offers.len() + alone.iter().sum::<usize>());
        assert!(times.of(rows) * PATIENCE.1 <= times.of(offers.len()) * PATIENCE.0);
    }
}

#[test]
fn what_is_assumed_of_times_alone_wins_nothing() {
    for equal in [&[3][..], &[2], &[3, 3], &[3, 2]] {
        let mut times = RowTimes::default();
        times.measured(equal.len(), Micros(6_000));
        assert_eq!(chosen(&times, &offers(equal)), vec![0; equal.len()]);
    }
}

#[test]
fn guesses_that_prove_wrong_are_given_up_and_taken_up_again() {
    let (times, mut chances) = (machine(5_000, 700), Chances::default());
    let guessed = |chances: &Chances| chosen(&times, &[chances.of(8, 7).collect()])[0];
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

/// What is chosen and how long it takes, step after step, on a machine of which so many steps
/// without guesses were slow. How many guesses each step had.
fn after_slow(machine_us: (u64, u64), slow: Micros, offers: &[Vec<u64>]) -> Vec<usize> {
    let (fixed, row) = machine_us;
    let mut times = machine(fixed, row);
    for _ in 0..50 {
        times.measured(offers.len(), slow);
    }
    let step = |_| {
        let guesses: usize = chosen(&times, offers).iter().sum();
        let rows = offers.len() + guesses;
        times.measured(rows, Micros(fixed + row * rows as u64));
        guesses
    };
    (0..140).map(step).collect()
}

#[test]
fn a_slow_moment_without_guesses_does_not_make_them_look_free_for_long() {
    let cases = [
        ((2_000, 1_000), Micros(12_000), offers(&[8; 4])),
        ((2_000, 1_000), Micros(12_000), offers(&[4; 4])),
        ((10, 5_000), Micros(10_000), offers(&[16])),
        ((10, 5_000), Micros(90_000), offers(&[16])),
    ];
    for (machine, slow, offers) in cases {
        let guesses = after_slow(machine, slow, &offers);
        assert!(guesses[0] > 0, "{slow:?}: the slow moment is believed at first");
        assert_eq!(guesses[70..], [0; 70], "{slow:?}: {guesses:?}");
    }
}

#[test]
fn the_time_without_guesses_is_measured_again_and_again() {
    let guesses = after_slow((5_000, 500), Micros(5_500), &offers(&[16]));
    let without: Vec<_> = (0..guesses.len()).filter(|at| guesses[*at] == 0).collect();
    assert_eq!(without, [64, 129], "{guesses:?}");
}

#[test]
fn one_slow_moment_is_forgotten() {
    let mut times = machine(5_000, 700);
    for _ in 0..30 {
        times.measured(8, Micros(90_000));
    }
    assert!(chosen(&times, &offers(&[16]))[0] < 7, "eight rows are believed to be slow");
    let error = |times: &RowTimes| times.of(8) - scaled(times.of(1), 1, 8);
    let first = error(&times);
    let mut rest = |steps| {
        (0..steps).for_each(|_| times.measured(1, Micros(5_700)));
        error(&times) * 100 / first
    };
    let (third, eighth) = (rest(512), rest(512));
    assert!((30..36).contains(&third) && eighth <= 12, "{third} % and {eighth} % are left");
}

#[test]
fn a_step_of_nothing_says_nothing() {
    let mut times = machine(5_000, 700);
    times.measured(0, Micros(1));
    assert_eq!((times.of(1), times.ns[0]), (machine(5_000, 700).of(1), 0));
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
        let counts = chosen(&times, &offers);
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
