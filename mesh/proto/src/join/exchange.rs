//! The key exchange and the two proofs over its transcript.

use selvedge_base::{Dice, MeshId, NodeId};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::{JoinCode, JoinError};

/// One side's half-done exchange.
pub(super) struct Exchange {
    state: Spake2<Ed25519Group>,
    /// What this side sends.
    pub(super) message: Vec<u8>,
}

/// What both sides saw; the proofs are over all of it.
pub(super) struct Transcript<'a> {
    pub(super) code_id: u32,
    pub(super) mesh: MeshId,
    pub(super) joiner: NodeId,
    pub(super) issuer: NodeId,
    pub(super) name: &'a str,
    pub(super) joiner_pake: &'a [u8],
    pub(super) issuer_pake: &'a [u8],
}

/// The proofs of both sides.
pub(super) struct Proofs {
    pub(super) of_issuer: [u8; 32],
    pub(super) of_joiner: [u8; 32],
}

impl Exchange {
    pub(super) fn joiner(code: &JoinCode, joiner: NodeId, issuer: NodeId, dice: Dice) -> Self {
        let (a, b) = identities(joiner, issuer);
        let (state, message) = Spake2::start_a_with_rng(&password(code), &a, &b, Draws(dice));
        Self { state, message }
    }

    pub(super) fn issuer(code: &JoinCode, joiner: NodeId, issuer: NodeId, dice: Dice) -> Self {
        let (a, b) = identities(joiner, issuer);
        let (state, message) = Spake2::start_b_with_rng(&password(code), &a, &b, Draws(dice));
        Self { state, message }
    }

    pub(super) fn finish(
        self,
        theirs: &[u8],
        transcript: &Transcript<'_>,
    ) -> Result<Proofs, JoinError> {
        let mut key = self.state.finish(theirs).map_err(|_| JoinError::Exchange)?;
        let said = transcript.bytes();
        let proof = |context: &str| {
            let mut derived = blake3::derive_key(context, &key);
            let proof = *blake3::keyed_hash(&derived, &said).as_bytes();
            derived.zeroize();
            proof
        };
        let proofs = Proofs {
            of_issuer: proof("selvedge 2026 join proof of the issuer"),
            of_joiner: proof("selvedge 2026 join proof of the joiner"),
        };
        key.zeroize();
        Ok(proofs)
    }
}

impl Transcript<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(self.code_id.to_be_bytes());
        bytes.extend(self.mesh.0);
        bytes.extend(self.joiner.0);
        bytes.extend(self.issuer.0);
        for part in [self.name.as_bytes(), self.joiner_pake, self.issuer_pake] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }
}

/// Whether two proofs are equal, in a time that does not tell where they differ.
pub(super) fn same(ours: &[u8; 32], theirs: &[u8; 32]) -> bool {
    ours.ct_eq(theirs).into()
}

fn password(code: &JoinCode) -> Password {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(b"selvedge join");
    bytes.extend(code.id.to_be_bytes());
    bytes.extend(code.fingerprint);
    bytes.extend(code.secret);
    let password = Password::new(&bytes);
    bytes.zeroize();
    password
}

fn identities(joiner: NodeId, issuer: NodeId) -> (Identity, Identity) {
    (Identity::new(&joiner.0), Identity::new(&issuer.0))
}

/// Our seeded dice as the random source `spake2` asks for (its version of `rand_core`).
struct Draws(Dice);

impl rand_core_06::CryptoRng for Draws {}

impl rand_core_06::RngCore for Draws {
    fn next_u32(&mut self) -> u32 {
        self.0.next() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next()
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.0.fill(out);
        Ok(())
    }
}
