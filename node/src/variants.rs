//! Models of which a node has several files: which one it serves, and why.
//!
//! Owns finding the files and what the machine has for them. The choice itself is
//! `selvedge_contract::variants`'. What an operator lists is trusted to be the same model in more or
//! fewer bits.

use std::path::{Path, PathBuf};

use anyhow::Result;
use selvedge_contract::variants::{Chosen, Fate, Place, Variant, choose};
use selvedge_contract::{Condition, Hardware};
use selvedge_engine::{Device, EngineConfig, needs};
use selvedge_runtime::{Probe, read_rate};

use crate::config::{Config, VariantsConfig};
use crate::http::wire;
use crate::pull::{Source, Store, check_name};

/// Of a file that is not here, what its weights take when loaded, as a share of the file in
/// hundredths: kernels keep scales beside what the file has.
const UNSEEN_HELD: u64 = 115;
/// ... and what answers take beside them, in hundredths of the file.
const UNSEEN_ANSWERS: u64 = 15;
/// Types by what their names begin with, and the tenths of a bit of a weight in a file of them.
const TYPES: [(&str, u64); 12] = [
    ("F32", 320),
    ("BF16", 160),
    ("F16", 160),
    ("Q8_0", 85),
    ("Q6_K", 66),
    ("Q5_", 57),
    ("Q4_K", 48),
    ("Q4_1", 50),
    ("Q4_0", 45),
    ("IQ4", 45),
    ("Q3_K", 39),
    ("Q2_K", 30),
];

/// A model with several files, and which of them suits this machine.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) name: String,
    /// As they were listed.
    pub(crate) files: Vec<Found>,
    pub(crate) chosen: Chosen,
}

/// One of the files.
#[derive(Debug)]
pub(crate) struct Found {
    /// As it was listed.
    pub(crate) listed: String,
    /// Where it is, if it is here.
    pub(crate) path: Option<PathBuf>,
    /// The name of the model in the home that it is, if it is one.
    pub(crate) stored: Option<String>,
    /// Why it cannot be used, beyond what the choice says.
    trouble: Option<String>,
    variant: Variant,
}

/// What the machine has for models.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    hardware: Hardware,
    condition: Condition,
    engine: EngineConfig,
    /// Bytes of memory read in a second.
    bandwidth: u64,
}

impl Means {
    /// Those of this machine. Takes some tenths of a second.
    pub(crate) fn here(config: &Config) -> Self {
        let probe = Probe::here(config.engine.kernels());
        let (hardware, condition) = (probe.hardware(), probe.condition());
        let engine = config.engine.clone();
        let threads = match (engine.threads, hardware.logical_cores) {
            (0, Some(cores)) => usize::try_from(cores).unwrap_or(1),
            (0, None) => 1,
            (threads, _) => threads,
        };
        let bandwidth = if engine.device == Device::Cpu { read_rate(threads) } else { 0 };
        Self { hardware, condition, engine, bandwidth }
    }

    /// What is left for one model beside others that take so much.
    fn place(&self, taken: u64, wanted_rate: u32, may_fetch: bool) -> Place {
        let on_card = self.on_card();
        let free = match on_card {
            true => self.hardware.cards.iter().filter_map(|card| card.memory).max(),
            false => self.condition.memory_available,
        };
        let budget = self.engine.memory_budget_bytes;
        let (memory, bound) = match free {
            Some(free) if free < budget && on_card => (free, "the card's memory"),
            Some(free) if free < budget => (free, "the memory that is free"),
            Some(_) | None => (budget, "engine.memory_budget_bytes"),
        };
        let threads = u32::try_from(self.engine.threads).unwrap_or(u32::MAX);
        let usable = self.hardware.usable_millicores.unwrap_or(0);
        let millicores = match threads {
            0 => usable,
            threads if usable == 0 => threads.saturating_mul(1_000),
            threads => usable.min(threads.saturating_mul(1_000)),
        };
        Place {
            memory: memory.saturating_sub(taken),
            bound: bound.to_owned(),
            kernels: self.engine.kernels().to_owned(),
            millicores,
            bandwidth: self.bandwidth,
            wanted_rate,
            may_fetch,
        }
    }

    fn on_card(&self) -> bool {
        self.engine.device != Device::Cpu
    }
}

/// Decides for all models in the order of the configuration; what was chosen for one is not free
/// for the next.
pub(crate) fn decide(store: &Store, wanted: &[VariantsConfig], means: &Means) -> Vec<Decided> {
    let mut taken = 0u64;
    let each = wanted.iter().map(|one| {
        let decided = decide_one(store, one, means, taken, false);
        let needs = decided.file().map_or(0, |found| found.variant.needs());
        taken = taken.saturating_add(needs);
        decided
    });
    each.collect()
}

/// Decides for one model; `may_fetch`: also among files that are not here and whose size is known.
pub(crate) fn decide_one(
    store: &Store,
    wanted: &VariantsConfig,
    means: &Means,
    taken: u64,
    may_fetch: bool,
) -> Decided {
    let find = |(listed, bytes): &(String, Option<u64>)| find(store, listed, *bytes, means);
    let files: Vec<Found> = wanted.files.iter().map(find).collect();
    // What cannot be used is out of the choice, as if it were not here.
    let variants: Vec<Variant> = files.iter().map(|found| found.variant.clone()).collect();
    let place = means.place(taken, wanted.wanted_rate, may_fetch);
    let chosen = choose(&place, &variants);
    Decided { name: wanted.name.clone(), files, chosen }
}

impl Decided {
    /// The file that was chosen.
    pub(crate) fn file(&self) -> Option<&Found> {
        self.files.get(self.chosen.at?)
    }

    /// As the admin API says it.
    pub(crate) fn told(&self) -> wire::VariantChoice {
        let fates = self.files.iter().zip(&self.chosen.fates).map(|(found, fate)| {
            let why = match (&found.trouble, fate) {
                (Some(trouble), _) => trouble.clone(),
                (None, Fate::Absent) => format!(
                    "not here; fetch what suits this machine best with `selvedge models pull {}`",
                    self.name
                ),
                (None, fate) => fate.to_string(),
            };
            wire::VariantFate { variant: found.listed.clone(), why }
        });
        wire::VariantChoice {
            name: self.name.clone(),
            chosen: self.file().map(|found| found.listed.clone()),
            reason: self.chosen.reason.clone(),
            variants: fates.collect(),
        }
    }
}

/// For people, a line for the model and one for each file that was not chosen.
pub(crate) fn lines(told: &wire::VariantChoice) -> Vec<String> {
    let (name, reason) = (&told.name, &told.reason);
    let first = match &told.chosen {
        Some(chosen) => format!("{name} is {chosen}: {reason}"),
        None => format!("{name} is not served: {reason}"),
    };
    let chosen = told.chosen.as_deref();
    let others = told.variants.iter().filter(|one| chosen != Some(one.variant.as_str()));
    let others = others.map(|one| format!("  {}: {}", one.variant, one.why));
    std::iter::once(first).chain(others).collect()
}

fn find(store: &Store, listed: &str, bytes: Option<u64>, means: &Means) -> Found {
    let absent = |trouble: Option<String>| Found {
        listed: listed.to_owned(),
        path: None,
        stored: None,
        variant: unseen(listed, bytes),
        trouble,
    };
    let (path, stored) = match place_of(store, listed) {
        Ok(Some(found)) => found,
        Ok(None) if bytes.is_none() => {
            return absent(Some("not here, and its 'bytes' are not said".to_owned()));
        }
        Ok(None) => return absent(None),
        Err(error) => return absent(Some(format!("{error:#}"))),
    };
    let needs = match needs(&path, means.on_card()) {
        Ok(needs) => needs,
        Err(error) => {
            let found = absent(Some(error.to_string()));
            // It is here, so it is not to be fetched either.
            let variant = Variant { held_bytes: u64::MAX, ..found.variant };
            return Found { path: Some(path), stored, variant, ..found };
        }
    };
    let variant = Variant {
        name: listed.to_owned(),
        quantization: needs.facts.quantization.clone(),
        weights: needs.facts.parameters,
        file_bytes: needs.facts.bytes,
        held_bytes: needs.held_bytes,
        answer_bytes: needs.answer_bytes,
        present: true,
    };
    Found { listed: listed.to_owned(), path: Some(path), stored, trouble: None, variant }
}

/// Where a file is, and its name in the home; none where it is not here.
fn place_of(store: &Store, listed: &str) -> Result<Option<(PathBuf, Option<String>)>> {
    let stored = |name: &str| -> Result<Option<(PathBuf, Option<String>)>> {
        let found = if check_name(name).is_ok() { store.find(name)? } else { None };
        Ok(found.map(|model| (model.path, Some(model.name))))
    };
    if let Some(found) = stored(listed)? {
        return Ok(Some(found));
    }
    if is_path(listed) {
        let path = std::path::absolute(listed)?;
        return Ok(path.exists().then_some((path, None)));
    }
    match listed.parse::<Source>() {
        Ok(source) => stored(&source.default_name()),
        // A name that is neither here nor built in.
        Err(_) => Ok(None),
    }
}

fn is_path(listed: &str) -> bool {
    let is_source = ["hf:", "pip:", "http://", "https://"].iter().any(|s| listed.starts_with(s));
    !is_source
        && (listed.contains('/') || Path::new(listed).extension().is_some_and(|e| e == "gguf"))
}

/// What a file that is not here would take, by its size and the type in its name.
fn unseen(listed: &str, bytes: Option<u64>) -> Variant {
    let upper = listed.to_uppercase();
    let named = TYPES.iter().find(|(name, _)| upper.contains(name));
    let (quantization, tenths) =
        named.map_or(("of unknown type", 45), |(name, bits)| (*name, *bits));
    // Without a size it is out of every choice.
    let file_bytes = bytes.unwrap_or(u64::MAX);
    let weights = u128::from(file_bytes) * 80 / u128::from(tenths);
    let weights = u64::try_from(weights).unwrap_or(u64::MAX);
    // Floats are kept in some nine bits.
    let kept = file_bytes.min(weights.saturating_mul(9) / 8);
    Variant {
        name: listed.to_owned(),
        quantization: quantization.trim_end_matches('_').to_owned(),
        weights,
        file_bytes,
        held_bytes: (kept / 100).saturating_mul(UNSEEN_HELD),
        answer_bytes: (kept / 100).saturating_mul(UNSEEN_ANSWERS),
        present: false,
    }
}

#[cfg(test)]
#[path = "variants_tests.rs"]
mod tests;
