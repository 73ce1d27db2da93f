//! Lifelines: idle TCP connections by which a kernel tells that a process has died.
//!
//! Owns the side that is dialled: the listener, what a stranger may take of it, and the map from
//! a proof to the connection it belongs to. When a process dies, its kernel closes its sockets; a
//! closed TCP connection is told at once and at no limited rate, which a closed UDP port is not.
//! The dialling side is in `vigil`, and so is what the end of a lifeline means: TCP is not
//! authenticated, so it is a reason to ask over QUIC, never an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use blake3::Hash;
use parking_lot::Mutex;
use quinn::Connection;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::accept::{Door, Place};
use crate::config::{GREETING, STRANGERS, STRANGERS_PER_ADDRESS};
use crate::counters::NetCounters;
use crate::endpoint::Shared;

/// The first byte of a proof.
const VERSION: u8 = 1;
/// Version, name of the connection, number of the attempt, proof.
pub(crate) const LENGTH: usize = 1 + 8 + 4 + 32;
/// Pause after the system could not accept: it is out of file descriptors, which takes a while.
const EXHAUSTED: Duration = Duration::from_millis(200);

/// What both sides of one QUIC connection know and nobody else: exported from its TLS session.
pub(crate) struct Secret([u8; 32]);

impl Secret {
    /// `None` when the connection exports nothing.
    pub(crate) fn of(connection: &Connection) -> Option<Self> {
        let mut secret = [0; 32];
        connection.export_keying_material(&mut secret, b"selvedge lifeline", b"").ok()?;
        Some(Self(secret))
    }

    /// What the dialling side sends on its attempt of this number. Each number works once, as
    /// whoever listens on the way has seen it then.
    pub(crate) fn proof(&self, attempt: u32) -> [u8; LENGTH] {
        let mut proof = [VERSION; LENGTH];
        proof[1..9].copy_from_slice(&self.name());
        proof[9..13].copy_from_slice(&attempt.to_be_bytes());
        proof[13..].copy_from_slice(self.mac(attempt).as_bytes());
        proof
    }

    /// By what the connection is found. Not secret.
    fn name(&self) -> [u8; 8] {
        let name = blake3::keyed_hash(&self.0, b"name");
        name.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    fn mac(&self, attempt: u32) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"attempt").update(&attempt.to_be_bytes()).finalize()
    }
}

/// The connections whose peers are to dial a lifeline.
pub(crate) struct Lifelines {
    expected: Mutex<BTreeMap<[u8; 8], Expected>>,
    /// How many were ever added, and whether the endpoint is open.
    changed: watch::Sender<(u64, bool)>,
}

struct Expected {
    secret: Secret,
    /// The smallest number of an attempt that may still come.
    next: u32,
    arrived: mpsc::Sender<TcpStream>,
}

/// Where the lifelines of one connection arrive, for as long as this lives.
pub(crate) struct Arrivals {
    shared: Arc<Shared>,
    name: [u8; 8],
    arrived: mpsc::Receiver<TcpStream>,
}

impl Lifelines {
    pub(crate) fn new() -> Self {
        Self { expected: Mutex::default(), changed: watch::channel((0, true)).0 }
    }

    /// Ends the listener and every connection that has not yet shown whose it is.
    pub(crate) fn close(&self) {
        self.changed.send_modify(|(_, open)| *open = false);
    }

    /// Resolves when the endpoint closes.
    async fn closed(&self) {
        let mut changed = self.changed.subscribe();
        // Fails only without a sender, which lives in this.
        let _closed = changed.wait_for(|(_, open)| !open).await;
    }

    /// Gives a stream to the connection its proof belongs to; `Err` gives it back.
    fn deliver(&self, proof: &[u8; LENGTH], stream: TcpStream) -> Result<(), Refused> {
        let [VERSION, rest @ ..] = proof else { return Err(Refused::ForGood) };
        let mut expected = self.expected.lock();
        let name = rest.first_chunk::<8>().copied().unwrap_or_default();
        // It may be faster than the last words of the greeting.
        let Some(link) = expected.get_mut(&name) else { return Err(Refused::Yet(stream)) };
        let number = rest[8..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let given = rest.last_chunk::<32>().map_or(Hash::from_bytes([0; 32]), |mac| (*mac).into());
        // Compares in constant time.
        if number < link.next || link.secret.mac(number) != given {
            return Err(Refused::ForGood);
        }
        link.next = number.saturating_add(1);
        // One that is still on its way in is enough.
        link.arrived.try_send(stream).map_err(|_| Refused::ForGood)
    }
}

enum Refused {
    ForGood,
    Yet(TcpStream),
}

impl Arrivals {
    pub(crate) fn new(shared: &Arc<Shared>, secret: Secret) -> Self {
        let (sender, arrived) = mpsc::channel(1);
        let name = secret.name();
        let expected = Expected { secret, next: 0, arrived: sender };
        shared.lifelines.expected.lock().insert(name, expected);
        shared.lifelines.changed.send_modify(|(count, _)| *count += 1);
        Self { shared: Arc::clone(shared), name, arrived }
    }

    /// The next lifeline. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> TcpStream {
        match self.arrived.recv().await {
            Some(stream) => stream,
            // The sender stands in the map until this is dropped.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.shared.lifelines.expected.lock().remove(&self.name);
    }
}

/// Takes TCP connections until the endpoint closes.
pub(crate) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let door = Arc::new(Door::new(STRANGERS, STRANGERS_PER_ADDRESS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.lifelines.closed() => return,
        };
        match accepted {
            Ok((stream, addr)) => match door.enter(addr.ip().to_canonical()) {
                Some(place) => {
                    tokio::spawn(identify(Arc::clone(&shared), stream, place));
                }
                None => NetCounters::count(&shared.counters.turned_away),
            },
            Err(error) => {
                tracing::debug!(%error, "a lifeline could not be accepted");
                sleep(EXHAUSTED).await;
            }
        }
    }
}

/// Reads one proof and nothing else. A stranger hears nothing and is dropped.
async fn identify(shared: Arc<Shared>, stream: TcpStream, place: Place) {
    let known = timeout(GREETING, known(&shared.lifelines, stream)).await.unwrap_or(false);
    drop(place);
    let counter = &shared.counters;
    NetCounters::count(if known { &counter.lifelines } else { &counter.lifelines_refused });
}

async fn known(lifelines: &Lifelines, mut stream: TcpStream) -> bool {
    let mut changed = lifelines.changed.subscribe();
    let mut proof = [0; LENGTH];
    let read = tokio::select! {
        read = stream.read_exact(&mut proof) => read.is_ok(),
        () = lifelines.closed() => false,
    };
    if !read {
        return false;
    }
    loop {
        if !changed.borrow_and_update().1 {
            return false;
        }
        stream = match lifelines.deliver(&proof, stream) {
            Ok(()) => return true,
            Err(Refused::ForGood) => return false,
            Err(Refused::Yet(stream)) => stream,
        };
        if changed.changed().await.is_err() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_says_which_connection_and_which_attempt() {
        let secret = Secret([7; 32]);
        let (first, second) = (secret.proof(0), secret.proof(1));
        assert_eq!(first[..9], second[..9]);
        assert_ne!(first[13..], second[13..]);
        assert_ne!(first[1..9], Secret([8; 32]).proof(0)[1..9]);
    }
}
