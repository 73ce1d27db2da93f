//! The exchange: everybody comes to know the same, within the bounds of a message.

use proptest::prelude::*;
use selvedge_base::codec::{MAX_FRAME, decode_body, encode_datagram};

use super::*;
use crate::records::revoke;

/// A book with an epoch, a change that waits, accounts, keys and cuts.
fn full(site: &Site, keys: u8) -> PolicyBook {
    let (mut book, roster) = (site.book(0), site.roster(0));
    let budget = |limit| terms("tokens", Unit::Tokens, limit);
    let draft = site.draft(START, &[("acme", budget(100)), ("acme/team", budget(50))]);
    book.sign_epoch(&site.root, &roster, draft, START).unwrap();
    let mut draft = EpochDraft::after(&book.epoch("acme").unwrap().body, START);
    draft.set(level("acme"), budget(200));
    book.sign_epoch(&site.root, &roster, draft, START).unwrap();
    book.adopt(&site.nodes[0], START, START);
    book.tell_adopted(&site.nodes[0], START, START);
    let title = sign_account(&site.root, None, site.mesh, path("acme"), "Acme", START).unwrap();
    book.apply_account(title, &roster).unwrap();
    for entropy in 0..keys {
        let draft = KeyDraft {
            name: format!("key {entropy}"),
            account: path("acme/team"),
            models: Vec::new(),
            routes: Vec::new(),
            not_after: None,
        };
        let made = sign_key(&site.root, None, site.mesh, draft, [entropy; 32], START).unwrap();
        book.apply_key(made.notice, &roster, START).unwrap();
    }
    let order = CutOrder::Budget { level: level("acme"), name: "tokens".into(), limit: 80 };
    for order in [order, CutOrder::Key(KeyId([7; 8])), CutOrder::Account(path("acme/gone"))] {
        let at = START.plus(Micros::secs(1));
        let cut = sign_cut(&site.root, None, site.mesh, order, at).unwrap();
        book.apply_cut(cut, &roster, at).unwrap();
    }
    book
}

/// Two nodes exchange messages until neither has anything to say; how many were sent.
fn talk(site: &Site, a: &mut PolicyBook, b: &mut PolicyBook, turn: u64) -> usize {
    let mut next = Some((a.greeting(), false));
    let mut sent = 0;
    while let Some((message, to_a)) = next {
        sent += 1;
        let bytes = encode_datagram(&message, MAX_FRAME).unwrap();
        let message: PolicyMessage = decode_body(&bytes).unwrap();
        let (book, at) = if to_a { (&mut *a, 0) } else { (&mut *b, 1) };
        if let PolicyMessage::Delta(delta) = &message {
            let changed = book.apply((**delta).clone(), &site.roster(at), START.plus(MINUTE));
            assert_eq!(changed.refused, []);
        }
        next = book.answer(&message, turn).map(|answer| (answer, !to_a));
    }
    sent
}

#[test]
fn one_exchange_brings_everything_and_the_next_says_nothing() {
    let site = site(2);
    for from in [0, 1] {
        let mut books = [site.book(0), site.book(1)];
        books[from] = full(&site, 20);
        books[from].me = node(&site.nodes[from]);
        let [mut a, mut b] = books;
        assert!(talk(&site, &mut a, &mut b, 0) <= 5);
        assert_eq!(a.greeting(), b.greeting());
        assert_eq!(talk(&site, &mut a, &mut b, 1), 1);
        assert_eq!((a.keys.len(), b.keys.len()), (20, 20));
        assert_eq!((a.cuts.len(), b.cuts.len()), (3, 3));
        assert_eq!(a.epoch("acme"), b.epoch("acme"));
    }
}

#[test]
fn nodes_that_forgot_at_other_times_have_nothing_to_say() {
    let site = site(2);
    let (mut a, mut b) = (full(&site, 3), site.book(1));
    talk(&site, &mut a, &mut b, 0);
    // The second epoch is in force, and one more follows; a newcomer never saw the first.
    let wall = START.plus(HOUR);
    for (at, book) in [(1, &mut b), (0, &mut a)] {
        book.adopt(&site.nodes[at], wall, wall);
        book.tell_adopted(&site.nodes[at], wall, wall);
    }
    talk(&site, &mut a, &mut b, 1);
    let later = wall.plus(HOUR);
    a.renew(&site.root, &site.roster(0), &path("acme"), |_| false, later).unwrap();
    talk(&site, &mut a, &mut b, 2);
    for (at, book) in [(0, &mut a), (1, &mut b)] {
        book.adopt(&site.nodes[at], later, later);
        book.tell_adopted(&site.nodes[at], later, later);
    }
    talk(&site, &mut a, &mut b, 3);
    // One has forgotten the first epoch by now, and is not told of it again.
    let kept = |book: &PolicyBook| book.chains[&path("acme")].slots.len();
    assert_eq!((kept(&a), kept(&b)), (2, 3));
    talk(&site, &mut a, &mut b, 4);
    assert_eq!((kept(&a), kept(&b)), (2, 3));
    assert!(b.tick(later.plus(HOUR.times(2))));
    let mut newcomer = site.book(1);
    talk(&site, &mut a, &mut newcomer, 5);
    for book in [&mut b, &mut newcomer] {
        assert_eq!(talk(&site, &mut a, book, 6), 1);
        assert_eq!(a.greeting(), book.greeting());
    }
}

#[test]
fn what_both_lack_of_each_other_crosses_in_one_exchange() {
    let site = site(2);
    let (mut a, mut b) = (full(&site, 3), site.book(1));
    let title = sign_account(&site.root, None, site.mesh, path("beta"), "Beta", START).unwrap();
    b.apply_account(title, &site.roster(1)).unwrap();
    talk(&site, &mut a, &mut b, 0);
    assert_eq!((a.accounts().count(), b.accounts().count()), (2, 2));
    assert_eq!(a.greeting(), b.greeting());
}

#[test]
fn records_that_one_side_keeps_refusing_starve_nothing() {
    let site = site(2);
    let sender = full(&site, 60);
    // This receiver takes nothing; what is offered moves on all the same.
    let nothing = site.book(1);
    let mut offered = std::collections::BTreeSet::new();
    let budget = 8 << 10;
    for turn in 0..80 {
        let delta = sender.delta(&nothing.digest(turn), budget);
        let bytes = encode_datagram(&delta, MAX_FRAME).unwrap();
        assert!(bytes.len() <= budget + 2 * MAX_EPOCH_BYTES.min(4 << 10), "{}", bytes.len());
        assert!(!delta.cuts.is_empty() && !delta.epochs.is_empty());
        offered.extend(delta.keys.iter().map(|notice| notice.signed.body.id));
    }
    assert_eq!(offered.len(), 60);
}

#[test]
fn a_snapshot_brings_everything_back_and_a_damaged_one_grants_nothing() {
    let site = site(2);
    let (book, roster) = (full(&site, 3), site.roster(0));
    let bytes = encode_datagram(&book.snapshot(), MAX_FRAME).unwrap();
    let stored: PolicySnapshot = decode_body(&bytes).unwrap();
    let again = PolicyBook::from_snapshot(stored, &roster, START).unwrap();
    assert_eq!(again.greeting(), book.greeting());
    assert_eq!(again.snapshot(), book.snapshot());
    let id = book.budgets_of(&path("acme"), None)[0].id;
    let key = book.current(&id, START).unwrap();
    for at in [0, 1] {
        let holder = site.holder(at);
        assert_eq!(again.grant(&key, &holder, START), book.grant(&key, &holder, START));
    }
    assert_eq!(again.suspended(&path("acme/gone/app")), Some(path("acme/gone")));
    // The same in parts, each under a name of its own, whatever order they are read in.
    let parts = book.parts();
    let small = book.accounts.len() + book.keys.len() + book.cuts.len();
    assert_eq!(parts.len(), book.chains.len() + small);
    let whole = PolicySnapshot::of_parts(site.mesh, parts.into_values().rev());
    let joined = PolicyBook::from_snapshot(whole, &roster, START).unwrap();
    assert_eq!(joined.snapshot(), book.snapshot());

    // Any byte of a signed record, at a place that only changes a value.
    let mut refused = 0;
    for place in (100..bytes.len()).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        let Ok(stored) = decode_body::<PolicySnapshot>(&damaged) else { continue };
        match PolicyBook::from_snapshot(stored, &roster, START) {
            Err(_) => refused += 1,
            Ok(book) => {
                assert_eq!(book.epoch("acme"), again.epoch("acme"));
                let mut keys = book.keys();
                assert!(keys.all(|key| again.key(&key.id) == Some(key)));
            }
        }
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn what_a_node_stored_itself_has_its_rights_checked_again_and_not_its_signatures() {
    let site = site(1);
    let (mut book, mut roster) = (site.book(0), site.roster(0));
    let key = |entropy: u8, at| {
        let draft = KeyDraft {
            name: format!("key {entropy}"),
            account: path("acme"),
            models: Vec::new(),
            routes: Vec::new(),
            not_after: None,
        };
        let steward = Some(site.steward.clone());
        let made = sign_key(&site.steward_key, steward, site.mesh, draft, [entropy; 32], at);
        made.unwrap().notice
    };
    let (early, late, wall) = (key(1, START), key(2, START.plus(HOUR)), START.plus(DAY));
    for notice in [early.clone(), late] {
        book.apply_key(notice, &roster, wall).unwrap();
    }
    // Signatures that nobody made show whether they are looked at.
    let mut stored = book.snapshot();
    for notice in &mut stored.keys {
        notice.signed.signature.0[0] ^= 1;
    }
    let strict = PolicyBook::from_snapshot(stored.clone(), &roster, wall).unwrap();
    assert_eq!(strict.keys().count(), 0);
    let own = PolicyBook::from_own_snapshot(stored.clone(), &roster, wall).unwrap();
    assert_eq!(own.keys().count(), 2);
    // The steward was put out since, before it signed the second one.
    let out = revoke(&site.root, None, site.mesh, node(&site.steward_key), START.plus(MINUTE));
    roster.apply_revocation(out, wall).unwrap();
    let mut own = PolicyBook::from_own_snapshot(stored, &roster, wall).unwrap();
    let kept: Vec<KeyId> = own.keys().map(|key| key.id).collect();
    assert_eq!(kept, [early.signed.body.id]);
    // What others say afterwards is checked as ever.
    let mut forged = key(3, START);
    forged.signed.signature.0[0] ^= 1;
    let refused = own.apply_key(forged, &roster, wall);
    assert!(
        matches!(refused, Err(PolicyError::Record(RecordError::Signature("key")))),
        "{refused:?}"
    );
}

#[test]
fn the_bounds_hold() {
    let site = site(1);
    let (mut book, roster) = (site.book(0), site.roster(0));
    for at in 0..MAX_TENANTS {
        let draft = EpochDraft::first(path(&format!("t{at}")), site.members(), START);
        book.sign_epoch(&site.root, &roster, draft, START).unwrap();
    }
    let draft = EpochDraft::first(path("one-more"), site.members(), START);
    let refused = book.sign_epoch(&site.root, &roster, draft, START).unwrap_err();
    assert_eq!(refused, PolicyError::Full { what: "tenant", limit: MAX_TENANTS });

    let mut draft = EpochDraft::first(path("t0"), site.members(), START);
    for account in 0..MAX_LEVELS {
        for budget in 0..MAX_BUDGETS {
            let name = format!("{}{budget}", "b".repeat(40));
            let at = level(&format!("t0/{}{account}", "a".repeat(40)));
            draft.set(at, terms(&name, Unit::Tokens, u64::MAX));
        }
    }
    let epoch = sign_epoch(&site.root, site.mesh, 0, None, draft.clone(), START).unwrap();
    let frame = encode_datagram(&epoch, MAX_FRAME).unwrap();
    assert!(frame.len() <= MAX_EPOCH_BYTES);
    draft.set(level("t0"), terms("x", Unit::Tokens, 1));
    let refused = sign_epoch(&site.root, site.mesh, 0, None, draft, START).unwrap_err();
    assert!(refused.to_string().contains("64 accounts"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Lost, doubled and reordered messages end in the same book.
    #[test]
    fn the_order_of_delivery_is_no_matter(order in prop::collection::vec(0usize..40, 0..80)) {
        let site = site(2);
        let all = full(&site, 12).delta(&PolicyDigest::default(), usize::MAX / 8);
        let mut pieces = Vec::new();
        let piece = PolicyDelta::default;
        pieces.extend(all.cuts.iter().map(|r| PolicyDelta { cuts: vec![r.clone()], ..piece() }));
        let epochs = all.epochs.iter();
        pieces.extend(epochs.map(|r| PolicyDelta { epochs: vec![r.clone()], ..piece() }));
        pieces.extend(all.keys.iter().map(|r| PolicyDelta { keys: vec![r.clone()], ..piece() }));
        let words = all.adopted.iter();
        pieces.extend(words.map(|r| PolicyDelta { adopted: vec![r.clone()], ..piece() }));
        let titles = all.accounts.iter();
        pieces.extend(titles.map(|r| PolicyDelta { accounts: vec![r.clone()], ..piece() }));
        let (mut book, roster) = (site.book(1), site.roster(1));
        let wall = START.plus(MINUTE);
        for at in order {
            book.apply(pieces[at % pieces.len()].clone(), &roster, wall);
        }
        // And whatever did not come is made up for.
        let mut sender = full(&site, 12);
        talk(&site, &mut sender, &mut book, 3);
        prop_assert_eq!(book.greeting(), sender.greeting());
    }
}

/// A budget as builds of wire version 2 read it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct SpecBefore {
    name: String,
    unit: Unit,
    period: Period,
    limit: u64,
    hardness: Hardness,
    on_exhausted: OnExhausted,
    scope: Scope,
    sub_windows: u32,
    reclaimable: bool,
    born: u64,
    ledger: u64,
    set: Wall,
}

#[test]
fn older_builds_get_no_budget_that_they_would_spend_without_witnesses() {
    let kept = BudgetTerms { reclaimable: true, ..terms("kept", Unit::Tokens, 90) };
    let plain = terms("tokens", Unit::Tokens, 90);
    let delta_of = |budget: BudgetTerms| {
        let (site, roster) = (site(2), site(2).roster(0));
        let mut book = site.book(0);
        let draft = site.draft(START, &[("acme", budget)]);
        book.sign_epoch(&site.root, &roster, draft, START).unwrap();
        let title = sign_account(&site.root, None, site.mesh, path("acme"), "Acme", START);
        book.apply_account(title.unwrap(), &roster).unwrap();
        let spec = book.epoch("acme").unwrap().body.budgets().next().unwrap().1.clone();
        let lacking = book.delta(&PolicyDigest::default(), MAX_FRAME);
        assert!(!lacking.epochs.is_empty() && !lacking.accounts.is_empty());
        (spec, PolicyMessage::Delta(Box::new(lacking)))
    };
    let (plain_spec, both_read) = delta_of(plain);
    assert_eq!(both_read.clone().spoken_at(2), Some(both_read));
    let (kept_spec, new_only) = delta_of(kept);
    assert_eq!(new_only.clone().spoken_at(3).as_ref(), Some(&new_only));
    let Some(PolicyMessage::Delta(told)) = new_only.spoken_at(2) else { panic!("all dropped") };
    assert!(told.epochs.is_empty() && !told.accounts.is_empty());
    let only = PolicyDelta { epochs: Vec::new(), ..*told };
    assert!(PolicyMessage::Delta(Box::default()).spoken_at(2).is_none());
    assert!(PolicyMessage::Delta(Box::new(only)).spoken_at(2).is_some());
    // Should it reach one all the same, or stand on its disk, it is refused and not misread.
    let read = |spec: &BudgetSpec| {
        let bytes = encode_datagram(spec, MAX_FRAME).unwrap();
        assert_eq!(decode_body::<BudgetSpec>(&bytes).as_ref(), Ok(spec));
        decode_body::<SpecBefore>(&bytes).map(|before| {
            assert_eq!(encode_datagram(&before, MAX_FRAME).unwrap(), bytes);
            before.reclaimable
        })
    };
    assert_eq!(read(&plain_spec), Ok(false));
    assert!(read(&kept_spec).is_err());
}
