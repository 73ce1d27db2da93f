//! Mutations of stored inputs.
//!
//! Owns what is done to an input; the same seed gives the same inputs on every machine. The moves
//! are those of AFL (flips, cuts, repeats, splices, words of a dictionary) and two that know where
//! a value of JSON begins and ends, since most flipped bits only break the syntax.

use selvedge_base::Dice;

/// Bytes of a mutated input: enough for any shape, little enough for thousands a second.
pub const MAX_INPUT: usize = 32 << 10;
/// Moves made on one input at most: more make noise of it.
const MAX_MOVES: u64 = 5;

/// Values that parsers of text trip over.
const WORDS: &[&[u8]] = &[
    b"null",
    b"true",
    b"-0",
    b"0",
    b"-1",
    b"1e999",
    b"-1e999",
    b"1e-999",
    b"NaN",
    b"Infinity",
    b"0.1",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"1.7976931348623157e308",
    b"\"\"",
    b"\"\\ud800\"",
    b"\"\\udc00\\ud800\"",
    b"\"\\u0000\"",
    b"\"\\u006dodel\"",
    b"\"\xff\"",
    b"[]",
    b"{}",
    b"[[]]",
    b"{\"\":{}}",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":",
    b"\r\n",
    b"\r",
    b"\n\n",
    b"\r\n\r\n",
    b"\n\r\n",
    b"data: ",
    b"data: [DONE]\n\n",
    b"event: error\n",
    b": \n",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\xa6\x80",
    b"\xc0\x80",
    b"\xe2\x80\xa8",
    b"%00",
    b"%2f",
    b"../",
    b"\\",
    b"\"",
    b"=",
    b"-",
];

/// Numbers that parsers of lengths trip over, written in several widths.
const NUMBERS: &[u64] = &[
    0,
    1,
    0x7f,
    0x80,
    0xff,
    250,
    251,
    252,
    253,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// A mutation of `input`; `other` is a second input to take pieces from, `words` are the target's
/// own.
pub fn mutate(input: &[u8], other: &[u8], words: &[&str], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.below(MAX_MOVES) {
        one_move(&mut bytes, other, words, dice);
    }
    bytes.truncate(MAX_INPUT);
    bytes
}

fn one_move(bytes: &mut Vec<u8>, other: &[u8], words: &[&str], dice: &mut Dice) {
    let at = index(dice, bytes.len() + 1);
    match dice.below(12) {
        0 if !bytes.is_empty() => {
            let at = index(dice, bytes.len());
            bytes[at] ^= 1 << dice.below(8);
        }
        1 if !bytes.is_empty() => {
            let at = index(dice, bytes.len());
            bytes[at] = dice.next() as u8;
        }
        2 => bytes.truncate(at),
        3 => {
            let (from, to) = range(bytes.len(), dice);
            bytes.drain(from..to);
        }
        4 => {
            let (from, to) = range(bytes.len(), dice);
            let piece = bytes[from..to].to_vec();
            let times = 1 + index(dice, 8);
            insert(bytes, at, &piece.repeat(times));
        }
        5 => {
            let (from, to) = range(other.len(), dice);
            insert(bytes, at, &other[from..to]);
        }
        6 => {
            let number = NUMBERS[index(dice, NUMBERS.len())];
            let width = [1, 2, 4, 8][index(dice, 4)];
            let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
            let number = if dice.chance(500) { &little[..width] } else { &big[8 - width..] };
            let end = (at + width).min(bytes.len());
            bytes.splice(at..end, number.iter().copied());
        }
        7 => insert(bytes, at, word(words, dice)),
        8 | 9 => {
            let Some((from, to)) = value(bytes, dice) else { return };
            let with = match dice.chance(400).then(|| value(other, dice)).flatten() {
                Some((from, to)) => other[from..to].to_vec(),
                None => word(words, dice).to_vec(),
            };
            bytes.splice(from..to, with);
        }
        10 => {
            // The same member twice, the second one with another value.
            let Some((from, to)) = value(bytes, dice) else { return };
            let begin = bytes[..from].iter().rposition(|byte| matches!(byte, b',' | b'{' | b'['));
            let begin = begin.map_or(0, |at| at + 1);
            let mut member = vec![b','];
            member.extend_from_slice(&bytes[begin..from]);
            member.extend_from_slice(word(words, dice));
            insert(bytes, to, &member);
        }
        _ => {
            let open: &[u8] = [&b"["[..], b"{\"a\":", b"\n", b" ", b"\0"][index(dice, 5)];
            insert(bytes, at, &open.repeat(1 << dice.below(10)));
        }
    }
}

/// Some value of JSON: where it begins and ends, by its punctuation alone.
fn value(bytes: &[u8], dice: &mut Dice) -> Option<(usize, usize)> {
    let from = index(dice, bytes.len().max(1));
    let begins = |byte: &u8| matches!(byte, b':' | b',' | b'[');
    let mut from = from + bytes.get(from..)?.iter().position(begins)? + 1;
    from += bytes[from..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    if bytes[from] == b'"' {
        let mut to = from + 1;
        while to < bytes.len() && bytes[to] != b'"' {
            to += 1 + usize::from(bytes[to] == b'\\');
        }
        return Some((from, (to + 1).min(bytes.len())));
    }
    let mut depth = 0_u32;
    for (at, byte) in bytes[from..].iter().enumerate() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' if depth == 0 => return Some((from, from + at)),
            b']' | b'}' if depth == 1 => return Some((from, from + at + 1)),
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => return Some((from, from + at)),
            _ => {}
        }
    }
    None
}

fn word<'w>(words: &'w [&'w str], dice: &mut Dice) -> &'w [u8] {
    match words.is_empty() || dice.chance(600) {
        true => WORDS[index(dice, WORDS.len())],
        false => words[index(dice, words.len())].as_bytes(),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let at = at.min(bytes.len());
    let room = MAX_INPUT.saturating_sub(bytes.len());
    bytes.splice(at..at, piece[..piece.len().min(room)].iter().copied());
}

fn range(length: usize, dice: &mut Dice) -> (usize, usize) {
    let from = index(dice, length + 1);
    // Short pieces more often than long ones.
    let most = if dice.chance(700) { 32 } else { length };
    (from, (from + index(dice, most + 1)).min(length))
}

fn index(dice: &mut Dice, below: usize) -> usize {
    dice.below(below as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_again_and_others_differ() {
        let inputs = |seed| -> Vec<Vec<u8>> {
            let mut dice = Dice::keyed(seed, "test");
            (0..200).map(|_| mutate(b"{\"a\":[1,\"b\"]}", b"[2]", &["word"], &mut dice)).collect()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        assert!(inputs(1).iter().any(|input| input.windows(4).any(|part| part == b"word")));
    }

    #[test]
    fn inputs_stay_within_their_bound() {
        let mut dice = Dice::keyed(1, "bound");
        let mut bytes = vec![b'['; MAX_INPUT];
        for _ in 0..500 {
            bytes = mutate(&bytes, &bytes, &[], &mut dice);
            assert!(bytes.len() <= MAX_INPUT);
        }
    }

    #[test]
    fn values_are_found_by_their_punctuation() {
        let text = b"{\"a\":{\"b\":[1,2]},\"c\":\"x\\\"y\"}";
        let mut dice = Dice::keyed(1, "values");
        let found: std::collections::BTreeSet<&[u8]> = (0..400)
            .filter_map(|_| value(text, &mut dice))
            .map(|(from, to)| &text[from..to])
            .collect();
        for wanted in [&b"{\"b\":[1,2]}"[..], b"[1,2]", b"2", b"\"x\\\"y\""] {
            assert!(found.contains(wanted), "{found:?}");
        }
    }
}
