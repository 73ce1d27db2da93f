//! What one node knows about who belongs: the root chain, stewards, revocations, members' names.
//!
//! Owns the verdict on a presented credential. Every collection is bounded. Does not own the node's
//! keys, nor how the records spread (see `exchange`).

use std::collections::BTreeMap;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{MeshId, Micros, NodeId, Wall};
use serde::{Deserialize, Serialize};

use super::credential::{check_mesh, check_rotation, check_steward, check_window, follow};
use super::{
    CLOCK_SKEW, Credential, MAX_MEMBERS, MAX_REVOCATIONS, MAX_ROTATIONS, MAX_STEWARD_LEASE,
    MAX_STEWARDS, ROTATION_GRACE, RecordError, RevocationNotice, RootRotation, Signed, Signer,
    Steward, grant_membership,
};

/// The verified records of one mesh, as one node knows them.
#[derive(Clone, Debug)]
pub struct Roster {
    me: NodeId,
    pub(super) book: RosterSnapshot,
    /// The key at the end of the rotations, and those before it, by generation.
    roots: Vec<[u8; 32]>,
}

/// The durable part of a roster; the shell stores it under a version byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterSnapshot {
    /// The mesh.
    pub mesh: MeshId,
    /// From the mesh's name to the current root key.
    pub rotations: Vec<Signed<RootRotation>>,
    /// Stewards by node, newest record each.
    pub stewards: BTreeMap<NodeId, Signed<Steward>>,
    /// Revocations by node, the earliest each.
    pub revocations: BTreeMap<NodeId, RevocationNotice>,
    /// What this node presents.
    pub own: Option<Credential>,
    /// Members by node.
    pub members: BTreeMap<NodeId, Member>,
    /// By whom members were last let in or renewed, as far as that was good. Stored as a record of
    /// its own: earlier builds wrote the others without it.
    #[serde(skip)]
    pub leases: BTreeMap<NodeId, Lease>,
}

/// A membership that was good when this node saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Under which root key.
    pub generation: u32,
    /// Who signed it.
    pub steward: NodeId,
    /// When.
    pub issued: Wall,
    /// When it lapses.
    pub not_after: Wall,
}

/// A member, as its credential described it when it was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// When its lease lapses.
    pub not_after: Wall,
}

impl Lease {
    fn of(credential: &Credential) -> Self {
        let body = &credential.membership.body;
        let steward = credential.steward.body.node;
        let generation = credential.generation();
        Self { generation, steward, issued: body.issued, not_after: body.not_after }
    }
}

impl Roster {
    /// The roster of a mesh about which only the name is known.
    pub const fn new(mesh: MeshId, me: NodeId) -> Self {
        let book = RosterSnapshot {
            mesh,
            rotations: Vec::new(),
            stewards: BTreeMap::new(),
            revocations: BTreeMap::new(),
            own: None,
            members: BTreeMap::new(),
            leases: BTreeMap::new(),
        };
        Self { me, book, roots: Vec::new() }
    }

    /// The roster of a stored snapshot.
    ///
    /// # Errors
    /// When the stored chain of rotations does not hold, which means a damaged store.
    pub fn from_snapshot(book: RosterSnapshot, me: NodeId) -> Result<Self, RecordError> {
        follow(book.mesh, &book.rotations)?;
        let roots = book.rotations.iter().map(|rotation| rotation.body.to).collect();
        Ok(Self { me, book, roots })
    }

    /// What to store.
    pub fn snapshot(&self) -> RosterSnapshot {
        self.book.clone()
    }

    /// The mesh.
    pub const fn mesh(&self) -> MeshId {
        self.book.mesh
    }

    /// The node whose roster it is.
    pub const fn me(&self) -> NodeId {
        self.me
    }

    /// How often the root key was rotated.
    pub fn generation(&self) -> u32 {
        self.roots.len() as u32
    }

    /// The root key now.
    pub fn root(&self) -> [u8; 32] {
        self.roots.last().copied().unwrap_or(self.book.mesh.0)
    }

    /// The chain from the mesh's name to the root key.
    pub fn rotations(&self) -> &[Signed<RootRotation>] {
        &self.book.rotations
    }

    /// What this node presents.
    pub const fn own(&self) -> Option<&Credential> {
        self.book.own.as_ref()
    }

    /// Takes the credential this node presents from now on.
    ///
    /// # Errors
    /// As [`Roster::verify`], and when its signer had been put out.
    pub fn set_own(&mut self, credential: Credential, wall: Wall) -> Result<(), RecordError> {
        self.verify(&credential, self.me, wall)?;
        if let Some(out) = self.void(&Lease::of(&credential)) {
            return Err(RecordError::StewardRevoked(out.short()));
        }
        self.learn(&credential);
        self.book.own = Some(credential);
        Ok(())
    }

    /// Whether this node should ask a steward for a new lease: half of it is over, the root key
    /// rotated since, or whoever signed it had been put out.
    pub fn due_for_renewal(&self, wall: Wall) -> bool {
        self.book.own.as_ref().is_some_and(|own| {
            own.due_for_renewal(wall)
                || own.generation() < self.generation()
                || self.void(&Lease::of(own)).is_some()
        })
    }

    /// Whether a credential presented on a connection with `presenting` is good here and now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(
        &self,
        credential: &Credential,
        presenting: NodeId,
        wall: Wall,
    ) -> Result<(), RecordError> {
        credential.verify(self.book.mesh, presenting, wall)?;
        if self.is_revoked(&presenting) {
            return Err(RecordError::Revoked(presenting.short()));
        }
        self.check_chain(credential, wall)?;
        match self.void(&Lease::of(credential)) {
            Some(out) if !self.has_older_lease(&presenting, wall) => {
                Err(RecordError::StewardRevoked(out.short()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Who signed a lease, if that node had been put out before.
    fn void(&self, lease: &Lease) -> Option<NodeId> {
        let notice = self.book.revocations.get(&lease.steward)?;
        (lease.issued > notice.revocation.body.at).then_some(lease.steward)
    }

    /// Whether a lease that this node saw before still covers another. Whoever was renewed by a
    /// steward that was put out, and had not heard of it, is a member by the one before: turned
    /// away it would neither hear of it nor be renewed by anybody else.
    fn has_older_lease(&self, node: &NodeId, wall: Wall) -> bool {
        self.book.leases.get(node).is_some_and(|lease| {
            let window = check_window("membership", lease.issued, lease.not_after, wall);
            let rooted = self.check_generation(lease.generation, lease.issued, wall);
            window.is_ok() && rooted.is_ok() && self.void(lease).is_none()
        })
    }

    /// Whether this node's clock may date a revocation or a rotation. A date from before its own
    /// membership would undo that of everybody whom the same steward let in, and the record would
    /// be taken for one that everything it cancels has outlived.
    ///
    /// # Errors
    /// [`RecordError::Clock`].
    pub fn may_date(&self, wall: Wall) -> Result<(), RecordError> {
        let issued = self.book.own.as_ref().map_or(Wall(0), |own| own.membership.body.issued);
        let behind = issued.since(wall);
        if behind > CLOCK_SKEW {
            return Err(RecordError::Clock { behind_s: behind.0 / 1_000_000 });
        }
        Ok(())
    }

    /// Takes what a verified credential teaches: a longer root chain, a steward, a name.
    pub fn learn(&mut self, credential: &Credential) {
        for rotation in &credential.rotations {
            // Known or forked rotations were judged by `verify`; only new ones change anything.
            let _known = self.apply_rotation(rotation.clone());
        }
        let _known = self.apply_steward(credential.steward.clone());
        let held = Lease::of(credential);
        if self.void(&held).is_some() {
            return;
        }
        let lease = &credential.membership.body;
        let full = self.book.members.len() >= MAX_MEMBERS;
        if full && !self.book.members.contains_key(&lease.node) {
            let soonest = self.book.members.iter().min_by_key(|(_, member)| member.not_after);
            if let Some(node) = soonest.map(|(node, _)| *node) {
                self.book.members.remove(&node);
                self.book.leases.remove(&node);
            }
        }
        let member = Member { name: lease.name.clone(), not_after: lease.not_after };
        self.book.members.insert(lease.node, member);
        self.book.leases.insert(lease.node, held);
    }

    /// Whether a node is this one or has shown a good credential here, and was not put out.
    pub fn is_member(&self, node: &NodeId) -> bool {
        (*node == self.me || self.book.members.contains_key(node)) && !self.is_revoked(node)
    }

    /// The members seen, by node; revoked ones are not among them.
    pub fn members(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.book.members.iter().filter(|(node, _)| !self.is_revoked(node))
    }

    /// Takes a rotation of the root key. True when it is new.
    ///
    /// # Errors
    /// [`RecordError::Fork`] when another successor is known, [`RecordError::Chain`] when one in
    /// between is missing, and what is wrong with its signature.
    pub fn apply_rotation(&mut self, rotation: Signed<RootRotation>) -> Result<bool, RecordError> {
        let generation = rotation.body.generation;
        if let Some(known) = generation.checked_sub(1).and_then(|at| self.roots.get(at as usize)) {
            let same = *known == rotation.body.to;
            return if same { Ok(false) } else { Err(RecordError::Fork(generation)) };
        }
        if self.roots.len() >= MAX_ROTATIONS {
            return Err(RecordError::Rotations(self.roots.len() + 1));
        }
        check_rotation(&rotation, self.book.mesh, self.root(), self.generation() + 1)?;
        self.roots.push(rotation.body.to);
        self.book.rotations.push(rotation);
        Ok(true)
    }

    /// Takes a steward record. True when it is newer than what was known.
    ///
    /// # Errors
    /// What is wrong with it, or [`RecordError::Full`].
    pub fn apply_steward(&mut self, steward: Signed<Steward>) -> Result<bool, RecordError> {
        let body = &steward.body;
        let newness = |body: &Steward| (body.generation, body.not_after);
        let held = self.book.stewards.get(&body.node);
        if held.is_some_and(|held| newness(&held.body) >= newness(body)) {
            return Ok(false);
        }
        if held.is_none() && self.book.stewards.len() >= MAX_STEWARDS {
            return Err(RecordError::Full { what: "steward", limit: MAX_STEWARDS });
        }
        let root = self.root_of(body.generation, "steward")?;
        check_steward(&steward, self.book.mesh, root, body.generation)?;
        self.book.stewards.insert(body.node, steward);
        Ok(true)
    }

    /// Nodes that may admit and renew at this time.
    pub fn stewards(&self, wall: Wall) -> impl Iterator<Item = &Signed<Steward>> {
        let current = self.generation();
        self.book.stewards.values().filter(move |steward| {
            let body = &steward.body;
            body.generation == current
                && check_window("steward", body.issued, body.not_after, wall).is_ok()
                && !self.is_revoked(&body.node)
        })
    }

    /// This node's steward record, when it may admit and renew at this time.
    pub fn own_steward(&self, wall: Wall) -> Option<&Signed<Steward>> {
        self.stewards(wall).find(|steward| steward.body.node == self.me)
    }

    /// This node, as a steward, admits or renews `node`.
    ///
    /// # Errors
    /// [`RecordError::NotSteward`], [`RecordError::Revoked`], and as [`grant_membership`].
    pub fn admit(
        &self,
        signer: &impl Signer,
        node: NodeId,
        name: &str,
        wall: Wall,
        lease: Micros,
    ) -> Result<Credential, RecordError> {
        if self.is_revoked(&node) {
            return Err(RecordError::Revoked(node.short()));
        }
        let steward = self.own_steward(wall).ok_or(RecordError::NotSteward)?;
        grant_membership(signer, steward, &self.book.rotations, node, name, wall, lease)
    }

    /// This node, as a steward, renews a member that presents a credential that is still good.
    ///
    /// # Errors
    /// As [`Roster::verify`] and [`Roster::admit`].
    pub fn renew(
        &self,
        signer: &impl Signer,
        credential: &Credential,
        presenting: NodeId,
        wall: Wall,
        lease: Micros,
    ) -> Result<Credential, RecordError> {
        self.verify(credential, presenting, wall)?;
        // What a steward signed that had been put out says nothing, the name included.
        let void = self.void(&Lease::of(credential)).is_some();
        let known = self.book.members.get(&presenting).filter(|_| void);
        let name = known.map_or(credential.name(), |member| member.name.as_str());
        self.admit(signer, presenting, name, wall, lease)
    }

    /// Takes a revocation. True when it is new.
    ///
    /// # Errors
    /// What is wrong with it, or [`RecordError::Full`].
    pub fn apply_revocation(
        &mut self,
        notice: RevocationNotice,
        wall: Wall,
    ) -> Result<bool, RecordError> {
        let node = notice.revocation.body.node;
        if self.is_revoked(&node) {
            return Ok(false);
        }
        self.check_revocation(&notice, wall)?;
        self.drop_outlived(wall);
        if self.book.revocations.len() >= MAX_REVOCATIONS {
            return Err(RecordError::Full { what: "revocation", limit: MAX_REVOCATIONS });
        }
        self.book.revocations.insert(node, notice);
        Ok(true)
    }

    /// Whether a node was put out.
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.book.revocations.contains_key(node) && !plant::is_on(Plant::RevokedAdmitted)
    }

    /// The revocations known.
    pub fn revocations(&self) -> impl Iterator<Item = &RevocationNotice> {
        self.book.revocations.values()
    }

    /// A credential's chain against the one known here.
    fn check_chain(&self, credential: &Credential, wall: Wall) -> Result<(), RecordError> {
        for (rotation, known) in credential.rotations.iter().zip(&self.roots) {
            if rotation.body.to != *known {
                return Err(RecordError::Fork(rotation.body.generation));
            }
        }
        self.check_generation(credential.generation(), credential.membership.body.issued, wall)
    }

    /// Whether what was issued under a root key counts, also after a rotation.
    fn check_generation(&self, theirs: u32, issued: Wall, wall: Wall) -> Result<(), RecordError> {
        let ours = self.generation();
        if theirs >= ours {
            return Ok(());
        }
        // The rotation that ended the credential's generation.
        let ended = self.book.rotations.get(theirs as usize).map(|rotation| rotation.body.at);
        let graced = ended
            .is_some_and(|at| wall <= at.plus(ROTATION_GRACE) && issued <= at.plus(CLOCK_SKEW));
        if theirs + 1 == ours && graced {
            return Ok(());
        }
        Err(RecordError::Generation { record: "membership", theirs, ours })
    }

    fn check_revocation(&self, notice: &RevocationNotice, wall: Wall) -> Result<(), RecordError> {
        let body = &notice.revocation.body;
        check_mesh("revocation", body.mesh, self.book.mesh)?;
        let ahead = body.at.since(wall);
        if ahead > CLOCK_SKEW {
            return Err(RecordError::NotYet { record: "revocation", ahead_s: ahead.0 / 1_000_000 });
        }
        if plant::is_on(Plant::RightUnchecked) {
            return Ok(());
        }
        // Whoever was put out puts nobody out afterwards. A node that hears of both the other way
        // round keeps both: better one machine too many to admit again than a thief at large.
        self.check_right(&notice.revocation, notice.steward.as_ref(), body.mesh, body.at)
    }

    /// Whether a key was the root key at a time. What it put out stays out after a rotation, or a
    /// node that joins or comes back later would let the thief in again. An old key that was stolen
    /// can date its revocations back; as with stewards, better one machine too many put out.
    pub(super) fn was_root(&self, key: [u8; 32], at: Wall) -> bool {
        let ended_later =
            |rotation: &Signed<RootRotation>| rotation.body.from == key && at <= rotation.body.at;
        key == self.root() || self.book.rotations.iter().any(ended_later)
    }

    /// Revocations that cancel nothing any more: every record from before, a steward's too, has
    /// lapsed.
    fn drop_outlived(&mut self, wall: Wall) {
        let outlived = |at: Wall| wall > at.plus(MAX_STEWARD_LEASE).plus(CLOCK_SKEW.times(2));
        self.book.revocations.retain(|_, notice| !outlived(notice.revocation.body.at));
    }

    pub(super) fn root_of(
        &self,
        generation: u32,
        record: &'static str,
    ) -> Result<[u8; 32], RecordError> {
        match generation.checked_sub(1) {
            None => Ok(self.book.mesh.0),
            Some(at) => self.roots.get(at as usize).copied().ok_or(RecordError::Generation {
                record,
                theirs: generation,
                ours: self.generation(),
            }),
        }
    }
}
