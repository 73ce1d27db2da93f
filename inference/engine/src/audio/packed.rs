//! Packed sound: what Symphonia demuxes and decodes.
//!
//! Owns how it is asked and what is borne: a packet that is damaged is left out, as players do,
//! unless all are or too many; sounds one after the other are one. The bytes are held already, so
//! nothing waits for a disk.

use std::io::Cursor;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::common::Limit;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;

use super::{Mixer, SoundError};

/// Packets of all of a file's tracks: an hour in the shortest that coders write, which last 2.5
/// milliseconds, is a million and a half; the rest is for other tracks. Tables of a few bytes claim
/// billions of empty ones.
const MAX_PACKETS: usize = 1 << 22;
/// Damaged packets that are left out: seven minutes of MP3. A transcript that lacks more of what
/// was said misleads.
const MAX_DAMAGED: usize = 1 << 14;

pub(super) fn read(file: &[u8], go_on: &dyn Fn() -> bool) -> Result<Vec<i16>, SoundError> {
    let options = MediaSourceStreamOptions::default();
    let stream = MediaSourceStream::new(Box::new(Cursor::new(file)), options);
    // Covers are not looked at.
    let meta = MetadataOptions::default().limit_visual_bytes(Limit::Maximum(0));
    let format = FormatOptions::default();
    let probed = symphonia::default::get_probe().probe(&Hint::new(), stream, format, meta);
    let mut reader = probed.map_err(|error| match error {
        Error::Unsupported(_) | Error::IoError(_) => SoundError::Unknown,
        other => SoundError::Damaged(other.to_string()),
    })?;
    let (mut wanted, mut decoder) = begin(&*reader)?;
    let mut heard = Decoded::default();
    let mut packets = 0;
    loop {
        if !go_on() {
            return Err(SoundError::GivenUp);
        }
        packets += 1;
        if packets > MAX_PACKETS {
            let what = "it has more packets than an hour of sound".to_owned();
            return Err(SoundError::Damaged(what));
        }
        match reader.next_packet() {
            Ok(Some(packet)) if packet.track_id != wanted => {}
            Ok(Some(packet)) => match decoder.decode(&packet) {
                Ok(decoded) => {
                    let form = (decoded.spec().rate(), decoded.num_planes());
                    decoded.copy_to_vec_interleaved(&mut heard.frames);
                    heard.take(form)?;
                }
                // Such a packet is lost, and no other.
                Err(error @ (Error::DecodeError(_) | Error::IoError(_))) => heard.lose(&error)?,
                Err(error) => {
                    heard.why = Some(error.to_string());
                    break;
                }
            },
            // The next of several sounds, which has a decoder of its own.
            Err(Error::ResetRequired) => (wanted, decoder) = begin(&*reader)?,
            // An end that comes early is an end all the same.
            Ok(None) | Err(Error::IoError(_)) => break,
            Err(error) => {
                heard.why = Some(error.to_string());
                break;
            }
        }
    }
    heard.end()
}

/// The track that is heard, and what decodes it.
fn begin(reader: &dyn FormatReader) -> Result<(u32, Box<dyn AudioDecoder>), SoundError> {
    let track = reader.default_track(TrackType::Audio).ok_or(SoundError::Empty)?;
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(SoundError::Empty);
    };
    let decoders = symphonia::default::get_codecs();
    let decoder = decoders.make_audio_decoder(parameters, &AudioDecoderOptions::default());
    let decoder = decoder.map_err(|error| match error {
        Error::Unsupported(_) => SoundError::Unsupported("sound packed in another way".to_owned()),
        other => SoundError::Damaged(other.to_string()),
    })?;
    Ok((track.id, decoder))
}

/// What was decoded so far.
#[derive(Default)]
struct Decoded {
    /// The rate and channels, and what mixes them.
    mixer: Option<((u32, usize), Mixer)>,
    /// A packet's frames.
    frames: Vec<f32>,
    damaged: usize,
    /// The last thing that was wrong.
    why: Option<String>,
}

impl Decoded {
    fn take(&mut self, form: (u32, usize)) -> Result<(), SoundError> {
        let mixer = match &mut self.mixer {
            Some((known, mixer)) if *known == form => mixer,
            Some(_) => {
                let what = "sound whose rate or channels change".to_owned();
                return Err(SoundError::Unsupported(what));
            }
            none => &mut none.insert((form, Mixer::new(form.0, form.1)?)).1,
        };
        mixer.push(self.frames.iter().copied())
    }

    fn lose(&mut self, error: &Error) -> Result<(), SoundError> {
        self.damaged += 1;
        if self.damaged > MAX_DAMAGED {
            return Err(SoundError::Damaged(format!("too much of it: {error}")));
        }
        self.why = Some(error.to_string());
        Ok(())
    }

    fn end(self) -> Result<Vec<i16>, SoundError> {
        match (self.mixer, self.why) {
            (Some((_, mixer)), _) => mixer.end(),
            (None, Some(why)) => Err(SoundError::Damaged(why)),
            (None, None) => Err(SoundError::Empty),
        }
    }
}
