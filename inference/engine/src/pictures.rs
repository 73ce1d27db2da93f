//! Pictures as they come in requests: the bytes of a PNG or JPEG.
//!
//! Owns reading them within bounds, whichever model they are for. What becomes of a picture's
//! points is the model's. A picture comes from anybody: it is refused by its head where its points
//! would take too much memory, and turned as its camera says that it was held.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits};

/// Sides of a picture: those of large cameras are below this.
const MAX_SIDE: u32 = 16_384;
/// Pictures of one request: a batch of more is no faster.
pub(crate) const MAX_PICTURES: usize = 64;
/// What models call the input that takes pictures.
pub(crate) const INPUT: &str = "image";

/// A picture whose points take so many bytes at most, also where JSON, which holds texts alone, has
/// it as base64.
pub(crate) fn read(bytes: &[u8], most: u64) -> Result<DynamicImage, String> {
    decoded(&plain(bytes), most)
}

/// A picture's own bytes.
fn plain(bytes: &[u8]) -> Cow<'_, [u8]> {
    // No letter of base64 begins a picture.
    match bytes.first() {
        Some(b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/') => {
            STANDARD.decode(bytes).map_or(Cow::Borrowed(bytes), Cow::Owned)
        }
        _ => Cow::Borrowed(bytes),
    }
}

fn decoded(bytes: &[u8], most: u64) -> Result<DynamicImage, String> {
    let format = image::guess_format(bytes).ok();
    let format = format.filter(|it| matches!(it, ImageFormat::Png | ImageFormat::Jpeg));
    let format = format.ok_or_else(|| "it is neither PNG nor JPEG".to_owned())?;
    let told = |error: image::ImageError| error.to_string();
    let mut reader = ImageReader::with_format(std::io::Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(most);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(told)?;
    let orientation = decoder.orientation().map_err(told)?;
    if decoder.total_bytes() > most {
        return Err(format!("its points have more than {} MiB", most >> 20));
    }
    let mut picture = DynamicImage::from_decoder(decoder).map_err(told)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}
