//! Reading this node's machine, and telling the mesh of it.
//!
//! Owns where each fact stands in the system ([`Probe`]) and what this node and its linked peers
//! have said ([`Machines`]). What a fact may be, and when it has changed enough to be told, is
//! [`selvedge_contract::hardware`]'s; what follows from it is routing's. Facts are read off the
//! request path, never written.

mod cards;
mod cores;
mod files;
mod heat;
mod memory;
mod pace;
mod power;
mod telling;

use std::path::PathBuf;

use selvedge_contract::hardware::{MAX_CARDS, MAX_NAME, clean};
use selvedge_contract::{Condition, Hardware};

pub use pace::read_rate;
pub(crate) use telling::{Machines, child};

use files::Root;

/// Reads a machine: this one, or one whose files stand under another root.
#[derive(Clone, Debug)]
pub struct Probe {
    root: Root,
    /// Which kernels the engine uses.
    kernels: String,
    /// The program that tells what NVIDIA's driver knows.
    driver: Option<PathBuf>,
}

impl Probe {
    /// The machine that this program runs on.
    pub fn here(kernels: &str) -> Self {
        let driver = Some(PathBuf::from("nvidia-smi"));
        Self { root: Root::system(), kernels: kernels.to_owned(), driver }
    }

    /// A machine whose `/proc` and `/sys` stand in a directory.
    #[cfg(test)]
    pub(crate) fn under(root: &std::path::Path, driver: Option<PathBuf>) -> Self {
        Self { root: Root::under(root), kernels: "scalar".to_owned(), driver }
    }

    /// What does not change; takes up to a few seconds where a driver is asked.
    pub fn hardware(&self) -> Hardware {
        let cores = cores::read(&self.root);
        let mut cards = cards::read(&self.root, self.driver.as_deref());
        cards.truncate(MAX_CARDS);
        Hardware {
            os: std::env::consts::OS.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            processor: clean(&cores.model, MAX_NAME),
            kernels: clean(&self.kernels, MAX_NAME),
            features: cores.features,
            physical_cores: cores.physical,
            logical_cores: cores.logical,
            usable_millicores: cores.usable_millicores,
            memory: memory::read(&self.root).total,
            cards,
        }
    }

    /// What changes.
    pub fn condition(&self) -> Condition {
        let (heat, power) = (heat::read(&self.root), power::read(&self.root));
        let now = Condition {
            memory_available: memory::read(&self.root).available,
            temperature: heat.temperature,
            headroom: heat.headroom,
            has_battery: power.has_battery,
            battery_percent: power.percent,
            on_battery: power.on_battery,
        };
        now.possible()
    }
}

#[cfg(test)]
#[path = "hardware/tests.rs"]
mod tests;
