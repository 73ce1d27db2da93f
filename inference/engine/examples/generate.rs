//! Answers one prompt with a model file, to try the engine by hand; with `--bench`, measures it.
//!
//! `cargo run -p selvedge-engine --example generate -- MODEL "prompt"`

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for people")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use selvedge_base::{ModelDigest, Mono, RequestId};
use selvedge_contract::{
    Answer, ChatMessage, Engine, EventSink, Further, GenerateRequest, Input, ModelState, Role,
    Sampling,
};
use selvedge_engine::{EngineConfig, LocalEngine};

const DIGEST: ModelDigest = ModelDigest([0; 32]);

struct Outlet(mpsc::Sender<Answer>);

impl EventSink for Outlet {
    fn send(&mut self, event: Answer) -> bool {
        self.0.send(event).is_ok()
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: generate MODEL PROMPT | generate MODEL --bench";
    let (model, prompt) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let started = Instant::now();
    let clock: Arc<dyn Fn() -> Mono + Send + Sync> =
        Arc::new(move || Mono(started.elapsed().as_micros() as u64));
    let is_bench = prompt == "--bench";
    // What is measured is what a step computes; what is computed ahead is measured apart.
    let config = EngineConfig { speculation: !is_bench, ..EngineConfig::default() };
    let engine = LocalEngine::start(config, Arc::clone(&clock))?;
    let card = engine.add_model(Path::new(&model), "model", DIGEST)?;
    println!("{card:?}");
    wait_until_loaded(&engine)?;
    println!("loaded after {} ms", started.elapsed().as_millis());
    if is_bench {
        bench(&engine)?;
        let config = EngineConfig { speculation: true, ..EngineConfig::default() };
        let ahead = LocalEngine::start(config, clock)?;
        ahead.add_model(Path::new(&model), "model", DIGEST)?;
        wait_until_loaded(&ahead)?;
        return speculation(&engine, &ahead, card.chat);
    }
    let message = ChatMessage { role: Role::User, content: prompt.clone() };
    let input = if card.chat { Input::Chat(vec![message]) } else { Input::Text(prompt) };
    let events = ask(&engine, "example", 1, input, 256)?;
    for event in events {
        match event {
            Answer::Started { prompt_tokens, .. } => println!("{prompt_tokens} prompt tokens"),
            Answer::Token(token) => print!("{}", token.text),
            Answer::Finished { reason, text, usage } => println!("{text}\n{reason:?} {usage:?}"),
            Answer::Failed(refusal) => bail!("{refusal}"),
        }
        std::io::stdout().flush()?;
    }
    println!("{:?}", engine.status().models);
    engine.shutdown();
    Ok(())
}

fn wait_until_loaded(engine: &LocalEngine) -> Result<()> {
    loop {
        match engine.status().models.first().map(|model| model.state) {
            Some(ModelState::Ready) => return Ok(()),
            Some(ModelState::Failed) => bail!("{:?}", engine.failure(DIGEST)),
            Some(ModelState::Cold | ModelState::Loading) | None => {
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
        }
    }
}

fn ask(
    engine: &LocalEngine,
    tenant: &str,
    id: u128,
    input: Input,
    max_tokens: u32,
) -> Result<mpsc::Receiver<Answer>> {
    let (sender, receiver) = mpsc::channel();
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
        id: RequestId(id),
        model: DIGEST,
        input,
        sampling,
        max_tokens,
        stop: Vec::new(),
        logprobs: None,
        schema: None,
        emitted: None,
    };
    engine.submit(tenant, request, Box::new(Outlet(sender))).map_err(anyhow::Error::msg)?;
    Ok(receiver)
}

/// Prompts of 32, 128 and 512 tokens, then 128 tokens of 1, 4, 8 and 16 answers together, then the
/// first token of prompts whose beginning the engine has or has not.
fn bench(engine: &LocalEngine) -> Result<()> {
    for length in [32u32, 128, 512] {
        let tokens = (0..length).map(|index| 1_000 + index * 7 % 20_000).collect();
        let began = Instant::now();
        // A tenant of its own, so that nothing is there of the one before.
        let tenant = length.to_string();
        let events = ask(engine, &tenant, u128::from(length), Input::Tokens(tokens), 1)?;
        if !events.iter().any(|event| matches!(event, Answer::Finished { .. })) {
            bail!("no answer");
        }
        let rate = f64::from(length) / began.elapsed().as_secs_f64();
        println!("prefill {length}: {rate:.0} tokens/s");
    }
    for batch in [1u128, 4, 8, 16] {
        let answers: Vec<_> = (0..batch)
            .map(|index| {
                let text = format!("Once upon a time, number {index}, there was a");
                ask(engine, "decode", 1_000 * batch + index, Input::Text(text), 128)
            })
            .collect::<Result<_>>()?;
        let mut began = None;
        let mut tokens = 0u32;
        for event in answers.into_iter().flatten() {
            if let Answer::Token(_) = event {
                began.get_or_insert_with(Instant::now);
                tokens += 1;
            }
        }
        let took = began.context("no answer")?.elapsed().as_secs_f64();
        println!("decode {batch}: {:.1} tokens/s together", f64::from(tokens) / took);
    }
    beginnings(engine)?;
    println!("{:?}", engine.status().models);
    Ok(())
}

/// Text of the kind that answers repeat.
const TEXT: &str = "The harbour master keeps a list of all ships that enter the harbour, with the \
    day of their arrival, the name of their captain and the goods that they carry. Ships that \
    carry coal pay two crowns for each day, ships that carry grain pay one crown, and fishing \
    boats pay nothing. A ship that stays for more than thirty days pays double from then on.";
/// Data of that kind.
const DATA: &str = concat!(
    r#"[{"name": "Anna", "city": "Bergen", "age": 34, "active": true}, "#,
    r#"{"name": "Jonas", "city": "Oslo", "age": 41, "active": true}, "#,
    r#"{"name": "Mette", "city": "Aarhus", "age": 29, "active": true}, "#,
    r#"{"name": "Lars", "city": "Malmo", "age": 53, "active": true}]"#,
);
/// Times each answer is measured with and without, in turn.
const ROUNDS: u128 = 7;

/// Answers that repeat their prompt and answers that do not, with and without tokens computed
/// ahead, alone and four together. The answers must be the same.
fn speculation(plain: &LocalEngine, ahead: &LocalEngine, chat: bool) -> Result<()> {
    let tasks = [
        ("repeat a text", format!("Repeat the following text word for word.\n\n{TEXT}"), 128),
        ("repeat data", format!("Repeat the following JSON exactly.\n\n{DATA}"), 128),
        ("a story", "Write a long story about a lighthouse keeper and a whale.".to_owned(), 256),
        ("a letter", "Write a letter to the mayor about noise at night.".to_owned(), 256),
        ("a program", "Write a Python class for a bank account with tests.".to_owned(), 256),
    ];
    for (name, prompt, most) in tasks {
        for together in [1u128, 4] {
            let mut rates = [Vec::new(), Vec::new()];
            let mut said = Vec::new();
            let before = ahead.drafts().first().map(|(_, drafts)| *drafts).unwrap_or_default();
            for round in 0..ROUNDS {
                for (engine, rates) in [plain, ahead].into_iter().zip(&mut rates) {
                    let (rate, tokens) =
                        answers(engine, (prompt.as_str(), chat), (round, together), most)?;
                    rates.push(rate);
                    said.push(tokens);
                }
            }
            anyhow::ensure!(said.windows(2).all(|two| two[0] == two[1]), "{name}: other tokens");
            let after = ahead.drafts().first().map(|(_, drafts)| *drafts).unwrap_or_default();
            let [plain, ahead] = rates.map(|mut rates| {
                rates.sort_by(f64::total_cmp);
                rates[rates.len() / 2]
            });
            let tokens = said.first().map_or(0, Vec::len) as u128 * ROUNDS;
            println!(
                "{name}, {together} together: {plain:.0} tokens/s, ahead {ahead:.0}, ratio {:.3}; \
                 of {tokens} tokens {} were there, {} for nothing",
                ahead / plain,
                after.accepted - before.accepted,
                after.drafted - before.drafted - (after.accepted - before.accepted),
            );
        }
    }
    Ok(())
}

/// Tokens a second of some answers together, from the first token of all on, and the tokens.
fn answers(
    engine: &LocalEngine,
    (prompt, chat): (&str, bool),
    (round, together): (u128, u128),
    most: u32,
) -> Result<(f64, Vec<u32>)> {
    let streams: Vec<_> = (0..together)
        .map(|index| {
            // Each begins otherwise, so that they do not all say the same.
            let prompt = if index == 0 { prompt.to_owned() } else { format!("({index}) {prompt}") };
            let message = ChatMessage { role: Role::User, content: prompt.clone() };
            let input = if chat { Input::Chat(vec![message]) } else { Input::Text(prompt) };
            ask(engine, "ahead", 10_000 + round * 100 + index, input, most)
        })
        .collect::<Result<_>>()?;
    let (mut tokens, mut began) = (Vec::new(), None);
    for stream in streams {
        for event in stream {
            match event {
                Answer::Token(token) => {
                    began.get_or_insert_with(Instant::now);
                    tokens.push(token.token);
                }
                Answer::Failed(refusal) => bail!("{refusal}"),
                Answer::Started { .. } | Answer::Finished { .. } => {}
            }
        }
    }
    let took = began.context("no answer")?.elapsed().as_secs_f64();
    Ok((tokens.len() as f64 / took, tokens))
}

/// 540 tokens of which the engine has the first 512, and as many of which it has none, in turn.
fn beginnings(engine: &LocalEngine) -> Result<()> {
    let first = |tenant: &str, end: u32| {
        let same = (0..512).map(|index| 1_000 + index * 7 % 20_000);
        let tokens = same.chain((0..28).map(|index| 2_000 + index * 3 + end)).collect();
        let events = ask(engine, tenant, 1, Input::Tokens(tokens), 1)?;
        let usage = events.iter().find_map(|event| match event {
            Answer::Finished { usage, .. } => Some(usage),
            Answer::Started { .. } | Answer::Token(_) | Answer::Failed(_) => None,
        });
        usage.context("no answer")
    };
    first("warm", 0)?;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for round in 1..=7 {
        let usage = first(&format!("cold {round}"), 0)?;
        cold.push(usage.first_token.0);
        let usage = first("warm", round)?;
        anyhow::ensure!(usage.cached_tokens == 512, "{usage:?}");
        warm.push(usage.first_token.0);
    }
    cold.sort_unstable();
    warm.sort_unstable();
    let (cold, warm) = (cold[3] as f64 / 1_000.0, warm[3] as f64 / 1_000.0);
    println!("first of 540: {cold:.0} ms, behind 512 kept: {warm:.0} ms, {:.1} times", cold / warm);
    Ok(())
}
