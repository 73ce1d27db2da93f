//! Text that must not be shown.
//!
//! Owns hiding: whoever prints, logs or serializes a [`Secret`] gets a placeholder.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A token or password; empty means that there is none.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text itself, for the one place that sends it.
    pub(crate) fn reveal(&self) -> Option<&str> {
        if self.0.is_empty() { None } else { Some(&self.0) }
    }

    const fn placeholder(&self) -> &'static str {
        if self.0.is_empty() { "" } else { "(hidden)" }
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.placeholder())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.placeholder())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret((hidden))");
        assert_eq!(serde_json::to_string(&secret).ok().as_deref(), Some("\"(hidden)\""));
        assert_eq!(secret.reveal(), Some("hunter2"));
        assert_eq!(Secret::default().reveal(), None);
    }
}
