//! Connecting to peers: whom, when again, and whom no more.
//!
//! Owns the order of attempts and the rests between them. Each attempt runs as a task of its own
//! and tells the actor how it ended; addresses come from the book, patience from
//! [`selvedge_core::restart`].

use std::sync::Arc;

use selvedge_base::{Mono, NodeId};
use selvedge_core::restart::{Patience, Restart};
use selvedge_net::{NetError, clock};

use super::{MeshMessage, MeshState, Target};

/// Dials under way at a time.
const MAX_DIALS: usize = 16;
/// Attempts at a node that never proved itself: with the growing rests they take a few minutes.
const STRANGER_ATTEMPTS: u32 = 10;

impl MeshState {
    pub(super) fn dialled(&mut self, target: Target, result: &Result<NodeId, NetError>) {
        let now = clock::mono();
        match target {
            Target::Node(node) => {
                self.dialling.remove(&node);
                let Err(error) = result else { return };
                tracing::debug!(peer = %node.short(), %error, "could not connect");
                self.rest(node, now);
            }
            Target::Static(addr) => {
                let Some(dial) = self.static_dials.get_mut(&addr) else { return };
                dial.busy = false;
                match result {
                    Ok(node) => dial.node = Some(*node),
                    Err(error) => {
                        tracing::debug!(%addr, %error, "could not connect to a static peer");
                        dial.due = now.plus(dial.restart.failed(now));
                    }
                }
            }
        }
    }

    /// A node could not be reached: it is left alone for a while. One that never proved itself is
    /// forgotten after some attempts; discovery tells of it again if it is there.
    pub(super) fn rest(&mut self, node: NodeId, now: Mono) {
        let proven = self.contacts.members().any(|member| member == node);
        let patience = if proven { Patience::LINK } else { Patience::STRANGER };
        let fresh = || (Restart::new(patience, now), now);
        let (restart, due) = self.resting.entry(node).or_insert_with(fresh);
        *due = now.plus(restart.failed(now));
        if !proven && restart.failures() >= STRANGER_ATTEMPTS {
            self.resting.remove(&node);
            self.contacts.forget(&node);
        }
    }

    /// Tries those only heard of, each after its rest.
    pub(super) fn dial_hearsay(&mut self) {
        let strangers: Vec<NodeId> = self.contacts.hearsay().collect();
        for node in strangers {
            self.dial(node);
        }
    }

    pub(super) fn dial(&mut self, node: NodeId) {
        let now = clock::mono();
        let resting = self.resting.get(&node).is_some_and(|(_, due)| now < *due);
        if resting || self.dialling.len() >= MAX_DIALS || self.contacts.addrs(&node).is_empty() {
            return;
        }
        if self.args.shared.endpoint.link(&node).is_some() || !self.dialling.insert(node) {
            return;
        }
        let (endpoint, addrs) =
            (Arc::clone(&self.args.shared.endpoint), self.contacts.addrs(&node).to_vec());
        let line = self.args.line.clone();
        tokio::spawn(async move {
            let result = endpoint.connect(node, &addrs).await.map(|link| link.node());
            line.tell(MeshMessage::Dialled { target: Target::Node(node), result });
        });
    }

    pub(super) fn dial_static(&mut self, now: Mono) {
        for (addr, dial) in &mut self.static_dials {
            let linked =
                self.args.shared.endpoint.links().iter().any(|link| {
                    link.remote_addr() == Some(*addr) || dial.node == Some(link.node())
                });
            if linked || dial.busy || now < dial.due {
                continue;
            }
            dial.busy = true;
            let (endpoint, addr) = (Arc::clone(&self.args.shared.endpoint), *addr);
            let line = self.args.line.clone();
            tokio::spawn(async move {
                let result = endpoint.connect_unknown(addr).await.map(|link| link.node());
                line.tell(MeshMessage::Dialled { target: Target::Static(addr), result });
            });
        }
    }
}
