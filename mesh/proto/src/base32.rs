//! Text for people to read aloud and paste: Crockford's base32.
//!
//! Owns the alphabet (no I, L, O, U) and the reading of what people type instead of it. Case,
//! spaces and dashes do not matter when reading.

/// Douglas Crockford's alphabet, in lower case.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Bytes as text: five bits a character, the last one filled with zero bits.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut held, mut bits) = (0u32, 0u32);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits) & 31) as usize]));
    }
    text
}

/// Bytes as text in groups of four characters, for comparing by eye.
pub fn grouped(bytes: &[u8]) -> String {
    let text = encode(bytes);
    let mut out = String::with_capacity(text.len() * 5 / 4 + 1);
    for (index, letter) in text.chars().enumerate() {
        if index > 0 && index % 4 == 0 {
            out.push('-');
        }
        out.push(letter);
    }
    out
}

/// The bytes of a text; `None` for letters outside the alphabet, a length that no bytes have, or
/// filling bits that are not zero.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0u32, 0u32);
    for letter in text.chars().filter(|letter| !matches!(letter, '-' | ' ')) {
        held = (held << 5) | value(letter)?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    (bits < 5 && held == 0).then_some(bytes)
}

/// The five bits of a letter; O reads as 0, I and L read as 1.
fn value(letter: char) -> Option<u32> {
    let letter = match letter.to_ascii_lowercase() {
        'o' => '0',
        'i' | 'l' => '1',
        other => other,
    };
    ALPHABET.iter().position(|known| char::from(*known) == letter).map(|at| at as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(decode(&grouped(&bytes).to_uppercase()), Some(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,64}") {
            if let Some(bytes) = decode(&text) {
                prop_assert!(bytes.len() <= text.len());
            }
        }
    }

    #[test]
    fn lookalikes_are_read_and_strangers_refused() {
        assert_eq!(decode("0O1Il"), decode("00111"));
        assert_eq!(decode("u"), None);
        assert_eq!(decode("é0"), None);
        assert_eq!(decode("7"), None, "five bits are no byte");
    }

    #[test]
    fn groups_of_four() {
        assert_eq!(grouped(&[0; 6]), "0000-0000-00");
    }
}
