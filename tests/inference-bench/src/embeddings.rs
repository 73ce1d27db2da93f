//! Vectors of texts: our model of embeddings beside ONNX Runtime's, on the same weights.
//!
//! Owns the order of the measurements and our side's driver. Texts are made of words that are one
//! token each, so that both sides read the same ones; before anything is timed their vectors are
//! compared. Ours are asked for through the engine, texts and all; the other side gets tokens.

use std::io::BufRead;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use selvedge_base::{ModelDigest, Mono, RequestId};
use selvedge_contract::{EmbedRequest, Embedded, Engine};
use selvedge_engine::{EngineConfig, LocalEngine};

use crate::driver::{Driver, Measured, Starter, tell, tell_list};
use crate::onnxruntime::Peer;
use crate::ours::wait_until_loaded;
use crate::place::{self, now};
use crate::progress::say;
use crate::rounds::{Side, THREADS};

/// The argument that makes this program our driver.
pub(crate) const WORD: &str = "--drive-embeddings";
/// How figures begin.
pub(crate) const NAME: &str = "minilm";
/// What the table says it is.
pub(crate) const TITLE: &str = "all-MiniLM-L6-v2, f32, texts a second";

/// Words of a text, two less than its tokens, by what columns call them: a question, and half of
/// the longest text that the model reads.
const LENGTHS: &[(&str, u32)] = &[("short", 14), ("long", 126)];
/// Texts of one request.
const BATCHES: &[u32] = &[1, 8, 32];
/// Rounds: a median of five bears two bad ones.
const ROUNDS: u32 = 5;
/// Vectors of one text are the same up to rounding.
const LEAST_COSINE: f64 = 0.9999;
/// Texts that are compared, of each length.
const COMPARED: u32 = 4;
/// What is measured lasts so long at least.
const LASTS: Duration = Duration::from_secs(1);
/// One token each in the model's vocabulary.
const WORDS: &str = include_str!("../onnxruntime/words.txt");

/// The name of the model inside: there is only one.
const DIGEST: ModelDigest = ModelDigest([1; 32]);

/// What was measured.
pub(crate) struct Rounds {
    pub(crate) columns: Vec<String>,
    pub(crate) ours: Side,
    pub(crate) theirs: Side,
    pub(crate) rounds: u32,
    /// The least that two vectors of one text were alike.
    pub(crate) cosine: f64,
}

/// Measures both sides.
pub(crate) fn run(starter: &Starter, peer: &Peer, quick: bool) -> Result<Rounds> {
    let rounds = if quick { 1 } else { ROUNDS };
    let orders: Vec<(String, String)> = LENGTHS
        .iter()
        .flat_map(|(name, words)| {
            let of = move |batch: &u32| {
                (format!("embed_{batch}_{name}"), format!("embed {batch} {words}"))
            };
            BATCHES.iter().map(of)
        })
        .collect();
    let columns = orders.iter().map(|(column, _)| column.clone()).collect();
    let (ours, theirs) = (Side::default(), Side::default());
    let mut all = Rounds { columns, ours, theirs, rounds, cosine: 1.0 };
    for round in 0..rounds {
        say(&format!("{NAME}: round {} of {rounds}", round + 1));
        let [mut ours, mut theirs] = start(starter, peer)?;
        if round == 0 {
            all.cosine = alike(&mut ours, &mut theirs)?;
        }
        for (number, (column, order)) in (0..).zip(&orders) {
            let order = format!("{order} {}", round * 100 + number);
            let mut turns = [(&mut ours, &mut all.ours), (&mut theirs, &mut all.theirs)];
            turns.rotate_left((round + number) as usize % 2);
            for (driver, side) in turns {
                side.note(column, driver.ask(&order)?.rate());
            }
        }
    }
    Ok(all)
}

fn start(starter: &Starter, peer: &Peer) -> Result<[Driver; 2]> {
    let folder = place::embeddings()?;
    let folder = folder.to_str().context("a path that is no text")?;
    let threads = THREADS.to_string();
    let ours = starter.start(&std::env::current_exe()?, &[WORD, folder, &threads])?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    let (driver, model, words) = (text(&peer.driver)?, text(&peer.model)?, text(&peer.words)?);
    let arguments = [driver.as_str(), folder, &model, &threads, &words];
    Ok([ours, starter.start(&peer.python, &arguments)?])
}

/// How alike the vectors of both sides are at least; refused when it is not the same model.
fn alike(ours: &mut Driver, theirs: &mut Driver) -> Result<f64> {
    let mut least = 1.0_f64;
    for (_, words) in LENGTHS {
        for salt in 0..COMPARED {
            let order = format!("vector {words} {salt}");
            let (a, b) = (ours.list(&order)?, theirs.list(&order)?);
            ensure!(a.len() == b.len(), "vectors of {} and {} numbers", a.len(), b.len());
            least = least.min(cosine(&a, &b));
        }
    }
    ensure!(least >= LEAST_COSINE, "the two compute different vectors: a cosine of {least}");
    Ok(least)
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Serves orders until there are no more.
pub(crate) fn serve(folder: &Path, threads: usize) -> Result<()> {
    let mut reader = Reader::load(folder, threads)?;
    tell(Measured { tokens: 0, took: reader.began.elapsed() })?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (what, numbers) = words.split_first().context("an empty order")?;
        let numbers: Vec<u32> =
            numbers.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
        match (*what, numbers.as_slice()) {
            ("embed", &[texts, words, salt]) => tell(reader.embed(texts, words, salt)?)?,
            ("vector", &[words, salt]) => {
                let made = reader.ask(vec![text(words, salt, 0)])?;
                tell_list(made.vectors.into_iter().next().context("no vector")?)?;
            }
            _ => bail!("not understood: {line}"),
        }
    }
    Ok(())
}

/// The engine with the model.
struct Reader {
    engine: LocalEngine,
    began: Instant,
    next: u128,
}

impl Reader {
    fn load(folder: &Path, threads: usize) -> Result<Self> {
        let began = now();
        let clock = Arc::new(move || Mono(began.elapsed().as_micros() as u64));
        let config = EngineConfig { threads, ..EngineConfig::default() };
        let engine = LocalEngine::start(config, clock)?;
        engine.add_model(folder, "model", DIGEST)?;
        wait_until_loaded(&engine, DIGEST)?;
        Ok(Self { engine, began, next: 0 })
    }

    /// Requests of so many texts, one after the other, for some time.
    fn embed(&mut self, count: u32, words: u32, salt: u32) -> Result<Measured> {
        let texts: Vec<String> = (0..count).map(|at| text(words, salt, at)).collect();
        let made = self.ask(texts.clone())?;
        let tokens = u64::from(count) * (u64::from(words) + 2);
        ensure!(made.tokens == tokens, "{} tokens where {tokens} were meant", made.tokens);
        let (began, mut done) = (now(), 0);
        loop {
            self.ask(texts.clone())?;
            done += count;
            let took = began.elapsed();
            if took >= LASTS {
                return Ok(Measured { tokens: done, took });
            }
        }
    }

    fn ask(&mut self, texts: Vec<String>) -> Result<Embedded> {
        self.next += 1;
        let (sender, made) = mpsc::channel();
        let request = EmbedRequest { id: RequestId(self.next), model: DIGEST, texts, cut: false };
        let asked = self.engine.embed(request, Box::new(move |made| drop(sender.send(made))));
        asked.map_err(anyhow::Error::msg)?;
        made.recv().context("no vectors")?.map_err(anyhow::Error::msg)
    }
}

/// A text of so many words, as the other side makes it.
fn text(words: u32, salt: u32, index: u32) -> String {
    let known: Vec<&str> = WORDS.split_whitespace().collect();
    let word =
        |at: u32| known[(salt * 7_919 + index * 131 + at * 31 + at * at) as usize % known.len()];
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_alike_up_to_their_length() {
        assert!((cosine(&[1.0, 2.0], &[2.0, 4.0]) - 1.0).abs() < 1e-12);
        assert!(cosine(&[1.0, 0.0], &[0.0, 1.0]).abs() < 1e-12);
    }

    #[test]
    fn every_word_is_one_token_of_the_model() {
        // As many as the driver counts before it measures: it refuses others.
        let mut reader = Reader::load(&place::embeddings().unwrap(), 1).unwrap();
        let words = WORDS.split_whitespace().count() as u32;
        let made = reader.ask(vec![WORDS.split_whitespace().collect::<Vec<_>>().join(" ")]);
        assert_eq!(made.unwrap().tokens, u64::from(words) + 2);
        assert_ne!(text(14, 0, 0), text(14, 1, 0));
    }
}
