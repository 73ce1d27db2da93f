//! A small HTTP/1.1 client that can misbehave on purpose.
//!
//! Owns one request per connection over a blocking socket: exact bytes out, status, headers and a
//! body in. Every read has a deadline. It is the suite's own, so that a test can send what a proper
//! client library refuses to send.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::namespaces;
use crate::time::Deadline;

/// Header lines of one answer: far above what a node sends.
const HEADERS: usize = 100;
/// Bytes of one line of an answer.
const LINE_BYTES: u64 = 1024 * 1024;

/// Where requests go and what every one of them carries.
#[derive(Clone, Debug)]
pub struct Client {
    /// The address to connect to.
    pub addr: SocketAddr,
    /// The namespace to connect from; `None` is the test's own.
    pub namespace: Option<String>,
    /// The value of `Host`.
    pub host: String,
    /// The API key or admin token, sent as a bearer token.
    pub key: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    body: Body,
}

impl Client {
    /// A client of the node at `addr`, as a person would write it.
    pub fn new(addr: SocketAddr, namespace: Option<String>) -> Self {
        Self { addr, namespace, host: addr.to_string(), key: None, headers: Vec::new() }
    }

    /// The same client with a bearer token.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// The same client with another `Host`.
    #[must_use]
    pub fn with_host(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    /// The same client with one more header; `Content-Type` replaces the usual one.
    #[must_use]
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// `GET`.
    ///
    /// # Errors
    /// When there is no proper answer in time.
    pub fn get(&self, path: &str) -> Result<Reply> {
        self.send("GET", path, b"", Deadline::patient())
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// When there is no proper answer in time.
    pub fn delete(&self, path: &str) -> Result<Reply> {
        self.send("DELETE", path, b"", Deadline::patient())
    }

    /// `POST` of a JSON document.
    ///
    /// # Errors
    /// When there is no proper answer in time.
    pub fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send("POST", path, body.to_string().as_bytes(), Deadline::patient())
    }

    /// One request with any bytes as body. The answer's body is read under the same deadline.
    ///
    /// # Errors
    /// When there is no proper answer in time.
    pub fn send(&self, method: &str, path: &str, body: &[u8], deadline: Deadline) -> Result<Reply> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if let Some(key) = &self.key {
            head.push_str(&format!("Authorization: Bearer {key}\r\n"));
        }
        let typed = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if method == "POST" && !typed {
            head.push_str("Content-Type: application/json\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()));
        let mut stream = self.connect()?;
        stream.set_write_timeout(deadline.left())?;
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        // A node may answer and close before it has read a body that is too large; what it said
        // counts, not that it stopped listening.
        let reply = read_reply(stream, deadline);
        match (sent, reply) {
            (_, Ok(reply)) => Ok(reply),
            (Err(error), Err(_)) => Err(anyhow!(error)).context("cannot send the request"),
            (Ok(()), Err(error)) => Err(error),
        }
    }

    /// Raw bytes out; everything that comes back until the node closes.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn raw(&self, bytes: &[u8], deadline: Deadline) -> Result<Vec<u8>> {
        let mut stream = self.connect()?;
        stream.set_write_timeout(deadline.left())?;
        stream.set_read_timeout(deadline.left())?;
        // Both may fail when the node cuts a bad connection: that is an answer too.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.take(LINE_BYTES).read_to_end(&mut answer);
        Ok(answer)
    }

    /// A connection from the client's namespace.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(&self) -> Result<TcpStream> {
        let stream = namespaces::connect(self.namespace.as_deref(), self.addr)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Reply {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// When it breaks off.
    pub fn text(mut self) -> Result<String> {
        let mut text = String::new();
        while let Some(line) = self.line()? {
            text.push_str(&line);
        }
        Ok(text)
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// When it breaks off or is no JSON.
    pub fn json(self) -> Result<Value> {
        let text = self.text()?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// The body as JSON if the status is 200.
    ///
    /// # Errors
    /// When the status is another; with the body.
    pub fn ok(self) -> Result<Value> {
        let status = self.status;
        ensure!(status == 200, "status {status}: {}", self.text()?);
        self.json()
    }

    /// The error object of an OpenAI-shaped refusal with this status.
    ///
    /// # Errors
    /// When the status or the shape is another.
    pub fn refused(self, status: u16) -> Result<Value> {
        let got = self.status;
        let body = self.json().with_context(|| format!("status {got}"))?;
        ensure!(got == status, "expected {status}, got {got}: {body}");
        let error = body.get("error").with_context(|| format!("no error object: {body}"))?;
        let said = error["message"].as_str().is_some_and(|text| text.len() > 10);
        ensure!(said, "an error must say what to do: {body}");
        ensure!(error["type"].is_string() && error.get("code").is_some(), "wrong shape: {body}");
        ensure!(error.get("param").is_some(), "wrong shape, no param: {body}");
        Ok(error.clone())
    }

    /// The next line of the body with its line end; `None` at the end.
    ///
    /// # Errors
    /// When the deadline passes or the body breaks off.
    pub fn line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        // Byte by byte: the buffer is below the framing, so this costs no system call.
        while bytes.len() < LINE_BYTES as usize && self.body.read(&mut byte)? == 1 {
            bytes.push(byte[0]);
            if byte[0] == b'\n' {
                break;
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        Ok(Some(String::from_utf8(bytes).context("the body is not UTF-8")?))
    }

    /// Gives the rest of the body another deadline.
    pub fn extend(&mut self, deadline: Deadline) {
        self.body.wire.get_mut().deadline = deadline;
    }
}

/// A socket whose reads end at a deadline.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    deadline: Deadline,
}

impl Read for Wire {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the node said nothing in time");
        let left = self.deadline.left().ok_or_else(late)?;
        self.stream.set_read_timeout(Some(left))?;
        let waited = |error: io::Error| {
            if error.kind() == io::ErrorKind::WouldBlock { late() } else { error }
        };
        self.stream.read(out).map_err(waited)
    }
}

/// A body under one of HTTP's three ways to end it.
#[derive(Debug)]
struct Body {
    wire: BufReader<Wire>,
    framing: Framing,
}

#[derive(Debug)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes are left of this chunk; `None` after the last one.
    Chunked(Option<u64>),
    /// Until the connection closes.
    Close,
}

impl Body {
    fn next_chunk(&mut self) -> io::Result<()> {
        let Framing::Chunked(Some(0)) = self.framing else { return Ok(()) };
        let bad = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let mut line = String::new();
        (&mut self.wire).take(LINE_BYTES).read_line(&mut line)?;
        if line.trim().is_empty() {
            // The line end behind the previous chunk.
            line.clear();
            (&mut self.wire).take(LINE_BYTES).read_line(&mut line)?;
        }
        if line.is_empty() {
            return Err(bad("the node closed the connection in the middle of the answer"));
        }
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(|_| bad("bad chunk size"))?;
        self.framing = Framing::Chunked((size > 0).then_some(size));
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.next_chunk()?;
        let left = match self.framing {
            Framing::Chunked(None) => return Ok(0),
            Framing::Length(left) | Framing::Chunked(Some(left)) => left,
            Framing::Close => u64::MAX,
        };
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let count = self.wire.read(&mut out[..most])?;
        if let Framing::Length(left) | Framing::Chunked(Some(left)) = &mut self.framing {
            if count == 0 && most > 0 {
                let text = "the node closed the connection in the middle of the answer";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            *left -= count as u64;
        }
        Ok(count)
    }
}

fn read_reply(stream: TcpStream, deadline: Deadline) -> Result<Reply> {
    let mut wire = BufReader::new(Wire { stream, deadline });
    let mut next = || -> Result<String> {
        let mut line = String::new();
        (&mut wire).take(LINE_BYTES).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    let first = next()?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("no HTTP answer: `{first}`"))?;
    let mut headers = Vec::new();
    loop {
        let line = next()?;
        if line.is_empty() {
            break;
        }
        ensure!(headers.len() < HEADERS, "endless headers");
        let Some((name, value)) = line.split_once(':') else { bail!("bad header `{line}`") };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let value = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, v)| v.clone());
    let framing = if value("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        Framing::Chunked(Some(0))
    } else if let Some(length) = value("content-length") {
        Framing::Length(length.parse().context("bad content-length")?)
    } else {
        Framing::Close
    };
    Ok(Reply { status, headers, body: Body { wire, framing } })
}
