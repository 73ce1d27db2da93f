use selvedge_base::Micros;

use super::*;
use crate::plan::{ClientPlan, FaultKind, TenantPlan};
use crate::run;

fn at(kind: EventKind, second: u64, node: usize, request: u64) -> Event {
    Event {
        at: Mono(second * 1_000_000),
        kind,
        node: Some(node),
        peer: None,
        request: Some(request),
        span: None,
        budget: None,
        amount: None,
        text: "acme".to_owned(),
    }
}

fn plan() -> Plan {
    let clients = ClientPlan::steady("acme", 60, Micros::secs(5), Micros::secs(20));
    Plan::calm(7, 3)
        .with(FaultKind::Halves { left: vec![0] }, Micros::secs(6), Micros::secs(4))
        .tenant(TenantPlan::new("acme").tokens(1_000, crate::plan::PerPeriod::Hour))
        .client(clients)
}

#[test]
fn a_request_that_moved_has_two_legs_and_says_so() {
    let plan = plan();
    let mut timeline = Timeline::new(&plan);
    timeline.event(at(EventKind::RequestArrived, 1, 0, 9));
    timeline.event(Event { peer: Some(2), ..at(EventKind::RequestDispatched, 1, 0, 9) });
    timeline.event(Event { peer: Some(1), ..at(EventKind::RequestMoved, 2, 0, 9) });
    timeline.event(Event { amount: Some(40), ..at(EventKind::RequestFinished, 3, 0, 9) });
    timeline.event(at(EventKind::RequestArrived, 4, 1, 10));
    let data = timeline.data(&run(&plan, &mut ()).unwrap());
    let [moved, open] = [&data["requests"][0], &data["requests"][1]];
    assert_eq!(moved[5], End::Resumed as u64);
    assert_eq!(moved[6], 40);
    assert_eq!(moved[7], serde_json::json!([[2, 1_000_000, 2_000_000], [1, 2_000_000, 3_000_000]]));
    assert_eq!((&open[4], &open[5]), (&serde_json::json!(-1), &serde_json::json!(6)));
    assert_eq!(data["outcomes"], serde_json::json!([0, 1, 0, 0, 0, 0, 1]));
}

#[test]
fn transfers_are_paired_and_sides_of_a_partition_are_told() {
    let plan = plan();
    let mut timeline = Timeline::new(&plan);
    let gift = |kind, second, node, peer| Event {
        peer: Some(peer),
        budget: Some(0),
        amount: Some(250),
        request: None,
        ..at(kind, second, node, 0)
    };
    timeline.event(gift(EventKind::TransferMade, 2, 0, 1));
    timeline.event(Event { amount: Some(100), ..gift(EventKind::TransferTaken, 3, 1, 0) });
    timeline.event(Event { amount: Some(150), ..gift(EventKind::TransferTaken, 4, 1, 0) });
    let data = timeline.data(&run(&plan, &mut ()).unwrap());
    assert_eq!(data["transfers"], serde_json::json!([[0, 1, 2_000_000, 4_000_000, 0, 250]]));
    assert_eq!(data["faults"][0][4], serde_json::json!([[0, 0], [1, 1], [2, 1]]));
    assert_eq!(data["faults"][0][1], "halves: 0 | 1 2");
    assert_eq!(data["budgets"][0]["limit"], 1_000);
}

#[test]
fn the_file_stays_small_however_long_the_run() {
    let plan = plan();
    let mut timeline = Timeline::new(&plan);
    for id in 0..60_000 {
        let (second, node) = (id / 3_000, (id % 3) as usize);
        timeline.event(at(EventKind::RequestArrived, second, node, id));
        let end = if id % 500 == 0 { EventKind::RequestFailed } else { EventKind::RequestFinished };
        timeline.event(at(end, second + 1, node, id));
        for node in 0..3 {
            let at = Mono(id * 300);
            timeline.standing(Standing {
                at,
                node,
                budget: 0,
                window: 1,
                ceiling: 9,
                hw: id,
                spent: id,
            });
        }
    }
    let outcome = run(&plan, &mut ()).unwrap();
    let page = timeline.page(&outcome);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    let data = timeline.data(&outcome);
    let drawn = data["requests"].as_array().unwrap();
    assert!(drawn.len() <= MOST_REMARKABLE, "{}", drawn.len());
    assert_eq!(drawn.len() as u64 + data["undrawn"].as_u64().unwrap(), 60_000);
    assert_eq!(drawn.iter().filter(|one| one[5] == End::Failed as u64).count(), 120);
    assert_eq!(data["outcomes"][0], 60_000 - 120);
    // The last point of a curve is the last word.
    let flat = data["series"][0][2].as_array().unwrap();
    assert_eq!(flat[flat.len() - 1], 3 * 59_999);
}

#[test]
fn the_page_is_whole_and_asks_nobody_for_anything() {
    let plan = plan();
    let mut timeline = Timeline::new(&plan).titled("a <b> title", "why & how </script>");
    let outcome = run(&plan, &mut timeline).unwrap();
    let page = timeline.page(&outcome);
    assert!(!page.contains("{{"), "a placeholder was left");
    assert!(page.contains("<title>a &lt;b&gt; title</title>"));
    assert_eq!(page.matches("</script>").count(), 2, "a text closed the element");
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!outside.contains("http://") && !outside.contains("https://"));
    assert!(!outside.contains("src=") && !outside.contains("@import"));
    let mut again = Timeline::new(&plan).titled("a <b> title", "why & how </script>");
    run(&plan, &mut again).unwrap();
    assert_eq!(again.page(&outcome), page);
}
