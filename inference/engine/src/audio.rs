//! Sound files, as samples that models of speech hear.
//!
//! Owns what may come in (WAV is read here, packed forms by Symphonia), its bounds, and the way to
//! one channel at one rate. A file is untrusted: nothing is allocated by what a header claims.
//! Decides nothing about who may ask, and catches no panic of a decoder, so that tests see it:
//! whoever calls for others takes one for a damaged file.

mod packed;
mod resample;
mod wav;

use resample::Resampler;
use selvedge_contract::speech::{MAX_SAMPLES, RATE};
use thiserror::Error;

/// Seconds of sound in one file.
const MAX_SECONDS: usize = MAX_SAMPLES / RATE as usize;
/// Rates of files: telephones have 8,000, studios 192,000.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=192_000;
/// Channels of a file: cinemas have 16.
const MAX_CHANNELS: usize = 32;

/// Why a file cannot be heard.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SoundError {
    /// It is of no kind that is read here.
    #[error(
        "the file is no sound that is read here: WAV, MP3, FLAC, Ogg Vorbis and AAC in M4A or MP4 \
         are"
    )]
    Unknown,
    /// It is of a kind that is read, with something in it that is not.
    #[error("the file holds {0}, which is not read here; convert it to WAV, MP3 or FLAC")]
    Unsupported(String),
    /// It is damaged.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// There is no sound in it.
    #[error("there is no sound in the file")]
    Empty,
    /// It is too long.
    #[error("the sound is longer than {MAX_SECONDS} seconds; cut it into parts")]
    TooLong,
    /// Nobody wants it any more.
    #[error("the file was not decoded within the request's time; send a shorter one")]
    GivenUp,
}

/// The samples of a file, one channel of [`RATE`]. Takes as long as the file is; to be called
/// where that holds nobody up.
///
/// # Errors
/// Why it cannot be heard.
pub fn samples(file: &[u8]) -> Result<Vec<i16>, SoundError> {
    samples_while(file, &|| true)
}

/// As [`samples`], as long as `go_on` says so, which is asked before each packet. What is not
/// packed is not asked about: its bytes bound it.
///
/// # Errors
/// Why it cannot be heard, or that it was given up.
pub fn samples_while(file: &[u8], go_on: &dyn Fn() -> bool) -> Result<Vec<i16>, SoundError> {
    let samples = match file {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => wav::read(file),
        _ => packed::read(file, go_on),
    }?;
    if samples.is_empty() { Err(SoundError::Empty) } else { Ok(samples) }
}

/// What a decoder's frames go into.
struct Mixer {
    channels: usize,
    mono: Vec<f32>,
    resampler: Resampler,
    out: Vec<i16>,
}

impl Mixer {
    fn new(rate: u32, channels: usize) -> Result<Self, SoundError> {
        if !RATES.contains(&rate) {
            return Err(unusual(rate));
        }
        if !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(SoundError::Unsupported(format!("{channels} channels")));
        }
        let resampler = Resampler::new(rate, RATE);
        let resampler = resampler.ok_or_else(|| unusual(rate))?;
        Ok(Self { channels, mono: Vec::new(), resampler, out: Vec::new() })
    }

    /// Takes whole frames: one number of each channel after the other.
    fn push(&mut self, frames: impl Iterator<Item = f32>) -> Result<(), SoundError> {
        self.mono.clear();
        let (mut sum, mut count) = (0.0, 0);
        for number in frames {
            // What is no number is silence.
            sum += if number.is_finite() { number } else { 0.0 };
            count += 1;
            if count == self.channels {
                self.mono.push(sum / self.channels as f32);
                (sum, count) = (0.0, 0);
            }
        }
        let out = &mut self.out;
        self.resampler.push(&self.mono, |sample| out.push(whole(sample)));
        self.check()
    }

    fn end(mut self) -> Result<Vec<i16>, SoundError> {
        let out = &mut self.out;
        self.resampler.end(|sample| out.push(whole(sample)));
        self.check()?;
        Ok(self.out)
    }

    fn check(&self) -> Result<(), SoundError> {
        if self.out.len() > MAX_SAMPLES { Err(SoundError::TooLong) } else { Ok(()) }
    }
}

fn unusual(rate: u32) -> SoundError {
    SoundError::Unsupported(format!("{rate} samples a second"))
}

/// The nearest sample of 16 bits: one that was so before is the same again.
fn whole(sample: f32) -> i16 {
    (sample * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "audio_tests.rs"]
mod tests;
