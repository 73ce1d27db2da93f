//! Signing rows: joins the rows of `selvedge-crdt`, which know no cryptography, with node keys.

use selvedge_base::NodeId;
use selvedge_crdt::{Row, RowError, Signature, Stamp};
use serde::Serialize;

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

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
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
