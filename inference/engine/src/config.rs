//! What an engine may use: threads, device, batch, queue, memory.
//!
//! Owns the values and their defaults. Reading configuration files belongs to the node.

use selvedge_kernels::Isa;

use crate::kept::Keeping;
use crate::onnx::Running;
use crate::renderer::Rendering;

/// Where tensors live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device of this index; needs the `cuda` feature.
    Cuda(usize),
    /// The Metal device of this index; needs the `metal` feature.
    Metal(usize),
}

/// What an engine may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Threads that compute; 0 = as many as the machine has cores.
    pub threads: usize,
    /// Where tensors live.
    pub device: Device,
    /// Sequences of one model computed together.
    pub max_batch: usize,
    /// Requests of one model that may wait for a place.
    pub max_queue: usize,
    /// Bytes for weights and key/value caches of all models together.
    pub memory_budget_bytes: u64,
    /// Load a model at its first request instead of when it is added.
    pub lazy: bool,
    /// Whether tokens are computed that an answer is likely to say next, where it repeats what was
    /// said. No answer depends on it. What is remembered for it, up to 2 MB of each answer that
    /// runs, comes on top of the memory above.
    pub speculation: bool,
    /// Names of models that are never unloaded to make room for others; `*` means all.
    pub keep_loaded: Vec<String>,
    /// Where the packed weights of language models are kept for later loads; `None` keeps none.
    pub keeping: Option<Keeping>,
    /// Where chat templates are rendered.
    pub rendering: Rendering,
    /// Where ONNX models run.
    pub running: Running,
}

/// Bytes for models where nobody says how many, at most: fits the default model with every sequence
/// at a long context.
const MOST_UNSAID: u64 = 4 << 30;

impl EngineConfig {
    /// Bytes for models where nobody says how many, of so much memory if that is known: half of it
    /// at most, since the other half has the system, what else runs, and the files that it keeps
    /// near.
    pub const fn usual_budget(memory: Option<u64>) -> u64 {
        match memory {
            Some(memory) if memory / 2 < MOST_UNSAID => memory / 2,
            Some(_) | None => MOST_UNSAID,
        }
    }

    /// What language models are computed with here, as people call it: the fastest kernels that
    /// this processor has, or a card.
    pub fn kernels(&self) -> &'static str {
        match self.device {
            Device::Cpu => Isa::detect().name(),
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            device: Device::Cpu,
            // Past 16 sequences a step on a small machine is bound by arithmetic, so more would
            // only slow every answer down.
            max_batch: 16,
            // Four full batches: at 64 tokens/s per batch more would wait for minutes.
            max_queue: 64,
            memory_budget_bytes: Self::usual_budget(None),
            lazy: false,
            // What it wins and loses on real texts is not measured yet.
            speculation: false,
            keep_loaded: Vec::new(),
            // Where, only a node knows.
            keeping: None,
            rendering: Rendering::Here,
            running: Running::Here,
        }
    }
}

impl EngineConfig {
    /// Whether a model is never unloaded to make room for others.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        self.keep_loaded.iter().any(|kept| kept == "*" || kept == name)
    }

    /// Threads that compute, with 0 resolved.
    pub(crate) fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            // Beyond this a small model's step is all synchronisation.
            threads => threads.min(64),
        }
    }
}
