//! Files that a node learns from, which may come from anybody: images and tables.
//!
//! Holds: read as what the job says or refused in few words, within the bounds of time and memory
//! whatever a file says of its sizes.

use std::path::Path;

use selvedge_train::{Schema, Shape, Table, TrainError, read_image, read_parquet};

use super::{Target, none};

/// Characters of an error: it may repeat a name of the file, but not the file.
const ERROR_CHARS: usize = 2_000;
/// Pixels of an image: enough for every path of a decoder, and soon decoded without optimisation.
const PIXELS: u64 = 1 << 16;
/// Values of a table, for the same reason.
const VALUES: usize = 1 << 16;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "file.image",
        holds: "as many values as the job says, each from 0 to 1, or refused in few words",
        check: check_image,
        shares: &[],
        seeds: none,
        words: &[
            "IHDR",
            "IDAT",
            "IEND",
            "PLTE",
            "tRNS",
            "acTL",
            "eXIf",
            "iCCP",
            "\u{0}\u{0}\u{0}\u{1}",
            "Exif\u{0}\u{0}",
            "P5\n16 8\n255\n",
            "P7\nWIDTH 16\nHEIGHT 8\nDEPTH 4\nMAXVAL 65535\nENDHDR\n",
        ],
    },
    Target {
        name: "file.parquet",
        holds: "examples of the job's shape and classes, or refused in few words",
        check: check_parquet,
        shares: &[],
        seeds: none,
        words: &["PAR1", "PARE", "state", "heat", "schema"],
    },
];

fn check_image(bytes: &[u8]) {
    let path = Path::new("a.png");
    for (channels, width, height) in [(1, 16, 8), (3, 4, 3)] {
        let shape = Shape::Image { channels, height, width };
        for resize in [false, true] {
            match read_image(path, bytes, shape, resize, PIXELS) {
                Ok(values) => {
                    assert_eq!(values.len(), channels * height * width);
                    assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
                }
                Err(error) => check_error(&error),
            }
        }
    }
}

fn check_parquet(bytes: &[u8]) {
    let schema = Schema { shape: Shape::Flat(2), classes: 2 };
    for classes in [&["ok", "worn"][..], &[]] {
        let table = Table {
            path: "a.parquet".into(),
            label: "state".to_owned(),
            values: ["heat", "hum"].map(str::to_owned).to_vec(),
            classes: classes.iter().map(|&name| name.to_owned()).collect(),
            scale: 1.0,
        };
        match read_parquet(&table, bytes.to_vec(), &schema, VALUES) {
            Ok(examples) => {
                assert!(!examples.is_empty() && examples.len() * 2 == examples.values().len());
                assert!(examples.labels().iter().all(|label| *label < 2));
            }
            Err(error) => check_error(&error),
        }
    }
}

fn check_error(error: &TrainError) {
    let length = error.to_string().chars().count();
    assert!((1..ERROR_CHARS).contains(&length), "an error of {length} characters");
}
