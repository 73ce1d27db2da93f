//! The rumours a node passes on, each a bounded number of times.

use std::collections::BTreeMap;

use selvedge_base::NodeId;

use super::{MAX_RUMOURS, PeerState, Rumour};

/// Rumours kept: eight full messages; in a calm mesh there are none, and in a storm the oldest
/// news is the least useful.
const MAX_KEPT: usize = 128;
/// Times a rumour is told, per doubling of the mesh: three reach everybody with a probability
/// above 99.9 % even at 5 % loss (SWIM, section 4.1).
const TELLS_PER_DOUBLING: u32 = 3;

/// News by whom it is about, with the number of times each was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Gossip {
    pub(super) news: BTreeMap<NodeId, (Rumour, u32)>,
}

impl Gossip {
    /// Takes news; older news of the same node makes way.
    pub(super) fn add(&mut self, rumour: Rumour) {
        if let Some((known, _)) = self.news.get(&rumour.node) {
            if newness(known) >= newness(&rumour) {
                return;
            }
        } else if self.news.len() >= MAX_KEPT {
            let most_told = self.news.iter().max_by_key(|(_, (_, told))| *told);
            let Some(node) = most_told.map(|(node, _)| *node) else { return };
            self.news.remove(&node);
        }
        self.news.insert(rumour.node, (rumour, 0));
    }

    pub(super) fn forget(&mut self, node: &NodeId) {
        self.news.remove(node);
    }

    /// What to tell `to`: first `tell`, then the news told least so far.
    pub(super) fn pick(&mut self, to: &NodeId, tell: Vec<Rumour>, peers: usize) -> Vec<Rumour> {
        let enough = TELLS_PER_DOUBLING * (usize::BITS - peers.leading_zeros()).max(1);
        let mut picked = tell;
        let told = |node: &NodeId| node == to || picked.iter().any(|known| known.node == *node);
        let mut fresh: Vec<(u32, NodeId)> =
            self.news.iter().filter(|(node, _)| !told(node)).map(|(n, (_, t))| (*t, *n)).collect();
        fresh.sort_unstable();
        for (_, node) in fresh.into_iter().take(MAX_RUMOURS.saturating_sub(picked.len())) {
            if let Some((rumour, told)) = self.news.get_mut(&node) {
                picked.push(*rumour);
                *told += 1;
                if *told >= enough {
                    self.news.remove(&node);
                }
            }
        }
        picked
    }
}

/// A higher incarnation is newer; within one, worse news beats better.
fn newness(rumour: &Rumour) -> (u64, PeerState) {
    (rumour.incarnation, rumour.state)
}
