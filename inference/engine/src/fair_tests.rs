//! Places and turns of tenants at an engine.

use selvedge_base::Blame;

use super::*;

fn ask(
    engine: &LocalEngine,
    asker: &Asker<'_>,
    request: GenerateRequest,
) -> Result<mpsc::Receiver<Answer>, Refusal> {
    let (sender, receiver) = mpsc::channel();
    engine.submit_as(asker, request, Box::new(Outlet(sender))).map(|()| receiver)
}

#[test]
fn a_tenant_leaves_places_for_another() {
    let (engine, _file) = with_tiny(EngineConfig { max_batch: 1, max_queue: 4, ..config() });
    let (gate, first) = recovery::hold(&engine, lively(1, 3));
    let theirs = ask(&engine, &Asker::new("zeta"), lively(2, 3)).expect("a place");
    let own: Vec<_> = (3..5).map(|id| begin(&engine, lively(id, 3))).collect();
    let refusal = ask(&engine, &Asker::new("acme"), lively(5, 3)).expect_err("it has its part");
    assert_eq!((refusal.code, refusal.blame), (Code::Overloaded, Blame::Client));
    assert!(matches!(refusal.retry, Retry::After(_)), "{refusal:?}");
    let last = ask(&engine, &Asker::new("zeta"), lively(6, 3)).expect("a place");
    drop(gate);
    for events in own.iter().chain([&first, &theirs, &last]) {
        assert!(collect(events).finished.is_some());
    }
    assert!(answer(&engine, lively(5, 3)).finished.is_some(), "there is room again");
}

#[test]
fn a_peer_has_no_more_places_the_more_names_it_gives() {
    let (engine, _file) = with_tiny(EngineConfig { max_batch: 1, max_queue: 4, ..config() });
    let (gate, first) = recovery::hold(&engine, lively(1, 3));
    let mut taken = Vec::new();
    for (id, name) in (2..).zip(["a", "b", "c", "d", "e"]) {
        let asker = Asker { group: "peer", ..Asker::new(name) };
        taken.extend(ask(&engine, &asker, lively(id, 3)));
    }
    assert_eq!(taken.len(), 3, "those that run, and half of those that wait");
    let own = ask(&engine, &Asker::new("zeta"), lively(9, 3)).expect("a place is left");
    drop(gate);
    for events in taken.iter().chain([&first, &own]) {
        assert!(collect(events).finished.is_some());
    }
}

#[test]
fn what_is_not_begun_in_time_ends_unbegun() {
    let (engine, _file) = with_tiny(EngineConfig { max_batch: 1, ..config() });
    let (gate, first) = recovery::hold(&engine, lively(1, 3));
    let hurried = Asker { within: Some(Micros(1)), ..Asker::new("acme") };
    let late = ask(&engine, &hurried, lively(2, 3)).expect("a place");
    let patient = begin(&engine, lively(3, 3));
    drop(gate);
    let ended = collect(&late);
    assert!(ended.tokens.is_empty());
    let refusal = ended.failed.expect("its time was over");
    assert_eq!((refusal.code, refusal.retry), (Code::Timeout, Retry::Never));
    assert!(collect(&first).finished.is_some());
    assert!(collect(&patient).finished.is_some());
}
