//! Shares sealed to one anchor, so that whoever carries or stores them learns nothing.
//!
//! X25519 (RFC 7748) between a key made for this one share and the anchor's, BLAKE3 as the key
//! derivation over the shared secret, both public keys and the context, ChaCha20-Poly1305 (RFC
//! 8439) with a nonce of zero, since the key seals one message only. The key for a share follows
//! from its contribution's seed, so that the same share is sealed to the same bytes and sending it
//! again reveals nothing. Owns the form `version | key | ciphertext`; the context names what is
//! inside and is the caller's.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce};
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::field::Fp;
use crate::fixed::MAX_DIM;
use crate::mask::Seed;
use crate::proof::CHECKS;

/// The version of the form.
const VERSION: u8 = 1;
/// Version and key.
const HEADER_BYTES: usize = 33;
/// What the cipher adds.
const TAG_BYTES: usize = 16;
/// Elements of the longest share: a model of the largest size without packing, and its proof's.
const MAX_SHARE: usize = MAX_DIM + CHECKS;
/// The longest sealed share.
pub const MAX_SEALED_BYTES: usize = HEADER_BYTES + 4 * MAX_SHARE + TAG_BYTES;

/// Why a share cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// It is too short or too long to be one.
    #[error("{0} bytes are no sealed share")]
    Length(usize),
    /// It is of a version that is not read here.
    #[error("version {0} of a sealed share is not read here")]
    Version(u8),
    /// It was sealed to another key, for another purpose, or is damaged.
    #[error("the share is not sealed to this anchor, or is damaged")]
    Forged,
    /// The anchor's key, or the share's, is no good point of the curve.
    #[error("the key is of low order")]
    Key,
    /// What is inside is no list of elements.
    #[error("what is sealed is no share")]
    Contents,
}

/// An anchor's secret key for shares.
#[derive(Clone)]
pub struct OpeningKey(StaticSecret);

impl OpeningKey {
    /// The key of 32 bytes of entropy.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(StaticSecret::from(bytes))
    }

    /// The public half, to which shares are sealed.
    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// The share in a sealed one.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<Fp>, SealError> {
        if sealed.len() < HEADER_BYTES + TAG_BYTES || sealed.len() > MAX_SEALED_BYTES {
            return Err(SealError::Length(sealed.len()));
        }
        if sealed[0] != VERSION {
            return Err(SealError::Version(sealed[0]));
        }
        let mut sender = [0; 32];
        sender.copy_from_slice(&sealed[1..HEADER_BYTES]);
        let cipher = cipher(&self.0, &sender, &sender, &self.public(), context)?;
        let payload = Payload { msg: &sealed[HEADER_BYTES..], aad: context };
        let plain = cipher.decrypt(&Nonce::default(), payload).map_err(|_| SealError::Forged)?;
        from_bytes(&plain)
    }
}

impl std::fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpeningKey(..)")
    }
}

/// A share sealed to the anchor of the public key `anchor`; `seed` is for this share alone.
///
/// # Errors
/// [`SealError::Key`] for a key that no anchor can have, [`SealError::Length`] for a share that is
/// too long.
pub fn seal(
    share: &[Fp],
    anchor: &[u8; 32],
    seed: &Seed,
    context: &[u8],
) -> Result<Vec<u8>, SealError> {
    if share.len() > MAX_SHARE {
        return Err(SealError::Length(share.len()));
    }
    let secret = StaticSecret::from(seed.0);
    let public = PublicKey::from(&secret).to_bytes();
    let cipher = cipher(&secret, anchor, &public, anchor, context)?;
    let plain = to_bytes(share);
    let payload = Payload { msg: &plain, aad: context };
    // The cipher refuses only what is longer than 256 GiB.
    let closed =
        cipher.encrypt(&Nonce::default(), payload).map_err(|_| SealError::Length(share.len()))?;
    let mut sealed = Vec::with_capacity(HEADER_BYTES + closed.len());
    sealed.push(VERSION);
    sealed.extend(public);
    sealed.extend(closed);
    Ok(sealed)
}

fn cipher(
    own: &StaticSecret,
    other: &[u8; 32],
    sender: &[u8; 32],
    anchor: &[u8; 32],
    context: &[u8],
) -> Result<ChaCha20Poly1305, SealError> {
    let shared = own.diffie_hellman(&PublicKey::from(*other));
    if !shared.was_contributory() {
        return Err(SealError::Key);
    }
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 federated share");
    for part in [shared.as_bytes(), sender, anchor] {
        hasher.update(part);
    }
    hasher.update(context);
    Ok(ChaCha20Poly1305::new(&Key::from(*hasher.finalize().as_bytes())))
}

/// Elements as bytes, four each, little endian.
pub fn to_bytes(elements: &[Fp]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 * elements.len());
    elements.iter().for_each(|one| bytes.extend_from_slice(&one.residue().to_le_bytes()));
    bytes
}

fn from_bytes(bytes: &[u8]) -> Result<Vec<Fp>, SealError> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(SealError::Contents);
    }
    let element = |word: &[u8; 4]| Fp::try_from(u32::from_le_bytes(*word));
    words.iter().map(element).collect::<Result<_, _>>().map_err(|_| SealError::Contents)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn anchor(byte: u8) -> OpeningKey {
        OpeningKey::from_bytes([byte; 32])
    }

    #[test]
    fn only_the_anchor_it_is_for_opens_a_share() {
        let share = [Fp::ONE, Fp::of_signed(-9)];
        let to = anchor(1);
        let sealed = seal(&share, &to.public(), &Seed([9; 32]), b"round 1").unwrap();
        assert_eq!(to.open(&sealed, b"round 1"), Ok(share.to_vec()));
        assert_eq!(to.open(&sealed, b"round 2"), Err(SealError::Forged));
        assert_eq!(anchor(2).open(&sealed, b"round 1"), Err(SealError::Forged));
        let again = seal(&share, &to.public(), &Seed([9; 32]), b"round 1").unwrap();
        assert_eq!(sealed, again);
        assert_eq!(format!("{to:?}"), "OpeningKey(..)");
    }

    #[test]
    fn keys_of_low_order_seal_nothing() {
        assert_eq!(seal(&[], &[0; 32], &Seed([9; 32]), b""), Err(SealError::Key));
        let mut sealed = vec![0; 49];
        sealed[0] = 1;
        assert_eq!(anchor(1).open(&sealed, b""), Err(SealError::Key));
        assert_eq!(anchor(1).open(&[1; 48], b""), Err(SealError::Length(48)));
        assert_eq!(anchor(1).open(&[2; 49], b""), Err(SealError::Version(2)));
        assert_eq!(from_bytes(&[0xff; 4]), Err(SealError::Contents));
        assert_eq!(from_bytes(&[0; 5]), Err(SealError::Contents));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_turned_bit_is_noticed(at: proptest::sample::Index, bit in 0..8u8) {
            let to = anchor(3);
            let mut sealed = seal(&[Fp::ONE; 3], &to.public(), &Seed([4; 32]), b"x").unwrap();
            let index = at.index(sealed.len());
            sealed[index] ^= 1 << bit;
            // The highest bit of a public key means nothing (RFC 7748, section 5), but it is part
            // of what the key is derived from.
            prop_assert!(to.open(&sealed, b"x").is_err());
        }
    }
}
