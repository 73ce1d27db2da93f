use super::*;
use crate::plan::Fault;

#[test]
fn a_plan_that_holds_is_not_shrunk() {
    assert_eq!(shrink(&Plan::calm(1, 3), None, &mut |_| true), None);
}

#[test]
fn lists_lose_what_the_failure_does_not_need() {
    // The search without the simulator: a predicate over which items are left.
    let needed = [3, 11];
    let mut items: Vec<usize> = (0..16).collect();
    let mut piece = 8;
    while piece > 0 {
        let mut from = 0;
        while from < items.len() {
            let mut fewer = items.clone();
            retain(&mut fewer, &|index| !(from..from + piece).contains(&index));
            match needed.iter().all(|one| fewer.contains(one)) {
                true => items = fewer,
                false => from += piece,
            }
        }
        piece /= 2;
    }
    assert_eq!(items, needed);
}

#[test]
fn a_page_says_what_it_shows_and_leaves_out_what_is_usual() {
    let plan = Plan::calm(3, 4).with(
        FaultKind::Halves { left: vec![0, 3] },
        Micros::secs(6),
        Micros::secs(1),
    );
    let violation = Violation {
        at: Mono(6_500_000),
        invariant: Invariant::MemberHealthyAlive,
        seen: "many\nwords ".repeat(60),
    };
    let shrunk = Shrunk { plan, violation, runs: 9, faults_before: 4, is_minimal: true };
    let page = shrunk.page("seed 3", "selvedge sim replay small.toml");
    assert!(page.starts_with("# M5 a healthy, reachable peer is not dead\n"), "{page}");
    assert!(page.contains("replay: selvedge sim replay small.toml"), "{page}");
    assert!(page.lines().all(|line| line.len() <= WIDTH), "{page}");
    assert!(!page.contains("[network]") && page.contains("[[faults]]"), "{page}");
    assert_eq!(Plan::from_toml(&page).unwrap(), shrunk.plan);
}

#[test]
fn nodes_that_go_are_forgotten_everywhere() {
    let halves = FaultKind::Halves { left: vec![0, 3] };
    let mut plan = Plan::calm(1, 4).with(halves, Micros::secs(6), Micros::secs(1));
    plan.options.old_version = vec![1, 3];
    with_nodes(&mut plan, 3);
    assert_eq!(plan.check(), Ok(()));
    assert_eq!(plan.faults[0].kind, FaultKind::Halves { left: vec![0] });
    assert_eq!(plan.options.old_version, [1]);
}

#[test]
fn the_end_moves_with_the_last_fault() {
    let mut plan =
        Plan::calm(1, 3).with(FaultKind::Pause { node: 1 }, Micros::secs(30), Micros::secs(5));
    let calm = plan.span.0 - plan.quiet_at.0;
    plan.faults[0] =
        Fault { at: Micros::secs(6), until: Micros::secs(7), kind: FaultKind::Pause { node: 1 } };
    quieter(&mut plan);
    assert_eq!(plan.quiet_at, Micros::secs(7));
    assert_eq!(plan.span.0 - plan.quiet_at.0, calm);
}
