//! Who of the mesh is alive, as this node sees it.
//!
//! SWIM (Das, Gupta, Motivala 2002) with incarnations and suspicion, plus two things it lacks: the
//! fate of the connection is evidence, and every ping and ack carries a pulse by which a peer that
//! answers but makes no progress is told from one that is slow, loading or idle. A node watches its
//! own engine in the same way and tells when it froze, so that in a large mesh, where each looks at
//! a few others at a time, all know as soon as in a small one. Owns the verdict and the probes.
//! Does not own connections, addresses or membership: the shell introduces only members and forgets
//! those that were revoked.

mod book;
mod detector;
mod gossip;
mod stillness;

use selvedge_base::{Micros, NodeId};
use serde::{Deserialize, Serialize};

pub use detector::Swim;

/// How often a node probes. A quarter second gives a silent peer nine chances before it is
/// declared dead, and costs eight peers 6 KiB/s at 100 bytes a message.
pub const PROBE_PERIOD: Micros = Micros::millis(250);
/// Peers probed each period; up to this many members, all of them.
pub const PROBES_PER_PERIOD: usize = 8;
/// Unanswered for this long, a peer is suspected and others are asked to try: three probes lost,
/// which at 5 % loss each way happens to one probe series in a thousand.
pub const SUSPECT_AFTER: Micros = Micros::millis(800);
/// Unanswered for this long, and through others too, a peer is dead. With the probe period this
/// stays under the promised 3 s by a margin of half a second for a busy machine.
pub const DEAD_AFTER: Micros = Micros::millis(2_250);
/// After its connection was lost, a peer that nobody hears is dead: under the promised 1 s.
pub const DEAD_AFTER_LINK_LOST: Micros = Micros::millis(800);
/// Computing without progress for this long is frozen. Progress is counted per layer and per 16
/// prompt tokens, so even a machine that swaps advances within a second; with two probe periods
/// around it this stays under the promised 2 s.
pub const FROZEN_AFTER: Micros = Micros::millis(1_250);
/// A step that comes this much later than asked for means that this node stood still itself;
/// peers are not blamed for it.
pub const STALL_NOTICED: Micros = Micros::millis(500);
/// How often the connection to a lost peer is tried again at first...
pub const REDIAL_AFTER: Micros = Micros::secs(1);
/// ...and at the longest, after doubling: a healed cut is noticed within this.
pub const REDIAL_AT_MOST: Micros = Micros::secs(8);
/// Redials begun per period, so that half a large mesh going away costs a bounded effort.
pub const REDIALS_PER_PERIOD: usize = 4;
/// Peers asked to try a suspect: three make a false alarm through their loss alone unlikely.
pub const HELPERS: usize = 3;
/// Peers told at once that an engine froze or goes on, by the node itself and by each that hears it
/// for the first time: four reach all but a fiftieth of any mesh within a few round trips, and the
/// pings that follow reach the rest.
pub const TOLD_AT_ONCE: usize = 4;
/// Peers known: the size a single mesh is meant for.
pub const MAX_PEERS: usize = 1_024;
/// Rumours in one message: sixteen of 52 bytes at most fit a datagram with the rest.
pub const MAX_RUMOURS: usize = 16;
/// The largest encoded message: a QUIC datagram fits 1,200 bytes of packet.
pub const MAX_MESSAGE_BYTES: usize = 1_100;

/// A fact the failure detector takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwimInput {
    /// A member became known; nothing is known of its health yet.
    PeerIntroduced {
        /// Who.
        node: NodeId,
    },
    /// A connection to it stands and both hellos were exchanged.
    LinkUp {
        /// Who.
        node: NodeId,
        /// The incarnation in its hello.
        incarnation: u64,
    },
    /// The connection to it ended.
    LinkLost {
        /// Who.
        node: NodeId,
    },
    /// Its process is gone: it said good-bye, or its machine says that nobody has its port.
    PeerEnded {
        /// Who.
        node: NodeId,
    },
    /// A message arrived over the authenticated connection.
    Received {
        /// From whom.
        from: NodeId,
        /// What.
        message: SwimMessage,
    },
    /// A pulse arrived by another way, such as on the stream of a request handed to the peer.
    PulseSeen {
        /// Whose.
        node: NodeId,
        /// What it says.
        pulse: Pulse,
    },
    /// This node's own pulse, to be told to others.
    SelfReported {
        /// What to tell.
        load: Pulse,
    },
    /// It is no member any more.
    PeerForgotten {
        /// Who.
        node: NodeId,
    },
    /// The time of [`selvedge_base::Machine::wake_at`] came.
    Ticked,
}

/// An order of the failure detector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwimEffect {
    /// Send a datagram; without a connection it is dropped.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: SwimMessage,
    },
    /// A peer's state changed.
    Declare {
        /// Whose.
        node: NodeId,
        /// To what.
        state: PeerState,
        /// Why.
        why: Why,
    },
    /// Try to connect to a peer.
    Redial {
        /// To whom.
        node: NodeId,
    },
    /// Store this node's incarnation, so that its next start begins above it.
    StoreIncarnation {
        /// The new value.
        incarnation: u64,
    },
}

/// What a peer is held to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeerState {
    /// It answers.
    Alive,
    /// It may be gone: not answering, or its connection is down. Send it no new work.
    Suspect,
    /// It answers but its engine computes without progress. Send it no new work, move running work.
    Frozen,
    /// It is gone. Move running work.
    Dead,
}

/// Why a peer's state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Why {
    /// Nothing was heard of it yet.
    NotHeardYet,
    /// A message or a connection came from it.
    Heard,
    /// It stopped answering.
    Silent,
    /// Its connection was lost.
    LinkLost,
    /// Its process ended.
    Ended,
    /// Others reach it, this node does not.
    OnlyThroughOthers,
    /// Others say so.
    Rumoured,
    /// It came back under a higher incarnation.
    Returned,
    /// It computes without progress.
    NoProgress,
    /// It makes progress again, or stopped computing.
    Progressing,
}

impl Why {
    /// For people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotHeardYet => "not heard yet",
            Self::Heard => "heard",
            Self::Silent => "silent",
            Self::LinkLost => "connection lost",
            Self::Ended => "its process ended",
            Self::OnlyThroughOthers => "reached only through others",
            Self::Rumoured => "others say so",
            Self::Returned => "came back",
            Self::NoProgress => "computes without progress",
            Self::Progressing => "makes progress again",
        }
    }
}

/// How a node's engine is doing; in every ping and ack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pulse {
    /// Advances with every layer computed and every chunk of a prompt.
    pub progress: u64,
    /// Whether any sequence is being computed.
    pub computing: bool,
    /// Whether a model is being loaded, which advances nothing.
    pub loading: bool,
    /// Sequences being computed.
    pub running: u32,
    /// Requests waiting.
    pub queued: u32,
}

/// What one node says of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rumour {
    /// Of whom.
    pub node: NodeId,
    /// Of which of its incarnations.
    pub incarnation: u64,
    /// What it is said to be. Frozen comes from the node itself, in each of its messages while its
    /// engine stands still; what others observe of an engine is not passed on.
    pub state: PeerState,
}

/// What crosses as a datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SwimMessage {
    /// Are you there?
    Ping(Beat),
    /// I am: answers the ping of the same number.
    Ack(Beat),
    /// Please ping `target` and tell me its answer.
    PingReq {
        /// Whom.
        target: NodeId,
        /// The asker's beat.
        beat: Beat,
    },
    /// `target` answered the ping made for you.
    Reached {
        /// Who answered.
        target: NodeId,
        /// Its incarnation.
        incarnation: u64,
        /// Its pulse.
        pulse: Pulse,
        /// The sender's beat, with the number of the request.
        beat: Beat,
    },
}

/// What every message carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Number of the ping this is or answers.
    pub seq: u64,
    /// The sender's incarnation.
    pub incarnation: u64,
    /// The sender's pulse.
    pub pulse: Pulse,
    /// At most [`MAX_RUMOURS`].
    pub gossip: Vec<Rumour>,
}

/// A peer as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Who.
    pub node: NodeId,
    /// What it is held to be.
    pub state: PeerState,
    /// Why.
    pub why: Why,
    /// Round trip, smoothed; none before the first ack.
    pub rtt: Option<Micros>,
    /// The latest pulse.
    pub pulse: Pulse,
    /// Its incarnation.
    pub incarnation: u64,
    /// Whether a connection stands.
    pub linked: bool,
}

#[cfg(test)]
mod tests;
