//! The command line of writing down what is said.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const NOTES: &str = "\
Examples:
  selvedge transcribe meeting.mp3
  selvedge transcribe talk.wav --format srt > talk.srt
  selvedge transcribe rede.m4a --translate

WAV, MP3, FLAC, Ogg Vorbis and AAC in M4A or MP4 are read, up to 25 MiB and an hour. The model is
one that hears, such as Whisper: a directory in the home's models (`selvedge models list`), of this
node or of any other in the mesh.

What is said goes to standard output, which node heard it to standard error.";

#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub(crate) struct Transcribe {
    /// The file with the sound
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The model [default: the only one that hears, or the first by name]
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// The language that is spoken, such as en or de [default: the model says which]
    #[arg(long, value_name = "CODE")]
    pub(crate) language: Option<String>,
    /// Write it in English
    #[arg(long, conflicts_with = "language")]
    pub(crate) translate: bool,
    /// Text that comes before, for names and style
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Written::Text)]
    pub(crate) format: Written,
    /// Ask this API [default: this home's running node]
    #[arg(long, value_name = "URL", env = "SELVEDGE_API")]
    pub(crate) api: Option<String>,
    /// API key, for an API that needs one
    #[arg(long, value_name = "KEY", env = "SELVEDGE_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
}

/// How a transcript is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Written {
    /// The text
    Text,
    /// Subtitles of SubRip
    Srt,
    /// Subtitles of the web
    Vtt,
    /// JSON with all parts and their times
    Json,
}

impl Written {
    /// As the API calls it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Json => "verbose_json",
        }
    }
}
