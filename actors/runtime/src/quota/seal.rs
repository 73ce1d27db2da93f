//! The node's key as the seal of its rows.

use std::sync::Arc;

use selvedge_base::NodeId;
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::Seal;
use selvedge_net::Identity;
use selvedge_proto::seal;

/// Signs with the node's key, checks with those of others.
pub(crate) struct NodeSeal(pub(crate) Arc<Identity>);

impl Seal for NodeSeal {
    fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::from_bytes(&self.0.sign(bytes))
    }

    fn is_signed(&self, signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool {
        seal::is_signed(signer, bytes, signature)
    }
}
