//! Which clients train for a round: drawn from the record before, so that all know and none
//! chooses.

use selvedge_base::{Micros, NodeId};

/// Whether a client is asked to train, when a round has waited for so long. The part of the clients
/// that is asked doubles with every `patience`, so that a round does not hang on those that were
/// drawn and are gone.
pub fn is_asked(
    record: &[u8; 32],
    client: &NodeId,
    permille: u32,
    waited: Micros,
    patience: Micros,
) -> bool {
    let doublings = (waited.0 / patience.0.max(1)).min(10);
    let permille = u64::from(permille) << doublings;
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 federated selection");
    hasher.update(record);
    hasher.update(&client.0);
    let mut head = [0; 8];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let lot = (u128::from(u64::from_be_bytes(head)) * 1_000) >> 64;
    lot < u128::from(permille)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(record: u8, permille: u32, waited: u64) -> Vec<u8> {
        let is = |client: &u8| {
            let node = NodeId([*client; 32]);
            is_asked(&[record; 32], &node, permille, Micros(waited), Micros(10))
        };
        (0..200).filter(is).collect()
    }

    #[test]
    fn a_part_is_drawn_and_grows_until_it_is_all() {
        let first = asked(1, 250, 0);
        assert!((30..=70).contains(&first.len()), "{}", first.len());
        assert_ne!(first, asked(2, 250, 0), "another record draws others");
        let later = asked(1, 250, 10);
        assert!(first.iter().all(|client| later.contains(client)));
        assert!(later.len() > first.len());
        assert_eq!(asked(1, 250, 20).len(), 200);
        assert_eq!(asked(1, 1_000, 0).len(), 200);
    }
}
