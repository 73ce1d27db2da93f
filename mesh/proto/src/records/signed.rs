//! A record and the signature over its canonical bytes.
//!
//! Canonical bytes are written by hand, field by field, so that no codec's change can move a
//! signature: version, domain, signer, then fixed-width big-endian integers, raw keys, and texts
//! after their length.

use ed25519_dalek::{SigningKey, VerifyingKey};
use selvedge_base::Wall;
use serde::{Deserialize, Serialize};

use super::{Membership, RecordError, Revocation, RootRotation, Signature, Steward};

/// The version of the canonical bytes.
const CANONICAL_VERSION: u8 = 1;

/// A record with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    /// What is said.
    pub body: T,
    /// The Ed25519 public key of who says it.
    pub signer: [u8; 32],
    /// Over the canonical bytes.
    pub signature: Signature,
}

/// Something that signs with an Ed25519 key: a node's identity, or a root key.
pub trait Signer {
    /// The public key.
    fn public(&self) -> [u8; 32];
    /// The signature of `message` (RFC 8032, no pre-hash).
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

impl Signer for SigningKey {
    fn public(&self) -> [u8; 32] {
        self.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        ed25519_dalek::Signer::sign(self, message).to_bytes()
    }
}

/// A public key and a closure that signs with its private half.
impl<F: Fn(&[u8]) -> [u8; 64]> Signer for ([u8; 32], F) {
    fn public(&self) -> [u8; 32] {
        self.0
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        (self.1)(message)
    }
}

/// A record that can be signed.
pub trait Record {
    /// What people call it; separates the domains of signatures too.
    const KIND: &'static str;
    /// Appends every field.
    fn write(&self, out: &mut Vec<u8>);
}

impl<T: Record> Signed<T> {
    /// Signs a record.
    pub fn seal(body: T, signer: &impl Signer) -> Self {
        let public = signer.public();
        let signature = signer.sign(&canonical(&body, &public));
        Self { body, signer: public, signature: Signature::from_bytes(&signature) }
    }

    /// Checks that `signer` signed this body; says nothing about the signer's right to.
    ///
    /// # Errors
    /// [`RecordError::Signature`].
    pub fn check_signature(&self) -> Result<(), RecordError> {
        let bytes = canonical(&self.body, &self.signer);
        if verify(&self.signer, &bytes, &self.signature) {
            Ok(())
        } else {
            Err(RecordError::Signature(T::KIND))
        }
    }
}

/// Whether `signature` is the one of `public` over `message`; refuses weak keys and the malleable
/// forms that RFC 8032 leaves open.
pub(crate) fn verify(public: &[u8; 32], message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.to_bytes());
    VerifyingKey::from_bytes(public).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

fn canonical<T: Record>(body: &T, signer: &[u8; 32]) -> Vec<u8> {
    let mut bytes = vec![CANONICAL_VERSION];
    write_text(&mut bytes, "selvedge record");
    write_text(&mut bytes, T::KIND);
    bytes.extend(signer);
    body.write(&mut bytes);
    bytes
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_be_bytes());
    out.extend(text.as_bytes());
}

fn write_wall(out: &mut Vec<u8>, wall: Wall) {
    out.extend(wall.0.to_be_bytes());
}

impl Record for RootRotation {
    const KIND: &'static str = "root rotation";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.mesh.0);
        out.extend(self.from);
        out.extend(self.to);
        out.extend(self.generation.to_be_bytes());
        write_wall(out, self.at);
    }
}

impl Record for Steward {
    const KIND: &'static str = "steward";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.mesh.0);
        out.extend(self.node.0);
        out.extend(self.generation.to_be_bytes());
        write_wall(out, self.issued);
        write_wall(out, self.not_after);
    }
}

impl Record for Membership {
    const KIND: &'static str = "membership";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.mesh.0);
        out.extend(self.node.0);
        write_text(out, &self.name);
        write_wall(out, self.issued);
        write_wall(out, self.not_after);
    }
}

impl Record for Revocation {
    const KIND: &'static str = "revocation";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.mesh.0);
        out.extend(self.node.0);
        write_wall(out, self.at);
    }
}
