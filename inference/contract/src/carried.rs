//! Inferences as hand-offs between nodes: what a generation request and its events are to a model
//! that is asked with tensors.
//!
//! Owns the two translations. The frames of the wire have no shape for tensors, and need none: the
//! only nodes that are asked are those that have such a model, and so understand. A request's bytes
//! are its prompt's tokens, four to a token after their number; an answer's bytes are the bytes
//! that stand beside tokens. A request without inputs asks what the model takes and gives.

use std::fmt;
use std::marker::PhantomData;

use selvedge_base::codec::{self, CodecError};
use selvedge_base::{Micros, ModelDigest, RequestId};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::request::{Answer, Further, GenerateRequest, Input, Sampling, TokenEvent, TokenLogProb};
use crate::tensors::{InferRequest, MAX_NAME_BYTES, MAX_TENSORS, Signature, Tensor};

/// What frames inside of others are tagged with: their shape is the same since there are any, so
/// every node that has such models reads them.
const FRAMES: u8 = codec::OLDEST_VERSION;
/// Bytes of a request that fit a frame as tokens: each may take five bytes for its four.
pub const MAX_CARRIED_BYTES: usize = codec::MAX_FRAME / 5 * 4 - (64 << 10);
/// Bytes of one event of an answer: far below a frame, enough that most answers are one.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of a whole answer: what an engine gives, with room for names.
const MAX_ANSWER_BYTES: usize = crate::tensors::MAX_TENSOR_BYTES + (1 << 20);

/// The request as it is said.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    #[serde(deserialize_with = "few")]
    inputs: Vec<Tensor>,
    #[serde(deserialize_with = "few")]
    outputs: Vec<String>,
}

/// The answer as it is said.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Told {
    /// What the model takes and gives.
    Signature(Signature),
    /// How many tensors follow, each with its data last.
    Tensors(Vec<Tensor>),
}

/// What came of a carried request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// What the model takes and gives.
    Signature(Signature),
    /// The tensors it gave.
    Tensors(Vec<Tensor>),
}

/// A request for inference, or for the signature where there are no inputs, as a hand-off.
///
/// # Errors
/// [`CodecError::TooLarge`] for tensors of more than [`MAX_CARRIED_BYTES`].
pub fn to_hand_off(
    id: RequestId,
    model: ModelDigest,
    inputs: Vec<Tensor>,
    outputs: Vec<String>,
) -> Result<GenerateRequest, CodecError> {
    let bytes = codec::encode_at(FRAMES, &Asked { inputs, outputs }, MAX_CARRIED_BYTES)?;
    let mut tokens = Vec::with_capacity(1 + bytes.len().div_ceil(4));
    tokens.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    tokens.extend(bytes.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_le_bytes(word)
    }));
    let sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
        further: Further::NONE,
    };
    Ok(GenerateRequest {
        id,
        model,
        input: Input::Tokens(tokens),
        sampling,
        max_tokens: 1,
        stop: Vec::new(),
        logprobs: None,
        schema: None,
        emitted: None,
    })
}

/// The inference that a hand-off means; none where it is no such request.
pub fn of_hand_off(request: &GenerateRequest, within: Micros) -> Option<InferRequest> {
    let Input::Tokens(tokens) = &request.input else { return None };
    let (length, words) = tokens.split_first()?;
    let length = usize::try_from(*length).ok()?;
    if length > MAX_CARRIED_BYTES || words.len() != length.div_ceil(4) {
        return None;
    }
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.truncate(length);
    let Asked { inputs, outputs } = codec::decode_body(bytes.get(codec::LENGTH_BYTES..)?).ok()?;
    let named = |name: &String| name.len() <= MAX_NAME_BYTES;
    let fits = outputs.iter().all(named) && inputs.iter().all(|tensor| named(&tensor.name));
    let (id, model) = (request.id, request.model);
    fits.then_some(InferRequest { id, model, inputs, outputs, within })
}

/// A list, refused as soon as it is longer than a request's may be: its parts take a few bytes on
/// the wire and some dozens here.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(decoder: D) -> Result<Vec<T>, D::Error> {
    decoder.deserialize_seq(Few(PhantomData))
}

struct Few<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of up to {MAX_TENSORS}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = seq.next_element()? {
            if all.len() == MAX_TENSORS {
                return Err(A::Error::custom("the list is too long"));
            }
            all.push(one);
        }
        Ok(all)
    }
}

/// The events that tell an answer: a token for each piece.
pub fn to_events(carried: Carried) -> Vec<Answer> {
    let told = match carried {
        Carried::Signature(signature) => Told::Signature(signature),
        Carried::Tensors(tensors) => Told::Tensors(tensors),
    };
    let bytes = write(&told);
    let pieces = bytes.chunks(PIECE_BYTES).enumerate();
    pieces
        .map(|(at, piece)| {
            let logprob = TokenLogProb { bytes: piece.to_vec(), logprob: 0.0, top: Vec::new() };
            Answer::Token(TokenEvent {
                index: u32::try_from(at).unwrap_or(u32::MAX),
                token: 0,
                text: String::new(),
                logprob: Some(logprob),
            })
        })
        .collect()
}

/// Puts pieces of an answer together, within bounds.
#[derive(Debug, Default)]
pub struct Gathering(Vec<u8>);

impl Gathering {
    /// Takes a piece; false where it is none, or too much.
    pub fn take(&mut self, event: &TokenEvent) -> bool {
        let Some(piece) = &event.logprob else { return false };
        if self.0.len().saturating_add(piece.bytes.len()) > MAX_ANSWER_BYTES {
            return false;
        }
        self.0.extend_from_slice(&piece.bytes);
        true
    }

    /// The answer, if it is one.
    pub fn finish(self) -> Option<Carried> {
        match read(&self.0)? {
            Told::Signature(signature) => Some(Carried::Signature(signature)),
            Told::Tensors(tensors) => {
                let good = tensors.len() <= MAX_TENSORS
                    && tensors.iter().all(|tensor| tensor.check().is_ok());
                good.then_some(Carried::Tensors(tensors))
            }
        }
    }
}

/// Heads in a frame of the codec, the data of all tensors after it: a frame would be too small.
fn write(told: &Told) -> Vec<u8> {
    let (head, data) = match told {
        Told::Signature(_) => (codec::encode_at(FRAMES, told, codec::MAX_FRAME), Vec::new()),
        Told::Tensors(tensors) => {
            let heads = tensors.iter().map(|tensor| Tensor {
                name: tensor.name.clone(),
                datatype: tensor.datatype,
                shape: tensor.shape.clone(),
                data: (tensor.data.len() as u64).to_le_bytes().to_vec(),
            });
            let heads = Told::Tensors(heads.collect());
            let data = tensors.iter().flat_map(|tensor| tensor.data.iter().copied()).collect();
            (codec::encode_at(FRAMES, &heads, codec::MAX_FRAME), data)
        }
    };
    // Heads are bounded far below a frame; what nobody can read is refused as no answer.
    [head.unwrap_or_default(), data].concat()
}

fn read(bytes: &[u8]) -> Option<Told> {
    let (header, rest) = bytes.split_first_chunk()?;
    let length = codec::body_length(*header, codec::MAX_FRAME).ok()?;
    let (head, mut data) = rest.split_at_checked(length)?;
    match codec::decode_body(head).ok()? {
        Told::Signature(signature) => data.is_empty().then_some(Told::Signature(signature)),
        Told::Tensors(mut tensors) => {
            for tensor in &mut tensors {
                let length = u64::from_le_bytes(tensor.data.as_slice().try_into().ok()?);
                let (own, rest) = data.split_at_checked(usize::try_from(length).ok()?)?;
                tensor.data = own.to_vec();
                data = rest;
            }
            data.is_empty().then_some(Told::Tensors(tensors))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::{Datatype, TensorSpec};

    fn tensor(bytes: usize) -> Tensor {
        let data = (0..bytes).map(|at| (at % 251) as u8).collect();
        let shape = vec![bytes as u64];
        Tensor { name: "x".to_owned(), datatype: Datatype::Uint8, shape, data }
    }

    const ID: RequestId = RequestId(7);
    const MODEL: ModelDigest = ModelDigest([3; 32]);

    #[test]
    fn a_request_comes_back_as_it_was_asked() {
        for bytes in [0, 1, 3, 4, 5, 100_000] {
            let outputs = vec!["y".to_owned()];
            let handed = to_hand_off(ID, MODEL, vec![tensor(bytes)], outputs.clone());
            let asked = of_hand_off(&handed.expect("fits"), Micros::secs(1)).expect("one");
            let inputs = vec![tensor(bytes)];
            let within = Micros::secs(1);
            assert_eq!(asked, InferRequest { id: ID, model: MODEL, inputs, outputs, within });
        }
        assert!(to_hand_off(ID, MODEL, vec![tensor(MAX_CARRIED_BYTES)], vec![]).is_err());
    }

    #[test]
    fn what_is_no_inference_is_none() {
        let good = to_hand_off(ID, MODEL, vec![tensor(9)], vec![]).expect("fits");
        let Input::Tokens(tokens) = good.input.clone() else { unreachable!("tokens are written") };
        let of = |input| of_hand_off(&GenerateRequest { input, ..good.clone() }, Micros::secs(1));
        assert!(of(Input::Text("hi".to_owned())).is_none());
        for end in 0..tokens.len() {
            assert!(of(Input::Tokens(tokens[..end].to_vec())).is_none(), "{end}");
        }
        for (count, fits) in [(MAX_TENSORS, true), (MAX_TENSORS + 1, false)] {
            let names = vec![String::new(); count];
            let many = to_hand_off(ID, MODEL, vec![tensor(0); 2], names).expect("fits");
            assert_eq!(of_hand_off(&many, Micros::secs(1)).is_some(), fits, "{count} outputs");
            let many = to_hand_off(ID, MODEL, vec![tensor(0); count], vec![]).expect("fits");
            assert_eq!(of_hand_off(&many, Micros::secs(1)).is_some(), fits, "{count} inputs");
        }
        for word in [0, 1, u32::MAX] {
            assert!(of(Input::Tokens(vec![word; 9])).is_none());
        }
    }

    #[test]
    fn an_answer_comes_back_piece_by_piece() {
        let spec = TensorSpec { name: "x".to_owned(), datatype: Datatype::Bool, shape: vec![-1] };
        let platform = "onnx".to_owned();
        let signature = Signature { platform, inputs: vec![spec], outputs: vec![] };
        let large = vec![tensor(3 * PIECE_BYTES + 5), tensor(0)];
        for carried in [Carried::Signature(signature), Carried::Tensors(large)] {
            let mut gathering = Gathering::default();
            for event in to_events(carried.clone()) {
                let Answer::Token(event) = event else { unreachable!("pieces are tokens") };
                assert!(gathering.take(&event));
            }
            let whole = gathering.0.clone();
            assert_eq!(gathering.finish(), Some(carried));
            for end in [0, 3, 10, whole.len() - 1] {
                assert_eq!(Gathering(whole[..end].to_vec()).finish(), None, "{end}");
            }
        }
    }
}
