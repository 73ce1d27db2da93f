//! Epochs: what may be signed, in which order they count, and what forks do.

use std::collections::BTreeSet;

use super::*;

/// A site whose first epoch gives `acme` 100 tokens an hour, and the books of all nodes.
fn started(nodes: u8, budgets: &[(&str, BudgetTerms)]) -> (Site, Vec<PolicyBook>) {
    let site = site(nodes);
    let mut books: Vec<_> = (0..usize::from(nodes)).map(|at| site.book(at)).collect();
    let draft = site.draft(START, budgets);
    books[0].sign_epoch(&site.root, &site.roster(0), draft, START).unwrap();
    let (first, rest) = books.split_first_mut().unwrap();
    for (at, book) in rest.iter_mut().enumerate() {
        let changed = tell_all(first, book, &site.roster(at + 1), START);
        assert_eq!(changed.epochs, [(path("acme"), 1)]);
    }
    (site, books)
}

fn tokens(limit: u64) -> BudgetTerms {
    terms("tokens", Unit::Tokens, limit)
}

fn reclaimable(limit: u64) -> BudgetTerms {
    BudgetTerms { reclaimable: true, ..terms("kept", Unit::Tokens, limit) }
}

/// What every node is granted of a budget at `wall`, by its own book.
fn granted(site: &Site, books: &[PolicyBook], name: &str, wall: Wall) -> Vec<u64> {
    let grant = |(at, book): (usize, &PolicyBook)| {
        let key = book.current(&only(book, name), wall)?;
        Some(book.grant(&key, &site.holder(at), wall))
    };
    books.iter().enumerate().map(|one| grant(one).unwrap_or(0)).collect()
}

fn adopt(site: &Site, books: &mut [PolicyBook], at: usize, wall: Wall) {
    assert_eq!(books[at].adopt(&site.nodes[at], wall, wall), 1);
    assert!(books[at].tell_adopted(&site.nodes[at], wall, wall));
    assert!(!books[at].adoption_due(wall));
}

fn tell(site: &Site, books: &mut [PolicyBook], from: usize, to: usize, wall: Wall) {
    let sender = books[from].clone();
    tell_all(&sender, &mut books[to], &site.roster(to), wall);
}

fn change(site: &Site, books: &mut [PolicyBook], wall: Wall, limit: u64) -> Signed<Epoch> {
    let mut draft = EpochDraft::after(&books[0].epoch("acme").unwrap().body, wall);
    draft.set(level("acme"), tokens(limit));
    books[0].sign_epoch(&site.root, &site.roster(0), draft, wall).unwrap()
}

#[test]
fn a_budget_counts_from_the_moment_it_is_signed() {
    let (site, books) = started(3, &[("acme", tokens(100))]);
    let shares = granted(&site, &books, "tokens", START);
    assert_eq!(shares.iter().sum::<u64>(), 100);
    assert!(shares.iter().all(|share| (33..=34).contains(share)));
}

#[test]
fn a_raise_counts_once_all_agree_and_nobody_stops_meanwhile() {
    let (site, mut books) = started(3, &[("acme", tokens(90))]);
    change(&site, &mut books, START.plus(MINUTE), 300);
    tell(&site, &mut books, 0, 1, START.plus(MINUTE));
    for at in [0, 1] {
        adopt(&site, &mut books, at, START.plus(MINUTE));
    }
    tell(&site, &mut books, 1, 0, START.plus(MINUTE));
    // The third node is out of reach: all go on with the smaller share, hour after hour.
    for hour in 0..20 {
        let wall = START.plus(HOUR.times(hour));
        assert_eq!(granted(&site, &books, "tokens", wall), [30, 30, 30]);
    }
    let status = books[0].epoch_status("acme", START.plus(HOUR)).unwrap();
    assert_eq!((status.in_force, status.waiting_for), (false, vec![node(&site.nodes[2])]));

    let back = START.plus(HOUR.times(20));
    tell(&site, &mut books, 0, 2, back);
    adopt(&site, &mut books, 2, back);
    for at in [0, 1] {
        tell(&site, &mut books, 2, at, back);
    }
    tell(&site, &mut books, 0, 2, back);
    assert_eq!(granted(&site, &books, "tokens", back), [30, 30, 30], "this hour has begun");
    assert_eq!(granted(&site, &books, "tokens", back.plus(HOUR)), [100, 100, 100]);
    assert!(books[0].epoch_status("acme", back.plus(HOUR)).unwrap().in_force);
}

#[test]
fn a_raise_counts_at_once_when_the_node_it_waits_for_is_put_out() {
    let budgets = [("acme", tokens(90)), ("acme", terms("slots", Unit::Concurrent, 3))];
    let (site, mut books) = started(3, &budgets);
    let signed = START.plus(MINUTE);
    change(&site, &mut books, signed, 300);
    tell(&site, &mut books, 0, 1, signed);
    for at in [0, 1] {
        adopt(&site, &mut books, at, signed);
    }
    tell(&site, &mut books, 1, 0, signed);
    let later = START.plus(HOUR.times(2));
    assert_eq!(granted(&site, &books[..1], "tokens", later), [30]);
    let lost = BTreeSet::from([node(&site.nodes[2])]);
    assert!(books[0].put_out(&lost, later) && !books[0].put_out(&lost, later));
    let status = books[0].epoch_status("acme", later).unwrap();
    assert_eq!((status.in_force, status.waiting_for), (true, vec![]));
    assert_eq!(granted(&site, &books[..1], "tokens", later), [100]);
    // Whoever has not heard of it keeps to less, and the next change need not wait either.
    let key = books[1].current(&only(&books[1], "tokens"), later).unwrap();
    assert_eq!(books[1].grant(&key, &site.holder(1), later), 30);
    change(&site, &mut books, later, 600);
    // A chain that begins afterwards does not wait for it, nor does a book that was stored.
    let roster = site.roster(0);
    let stored = PolicyBook::from_snapshot(books[0].snapshot(), &roster, later).unwrap();
    assert!(stored.knows_out(&BTreeSet::new()), "it asks the roster, which revoked nobody");
}

#[test]
fn a_raise_counts_without_a_lost_node_once_the_old_epoch_is_over() {
    let (site, mut books) = started(2, &[("acme", tokens(90))]);
    change(&site, &mut books, START.plus(HOUR), 300);
    adopt(&site, &mut books, 0, START.plus(HOUR));
    let end = START.plus(DEFAULT_VALIDITY);
    assert_eq!(granted(&site, &books, "tokens", end.minus(HOUR)), [45, 45]);
    // The lost node stops by itself; only then is its part in other hands.
    assert_eq!(granted(&site, &books, "tokens", end.plus(HOUR)), [150, 0]);
    let id = only(&books[1], "tokens");
    let since = end;
    let lapsed = Standing::Stopped(Stop::Lapsed { since });
    assert_eq!(books[1].standing(&id, end.plus(HOUR)), lapsed);
}

#[test]
fn a_second_change_waits_for_the_first_and_says_for_whom() {
    let (site, mut books) = started(2, &[("acme", tokens(90))]);
    change(&site, &mut books, START.plus(MINUTE), 300);
    let draft = EpochDraft::after(&books[0].epoch("acme").unwrap().body, START.plus(HOUR));
    let refused =
        books[0].sign_epoch(&site.root, &site.roster(0), draft, START.plus(HOUR)).unwrap_err();
    assert!(matches!(refused, PolicyError::Pending { number: 2, .. }), "{refused}");
    assert!(refused.to_string().contains(&node(&site.nodes[1]).short()), "{refused}");
}

#[test]
fn changes_in_quick_succession_come_into_force_together() {
    let (site, mut books) = started(2, &[("acme", tokens(90))]);
    let mut wall = START.plus(MINUTE);
    for limit in [10, 20, 30, 40, 50, 60] {
        change(&site, &mut books, wall, limit);
        wall = wall.plus(Micros::secs(1));
    }
    for _ in 0..2 {
        for at in [0, 1] {
            tell(&site, &mut books, 1 - at, at, wall);
            books[at].adopt(&site.nodes[at], wall, wall);
            books[at].tell_adopted(&site.nodes[at], wall, wall);
        }
    }
    tell(&site, &mut books, 1, 0, wall);
    assert_eq!(granted(&site, &books, "tokens", wall), [45, 45]);
    assert_eq!(granted(&site, &books, "tokens", wall.plus(HOUR)), [30, 30]);
    // Nobody is waited for: the next may follow although its time has not come.
    assert!(books[0].epoch_status("acme", wall).unwrap().settled_from > wall);
    change(&site, &mut books, wall.plus(Micros::secs(1)), 70);
}

#[test]
fn a_newcomer_can_tell_what_governs_after_changes_in_quick_succession() {
    let (site, mut books) = started(3, &[("acme", tokens(90))]);
    let mut wall = START.plus(MINUTE);
    for limit in [10, 20, 30] {
        change(&site, &mut books[..1], wall, limit);
    }
    // The third node is not there yet and holds nothing.
    let members: Vec<_> = site.members().into_iter().filter(|m| m.0 != site.holder(2)).collect();
    let mut draft = EpochDraft::after(&books[0].epoch("acme").unwrap().body, wall);
    draft.members = members;
    books[0].sign_epoch(&site.root, &site.roster(0), draft, wall).unwrap();
    for minute in 0..90 {
        wall = wall.plus(MINUTE);
        for at in 0..3 {
            // In the beginning it holds rights, and gives its word like the others.
            if at < 2 || minute < 5 {
                tell(&site, &mut books, (at + 1) % 2, at, wall);
                books[at].adopt(&site.nodes[at], wall, wall);
                books[at].tell_adopted(&site.nodes[at], wall, wall);
                tell(&site, &mut books, at, (at + 1) % 2, wall);
            }
            books[at].tick(wall);
        }
        for tenant in books[0].renewal_due(0, wall) {
            books[0].renew(&site.root, &site.roster(0), &tenant, |_| false, wall).unwrap();
        }
    }
    assert!(books[0].renewal_due(0, wall).is_empty());
    books[2] = site.book(2);
    tell(&site, &mut books, 0, 2, wall);
    assert_eq!(granted(&site, &books, "tokens", wall), [15, 15, 0]);
    let id = only(&books[2], "tokens");
    let key = books[2].current(&id, wall).unwrap();
    // So it can tell that a gift is covered.
    assert_eq!(books[2].ceiling(&key, &site.holder(0)), Some(15));
    assert_eq!(books[2].members(&key, wall).len(), 2);
}

#[test]
fn too_many_changes_at_once_are_refused_before_any_window_is_forgotten() {
    let month = BudgetTerms { period: Period::Month, ..terms("month", Unit::Tokens, 1_000) };
    let (site, mut books) = started(1, &[("acme", month), ("acme", tokens(90))]);
    let mut refused = 0;
    for second in 0..120 {
        let wall = START.plus(MINUTE).plus(Micros::secs(second));
        let mut draft = EpochDraft::after(&books[0].epoch("acme").unwrap().body, wall);
        draft.set(level("acme"), tokens(1 + second));
        match books[0].sign_epoch(&site.root, &site.roster(0), draft, wall) {
            Ok(_) => adopt(&site, &mut books, 0, wall),
            Err(error) => {
                assert!(matches!(error, PolicyError::Pending { .. }), "{error}");
                refused += 1;
            }
        }
    }
    assert!((1..110).contains(&refused), "{refused}");
    let wall = START.plus(HOUR);
    assert_eq!(books[0].chains[&path("acme")].slots.len(), MAX_EPOCHS);
    assert_eq!(granted(&site, &books, "month", wall), [1_000]);
    assert!(granted(&site, &books, "tokens", wall)[0] > 100);
}

#[test]
fn what_an_operator_may_not_sign_is_refused_with_a_reason() {
    let (site, mut books) = started(1, &[("acme", tokens(90))]);
    let roster = site.roster(0);
    let mut refused = |change: &dyn Fn(&mut EpochDraft)| {
        let mut draft = EpochDraft::after(&books[0].epoch("acme").unwrap().body, START);
        change(&mut draft);
        books[0].sign_epoch(&site.root, &roster, draft, START).unwrap_err().to_string()
    };
    let zero = refused(&|draft| draft.set(level("acme"), tokens(0)));
    assert!(zero.contains("suspend the account"), "{zero}");
    let name = refused(&|draft| draft.set(level("acme"), terms("A b", Unit::Tokens, 1)));
    assert!(name.contains("its name needs"), "{name}");
    let overlap = refused(&|draft| draft.supersede = false);
    assert!(overlap.contains("supersedes"), "{overlap}");
    let foreign = refused(&|draft| draft.set(level("other/team"), tokens(1)));
    assert!(foreign.contains("another tenant"), "{foreign}");
    let nobody = refused(&|draft| draft.members.clear());
    assert!(nobody.contains("holders"), "{nobody}");
    let many = refused(&|draft| {
        (0..9).for_each(|at| draft.set(level("acme"), terms(&format!("b{at}"), Unit::Tokens, 1)));
    });
    assert!(many.contains("1 to 8 budgets"), "{many}");
    for soft in [
        BudgetTerms { hardness: Hardness::Elastic { block: 5 }, ..reclaimable(90) },
        BudgetTerms { unit: Unit::Concurrent, ..reclaimable(90) },
    ] {
        let soft = refused(&|draft| draft.set(level("acme"), soft.clone()));
        assert!(soft.contains("only hard budgets"), "{soft}");
    }
}

#[test]
fn two_epochs_of_one_number_stop_the_tenant_until_a_higher_one() {
    let (site, mut books) = started(1, &[("acme", tokens(90))]);
    let mut twin = books[0].clone();
    let one = change(&site, &mut books, START.plus(MINUTE), 300);
    let mut draft = EpochDraft::after(&twin.epoch("acme").unwrap().body, START.plus(MINUTE));
    draft.set(level("acme"), tokens(500));
    let roster = site.roster(0);
    let other = twin.sign_epoch(&site.root, &roster, draft, START.plus(MINUTE)).unwrap();
    let wall = START.plus(HOUR);
    adopt(&site, &mut books, 0, START.plus(MINUTE));
    assert_eq!(granted(&site, &books, "tokens", wall), [300]);
    assert!(books[0].apply_epoch(other.clone(), &roster, wall).unwrap());
    let id = only(&books[0], "tokens");
    assert_eq!(books[0].standing(&id, wall), Standing::Stopped(Stop::Forked { number: 2 }));
    assert_eq!(granted(&site, &books, "tokens", wall), [0]);
    // Either order of arrival gives the same.
    twin.adopt(&site.nodes[0], START.plus(MINUTE), START.plus(MINUTE));
    assert!(twin.apply_epoch(one, &roster, wall).unwrap());
    assert_eq!(twin.standing(&id, wall), books[0].standing(&id, wall));
    assert_eq!(twin.epoch("acme"), books[0].epoch("acme"));

    change(&site, &mut books, wall, 200);
    adopt(&site, &mut books, 0, wall);
    assert_eq!(granted(&site, &books, "tokens", wall.plus(HOUR)), [200]);
}

#[test]
fn a_fork_is_settled_though_not_all_had_agreed_to_it() {
    let (site, mut books) = started(2, &[("acme", tokens(90))]);
    let mut twin = books[0].clone();
    let wall = START.plus(MINUTE);
    change(&site, &mut books, wall, 300);
    let mut draft = EpochDraft::after(&twin.epoch("acme").unwrap().body, wall);
    draft.set(level("acme"), tokens(500));
    twin.sign_epoch(&site.root, &site.roster(0), draft, wall).unwrap();
    tell_all(&twin, &mut books[0], &site.roster(0), wall);
    change(&site, &mut books, wall.plus(MINUTE), 60);
    let wall = wall.plus(HOUR);
    for _ in 0..2 {
        for at in [0, 1] {
            tell(&site, &mut books, 1 - at, at, wall);
            books[at].adopt(&site.nodes[at], wall, wall);
            books[at].tell_adopted(&site.nodes[at], wall, wall);
        }
    }
    tell(&site, &mut books, 1, 0, wall);
    assert_eq!(granted(&site, &books, "tokens", wall.plus(HOUR)), [30, 30]);
}

#[test]
fn a_removed_budget_counts_to_the_end_of_its_window_and_then_no_more() {
    let (site, mut books) = started(1, &[("acme", tokens(90)), ("acme/team", tokens(10))]);
    let wall = START.plus(MINUTE);
    let mut draft = EpochDraft::after(&books[0].epoch("acme").unwrap().body, wall);
    assert!(draft.remove(&level("acme/team"), "tokens"));
    assert!(!draft.remove(&level("acme/team"), "tokens"));
    books[0].sign_epoch(&site.root, &site.roster(0), draft, wall).unwrap();
    adopt(&site, &mut books, 0, wall);
    let team = path("acme/team");
    let book = &mut books[0];
    let id = book.budgets_of(&team, None)[0].id;
    assert!(matches!(book.standing(&id, wall), Standing::Open(_)));
    assert_eq!(book.budgets_of(&team, None).len(), 2);
    let later = wall.plus(HOUR);
    assert_eq!(book.standing(&id, later), Standing::Free);
    assert!(book.tick(later));
    let left: Vec<_> = book.budgets_of(&team, None).iter().map(|b| b.level.clone()).collect();
    assert_eq!(left, [level("acme")]);
}

#[test]
fn levels_are_found_from_the_key_up_to_the_tenant() {
    let key = "acme/team/app#0102030405060708";
    let site = site(1);
    let mut book = site.book(0);
    let of = |name: &str| terms(name, Unit::Tokens, 5);
    let budgets = [("acme", of("a")), ("acme/team", of("b")), (key, of("d"))];
    let draft = site.draft(START, &budgets);
    book.sign_epoch(&site.root, &site.roster(0), draft, START).unwrap();
    let names = |account: &str, key: Option<KeyId>| -> Vec<String> {
        let found = book.budgets_of(&path(account), key.as_ref());
        found.iter().map(|budget| budget.spec.name.clone()).collect()
    };
    let id = level(key).key;
    assert_eq!(names("acme/team/app", id), ["d", "b", "a"]);
    assert_eq!(names("acme/team/app", None), ["b", "a"]);
    assert_eq!(names("acme/team", id), ["b", "a"], "the key is another account's");
    assert_eq!(names("acme/other/app", Some(KeyId([9; 8]))), ["a"]);
    assert!(names("acme2", None).is_empty());
}

#[test]
fn the_members_of_every_epoch_that_may_govern_witness_a_reclaimable_budget() {
    let (site, mut books) = started(3, &[("acme", tokens(90)), ("acme", reclaimable(90))]);
    let (plain, kept) = (only(&books[0], "tokens"), only(&books[0], "kept"));
    let voters = |book: &PolicyBook, id, wall: Wall| {
        let key = book.current(id, wall).unwrap();
        let mut groups = book.voters(&key, wall);
        groups.iter_mut().for_each(|group| group.sort());
        groups
    };
    let all: Vec<Holder> = site.members().into_iter().map(|(holder, _)| holder).collect();
    assert_eq!(voters(&books[0], &plain, START), Vec::<Vec<Holder>>::new());
    assert_eq!(voters(&books[0], &kept, START), std::slice::from_ref(&all));
    // A member goes. Until all have agreed, windows may be either epoch's: both must have a say.
    let mut draft = EpochDraft::after(&books[0].epoch("acme").unwrap().body, START.plus(MINUTE));
    draft.members.remove(2);
    let fewer: Vec<Holder> = draft.members.iter().map(|(holder, _)| *holder).collect();
    books[0].sign_epoch(&site.root, &site.roster(0), draft, START.plus(MINUTE)).unwrap();
    let signer = books[0].clone();
    let next = START.plus(HOUR);
    adopt(&site, &mut books, 0, START.plus(MINUTE.times(2)));
    let later = voters(&signer, &kept, START.plus(MINUTE));
    assert_eq!(later, std::slice::from_ref(&all), "the window runs on");
    let mut both = voters(&books[0], &kept, next);
    both.sort_by_key(Vec::len);
    assert_eq!(both, [fewer.clone(), all]);
    for at in [1, 2] {
        tell(&site, &mut books, 0, at, START.plus(MINUTE.times(3)));
        adopt(&site, &mut books, at, START.plus(MINUTE.times(3)));
        tell(&site, &mut books, at, 0, START.plus(MINUTE.times(3)));
    }
    assert_eq!(voters(&books[0], &kept, next), [fewer], "everybody follows the new one");
}

#[test]
fn a_clock_before_everything_stops_spending() {
    let (_, books) = started(1, &[("acme", tokens(90))]);
    let id = only(&books[0], "tokens");
    assert_eq!(books[0].standing(&id, Wall(0)), Standing::Stopped(Stop::Clock));
    assert!(books[0].changes_at(&id, Wall(0)) <= START);
}

#[test]
fn a_renewal_changes_no_grant_and_no_ledger() {
    let budgets = [("acme", tokens(90)), ("acme", terms("slots", Unit::Concurrent, 4))];
    let (site, mut books) = started(2, &budgets);
    let half = START.plus(Micros(DEFAULT_VALIDITY.0 / 2));
    assert!(books[0].renewal_due(0, half.minus(MINUTE)).is_empty());
    assert_eq!(books[0].renewal_due(0, half), [path("acme")]);
    let slots = only(&books[0], "slots");
    let before = books[0].standing(&slots, half);
    books[0].renew(&site.root, &site.roster(0), &path("acme"), |_| false, half).unwrap();
    assert!(books[0].renewal_due(0, half.plus(MINUTE)).is_empty());
    tell(&site, &mut books, 0, 1, half);
    for at in [0, 1] {
        adopt(&site, &mut books, at, half);
    }
    tell(&site, &mut books, 1, 0, half);
    let later = START.plus(DEFAULT_VALIDITY).plus(DAY);
    assert_eq!(books[0].standing(&slots, later), before);
    assert_eq!(granted(&site, &books[..1], "tokens", later), [45]);
}

#[test]
fn permits_take_a_right_of_both_ledgers_while_a_change_settles() {
    let slots = |limit| terms("slots", Unit::Concurrent, limit);
    let (site, mut books) = started(1, &[("acme", slots(4))]);
    let mut draft = EpochDraft::after(&books[0].epoch("acme").unwrap().body, START.plus(MINUTE));
    draft.set(level("acme"), slots(2));
    books[0].sign_epoch(&site.root, &site.roster(0), draft, START.plus(MINUTE)).unwrap();
    adopt(&site, &mut books, 0, START.plus(MINUTE));
    let id = only(&books[0], "slots");
    let windows = |wall: Wall| match books[0].standing(&id, wall) {
        Standing::Open(ledgers) => ledgers.iter().map(|key| key.window).collect(),
        Standing::Free | Standing::Stopped(_) => Vec::new(),
    };
    assert_eq!(windows(START.plus(MINUTE)), [1]);
    let since = START.plus(MINUTE).plus(ADOPTION_MARGIN);
    let linger = PERMIT_LEASE.plus(CLOCK_SKEW);
    assert_eq!(windows(since), [2, 1]);
    assert_eq!(windows(since.plus(linger).minus(MINUTE)), [2, 1]);
    assert_eq!(windows(since.plus(linger)), [2]);
    let mut wall = START;
    for expected in [since, since.plus(linger)] {
        while books[0].changes_at(&id, wall) <= expected {
            wall = books[0].changes_at(&id, wall);
        }
        assert_eq!(wall, expected, "the machine is told when to look again");
    }
}

#[test]
fn a_word_that_was_overtaken_is_given_again_later() {
    let (site, mut books) = started(2, &[("acme", tokens(90))]);
    change(&site, &mut books, START.plus(MINUTE), 30);
    let (key, wall) = (&site.nodes[0], START.plus(MINUTE));
    books[0].adopt(key, wall, wall);
    assert!(books[0].delta(&PolicyDigest::default(), 1 << 20).adopted.is_empty());
    // Storing it took longer than the margin, and hours began meanwhile.
    let late = wall.plus(HOUR.times(3));
    books[0].tell_adopted(key, late, late);
    assert!(books[0].delta(&PolicyDigest::default(), 1 << 20).adopted.is_empty());
    books[0].tell_adopted(key, late, late);
    let told = books[0].delta(&PolicyDigest::default(), 1 << 20).adopted;
    assert_eq!(told.len(), 1);
    assert!(told[0].body.since > late);
    assert_eq!(granted(&site, &books[..1], "tokens", wall.plus(HOUR)), [15], "heeded at once");
}

#[test]
fn epochs_that_govern_no_open_window_are_forgotten_and_do_not_come_back() {
    let month = BudgetTerms { period: Period::Month, ..terms("month", Unit::Tokens, 1_000) };
    let (site, mut books) = started(1, &[("acme", month), ("acme", tokens(90))]);
    let first = books[0].epoch("acme").unwrap().clone();
    let mut wall = START;
    for limit in 1..200 {
        wall = wall.plus(HOUR);
        change(&site, &mut books, wall, limit);
        adopt(&site, &mut books, 0, wall);
        books[0].tick(wall.plus(Micros::secs(11)));
    }
    let kept = books[0].chains[&path("acme")].slots.len();
    assert!(kept < 12, "{kept} epochs are kept");
    // The month that was running at the start is over in the middle of it; the next one is not.
    let key = books[0].current(&only(&books[0], "month"), wall).unwrap();
    assert_eq!(books[0].grant(&key, &site.holder(0), wall), 1_000);
    assert_eq!(books[0].apply_epoch(first, &site.roster(0), wall), Ok(false));
    assert!(books[0].chains[&path("acme")].slots.len() <= kept);
}

#[test]
fn after_a_rotation_only_the_new_root_key_signs() {
    let (site, mut books) = started(1, &[("acme", tokens(90))]);
    let mut roster = site.roster(0);
    let at = START.plus(DAY);
    let root = key(7);
    let rotation = rotate_root(&site.root, site.mesh, &[], root.public(), at).unwrap();
    roster.apply_rotation(rotation).unwrap();
    let wall = at.plus(HOUR);
    let draft = EpochDraft::after(&books[0].epoch("acme").unwrap().body, wall);
    let status = books[0].epoch_status("acme", wall).unwrap();
    let epoch = books[0].epoch("acme").unwrap().clone();
    let previous = || Some(Previous { epoch: &epoch, settled_from: status.settled_from });
    let old = sign_epoch(&site.root, site.mesh, 0, previous(), draft.clone(), wall).unwrap();
    let refused = books[0].apply_epoch(old, &roster, wall).unwrap_err();
    assert!(matches!(refused, PolicyError::Record(RecordError::Generation { .. })), "{refused}");
    let thief = sign_epoch(&site.root, site.mesh, 1, previous(), draft.clone(), wall).unwrap();
    let refused = books[0].apply_epoch(thief, &roster, wall).unwrap_err();
    assert!(matches!(refused, PolicyError::Record(RecordError::Signer { .. })), "{refused}");
    assert_eq!(books[0].renewal_due(1, wall), [path("acme")], "signed anew by the new key");
    let new = sign_epoch(&root, site.mesh, 1, previous(), draft, wall).unwrap();
    assert_eq!(books[0].apply_epoch(new, &roster, wall), Ok(true));
}

#[test]
fn a_budget_cannot_claim_a_history_it_does_not_have() {
    let (site, mut books) = started(1, &[("acme", tokens(90))]);
    let wall = START.plus(HOUR);
    let honest = {
        let mut twin = books.clone();
        change(&site, &mut twin, wall, 300).body
    };
    let roster = site.roster(0);
    let mut refused = |change: &dyn Fn(&mut BudgetSpec)| {
        let mut epoch = honest.clone();
        change(&mut epoch.accounts[0].1[0]);
        books[0].apply_epoch(Signed::seal(epoch, &site.root), &roster, wall)
    };
    assert!(refused(&|spec| spec.ledger = 1).is_err(), "its grants changed");
    assert!(refused(&|spec| spec.period = Period::Day).is_err(), "its windows changed");
    assert!(refused(&|spec| spec.name = "older".to_owned()).is_err(), "it was not there");
    assert_eq!(refused(&|_| {}), Ok(true));
}

#[test]
fn every_field_of_an_epoch_is_signed() {
    let (_, books) = started(2, &[("acme", tokens(90))]);
    let good = books[0].epoch("acme").unwrap().clone();
    let changes: [&dyn Fn(&mut Epoch); 12] = [
        &|epoch| epoch.tenant = path("acme2"),
        &|epoch| epoch.number = 2,
        &|epoch| epoch.prev = [1; 32],
        &|epoch| epoch.prev_until = Wall(1),
        &|epoch| epoch.prev_since = Wall(1),
        &|epoch| epoch.generation = 1,
        &|epoch| epoch.issued = Wall(1),
        &|epoch| epoch.from = Wall(1),
        &|epoch| epoch.until = Wall(u64::MAX),
        &|epoch| epoch.members[1].1 = 2,
        &|epoch| epoch.accounts[0].0 = level("acme/x"),
        &|epoch| epoch.accounts[0].1[0].scope = Scope::Cloud,
    ];
    let specs: [&dyn Fn(&mut BudgetSpec); 9] = [
        &|spec| spec.limit += 1,
        &|spec| spec.unit = Unit::Requests,
        &|spec| spec.hardness = Hardness::Elastic { block: 1 },
        &|spec| spec.on_exhausted = OnExhausted::LocalOnly,
        &|spec| spec.sub_windows = 2,
        &|spec| spec.reclaimable = true,
        &|spec| spec.born = 2,
        &|spec| spec.ledger = 2,
        &|spec| spec.set = Wall(1),
    ];
    assert_eq!(good.check_signature(), Ok(()));
    let broken = |change: &dyn Fn(&mut Epoch)| {
        let mut changed = good.clone();
        change(&mut changed.body);
        assert!(changed.check_signature().is_err());
        assert_ne!(Epoch::hash(&changed), Epoch::hash(&good));
    };
    changes.into_iter().for_each(broken);
    for change in specs {
        broken(&|epoch| change(&mut epoch.accounts[0].1[0]));
    }
}
