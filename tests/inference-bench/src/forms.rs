//! What `selvedge models quantize` writes: whether llama.cpp reads it, and whether it foretells as
//! well there as here and as what llama.cpp writes itself.
//!
//! Owns the forms, the text and the order of the measurements. The files are written by the
//! engine's part of the command, which is all of it but names and the table; each is removed when
//! it was measured. Both sides get the same tokens, in windows with an empty memory before each.

use std::fs::{self, File};
use std::io::{BufRead, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use selvedge_engine::{Gauge, Mixture, Recipe, quantize};

use crate::driver::{Driver, Measured, Starter, tell, tell_list};
use crate::ours;
use crate::place::{self, now};
use crate::progress::say;
use crate::rounds::{Side, THREADS};

/// The argument that makes this program our side of it.
pub(crate) const WORD: &str = "--foretell";
/// What `--only` calls it, and how figures begin.
pub(crate) const NAME: &str = "quantize";
/// What the table says it is.
pub(crate) const TITLE: &str = "SmolLM2-135M-Instruct in the forms that `models quantize` writes";
/// The column of answers one by one.
pub(crate) const WRITTEN: &str = "written";

/// The first decisions of this repository as prose, as they stood when this was written: figures of
/// different days are of one text.
const TEXT: &str = include_str!("../text.txt");
/// Tokens of it. Single tokens are foretold a tenth of a nat better or worse by another rounding,
/// so that the mean of so many moves by a thousandth: a target of five is not missed by chance.
const TOKENS: usize = 8_192;
/// What is asked of both for answers: as many tokens as the model's own columns have.
const ANSWER: &str = "decode 1 32 128";
/// Rounds of answers: a median of five bears two bad ones.
const ROUNDS: u32 = 5;

/// A form that is written: what it is called, and llama.cpp's number of it where llama.cpp is to
/// write one, too (`llama_ftype`, llama.h).
struct Form {
    name: &'static str,
    mixture: Mixture,
    theirs: Option<u32>,
}

/// The file as it was published.
const SHIPPED: &str = "q4_1";
/// What the others are made of.
const HALF: Form = Form { name: "f16", mixture: Mixture::F16, theirs: None };
/// The largest first.
const FORMS: [Form; 3] = [
    Form { name: "q8_0", mixture: Mixture::Q8_0, theirs: Some(7) },
    Form { name: "q4_k_m", mixture: Mixture::Q4KM, theirs: Some(15) },
    Form { name: "q4_0", mixture: Mixture::Q4_0, theirs: Some(2) },
];

/// What was measured.
pub(crate) struct Forms {
    /// Tokens that were foretold.
    pub(crate) tokens: u64,
    pub(crate) found: Vec<Found>,
    pub(crate) rounds: u32,
}

/// What was measured of one file.
pub(crate) struct Found {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
    pub(crate) ours: Foretold,
    pub(crate) llama: Foretold,
    /// Of the file that llama.cpp wrote in this form: its size, and what llama.cpp makes of it.
    pub(crate) own: Option<(u64, Foretold)>,
    /// Tokens a second of answers, of both.
    pub(crate) written: [Side; 2],
}

/// How well and how fast a text was foretold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Foretold {
    pub(crate) perplexity: f64,
    /// Tokens read in a second, with the logits of each.
    pub(crate) rate: f64,
    tokens: u64,
}

impl Foretold {
    /// From the losses of all tokens together in nats, how many they were, how many were read, and
    /// the microseconds that took.
    fn read(numbers: &[f64]) -> Result<Self> {
        let &[loss, tokens, read, micros] = numbers else { bail!("no figures of a text") };
        ensure!(tokens > 0.0 && loss.is_finite(), "nothing was foretold");
        let (perplexity, rate) = ((loss / tokens).exp(), read * 1e6 / micros.max(1.0));
        Ok(Self { perplexity, rate, tokens: tokens as u64 })
    }
}

/// A file that goes when it was measured.
struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

impl Made {
    /// Writes a model in a form.
    fn by_us(from: &Path, form: &Form, again: bool) -> Result<Self> {
        say(&format!("{NAME}: writing {}", form.name));
        let made = Self(place::folder()?.join(format!("quantized-{}.gguf", form.name)));
        let file =
            File::create(&made.0).with_context(|| format!("creating {}", made.0.display()))?;
        let recipe = Recipe { mixture: form.mixture, again };
        quantize(from, BufWriter::new(file), recipe, &mut |_, _| ())?;
        Gauge::check(&made.0)?;
        Ok(made)
    }

    /// Has llama.cpp write it.
    fn by_them(peer: &Path, from: &Path, form: &Form, number: u32) -> Result<Self> {
        let made = Self(place::folder()?.join(format!("quantized-{}-llama.gguf", form.name)));
        // Not by priority: it is not timed.
        let starter = Starter { first: false };
        let words = ["--quantize", text(from)?, text(&made.0)?, &number.to_string()];
        starter.start(peer, &words).with_context(|| format!("llama.cpp writing {}", form.name))?;
        Ok(made)
    }
}

/// Measures all forms on both sides.
pub(crate) fn run(starter: &Starter, peer: &Path, quick: bool) -> Result<Forms> {
    let shipped = place::model()?;
    let order = order(&Gauge::windows(&shipped, TEXT, TOKENS)?)?;
    let rounds = if quick { 1 } else { ROUNDS };
    let bench = Bench { starter, peer, order, rounds };
    let mut found = vec![bench.measure(SHIPPED, &shipped)?];
    let half = Made::by_us(&shipped, &HALF, true)?;
    found.push(bench.measure(HALF.name, &half.0)?);
    for form in &FORMS {
        let made = Made::by_us(&half.0, form, false)?;
        let mut one = bench.measure(form.name, &made.0)?;
        if let Some(number) = form.theirs {
            let theirs = Made::by_them(peer, &half.0, form, number)?;
            one.own = Some((bytes(&theirs.0)?, bench.foretold(&mut bench.llama(&theirs.0)?)?));
        }
        found.push(one);
    }
    let tokens = found.first().map_or(0, |first| first.ours.tokens);
    let same = |one: &Found| one.ours.tokens == one.llama.tokens;
    ensure!(found.iter().all(same), "the two foretold different numbers of tokens");
    Ok(Forms { tokens, found, rounds })
}

/// What all measurements share.
struct Bench<'a> {
    starter: &'a Starter,
    peer: &'a Path,
    order: String,
    rounds: u32,
}

impl Bench<'_> {
    fn measure(&self, name: &'static str, model: &Path) -> Result<Found> {
        say(&format!("{NAME}: measuring {name}"));
        let this = std::env::current_exe()?;
        let threads = THREADS.to_string();
        let start = |word: &str| self.starter.start(&this, &[word, text(model)?, &threads]);
        // One after the other, so that neither's memory is in the other's caches.
        let ours = self.foretold(&mut start(WORD)?)?;
        let mut llama = self.llama(model)?;
        let theirs = self.foretold(&mut llama)?;
        let (mut written, mut engine) = ([Side::default(), Side::default()], start(ours::WORD)?);
        for round in 0..self.rounds {
            let order = format!("{ANSWER} {round}");
            let [mine, other] = &mut written;
            let mut turns = [(&mut engine, mine), (&mut llama, other)];
            turns.rotate_left(round as usize % 2);
            for (driver, side) in turns {
                side.note(WRITTEN, driver.ask(&order)?.rate());
            }
        }
        Ok(Found { name, bytes: bytes(model)?, ours, llama: theirs, own: None, written })
    }

    fn llama(&self, model: &Path) -> Result<Driver> {
        self.starter.start(self.peer, &[text(model)?, &THREADS.to_string()])
    }

    fn foretold(&self, driver: &mut Driver) -> Result<Foretold> {
        Foretold::read(&driver.list(&self.order)?)
    }
}

/// The order for a text: how long its windows are, and all tokens, window by window.
fn order(windows: &[Vec<u32>]) -> Result<String> {
    let (last, whole) = windows.split_last().context("a text without a token")?;
    let length = windows.first().map_or(0, Vec::len);
    ensure!(
        whole.iter().all(|window| window.len() == length) && last.len() <= length,
        "windows of different lengths"
    );
    let mut order = format!("foretell {length}");
    for token in windows.iter().flatten() {
        order.push_str(&format!(" {token}"));
    }
    Ok(order)
}

/// Serves orders on our side until there are no more.
pub(crate) fn serve(model: &Path, threads: usize) -> Result<()> {
    let began = now();
    let mut gauge = Gauge::open(model, threads)?;
    tell(Measured { tokens: 0, took: began.elapsed() })?;
    for line in std::io::stdin().lock().lines() {
        tell_list(foretell(&mut gauge, &line?)?)?;
    }
    Ok(())
}

/// The losses of all tokens that have another before them in their window, how many they are, how
/// many were read, and the microseconds that the model took.
fn foretell(gauge: &mut Gauge, line: &str) -> Result<[f64; 4]> {
    let mut words = line.split_whitespace();
    ensure!(words.next() == Some("foretell"), "not understood: {line}");
    let length: usize = words.next().context("no length of windows")?.parse()?;
    ensure!(length > 1, "windows of {length}");
    let tokens: Vec<u32> = words.map(|word| word.parse()).collect::<Result<_, _>>()?;
    let began = now();
    let clock = || began.elapsed();
    // The first use makes memory, which is not what is measured.
    if let Some(window) = tokens.chunks(length).next() {
        gauge.lose(window, &clock, &mut |_| ())?;
    }
    let (mut loss, mut foretold, mut micros) = (0.0, 0, 0);
    for window in tokens.chunks(length) {
        let (lost, took) = gauge.lose(window, &clock, &mut |_| ())?;
        loss += lost;
        foretold += window.len() - 1;
        micros += took.as_micros();
    }
    Ok([loss, foretold as f64, tokens.len() as f64, micros as f64])
}

fn bytes(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn losses_become_a_perplexity() {
        let told = Foretold::read(&[7.0_f64.ln() * 10.0, 10.0, 12.0, 2e6]).unwrap();
        assert!((told.perplexity - 7.0).abs() < 1e-9 && (told.rate - 6.0).abs() < 1e-9);
        for bad in [&[][..], &[1.0, 0.0, 1.0, 1.0], &[1.0, 1.0, 1.0]] {
            assert!(Foretold::read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn windows_are_ordered_so_that_they_can_be_told_apart() {
        let windows = [vec![1, 2, 3], vec![4, 5, 6], vec![7]];
        assert_eq!(order(&windows).unwrap(), "foretell 3 1 2 3 4 5 6 7");
        assert!(order(&[]).is_err());
        assert!(order(&[vec![1], vec![2, 3]]).is_err());
        assert!(order(&[vec![1, 2], vec![3], vec![4, 5]]).is_err());
    }

    /// What the processes compute is what the command tells of the same tokens.
    #[test]
    fn the_real_model_foretells_by_order_what_it_foretells_by_text() {
        let model = place::model().unwrap();
        let whole = Gauge::windows(&model, TEXT, TOKENS).unwrap();
        assert_eq!(whole.iter().map(Vec::len).sum::<usize>(), TOKENS, "the text is long enough");
        let some = 40;
        let order = order(&Gauge::windows(&model, TEXT, some).unwrap()).unwrap();
        let mut gauge = Gauge::open(&model, 2).unwrap();
        let told = Foretold::read(&foretell(&mut gauge, &order).unwrap()).unwrap();
        let gauged = gauge.foretell(TEXT, some, &mut |_, _| ()).unwrap();
        assert_eq!(told.tokens, gauged.tokens as u64);
        assert!((told.perplexity / gauged.perplexity - 1.0).abs() < 1e-9, "{told:?} {gauged:?}");
        for bad in ["", "decode 3 1 2", "foretell", "foretell 1 5 6", "foretell 4 x"] {
            assert!(foretell(&mut gauge, bad).is_err(), "{bad}");
        }
    }
}
