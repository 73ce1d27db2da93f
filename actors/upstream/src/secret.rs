//! Text that must never be seen.
//!
//! Owns the type: wiped when dropped, redacted when printed, compared in constant time. What it
//! holds is reached by one method, whose name is easy to look for.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What is shown instead.
const REDACTED: &str = "[redacted]";
/// Secrets shorter than this show nothing of themselves: four characters of them would be too much.
const HINT_FROM: usize = 16;
/// Characters of a longer one that tell people which it is.
const HINT_CHARS: usize = 4;
/// Shorter texts are not looked for in what a provider says: they would be found everywhere.
const SCRUB_FROM: usize = 6;

/// A key, password or token.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over a text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that puts it on the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The last four characters of a long secret; nothing of a short one.
    pub fn hint(&self) -> String {
        if self.0.len() < HINT_FROM || !self.0.is_ascii() {
            return String::new();
        }
        self.0[self.0.len() - HINT_CHARS..].to_owned()
    }

    /// Takes every occurrence out of what somebody else said.
    pub(crate) fn scrub(&self, said: &mut Vec<u8>) {
        let secret = self.0.as_bytes();
        if secret.len() < SCRUB_FROM {
            return;
        }
        let mut from = 0;
        let find = |said: &[u8]| said.windows(secret.len()).position(|window| window == secret);
        while let Some(at) = said.get(from..).and_then(find) {
            said.splice(from + at..from + at + secret.len(), REDACTED.bytes());
            // What was put there is passed over: a secret may be part of it.
            from += at + REDACTED.len();
        }
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_is_printed() {
        let secret = Secret::new("sk-planted-0123456789".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "[redacted] Some([redacted])");
        assert_eq!(secret.hint(), "6789");
        assert_eq!(Secret::new("short".to_owned()).hint(), "");
    }

    #[test]
    fn it_is_taken_out_of_what_others_say() {
        let secret = Secret::new("sk-planted".to_owned());
        let mut said = b"bad key sk-planted, really: sk-planted".to_vec();
        secret.scrub(&mut said);
        assert_eq!(said, b"bad key [redacted], really: [redacted]");
        let mut said = b"it is redacted".to_vec();
        Secret::new("redacted".to_owned()).scrub(&mut said);
        assert_eq!(said, b"it is [redacted]");
        let mut said = b"nothing".to_vec();
        Secret::new(String::new()).scrub(&mut said);
        assert_eq!(said, b"nothing");
    }
}
