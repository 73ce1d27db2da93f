//! What a model makes of examples without labels: a probability for each class, and the class.
//!
//! Owns the forward pass of a model that answers, in pieces of bounded memory. Takes as long as the
//! examples say: it is called on threads that may block, and asks between pieces whether anybody
//! still wants the answer.

use crate::model::FILTER;
use crate::net::{Net, likeliest, softmax};
use crate::{Layer, Local, Model, Shape, TrainError};

/// Examples computed at once: their hidden values fit the second-level cache of small machines.
const BATCH: usize = 256;
/// Values of a layer that are in memory at once, 16 MiB of f32: a convolution of a large image is
/// computed from a copy of each neighbourhood, 25 values for one.
const AT_ONCE: usize = 1 << 22;
/// The largest value of an example: far beyond any measured one, and a dozen layers of a thousand
/// such values are still numbers.
const MAX_VALUE: f32 = 1e12;

/// A model that answers: its layers and weights do not change any more.
pub struct Classifier {
    net: Net,
    width: usize,
    classes: usize,
    /// Examples computed at once.
    batch: usize,
}

/// What was found, example after example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classified {
    /// A probability for each class of each example.
    pub probabilities: Vec<f32>,
    /// The class of each example: the place of its greatest score, the first one of equals.
    pub classes: Vec<u32>,
}

impl Classifier {
    /// A model with these weights.
    ///
    /// # Errors
    /// [`TrainError::Model`] for one that cannot be built or has other weights.
    pub fn new(model: &Model, weights: &[f32]) -> Result<Self, TrainError> {
        let width = model.schema.check()?;
        let batch = (AT_ONCE / widest(model, width)).clamp(1, BATCH);
        let net = Net::new(model, weights)?;
        Ok(Self { net, width, classes: model.schema.classes, batch })
    }

    /// Numbers in one example.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Classes that it tells apart.
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// What it makes of examples, which lie one after the other. The same examples in the same
    /// order give the same numbers on every processor of one kind. Nothing once `go_on` says no.
    ///
    /// # Errors
    /// [`TrainError::Schema`] for values that are no whole examples, [`TrainError::Unclear`] for
    /// an example whose probabilities are no numbers.
    pub fn classify(
        &self,
        local: &Local,
        values: &[f32],
        go_on: impl Fn() -> bool + Send + Sync,
    ) -> Result<Option<Classified>, TrainError> {
        if !values.len().is_multiple_of(self.width) {
            return Err(TrainError::Schema(format!(
                "{} values are no whole examples of {}",
                values.len(),
                self.width
            )));
        }
        local.run(|| self.on_this_thread(values, &go_on))
    }

    fn on_this_thread(
        &self,
        values: &[f32],
        go_on: &(impl Fn() -> bool + Sync),
    ) -> Result<Option<Classified>, TrainError> {
        // Beyond it sums leave the numbers within the net, where ReLU makes zeros of what is none.
        if let Some(at) = values.iter().position(|value| value.abs() > MAX_VALUE) {
            return Err(TrainError::Unclear { example: at / self.width });
        }
        let mut found = Classified::default();
        let mut room = self.net.room(self.batch.min(values.len() / self.width));
        for piece in values.chunks(self.batch * self.width) {
            if !go_on() {
                return Ok(None);
            }
            for scores in self.net.scores(piece, &mut room)?.chunks_exact(self.classes) {
                found.classes.push(likeliest(scores));
                let from = found.probabilities.len();
                found.probabilities.resize(from + self.classes, 0.0);
                softmax(scores, &mut found.probabilities[from..]);
            }
        }
        match found.probabilities.iter().position(|share| !share.is_finite()) {
            Some(at) => Err(TrainError::Unclear { example: at / self.classes }),
            None => Ok(Some(found)),
        }
    }
}

/// The most values that one example takes in any layer.
fn widest(model: &Model, width: usize) -> usize {
    let mut widest = width.max(model.schema.classes);
    let mut image = match model.schema.shape {
        Shape::Image { channels, height, width } => (channels, height, width),
        Shape::Flat(_) => (0, 0, 0),
    };
    for layer in &model.hidden {
        let values = match *layer {
            Layer::Dense(units) => units,
            Layer::Convolution(filters) => {
                let (channels, height, width) = image;
                image = (filters, height / 2, width / 2);
                let each = channels.saturating_mul(FILTER * FILTER).saturating_add(filters);
                height.saturating_mul(width).saturating_mul(each)
            }
        };
        widest = widest.max(values);
    }
    widest.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;

    fn images() -> Model {
        let shape = Shape::Image { channels: 1, height: 6, width: 6 };
        let hidden = vec![Layer::Convolution(3), Layer::Dense(7)];
        Model { schema: Schema { shape, classes: 4 }, hidden }
    }

    /// Values between 0 and 1, all different.
    fn values(count: usize) -> Vec<f32> {
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^24")]
        let value = |at: usize| (at * 31 % 97) as f32 / 97.0;
        (0..count).map(value).collect()
    }

    /// A linear model, by hand: softmax of the scores, and the place of the greatest.
    #[test]
    fn probabilities_are_the_softmax_of_the_scores() -> Result<(), TrainError> {
        let schema = Schema { shape: Shape::Flat(2), classes: 3 };
        let model = Model { schema, hidden: vec![] };
        let weights = [1.0, 0.0, 0.0, 2.0, -1.0, -1.0, 0.5, 0.0, 0.0];
        let classifier = Classifier::new(&model, &weights)?;
        let found = classifier.classify(&Local::new()?, &[1.0, 3.0, 2.0, 0.0], || true)?;
        let found = found.unwrap_or_default();
        assert_eq!(found.classes, [1, 0]);
        for (row, scores) in [[1.5_f32, 6.0, -4.0], [2.5, 0.0, -2.0]].iter().enumerate() {
            let total: f32 = scores.iter().map(|score| score.exp()).sum();
            for (class, score) in scores.iter().enumerate() {
                let got = found.probabilities[row * 3 + class];
                assert!((got - score.exp() / total).abs() < 1e-6, "{row} {class} {got}");
            }
        }
        Ok(())
    }

    #[test]
    fn equal_examples_give_equal_numbers_and_pieces_change_no_class() -> Result<(), TrainError> {
        let model = images();
        let weights = model.first(3)?;
        let local = Local::new()?;
        let mut classifier = Classifier::new(&model, &weights)?;
        let values = values(36 * 300);
        let once = classifier.classify(&local, &values, || true)?.unwrap_or_default();
        assert_eq!((once.classes.len(), once.probabilities.len()), (300, 1_200));
        let again = Classifier::new(&model, &weights)?.classify(&local, &values, || true)?;
        assert_eq!(again, Some(once.clone()));
        for row in once.probabilities.chunks(4) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
        }
        classifier.batch = 1;
        let alone = classifier.classify(&local, &values, || true)?.unwrap_or_default();
        assert_eq!(alone.classes, once.classes);
        for (alone, once) in alone.probabilities.iter().zip(&once.probabilities) {
            assert!((alone - once).abs() < 1e-5, "{alone} {once}");
        }
        Ok(())
    }

    #[test]
    fn what_cannot_be_told_is_said_and_what_nobody_wants_is_left() -> Result<(), TrainError> {
        let (model, local) = (images(), Local::new()?);
        let classifier = Classifier::new(&model, &model.first(3)?)?;
        assert_eq!((classifier.width(), classifier.classes()), (36, 4));
        assert!(classifier.classify(&local, &values(35), || true).is_err());
        let mut huge = values(36 * 3);
        huge[40..72].fill(f32::MAX);
        let told = classifier.classify(&local, &huge, || true).err().map(|e| e.to_string());
        assert!(told.clone().unwrap_or_default().contains("example 1"), "{told:?}");
        assert_eq!(classifier.classify(&local, &values(36), || false)?, None);
        assert!(Classifier::new(&model, &[0.0; 9]).is_err());
        Ok(())
    }

    #[test]
    fn large_images_are_computed_in_small_pieces() -> Result<(), TrainError> {
        let shape = Shape::Image { channels: 3, height: 224, width: 224 };
        let schema = Schema { shape, classes: 2 };
        let model = Model { schema, hidden: vec![Layer::Convolution(8); 5] };
        let classifier = Classifier::new(&model, &model.first(1)?)?;
        assert_eq!(classifier.batch, 1, "one takes 4 million values");
        assert_eq!(Classifier::new(&images(), &images().first(1)?)?.batch, 256);
        Ok(())
    }
}
