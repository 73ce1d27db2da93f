//! Who belongs, as this node holds it: the roster, the invitations, and the gate they guard.
//!
//! Owns the one lock around [`Roster`] and [`Invites`] and their durable copies. Decisions are the
//! roster's and the join machines'; this adds the node's key, the clock and the disk: whatever
//! widens someone's rights is on the disk before anyone hears of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use selvedge_base::{Blame, Code, MeshId, Micros, NodeId, Refusal, Retry, Stage, Wall, codec};
use selvedge_core::NodeRow;
use selvedge_crdt::{RowError, RowMap, Stamp};
use selvedge_net::{Identity, clock, entropy};
use selvedge_proto::join::{Invites, Issuer, IssuerStep, JoinCode, JoinError, JoinMessage};
use selvedge_proto::records::{
    self, Credential, RecordError, RevocationNotice, Roster, RosterSnapshot, STEWARD_LEASE, Signer,
    grant_steward,
};
use selvedge_proto::seal::sign_row;
use selvedge_proto::sync::{self, MAX_ROWS, SyncDelta, SyncDigest, Taken};

use tokio::sync::watch;

use crate::answers::PURGES;
use crate::custody;
use crate::mesh::CONTACTS;
use crate::policies::{HOLDERS, PARTS, POLICY, SEAL};
use crate::routing::SETTINGS;
use crate::store::{Batch, Store, StoreError};

/// Store record of the roster.
pub(crate) const ROSTER: &str = "roster";
/// Store record of who was let in by whom; homes of earlier builds have none.
pub(crate) const LEASES: &str = "leases";
/// Store record of the invitations.
pub(crate) const INVITES: &str = "invites";

/// The node's key as a signer of records.
pub(crate) struct Key<'a>(pub(crate) &'a Identity);

impl Signer for Key<'_> {
    fn public(&self) -> [u8; 32] {
        self.0.public()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

/// The roster and the invitations of a running node.
pub(crate) struct Membership {
    identity: Arc<Identity>,
    store: Store,
    home: PathBuf,
    /// Raised by the failure detector when this node refutes its own death.
    incarnation: AtomicU64,
    lease: Micros,
    /// The newest wire version told in hellos: this build's, unless a test plays an older build.
    newest: AtomicU8,
    roster: Mutex<Roster>,
    /// Locked after `roster` where both are.
    rows: Mutex<RowMap>,
    /// Where each linked peer's deltas go on; one entry per link.
    cursors: Mutex<BTreeMap<NodeId, NodeId>>,
    /// What each linked peer presents now; one entry per link.
    presented: Mutex<BTreeMap<NodeId, Credential>>,
    /// Set when this node left its mesh: nothing is written any more.
    left: AtomicBool,
    invites: Mutex<Invites>,
    listen: watch::Sender<Vec<SocketAddr>>,
    /// Serializes "change, then store", so that an older copy never overwrites a newer one.
    saving: tokio::sync::Mutex<()>,
}

impl Membership {
    /// The membership of a node whose roster was loaded or just made.
    pub(crate) fn new(
        identity: Arc<Identity>,
        store: Store,
        home: PathBuf,
        incarnation: u64,
        roster: Roster,
        invites: Invites,
    ) -> Self {
        Self {
            identity,
            store,
            home,
            incarnation: AtomicU64::new(incarnation),
            lease: records::DEFAULT_LEASE,
            newest: AtomicU8::new(codec::VERSION),
            roster: Mutex::new(roster),
            rows: Mutex::new(RowMap::new(MAX_ROWS)),
            cursors: Mutex::new(BTreeMap::new()),
            presented: Mutex::new(BTreeMap::new()),
            left: AtomicBool::new(false),
            invites: Mutex::new(invites),
            listen: watch::Sender::new(Vec::new()),
            saving: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn mesh(&self) -> MeshId {
        self.roster.lock().mesh()
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Relaxed)
    }

    pub(crate) fn set_incarnation(&self, incarnation: u64) {
        self.incarnation.store(incarnation, Ordering::Relaxed);
    }

    /// The newest wire version this node says that it speaks.
    pub(crate) fn newest(&self) -> u8 {
        self.newest.load(Ordering::Relaxed)
    }

    /// From now on this node says in hellos what an older build would.
    #[cfg(test)]
    pub(crate) fn speak_at_most(&self, newest: u8) {
        self.newest.store(newest, Ordering::Relaxed);
    }

    /// Looks at the roster; the lock is held for the look only.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Roster) -> T) -> T {
        look(&self.roster.lock())
    }

    /// Where this node can be reached, as hellos and invitations say it.
    pub(crate) fn listen(&self) -> Vec<SocketAddr> {
        self.listen.borrow().clone()
    }

    pub(crate) fn set_listen(&self, addrs: Vec<SocketAddr>) {
        self.listen.send_replace(addrs);
    }

    /// Waits until this node knows an address of its own; a machine without a network has none.
    pub(crate) async fn addressed(&self, patience: Micros) {
        let mut listen = self.listen.subscribe();
        let known = listen.wait_for(|addrs| !addrs.is_empty());
        // Without an address in time the node runs all the same: its invitations name none.
        let _known_or_late = tokio::time::timeout(patience.into(), known).await;
    }

    /// Takes what a linked peer presents, if it is good, and what that teaches.
    pub(crate) fn remember(&self, peer: NodeId, credential: &Credential) {
        let mut roster = self.roster.lock();
        if roster.verify(credential, peer, clock::wall()).is_ok() {
            roster.learn(credential);
            self.presented.lock().insert(peer, credential.clone());
        }
    }

    /// Why a linked peer may not stay: its lease lapsed, its steward was put out, the root key was
    /// rotated past it. `None` while all is well.
    pub(crate) fn unfit(&self, peer: NodeId) -> Option<RecordError> {
        let roster = self.roster.lock();
        let presented = self.presented.lock();
        roster.verify(presented.get(&peer)?, peer, clock::wall()).err()
    }

    /// Looks at the rows; the lock is held for the look only.
    pub(crate) fn with_rows<T>(&self, look: impl FnOnce(&mut RowMap) -> T) -> T {
        look(&mut self.rows.lock())
    }

    /// What this node has, for the exchange of state.
    pub(crate) fn digest(&self) -> SyncDigest {
        let roster = self.roster.lock();
        sync::digest(&self.rows.lock(), &roster)
    }

    /// What the holder of `theirs` lacks; `reply` asks it to answer in turn.
    pub(crate) fn delta(&self, peer: NodeId, theirs: &SyncDigest, reply: bool) -> SyncDelta {
        let roster = self.roster.lock();
        let mut cursors = self.cursors.lock();
        let cursor = cursors.get(&peer).copied();
        let (delta, next) = sync::delta(&self.rows.lock(), &roster, theirs, cursor, reply);
        if let Some(next) = next {
            cursors.insert(peer, next);
        }
        delta
    }

    /// Takes what this node lacked; stores the roster when it changed.
    pub(crate) async fn apply(&self, delta: SyncDelta) -> Result<Taken, StoreError> {
        let taken = {
            let mut roster = self.roster.lock();
            sync::apply(&mut self.rows.lock(), &mut roster, delta, clock::wall())
        };
        if taken.known.changed {
            self.save().await?;
        }
        Ok(taken)
    }

    /// Drops what was kept for a peer that is no longer linked.
    pub(crate) fn forget_link(&self, peer: &NodeId) {
        self.cursors.lock().remove(peer);
        self.presented.lock().remove(peer);
    }

    /// Signs and keeps this node's own row.
    pub(crate) fn write_row(&self, seq: u64, row: &NodeRow) -> Result<(), RowError> {
        let stamp = Stamp { incarnation: self.incarnation(), seq };
        let signed = sign_row(&Key(&self.identity), stamp, row)?;
        // Our own key just signed it, and no other process has this incarnation.
        let _newer = self.rows.lock().merge(signed, |_| true);
        Ok(())
    }

    /// Takes a renewed lease for this node.
    pub(crate) async fn renewed(&self, credential: Credential) -> Result<(), Refusal> {
        self.roster.lock().set_own(credential, clock::wall()).map_err(|e| refused(&e))?;
        self.save().await.map_err(|error| broken(&error))
    }

    /// Renews a member's lease, if this node may.
    pub(crate) fn renew(
        &self,
        member: NodeId,
        held: &Credential,
    ) -> Result<Credential, RecordError> {
        let key = Key(&self.identity);
        let mut roster = self.roster.lock();
        let renewed = roster.renew(&key, held, member, clock::wall(), self.lease)?;
        roster.learn(&renewed);
        self.presented.lock().insert(member, renewed.clone());
        Ok(renewed)
    }

    /// As a steward, renews this node's own lease.
    pub(crate) async fn renew_own(&self) -> Result<(), Refusal> {
        let me = self.identity.node_id();
        let renewed = {
            let roster = self.roster.lock();
            let name = roster.own().map(|own| own.name().to_owned()).unwrap_or_default();
            roster.admit(&Key(&self.identity), me, &name, clock::wall(), self.lease)
        };
        self.renewed(renewed.map_err(|error| refused(&error))?).await
    }

    /// Issues a join code and stores it before it is shown.
    pub(crate) async fn invite(&self, ttl: Micros) -> Result<JoinCode, Refusal> {
        let wall = clock::wall();
        if self.with(|roster| roster.own_steward(wall).is_none()) {
            return Err(refused(&RecordError::NotSteward));
        }
        let (mesh, me, addrs) = (self.mesh(), self.identity.node_id(), self.listen());
        let issued = {
            let mut invites = self.invites.lock();
            invites.issue(&mesh, &me, &addrs, ttl, wall, &mut entropy::dice())
        };
        let code = issued.map_err(|error| error.refusal())?;
        self.save_invites().await.map_err(|error| broken(&error))?;
        Ok(code)
    }

    /// One message of a node that wants to join; the answer may be sent when this returns.
    pub(crate) async fn join_step(
        &self,
        issuer: &mut Issuer,
        message: JoinMessage,
        peers: Vec<(NodeId, Vec<SocketAddr>)>,
    ) -> Result<(JoinMessage, Option<JoinError>), StoreError> {
        let wall = clock::wall();
        let step = {
            let mut invites = self.invites.lock();
            issuer.received(&mut invites, message, wall)
        };
        self.save_invites().await?;
        match step {
            IssuerStep::Send(message) => Ok((message, None)),
            IssuerStep::Refuse(message, error) => Ok((message, Some(error))),
            IssuerStep::Admit { node, name } => {
                let admitted = {
                    let mut roster = self.roster.lock();
                    let key = Key(&self.identity);
                    let admitted = roster.admit(&key, node, &name, wall, self.lease);
                    if let Ok(credential) = &admitted {
                        roster.learn(credential);
                    }
                    admitted
                };
                match admitted {
                    Ok(credential) => {
                        self.save().await?;
                        Ok((Issuer::welcome(credential, peers), None))
                    }
                    Err(error) => {
                        let error = JoinError::from(error);
                        Ok((JoinMessage::Refused(error.refusal()), Some(error)))
                    }
                }
            }
        }
    }

    /// Puts a node out: signed by this steward, or by the root key if it is here.
    pub(crate) async fn revoke(&self, node: NodeId) -> Result<(), Refusal> {
        let wall = self.dated()?;
        let notice = self.signed_revocation(node, wall)?;
        let applied = self.roster.lock().apply_revocation(notice, wall);
        if applied.map_err(|error| refused(&error))? {
            self.save().await.map_err(|error| broken(&error))?;
        }
        Ok(())
    }

    /// The time, for a record that undoes what is later.
    fn dated(&self) -> Result<Wall, Refusal> {
        let wall = clock::wall();
        self.with(|roster| roster.may_date(wall)).map_err(|error| refused(&error))?;
        Ok(wall)
    }

    fn signed_revocation(&self, node: NodeId, wall: Wall) -> Result<RevocationNotice, Refusal> {
        let (mesh, steward) =
            self.with(|roster| (roster.mesh(), roster.own_steward(wall).cloned()));
        if let Some(steward) = steward {
            return Ok(records::revoke(&Key(&self.identity), Some(steward), mesh, node, wall));
        }
        let root = custody::load_root(&self.home).map_err(|error| custody_refusal(&error))?;
        Ok(records::revoke(&Key(&root), None, mesh, node, wall))
    }

    /// Makes a member a steward; needs the root key on this node.
    pub(crate) async fn promote(&self, node: NodeId) -> Result<(), Refusal> {
        let root = custody::load_root(&self.home).map_err(|error| custody_refusal(&error))?;
        let applied = {
            let mut roster = self.roster.lock();
            let (mesh, generation) = (roster.mesh(), roster.generation());
            let key = Key(&root);
            let wall = clock::wall();
            let steward = grant_steward(&key, mesh, generation, node, wall, STEWARD_LEASE);
            roster.apply_steward(steward)
        };
        applied.map_err(|error| refused(&error))?;
        self.save().await.map_err(|error| broken(&error))
    }

    /// Where the root key is at hand, renews this node's own right to admit and renew others
    /// before it lapses: at half of its time.
    pub(crate) async fn keep_steward(&self) -> Result<(), Refusal> {
        let (me, wall) = (self.identity.node_id(), clock::wall());
        let due = self.with(|roster| {
            roster.own_steward(wall).is_none_or(|steward| {
                let (issued, end) = (steward.body.issued, steward.body.not_after);
                wall >= issued.plus(Micros(end.since(issued).0 / 2))
            })
        });
        if due && custody::root_key_path(&self.home).exists() {
            return self.promote(me).await;
        }
        Ok(())
    }

    /// Replaces the root key by a new one and makes this node its steward.
    pub(crate) async fn rotate_root(&self) -> Result<String, Refusal> {
        let wall = self.dated()?;
        let old = custody::load_root(&self.home).map_err(|error| custody_refusal(&error))?;
        let next_path = custody::next_root_key_path(&self.home);
        let new = custody::create_root(&next_path).map_err(|error| custody_refusal(&error))?;
        {
            let mut roster = self.roster.lock();
            let mesh = roster.mesh();
            let rotated =
                records::rotate_root(&Key(&old), mesh, roster.rotations(), new.public(), wall)
                    .and_then(|rotation| roster.apply_rotation(rotation));
            rotated.map_err(|error| refused(&error))?;
            let (generation, me) = (roster.generation(), self.identity.node_id());
            let steward = grant_steward(&Key(&new), mesh, generation, me, wall, STEWARD_LEASE);
            roster.apply_steward(steward).map_err(|error| refused(&error))?;
        }
        // The successor's key is on the disk since before the rotation was signed; the roster that
        // names it comes second, the old key goes last: a crash in between loses neither.
        self.renew_own().await?;
        custody::finish_rotation(&self.home).map_err(|error| custody_refusal(&error))?;
        Ok(records::fingerprint_text(&self.mesh()))
    }

    /// Whether this node may leave: the only root key of others must not go with it.
    pub(crate) fn may_leave(&self) -> Result<(), Refusal> {
        let others = self.with(|roster| {
            roster.members().filter(|(node, _)| **node != self.identity.node_id()).count()
        });
        let root = custody::root_key_path(&self.home);
        if root.exists() && others > 0 {
            let message = format!(
                "this node holds the root key of a mesh with {others} other members: back it up \
                 with `selvedge mesh root export FILE`, move {} away, then leave",
                root.display()
            );
            return Err(Refusal::client(Stage::Validate, Code::Forbidden, message));
        }
        Ok(())
    }

    /// Forgets the mesh, durably.
    pub(crate) async fn leave(&self) -> Result<(), Refusal> {
        self.may_leave()?;
        let _in_order = self.saving.lock().await;
        // From here on nothing is saved behind the removal's back.
        self.left.store(true, Ordering::Relaxed);
        let forgotten = self.forget().await;
        if forgotten.is_err() {
            self.left.store(false, Ordering::Relaxed);
        }
        forgotten
    }

    /// All of it or nothing: a node that could not leave is a member as before.
    async fn forget(&self) -> Result<(), Refusal> {
        let moved = custody::retire_root(&self.home).map_err(|error| custody_refusal(&error))?;
        let mut batch = Batch::default();
        for record in [ROSTER, LEASES, INVITES, CONTACTS, POLICY, SEAL, HOLDERS, PURGES] {
            batch.remove(record);
        }
        for prefix in [PARTS, SETTINGS] {
            batch.remove_all(prefix.to_owned());
        }
        let removed = match self.store.begin(batch) {
            Ok(written) => written.await.unwrap_or(Err(StoreError::Closed)),
            Err(error) => Err(error),
        };
        if removed.is_err() && moved {
            custody::restore_root(&self.home).map_err(|error| custody_refusal(&error))?;
        }
        removed.map_err(|error| broken(&error))
    }

    /// Whether this node left its mesh.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    async fn save(&self) -> Result<(), StoreError> {
        let _in_order = self.saving.lock().await;
        if self.has_left() {
            return Ok(());
        }
        let snapshot = self.roster.lock().snapshot();
        save_roster(&self.store, &snapshot).await
    }

    async fn save_invites(&self) -> Result<(), StoreError> {
        let _in_order = self.saving.lock().await;
        if self.has_left() {
            return Ok(());
        }
        let invites = self.invites.lock().clone();
        self.store.save(INVITES, &invites).await
    }
}

/// Both records of a roster, or neither.
pub(crate) async fn save_roster(store: &Store, book: &RosterSnapshot) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.put(ROSTER, book)?;
    batch.put(LEASES, &book.leases)?;
    store.begin(batch)?.await.map_err(|_| StoreError::Closed)?
}

/// What was stored of a roster.
pub(crate) fn load_roster(store: &Store) -> Result<Option<RosterSnapshot>, StoreError> {
    let Some(mut book) = store.load::<RosterSnapshot>(ROSTER)? else { return Ok(None) };
    book.leases = store.load(LEASES)?.unwrap_or_default();
    Ok(Some(book))
}

pub(crate) fn refused(error: &RecordError) -> Refusal {
    Refusal::client(Stage::Authenticate, Code::Forbidden, error.to_string())
}

pub(crate) fn broken(error: &StoreError) -> Refusal {
    let retry = Retry::After(Micros::secs(5));
    Refusal::new(Stage::Execute, Blame::Us, retry, Code::Internal, error.to_string())
}

pub(crate) fn custody_refusal(error: &custody::CustodyError) -> Refusal {
    Refusal::client(Stage::Authenticate, Code::Forbidden, error.to_string())
}
