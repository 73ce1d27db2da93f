//! One connection of the load generator: a request out, an answer in, again.
//!
//! Owns reading an answer as it comes. When the next request goes out is the engine's.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::scenario::{Expected, Template};
use crate::wire::{self, Body};

/// A connection and the request it is in, if any.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    template: Template,
    /// Bytes of the request that are out.
    sent: usize,
    input: Vec<u8>,
    head: Option<(u16, Body)>,
    closes: bool,
    body: Vec<u8>,
    /// When its request was due; `None` while it is idle.
    pub(super) due: Option<Instant>,
    /// When the first byte of the answer's body came.
    pub(super) first: Option<Instant>,
    /// Reads that brought a part of the body.
    pub(super) pieces: u64,
}

/// What became of a read.
pub(super) enum Came {
    /// More must come.
    Part,
    /// The answer is whole and right.
    Whole {
        /// The connection cannot be used again.
        closes: bool,
    },
}

impl Connection {
    pub(super) fn open(addr: SocketAddr, template: &Template) -> Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            template: template.clone(),
            sent: 0,
            input: Vec::new(),
            head: None,
            closes: false,
            body: Vec::new(),
            due: None,
            first: None,
            pieces: 0,
        })
    }

    /// Begins the request with this number; true if all of it went out.
    pub(super) fn send(&mut self, number: u64, due: Instant) -> Result<bool> {
        self.template.number(number);
        self.due = Some(due);
        (self.first, self.pieces, self.sent, self.head) = (None, 0, 0, None);
        self.input.clear();
        self.body.clear();
        self.go_on()
    }

    /// Writes what is left of the request; true when nothing is.
    pub(super) fn go_on(&mut self) -> Result<bool> {
        while self.sent < self.template.bytes.len() {
            match self.stream.write(&self.template.bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Reads once and checks what is whole.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        expected: &Expected,
        now: Instant,
    ) -> Result<Came> {
        let count = match self.stream.read(scratch) {
            Ok(0) => bail!("the connection was closed in the middle of an answer"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Came::Part),
            Err(error) => return Err(error.into()),
        };
        let mut rest = &scratch[..count];
        if self.head.is_none() {
            self.input.extend_from_slice(rest);
            let Some(head) = wire::answer(&self.input)? else { return Ok(Came::Part) };
            // What stood in the buffer before was head, so the body begins in this read.
            let begun = self.input.len() - head.used;
            rest = &rest[count - begun.min(count)..];
            self.closes = head.closes;
            self.head = Some((head.status, head.body));
        }
        let Some((status, body)) = &mut self.head else { return Ok(Came::Part) };
        let before = self.body.len();
        let (used, done) = body.feed(rest, &mut self.body)?;
        if self.body.len() > before {
            self.pieces += 1;
            self.first.get_or_insert(now);
        }
        if !done {
            return Ok(Came::Part);
        }
        ensure!(used == rest.len(), "bytes behind an answer");
        expected.check(*status, &self.body)?;
        Ok(Came::Whole { closes: self.closes })
    }
}
