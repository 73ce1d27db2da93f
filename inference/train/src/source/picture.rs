//! One image as numbers: PNG, JPEG or PNM to the values of an example.
//!
//! Owns the bounds of what is decoded, channels, turning and scaling. Decoding is the image
//! crate's. What an image says of its size is checked before anything of that size is made.

use std::io::{Cursor, ErrorKind};
use std::path::Path;

use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, Limits};

use crate::{Shape, TrainError, Wrong};

/// Bytes of one file: more than cameras write, and little beside a node's other memory.
pub const MAX_FILE_BYTES: u64 = 64 << 20;
/// Pixels of one image: what a camera of 32 megapixels makes, 256 MiB at 16 bits for each of four
/// channels.
pub const MAX_PIXELS: u64 = 1 << 25;
/// Bytes that a decoder may take beside: as many as the largest image itself.
const MAX_DECODER_BYTES: u64 = 8 * MAX_PIXELS;
/// White at 16 bits. Eight bits become sixteen by a factor of 257, of which 255 times are white
/// too: a byte's value is the same as that of an IDX file, to the last bit.
const WHITE: f32 = 65_535.0;

/// What is said of a file that is not whole.
const CUT: &str = "the file is cut off, it ends before the image does: copy or export it again";

/// Begins and ends the compressed part of a JPEG file; within it no byte of 255 is followed by one
/// of these.
const SCAN_BEGINS: [u8; 2] = [0xff, 0xda];
const IMAGE_ENDS: [u8; 2] = [0xff, 0xd9];

/// Adds the values of an image, channel by channel, from 0 for black to 1.
///
/// # Errors
/// [`TrainError::Malformed`] for what is no image, not wholly there or larger than is decoded, and
/// for one of another size than the shape's where it is not to be scaled.
pub(super) fn append(
    path: &Path,
    bytes: &[u8],
    shape: Shape,
    resize: bool,
    values: &mut Vec<f32>,
) -> Result<(), TrainError> {
    append_within(MAX_PIXELS, path, bytes, shape, resize, values)
}

/// Adds the values of an image of at most so many pixels.
pub(super) fn append_within(
    most: u64,
    path: &Path,
    bytes: &[u8],
    shape: Shape,
    resize: bool,
    values: &mut Vec<f32>,
) -> Result<(), TrainError> {
    let Shape::Image { channels, height, width } = shape else {
        return Err(TrainError::Schema(format!("{shape:?} is no image")));
    };
    let wrong = |reason: String| TrainError::malformed(path, reason);
    let (wide, high) = match (u32::try_from(width), u32::try_from(height)) {
        (Ok(wide), Ok(high)) => (wide, high),
        _ => return Err(TrainError::Schema(format!("{shape:?} is larger than any image"))),
    };
    let refused = |(what, reason): Refused| TrainError::wrong(what, path, reason);
    let mut image = decoded(most, bytes, (wide, high), resize).map_err(refused)?;
    if !is_opaque(&image) {
        let reason = "parts of it are transparent, and what is behind them is not told: save it \
                      without an alpha channel";
        return Err(wrong(reason.to_owned()));
    }
    if (image.width(), image.height()) != (wide, high) {
        image = image.resize_exact(wide, high, FilterType::Triangle);
    }
    match channels {
        1 => values.extend(image.into_luma16().iter().map(|&value| f32::from(value) / WHITE)),
        3 => {
            let image = image.into_rgb16();
            for channel in 0..3 {
                let plane = image.pixels().map(|pixel| f32::from(pixel.0[channel]) / WHITE);
                values.extend(plane);
            }
        }
        other => {
            let what = format!("{other} channels: images have 1 (grey) or 3 (colours)");
            return Err(TrainError::Schema(what));
        }
    }
    Ok(())
}

/// Why an image is not taken.
type Refused = (Wrong, String);

/// The image as people see it, once its size is known to be what is wanted or small enough.
fn decoded(
    most: u64,
    bytes: &[u8],
    wanted: (u32, u32),
    resize: bool,
) -> Result<DynamicImage, Refused> {
    let content = |reason: &str| (Wrong::Content, reason.to_owned());
    let format = image::guess_format(bytes).ok();
    let format = format
        .filter(|format| matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Pnm));
    let format = format.ok_or_else(|| content("not a PNG, JPEG or PNM image"))?;
    if format == ImageFormat::Jpeg && is_cut(bytes) {
        return Err(content(CUT));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let told = |error: ImageError| match &error {
        // It reads from memory, so the end that it did not expect is the file's.
        ImageError::IoError(why) if why.kind() == ErrorKind::UnexpectedEof => content(CUT),
        error => content(&error.to_string()),
    };
    let mut decoder = reader.into_decoder().map_err(told)?;
    let (wide, high) = decoder.dimensions();
    let orientation = decoder.orientation().map_err(told)?;
    let pixels = u64::from(wide) * u64::from(high);
    let turned = (wide, high) == (wanted.1, wanted.0);
    if !resize && (wide, high) != wanted && !turned {
        return Err(other_size((wide, high), wanted));
    }
    if pixels == 0 || pixels > most {
        return Err(content(&format!("{wide} x {high} pixels; an image has 1 to {most}")));
    }
    let mut image = DynamicImage::from_decoder(decoder).map_err(told)?;
    image.apply_orientation(orientation);
    let seen = (image.width(), image.height());
    if !resize && seen != wanted {
        return Err(other_size(seen, wanted));
    }
    Ok(image)
}

fn other_size(found: (u32, u32), wanted: (u32, u32)) -> Refused {
    let reason = format!(
        "{} x {} pixels, and the job's images have {} x {}; 'resize = true' in [[data]] scales",
        found.0, found.1, wanted.0, wanted.1
    );
    (Wrong::Columns, reason)
}

/// Whether a JPEG file lacks its end. Decoders fill what is missing with grey, and no job learns
/// from grey that was never photographed. A small image within the file's notes has its own end,
/// before the large one's beginning.
fn is_cut(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    let end = last(IMAGE_ENDS);
    end.is_none() || end < last(SCAN_BEGINS)
}

/// Whether nothing of it is transparent.
fn is_opaque(image: &DynamicImage) -> bool {
    match image {
        DynamicImage::ImageLumaA8(image) => image.pixels().all(|pixel| pixel.0[1] == u8::MAX),
        DynamicImage::ImageRgba8(image) => image.pixels().all(|pixel| pixel.0[3] == u8::MAX),
        DynamicImage::ImageLumaA16(image) => image.pixels().all(|pixel| pixel.0[1] == u16::MAX),
        DynamicImage::ImageRgba16(image) => image.pixels().all(|pixel| pixel.0[3] == u16::MAX),
        other => !other.color().has_alpha(),
    }
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
