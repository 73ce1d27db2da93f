//! Transcriptions over real sockets: forms, formats, and who is refused.

use selvedge_contract::SpeechTask;
use serde_json::json;

use super::*;

const FORM: &str = "content-type: multipart/form-data; boundary=x\r\n";

fn form(fields: &[(&str, &str)]) -> String {
    let part = |(name, text): &(&str, &str)| {
        let file = if *name == "file" { "; filename=\"a.wav\"" } else { "" };
        format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{text}\r\n")
    };
    format!("{}--x--\r\n", fields.iter().map(part).collect::<String>())
}

#[tokio::test]
async fn transcripts_are_written_as_the_form_asks() {
    let surface = surface(Script::hello()).await;
    let least = [("model", "ears"), ("file", "abcd")];
    let answer = surface.ask("POST", "/v1/audio/transcriptions", FORM, &form(&least)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-selvedge-node").is_some());
    let text = "Transcribe None Sound(4 samples)";
    let usage = json!({"type": "duration", "seconds": 1});
    assert_eq!(answer.json(), json!({"text": text, "usage": usage}));
    let all = [&least[..], &[("response_format", "srt"), ("prompt", "p"), ("temperature", "0.5")]];
    let answer = surface.ask("POST", "/v1/audio/translations", FORM, &form(&all.concat())).await;
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(answer.body.starts_with("1\n00:00:00,000 --> 00:00:00,900\nTranslate"), "{answer:?}");
    let call = surface.script.hears.lock().pop().expect("a request");
    assert_eq!((call.task, call.temperature_milli), (SpeechTask::Translate, 500));
    assert_eq!((call.prompt.as_str(), call.model.as_str()), ("p", "ears"));
    let page = surface.ask("GET", "/metrics", "", "").await.body;
    assert!(page.contains("selvedge_requests_total{surface=\"audio\",code=\"200\"} 2"), "{page}");
    assert!(page.contains("selvedge_prompt_tokens_total 100"), "{page}");
}

#[tokio::test]
async fn what_is_no_form_or_comes_from_elsewhere_is_refused() {
    let surface = surface(Script::hello()).await;
    let path = "/v1/audio/transcriptions";
    let good = form(&[("model", "ears"), ("file", "abcd")]);
    let json = surface.post(path, &json!({"model": "ears"})).await;
    assert_eq!((json.status, &json.error()["code"]), (415, &json!("unsupported_media_type")));
    let unbound = surface.ask("POST", path, "content-type: multipart/form-data\r\n", &good).await;
    assert_eq!((unbound.status, &unbound.error()["code"]), (400, &json!("invalid_request")));
    let missing = surface.ask("POST", path, FORM, &form(&[("model", "ears")])).await;
    assert_eq!((missing.status, &missing.error()["param"]), (400, &json!("file")));
    for site in ["cross-site", "same-site"] {
        let lines = format!("{FORM}sec-fetch-site: {site}\r\n");
        assert_eq!(surface.ask("POST", path, &lines, &good).await.status, 403, "{site}");
    }
    let lines = format!("{FORM}sec-fetch-site: same-origin\r\n");
    assert_eq!(surface.ask("POST", path, &lines, &good).await.status, 200);
    let narrow = format!("{FORM}x-api-key: {NARROW_KEY}\r\n");
    assert_eq!(surface.ask("POST", path, &narrow, &good).await.status, 403);
    assert_eq!(surface.ask("GET", path, "", "").await.status, 405);
    assert_eq!(surface.script.hears.lock().len(), 1, "what was understood and allowed");
}

#[tokio::test]
async fn a_file_may_be_larger_than_a_chat_and_not_without_bound() {
    let surface = surface(Script::hello()).await;
    let path = "/v1/audio/transcriptions";
    // More than any other body.
    let large = form(&[("model", "ears"), ("file", &"a".repeat(9 << 20))]);
    let answer = surface.ask("POST", path, FORM, &large).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let lines = format!("{FORM}expect: 100-continue\r\ncontent-length: 30000000\r\n");
    let refused = surface.ask("POST", path, &lines, "").await;
    assert_eq!(refused.status, 413, "{refused:?}");
}
