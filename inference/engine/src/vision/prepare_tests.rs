use image::{Rgb, RgbImage};
use serde_json::json;

use super::*;
use crate::testing::Directory;

const USUAL: Usual =
    Usual { filter: Filter::Bicubic, middle: true, mean: [0.5; CHANNELS], std: [0.25; CHANNELS] };

fn read(said: &Value, side: usize) -> Result<Prepare, EngineError> {
    let directory = Directory::new();
    directory.write("preprocessor_config.json", said.to_string().as_bytes());
    Prepare::read(directory.path(), side, USUAL)
}

#[test]
fn files_of_all_ages_mean_the_same() {
    let newest = json!({"size": {"shortest_edge": 9}, "crop_size": {"height": 8, "width": 8},
        "do_center_crop": true, "resample": 3, "image_mean": [0.5, 0.5, 0.5], "image_std": 0.25});
    let wanted = read(&newest, 8).expect("good");
    assert_eq!((wanted.size, wanted.middle), (Size::Shorter(9), Some((8, 8))));
    assert_eq!(read(&json!({"size": 9, "crop_size": 8}), 8).expect("good"), wanted);
    let directory = Directory::new();
    directory
        .write("processor_config.json", json!({"image_processor": newest}).to_string().as_bytes());
    assert_eq!(Prepare::read(directory.path(), 8, USUAL).expect("good"), wanted);
    let exact = json!({"size": {"height": 8, "width": 8}, "do_center_crop": false, "resample": 2});
    let exact = read(&exact, 8).expect("good");
    assert_eq!((exact.size, exact.middle), (Size::Exact(8, 8), None));
    let plain = json!({"do_resize": false, "do_normalize": false, "do_rescale": false});
    let plain = read(&plain, 8).expect("good");
    assert_eq!((plain.size, plain.scale, plain.std), (Size::Same, 1.0, [1.0; CHANNELS]));
}

#[test]
fn what_gives_other_pictures_than_the_model_sees_is_refused() {
    for (said, part) in [
        (json!({"size": 9, "crop_size": 7}), "7 by 7 points, and the model sees 8 by 8"),
        (json!({"size": 9, "do_center_crop": false}), "sizes of their own"),
        (json!({"size": {"longest_edge": 9}}), "size {\"longest_edge\":9}"),
        (json!({"size": {"height": 0, "width": 8}}), "size"),
        (json!({"size": 100_000}), "size 100000"),
        (json!({"size": "large"}), "size"),
        (json!({"crop_size": {"height": 8}}), "crop_size"),
        (json!({"resample": 0}), "resample 0"),
        (json!({"do_pad": true}), "do_pad"),
        (json!({"image_mean": [0.5, 0.5]}), "image_mean is not 3 numbers"),
        (json!({"image_mean": [0.5, 0.5, "x"]}), "image_mean"),
        (json!({"image_std": [0.5, 0.0, 0.5]}), "image_std"),
        (json!({"resample": -1}), "preprocessor_config.json"),
    ] {
        let refused = read(&said, 8).expect_err("must be refused").to_string();
        assert!(refused.contains(part), "{refused} / {part}");
    }
    let missing = Prepare::read(Directory::new().path(), 8, USUAL).expect_err("missing");
    assert!(missing.to_string().contains("holds no preprocessor_config.json"), "{missing}");
}

#[test]
fn what_is_too_small_for_the_middle_is_set_in_black() {
    let said = json!({"do_resize": false, "crop_size": 4, "do_normalize": false});
    let prepare = read(&said, 4).expect("good");
    let picture = DynamicImage::ImageRgb8(RgbImage::from_pixel(1, 6, Rgb([255, 0, 255])));
    let numbers = prepare.numbers(&picture);
    assert_eq!(numbers.len(), 48);
    for (at, number) in numbers.iter().enumerate() {
        // The column after the middle, in red and blue.
        let lit = at % 4 == 2 && at / 16 != 1;
        assert_eq!(*number, f32::from(u8::from(lit)), "{at}");
    }
}

#[test]
fn a_line_becomes_no_larger_than_what_is_seen_of_it() {
    // As a whole it would have 8 by 131,072 points.
    let prepare =
        read(&json!({"size": 8, "crop_size": 8, "do_normalize": false}), 8).expect("good");
    let line = DynamicImage::ImageRgb8(RgbImage::from_pixel(1, 16_384, Rgb([51; 3])));
    let numbers = prepare.numbers(&line);
    assert!(numbers.len() == 192 && numbers.iter().all(|number| (number - 0.2).abs() < 1e-6));
}
