use proptest::prelude::*;

use super::*;
use crate::testing::{Writer, temporary};

fn open(bytes: &[u8]) -> Result<Gguf, EngineError> {
    let file = temporary(bytes);
    Gguf::open(file.path())
}

fn refused(bytes: &[u8], expected: &str) {
    let error = open(bytes).expect_err(expected).to_string();
    assert!(error.contains(expected), "'{error}' does not say '{expected}'");
}

/// A header up to and including the counts.
fn header(tensors: u64, entries: u64) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(entries.to_le_bytes());
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

#[test]
fn a_well_formed_file_is_read() {
    let gguf = open(&Writer::tiny(1).bytes()).expect("well formed");
    assert_eq!(gguf.text("general.architecture"), Some("llama"));
    let embedding = gguf.tensor("token_embd.weight").expect("there");
    assert_eq!(embedding.dims, [Writer::VOCABULARY, Writer::WIDTH]);
    assert!(embedding.start.is_multiple_of(32));
}

#[test]
fn what_is_no_gguf_file_is_named() {
    refused(b"", "file ends inside magic");
    refused(b"GGML....", "not a GGUF file");
    refused(b"GGUF\x01\0\0\0", "GGUF version 1");
    refused(b"GGUF\0\0\0\x03", "GGUF version");
    assert!(matches!(Gguf::open(Path::new("/")), Err(EngineError::Corrupt(_))));
    let missing = Gguf::open(Path::new("/nowhere/at.all"));
    assert!(matches!(missing, Err(EngineError::Io { .. })));
}

#[test]
fn claimed_counts_are_not_believed() {
    refused(&header(u64::MAX, 0), "tensor count");
    refused(&header(0, u64::MAX), "metadata count");
    let mut long_key = header(0, 1);
    long_key.extend(u64::MAX.to_le_bytes());
    refused(&long_key, "metadata key claims");
    let mut long_text = header(0, 1);
    text(&mut long_text, "k");
    long_text.extend(8u32.to_le_bytes());
    long_text.extend((1u64 << 40).to_le_bytes());
    refused(&long_text, "k claims");
    let mut long_array = header(0, 1);
    text(&mut long_array, "k");
    long_array.extend(9u32.to_le_bytes());
    long_array.extend(0u32.to_le_bytes());
    long_array.extend((1u64 << 19).to_le_bytes());
    refused(&long_array, "claims 524288 elements");
}

#[test]
fn arrays_are_bounded_together_too() {
    let mut many = header(0, 5);
    for key in ["a", "b", "c", "d", "e"] {
        text(&mut many, key);
        many.extend(9u32.to_le_bytes());
        many.extend(0u32.to_le_bytes());
        many.extend((1u64 << 20).to_le_bytes());
        many.resize(many.len() + (1 << 20), 0);
    }
    refused(&many, "more than 4194304 elements together");
}

#[test]
fn nested_arrays_end_somewhere() {
    let mut nested = header(0, 1);
    text(&mut nested, "k");
    nested.extend(9u32.to_le_bytes());
    for _ in 0..100_000 {
        // An array of one array, again and again.
        nested.extend(9u32.to_le_bytes());
        nested.extend(1u64.to_le_bytes());
    }
    refused(&nested, "nests arrays");
}

#[test]
fn tensors_must_lie_in_the_file() {
    let tensor = |dims: &[u64], kind: u32, offset: u64| {
        let mut bytes = header(1, 0);
        text(&mut bytes, "t");
        bytes.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes
    };
    refused(&tensor(&[], 0, 0), "0 dimensions");
    refused(&tensor(&[1; 5], 0, 0), "5 dimensions");
    refused(&tensor(&[0], 0, 0), "dimension of 0");
    refused(&tensor(&[u64::MAX], 0, 0), "dimension of 18446744073709551615");
    refused(&tensor(&[1 << 31; 4], 0, 0), "larger than the whole file");
    refused(&tensor(&[1 << 20], 0, 0), "larger than the whole file");
    refused(&tensor(&[33], 3, 0), "not a multiple of 32");
    refused(&tensor(&[1], 99, 0), "ggml type 99");
    refused(&tensor(&[1], 0, u64::MAX - 31), "does not lie in the file");
    refused(&tensor(&[1], 0, 1 << 40), "does not lie in the file");
}

#[test]
fn overlapping_tensors_are_refused() {
    let mut bytes = header(2, 0);
    for name in ["a", "b"] {
        text(&mut bytes, name);
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(8u64.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
    }
    bytes.resize(256, 0);
    refused(&bytes, "overlap");
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let bytes = Writer::tiny(1).bytes();
    for length in (0..bytes.len()).step_by(97) {
        assert!(open(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A flipped bit anywhere gives a model or an error, in bounded memory and without a panic.
    #[test]
    fn flipped_bits_never_panic(at in 0usize..20_000, bit in 0u8..8) {
        let mut bytes = Writer::tiny(1).bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let file = temporary(&bytes);
        if let Ok(gguf) = Gguf::open(file.path()) {
            let _ = crate::card::facts(&gguf);
            let _ = crate::text::Text::here(&gguf);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut file = header(3, 3);
        file.extend(bytes);
        prop_assert!(open(&file).is_err());
    }
}
