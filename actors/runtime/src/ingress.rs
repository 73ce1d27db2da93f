//! The endpoint's events, each to whom it belongs.
//!
//! Owns the one reader of the event queue. Streams and join attempts get tasks of their own, as
//! the endpoint has already bounded them; everything else goes to the mesh actor, and the queue
//! waits while that has no place.

use std::sync::Arc;

use selvedge_net::NetEvent;
use tokio::sync::{Mutex, mpsc};

use crate::line::MeshLine;
use crate::membership::Membership;
use crate::mesh::MeshMessage;
use crate::shared::Shared;
use crate::task::Run;
use crate::{join, serve};

/// Everything an event may need.
pub(crate) struct Ingress {
    pub(crate) shared: Arc<Shared>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) mesh: MeshLine,
}

impl Ingress {
    /// The reading as a supervised task: a failure loses the event at hand, not the queue.
    pub(crate) fn keep_reading(self, events: mpsc::Receiver<NetEvent>) -> Run {
        let (ingress, events) = (Arc::new(self), Arc::new(Mutex::new(events)));
        Arc::new(move || {
            let (ingress, events) = (Arc::clone(&ingress), Arc::clone(&events));
            Box::pin(async move {
                ingress.run(&mut *events.lock().await).await;
                Ok(())
            })
        })
    }

    /// Reads until the endpoint is shut down.
    async fn run(&self, events: &mut mpsc::Receiver<NetEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                NetEvent::LinkUp { link, dialled: _, hello } => {
                    let hello = Box::new(hello);
                    self.mesh.tell_in_turn(MeshMessage::LinkUp { link, hello }).await;
                }
                NetEvent::LinkLost { node, why, gone } => {
                    self.mesh.tell_in_turn(MeshMessage::LinkLost { node, why, gone }).await;
                }
                NetEvent::Datagram { from, bytes } => {
                    self.mesh.tell_or_drop(MeshMessage::Datagram { from, bytes });
                }
                NetEvent::Stream { from, sender, receiver } => {
                    let context = serve::Context {
                        shared: Arc::clone(&self.shared),
                        membership: Arc::clone(&self.membership),
                        mesh: self.mesh.clone(),
                    };
                    tokio::spawn(serve::stream(context, from, sender, receiver));
                }
                NetEvent::JoinAttempt { from, addr, link } => {
                    tracing::info!(peer = %from.short(), %addr, "a node asks to join");
                    let shared = Arc::clone(&self.shared);
                    let membership = Arc::clone(&self.membership);
                    tokio::spawn(join::serve(shared, membership, from, link));
                }
            }
        }
    }
}
