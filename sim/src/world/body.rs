//! A request as its client writes it: the same question in many layouts, in two dialects.
//!
//! Owns the text. What of it counts is production's canonical form's business, and what it means
//! the observer's, who knows it from the draw and not from the text.

use std::fmt::Write;

use selvedge_core::cache::Wish;
use selvedge_dialect::canon::Knobs;

use super::requests::Request;
use crate::plan::ClientPlan;

/// Every how manieth request that is asked again comes in the other dialect.
const OTHER_DIALECT: u64 = 8;

/// A request, written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) dialect: &'static str,
    pub(super) knobs: Knobs,
    pub(super) body: String,
    pub(super) wish: Wish,
    /// Its words are drawn by chance, and not said how.
    pub(super) hot: bool,
}

/// Writes a request. Which layout it has, and what it says of the cache, its draw decides.
pub(super) fn written(truth: &Request, client: &ClientPlan) -> Written {
    let draw = truth.words;
    let wished = draw >> 32 & 0x3ff;
    // Of 1,024 requests so many have a wish; each one is one of eight. Nothing drawn: none.
    let wishes = draw != 0 && wished * 1_000 < client.wishes_permille * 1_024;
    let (wish, hot) = match (wishes, wished % 8) {
        (false, _) => (Wish::default(), false),
        (true, 0 | 1) => (Wish { no_cache: true, ..Wish::default() }, false),
        (true, 2) => (Wish { no_store: true, ..Wish::default() }, false),
        (true, 3) => (Wish { no_cache: true, no_store: true, ..Wish::default() }, false),
        (true, 4) => (Wish { only_cached: true, ..Wish::default() }, false),
        (true, 5) => (Wish::default(), true),
        (true, _) => (Wish { sampled: true, ..Wish::default() }, true),
    };
    let other = (draw >> 48).is_multiple_of(OTHER_DIALECT) && client.questions > 0;
    let (dialect, knobs) = match other {
        true => ("ollama.chat", Knobs::Options),
        false => ("anthropic.messages", Knobs::Top),
    };
    let body = text(truth, client, (other, hot), draw);
    Written { dialect, knobs, body, wish, hot }
}

fn text(truth: &Request, client: &ClientPlan, (other, hot): (bool, bool), draw: u64) -> String {
    let prompt = truth.prompt;
    let said = format!(
        "{:08x} {} {} {}",
        prompt.seed,
        prompt.tokens,
        prompt.answer,
        u8::from(prompt.is_dense)
    );
    let escaped = draw & 1 == 1;
    let said = match said.split_at_checked(1) {
        Some((first, rest)) if escaped => {
            let code = first.bytes().next().unwrap_or_default();
            format!("\\u{code:04x}{rest}")
        }
        _ => said,
    };
    let temperature = (!hot).then(|| ("temperature", "0".to_owned()));
    let most = (!client.unlimited).then(|| truth.max_tokens.to_string());
    let mut fields = vec![
        ("model", format!("\"{}\"", client.asks.as_deref().unwrap_or_default())),
        ("messages", format!("[{{\"role\":\"user\",\"content\":\"{said}\"}}]")),
        ("stream", "true".to_owned()),
    ];
    if truth.tools {
        fields.push(("tools", "[{\"name\":\"look\"}]".to_owned()));
    }
    if other {
        let most = most.map(|most| ("num_predict", most));
        let options: Vec<(&str, String)> = temperature.into_iter().chain(most).collect();
        fields.push(("options", object(options, draw >> 8)));
    } else {
        fields.extend(temperature.into_iter().chain(most.map(|most| ("max_tokens", most))));
    }
    object(fields, draw >> 16)
}

/// An object whose names stand in an order, with space between or none, by a draw.
fn object(mut fields: Vec<(&str, String)>, draw: u64) -> String {
    let turn = (draw & 7) as usize % fields.len().max(1);
    fields.rotate_left(turn);
    let space = if draw & 8 == 0 { "" } else { "\n  " };
    let mut text = String::from("{");
    for (at, (name, value)) in fields.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{space}\"{name}\":{space}{value}");
    }
    text.push('}');
    text
}
