use selvedge_contract::Segment;

use super::*;

const TYPE: &str = "multipart/form-data; boundary=x";

fn form(fields: &[(&str, &str)]) -> Vec<u8> {
    let part = |(name, text): &(&str, &str)| {
        let file = if *name == "file" { "; filename=\"a.wav\"" } else { "" };
        format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{text}\r\n")
    };
    let parts: String = fields.iter().map(part).collect();
    format!("{parts}--x--\r\n").into_bytes()
}

fn parsed(fields: &[(&str, &str)]) -> Result<AudioRequest, Refusal> {
    parse_audio(TYPE, &form(fields), SpeechTask::Transcribe)
}

#[test]
fn every_field_of_a_form_is_honoured() {
    let fields = [
        ("model", "ears"),
        ("file", "RIFF\0"),
        ("language", "German"),
        ("prompt", "Before. "),
        ("response_format", "verbose_json"),
        ("temperature", "0.25"),
        ("timestamp_granularities[]", "segment"),
        ("timestamp_granularities[]", "segment"),
        ("stream", "false"),
        ("chunking_strategy", ""),
    ];
    let request = parsed(&fields).expect("good");
    assert_eq!(&form(&fields)[request.file.clone()], b"RIFF\0");
    let expected = AudioRequest {
        model: "ears".to_owned(),
        task: SpeechTask::Transcribe,
        language: Some("de".to_owned()),
        prompt: "Before. ".to_owned(),
        temperature_milli: 250,
        format: AudioFormat::Verbose,
        file: request.file.clone(),
    };
    assert_eq!(request, expected);
    let least = parsed(&[("file", "a"), ("model", "m")]).expect("good");
    assert_eq!(
        (least.language, least.format, least.temperature_milli),
        (None, AudioFormat::Json, 0)
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (name, text) in [
        ("language", "klingon!"),
        ("prompt", &"a".repeat(5_000)),
        ("response_format", "diarized_json"),
        ("temperature", "1.5"),
        ("temperature", "NaN"),
        ("timestamp_granularities[]", "word"),
        ("stream", "true"),
        ("chunking_strategy", "{}"),
        ("include[]", "logprobs"),
        ("model", "again"),
        ("file", "again"),
    ] {
        let refused = parsed(&[("model", "m"), ("file", "a"), (name, text)]).expect_err("refused");
        assert_eq!(refused.param.as_deref(), Some(name), "{refused}");
    }
    for (fields, name) in [
        (&[("file", "a")][..], "model"),
        (&[("model", "m")], "file"),
        (&[("model", "m"), ("file", "")], "file"),
    ] {
        assert_eq!(parsed(fields).expect_err("refused").param.as_deref(), Some(name));
    }
    let translate = |name| {
        let form = form(&[("model", "m"), ("file", "a"), (name, "segment")]);
        parse_audio(TYPE, &form, SpeechTask::Translate).expect_err("not of translations")
    };
    for name in ["language", "timestamp_granularities[]"] {
        assert_eq!(translate(name).param.as_deref(), Some(name));
    }
}

fn transcript() -> Transcript {
    let segment = |start_ms, end_ms, text: &str| Segment {
        window_ms: 0,
        start_ms,
        end_ms,
        text: text.to_owned(),
        tokens: vec![1, 2],
        temperature_milli: 200,
        mean_logprob: -0.5,
        compression: 1.25,
        silence: 0.125,
    };
    Transcript {
        language: "en".to_owned(),
        duration_ms: 3_725_100,
        segments: vec![segment(0, 1_500, " Hello."), segment(1_500, 3_725_040, " A --> b\nc.")],
        prompt_tokens: 500,
        completion_tokens: 4,
    }
}

fn body(format: &str) -> String {
    let fields = [("model", "m"), ("file", "a"), ("response_format", format)];
    let request = parsed(&fields).expect("good");
    String::from_utf8(audio_body(&request, &transcript())).expect("text")
}

#[test]
fn transcripts_are_written_as_asked() {
    assert_eq!(body("text"), "Hello. A --> b\nc.\n");
    assert_eq!(
        body("srt"),
        "1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n00:00:01,500 --> 01:02:05,040\nA -> b c.\
         \n\n"
    );
    assert_eq!(
        body("vtt"),
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello.\n\n00:00:01.500 --> 01:02:05.040\nA -&gt; \
         b c.\n\n"
    );
    let plain: Value = serde_json::from_str(&body("json")).expect("JSON");
    let usage = json!({ "type": "duration", "seconds": 3_726 });
    assert_eq!(plain, json!({ "text": "Hello. A --> b\nc.", "usage": usage }));
    let verbose: Value = serde_json::from_str(&body("verbose_json")).expect("JSON");
    assert_eq!((&verbose["language"], &verbose["duration"]), (&json!("english"), &json!(3_725.1)));
    assert_eq!(verbose["segments"][1]["start"], 1.5);
    assert_eq!(verbose["segments"][0]["avg_logprob"], -0.5);
    assert_eq!(verbose["segments"][0]["temperature"], 0.2);
    assert_eq!((&verbose["task"], &verbose["usage"]), (&json!("transcribe"), &usage));
    let request = parsed(&[("model", "m"), ("file", "a"), ("response_format", "verbose_json")]);
    let short = audio_body(&request.expect("good"), &Transcript::default());
    let short: Value = serde_json::from_slice(&short).expect("JSON");
    assert_eq!(short["language"], Value::Null);
}
