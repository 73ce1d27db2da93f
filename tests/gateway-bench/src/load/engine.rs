//! The loop of the load generator: what is due goes out, what comes is checked and timed.
//!
//! Owns the schedule and the histograms. One thread on epoll, which keeps its core awake and yields
//! it to the mock upstream that shares it. Only streams that all begin at once are waited for.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::connection::{Came, Connection};
use super::{Job, Outcome, Pace, Quantiles};
use crate::{clock, process};

/// Significant digits of the histograms: a thousandth is far below the noise.
const DIGITS: u8 = 3;
/// The longest time told apart, a minute: no run lasts that long.
const LONGEST_NS: u64 = 60_000_000_000;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Events taken from the kernel at once.
const EVENTS: usize = 1_024;
/// The timer's name among the events.
const TIMER: u64 = u64::MAX;
/// How long answers are waited for after the last request of an open loop.
const DRAIN: Duration = Duration::from_secs(3);
/// Broken connections after which a run is given up.
const BAD: u64 = 200;

struct Engine {
    job: Job,
    poll: OwnedFd,
    /// Wakes the loop: a timeout of epoll itself is rounded to milliseconds.
    timer: OwnedFd,
    /// What the timer is set to.
    wakes: Option<Instant>,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    /// Requests begun so far.
    begun: u64,
    /// What requests are numbered from: two runs never share a number.
    base: u64,
    start: Instant,
    counts_from: Instant,
    counts_to: Instant,
    started_answers: u64,
    pieces: u64,
    whole: u64,
    due_while_counting: u64,
    in_time: u64,
    latency: Histogram<u64>,
    first: Histogram<u64>,
    outcome: Outcome,
}

/// CPU times at one moment.
struct Sample {
    at: Instant,
    gateway: Duration,
    own: Duration,
}

/// Carries out one job.
pub(super) fn run(job: Job) -> Result<Outcome> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    epoll::add(&poll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
    let mut connections = Vec::with_capacity(job.connections);
    for at in 0..job.connections {
        let connection = Connection::open(job.addr, &job.template)?;
        watch(&poll, &connection, at)?;
        connections.push(connection);
    }
    let start = clock::now();
    let counts_from = start + Duration::from_millis(job.warm_ms);
    let mut engine = Engine {
        idle: (0..job.connections).rev().collect(),
        counts_to: counts_from + Duration::from_millis(job.measure_ms),
        // Sixteen digits hold any process id before nine more.
        base: u64::from(std::process::id()) * 1_000_000_000,
        job,
        poll,
        timer,
        wakes: None,
        connections,
        begun: 0,
        start,
        counts_from,
        started_answers: 0,
        pieces: 0,
        whole: 0,
        due_while_counting: 0,
        in_time: 0,
        latency: Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)?,
        first: Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)?,
        outcome: Outcome::default(),
    };
    engine.run()?;
    Ok(engine.close())
}

fn watch(poll: &OwnedFd, connection: &Connection, at: usize) -> Result<()> {
    let data = epoll::EventData::new_u64(at as u64);
    Ok(epoll::add(poll, &connection.stream, data, epoll::EventFlags::IN)?)
}

impl Engine {
    fn run(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut scratch = vec![0; READ_BYTES];
        let mut before: Option<Sample> = None;
        let mut after: Option<Sample> = None;
        loop {
            let now = clock::now();
            if before.is_none() && now >= self.counts_from {
                before = Some(self.sample()?);
            }
            if after.is_none() && now >= self.counts_to {
                after = Some(self.sample()?);
            }
            if self.is_over(now) || self.outcome.bad >= BAD {
                break;
            }
            self.issue(now)?;
            self.set_timer(now)?;
            events.clear();
            match epoll::wait(&self.poll, spare_capacity(&mut events), self.patience()) {
                // The mock has its turn.
                Ok(0) => rustix::thread::sched_yield(),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("epoll"),
            }
            for event in events.iter().filter(|event| event.data.u64() != TIMER) {
                let at = usize::try_from(event.data.u64())?;
                let flags = event.flags;
                self.ready(at, flags.contains(epoll::EventFlags::OUT), &mut scratch)?;
            }
        }
        let after = match after {
            Some(sample) => sample,
            None => self.sample()?,
        };
        if let Some(before) = before {
            let seconds = (after.at - before.at).as_secs_f64();
            let spent = |a: Duration, b: Duration| a.saturating_sub(b).as_secs_f64();
            self.outcome.seconds = seconds;
            self.outcome.gateway_cpu_us = spent(after.gateway, before.gateway) * 1e6;
            self.outcome.own_core = spent(after.own, before.own) / seconds.max(1e-9);
        }
        Ok(())
    }

    /// How long the loop sleeps. One with a pace does not: waking this core out of its sleep costs
    /// whoever writes to it, and most of all in a virtual machine, so that a gateway would pay for
    /// each pause of the load beside its own work. Gateways on a network pay that to nobody.
    fn patience(&self) -> Option<&'static Timespec> {
        const NONE: &Timespec = &Timespec { tv_sec: 0, tv_nsec: 0 };
        (self.job.pace != Pace::Once).then_some(NONE)
    }

    fn sample(&self) -> Result<Sample> {
        let own = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Ok(Sample {
            at: clock::now(),
            gateway: self.job.gateway.map_or(Ok(Duration::ZERO), process::cpu_time)?,
            own: Duration::new(u64::try_from(own.tv_sec)?, u32::try_from(own.tv_nsec)?),
        })
    }

    fn is_over(&self, now: Instant) -> bool {
        let answered = self.idle.len() == self.connections.len();
        match self.job.pace {
            Pace::Closed => now >= self.counts_to,
            Pace::Once => now >= self.counts_to || (self.begun > 0 && answered),
            Pace::Open(_) => {
                let all = self.next_due().is_none_or(|due| due >= self.counts_to) && answered;
                now >= self.counts_to + DRAIN || (now >= self.counts_to && all)
            }
        }
    }

    /// When the next request of an open loop is due.
    fn next_due(&self) -> Option<Instant> {
        let Pace::Open(rate) = self.job.pace else { return None };
        Some(self.start + Duration::from_secs_f64(self.begun as f64 / rate))
    }

    /// Sends what is due.
    fn issue(&mut self, now: Instant) -> Result<()> {
        while let Some(&at) = self.idle.last() {
            let due = match self.job.pace {
                Pace::Open(_) => match self.next_due() {
                    Some(due) if due <= now && due < self.counts_to => due,
                    _ => return Ok(()),
                },
                Pace::Once if self.begun >= self.job.connections as u64 => return Ok(()),
                Pace::Closed | Pace::Once => clock::now(),
            };
            self.idle.pop();
            self.due_while_counting += u64::from(self.counts(due));
            self.begun += 1;
            let sent = self.connections[at].send(self.base + self.begun, due);
            self.sent(at, sent)?;
        }
        Ok(())
    }

    fn counts(&self, at: Instant) -> bool {
        at >= self.counts_from && at < self.counts_to
    }

    /// The next moment at which something is to be done without an answer having come.
    fn next_moment(&self, now: Instant) -> Instant {
        if now >= self.counts_to {
            return self.counts_to + DRAIN;
        }
        let until = if now < self.counts_from { self.counts_from } else { self.counts_to };
        let due = self.next_due().filter(|due| *due < self.counts_to && !self.idle.is_empty());
        due.map_or(until, |due| due.min(until))
    }

    fn set_timer(&mut self, now: Instant) -> Result<()> {
        let moment = self.next_moment(now);
        if self.wakes == Some(moment) {
            return Ok(());
        }
        self.wakes = Some(moment);
        // Zero would switch the timer off.
        let wait = moment.saturating_duration_since(clock::now()).max(Duration::from_nanos(1));
        let it_value = Timespec {
            tv_sec: i64::try_from(wait.as_secs())?,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = Itimerspec { it_interval, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)?;
        Ok(())
    }

    /// After a write: waits for room if the request is not out, begins anew if it broke.
    fn sent(&mut self, at: usize, sent: Result<bool>) -> Result<()> {
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => self.want(at, true),
            Err(error) => self.broken(at, &error),
        }
    }

    fn want(&mut self, at: usize, out: bool) -> Result<()> {
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, out);
        let data = epoll::EventData::new_u64(at as u64);
        Ok(epoll::modify(&self.poll, &self.connections[at].stream, data, flags)?)
    }

    fn ready(&mut self, at: usize, writable: bool, scratch: &mut [u8]) -> Result<()> {
        if writable {
            let sent = self.connections[at].go_on();
            if matches!(sent, Ok(true)) {
                self.want(at, false)?;
            }
            return self.sent(at, sent);
        }
        let now = clock::now();
        let connection = &mut self.connections[at];
        let Some(due) = connection.due else {
            // Closed while it was idle: the gateway may.
            return self.reopen(at);
        };
        let had_begun = connection.first.is_some();
        match connection.read(scratch, &self.job.expected, now) {
            Ok(came) => {
                let connection = &self.connections[at];
                if !had_begun && connection.first.is_some() {
                    self.started_answers += 1;
                    self.outcome.at_once = self.outcome.at_once.max(self.started_answers);
                }
                if let Came::Whole { closes } = came {
                    self.whole(at, due, now);
                    if closes {
                        self.reopen(at)?;
                    }
                    self.idle.push(at);
                }
                Ok(())
            }
            Err(error) => self.broken(at, &error),
        }
    }

    fn whole(&mut self, at: usize, due: Instant, now: Instant) {
        let connection = &mut self.connections[at];
        connection.due = None;
        let first = connection.first.take();
        self.pieces += connection.pieces;
        self.whole += 1;
        self.started_answers = self.started_answers.saturating_sub(u64::from(first.is_some()));
        if self.counts(now) || self.job.pace == Pace::Once {
            self.outcome.done += 1;
        }
        if self.counts(due) || self.job.pace == Pace::Once {
            self.in_time += 1;
            let since = |moment: Instant| (moment - due).as_nanos() as u64;
            self.latency.saturating_record(since(now));
            self.first.saturating_record(since(first.unwrap_or(now)));
        }
    }

    fn broken(&mut self, at: usize, error: &anyhow::Error) -> Result<()> {
        self.outcome.bad += 1;
        self.outcome.complaint.get_or_insert_with(|| format!("{error:#}"));
        let begun = self.connections[at].first.is_some();
        self.started_answers = self.started_answers.saturating_sub(u64::from(begun));
        self.reopen(at)?;
        self.idle.push(at);
        Ok(())
    }

    fn reopen(&mut self, at: usize) -> Result<()> {
        let connection = Connection::open(self.job.addr, &self.job.template)?;
        watch(&self.poll, &connection, at)?;
        self.connections[at] = connection;
        Ok(())
    }

    fn close(mut self) -> Outcome {
        self.outcome.latency = Quantiles::of(&self.latency);
        self.outcome.first = Quantiles::of(&self.first);
        self.outcome.pieces = self.pieces as f64 / self.whole.max(1) as f64;
        // In a closed loop the last requests are always under way when the time is over.
        if self.job.pace != Pace::Closed {
            let due = match self.job.pace {
                Pace::Once => self.begun,
                _ => self.due_while_counting + self.never_sent(),
            };
            self.outcome.unfinished = due.saturating_sub(self.in_time);
        }
        self.outcome
    }

    /// Requests of an open loop that were due and found no free connection.
    fn never_sent(&self) -> u64 {
        let Pace::Open(rate) = self.job.pace else { return 0 };
        let all = (self.counts_to - self.start).as_secs_f64() * rate;
        (all as u64).saturating_sub(self.begun)
    }
}
