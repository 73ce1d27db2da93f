//! The watch over one connection: has the process at the other end died?
//!
//! Owns the lifeline of the connection, from dialling it to asking what its end means, and the
//! pace at which silence is looked into. A lifeline that ends is a hint, and so is a port that is
//! said to be closed: anybody on the way can forge both, and a router that translates addresses
//! says the latter of its own ports. The verdict is QUIC's, which nobody can forge.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::config::GREETING;
use crate::endpoint::Shared;
use crate::lifeline::{Arrivals, Secret};
use crate::link::{Lane, plain};
use crate::silence::Silence;

/// Questions to a peer after a hint. Several, because packets may be lost and because either
/// process may stand still for a while on a busy machine.
const QUESTIONS: u32 = 8;
/// A living peer acknowledges within a round trip and 25 ms (RFC 9000, 18.2); eight of these are a
/// third of the second in which a dead process is to be out.
const ANSWER: Duration = Duration::from_millis(40);
/// The pause where round trips are long; answers then come while later questions are asked, and
/// what is left of the second is for the way of the news.
const LONGEST_ANSWER: Duration = Duration::from_millis(80);
/// The first pause before a lifeline is dialled again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest one: what is unreachable for minutes is unreachable for a reason.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Attempts in a row, over some six minutes in all. Then the connection goes without.
const ATTEMPTS: u32 = 14;
/// A lifeline that stood for this long was a good one: its end starts the count anew.
const GOOD: Duration = Duration::from_secs(60);

/// Both are texts an operator reads as the reason of a node's end.
const PORT_CLOSED: &str = "the peer's process is gone: its port is closed";
const CUT_AND_SILENT: &str = "the peer's process is gone: its lifeline ended and nobody answers";

/// The watch; it ends when this is dropped.
pub(crate) struct Vigil(Option<JoinHandle<&'static str>>);

impl Vigil {
    pub(crate) fn start(shared: &Arc<Shared>, lane: &Lane) -> Self {
        Self(Some(tokio::spawn(watch(Arc::clone(shared), lane.clone()))))
    }

    /// Why the peer's process is known to be gone, once it is. May be dropped and called again.
    pub(crate) async fn death(&mut self) -> &'static str {
        let ended = match &mut self.0 {
            Some(watch) => watch.await.ok(),
            None => None,
        };
        self.0 = None;
        match ended {
            Some(why) => why,
            // A watch that panicked knows nothing; the idle timeout is left.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        if let Some(watch) = &self.0 {
            watch.abort();
        }
    }
}

async fn watch(shared: Arc<Shared>, lane: Lane) -> &'static str {
    let connection = lane.connection.clone();
    let mut silence = Silence::new(connection.clone());
    let mut source = Source::new(&shared, &lane);
    let mut lifeline: Option<TcpStream> = None;
    loop {
        let stands = lifeline.is_some();
        silence.relax(stands);
        tokio::select! {
            () = silence.is_said_dead() => {
                if !answers(&connection).await {
                    return PORT_CLOSED;
                }
                silence.refuted();
                continue;
            }
            next = source.next(), if !stands || source.may_replace() => {
                lifeline = next;
            }
            () = ended(&mut lifeline) => lifeline = None,
        }
        // One ended, or nobody listens any more where there was one.
        if lifeline.is_none() && !answers(&connection).await {
            return CUT_AND_SILENT;
        }
    }
}

/// Resolves when a standing lifeline ends. The peer sends nothing on it: a byte is an end too.
async fn ended(lifeline: &mut Option<TcpStream>) {
    match lifeline {
        Some(stream) => {
            let _ended = stream.read(&mut [0]).await;
        }
        None => std::future::pending().await,
    }
}

/// Whether the peer says anything over QUIC when asked.
async fn answers(connection: &Connection) -> bool {
    let pause = (connection.rtt() * 2).clamp(ANSWER, LONGEST_ANSWER);
    let heard = || connection.stats().udp_rx.datagrams;
    let mut before = heard();
    for question in 0..QUESTIONS {
        // An empty datagram means nothing and has to be acknowledged.
        let _asked = connection.send_datagram(Bytes::new());
        sleep(pause).await;
        // What comes in the first moment may have been under way when the process died.
        if question == 0 {
            before = heard();
        } else if heard() > before {
            return true;
        }
    }
    false
}

/// Where the lifelines of a connection come from.
enum Source {
    /// This side dialled the connection and so the lifeline.
    Dials(Dials),
    /// The peer dials.
    Awaits(Arrivals),
    /// There is none to be had.
    Nowhere,
}

impl Source {
    fn new(shared: &Arc<Shared>, lane: &Lane) -> Self {
        if !shared.config.lifelines {
            return Self::Nowhere;
        }
        match Secret::of(&lane.connection) {
            Some(secret) if lane.dialler == shared.me => Self::Dials(Dials {
                secret,
                addr: reachable(lane.connection.remote_address()),
                attempt: 0,
                failures: 0,
                stood: None,
            }),
            Some(secret) if shared.listens_tcp => Self::Awaits(Arrivals::new(shared, secret)),
            Some(_) | None => Self::Nowhere,
        }
    }

    /// Whether the peer may bring a new one while one stands: it has seen that one end.
    fn may_replace(&self) -> bool {
        matches!(self, Self::Awaits(_))
    }

    /// The next lifeline; `None` when there was one and now nobody listens there.
    async fn next(&mut self) -> Option<TcpStream> {
        match self {
            Self::Dials(dials) => dials.next().await,
            Self::Awaits(arrivals) => Some(arrivals.next().await),
            Self::Nowhere => std::future::pending().await,
        }
    }
}

/// The dialling side.
struct Dials {
    secret: Secret,
    addr: SocketAddr,
    /// The number of the next attempt.
    attempt: u32,
    /// Attempts in a row that gave nothing good.
    failures: u32,
    /// Since when the last lifeline stands, or stood.
    stood: Option<Instant>,
}

impl Dials {
    async fn next(&mut self) -> Option<TcpStream> {
        if self.stood.is_some_and(|since| since.elapsed() >= GOOD) {
            self.failures = 0;
        }
        loop {
            if self.failures >= ATTEMPTS {
                std::future::pending::<()>().await;
            }
            if self.attempt > 0 {
                sleep(self.pause()).await;
            }
            self.failures += 1;
            match self.dial().await {
                Ok(stream) => {
                    self.stood = Some(Instant::now());
                    return Some(stream);
                }
                Err(error) => self.say(&error),
            }
            if self.stood.is_some() {
                return None;
            }
        }
    }

    /// 0.2 s, 0.4 s, 0.8 s ...
    fn pause(&self) -> Duration {
        let doubled = FIRST_PAUSE * 2u32.pow(self.failures.saturating_sub(1).min(16));
        doubled.min(LONGEST_PAUSE)
    }

    async fn dial(&mut self) -> io::Result<TcpStream> {
        let proof = self.secret.proof(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        let reached = timeout(GREETING, async {
            let mut stream = TcpStream::connect(self.addr).await?;
            // Without a listener, a port that the system hands out can be given to its own dialler.
            if stream.local_addr()? == stream.peer_addr()? {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            stream.write_all(&proof).await?;
            Ok(stream)
        });
        reached.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Once a connection, and never again when there was a lifeline: then its end says more.
    fn say(&self, error: &io::Error) {
        if self.attempt == 1 {
            tracing::warn!(
                "cannot connect to {}/tcp: {error}; should the node there be killed, it will be \
                 noticed a second or two later than with TCP open beside UDP",
                self.addr
            );
        }
    }
}

/// An address to dial by TCP: IPv4 written as such, a link-local one with its interface.
fn reachable(addr: SocketAddr) -> SocketAddr {
    if addr.ip().to_canonical().is_ipv4() { plain(addr) } else { addr }
}
