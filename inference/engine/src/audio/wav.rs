//! WAV: whole numbers of 8 to 32 bits and floats, as Microsoft's "Multiple channel audio data and
//! WAVE files" has them.
//!
//! Owns the chunks. Sizes are believed up to the file's end: programs that write into a pipe leave
//! them open.

use super::{Mixer, SoundError};

/// Bytes taken at a time, about: a few frames more than the processor's nearest cache.
const PART: usize = 1 << 16;
/// Whole numbers.
const PLAIN: u16 = 1;
/// Floats.
const FLOAT: u16 = 3;
/// The kind stands in an extension.
const EXTENDED: u16 = 0xfffe;

/// What a sample is.
#[derive(Clone, Copy)]
struct Form {
    rate: u32,
    channels: usize,
    bytes: usize,
    float: bool,
}

pub(super) fn read(file: &[u8]) -> Result<Vec<i16>, SoundError> {
    let mut rest = file.get(12..).unwrap_or_default();
    let mut form = None;
    while let [a, b, c, d, s0, s1, s2, s3, after @ ..] = rest {
        let size = u32::from_le_bytes([*s0, *s1, *s2, *s3]) as usize;
        let (chunk, next) = after.split_at(size.min(after.len()));
        match &[*a, *b, *c, *d] {
            b"fmt " => form = Some(Form::read(chunk)?),
            b"data" => {
                let form = form.ok_or_else(|| damaged("its data come before their format"))?;
                // A size of zero was never filled in.
                return form.decode(if size == 0 { after } else { chunk });
            }
            _ => {}
        }
        // Chunks stand at even places.
        rest = next.get(size % 2..).unwrap_or_default();
    }
    Err(damaged("it has no data"))
}

impl Form {
    fn read(chunk: &[u8]) -> Result<Self, SoundError> {
        let half = |at: usize| -> Result<u16, SoundError> {
            let bytes = chunk.get(at..at + 2).ok_or_else(|| damaged("its format is cut short"))?;
            Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
        };
        let mut tag = half(0)?;
        let (channels, bits) = (usize::from(half(2)?), half(14)?);
        let rate = u32::from(half(4)?) | u32::from(half(6)?) << 16;
        if tag == EXTENDED {
            tag = half(24)?;
        }
        let float = match (tag, bits) {
            (PLAIN, 8 | 16 | 24 | 32) => false,
            (FLOAT, 32 | 64) => true,
            _ => {
                let what = format!("WAV samples of kind {tag} with {bits} bits");
                return Err(SoundError::Unsupported(what));
            }
        };
        let (bytes, frame) = (usize::from(bits / 8), usize::from(half(12)?));
        if frame != channels * bytes {
            let what = format!("WAV frames of {frame} bytes of {channels} channels of {bits} bits");
            return Err(SoundError::Unsupported(what));
        }
        Ok(Self { rate, channels, bytes, float })
    }

    fn decode(self, data: &[u8]) -> Result<Vec<i16>, SoundError> {
        let mut mixer = Mixer::new(self.rate, self.channels)?;
        let frame = self.bytes * self.channels;
        // What is cut off in the middle of a frame is left out.
        let data = &data[..data.len() / frame * frame];
        for part in data.chunks((PART / frame).max(1) * frame) {
            mixer.push(part.chunks_exact(self.bytes).map(|sample| self.number(sample)))?;
        }
        mixer.end()
    }

    fn number(self, sample: &[u8]) -> f32 {
        match (self.float, sample) {
            (false, [a]) => (f32::from(*a) - 128.0) / 128.0,
            (false, [a, b]) => f32::from(i16::from_le_bytes([*a, *b])) / 32_768.0,
            (false, [a, b, c]) => (i32::from_le_bytes([0, *a, *b, *c]) >> 8) as f32 / 8_388_608.0,
            (false, [a, b, c, d]) => i32::from_le_bytes([*a, *b, *c, *d]) as f32 / 2_147_483_648.0,
            (true, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
            (true, [a, b, c, d, e, f, g, h]) => {
                f64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as f32
            }
            _ => 0.0,
        }
    }
}

fn damaged(why: &str) -> SoundError {
    SoundError::Damaged(why.to_owned())
}
