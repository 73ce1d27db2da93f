#![allow(clippy::unwrap_used, clippy::expect_used)]

mod laws;

use ed25519_dalek::SigningKey;
use selvedge_base::codec::{MAX_FRAME, decode_body, encode_datagram};
use selvedge_base::{MeshId, NodeId, Wall};

use super::*;
use crate::records::{
    CLOCK_SKEW, Roster, STEWARD_LEASE, Signed, Signer, Steward, grant_steward, revoke, rotate_root,
};

const START: Wall = Wall(1_795_384_234_000);
const MINUTE: Micros = Micros::secs(60);

/// A mesh with its root key and two stewards.
struct Site {
    mesh: MeshId,
    root: SigningKey,
    stewards: Vec<(SigningKey, Signed<Steward>)>,
}

fn site() -> Site {
    let root = SigningKey::from_bytes(&[1; 32]);
    let mesh = MeshId(root.public());
    let steward = |name: u8| {
        let key = SigningKey::from_bytes(&[name; 32]);
        let node = NodeId(key.public());
        let record = grant_steward(&root, mesh, 0, node, START, STEWARD_LEASE);
        (key, record)
    };
    Site { mesh, stewards: vec![steward(2), steward(3)], root }
}

impl Site {
    fn roster(&self) -> Roster {
        Roster::new(self.mesh, NodeId([9; 32]))
    }

    /// The next version at a book, signed by a steward.
    fn next(
        &self,
        book: &SettingsBook,
        by: usize,
        name: &str,
        content: Option<&[u8]>,
        wall: Wall,
    ) -> SettingNotice {
        let next = book.next(key(name), content.map(<[u8]>::to_vec), 0, wall).unwrap();
        self.signed(by, next)
    }

    fn signed(&self, by: usize, setting: Setting) -> SettingNotice {
        let (key, steward) = &self.stewards[by];
        sign_setting(key, Some(steward.clone()), setting)
    }

    fn set(&self, book: &mut SettingsBook, by: usize, name: &str, content: Option<&[u8]>) {
        let notice = self.next(book, by, name, content, START);
        assert_eq!(book.apply(vec![notice], &self.roster(), START), Ok(true));
    }
}

fn key(name: &str) -> SettingKey {
    SettingKey { kind: 1, name: name.to_owned() }
}

fn said(book: &SettingsBook) -> Vec<(String, u64, Vec<u8>)> {
    let line = |(head, content): (&Setting, &[u8])| {
        (head.key.name.clone(), head.version, content.to_vec())
    };
    book.current().map(line).collect()
}

/// Two nodes exchange messages until neither has anything to say; how many were sent.
fn talk(site: &Site, a: &mut SettingsBook, b: &mut SettingsBook, turn: u64, wall: Wall) -> usize {
    let mut next = Some((a.greeting(), false));
    let mut sent = 0;
    while let Some((message, to_a)) = next {
        sent += 1;
        let bytes = encode_datagram(&message, MAX_FRAME).unwrap();
        let message: SettingsMessage = decode_body(&bytes).unwrap();
        let book = if to_a { &mut *a } else { &mut *b };
        if let SettingsMessage::Delta(delta) = &message {
            let changed = book.apply_all(delta.clone(), &site.roster(), wall);
            assert_eq!(changed.refused, []);
        }
        next = book.answer(&message, turn).map(|answer| (answer, !to_a));
    }
    sent
}

#[test]
fn a_setting_is_changed_removed_and_brought_back() {
    let (site, mut book) = (site(), SettingsBook::new(site().mesh));
    site.set(&mut book, 0, "chat", Some(b"1one"));
    site.set(&mut book, 1, "chat", Some(b"1two"));
    assert_eq!(said(&book), [("chat".to_owned(), 2, b"1two".to_vec())]);
    assert_eq!(book.content_of(&key("chat"), &Which::Before), Ok(Some(b"1one".to_vec())));

    let first = Which::Labelled("1".to_owned());
    let again = book.content_of(&key("chat"), &first).unwrap();
    site.set(&mut book, 0, "chat", again.as_deref());
    assert_eq!(said(&book), [("chat".to_owned(), 3, b"1one".to_vec())]);

    site.set(&mut book, 0, "chat", None);
    assert_eq!(said(&book), []);
    assert_eq!(book.len(), 1, "that it was removed is remembered");
    let none = book.next(key("chat"), None, 0, START);
    assert_eq!(none, Err(SettingError::Unknown("chat".to_owned())));
    let label = Setting::label(book.history(&key("chat")).nth(2).unwrap());
    let again = book.content_of(&key("chat"), &Which::Labelled(label)).unwrap();
    site.set(&mut book, 0, "chat", again.as_deref());
    assert_eq!(said(&book), [("chat".to_owned(), 5, b"1two".to_vec())]);
    let gone = Which::Labelled("9".to_owned());
    let error = book.content_of(&key("chat"), &gone).unwrap_err().to_string();
    assert!(error.contains("no version 9"), "{error}");
    assert!(book.content_of(&key("other"), &gone).is_err());
}

#[test]
fn of_two_sides_of_a_cut_the_same_one_governs_everywhere() {
    let site = site();
    let (mut a, mut b) = (SettingsBook::new(site.mesh), SettingsBook::new(site.mesh));
    site.set(&mut a, 0, "chat", Some(b"1begin"));
    talk(&site, &mut a, &mut b, 0, START);
    site.set(&mut a, 0, "chat", Some(b"1left"));
    site.set(&mut b, 1, "chat", Some(b"1right"));
    site.set(&mut b, 1, "more", Some(b"1more"));
    assert!(talk(&site, &mut a, &mut b, 1, START) <= 4);
    assert_eq!(a.lines, b.lines);
    assert_eq!(talk(&site, &mut a, &mut b, 2, START), 1, "nothing is left to say");
    let ids: Vec<_> = a.history(&key("chat")).map(Setting::id).collect();
    assert_eq!(ids.len(), 3, "the version that lost is kept");
    assert!(ids[0] > ids[1]);
    // Whoever changes it next is above both.
    site.set(&mut b, 1, "chat", Some(b"1next"));
    talk(&site, &mut a, &mut b, 3, START);
    assert_eq!(said(&a)[0].2, b"1next");
}

#[test]
fn only_who_may_sign_is_taken() {
    let (site, mut book) = (site(), SettingsBook::new(site().mesh));
    let roster = site.roster();
    let draft = book.next(key("chat"), Some(b"1x".to_vec()), 0, START).unwrap();
    let stranger = SigningKey::from_bytes(&[7; 32]);
    let mut refuse = |notice: SettingNotice, why: &str| {
        let error = book.apply(vec![notice], &roster, START).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(book.is_empty());
    };
    refuse(sign_setting(&stranger, None, draft.clone()), "wrong key");
    let steward = site.stewards[0].1.clone();
    refuse(sign_setting(&stranger, Some(steward.clone()), draft.clone()), "wrong key");
    let mut changed = site.signed(0, draft.clone());
    changed.signed.body.content = Some(b"1y".to_vec());
    refuse(changed, "signature is wrong");
    let elsewhere = Setting { mesh: MeshId([5; 32]), ..draft.clone() };
    refuse(site.signed(0, elsewhere), "belongs to mesh");
    let late = Setting { issued: START.plus(CLOCK_SKEW).plus(MINUTE), ..draft.clone() };
    refuse(site.signed(0, late), "in the future");
    let odd = Setting { generation: 1, ..draft.clone() };
    refuse(site.signed(0, odd), "generation");
    refuse(site.signed(0, Setting { version: 0, ..draft.clone() }), "no version");
    let large = Setting { content: Some(vec![1; MAX_CONTENT_BYTES + 1]), ..draft.clone() };
    refuse(site.signed(0, large), "bytes of content");
    let unnamed = Setting { key: key("two words"), ..draft.clone() };
    refuse(site.signed(0, unnamed), "printable");
    assert_eq!(book.apply(vec![sign_setting(&site.root, None, draft)], &roster, START), Ok(true));
}

#[test]
fn what_a_steward_signed_after_it_was_put_out_counts_nowhere() {
    let site = site();
    let (mut early, mut late) = (SettingsBook::new(site.mesh), SettingsBook::new(site.mesh));
    let mut roster = site.roster();
    site.set(&mut early, 0, "chat", Some(b"1good"));
    late.lines.clone_from(&early.lines);
    let ended = START.plus(MINUTE);
    let after = ended.plus(MINUTE);
    let bad = site.next(&early, 1, "chat", Some(b"1bad"), after);
    assert_eq!(early.apply(vec![bad.clone()], &roster, after), Ok(true));
    let out = revoke(&site.root, None, site.mesh, NodeId(site.stewards[1].0.public()), ended);
    roster.apply_revocation(out, after).unwrap();
    assert!(early.heed(&roster) && !early.heed(&roster));
    assert!(late.apply(vec![bad], &roster, after).is_err());
    assert_eq!(early.lines, late.lines);
    assert_eq!(said(&early)[0].2, b"1good");
}

#[test]
fn a_replaced_root_key_cannot_bring_its_settings_back() {
    let site = site();
    let mut roster = site.roster();
    let mut book = SettingsBook::new(site.mesh);
    let new = SigningKey::from_bytes(&[6; 32]);
    let rotation = rotate_root(&site.root, site.mesh, &[], new.public(), START).unwrap();
    roster.apply_rotation(rotation).unwrap();
    let now = START.plus(MINUTE);
    let next = book.next(key("chat"), Some(b"1new".to_vec()), 1, now).unwrap();
    let signed = sign_setting(&new, None, next);
    assert_eq!(book.apply(vec![signed], &roster, now), Ok(true));
    let old = book.next(key("chat"), Some(b"1old".to_vec()), 0, START).unwrap_err();
    assert!(old.to_string().contains("renew this steward"), "{old}");
    let mut stolen = Setting {
        mesh: site.mesh,
        key: key("chat"),
        generation: 0,
        version: u64::MAX,
        content: Some(b"1old".to_vec()),
        issued: START,
    };
    // Dated back to when the key was good, it is taken, and governs nothing.
    let back = sign_setting(&site.root, None, stolen.clone());
    assert_eq!(book.apply(vec![back], &roster, now), Ok(true));
    assert_eq!(said(&book)[0].2, b"1new");
    stolen.issued = START.plus(CLOCK_SKEW).plus(MINUTE);
    let back = sign_setting(&site.root, None, stolen);
    assert!(book.apply(vec![back], &roster, stolen_now()).is_err());
}

#[test]
fn a_new_root_key_goes_on_after_the_last_version_there_is() {
    let site = site();
    let mut roster = site.roster();
    let mut book = SettingsBook::new(site.mesh);
    let last = Setting {
        mesh: site.mesh,
        key: key("chat"),
        generation: 0,
        version: u64::MAX,
        content: Some(b"1last".to_vec()),
        issued: START,
    };
    let signed = sign_setting(&site.root, None, last);
    assert_eq!(book.apply(vec![signed], &roster, START), Ok(true));
    let full = book.next(key("chat"), Some(b"1more".to_vec()), 0, START).unwrap_err();
    assert!(matches!(full, SettingError::LastVersion(_)), "{full}");
    let new = SigningKey::from_bytes(&[6; 32]);
    let rotation = rotate_root(&site.root, site.mesh, &[], new.public(), START).unwrap();
    roster.apply_rotation(rotation).unwrap();
    let now = START.plus(MINUTE);
    let next = book.next(key("chat"), Some(b"1more".to_vec()), 1, now).unwrap();
    assert_eq!(book.apply(vec![sign_setting(&new, None, next)], &roster, now), Ok(true));
    assert_eq!(said(&book)[0].2, b"1more");
}

fn stolen_now() -> Wall {
    START.plus(CLOCK_SKEW).plus(MINUTE)
}

#[test]
fn what_was_removed_is_forgotten_in_the_end_and_does_not_come_back() {
    let site = site();
    let (mut a, mut b) = (SettingsBook::new(site.mesh), SettingsBook::new(site.mesh));
    site.set(&mut a, 0, "chat", Some(b"1x"));
    let old = a.clone();
    site.set(&mut a, 0, "chat", None);
    talk(&site, &mut a, &mut b, 0, START);
    let end = START.plus(REMOVED_KEPT);
    assert!(!a.tick(end));
    assert!(a.tick(end.plus(MINUTE)) && a.is_empty());
    assert_eq!(a.bytes(), 0);
    // The other one has not forgotten yet, and says so.
    talk(&site, &mut a, &mut b, 1, end.plus(MINUTE));
    assert!(a.is_empty());
    // One that was away hears of it late, and forgets what it has.
    let mut away = old;
    let line = b.history(&key("chat")).cloned().collect();
    assert_eq!(away.apply(line, &site.roster(), end.plus(MINUTE)), Ok(true));
    assert!(away.is_empty());
}

#[test]
fn everything_is_bounded() {
    let site = site();
    let roster = site.roster();
    let mut book = SettingsBook::new(site.mesh);
    for version in 0..2 * MAX_HISTORY {
        site.set(&mut book, 0, "chat", Some(&[1, version as u8]));
    }
    assert_eq!(book.history(&key("chat")).count(), MAX_HISTORY);
    let large = vec![1; MAX_CONTENT_BYTES];
    let mut full = None;
    for at in 0..=MAX_SETTINGS_BYTES / MAX_CONTENT_BYTES {
        let notice = site.next(&book, 0, &format!("large-{at}"), Some(&large), START);
        full = book.apply(vec![notice], &roster, START).err();
    }
    assert!(full.unwrap().to_string().contains("bytes are held"));
    assert!(book.bytes() <= MAX_SETTINGS_BYTES);
    // A line may be larger than a message should be; everything arrives all the same.
    let mut other = SettingsBook::new(site.mesh);
    let mut turn = 0;
    while talk(&site, &mut book, &mut other, turn, START) > 1 {
        turn += 1;
        assert!(turn < 2_000);
    }
    assert_eq!(book.lines, other.lines);
}

#[test]
fn the_disk_brings_the_same_book_back_and_nothing_damaged() {
    let site = site();
    let mut book = SettingsBook::new(site.mesh);
    site.set(&mut book, 0, "chat", Some(b"1one"));
    site.set(&mut book, 0, "chat", Some(b"1two"));
    site.set(&mut book, 1, "gone", Some(b"1x"));
    site.set(&mut book, 1, "gone", None);
    let parts = book.parts();
    assert_eq!(parts.len(), 2);
    let (again, left_out) = SettingsBook::from_parts(parts.into_values(), &site.roster(), START);
    assert_eq!((again.lines.clone(), left_out), (book.lines.clone(), vec![]));
    assert_eq!(again.bytes(), book.bytes());

    let mut damaged: Vec<SettingNotice> = book.history(&key("chat")).cloned().collect();
    damaged[0].signed.body.content = Some(b"1evil".to_vec());
    let part = SettingPart::of(damaged);
    let (again, left_out) = SettingsBook::from_parts([part], &site.roster(), START);
    assert_eq!(said(&again)[0].2, b"1one");
    assert_eq!(left_out.len(), 1);
}
