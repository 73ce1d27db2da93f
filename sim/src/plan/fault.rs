//! What may break, and for how long.

use selvedge_base::Micros;
use serde::{Deserialize, Serialize};

/// Something breaks for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Since the start of the run.
    pub at: Micros,
    /// Since the start of the run.
    pub until: Micros,
    /// What breaks.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// What breaks. What an operator does is among it: it happens at the beginning, and the end is no
/// matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum FaultKind {
    /// The process dies and starts again when the fault ends; its memory is lost, its disk is not.
    Crash {
        /// Which node.
        node: usize,
        /// Whether its peers are told, as when a process is stopped in good order.
        #[serde(default)]
        reset: bool,
    },
    /// As a crash, and the write under way is half on the disk: the store drops it.
    TornCrash {
        /// Which node.
        node: usize,
    },
    /// The process dies and its disk with it; it comes back with an empty one.
    Wipe {
        /// Which node.
        node: usize,
    },
    /// The process dies for good.
    Death {
        /// Which node.
        node: usize,
    },
    /// The process dies; writes of the last moments that its disk had confirmed are gone.
    LostWrites {
        /// Which node.
        node: usize,
        /// How far back the disk forgets.
        back: Micros,
    },
    /// The process stops at the end of the fault and starts from a copy of its disk that was made
    /// at the beginning.
    Backup {
        /// Which node.
        node: usize,
    },
    /// The process is stopped and later goes on as if nothing had happened.
    Pause {
        /// Which node.
        node: usize,
    },
    /// The engine computes without progress; the process is fine.
    Freeze {
        /// Which node.
        node: usize,
    },
    /// The engine is so many times slower.
    Throttle {
        /// Which node.
        node: usize,
        /// How many times; up to 20, a second a step, nobody may take it for frozen.
        times: u64,
    },
    /// The machine's battery carries it, and is this full.
    LowBattery {
        /// Which node.
        node: usize,
        /// Of a full one.
        percent: u8,
    },
    /// The machine is this hot.
    Hot {
        /// Which node.
        node: usize,
        /// Tenths of a degree Celsius.
        decidegrees: i16,
    },
    /// The engine has an eighth of its memory.
    ShortOfMemory {
        /// Which node.
        node: usize,
    },
    /// The engine runs out of memory: everything it computes fails, and it loads its model anew.
    OutOfMemory {
        /// Which node.
        node: usize,
    },
    /// The model cannot be loaded: what runs fails, nothing starts.
    LoadFailure {
        /// Which node.
        node: usize,
    },
    /// Nothing gets from one node to another; the other way is open.
    OneWay {
        /// From here.
        from: usize,
        /// Not to there.
        to: usize,
    },
    /// Nothing gets to or from a node.
    Isolate {
        /// Which node.
        node: usize,
    },
    /// Nothing gets between these and the others.
    Halves {
        /// One side.
        left: Vec<usize>,
    },
    /// Nothing gets from these to the others; the other way is open.
    OneWayHalves {
        /// The mute side.
        left: Vec<usize>,
    },
    /// Nothing gets between these and the others but over one node that reaches both.
    Bridge {
        /// One side.
        left: Vec<usize>,
        /// The node between, on neither side.
        node: usize,
    },
    /// The way between two nodes opens and closes.
    Flapping {
        /// One.
        from: usize,
        /// The other.
        to: usize,
        /// How long it is open, and then closed.
        every: Micros,
    },
    /// Everything to and from a node takes longer.
    Slow {
        /// Which node.
        node: usize,
        /// One way.
        by: Micros,
    },
    /// Much of what goes to and from a node is lost.
    Lossy {
        /// Which node.
        node: usize,
        /// Datagrams lost.
        permille: u64,
    },
    /// What goes to and from a node goes through a narrow link, one packet after the other.
    Narrow {
        /// Which node.
        node: usize,
        /// How long each packet takes.
        each: Micros,
    },
    /// Bits of the disk changed; the store finds it at the next start, and begins anew.
    DiskRot {
        /// Which node.
        node: usize,
    },
    /// Writes take this much longer to become durable.
    DiskSlow {
        /// Which node.
        node: usize,
        /// How much longer.
        by: Micros,
    },
    /// The disk is full: every write fails.
    DiskFull {
        /// Which node.
        node: usize,
    },
    /// Writes fail now and then.
    DiskErrors {
        /// Which node.
        node: usize,
        /// How many.
        permille: u64,
    },
    /// The wall clock is wrong by this many milliseconds.
    ClockOff {
        /// Which node.
        node: usize,
        /// Milliseconds; negative = behind.
        by: i64,
    },
    /// The wall clock runs fast (or slow) by this many millionths.
    ClockDrift {
        /// Which node.
        node: usize,
        /// Millionths; negative = slow.
        ppm: i64,
    },
    /// The process starts anew with its clock in 1970, until somebody sets it.
    Boot1970 {
        /// Which node.
        node: usize,
    },
    /// The process starts anew with its clock set back, until somebody sets it.
    BootBack {
        /// Which node.
        node: usize,
        /// How far back, in milliseconds.
        by: i64,
    },
    /// The clock is ahead; then power is lost, and the process starts again with the right time.
    PowerLost {
        /// Which node.
        node: usize,
        /// How far ahead, in milliseconds.
        ahead: i64,
    },
    /// The node is upgraded to the newer wire version: down at the beginning, up at the end.
    Upgrade {
        /// Which node.
        node: usize,
    },
    /// The operator signs a new limit for all budgets of a tenant, in permille of the old.
    Relimit {
        /// Which tenant of the plan.
        tenant: usize,
        /// The new limit, in permille of the old.
        permille: u64,
    },
    /// A steward changes a route of the plan at one node.
    Reroute {
        /// Where the steward sits.
        node: usize,
        /// How.
        how: Rerouting,
    },
    /// A steward lowers all budgets of a tenant at once, at one node.
    Lower {
        /// Which tenant of the plan.
        tenant: usize,
        /// Where the steward sits.
        node: usize,
        /// The new limit, in permille of the old.
        permille: u64,
    },
    /// A steward suspends the tenant at one node.
    Suspend {
        /// Which tenant of the plan.
        tenant: usize,
        /// Where the steward sits.
        node: usize,
    },
    /// A steward revokes the keys of a tenant's callers at one node.
    RevokeKey {
        /// Which tenant of the plan.
        tenant: usize,
        /// Where the steward sits.
        node: usize,
    },
    /// A node is put out of the mesh, for good; it does not know and goes on trying.
    RevokeNode {
        /// Which node.
        node: usize,
        /// Where the steward sits.
        by: usize,
    },
    /// The node is no member until then; it is given a code and joins.
    Join {
        /// Which node; the first is always a member.
        node: usize,
    },
    /// Somebody who knows a join code's number and not its secret tries it out.
    GuessCode {
        /// Whom the code was meant for.
        node: usize,
    },
    /// The node gives its rights away and leaves the mesh for good.
    Leave {
        /// Which node.
        node: usize,
    },
    /// An operator purges a node's cache of answers.
    Purge {
        /// Which node.
        node: usize,
        /// An account and what lies below it; none = all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<String>,
        /// A model's name; none = all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// A member sends old messages again.
    Replay {
        /// Which node.
        node: usize,
    },
    /// A member sends old messages with some bits turned over.
    Garble {
        /// Which node.
        node: usize,
    },
    /// A member sends records in the name of others, and one that is too large.
    Forge {
        /// Which node.
        node: usize,
    },
    /// A member signs two rows under one number.
    Equivocate {
        /// Which node.
        node: usize,
    },
    /// A member says that it is the fastest of all and idle.
    FalseAdvert {
        /// Which node.
        node: usize,
    },
    /// Something is wrong with a provider.
    Provider {
        /// Which provider of the plan.
        provider: usize,
        /// What.
        how: ProviderFault,
        /// How much, where that is a question.
        by: u64,
    },
    /// These nodes reach no provider; among each other they do.
    InternetCut {
        /// Which nodes.
        left: Vec<usize>,
    },
}

/// What a steward does to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rerouting {
    /// The targets come in the other order, each when those before it failed.
    Turned,
    /// It is removed.
    Removed,
    /// What it said before it says again.
    Back,
}

/// What may be wrong with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderFault {
    /// It turns requests away: too many for the key. `by` is how long it asks to wait, in
    /// milliseconds; 0 = it does not say.
    Limits,
    /// It fails: 5xx.
    Fails,
    /// It takes requests and says nothing.
    Hangs,
    /// It closes connections in its answers.
    Cuts,
    /// `by` milliseconds pass between the pieces of its answers.
    Drips,
    /// It bills `by` times as much as its answers are long.
    Overbills,
}

impl ProviderFault {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Limits, Self::Fails, Self::Hangs, Self::Cuts, Self::Drips, Self::Overbills];
}

/// The names of all kinds, for coverage.
pub const FAULT_NAMES: &[&str] = &[
    "crash",
    "crash with reset",
    "torn crash",
    "wipe",
    "death",
    "lost writes",
    "backup",
    "pause",
    "freeze",
    "throttle",
    "low battery",
    "hot",
    "short of memory",
    "load failure",
    "one-way cut",
    "isolation",
    "halves",
    "one-way halves",
    "bridge",
    "flapping",
    "slow",
    "lossy",
    "narrow",
    "disk rot",
    "out of memory",
    "garble",
    "forge",
    "slow disk",
    "full disk",
    "disk errors",
    "clock off",
    "clock drift",
    "boot in 1970",
    "boot set back",
    "power lost",
    "upgrade",
    "relimit",
    "reroute",
    "lower",
    "suspend",
    "revoke key",
    "revoke node",
    "join",
    "guess code",
    "leave",
    "purge",
    "replay",
    "equivocate",
    "false advert",
    "provider limits",
    "provider fails",
    "provider hangs",
    "provider cuts",
    "provider drips",
    "provider overbills",
    "internet cut",
];

impl FaultKind {
    /// Whether this is a cut of the network.
    pub const fn is_cut(&self) -> bool {
        matches!(
            self,
            Self::OneWay { .. }
                | Self::Isolate { .. }
                | Self::Halves { .. }
                | Self::OneWayHalves { .. }
                | Self::Bridge { .. }
                | Self::Flapping { .. }
        )
    }

    /// Whether nothing gets from one node to the other while this lasts; `age` is how long it has
    /// lasted.
    pub fn cuts(&self, from: usize, to: usize, age: Micros) -> bool {
        match self {
            Self::OneWay { from: a, to: b } => *a == from && *b == to,
            Self::Isolate { node } => *node == from || *node == to,
            Self::Halves { left } => left.contains(&from) != left.contains(&to),
            Self::OneWayHalves { left } => left.contains(&from) && !left.contains(&to),
            Self::Bridge { left, node } => {
                *node != from && *node != to && left.contains(&from) != left.contains(&to)
            }
            Self::Flapping { from: a, to: b, every } => {
                let closed = every.0 > 0 && (age.0 / every.0).is_multiple_of(2);
                closed && ((*a == from && *b == to) || (*a == to && *b == from))
            }
            _ => false,
        }
    }

    /// Whether it is about how a machine stands.
    pub(crate) const fn strains(&self) -> bool {
        matches!(self, Self::LowBattery { .. } | Self::Hot { .. })
    }

    /// Whether a member says what is not so.
    pub(crate) const fn lies(&self) -> bool {
        matches!(self, Self::Equivocate { .. } | Self::Garble { .. } | Self::Forge { .. })
    }

    /// The node it is about, when it is about one.
    pub const fn node(&self) -> Option<usize> {
        match self {
            Self::Crash { node, .. }
            | Self::TornCrash { node }
            | Self::Wipe { node }
            | Self::Death { node }
            | Self::LostWrites { node, .. }
            | Self::Backup { node }
            | Self::Pause { node }
            | Self::Freeze { node }
            | Self::Throttle { node, .. }
            | Self::LowBattery { node, .. }
            | Self::Hot { node, .. }
            | Self::ShortOfMemory { node }
            | Self::LoadFailure { node }
            | Self::Isolate { node }
            | Self::Bridge { node, .. }
            | Self::Slow { node, .. }
            | Self::Lossy { node, .. }
            | Self::Narrow { node, .. }
            | Self::DiskRot { node }
            | Self::OutOfMemory { node }
            | Self::Garble { node }
            | Self::Forge { node }
            | Self::DiskSlow { node, .. }
            | Self::DiskFull { node }
            | Self::DiskErrors { node, .. }
            | Self::ClockOff { node, .. }
            | Self::ClockDrift { node, .. }
            | Self::Boot1970 { node }
            | Self::BootBack { node, .. }
            | Self::PowerLost { node, .. }
            | Self::Upgrade { node }
            | Self::Reroute { node, .. }
            | Self::Lower { node, .. }
            | Self::Suspend { node, .. }
            | Self::RevokeKey { node, .. }
            | Self::RevokeNode { node, .. }
            | Self::Join { node }
            | Self::GuessCode { node }
            | Self::Leave { node }
            | Self::Purge { node, .. }
            | Self::Replay { node }
            | Self::Equivocate { node }
            | Self::FalseAdvert { node } => Some(*node),
            Self::OneWay { from, .. } | Self::Flapping { from, .. } => Some(*from),
            Self::Halves { .. }
            | Self::OneWayHalves { .. }
            | Self::Relimit { .. }
            | Self::Provider { .. }
            | Self::InternetCut { .. } => None,
        }
    }

    /// The other node, when there is one.
    pub const fn peer(&self) -> Option<usize> {
        match self {
            Self::OneWay { to, .. } | Self::Flapping { to, .. } => Some(*to),
            Self::RevokeNode { by, .. } => Some(*by),
            _ => None,
        }
    }

    /// The nodes on one side of a cut, when it cuts the mesh in two.
    pub fn left(&self) -> &[usize] {
        match self {
            Self::Halves { left }
            | Self::OneWayHalves { left }
            | Self::InternetCut { left }
            | Self::Bridge { left, .. } => left,
            _ => &[],
        }
    }

    pub(super) fn fits(&self, nodes: usize, providers: usize) -> bool {
        let known = |node: Option<usize>| node.is_none_or(|node| node < nodes);
        if let Self::Provider { provider, .. } = self {
            return *provider < providers;
        }
        known(self.node()) && known(self.peer()) && self.left().iter().all(|node| *node < nodes)
    }

    /// A name for counters and traces, one of [`FAULT_NAMES`].
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Crash { reset: false, .. } => "crash",
            Self::Crash { reset: true, .. } => "crash with reset",
            Self::TornCrash { .. } => "torn crash",
            Self::Wipe { .. } => "wipe",
            Self::Death { .. } => "death",
            Self::LostWrites { .. } => "lost writes",
            Self::Backup { .. } => "backup",
            Self::Pause { .. } => "pause",
            Self::Freeze { .. } => "freeze",
            Self::Throttle { .. } => "throttle",
            Self::LowBattery { .. } => "low battery",
            Self::Hot { .. } => "hot",
            Self::ShortOfMemory { .. } => "short of memory",
            Self::LoadFailure { .. } => "load failure",
            Self::OneWay { .. } => "one-way cut",
            Self::Isolate { .. } => "isolation",
            Self::Halves { .. } => "halves",
            Self::OneWayHalves { .. } => "one-way halves",
            Self::Bridge { .. } => "bridge",
            Self::Flapping { .. } => "flapping",
            Self::Slow { .. } => "slow",
            Self::Lossy { .. } => "lossy",
            Self::Narrow { .. } => "narrow",
            Self::DiskRot { .. } => "disk rot",
            Self::OutOfMemory { .. } => "out of memory",
            Self::Garble { .. } => "garble",
            Self::Forge { .. } => "forge",
            Self::DiskSlow { .. } => "slow disk",
            Self::DiskFull { .. } => "full disk",
            Self::DiskErrors { .. } => "disk errors",
            Self::ClockOff { .. } => "clock off",
            Self::ClockDrift { .. } => "clock drift",
            Self::Boot1970 { .. } => "boot in 1970",
            Self::PowerLost { .. } => "power lost",
            Self::BootBack { .. } => "boot set back",
            Self::Upgrade { .. } => "upgrade",
            Self::Provider { how: ProviderFault::Limits, .. } => "provider limits",
            Self::Provider { how: ProviderFault::Fails, .. } => "provider fails",
            Self::Provider { how: ProviderFault::Hangs, .. } => "provider hangs",
            Self::Provider { how: ProviderFault::Cuts, .. } => "provider cuts",
            Self::Provider { how: ProviderFault::Drips, .. } => "provider drips",
            Self::Provider { how: ProviderFault::Overbills, .. } => "provider overbills",
            Self::InternetCut { .. } => "internet cut",
            Self::Relimit { .. } => "relimit",
            Self::Reroute { .. } => "reroute",
            Self::Lower { .. } => "lower",
            Self::Suspend { .. } => "suspend",
            Self::RevokeKey { .. } => "revoke key",
            Self::RevokeNode { .. } => "revoke node",
            Self::Join { .. } => "join",
            Self::GuessCode { .. } => "guess code",
            Self::Leave { .. } => "leave",
            Self::Purge { .. } => "purge",
            Self::Replay { .. } => "replay",
            Self::Equivocate { .. } => "equivocate",
            Self::FalseAdvert { .. } => "false advert",
        }
    }
}
