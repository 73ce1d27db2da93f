//! The mock upstream: a provider that thinks for no time, by hand on epoll in one thread.
//!
//! Owns connections, prepared answers and the pace of streams. It must never be what limits a run,
//! so an answer is a copy of prepared bytes; but each event of a stream is a write of its own, as
//! a provider sends it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::answers::{Answer, MODELS, Model, Protocol, UPSTREAM_KEY};
use crate::{clock, wire};

/// Connections that may wait to be accepted: 2,000 arrive at once.
pub const BACKLOG: i32 = 4_096;
/// The listener's name among the events.
const LISTENER: u64 = u64::MAX;
/// Bytes read at once: the largest request fits several times.
const READ_BYTES: usize = 64 * 1024;
/// Events taken from the kernel at once.
const EVENTS: usize = 1_024;

/// Answers to what is not asked properly.
const UNKNOWN: &[u8] =
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 25\r\n\r\n{\"error\":\"unknown model\"}";
const FORBIDDEN: &[u8] =
    b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 26\r\n\r\n{\"error\":\"bad credential\"}";

struct Mock {
    poll: rustix::fd::OwnedFd,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// When which connection's next event is due; its serial tells a reused place.
    due: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    answers: Vec<[Answer; 2]>,
    serial: u64,
}

struct Connection {
    stream: TcpStream,
    serial: u64,
    input: Vec<u8>,
    /// What the socket did not take yet.
    output: Vec<u8>,
    /// The stream it is in: model, protocol, next event.
    streaming: Option<(usize, usize, usize)>,
}

/// Serves until the process is ended.
///
/// # Errors
/// When epoll or the listener fails.
pub fn serve(listener: TcpListener) -> Result<()> {
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let both = |model: &Model| [Protocol::OpenAi, Protocol::Anthropic].map(|p| model.answer(p));
    let mut mock = Mock {
        poll,
        listener,
        connections: Vec::new(),
        free: Vec::new(),
        due: BinaryHeap::new(),
        answers: MODELS.iter().map(both).collect(),
        serial: 0,
    };
    let mut events = Vec::with_capacity(EVENTS);
    let mut scratch = vec![0; READ_BYTES];
    loop {
        let timeout = mock.next_due().map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        events.clear();
        match epoll::wait(&mock.poll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll"),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => mock.accept()?,
                at => mock.ready(usize::try_from(at)?, &mut scratch),
            }
        }
        mock.advance_streams();
    }
}

impl Mock {
    fn next_due(&self) -> Option<Duration> {
        let Reverse((due, ..)) = self.due.peek()?;
        Some(due.saturating_duration_since(clock::now()))
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let at = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let flags = epoll::EventFlags::IN;
            epoll::add(&self.poll, &stream, epoll::EventData::new_u64(at as u64), flags)?;
            self.serial += 1;
            self.connections[at] = Some(Connection {
                stream,
                serial: self.serial,
                input: Vec::new(),
                output: Vec::new(),
                streaming: None,
            });
        }
    }

    /// Reads, answers and writes what one connection is ready for; drops it when it is done.
    fn ready(&mut self, at: usize, scratch: &mut [u8]) {
        let Some(Some(connection)) = self.connections.get_mut(at) else { return };
        let had_output = !connection.output.is_empty();
        let mut alive = !had_output || connection.flush();
        if alive {
            alive = match connection.stream.read(scratch) {
                Ok(0) => false,
                Ok(count) => {
                    connection.input.extend_from_slice(&scratch[..count]);
                    true
                }
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
        }
        alive = alive && self.answer(at);
        self.settle(at, alive, had_output);
    }

    /// Answers the requests that are whole; false when the connection is of no more use.
    fn answer(&mut self, at: usize) -> bool {
        let Some(Some(connection)) = self.connections.get_mut(at) else { return false };
        while connection.streaming.is_none() && !connection.input.is_empty() {
            let (used, asked) = match wire::request(&connection.input) {
                Ok(None) => return true,
                Err(_) => return false,
                Ok(Some(request)) => (request.used, asked(&request)),
            };
            connection.input.drain(..used);
            let (model, protocol) = match asked {
                Ok(found) => found,
                Err(refusal) => {
                    if !connection.write(refusal) {
                        return false;
                    }
                    continue;
                }
            };
            let answer = &self.answers[model][protocol];
            if !connection.write(&answer.head) {
                return false;
            }
            if !answer.events.is_empty() {
                connection.streaming = Some((model, protocol, 0));
                let due = clock::now();
                if answer.pace.is_zero() {
                    if !connection.burst(&self.answers) {
                        return false;
                    }
                } else {
                    self.due.push(Reverse((due + answer.pace, at, connection.serial)));
                }
            }
        }
        true
    }

    /// Sends every event that is due.
    fn advance_streams(&mut self) {
        let now = clock::now();
        while let Some(&Reverse((due, at, serial))) = self.due.peek() {
            if due > now {
                return;
            }
            self.due.pop();
            let Some(Some(connection)) = self.connections.get_mut(at) else { continue };
            if connection.serial != serial {
                continue;
            }
            let had_output = !connection.output.is_empty();
            let alive = connection.event(&self.answers);
            if let Some((model, protocol, _)) = connection.streaming {
                let pace = self.answers[model][protocol].pace;
                // From when it was due, not from when it was sent: streams keep their length.
                self.due.push(Reverse((due + pace, at, serial)));
            }
            self.settle(at, alive, had_output);
        }
    }

    /// Waits for room in the socket, or no longer, or closes.
    fn settle(&mut self, at: usize, alive: bool, had_output: bool) {
        let Some(Some(connection)) = self.connections.get(at) else { return };
        if !alive {
            self.connections[at] = None;
            self.free.push(at);
            return;
        }
        let has_output = !connection.output.is_empty();
        if has_output != had_output {
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, has_output);
            let data = epoll::EventData::new_u64(at as u64);
            let _ = epoll::modify(&self.poll, &connection.stream, data, flags);
        }
    }
}

/// Model and protocol of a request, or the refusal.
fn asked(request: &wire::Request<'_>) -> Result<(usize, usize), &'static [u8]> {
    if !request.credential.ends_with(UPSTREAM_KEY.as_bytes()) {
        return Err(FORBIDDEN);
    }
    let model = Model::asked(&request.body).ok_or(UNKNOWN)?;
    Ok((model, usize::from(request.path.ends_with("/messages"))))
}

impl Connection {
    /// Writes what the socket takes and keeps the rest; false when it is broken.
    fn write(&mut self, bytes: &[u8]) -> bool {
        if !self.output.is_empty() {
            self.output.extend_from_slice(bytes);
            return true;
        }
        match self.stream.write(bytes) {
            Ok(count) => self.output.extend_from_slice(&bytes[count..]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.output.extend_from_slice(bytes);
            }
            Err(_) => return false,
        }
        true
    }

    fn flush(&mut self) -> bool {
        let output = std::mem::take(&mut self.output);
        self.write(&output)
    }

    /// The next event of its stream.
    fn event(&mut self, answers: &[[Answer; 2]]) -> bool {
        let Some((model, protocol, number)) = self.streaming else { return true };
        let events = &answers[model][protocol].events;
        let next = number + 1;
        self.streaming = (next < events.len()).then_some((model, protocol, next));
        events.get(number).is_none_or(|event| self.write(event))
    }

    fn burst(&mut self, answers: &[[Answer; 2]]) -> bool {
        while self.streaming.is_some() {
            if !self.event(answers) {
                return false;
            }
        }
        true
    }
}
