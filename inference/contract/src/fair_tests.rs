use selvedge_base::RequestId;

use super::*;
use crate::schedule::Arrival;

/// Requests that wait, by the names of their tenants.
fn queue(tenants: &[&str]) -> VecDeque<Sequence> {
    let sequence = |(id, tenant): (usize, &&str)| {
        let claim = Claim::of(tenant);
        let (id, tokens) = (RequestId(id as u128), vec![0; 10]);
        Sequence::new(Arrival { id, tokens, answer_tokens: 10, scope: None, claim }, 20)
    };
    tenants.iter().enumerate().map(sequence).collect()
}

#[test]
fn long_names_are_cut_between_characters() {
    let long = "é".repeat(200);
    assert_eq!(Tenant::new(&long), Tenant::new(&"é".repeat(128)));
    assert_ne!(Tenant::new(&long), Tenant::new(&"é".repeat(127)));
    assert_ne!(Tenant::new("acme"), Tenant::new("zeta"));
}

#[test]
fn an_asker_of_whom_nothing_is_known_is_as_most_are() {
    let claim = Asker::new("acme").claim(Mono(5));
    assert_eq!(claim, Claim::of("acme"));
    assert_eq!((claim.priority, claim.deadline), (Priority::Normal, None));
    let soon = Asker { within: Some(Micros(7)), ..Asker::new("acme") };
    assert_eq!(soon.claim(Mono(5)).deadline, Some(Mono(12)));
}

#[test]
fn a_tenant_leaves_places_for_others() {
    let places = Places { running: 16, waiting: 64 };
    for (all, own, wanted) in [
        // Alone it has all but those that are kept.
        (0, 0, Ok(())),
        (71, 71, Ok(())),
        (72, 72, Err(Crowded::Everybody)),
        // Beside others it has half of those to wait.
        (60, 47, Ok(())),
        (60, 48, Err(Crowded::Tenant(48))),
        // What is kept is for those who have few.
        (72, 0, Ok(())),
        (79, 7, Ok(())),
        (79, 8, Err(Crowded::Everybody)),
        (80, 0, Err(Crowded::Everybody)),
    ] {
        assert_eq!(places.admit(all, own), wanted, "{own} of {all}");
    }
}

#[test]
fn of_few_places_none_is_kept() {
    let places = Places { running: 1, waiting: 1 };
    assert_eq!(places.admit(1, 1), Ok(()));
    assert_eq!(places.admit(1, 0), Ok(()));
    assert_eq!(places.admit(2, 2), Err(Crowded::Everybody));
}

#[test]
fn what_was_not_taken_is_given_back() {
    let (mut shares, queue) = (Shares::new(8), queue(&["acme", "zeta"]));
    let (acme, zeta) = (Tenant::new("acme"), Tenant::new("zeta"));
    assert_eq!(shares.next(&queue), Some(0));
    shares.begin(&acme, 1_000, 0);
    assert_eq!(shares.next(&queue), Some(1));
    shares.begin(&zeta, 100, 0);
    assert_eq!(shares.next(&queue), Some(1));
    shares.end(&acme, 50, 950);
    assert_eq!(shares.next(&queue), Some(0));
}

#[test]
fn what_is_given_back_for_the_past_saves_nothing_up() {
    let mut shares = Shares::new(8);
    let (acme, zeta) = (Tenant::new("acme"), Tenant::new("zeta"));
    let (both, other) = (queue(&["acme", "zeta"]), queue(&["zeta"]));
    assert_eq!(shares.next(&both), Some(0));
    shares.begin(&acme, 1_000, 0);
    for tokens in [5_000, 10] {
        assert_eq!(shares.next(&other), Some(0));
        shares.begin(&zeta, tokens, 0);
    }
    // It was away while the other had 5,010, and begins where that one was begun last.
    assert_eq!(shares.next(&both), Some(0));
    shares.begin(&acme, 10, 0);
    shares.end(&acme, 0, 1_000);
    assert_eq!(shares.next(&both), Some(0), "at 5,000 once more");
    shares.begin(&acme, 100, 0);
    assert_eq!(shares.next(&both), Some(1), "and no lower");
}

#[test]
fn no_more_tenants_are_remembered_than_there_are_places() {
    let mut shares = Shares::new(8);
    for number in 0..100 {
        let name = format!("tenant {number}");
        assert_eq!(shares.next(&queue(&[&name])), Some(0));
        shares.begin(&Tenant::new(&name), 10, 0);
        assert!(shares.remembered() <= 8, "{}", shares.remembered());
    }
    assert_eq!(shares.remembered(), 8);
    shares.rest();
    assert_eq!(shares.remembered(), 0);
}

/// Requests name no limit and end long before the one there is: what they might have taken is no
/// reason to begin who comes behind it.
#[test]
fn who_comes_to_a_full_batch_has_as_much_as_whoever_filled_it() {
    const MOST: u32 = 8_000;
    let mut shares = Shares::new(96);
    // Of each request that runs whose it is, what it took and what it will.
    let mut running: Vec<(&str, u32, u32)> = Vec::new();
    let mut used = BTreeMap::from([("acme", 0), ("zeta", 0)]);
    for step in 0..6_000_u32 {
        let present = if step < 450 { &["acme"][..] } else { &["acme", "zeta"] };
        while running.len() < 16 {
            let at = shares.next(&queue(present)).expect("somebody waits");
            let name = present[at];
            let open = running.iter().filter(|one| one.0 == name);
            let open = open.map(|one| u64::from(MOST - one.1)).sum();
            shares.begin(&Tenant::new(name), MOST, open);
            running.push((name, 0, 200 + (step * 37 + running.len() as u32 * 29) % 200));
        }
        for (name, taken, _) in &mut running {
            *taken += 1;
            *used.get_mut(name).expect("known") += u32::from(step >= 450);
        }
        running.retain(|&(name, taken, all)| {
            (taken == all).then(|| shares.end(&Tenant::new(name), taken, MOST - taken)).is_none()
        });
    }
    let (acme, zeta) = (used["acme"], used["zeta"]);
    assert!(acme.abs_diff(zeta) < MOST && zeta > 30_000, "{acme} and {zeta}");
}

#[test]
fn new_names_without_end_hold_up_nobody_without_end() {
    let (mut shares, acme) = (Shares::new(8), Tenant::new("acme"));
    assert_eq!(shares.next(&queue(&["acme"])), Some(0));
    shares.begin(&acme, 10_000, 0);
    shares.end(&acme, 10_000, 0);
    for number in 0..802 {
        let name = format!("tenant {number}");
        if shares.next(&queue(&["acme", &name])) == Some(0) {
            assert!(number > 400, "it had much more than each of the others: {number}");
            return;
        }
        shares.begin(&Tenant::new(&name), 100, 0);
        shares.end(&Tenant::new(&name), 100, 0);
    }
    panic!("ten thousand tokens are a hundred for each of eight, a hundred times");
}
