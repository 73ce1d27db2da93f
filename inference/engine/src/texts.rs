//! Many texts with a number each, found by their bytes.
//!
//! Owns the order in which they lie: by length, then by bytes, so that texts of one length are one
//! piece of memory that is halved until a text is found. Needs no hash, so that no file chooses
//! texts that are slow to find.

use std::collections::BTreeMap;

/// Texts of a vocabulary, or of its control tokens.
#[derive(Debug, Default)]
pub(crate) struct Texts(BTreeMap<usize, Bucket>);

/// Texts of one length.
#[derive(Debug)]
struct Bucket {
    /// One after the other, in order.
    bytes: Vec<u8>,
    numbers: Vec<u32>,
    /// The bytes that they begin with.
    begins: Begins,
}

/// For each byte whether a text begins with it.
pub(crate) type Begins = [bool; 256];

impl Texts {
    /// Of texts that are there twice, the later one counts; empty ones do not.
    pub(crate) fn new<'a>(texts: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut all: Vec<(&[u8], u32)> = texts
            .map(|(text, number)| (text.as_bytes(), number))
            .filter(|(text, _)| !text.is_empty())
            .collect();
        // Stable: equal texts keep their order.
        all.sort_by_key(|(text, _)| (text.len(), *text));
        let mut this = Self::default();
        for (at, (text, number)) in all.iter().enumerate() {
            if all.get(at + 1).is_some_and(|(next, _)| next == text) {
                continue;
            }
            let bucket = this.0.entry(text.len()).or_insert_with(Bucket::empty);
            bucket.bytes.extend_from_slice(text);
            bucket.numbers.push(*number);
            bucket.begins[usize::from(text[0])] = true;
        }
        this
    }

    /// The number of a text.
    pub(crate) fn find(&self, text: &[u8]) -> Option<u32> {
        self.0.get(&text.len())?.find(text)
    }

    /// How long texts are, the longest first, each with the bytes that texts of it begin with.
    /// Those are kept: whoever asks for each piece of a text walks through no vocabulary.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = (usize, &Begins)> {
        self.0.iter().rev().map(|(length, bucket)| (*length, &bucket.begins))
    }
}

impl Bucket {
    const fn empty() -> Self {
        Self { bytes: Vec::new(), numbers: Vec::new(), begins: [false; 256] }
    }

    fn find(&self, text: &[u8]) -> Option<u32> {
        let (mut low, mut high) = (0, self.numbers.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.bytes[middle * text.len()..][..text.len()].cmp(text) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(self.numbers[middle]),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_and_others_are_not() {
        let words = ["a", "", "bc", "aa", "b", "bc", "abc", "ß"];
        let texts = Texts::new(words.into_iter().zip(0..));
        for (word, number) in [("a", 0), ("aa", 3), ("b", 4), ("bc", 5), ("abc", 6), ("ß", 7)] {
            assert_eq!(texts.find(word.as_bytes()), Some(number), "{word}");
        }
        for word in ["", "c", "ab", "ba", "abcd", "zz", "abb"] {
            assert_eq!(texts.find(word.as_bytes()), None, "{word}");
        }
        let all = texts.lengths().map(|(length, begins)| {
            (length, (0..256).filter(|byte| begins[*byte]).collect::<Vec<usize>>())
        });
        let (a, b) = (usize::from(b'a'), usize::from(b'b'));
        let expected = [(3, vec![a]), (2, vec![a, b, 0xc3]), (1, vec![a, b])];
        assert_eq!(all.collect::<Vec<_>>(), expected);
    }
}
