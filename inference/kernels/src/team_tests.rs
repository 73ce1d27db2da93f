use std::sync::atomic::AtomicUsize;

use super::*;

#[test]
fn every_piece_is_computed_once_by_whoever_is_free() {
    let rounds = if cfg!(miri) { 8 } else { 5_000 };
    for size in [1, 2, 4] {
        let mut team = Team::new(size).expect("threads");
        let mut states = vec![0usize; team.size()];
        let mut items = vec![0usize; 103];
        for round in 1..=rounds {
            team.split(&mut items, 10, &mut states, |index, piece, state| {
                assert_eq!(piece.len(), if index == 10 { 3 } else { 10 });
                for item in piece {
                    *item += index + 1;
                    *state += 1;
                }
            });
            assert!(items.iter().enumerate().all(|(at, item)| *item == (at / 10 + 1) * round));
        }
        assert_eq!(states.iter().sum::<usize>(), 103 * rounds);
    }
}

#[test]
fn a_panic_ends_the_phase_and_nothing_else() {
    let mut team = Team::new(3).expect("threads");
    let mut states = vec![(); 3];
    // The last one: no part is spared, this thread's neither.
    for at in [Some(0), Some(5), Some(9), None] {
        let mut items = vec![0; 10];
        let result = catch_unwind(AssertUnwindSafe(|| {
            team.split(&mut items, 1, &mut states, |index, _, ()| {
                assert!(at.is_some_and(|at| index != at), "asked");
            });
        }));
        assert!(result.is_err());
        let count = AtomicUsize::new(0);
        team.split(&mut items, 1, &mut states, |_, _, ()| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 10);
    }
}

#[test]
fn helpers_that_sleep_come_back() {
    let mut team = Team::new(2).expect("threads");
    let mut states = vec![(); 2];
    for _ in 0..if cfg!(miri) { 2 } else { 50 } {
        // Until the helper sleeps: it says so itself.
        while !team.shared.parked[0].0.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let met = AtomicUsize::new(0);
        // Both pieces end only when both threads are at one.
        team.split(&mut [0, 0], 1, &mut states, |_, _, ()| {
            met.fetch_add(1, Ordering::SeqCst);
            while met.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
        });
    }
}
