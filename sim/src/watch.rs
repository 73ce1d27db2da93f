//! What a run shows to whoever watches: typed events, enough for a grid, a timeline and a diff.
//!
//! Watching costs nothing when nobody does: events are made only for a watch that wants them, and
//! a run is the same with and without one.

use std::sync::Arc;

use selvedge_base::{Dice, Mono, NodeId, Now};
use selvedge_core::quota::{Quota, QuotaEffect, QuotaInput, QuotaOptions, QuotaStored};
use selvedge_crdt::escrow::Seal;
use selvedge_proto::swim::{Swim, SwimEffect, SwimInput};
use serde::{Deserialize, Serialize};

/// Something worth showing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, since the start of the run.
    pub at: Mono,
    /// What kind.
    pub kind: EventKind,
    /// Whom it happened to; none when it concerns the whole mesh.
    pub node: Option<usize>,
    /// The other node, when there is one.
    pub peer: Option<usize>,
    /// Which request, when it is about one.
    pub request: Option<u64>,
    /// Pairs a beginning with its end: the fault's place in the plan, the connection's number.
    pub span: Option<u64>,
    /// Which budget of the plan, when it is about one: transfers, reports of quota.
    pub budget: Option<usize>,
    /// How much: the rights of a transfer, the tokens of an answer.
    pub amount: Option<u64>,
    /// For people.
    pub text: String,
}

/// How a node stands with one budget, told when it changed: the curves of the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// When.
    pub at: Mono,
    /// Whose.
    pub node: usize,
    /// Which budget of the plan.
    pub budget: usize,
    /// Which window.
    pub window: u64,
    /// All it may spend in this window: granted, plus got, less given.
    pub ceiling: u64,
    /// Its durable high-water mark.
    pub hw: u64,
    /// What it truly spent.
    pub spent: u64,
}

/// What kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A fault begins; `span` is its place in the plan.
    FaultBegan,
    /// It is over.
    FaultEnded,
    /// A process died.
    Crashed,
    /// A process started.
    Started,
    /// A process was stopped.
    Stopped,
    /// A stopped process went on.
    WentOn,
    /// `node` and `peer` are connected; `span` is the connection's number.
    LinkUp,
    /// `node` noticed that it lost its connection to `peer`.
    LinkLost,
    /// `node` declares `peer` alive, suspect, frozen or dead.
    Declared,
    /// A client's request reached `node`.
    RequestArrived,
    /// `node` refused it before any work.
    RequestRefused,
    /// `node` hands it to `peer` (or to itself).
    RequestDispatched,
    /// `node` asks a provider.
    ProviderAsked,
    /// The answer goes on at `peer`.
    RequestMoved,
    /// The caller got the first token.
    RequestStarted,
    /// The caller got the end of the answer.
    RequestFinished,
    /// The caller got a failure.
    RequestFailed,
    /// The caller went away.
    RequestLeft,
    /// `node`, which took the request, died with it.
    RequestLost,
    /// `node` gave rights to `peer`.
    TransferMade,
    /// `node` may use rights that `peer` gave.
    TransferTaken,
    /// Anything else a quota machine reports.
    QuotaReported,
    /// A write became durable.
    Stored,
    /// A write failed, or was lost with a crash.
    StoreFailed,
    /// A policy, a key or a membership changed, by an operator or because `node` learnt of it.
    PolicyChanged,
    /// A model came into memory, went, or could not be had.
    MemoryChanged,
    /// A clock was set.
    ClockSet,
    /// Something that must not happen did; the text begins with the invariant's id.
    Violated,
}

/// One record of the trace, as it is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Which record of the run, from 0.
    pub index: u64,
    /// When.
    pub at: Mono,
    /// What kind.
    pub kind: &'static str,
    /// About whom.
    pub who: [usize; 2],
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// How a process made its quota machine, so that the same one can be made elsewhere.
#[derive(Clone)]
pub struct QuotaOrigin {
    /// The node.
    pub me: NodeId,
    /// What the disk held.
    pub stored: QuotaStored,
    /// Signs rows and checks them.
    pub seal: Arc<dyn Seal>,
    /// The machine's own dice.
    pub dice: Dice,
    /// The node's options.
    pub options: QuotaOptions,
    /// When.
    pub now: Now,
}

impl QuotaOrigin {
    /// The machine.
    pub fn make(self) -> Quota {
        Quota::new(self.me, self.stored, self.seal, self.dice, self.options, self.now)
    }
}

/// Whoever looks on while a run is made.
pub trait Watch {
    /// Whether events are wanted at all.
    fn wants_events(&self) -> bool {
        false
    }

    /// Whether the steps of a node's machines are wanted, as to replay them elsewhere.
    fn wants_steps(&self, node: usize) -> bool {
        let _ = node;
        false
    }

    /// Takes the failure detector of a process that starts, before its first step.
    fn detector_made(&mut self, node: usize, detector: &Swim) {
        let _ = (node, detector);
    }

    /// Takes a step of a node's failure detector.
    fn detector_stepped(&mut self, node: usize, at: Now, input: SwimInput, orders: &[SwimEffect]) {
        let _ = (node, at, input, orders);
    }

    /// Takes how a process that starts made its quota machine.
    fn quota_made(&mut self, node: usize, origin: QuotaOrigin) {
        let _ = (node, origin);
    }

    /// Takes a step of a node's quota machine.
    fn quota_stepped(&mut self, node: usize, at: Now, input: QuotaInput, orders: &[QuotaEffect]) {
        let _ = (node, at, input, orders);
    }

    /// Whether the records of the trace are wanted.
    fn wants_records(&self) -> bool {
        false
    }

    /// Takes an event.
    fn event(&mut self, event: Event) {
        let _ = event;
    }

    /// Takes how a node stands with a budget; asked for together with events.
    fn standing(&mut self, standing: Standing) {
        let _ = standing;
    }

    /// Takes a record of the trace.
    fn record(&mut self, record: Record<'_>) {
        let _ = record;
    }
}

/// Nobody watches.
impl Watch for () {}

/// Keeps all events.
impl Watch for Vec<Event> {
    fn wants_events(&self) -> bool {
        true
    }

    fn event(&mut self, event: Event) {
        self.push(event);
    }
}

impl EventKind {
    /// A few letters, for one-line grids.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::FaultBegan => "FAULT",
            Self::FaultEnded => "heal",
            Self::Crashed => "CRASH",
            Self::Started => "start",
            Self::Stopped => "STOP",
            Self::WentOn => "cont",
            Self::LinkUp => "link",
            Self::LinkLost => "cut",
            Self::Declared => "says",
            Self::RequestArrived => "req",
            Self::RequestRefused => "no",
            Self::RequestDispatched => "send",
            Self::ProviderAsked => "ask",
            Self::RequestMoved => "MOVE",
            Self::RequestStarted => "first",
            Self::RequestFinished => "done",
            Self::RequestFailed => "FAIL",
            Self::RequestLeft => "left",
            Self::RequestLost => "LOST",
            Self::TransferMade => "give",
            Self::TransferTaken => "take",
            Self::QuotaReported => "quota",
            Self::Stored => "store",
            Self::StoreFailed => "DISK",
            Self::PolicyChanged => "policy",
            Self::MemoryChanged => "memory",
            Self::ClockSet => "clock",
            Self::Violated => "BROKEN",
        }
    }
}
