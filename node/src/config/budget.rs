//! Memory for models: how much, and why so much.
//!
//! Owns the choice where nobody says how much. What the machine has is read by the runtime's probe;
//! who gets which part of it is the engine's business.

use selvedge_engine::{Device, EngineConfig};

/// The least that may be said: models that somebody publishes take more.
const LEAST: u64 = 16 << 20;

/// Memory for all models and their caches together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) bytes: u64,
    /// For people.
    pub(crate) reason: String,
}

impl Budget {
    /// What somebody said, or else what suits a machine with so much memory, in bytes; 0 = nothing
    /// was said.
    pub(super) fn of(said: u64, device: Device, memory: Option<u64>) -> Self {
        let usual = EngineConfig::usual_budget(memory);
        let most = EngineConfig::usual_budget(None);
        let (bytes, reason) = match (said, memory) {
            (1.., _) => (said, "the configuration says so".to_owned()),
            // What is loaded there takes the card's memory.
            (0, _) if device != Device::Cpu => (most, "the usual, on a card".to_owned()),
            (0, Some(memory)) if usual < most => {
                (usual, format!("half of the {memory} bytes that this machine or its limit has"))
            }
            (0, Some(_)) => (usual, "the usual, which is at most half of the memory".to_owned()),
            (0, None) => (usual, "the usual, since the machine's memory is not known".to_owned()),
        };
        Self { bytes, reason }
    }

    /// What is wrong with what was said, if anything.
    pub(super) fn check(said: u64) -> Option<String> {
        (1..LEAST).contains(&said).then(|| format!("0, or {LEAST} and more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_holds_and_else_the_machine_decides() {
        let bytes = |said, device, memory| Budget::of(said, device, memory).bytes;
        assert_eq!(bytes(5 << 30, Device::Cpu, Some(1 << 30)), 5 << 30);
        assert_eq!(bytes(0, Device::Cpu, Some(1 << 30)), 512 << 20);
        assert_eq!(bytes(0, Device::Cpu, Some(8 << 30)), 4 << 30);
        assert_eq!(bytes(0, Device::Cpu, Some(64 << 30)), 4 << 30);
        assert_eq!(bytes(0, Device::Cpu, None), 4 << 30);
        assert_eq!(bytes(0, Device::Cuda(0), Some(1 << 30)), 4 << 30);
        let small = Budget::of(0, Device::Cpu, Some(1 << 30));
        assert!(small.reason.contains("half of the 1073741824 bytes"), "{small:?}");
    }

    #[test]
    fn too_little_is_refused() {
        assert_eq!(Budget::check(0), None);
        assert_eq!(Budget::check(LEAST), None);
        for said in [1, LEAST - 1] {
            assert!(Budget::check(said).is_some_and(|allowed| allowed.contains("16777216")));
        }
    }
}
