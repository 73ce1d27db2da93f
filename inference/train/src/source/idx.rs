//! Images and labels in the IDX format, as MNIST is distributed (LeCun, "THE MNIST DATABASE",
//! section FILE FORMATS): a magic number, big-endian sizes, bytes.
//!
//! Owns the header and its bounds. Only unsigned bytes are read, which is what such files hold.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::examples::MAX_VALUES;
use crate::{Examples, Schema, TrainError, Wrong};

/// A pair of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Bytes of three dimensions (images) or two (rows); divided by 255.
    pub images: PathBuf,
    /// Bytes of one dimension: the labels.
    pub labels: PathBuf,
}

/// Two zero bytes, then the type of the values: 8 for unsigned bytes.
const UNSIGNED_BYTES: [u8; 3] = [0, 0, 8];

pub(super) fn read(
    pair: &Idx,
    images: impl Read,
    labels: impl Read,
    schema: &Schema,
) -> Result<Examples, TrainError> {
    let width = schema.check()?;
    let (sides, values) = bytes(&pair.images, images)?;
    let own: Option<usize> =
        sides.iter().skip(1).try_fold(1_usize, |product, &side| product.checked_mul(side));
    check_images(pair, &sides)?;
    if own != Some(width) {
        return Err(TrainError::wrong(
            Wrong::Columns,
            &pair.images,
            format!("examples of {:?}, and the job's have {width} values", &sides[1..]),
        ));
    }
    let (counted, labels) = bytes(&pair.labels, labels)?;
    check_labels(pair, &sides, &counted)?;
    if let Some(at) = labels.iter().position(|&label| usize::from(label) >= schema.classes) {
        let (label, classes) = (labels[at], schema.classes);
        let reason = format!(
            "example {at} has the label {label}, and the job has {classes} classes, counted from 0"
        );
        return Err(TrainError::wrong(Wrong::Classes, &pair.labels, reason));
    }
    let values = values.iter().map(|&byte| f32::from(byte) / 255.0).collect();
    Examples::new(schema.clone(), values, labels.iter().map(|&label| u32::from(label)).collect())
}

/// Looks at the headers of both files.
pub(super) fn glance(
    pair: &Idx,
    mut images: impl Read,
    mut labels: impl Read,
) -> Result<(), TrainError> {
    let sides_of_images = sides(&pair.images, &mut images)?;
    check_images(pair, &sides_of_images)?;
    check_labels(pair, &sides_of_images, &sides(&pair.labels, &mut labels)?)
}

fn check_images(pair: &Idx, sides: &[usize]) -> Result<(), TrainError> {
    if sides.len() == 1 {
        let reason = "it has one number for each example, as labels have: are `images` and \
                      `labels` of [[data]] swapped?";
        return Err(TrainError::wrong(Wrong::Columns, &pair.images, reason));
    }
    Ok(())
}

fn check_labels(pair: &Idx, sides: &[usize], counted: &[usize]) -> Result<(), TrainError> {
    if counted.len() != 1 || counted.first() != sides.first() {
        return Err(TrainError::malformed(
            &pair.labels,
            format!(
                "labels of {counted:?} for {} examples; there is one for each example",
                sides[0]
            ),
        ));
    }
    Ok(())
}

/// The sizes (one at least) and the bytes that follow them, exactly as many as they say.
fn bytes(path: &Path, mut file: impl Read) -> Result<(Vec<usize>, Vec<u8>), TrainError> {
    let failed = |source| TrainError::Io { path: path.to_owned(), source };
    let sides = sides(path, &mut file)?;
    let total = sides
        .iter()
        .try_fold(1_usize, |product, &side| product.checked_mul(side))
        .filter(|&total| total > 0 && total <= MAX_VALUES)
        .ok_or_else(|| TrainError::TooLarge {
            what: format!("{}: {sides:?} values", path.display()),
            limit: MAX_VALUES,
        })?;
    // Read before it is believed: a header that lies does not get the memory it names.
    let mut values = Vec::new();
    let limit = u64::try_from(total).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut values).map_err(failed)?;
    if values.len() != total {
        return Err(TrainError::malformed(
            path,
            format!("its header promises {total} bytes, and it holds {}", at_least(&values, total)),
        ));
    }
    Ok((sides, values))
}

/// The sizes in a header, one at least.
fn sides(path: &Path, file: &mut impl Read) -> Result<Vec<usize>, TrainError> {
    // A header that is not all there is no fault of the disk.
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::UnexpectedEof => {
            TrainError::malformed(path, "too short for an IDX file: it is empty or cut off")
        }
        _ => TrainError::Io { path: path.to_owned(), source },
    };
    let mut magic = [0; 4];
    file.read_exact(&mut magic).map_err(failed)?;
    let [zero, zero_too, kind, dimensions] = magic;
    if [zero, zero_too, kind] != UNSIGNED_BYTES || !(1..=3).contains(&dimensions) {
        return Err(TrainError::malformed(
            path,
            "not an IDX file of unsigned bytes (is it still compressed?)",
        ));
    }
    let mut sides = Vec::new();
    for _ in 0..dimensions {
        let mut size = [0; 4];
        file.read_exact(&mut size).map_err(failed)?;
        sides.push(usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX));
    }
    Ok(sides)
}

fn at_least(values: &[u8], total: usize) -> String {
    if values.len() > total { "more".to_owned() } else { values.len().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    fn pair() -> Idx {
        Idx { images: "images".into(), labels: "labels".into() }
    }

    fn told(images: &[u8], labels: &[u8]) -> Result<Examples, TrainError> {
        let shape = Shape::Image { channels: 1, height: 2, width: 2 };
        read(&pair(), images, labels, &Schema { shape, classes: 10 })
    }

    const IMAGES: &[u8] =
        &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 255, 51, 0, 255, 255, 0, 0];
    const LABELS: &[u8] = &[0, 0, 8, 1, 0, 0, 0, 2, 7, 3];

    #[test]
    fn images_and_labels_are_paired() -> Result<(), TrainError> {
        let examples = told(IMAGES, LABELS)?;
        assert_eq!(examples.labels(), [7, 3]);
        assert_eq!(examples.row(0), [0.0, 1.0, 0.2, 0.0]);
        Ok(())
    }

    #[test]
    fn hostile_headers_are_refused() {
        let said = |images: &[u8]| told(images, LABELS).err().map(|e| e.to_string());
        assert!(said(&IMAGES[..10]).unwrap_or_default().contains("too short for an IDX file"));
        assert!(said(&IMAGES[..20]).unwrap_or_default().contains("promises 8 bytes"));
        assert!(said(&[IMAGES, &[1]].concat()).unwrap_or_default().contains("holds more"));
        assert!(said(&[0x1f, 0x8b, 8, 0]).unwrap_or_default().contains("compressed"));
        let mut huge = vec![0, 0, 8, 3];
        huge.extend([0xff; 12]);
        assert!(said(&huge).unwrap_or_default().contains("limit"));
        assert!(said(LABELS).unwrap_or_default().contains("are `images` and `labels` of [[data]]"));
        let rows = [0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 7, 7];
        assert!(said(&rows).unwrap_or_default().contains("examples of [3], and the job's have 4"));
        assert!(told(IMAGES, IMAGES).is_err());
    }

    #[test]
    fn what_is_wrong_has_a_word() {
        let word = |images: &[u8], labels: &[u8]| match told(images, labels) {
            Err(TrainError::Malformed { wrong, .. }) => Some(wrong),
            _ => None,
        };
        assert_eq!(word(LABELS, LABELS), Some(Wrong::Columns));
        assert_eq!(word(IMAGES, &[0, 0, 8, 1, 0, 0, 0, 2, 7, 10]), Some(Wrong::Classes));
        assert_eq!(word(&IMAGES[..20], LABELS), Some(Wrong::Content));
    }
}
