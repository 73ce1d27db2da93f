//! Keys, accounts and cuts: who may sign them and what they open or close.

use super::*;
use crate::records::revoke;

fn draft(account: &str) -> KeyDraft {
    let (models, routes) = (Vec::new(), Vec::new());
    KeyDraft { name: "line 3".to_owned(), account: path(account), models, routes, not_after: None }
}

impl Site {
    fn key(&self, draft: KeyDraft, entropy: u8, wall: Wall) -> NewKey {
        let steward = Some(self.steward.clone());
        sign_key(&self.steward_key, steward, self.mesh, draft, [entropy; 32], wall).unwrap()
    }

    fn cut(&self, order: CutOrder, wall: Wall) -> CutNotice {
        sign_cut(&self.steward_key, Some(self.steward.clone()), self.mesh, order, wall).unwrap()
    }
}

#[test]
fn a_key_opens_at_every_node_until_it_is_revoked() {
    let site = site(1);
    let (mut book, roster) = (site.book(0), site.roster(0));
    let key = site.key(draft("acme/line3"), 5, START);
    let id = key.notice.signed.body.id;
    assert_eq!(book.verify(&key.secret, START), Err(KeyProblem::Unknown));
    assert_eq!(book.apply_key(key.notice.clone(), &roster, START), Ok(true));
    let caller = book.verify(&key.secret, START).unwrap();
    assert_eq!((caller.key, caller.account), (id, path("acme/line3")));
    assert_eq!(book.verify(&key.secret[..key.secret.len() - 1], START), Err(KeyProblem::Unknown));
    assert_eq!(book.verify("", START), Err(KeyProblem::Unknown));

    let revision = book.revision();
    assert_eq!(book.apply_cut(site.cut(CutOrder::Key(id), START), &roster, START), Ok(true));
    assert_ne!(book.revision(), revision);
    assert_eq!(book.verify(&key.secret, START), Err(KeyProblem::Revoked(id)));
    // A peer that has not heard of it passes the key on again.
    assert_eq!(book.apply_key(key.notice, &roster, START), Ok(false));
    assert_eq!(book.verify(&key.secret, START), Err(KeyProblem::Revoked(id)));
}

#[test]
fn who_was_let_in_is_barred_by_a_revoked_key_and_a_suspended_account_only() {
    let site = site(1);
    let (mut book, roster) = (site.book(0), site.roster(0));
    let mut wish = draft("acme/line3");
    wish.not_after = Some(START.plus(MINUTE));
    let key = site.key(wish, 5, START);
    let (id, account) = (key.notice.signed.body.id, path("acme/line3"));
    book.apply_key(key.notice, &roster, START).unwrap();
    assert_eq!(book.bars(&account, Some(&id)), None);
    assert_eq!(book.bars(&account, None), None);
    // An expired key ends nothing that it began.
    let later = START.plus(HOUR);
    book.tick(later);
    assert!(matches!(book.verify(&key.secret, later), Err(KeyProblem::Expired { .. })));
    assert_eq!(book.bars(&account, Some(&id)), None);
    let suspended = site.cut(CutOrder::Account(path("acme")), START);
    book.apply_cut(suspended, &roster, START).unwrap();
    assert_eq!(book.bars(&account, None), Some(KeyProblem::Suspended(path("acme"))));
    book.apply_cut(site.cut(CutOrder::Key(id), START), &roster, START).unwrap();
    assert_eq!(book.bars(&account, Some(&id)), Some(KeyProblem::Revoked(id)));
}

#[test]
fn no_record_holds_the_secret() {
    let site = site(1);
    let key = site.key(draft("acme"), 5, START);
    let bytes = selvedge_base::codec::encode_datagram(&key.notice, 1 << 20).unwrap();
    let digits = &key.secret.as_bytes()[KEY_PREFIX.len()..];
    assert!(!bytes.windows(8).any(|part| digits.windows(8).any(|digit| digit == part)));
    assert!(!bytes.windows(8).any(|part| part == [5; 8]));
    let elsewhere = KeyGrant::hash_of(&MeshId([9; 32]), &key.secret);
    assert_ne!(elsewhere, key.notice.signed.body.hash, "hashes of two meshes cannot be compared");
}

#[test]
fn keys_expire_and_are_scoped() {
    let site = site(1);
    let (mut book, roster) = (site.book(0), site.roster(0));
    let mut wish = draft("acme");
    wish.models = vec!["smol*".to_owned(), "big".to_owned()];
    wish.routes = vec!["chat".to_owned()];
    wish.not_after = Some(START.plus(DAY));
    let key = site.key(wish, 5, START);
    let id = key.notice.signed.body.id;
    book.apply_key(key.notice, &roster, START).unwrap();
    let caller = book.verify(&key.secret, START.plus(DAY)).unwrap();
    let may = ["smollm2", "big", "bigger", "other"].map(|model| caller.may_use(model));
    assert_eq!(may, [true, true, false, false]);
    assert!(caller.may_call("chat") && !caller.may_call("models"));
    let late = START.plus(DAY).plus(Micros::secs(5));
    assert_eq!(book.verify(&key.secret, late), Err(KeyProblem::Expired { id, ago_s: 5 }));
    let early = START.minus(HOUR);
    assert!(matches!(book.verify(&key.secret, early), Err(KeyProblem::NotYet { .. })));
}

#[test]
fn unusable_keys_are_refused_with_a_reason() {
    let site = site(1);
    let refused = |change: &dyn Fn(&mut KeyDraft)| {
        let mut wish = draft("acme");
        change(&mut wish);
        let made = sign_key(&site.root, None, site.mesh, wish, [5; 32], START);
        made.err().unwrap().to_string()
    };
    assert!(refused(&|wish| wish.name = "a\nb".to_owned()).contains("control characters"));
    assert!(refused(&|wish| wish.models = vec![String::new()]).contains("models"));
    assert!(refused(&|wish| wish.routes = vec!["Chat".to_owned()]).contains("routes"));
    assert!(refused(&|wish| wish.not_after = Some(START)).contains("expires"));
}

#[test]
fn only_stewards_and_the_root_make_keys() {
    let site = site(2);
    let (mut book, mut roster) = (site.book(0), site.roster(0));
    let made = |key: &SigningKey, steward, entropy, wall| {
        sign_key(key, steward, site.mesh, draft("acme"), [entropy; 32], wall).unwrap().notice
    };
    let stranger = made(&site.nodes[1], None, 1, START);
    assert!(book.apply_key(stranger, &roster, START).is_err());
    let borrowed = made(&site.nodes[1], Some(site.steward.clone()), 2, START);
    assert!(book.apply_key(borrowed, &roster, START).is_err());
    let by_root = made(&site.root, None, 3, START);
    assert_eq!(book.apply_key(by_root.clone(), &roster, START), Ok(true));
    let mut forged = by_root;
    forged.signed.body.account = path("other");
    forged.signed.body.issued = START.plus(MINUTE);
    assert!(book.apply_key(forged, &roster, START).is_err());

    let out = revoke(&site.root, None, site.mesh, node(&site.steward_key), START.plus(DAY));
    roster.apply_revocation(out, START.plus(DAY)).unwrap();
    let steward = || Some(site.steward.clone());
    let before = made(&site.steward_key, steward(), 4, START.plus(HOUR));
    assert_eq!(book.apply_key(before, &roster, START.plus(DAY)), Ok(true));
    let after = made(&site.steward_key, steward(), 5, START.plus(DAY).plus(HOUR));
    let refused = book.apply_key(after, &roster, START.plus(DAY).plus(HOUR)).unwrap_err();
    assert!(matches!(refused, PolicyError::Record(RecordError::StewardRevoked(_))), "{refused}");
}

#[test]
fn a_suspended_account_stands_still_with_all_below_until_the_root_confirms_it() {
    let site = site(1);
    let (mut book, roster) = (site.book(0), site.roster(0));
    let key = site.key(draft("acme/line3/app"), 5, START);
    book.apply_key(key.notice, &roster, START).unwrap();
    let order = CutOrder::Account(path("acme/line3"));
    book.apply_cut(site.cut(order, START.plus(HOUR)), &roster, START.plus(HOUR)).unwrap();
    let wall = START.plus(HOUR.times(2));
    let suspended = Err(KeyProblem::Suspended(path("acme/line3")));
    assert_eq!(book.verify(&key.secret, wall), suspended);
    assert_eq!(book.suspended(&path("acme")), None);
    let confirm = |key: &SigningKey, steward| {
        sign_account(key, steward, site.mesh, path("acme/line3"), "Line 3", wall).unwrap()
    };
    let by_steward = confirm(&site.steward_key, Some(site.steward.clone()));
    assert_eq!(book.apply_account(by_steward.clone(), &roster), Ok(true));
    assert_eq!(book.verify(&key.secret, wall), suspended, "a steward cannot loosen");
    assert_eq!(book.apply_account(confirm(&site.root, None), &roster), Ok(true));
    assert!(book.verify(&key.secret, wall).is_ok());
    assert_eq!(book.apply_account(by_steward, &roster), Ok(false));
}

#[test]
fn a_cut_lowers_at_once_and_ends_only_when_the_operator_chooses_anew() {
    let site = site(1);
    let (mut book, roster) = (site.book(0), site.roster(0));
    let budget = terms("tokens", Unit::Tokens, 100);
    let draft = site.draft(START, &[("acme", budget.clone())]);
    book.sign_epoch(&site.root, &roster, draft, START).unwrap();
    let id = only(&book, "tokens");
    let lower = |limit| CutOrder::Budget { level: level("acme"), name: "tokens".into(), limit };
    assert!(book.check_cut(&lower(100)).unwrap_err().to_string().contains("only be lowered"));
    assert_eq!(book.check_cut(&lower(40)), Ok(()));
    let at = START.plus(MINUTE);
    book.apply_cut(site.cut(lower(40), at), &roster, at).unwrap();
    let grant = |book: &PolicyBook, wall| {
        book.grant(&book.current(&id, wall).unwrap(), &site.holder(0), wall)
    };
    assert_eq!(grant(&book, at), 40, "in the running window");
    assert_eq!(book.ceiling(&book.current(&id, at).unwrap(), &site.holder(0)), Some(100));
    // A milder one does not loosen, whichever is later.
    for milder in [at.minus(Micros::secs(1)), at.plus(Micros::secs(1))] {
        let _taken = book.apply_cut(site.cut(lower(60), milder), &roster, at).unwrap();
        assert_eq!(grant(&book, at), 40);
    }
    // A renewal keeps it, a limit chosen anew ends it.
    let half = START.plus(Micros(DEFAULT_VALIDITY.0 / 2));
    book.renew(&site.root, &roster, &path("acme"), |_| false, half).unwrap();
    book.adopt(&site.nodes[0], half, half);
    book.tell_adopted(&site.nodes[0], half, half);
    assert_eq!(grant(&book, half.plus(HOUR)), 40);
    let later = half.plus(HOUR);
    let mut draft = EpochDraft::after(&book.epoch("acme").unwrap().body, later);
    draft.set(level("acme"), budget);
    book.sign_epoch(&site.root, &roster, draft, later).unwrap();
    book.adopt(&site.nodes[0], later, later);
    book.tell_adopted(&site.nodes[0], later, later);
    assert_eq!(grant(&book, later.plus(HOUR)), 100);
}

#[test]
fn a_cut_counts_although_the_clock_is_behind_what_it_follows() {
    let site = site(1);
    let (mut book, roster) = (site.book(0), site.roster(0));
    let draft = site.draft(START, &[("acme", terms("tokens", Unit::Tokens, 100))]);
    book.sign_epoch(&site.root, &roster, draft, START).unwrap();
    let lower = CutOrder::Budget { level: level("acme"), name: "tokens".into(), limit: 40 };
    let suspend = CutOrder::Account(path("acme"));
    let title = sign_account(&site.root, None, site.mesh, path("acme"), "Acme", START).unwrap();
    book.apply_account(title, &roster).unwrap();
    let behind = START.minus(Micros::secs(3));
    for order in [lower, suspend] {
        let mut late = book.clone();
        let _taken = late.apply_cut(site.cut(order.clone(), behind), &roster, behind);
        assert!(late.check_cut_counts(&order).is_err(), "a date before what it follows");
        let at = book.cut_date(&order, behind);
        assert_eq!(book.apply_cut(site.cut(order.clone(), at), &roster, behind), Ok(true));
        assert_eq!(book.check_cut_counts(&order), Ok(()));
    }
}

#[test]
fn cuts_that_are_over_or_milder_make_room_in_any_order() {
    let site = site(1);
    let roster = site.roster(0);
    let lower = |limit| CutOrder::Budget { level: level("acme"), name: "tokens".into(), limit };
    let set = START.plus(MINUTE.times(10));
    let minute = |n: u64| START.plus(MINUTE.times(n));
    // Four that the limit chosen at minute ten ended, and six after it, each milder.
    let old = (1..5).map(|n| site.cut(lower(n), minute(n)));
    let new = (11..17).map(|n| site.cut(lower(n * 2), minute(n)));
    let mut cuts: Vec<CutNotice> = old.chain(new).collect();
    let kept = |cuts: &[CutNotice]| {
        let mut book = site.book(0);
        let draft = site.draft(set, &[("acme", terms("tokens", Unit::Tokens, 100))]);
        book.sign_epoch(&site.root, &roster, draft, set).unwrap();
        for cut in cuts {
            let _taken = book.apply_cut(cut.clone(), &roster, minute(20)).unwrap();
        }
        assert_eq!(book.check_cut_counts(&lower(22)), Ok(()));
        let mut kept: Vec<Wall> = book.cuts.iter().map(|cut| cut.signed.body.at).collect();
        kept.sort();
        kept
    };
    let expected: Vec<Wall> = (11..15).map(minute).collect();
    for _ in 0..cuts.len() {
        assert_eq!(kept(&cuts), expected);
        cuts.rotate_left(1);
    }
    cuts.reverse();
    assert_eq!(kept(&cuts), expected);
}

#[test]
fn a_cut_from_the_far_future_is_not_taken() {
    let site = site(1);
    let (mut book, roster) = (site.book(0), site.roster(0));
    let order = CutOrder::Account(path("acme"));
    let ahead = site.cut(order, START.plus(HOUR));
    let refused = book.apply_cut(ahead, &roster, START).unwrap_err();
    assert!(matches!(refused, PolicyError::Record(RecordError::NotYet { .. })), "{refused}");
    // A key stays closed even where the clock is far behind.
    let order = CutOrder::Key(KeyId([1; 8]));
    let cut = site.cut(order, START);
    assert_eq!(book.apply_cut(cut, &roster, Wall(0)), Ok(true));
}

#[test]
fn paths_and_ids_are_checked_wherever_they_come_from() {
    for good in ["acme", "a/b/c", "a.b_c-9/x"] {
        assert_eq!(good.parse::<AccountPath>().unwrap().as_str(), good);
    }
    let long = format!("{}/x", "a".repeat(49));
    for bad in ["", "/", "a/", "/a", "A", "a/b/c/d", "a b", "a#1", "é", &long] {
        assert!(bad.parse::<AccountPath>().is_err(), "{bad}");
        let bytes = selvedge_base::codec::encode_datagram(&bad, 1 << 10).unwrap();
        assert!(selvedge_base::codec::decode_body::<AccountPath>(&bytes).is_err(), "{bad}");
    }
    let app = path("acme/line3/chat");
    assert_eq!(app.upward().collect::<Vec<_>>(), ["acme/line3/chat", "acme/line3", "acme"]);
    assert!(path("acme/line3").covers(&app) && !path("acme/line").covers(&app));
    for text in ["acme", "acme/x#00ff00ff00ff00ff"] {
        assert_eq!(level(text).to_string(), text);
    }
    for bad in ["acme#", "acme#00ff", "#00ff00ff00ff00ff", "acme#+0ff00ff00ff00ff"] {
        assert!(bad.parse::<Level>().is_err(), "{bad}");
    }
}

#[test]
fn a_right_that_was_good_once_makes_no_other_one_good() {
    let site = site(1);
    let (mut book, roster) = (site.book(0), site.roster(0));
    let good = site.key(draft("acme"), 5, START).notice;
    assert_eq!(book.apply_key(good, &roster, START), Ok(true));
    let mut flipped = site.steward.clone();
    flipped.signature.0[0] ^= 1;
    let mut longer = site.steward.clone();
    longer.body.not_after = longer.body.not_after.plus(DAY);
    for forged in [flipped, longer] {
        let steward = Some(forged);
        let made =
            sign_key(&site.steward_key, steward, site.mesh, draft("acme"), [6; 32], START).unwrap();
        let refused = book.apply_key(made.notice, &roster, START);
        assert!(
            matches!(refused, Err(PolicyError::Record(RecordError::Signature("steward")))),
            "{refused:?}"
        );
    }
    // Nor does it outlive its node's right to stay.
    let mut roster = roster;
    let out = revoke(&site.root, None, site.mesh, node(&site.steward_key), START);
    assert_eq!(roster.apply_revocation(out, START.plus(DAY)), Ok(true));
    let late = site.key(draft("acme"), 7, START.plus(HOUR)).notice;
    let refused = book.apply_key(late, &roster, START.plus(HOUR));
    assert!(
        matches!(refused, Err(PolicyError::Record(RecordError::StewardRevoked(_)))),
        "{refused:?}"
    );
}
