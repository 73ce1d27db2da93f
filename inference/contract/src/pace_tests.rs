use proptest::prelude::*;

use super::*;

/// The most rows that the rule allows, tried one by one: at this price, in 1/1024 of a row.
fn most(price: u64, answers: usize) -> u32 {
    let all = 1_024 * (5 + answers as u64);
    // A step of all rows is to be at most 8/5 of one of the answers alone.
    let fits = |rows: u32| 5 * (all + u64::from(rows) * price) <= 8 * all;
    let best = (1..=64).rev().find(|rows| fits(*rows)).unwrap_or(1);
    if best > 1 && !(best as usize + answers).is_multiple_of(2) { best - 1 } else { best }
}

/// Computes prompts beside so many answers, on a machine of which a step takes so many nanoseconds
/// and each row so many more. The rows of the last of so many steps.
fn settled(pace: &mut Pace, (fixed, row): (u64, u64), answers: usize, steps: u32) -> u32 {
    let plain = fixed + row * answers as u64;
    for _ in 0..steps {
        let rows = pace.rows(answers);
        let took = plain + row * u64::from(rows);
        pace.stretched(answers, rows, plain, Micros(took / 1_000));
    }
    pace.rows(answers)
}

#[test]
fn before_anything_is_measured_the_bound_is_the_assumed_one() {
    let pace = Pace::default();
    let rows = [1, 2, 3, 4, 6, 8, 16].map(|answers| pace.rows(answers));
    assert_eq!(rows, [3, 4, 3, 4, 6, 6, 12]);
    assert_eq!((pace.rows(0), pace.rows(usize::MAX)), (2, 63), "any number has a bound");
}

#[test]
fn rows_that_are_dear_are_few_and_rows_that_are_free_are_many() {
    // A card, the default model on two cores, a processor without vectors.
    for (machine, answers, rows) in [
        ((9_000_000, 10_000), 1, 63),
        ((9_000_000, 10_000), 16, 64),
        ((4_200_000, 850_000), 6, 6),
        ((10_000, 5_000_000), 1, 1),
        ((10_000, 5_000_000), 8, 4),
    ] {
        let mut pace = Pace::default();
        let settled = settled(&mut pace, machine, answers, 200);
        assert_eq!(settled, rows, "{machine:?}, {answers} answers");
    }
}

#[test]
fn a_step_that_was_too_long_is_followed_by_few_more() {
    let mut pace = Pace::default();
    settled(&mut pace, (9_000_000, 100_000), 4, 100);
    let before = pace.rows(4);
    // Each row costs four times as much from now on.
    let (plain, row) = (9_400_000, 400_000);
    let steps = (0..100).take_while(|_| {
        let rows = u64::from(pace.rows(4));
        pace.stretched(4, rows as u32, plain, Micros((plain + row * rows) / 1_000));
        plain + row * rows > 2 * plain
    });
    assert!(steps.count() <= 8, "{} rows, {before} before", pace.rows(4));
}

#[test]
fn one_slow_moment_costs_prompts_little() {
    let mut pace = Pace::default();
    let machine = (4_200_000, 850_000);
    let before = settled(&mut pace, machine, 6, 100);
    pace.stretched(6, before, 9_300_000, Micros(900_000));
    assert!(pace.rows(6) * 3 >= before * 2, "{} of {before} rows", pace.rows(6));
    assert_eq!(settled(&mut pace, machine, 6, 40), before);
}

/// A virtual machine whose neighbours take of it what they like: each step takes three to seven
/// fifths of what it should. Prompts have nothing to do with that, and are not to pay for it.
#[test]
fn steps_that_differ_by_themselves_leave_prompts_their_rows() {
    let (mut pace, machine) = (Pace::default(), (4_200_000, 850_000));
    let even = u64::from(settled(&mut pace, machine, 6, 100));
    let plain = machine.0 + machine.1 * 6;
    let (mut dice, mut all) = (1_u64, 0);
    for _ in 0..4_000 {
        let rows = pace.rows(6);
        all += u64::from(rows);
        // Knuth's generator, of which the upper bits are good.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let percent = 60 + (dice >> 33) % 81;
        let took = (plain + machine.1 * u64::from(rows)) * percent / 100;
        pace.stretched(6, rows, plain, Micros(took / 1_000));
    }
    assert!(all * 3 >= even * 4_000 * 2, "{} of {even} rows", all / 4_000);
}

#[test]
fn what_says_nothing_changes_nothing() {
    let mut pace = Pace::default();
    for (answers, rows, plain) in [(0, 4, 1_000), (4, 0, 1_000), (4, 4, 0)] {
        pace.stretched(answers, rows, plain, Micros(u64::MAX));
    }
    assert_eq!(pace.rows(6), Pace::default().rows(6));
}

#[test]
fn one_step_in_sixteen_at_most_goes_without_prompts_and_only_to_measure() {
    let mut pace = Pace::default();
    let mut rests = |is_fresh: bool| {
        let step = |_| {
            let rests = pace.rests(is_fresh);
            if !rests {
                pace.stretched(1, 3, 5_000, Micros(8));
            }
            rests
        };
        (0..170).map(step).filter(|rests| *rests).count()
    };
    assert_eq!((rests(false), rests(true)), (10, 0));
    // Whoever never tells how long steps take is not waited for.
    let mut silent = Pace::default();
    assert!(!(0..100).any(|_| silent.rests(false)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is measured: the rows are those of the rule at the price that is believed, and at
    /// least one; more answers never leave fewer rows but for the odd one.
    #[test]
    fn rows_are_those_of_the_rule(
        measured in prop::collection::vec(
            (0usize..70, 0u32..70, 0u64..100_000_000, 0u64..10_000_000), 0..200,
        ),
    ) {
        let mut pace = Pace::default();
        for (answers, rows, plain, took) in measured {
            pace.stretched(answers, rows, plain, Micros(took));
            prop_assert!((PRICES.0..=PRICES.1).contains(&pace.price));
        }
        for answers in 1..=64 {
            let rows = pace.rows(answers);
            prop_assert_eq!(rows, most(pace.price, answers), "{} answers", answers);
            prop_assert!((LEAST_ROWS..=PROMPT_ROWS).contains(&rows));
            prop_assert!(pace.rows(answers + 1) + 1 >= rows);
        }
    }

    /// On any machine whose rows all cost the same the step becomes as long as allowed and no
    /// longer, wherever more than one row fits at all.
    #[test]
    fn on_an_even_machine_the_step_becomes_as_long_as_allowed(
        fixed in 1_000_000u64..20_000_000, row in 50_000u64..2_000_000, answers in 1usize..17,
    ) {
        let mut pace = Pace::default();
        let rows = u64::from(settled(&mut pace, (fixed, row), answers, 300));
        let plain = fixed + row * answers as u64;
        let best = (plain * 3 / 5 / row).min(64);
        // Three in a hundred are what whole microseconds and whole prices round away.
        prop_assert!(rows == 1 || row * rows * 500 <= plain * 3 * 103, "{} rows", rows);
        prop_assert!(rows + 2 + best / 32 >= best, "{} of {} rows", rows, best);
    }
}
