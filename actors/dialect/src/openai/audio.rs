//! Transcriptions and translations of sound, as OpenAI's API has them.
//!
//! Owns reading a form and writing a transcript in each of the formats. What cannot be honoured is
//! refused by name. Source: the OpenAI API reference, "Audio".

mod languages;

use std::fmt::Write as _;
use std::ops::Range;

use selvedge_base::Refusal;
use selvedge_contract::speech::PROMPT_BYTES;
use selvedge_contract::{SpeechTask, Transcript};
use serde_json::{Value, json};

use crate::decode::{invalid, model, required, unsupported};
use crate::form::{Part, parts};

/// The longest name of a language that is looked at; ISO 639-1 has two letters, and few have three.
const LANGUAGE_BYTES: usize = 16;

/// A request for what is said in sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioRequest {
    /// The model as whoever asks names it.
    pub model: String,
    /// What is to be written.
    pub task: SpeechTask,
    /// The language, as ISO 639-1 has it.
    pub language: Option<String>,
    /// Text that comes before.
    pub prompt: String,
    /// How freely words are drawn, in thousandths.
    pub temperature_milli: u32,
    /// How the answer is written.
    pub format: AudioFormat,
    /// Where the file is in the body.
    pub file: Range<usize>,
}

/// How a transcript is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AudioFormat {
    /// The text in an object.
    #[default]
    Json,
    /// The text.
    Text,
    /// Subtitles of SubRip.
    Srt,
    /// Subtitles of the web.
    Vtt,
    /// An object with all parts.
    Verbose,
}

impl AudioFormat {
    /// The content type of such an answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::Verbose => "application/json",
            Self::Text | Self::Srt => "text/plain; charset=utf-8",
            Self::Vtt => "text/vtt; charset=utf-8",
        }
    }
}

/// What a form of `POST /v1/audio/transcriptions` may hold, as JSON Schema; of translations, which
/// have no language and no granularities, too.
pub fn audio_schema(task: SpeechTask) -> Value {
    let mut fields = json!({
        "file": { "type": "string", "format": "binary" },
        "model": { "type": "string" },
        "prompt": { "type": "string" },
        "response_format": { "enum": ["json", "text", "srt", "vtt", "verbose_json"] },
        "temperature": { "type": "number", "minimum": 0, "maximum": 1 },
    });
    if task == SpeechTask::Transcribe {
        fields["language"] = json!({ "type": "string" });
        fields["timestamp_granularities[]"] =
            json!({ "type": "array", "items": { "enum": ["segment"] } });
    }
    json!({ "type": "object", "properties": fields, "required": ["file", "model"] })
}

/// The request that a form means.
///
/// # Errors
/// A refusal that names the field at fault.
pub fn parse_audio(
    content_type: &str,
    body: &[u8],
    task: SpeechTask,
) -> Result<AudioRequest, Refusal> {
    let (mut file, mut named) = (None, None);
    let mut request = AudioRequest {
        model: String::new(),
        task,
        language: None,
        prompt: String::new(),
        temperature_milli: 0,
        format: AudioFormat::Json,
        file: 0..0,
    };
    let mut seen: Vec<String> = Vec::new();
    for part in parts(content_type, body)? {
        let Part { name, content, .. } = part;
        // Lists come as a field for each of what is in them.
        if !name.ends_with("[]") && seen.contains(&name) {
            return Err(invalid(&name, format!("'{name}' is given more than once")));
        }
        if name == "file" {
            if content.is_empty() {
                return Err(invalid("file", "'file' is empty"));
            }
            file = Some(content);
            seen.push(name);
            continue;
        }
        let text = std::str::from_utf8(&body[content])
            .map_err(|_| invalid(&name, format!("'{}' is not UTF-8", shown(&name))))?;
        match name.as_str() {
            "model" => named = Some(text.to_owned()),
            // An empty one is none, as forms of the web have it.
            _ if text.is_empty() => {}
            _ => request.take(&name, text)?,
        }
        seen.push(name);
    }
    request.model = model(named)?;
    request.file = file.ok_or_else(|| required("file"))?;
    Ok(request)
}

impl AudioRequest {
    /// Takes a field of text.
    fn take(&mut self, name: &str, text: &str) -> Result<(), Refusal> {
        let transcribes = self.task == SpeechTask::Transcribe;
        match name {
            "prompt" if text.len() > PROMPT_BYTES => {
                let message = format!("'prompt' has more than {PROMPT_BYTES} bytes");
                return Err(invalid(name, message));
            }
            "prompt" => text.clone_into(&mut self.prompt),
            "language" if transcribes => {
                let code = text.trim().to_ascii_lowercase();
                let code = languages::code_of(&code).map_or(code.clone(), str::to_owned);
                if code.len() > LANGUAGE_BYTES || !code.bytes().all(|b| b.is_ascii_lowercase()) {
                    let message = "'language' must be a code of ISO 639-1, such as en or de";
                    return Err(invalid(name, message));
                }
                self.language = Some(code);
            }
            "temperature" => {
                let value: Option<f64> = text.trim().parse().ok();
                let value = value.filter(|value| (0.0..=1.0).contains(value));
                let value =
                    value.ok_or_else(|| invalid(name, "'temperature' must be 0.0 to 1.0"))?;
                self.temperature_milli = (value * 1_000.0).round() as u32;
            }
            "response_format" => {
                self.format = match text {
                    "json" => AudioFormat::Json,
                    "text" => AudioFormat::Text,
                    "srt" => AudioFormat::Srt,
                    "vtt" => AudioFormat::Vtt,
                    "verbose_json" => AudioFormat::Verbose,
                    _ => {
                        let message =
                            "'response_format' must be json, text, srt, vtt or verbose_json";
                        return Err(invalid(name, message));
                    }
                };
            }
            "timestamp_granularities[]" | "timestamp_granularities" if transcribes => {
                if text != "segment" {
                    let message = "'timestamp_granularities' may hold segment only: times of \
                                   single words are not known here";
                    return Err(unsupported(name, message));
                }
            }
            "stream" if text == "false" => {}
            "stream" => {
                let message = "transcripts come whole: leave 'stream' out";
                return Err(unsupported(name, message));
            }
            "chunking_strategy" if text == "auto" => {}
            _ => {
                let message = format!("'{}' is not a parameter of this endpoint", shown(name));
                return Err(invalid(name, message));
            }
        }
        Ok(())
    }
}

/// A transcript as a body.
pub fn audio_body(request: &AudioRequest, transcript: &Transcript) -> Vec<u8> {
    match request.format {
        AudioFormat::Json => plain(transcript).to_string().into_bytes(),
        AudioFormat::Verbose => verbose(request, transcript).to_string().into_bytes(),
        AudioFormat::Text => format!("{}\n", transcript.text()).into_bytes(),
        AudioFormat::Srt => subtitles(transcript, "", true, ',').into_bytes(),
        AudioFormat::Vtt => subtitles(transcript, "WEBVTT\n\n", false, '.').into_bytes(),
    }
}

fn usage(transcript: &Transcript) -> Value {
    json!({ "type": "duration", "seconds": transcript.duration_ms.div_ceil(1_000) })
}

fn plain(transcript: &Transcript) -> Value {
    json!({ "text": transcript.text(), "usage": usage(transcript) })
}

fn verbose(request: &AudioRequest, transcript: &Transcript) -> Value {
    let seconds = |ms: u32| f64::from(ms) / 1_000.0;
    let segments = transcript.segments.iter().enumerate().map(|(id, segment)| {
        json!({
            "id": id,
            // In hundredths of a second, as the reference implementation counts.
            "seek": segment.window_ms / 10,
            "start": seconds(segment.start_ms),
            "end": seconds(segment.end_ms),
            "text": segment.text,
            "tokens": segment.tokens,
            "temperature": f64::from(segment.temperature_milli) / 1_000.0,
            "avg_logprob": segment.mean_logprob,
            "compression_ratio": segment.compression,
            "no_speech_prob": segment.silence,
        })
    });
    // Sound of no whole row is heard in no language.
    let code = Some(transcript.language.as_str()).filter(|code| !code.is_empty());
    let language = code.map(languages::name_of);
    let task = match request.task {
        SpeechTask::Transcribe => "transcribe",
        SpeechTask::Translate => "translate",
    };
    json!({
        "task": task,
        "language": language,
        "duration": seconds(transcript.duration_ms),
        "text": transcript.text(),
        "segments": segments.collect::<Vec<_>>(),
        "usage": usage(transcript),
    })
}

/// Subtitles. Their lines must not be empty, nor look like what stands between two times.
fn subtitles(transcript: &Transcript, head: &str, numbered: bool, mark: char) -> String {
    let mut out = head.to_owned();
    for (number, segment) in transcript.segments.iter().enumerate() {
        if numbered {
            // Writing into a text does not fail.
            let _written = writeln!(out, "{}", number + 1);
        }
        let mut text = segment.text.trim().replace("-->", "->").replace(['\r', '\n'], " ");
        if !numbered {
            // Those of the web have marks in their text.
            text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        }
        let (start, end) = (clock(segment.start_ms, mark), clock(segment.end_ms, mark));
        let _written = write!(out, "{start} --> {end}\n{text}\n\n");
    }
    out
}

fn clock(ms: u32, mark: char) -> String {
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}{mark}{ms:03}", seconds % 60)
}

/// As much of a name as a message holds.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "audio_tests.rs"]
mod tests;
