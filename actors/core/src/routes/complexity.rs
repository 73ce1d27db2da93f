//! How hard a request looks, as a number from 0 to 100 that anybody can recompute by hand.
//!
//! Owns the signals, what each is worth, and how they are read from text. It is a guess from the
//! outside: it knows no language and reads no meaning, so it is only ever used to *start* with a
//! smaller model.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text is read this far, in some tens of microseconds: a longer one has points for its length.
const MAX_READ_BYTES: usize = 16 << 10;
/// Marks of code: what source text has and prose has not.
const CODE_MARKS: &[&str] =
    &["```", "{\n", ");", "=>", "->", "::", "</", "#include", "def ", "fn "];
/// Marks of maths: LaTeX, and signs that prose has not.
const MATHS_MARKS: &[&str] = &[
    "\\frac", "\\sum", "\\int", "$$", "\\(", "\u{2211}", "\u{222b}", "\u{221a}", "\u{2264}", "^2",
];

/// What complexity is told by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signals {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Messages of the caller.
    pub turns: u32,
    /// Marks of code in the last of them.
    pub code_marks: u32,
    /// Marks of maths in it.
    pub maths_marks: u32,
    /// Tools that are offered.
    pub tools: u32,
    /// The caller's limit for the answer; 0 when it set none.
    pub asked_output: u32,
    /// Whether the answer must fit a schema.
    pub schema: bool,
}

/// A score with what it is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complexity {
    /// One for each 100 tokens of the prompt, at most 30.
    pub length: u32,
    /// Two for each message of the caller after the first, at most 10.
    pub turns: u32,
    /// Four for each mark of code, at most 20.
    pub code: u32,
    /// Five for each mark of maths, at most 15.
    pub maths: u32,
    /// Three for each tool, at most 10.
    pub tools: u32,
    /// One for each 200 tokens of answer asked for, at most 10.
    pub output: u32,
    /// Five when the answer must fit a schema.
    pub schema: u32,
}

impl Signals {
    /// Adds the marks of a text.
    pub fn read(&mut self, text: &str) {
        let mut end = text.len().min(MAX_READ_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        let count = |marks: &[&str]| {
            let found: usize = marks.iter().map(|mark| text.matches(mark).count()).sum();
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        self.code_marks = self.code_marks.saturating_add(count(CODE_MARKS));
        self.maths_marks = self.maths_marks.saturating_add(count(MATHS_MARKS));
    }

    /// What they are worth.
    pub fn complexity(&self) -> Complexity {
        Complexity {
            length: (self.prompt_tokens / 100).min(30),
            turns: self.turns.saturating_sub(1).saturating_mul(2).min(10),
            code: self.code_marks.saturating_mul(4).min(20),
            maths: self.maths_marks.saturating_mul(5).min(15),
            tools: self.tools.saturating_mul(3).min(10),
            output: (self.asked_output / 200).min(10),
            schema: if self.schema { 5 } else { 0 },
        }
    }
}

impl Complexity {
    /// The sum of its parts, 0 to 100.
    pub const fn score(&self) -> u32 {
        let Self { length, turns, code, maths, tools, output, schema } = *self;
        length + turns + code + maths + tools + output + schema
    }
}

impl fmt::Display for Complexity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of 100", self.score())?;
        let parts = [
            ("length", self.length),
            ("turns", self.turns),
            ("code", self.code),
            ("maths", self.maths),
            ("tools", self.tools),
            ("asked output", self.output),
            ("schema", self.schema),
        ];
        let mut before = ": ";
        for (what, points) in parts.into_iter().filter(|(_, points)| *points > 0) {
            write!(f, "{before}{what} {points}")?;
            before = ", ";
        }
        Ok(())
    }
}
