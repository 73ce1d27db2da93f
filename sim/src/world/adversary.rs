//! Members that repeat themselves or say two things at once.

use std::collections::{BTreeMap, VecDeque};

use selvedge_base::codec::{decode_body, encode_datagram};
use selvedge_core::quota::{QuotaMessage, StoredRow};
use selvedge_crdt::escrow::SignedRow;
use selvedge_proto::policy::{AccountPath, CutOrder, PolicyDelta, PolicyMessage, sign_cut};
use selvedge_proto::records;
use selvedge_proto::sync::SyncDelta;
use serde::{Serialize, de::DeserializeOwned};

use super::{Load, World};
use crate::marks::Mark;
use crate::names::{StandIn, sign_row};
use crate::plan::{Fault, FaultKind, Plan};
use crate::stream::Stream;

/// Messages a node that will repeat itself remembers.
const REMEMBERED: usize = 200;
/// Messages a node sends garbled at a time.
const GARBLES: usize = 60;
/// The longest message that is garbled, in bytes: as the largest frame of records.
const FRAME: usize = 1 << 20;
/// The purpose of the streams that garble.
const GARBLED: u64 = 5;

/// What nodes said that will say it again.
pub(super) type Said = BTreeMap<usize, VecDeque<(usize, Load)>>;

/// Those whose words are remembered.
pub(super) fn speakers(plan: &Plan) -> Said {
    let speaks = |fault: &Fault| match fault.kind {
        FaultKind::Replay { node } | FaultKind::Garble { node } => Some((node, VecDeque::new())),
        _ => None,
    };
    plan.faults.iter().filter_map(speaks).collect()
}

impl World<'_> {
    /// Keeps what a node says that will say it again.
    pub(super) fn remember(&mut self, from: usize, to: usize, load: &Load) {
        let Some(said) = self.said.get_mut(&from) else { return };
        let again = matches!(
            load,
            Load::Quota(_)
                | Load::Policy(_)
                | Load::Settings(_)
                | Load::Delta(_)
                | Load::Open { .. }
        );
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

    /// A node sends what it said before with bytes that were turned over on the way: what still
    /// reads as a message is given to the peer, as its own connection would.
    pub(super) fn garble(&mut self, index: usize, node: usize) {
        if !self.nodes[node].acts() {
            return;
        }
        self.liars.insert(node);
        let said = self.said.get(&node).cloned().unwrap_or_default();
        let mut stream = Stream::keyed(self.plan.seed, GARBLED, node, index);
        for (to, load) in said.into_iter().take(GARBLES) {
            let garbled = match load {
                Load::Quota(message) => garbled(&message, &mut stream).map(Load::Quota),
                Load::Policy(message) => garbled(&message, &mut stream).map(Load::Policy),
                Load::Settings(message) => garbled(&message, &mut stream).map(Load::Settings),
                Load::Delta(delta) => garbled(&delta, &mut stream).map(Load::Delta),
                _ => continue,
            };
            self.fired(index);
            match garbled {
                Some(load) => self.send_reliable(node, to, load),
                None => self.hit(Mark::MalformedRefused),
            }
        }
    }

    /// A node sends records in the name of others, which it cannot sign, and one of its own that
    /// is larger than any may be.
    pub(super) fn forge(&mut self, index: usize, node: usize) {
        if !self.nodes[node].acts() || !self.belongs(node) {
            return;
        }
        self.liars.insert(node);
        let (id, wall) = (self.id(node), self.nodes[node].now(self.now.0).wall);
        let seal = StandIn(id);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            let Some(link) = self.nodes[node].memory.link(peer) else { continue };
            self.fired(index);
            let memory = &self.nodes[node].memory;
            let mut delta = SyncDelta::default();
            for row in memory.rows.iter().filter(|row| row.writer != id) {
                let mut row = row.clone();
                row.stamp.seq += 1;
                row.signature = crate::names::stand_in(&id, &row.canonical_bytes());
                delta.rows.push(row);
            }
            if let Some(row) = memory.rows.get(&id) {
                let mut row = row.clone();
                row.stamp.seq += 1_000;
                row.value.resize(selvedge_crdt::MAX_VALUE_BYTES + 1, 0);
                sign_row(&mut row);
                delta.rows.push(row);
            }
            let mesh = memory.roster.mesh();
            let victim = self.names.id((peer + 1) % self.nodes.len());
            let key = self.names.key(node);
            delta.roster.revocations.push(records::revoke(key, None, mesh, victim, wall));
            let rows = self.nodes[node].disk.stored.quota.rows.values();
            // A row that this node took over it may sign: that would be no forgery.
            let not_its = |one: &&StoredRow| one.row.holder.node != id && one.row.signer() != id;
            let others = rows.filter(not_its).take(GARBLES);
            let forged: Vec<SignedRow> = others
                .map(|stored| {
                    let mut row = stored.row.clone();
                    (row.seq, row.hw) = (row.seq + 1, row.hw + 1);
                    SignedRow::seal(row, &seal)
                })
                .collect();
            self.send_reliable(node, peer, Load::Delta(Box::new(delta)));
            if link.version >= super::quota::QUOTA_VERSION {
                let order = CutOrder::Account(AccountPath::local());
                if !forged.is_empty() {
                    let message = QuotaMessage::Rows(forged);
                    self.send_reliable(node, peer, Load::Quota(Box::new(message)));
                }
                let key = self.names.key(node);
                let mut cuts = PolicyDelta::default();
                cuts.cuts.extend(sign_cut(key, None, mesh, order, wall));
                let message = PolicyMessage::Delta(Box::new(cuts));
                self.send_reliable(node, peer, Load::Policy(Box::new(message)));
            }
            if link.version >= super::settings::SETTINGS_VERSION
                && let Some(message) = self.forged_setting(node)
            {
                self.send_reliable(node, peer, Load::Settings(Box::new(message)));
            }
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

/// A message after one to three of its bytes were turned over, if it still reads as one.
fn garbled<T: Serialize + DeserializeOwned>(message: &T, stream: &mut Stream) -> Option<T> {
    let mut bytes = encode_datagram(message, FRAME).ok()?;
    for _ in 0..=stream.below(3) {
        let at = stream.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << stream.below(8);
    }
    decode_body(&bytes).ok()
}
