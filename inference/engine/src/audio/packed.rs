//! Packed sound: what Symphonia demuxes and decodes.
//!
//! Owns how it is asked and what is borne: a packet that is damaged is left out, as players do,
//! unless all are. The bytes are held already, so nothing waits for a disk.

use std::io::Cursor;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::common::Limit;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;

use super::{Mixer, SoundError};

pub(super) fn read(file: &[u8]) -> Result<Vec<i16>, SoundError> {
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
    let track = reader.default_track(TrackType::Audio).ok_or(SoundError::Empty)?;
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(SoundError::Empty);
    };
    let wanted = track.id;
    let decoders = symphonia::default::get_codecs();
    let decoder = decoders.make_audio_decoder(parameters, &AudioDecoderOptions::default());
    let mut decoder = decoder.map_err(|error| match error {
        Error::Unsupported(_) => SoundError::Unsupported("sound packed in another way".to_owned()),
        other => SoundError::Damaged(other.to_string()),
    })?;
    let mut mixer: Option<((u32, usize), Mixer)> = None;
    let (mut frames, mut why) = (Vec::<f32>::new(), None);
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            // An end that comes early is an end all the same.
            Ok(None) | Err(Error::IoError(_) | Error::ResetRequired) => break,
            Err(error) => {
                why = Some(error.to_string());
                break;
            }
        };
        if packet.track_id != wanted {
            continue;
        }
        match decoder.decode(&packet) {
            Ok(decoded) => {
                let form = (decoded.spec().rate(), decoded.num_planes());
                let mixer = match &mut mixer {
                    Some((known, mixer)) if *known == form => mixer,
                    Some(_) => {
                        let what = "sound whose rate or channels change".to_owned();
                        return Err(SoundError::Unsupported(what));
                    }
                    none => &mut none.insert((form, Mixer::new(form.0, form.1)?)).1,
                };
                decoded.copy_to_vec_interleaved(&mut frames);
                mixer.push(frames.iter().copied())?;
            }
            Err(Error::DecodeError(error)) => why = Some(error.to_owned()),
            Err(error) => {
                why = Some(error.to_string());
                break;
            }
        }
    }
    match (mixer, why) {
        (Some((_, mixer)), _) => mixer.end(),
        (None, Some(why)) => Err(SoundError::Damaged(why)),
        (None, None) => Err(SoundError::Empty),
    }
}
