//! One gateway in one scenario: started, asked, loaded, ended.
//!
//! Owns the steps and the names of their figures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::Figures;
use super::options::Spans;
use crate::load::{Job, Outcome, Pace, Quantiles};
use crate::peers::{self, Gateway, Peer, Setup};
use crate::process::{self, LOAD_CORE, Starter};
use crate::scenario::{Expected, Scenario, Template};
use crate::{clock, wire};

/// The slowest start of a gateway here is a fifth of this.
const STARTING: Duration = Duration::from_secs(60);
/// How long a gateway that answers may answer wrongly: some listen before they are ready.
const WRONG: Duration = Duration::from_secs(8);
/// Between two tries to ask: a start is measured to this.
const TRY: Duration = Duration::from_millis(1);
/// Before memory at rest is read: a gateway may need a while to see that it is idle.
const REST: Duration = Duration::from_secs(4);
/// Patience with one answer to a probe.
const ANSWER: Duration = Duration::from_secs(5);
/// The streams that must hold at the same time.
pub(super) const STREAMS: usize = 2_000;
/// Patience with all of them, in milliseconds: paced, they take six seconds.
const STREAMS_MS: u64 = 20_000;
/// After minutes of load, before memory at rest is read: allocators give back in ten seconds.
const COOLING: Duration = Duration::from_secs(15);
/// Share of saturation above which a fixed rate says nothing but that it is too much.
const TOO_MUCH: f64 = 0.7;

/// What all measurements of a run share.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) starter: Starter,
    pub(super) upstream: SocketAddr,
    pub(super) spans: Spans,
    pub(super) dir: PathBuf,
}

impl Bench {
    /// Everything about one gateway in one scenario, once.
    pub(super) fn measure(
        &self,
        peer: Peer,
        program: &Path,
        scenario: Scenario,
    ) -> Result<Figures> {
        let dir = self.dir.join(format!("{}-{scenario}", peer.name()));
        // What the round before has left.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let starter = self.starter.clone();
        let listen = peers::free_address()?;
        let setup = Setup { starter, upstream: self.upstream, dir, listen };
        peer.prepare(&setup)?;
        let begun = clock::now();
        let mut gateway = peer.start(program, &setup, scenario)?;
        await_answer(&mut gateway, scenario)?;
        let mut figures = Figures::new();
        let mut note = |name: &str, value: f64| figures.insert(name.to_owned(), value);
        note("start_ms", begun.elapsed().as_secs_f64() * 1e3);
        let stranger = probe(gateway.addr, &gateway.stranger(scenario));
        note("stranger_status", stranger.map_or(0.0, |(status, _)| f64::from(status)));
        clock::pause(REST);
        note("idle_mib", process::memory(gateway.process.id())?.0);
        match scenario {
            Scenario::Streams => self.streams(&gateway, &mut figures)?,
            Scenario::Soak => self.soak(peer, &gateway, &mut figures)?,
            _ => self.load(peer, &gateway, scenario, &mut figures)?,
        }
        let peak = process::memory(gateway.process.id())?.1;
        figures.insert("peak_mib".to_owned(), peak);
        gateway.process.end();
        Ok(figures)
    }

    /// Saturation, half of it, and the fixed rates.
    fn load(
        &self,
        peer: Peer,
        gateway: &Gateway,
        scenario: Scenario,
        figures: &mut Figures,
    ) -> Result<()> {
        let connections = peer.connections(scenario);
        let job = |pace: Pace, measure_ms: u64| Job {
            addr: gateway.addr,
            template: gateway.template(scenario),
            expected: gateway.expected(scenario),
            pace,
            connections,
            warm_ms: if pace == Pace::Closed { peer.warm_ms() } else { 300 },
            measure_ms,
            gateway: Some(gateway.process.id()),
        };
        let saturated = self.run(&job(Pace::Closed, self.spans.saturated_ms))?;
        let mut note = |name: &str, value: f64| figures.insert(name.to_owned(), value);
        note("per_s", saturated.rate());
        note("cpu_us", saturated.cpu_us());
        note("core", saturated.rate() * saturated.cpu_us() / 1e6);
        note("load_core", saturated.own_core);
        let mut bad = saturated.bad;
        let half = saturated.rate() / 2.0;
        let rates: &[f64] = if scenario.streams() { &[100.0, 500.0] } else { &[500.0, 2_000.0] };
        let fixed = rates.iter().filter(|rate| **rate < saturated.rate() * TOO_MUCH);
        let named = fixed.map(|rate| (format!("at_{rate}"), *rate));
        for (name, rate) in std::iter::once(("half".to_owned(), half)).chain(named) {
            let mut job = job(Pace::Open(rate), self.spans.fixed_ms);
            // Enough that a free connection is never waited for unless the gateway is behind.
            job.connections = connections.max(256);
            let through = self.run(&job)?;
            let direct = self.run(&Job {
                addr: self.upstream,
                template: scenario.direct(),
                expected: direct_expected(scenario),
                gateway: None,
                ..job
            })?;
            bad += through.bad;
            let (through_us, direct_us) = (counted(scenario, &through), counted(scenario, &direct));
            note(&format!("{name}_per_s"), rate);
            note(&format!("{name}_added_p50_us"), through_us.p50 - direct_us.p50);
            note(&format!("{name}_added_p99_us"), through_us.p99 - direct_us.p99);
            note(&format!("{name}_cpu_us"), through.cpu_us());
            note(&format!("{name}_unfinished"), through.unfinished as f64);
            if name == "half" {
                note("pieces", through.pieces);
            }
        }
        note("bad", bad as f64);
        Ok(())
    }

    /// All streams at once.
    fn streams(&self, gateway: &Gateway, figures: &mut Figures) -> Result<()> {
        let scenario = Scenario::Streams;
        let outcome = self.run(&Job {
            addr: gateway.addr,
            template: gateway.template(scenario),
            expected: gateway.expected(scenario),
            pace: Pace::Once,
            connections: STREAMS,
            warm_ms: 0,
            measure_ms: STREAMS_MS,
            gateway: Some(gateway.process.id()),
        })?;
        let mut note = |name: &str, value: f64| figures.insert(name.to_owned(), value);
        note("whole", outcome.done as f64);
        note("at_once", outcome.at_once as f64);
        note("bad", outcome.bad as f64);
        note("cpu_us", outcome.cpu_us());
        clock::pause(REST);
        note("after_mib", process::memory(gateway.process.id())?.0);
        Ok(())
    }

    /// Half of saturation for minutes: the memory at the beginning, at the end and afterwards.
    fn soak(&self, peer: Peer, gateway: &Gateway, figures: &mut Figures) -> Result<()> {
        let scenario = Scenario::Soak;
        let connections = peer.connections(scenario);
        let job = |pace: Pace, connections: usize, measure_ms: u64| Job {
            addr: gateway.addr,
            template: gateway.template(scenario),
            expected: gateway.expected(scenario),
            pace,
            connections,
            warm_ms: 0,
            measure_ms,
            gateway: Some(gateway.process.id()),
        };
        let saturated = self.run(&job(Pace::Closed, connections, self.spans.saturated_ms))?;
        let rate = saturated.rate() / 2.0;
        let (mut memory, mut bad, mut done) = (Vec::new(), saturated.bad, saturated.done);
        for _ in 0..self.spans.soak_pieces {
            let piece = job(Pace::Open(rate), connections.max(256), self.spans.soak_ms);
            let outcome = self.run(&piece)?;
            bad += outcome.bad;
            done += outcome.done;
            memory.push(process::memory(gateway.process.id())?.0);
        }
        clock::pause(COOLING);
        let (early, late) = ends(&memory);
        let mut note = |name: &str, value: f64| figures.insert(name.to_owned(), value);
        note("per_s", rate);
        note("done", done as f64);
        note("bad", bad as f64);
        note("early_mib", early);
        note("late_mib", late);
        note("growth", late / early);
        note("after_mib", process::memory(gateway.process.id())?.0);
        Ok(())
    }

    /// One job of the load generator.
    fn run(&self, job: &Job) -> Result<Outcome> {
        let mut command = self.starter.command(LOAD_CORE, &std::env::current_exe()?);
        let mut child = command.arg("load").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        // Dropped at the end of the statement: the job is whole when its input ends.
        child
            .stdin
            .take()
            .context("no standard input")?
            .write_all(serde_json::to_string(job)?.as_bytes())?;
        let output = child.wait_with_output()?;
        let outcome: Outcome =
            serde_json::from_slice(&output.stdout).context("the load generator failed")?;
        if outcome.done == 0 {
            let complaint = outcome.complaint.unwrap_or_else(|| "no answer in time".to_owned());
            bail!("no right answer under load: {complaint}");
        }
        if let Some(complaint) = &outcome.complaint {
            eprintln!("  {} bad answers, the first: {complaint}", outcome.bad);
        }
        Ok(outcome)
    }
}

/// The most memory in the second tenth of the samples, when all is warm, and in the last tenth.
fn ends(samples: &[f64]) -> (f64, f64) {
    let tenth = (samples.len() / 10).max(1);
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let early = samples.iter().copied().skip(tenth).take(tenth).collect::<Vec<_>>();
    (most(&early), most(&samples[samples.len().saturating_sub(tenth)..]))
}

/// The latency that counts: of a paced stream the first byte, as its length is its upstream's.
fn counted(scenario: Scenario, outcome: &Outcome) -> Quantiles {
    if scenario == Scenario::SsePaced { outcome.first } else { outcome.latency }
}

fn direct_expected(scenario: Scenario) -> Expected {
    let plain = if scenario == Scenario::Translate { Scenario::Json1k } else { scenario };
    plain.expected(true)
}

/// Asks until the gateway answers rightly.
fn await_answer(gateway: &mut Gateway, scenario: Scenario) -> Result<()> {
    let template = gateway.template(scenario);
    let expected = gateway.expected(scenario);
    let mut wrong_since = None;
    let outcome = clock::poll(STARTING, TRY, || {
        if gateway.process.has_ended() {
            return Some(Err(anyhow!("it ended: {}", gateway.process.said())));
        }
        let (status, body) = probe(gateway.addr, &template).ok()?;
        let Err(error) = expected.check(status, &body) else { return Some(Ok(())) };
        let since = wrong_since.get_or_insert_with(clock::now);
        (since.elapsed() > WRONG).then_some(Err(error))
    });
    outcome.unwrap_or_else(|| bail!("it did not answer: {}", gateway.process.said()))
}

/// One request on a connection of its own: status and body.
fn probe(addr: SocketAddr, template: &Template) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&addr, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    probe_on(&mut stream, template)
}

/// One request on an open connection: status and body.
///
/// # Errors
/// When there is no whole answer in the time the connection allows.
pub fn probe_on(stream: &mut TcpStream, template: &Template) -> Result<(u16, Vec<u8>)> {
    stream.write_all(&template.bytes)?;
    let mut buffer = Vec::new();
    let mut part = [0; 16 * 1024];
    let mut head = None;
    let mut body = Vec::new();
    loop {
        let count = stream.read(&mut part)?;
        if count == 0 {
            bail!("the connection was closed in the middle of an answer");
        }
        buffer.extend_from_slice(&part[..count]);
        if head.is_none()
            && let Some(found) = wire::answer(&buffer)?
        {
            buffer.drain(..found.used);
            head = Some((found.status, found.body));
        }
        if let Some((status, framing)) = &mut head {
            let (used, done) = framing.feed(&buffer, &mut body)?;
            buffer.drain(..used);
            if done {
                return Ok((*status, body));
            }
        }
    }
}
