use super::*;
use crate::invariant::Invariant;
use crate::run;

fn event(kind: EventKind, node: usize, text: &str) -> Event {
    Event {
        at: Mono(12_345_678),
        kind,
        node: Some(node),
        peer: None,
        request: None,
        span: None,
        budget: None,
        amount: None,
        text: text.to_owned(),
    }
}

#[test]
fn a_line_shows_every_node_and_marks_the_one_concerned() {
    let mut grid = Grid::new(&Plan::calm(1, 3));
    grid.stand(&Standing {
        at: Mono(0),
        node: 2,
        budget: 0,
        window: 1,
        ceiling: 900,
        hw: 100,
        spent: 88,
    });
    let line = grid.line(&event(EventKind::Crashed, 1, "crash")).unwrap();
    assert!(line.starts_with("  12.345678 CRASH  "), "{line}");
    assert!(line.contains(">x") && line.contains("·0  812"), "{line}");
    assert!(line.ends_with("1 crash"), "{line}");
    assert_eq!(grid.line(&event(EventKind::Stored, 1, "row")), None);
    assert!(grid.header().contains("node 2"));
}

#[test]
fn a_large_mesh_shows_only_who_is_concerned() {
    let mut grid = Grid::new(&Plan::calm(1, 200));
    let line = grid.line(&event(EventKind::Crashed, 117, "crash")).unwrap();
    assert!(line.contains("117:>x"), "{line}");
    assert!(line.len() < 80, "{line}");
}

#[test]
fn the_tail_ends_with_the_violation_and_tells_what_was_going_on() {
    let crash = FaultKind::Crash { node: 1, reset: false };
    let plan = Plan::calm(3, 3).with(crash, Micros::secs(6), Micros::secs(8));
    let mut tail = Tail::new(&plan, 5);
    run(&plan, &mut tail).unwrap();
    assert_eq!(tail.lines().len(), 7, "a header of two lines and five");
    tail.event(event(EventKind::Violated, 2, "M5 something"));
    tail.event(event(EventKind::Crashed, 0, "later"));
    let lines = tail.lines();
    assert!(lines.last().unwrap().contains("M5 something"), "{lines:?}");
    let violation = Violation {
        at: Mono(12_345_678),
        invariant: Invariant::MemberHealthyAlive,
        seen: "node 0 is dead to node 2".to_owned(),
    };
    let account = tail.account(&violation);
    assert!(account.contains("At 12.345678 s, at node 2: node 0 is dead to node 2."), "{account}");
    assert!(account.contains("crash: node 1 (since 6345 ms)"), "{account}");
}
