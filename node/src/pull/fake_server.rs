//! An HTTP server for tests that really serves a file over a socket: ranges, cuts, redirects.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// How the server treats a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Serves ranges as asked.
    Whole,
    /// Announces everything, sends this many bytes, hangs up.
    CutAfter(usize),
    /// Knows no ranges.
    NoRanges,
    /// Sends elsewhere first.
    Redirect,
    /// Answers with this status.
    Status(u16),
}

/// The server; one habit per connection in turn, the last one for all that follow.
pub(crate) struct FakeServer {
    address: std::net::SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl FakeServer {
    pub(crate) fn start(body: Vec<u8>, etag: &'static str, habits: Vec<Habit>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let habit = habits[index.min(habits.len() - 1)];
                let _ = serve(stream.unwrap(), &body, etag, habit, &log);
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The requests so far, each as its lines.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    body: &[u8],
    etag: &str,
    habit: Habit,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    log.lock().unwrap().push(head.to_lowercase());
    let line = |name: &str| {
        let head = head.to_lowercase();
        let found = head.lines().find(|line| line.starts_with(&format!("{name}:")));
        found.map(|line| line.split_once(':').unwrap().1.trim().to_owned())
    };
    let matches = line("if-range").is_none_or(|tag| tag == etag.to_lowercase());
    let start = line("range")
        .filter(|_| matches && habit != Habit::NoRanges)
        .and_then(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().ok())
        .unwrap_or(0usize);
    let total = body.len();
    let length = total.saturating_sub(start);
    let tag = if etag.is_empty() { String::new() } else { format!("ETag: {etag}\r\n") };
    match habit {
        Habit::Redirect => {
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            );
        }
        Habit::Status(status) => {
            return write!(
                stream,
                "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Habit::Whole | Habit::CutAfter(_) | Habit::NoRanges => {}
    }
    let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
    let range = match start {
        0 => String::new(),
        _ => format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{range}{tag}Connection: close\r\n\r\n"
    )?;
    let sent = match habit {
        Habit::CutAfter(bytes) => bytes.min(length),
        Habit::Whole | Habit::NoRanges | Habit::Redirect | Habit::Status(_) => length,
    };
    stream.write_all(&body[start..start + sent])
}
