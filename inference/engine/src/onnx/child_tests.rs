use super::super::testing::{Case, assert_near, case, cases};
use super::*;

/// What a process answers: one for its model, one for each request.
fn answers(case: &Case, file: &[u8], runs: &[(&[Tensor], &[&str])]) -> Vec<(Told, Vec<Tensor>)> {
    let mut asks = Vec::new();
    let open = Ask::Open {
        version: VERSION,
        file_bytes: file.len() as u64,
        data_bytes: 1 << 30,
        threads: 2,
        classifies: false,
        text: String::new(),
        labels: Vec::new(),
    };
    speech::write(&mut asks, &open, [file].into_iter()).expect("said");
    for (inputs, outputs) in runs {
        let heads = inputs.iter().map(Head::of).collect();
        let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
        let run = Ask::Run { inputs: heads, outputs, within_ms: 60_000 };
        speech::write(&mut asks, &run, inputs.iter().map(|one| one.data.as_slice())).expect("said");
    }
    let (mut told, watch) = (Vec::new(), Watch::start().expect("a thread"));
    serve(&mut asks.as_slice(), &mut told, &watch, &|bytes| assert_eq!(bytes, 1 << 30))
        .unwrap_or_else(|error| panic!("{}: {error}", case.file));
    let mut told = told.as_slice();
    std::iter::from_fn(|| {
        let said: Told = speech::read(&mut told).expect("understood")?;
        let tensors = match said.clone() {
            Told::Made(heads) => speech::read_tensors(&mut told, heads).expect("whole"),
            _ => Vec::new(),
        };
        Some((said, tensors))
    })
    .collect()
}

#[test]
fn models_give_what_onnxruntime_gives_each_time_the_same() {
    for case in cases() {
        let runs = [(case.inputs.as_slice(), [].as_slice()); 3];
        let told = answers(&case, &case.bytes(), &runs);
        assert_eq!((told.len(), &told[0].0), (4, &Told::Opened), "{}", case.file);
        assert_near(&told[1].1, &case.outputs, &case.file);
        assert_eq!(told[1], told[2], "{}", case.file);
        assert_eq!(told[1], told[3], "{}", case.file);
    }
}

#[test]
fn outputs_come_as_they_are_named() {
    let case = case("mlp");
    let told = answers(&case, &case.bytes(), &[(&case.inputs, &["class"])]);
    assert_near(&told[1].1, &case.outputs[1..], "class alone");
    let both = answers(&case, &case.bytes(), &[(&case.inputs, &["class", "probabilities"])]);
    assert_eq!(both[1].1[0], told[1].1[0]);
    assert_near(&both[1].1[1..], &case.outputs[..1], "the other order");
}

#[test]
fn rows_of_a_batch_do_not_depend_on_each_other() {
    let case = case("mlp");
    let whole = answers(&case, &case.bytes(), &[(&case.inputs, &["probabilities"])]);
    let rows = case.inputs[0].data.chunks(16).map(|row| Tensor {
        shape: vec![1, 4],
        data: row.to_vec(),
        ..case.inputs[0].clone()
    });
    let alone: Vec<u8> = rows
        .flat_map(|row| {
            answers(&case, &case.bytes(), &[(&[row], &["probabilities"])])[1].1[0].data.clone()
        })
        .collect();
    let mut joined = case.outputs[0].clone();
    joined.data = alone;
    assert_near(&[joined], &whole[1].1, "one by one");
}

#[test]
fn what_cannot_be_computed_is_told_and_the_next_request_is_answered() {
    let case = case("kinds");
    let mut far = case.inputs.clone();
    far[0].data[..8].copy_from_slice(&(1_i64 << 40).to_le_bytes());
    let mut beyond = case.inputs.clone();
    beyond[0].data[..8].copy_from_slice(&99_i64.to_le_bytes());
    let runs =
        [(far.as_slice(), [].as_slice()), (beyond.as_slice(), &[]), (case.inputs.as_slice(), &[])];
    let told = answers(&case, &case.bytes(), &runs);
    let Told::Refused(why) = &told[1].0 else { panic!("{told:?}") };
    assert!(why.contains("element 0 is 1099511627776"), "{why}");
    assert!(matches!(&told[2].0, Told::Refused(_) | Told::Failed(_)), "{told:?}");
    assert_near(&told[3].1, &case.outputs, "after all that");
}

#[test]
fn files_that_cannot_be_run_are_told_apart() {
    let case = case("mlp");
    let unknown = replaced(&case.bytes(), b"Softmax", b"Softmix");
    for file in [&unknown[..], b"", b"GGUF", &case.bytes()[..300]] {
        let told = answers(&case, file, &[(&case.inputs, &[])]);
        assert!(matches!(told.as_slice(), [(Told::Unusable(_), _)]), "{told:?}");
    }
    let said = format!("{:?}", answers(&case, &unknown, &[]));
    assert!(said.contains("Softmix"), "{said}");
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old).expect("it is there");
    let mut bytes = bytes.to_vec();
    bytes[at..at + old.len()].copy_from_slice(new);
    bytes
}
