//! SHA-256 digests as people compare them.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

/// A SHA-256 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sha256Digest(pub(crate) [u8; 32]);

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256Digest({self})")
    }
}

impl FromStr for Sha256Digest {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        // The same 64 digits as a model's own digest: one parser knows how.
        match text.trim().to_lowercase().parse::<selvedge_base::ModelDigest>() {
            Ok(digest) => Ok(Self(digest.0)),
            Err(_) => bail!("'{text}' is not a SHA-256: expected 64 hexadecimal digits"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_people_paste_them() {
        let text = "AB".repeat(32);
        let digest: Sha256Digest = format!(" {text}\n").parse().unwrap();
        assert_eq!(digest.to_string(), text.to_lowercase());
        assert!("abc".parse::<Sha256Digest>().is_err());
    }
}
