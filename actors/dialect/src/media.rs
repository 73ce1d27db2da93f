//! Bytes inside of JSON: data addresses and base64.
//!
//! Owns their syntax. The bytes themselves are neither decoded nor looked at.

use crate::chat::Source;

/// The source an address means: bytes when it is a `data:` address in base64 (RFC 2397).
pub(crate) fn of_url(url: String) -> Option<Source> {
    let Some(data) = url.strip_prefix("data:") else {
        return url.contains("://").then_some(Source::Url(url));
    };
    let (media_type, base64) = data.split_once(";base64,")?;
    let whole = !media_type.is_empty() && is_base64(base64);
    whole.then(|| Source::Bytes { media_type: media_type.to_owned(), base64: base64.to_owned() })
}

/// The `data:` address of bytes.
pub(crate) fn to_url(media_type: &str, base64: &str) -> String {
    format!("data:{media_type};base64,{base64}")
}

/// Whether text is base64 with the standard alphabet, padded.
pub(crate) fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    padding <= 2 && text.len().is_multiple_of(4) && digits.as_bytes().iter().all(digit)
}

/// Media types of sound and the short names that some dialects call them.
const SOUNDS: &[(&str, &str)] = &[
    ("audio/wav", "wav"),
    ("audio/mpeg", "mp3"),
    ("audio/flac", "flac"),
    ("audio/ogg", "ogg"),
    ("audio/aac", "aac"),
    ("audio/aiff", "aiff"),
    ("audio/opus", "opus"),
    ("audio/pcm", "pcm16"),
    ("audio/mp4", "m4a"),
    ("audio/webm", "webm"),
];

/// The media type of a short name.
pub(crate) fn sound_type(format: &str) -> Option<&'static str> {
    SOUNDS.iter().find(|(_, short)| *short == format).map(|(media_type, _)| *media_type)
}

/// The short name of a media type.
pub(crate) fn sound_format(media_type: &str) -> Option<&'static str> {
    SOUNDS.iter().find(|(long, _)| *long == media_type).map(|(_, format)| *format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_addresses_become_bytes_and_back() {
        let url = "data:image/png;base64,iVBORw0KGgo=";
        let Some(Source::Bytes { media_type, base64 }) = of_url(url.to_owned()) else {
            panic!("not bytes")
        };
        assert_eq!(to_url(&media_type, &base64), url);
        assert_eq!(of_url("https://a/b".into()), Some(Source::Url("https://a/b".into())));
        for bad in ["data:image/png;base64,###=", "data:;base64,AAAA", "data:x,y", "nothing"] {
            assert_eq!(of_url(bad.to_owned()), None, "{bad}");
        }
    }
}
