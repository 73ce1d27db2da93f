//! The files of the tests, with what onnxruntime makes of them (`tests/fixtures/make_onnx.py`).

use std::path::PathBuf;

use selvedge_contract::{Datatype, Tensor};
use serde::Deserialize;

/// A file, inputs, and outputs.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) file: String,
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Written {
    file: String,
    inputs: Vec<Data>,
    outputs: Vec<Data>,
}

#[derive(Deserialize)]
struct Data {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    data: String,
}

impl From<Data> for Tensor {
    fn from(Data { name, datatype, shape, data }: Data) -> Self {
        let bytes = data.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hexadecimal");
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        });
        let datatype = Datatype::of_name(&datatype).expect("a type");
        Self { name, datatype, shape, data: bytes.collect() }
    }
}

impl Case {
    pub(super) fn path(&self) -> PathBuf {
        fixtures().join("onnx").join(&self.file)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).expect("a fixture")
    }
}

/// The bytes of a file among the fixtures.
pub(super) fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(name)).expect("a fixture")
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// All of them.
pub(super) fn cases() -> Vec<Case> {
    let text = std::fs::read(fixtures().join("onnx.json")).expect("a fixture");
    let written: Vec<Written> = serde_json::from_slice(&text).expect("cases");
    let all = |data: Vec<Data>| data.into_iter().map(Tensor::from).collect();
    let case = |Written { file, inputs, outputs }| Case {
        file,
        inputs: all(inputs),
        outputs: all(outputs),
    };
    written.into_iter().map(case).collect()
}

/// The one of this name.
pub(super) fn case(name: &str) -> Case {
    let file = format!("{name}.onnx");
    cases().into_iter().find(|case| case.file == file).expect("a case")
}

/// Floats within a thousandth of each other or of their size, everything else alike.
pub(super) fn assert_near(got: &[Tensor], wanted: &[Tensor], what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (got, wanted) in got.iter().zip(wanted) {
        assert_eq!(
            (&got.name, got.datatype, &got.shape),
            (&wanted.name, wanted.datatype, &wanted.shape),
            "{what}"
        );
        let numbers = |tensor: &Tensor| -> Vec<f64> {
            match tensor.datatype {
                Datatype::Fp32 => {
                    let floats = tensor.data.as_chunks().0.iter();
                    floats.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
                }
                Datatype::Fp64 => {
                    let floats = tensor.data.as_chunks().0.iter();
                    floats.map(|bytes| f64::from_le_bytes(*bytes)).collect()
                }
                _ => tensor.data.iter().map(|byte| f64::from(*byte)).collect(),
            }
        };
        for (got, wanted) in numbers(got).into_iter().zip(numbers(wanted)) {
            assert!((got - wanted).abs() <= 1e-4 * wanted.abs().max(1.0), "{what}: {got} {wanted}");
        }
    }
}
