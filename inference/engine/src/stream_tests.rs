use proptest::prelude::*;

use super::*;

fn run(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, bool, String) {
    let mut stream = TextStream::new(&stops.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    let texts = pieces.iter().map(|piece| stream.push(piece)).collect();
    let stopped = stream.stopped();
    (texts, stopped, stream.finish())
}

#[test]
fn characters_are_never_split() {
    let (texts, _, tail) = run(&[], &[b"a\xe2", b"\x82", b"\xac!", b"\xf0\x9f"]);
    assert_eq!(texts, ["a", "", "€!", ""]);
    assert_eq!(tail, "\u{fffd}");
}

#[test]
fn bytes_that_are_no_character_become_replacements() {
    let (texts, _, _) = run(&[], &[b"\xff", b"\xe2", b"x", b"\x80\x80"]);
    assert_eq!(texts, ["\u{fffd}", "", "\u{fffd}x", "\u{fffd}\u{fffd}"]);
}

#[test]
fn what_may_become_a_stop_text_is_held_back() {
    let (texts, stopped, tail) = run(&["END", "</s>"], &[b"the E", b"N", b"d </", b"s", b">x"]);
    assert_eq!(texts, ["the ", "", "ENd ", "", ""]);
    assert!(stopped);
    assert_eq!(tail, "");
    let (texts, stopped, tail) = run(&["END"], &[b"x EN"]);
    assert_eq!((texts, stopped, tail), (vec!["x ".to_owned()], false, "EN".to_owned()));
}

#[test]
fn the_first_stop_text_wins_and_nothing_follows_it() {
    let (texts, stopped, tail) = run(&["b", "ab"], &[b"xaby", b"more"]);
    assert!(stopped);
    assert_eq!((texts, tail), (vec!["x".to_owned(), String::new()], String::new()));
}

proptest! {
    /// However bytes are cut into tokens, the text is the same; with no stop it is the lossy text.
    #[test]
    fn text_does_not_depend_on_how_bytes_are_cut(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'a'), Just(b'b')], 0..60),
        cuts in prop::collection::vec(1usize..6, 0..60),
        stop in "[ab]{1,3}",
    ) {
        let join = |stops: &[String], cuts: &[usize]| {
            let mut stream = TextStream::new(stops);
            let mut rest = &bytes[..];
            let mut text = String::new();
            for &cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                text.push_str(&stream.push(piece));
                rest = after;
            }
            text.push_str(&stream.push(rest));
            text + &stream.finish()
        };
        prop_assert_eq!(join(&[], &cuts), String::from_utf8_lossy(&bytes));
        let stops = [stop.clone()];
        let stopped = join(&stops, &cuts);
        prop_assert!(!stopped.contains(&stop));
        let lossy = String::from_utf8_lossy(&bytes).into_owned();
        let expected = lossy.split(&stop).next().unwrap_or_default();
        prop_assert_eq!(&stopped, expected);
    }

    /// A stream that replays the first tokens continues exactly.
    #[test]
    fn a_replay_continues_exactly(
        tokens in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..30),
    ) {
        let mut whole = TextStream::new(&["ab".to_owned()]);
        let texts: Vec<_> = tokens.iter().map(|token| whole.push(token)).collect();
        for split in 0..=tokens.len() {
            let mut resumed = TextStream::new(&["ab".to_owned()]);
            tokens[..split].iter().for_each(|token| drop(resumed.push(token)));
            let rest: Vec<_> = tokens[split..].iter().map(|token| resumed.push(token)).collect();
            prop_assert_eq!(&rest[..], &texts[split..]);
            prop_assert_eq!(resumed.finish(), whole.clone().finish());
        }
    }
}
