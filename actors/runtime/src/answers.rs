//! What this node and its peers say to each other about answers that are kept: purges, which all
//! heed, which answers there are, and the answers themselves.
//!
//! Owns the streams, the purges on the disk, and that a purge is in force here before it is known
//! here: whoever is told that this node knows it gets no answer of before. What a purge reaches,
//! who may have an answer and whom to ask is decided by `selvedge_core::cache` and
//! `selvedge_proto::answers`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use selvedge_base::{Micros, Mono, NodeId, Refusal};
use selvedge_core::Opening;
use selvedge_core::cache::{Dated, Lent, Scope};
use selvedge_net::{FrameReceiver, FrameSender, Identity, Link, NetError, clock};
use selvedge_proto::answers::{
    AnswersReply, AnswersWord, Ask, Heard, Held, MAX_SCOPE_NAME, Missing, PIECE_BYTES, Print,
    PurgeBook, PurgeLine, sign_purge,
};
use selvedge_proto::records::{Roster, Signed};
use tokio::sync::watch;

use crate::handoff::{CONTROL_PRIORITY, REQUEST_PRIORITY, begin, deliver};
use crate::membership::{Key, Membership, broken};
use crate::relay::{CacheLine, Kept};
use crate::serve::Context;
use crate::shared::Shared;
use crate::store::{Store, StoreError};
use crate::task::Run;

/// Store record: the purges of the mesh.
pub(crate) const PURGES: &str = "purges";
/// The wire version that brought all this.
pub(crate) const ANSWERS_SINCE: u8 = 5;
/// An exchange with a peer on the LAN takes milliseconds; one that takes longer is made up for by
/// the next comparison.
const EXCHANGE_WITHIN: Micros = Micros::secs(2);
/// How often peers are told what is kept, if anything is new: soon enough for a colleague who asks
/// the same, and four messages a second at most, which are as large as what is kept is much.
const TELL_EVERY: Micros = Micros::millis(250);
/// What an answer is, by its number on the wire.
const KINDS: [&str; 3] = ["application/json", "text/event-stream", "application/x-ndjson"];

/// What became of a purge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Answers that were kept here; none where no answers are kept.
    pub gone: Option<u64>,
    /// Peers that know of it.
    pub told: usize,
    /// Peers there are.
    pub linked: usize,
    /// Names of those whose build knows no purges of the mesh.
    pub older: Vec<String>,
}

/// The purges of the mesh as this node knows them.
pub(crate) struct Purges {
    book: ArcSwap<PurgeBook>,
    /// Serializes changes with their storing.
    turn: tokio::sync::Mutex<()>,
    changed: watch::Sender<()>,
    /// Peers that purges are compared with now, so that whoever asks often costs one exchange at a
    /// time.
    comparing: Mutex<BTreeSet<NodeId>>,
    identity: Arc<Identity>,
    membership: Arc<Membership>,
    store: Store,
}

impl Purges {
    pub(crate) fn load(
        identity: Arc<Identity>,
        membership: Arc<Membership>,
        store: Store,
    ) -> Result<Self, StoreError> {
        let mut book = PurgeBook::new(membership.mesh());
        let lines: Vec<Signed<PurgeLine>> = store.load(PURGES)?.unwrap_or_default();
        for error in book.take(lines).refused {
            tracing::warn!(%error, "a stored purge is not used");
        }
        let (book, changed) = (ArcSwap::from_pointee(book), watch::Sender::new(()));
        let (turn, comparing) = (tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { book, turn, changed, comparing, identity, membership, store })
    }

    /// The fingerprint of what is known.
    pub(crate) fn print(&self) -> Print {
        self.book.load().print()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lines(&self) -> Vec<Signed<PurgeLine>> {
        self.book.load().lines()
    }

    /// An operator purges at this node. How many answers were kept; done when it is on the disk.
    async fn order(
        &self,
        cache: Option<&CacheLine>,
        scope: Scope,
    ) -> Result<Option<u64>, StoreError> {
        let _turn = self.turn.lock().await;
        let mut book = PurgeBook::clone(&self.book.load());
        let line = book.next(self.identity.node_id(), scope.clone(), clock::wall());
        self.take(&mut book, vec![sign_purge(line, &Key(&self.identity))]);
        let gone = self.put_in_force(cache, &[scope], book);
        self.save().await.map(|()| gone)
    }

    /// A peer tells of purges.
    async fn heard(&self, cache: Option<&CacheLine>, from: NodeId, lines: Vec<Signed<PurgeLine>>) {
        // What takes time comes before the lock, for which an operator's purge may wait.
        let told = lines.len();
        let is_signed = |line: &Signed<PurgeLine>| line.check_signature().is_ok();
        let lines = self.book.load().sound(lines, clock::wall(), is_signed);
        if lines.len() < told {
            let refused = told - lines.len();
            tracing::debug!(peer = %from.short(), refused, "purges are unsigned or of the future");
        }
        let _turn = self.turn.lock().await;
        let mut book = PurgeBook::clone(&self.book.load());
        let heard = self.take(&mut book, lines);
        for error in &heard.refused {
            tracing::debug!(peer = %from.short(), %error, "a purge was refused");
        }
        if !heard.is_new {
            return;
        }
        let gone = self.put_in_force(cache, &heard.scopes, book).unwrap_or(0);
        tracing::info!(peer = %from.short(), answers = gone, "answers were purged in the mesh");
        if let Err(error) = self.save().await {
            tracing::error!(%error, "the purges of the mesh were not stored");
        }
    }

    /// Takes lines whose signatures were checked.
    fn take(&self, book: &mut PurgeBook, lines: Vec<Signed<PurgeLine>>) -> Heard {
        let all = |roster: &Roster| roster.members().map(|(node, _)| *node).collect();
        let members: BTreeSet<NodeId> = self.membership.with(all);
        let me = self.identity.node_id();
        book.take_by(lines, |_| true, |node| *node == me || members.contains(node))
    }

    /// Takes away what purges reach and knows of them, at one moment for all who look.
    fn put_in_force(
        &self,
        cache: Option<&CacheLine>,
        scopes: &[Scope],
        book: PurgeBook,
    ) -> Option<u64> {
        let book = Arc::new(book);
        let known = || self.book.store(book);
        let gone = match cache {
            Some(cache) => Some(cache.purge(scopes, known)),
            None => {
                known();
                None
            }
        };
        self.changed.send_replace(());
        gone
    }

    async fn save(&self) -> Result<(), StoreError> {
        match self.membership.has_left() {
            true => Ok(()),
            false => self.store.save(PURGES, &self.lines()).await,
        }
    }
}

/// Purges here and tells every peer there is. Others hear of it when they come.
pub(crate) async fn purge(shared: &Arc<Shared>, scope: Scope) -> Result<Purged, Refusal> {
    if !scope.is_within_bounds() {
        let message = format!("a model's name has at most {MAX_SCOPE_NAME} bytes");
        let (stage, code) = (selvedge_base::Stage::Validate, selvedge_base::Code::InvalidRequest);
        return Err(Refusal::client(stage, code, message).param("model"));
    }
    let gone = shared.purges.order(shared.cache.as_ref(), scope).await;
    let gone = gone.map_err(|error| broken(&error))?;
    let links = shared.endpoint.links();
    let old = links.iter().filter(|link| link.version() < ANSWERS_SINCE);
    let older = old.map(|link| shared.view.load().name_of(&link.node())).collect();
    let told = links.iter().map(|link| tell_purges(shared, link.clone()));
    let told = futures::future::join_all(told).await.into_iter().filter(|told| *told).count();
    Ok(Purged { gone, told, linked: links.len(), older })
}

/// Tells a peer all purges; whether those ordered here count there.
async fn tell_purges(shared: &Shared, link: Link) -> bool {
    let me = shared.purges.identity.node_id();
    let ours = shared.purges.book.load().last_of(&me);
    let word = AnswersWord::Purges(shared.purges.lines());
    let (node, told) = (link.node(), asked(&link, CONTROL_PRIORITY, word));
    match tokio::time::timeout(EXCHANGE_WITHIN.into(), told).await {
        Ok(Ok((AnswersReply::Same, _))) => true,
        Ok(Ok((AnswersReply::Purges(theirs), _))) => {
            let known = theirs.iter().find(|line| line.body.node == me);
            let counts = known.map_or(0, |line| line.body.last()) >= ours;
            shared.purges.heard(shared.cache.as_ref(), node, theirs).await;
            counts
        }
        Ok(Ok(_)) | Ok(Err(_)) | Err(_) => false,
    }
}

/// Compares purges with a peer.
pub(crate) async fn compare(shared: Arc<Shared>, link: Link) {
    if link.version() < ANSWERS_SINCE || !shared.purges.comparing.lock().insert(link.node()) {
        return;
    }
    exchange(&shared, &link).await;
    shared.purges.comparing.lock().remove(&link.node());
}

async fn exchange(shared: &Shared, link: &Link) {
    let word = AnswersWord::Brief(shared.purges.print());
    let reply = asked(link, CONTROL_PRIORITY, word);
    let reply = tokio::time::timeout(EXCHANGE_WITHIN.into(), reply).await;
    let Ok(Ok((AnswersReply::Purges(theirs), _))) = reply else { return };
    shared.purges.heard(shared.cache.as_ref(), link.node(), theirs.clone()).await;
    if shared.purges.lines() != theirs {
        tell_purges(shared, link.clone()).await;
    }
}

/// Says a word to a peer; its first reply, and where more of it comes.
async fn asked(
    link: &Link,
    priority: i32,
    word: AnswersWord,
) -> Result<(AnswersReply, FrameReceiver), NetError> {
    let (mut sender, mut receiver) = link.open(priority).await?;
    begin(&mut sender, &Opening::Answers(Box::new(word))).await?;
    sender.finish();
    let reply = receiver.recv::<AnswersReply>().await?;
    let nothing = || NetError::Lost("the peer said nothing".to_owned());
    Ok((reply.ok_or_else(nothing)?, receiver))
}

/// Takes what a peer says of answers, and replies.
pub(crate) async fn take(
    context: &Context,
    from: NodeId,
    word: AnswersWord,
    mut sender: FrameSender,
) -> Result<(), NetError> {
    let shared = &context.shared;
    let cache = shared.cache.as_ref();
    let reply = match word {
        AnswersWord::Brief(theirs) if theirs == shared.purges.print() => AnswersReply::Same,
        AnswersWord::Brief(_) => AnswersReply::Purges(shared.purges.lines()),
        AnswersWord::Purges(lines) => {
            shared.purges.heard(cache, from, lines.clone()).await;
            let ours = shared.purges.lines();
            if ours == lines { AnswersReply::Same } else { AnswersReply::Purges(ours) }
        }
        AnswersWord::Kept(told) => {
            if let Some(cache) = cache {
                cache.peers.lock().heard(from, *told);
            }
            return Ok(());
        }
        AnswersWord::Ask(ask) => return lend(shared, from, &ask, sender).await,
    };
    sender.send(&reply).await?;
    sender.finish();
    Ok(())
}

/// Gives a peer an answer, if it may have it.
async fn lend(
    shared: &Arc<Shared>,
    from: NodeId,
    ask: &Ask,
    mut sender: FrameSender,
) -> Result<(), NetError> {
    sender.set_priority(REQUEST_PRIORITY);
    let same_site = is_at_same_site(shared, &from);
    let lent = match &shared.cache {
        Some(cache) => cache.lend(ask, same_site, &shared.purges),
        None => Err(Missing::NotKept),
    };
    let kind = |kept: &Kept| KINDS.iter().position(|kind| *kind == kept.content_type);
    let (lent, kind) = match lent.map(|lent| (kind(&lent.answer), lent)) {
        Ok((Some(kind), lent)) => (lent, kind as u8),
        Ok((None, _)) => return missing(sender, Missing::NotKept).await,
        Err(why) => {
            if why == Missing::Purges
                && let Some(link) = shared.endpoint.link(&from)
            {
                tokio::spawn(compare(Arc::clone(shared), link));
            }
            return missing(sender, why).await;
        }
    };
    let Lent { answer, age, left } = lent;
    let digest = *blake3::hash(&answer.body).as_bytes();
    let held = Held { bytes: answer.body.len() as u64, digest, kind, age, left };
    sender.send(&AnswersReply::Held(held)).await?;
    for piece in answer.body.chunks(PIECE_BYTES) {
        sender.send(&AnswersReply::Piece(piece.to_vec())).await?;
    }
    sender.finish();
    Ok(())
}

async fn missing(mut sender: FrameSender, why: Missing) -> Result<(), NetError> {
    sender.send(&AnswersReply::Missing(why)).await?;
    sender.finish();
    Ok(())
}

/// Asks a peer for an answer. None when it gives none, or something else than it says.
///
/// # Errors
/// When the way to it broke.
pub(crate) async fn fetch(link: &Link, ask: Ask) -> Result<Option<(Kept, Dated)>, NetError> {
    if link.version() < ANSWERS_SINCE {
        return Ok(None);
    }
    let asked_at: Mono = clock::mono();
    let (reply, mut receiver) = asked(link, REQUEST_PRIORITY, AnswersWord::Ask(ask)).await?;
    let AnswersReply::Held(held) = reply else { return Ok(None) };
    let Some(content_type) = KINDS.get(usize::from(held.kind)) else { return Ok(None) };
    if held.bytes > ask.most_bytes {
        return Ok(None);
    }
    let mut body = Vec::new();
    while (body.len() as u64) < held.bytes {
        let Some(AnswersReply::Piece(piece)) = receiver.recv().await? else { return Ok(None) };
        body.extend_from_slice(&piece);
    }
    if body.len() as u64 != held.bytes || *blake3::hash(&body).as_bytes() != held.digest {
        return Ok(None);
    }
    let dated = Dated { asked: asked_at, age: held.age, left: held.left };
    Ok(Some((Kept { body: body.into(), content_type }, dated)))
}

/// Whether a peer stands where this node does.
pub(crate) fn is_at_same_site(shared: &Shared, node: &NodeId) -> bool {
    shared.view.load().node(node).is_some_and(|peer| peer.site == shared.receive.site)
}

/// The task that tells peers what is kept here.
pub(crate) fn child(shared: Arc<Shared>) -> Run {
    Arc::new(move || {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            tell(&shared).await;
            Ok(())
        })
    })
}

async fn tell(shared: &Shared) {
    let Some(cache) = &shared.cache else { return std::future::pending().await };
    let start = shared.purges.membership.incarnation();
    // What each peer was told last: its start, whether it gets the site's answers, the turn.
    let mut told: BTreeMap<NodeId, (u64, bool, u64)> = BTreeMap::new();
    let mut ticks = tokio::time::interval(TELL_EVERY.into());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let links = shared.endpoint.links();
        let is_linked = |node: &NodeId| links.iter().any(|link| link.node() == *node);
        told.retain(|node, _| is_linked(node));
        cache.peers.lock().keep(is_linked);
        let turn = cache.turn();
        let sends = links.into_iter().filter_map(|link| {
            let node = link.node();
            let now = (link.hello().incarnation, is_at_same_site(shared, &node), turn);
            let is_new = turn > 0 && told.get(&node) != Some(&now);
            (is_new && link.version() >= ANSWERS_SINCE).then_some(async move {
                let word = AnswersWord::Kept(Box::new(cache.in_brief(start, now.1)));
                let sent = tokio::time::timeout(EXCHANGE_WITHIN.into(), say(&link, word)).await;
                matches!(sent, Ok(Ok(()))).then_some((node, now))
            })
        });
        told.extend(futures::future::join_all(sends).await.into_iter().flatten());
    }
}

async fn say(link: &Link, word: AnswersWord) -> Result<(), NetError> {
    deliver(link, CONTROL_PRIORITY, &Opening::Answers(Box::new(word))).await
}
