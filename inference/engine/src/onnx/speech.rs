//! What a node and the process that runs an ONNX model say to each other.
//!
//! Owns the messages and their frames: a head as those of the wire (`selvedge_base::codec`), then
//! the bytes of the file or of tensors, as many as the head says. Both sides bound both. Both ends
//! are the same program; one that was replaced on disk is told by the version in the first message.

use std::io::{self, Read, Write};

use selvedge_base::codec;
use selvedge_contract::tensors::MAX_TENSOR_BYTES;
use selvedge_contract::{Datatype, Tensor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::MAX_FILE_BYTES;
use crate::apart::{self, exactly};

/// Counts changes of these messages.
pub(super) const VERSION: u8 = 1;
/// Bytes of a head: 256 tensors with long names and eight sides take some 150 KiB.
const MAX_HEAD: usize = 1 << 20;

/// What the node says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// First of all; the file follows.
    Open {
        version: u8,
        file_bytes: u64,
        /// Bytes of memory that the process may take.
        data_bytes: u64,
        /// Threads that compute.
        threads: u32,
        /// Whether classes are made of its outputs.
        classifies: bool,
        /// The settings of that, as they stand beside the file.
        text: String,
        /// The name of each class, where the settings do not tell.
        labels: Vec<String>,
    },
    /// Wants outputs; the inputs' bytes follow.
    Run { inputs: Vec<Head>, outputs: Vec<String>, within_ms: u64 },
}

/// What is answered, once for each [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Told {
    /// The model is loaded.
    Opened,
    /// It cannot be, and why.
    Unusable(String),
    /// The program speaks another version than the node: it was replaced on disk.
    Version(u8),
    /// Outputs; their bytes follow.
    Made(Vec<Head>),
    /// These inputs give none.
    Refused(String),
    /// The model gives none.
    Failed(String),
}

/// A tensor without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    name: String,
    datatype: Datatype,
    shape: Vec<u64>,
    bytes: u64,
}

impl Head {
    pub(super) fn of(tensor: &Tensor) -> Self {
        Self {
            name: tensor.name.clone(),
            datatype: tensor.datatype,
            shape: tensor.shape.clone(),
            bytes: tensor.data.len() as u64,
        }
    }
}

/// Says something; `bytes` follow.
pub(super) fn write<'a, T: Serialize>(
    output: &mut impl Write,
    message: &T,
    bytes: impl Iterator<Item = &'a [u8]>,
) -> io::Result<()> {
    let head = codec::encode(message, MAX_HEAD).map_err(io::Error::other)?;
    output.write_all(&head)?;
    for bytes in bytes {
        output.write_all(bytes)?;
    }
    output.flush()
}

/// Reads a message without what follows; `None` where the other side has ended.
pub(super) fn read<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<T>> {
    apart::read(input, MAX_HEAD)
}

/// The file that follows.
pub(super) fn read_file(input: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    match bytes <= MAX_FILE_BYTES {
        true => exactly(input, bytes),
        false => Err(io::Error::other("a file beyond the bound")),
    }
}

/// The tensors whose bytes follow.
pub(super) fn read_tensors(input: &mut impl Read, heads: Vec<Head>) -> io::Result<Vec<Tensor>> {
    let mut room = MAX_TENSOR_BYTES as u64;
    let mut tensors = Vec::with_capacity(heads.len());
    for Head { name, datatype, shape, bytes } in heads {
        room =
            room.checked_sub(bytes).ok_or_else(|| io::Error::other("tensors beyond the bound"))?;
        let data = exactly(input, bytes)?;
        let tensor = Tensor { name, datatype, shape, data };
        tensor.check().map_err(io::Error::other)?;
        tensors.push(tensor);
    }
    Ok(tensors)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tensor(bytes: usize) -> Tensor {
        let (name, datatype) = ("x".to_owned(), Datatype::Uint8);
        Tensor { name, datatype, shape: vec![bytes as u64], data: vec![7; bytes] }
    }

    #[test]
    fn what_is_said_comes_back_and_what_is_cut_short_does_not() {
        let tensors = [tensor(3), tensor(0)];
        let told = Told::Made(tensors.iter().map(Head::of).collect());
        let mut bytes = Vec::new();
        write(&mut bytes, &told, tensors.iter().map(|tensor| tensor.data.as_slice())).unwrap();
        let heard = |mut input: &[u8]| match read(&mut input)? {
            Some(Told::Made(heads)) => read_tensors(&mut input, heads).map(Some),
            _ => Ok(None),
        };
        assert_eq!(heard(&bytes).unwrap().unwrap(), tensors);
        for end in 1..bytes.len() {
            assert!(heard(&bytes[..end]).is_ok_and(|heard| heard.is_none()) || end >= 4, "{end}");
            assert_ne!(heard(&bytes[..end]).ok().flatten(), Some(tensors.to_vec()), "{end}");
        }
    }

    #[test]
    fn a_length_alone_takes_no_memory_and_too_much_is_refused() {
        let mut head = Head::of(&tensor(0));
        head.bytes = MAX_TENSOR_BYTES as u64;
        head.shape = vec![head.bytes];
        assert!(read_tensors(&mut io::empty(), vec![head.clone()]).is_err());
        head.bytes += 1;
        assert!(read_tensors(&mut io::repeat(0), vec![head]).is_err());
        assert!(read_file(&mut io::empty(), MAX_FILE_BYTES).is_err());
        assert!(read_file(&mut io::repeat(0), MAX_FILE_BYTES + 1).is_err());
        assert!(read::<Told>(&mut [0xff; 16].as_slice()).is_err());
    }
}
