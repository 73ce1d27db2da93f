//! Everything the program says to a person or a script.
//!
//! Owns standard output and standard error: colours (only on a terminal, never with `NO_COLOR`),
//! progress bars, tables, questions. Output that programs read goes to stdout, everything else to
//! stderr. No other module writes to either; logs go to stderr through `tracing`.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A colour or weight of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Blue,
    Magenta,
    Cyan,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            // The bright one: the other is hardly read on black.
            Self::Blue => "94",
            Self::Magenta => "35",
            Self::Cyan => "36",
        }
    }
}

/// Turns colours and bars off for the rest of the process, whatever the terminal.
pub(crate) fn plain() {
    PLAIN.store(true, Ordering::Relaxed);
}

static PLAIN: AtomicBool = AtomicBool::new(false);

/// Whether stdout is a terminal that wants colours.
pub(crate) fn fancy_stdout() -> bool {
    static FANCY: OnceLock<bool> = OnceLock::new();
    *FANCY.get_or_init(|| io::stdout().is_terminal() && colours_wanted())
        && !PLAIN.load(Ordering::Relaxed)
}

/// Whether stderr is a terminal that wants colours.
pub(crate) fn fancy_stderr() -> bool {
    static FANCY: OnceLock<bool> = OnceLock::new();
    *FANCY.get_or_init(|| io::stderr().is_terminal() && colours_wanted())
        && !PLAIN.load(Ordering::Relaxed)
}

fn colours_wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `text` in colour when stdout shows colours.
pub(crate) fn paint(ink: Ink, text: impl Display) -> String {
    painted(fancy_stdout(), ink, text)
}

/// `text` in colour when stderr shows colours.
pub(crate) fn paint_err(ink: Ink, text: impl Display) -> String {
    painted(fancy_stderr(), ink, text)
}

fn painted(fancy: bool, ink: Ink, text: impl Display) -> String {
    if fancy { format!("\x1b[{}m{text}\x1b[0m", ink.code()) } else { text.to_string() }
}

/// One line to stdout, flushed, so that a reader of a pipe sees it at once.
pub(crate) fn out(line: impl Display) {
    // A reader that went away (`selvedge … | head`) is no reason to fail.
    out_part(&format!("{line}\n"));
}

/// Text to stdout without a line end, flushed: for answers as they arrive.
pub(crate) fn out_part(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// One line for people, to stderr.
pub(crate) fn note(line: impl Display) {
    // In one write: several processes may share the terminal.
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// A warning to stderr.
pub(crate) fn warn(line: impl Display) {
    note(format_args!("{} {line}", paint_err(Ink::Yellow, "warning:")));
}

/// An error and its causes to stderr.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("{} {error}", paint_err(Ink::Red, "error:")));
    let mut shown = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Many errors repeat their cause in their own message; saying it once is enough.
        if !shown.contains(&text) {
            note(format_args!("  because {text}"));
            shown.push_str(&text);
        }
    }
}

/// Asks a yes-or-no question on the terminal. `None` when nobody is there to answer.
pub(crate) fn confirm(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    Some(read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a line on the terminal. `None` when nobody is there to answer.
pub(crate) fn ask_line(question: &str) -> Option<String> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).ok()?;
    Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty())
}

/// Rows as aligned columns, the first row in bold.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let length = |cell: &String| cell.chars().count();
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(length).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        let line = line.trim_end();
        text.push_str(&if index == 0 { paint(Ink::Bold, line) } else { line.to_owned() });
        if index + 1 < rows.len() {
            text.push('\n');
        }
    }
    text
}

/// Bytes as people write them (decimal units, as disks and downloads use).
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut scaled = bytes as f64;
    while scaled >= 1_000.0 && unit + 1 < UNITS.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    if unit == 0 || scaled >= 100.0 {
        format!("{scaled:.0} {}", UNITS[unit])
    } else {
        format!("{scaled:.1} {}", UNITS[unit])
    }
}

/// A span as people write it.
pub(crate) fn span_text(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        1_000_000..120_000_000 => format!("{:.1} s", micros as f64 / 1e6),
        _ => format!("{} min", micros / 60_000_000),
    }
}

/// A wait as people write it, rounded up: `45 s`, `23 min`, `5 h 20 min`, `12 d`.
pub(crate) fn wait_text(micros: u64) -> String {
    let seconds = micros.div_ceil(1_000_000);
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6_000 => format!("{} min", seconds.div_ceil(60)),
        6_000..172_800 => match (seconds / 3_600, seconds % 3_600 / 60) {
            (hours, 0) => format!("{hours} h"),
            (hours, minutes) => format!("{hours} h {minutes} min"),
        },
        _ => format!("{} d", seconds.div_ceil(86_400)),
    }
}

/// A bar on a terminal for work that is counted; hidden elsewhere.
pub(crate) fn bar(total: u64, template: &str) -> ProgressBar {
    if !fancy_stderr() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(12));
    if let Ok(style) = ProgressStyle::with_template(&format!("  {template}")) {
        bar.set_style(style.progress_chars("━━╌"));
    }
    bar
}

/// How far long work has come: a bar on a terminal, a line per quarter elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: String,
    total: Option<u64>,
    quarters: u64,
}

impl Progress {
    /// Work of `total` bytes, or of unknown size.
    pub(crate) fn bytes(what: &str, total: Option<u64>) -> Self {
        let bar = if fancy_stderr() {
            ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(12))
        } else {
            ProgressBar::hidden()
        };
        let progress = Self { bar, what: what.to_owned(), total, quarters: 0 };
        progress.dress();
        progress
    }

    fn dress(&self) {
        let template = if self.total.is_some() {
            "  {bar:28.cyan/blue} {percent:>3}%  {decimal_bytes}/{decimal_total_bytes}  \
             {decimal_bytes_per_sec}  {eta}"
        } else {
            "  {spinner}  {decimal_bytes}  {decimal_bytes_per_sec}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("━━╌"));
        }
    }

    /// Says the size once it is known.
    pub(crate) fn set_total(&mut self, total: Option<u64>) {
        if self.total != total {
            self.total = total;
            if let Some(total) = total {
                self.bar.set_length(total);
            }
            self.dress();
        }
    }

    /// Says how much is done.
    pub(crate) fn at(&mut self, done: u64) {
        self.bar.set_position(done);
        let Some(total) = self.total.filter(|total| *total > 0 && self.bar.is_hidden()) else {
            return;
        };
        // 3 and not 4: the end is announced by whoever finishes the work.
        let quarters = (done.saturating_mul(4) / total).min(3);
        if quarters > self.quarters {
            self.quarters = quarters;
            note(format_args!("{} {} %", self.what, quarters * 25));
        }
    }

    /// Takes the bar off the screen.
    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_well() {
        assert_eq!(bytes_text(0), "0 B");
        assert_eq!(bytes_text(999), "999 B");
        assert_eq!(bytes_text(98_362_432), "98.4 MB");
        assert_eq!(bytes_text(u64::MAX), "18446744 TB");
        assert_eq!(span_text(900), "900 µs");
        assert_eq!(span_text(1_500), "1.5 ms");
        assert_eq!(span_text(412_000), "412 ms");
        assert_eq!(span_text(2_500_000), "2.5 s");
    }

    #[test]
    fn waits_read_well() {
        assert_eq!(wait_text(1), "1 s");
        assert_eq!(wait_text(1_380_000_000), "23 min");
        assert_eq!(wait_text(19_200_000_000), "5 h 20 min");
        assert_eq!(wait_text(7_200_000_000), "2 h");
        assert_eq!(wait_text(86_400_000_000 * 12), "12 d");
    }

    #[test]
    fn tables_align_their_columns() {
        let rows = [vec!["name".into(), "state".into()], vec!["a-long-name".into(), "up".into()]];
        let text = table(&rows);
        let plain: Vec<&str> = text.lines().collect();
        assert!(plain[1].starts_with("a-long-name  up"), "{text}");
        assert!(plain[0].contains("name         state"), "{text}");
    }

    #[test]
    fn colour_codes_appear_only_when_wanted() {
        assert_eq!(painted(false, Ink::Red, "x"), "x");
        assert_eq!(painted(true, Ink::Red, "x"), "\x1b[31mx\x1b[0m");
    }
}
