//! The mesh actor: feeds the failure detector, keeps links up, publishes the view.
//!
//! Owns the [`Swim`] machine, the address book and this node's row; it is the only writer of the
//! shared [`MeshView`]. Links, discovery and streams tell it facts; it dials, closes, syncs and
//! publishes. Whether a peer is alive is the machine's verdict, whether it belongs is the
//! roster's.

mod dialling;
mod leases;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use selvedge_base::{Micros, ModelDigest, Mono, NodeId, codec};
use selvedge_contract::ModelState;
use selvedge_core::NodeRow;
use selvedge_core::quota::QuotaInput;
use selvedge_core::restart::{Patience, Restart};
use selvedge_net::{Link, NetError, clock, entropy};
use selvedge_proto::swim::{
    MAX_MESSAGE_BYTES, PeerState, Pulse, Swim, SwimEffect, SwimInput, SwimMessage,
};
use selvedge_proto::sync::Taken;
use selvedge_proto::wire::Hello;
use tokio::sync::oneshot;

use crate::contacts::Contacts;
use crate::line::{Mail, MeshLine};
use crate::membership::Membership;
use crate::policy_sync;
use crate::shared::Shared;
use crate::stepper::{Clock, Stepper};
use crate::store::Store;
use crate::view;
use crate::{sync, view::ViewParts};

/// How often the node looks at itself: its load, leases, links. Four times a second keeps the row
/// fresher than a routing decision needs and costs nothing.
const LOOK_EVERY: Micros = Micros::millis(250);
/// Load and rates change all the time; the row follows them this often, heartbeats tell them
/// sooner. A model that came, went or became ready is told at once.
const ROW_EVERY: Micros = Micros::secs(1);
/// How often state is exchanged with each linked peer even if nothing seems to have changed.
const SYNC_EVERY: Micros = Micros::secs(5);
/// How often every link's right to be there is checked again: a lease lapses within this of its
/// end, and a check costs a few signatures a link.
const CHECK_EVERY: Micros = Micros::secs(30);
/// The wire version that brought budgets: older peers neither get nor give rights.
pub(crate) const BUDGETS_SINCE: u8 = 2;
/// Store record of the address book.
pub(crate) const CONTACTS: &str = "contacts";
/// Store record of the number of starts.
pub(crate) const INCARNATION: &str = "incarnation";

/// What the mesh actor hears, over a [`MeshLine`], which bounds what may wait.
pub(crate) enum MeshMessage {
    /// A link stands.
    LinkUp { link: Link, hello: Box<Hello> },
    /// A link ended.
    LinkLost { node: NodeId, why: String, gone: bool },
    /// A datagram of a linked peer.
    Datagram { from: NodeId, bytes: Bytes },
    /// Discovery saw a node; nothing is proven.
    Seen { node: NodeId, addrs: Vec<SocketAddr> },
    /// This node's own addresses changed.
    OwnAddresses(Vec<SocketAddr>),
    /// A dial ended.
    Dialled { target: Target, result: Result<NodeId, NetError> },
    /// This node has a new lease to show.
    Renewed,
    /// A delta of state was taken.
    Synced { from: NodeId, taken: Taken },
    /// A serving peer said on a request's stream what it is doing.
    PulseSeen { node: NodeId, pulse: Pulse },
    /// The roster changed here, by an operator's hand.
    RosterChanged,
    /// A trace says that the detector was told this; the answer is what it ordered.
    Replayed { input: Box<SwimInput>, ordered: oneshot::Sender<Vec<SwimEffect>> },
    /// Look at the clock.
    Tick,
}

/// What was dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// A node at its known addresses.
    Node(NodeId),
    /// A configured address, whoever answers there.
    Static(SocketAddr),
}

pub(crate) struct MeshActor;

/// What the actor starts from; cloned again for every restart.
#[derive(Clone)]
pub(crate) struct MeshArgs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) store: Store,
    pub(crate) settings: Arc<MeshSettings>,
    /// The line this actor answers.
    pub(crate) line: MeshLine,
    /// What the failure detector is told as the time.
    pub(crate) clock: Clock,
    /// A detector that is told nothing but what a trace says, in place of a fresh one.
    pub(crate) replay: Option<Swim>,
}

/// What does not change while the node runs.
pub(crate) struct MeshSettings {
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) version: String,
    pub(crate) api: parking_lot::RwLock<Option<SocketAddr>>,
    pub(crate) static_peers: Vec<SocketAddr>,
}

pub(crate) struct MeshState {
    args: MeshArgs,
    swim: Stepper<Swim>,
    contacts: Contacts,
    contacts_changed: bool,
    dialling: BTreeSet<NodeId>,
    static_dials: BTreeMap<SocketAddr, StaticDial>,
    /// Peers that refused us or failed to prove themselves, and when to try them again.
    resting: BTreeMap<NodeId, (Restart, Mono)>,
    row: NodeRow,
    row_seq: u64,
    row_at: Mono,
    synced_at: Mono,
    checked_at: Mono,
    renewed_at: Option<Mono>,
    effects: Vec<SwimEffect>,
    tick_at: Option<Mono>,
}

struct StaticDial {
    restart: Restart,
    due: Mono,
    busy: bool,
    node: Option<NodeId>,
}

impl Actor for MeshActor {
    type Msg = Mail;
    type State = MeshState;
    type Arguments = MeshArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Mail>,
        args: MeshArgs,
    ) -> Result<MeshState, ActorProcessingErr> {
        args.line.connect(myself.clone());
        let mut state = MeshState::new(args)?;
        // After a crash the links still stand: the machine hears of them anew.
        for link in state.args.shared.endpoint.links() {
            let hello = link.hello().clone();
            state.link_up(link, &hello);
        }
        state.look();
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Mail>,
        mail: Mail,
        state: &mut MeshState,
    ) -> Result<(), ActorProcessingErr> {
        match mail.message {
            MeshMessage::LinkUp { link, hello } => state.link_up(link, &hello),
            MeshMessage::LinkLost { node, why, gone } => state.link_lost(node, &why, gone),
            MeshMessage::Datagram { from, bytes } => state.datagram(from, &bytes),
            MeshMessage::Seen { node, addrs } => state.seen(node, &addrs),
            MeshMessage::OwnAddresses(addrs) => state.own_addresses(addrs),
            MeshMessage::Dialled { target, result } => state.dialled(target, &result),
            MeshMessage::Synced { from, taken } => state.synced(from, &taken),
            MeshMessage::PulseSeen { node, pulse } => {
                state.feed(SwimInput::PulseSeen { node, pulse });
            }
            MeshMessage::Renewed => state.show_lease(),
            MeshMessage::RosterChanged => state.roster_changed(),
            MeshMessage::Replayed { input, ordered } => {
                state.feed(*input);
                // Whoever replays may have stopped listening.
                let _gone = ordered.send(state.effects.clone());
            }
            MeshMessage::Tick => state.tick(),
        }
        state.carry_out();
        Ok(())
    }
}

impl MeshState {
    fn new(args: MeshArgs) -> Result<Self, ActorProcessingErr> {
        let now = clock::mono();
        let contacts: Contacts = args.store.load(CONTACTS)?.unwrap_or_default();
        let static_dials = args.settings.static_peers.iter().map(|addr| {
            let restart = Restart::new(Patience::LINK, now);
            (*addr, StaticDial { restart, due: now, busy: false, node: None })
        });
        let static_dials = static_dials.collect();
        let incarnation = args.membership.incarnation();
        let mut state = Self {
            swim: Stepper::new(
                args.replay
                    .clone()
                    .unwrap_or_else(|| Swim::new(args.shared.me, incarnation, entropy::dice())),
                Clock::clone(&args.clock),
            ),
            contacts,
            contacts_changed: false,
            dialling: BTreeSet::new(),
            static_dials,
            resting: BTreeMap::new(),
            row: NodeRow::default(),
            row_seq: args.membership.with_rows(|rows| {
                rows.get(&args.shared.me)
                    .filter(|row| row.stamp.incarnation == incarnation)
                    .map_or(0, |row| row.stamp.seq)
            }),
            row_at: now,
            synced_at: now,
            checked_at: now,
            renewed_at: None,
            effects: Vec::new(),
            tick_at: None,
            args,
        };
        let members: Vec<NodeId> = state.contacts.members().collect();
        for node in members {
            state.introduce(node);
        }
        Ok(state)
    }

    fn feed(&mut self, input: SwimInput) {
        self.swim.step(input, &mut self.effects);
    }

    /// Only those who proved to be members are watched.
    fn introduce(&mut self, node: NodeId) {
        if node != self.args.shared.me && !self.args.membership.with(|r| r.is_revoked(&node)) {
            self.feed(SwimInput::PeerIntroduced { node });
        }
    }

    fn link_up(&mut self, link: Link, hello: &Hello) {
        let node = link.node();
        self.args.membership.remember(node, &hello.credential);
        let mut addrs = hello.listen.clone();
        addrs.extend(link.remote_addr());
        self.contacts_changed |= self.contacts.proven(node, &addrs);
        self.resting.remove(&node);
        self.feed(SwimInput::PeerIntroduced { node });
        self.feed(SwimInput::LinkUp { node, incarnation: hello.incarnation });
        tracing::info!(peer = %node.short(), name = hello.credential.name(), "linked");
        if link.version() >= BUDGETS_SINCE {
            self.args.shared.quota.tell(QuotaInput::PeerUp { node });
            policy_sync::compare(&self.args.shared, link.clone());
        }
        self.sync_with(link);
        self.publish();
    }

    fn link_lost(&mut self, node: NodeId, why: &str, gone: bool) {
        tracing::info!(peer = %node.short(), why, "link lost");
        self.args.membership.forget_link(&node);
        self.args.shared.quota.tell(QuotaInput::PeerDown { node });
        self.feed(match gone {
            true => SwimInput::PeerEnded { node },
            false => SwimInput::LinkLost { node },
        });
        self.publish();
    }

    fn datagram(&mut self, from: NodeId, bytes: &[u8]) {
        match codec::decode_body::<SwimMessage>(bytes) {
            Ok(message) => self.feed(SwimInput::Received { from, message }),
            Err(error) => tracing::debug!(peer = %from.short(), %error, "bad datagram"),
        }
    }

    fn seen(&mut self, node: NodeId, addrs: &[SocketAddr]) {
        let revoked = self.args.membership.with(|roster| roster.is_revoked(&node));
        if node == self.args.shared.me || revoked {
            return;
        }
        self.contacts_changed |= self.contacts.seen(node, addrs);
        if self.args.shared.endpoint.link(&node).is_none() {
            self.dial(node);
        }
    }

    fn own_addresses(&mut self, addrs: Vec<SocketAddr>) {
        self.args.membership.set_listen(addrs);
    }

    fn synced(&mut self, from: NodeId, taken: &Taken) {
        for node in &taken.suspicious {
            tracing::warn!(writer = %node.short(), from = %from.short(), "a bad row was refused");
        }
        for error in &taken.known.refused {
            tracing::debug!(from = %from.short(), %error, "a record was refused");
        }
        for node in &taken.rows {
            let row = self
                .args
                .membership
                .with_rows(|rows| rows.get(node).and_then(|row| row.value::<NodeRow>().ok()));
            if let Some(row) = row.filter(NodeRow::is_within_bounds)
                && *node != self.args.shared.me
            {
                // A row proves who wrote it, not that its writer belongs: the hello will.
                self.contacts_changed |= self.contacts.seen(*node, &row.addrs);
                if self.args.shared.endpoint.link(node).is_none() {
                    self.dial(*node);
                }
            }
        }
        self.put_out(&taken.known.revoked);
        if !taken.known.revoked.is_empty() || taken.known.rotated {
            self.close_unfit();
            self.sync_all();
        }
        self.publish();
    }

    fn roster_changed(&mut self) {
        let revoked: Vec<NodeId> = self.args.membership.with(|roster| {
            roster.revocations().map(|notice| notice.revocation.body.node).collect()
        });
        self.put_out(&revoked);
        self.close_unfit();
        self.sync_all();
        self.publish();
    }

    /// Cuts nodes off that were revoked: their links close now.
    fn put_out(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            if *node == self.args.shared.me {
                tracing::warn!("this node was put out of the mesh; it serves only itself now");
                continue;
            }
            self.args.shared.endpoint.close(node, "revoked");
            self.contacts.forget(node);
            self.contacts_changed = true;
            self.args.membership.with_rows(|rows| rows.forget(node));
            self.feed(SwimInput::PeerForgotten { node: *node });
        }
    }

    fn tick(&mut self) {
        self.tick_at = None;
        self.feed(SwimInput::Ticked);
        self.look();
    }

    /// What is done a few times a second whatever happens.
    fn look(&mut self) {
        if self.args.replay.is_some() {
            return;
        }
        let now = clock::mono();
        self.feed(SwimInput::SelfReported { load: self.args.shared.pulse() });
        let changed = self.refresh_row();
        if changed || now.since(self.synced_at) >= SYNC_EVERY {
            self.sync_all();
        }
        self.dial_static(now);
        self.dial_hearsay();
        if now.since(self.checked_at) >= CHECK_EVERY {
            self.checked_at = now;
            self.close_unfit();
        }
        self.renew(now);
        self.save_contacts();
        self.publish();
        self.carry_out();
    }

    /// Writes this node's row when it changed; true when it did.
    fn refresh_row(&mut self) -> bool {
        let settings = &self.args.settings;
        let mut engine = self.args.shared.engine.status();
        // Progress travels in pulses; here it would make every look a change.
        engine.progress = 0;
        engine.models.truncate(NodeRow::MAX_MODELS);
        let mut addrs = self.args.membership.listen();
        addrs.truncate(NodeRow::MAX_ADDRS);
        let row = NodeRow {
            name: settings.name.clone(),
            site: settings.site.clone(),
            version: settings.version.clone(),
            addrs,
            api: *settings.api.read(),
            engine,
        };
        let now = clock::mono();
        let same_models = models_of(&row).eq(models_of(&self.row)) && row.addrs == self.row.addrs;
        let early = now.since(self.row_at) < ROW_EVERY;
        if self.row_seq > 0 && (row == self.row || (same_models && early)) {
            return false;
        }
        self.row_at = now;
        self.row_seq += 1;
        if let Err(error) = self.args.membership.write_row(self.row_seq, &row) {
            tracing::error!(%error, "this node's row could not be written");
        }
        self.row = row;
        true
    }

    fn sync_all(&mut self) {
        self.synced_at = clock::mono();
        for link in self.args.shared.endpoint.links() {
            self.sync_with(link);
        }
    }

    fn sync_with(&self, link: Link) {
        let membership = Arc::clone(&self.args.membership);
        tokio::spawn(sync::open(membership, self.args.line.clone(), link));
    }

    fn save_contacts(&mut self) {
        if !std::mem::take(&mut self.contacts_changed) || self.args.membership.has_left() {
            return;
        }
        let (store, contacts) = (self.args.store.clone(), self.contacts.stored());
        tokio::spawn(async move {
            if let Err(error) = store.save(CONTACTS, &contacts).await {
                tracing::warn!(%error, "the address book was not stored");
            }
        });
    }

    fn publish(&self) {
        let parts = ViewParts {
            shared: &self.args.shared,
            membership: &self.args.membership,
            swim: self.swim.machine(),
            row: &self.row,
            contacts: &self.contacts,
        };
        let view = view::build(&parts);
        // What makes room for others here is taken from these first.
        self.args.shared.engine.copied(&view.copies());
        if **self.args.shared.view.load() != view {
            self.args.shared.view.store(Arc::new(view));
            self.args.shared.view_changed.send_replace(());
        }
    }

    fn carry_out(&mut self) {
        let mut changed = false;
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                SwimEffect::Send { to, message } => self.send(to, &message),
                SwimEffect::Redial { node } => self.dial(node),
                SwimEffect::StoreIncarnation { incarnation } => self.store_incarnation(incarnation),
                SwimEffect::Declare { node, state, why } => {
                    changed = true;
                    let (peer, why) = (node.short(), why.as_str());
                    tracing::info!(%peer, ?state, why, "peer state");
                    if state == PeerState::Dead {
                        self.args.shared.endpoint.close(&node, "no sign of life");
                    }
                }
            }
        }
        if changed {
            self.publish();
        }
        self.schedule();
    }

    fn send(&self, to: NodeId, message: &SwimMessage) {
        let Some(link) = self.args.shared.endpoint.link(&to) else { return };
        let sent = codec::encode_datagram_at(link.version(), message, MAX_MESSAGE_BYTES)
            .map_err(NetError::from)
            .and_then(|bytes| link.datagram(&bytes));
        if let Err(error) = sent {
            tracing::debug!(peer = %to.short(), %error, "datagram not sent");
        }
    }

    fn store_incarnation(&self, incarnation: u64) {
        self.args.membership.set_incarnation(incarnation);
        let store = self.args.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.save(INCARNATION, &incarnation).await {
                tracing::error!(%error, "the incarnation was not stored");
            }
        });
    }

    fn schedule(&mut self) {
        if self.args.replay.is_some() {
            return;
        }
        let now = self.swim.now().mono;
        let next_look = now.plus(LOOK_EVERY);
        let at = self.swim.wake_at().map_or(next_look, |wake| wake.min(next_look));
        if self.tick_at.is_some_and(|pending| pending <= at) {
            return;
        }
        self.tick_at = Some(at);
        let line = self.args.line.clone();
        tokio::spawn(async move {
            tokio::time::sleep(at.since(now).into()).await;
            line.tell(MeshMessage::Tick);
        });
    }
}

/// Which models a row lists, and how they stand.
fn models_of(row: &NodeRow) -> impl Iterator<Item = (ModelDigest, ModelState)> {
    row.engine.models.iter().map(|model| (model.card.digest, model.state))
}
