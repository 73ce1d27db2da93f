//! Who has which budget and key, as this node holds it: the policy book, durable and shared.
//!
//! Owns the snapshot that the request path reads without a lock, the one writer's turn, and the
//! order of things: what widens anybody's rights is on the disk before anything depends on it; what
//! tightens counts at once, whether the disk takes it or not. The records' meaning is the book's,
//! rights to sign are the roster's and the root key's.

mod disk;
mod orders;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use selvedge_base::{Code, NodeId, Refusal, Stage, Wall};
use selvedge_core::PolicyWord;
use selvedge_core::quota::QuotaInput;
use selvedge_crdt::escrow::Holder;
use selvedge_net::{Identity, clock};
use selvedge_proto::policy::{
    AccountPath, Hardness, KeyId, KeyProblem, PolicyBook, PolicyDelta, PolicyMessage, Unit,
};
use tokio::sync::watch;

pub(crate) use disk::{PARTS, POLICY, Prints, SEAL, put_parts};
pub use orders::{BudgetDraft, BudgetSet, KeyDraft, TenantView};

use crate::membership::{Key, Membership};
use crate::quota::QuotaLine;
use crate::store::{Store, StoreError};

/// Store record of the names under which nodes hold rights.
pub(crate) const HOLDERS: &str = "policy holders";
/// Store record of the latest time this node saw.
const LATEST: &str = "policy latest";
/// How often the latest time is stored, at the most: a promise that begins so much later than
/// needed after a clock was set back delays nobody much.
const LATEST_EVERY_MS: u64 = 60_000;

/// The policy of a running node.
pub(crate) struct Policies {
    book: ArcSwap<PolicyBook>,
    /// Serializes changes with their storing.
    turn: tokio::sync::Mutex<()>,
    changed: watch::Sender<()>,
    /// Counts exchanges.
    turns: AtomicU64,
    /// The name of each member's durable store, as it said last; one per member ever met.
    holders: Mutex<BTreeMap<NodeId, u64>>,
    /// The members that the budgets were told of last.
    introduced: Mutex<Vec<NodeId>>,
    /// The latest wall time seen here, in milliseconds, however clocks were set since.
    latest: AtomicU64,
    latest_stored: AtomicU64,
    identity: Arc<Identity>,
    membership: Arc<Membership>,
    store: Store,
    on_disk: disk::OnDisk,
    home: PathBuf,
}

impl Policies {
    /// The policy as the store holds it.
    ///
    /// # Errors
    /// A damaged record.
    pub(crate) fn load(
        identity: Arc<Identity>,
        membership: Arc<Membership>,
        store: Store,
        home: PathBuf,
    ) -> Result<Self, StoreError> {
        let (mesh, me) = (membership.mesh(), identity.node_id());
        let (on_disk, stored) = disk::OnDisk::load(&store, mesh, &identity)?;
        let book = match stored {
            Some(stored) => {
                let book = membership.with(|roster| stored.restore(roster, clock::wall()));
                book.map_err(|error| StoreError::Damaged {
                    name: POLICY.to_owned(),
                    reason: error.to_string(),
                })?
            }
            None => PolicyBook::new(mesh, me),
        };
        let holders = store.load(HOLDERS)?.unwrap_or_default();
        let latest = store.load::<u64>(LATEST)?.unwrap_or(0);
        Ok(Self {
            book: ArcSwap::from_pointee(book),
            turn: tokio::sync::Mutex::new(()),
            changed: watch::Sender::new(()),
            turns: AtomicU64::new(0),
            holders: Mutex::new(holders),
            introduced: Mutex::default(),
            latest: AtomicU64::new(latest.max(clock::wall().0)),
            latest_stored: AtomicU64::new(latest),
            identity,
            membership,
            store,
            on_disk,
            home,
        })
    }

    /// The records now.
    pub(crate) fn book(&self) -> Arc<PolicyBook> {
        self.book.load_full()
    }

    /// Tells whenever the book was replaced.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether any budget counts what an account and key do.
    pub(crate) fn limits(&self, account: &AccountPath, key: Option<&KeyId>) -> bool {
        self.book.load().has_budgets(account, key)
    }

    /// Whether a budget of money counts what an account and key do.
    pub(crate) fn counts_money(&self, account: &AccountPath, key: Option<&KeyId>) -> bool {
        let book = self.book.load();
        book.budgets_of(account, key).iter().any(|budget| budget.spec.unit == Unit::MicroDollars)
    }

    /// Whether a tenant has a budget that must not be exceeded, so that peers must show receipts.
    pub(crate) fn is_hard(&self, tenant: &str) -> bool {
        self.book.load().budgets().any(|budget| {
            budget.level.account.tenant() == tenant && budget.spec.hardness == Hardness::Hard
        })
    }

    /// Why a caller that was let in may not go on, if it may not.
    pub(crate) fn bars(&self, account: &AccountPath, key: Option<&KeyId>) -> Option<Refusal> {
        self.book.load().bars(account, key).as_ref().map(barred_by)
    }

    /// The same for a request that may ask several times: it keeps in `let_in` which revision of
    /// the records let it in last, and nothing is looked up while they are the same.
    pub(crate) fn bars_again(
        &self,
        account: &AccountPath,
        key: Option<&KeyId>,
        let_in: &mut Option<u64>,
    ) -> Option<Refusal> {
        let book = self.book.load();
        if *let_in == Some(book.revision()) {
            return None;
        }
        let barred = book.bars(account, key);
        if barred.is_none() {
            *let_in = Some(book.revision());
        }
        barred.as_ref().map(barred_by)
    }

    /// What to send to a peer from time to time, and when something changed.
    pub(crate) fn greeting(&self, quota: &QuotaLine) -> PolicyWord {
        let message = self.book.load().greeting();
        PolicyWord { incarnation: quota.incarnation(), message }
    }

    /// Takes what a peer says; what to answer, if anything.
    pub(crate) async fn heard(
        &self,
        quota: &QuotaLine,
        from: NodeId,
        word: PolicyWord,
    ) -> Option<PolicyWord> {
        let PolicyWord { incarnation, mut message } = word;
        self.met(from, incarnation).await;
        if let PolicyMessage::Delta(delta) = &mut message {
            // The records are taken, the question at their end is answered below.
            let digest = delta.digest.take();
            let delta =
                std::mem::replace(&mut **delta, PolicyDelta { digest, ..PolicyDelta::default() });
            self.take(quota, from, delta).await;
        }
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let message = self.book.load().answer(&message, turn)?;
        Some(PolicyWord { incarnation: quota.incarnation(), message })
    }

    async fn take(&self, quota: &QuotaLine, from: NodeId, delta: PolicyDelta) {
        let _turn = self.turn.lock().await;
        let mut book = PolicyBook::clone(&self.book.load());
        let tightens = !delta.cuts.is_empty();
        let changed = self.membership.with(|roster| book.apply(delta, roster, clock::wall()));
        for error in &changed.refused {
            tracing::debug!(peer = %from.short(), %error, "a policy record was refused");
        }
        if changed.policy {
            // Nobody waits for the outcome; a record that was not stored comes again.
            let _stored = self.keep(quota, book, tightens).await;
        }
    }

    /// A peer said under which name it holds rights.
    async fn met(&self, node: NodeId, incarnation: u64) {
        let holders = {
            let mut holders = self.holders.lock();
            let full = holders.len() >= selvedge_proto::records::MAX_MEMBERS;
            if holders.get(&node) == Some(&incarnation) || (full && !holders.contains_key(&node)) {
                return;
            }
            holders.insert(node, incarnation);
            holders.clone()
        };
        if self.membership.has_left() {
            return;
        }
        if let Err(error) = self.store.save(HOLDERS, &holders).await {
            tracing::warn!(%error, "the names of holders were not stored");
        }
    }

    /// The name under which a node holds rights, if it ever told.
    pub(crate) fn holder_of(&self, node: &NodeId) -> Option<Holder> {
        let incarnation = self.holders.lock().get(node).copied()?;
        Some(Holder { node: *node, incarnation })
    }

    /// What is done every second: promises, the end of epochs, their renewal.
    pub(crate) async fn look(&self, quota: &QuotaLine) {
        let wall = clock::wall();
        self.latest.fetch_max(wall.0, Ordering::Relaxed);
        self.heed_roster(quota).await;
        if self.book.load().is_empty() {
            return;
        }
        self.store_latest().await;
        let _turn = self.turn.lock().await;
        let (held, unsealed) = (self.book(), self.on_disk.wants_seal());
        // Seldom anything is due, and a copy of a thousand keys takes long.
        if unsealed || held.tick_due(wall) || held.adoption_due(wall) {
            let mut book = PolicyBook::clone(&held);
            // A seal is for the next start to be quick: what comes of it is no matter now.
            if book.tick(wall) || unsealed {
                let _stored = self.keep(quota, book.clone(), false).await;
            }
            if book.adoption_due(wall) {
                self.adopt(quota, book, wall).await;
            }
        }
        if let Err(refusal) = self.renew_due(quota, wall).await {
            tracing::warn!(%refusal, "the budgets' configurations were not renewed");
        }
    }

    /// Tells the budgets who is a member, and the book who was put out and is not waited for.
    pub(crate) async fn heed_roster(&self, quota: &QuotaLine) {
        let (members, out) = self.membership.with(|roster| {
            let members: Vec<NodeId> = roster.members().map(|(node, _)| *node).collect();
            let out: BTreeSet<NodeId> =
                roster.revocations().map(|notice| notice.revocation.body.node).collect();
            (members, out)
        });
        {
            let mut introduced = self.introduced.lock();
            if *introduced != members {
                introduced.clone_from(&members);
                quota.tell(QuotaInput::Introduced { nodes: members });
            }
        }
        if self.book.load().knows_out(&out) {
            return;
        }
        let _turn = self.turn.lock().await;
        let mut book = PolicyBook::clone(&self.book.load());
        if book.put_out(&out, clock::wall()) {
            // Read from the roster again after a restart, whatever the disk says.
            let _stored = self.keep(quota, book, true).await;
        }
    }

    /// Signs what waits for this node's word: stored and heeded first, told then.
    async fn adopt(&self, quota: &QuotaLine, mut book: PolicyBook, wall: Wall) {
        let key = Key(&self.identity);
        if book.adopt(&key, wall, self.spent_until(quota)) > 0
            && self.keep(quota, book.clone(), false).await.is_err()
        {
            return;
        }
        if book.tell_adopted(&key, clock::wall(), self.spent_until(quota)) {
            let _stored = self.keep(quota, book, false).await;
        }
    }

    fn latest(&self) -> Wall {
        Wall(self.latest.load(Ordering::Relaxed))
    }

    /// The latest time this node may have spent at. What was seen here reaches the disk too seldom
    /// to outlive a crash; what the budgets know does, as they store a bound before they spend.
    fn spent_until(&self, quota: &QuotaLine) -> Wall {
        self.latest().max(quota.latest())
    }

    async fn store_latest(&self) {
        let latest = self.latest().0;
        let stored = self.latest_stored.load(Ordering::Relaxed);
        if latest < stored.saturating_add(LATEST_EVERY_MS) {
            return;
        }
        match self.store.save(LATEST, &latest).await {
            Ok(()) => self.latest_stored.store(latest, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "the latest time was not stored"),
        }
    }

    /// Stores a book and puts it in the place of the old one. The caller has the turn. One that
    /// tightens counts even if the disk does not take it.
    async fn keep(
        &self,
        quota: &QuotaLine,
        book: PolicyBook,
        tightens: bool,
    ) -> Result<(), StoreError> {
        let stored = match self.membership.has_left() {
            true => Ok(()),
            false => self.on_disk.save(&self.store, &book).await,
        };
        if let Err(error) = &stored {
            tracing::error!(%error, "policy records were not stored");
            if !tightens {
                return stored;
            }
        }
        let book = Arc::new(book);
        self.book.store(Arc::clone(&book));
        quota.policy_changed(book);
        self.changed.send_replace(());
        stored
    }
}

/// What a caller is told that may not go on.
fn barred_by(problem: &KeyProblem) -> Refusal {
    let (code, message) = match problem {
        KeyProblem::Suspended(account) => {
            (Code::Forbidden, format!("the account '{account}' is suspended"))
        }
        _ => (Code::Unauthorized, "the API key was revoked".to_owned()),
    };
    Refusal::client(Stage::Authenticate, code, message)
}
