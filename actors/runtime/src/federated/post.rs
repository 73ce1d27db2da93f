//! What the machines of a job send: to peers over their links, and to this node itself.
//!
//! Owns the bounds on what is under way. Whatever is lost is said again by the machines, so nothing
//! here waits for a peer that does not listen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use selvedge_base::{Micros, NodeId};
use selvedge_core::{FederatedWord, Opening, PersonalWord};
use selvedge_federated::epidemic::Told;
use selvedge_federated::round::{Digest, Folded, Message};
use selvedge_net::{Endpoint, Link};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::runner::{Heard, Word};
use crate::handoff::{CONTROL_PRIORITY, deliver};
use crate::serve::WHOLE_WITHIN;
use crate::store::StoreError;

/// Small messages under way to one peer: what decides a round, twice.
const PER_PEER: usize = 8;
/// Large ones where a node is several clients, at most; as many as it is clients: a second copy of
/// a share would only slow the first one down, and beyond four shares side by side each would come
/// too late.
const LARGE_PER_PEER: usize = 4;
/// Personal models: apart from what is large in rounds, which must not wait for them.
const PERSONAL_PER_PEER: usize = 1;
/// Peers that messages are under way to: anchors, and those who ask for rounds.
const MAX_PEERS: usize = 1_024;
/// As long as the other side waits for a whole message; one that takes longer is lost, and said
/// again.
const SEND_WITHIN: Micros = WHOLE_WITHIN;

/// The wire version that knows rounds.
const SINCE: u8 = 6;

/// The wire version that knows personal models.
const PERSONAL_SINCE: u8 = 7;

/// The way out for one job; cheap to clone.
#[derive(Clone)]
pub(super) struct Post(Arc<Inner>);

struct Inner {
    endpoint: Arc<Endpoint>,
    me: NodeId,
    job: Digest,
    /// The way back in: a client and an anchor of one node talk too.
    own: mpsc::Sender<Heard>,
    /// Large messages under way to one peer.
    large: usize,
    places: Mutex<BTreeMap<NodeId, Places>>,
    /// Bytes of messages that left, about.
    sent: AtomicU64,
}

/// What may be under way to one peer.
#[derive(Clone)]
struct Places {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    personal: Arc<Semaphore>,
}

impl Places {
    fn new(large: usize) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        let (small, large) = (places(PER_PEER), places(large));
        Self { small, large, personal: places(PERSONAL_PER_PEER) }
    }

    /// What a message takes a place of.
    fn of(&self, opening: &Opening) -> &Arc<Semaphore> {
        match opening {
            Opening::Personal(_) => &self.personal,
            _ if weight(opening) > 0 => &self.large,
            _ => &self.small,
        }
    }

    fn is_idle(&self, large: usize) -> bool {
        self.small.available_permits() == PER_PEER
            && self.large.available_permits() == large
            && self.personal.available_permits() == PERSONAL_PER_PEER
    }
}

impl Post {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        me: NodeId,
        job: Digest,
        own: mpsc::Sender<Heard>,
        clients: usize,
    ) -> Self {
        let (large, places) = (clients.clamp(1, LARGE_PER_PEER), Mutex::default());
        Self(Arc::new(Inner { endpoint, me, job, own, large, places, sent: AtomicU64::new(0) }))
    }

    /// Bytes of shares and parts that left this node.
    pub(super) fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Sends, if the peer is there and has room.
    pub(super) fn send(&self, to: NodeId, message: Message) {
        if to == self.0.me {
            // What finds no room is said again.
            let word = Word::Round(Box::new(message));
            let _full = self.0.own.try_send(Heard { from: to, word });
            return;
        }
        let word = FederatedWord { job: self.0.job, message };
        self.hand(to, Opening::Federated(Box::new(word)));
    }

    /// Tells a peer a personal model, if the peer is there, knows such and has room.
    pub(super) fn tell(&self, to: NodeId, told: Told) {
        let word = PersonalWord { job: self.0.job, told };
        self.hand(to, Opening::Personal(Box::new(word)));
    }

    /// Peers that a personal model can be told to now.
    pub(super) fn reachable(&self) -> BTreeSet<NodeId> {
        let links = self.0.endpoint.links();
        let hears = |link: &&Link| link.version() >= PERSONAL_SINCE && !link.is_closed();
        links.iter().filter(hears).map(Link::node).collect()
    }

    fn hand(&self, to: NodeId, opening: Opening) {
        let Some(link) = self.0.endpoint.link(&to) else { return };
        if link.version() < opening.since() {
            return;
        }
        let Some(place) = self.place(to, |places| places.of(&opening)) else {
            tracing::trace!(peer = %to.short(), "too many messages of rounds: one is dropped");
            return;
        };
        self.carry(link, opening, place);
    }

    fn carry(&self, link: Link, opening: Opening, place: OwnedSemaphorePermit) {
        let (post, to) = (self.clone(), link.node());
        tokio::spawn(async move {
            let _place = place;
            let told = deliver(&link, CONTROL_PRIORITY, &opening);
            match tokio::time::timeout(SEND_WITHIN.into(), told).await {
                Ok(Ok(())) => drop(post.0.sent.fetch_add(weight(&opening), Ordering::Relaxed)),
                Ok(Err(error)) => {
                    tracing::debug!(peer = %to.short(), %error, "a message of a round was lost");
                }
                Err(_slow) => tracing::debug!(peer = %to.short(), "a message of a round was slow"),
            }
        });
    }

    /// Tells how a round ended, once it is read.
    pub(super) fn replay(
        &self,
        to: NodeId,
        round: u64,
        read: impl FnOnce() -> Result<Option<Folded>, StoreError> + Send + 'static,
    ) {
        // One read for a peer at a time, and none for a peer that is not there.
        let place = self.place(to, |places| &places.large);
        let link = self.0.endpoint.link(&to);
        let is_there = to == self.0.me || link.as_ref().is_some_and(|link| link.version() >= SINCE);
        let Some(place) = place.filter(|_| is_there) else { return };
        let post = self.clone();
        tokio::task::spawn_blocking(move || match (read(), link) {
            (Ok(Some(folded)), link) => {
                let message = Message::Folded(Box::new(folded));
                let Some(link) = link else { return post.send(to, message) };
                let word = FederatedWord { job: post.0.job, message };
                post.carry(link, Opening::Federated(Box::new(word)), place);
            }
            (Ok(None), _) => {}
            (Err(error), _) => {
                tracing::warn!(%error, round, "the end of a round cannot be read");
            }
        });
    }

    fn place(
        &self,
        to: NodeId,
        which: impl Fn(&Places) -> &Arc<Semaphore>,
    ) -> Option<OwnedSemaphorePermit> {
        let mut places = self.0.places.lock();
        if places.len() >= MAX_PEERS && !places.contains_key(&to) {
            places.retain(|_, places| !places.is_idle(self.0.large));
        }
        let room = places.len() < MAX_PEERS || places.contains_key(&to);
        let places =
            room.then(|| places.entry(to).or_insert_with(|| Places::new(self.0.large)).clone())?;
        Arc::clone(which(&places)).try_acquire_owned().ok()
    }
}

/// Bytes of what is large in a message.
fn weight(opening: &Opening) -> u64 {
    if let Opening::Personal(word) = opening {
        // A weight takes three bytes or five.
        return 4 * word.told.drift.len() as u64;
    }
    let Opening::Federated(word) = opening else { return 0 };
    let count = match &word.message {
        Message::Share { payload, .. } => payload.bytes(),
        Message::Opened(opening) => opening.partial.bytes(),
        Message::Folded(folded) => folded.openings.iter().map(|one| one.partial.bytes()).sum(),
        Message::Receipt(_)
        | Message::Refused { .. }
        | Message::Prepare { .. }
        | Message::Promise { .. }
        | Message::Behind { .. }
        | Message::Propose { .. }
        | Message::Accepted(_)
        | Message::Closed(_)
        | Message::Ask { .. } => 0,
    };
    count as u64
}
