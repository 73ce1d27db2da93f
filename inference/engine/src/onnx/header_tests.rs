use super::super::testing::{case, cases};
use super::*;

/// A field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        all.push(length as u8 | 0x80);
        length >>= 7;
    }
    all.push(length as u8);
    [&all, bytes].concat()
}

fn node(inputs: &[&str], outputs: &[&str], more: &[u8]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|name| field(1, name.as_bytes()));
    let outputs = outputs.iter().flat_map(|name| field(2, name.as_bytes()));
    let all = inputs.chain(outputs).chain(field(4, b"Identity")).chain(more.iter().copied());
    field(1, &all.collect::<Vec<u8>>())
}

/// An input (11) or output (12): floats of one side of any length.
fn value(number: u8, name: &str) -> Vec<u8> {
    let tensor = [vec![0x08, 1], field(2, &field(1, b""))].concat();
    let kind = field(2, &field(1, &tensor));
    field(number, &[field(1, name.as_bytes()), kind].concat())
}

/// A tensor of floats under a name: its dimensions and what else there is.
fn weights(name: &str, dims: &[u64], more: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for dim in dims {
        all.push(0x08);
        let mut dim = *dim;
        while dim > 0x7f {
            all.push(dim as u8 | 0x80);
            dim >>= 7;
        }
        all.push(dim as u8);
    }
    all.extend([0x10, 1]);
    all.extend(field(8, name.as_bytes()));
    all.extend_from_slice(more);
    all
}

fn file(graph: &[Vec<u8>]) -> Vec<u8> {
    [vec![0x08, 8], field(7, &graph.concat()), field(8, &[0x10, 17])].concat()
}

/// A graph with an input `x` and an output `y`, and these parts.
fn with(parts: &[Vec<u8>]) -> Vec<u8> {
    file(&[parts.concat(), value(11, "x"), value(12, "y")])
}

#[test]
fn files_say_what_they_take_and_give() {
    for case in cases() {
        let header = read(&case.bytes()).expect("a model");
        let of = |tensors: &[selvedge_contract::Tensor]| -> Vec<_> {
            tensors.iter().map(|tensor| (tensor.name.clone(), tensor.datatype)).collect()
        };
        let said = |specs: &[TensorSpec]| -> Vec<_> {
            specs.iter().map(|spec| (spec.name.clone(), spec.datatype)).collect()
        };
        assert_eq!(said(&header.signature.inputs), of(&case.inputs), "{}", case.file);
        assert_eq!(said(&header.signature.outputs), of(&case.outputs), "{}", case.file);
        let outputs: Vec<String> = case.outputs.iter().map(|one| one.name.clone()).collect();
        assert_eq!(header.signature.check(&case.inputs, &outputs), Ok(()), "{}", case.file);
    }
    let cnn = read(&case("cnn").bytes()).expect("a model");
    assert_eq!(cnn.signature.inputs[0].shape, [-1, 3, 12, 12]);
    assert_eq!((cnn.parameters, cnn.weights.as_str(), cnn.nodes), (271, "F32", 9));
    let lstm = read(&case("lstm").bytes()).expect("a model");
    assert_eq!((lstm.signature.inputs[0].shape.as_slice(), lstm.nodes), ([-1, 1, 2].as_slice(), 6));
    assert_eq!(lstm.signature.inputs[3].shape, [] as [i64; 0]);
}

#[test]
fn what_is_cut_short_is_refused_and_nothing_that_is_flipped_panics() {
    for case in cases() {
        let whole = case.bytes();
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{} {end}", case.file);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                if let Err(error) = read(&flipped) {
                    assert!(error.to_string().len() < 2_000, "{error}");
                }
            }
        }
    }
}

#[test]
fn graphs_are_read_in_the_order_in_which_they_are_computed() {
    let good = with(&[node(&["x"], &["a"], &[]), node(&["a"], &["y"], &[])]);
    let header = read(&good).expect("a model");
    assert_eq!(header.signature.inputs[0].shape, [-1]);
    for (parts, says) in [
        (vec![node(&["b"], &["a"], &[]), node(&["a"], &["b", "y"], &[])], "'b' is read before"),
        (vec![node(&["y"], &["y"], &[])], "'y' is read before"),
        (vec![node(&["x"], &["x", "y"], &[])], "'x' is made twice"),
        (vec![node(&["x"], &["a"], &[])], "'y' is read before it is made, or never"),
    ] {
        let error = read(&with(&parts)).expect_err("must be refused").to_string();
        assert!(error.contains(says), "{error}");
    }
    // An output that is left out has no name.
    assert!(read(&with(&[node(&["x"], &["", "y", ""], &[])])).is_ok());
    // What is around a graph is known inside of it, and not the other way round.
    let inside = |graph: &[Vec<u8>]| field(5, &field(6, &graph.concat()));
    let branch = inside(&[node(&["x"], &["z"], &[]), value(12, "z")]);
    assert!(read(&with(&[node(&["x"], &["y"], &branch)])).is_ok());
    let leaks = [node(&["x"], &["a"], &branch), node(&["z"], &["y"], &[])];
    assert!(read(&with(&leaks)).is_err());
    let mut deep = inside(&[]);
    for _ in 0..MAX_DEPTH {
        deep = inside(&[node(&["x"], &["z"], &deep)]);
    }
    let error = read(&with(&[node(&["x"], &["y"], &deep)])).expect_err("too deep").to_string();
    assert!(error.contains("nest more than"), "{error}");
}

#[test]
fn weights_have_the_bytes_that_their_shapes_need() {
    let one = |tensor: Vec<u8>| {
        read(&with(&[field(5, &tensor), node(&["x"], &["y"], &[])])).map(|header| header.parameters)
    };
    assert_eq!(one(weights("w", &[2, 3], &field(9, &[0; 24]))).expect("raw"), 6);
    assert_eq!(one(weights("w", &[2, 3], &field(4, &[0; 24]))).expect("floats"), 6);
    assert_eq!(one(weights("w", &[], &field(9, &[0; 4]))).expect("one"), 1);
    assert_eq!(one(weights("w", &[0, 3], &[])).expect("none"), 0);
    // Whole numbers of 64 bits: as bytes, and as a list.
    let whole = |more: Vec<u8>| one([weights("w", &[1], &more), vec![0x10, 7]].concat());
    for good in [0, -1, i64::from(i32::MAX), i64::from(i32::MIN), i64::MAX, i64::MIN + 1] {
        assert_eq!(whole(field(9, &good.to_le_bytes())).expect("narrow"), 1, "{good}");
    }
    let far = field(7, &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    for bad in [field(9, &(1_i64 << 31).to_le_bytes()), far] {
        let error = whole(bad).expect_err("must be refused").to_string();
        assert!(error.contains("beyond 32 bits"), "{error}");
    }
    for (tensor, says) in [
        (weights("w", &[2, 3], &field(9, &[0; 23])), "have 23 bytes"),
        (weights("w", &[2, 3], &[]), "have 0 numbers"),
        (weights("w", &[2, 3], &field(4, &[0; 20])), "have 5 numbers"),
        (weights("w", &[1 << 30, 1 << 30, 1 << 30], &field(9, &[0; 4])), "have 4 bytes"),
        (weights("w", &[u64::MAX], &field(9, &[0; 4])), "have 4 bytes"),
        (weights("w", &[1; 17], &field(9, &[0; 4])), "more than 16 numbers"),
        (weights("", &[1], &field(9, &[0; 4])), "name has 0 bytes"),
        // A tensor under an input's name is the input's value, so that none is left to be given.
        (weights("x", &[1], &field(9, &[0; 4])), "0 inputs"),
        (weights("w", &[1], &field(13, b"\x0a\x08location")), "outside of the file"),
        (weights("w", &[1], &[0x70, 1]), "outside of the file"),
        ([weights("w", &[1], &field(9, &[0; 4])), vec![0x10, 8]].concat(), "of type 8"),
    ] {
        let error = one(tensor).expect_err("must be refused").to_string();
        assert!(error.contains(says), "{error} / {says}");
    }
}

#[test]
fn what_is_no_model_of_this_format_is_refused() {
    let x = node(&["x"], &["y"], &[]);
    let graph = field(7, &[x.clone(), value(11, "x"), value(12, "y")].concat());
    let set = field(8, &[0x10, 17]);
    for (bytes, says) in [
        (Vec::new(), "no version"),
        (b"GGUF\x03\0\0\0".to_vec(), "no ONNX"),
        (vec![0x08, 8], "no set of operators"),
        ([vec![0x08, 8], set.clone()].concat(), "no graph"),
        ([vec![0x08, 8], graph.clone()].concat(), "no set of operators"),
        ([vec![0x08, 99], graph.clone(), set.clone()].concat(), "version 99"),
        ([vec![0x08, 8], graph.clone(), graph, set].concat(), "two graphs"),
        (file(&[x.clone(), value(11, "x")]), "1 inputs and 0 outputs"),
        (file(&[x.clone(), value(11, "x"), field(12, &field(1, b"y"))]), "no tensor"),
        (file(&[x, value(11, "x"), value(12, "y"), field(15, b"")]), "sparse"),
    ] {
        let error = read(&bytes).expect_err("must be refused").to_string();
        assert!(error.contains(says), "{error} / {says}");
    }
}
