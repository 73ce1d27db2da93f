//! An answer that broke off in the middle: what of it the caller has, and how another target goes
//! on after it.
//!
//! Owns whether an answer can be gone on with at all, which targets say that they can do it, and
//! the seam between the parts. Who is asked, and how often, is [`crate::journey`]'s; how a provider
//! is told where to go on its dialect's; nodes of the mesh go on among themselves from tokens
//! ([`crate::flow`]).
//!
//! Only an answer of plain text is gone on with. A call of a tool or a JSON value in the middle may
//! have no second half that fits, log probabilities were promised of one model, thinking is signed
//! by who thought it.

use crate::catalogue::{Capability, Model};
use crate::upstream::provider::Continues;
use crate::upstream::{ProviderKind, ProviderSpec};

/// The longest beginning that is kept to go on after: some 16,000 tokens, longer than nearly all
/// answers, and of two thousand streams at once an eighth of a gigabyte.
pub const MAX_KEPT_BYTES: usize = 64 << 10;

/// What the caller has of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoFar {
    text: String,
    spoiled: bool,
}

/// How a provider's model is told to go on; none when it cannot be.
pub fn way(spec: &ProviderSpec, model: Option<&Model>) -> Continues {
    match (spec.continues, spec.kind) {
        (Continues::No, ProviderKind::Ollama) => Continues::LastMessage,
        (Continues::No, ProviderKind::Anthropic) => {
            let knows = |model: &Model| model.abilities.can.contains(&Capability::Prefill);
            if model.is_some_and(knows) { Continues::LastMessage } else { Continues::No }
        }
        (said, _) => said,
    }
}

impl SoFar {
    /// Text went to the caller.
    pub fn said(&mut self, text: &str) {
        if self.spoiled {
            return;
        }
        if self.text.len() + text.len() > MAX_KEPT_BYTES {
            return self.spoil();
        }
        self.text.push_str(text);
    }

    /// Something else went there, after which nobody can go on.
    pub fn spoil(&mut self) {
        (self.text, self.spoiled) = (String::new(), true);
    }

    /// Whether somebody can go on after it.
    pub const fn is_plain(&self) -> bool {
        !self.spoiled
    }

    /// All text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What another model is given as its own beginning, and the seam to what it says then. Spaces
    /// at the end are kept back: providers refuse them, and models go on better from a word.
    pub fn split(&self) -> (&str, Seam) {
        let begun = self.text.trim_end();
        (begun, Seam { space: self.text[begun.len()..].to_owned() })
    }
}

/// Joins what another model says to what the caller has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seam {
    /// What the caller has at the end and the model was not given: it may say it again.
    space: String,
}

impl Seam {
    /// What the caller has not got of the next piece.
    pub fn join<'t>(&mut self, piece: &'t str) -> &'t str {
        let mut rest = piece;
        while let (Some(had), Some(said)) = (self.space.chars().next(), rest.chars().next()) {
            if had != said {
                self.space.clear();
                break;
            }
            self.space.drain(..had.len_utf8());
            rest = &rest[said.len_utf8()..];
        }
        rest
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalogue::Catalogue;
    use crate::paid::known;
    use crate::upstream::RawProvider;

    #[test]
    fn those_go_on_who_say_that_they_can() {
        let way_of = |kind, model: &str, continues| {
            let keys = vec!["k".to_owned()];
            let raw = RawProvider { keys, continues, ..RawProvider::named("cloud", kind) };
            let spec = raw.checked().unwrap();
            way(&spec, known(Catalogue::built_in().unwrap(), &spec, model).as_deref())
        };
        let (no, last) = (Continues::No, Continues::LastMessage);
        assert_eq!(way_of(ProviderKind::Anthropic, "claude-sonnet-4-5", no), last);
        assert_eq!(way_of(ProviderKind::Anthropic, "claude-sonnet-4-6", no), no);
        assert_eq!(way_of(ProviderKind::Anthropic, "unheard-of", no), no);
        assert_eq!(way_of(ProviderKind::Ollama, "any", no), last);
        assert_eq!(way_of(ProviderKind::OpenAi, "gpt-4o", no), no);
        assert_eq!(way_of(ProviderKind::OpenAi, "any", Continues::Prefix), Continues::Prefix);
    }

    #[test]
    fn what_is_no_text_or_too_much_cannot_be_gone_on_with() {
        let mut so_far = SoFar::default();
        so_far.said("Good");
        assert!(so_far.is_plain());
        so_far.said(&"x".repeat(MAX_KEPT_BYTES));
        assert!(!so_far.is_plain() && so_far.text().is_empty());
        let mut called = SoFar::default();
        called.spoil();
        called.said("Good");
        assert!(!called.is_plain() && called.text().is_empty());
    }

    proptest! {
        /// Whether the other model says the spaces again or not, the caller has them once; and
        /// what is cut how makes no difference.
        #[test]
        fn the_caller_sees_no_seam(
            words in prop::collection::vec("[a-zé]{1,5}", 1..4),
            space in "[ \n\t]{0,4}",
            rest in "[a-zé]{1,5}[ a-z\n]{0,12}",
            again in any::<bool>(),
            cuts in prop::collection::vec(1_usize..4, 0..6),
        ) {
            let begun = words.join(" ");
            let mut so_far = SoFar::default();
            so_far.said(&begun);
            so_far.said(&space);
            let (given, mut seam) = so_far.split();
            prop_assert_eq!(given, begun.as_str());
            let said = if again { format!("{space}{rest}") } else { rest.clone() };
            let mut seen = so_far.text().to_owned();
            let mut left: Vec<char> = said.chars().collect();
            for cut in cuts {
                let piece: String = left.drain(..cut.min(left.len())).collect();
                seen.push_str(seam.join(&piece));
            }
            let last: String = left.into_iter().collect();
            seen.push_str(seam.join(&last));
            prop_assert_eq!(seen, format!("{begun}{space}{rest}"));
        }
    }
}
