//! Sound: the forms in which clients send it, and the files.
//!
//! Holds: refused with a reason, or understood within what was sent.

use selvedge_contract::speech::MAX_SAMPLES;
use selvedge_contract::{Segment, SpeechTask, Transcript};
use selvedge_dialect::openai;
use selvedge_engine::samples;

use super::{Target, check_refusal, none};

/// How the forms of the corpus are declared.
const FORM: &str = "multipart/form-data; boundary=x";

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "request.audio",
        holds: "refused in few words, or a file within the body and an answer in its format",
        check: check_form,
        shares: &[],
        seeds: none,
        words: &[
            "--x\r\n",
            "--x--",
            "\r\n\r\n",
            "content-disposition: form-data; name=\"",
            "; filename=\"a\"",
            "\"file\"",
            "\"model\"",
            "response_format",
            "verbose_json",
            "timestamp_granularities[]",
        ],
    },
    Target {
        name: "file.sound",
        holds: "refused with a reason, or no more samples than may be",
        check: check_file,
        shares: &[],
        seeds: none,
        words: &["RIFF", "WAVE", "fmt ", "data", "fLaC", "OggS", "ID3", "ftyp", "moov", "stsz"],
    },
];

fn check_form(body: &[u8]) {
    for task in [SpeechTask::Transcribe, SpeechTask::Translate] {
        match openai::parse_audio(FORM, body, task) {
            Err(refused) => check_refusal(&refused),
            Ok(request) => {
                assert!(body.get(request.file.clone()).is_some_and(|file| !file.is_empty()));
                assert!(request.temperature_milli <= 1_000);
                let segment = Segment { text: request.prompt.clone(), ..Segment::default() };
                let told = Transcript { segments: vec![segment], ..Transcript::default() };
                assert!(!openai::audio_body(&request, &told).is_empty());
            }
        }
    }
}

fn check_file(file: &[u8]) {
    match samples(file) {
        Ok(samples) => assert!((1..=MAX_SAMPLES).contains(&samples.len())),
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}
