//! A seal that is none, for machines whose signatures nobody looks at.

use selvedge_base::NodeId;
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::Seal;

/// Signs nothing, and finds nothing signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned;

impl Seal for Unsigned {
    fn sign(&self, _: &[u8]) -> Signature {
        Signature([0; 32], [0; 32])
    }

    fn is_signed(&self, _: &NodeId, _: &[u8], _: &Signature) -> bool {
        false
    }
}
