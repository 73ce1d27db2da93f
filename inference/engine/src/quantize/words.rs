//! A vocabulary of `tokenizer.json` in the words of GGUF.
//!
//! Owns the order of tokens, what kind each is, and the name of the rule that splits words, which
//! is recognised by what it does and never guessed. Byte-level BPE is turned, and BPE over
//! SentencePiece's pieces, whose scores follow from the order of its merges; others are refused.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use super::entries::Entries;
use crate::error::EngineError;
use crate::pieces::SPACE;
use crate::tokenizer::{SPLIT_LLAMA3, SPLIT_QWEN2};

/// `tokenizer.ggml.token_type`: text, control tokens, tokens matched before words are split, and
/// rows of the embedding that no token uses (llama.h, `llama_token_type`).
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const MATCHED: i32 = 4;
/// In vocabularies of pieces: what stands for what has no token, and tokens of single bytes.
const UNKNOWN: i32 = 2;
const BYTE: i32 = 6;
const UNUSED: i32 = 5;
/// Tokens in a vocabulary, as `card` bounds them.
const MAX_TOKENS: u32 = 1 << 20;
/// The score of tokens that are joined from nothing, as llama.cpp's converters write it.
const UNSCORED: f32 = -1_000.0;
/// How published tokenizers write the endings of English words, and how it is written here.
const ENDINGS: [&str; 2] =
    ["(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"];

/// What is needed of `tokenizer.json`; all else is passed over and takes no memory.
#[derive(Deserialize)]
pub(super) struct Told {
    #[serde(default)]
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Option<Step>,
    #[serde(default)]
    pre_tokenizer: Option<Step>,
    #[serde(default)]
    post_processor: Option<Step>,
}

#[derive(Default, Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    vocab: Option<Vocabulary>,
    #[serde(default)]
    merges: Merges,
    #[serde(default)]
    byte_fallback: bool,
    unk_token: Option<String>,
}

/// A vocabulary of byte-level BPE, or one of another kind.
enum Vocabulary {
    Named(BTreeMap<String, u32>),
    Other,
}

/// Pairs, each as one text with a space.
#[derive(Default)]
struct Merges(Vec<String>);

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    /// Whether white space behind it goes.
    #[serde(default)]
    rstrip: bool,
}

/// A step before or after the model, or several.
#[derive(Default, Deserialize)]
struct Step {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    pretokenizers: Vec<Step>,
    #[serde(default)]
    processors: Vec<Step>,
    #[serde(default)]
    normalizers: Vec<Step>,
    pattern: Option<Pattern>,
    prepend: Option<String>,
    content: Option<String>,
    behavior: Option<String>,
    replacement: Option<String>,
    prepend_scheme: Option<String>,
    add_prefix_space: Option<bool>,
    split: Option<bool>,
    individual_digits: Option<bool>,
    use_regex: Option<bool>,
    #[serde(default)]
    single: Vec<Piece>,
}

#[derive(Deserialize)]
struct Pattern {
    #[serde(rename = "Regex")]
    regex: Option<String>,
    #[serde(rename = "String")]
    text: Option<String>,
}

#[derive(Deserialize)]
struct Piece {
    #[serde(rename = "SpecialToken")]
    special: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Vocabulary, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((text, id)) = map.next_entry::<String, u32>()? {
                    all.insert(text, id);
                    if all.len() > MAX_TOKENS as usize {
                        return Err(serde::de::Error::custom("more than 2^20 tokens"));
                    }
                }
                Ok(Vocabulary::Named(all))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocabulary, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Vocabulary::Other)
            }
        }
        from.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "merges are texts or pairs of texts")]
        enum Pair {
            Text(String),
            Both(String, String),
        }
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of pairs")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
                let mut all = Vec::new();
                while let Some(pair) = seq.next_element::<Pair>()? {
                    all.push(match pair {
                        Pair::Text(text) => text,
                        Pair::Both(first, second) => format!("{first} {second}"),
                    });
                    if all.len() > MAX_TOKENS as usize {
                        return Err(serde::de::Error::custom("more than 2^20 merges"));
                    }
                }
                Ok(Merges(all))
            }
        }
        from.deserialize_seq(Read)
    }
}

impl Told {
    /// Whether white space behind some token that is matched goes.
    pub(super) fn strips(&self) -> bool {
        self.added_tokens.iter().any(|one| one.rstrip)
    }
}

/// Tells a vocabulary of so many rows.
pub(super) fn tell(
    told: &Told,
    settings: &Value,
    template: Option<String>,
    rows: u32,
    entries: &mut Entries,
) -> Result<(), EngineError> {
    let vocabulary = match (told.model.kind.as_deref(), &told.model.vocab) {
        (None | Some("BPE"), Some(Vocabulary::Named(all))) => all,
        (None | Some("BPE"), None) => {
            return Err(EngineError::corrupt("tokenizer.json: there is no model.vocab"));
        }
        (kind, _) => {
            return Err(EngineError::unsupported(format!(
                "a tokenizer of type '{}' (BPE is turned into GGUF)",
                kind.unwrap_or("another").escape_debug()
            )));
        }
    };
    // Gemma's directories of text alone have a token for pictures, which no row is for.
    let has_row = |one: &&Added| !told.model.byte_fallback || one.id < rows;
    let added: Vec<&Added> = told.added_tokens.iter().filter(has_row).collect();
    let (mut tokens, mut kinds) = tokens(vocabulary, &added, rows)?;
    if told.model.byte_fallback {
        entries.text("tokenizer.ggml.model", "llama");
        entries.text("tokenizer.ggml.pre", "default");
        entries.flag("tokenizer.ggml.add_space_prefix", adds_space(told)?);
        entries.reals("tokenizer.ggml.scores", &scores(&told.model.merges.0, &tokens, &kinds));
        name_pieces(&told.model, &mut tokens, &mut kinds);
    } else {
        entries.text("tokenizer.ggml.model", "gpt2");
        entries.text("tokenizer.ggml.pre", rule(told.pre_tokenizer.as_ref())?);
        entries.texts("tokenizer.ggml.merges", told.model.merges.0.iter().map(String::as_str));
    }
    entries.texts("tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
    entries.wholes("tokenizer.ggml.token_type", &kinds);
    let id = |name: &str| {
        let text = said(settings, name)?;
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
    let by_steps = || begins(told.post_processor.as_ref(), said(settings, "bos_token"));
    let begins = settings["add_bos_token"].as_bool().unwrap_or_else(by_steps);
    entries.flag("tokenizer.ggml.add_bos_token", begins && bos.is_some());
    if let Some(template) = template.or_else(|| chat_template(settings)) {
        entries.text("tokenizer.chat_template", &template);
    }
    Ok(())
}

/// The text of a special token, which is said in one of two ways.
fn said<'a>(settings: &'a Value, name: &str) -> Option<&'a str> {
    let said = &settings[name];
    said.as_str().or_else(|| said["content"].as_str())
}

/// Whether every text gets a first token by the tokenizer's own rules.
fn begins(processor: Option<&Step>, bos: Option<&str>) -> bool {
    let (Some(processor), Some(bos)) = (processor, bos) else { return false };
    let puts = |step: &Step| {
        let first = step.single.first().and_then(|first| first.special.as_ref());
        first.is_some_and(|special| special.id == bos)
    };
    puts(processor) || processor.processors.iter().any(puts)
}

fn chat_template(settings: &Value) -> Option<String> {
    let said = &settings["chat_template"];
    let named = |all: &Vec<Value>| {
        let default = all.iter().find(|one| one["name"] == "default")?;
        default["template"].as_str().map(str::to_owned)
    };
    said.as_str().map(str::to_owned).or_else(|| said.as_array().and_then(named))
}

/// Whether a text of pieces gets a space before it, by rules that do nothing else than that and
/// writing spaces as such pieces have them.
fn adds_space(told: &Told) -> Result<bool, EngineError> {
    let space = SPACE.to_string();
    let steps: Vec<&Step> = match &told.normalizer {
        Some(whole) if !whole.normalizers.is_empty() => whole.normalizers.iter().collect(),
        other => other.iter().collect(),
    };
    let (mut adds, mut writes, mut others) = (false, false, false);
    for step in steps {
        match step.kind.as_deref() {
            Some("Prepend") if step.prepend.as_ref() == Some(&space) => adds = true,
            Some("Replace") if step.is_of(" ") && step.content.as_ref() == Some(&space) => {
                writes = true;
            }
            _ => others = true,
        }
    }
    match &told.pre_tokenizer {
        None => {}
        // Behind the replacement there is no space to split at.
        Some(step) if step.kind.as_deref() == Some("Split") && step.is_of(" ") && writes => {
            others |= step.behavior.as_deref() != Some("MergedWithPrevious");
        }
        Some(step) if step.kind.as_deref() == Some("Metaspace") && !adds && !writes => {
            // GGUF has one word for "first" and "always", and it is read as the latter: behind a
            // token that is matched, too.
            adds = match step.prepend_scheme.as_deref() {
                Some(scheme) => scheme != "never",
                None => step.add_prefix_space.unwrap_or(true),
            };
            writes = step.replacement.as_ref() == Some(&space);
            others |= step.split != Some(false);
        }
        Some(_) => others = true,
    }
    if writes && !others {
        return Ok(adds);
    }
    Err(EngineError::unsupported(
        "the rule by which the tokenizer writes spaces (those of Llama 2, Phi-3 and Gemma are \
         known)",
    ))
}

/// The scores of pieces: those that are joined earlier have higher ones. A piece that no merge
/// makes has a lower one than all of those. Of a single character it is never asked for; a longer
/// one is joined last, where its parts stand side by side, which by merges alone it would not be.
fn scores(merges: &[String], tokens: &[String], kinds: &[i32]) -> Vec<f32> {
    let mut ranks = BTreeMap::new();
    for (rank, merge) in merges.iter().enumerate() {
        // No piece has a space: it is written otherwise.
        ranks.entry(merge.replacen(' ', "", 1)).or_insert(rank);
    }
    let score = |(token, kind): (&String, &i32)| match ranks.get(token) {
        Some(rank) if *kind == NORMAL => -(*rank as f32),
        _ if *kind == NORMAL => -(merges.len() as f32),
        _ => UNSCORED,
    };
    tokens.iter().zip(kinds).map(score).collect()
}

/// Gives pieces the kinds that they have in files of pieces, and tokens that are matched in text
/// the spaces that they are to match.
fn name_pieces(model: &Model, tokens: &mut [String], kinds: &mut [i32]) {
    for (token, kind) in tokens.iter_mut().zip(kinds) {
        let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        let is_byte = byte.is_some_and(|byte| {
            byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        if Some(&*token) == model.unk_token.as_ref() {
            *kind = UNKNOWN;
        } else if is_byte && *kind == NORMAL {
            *kind = BYTE;
        } else if *kind == MATCHED {
            *token = token.replace(SPACE, " ");
        }
    }
}

impl Step {
    /// Whether it looks for exactly this text.
    fn is_of(&self, text: &str) -> bool {
        self.pattern.as_ref().and_then(|pattern| pattern.text.as_deref()) == Some(text)
    }
}

/// llama.cpp's name of the rule that splits words.
fn rule(whole: Option<&Step>) -> Result<&'static str, EngineError> {
    let parts: Vec<&Step> = match whole {
        Some(whole) if !whole.pretokenizers.is_empty() => whole.pretokenizers.iter().collect(),
        other => other.into_iter().collect(),
    };
    let is = |part: &Step, kind: &str| part.kind.as_deref() == Some(kind);
    let regex = |part: &&Step| {
        let regex = part.pattern.as_ref().and_then(|pattern| pattern.regex.as_deref());
        regex.unwrap_or_default().replace(ENDINGS[0], ENDINGS[1])
    };
    let splits: Vec<String> = parts.iter().filter(|part| is(part, "Split")).map(regex).collect();
    let digits =
        parts.iter().any(|part| is(part, "Digits") && part.individual_digits == Some(true));
    let others = parts
        .iter()
        .any(|part| !["Split", "Digits", "ByteLevel"].iter().any(|kind| is(part, kind)));
    let bytes = parts.last().filter(|part| is(part, "ByteLevel"));
    let by_words = bytes.is_some_and(|part| part.use_regex != Some(false));
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
fn tokens(
    vocabulary: &BTreeMap<String, u32>,
    added: &[&Added],
    rows: u32,
) -> Result<(Vec<String>, Vec<i32>), EngineError> {
    let wrong = |what: &str| EngineError::corrupt(format!("tokenizer.json: {what}"));
    if rows == 0 || rows > MAX_TOKENS {
        return Err(wrong(&format!("a vocabulary of {rows} (1 to {MAX_TOKENS})")));
    }
    let mut all: Vec<Option<(String, i32)>> = vec![None; rows as usize];
    let normal = vocabulary.iter().map(|(text, id)| (*id, text, NORMAL));
    let kind = |one: &Added| if one.special { CONTROL } else { MATCHED };
    let added = added.iter().map(|one| (one.id, &one.content, kind(one)));
    for (id, text, kind) in normal.chain(added) {
        let place = all.get_mut(id as usize).ok_or_else(|| {
            wrong(&format!("token '{}' has the number {id} of {rows}", text.escape_debug()))
        })?;
        *place = Some((text.clone(), kind));
    }
    let named = all.into_iter().enumerate();
    Ok(named.map(|(id, one)| one.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED))).unzip())
}
