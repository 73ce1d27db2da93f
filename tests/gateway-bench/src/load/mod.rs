//! The load generator: requests on time, whole answers, latency from when each was due.
//!
//! Owns what is asked of it and what it tells. Open loop: a request is due at a fixed moment
//! whether or not the ones before it were answered, and its latency counts from that moment, so
//! that a gateway that stalls is charged for all it kept waiting (no coordinated omission). Closed
//! loop: as fast as the answers come, to find what saturates.

mod connection;
mod engine;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::scenario::{Expected, Template};

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// Each connection sends the next request when it has the answer.
    Closed,
    /// So many requests a second.
    Open(f64),
    /// One request on each connection, all at once.
    Once,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Who is asked.
    pub addr: SocketAddr,
    /// What is asked.
    pub template: Template,
    /// What a right answer is.
    pub expected: Expected,
    /// How requests follow each other.
    pub pace: Pace,
    /// Connections, all kept open.
    pub connections: usize,
    /// Load before anything counts, in milliseconds.
    pub warm_ms: u64,
    /// Load that counts, in milliseconds; for [`Pace::Once`] the patience with the answers.
    pub measure_ms: u64,
    /// Process whose CPU time is taken while it counts, with all its descendants.
    pub gateway: Option<u32>,
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Right answers that arrived while it counted.
    pub done: u64,
    /// Wrong answers and broken connections, at any time.
    pub bad: u64,
    /// What was wrong with the first one.
    pub complaint: Option<String>,
    /// Requests due while it counted that were not answered in time.
    pub unfinished: u64,
    /// How long it counted, in seconds.
    pub seconds: f64,
    /// Microseconds from when a request was due to the end of its answer.
    pub latency: Quantiles,
    /// The same to the first byte of the answer's body.
    pub first: Quantiles,
    /// Most requests that were under way at the same time with a part of their answer there.
    pub at_once: u64,
    /// Reads that brought a part of a body, for each answer.
    pub pieces: f64,
    /// Gateway's CPU time while it counted, in microseconds.
    pub gateway_cpu_us: f64,
    /// The load generator's own share of its core.
    pub own_core: f64,
}

/// Quantiles of times in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are not over it.
    pub p50: f64,
    /// 99 of 100 are not over it.
    pub p99: f64,
    /// 999 of 1,000 are not over it.
    pub p999: f64,
}

impl Quantiles {
    /// Of a histogram of nanoseconds.
    fn of(histogram: &Histogram<u64>) -> Self {
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: us(0.5), p99: us(0.99), p999: us(0.999) }
    }
}

impl Outcome {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.seconds.max(1e-9)
    }

    /// The gateway's CPU time for each answer, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.gateway_cpu_us / (self.done.max(1)) as f64
    }
}

/// Carries out the job that stands in `text` and prints the outcome as one line.
///
/// # Errors
/// When the job cannot be read or nobody listens.
pub fn main(text: &str) -> Result<()> {
    let job: Job = serde_json::from_str(text).context("the job")?;
    let outcome = engine::run(job)?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::answers::{MODELS, Protocol};
    use crate::scenario::Scenario;
    use crate::{clock, wire};

    /// Answers one connection; before the answer with number `stall.0` it waits for `stall.1`.
    fn server(stall: (usize, Duration), answer: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut buffer, mut part, mut number) = (Vec::new(), [0; 4_096], 0);
            while let Ok(count @ 1..) = stream.read(&mut part) {
                buffer.extend_from_slice(&part[..count]);
                while let Some(used) = wire::request(&buffer).unwrap().map(|request| request.used) {
                    buffer.drain(..used);
                    number += 1;
                    if number == stall.0 {
                        clock::pause(stall.1);
                    }
                    stream.write_all(&answer).unwrap();
                }
            }
        });
        addr
    }

    fn job(addr: SocketAddr) -> Job {
        Job {
            addr,
            template: Scenario::Json1k.direct(),
            expected: Scenario::Json1k.expected(true),
            pace: Pace::Open(200.0),
            connections: 1,
            warm_ms: 0,
            measure_ms: 1_000,
            gateway: None,
        }
    }

    #[test]
    fn a_stall_is_charged_for_all_that_was_due_meanwhile() {
        let answer = MODELS[0].answer(Protocol::OpenAi).head;
        let outcome = engine::run(job(server((50, Duration::from_millis(400)), answer))).unwrap();
        assert_eq!((outcome.bad, outcome.unfinished), (0, 0), "{outcome:?}");
        // Of 200 requests on the one connection a single one sees the stall when it is sent late;
        // the eighty that were due meanwhile see it when they count from when they were due.
        assert!(outcome.latency.p99 > 300_000.0, "{outcome:?}");
    }

    #[test]
    fn wrong_answers_are_counted_and_named() {
        let answer = b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno".to_vec();
        let outcome =
            engine::run(Job { pace: Pace::Once, ..job(server((0, Duration::ZERO), answer)) });
        let outcome = outcome.unwrap();
        assert_eq!((outcome.done, outcome.bad), (0, 1));
        assert!(outcome.complaint.is_some_and(|text| text.contains("status 500: no")));
    }
}
