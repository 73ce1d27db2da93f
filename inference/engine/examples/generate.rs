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
    let events = ask(&engine, 1, input, 256)?;
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
        emitted: None,
    };
    engine.submit("example", request, Box::new(Outlet(sender))).map_err(anyhow::Error::msg)?;
    Ok(receiver)
}

/// Prompts of 32, 128 and 512 tokens, then 128 tokens of 1, 4, 8 and 16 answers together.
fn bench(engine: &LocalEngine) -> Result<()> {
    for length in [32u32, 128, 512] {
        let tokens = (0..length).map(|index| 1_000 + index * 7 % 20_000).collect();
        let began = Instant::now();
        let events = ask(engine, u128::from(length), Input::Tokens(tokens), 1)?;
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
                ask(engine, 1_000 * batch + index, Input::Text(text), 128)
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
    println!("{:?}", engine.status().models);
    Ok(())
}
