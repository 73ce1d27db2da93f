//! The clients of a mixed load on our side.
//!
//! Owns when each asks and what is noted of its answer. One thread hears all of them.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use selvedge_base::RequestId;
use selvedge_contract::{Answer, Engine};

use super::{Asked, Event};
use crate::load::Load;

/// How often is looked whether somebody asks again, while nothing else happens.
const LOOK: Duration = Duration::from_millis(1);
/// What an answer that is given up may take to end: a step of the largest model.
const ENDING: Duration = Duration::from_secs(30);

/// Somebody who asks again when an answer has ended.
struct Client {
    prompt: u32,
    steps: u32,
    /// How long it pauses.
    pause: Duration,
    /// Whether its prompt is of sentences, so that the answer goes on.
    streams: bool,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// Asks at this time.
    Pauses(Duration),
    /// Asked under this number at this time; the last token of the answer came then.
    Waits(u128, Duration, Option<Duration>),
}

/// The times that a load is measured by.
#[derive(Default)]
struct Times {
    firsts: Vec<Duration>,
    between: Vec<Duration>,
}

impl Client {
    /// Notes an event of its answer.
    fn heard(&mut self, event: &Event, times: &mut Times) -> Result<()> {
        let State::Waits(number, asked, last) = self.state else { return Ok(()) };
        match &event.answer {
            Answer::Token(_) => {
                match last {
                    None => times.firsts.push(event.at.saturating_sub(asked)),
                    Some(last) => times.between.push(event.at.saturating_sub(last)),
                }
                self.state = State::Waits(number, asked, Some(event.at));
            }
            Answer::Finished { .. } => self.state = State::Pauses(event.at + self.pause),
            Answer::Failed(refusal) => bail!("{refusal}"),
            Answer::Started { .. } => {}
        }
        Ok(())
    }
}

impl Asked {
    /// Serves the clients of a load for as long as it lasts. The number of answers that began, then
    /// what their first tokens took, then what lay between tokens, in microseconds.
    pub(super) fn load_of(&mut self, load: &Load) -> Result<Vec<u128>> {
        let client = |[prompt, steps]: [u32; 2], pause: u32, streams: bool, now| Client {
            prompt,
            steps,
            pause: Duration::from_millis(u64::from(pause)),
            streams,
            state: State::Pauses(now),
        };
        let now = self.began.elapsed();
        let streams = (0..load.streams).map(|_| client(load.stream, 0, true, now));
        let longs = (0..load.longs).map(|_| client(load.long, load.pause_ms, false, now));
        let mut clients: Vec<Client> = streams.chain(longs).collect();
        let end = now + Duration::from_millis(u64::from(load.lasts_ms));
        let (sender, events) = mpsc::channel();
        let (mut times, mut salt) = (Times::default(), load.salt * 1_000);
        while self.began.elapsed() < end {
            for (at, client) in clients.iter_mut().enumerate() {
                let now = self.began.elapsed();
                if matches!(client.state, State::Pauses(until) if until <= now) {
                    salt += 1;
                    let tokens = self.prompt(client, at, salt)?;
                    // What making the prompt took is no waiting.
                    let asked = self.began.elapsed();
                    self.submit(at, tokens, client.steps, sender.clone())?;
                    client.state = State::Waits(self.next, asked, None);
                }
            }
            let Ok(event) = events.recv_timeout(LOOK) else { continue };
            clients[event.of].heard(&event, &mut times)?;
        }
        self.give_up(&clients, &events)?;
        let Times { firsts, between } = times;
        let micros = firsts.iter().chain(&between).map(Duration::as_micros);
        Ok(std::iter::once(firsts.len() as u128).chain(micros).collect())
    }

    fn prompt(&self, client: &Client, at: usize, salt: u32) -> Result<Vec<u32>> {
        match client.streams {
            true => self.story(salt, at, client.prompt as usize),
            false => Ok(super::arbitrary(client.prompt, salt)),
        }
    }

    /// Ends what is under way, so that the next measurement finds an idle engine.
    fn give_up(&self, clients: &[Client], events: &mpsc::Receiver<Event>) -> Result<()> {
        let mut open = vec![false; clients.len()];
        for (client, open) in clients.iter().zip(&mut open) {
            if let State::Waits(number, ..) = client.state {
                self.engine.cancel(RequestId(number));
                *open = true;
            }
        }
        while open.contains(&true) {
            let event = events.recv_timeout(ENDING).context("an answer does not end")?;
            if matches!(event.answer, Answer::Finished { .. } | Answer::Failed(_)) {
                open[event.of] = false;
            }
        }
        Ok(())
    }
}
