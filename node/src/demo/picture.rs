//! The picture that the demo of learning together leaves.
//!
//! Owns where it is put, and that no other file is written over. How it is drawn is
//! `selvedge_train::curve`'s.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use selvedge_train::curve::svg;

/// What it is called unless told otherwise.
const USUAL: &str = "learning.svg";
/// By its title a picture of an earlier demo is known again; nothing in it needs to be escaped.
const TITLE: &str = "selvedge demo: digits told right, all nodes together and each alone";
/// How much of a file is looked at: the title stands in the first lines.
const LOOK_BYTES: u64 = 4_096;

/// What was measured.
#[derive(Default)]
pub(super) struct Curve {
    /// The share of all digits held out that was told right, by round.
    pub(super) all: Vec<(u64, f64)>,
    /// What happened in a round, which is the one that was over next.
    pub(super) marks: Vec<(u64, String)>,
}

/// Where the picture is.
pub(super) struct Picture {
    file: PathBuf,
}

impl Picture {
    /// In this file, or in one of the usual name in the current directory; refused where there is
    /// something else.
    pub(super) fn at(file: Option<&Path>) -> Result<Self> {
        let file = file.unwrap_or(Path::new(USUAL));
        let file = std::path::absolute(file)
            .with_context(|| format!("cannot put a picture at {}", file.display()))?;
        if !is_free(&file)? {
            bail!(
                "{} is there already and is no picture of this demo: move it away, or name another \
                 file with --picture FILE",
                file.display()
            );
        }
        // Where it cannot be written that shows now, and not after the first round.
        let is_new = !file.exists();
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&file)
            .and_then(|_| if is_new { std::fs::remove_file(&file) } else { Ok(()) })
            .with_context(|| cannot_write(&file))?;
        Ok(Self { file })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Draws what was measured so far, and beside it each node by its own digits.
    pub(super) fn draw(&self, curve: &Curve, own: &[Vec<(u64, f64)>]) -> Result<()> {
        std::fs::write(&self.file, svg(TITLE, &curve.all, own, &curve.marks))
            .with_context(|| cannot_write(&self.file))
    }
}

fn cannot_write(file: &Path) -> String {
    format!("cannot write {}; --picture FILE names another place", file.display())
}

/// Whether nothing is there, or a picture of an earlier demo.
fn is_free(file: &Path) -> Result<bool> {
    let failed = || format!("cannot look at {}", file.display());
    match std::fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error).with_context(failed),
        Ok(about) if !about.is_file() => return Ok(false),
        Ok(_) => {}
    }
    let mut text = String::new();
    let opened = File::open(file).with_context(failed)?;
    // What is no text is no picture of ours.
    let is_text = opened.take(LOOK_BYTES).read_to_string(&mut text).is_ok();
    Ok(is_text && text.starts_with("<svg ") && text.contains(&format!("<title>{TITLE}</title>")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_picture_of_an_earlier_demo_is_drawn_over_and_nothing_else() {
        let scratch = Scratch::new("picture");
        let file = scratch.path().join("curve.svg");
        let picture = Picture::at(Some(&file)).unwrap();
        let curve = Curve { all: vec![(0, 0.1), (1, 0.5)], marks: vec![(1, "a <b> dies".into())] };
        picture.draw(&curve, &[vec![(0, 0.2)]]).unwrap();
        let first = std::fs::read_to_string(&file).unwrap();
        assert!(first.contains("a &lt;b&gt; dies"), "{first}");
        Picture::at(Some(&file)).unwrap().draw(&Curve::default(), &[]).unwrap();
        assert_ne!(std::fs::read_to_string(&file).unwrap(), first);
        for other in [&b"<svg xmlns=\"\"><title>mine</title></svg>"[..], b"", b"\xff\xfe"] {
            std::fs::write(&file, other).unwrap();
            let refused = Picture::at(Some(&file)).err().unwrap().to_string();
            assert!(refused.contains("--picture FILE"), "{refused}");
            assert_eq!(std::fs::read(&file).unwrap(), other);
        }
        assert!(Picture::at(Some(scratch.path())).is_err(), "a directory is no place");
        let nowhere = scratch.path().join("no").join("curve.svg");
        let refused = Picture::at(Some(&nowhere)).err().unwrap().to_string();
        assert!(refused.contains("--picture FILE"), "{refused}");
        let unused = scratch.path().join("unused.svg");
        Picture::at(Some(&unused)).unwrap();
        assert!(!unused.exists(), "nothing is left where nothing was drawn");
    }
}
