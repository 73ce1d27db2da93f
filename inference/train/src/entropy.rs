//! How badly a language model foretold the next tokens: the cross-entropy of its logits.
//!
//! Owns the function and its derivative, row by row, so that none of the passes over a vocabulary
//! that candle would differentiate stays in memory.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};

/// Mean loss in nats of logits `[rows, vocabulary]` for these tokens, through which gradients flow.
pub(crate) fn mean_loss(logits: &Tensor, tokens: &[u32]) -> candle_core::Result<Tensor> {
    logits.contiguous()?.apply_op1(MeanLoss(tokens.to_vec()))
}

/// What a row says of a token.
pub(crate) struct Told {
    /// Nats.
    pub(crate) loss: f64,
    /// Whether no other token was likelier.
    pub(crate) right: bool,
}

/// The loss of a row of logits.
pub(crate) fn told(row: &[f32], token: u32) -> Option<Told> {
    let own = *row.get(usize::try_from(token).ok()?)?;
    let (greatest, sum) = spread(row);
    Some(Told { loss: sum.ln() + f64::from(greatest) - f64::from(own), right: own >= greatest })
}

/// The greatest logit, and the sum of all powers of e below it.
fn spread(row: &[f32]) -> (f32, f64) {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (greatest, row.iter().map(|logit| f64::from((logit - greatest).exp())).sum())
}

struct MeanLoss(Vec<u32>);

impl CustomOp1 for MeanLoss {
    fn name(&self) -> &'static str {
        "mean-loss"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let span = layout.contiguous_offsets();
        let numbers = storage.as_slice::<f32>()?;
        let logits = span.and_then(|(from, to)| numbers.get(from..to)).unwrap_or_default();
        if rows == 0 || rows != self.0.len() || logits.len() != rows * width {
            candle_core::bail!("logits of {rows} rows for {} tokens", self.0.len());
        }
        let mut sum = 0.0;
        for (row, &token) in logits.chunks_exact(width).zip(&self.0) {
            let Some(told) = told(row, token) else {
                candle_core::bail!("there is no token {token} among {width}");
            };
            sum += told.loss;
        }
        Ok((CpuStorage::F32(vec![(sum / rows as f64) as f32]), Shape::from(())))
    }

    /// Probabilities, less one for the right token, each by the number of rows.
    fn bwd(
        &self,
        logits: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let (rows, width) = logits.dims2()?;
        let scale = gradient.to_scalar::<f32>()? / rows as f32;
        let mut numbers = logits.flatten_all()?.to_vec1::<f32>()?;
        for (row, &token) in numbers.chunks_exact_mut(width).zip(&self.0) {
            let (greatest, sum) = spread(row);
            let each = f64::from(scale) / sum;
            row.iter_mut().for_each(|logit| {
                *logit = (f64::from((*logit - greatest).exp()) * each) as f32;
            });
            if let Some(own) = row.get_mut(token as usize) {
                *own -= scale;
            }
        }
        Tensor::from_vec(numbers, (rows, width), &Device::Cpu).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn loss_and_gradient_are_candles_own() -> candle_core::Result<()> {
        let numbers: Vec<f32> = (0..15).map(|at| ((at * 7 % 5) as f32 - 2.0) * 1.5).collect();
        let logits = Var::from_tensor(&Tensor::from_vec(numbers, (3, 5), &Device::Cpu)?)?;
        let tokens = [4, 0, 2];
        let ours = (mean_loss(&logits, &tokens)? * 3.0)?;
        let target = Tensor::new(&tokens, &Device::Cpu)?;
        let theirs = (candle_nn::loss::cross_entropy(&logits, &target)? * 3.0)?;
        assert!((ours.to_scalar::<f32>()? - theirs.to_scalar::<f32>()?).abs() < 1e-5);
        let of = |loss: &Tensor| -> candle_core::Result<Vec<f32>> {
            let gradients = loss.backward()?;
            let gradient = gradients.get(&logits).expect("a gradient");
            gradient.flatten_all()?.to_vec1()
        };
        for (ours, theirs) in of(&ours)?.iter().zip(of(&theirs)?) {
            assert!((ours - theirs).abs() < 1e-6, "{ours} {theirs}");
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_refused() -> candle_core::Result<()> {
        let logits = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu)?;
        assert!(mean_loss(&logits, &[1]).is_err());
        assert!(mean_loss(&logits, &[1, 3]).is_err());
        assert!(told(&[0.0; 3], 3).is_none());
        Ok(())
    }
}
