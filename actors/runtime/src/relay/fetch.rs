//! Looking at peers for an answer that this node lacks.
//!
//! Owns the asking, one peer after the other, and its time. Whom to ask, for how long, and whether
//! what came may be given and kept is decided by [`selvedge_core::cache`].

use std::sync::Arc;

use selvedge_base::{Micros, Mono, NodeId};
use selvedge_core::cache::{Key, Near, Owner, Peers, Ticket};
use selvedge_net::clock;
use selvedge_proto::answers::Ask;
use selvedge_proto::swim::PeerState;

use super::cached::{CacheLine, Kept};
use crate::answers;
use crate::gateway::Gateway;

/// What the peers had.
pub(super) enum Found {
    /// The answer, how old it is, and whose.
    Answer(Arc<Kept>, Micros, NodeId),
    /// None; why, if any was asked.
    Nothing(Option<&'static str>),
}

impl Gateway {
    /// Asks the peers that may have an answer, for a question under this ticket.
    pub(super) async fn look_at_peers(
        &self,
        line: &CacheLine,
        (key, owner, ticket): (&Key, &Owner, Ticket),
        (came, deadline): (Mono, Micros),
    ) -> Found {
        let now = clock::mono();
        if line.peers.lock().is_empty() {
            return Found::Nothing(None);
        }
        let near = self.near();
        let whom = line.peers.lock().whom(now, key, owner.label, &near);
        if whom.is_empty() {
            return Found::Nothing(None);
        }
        let until = Peers::until(now, came, deadline);
        for node in whom {
            let left = until.since(clock::mono());
            let Some(link) = self.shared.endpoint.link(&node).filter(|_| left > Micros::ZERO)
            else {
                continue;
            };
            // The purges known now, after the question is: one that comes later closes it.
            let purges = self.shared.purges.print();
            let ask = Ask { digest: key.0, purges, most_bytes: line.entry_bytes };
            let fetched = tokio::time::timeout(left.into(), answers::fetch(&link, ask)).await;
            if let Ok(Ok(Some((kept, dated)))) = fetched {
                line.peers.lock().gave(&node);
                if let Some((kept, age)) = line.fetched(ticket, kept, dated) {
                    return Found::Answer(kept, age, node);
                }
                continue;
            }
            line.peers.lock().in_vain(clock::mono(), &node);
        }
        Found::Nothing(Some("not-at-peers"))
    }

    /// The peers that can be asked now.
    fn near(&self) -> Vec<Near> {
        let view = self.shared.view.load();
        let there = view
            .nodes
            .iter()
            .filter(|node| !node.me && node.linked && matches!(node.state, PeerState::Alive));
        let near = |node: &selvedge_core::NodeView| Near {
            node: node.node,
            same_site: node.site == self.shared.receive.site,
            rtt: node.rtt,
        };
        there.map(near).collect()
    }
}
