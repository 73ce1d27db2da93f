//! A client's part of a round in which a language model is tuned: windows of its own texts, steps
//! on them, and how well they are foretold.
//!
//! Owns the base model's weights while somebody computes with them, and no longer: between rounds
//! they take no memory. What is tuned is in `tuning`, the steps are `local`'s, the arithmetic the
//! engine's.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use candle_core::{Device, Tensor, Var};
use selvedge_engine::{Additions, Decoder, LowRank, Tunable};

use crate::entropy::{mean_loss, told};
use crate::local::{Learner, Pull, descend};
use crate::source::texts;
use crate::{BaseShape, Control, Local, Plan, Source, TrainError, Tuning, Update};

/// Bytes that are tokenized at once, up to the end of a line: a tokenizer takes some hundred times
/// as much memory as the text.
const PIECE: usize = 64 << 10;

/// Tokens of a node's texts, in windows of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of a window and the one after it.
    stride: usize,
    tokens: Vec<u32>,
}

/// How well texts are foretold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Foretold {
    /// Mean loss of a token, in nats; e to its power is the perplexity.
    pub loss: f64,
    /// Tokens that were the likeliest.
    pub right: usize,
    /// Tokens in all.
    pub tokens: usize,
}

/// A base model, for those who tune it.
pub struct Tuner {
    tuning: Tuning,
    file: Tunable,
    /// The weights, while somebody has them.
    held: Mutex<Weak<Decoder>>,
    /// Whether nobody wants any more what is computed.
    stopped: AtomicBool,
}

impl Windows {
    /// Cuts tokens into windows; what is left over at the end is not learned from.
    fn cut(tokens: &[u32], window: usize) -> Self {
        // The last token of a window is foretold from those before it and begins the next one.
        let starts = (0..tokens.len().saturating_sub(window)).step_by(window);
        let tokens = starts.flat_map(|at| &tokens[at..=at + window]).copied().collect();
        Self { stride: window + 1, tokens }
    }

    /// Windows held.
    pub fn len(&self) -> usize {
        self.tokens.len() / self.stride
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Copies of the windows at these places, in this order.
    pub fn pick(&self, places: &[usize]) -> Self {
        let tokens = places.iter().flat_map(|&at| self.window(at)).copied().collect();
        Self { stride: self.stride, tokens }
    }

    fn window(&self, at: usize) -> &[u32] {
        &self.tokens[at * self.stride..(at + 1) * self.stride]
    }
}

impl Tuner {
    /// A base model's file, for tuning it so: its shape and its tokenizer are those of the file
    /// with the tuning's digest.
    ///
    /// # Errors
    /// [`TrainError`] where the file cannot be read, or is of another model.
    pub fn open(path: &Path, tuning: &Tuning) -> Result<Self, TrainError> {
        tuning.size()?;
        let file = Tunable::open_of(path, &tuning.digest)?;
        let shape = file.shape();
        if tuning.shape != shape.into() {
            return Err(TrainError::Model("its matrices are not those of the file".to_owned()));
        }
        if tuning.window > shape.context {
            let said =
                format!("it attends to {} tokens, which is less than a window", shape.context);
            return Err(TrainError::Model(said));
        }
        Ok(Self {
            tuning: tuning.clone(),
            file,
            held: Mutex::default(),
            stopped: AtomicBool::new(false),
        })
    }

    /// The matrices of a base model's file, as a job that tunes it has to say them.
    ///
    /// # Errors
    /// [`TrainError`] where the file cannot be tuned.
    pub fn shape_of(path: &Path) -> Result<BaseShape, TrainError> {
        Ok(Tunable::open(path)?.shape().into())
    }

    /// Reads a source's texts as windows.
    ///
    /// # Errors
    /// [`TrainError`] where there are none, or not enough for one.
    pub fn read(&self, source: &Source) -> Result<Windows, TrainError> {
        let Source::Text(source) = source else {
            let said = "it holds labelled examples, and the job tunes a language model on text";
            return Err(TrainError::Schema(said.to_owned()));
        };
        let mut tokens = Vec::new();
        for text in texts(source)? {
            for piece in pieces(&text) {
                tokens.extend(self.file.encode(piece)?);
            }
            tokens.extend(self.file.end());
        }
        let windows = Windows::cut(&tokens, self.tuning.window);
        if windows.is_empty() {
            return Err(TrainError::Plan(format!(
                "its texts have {} tokens, and one window takes {}",
                tokens.len(),
                windows.stride
            )));
        }
        Ok(windows)
    }

    /// Trains from `base` on these windows. One of them is computed at a time, whatever the plan's
    /// batch is, so that memory does not grow with it.
    ///
    /// # Errors
    /// [`TrainError`], among others when the numbers go astray.
    pub fn train(
        &self,
        local: &Local,
        base: &[f32],
        data: &Windows,
        plan: &Plan,
        control: Option<Control<'_>>,
    ) -> Result<Update, TrainError> {
        local.run(|| {
            let mut net = Adapted::new(self, base, data)?;
            descend(&mut net, base, data.len(), plan, control)
        })
    }

    /// How well a model with these B foretells texts.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn measure(
        &self,
        local: &Local,
        weights: &[f32],
        data: &Windows,
    ) -> Result<Foretold, TrainError> {
        local.run(|| {
            let net = Adapted::new(self, weights, data)?;
            let mut sum = Foretold { loss: 0.0, right: 0, tokens: 0 };
            for at in 0..data.len() {
                let (logits, next) = net.logits(at)?;
                let width = logits.dim(1)?;
                let numbers = logits.detach().flatten_all()?.to_vec1::<f32>()?;
                for (row, &token) in numbers.chunks_exact(width).zip(next) {
                    let told = told(row, token).ok_or_else(|| no_token(token))?;
                    sum.loss += told.loss;
                    sum.right += usize::from(told.right);
                    sum.tokens += 1;
                }
            }
            sum.loss /= sum.tokens.max(1) as f64;
            Ok(sum)
        })
    }

    /// Ends what is being computed at its next window, and lets nothing begin: a round of a
    /// language model may take hours, and the thread is wanted for other jobs.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn goes_on(&self) -> Result<(), TrainError> {
        if self.stopped.load(Ordering::Relaxed) { Err(TrainError::Stopped) } else { Ok(()) }
    }

    /// The weights, read again if nobody has them.
    fn weights(&self) -> Result<Arc<Decoder>, TrainError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(decoder) = held.upgrade() {
            return Ok(decoder);
        }
        let decoder = Arc::new(self.file.load_of(&self.tuning.digest)?);
        *held = Arc::downgrade(&decoder);
        Ok(decoder)
    }
}

/// A base model with what is learned beside it, and what it is learned from.
struct Adapted<'a> {
    tuner: &'a Tuner,
    decoder: Arc<Decoder>,
    data: &'a Windows,
    learned: Vec<Var>,
    added: Additions,
}

impl<'a> Adapted<'a> {
    fn new(tuner: &'a Tuner, flat: &[f32], data: &'a Windows) -> Result<Self, TrainError> {
        tuner.goes_on()?;
        let Tuner { tuning, .. } = tuner;
        let places = tuning.places()?;
        let shapes: Vec<_> = places.iter().map(|place| (place.outputs, tuning.rank)).collect();
        let learned = cut(&shapes, flat)?;
        let learned = learned.iter().map(Var::from_tensor).collect::<Result<Vec<_>, _>>()?;
        let mut added = Additions::new();
        for ((place, a), b) in places.iter().zip(tuning.frozen()?).zip(&learned) {
            let a = Tensor::from_vec(a, (tuning.rank, place.inputs), &Device::Cpu)?;
            // The same numbers: a step that sets the variable sets these too.
            let b = b.as_tensor().clone();
            let low_rank = LowRank { a, b, scale: tuning.scale() };
            added.insert((place.layer, place.target.projection()), low_rank);
        }
        Ok(Self { tuner, decoder: tuner.weights()?, data, learned, added })
    }

    /// The logits of a window, and the tokens that they should have foretold.
    fn logits(&self, at: usize) -> Result<(Tensor, &[u32]), TrainError> {
        self.tuner.goes_on()?;
        let Some((_, next)) = self.data.window(at).split_first() else {
            return Err(TrainError::Plan("a window of no tokens".to_owned()));
        };
        let read = &self.data.window(at)[..next.len()];
        Ok((self.decoder.logits(read, &self.added)?, next))
    }

    /// The mean loss of the windows at these places, and its gradient by each B.
    fn learn(&self, places: &[usize]) -> Result<(f32, Vec<Option<Tensor>>), TrainError> {
        let mut loss = 0.0;
        let mut sums: Vec<Option<Tensor>> = vec![None; self.learned.len()];
        let share = 1.0 / places.len().max(1) as f64;
        for &at in places {
            let (logits, next) = self.logits(at)?;
            let own = (mean_loss(&logits, next)? * share)?;
            loss += own.to_scalar::<f32>()?;
            let gradients = own.backward()?;
            for (sum, b) in sums.iter_mut().zip(&self.learned) {
                let Some(more) = gradients.get(b) else { continue };
                *sum = Some(match sum.take() {
                    Some(sum) => (sum + more)?,
                    None => more.clone(),
                });
            }
        }
        Ok((loss, sums))
    }
}

impl Learner for Adapted<'_> {
    fn size(&self) -> usize {
        self.learned.iter().map(|b| b.elem_count()).sum()
    }

    fn step(&mut self, places: &[usize], rate: f32, pull: &Pull<'_>) -> Result<f32, TrainError> {
        let (loss, gradients) = self.learn(places)?;
        let mut from = 0;
        for (b, gradient) in self.learned.iter().zip(gradients) {
            let mut weights = b.flatten_all()?.to_vec1::<f32>()?;
            pull.apply(from, &mut weights, rate);
            from += weights.len();
            if let Some(gradient) = gradient {
                let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
                for (weight, gradient) in weights.iter_mut().zip(gradient) {
                    *weight -= rate * gradient;
                }
            }
            b.set(&Tensor::from_vec(weights, b.shape(), &Device::Cpu)?)?;
        }
        Ok(loss)
    }

    fn weights(&self) -> Result<Vec<f32>, TrainError> {
        let mut flat = Vec::with_capacity(self.size());
        for b in &self.learned {
            flat.extend(b.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(flat)
    }
}

fn cut(shapes: &[(usize, usize)], flat: &[f32]) -> Result<Vec<Tensor>, TrainError> {
    let wanted: usize = shapes.iter().map(|(rows, columns)| rows * columns).sum();
    if flat.len() != wanted {
        let said = format!("{wanted} numbers are learned, and {} were given", flat.len());
        return Err(TrainError::Model(said));
    }
    let mut rest = flat;
    let mut tensors = Vec::with_capacity(shapes.len());
    for &(rows, columns) in shapes {
        let (own, after) = rest.split_at(rows * columns);
        tensors.push(Tensor::from_slice(own, (rows, columns), &Device::Cpu)?);
        rest = after;
    }
    Ok(tensors)
}

/// A text in parts that end with a line where there is one.
fn pieces(text: &str) -> Vec<&str> {
    let mut rest = text;
    let mut pieces = Vec::new();
    while rest.len() > PIECE {
        let whole = rest.floor_char_boundary(PIECE);
        let at = rest[..whole].rfind('\n').map_or(whole, |line| line + 1);
        let (piece, after) = rest.split_at(at);
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

fn no_token(token: u32) -> TrainError {
    TrainError::Plan(format!("the model has no token {token}"))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "tuner_tests.rs"]
mod tests;
