//! What holds an answer, as the text that crosses the wire beside a request.
//!
//! Owns the forms of that text. A JSON Schema stands as it is: nodes of every version that knows
//! schemas read it. What came later stands behind a line that begins with a mark which begins no
//! JSON. Does not own what the texts mean.

/// What an answer is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint<'a> {
    /// A JSON Schema.
    Schema(&'a str),
    /// A grammar in GBNF, as llama.cpp reads it; its rule is `root`.
    Grammar(&'a str),
    /// A regular expression that matches the whole answer.
    Regex(&'a str),
    /// A JSON array of texts, one of which the answer is.
    Choice(&'a str),
    /// Something that a newer version brought.
    Unknown,
}

/// What no JSON begins with.
const MARK: char = '#';
const GRAMMAR: &str = "#gbnf\n";
const REGEX: &str = "#regex\n";
const CHOICE: &str = "#choice\n";

impl<'a> Constraint<'a> {
    /// What a text means.
    pub fn of(text: &'a str) -> Self {
        if let Some(grammar) = text.strip_prefix(GRAMMAR) {
            return Self::Grammar(grammar);
        }
        if let Some(regex) = text.strip_prefix(REGEX) {
            return Self::Regex(regex);
        }
        if let Some(choice) = text.strip_prefix(CHOICE) {
            return Self::Choice(choice);
        }
        if text.starts_with(MARK) { Self::Unknown } else { Self::Schema(text) }
    }

    /// Its text.
    pub fn to_text(self) -> String {
        match self {
            Self::Schema(text) => text.to_owned(),
            Self::Grammar(text) => format!("{GRAMMAR}{text}"),
            Self::Regex(text) => format!("{REGEX}{text}"),
            Self::Choice(text) => format!("{CHOICE}{text}"),
            Self::Unknown => MARK.to_string(),
        }
    }

    /// What it says, without what says its form.
    pub const fn body(self) -> &'a str {
        match self {
            Self::Schema(text) | Self::Grammar(text) | Self::Regex(text) | Self::Choice(text) => {
                text
            }
            Self::Unknown => "",
        }
    }

    /// Whether nodes understand it that know schemas alone.
    pub const fn is_schema(self) -> bool {
        matches!(self, Self::Schema(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_schema_stands_as_it_is() {
        for constraint in [
            Constraint::Schema(r#"{"type":"object"}"#),
            Constraint::Schema(" true"),
            Constraint::Grammar("# a note\nroot ::= \"a\""),
            Constraint::Regex("#regex\n"),
            Constraint::Choice(r#"["a"]"#),
            Constraint::Unknown,
        ] {
            let text = constraint.to_text();
            assert_eq!(Constraint::of(&text), constraint, "{text}");
            assert_eq!(constraint.is_schema(), text == constraint.body(), "{text}");
        }
        assert_eq!(Constraint::of("#later\nx"), Constraint::Unknown);
    }
}
