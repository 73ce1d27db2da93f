//! Members that repeat themselves or say two things at once.

use selvedge_core::quota::QuotaMessage;
use selvedge_crdt::escrow::SignedRow;
use selvedge_proto::sync::SyncDelta;

use super::{Load, World};
use crate::marks::Mark;
use crate::names::{StandIn, sign_row};

/// Messages a node that will repeat itself remembers.
const REMEMBERED: usize = 200;

impl World<'_> {
    /// Keeps what a node says that will say it again.
    pub(super) fn remember(&mut self, from: usize, to: usize, load: &Load) {
        let Some(said) = self.said.get_mut(&from) else { return };
        let again =
            matches!(load, Load::Quota(_) | Load::Policy(_) | Load::Delta(_) | Load::Open { .. });
        if again {
            if said.len() >= REMEMBERED {
                said.pop_front();
            }
            said.push_back((to, load.clone()));
        }
    }

    /// A node says again all it remembers having said.
    pub(super) fn replay(&mut self, index: usize, node: usize) {
        if !self.nodes[node].acts() {
            return;
        }
        let said = self.said.get_mut(&node).map(std::mem::take).unwrap_or_default();
        if !said.is_empty() {
            self.fired(index);
            self.hit(Mark::ReplayIgnored);
        }
        for (to, load) in said {
            self.send_reliable(node, to, load);
        }
    }

    /// A node signs other rows under numbers it has used, and tells everybody.
    pub(super) fn equivocate(&mut self, index: usize, node: usize) {
        if !self.nodes[node].acts() {
            return;
        }
        self.liars.insert(node);
        let id = self.id(node);
        let row = self.nodes[node].memory.rows.get(&id).cloned();
        let stored = self.nodes[node].disk.stored.quota.rows.values();
        let own: Vec<_> =
            stored.filter(|one| one.row.holder.node == id && one.row.hw > 0).cloned().collect();
        let seal = StandIn(id);
        let rows: Vec<SignedRow> = own
            .into_iter()
            .map(|stored| {
                let mut row = stored.row;
                row.hw -= 1;
                SignedRow::seal(row, &seal)
            })
            .collect();
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            let Some(link) = self.nodes[node].memory.link(peer) else { continue };
            if let Some(mut row) = row.clone() {
                row.value.push(0);
                sign_row(&mut row);
                let delta = SyncDelta { rows: vec![row], ..SyncDelta::default() };
                self.send_reliable(node, peer, Load::Delta(Box::new(delta)));
                self.fired(index);
            }
            if !rows.is_empty() && link.version >= super::quota::QUOTA_VERSION {
                let message = QuotaMessage::Rows(rows.clone());
                self.send_reliable(node, peer, Load::Quota(Box::new(message)));
            }
        }
    }
}
