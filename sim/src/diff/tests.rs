use selvedge_base::Micros;

use super::*;
use crate::plan::FaultKind;

fn traced(plan: &Plan) -> Traced {
    Traced::new(plan, &run(plan, &mut ()).unwrap())
}

#[test]
fn a_run_does_not_differ_from_itself() {
    let plan = Plan::calm(4, 3);
    assert_eq!(difference(&plan, &plan), Ok(None));
    assert_eq!(parting(&traced(&plan), &traced(&plan)), None);
}

#[test]
fn a_fault_more_shows_where_it_first_matters() {
    let crash = FaultKind::Crash { node: 2, reset: true };
    let calm = Plan::calm(4, 3).quiet_from(Micros::secs(12));
    let broken = calm.clone().with(crash, Micros::secs(9), Micros::secs(3));
    let difference = difference(&calm, &broken).unwrap().unwrap();
    let right = difference.right.unwrap();
    // Until the fault all is the same: the traces part in the second in which it begins.
    assert!(right.contains(" 9.0") || right.contains(" 8.9"), "{right}");
    assert_ne!(difference.left.unwrap(), right);
    assert_eq!(difference.shared.len(), SHARED);
    assert!(difference.right_lines.len() <= LINES);
}

#[test]
fn another_seed_differs_from_the_start() {
    let difference = difference(&Plan::calm(1, 3), &Plan::calm(2, 3)).unwrap().unwrap();
    assert!(difference.index < CHECKPOINT_EVERY, "{difference:?}");
}

#[test]
fn checkpoints_of_another_process_narrow_it_down() {
    let plan = Plan::calm(4, 3);
    let here = traced(&plan);
    let mut there = here.clone();
    there.hash = TraceHash(1);
    there.checkpoints[1] = TraceHash(2);
    let range = parting(&here, &there).unwrap();
    assert_eq!(range.start, CHECKPOINT_EVERY);
    let shown = records(&plan, &range).unwrap();
    assert_eq!(shown.len() as u64, range.end - range.start);
}
