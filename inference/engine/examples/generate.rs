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
    Answer, ChatMessage, Engine, EventSink, GenerateRequest, Input, ModelState, Role, Sampling,
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
    let clock = Arc::new(move || Mono(started.elapsed().as_micros() as u64));
    let engine = LocalEngine::start(EngineConfig::default(), clock)?;
    let card = engine.add_model(Path::new(&model), "model", DIGEST)?;
    println!("{card:?}");
    wait_until_loaded(&engine)?;
    println!("loaded after {} ms", started.elapsed().as_millis());
    if prompt == "--bench" {
        return bench(&engine);
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
