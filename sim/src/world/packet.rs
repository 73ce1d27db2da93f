//! What crosses the network: whose, over which connection, and what.

use selvedge_base::Micros;
use selvedge_contract::Machine;
use selvedge_core::HandOffReply;
use selvedge_core::quota::QuotaMessage;
use selvedge_proto::answers::{Ask, KeptInBrief, Print, PurgeLine};
use selvedge_proto::policy::PolicyMessage;
use selvedge_proto::records::{Credential, Signed};
use selvedge_proto::settings::SettingsMessage;
use selvedge_proto::swim::SwimMessage;
use selvedge_proto::sync::{SyncDelta, SyncDigest};
use selvedge_proto::wire::Receipt;

use super::cached;
use crate::node::Opened;

#[derive(Debug)]
pub(crate) struct Packet {
    pub(super) from: usize,
    pub(super) conn: u64,
    pub(super) load: Load,
}

#[derive(Clone, Debug)]
pub(super) enum Load {
    Swim(SwimMessage),
    Digest(Box<SyncDigest>),
    Delta(Box<SyncDelta>),
    /// A hand-off, with a receipt when it was reserved for.
    Open {
        stream: u64,
        handed: Opened,
        receipt: Option<Box<Signed<Receipt>>>,
    },
    /// What the serving node says.
    Reply {
        stream: u64,
        reply: HandOffReply,
    },
    /// The ingest node wants no more of a stream.
    Stop {
        stream: u64,
    },
    /// About rights.
    Quota(Box<QuotaMessage>),
    /// About policies.
    Policy(Box<PolicyMessage>),
    /// About routes.
    Settings(Box<SettingsMessage>),
    /// About purges, in brief or in whole.
    PurgesInBrief(Print),
    Purges(Vec<Signed<PurgeLine>>),
    /// Which answers a node keeps.
    Kept(Box<KeptInBrief>),
    /// A wish for one, and the answer with its age and how long it is good for.
    Ask {
        request: u64,
        ask: Ask,
    },
    /// How a machine stands.
    Machine(Box<Machine>),
    Lent {
        request: u64,
        lent: Option<(cached::Kept, Micros, Micros)>,
    },
    /// A member asks a steward for a new lease.
    Renew(Box<Credential>),
    /// A steward grants it.
    Renewed(Box<Credential>),
    /// A member shows its new lease.
    LeaseShown(Box<Credential>),
    /// The other side knows no such connection.
    Reset,
}

impl Load {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Swim(_) => "swim",
            Self::Digest(_) => "digest",
            Self::Delta(_) => "delta",
            Self::Open { .. } => "open",
            Self::Reply { .. } => "reply",
            Self::Stop { .. } => "stop",
            Self::Quota(_) => "rights",
            Self::Policy(_) => "policy",
            Self::Settings(_) => "settings",
            Self::PurgesInBrief(_) | Self::Purges(_) => "purges",
            Self::Kept(_) | Self::Ask { .. } | Self::Lent { .. } => "answers",
            Self::Machine(_) => "machine",
            Self::Renew(_) | Self::Renewed(_) | Self::LeaseShown(_) => "lease",
            Self::Reset => "reset",
        }
    }
}
