//! Names and keys of simulated nodes: real Ed25519 keys, the same in every run, made once.
//!
//! Nodes are numbered in the order of their ids, so that a node's number says where it stands in
//! every ordered map. Rows and receipts are sealed by a stand-in: real signatures are proven where
//! they are made, and would cost a hundred times more than everything else in a run.

use std::cell::RefCell;

use ed25519_dalek::SigningKey;
use selvedge_base::NodeId;
use selvedge_crdt::escrow::Seal;
use selvedge_crdt::{Row, Signature};
use selvedge_proto::answers::PurgeLine;
use selvedge_proto::records::{Record, Signed};
use selvedge_proto::wire::Receipt;

use crate::stream::mix;

thread_local! {
    /// Keys by number of making; they cost 20 µs each, and many runs share a thread.
    static KEYS: RefCell<Vec<(NodeId, SigningKey)>> = const { RefCell::new(Vec::new()) };
}

/// The nodes of one run.
#[derive(Debug)]
pub(crate) struct Names {
    /// In order.
    nodes: Vec<(NodeId, SigningKey)>,
    /// First 64 bits of the ids, in order: decides nearly every search.
    heads: Vec<u64>,
    pub(crate) root: SigningKey,
}

impl Names {
    pub(crate) fn new(count: usize) -> Self {
        let mut nodes = KEYS.with_borrow_mut(|keys| {
            for made in keys.len()..count {
                keys.push(key(made as u64 + 1));
            }
            keys[..count].to_vec()
        });
        nodes.sort_by_key(|(id, _)| *id);
        let heads = nodes.iter().map(|(id, _)| head(id)).collect();
        Self { nodes, heads, root: key(0).1 }
    }

    pub(crate) fn id(&self, index: usize) -> NodeId {
        self.nodes[index].0
    }

    pub(crate) fn key(&self, index: usize) -> &SigningKey {
        &self.nodes[index].1
    }

    /// The number of a node, if it is one of this run.
    pub(crate) fn find(&self, id: &NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(id, |(known, _)| *known).ok()
    }

    /// The number of a node of this run.
    pub(crate) fn index(&self, id: &NodeId) -> usize {
        let at = self.heads.partition_point(|known| *known < head(id));
        debug_assert_eq!(self.nodes.get(at).map(|(known, _)| *known), Some(*id), "a known node");
        at
    }
}

fn key(number: u64) -> (NodeId, SigningKey) {
    let secret = blake3::derive_key("selvedge 2026 simulated key", &number.to_be_bytes());
    let key = SigningKey::from_bytes(&secret);
    (NodeId(key.verifying_key().to_bytes()), key)
}

fn head(id: &NodeId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.0[..8]);
    u64::from_be_bytes(bytes)
}

/// Stands for an Ed25519 signature: a hash of signer and bytes. Nobody in a simulation forges one
/// by chance; adversaries that would are made to.
pub(crate) fn stand_in(signer: &NodeId, bytes: &[u8]) -> Signature {
    let mut state = head(signer);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state.rotate_left(5) ^ u64::from_le_bytes(word));
    }
    state = mix(state ^ bytes.len() as u64);
    let (mut r, mut s) = ([0; 32], [0; 32]);
    r[..8].copy_from_slice(&state.to_le_bytes());
    s[..8].copy_from_slice(&mix(state).to_le_bytes());
    Signature(r, s)
}

pub(crate) fn sign_row(row: &mut Row) {
    row.signature = stand_in(&row.writer, &row.canonical_bytes());
}

pub(crate) fn is_row_signed(row: &Row) -> bool {
    row.signature == stand_in(&row.writer, &row.canonical_bytes())
}

/// Seals a receipt for its ingest node.
pub(crate) fn sign_receipt(receipt: Receipt) -> Signed<Receipt> {
    let signer = receipt.ingest;
    let signature = stand_in(&signer, &bytes_of(&receipt));
    Signed { body: receipt, signer: signer.0, signature }
}

pub(crate) fn is_receipt_signed(receipt: &Signed<Receipt>) -> bool {
    receipt.signature == stand_in(&NodeId(receipt.signer), &bytes_of(&receipt.body))
}

/// Seals the purges of a node.
pub(crate) fn sign_purge(line: PurgeLine) -> Signed<PurgeLine> {
    let signer = line.node;
    let signature = stand_in(&signer, &bytes_of(&line));
    Signed { body: line, signer: signer.0, signature }
}

pub(crate) fn is_purge_signed(line: &Signed<PurgeLine>) -> bool {
    line.signature == stand_in(&NodeId(line.signer), &bytes_of(&line.body))
}

fn bytes_of(record: &impl Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    record.write(&mut bytes);
    bytes
}

/// Seals rows of budgets for one node.
#[derive(Debug)]
pub(crate) struct StandIn(pub(crate) NodeId);

impl Seal for StandIn {
    fn sign(&self, bytes: &[u8]) -> Signature {
        stand_in(&self.0, bytes)
    }

    fn is_signed(&self, signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool {
        *signature == stand_in(signer, bytes)
    }
}
