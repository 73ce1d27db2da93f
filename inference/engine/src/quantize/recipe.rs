//! Which form each tensor of a quantized file gets.
//!
//! Owns the mixtures that llama.cpp's users know by name and the few rules behind them: norms,
//! biases and other vectors stay as they are, the matrix that reads tokens and the one that names
//! them lose less than the others, and rows that do not divide into a form's blocks get the next
//! better form that they do divide into. Touches no bytes.

use std::fmt;
use std::str::FromStr;

use candle_core::quantized::GgmlDType;

/// A mixture of forms, named after the form of most of its matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "llama.cpp's own names")]
pub enum Mixture {
    F16,
    Q8_0,
    Q6K,
    Q5KM,
    Q5KS,
    Q4KM,
    Q4KS,
    Q5_1,
    Q5_0,
    Q4_1,
    Q4_0,
}

/// A name that is no mixture's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no type this build writes; it writes {names}", names = names())]
pub struct UnknownMixture(String);

/// All, with the name people write and the number that a file says it by (`llama_ftype`, llama.h).
const NAMED: [(Mixture, &str, u32); 11] = [
    (Mixture::F16, "F16", 1),
    (Mixture::Q8_0, "Q8_0", 7),
    (Mixture::Q6K, "Q6_K", 18),
    (Mixture::Q5KM, "Q5_K_M", 17),
    (Mixture::Q5KS, "Q5_K_S", 16),
    (Mixture::Q4KM, "Q4_K_M", 15),
    (Mixture::Q4KS, "Q4_K_S", 14),
    (Mixture::Q5_1, "Q5_1", 9),
    (Mixture::Q5_0, "Q5_0", 8),
    (Mixture::Q4_1, "Q4_1", 3),
    (Mixture::Q4_0, "Q4_0", 2),
];

fn names() -> String {
    NAMED.map(|(_, name, _)| name).join(", ")
}

impl FromStr for Mixture {
    type Err = UnknownMixture;

    /// Any case, and `Q4_K` and `Q5_K` for the mixtures that most people mean by them.
    fn from_str(text: &str) -> Result<Self, UnknownMixture> {
        let upper = text.to_ascii_uppercase();
        let whole = match &*upper {
            "Q4_K" => "Q4_K_M",
            "Q5_K" => "Q5_K_M",
            other => other,
        };
        let found = NAMED.into_iter().find(|(_, name, _)| *name == whole);
        found.map(|(mixture, ..)| mixture).ok_or_else(|| UnknownMixture(text.to_owned()))
    }
}

impl fmt::Display for Mixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.named().1)
    }
}

impl Mixture {
    fn named(self) -> (Self, &'static str, u32) {
        NAMED.into_iter().find(|(mixture, ..)| *mixture == self).unwrap_or(NAMED[0])
    }

    /// The number that a file says it by.
    pub(crate) fn file_type(self) -> u32 {
        self.named().2
    }

    /// The form of most matrices.
    const fn usual(self) -> GgmlDType {
        match self {
            Self::F16 => GgmlDType::F16,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q6K => GgmlDType::Q6K,
            Self::Q5KM | Self::Q5KS => GgmlDType::Q5K,
            Self::Q4KM | Self::Q4KS => GgmlDType::Q4K,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q4_0 => GgmlDType::Q4_0,
        }
    }

    /// The form of a tensor of this name and these sides, outermost first; nothing where it stays
    /// as it is. `layers` is how many the model has.
    pub(crate) fn form(self, name: &str, dims: &[usize], layers: usize) -> Option<GgmlDType> {
        let [.., row] = dims else { return None };
        if dims.len() < 2 || !name.ends_with(".weight") || name.contains("norm") {
            return None;
        }
        let wanted = match self {
            Self::F16 | Self::Q8_0 => self.usual(),
            // What a vocabulary loses every token loses.
            _ if name == "output.weight" || name == "token_embd.weight" => GgmlDType::Q6K,
            Self::Q5KM | Self::Q4KM if loses_most(name, layers) => GgmlDType::Q6K,
            _ => self.usual(),
        };
        Some(dividing(wanted, *row))
    }
}

/// Whether a matrix is one of those whose loss is felt most: values and down-projections in the
/// first and the last eighth of the layers, and in every third between them (llama.cpp's
/// `use_more_bits`).
fn loses_most(name: &str, layers: usize) -> bool {
    let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'))
    else {
        return false;
    };
    let Ok(layer) = layer.parse::<usize>() else { return false };
    let eighth = layers / 8;
    let placed = layer < eighth || layer >= 7 * layers / 8 || layer.saturating_sub(eighth) % 3 == 2;
    placed && matches!(part, "attn_v.weight" | "ffn_down.weight")
}

/// The form itself, or the next better one whose blocks rows of this length divide into.
fn dividing(form: GgmlDType, row: usize) -> GgmlDType {
    let fits = |form: GgmlDType| row.is_multiple_of(form.block_size());
    let next = match form {
        _ if fits(form) => return form,
        GgmlDType::Q4K => GgmlDType::Q5_0,
        GgmlDType::Q5K => GgmlDType::Q5_1,
        GgmlDType::Q6K => GgmlDType::Q8_0,
        _ => GgmlDType::F16,
    };
    if fits(next) { next } else { GgmlDType::F16 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_people_write() {
        for (mixture, name, _) in NAMED {
            assert_eq!(name.parse::<Mixture>().unwrap(), mixture);
            assert_eq!(name.to_lowercase().parse::<Mixture>().unwrap(), mixture);
            assert_eq!(mixture.to_string(), name);
        }
        assert_eq!("q4_k".parse::<Mixture>().unwrap(), Mixture::Q4KM);
        assert_eq!("Q5_K".parse::<Mixture>().unwrap(), Mixture::Q5KM);
        let said = "q9".parse::<Mixture>().unwrap_err().to_string();
        assert!(said.contains("'q9'") && said.contains("Q4_K_M"), "{said}");
    }

    #[test]
    fn vectors_and_norms_stay_and_vocabularies_lose_less() {
        let form = |name: &str, dims: &[usize]| Mixture::Q4KS.form(name, dims, 4);
        assert_eq!(form("blk.0.attn_norm.weight", &[512]), None);
        assert_eq!(form("blk.0.attn_q_norm.weight", &[4, 512]), None);
        assert_eq!(form("blk.0.attn_q.bias", &[512]), None);
        assert_eq!(form("blk.0.attn_q.weight", &[512, 512]), Some(GgmlDType::Q4K));
        assert_eq!(form("token_embd.weight", &[1_000, 512]), Some(GgmlDType::Q6K));
        assert_eq!(form("output.weight", &[1_000, 512]), Some(GgmlDType::Q6K));
        let eight = Mixture::Q8_0.form("output.weight", &[1_000, 512], 4);
        assert_eq!(eight, Some(GgmlDType::Q8_0));
    }

    #[test]
    fn rows_that_do_not_divide_get_the_next_better_form() {
        let form = |mixture: Mixture, row: usize| mixture.form("blk.1.attn_q.weight", &[8, row], 4);
        assert_eq!(form(Mixture::Q4KS, 576), Some(GgmlDType::Q5_0));
        assert_eq!(form(Mixture::Q5KS, 576), Some(GgmlDType::Q5_1));
        assert_eq!(form(Mixture::Q6K, 576), Some(GgmlDType::Q8_0));
        assert_eq!(form(Mixture::Q6K, 33), Some(GgmlDType::F16));
        assert_eq!(form(Mixture::Q4_0, 33), Some(GgmlDType::F16));
    }

    /// Of 24 layers: the first three, the last three, and every third between.
    #[test]
    fn a_mixture_of_medium_size_spares_what_loses_most() {
        let spared = |part: &str| -> Vec<usize> {
            let name = |layer: &usize| format!("blk.{layer}.{part}.weight");
            let form = |layer: &usize| Mixture::Q4KM.form(&name(layer), &[256, 256], 24);
            (0..24).filter(|layer| form(layer) == Some(GgmlDType::Q6K)).collect()
        };
        assert_eq!(spared("ffn_down"), [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]);
        assert_eq!(spared("attn_v"), spared("ffn_down"));
        assert!(spared("ffn_up").is_empty());
    }
}
