//! Log probabilities in the two shapes the OpenAI API gives them.
//!
//! Owns how a token's bytes become text: a token may be part of a character, which JSON cannot
//! hold. Owns no arithmetic but the offsets of tokens in a text.

use std::fmt::Write;

use selvedge_contract::TokenLogProb;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// What stands for minus infinity, which JSON cannot hold; the value the OpenAI API uses.
const NEVER: f32 = -9_999.0;

/// `logprobs` of a chat choice.
#[derive(Serialize)]
pub(super) struct ChatLogProbs {
    content: Vec<ChatToken>,
    refusal: (),
}

#[derive(Serialize)]
struct ChatToken {
    #[serde(flatten)]
    token: Alternative,
    top_logprobs: Vec<Alternative>,
}

#[derive(Serialize)]
struct Alternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

/// `logprobs` of a text completion's choice.
#[derive(Serialize)]
pub(super) struct TextLogProbs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Ranked>,
    text_offset: Vec<usize>,
}

/// Alternatives as an object, likeliest first.
struct Ranked(Vec<(String, f32)>);

impl ChatLogProbs {
    pub(super) fn new(tokens: &[TokenLogProb]) -> Self {
        let content = tokens.iter().map(|token| ChatToken {
            token: Alternative::new(&token.bytes, token.logprob),
            top_logprobs: token.top.iter().map(|(b, p)| Alternative::new(b, *p)).collect(),
        });
        Self { content: content.collect(), refusal: () }
    }
}

impl Alternative {
    fn new(bytes: &[u8], logprob: f32) -> Self {
        Self { token: readable(bytes, ""), logprob: finite(logprob), bytes: bytes.to_vec() }
    }
}

impl TextLogProbs {
    /// The shape for tokens whose first begins at `offset` characters of the answer; returns the
    /// offset after the last one too.
    pub(super) fn new(tokens: &[TokenLogProb], mut offset: usize) -> (Self, usize) {
        let mut all = Self {
            tokens: Vec::with_capacity(tokens.len()),
            token_logprobs: Vec::with_capacity(tokens.len()),
            top_logprobs: Vec::with_capacity(tokens.len()),
            text_offset: Vec::with_capacity(tokens.len()),
        };
        for token in tokens {
            all.tokens.push(readable(&token.bytes, "bytes:"));
            all.token_logprobs.push(finite(token.logprob));
            let top = token.top.iter().map(|(b, p)| (readable(b, "bytes:"), finite(*p)));
            all.top_logprobs.push(Ranked(top.collect()));
            all.text_offset.push(offset);
            offset += characters(&token.bytes);
        }
        (all, offset)
    }
}

impl Serialize for Ranked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (index, (token, logprob)) in self.0.iter().enumerate() {
            // Two tokens can have the same text; an object may hold a name once, and the likelier
            // token comes first.
            if self.0[..index].iter().all(|(earlier, _)| earlier != token) {
                map.serialize_entry(token, logprob)?;
            }
        }
        map.end()
    }
}

/// Characters that begin in these bytes; a character split over tokens counts where it begins.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| (**byte & 0b1100_0000) != 0b1000_0000).count()
}

/// The bytes as text, or escaped when they are only part of a character.
fn readable(bytes: &[u8], mark: &str) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let mut text = mark.to_owned();
            for byte in bytes {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
            text
        }
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokens() -> Vec<TokenLogProb> {
        let top = vec![(b"ab".to_vec(), -0.5), (vec![0xc3], f32::NEG_INFINITY)];
        vec![
            TokenLogProb { bytes: b"ab".to_vec(), logprob: -0.5, top },
            TokenLogProb { bytes: vec![0xc3], logprob: -1.0, top: vec![] },
            TokenLogProb { bytes: vec![0xa9, b'!'], logprob: f32::NAN, top: vec![] },
        ]
    }

    #[test]
    fn a_chat_lists_tokens_with_their_bytes() {
        let shape = serde_json::to_value(ChatLogProbs::new(&tokens()[..2])).expect("plain");
        let wanted = json!({"refusal": null, "content": [
            {"token": "ab", "logprob": -0.5, "bytes": [97, 98], "top_logprobs": [
                {"token": "ab", "logprob": -0.5, "bytes": [97, 98]},
                {"token": "\\xc3", "logprob": -9999.0, "bytes": [195]},
            ]},
            {"token": "\\xc3", "logprob": -1.0, "bytes": [195], "top_logprobs": []},
        ]});
        assert_eq!(shape, wanted);
    }

    #[test]
    fn a_text_has_parallel_lists_and_offsets_in_characters() {
        let (shape, end) = TextLogProbs::new(&tokens(), 10);
        let wanted = json!({
            "tokens": ["ab", "bytes:\\xc3", "bytes:\\xa9\\x21"],
            "token_logprobs": [-0.5, -1.0, -9999.0],
            "top_logprobs": [{"ab": -0.5, "bytes:\\xc3": -9999.0}, {}, {}],
            "text_offset": [10, 12, 13],
        });
        assert_eq!(serde_json::to_value(shape).expect("plain"), wanted);
        assert_eq!(end, 14);
    }

    #[test]
    fn tokens_of_the_same_text_appear_once_with_the_likelier_value() {
        let ranked = Ranked(vec![("a".into(), -1.0), ("b".into(), -2.0), ("a".into(), -3.0)]);
        assert_eq!(serde_json::to_string(&ranked).expect("plain"), r#"{"a":-1.0,"b":-2.0}"#);
    }
}
