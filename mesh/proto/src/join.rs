//! Joining a mesh with a code: a password-authenticated key exchange between two strangers.
//!
//! The code's secret never crosses the wire and cannot be guessed offline (SPAKE2, RFC 9382's
//! construction as the `spake2` crate does it); the issuer allows five attempts. Both sides then
//! prove to each other that they hold the same key, over a transcript that names both nodes and
//! the mesh, so nobody in the middle can pass for either. Owns the code's text, the issuer's book
//! of codes and both sides' machines. The connection below is TLS between node keys, which is
//! where the NodeIds come from.

mod code;
mod exchange;
mod invites;
mod issuer;
mod joiner;

use std::net::SocketAddr;

use selvedge_base::{Code, MeshId, Micros, NodeId, Refusal, Stage};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::records::{Credential, RecordError};

pub use code::{JoinCode, ParseCodeError};
pub use invites::{Invite, Invites};
pub use issuer::{Issuer, IssuerStep};
pub use joiner::{Joined, Joiner, JoinerStep};

/// Addresses in a code: the interfaces of one machine; more would make the line unwieldy.
pub const MAX_CODE_ADDRS: usize = 4;
/// How long a code works unless the operator says otherwise: time to walk to the other machine.
pub const DEFAULT_TTL: Micros = Micros::secs(3_600);
/// The longest a code may work: a day covers shipping a line to another office by mail.
pub const MAX_TTL: Micros = Micros::secs(24 * 3_600);
/// Attempts begun with one code before it is void; five, so that a person may mistype.
pub const MAX_ATTEMPTS: u8 = 5;
/// Codes out at a time: enough to invite a rack at once.
pub const MAX_INVITES: usize = 256;
/// Peers named in a welcome: enough to find the mesh again, small enough for one frame.
pub const MAX_WELCOME_PEERS: usize = 64;

/// What crosses the join connection, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinMessage {
    /// The joiner begins.
    Start {
        /// Which code.
        code_id: u32,
        /// The joiner's half of the exchange.
        pake: Vec<u8>,
        /// What the joining node wants to be called.
        name: String,
    },
    /// The issuer answers and proves that it knows the code.
    Challenge {
        /// The issuer's half of the exchange.
        pake: Vec<u8>,
        /// The mesh the code is for.
        mesh: MeshId,
        /// The issuer's proof.
        confirm: [u8; 32],
    },
    /// The joiner proves that it knows the code.
    Prove {
        /// The joiner's proof.
        confirm: [u8; 32],
    },
    /// The joiner is a member.
    Welcome {
        /// Its credential.
        credential: Box<Credential>,
        /// Where other members are.
        peers: Vec<(NodeId, Vec<SocketAddr>)>,
    },
    /// It is not.
    Refused(Refusal),
}

/// Why joining failed, on either side.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JoinError {
    /// The issuer has no such code, or no longer.
    #[error("the join code is not known here: it expired, was used, or is of another node")]
    UnknownCode,
    /// The code's time is over.
    #[error("the join code expired; make a new one with `selvedge mesh invite`")]
    Expired,
    /// Somebody joined with it already.
    #[error("the join code was used already; make a new one with `selvedge mesh invite`")]
    Used,
    /// Five attempts were begun.
    #[error(
        "the join code is void after {MAX_ATTEMPTS} attempts; make a new one with `selvedge mesh \
         invite`"
    )]
    TooManyAttempts,
    /// The proof does not fit: a wrong code, or somebody in between.
    #[error("the join code does not match; check that it was copied whole")]
    WrongProof,
    /// The node at this address is not the one that issued the code.
    #[error("node {0} answered, but another one issued the code")]
    WrongIssuer(String),
    /// The mesh is not the one the code was issued for.
    #[error("the mesh's fingerprint is {theirs}, but the code is for {ours}")]
    WrongMesh {
        /// Of the mesh that answered.
        theirs: String,
        /// In the code.
        ours: String,
    },
    /// A message came out of order.
    #[error("unexpected message while joining")]
    OutOfOrder,
    /// The other side's half of the exchange is malformed.
    #[error("malformed key exchange")]
    Exchange,
    /// The credential in the welcome is not good.
    #[error("the credential received is not good: {0}")]
    Credential(#[from] RecordError),
    /// There are too many codes out.
    #[error("{MAX_INVITES} join codes are out; wait for one to expire")]
    TooManyInvites,
    /// The other side refused.
    #[error("refused: {}", .0.message)]
    Refused(Refusal),
}

impl JoinError {
    /// What the other side is told.
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::UnknownCode
            | Self::Expired
            | Self::Used
            | Self::TooManyAttempts
            | Self::WrongProof
            | Self::WrongIssuer(_)
            | Self::WrongMesh { .. }
            | Self::Credential(_) => Code::Unauthorized,
            Self::OutOfOrder | Self::Exchange => Code::InvalidRequest,
            Self::TooManyInvites => Code::Overloaded,
            Self::Refused(refusal) => return refusal.clone(),
        };
        Refusal::client(Stage::Authenticate, code, self.to_string())
    }
}

#[cfg(test)]
mod tests;
