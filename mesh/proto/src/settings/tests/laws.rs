//! The laws of merging, against a reference that keeps everything it ever heard.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// All versions by setting; what governs is the highest of them.
#[derive(Clone, Debug, Default)]
struct Reference(BTreeMap<SettingKey, BTreeSet<(u32, u64, [u8; 32])>>);

impl Reference {
    fn hear(&mut self, notice: &SettingNotice) {
        let body = &notice.signed.body;
        let rank = (body.generation, body.version, Setting::id(notice));
        self.0.entry(body.key.clone()).or_default().insert(rank);
    }

    fn ids(&self, key: &SettingKey) -> Vec<[u8; 32]> {
        let versions = self.0.get(key).into_iter().flatten().rev();
        versions.take(MAX_HISTORY).map(|(_, _, id)| *id).collect()
    }
}

const NAMES: [&str; 3] = ["chat", "code", "*"];

#[derive(Clone, Copy, Debug)]
enum Step {
    /// At a node, a steward changes a setting; nothing removes it.
    Change { node: usize, name: usize, content: Option<u8> },
    /// One node hears all that another has.
    Hear { to: usize, from: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3usize, 0..3usize, proptest::option::of(any::<u8>()))
            .prop_map(|(node, name, content)| Step::Change { node, name, content }),
        1 => (0..3usize, 0..3usize).prop_map(|(to, from)| Step::Hear { to, from }),
    ]
}

fn lines(book: &SettingsBook) -> Vec<Vec<SettingNotice>> {
    book.lines.values().map(|line| line.notices().cloned().collect()).collect()
}

fn merged(site: &Site, mut into: SettingsBook, from: &SettingsBook) -> SettingsBook {
    for line in lines(from) {
        into.apply(line, &site.roster(), START).unwrap();
    }
    into
}

/// Carries steps out at three nodes that begin with nothing.
fn carried_out(site: &Site, steps: &[Step]) -> (Vec<SettingsBook>, Vec<Reference>) {
    let mut books = vec![SettingsBook::new(site.mesh); 3];
    let mut heard = vec![Reference::default(); 3];
    for step in steps {
        match *step {
            Step::Change { node, name, content } => {
                let content = content.map(|byte| vec![1, byte]);
                let key = key(NAMES[name]);
                // Nothing to remove is refused, and changes nothing.
                let Ok(next) = books[node].next(key, content, 0, START) else { continue };
                let notice = site.signed(node % 2, next);
                heard[node].hear(&notice);
                books[node].apply(vec![notice], &site.roster(), START).unwrap();
            }
            Step::Hear { to, from } => {
                let theirs = heard[from].clone();
                for (key, versions) in theirs.0 {
                    heard[to].0.entry(key).or_default().extend(versions);
                }
                let from = books[from].clone();
                books[to] = merged(site, books[to].clone(), &from);
            }
        }
    }
    (books, heard)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_book_keeps_what_the_reference_keeps(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let site = site();
        let (books, heard) = carried_out(&site, &steps);
        for (book, reference) in books.iter().zip(&heard) {
            for name in NAMES {
                let ids: Vec<_> = book.history(&key(name)).map(Setting::id).collect();
                prop_assert_eq!(ids, reference.ids(&key(name)));
            }
        }
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let site = site();
        let (books, _) = carried_out(&site, &steps);
        let [a, b, c] = &books[..] else { unreachable!() };
        let merge = |into: &SettingsBook, from: &SettingsBook| merged(&site, into.clone(), from);
        prop_assert_eq!(&merge(a, b).lines, &merge(b, a).lines);
        prop_assert_eq!(&merge(&merge(a, b), c).lines, &merge(a, &merge(b, c)).lines);
        prop_assert_eq!(&merge(a, a).lines, &a.lines);
        prop_assert_eq!(merge(a, b).bytes(), merge(b, a).bytes());
    }

    /// Any two that exchange end alike, whatever was lost of former exchanges, and then are silent.
    #[test]
    fn whoever_talks_comes_to_know_the_same(
        steps in proptest::collection::vec(step(), 1..30),
        turn in any::<u64>(),
    ) {
        let site = site();
        let (mut books, _) = carried_out(&site, &steps);
        let (mut a, mut b) = (books.remove(0), books.remove(0));
        prop_assert!(talk(&site, &mut a, &mut b, turn, START) <= 4);
        prop_assert_eq!(&a.lines, &b.lines);
        prop_assert_eq!(talk(&site, &mut b, &mut a, turn, START), 1);
    }
}
