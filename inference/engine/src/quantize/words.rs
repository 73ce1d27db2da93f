//! A vocabulary of `tokenizer.json` in the words of GGUF.
//!
//! Owns the order of tokens, what kind each is, and the name of the rule that splits words, which
//! is recognised by what it does and never guessed. Byte-level BPE is turned; others are refused.

use serde_json::Value;

use super::entries::Entries;
use crate::error::EngineError;
use crate::tokenizer::{SPLIT_LLAMA3, SPLIT_QWEN2};

/// `tokenizer.ggml.token_type`: text, control tokens, tokens matched before words are split, and
/// rows of the embedding that no token uses (llama.h, `llama_token_type`).
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const MATCHED: i32 = 4;
const UNUSED: i32 = 5;
/// Tokens in a vocabulary, as `card` bounds them.
const MAX_TOKENS: u32 = 1 << 20;
/// How published tokenizers write the endings of English words, and how it is written here.
const ENDINGS: [&str; 2] =
    ["(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"];

/// Tells a vocabulary of so many rows.
pub(super) fn tell(
    tokenizer: &Value,
    settings: &Value,
    template: Option<String>,
    rows: u32,
    entries: &mut Entries,
) -> Result<(), EngineError> {
    let model = &tokenizer["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") || model["vocab"].is_array() {
        let kind = model["type"].as_str().unwrap_or("another");
        return Err(EngineError::unsupported(format!(
            "a tokenizer of type '{}' (byte-level BPE is turned into GGUF)",
            kind.escape_debug()
        )));
    }
    entries.text("tokenizer.ggml.model", "gpt2");
    entries.text("tokenizer.ggml.pre", rule(tokenizer)?);
    let (tokens, kinds) = tokens(tokenizer, rows)?;
    entries.texts("tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
    entries.wholes("tokenizer.ggml.token_type", &kinds);
    let merges = merges(model)?;
    entries.texts("tokenizer.ggml.merges", merges.iter().map(String::as_str));
    let id = |name: &str| {
        let said = &settings[name];
        let text = said.as_str().or_else(|| said["content"].as_str())?;
        tokens.iter().position(|token| token == text).map(|at| at as u32)
    };
    let bos = id("bos_token");
    for (name, id) in [
        ("bos", bos),
        ("eos", id("eos_token")),
        ("unknown", id("unk_token")),
        ("padding", id("pad_token")),
    ] {
        if let Some(id) = id {
            entries.number(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    let begins = settings["add_bos_token"].as_bool().unwrap_or_else(|| begins(tokenizer, settings));
    entries.flag("tokenizer.ggml.add_bos_token", begins && bos.is_some());
    if let Some(template) = template.or_else(|| chat_template(settings)) {
        entries.text("tokenizer.chat_template", &template);
    }
    Ok(())
}

/// Whether every text gets a first token by the tokenizer's own rules.
fn begins(tokenizer: &Value, settings: &Value) -> bool {
    let said = &settings["bos_token"];
    let Some(bos) = said.as_str().or_else(|| said["content"].as_str()) else { return false };
    let steps = |processor: &Value| {
        let first = processor["single"].as_array().and_then(|all| all.first());
        first.is_some_and(|first| first["SpecialToken"]["id"].as_str() == Some(bos))
    };
    let processor = &tokenizer["post_processor"];
    let parts = processor["processors"].as_array();
    steps(processor) || parts.is_some_and(|parts| parts.iter().any(steps))
}

fn chat_template(settings: &Value) -> Option<String> {
    let said = &settings["chat_template"];
    let named = |all: &Vec<Value>| {
        let default = all.iter().find(|one| one["name"] == "default")?;
        default["template"].as_str().map(str::to_owned)
    };
    said.as_str().map(str::to_owned).or_else(|| said.as_array().and_then(named))
}

/// llama.cpp's name of the rule that splits words.
fn rule(tokenizer: &Value) -> Result<&'static str, EngineError> {
    let whole = &tokenizer["pre_tokenizer"];
    let parts = match whole["pretokenizers"].as_array() {
        Some(parts) => parts.iter().collect(),
        None => vec![whole],
    };
    let is = |part: &Value, kind: &str| part["type"].as_str() == Some(kind);
    let splits: Vec<String> = parts
        .iter()
        .filter(|part| is(part, "Split"))
        .map(|part| part["pattern"]["Regex"].as_str().unwrap_or_default())
        .map(|regex| regex.replace(ENDINGS[0], ENDINGS[1]))
        .collect();
    let digits = parts.iter().any(|part| is(part, "Digits") && part["individual_digits"] == true);
    let others = parts
        .iter()
        .any(|part| !["Split", "Digits", "ByteLevel"].iter().any(|kind| is(part, kind)));
    let bytes = parts.last().filter(|part| is(part, "ByteLevel"));
    let by_words = bytes.is_some_and(|part| part["use_regex"] != false);
    match &*splits {
        _ if others || bytes.is_none() => {}
        [one] if one == SPLIT_LLAMA3 && !digits => return Ok("llama-bpe"),
        [one] if one == SPLIT_QWEN2 && !digits => return Ok("qwen2"),
        [] if digits && by_words => return Ok("smollm"),
        [] if by_words => return Ok("gpt-2"),
        _ => {}
    }
    Err(EngineError::unsupported(
        "the rule by which the tokenizer splits words (those of GPT-2, SmolLM, Llama 3 and Qwen 2 \
         are known)",
    ))
}

/// All tokens by number, and their kinds.
fn tokens(tokenizer: &Value, rows: u32) -> Result<(Vec<String>, Vec<i32>), EngineError> {
    let wrong = |what: &str| EngineError::corrupt(format!("tokenizer.json: {what}"));
    if rows == 0 || rows > MAX_TOKENS {
        return Err(wrong(&format!("a vocabulary of {rows} (1 to {MAX_TOKENS})")));
    }
    let mut all: Vec<Option<(String, i32)>> = vec![None; rows as usize];
    let mut set = |id: &Value, text: &str, kind: i32| {
        let place = id.as_u64().and_then(|id| all.get_mut(usize::try_from(id).ok()?));
        match place {
            Some(place) => {
                *place = Some((text.to_owned(), kind));
                Ok(())
            }
            None => Err(wrong(&format!("token '{}' has the number {id}", text.escape_debug()))),
        }
    };
    let vocabulary = tokenizer["model"]["vocab"].as_object();
    for (text, id) in vocabulary.ok_or_else(|| wrong("there is no model.vocab"))? {
        set(id, text, NORMAL)?;
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let text = added["content"].as_str().ok_or_else(|| wrong("an added token has no text"))?;
        let kind = if added["special"] == true { CONTROL } else { MATCHED };
        set(&added["id"], text, kind)?;
    }
    let named = all.into_iter().enumerate();
    Ok(named.map(|(id, one)| one.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED))).unzip())
}

fn merges(model: &Value) -> Result<Vec<String>, EngineError> {
    let wrong = || EngineError::corrupt("tokenizer.json: model.merges is no list of pairs");
    let pair = |one: &Value| match (one.as_str(), one.as_array().map(Vec::as_slice)) {
        (Some(text), _) => Some(text.to_owned()),
        (_, Some([first, second])) => Some(format!("{} {}", first.as_str()?, second.as_str()?)),
        _ => None,
    };
    let all = model["merges"].as_array().ok_or_else(wrong)?;
    all.iter().map(|one| pair(one).ok_or_else(wrong)).collect()
}
