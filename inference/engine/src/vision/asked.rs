//! What a model that sees is asked, and the tensors that it takes and gives.
//!
//! Owns the bounds of a request. Pictures are not looked at here: that takes long.

use selvedge_base::{Code, Refusal, Stage};
use selvedge_contract::{Datatype, EmbedRequest, InferRequest, Signature, Tensor, TensorSpec};

use super::folder::Kind;
use crate::embed::{self, spec};
use crate::pictures::{self, MAX_PICTURES};

/// The input that takes what pictures may show.
const LABELS: &str = "labels";
/// The vectors of pictures.
pub(super) const EMBEDDING: &str = "embedding";
/// The vectors of texts.
pub(super) const TEXT_EMBEDDING: &str = "text_embedding";
/// What a model that compares pictures with texts is called in metadata.
const PLATFORM: &str = "selvedge_clip";
/// Texts that pictures are compared with: the thousand classes of ImageNet fit.
const MAX_LABELS: usize = 1_024;
/// Bytes of one: what fits the tokens that such models read is far shorter.
const MAX_LABEL_BYTES: usize = 1_024;

/// What is to be seen and read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) pictures: Vec<Vec<u8>>,
    pub(super) texts: Vec<String>,
    /// Whether a text that is longer than the model reads is cut; otherwise it is refused.
    pub(super) cut: bool,
    /// The outputs that are wanted, by name; none: all.
    pub(super) outputs: Vec<String>,
}

/// What a model takes and gives.
pub(super) fn signature(kind: &Kind) -> Signature {
    let mut inputs = vec![spec(pictures::INPUT, Datatype::Bytes, &[-1])];
    let dimensions = match kind {
        Kind::Vit { labels, .. } => {
            let outputs = embed::outputs(labels.len());
            return Signature { platform: embed::PLATFORM.to_owned(), inputs, outputs };
        }
        Kind::Clip { dimensions, .. } => i64::try_from(*dimensions).unwrap_or(i64::MAX),
    };
    inputs.push(spec(LABELS, Datatype::Bytes, &[-1]));
    // As many labels as there are, or five of them.
    let of_labels = |told: TensorSpec| TensorSpec { shape: vec![-1, -1], ..told };
    let mut outputs: Vec<TensorSpec> = embed::outputs(0).into_iter().map(of_labels).collect();
    outputs.push(spec(EMBEDDING, Datatype::Fp32, &[-1, dimensions]));
    outputs.push(spec(TEXT_EMBEDDING, Datatype::Fp32, &[-1, dimensions]));
    Signature { platform: PLATFORM.to_owned(), inputs, outputs }
}

/// A request with all inputs of the signature: of a model that compares pictures with texts, those
/// that were left out are empty.
pub(crate) fn completed(mut request: InferRequest, signature: &Signature) -> InferRequest {
    if signature.platform == PLATFORM {
        for input in &signature.inputs {
            if !request.inputs.iter().any(|given| given.name == input.name) {
                request.inputs.push(Tensor::of_bytes(&input.name, vec![0], std::iter::empty()));
            }
        }
    }
    request
}

impl Asked {
    /// A request whose tensors fit the signature.
    pub(super) fn tensors(request: &InferRequest) -> Result<Self, Refusal> {
        let mut asked = Self { outputs: request.outputs.clone(), ..Self::default() };
        for input in &request.inputs {
            let elements = input.byte_elements()?;
            if input.name == LABELS {
                asked.texts = elements.into_iter().map(label).collect::<Result<_, _>>()?;
            } else {
                asked.pictures = elements.into_iter().map(<[u8]>::to_vec).collect();
            }
        }
        let (pictures, labels) = (asked.pictures.len(), asked.texts.len());
        if pictures > MAX_PICTURES || labels > MAX_LABELS || pictures + labels == 0 {
            let message = format!(
                "{pictures} pictures and {labels} labels; 1 to {MAX_PICTURES} pictures are taken, \
                 and, by a model that is asked with labels, up to {MAX_LABELS} of those"
            );
            return Err(wrong(pictures::INPUT, message));
        }
        for output in &asked.outputs {
            asked.check(output, request.inputs.len() > 1)?;
        }
        Ok(asked)
    }

    /// A request for vectors.
    pub(super) fn vectors(request: &mut EmbedRequest) -> Self {
        let texts = std::mem::take(&mut request.texts);
        Self { texts, cut: request.cut, ..Self::default() }
    }

    /// Refuses an output that nothing was given for.
    fn check(&self, output: &str, compares: bool) -> Result<(), Refusal> {
        let needs = match output {
            EMBEDDING => [true, false],
            TEXT_EMBEDDING => [false, true],
            _ => [true, compares],
        };
        for (name, needed, lacks) in [
            (pictures::INPUT, needs[0], self.pictures.is_empty()),
            (LABELS, needs[1], self.texts.is_empty()),
        ] {
            if needed && lacks {
                let message =
                    format!("the output '{output}' needs the input '{name}', of 1 or more");
                return Err(wrong(name, message));
            }
        }
        Ok(())
    }
}

fn label(bytes: &[u8]) -> Result<String, Refusal> {
    if bytes.len() > MAX_LABEL_BYTES {
        let message = format!("a label of {} bytes; up to {MAX_LABEL_BYTES} are read", bytes.len());
        return Err(wrong(LABELS, message));
    }
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|_| wrong(LABELS, "a label is not UTF-8".to_owned()))
}

/// Vectors as a tensor.
pub(super) fn vectors(name: &str, all: &[Vec<f32>]) -> Tensor {
    let width = all.first().map_or(0, Vec::len);
    Tensor {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: vec![all.len() as u64, width as u64],
        data: all.iter().flatten().flat_map(|number| number.to_le_bytes()).collect(),
    }
}

fn wrong(param: &str, message: String) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, message).param(param)
}
