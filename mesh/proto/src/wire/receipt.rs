//! The receipt a hand-off travels with when its tokens were reserved from budgets.
//!
//! Signed by the node that took the request from its client and holds the reservation, for one
//! serving node and one attempt. It proves who answers for the tokens; it does not move rights, so
//! a copy of it is worth no tokens. Owns its shape and its signed bytes; what a serving node checks
//! is decided in `actors/core`.

use selvedge_base::{Micros, NodeId, RequestId};
use serde::{Deserialize, Serialize};

use crate::records::{Record, RecordError, Signed, Signer};

/// Budgets one receipt may name: those of a key, an app, a team and a tenant, a few each.
pub const MAX_RECEIPT_BUDGETS: usize = 64;
/// Bytes of an account's path or a key's id in a receipt: three segments of 48 and what is between.
pub const MAX_RECEIPT_TEXT: usize = 160;

/// What the ingest node answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The request at its ingest node.
    pub request: RequestId,
    /// The node that took the request and reserved for it.
    pub ingest: NodeId,
    /// The node that may compute on it.
    pub serving: NodeId,
    /// The account charged.
    pub account: String,
    /// The key used, if any.
    pub key: Option<String>,
    /// Tokens reserved, those of the prompt included.
    pub tokens: u64,
    /// The work must be over within this of its arrival; clocks of two nodes are never compared.
    pub not_after_in: Micros,
    /// The attempt: grows when the ingest node moves the request.
    pub fence: u64,
    /// The budgets reserved from; at most [`MAX_RECEIPT_BUDGETS`].
    pub budgets: Vec<[u8; 16]>,
}

impl Receipt {
    /// Signs a receipt with the key of its ingest node.
    pub fn seal(self, signer: &impl Signer) -> Signed<Self> {
        Signed::seal(self, signer)
    }
}

impl Signed<Receipt> {
    /// Whether the receipt keeps its bounds and is signed by the ingest node it names.
    ///
    /// # Errors
    /// [`RecordError::Signature`].
    pub fn check(&self) -> Result<(), RecordError> {
        self.check_by(|receipt| receipt.check_signature().is_ok())
    }

    /// As [`Signed::check`], with another check of the signature: a simulated mesh seals receipts
    /// with a stand-in.
    ///
    /// # Errors
    /// [`RecordError::Signature`].
    pub fn check_by(&self, is_signed: impl Fn(&Self) -> bool) -> Result<(), RecordError> {
        let body = &self.body;
        let within = body.budgets.len() <= MAX_RECEIPT_BUDGETS
            && body.account.len() <= MAX_RECEIPT_TEXT
            && body.key.as_ref().is_none_or(|key| key.len() <= MAX_RECEIPT_TEXT);
        if !within || self.signer != body.ingest.0 {
            return Err(RecordError::Signature(Receipt::KIND));
        }
        if is_signed(self) { Ok(()) } else { Err(RecordError::Signature(Receipt::KIND)) }
    }
}

impl Record for Receipt {
    const KIND: &'static str = "receipt";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.request.0.to_be_bytes());
        out.extend(self.ingest.0);
        out.extend(self.serving.0);
        write_text(out, &self.account);
        // An absent key and an empty one are told apart.
        out.push(u8::from(self.key.is_some()));
        write_text(out, self.key.as_deref().unwrap_or_default());
        out.extend(self.tokens.to_be_bytes());
        out.extend(self.not_after_in.0.to_be_bytes());
        out.extend(self.fence.to_be_bytes());
        out.extend((self.budgets.len() as u64).to_be_bytes());
        for budget in &self.budgets {
            out.extend(budget);
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_be_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    fn receipt(ingest: &SigningKey) -> Receipt {
        Receipt {
            request: RequestId(77),
            ingest: NodeId(ingest.verifying_key().to_bytes()),
            serving: NodeId([8; 32]),
            account: "acme/line3".to_owned(),
            key: Some("ab12".to_owned()),
            tokens: 1_500,
            not_after_in: Micros::secs(30),
            fence: 2,
            budgets: vec![[1; 16], [2; 16]],
        }
    }

    #[test]
    fn only_the_ingest_node_can_sign_it() {
        let (ingest, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        assert_eq!(receipt(&ingest).seal(&ingest).check(), Ok(()));
        assert!(receipt(&ingest).seal(&other).check().is_err());
    }

    #[test]
    fn every_field_is_signed() {
        let ingest = SigningKey::from_bytes(&[1; 32]);
        let good = receipt(&ingest).seal(&ingest);
        let changes: [fn(&mut Receipt); 9] = [
            |r| r.request.0 += 1,
            |r| r.serving = NodeId([9; 32]),
            |r| r.account.push('x'),
            |r| r.key = None,
            |r| r.tokens += 1,
            |r| r.not_after_in.0 += 1,
            |r| r.fence += 1,
            |r| r.budgets.swap(0, 1),
            |r| r.budgets.truncate(1),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut forged = good.clone();
            change(&mut forged.body);
            assert!(forged.check().is_err(), "change {n} went unnoticed");
        }
    }

    #[test]
    fn one_over_the_bounds_is_refused_before_its_signature_is_looked_at() {
        let ingest = SigningKey::from_bytes(&[1; 32]);
        let mut long = receipt(&ingest);
        long.budgets = vec![[0; 16]; MAX_RECEIPT_BUDGETS + 1];
        assert!(long.seal(&ingest).check().is_err());
    }
}
