//! What node keys are used for beyond records: signing rows, and sealing to a node.
//!
//! Joins the rows of `selvedge-crdt`, which know no cryptography, with node keys. A node's signing
//! key is also the key that others seal shares to, by the map between the two forms of the curve
//! (RFC 7748, section 4.1): no second key has to be told and proven. That the two uses do not
//! weaken each other is shown by Thormarker (2021, IACR ePrint 2021/509); what is signed and what
//! is derived have domains of their own.

use ed25519_dalek::{SigningKey, VerifyingKey};
use selvedge_base::NodeId;
use selvedge_crdt::{Row, RowError, Signature, Stamp};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::records::Signer;

/// A signed row of the node that `signer` is the key of.
///
/// # Errors
/// As [`Row::draft`].
pub fn sign_row<V: Serialize>(
    signer: &impl Signer,
    stamp: Stamp,
    value: &V,
) -> Result<Row, RowError> {
    let mut row = Row::draft(NodeId(signer.public()), stamp, value)?;
    row.signature = Signature::from_bytes(&signer.sign(&row.canonical_bytes()));
    Ok(row)
}

/// Whether a row is signed by its writer.
pub fn verify_row(row: &Row) -> bool {
    crate::records::verify(&row.writer.0, &row.canonical_bytes(), &row.signature)
}

/// Whether `signature` is `signer`'s over `bytes`; refuses the malleable forms.
pub fn is_signed(signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool {
    crate::records::verify(&signer.0, bytes, signature)
}

/// The public X25519 key of a node; none for a name that is no key.
pub fn sealing_key(node: &NodeId) -> Option<[u8; 32]> {
    let key = VerifyingKey::from_bytes(&node.0).ok().filter(|key| !key.is_weak())?;
    Some(key.to_montgomery().to_bytes())
}

/// The secret X25519 key of a node, from the 32 secret bytes of its signing key.
pub fn opening_secret(secret: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(SigningKey::from_bytes(secret).to_scalar_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_crdt::{Merged, RowMap};

    #[test]
    fn a_row_is_good_only_as_its_writer_signed_it() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let row = sign_row(&key, Stamp { incarnation: 1, seq: 2 }, &"load 3").expect("small");
        assert!(verify_row(&row));
        let mut changed = row.clone();
        changed.stamp.seq = 3;
        assert!(!verify_row(&changed));
        let mut stolen = row.clone();
        stolen.writer = NodeId([9; 32]);
        assert!(!verify_row(&stolen));

        let mut map = RowMap::new(4);
        assert_eq!(map.merge(row, verify_row), Merged::Newer);
        assert!(matches!(map.merge(changed, verify_row), Merged::Refused(RowError::Signature(_))));
    }
}
