use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::ImageFormat;

use super::super::header;
use super::super::runtime::Rten;
use super::super::testing::{Case, case, fixture};
use super::*;

const SETTINGS: &str = "labels = ['a', 'b', 'c', 'd', 'e']\nsoftmax = true\n[image]\n\
                        width = 12\nheight = 12\nmean = [0.5, 0.4, 0.3]\nstd = [0.2, 0.25, 0.3]\n";

fn graph(case: &Case) -> Signature {
    header::read(&case.bytes()).expect("a model").signature
}

fn classifier(settings: &str) -> Classifier {
    let case = case("cnn");
    let classify = Classify::of(settings, &[], &graph(&case)).expect("settings");
    let rten = Rten::load(case.bytes(), graph(&case), 1).expect("a model");
    Classifier::new(Box::new(rten), classify)
}

fn asked(pictures: &[&[u8]]) -> Vec<Tensor> {
    vec![Tensor::of_bytes(pictures::INPUT, vec![pictures.len() as u64], pictures.iter().copied())]
}

fn shares(tensor: &Tensor) -> Vec<f64> {
    let floats = tensor.data.as_chunks().0.iter();
    floats.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
}

fn assert_shares(got: &Tensor, name: &str) {
    let known: serde_json::Value =
        serde_json::from_slice(&fixture("picture.json")).expect("a fixture");
    let known: Vec<f64> = serde_json::from_value(known[name].clone()).expect("numbers");
    for (got, wanted) in shares(got).iter().zip(&known) {
        assert!((got - wanted).abs() < 1e-4, "{name}: {got} {wanted}");
    }
}

#[test]
fn pictures_are_told_as_onnxruntime_tells_them() {
    let png = fixture("onnx/picture.png");
    for (name, more) in [("rgb", ""), ("bgr", "channels = 'bgr'\n")] {
        let classifier = classifier(&format!("{SETTINGS}{more}"));
        let told = classifier.run(&asked(&[&png, &png]), &[]).expect("classes");
        assert_eq!(told[2].shape, [2, 5]);
        assert_shares(&told[2], name);
        let (labels, top) = (told[0].byte_elements().expect("whole"), shares(&told[1]));
        let all = shares(&told[2]);
        let best = (0..5).max_by(|a, b| all[*a].total_cmp(&all[*b])).expect("five");
        assert_eq!(labels[0], [b"abcde"[best]]);
        assert!((top[0] - all[best]).abs() < 1e-9 && top[0] >= top[1]);
        assert_eq!(labels[..5], labels[5..], "the same picture twice");
        let coded = STANDARD.encode(&png);
        let told_of_text = classifier.run(&asked(&[coded.as_bytes(), &png]), &[]);
        assert_eq!(told_of_text.expect("classes"), told, "as base64");
        let only = classifier.run(&asked(&[&png]), &["label".to_owned()]).expect("labels");
        assert_eq!((only.len(), &only[0].shape), (1, &vec![1, 5]));
    }
}

#[test]
fn pictures_of_other_sizes_and_kinds_are_brought_to_size() {
    let png = image::load_from_memory(&fixture("onnx/picture.png")).expect("a picture");
    let large = png.resize_exact(48, 24, FilterType::Nearest);
    for resize in ["stretch", "crop"] {
        let classifier = classifier(&format!("{SETTINGS}resize = '{resize}'\n"));
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let mut bytes = Cursor::new(Vec::new());
            large.write_to(&mut bytes, format).expect("written");
            let told = classifier.run(&asked(&[bytes.get_ref()]), &[]).expect("classes");
            let sum: f64 = shares(&told[2]).iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        }
    }
}

#[test]
fn the_middle_of_a_picture_has_the_wanted_shape() {
    let settings: Image = toml::from_str("width = 12\nheight = 6\nresize = 'crop'").expect("good");
    // Green in the middle of red, as large as it has the wanted shape.
    let point = |green: bool| image::Rgb(if green { [0_u8, 255, 0] } else { [255, 0, 0] });
    let wide = image::RgbImage::from_fn(96, 24, |x, _| point((24..72).contains(&x)));
    let high = image::RgbImage::from_fn(24, 48, |_, y| point((18..30).contains(&y)));
    for picture in [wide, high] {
        let sized = settings.sized(&DynamicImage::ImageRgb8(picture)).to_rgb8();
        assert_eq!(sized.dimensions(), (12, 6));
        assert!(sized.pixels().all(|point| point.0 == [0, 255, 0]));
    }
    for (width, height) in [(1, 900), (900, 1)] {
        let sized = settings.sized(&DynamicImage::new_rgb8(width, height));
        assert_eq!((sized.width(), sized.height()), (12, 6));
    }
}

#[test]
fn what_is_no_picture_is_refused() {
    let (classifier, png) = (classifier(SETTINGS), fixture("onnx/picture.png"));
    let refused = |pictures: &[&[u8]]| match classifier.run(&asked(pictures), &[]) {
        Err(Failed::Inputs(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(&[b"GIF89a"]).contains("picture 0: it is neither PNG nor JPEG"));
    assert!(refused(&[&png, &png[..40]]).contains("picture 1"));
    assert!(refused(&[]).contains("0 pictures"));
    assert!(refused(&vec![png.as_slice(); MAX_PICTURES + 1]).contains("65 pictures"));
    // A head that claims more points than anybody has memory for.
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0, 0, 0x7f, 0xff, 0, 0, 0x7f, 0xff]);
    let mut crc = flate(&huge[12..29]);
    crc.reverse();
    huge[29..33].copy_from_slice(&crc);
    let why = refused(&[&huge]);
    assert!(why.contains("picture 0"), "{why}");
}

/// The checksum of a chunk, the lowest byte first.
fn flate(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    (!crc).to_le_bytes()
}

#[test]
fn settings_that_do_not_fit_the_graph_are_refused_by_name() {
    let graph = graph(&case("cnn"));
    let beside: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
    assert!(Classify::of("", &beside, &graph).is_ok(), "labels.txt");
    let tensors = Classify::of("", &beside, &graph).expect("good").signature();
    assert_eq!(tensors.inputs, graph.inputs, "without pictures the graph's own");
    for (text, says) in [
        ("colour = 1", "unknown field"),
        ("labels = ['a']", "1 labels, not 2 to"),
        ("labels = ['a', 'b']", "FP32 of [-1, 2] tells 2 classes"),
        ("output = 'other'", "no such output"),
        ("[image]\nwidth = 0\nheight = 12", "width and height are 1 to"),
        ("[image]\nwidth = 13\nheight = 12", "shape [-1, 3, 12, 12], not FP32 of [-1, 3, 12, 13]"),
        ("[image]\nwidth = 12\nheight = 12\nlayout = 'nhwc'", "not FP32 of [-1, 12, 12, 3]"),
        ("[image]\nwidth = 12\nheight = 12\nchannels = 'gray'", "not FP32 of [-1, 1, 12, 12]"),
        ("[image]\nwidth = 12\nheight = 12\nmean = [1.0]", "mean and std are 3 numbers"),
        ("[image]\nwidth = 12\nheight = 12\nstd = [1.0, 0.0, 1.0]", "none of std is 0"),
    ] {
        let error = Classify::of(text, &beside, &graph).expect_err("must be refused").to_string();
        assert!(error.contains(says), "{error} / {says}");
    }
    let two = Classify::of("[image]\nwidth = 1\nheight = 1", &beside, &{
        let mut two = graph;
        two.inputs.push(two.inputs[0].clone());
        two
    });
    assert!(two.expect_err("must be refused").to_string().contains("takes 2 inputs"));
}
