use super::*;

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() }
}

fn signature() -> Signature {
    Signature {
        platform: "onnx".to_owned(),
        inputs: vec![spec("x", Datatype::Fp32, &[-1, 2]), spec("n", Datatype::Int64, &[])],
        outputs: vec![spec("y", Datatype::Fp32, &[-1, 3])],
    }
}

fn tensor(name: &str, datatype: Datatype, shape: &[u64], bytes: usize) -> Tensor {
    Tensor { name: name.to_owned(), datatype, shape: shape.to_vec(), data: vec![0; bytes] }
}

#[test]
fn what_fits_passes_with_any_batch_and_any_number() {
    let n = tensor("n", Datatype::Int64, &[], 8);
    for rows in [0, 1, 3] {
        let mut x = tensor("x", Datatype::Fp32, &[rows, 2], rows as usize * 8);
        if let Some(first) = x.data.first_chunk_mut() {
            *first = 0x7fc0_0000_u32.to_le_bytes();
        }
        assert_eq!(signature().check(&[n.clone(), x], &["y".to_owned()]), Ok(()));
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let x = tensor("x", Datatype::Fp32, &[1, 2], 8);
    let n = tensor("n", Datatype::Int64, &[], 8);
    let other = |change: fn(&mut Tensor)| {
        let mut x = x.clone();
        change(&mut x);
        vec![x, n.clone()]
    };
    for (inputs, says) in [
        (vec![x.clone()], "the input 'n' of INT64 and shape [] is missing"),
        (vec![x.clone(), n.clone(), x.clone()], "given twice"),
        (other(|x| x.name = "z".to_owned()), "no input 'z'; it has 'x', 'n'"),
        (other(|x| x.datatype = Datatype::Fp64), "it is of FP32, not FP64"),
        (other(|x| x.shape = vec![2]), "the shape [2], where the model takes [-1, 2]"),
        (other(|x| x.shape = vec![1, 3]), "the shape [1, 3]"),
        (other(|x| x.shape = vec![2, 2]), "does not fit its 2 elements"),
        (other(|x| x.shape = vec![u64::MAX, 2]), "does not fit its 2 elements"),
        (other(|x| x.data.truncate(7)), "no whole elements of FP32"),
    ] {
        let refusal = signature().check(&inputs, &[]).expect_err("must be refused");
        assert!(refusal.message.contains(says), "{refusal}");
        assert_eq!(refusal.code, Code::InvalidRequest);
    }
    let outputs = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        signature().check(&[x.clone(), n.clone()], &names).expect_err("must be refused").message
    };
    assert!(outputs(&["z"]).contains("no output 'z'; it has 'y'"));
    assert!(outputs(&["y", "y"]).contains("twice"));
}

#[test]
fn elements_of_bytes_stand_after_their_lengths() {
    let texts = [&b"hi"[..], b"", b"all"];
    let tensor = Tensor::of_bytes("t", vec![3], texts.into_iter());
    assert_eq!(tensor.check(), Ok(()));
    assert_eq!(tensor.byte_elements().expect("whole"), texts);
    for end in 0..tensor.data.len() {
        let cut = Tensor { data: tensor.data[..end].to_vec(), ..tensor.clone() };
        assert!(cut.check().is_err(), "{end}");
    }
    let mut truth = self::tensor("b", Datatype::Bool, &[2], 2);
    assert_eq!(truth.check(), Ok(()));
    truth.data[1] = 2;
    assert!(truth.check().expect_err("no truth").message.contains("element 1 is 2"));
}

#[test]
fn elements_of_bytes_are_counted_as_they_are_listed() {
    let all: Vec<Vec<u8>> = (0..40_u8).map(|at| vec![at; usize::from(at) % 7]).collect();
    for count in [0, 1, 2, all.len()] {
        let elements = || all[..count].iter().map(Vec::as_slice);
        for sides in [count.saturating_sub(1), count, count + 1] {
            let tensor = Tensor::of_bytes("t", vec![sides as u64], elements());
            assert_eq!(tensor.byte_elements().expect("whole").len(), count);
            match tensor.check() {
                Ok(()) => assert_eq!(sides, count),
                Err(refusal) => {
                    assert_ne!(sides, count);
                    let says = format!("does not fit its {count} elements");
                    assert!(refusal.message.contains(&says), "{refusal}");
                }
            }
        }
        // What is cut short is so however many whole ones stand before it.
        let mut cut = Tensor::of_bytes("t", vec![count as u64], elements());
        cut.data.extend([9, 0, 0]);
        let refusal = cut.check().expect_err("cut short");
        assert!(refusal.message.contains("end within an element"), "{refusal}");
        assert_eq!(cut.byte_elements(), Err(refusal));
    }
}

#[test]
fn types_have_one_name_each() {
    for datatype in Datatype::ALL {
        assert_eq!(Datatype::of_name(datatype.as_str()), Some(datatype));
    }
    assert_eq!(Datatype::of_name("fp32"), None);
}
