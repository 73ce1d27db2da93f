//! The node's key as the seal of its rows, and a memory of the signatures that were checked.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::NodeId;
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::Seal;
use selvedge_net::Identity;
use selvedge_proto::seal;

/// Signatures that are remembered: those of eight messages full of rows. Only between the check and
/// the step of the machine that asks again.
const REMEMBERED: usize = 4_096;

/// Signs with the node's key, checks with those of others. What held once is not worked out again:
/// rows are checked before the lock of the budgets is taken, and asked about under it.
pub(crate) struct NodeSeal {
    identity: Arc<Identity>,
    held: Mutex<Held>,
}

/// Names of what was found to be signed, oldest first; at most [`REMEMBERED`].
#[derive(Default)]
struct Held {
    names: BTreeSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl NodeSeal {
    pub(crate) fn new(identity: Arc<Identity>) -> Self {
        Self { identity, held: Mutex::default() }
    }
}

impl Seal for NodeSeal {
    fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::from_bytes(&self.identity.sign(bytes))
    }

    fn is_signed(&self, signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool {
        let name = name_of(signer, bytes, signature);
        if self.held.lock().names.contains(&name) {
            return true;
        }
        let holds = seal::is_signed(signer, bytes, signature);
        if holds {
            let mut held = self.held.lock();
            if held.names.insert(name) {
                held.order.push_back(name);
            }
            if held.order.len() > REMEMBERED
                && let Some(oldest) = held.order.pop_front()
            {
                held.names.remove(&oldest);
            }
        }
        holds
    }
}

/// Who signed what how, in short.
fn name_of(signer: &NodeId, bytes: &[u8], signature: &Signature) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 checked signature");
    hasher.update(&signer.0);
    hasher.update(&signature.0);
    hasher.update(&signature.1);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}
