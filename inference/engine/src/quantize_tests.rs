use std::fs::File;

use super::*;
use crate::gauge::Gauge;
use crate::gguf::Gguf;
use crate::testing::{Writer, temporary};

const EASY: Recipe = Recipe { mixture: Mixture::Q8_0, again: false };

/// The tiny model with a matrix that is wide enough for all forms.
fn model() -> Writer {
    let mut writer = Writer::tiny(5);
    writer.number("general.file_type", 0);
    writer.text("general.name", "Größe");
    writer.matrix(6, "blk.0.wide.weight", &[512, 8]);
    writer
}

fn turned(bytes: &[u8], recipe: Recipe) -> Result<(Vec<u8>, Quantized), EngineError> {
    let file = temporary(bytes);
    let mut out = Vec::new();
    let found = quantize(file.path(), &mut out, recipe, &mut |_, _| ())?;
    Ok((out, found))
}

/// All numbers of a tensor, as a reader of the file finds them.
fn read(gguf: &Gguf, name: &str) -> Vec<f32> {
    let info = gguf.tensor(name).unwrap();
    let mut file = File::open(&gguf.path).unwrap();
    let bytes = gguf.read(&mut file, info).unwrap();
    let row = *info.dims.last().unwrap();
    numbers(info.kind, &bytes, [info.elements() as usize / row, row]).unwrap()
}

#[test]
fn every_form_is_written_and_all_else_is_as_it_was() {
    let bytes = model().bytes();
    let before = temporary(&bytes);
    let before = Gguf::open(before.path()).unwrap();
    // The form of a wide matrix, and how much of its length may be lost.
    for (mixture, kind, most) in [
        (Mixture::F16, GgmlDType::F16, 0.000_5),
        (Mixture::Q8_0, GgmlDType::Q8_0, 0.01),
        (Mixture::Q6K, GgmlDType::Q6K, 0.03),
        (Mixture::Q5KM, GgmlDType::Q5K, 0.06),
        (Mixture::Q5KS, GgmlDType::Q5K, 0.06),
        (Mixture::Q4KM, GgmlDType::Q4K, 0.1),
        (Mixture::Q4KS, GgmlDType::Q4K, 0.1),
        (Mixture::Q5_1, GgmlDType::Q5_1, 0.06),
        (Mixture::Q5_0, GgmlDType::Q5_0, 0.08),
        (Mixture::Q4_1, GgmlDType::Q4_1, 0.1),
        (Mixture::Q4_0, GgmlDType::Q4_0, 0.15),
    ] {
        let (out, found) = turned(&bytes, Recipe { mixture, again: false }).unwrap();
        assert_eq!((found.bytes_before, found.bytes_after), (bytes.len() as u64, out.len() as u64));
        let file = temporary(&out);
        let after = Gguf::open(file.path()).unwrap();
        assert_eq!(after.number("general.file_type"), Some(u64::from(mixture.file_type())));
        let others = |gguf: &Gguf| {
            let mut all = gguf.metadata.clone();
            OWN_KEYS.iter().for_each(|key| drop(all.remove(*key)));
            all
        };
        assert_eq!(others(&before), others(&after));
        assert_eq!(after.tensor("blk.0.wide.weight").unwrap().kind, kind, "{mixture}");
        assert_eq!(found.tensors.len(), before.tensors.len());
        for told in &found.tensors {
            let (info, was) =
                (after.tensor(&told.name).unwrap(), before.tensor(&told.name).unwrap());
            assert_eq!((&info.dims, &spelled(info.kind)), (&was.dims, &told.to));
            let (old, new) = (read(&before, &told.name), read(&after, &told.name));
            let square = |value: f32| f64::from(value).powi(2);
            let lost: f64 = old.iter().zip(&new).map(|(a, b)| square(a - b)).sum();
            let all: f64 = old.iter().copied().map(square).sum();
            let error = (lost / all).sqrt();
            assert!((error - told.error).abs() < 1e-6, "{} {error} {}", told.name, told.error);
            assert!(error < most, "{mixture} {} {error}", told.name);
            assert_eq!(info.dims.len() == 1, error == 0.0, "{mixture} {}", told.name);
        }
    }
}

/// What the engine makes of the file that was written.
#[test]
fn a_quantized_model_foretells_as_the_first_one_did() {
    let text = "anchors keep shares of what nodes learn, and nobody sees an update. ".repeat(3);
    let perplexity = |bytes: &[u8]| {
        let mut gauge = Gauge::open(temporary(bytes).path(), 1).unwrap();
        let gauged = gauge.foretell(&text, 150, &mut |_, _| ()).unwrap();
        assert_eq!(gauged.tokens, 149);
        assert_eq!(gauge.write(&text, 3).unwrap(), 3);
        gauged.perplexity
    };
    let bytes = Writer::tiny(5).bytes();
    let first = perplexity(&bytes);
    let (eight, _) = turned(&bytes, EASY).unwrap();
    let (four, _) = turned(&bytes, Recipe { mixture: Mixture::Q4_0, again: false }).unwrap();
    let near = |other: f64, most: f64| ((other / first) - 1.0).abs() < most;
    assert!(near(perplexity(&eight), 0.01), "{first} {}", perplexity(&eight));
    assert!(near(perplexity(&four), 0.3), "{first} {}", perplexity(&four));
}

/// What other programs are asked for the same tokens by.
#[test]
fn windows_lose_together_what_the_text_loses() {
    let text = "a node that is asked answers, or says why it does not. ".repeat(20);
    let file = temporary(&Writer::tiny(5).bytes());
    let mut gauge = Gauge::open(file.path(), 1).unwrap();
    let gauged = gauge.foretell(&text, 700, &mut |_, _| ()).unwrap();
    let windows = Gauge::windows(file.path(), &text, 700).unwrap();
    assert_eq!(windows.iter().map(Vec::len).collect::<Vec<_>>(), [512, 188]);
    assert_eq!(windows.iter().map(|window| window.len() - 1).sum::<usize>(), gauged.tokens);
    let steps = std::cell::Cell::new(0);
    let clock = || {
        steps.set(steps.get() + 1);
        std::time::Duration::from_secs(steps.get())
    };
    let (mut loss, mut took, mut read) = (0.0, 0, 0);
    for window in &windows {
        let (lost, computed) = gauge.lose(window, &clock, &mut |count| read += count).unwrap();
        loss += lost;
        took += computed.as_secs();
    }
    assert!((loss - gauged.perplexity.ln() * gauged.tokens as f64).abs() < 1e-6, "{loss}");
    // A second for each 64 tokens that are computed at once.
    assert_eq!((took, read), (8 + 3, 700));
    let long = vec![0; Writer::CONTEXT as usize + 1];
    let said = gauge.lose(&long, &clock, &mut |_| ()).unwrap_err().to_string();
    assert!(said.contains("513") && said.contains("512"), "{said}");
    assert!(gauge.lose(&[1, 1_000], &clock, &mut |_| ()).is_err());
}

#[test]
fn what_was_lost_is_not_lost_twice_without_being_asked() {
    let (eight, _) = turned(&model().bytes(), EASY).unwrap();
    let smaller = Recipe { mixture: Mixture::Q4KS, again: false };
    let said = turned(&eight, smaller).unwrap_err().to_string();
    assert!(said.contains("is Q8_0 already"), "{said}");
    let (four, found) = turned(&eight, Recipe { again: true, ..smaller }).unwrap();
    assert!(four.len() < eight.len());
    // More bits bring nothing back, so nothing is turned into them.
    let (same, back) = turned(&four, Recipe { again: true, ..EASY }).unwrap();
    assert_eq!(same.len(), four.len());
    for (then, now) in found.tensors.iter().zip(&back.tensors) {
        assert_eq!((&then.to, &now.to, now.error), (&now.from, &now.from, 0.0));
    }
}

/// What other forms can be made of without asking once more.
#[test]
fn what_was_quantized_is_written_out_in_halves_where_that_is_asked_for() {
    let (four, _) =
        turned(&model().bytes(), Recipe { mixture: Mixture::Q4_1, again: false }).unwrap();
    let half = Recipe { mixture: Mixture::F16, again: false };
    assert!(turned(&four, half).unwrap_err().to_string().contains("already"));
    let (out, found) = turned(&four, Recipe { again: true, ..half }).unwrap();
    assert!(out.len() > four.len());
    let (before, after) = (temporary(&four), temporary(&out));
    let (before, after) = (Gguf::open(before.path()).unwrap(), Gguf::open(after.path()).unwrap());
    for told in &found.tensors {
        let info = after.tensor(&told.name).unwrap();
        let expected = if info.dims.len() > 1 { GgmlDType::F16 } else { GgmlDType::F32 };
        assert_eq!(info.kind, expected, "{}", told.name);
        assert!(told.error < 0.000_5, "{} {}", told.name, told.error);
        for (old, new) in read(&before, &told.name).iter().zip(read(&after, &told.name)) {
            assert!((old - new).abs() <= old.abs() / 1_000.0 + 1e-7, "{}: {old} {new}", told.name);
        }
    }
    assert_eq!(turned(&out, EASY).unwrap().1.tensors.len(), found.tensors.len());
}

#[test]
fn weights_that_are_no_numbers_and_damaged_files_are_refused() {
    let mut writer = model();
    writer.fill("blk.0.wide.weight", f32::NAN);
    let said = turned(&writer.bytes(), EASY).unwrap_err().to_string();
    assert!(said.contains("'blk.0.wide.weight' has a weight that is no number"), "{said}");
    let bytes = model().bytes();
    assert!(turned(&bytes[..bytes.len() / 2], EASY).is_err());
    assert!(turned(b"GGUF", EASY).is_err());
}

/// A disk that is full.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(left) = self.0.checked_sub(bytes.len()) else {
            return Err(std::io::ErrorKind::StorageFull.into());
        };
        self.0 = left;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_told_and_progress_ends_at_the_end() {
    let file = temporary(&model().bytes());
    let full = quantize(file.path(), Full(5_000), EASY, &mut |_, _| ());
    assert!(matches!(full, Err(EngineError::Written(_))), "{full:?}");
    let mut told = Vec::new();
    quantize(file.path(), Vec::new(), EASY, &mut |done, all| told.push((done, all))).unwrap();
    assert!(told.is_sorted() && told.last().is_some_and(|(done, all)| done == all));
}
