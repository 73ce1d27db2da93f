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

/// Where the program that tells what NVIDIA's driver knows is installed. It is run by its whole
/// path: what else has its name and is found first is not.
const DRIVERS: [&str; 5] = [
    "/usr/bin/nvidia-smi",
    "/usr/sbin/nvidia-smi",
    "/usr/local/bin/nvidia-smi",
    "/opt/bin/nvidia-smi",
    "/run/current-system/sw/bin/nvidia-smi",
];

/// Reads a machine: this one, or one whose files stand under another root.
#[derive(Clone, Debug)]
pub struct Probe {
    root: Root,
    /// Which kernels the engine uses.
    kernels: String,
    /// Where the program that tells what NVIDIA's driver knows may be.
    drivers: Vec<PathBuf>,
}

impl Probe {
    /// The machine that this program runs on.
    pub fn here(kernels: &str) -> Self {
        let drivers = DRIVERS.map(PathBuf::from).into();
        Self { root: Root::system(), kernels: kernels.to_owned(), drivers }
    }

    /// A machine whose `/proc` and `/sys` stand in a directory.
    #[cfg(test)]
    pub(crate) fn under(root: &std::path::Path, driver: Option<PathBuf>) -> Self {
        let drivers = driver.into_iter().collect();
        Self { root: Root::under(root), kernels: "scalar".to_owned(), drivers }
    }

    /// What does not change; takes up to a few seconds where a driver is asked.
    pub fn hardware(&self) -> Hardware {
        let cores = cores::read(&self.root);
        let driver = self.drivers.iter().find(|path| path.is_file());
        let mut cards = cards::read(&self.root, driver.map(PathBuf::as_path));
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

    /// Bytes of memory that there are for this process, as in [`Self::hardware`]; takes no time.
    pub fn memory(&self) -> Option<u64> {
        memory::read(&self.root).total
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
