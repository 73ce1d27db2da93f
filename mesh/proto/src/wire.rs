//! What crosses a connection between members: the hello, and the first frames of streams.
//!
//! Every frame goes through `selvedge_base::codec`, which tags it with a version. Two versions of
//! Selvedge live in one mesh: both hellos name the oldest and the newest wire version their build
//! speaks, and the connection uses the highest that both do ([`agree`]). Within a version, frames
//! do not change shape; an added variant or field is a new version, which the build writes only to
//! peers that agreed on it ([`Opening::since`]), and a frame of an unknown version is refused by
//! name. Generic over the shapes of requests, answers and budget messages, which this crate does
//! not know.

mod receipt;

use std::net::SocketAddr;

use selvedge_base::codec::{OLDEST_VERSION, VERSION};
use selvedge_base::{Code, MeshId, Micros, NodeId, Refusal, Stage, TraceContext};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::answers::AnswersWord;
use crate::records::{Credential, Signed};
use crate::settings::SettingsMessage;
use crate::swim::Pulse;
pub use crate::sync::SyncMessage;
pub use receipt::{MAX_RECEIPT_BUDGETS, MAX_RECEIPT_TEXT, Receipt};

/// Addresses a hello may list: IPv4 and IPv6 of a machine with several interfaces.
pub const MAX_LISTEN_ADDRS: usize = 16;
/// The largest hello: a credential of 32 rotations and the addresses take about 9 KiB.
pub const MAX_HELLO_BYTES: usize = 16 << 10;
/// The longest name of a tenant in a hand-off.
pub const MAX_TENANT_BYTES: usize = 128;
/// While a peer computes and has nothing to say, it sends a sign of life this often; the receiver
/// hands the pulse to the failure detector.
pub const ALIVE_EVERY: Micros = Micros::millis(150);

/// What two nodes show each other before their hellos: that each knows the mesh's id, which only
/// members do, without telling it. So a stranger that dials, or that announced itself and was
/// dialled, learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    /// Keyed BLAKE3 over the connection's exported TLS secret and the side: it cannot be replayed
    /// on another connection nor echoed by the other side.
    pub proof: [u8; 32],
}

/// The answer to a knock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KnockReply {
    /// The other side's own proof.
    Known(Knock),
    /// The same words for every stranger.
    Refused(Refusal),
}

impl Knock {
    /// The proof of one side. `secret` is exported from the connection (RFC 8446, section 7.5).
    pub fn new(mesh: &MeshId, secret: &[u8; 32], dialler: bool) -> Self {
        let key = blake3::derive_key("selvedge 2026 knock", &mesh.0);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(secret);
        hasher.update(&[u8::from(dialler)]);
        Self { proof: *hasher.finalize().as_bytes() }
    }

    /// Whether the other side's knock is the expected one, in a time that does not tell where they
    /// differ.
    pub fn fits(&self, expected: &Self) -> bool {
        self.proof.ct_eq(&expected.proof).into()
    }
}

/// The first frame in both directions of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest wire version the sender speaks.
    pub oldest: u8,
    /// The newest.
    pub newest: u8,
    /// The sender's right to be here.
    pub credential: Credential,
    /// Counts the sender's starts.
    pub incarnation: u64,
    /// Where it accepts connections, as it knows; at most [`MAX_LISTEN_ADDRS`].
    pub listen: Vec<SocketAddr>,
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloReply {
    /// The connection stands; the other side's hello.
    Welcome(Box<Hello>),
    /// It does not.
    Refused(Refusal),
}

/// The first frame of a stream says what the stream is for. `R` is a request, `Q` a message about
/// budgets, `P` one about policies, `F` one of federated rounds, `M` a personal model, `S` a
/// request to write down what is said, `H` what a node's machine is, `W` the question whether data
/// fit a job, `D` what is asked beside a request. New variants go to the end: frames count them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening<R, Q = (), P = (), F = (), M = (), S = (), H = (), W = (), D = ()> {
    /// A request for the peer to compute; answered by [`HandOffReply`]s.
    HandOff(HandOff<R>),
    /// An exchange of state; answered by [`SyncMessage`]s.
    Sync(SyncMessage),
    /// A member asks a steward for a new lease; answered by one [`RenewReply`].
    Renew(Box<Credential>),
    /// Nothing: answered by one empty frame, for measuring.
    Echo,
    /// Rights of budgets and what concerns them; not answered on this stream. Since version 2.
    Quota(Box<Q>),
    /// Who has which budget, as signed records; not answered on this stream. Since version 2.
    Policy(Box<P>),
    /// A request that was reserved for; answered as [`Opening::HandOff`]. Since version 2.
    Charged(Box<Charged<R>>),
    /// Configuration of the mesh, as signed records; not answered on this stream. Since version 4.
    Settings(Box<SettingsMessage>),
    /// A request that is part of a trace; answered as [`Opening::HandOff`]. Since version 4.
    Traced(Box<Traced<R>>),
    /// About answers that are kept; answered as [`AnswersWord`] says. Since version 5.
    Answers(Box<AnswersWord>),
    /// Of a round of learning; not answered on this stream. Since version 6.
    Federated(Box<F>),
    /// A model of a node's own, in a job of learning; not answered on this stream. Since version 7.
    Personal(Box<M>),
    /// A request whose answer must hold to a schema; answered as [`Opening::HandOff`]. Since
    /// version 8.
    Shaped(Box<Shaped<R>>),
    /// A request to write down what is said in sound, which follows in frames of its own; answered
    /// by [`HandOffReply`]s. Since version 9.
    Spoken(Box<Spoken<S>>),
    /// What the sender's machine is and how it stands; not answered on this stream. Rows cannot
    /// carry it: they travel through nodes of every version, which would not read them. Since
    /// version 10.
    Machine(Box<H>),
    /// Whether the peer's data fit a job of learning that is not told yet; answered by one frame.
    /// Since version 12.
    Fits(Box<W>),
    /// A request with what is asked beside it; answered as [`Opening::HandOff`]. Since version 13.
    Detailed(Box<Detailed<R, D>>),
}

impl<R, Q, P, F, M, S, H, W, D> Opening<R, Q, P, F, M, S, H, W, D> {
    /// The wire version that brought this variant: it is written to no peer of an older one.
    pub const fn since(&self) -> u8 {
        match self {
            Self::HandOff(_) | Self::Sync(_) | Self::Renew(_) | Self::Echo => 1,
            Self::Quota(_) | Self::Policy(_) | Self::Charged(_) => 2,
            Self::Settings(_) | Self::Traced(_) => 4,
            Self::Answers(_) => 5,
            Self::Federated(_) => 6,
            Self::Personal(_) => 7,
            Self::Shaped(_) => 8,
            Self::Spoken(_) => 9,
            Self::Machine(_) => 10,
            Self::Fits(_) => 12,
            Self::Detailed(_) => 13,
        }
    }
}

/// A hand-off and who answers for its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charged<R> {
    /// The request.
    pub handed: HandOff<R>,
    /// Signed by the node that hands it over.
    pub receipt: Signed<Receipt>,
}

/// A hand-off that is part of a trace, with or without a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced<R> {
    /// The span of the node that hands it over.
    pub trace: TraceContext,
    /// The request.
    pub handed: HandOff<R>,
    /// As in [`Charged`], where budgets count it.
    pub receipt: Option<Signed<Receipt>>,
}

/// A hand-off whose answer must hold to a schema, in a trace or not, with or without a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shaped<R> {
    /// The schema, in the words of whoever made the request; to peers of version 14 and newer
    /// something else that answers hold to, marked as such.
    pub schema: String,
    /// As in [`Traced`], if it is part of a trace.
    pub trace: Option<TraceContext>,
    /// The request.
    pub handed: HandOff<R>,
    /// As in [`Charged`], where budgets count it.
    pub receipt: Option<Signed<Receipt>>,
}

/// A hand-off with what is asked beside the request, a schema included, in a trace or not, with or
/// without a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detailed<R, D> {
    /// What is asked beside the request.
    pub details: D,
    /// As in [`Traced`], if it is part of a trace.
    pub trace: Option<TraceContext>,
    /// The request.
    pub handed: HandOff<R>,
    /// As in [`Charged`], where budgets count it.
    pub receipt: Option<Signed<Receipt>>,
}

/// A hand-off of sound, in a trace or not, with or without a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoken<S> {
    /// Samples that follow.
    pub samples: u32,
    /// As in [`Traced`], if it is part of a trace.
    pub trace: Option<TraceContext>,
    /// The request.
    pub handed: HandOff<S>,
    /// As in [`Charged`], where budgets count it.
    pub receipt: Option<Signed<Receipt>>,
}

/// A request handed to a peer. Being handed one is not authority: the receiver checks all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOff<R> {
    /// Hand-offs so far, this one included; more than [`HandOff::MAX_HOPS`] is refused.
    pub hop: u8,
    /// The node that took the request from its client.
    pub origin: NodeId,
    /// On whose behalf.
    pub tenant: String,
    /// How far its data may travel.
    pub label: Label,
    /// Time left to finish; clocks of two nodes are never compared.
    pub deadline: Micros,
    /// Grows when the origin moves the request, so that an older holder's answer is ignored.
    pub fence: u64,
    /// What to compute.
    pub request: R,
}

impl<R> HandOff<R> {
    /// Hand-offs a request may make: a second one means that two nodes disagree about load, and
    /// the origin, which keeps the token log, must choose instead.
    pub const MAX_HOPS: u8 = 1;
}

/// How far a request's data may travel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Label {
    /// Not beyond the node that took the request.
    Node,
    /// Not beyond its site.
    Site,
    /// Not beyond the mesh.
    #[default]
    Mesh,
    /// Anywhere, providers included.
    Anywhere,
}

/// What a peer answers to a hand-off: `Accepted` or `Refused` first, then answers and signs of
/// life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandOffReply<A> {
    /// The peer computes it.
    Accepted,
    /// The peer does not; take the next candidate.
    Refused(Refusal),
    /// A piece of the answer.
    Answer(A),
    /// Nothing to say yet; sent every [`ALIVE_EVERY`] while nothing else is.
    Alive(Pulse),
}

/// A steward's answer to a member that wants a new lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenewReply {
    /// The new credential.
    Renewed(Box<Credential>),
    /// None.
    Refused(Refusal),
}

impl Hello {
    /// The hello of this build.
    pub fn new(credential: Credential, incarnation: u64, mut listen: Vec<SocketAddr>) -> Self {
        listen.truncate(MAX_LISTEN_ADDRS);
        Self { oldest: OLDEST_VERSION, newest: VERSION, credential, incarnation, listen }
    }

    /// The wire version to use with the sender of this hello.
    ///
    /// # Errors
    /// A refusal that names both ranges when they do not meet, or too many addresses.
    pub fn agree(&self) -> Result<u8, Refusal> {
        if self.listen.len() > MAX_LISTEN_ADDRS {
            let message = format!("a hello may list {MAX_LISTEN_ADDRS} addresses");
            return Err(Refusal::client(Stage::Authenticate, Code::InvalidRequest, message));
        }
        agree((OLDEST_VERSION, VERSION), (self.oldest, self.newest))
    }
}

/// The highest version in both ranges `(oldest, newest)`.
///
/// # Errors
/// A refusal that names both ranges when they do not meet.
pub fn agree(ours: (u8, u8), theirs: (u8, u8)) -> Result<u8, Refusal> {
    let version = ours.1.min(theirs.1);
    if version >= ours.0.max(theirs.0) {
        return Ok(version);
    }
    let message = format!(
        "this node speaks wire versions {} to {}, the peer {} to {}; update the older one",
        ours.0, ours.1, theirs.0, theirs.1
    );
    Err(Refusal::client(Stage::Authenticate, Code::Unsupported, message))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod v1;
