//! The endpoint's events, each to whom it belongs.
//!
//! Owns the one reader of the event queue. Streams and join attempts get tasks of their own, as
//! the endpoint has already bounded them; everything else goes to the mesh actor, which may be
//! restarted in between: the queue waits here meanwhile.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ractor::ActorRef;
use selvedge_net::NetEvent;
use tokio::sync::mpsc;

use crate::membership::Membership;
use crate::mesh::{MeshMessage, tell};
use crate::shared::Shared;
use crate::{join, serve};

/// Everything an event may need.
pub(crate) struct Ingress {
    pub(crate) shared: Arc<Shared>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) mesh: Arc<ArcSwapOption<ActorRef<MeshMessage>>>,
}

impl Ingress {
    /// Reads until the endpoint is shut down.
    pub(crate) async fn run(self, mut events: mpsc::Receiver<NetEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                NetEvent::LinkUp { link, dialled: _, hello } => {
                    tell(&self.mesh, MeshMessage::LinkUp { link, hello: Box::new(hello) });
                }
                NetEvent::LinkLost { node, why } => {
                    tell(&self.mesh, MeshMessage::LinkLost { node, why });
                }
                NetEvent::Datagram { from, bytes } => {
                    tell(&self.mesh, MeshMessage::Datagram { from, bytes });
                }
                NetEvent::Stream { from, sender, receiver } => {
                    let context = serve::Context {
                        shared: Arc::clone(&self.shared),
                        membership: Arc::clone(&self.membership),
                        mesh: Arc::clone(&self.mesh),
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
