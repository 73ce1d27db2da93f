//! The driver of the local engine: the same orders and answers as `llama.cpp/driver.cpp`.
//!
//! Owns what is measured of ours: the engine as the node runs it, through its public interface,
//! with its queue, its schedule, its sampling and its text. Greedy, so that runs repeat.

use std::io::BufRead;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use selvedge_base::{ModelDigest, Mono, RequestId};
use selvedge_contract::{
    Answer, Engine, EventSink, Further, GenerateRequest, Input, ModelState, Sampling,
};
use selvedge_engine::{EngineConfig, Keeping, LocalEngine};

use crate::driver::{Measured, tell, tell_list};
use crate::load::Load;
use crate::place::now;

mod clients;

/// The argument that makes this program the driver.
pub(crate) const WORD: &str = "--drive-ours";

/// The name of the model inside: there is only one.
const DIGEST: ModelDigest = ModelDigest([0; 32]);
/// Tokens of the first prompt, as many as the other side takes.
pub(crate) const WARMING: u32 = 16;
/// How often is looked whether the model is loaded: a hundredth of what loading takes.
const LOOK: Duration = Duration::from_millis(1);
/// A model may end an answer before it was long enough to be measured. So many beginnings are tried
/// together, so many times, for those that it goes on with.
const TRIED: usize = 16;
const TRIES: usize = 16;
/// What is measured of answers must be at least this share of the steps asked for, in percent.
const LEAST_PERCENT: usize = 40;
/// Answers that come together last longer than the steps that are measured, by a quarter: the first
/// of them goes on alone while the prompts of the others are read beside it.
const LASTING: (u32, u32) = (5, 4);
/// Memory for keys and values, as times what an engine must have free, which is 32 pages: the mixed
/// load holds six answers of three pages and two of seventeen. The other side's are made for what
/// is asked, too, and an engine keeps beginnings that may come again as long as it has room.
const ROOM: (u64, u64) = (13, 8);
/// What prompts are cut from, so that the model goes on in sentences and does not end at once.
const STORY: &str = "a small boat left the harbour in the early morning, and the old man who \
    sailed it had told nobody where he was going, because he did not know it himself yet. Once \
    he had passed the last of the islands, he began to tell the story of his life, and it went";

/// Serves orders until there are no more. With a directory, the model's packed weights are kept
/// there, or mapped if they are.
pub(crate) fn serve(model: &Path, threads: usize, packed: Option<&Path>) -> Result<()> {
    let mut asked = Asked::load(model, threads, packed)?;
    tell(Measured { tokens: 0, took: asked.began.elapsed() })?;
    let mut is_warm = false;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (what, numbers) = words.split_first().context("an empty order")?;
        let numbers: Vec<u32> =
            numbers.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
        // The first step makes threads' memory, which is not what is measured; not sooner, as the
        // other side may still be loading.
        if !is_warm {
            let first = asked.prefill(WARMING, u32::MAX)?;
            is_warm = true;
            if let ("first", [WARMING]) = (*what, numbers.as_slice()) {
                tell(first)?;
                continue;
            }
        }
        if let ("load", Some(load)) = (*what, Load::parse(&numbers)) {
            tell_list(asked.load_of(&load)?)?;
            continue;
        }
        tell(match (*what, numbers.as_slice()) {
            ("prefill", &[tokens, salt]) => asked.prefill(tokens, salt)?,
            ("decode", &[sequences, prompt, steps, _]) => {
                asked.decode(sequences, prompt as usize, steps)?
            }
            _ => bail!("not understood: {line}"),
        })?;
    }
    Ok(())
}

/// A prompt of arbitrary tokens. No two of a run begin alike, so that none is helped by another.
fn arbitrary(count: u32, salt: u32) -> Vec<u32> {
    (0..count).map(|at| 1_000 + (at * 7 + salt % 20_000 * 131) % 20_000).collect()
}

/// Waits until a model can be asked.
pub(crate) fn wait_until_loaded(engine: &LocalEngine, digest: ModelDigest) -> Result<()> {
    loop {
        match engine.status().models.first().map(|model| model.state) {
            Some(ModelState::Ready) => return Ok(()),
            Some(ModelState::Failed) => bail!("{:?}", engine.failure(digest)),
            Some(ModelState::Cold | ModelState::Loading) | None => thread::park_timeout(LOOK),
        }
    }
}

/// The engine and what was asked of it so far.
struct Asked {
    engine: LocalEngine,
    began: Instant,
    next: u128,
    /// Beginnings that the model answers at length, and how long they and the answers are.
    lasting: Vec<(usize, u32, Vec<u32>)>,
    /// Beginnings that were tried.
    tried: usize,
}

/// An event of one of several answers, and when it came.
struct Event {
    of: usize,
    at: Duration,
    answer: Answer,
}

struct Outlet {
    of: usize,
    began: Instant,
    events: mpsc::Sender<Event>,
}

impl EventSink for Outlet {
    fn send(&mut self, answer: Answer) -> bool {
        self.events.send(Event { of: self.of, at: self.began.elapsed(), answer }).is_ok()
    }
}

impl Asked {
    fn load(model: &Path, threads: usize, packed: Option<&Path>) -> Result<Self> {
        let began = now();
        let clock = Arc::new(move || Mono(began.elapsed().as_micros() as u64));
        // Each token by a step of its own, as the other side computes them.
        let needs = selvedge_engine::needs(model, false)?;
        let memory_budget_bytes = needs.held_bytes + needs.answer_bytes * ROOM.0 / ROOM.1;
        let keep = |directory: &Path| {
            let max_bytes = Keeping::USUAL_BYTES;
            Keeping { directory: directory.to_owned(), max_bytes }
        };
        let config = EngineConfig {
            threads,
            speculation: false,
            memory_budget_bytes,
            keeping: packed.map(keep),
            ..EngineConfig::default()
        };
        let engine = LocalEngine::start(config, clock)?;
        engine.add_model(model, "model", DIGEST)?;
        wait_until_loaded(&engine, DIGEST)?;
        Ok(Self { engine, began, next: 0, lasting: Vec::new(), tried: 0 })
    }

    /// A prompt of arbitrary tokens, from its submission to the first token of its answer.
    fn prefill(&mut self, count: u32, salt: u32) -> Result<Measured> {
        let before = self.began.elapsed();
        let (sender, events) = mpsc::channel();
        self.submit(0, arbitrary(count, salt), 1, sender)?;
        let mut after = None;
        for event in events {
            match event.answer {
                Answer::Token(_) => after = after.or(Some(event.at)),
                // A first token that ends the answer is not told.
                Answer::Finished { usage, .. } => {
                    ensure!(usage.cached_tokens == 0, "a prompt was known already");
                    after = after.or(Some(event.at));
                }
                Answer::Failed(refusal) => bail!("{refusal}"),
                Answer::Started { .. } => {}
            }
        }
        let took = after.context("no answer")?.saturating_sub(before);
        Ok(Measured { tokens: count, took })
    }

    /// Answers of `steps` tokens together, while all of them are being computed.
    fn decode(&mut self, count: u32, prompt: usize, steps: u32) -> Result<Measured> {
        let length = if count == 1 { steps } else { steps * LASTING.0 / LASTING.1 };
        let prompts = self.lasting(count as usize, prompt, length)?;
        let measured = together(&self.answers(prompts, length)?).context("answers apart")?;
        let least = count as usize * steps as usize * LEAST_PERCENT / 100;
        ensure!(
            measured.tokens as usize >= least,
            "{count} answers of {length} tokens have {} tokens in common, {least} wanted",
            measured.tokens
        );
        Ok(measured)
    }

    /// So many prompts that the model answers at such length. Sought once: an answer is the same
    /// whatever else is computed with it, and no tenant gains by what another one computed.
    fn lasting(&mut self, count: usize, prompt: usize, length: u32) -> Result<Vec<Vec<u32>>> {
        for again in 0..=TRIES {
            let known = self.lasting.iter().filter(|known| (known.0, known.1) == (prompt, length));
            let known: Vec<Vec<u32>> = known.take(count).map(|known| known.2.clone()).collect();
            if known.len() == count {
                return Ok(known);
            }
            if again == TRIES {
                break;
            }
            let tried = self.tried..self.tried + TRIED;
            let stories: Vec<Vec<u32>> =
                tried.clone().map(|of| self.story(0, of, prompt)).collect::<Result<_>>()?;
            self.tried = tried.end;
            let times = self.answers(stories.clone(), length)?;
            let long = stories.into_iter().zip(times);
            let long = long.filter(|(_, times)| times.len() >= length as usize);
            self.lasting.extend(long.map(|(story, _)| (prompt, length, story)));
        }
        bail!("of {} beginnings fewer than {count} led to {length} tokens", TRIED * TRIES)
    }

    /// When the tokens of each answer came.
    fn answers(&mut self, prompts: Vec<Vec<u32>>, steps: u32) -> Result<Vec<Vec<Duration>>> {
        let (sender, events) = mpsc::channel();
        let mut times = vec![Vec::new(); prompts.len()];
        for (of, tokens) in prompts.into_iter().enumerate() {
            self.submit(of, tokens, steps, sender.clone())?;
        }
        drop(sender);
        for event in events {
            match event.answer {
                Answer::Token(_) => times[event.of].push(event.at),
                Answer::Failed(refusal) => bail!("{refusal}"),
                Answer::Started { .. } | Answer::Finished { .. } => {}
            }
        }
        Ok(times)
    }

    /// A prompt of so many tokens that a model goes on with.
    fn story(&self, salt: u32, of: usize, count: usize) -> Result<Vec<u32>> {
        let text = format!("{salt}, {of}: it was the day on which {STORY}");
        let begun = self.engine.begun(DIGEST, &Input::Text(String::new()), &text);
        let mut tokens = begun.map_err(anyhow::Error::msg)?;
        tokens.truncate(count);
        Ok(tokens)
    }

    fn submit(
        &mut self,
        of: usize,
        tokens: Vec<u32>,
        max_tokens: u32,
        events: mpsc::Sender<Event>,
    ) -> Result<()> {
        self.next += 1;
        let sampling = Sampling {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            further: Further::NONE,
        };
        let request = GenerateRequest {
            id: RequestId(self.next),
            model: DIGEST,
            input: Input::Tokens(tokens),
            sampling,
            max_tokens,
            stop: Vec::new(),
            logprobs: None,
            schema: None,
            emitted: None,
        };
        let outlet = Outlet { of, began: self.began, events };
        // Each by another tenant: what one computed must not spare another the work.
        let tenant = self.next.to_string();
        self.engine.submit(&tenant, request, Box::new(outlet)).map_err(anyhow::Error::msg)
    }
}

/// What came between the last answer's first token and the first answer's last one: in that time
/// every step computed all of them.
fn together(times: &[Vec<Duration>]) -> Option<Measured> {
    let begin = times.iter().map(|times| times.first()).collect::<Option<Vec<_>>>()?;
    let end = times.iter().map(|times| times.last()).collect::<Option<Vec<_>>>()?;
    let (begin, end) = (*begin.into_iter().max()?, *end.into_iter().min()?);
    let took = end.checked_sub(begin).filter(|took| !took.is_zero())?;
    let within = times.iter().flatten().filter(|&&at| at > begin && at <= end);
    Some(Measured { tokens: u32::try_from(within.count()).ok()?, took })
}

/// So many that the second answer begins long before the first one ends, on a busy machine too.
#[cfg(test)]
pub(crate) const TEST_STEPS: u32 = 512;

/// A short prompt and two answers together, for tests.
#[cfg(test)]
pub(crate) fn measure_once(model: &Path) -> Result<(Measured, Measured)> {
    let mut asked = Asked::load(model, 2, None)?;
    Ok((asked.prefill(32, 0)?, asked.decode(2, 8, TEST_STEPS)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(times: &[u64]) -> Vec<Duration> {
        times.iter().map(|&ms| Duration::from_millis(ms)).collect()
    }

    #[test]
    fn only_the_time_of_all_answers_together_counts() {
        // The second begins at 20, the first ends at 50: three tokens of the first, two of the
        // second.
        let times = [at(&[10, 20, 30, 40, 50]), at(&[20, 35, 50, 60, 70])];
        let measured = together(&times).unwrap();
        assert_eq!(measured, Measured { tokens: 5, took: Duration::from_millis(30) });
    }

    #[test]
    fn answers_that_were_never_together_measure_nothing() {
        assert_eq!(together(&[at(&[10, 20]), at(&[30, 40])]), None);
        assert_eq!(together(&[at(&[10, 20]), at(&[])]), None);
        assert_eq!(together(&[]), None);
    }
}
