use super::*;

const GREY: &[u8] = include_bytes!("../../samples/grey.png");
const GREY_VALUES: [u8; 12] = [0, 255, 51, 102, 153, 204, 17, 34, 68, 85, 119, 136];

fn told(bytes: &[u8], channels: usize, size: (usize, usize)) -> Result<Vec<f32>, TrainError> {
    scaled(bytes, channels, size, false)
}

fn scaled(
    bytes: &[u8],
    channels: usize,
    (width, height): (usize, usize),
    resize: bool,
) -> Result<Vec<f32>, TrainError> {
    let mut values = Vec::new();
    let shape = Shape::Image { channels, height, width };
    append(Path::new("x"), bytes, shape, resize, &mut values)?;
    Ok(values)
}

fn said(bytes: &[u8], channels: usize, size: (usize, usize)) -> String {
    told(bytes, channels, size).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn grey_is_what_an_idx_file_would_give_at_any_depth() -> Result<(), TrainError> {
    let idx = GREY_VALUES.map(|value| f32::from(value) / 255.0);
    assert_eq!(told(GREY, 1, (4, 3))?, idx);
    assert_eq!(told(include_bytes!("../../samples/grey.pgm"), 1, (4, 3))?, idx);
    assert_eq!(told(include_bytes!("../../samples/deep.png"), 1, (4, 3))?, idx);
    assert_eq!(told(GREY, 3, (4, 3))?, [idx, idx, idx].concat());
    Ok(())
}

#[test]
fn colours_come_one_plane_after_the_other() -> Result<(), TrainError> {
    let planes = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0];
    assert_eq!(told(include_bytes!("../../samples/colour.png"), 3, (2, 2))?, planes);
    assert_eq!(told(include_bytes!("../../samples/palette.png"), 3, (2, 2))?, planes);
    assert_eq!(told(include_bytes!("../../samples/opaque.png"), 3, (2, 2))?, planes);
    let grey = told(include_bytes!("../../samples/colour.png"), 1, (2, 2))?;
    assert!(grey[1] > grey[0] && grey[0] > grey[2] && grey[3] == 1.0, "{grey:?}");
    let clear = said(include_bytes!("../../samples/clear.png"), 3, (2, 2));
    assert!(clear.contains("transparent"), "{clear}");
    Ok(())
}

#[test]
fn photographs_are_read_as_they_are_seen() -> Result<(), TrainError> {
    let ramp = told(include_bytes!("../../samples/ramp.jpg"), 1, (16, 8))?;
    for row in ramp.chunks(16) {
        for (column, value) in row.iter().enumerate() {
            let drawn = (column * 16) as f32 / 255.0;
            assert!((value - drawn).abs() < 0.02, "{value} for {drawn}");
        }
    }
    let near = |other: Vec<f32>| {
        other.len() == ramp.len() && other.iter().zip(&ramp).all(|(a, b)| (a - b).abs() < 0.02)
    };
    assert!(near(told(include_bytes!("../../samples/progressive.jpg"), 1, (16, 8))?));
    let turned = include_bytes!("../../samples/turned.jpg");
    assert!(near(told(turned, 1, (16, 8))?));
    // As it is stored it has the other size, which nobody sees.
    let stored = said(turned, 1, (8, 16));
    assert!(stored.contains("16 x 8 pixels, and the job's images have 8 x 16"), "{stored}");
    Ok(())
}

#[test]
fn only_where_it_is_said_is_an_image_scaled() -> Result<(), TrainError> {
    let ramp = include_bytes!("../../samples/ramp.jpg");
    assert!(said(ramp, 1, (4, 2)).contains("resize = true"));
    let small = scaled(ramp, 1, (4, 2), true)?;
    assert_eq!(small.len(), 8);
    assert!(small[..4].is_sorted() && small[0] > 0.05 && small[3] < 0.9, "{small:?}");
    Ok(())
}

#[test]
fn what_is_cut_or_lies_about_its_size_is_refused() {
    let ramp = include_bytes!("../../samples/ramp.jpg");
    for cut in [2, 20, ramp.len() / 2, ramp.len() - 2] {
        assert!(told(&ramp[..cut], 1, (16, 8)).is_err(), "the first {cut} bytes were read");
    }
    for cut in [8, 33, GREY.len() / 2, GREY.len() - 20] {
        assert!(told(&GREY[..cut], 1, (4, 3)).is_err(), "the first {cut} bytes were read");
    }
    let cut = said(&GREY[..GREY.len() / 2], 1, (4, 3));
    assert!(cut.contains("x: the file is cut off") && cut.contains("again"), "{cut}");
    let cut = said(&ramp[..ramp.len() / 2], 1, (16, 8));
    assert!(cut.contains("x: the file is cut off"), "{cut}");
    let cut = said(b"P5\n4 3\n255\n\x01\x02", 1, (4, 3));
    assert!(cut.contains("x: the file is cut off"), "{cut}");
    // Without a byte of what they promise.
    let vast = b"P5\n20000 20000\n255\n";
    assert!(
        said(vast, 1, (4, 3)).contains("20000 x 20000 pixels, and the job's images have 4 x 3")
    );
    let told = |bytes| match scaled(bytes, 1, (4, 3), true) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert!(told(vast).contains("20000 x 20000 pixels; an image has 1 to 33554432"));
    assert!(!told(include_bytes!("../../samples/vast.png")).is_empty());
}
