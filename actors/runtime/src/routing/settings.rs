//! The settings of the mesh as this node holds them: durable, shared, told to peers.
//!
//! Owns the snapshot, the one writer's turn, the disk, and that a change is on the disk before it
//! counts. What the records mean is [`super`]'s, their checks are the book's.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use selvedge_base::{NodeId, Refusal};
use selvedge_net::{Identity, clock};
use selvedge_proto::settings::{
    SettingError, SettingKey, SettingPart, SettingsBook, SettingsMessage, sign_setting,
};
use tokio::sync::watch;

use crate::membership::{Membership, broken, refused as unfit};
use crate::policies::{Prints, put_parts};
use crate::signing::Signing;
use crate::store::{Batch, Store, StoreError};

/// What the names of the records begin with.
pub(crate) const SETTINGS: &str = "settings/";

/// Who this node is, and where its disk.
pub(crate) struct Place {
    pub(crate) identity: Arc<Identity>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) store: Store,
    pub(crate) home: PathBuf,
}

/// The settings of a running node.
pub(super) struct Settings {
    book: ArcSwap<SettingsBook>,
    /// Serializes changes with their storing.
    turn: tokio::sync::Mutex<()>,
    changed: watch::Sender<()>,
    /// Counts exchanges.
    turns: AtomicU64,
    /// What is on the disk, by the records' names; none when everything must be written.
    known: Mutex<Option<Prints>>,
    place: Place,
}

impl Settings {
    /// The settings as the store holds them. What does not hold is told to the log; peers have it
    /// if it is good.
    pub(super) fn load(place: Place) -> Result<Self, StoreError> {
        let parts = place.store.load_all::<SettingPart>(SETTINGS)?;
        let parts = parts.into_iter().map(|(_, part)| part);
        let (book, left_out) =
            place.membership.with(|roster| SettingsBook::from_parts(parts, roster, clock::wall()));
        for error in left_out {
            tracing::warn!(%error, "a stored setting of the mesh is not used");
        }
        Ok(Self {
            book: ArcSwap::from_pointee(book),
            turn: tokio::sync::Mutex::new(()),
            changed: watch::Sender::new(()),
            turns: AtomicU64::new(0),
            known: Mutex::new(None),
            place,
        })
    }

    pub(super) fn book(&self) -> Arc<SettingsBook> {
        self.book.load_full()
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn greeting(&self) -> SettingsMessage {
        self.book.load().greeting()
    }

    /// Takes what a peer says: whether anything is new, and what to answer.
    pub(super) async fn heard(
        &self,
        from: NodeId,
        mut message: SettingsMessage,
    ) -> (bool, Option<SettingsMessage>) {
        let mut is_new = false;
        if let SettingsMessage::Delta(delta) = &mut message {
            let delta = std::mem::replace(delta, delta.question());
            let _turn = self.turn.lock().await;
            let mut book = SettingsBook::clone(&self.book.load());
            let look = |roster: &_| book.apply_all(delta, roster, clock::wall());
            let changed = self.place.membership.with(look);
            for error in &changed.refused {
                tracing::debug!(peer = %from.short(), %error, "a setting was refused");
            }
            // One that was not stored comes again.
            is_new = !changed.keys.is_empty() && self.keep(book).await.is_ok();
        }
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        (is_new, self.book.load().answer(&message, turn))
    }

    /// What is done every second: whether anything changed by time or by who was put out.
    pub(super) async fn look(&self) -> bool {
        if self.book.load().is_empty() {
            return false;
        }
        let _turn = self.turn.lock().await;
        let mut book = SettingsBook::clone(&self.book.load());
        let heeded = self.place.membership.with(|roster| book.heed(roster));
        let ticked = book.tick(clock::wall());
        if heeded || ticked {
            return self.keep(book).await.is_ok();
        }
        // That all of it was found good is remembered, or it would be checked again each second.
        self.book.store(Arc::new(book));
        false
    }

    /// Whether this node may sign any.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(super) fn may_sign(&self) -> Result<(), Refusal> {
        let Place { identity, membership, home, .. } = &self.place;
        Signing::here(membership, identity, home, false).map(drop)
    }

    /// Signs contents, which `make` chooses, as next versions; `judge` sees the book before and
    /// after. Those whose content is what governs already are left as they are.
    pub(super) async fn change(
        &self,
        make: impl FnOnce(&SettingsBook) -> Result<Contents, Refusal>,
        judge: impl FnOnce(&SettingsBook, &SettingsBook, &[SettingKey]) -> Result<(), Refusal>,
    ) -> Result<Vec<SettingKey>, Refusal> {
        let Place { identity, membership, home, .. } = &self.place;
        let signing = Signing::here(membership, identity, home, false)?;
        let generation = signing.generation(membership);
        let wall = clock::wall();
        // What was removed in 1970 would be forgotten at once, and come back.
        membership.with(|roster| roster.may_date(wall)).map_err(|error| unfit(&error))?;
        let _turn = self.turn.lock().await;
        let before = self.book.load_full();
        let mut book = SettingsBook::clone(&before);
        let (mut keys, mut is_new) = (Vec::new(), false);
        for (key, content) in make(&before)? {
            keys.push(key.clone());
            let governs = book.head(&key).map(|notice| &notice.signed.body.content);
            if content.is_some() && governs == Some(&content) {
                continue;
            }
            let notice = signing.sign(|signer, steward| {
                let next = book.next(key, content, generation, wall)?;
                Ok::<_, SettingError>(sign_setting(signer, steward, next))
            })?;
            let applied = membership.with(|roster| book.apply(vec![notice], roster, wall));
            is_new |= applied.map_err(|error| super::refused(error.to_string()))?;
        }
        judge(&before, &book, &keys)?;
        if is_new {
            self.keep(book).await.map_err(|error| broken(&error))?;
        }
        Ok(keys)
    }

    /// Stores a book and puts it in the place of the old one. The caller has the turn.
    async fn keep(&self, book: SettingsBook) -> Result<(), StoreError> {
        if !self.place.membership.has_left()
            && let Err(error) = self.save(&book).await
        {
            tracing::error!(%error, "settings of the mesh were not stored");
            return Err(error);
        }
        self.book.store(Arc::new(book));
        self.changed.send_replace(());
        Ok(())
    }

    async fn save(&self, book: &SettingsBook) -> Result<(), StoreError> {
        let known = self.known.lock().take();
        let mut batch = Batch::default();
        let now = put_parts(&mut batch, SETTINGS, known, book.parts())?;
        self.place.store.begin(batch)?.await.map_err(|_| StoreError::Closed)??;
        *self.known.lock() = Some(now);
        Ok(())
    }
}

/// Settings and what they are to say; no content removes one.
pub(super) type Contents = Vec<(SettingKey, Option<Vec<u8>>)>;
