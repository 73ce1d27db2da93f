//! A node's machine, and the choice among a model's files, as the admin API says them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a node's machine is and how it stands; what is absent is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Machine {
    /// Operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) os: Option<String>,
    /// Instruction set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) architecture: Option<String>,
    /// The processor or the board, as its maker calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) processor: Option<String>,
    /// Which kernels the engine computes with: `avx512-vnni`, `avx2`, `scalar`, `cuda` and others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernels: Option<String>,
    /// What of the processor's features kernels could use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) features: Vec<String>,
    /// Cores that the node may run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) physical_cores: Option<u32>,
    /// Threads of those cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) logical_cores: Option<u32>,
    /// Thousandths of a thread's time that the node may use all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) usable_millicores: Option<u32>,
    /// Bytes of memory, or the limit set for the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    /// Bytes of it that programs could still take, roughly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_available_bytes: Option<u64>,
    /// Bytes that models may take; only of the asked node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_budget_bytes: Option<u64>,
    /// Cards that compute or draw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gpus: Vec<Gpu>,
    /// The hottest sensor, in tenths of a degree Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) temperature_decidegrees: Option<i16>,
    /// What is left to the critical point of the sensor that is nearest to its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) headroom_decidegrees: Option<i16>,
    /// Whether it has a battery that can carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) has_battery: Option<bool>,
    /// How full that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) battery_percent: Option<u8>,
    /// Whether it runs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) on_battery: Option<bool>,
    /// Why requests go to other nodes first, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spared: Option<String>,
}

/// A card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Gpu {
    /// As its maker calls it.
    pub(crate) name: String,
    /// Bytes of its own memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
}

/// One line of `GET /admin/variants`: a model of which the configuration names several files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct VariantChoice {
    /// The name in requests.
    pub(crate) name: String,
    /// The variant that is served, as the configuration names it; absent where none fits.
    pub(crate) chosen: Option<String>,
    /// Why this one, or why none.
    pub(crate) reason: String,
    /// All of them, in their order.
    pub(crate) variants: Vec<VariantFate>,
}

/// What became of one variant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct VariantFate {
    /// As the configuration names it.
    pub(crate) variant: String,
    /// Why it was chosen or not.
    pub(crate) why: String,
}
