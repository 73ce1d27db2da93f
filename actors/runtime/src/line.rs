//! The line to the mesh actor: bounded, and whole across the actor's restarts.
//!
//! Owns the bound on what may wait in the actor's mailbox, which ractor leaves open. Whatever a
//! peer can cause takes a place first and gives it back when it was handled; those who can wait
//! do, and what is worth nothing later is dropped instead.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ractor::ActorRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::mesh::MeshMessage;

/// Facts that may wait for the mesh actor: a second of heartbeats of a hundred peers.
const ROOM: usize = 1_024;

/// One fact and the place it takes.
pub(crate) struct Mail {
    pub(crate) message: MeshMessage,
    _place: Option<OwnedSemaphorePermit>,
}

/// The way to whichever mesh actor runs now; cheap to clone.
#[derive(Clone)]
pub(crate) struct MeshLine {
    actor: Arc<ArcSwapOption<ActorRef<Mail>>>,
    room: Arc<Semaphore>,
}

impl MeshLine {
    /// A line that nobody answers yet.
    pub(crate) fn new() -> Self {
        Self { actor: Arc::default(), room: Arc::new(Semaphore::new(ROOM)) }
    }

    /// A mesh actor that has just started answers from now on.
    pub(crate) fn connect(&self, actor: ActorRef<Mail>) {
        self.actor.store(Some(Arc::new(actor)));
    }

    /// Tells what this node itself caused: bounded by what caused it.
    pub(crate) fn tell(&self, message: MeshMessage) {
        self.cast(Mail { message, _place: None });
    }

    /// Tells what peers cause, waiting for a place.
    pub(crate) async fn tell_in_turn(&self, message: MeshMessage) {
        // The semaphore is never closed; without a place the fact would be told all the same.
        let place = Arc::clone(&self.room).acquire_owned().await.ok();
        self.cast(Mail { message, _place: place });
    }

    /// Tells what is worth nothing later; without a place it is dropped.
    pub(crate) fn tell_or_drop(&self, message: MeshMessage) {
        if let Ok(place) = Arc::clone(&self.room).try_acquire_owned() {
            self.cast(Mail { message, _place: Some(place) });
        }
    }

    /// Between two actors there is nobody to tell: the next one reads the links, the roster and
    /// the rows anew, so nothing is lost for long.
    fn cast(&self, mail: Mail) {
        if let Some(actor) = self.actor.load().as_ref() {
            let _stopped = actor.cast(mail);
        }
    }
}
