//! The little of HTTP/1.1 that the mock and the load generator speak, by hand on `httparse`.
//!
//! Owns finding the end of a message. Not a parser for hostile input: both sides are ours or are
//! the gateways under test, and whatever is odd ends the run with its name.

use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};

/// More header lines than any gateway here sends.
const HEADERS: usize = 64;
/// A head, or a line of chunked framing, longer than this is an error, not a wait for more.
const LONGEST_HEAD: usize = 32 * 1024;

/// A request, whole.
#[derive(Debug)]
pub struct Request<'a> {
    /// Bytes it took from the buffer.
    pub used: usize,
    /// Its path.
    pub path: &'a str,
    /// The value of `authorization`, or of `x-api-key`.
    pub credential: &'a [u8],
    /// Its body without framing.
    pub body: Cow<'a, [u8]>,
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    /// Bytes it took from the buffer.
    pub used: usize,
    /// The status code.
    pub status: u16,
    /// How the body goes on.
    pub body: Body,
    /// The other side closes after the answer.
    pub closes: bool,
}

/// A body under one of the framings that keep a connection usable.
#[derive(Debug)]
pub enum Body {
    /// So many bytes are left.
    Length(usize),
    /// Chunks.
    Chunked(Chunked),
}

/// Decodes chunked framing as it comes.
#[derive(Debug, Default)]
pub struct Chunked {
    at: At,
    left: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum At {
    /// In the digits of a size.
    #[default]
    Size,
    /// Behind them, up to the end of the line.
    SizeLine,
    Data,
    /// The line end behind data.
    DataEnd,
    /// A trailer line that so far is empty.
    Trailer,
    /// A trailer line with something in it.
    TrailerLine,
}

/// The first request in a buffer, if it is whole.
///
/// # Errors
/// When it is none.
pub fn request(buffer: &[u8]) -> Result<Option<Request<'_>>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(buffer).context("bad request")? else {
        ensure!(buffer.len() <= LONGEST_HEAD, "endless request head");
        return Ok(None);
    };
    let path = request.path.unwrap_or_default();
    let framing = framing(request.headers)?.unwrap_or(Body::Length(0));
    let header = |name| find(request.headers, name);
    let credential = header("authorization").or_else(|| header("x-api-key")).unwrap_or_default();
    let rest = &buffer[head..];
    match framing {
        Body::Length(length) => Ok(rest.get(..length).map(|body| Request {
            used: head + length,
            path,
            credential,
            body: Cow::Borrowed(body),
        })),
        Body::Chunked(mut chunked) => {
            let mut body = Vec::new();
            let (used, done) = chunked.feed(rest, &mut body)?;
            let whole = Request { used: head + used, path, credential, body: Cow::Owned(body) };
            Ok(done.then_some(whole))
        }
    }
}

/// The head of the answer in a buffer, if it is whole.
///
/// # Errors
/// When it is none, or its body could only end with the connection.
pub fn answer(buffer: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(used) = answer.parse(buffer).context("bad answer")? else {
        ensure!(buffer.len() <= LONGEST_HEAD, "endless head of an answer");
        return Ok(None);
    };
    let status = answer.code.context("an answer without a status")?;
    let Some(body) = framing(answer.headers)? else { bail!("an answer without a length") };
    let closes = find(answer.headers, "connection")
        .is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Ok(Some(Head { used, status, body, closes }))
}

fn find<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    let mut headers = headers.iter();
    headers.find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

fn framing(headers: &[httparse::Header<'_>]) -> Result<Option<Body>> {
    if let Some(value) = find(headers, "transfer-encoding") {
        ensure!(value.eq_ignore_ascii_case(b"chunked"), "a transfer encoding that is not chunked");
        return Ok(Some(Body::Chunked(Chunked::default())));
    }
    let Some(value) = find(headers, "content-length") else { return Ok(None) };
    let length = std::str::from_utf8(value)?.trim().parse().context("bad content-length")?;
    Ok(Some(Body::Length(length)))
}

impl Body {
    /// Takes what belongs to the body from `input` and adds it to `out` without framing: how much
    /// it took, and whether the body is whole.
    ///
    /// # Errors
    /// When the framing is broken.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool)> {
        match self {
            Self::Length(left) => {
                let taken = (*left).min(input.len());
                out.extend_from_slice(&input[..taken]);
                *left -= taken;
                Ok((taken, *left == 0))
            }
            Self::Chunked(chunked) => chunked.feed(input, out),
        }
    }
}

impl Chunked {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool)> {
        let mut used = 0;
        while used < input.len() {
            if self.at == At::Data {
                let taken = self.left.min(input.len() - used);
                out.extend_from_slice(&input[used..used + taken]);
                self.left -= taken;
                used += taken;
                if self.left == 0 {
                    self.at = At::DataEnd;
                }
                continue;
            }
            let byte = input[used];
            used += 1;
            if self.step(byte)? {
                return Ok((used, true));
            }
        }
        Ok((used, false))
    }

    /// One byte of framing; true at the end of the body.
    fn step(&mut self, byte: u8) -> Result<bool> {
        self.at = match (&self.at, byte) {
            (At::Size | At::SizeLine, b'\n') if self.left == 0 => At::Trailer,
            (At::Size | At::SizeLine, b'\n') => At::Data,
            (At::Size, b'\r' | b';') => At::SizeLine,
            (At::Size, digit) => {
                let digit = char::from(digit).to_digit(16).context("bad chunk size")?;
                ensure!(self.left < LONGEST_HEAD * 1_024, "endless chunk");
                self.left = self.left * 16 + digit as usize;
                At::Size
            }
            (At::DataEnd, b'\n') => At::Size,
            (At::DataEnd, b'\r') => At::DataEnd,
            (At::DataEnd, _) => bail!("a chunk is longer than its size"),
            (At::Trailer, b'\n') => return Ok(true),
            (At::Trailer, b'\r') => At::Trailer,
            (At::TrailerLine, b'\n') => At::Trailer,
            (At::Trailer | At::TrailerLine, _) => At::TrailerLine,
            (At::SizeLine | At::Data, _) => At::SizeLine,
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together_however_they_are_cut() {
        let wire = b"5\r\nhello\r\n1;x=y\r\n \r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nrest";
        for cut in 0..wire.len() - 4 {
            let mut chunked = Chunked::default();
            let mut out = Vec::new();
            let (first, done) = chunked.feed(&wire[..cut], &mut out).unwrap();
            assert!(!done && first == cut);
            let (second, done) = chunked.feed(&wire[cut..], &mut out).unwrap();
            assert!(done, "cut at {cut}");
            assert_eq!(&wire[first + second..], b"rest");
            assert_eq!(out, b"hello 0123456789");
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        for wire in ["z\r\n", "2\r\nabc\r\n"] {
            let mut out = Vec::new();
            assert!(Chunked::default().feed(wire.as_bytes(), &mut out).is_err(), "{wire}");
        }
    }

    #[test]
    fn a_request_is_taken_when_it_is_whole() {
        let wire =
            b"POST /v1/x HTTP/1.1\r\nAuthorization: Bearer k\r\nContent-Length: 3\r\n\r\nabcPOST";
        assert!(request(&wire[..wire.len() - 5]).unwrap().is_none());
        let whole = request(wire).unwrap().unwrap();
        assert_eq!((whole.path, whole.credential), ("/v1/x", b"Bearer k".as_slice()));
        assert_eq!((&*whole.body, &wire[whole.used..]), (b"abc".as_slice(), b"POST".as_slice()));
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        assert_eq!(&*request(chunked).unwrap().unwrap().body, b"a");
    }

    #[test]
    fn an_answer_that_ends_with_the_connection_is_refused() {
        assert!(answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        let head = answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n");
        let head = head.unwrap().unwrap();
        assert!(head.closes && matches!(head.body, Body::Length(1)));
    }
}
