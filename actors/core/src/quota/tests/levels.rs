//! Several budgets at once, and what a budget does when it is used up.

use selvedge_proto::policy::{BudgetSpec, Hardness, OnExhausted, Scope, Unit};

use super::super::*;
use super::world::{START, World, spec};

fn named(name: &str, spec: BudgetSpec) -> BudgetSpec {
    BudgetSpec { name: name.to_owned(), ..spec }
}

fn tokens(tokens: u64) -> Charge {
    Charge { tokens, requests: 1, ..Charge::default() }
}

fn cloud(micro_dollars: u64) -> Charge {
    let model = "gpt-large".to_owned();
    Charge { tokens: 10, requests: 1, micro_dollars, class: CostClass::Cloud, model }
}

/// Available of every budget, by name.
fn left(world: &World, at: usize) -> BTreeMap<String, u64> {
    let status = world.nodes[at].quota.status(world.now);
    status.into_iter().map(|budget| (budget.name, budget.available)).collect()
}

fn verdicts(world: &mut World, at: usize, charge: Charge) -> Vec<Verdict> {
    let (id, mut effects) = (RequestId(1 << 90 | u128::from(world.now.mono.0)), Vec::new());
    let account = "acme/line3/chat".parse().expect("a path");
    let lease = Micros::secs(60);
    let mut seen = Vec::new();
    let quota = &mut world.nodes[at].quota;
    let asked = QuotaInput::Asked { id, account, key: None, worst: charge, lease };
    quota.step(world.now, asked, &mut effects);
    while let Some(effect) = effects.pop() {
        match effect {
            QuotaEffect::Persist { ticket, .. } => {
                quota.step(world.now, QuotaInput::Persisted { ticket }, &mut effects);
            }
            QuotaEffect::Answer { verdict, .. } => seen.push(verdict),
            QuotaEffect::Send { .. } | QuotaEffect::Report(_) => {}
        }
    }
    world.now.mono.0 += 1;
    seen
}

#[test]
fn all_levels_are_taken_or_none() {
    let specs = [
        ("acme", named("tenant", spec(Unit::Tokens, 1_000))),
        ("acme/line3", named("team", spec(Unit::Tokens, 100))),
        ("acme/line3/chat", named("app", spec(Unit::Requests, 2))),
    ];
    let mut world = World::new(1, &specs, QuotaOptions::default());
    world.ask_as(0, "acme/line3/chat", tokens(60));
    world.settle_down();
    let after_one = left(&world, 0);
    assert_eq!((after_one["tenant"], after_one["team"], after_one["app"]), (940, 40, 1));
    world.ask_as(0, "acme/line3/chat", tokens(60));
    world.settle_down();
    let refusal = world.refusals.pop().expect("the team has only 40 left");
    let blocked = refusal.budget.expect("a budget is to blame");
    assert_eq!((blocked.name.as_str(), blocked.account.as_str()), ("team", "acme/line3"));
    assert_eq!(left(&world, 0), after_one, "nothing was taken anywhere");
    world.ask_as(0, "acme", tokens(60));
    world.settle_down();
    assert_eq!(left(&world, 0)["tenant"], 880, "another team goes on");
    assert_eq!(left(&world, 0)["team"], 40);
}

#[test]
fn money_that_is_used_up_never_stops_local_models() {
    for (on_exhausted, downgraded, local) in [
        (OnExhausted::Downgrade("small".to_owned()), Some("small".to_owned()), false),
        (OnExhausted::LocalOnly, None, true),
    ] {
        let money = BudgetSpec { on_exhausted, ..spec(Unit::MicroDollars, 500) };
        let mut world = World::new(1, &[("acme", money)], QuotaOptions::default());
        let granted = verdicts(&mut world, 0, cloud(400));
        assert!(matches!(
            &granted[..],
            [Verdict::Granted { downgrade: None, local_only: false, .. }]
        ));
        let granted = verdicts(&mut world, 0, cloud(400));
        let [Verdict::Granted { downgrade, local_only, .. }] = &granted[..] else {
            panic!("{granted:?}")
        };
        assert_eq!((downgrade, *local_only), (&downgraded, local));
        let free = Charge { class: CostClass::Local, ..cloud(400) };
        assert!(matches!(&verdicts(&mut world, 0, free)[..], [Verdict::Granted { .. }]));
    }
}

#[test]
fn a_downgrade_that_another_budget_forbids_is_a_refusal() {
    let money =
        BudgetSpec { on_exhausted: OnExhausted::LocalOnly, ..spec(Unit::MicroDollars, 500) };
    let local = BudgetSpec { scope: Scope::Local, ..named("local", spec(Unit::Tokens, 5)) };
    let mut world = World::new(1, &[("acme", money), ("acme", local)], QuotaOptions::default());
    assert!(matches!(&verdicts(&mut world, 0, cloud(400))[..], [Verdict::Granted { .. }]));
    let refused = verdicts(&mut world, 0, cloud(400));
    assert!(matches!(&refused[..], [Verdict::Refused(_)]), "{refused:?}");
}

#[test]
fn an_elastic_budget_goes_one_block_over_and_no_further() {
    let elastic =
        BudgetSpec { hardness: Hardness::Elastic { block: 50 }, ..spec(Unit::Tokens, 100) };
    let mut world = World::new(2, &[("acme", elastic)], QuotaOptions::default());
    for _ in 0..40 {
        for at in 0..2 {
            world.ask(at, 10);
            world.settle_down();
            world.settle(at, 0, 1_000);
            world.pass(300);
        }
    }
    let served: u64 = world.nodes.iter().map(|node| node.served).sum();
    assert!((150..=200).contains(&served), "{served} of 100 with two blocks of 50");
}

#[test]
fn a_window_that_vests_in_parts_gives_them_in_time() {
    let parts = BudgetSpec { sub_windows: 4, ..spec(Unit::Tokens, 1_000) };
    let mut world = World::new(1, &[("acme", parts)], QuotaOptions::default());
    world.ask(0, 300);
    let refusal = world.refusals.pop().expect("a quarter is 250");
    assert_eq!(refusal.retry_after, Some(Micros::secs(900)), "until the next quarter");
    world.pass(900_000);
    world.ask(0, 300);
    world.settle_down();
    assert_eq!(world.nodes[0].served, 300);
    // Two quarters less 300.
    assert_eq!(left(&world, 0)["main"], 200);
}

#[test]
fn a_request_without_budgets_waits_for_nothing() {
    let mut world = World::new(1, &[("acme", spec(Unit::Tokens, 10))], QuotaOptions::default());
    world.settle_down();
    world.ask_as(0, "other", tokens(1_000_000));
    assert_eq!(world.nodes[0].served, 1_000_000);
    assert!(world.nodes[0].writing.is_none());
}

#[test]
fn a_clock_before_every_policy_is_named() {
    let mut world = World::tokens(1, 1_000);
    world.now.wall = selvedge_base::Wall(5);
    world.ask(0, 1);
    let refusal = world.refusals.pop().expect("no policy is in force in 1970");
    assert!(refusal.to_refusal().message.contains("clock"), "{}", refusal.to_refusal().message);
    world.now.wall = START;
    world.pass(1_001);
    world.ask(0, 1);
    world.settle_down();
    assert_eq!(world.nodes[0].served, 1);
}

#[test]
fn what_is_left_of_the_mesh_is_told() {
    let mut world = World::tokens(2, 1_000);
    world.ask(1, 200);
    world.settle_down();
    world.settle(1, 0, 1_000);
    world.ask(0, 100);
    world.quiet(10);
    let account = "acme".parse().expect("a path");
    let remaining = world.nodes[0].quota.remaining(&account, None, world.now);
    assert_eq!((remaining[0].limit, remaining.len()), (1_000, 1));
    // The mark of the peer runs at most a block ahead of what it spent.
    assert!((685..=700).contains(&remaining[0].remaining), "{remaining:?}");
    assert!(remaining[0].resets_in.is_some_and(|left| left <= Micros::secs(3_600)));
}
