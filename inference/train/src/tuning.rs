//! What of a language model is tuned: small matrices beside frozen ones.
//!
//! Owns the places of the matrices, their order as one flat vector, and the draw of the half that
//! is never learned. In LoRA (Hu et al. 2022, arXiv 2106.09685) a projection W gets
//! alpha / rank · B · A beside it; here A is drawn once and stays, and only B is learned (FFA-LoRA,
//! Sun et al. 2024, arXiv 2403.12313). So a mean of updates is the update of the mean, which it is
//! not where both are learned. The flat order is a format: rounds, stored models and hash chains
//! rely on it.

use rand_chacha::rand_core::Rng as _;
use selvedge_base::ModelDigest;
use selvedge_engine::{Projection, TunableShape, TunedModel, TunedPart};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::model::MAX_PARAMETERS;
use crate::random::{Purpose, stream};

/// The greatest rank: of the paper's own, those beyond 8 add nothing to tell.
const MAX_RANK: usize = 16;
/// The greatest alpha: steps of such additions jump over everything.
const MAX_ALPHA: usize = 256;
/// Tokens of a window. With fewer there is little to learn from. The values that gradients need
/// take 650 MB at 128 tokens in a model of thirty layers, and grow faster than the window.
const WINDOWS: std::ops::RangeInclusive<usize> = 16..=256;
/// Matrices that are added to: all seven of 128 layers fit.
const MAX_PLACES: usize = 1_024;
/// Numbers of all A together: four times those of the B.
pub(crate) const MAX_FROZEN: usize = 4 * MAX_PARAMETERS;
/// A side of a matrix: what the engine has as the widest.
const MAX_SIDE: usize = 1 << 18;
/// Letters of the base model's name, as of any name of a model.
const MAX_NAME: usize = 128;

/// A projection that is tuned, by the name that the field uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// What attention hands on.
    O,
    /// The gate of the feed-forward layer.
    Gate,
    /// What the gate lets through.
    Up,
    /// Back to the model's width.
    Down,
}

/// Sides of the base model's matrices, as its file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseShape {
    /// Layers.
    pub layers: usize,
    /// The model's width.
    pub width: usize,
    /// Numbers of all queries of a token.
    pub queries: usize,
    /// Numbers of all keys, and of all values.
    pub keys: usize,
    /// Width of the feed-forward layer.
    pub feed_forward: usize,
}

/// How a language model is tuned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// What people call the base model.
    pub base: String,
    /// The digest of its file: the same additions to other weights are another model.
    pub digest: [u8; 32],
    /// Its matrices.
    pub shape: BaseShape,
    /// Rows of an A, columns of a B.
    pub rank: usize,
    /// What is added is alpha / rank · B · A.
    pub alpha: usize,
    /// What is added to in every layer, in order.
    pub targets: Vec<Target>,
    /// Tokens of one example.
    pub window: usize,
    /// Every A is drawn from this.
    pub seed: u64,
}

/// One matrix that is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) layer: usize,
    pub(crate) target: Target,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

impl Target {
    /// The projection in the engine's words.
    pub(crate) const fn projection(self) -> Projection {
        match self {
            Self::Q => Projection::Query,
            Self::K => Projection::Key,
            Self::V => Projection::Value,
            Self::O => Projection::Output,
            Self::Gate => Projection::Gate,
            Self::Up => Projection::Up,
            Self::Down => Projection::Down,
        }
    }

    /// The module's name in a layer, as PEFT and the models' own code have it.
    pub(crate) const fn module(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }
}

impl From<TunableShape> for BaseShape {
    fn from(shape: TunableShape) -> Self {
        let TunableShape { layers, width, queries, keys, feed_forward, .. } = shape;
        Self { layers, width, queries, keys, feed_forward }
    }
}

impl BaseShape {
    /// Outputs and inputs.
    const fn sides(&self, target: Target) -> (usize, usize) {
        let Self { layers, width, queries, keys, feed_forward } = *self;
        let (context, vocabulary) = (0, 0);
        let shape =
            TunableShape { layers, width, queries, keys, feed_forward, context, vocabulary };
        target.projection().sides(&shape)
    }
}

impl Tuning {
    /// What is added to, in the flat order: layer after layer, in each the targets in order.
    pub(crate) fn places(&self) -> Result<Vec<Place>, TrainError> {
        self.check()?;
        let mut places = Vec::new();
        for layer in 0..self.shape.layers {
            for &target in &self.targets {
                let (outputs, inputs) = self.shape.sides(target);
                places.push(Place { layer, target, outputs, inputs });
            }
        }
        Ok(places)
    }

    fn check(&self) -> Result<(), TrainError> {
        let wrong = |said: String| Err(TrainError::Model(said));
        let BaseShape { layers, width, queries, keys, feed_forward } = self.shape;
        if self.base.is_empty() || self.base.chars().count() > MAX_NAME {
            return wrong(format!("a base model's name has 1 to {MAX_NAME} letters"));
        }
        if self.rank == 0 || self.rank > MAX_RANK {
            return wrong(format!("a rank of {}; it is 1 to {MAX_RANK}", self.rank));
        }
        if self.alpha == 0 || self.alpha > MAX_ALPHA {
            return wrong(format!("an alpha of {}; it is 1 to {MAX_ALPHA}", self.alpha));
        }
        if !WINDOWS.contains(&self.window) {
            let (least, most) = WINDOWS.into_inner();
            return wrong(format!(
                "windows of {} tokens; they have {least} to {most}",
                self.window
            ));
        }
        if self.targets.is_empty() || !self.targets.is_sorted_by(|a, b| a < b) {
            return wrong("targets are some of q, k, v, o, gate, up, down, each once".to_owned());
        }
        if [width, queries, keys, feed_forward].iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
            return wrong(format!("matrices of {:?}", self.shape));
        }
        let places = layers.saturating_mul(self.targets.len());
        if places == 0 || places > MAX_PLACES {
            return wrong(format!("{places} matrices are added to; 1 to {MAX_PLACES} can be"));
        }
        let all = |side: fn((usize, usize)) -> usize| {
            let sides = self.targets.iter().map(|target| side(self.shape.sides(*target)));
            layers * self.rank * sides.sum::<usize>()
        };
        let (learned, frozen) = (all(|sides| sides.0), all(|sides| sides.1));
        let limits = [("learned", learned, MAX_PARAMETERS), ("frozen", frozen, MAX_FROZEN)];
        for (kind, found, limit) in limits {
            if found > limit {
                let what = format!("{found} {kind} numbers beside the base model");
                return Err(TrainError::TooLarge { what, limit });
            }
        }
        Ok(())
    }

    /// Numbers in the flat vector: all B, each `[outputs, rank]`, row after row.
    ///
    /// # Errors
    /// [`TrainError`] for what cannot be tuned so.
    pub fn size(&self) -> Result<usize, TrainError> {
        Ok(self.places()?.iter().map(|place| place.outputs * self.rank).sum())
    }

    /// The model of these B as an engine answers by it, under this name and digest.
    ///
    /// # Errors
    /// [`TrainError`] for another number of weights than is learned.
    pub fn version(
        &self,
        name: &str,
        digest: ModelDigest,
        round: u64,
        flat: &[f32],
    ) -> Result<TunedModel, TrainError> {
        let (wanted, found) = (self.size()?, flat.len());
        if found != wanted {
            let said = format!("{wanted} numbers are learned, and {found} were given");
            return Err(TrainError::Model(said));
        }
        let mut rest = flat;
        let parts = self.places()?.into_iter().zip(self.frozen()?).map(|(place, a)| {
            let (b, after) = rest.split_at(place.outputs * self.rank);
            rest = after;
            let (layer, projection) = (place.layer, place.target.projection());
            TunedPart { layer, projection, a, b: b.to_vec() }
        });
        let parts = parts.collect();
        let (name, base) = (name.to_owned(), ModelDigest(self.digest));
        let (rank, scale) = (self.rank, self.scale() as f32);
        Ok(TunedModel { name, base, digest, round, rank, scale, parts })
    }

    /// What B · A is multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        self.alpha as f64 / self.rank as f64
    }

    /// Every A, `[rank, inputs]`, in the flat order. Uniform within one by the root of the inputs,
    /// as PEFT draws them (He et al. 2015 with a slope of the root of five). Of whole numbers, with
    /// one product each, so that it is the same on every processor.
    pub(crate) fn frozen(&self) -> Result<Vec<Vec<f32>>, TrainError> {
        let mut rng = stream(self.seed, Purpose::Weights);
        let half = (1_u32 << 23) as f32;
        let places = self.places()?;
        let draw = |place: &Place| {
            #[allow(clippy::cast_precision_loss, reason = "sides far below 2^24")]
            let bound = 1.0 / (place.inputs as f32).sqrt();
            let mut number = || (((rng.next_u32() >> 8) as f32) - half) / half * bound;
            (0..self.rank * place.inputs).map(|_| number()).collect()
        };
        Ok(places.iter().map(draw).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the default model is tuned unless told otherwise.
    pub(crate) fn usual() -> Tuning {
        Tuning {
            base: "smollm2-135m-instruct".to_owned(),
            digest: [7; 32],
            shape: BaseShape {
                layers: 30,
                width: 576,
                queries: 576,
                keys: 192,
                feed_forward: 1_536,
            },
            rank: 8,
            alpha: 16,
            targets: vec![Target::Q, Target::V],
            window: 128,
            seed: 5,
        }
    }

    #[test]
    fn the_flat_vector_is_every_b_layer_after_layer() -> Result<(), TrainError> {
        let usual = usual();
        assert_eq!(usual.size()?, 30 * 8 * (576 + 192));
        let places = usual.places()?;
        assert_eq!((places[0].target, places[1].target), (Target::Q, Target::V));
        assert_eq!((places[1].outputs, places[1].inputs, places[2].layer), (192, 576, 1));
        let down = Tuning { targets: vec![Target::Down], ..usual };
        assert_eq!((down.places()?[0].outputs, down.places()?[0].inputs), (576, 1_536));
        Ok(())
    }

    /// Pinned: whoever draws others makes another model of the same B.
    #[test]
    fn what_is_frozen_is_the_same_everywhere() -> Result<(), TrainError> {
        let frozen = usual().frozen()?;
        assert_eq!(frozen.len(), 60);
        assert!(frozen.iter().all(|a| a.len() == 8 * 576));
        assert_eq!(frozen, usual().frozen()?);
        assert_ne!(frozen, Tuning { seed: 6, ..usual() }.frozen()?);
        let bound = 1.0 / 24.0;
        assert!(frozen[0].iter().all(|number| number.abs() <= bound));
        let square = frozen[0].iter().map(|number| number * number).sum::<f32>() / 4_608.0;
        assert!((square * 3.0 / (bound * bound) - 1.0).abs() < 0.05, "{square}");
        Ok(())
    }

    #[test]
    fn what_cannot_be_tuned_is_said() {
        let said = |spoil: &dyn Fn(&mut Tuning)| {
            let mut tuning = usual();
            spoil(&mut tuning);
            tuning.size().err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(said(&|_| ()), "");
        assert!(said(&|tuning| tuning.rank = 17).contains("1 to 16"));
        assert!(said(&|tuning| tuning.alpha = 0).contains("1 to 256"));
        assert!(said(&|tuning| tuning.window = 4).contains("16 to 256"));
        assert!(said(&|tuning| tuning.targets.clear()).contains("q, k, v"));
        assert!(said(&|tuning| tuning.targets = vec![Target::V, Target::Q]).contains("each once"));
        assert!(said(&|tuning| tuning.shape.layers = usize::MAX).contains("matrices"));
        assert!(said(&|tuning| tuning.shape.width = 0).contains("matrices"));
        assert!(said(&|tuning| tuning.shape.keys = 1 << 17).contains("learned numbers"));
        assert!(said(&|tuning| tuning.base.clear()).contains("name"));
    }
}
