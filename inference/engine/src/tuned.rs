//! Models that are another model of this engine with low-rank additions beside its matrices.
//!
//! Owns which there are, their versions and the memory of what they add. A version answers by its
//! base's weights, which are in memory once, in one batch with all that is asked of the base; so
//! what is said of a base's state is said of it. A request keeps the version it was given to; the
//! one before the newest is kept for those that are on their way. What is learned, and when a
//! version is a new one, is decided elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_base::ModelDigest;
use selvedge_kernels::{Additions, Part};

use crate::card::Shape;
use crate::decoder::{Projection, TunableShape};
use crate::error::EngineError;
use crate::family::Architecture;
use crate::gguf::Gguf;
use crate::memory::Reservation;
use crate::shared::Shared;

/// Tuned models that are kept: several times as many as jobs run at a node.
const MAX_TUNED: usize = 64;
/// Versions of one that answer: the newest, and the one that a peer may still take for it.
const VERSIONS: usize = 2;

/// One version of a tuned model.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedModel {
    /// The name people use.
    pub name: String,
    /// The file that it adds to.
    pub base: ModelDigest,
    /// Names this version, as a file's digest names the file: same base and same numbers.
    pub digest: ModelDigest,
    /// The rounds it was tuned in; grows from version to version.
    pub round: u64,
    /// Rows of every A.
    pub rank: usize,
    /// What every B · A is multiplied by.
    pub scale: f32,
    /// What is added.
    pub parts: Vec<TunedPart>,
}

/// What is added to one projection. Rows are in the order of the model, not of its file.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedPart {
    /// The layer.
    pub layer: usize,
    /// Which matrix of it.
    pub projection: Projection,
    /// `[rank, inputs]`, row by row.
    pub a: Vec<f32>,
    /// `[outputs, rank]`, row by row.
    pub b: Vec<f32>,
}

/// A version in memory.
pub(crate) struct Tuned {
    pub(crate) name: String,
    pub(crate) base: ModelDigest,
    pub(crate) digest: ModelDigest,
    pub(crate) round: u64,
    pub(crate) additions: Additions,
    /// The memory it takes; given back after it.
    #[expect(dead_code, reason = "held for what its end does")]
    reservation: Reservation,
}

/// All versions of all tuned models, the newest of each last.
#[derive(Default)]
pub(crate) struct Versions(BTreeMap<String, Vec<Arc<Tuned>>>);

impl Versions {
    /// The version of this digest.
    pub(crate) fn find(&self, digest: ModelDigest) -> Option<Arc<Tuned>> {
        self.0.values().flatten().find(|tuned| tuned.digest == digest).map(Arc::clone)
    }

    /// The newest version of each.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Arc<Tuned>> {
        self.0.values().filter_map(|versions| versions.last())
    }

    /// Whether there may be a version of this name.
    pub(crate) fn has_room(&self, name: &str) -> Result<(), EngineError> {
        if self.0.len() >= MAX_TUNED && !self.0.contains_key(name) {
            return Err(EngineError::TooManyModels(MAX_TUNED));
        }
        Ok(())
    }

    /// Puts a version in the place of the ones before.
    pub(crate) fn put(&mut self, tuned: Tuned) -> Result<(), EngineError> {
        self.has_room(&tuned.name)?;
        let versions = self.0.entry(tuned.name.clone()).or_default();
        versions.retain(|known| known.digest != tuned.digest);
        versions.push(Arc::new(tuned));
        let over = versions.len().saturating_sub(VERSIONS);
        versions.drain(..over);
        Ok(())
    }

    /// Forgets all versions of one; what runs goes on. Whether there was one.
    pub(crate) fn take(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }
}

impl Tuned {
    /// Packs a version for the model of a file.
    pub(crate) fn pack(
        shared: &Arc<Shared>,
        gguf: &Gguf,
        model: TunedModel,
    ) -> Result<Self, EngineError> {
        let shape = Shape::read(gguf)?;
        let sides = TunableShape::of(&shape);
        let mut additions = Additions::new(shape.layers);
        for part in &model.parts {
            let TunedPart { layer, projection, a, b } = part;
            let (outputs, inputs) = projection.sides(&sides);
            let fits = |side: usize, numbers: &[f32]| {
                side.checked_mul(model.rank).is_some_and(|count| count == numbers.len())
            };
            if !fits(outputs, b) || !fits(inputs, a) {
                let message = format!("layer {layer} has no {projection:?} of these sides");
                return Err(EngineError::Unsupported(message));
            }
            let heads = match (shape.architecture, projection) {
                (Architecture::Llama, Projection::Query) => Some(shape.heads),
                (Architecture::Llama, Projection::Key) => Some(shape.kv_heads),
                _ => None,
            };
            let paired = heads.map(|heads| paired(b, outputs / heads, model.rank));
            let b = paired.as_deref().unwrap_or(b);
            additions.add((*layer, part_of(*projection)), model.rank, (a, b), model.scale)?;
        }
        let TunedModel { name, base, digest, round, .. } = model;
        let reservation = shared.make_room_beside((digest, base), &name, additions.bytes())?;
        // Pages that are kept for prompts to come may be in what was set aside.
        shared.worker.nudge();
        Ok(Self { name, base, digest, round, additions, reservation })
    }
}

/// Rows of the model in the order of llama's files, where the two numbers of a head that turn
/// together are side by side: in the model they are half a head apart.
fn paired(rows: &[f32], head: usize, rank: usize) -> Vec<f32> {
    let mut file = Vec::with_capacity(rows.len());
    for rows in rows.chunks_exact(head * rank) {
        for pair in 0..head / 2 {
            for row in [pair, head / 2 + pair] {
                file.extend_from_slice(&rows[row * rank..(row + 1) * rank]);
            }
        }
    }
    file
}

const fn part_of(projection: Projection) -> Part {
    match projection {
        Projection::Query => Part::Query,
        Projection::Key => Part::Key,
        Projection::Value => Part::Value,
        Projection::Output => Part::Output,
        Projection::Gate => Part::Gate,
        Projection::Up => Part::Up,
        Projection::Down => Part::Down,
    }
}
