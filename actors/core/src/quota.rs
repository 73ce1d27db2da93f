//! What may be spent: reservations and settlements against budgets that no partition, crash or
//! clock can overspend.
//!
//! Every node holds rights, its part of each budget, and spends from them without asking anybody.
//! Rights move between nodes as durable rows of an escrow (`selvedge_crdt::escrow`); whatever is
//! stale or lost only makes a node see less than it has. The life of a reservation:
//!
//! ```text
//! Asked ─▶ all budgets have enough? ─▶ mark durable? ─▶ Granted ─▶ Settled (or its lease ends)
//!               │ no                       │ no
//!               ▼                          ▼
//!          ask two peers, hold 30 ms    Persist, then Granted
//!               └▶ downgrade, local only or refuse with Retry-After
//! ```
//!
//! Owns what is reserved and spent here, when rights are asked for and given, and what must be
//! durable before anything depends on it. Does not own the policy (a [`Grants`] is handed in), the
//! rows' algebra, signatures, disks or clocks.
//!
//! Files: `reserve` and `settle` are the hot path, `purse` their arithmetic, `hold` what happens
//! when there is too little; `commit` writes ahead; `window` turns
//! windows over; `transfer` moves rights; `sync` exchanges rows; `withhold` lowers limits
//! under permits that moved; `guest` uses what came to a newcomer; `recall` finds rolled back
//! stores; `witness` keeps rows of reclaimable budgets for others and `seat` this node's own, so
//! that rights of a node that is gone can be taken over; `retire` leaves; `status` tells.

mod charge;
mod commit;
mod demand;
mod event;
mod grants;
mod guest;
mod hold;
mod intake;
mod journal;
mod message;
mod purse;
mod rate;
mod recall;
mod reserve;
mod retire;
mod route;
mod seat;
mod settle;
mod status;
mod stored;
mod sync;
mod transfer;
mod window;
mod withhold;
mod witness;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Dice, Machine, Micros, Mono, NodeId, Now, RequestId, Wall};
use selvedge_crdt::escrow::{BudgetId, Holder, LedgerKey, Register, Seal, SignedRow};
use selvedge_proto::policy::{AccountPath, KeyId};
use selvedge_proto::records::MAX_MEMBERS;

pub use charge::{BlockedBudget, Charge, CostClass, QuotaRefusal, Verdict, Why};
pub use event::QuotaEvent;
pub use grants::Grants;
pub use intake::Intake;
pub use message::{
    Ask, MAX_HEADS, MAX_PAYLOAD_BYTES, QuotaDigest, QuotaMessage, WITNESSES_SINCE, WitnessMessage,
};
pub use status::{BudgetStatus, HolderStatus, LedgerAudit, Remaining, WitnessStatus};
pub use stored::{Kept, QuotaHeader, QuotaStored, QuotaWrite, StoredRow};

use journal::{Horizon, Journal};
use purse::{Account, Purse};
use reserve::{Request, Share};

/// Budgets one node spends from at once: 256 tenants with a few budgets each.
pub const MAX_BUDGETS: usize = 1_024;
/// Reservations at once: far above what a node can compute, and what a flood may cost in memory.
pub const MAX_RESERVATIONS: usize = 4_096;
/// Requests held at once until rights arrive; each costs a look at every arrival.
pub const MAX_HOLDS: usize = 256;
/// Peers rights are exchanged with.
pub const MAX_PEERS: usize = 1_024;
/// Members whose rows are kept: as many as a roster holds.
const MAX_KNOWN: usize = MAX_MEMBERS;
/// How often a node looks after its budgets of its own accord: turns windows, asks, pushes, tells.
pub const BEAT: Micros = Micros::secs(1);
/// Longer leases end at this: no request may hold rights for longer than an hour unsettled.
pub const MAX_LEASE: Micros = Micros::secs(3_600);
/// Floors of budgets that are no longer used; each is 24 bytes that keep an old window shut.
const MAX_FLOORS: usize = 4 * MAX_BUDGETS;

/// How a node wants its quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaOptions {
    /// Spend after a start only once a peer confirmed that the store was not rolled back.
    pub rollback_guard: bool,
    /// How long a request waits for rights of peers before it is refused. A LAN's round trip and
    /// two writes take 5 to 20 ms; zero refuses at once.
    pub hold: Micros,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum QuotaInput {
    /// A request wants to run.
    Asked {
        /// Which request; unique.
        id: RequestId,
        /// Who pays.
        account: AccountPath,
        /// The key it came with.
        key: Option<KeyId>,
        /// The most it may take.
        worst: Charge,
        /// When it counts as lost, and its worst case as spent.
        lease: Micros,
    },
    /// A request needs more than was reserved.
    Extended {
        /// Which request.
        id: RequestId,
        /// How much more.
        more: Charge,
    },
    /// A request is over. Counts once; what was not used comes back.
    Settled {
        /// Which request.
        id: RequestId,
        /// What it took.
        actual: Charge,
    },
    /// A write is durable.
    Persisted {
        /// Which write.
        ticket: u64,
    },
    /// A write is not durable, or nobody knows.
    PersistFailed {
        /// Which write.
        ticket: u64,
        /// What went wrong.
        why: String,
    },
    /// A member said something.
    Received {
        /// Who, authenticated.
        from: NodeId,
        /// What.
        message: QuotaMessage,
    },
    /// A member can be reached.
    PeerUp {
        /// Who.
        node: NodeId,
    },
    /// A member cannot be reached.
    PeerDown {
        /// Who.
        node: NodeId,
    },
    /// These are the mesh's members; rows of others are not kept.
    Introduced {
        /// Who, this node or not.
        nodes: Vec<NodeId>,
    },
    /// There is another policy.
    PolicyChanged {
        /// All of it.
        book: Arc<dyn Grants>,
    },
    /// The node leaves for good: settle, give everything away, seal.
    Drained,
    /// The node stays after all: leaving failed half-way.
    Stayed,
    /// Time passed.
    Ticked,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaEffect {
    /// Make this durable as a whole, then feed back [`QuotaInput::Persisted`]. One at a time.
    Persist {
        /// Names the write.
        ticket: u64,
        /// What to write.
        write: QuotaWrite,
    },
    /// Tell a peer; loss is harmless.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: QuotaMessage,
    },
    /// Tell a request.
    Answer {
        /// Which.
        id: RequestId,
        /// What.
        verdict: Verdict,
    },
    /// Tell people.
    Report(QuotaEvent),
}

/// The quotas of one node.
#[derive(Clone)]
pub struct Quota {
    holder: Holder,
    seal: Arc<dyn Seal>,
    dice: Dice,
    options: QuotaOptions,
    book: Arc<dyn Grants>,
    /// Counts the books; caches of older ones are void.
    revision: u64,
    /// At most [`MAX_BUDGETS`]. A purse keeps its place, so that requests can name it.
    purses: Vec<Purse>,
    places: BTreeMap<BudgetId, usize>,
    /// Accounts from the disk whose budgets nobody has asked for yet. Shrinks only.
    dormant: BTreeMap<BudgetId, Vec<Account>>,
    /// Of budgets without a purse. At most [`MAX_FLOORS`].
    floors: BTreeMap<BudgetId, u64>,
    debts: BTreeMap<BudgetId, u64>,
    /// Which purses a caller draws from. A cache of at most `route::MAX_ROUTES` accounts.
    routes: BTreeMap<AccountPath, BTreeMap<Option<KeyId>, Arc<[usize]>>>,
    /// At most [`MAX_RESERVATIONS`].
    requests: BTreeMap<RequestId, Request>,
    /// One entry per request.
    leases: BTreeSet<(Mono, RequestId)>,
    /// Requests that wait for rights, in the order they came. At most [`MAX_HOLDS`].
    holds: VecDeque<RequestId>,
    /// Share lists to use again, so that a reservation allocates none. At most one per request.
    spare: Vec<Vec<Share>>,
    /// Members that can be reached, and the holder each said it is. At most [`MAX_PEERS`].
    peers: BTreeMap<NodeId, Option<Holder>>,
    /// Members of the mesh, whether they can be reached or not. At most [`MAX_KNOWN`].
    known: BTreeSet<NodeId>,
    /// Since when members that were reached are not. At most [`MAX_PEERS`].
    absent: BTreeMap<NodeId, Mono>,
    /// When this process began to look: nobody was missed before.
    looks_since: Mono,
    /// Rows of witnessed ledgers this node keeps for their writers. At most
    /// `witness::MAX_REGISTERS`.
    kept: BTreeMap<(LedgerKey, Holder), Register>,
    journal: Journal,
    horizon: Horizon,
    /// The latest time this process promised anything.
    spent_at: Wall,
    /// The horizon the disk held at the start.
    restored_at: Wall,
    /// What limiters held at the start.
    bucket: rate::Bucket,
    /// Something came back or arrived: holds are worth another look.
    freed: bool,
    /// No rollback can go unnoticed any more, or nobody wants to know.
    confirmed: bool,
    draining: bool,
    retired: bool,
    next_beat: Mono,
    /// Where the next digest goes on.
    digest_from: usize,
}

impl Quota {
    /// The quotas of a node with what its disk held. A fresh store gets a new holder's name, which
    /// the first write makes durable before anything else.
    pub fn new(
        me: NodeId,
        stored: QuotaStored,
        seal: Arc<dyn Seal>,
        dice: Dice,
        options: QuotaOptions,
        now: Now,
    ) -> Self {
        let restored_at = stored.header.as_ref().map_or(Wall(0), |header| header.horizon);
        let mut quota = Self {
            holder: Holder { node: me, incarnation: 0 },
            seal,
            dice,
            options,
            book: Arc::new(grants::Unlimited),
            revision: 0,
            purses: Vec::new(),
            places: BTreeMap::new(),
            dormant: BTreeMap::new(),
            floors: BTreeMap::new(),
            debts: BTreeMap::new(),
            routes: BTreeMap::new(),
            requests: BTreeMap::new(),
            leases: BTreeSet::new(),
            holds: VecDeque::new(),
            spare: Vec::new(),
            peers: BTreeMap::new(),
            known: BTreeSet::new(),
            absent: BTreeMap::new(),
            looks_since: now.mono,
            kept: BTreeMap::new(),
            journal: Journal::default(),
            horizon: Horizon::default(),
            spent_at: Wall(0),
            restored_at,
            bucket: rate::Bucket::at_start(now, restored_at),
            freed: false,
            confirmed: !options.rollback_guard,
            draining: false,
            retired: false,
            next_beat: now.mono,
            digest_from: 0,
        };
        if plant::is_on(Plant::HorizonForgotten) {
            quota.restored_at = Wall(0);
        }
        quota.restore(stored);
        quota
    }

    /// Under which name this node holds rights. Policies must name it, and peers give to it.
    pub const fn holder(&self) -> Holder {
        self.holder
    }

    /// The latest wall time this node may ever have spent at, also before a crash: what
    /// `PolicyBook::adopt` wants to know, since clocks go back.
    pub fn latest(&self) -> Wall {
        self.spent_at.max(self.restored_at)
    }

    /// What signs and checks rows here.
    pub fn seal(&self) -> Arc<dyn Seal> {
        self.seal.clone()
    }

    /// Whether a row may be news, so that its signature must be checked.
    pub fn may_be_news(&self, signed: &SignedRow) -> bool {
        let row = &signed.row;
        let place = self.places.get(&row.key.budget);
        let Some(account) = place.and_then(|at| self.purses[*at].account(row.key.window)) else {
            // A ledger nobody knows is not looked at; one that is opened by the row itself may be.
            return self.book.budget(&row.key.budget).is_some();
        };
        let held = account.ledger.get(&row.holder);
        held.is_none_or(|held| held.row.seq <= row.seq && held.row != *row)
    }

    /// Whether everything was given away and sealed, durably.
    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    fn take(&mut self, now: Now, input: QuotaInput, effects: &mut Vec<QuotaEffect>) {
        match input {
            QuotaInput::Asked { id, account, key, worst, lease } => {
                self.asked(now, id, account, key, worst, lease, effects);
            }
            QuotaInput::Extended { id, more } => self.extended(now, id, &more, effects),
            QuotaInput::Settled { id, actual } => self.settled(now, id, &actual, effects),
            QuotaInput::Persisted { ticket } => self.persisted(now, ticket, effects),
            QuotaInput::PersistFailed { ticket, why } => {
                self.persist_failed(now, ticket, why, effects);
            }
            QuotaInput::Received { from, message } => self.received(now, from, message, effects),
            QuotaInput::PeerUp { node } => self.met(node, effects),
            QuotaInput::PeerDown { node } => self.lost(now, node),
            QuotaInput::Introduced { nodes } => {
                self.known = nodes.into_iter().take(MAX_KNOWN).collect();
            }
            QuotaInput::PolicyChanged { book } => self.policy_changed(now, book, effects),
            QuotaInput::Drained => self.draining = true,
            QuotaInput::Stayed => self.stay(),
            QuotaInput::Ticked => self.ticked(now, effects),
        }
    }

    fn policy_changed(&mut self, now: Now, book: Arc<dyn Grants>, effects: &mut Vec<QuotaEffect>) {
        self.book = book;
        self.revision += 1;
        self.routes.clear();
        for at in 0..self.purses.len() {
            if let Some(budget) = self.book.budget(&self.purses[at].budget.id) {
                self.purses[at].budget = budget;
            }
            self.refresh(at, now, effects);
        }
        // A node has purses for budgets nobody spends from here too: it holds rights of them that
        // others may need. More than there is room for are met when somebody asks.
        for budget in self.book.budgets() {
            let _place = self.place_of(budget, now, effects);
        }
        self.freed = true;
    }

    fn ticked(&mut self, now: Now, effects: &mut Vec<QuotaEffect>) {
        self.end_leases(now, effects);
        self.end_holds(now, effects);
        if now.mono >= self.next_beat {
            self.next_beat = now.mono.plus(BEAT);
            self.beat(now, effects);
        }
    }

    /// Looks after every budget once a second.
    fn beat(&mut self, now: Now, effects: &mut Vec<QuotaEffect>) {
        for at in 0..self.purses.len() {
            self.refresh(at, now, effects);
            self.ask_to_vouch(at, now, effects);
            self.ask_calmly(at, now, effects);
            self.push(at, now, effects);
            self.note_demand(at, now);
            self.look_after_witnesses(at, now, effects);
        }
        self.tell(now, effects);
        self.journal.due = true;
    }
}

impl Machine for Quota {
    type Input = QuotaInput;
    type Effect = QuotaEffect;

    fn step(&mut self, now: Now, input: QuotaInput, effects: &mut Vec<QuotaEffect>) {
        self.take(now, input, effects);
        if self.freed {
            self.freed = false;
            self.retry_holds(now, effects);
        }
        if self.draining && !self.retired {
            self.retire(now, effects);
        }
        self.commit(now, effects);
    }

    fn wake_at(&self) -> Option<Mono> {
        let lease = self.leases.first().map(|(ends, _)| *ends);
        let hold = self.next_hold_end();
        [Some(self.next_beat), lease, hold].into_iter().flatten().min()
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota")
            .field("holder", &self.holder)
            .field("purses", &self.purses)
            .field("requests", &self.requests.len())
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

impl Default for QuotaOptions {
    fn default() -> Self {
        Self { rollback_guard: false, hold: Micros::millis(30) }
    }
}

#[cfg(test)]
mod tests;
