use super::*;
use crate::testing::{Writer, temporary};

fn read(writer: &Writer) -> Result<Tokenizer, EngineError> {
    let file = temporary(&writer.bytes());
    Tokenizer::read(&Gguf::open(file.path())?, Writer::VOCABULARY)
}

#[test]
fn bytes_become_tokens_and_back() {
    let tokenizer = read(&Writer::tiny(1)).expect("reads");
    let text = "Grüße,\n\t\0 123 🙂";
    let tokens = tokenizer.encode(text).expect("encodes");
    assert_eq!(tokens.len(), text.len(), "one token per byte");
    let bytes: Vec<u8> = tokens.iter().flat_map(|&token| tokenizer.bytes(token)).copied().collect();
    assert_eq!(bytes, text.as_bytes());
}

#[test]
fn every_byte_has_a_token() {
    let tokenizer = read(&Writer::tiny(1)).expect("reads");
    for byte in 0..=255u8 {
        assert_eq!(tokenizer.bytes(u32::from(byte)), [byte]);
    }
    assert_eq!(tokenizer.bytes(u32::MAX), [0u8; 0]);
}

#[test]
fn control_tokens_are_recognised_hidden_and_may_end_an_answer() {
    let tokenizer = read(&Writer::tiny(1)).expect("reads");
    let tokens = tokenizer.encode("a<|im_end|><extra>").expect("encodes");
    assert_eq!(tokens, [97, Writer::END, 258]);
    assert_eq!(tokenizer.shown(Writer::END), [0u8; 0]);
    assert_eq!(tokenizer.bytes(Writer::END), b"<|im_end|>");
    assert_eq!(tokenizer.shown(258), b"<extra>");
    assert!(tokenizer.ends_answer(Writer::END));
    assert!(!tokenizer.ends_answer(Writer::BEGIN));
}

#[test]
fn unknown_kinds_are_refused_by_name() {
    for (key, value) in [
        ("tokenizer.ggml.pre", "deepseek-llm"),
        ("tokenizer.ggml.model", "bert"),
        ("tokenizer.ggml.model", "t5"),
    ] {
        let mut writer = Writer::tiny(1);
        writer.text(key, value);
        let error = read(&writer).err().expect("refused");
        assert!(matches!(error, EngineError::Unsupported(_)), "{error}");
        assert!(error.to_string().contains(value), "{error}");
    }
}

#[test]
fn damaged_vocabularies_are_refused() {
    let mut merges = Writer::tiny(1);
    merges.texts("tokenizer.ggml.merges", &["nospace".to_owned()]);
    assert!(read(&merges).is_err());
    merges.texts("tokenizer.ggml.merges", &["un known".to_owned()]);
    assert!(read(&merges).is_err());
    let mut tokens = Writer::tiny(1);
    tokens.texts("tokenizer.ggml.tokens", &["a".to_owned()]);
    assert!(read(&tokens).is_err(), "types of another length");
}
