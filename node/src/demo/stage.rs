//! How the demo looks.
//!
//! Owns headings, indentation, line breaks and the colour of each node; plain text without a
//! terminal.

use std::fmt::Display;

use super::cast::Role;
use crate::ui::{Ink, out, out_part, paint};

/// Columns of text: fits the narrowest terminal in use and reads well in wider ones.
const WIDTH: usize = 76;
const INDENT: &str = "   ";
/// Letters of a bar that stands for a hundred percent: with what stands beside it, it fits.
const BAR: usize = 40;

/// Where the story stands.
#[derive(Default)]
pub(super) struct Stage {
    act: u32,
    /// The column of the answer being shown.
    column: usize,
    /// The word that is not whole yet.
    word: String,
    voice: Option<Ink>,
}

impl Stage {
    pub(super) fn title(&self, text: &str) {
        out(format_args!("{}  {text}", paint(Ink::Bold, "selvedge demo")));
    }

    /// Begins the next part.
    pub(super) fn act(&mut self, title: &str) {
        self.act += 1;
        out("");
        out(paint(Ink::Bold, format_args!("{}. {title}", self.act)));
    }

    pub(super) fn say(&self, text: impl Display) {
        for line in wrapped(&text.to_string()) {
            out(format_args!("{INDENT}{line}"));
        }
    }

    pub(super) fn remark(&self, text: &str) {
        for line in wrapped(text) {
            out(format_args!("{INDENT}{}", paint(Ink::Dim, line)));
        }
    }

    pub(super) fn question(&self, text: &str) {
        for (index, line) in wrapped(text).into_iter().enumerate() {
            let mark = if index == 0 { "> " } else { "  " };
            out(format_args!("{INDENT}{}", paint(Ink::Bold, format_args!("{mark}{line}"))));
        }
    }

    /// An answer follows, in the colour of the node that gives it.
    pub(super) fn answer_begins(&mut self, node: &str) {
        self.voice = Some(ink_of(node));
        out_part(&format!("{INDENT}{}: ", named(node)));
        self.column = node.len() + 2;
    }

    /// A piece of it. A word is shown once it is whole, so that lines break between words.
    pub(super) fn answer(&mut self, text: &str) {
        let mut shown = String::new();
        for character in text.chars() {
            match character {
                '\n' => {
                    self.word_ends(&mut shown);
                    shown.push_str(&format!("\n{INDENT}"));
                    self.column = 0;
                }
                ' ' => {
                    self.word_ends(&mut shown);
                    if self.column > 0 {
                        shown.push(' ');
                        self.column += 1;
                    }
                }
                // Control characters would move the cursor of a terminal.
                character if character.is_control() => {}
                character => self.word.push(character),
            }
        }
        self.show(&shown);
    }

    fn word_ends(&mut self, shown: &mut String) {
        let length = self.word.chars().count();
        if self.column > 0 && self.column + length > WIDTH {
            shown.push_str(&format!("\n{INDENT}"));
            self.column = 0;
        }
        shown.push_str(&self.word);
        self.column += length;
        self.word.clear();
    }

    fn show(&self, text: &str) {
        if !text.is_empty() {
            out_part(&self.voice.map_or_else(|| text.to_owned(), |ink| paint(ink, text)));
        }
    }

    /// Shows a word that may not be whole yet.
    fn flush(&mut self) {
        let mut shown = String::new();
        self.word_ends(&mut shown);
        self.show(&shown);
    }

    /// From here on another node speaks.
    pub(super) fn other_voice(&mut self, node: &str) {
        self.flush();
        self.voice = Some(ink_of(node));
        let what = format!("[{node} goes on] ");
        self.column += what.len();
        out_part(&paint(Ink::Dim, what));
    }

    /// Something happens in the middle of an answer.
    pub(super) fn interruption(&mut self, what: &str) {
        self.flush();
        out_part(&format!("\n{INDENT}{}\n{INDENT}", paint(Ink::Red, format_args!("[{what}]"))));
        self.column = 0;
    }

    pub(super) fn answer_ends(&mut self) {
        self.flush();
        self.voice = None;
        out("");
    }

    /// Lines to type, and what each does.
    pub(super) fn lines(&self, lines: &[(String, &str)]) {
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        for (line, what) in lines {
            let line = paint(Ink::Bold, format_args!("{line:<width$}"));
            out(format_args!("{INDENT}{line}  {}", paint(Ink::Dim, what)));
        }
    }

    /// Lines as they are, such as a picture made of letters.
    pub(super) fn as_is(&self, lines: &[String]) {
        for line in lines {
            out(format_args!("{INDENT}{line}"));
        }
    }

    /// Lines of a file.
    pub(super) fn file(&self, text: &str) {
        for line in text.lines() {
            out(format_args!("{INDENT}{}", paint(Ink::Dim, format_args!("  {line}"))));
        }
    }

    /// How well a round did, from 0 to 1, as a bar.
    pub(super) fn bar(&self, round: u64, part: f64, remark: &str) {
        let filled = (part.clamp(0.0, 1.0) * BAR as f64).round() as usize;
        let (full, rest) = ("█".repeat(filled), "░".repeat(BAR - filled));
        let bar = format!("{}{}", paint(Ink::Green, full), paint(Ink::Dim, rest));
        let percent = part * 100.0;
        let line = format!("round {round:>2}  {bar} {percent:>5.1} %  {remark}");
        out(format_args!("{INDENT}{}", line.trim_end()));
    }

    pub(super) fn strong(&self, text: impl Display) -> String {
        paint(Ink::Bold, text)
    }
}

/// A node's name in its colour.
pub(super) fn named(node: &str) -> String {
    paint(ink_of(node), node)
}

fn ink_of(node: &str) -> Ink {
    let inks = [
        (Role::ALDER, Ink::Green),
        (Role::BIRCH, Ink::Magenta),
        (Role::CEDAR, Ink::Cyan),
        (Role::HAZEL, Ink::Blue),
    ];
    inks.into_iter().find(|(role, _)| role.name == node).map_or(Ink::Yellow, |(_, ink)| ink)
}

/// How to call this program from here.
pub(super) fn program() -> String {
    let Ok(file) = std::env::current_exe() else { return "selvedge".to_owned() };
    let folder = file.parent();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|entry| Some(entry.as_path()) == folder) {
        return "selvedge".to_owned();
    }
    let here = std::env::current_dir().ok();
    let near = here.and_then(|here| file.strip_prefix(here).ok().map(ToOwned::to_owned));
    near.map_or_else(|| file.display().to_string(), |near| format!("./{}", near.display()))
}

/// Lines of at most the stage's width; colour codes count as nothing.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut column = 0;
    for word in text.split(' ') {
        let length = visible(word);
        if column > 0 && column + 1 + length > WIDTH {
            lines.push(String::new());
            column = 0;
        }
        let last = lines.len() - 1;
        if column > 0 {
            lines[last].push(' ');
            column += 1;
        }
        lines[last].push_str(word);
        column += length;
    }
    lines
}

fn visible(word: &str) -> usize {
    let mut length = 0;
    let mut escaped = false;
    for character in word.chars() {
        match (escaped, character) {
            (false, '\x1b') => escaped = true,
            (true, 'm') => escaped = false,
            (true, _) => {}
            (false, _) => length += 1,
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_the_stage_and_lose_no_word() {
        let text = "word ".repeat(60);
        let lines = wrapped(text.trim());
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
        assert_eq!(lines.join(" "), text.trim());
        assert_eq!(visible("\x1b[32malder\x1b[0m"), 5);
    }
}
