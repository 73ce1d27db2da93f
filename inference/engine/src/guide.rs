//! Answers that are JSON of a given shape, by construction.
//!
//! Owns what turns a JSON Schema into the tokens that may come next (the grammar engine is
//! llguidance's), its bounds, and the schemas that one model has compiled. A schema comes from a
//! caller: whatever it says, compiling it and each step behind it end within bounds, or the request
//! does. Nothing is ever fetched for a schema. Does not own the draw: that is `sampling`.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use parking_lot::Mutex;
use selvedge_base::{Code, Refusal, Stage};
use selvedge_contract::Limits;
use serde_json::Value;

use crate::error::elsewhere;
use crate::tokenizer::Tokenizer;

/// Levels of a schema: published ones have some ten, and compiling takes stack for each.
const MAX_DEPTH: usize = 48;
/// What all numbers of a schema's `multipleOf` have as their least common multiple at most: the
/// remainders of numbers are counted by states, as many as that.
const MAX_MULTIPLE: u64 = 10_000;
/// Space between the parts of the JSON, at most so much at one place: a model that likes spaces
/// would else never come to an end.
const SPACE: &str = r"[\x20\x0A\x0D\x09]{1,16}";
/// Compiled schemas that a model keeps: a service has a handful, each takes up to some megabytes.
const MAX_KEPT: usize = 16;
/// Bytes of a token's text that are told to the grammar: no vocabulary in use has longer ones that
/// JSON needs.
const MAX_TOKEN_BYTES: usize = 256;
/// Characters of the compiler's words that are shown.
const SHOWN_CHARS: usize = 300;

/// One model's schemas, and its vocabulary as the grammar engine reads it.
#[derive(Default)]
pub(crate) struct Guides {
    /// Made at the first request that needs it; none where the vocabulary cannot be used.
    factory: OnceLock<Option<ParserFactory>>,
    /// The newest last, by their digests.
    kept: Mutex<VecDeque<([u8; 32], Arc<Matcher>)>>,
}

/// One answer on its way through a schema.
pub(crate) struct Guide(Matcher);

impl Guides {
    /// A guide to the beginning of an answer. The schema is compiled here, on the caller's thread,
    /// unless it is known.
    pub(crate) fn guide(&self, tokenizer: &Tokenizer, schema: &str) -> Result<Guide, Refusal> {
        if schema.len() > Limits::SCHEMA_BYTES {
            return Err(refused(&format!(
                "it has {} bytes ({} are possible)",
                schema.len(),
                Limits::SCHEMA_BYTES
            )));
        }
        let digest = *blake3::hash(schema.as_bytes()).as_bytes();
        let known = self.known(&digest);
        let matcher = match known {
            Some(matcher) => matcher,
            None => self.keep(digest, self.compile(tokenizer, schema)?),
        };
        // A copy of its own: what one answer explores costs no other one.
        Ok(Guide(matcher.deep_clone()))
    }

    fn known(&self, digest: &[u8; 32]) -> Option<Arc<Matcher>> {
        let mut kept = self.kept.lock();
        let at = kept.iter().position(|(known, _)| known == digest)?;
        let found = kept.remove(at)?;
        let matcher = Arc::clone(&found.1);
        kept.push_back(found);
        Some(matcher)
    }

    fn keep(&self, digest: [u8; 32], matcher: Matcher) -> Arc<Matcher> {
        let matcher = Arc::new(matcher);
        let mut kept = self.kept.lock();
        if kept.len() >= MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back((digest, Arc::clone(&matcher)));
        matcher
    }

    fn compile(&self, tokenizer: &Tokenizer, schema: &str) -> Result<Matcher, Refusal> {
        let schema = prepared(schema)?;
        let factory = self.factory.get_or_init(|| factory(tokenizer));
        let Some(factory) = factory else {
            let message = "this model's vocabulary cannot be held to a schema";
            return Err(elsewhere(Code::Unsupported, message));
        };
        let grammar = TopLevelGrammar::from_json_schema(schema);
        let compiled = catch_unwind(AssertUnwindSafe(|| factory.create_parser(grammar)));
        let parser = match compiled {
            Ok(Ok(parser)) => parser,
            Ok(Err(error)) => return Err(refused(said(&format!("{error:#}")))),
            Err(_) => return Err(refused("compiling it broke down")),
        };
        let mut matcher = Matcher::new(Ok(parser));
        // Most of a first step's work is done once for all answers.
        match matcher.compute_mask() {
            Ok(_) => Ok(matcher),
            Err(error) => Err(refused(said(&error.to_string()))),
        }
    }
}

impl Guide {
    /// The logits of a step with those of tokens ruled out that may not come next; `None` where
    /// the answer can only end.
    pub(crate) fn rule(&mut self, logits: &[f32]) -> Result<Option<Vec<f32>>, Refusal> {
        let mask = self.0.compute_mask().map_err(|error| too_much(&error.to_string()))?;
        let mut ruled = vec![f32::NEG_INFINITY; logits.len()];
        let mut any = false;
        mask.iter_set_entries(|token| {
            if let (Some(ruled), Some(&logit)) = (ruled.get_mut(token), logits.get(token)) {
                *ruled = logit;
                any = true;
            }
        });
        if any {
            return Ok(Some(ruled));
        }
        match self.0.is_accepting() {
            Ok(true) => Ok(None),
            _ => Err(too_much("the model's vocabulary has no words for it")),
        }
    }

    /// Takes the next token of the answer.
    pub(crate) fn push(&mut self, token: u32) -> Result<(), Refusal> {
        self.0.consume_token(token).map_err(|error| too_much(&error.to_string()))
    }

    /// Whether nothing can follow.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_stopped() && !self.0.is_error()
    }
}

/// The schema as it is compiled: within bounds, and with this engine's own options only.
fn prepared(schema: &str) -> Result<Value, Refusal> {
    let schema = serde_json::from_str(schema).map_err(|error| refused(&error.to_string()))?;
    let mut schema = match schema {
        Value::Bool(true) => Value::Object(serde_json::Map::new()),
        object @ Value::Object(_) => object,
        _ => return Err(refused("a schema is an object")),
    };
    if depth(&schema) > MAX_DEPTH {
        return Err(refused(&format!("it nests deeper than {MAX_DEPTH} levels")));
    }
    let mut common = 1;
    multiples(&schema, &mut common);
    if common > MAX_MULTIPLE {
        let message = "its multipleOf makes too large a common multiple (10000 is possible)";
        return Err(refused(message));
    }
    let options = JsonCompileOptions {
        whitespace_pattern: Some(SPACE.to_owned()),
        ..JsonCompileOptions::default()
    };
    // In place of any that came with it.
    options.apply_to(&mut schema);
    Ok(schema)
}

/// Levels of a value. The parser that made it allows few enough to count them this way.
fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + below.unwrap_or(0)
}

/// Extends the least common multiple of all digits that a schema's `multipleOf` have. What looks
/// like one within an example counts, too.
fn multiples(value: &Value, common: &mut u64) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| multiples(item, common)),
        Value::Object(fields) => {
            if let Some(Value::Number(number)) = fields.get("multipleOf") {
                let text = number.to_string();
                let digits = text.split(['e', 'E']).next().unwrap_or_default().replace('.', "");
                let digits = digits.parse::<u64>().unwrap_or(u64::MAX).max(1);
                *common = (*common / gcd(*common, digits)).saturating_mul(digits);
            }
            fields.values().for_each(|field| multiples(field, common));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The compiler's words, where they help nobody in ours.
fn said(why: &str) -> &str {
    if why.contains("NoExtension") {
        "no answer can hold to it"
    } else if why.starts_with("oneOf") {
        "oneOf works only where its options exclude each other by type or by a constant; use anyOf"
    } else {
        why
    }
}

/// The vocabulary as a trie, and the bounds of everything that is compiled against it.
fn factory(tokenizer: &Tokenizer) -> Option<ParserFactory> {
    let built = catch_unwind(AssertUnwindSafe(|| {
        let slices = SlicedBiasComputer::general_slices();
        ParserFactory::new(&environment(tokenizer), InferenceCapabilities::default(), &slices)
    }));
    let mut factory = built.ok()?.ok()?;
    factory.quiet();
    *factory.limits_mut() = ParserLimits {
        // 20 ms of compiling.
        initial_lexer_fuel: 1_000_000,
        // A step takes some 50 µs; one that takes more than a few milliseconds is given up, as it
        // holds up the other answers of the batch.
        step_lexer_fuel: 40_000,
        step_max_items: 20_000,
        max_items_in_row: 2_000,
        // A kilobyte or two each, for each answer under way.
        max_lexer_states: 20_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    };
    Some(factory)
}

fn environment(tokenizer: &Tokenizer) -> TokEnv {
    let mut seen = BTreeSet::new();
    let mut words: Vec<Vec<u8>> = Vec::with_capacity(tokenizer.len() + 1);
    let mut endings = Vec::new();
    for token in 0..tokenizer.len() as u32 {
        if tokenizer.ends_answer(token) {
            endings.push(token);
        }
        let text = tokenizer.shown(token);
        // Control tokens have no text here. The mark of special tokens begins no text either.
        let usable = (1..=MAX_TOKEN_BYTES).contains(&text.len())
            && text.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER)
            && !tokenizer.ends_answer(token)
            && seen.insert(text);
        words.push(if usable { text.to_vec() } else { Vec::new() });
    }
    // For vocabularies whose answers never end: beyond the logits, so it is never drawn.
    words.push(b"\xff<|end of answer|>".to_vec());
    if endings.is_empty() {
        endings.push(tokenizer.len() as u32);
    }
    let info = TokRxInfo::new(words.len() as u32, endings[0]);
    let trie = TokTrie::from(&info, &words).with_eos_tokens(&endings);
    Arc::new(ApproximateTokEnv::new(trie))
}

/// The refusal for a schema that nothing can be held to here.
fn refused(why: &str) -> Refusal {
    let why: String = why.chars().take(SHOWN_CHARS).collect();
    let message = format!("answers cannot be held to this JSON Schema: {why}");
    Refusal::client(Stage::Validate, Code::InvalidRequest, message).param("response_format")
}

/// The refusal for an answer whose next step is out of bounds.
fn too_much(why: &str) -> Refusal {
    let why: String = why.chars().take(SHOWN_CHARS).collect();
    let message = format!("the answer cannot be held to this JSON Schema any further: {why}");
    Refusal::client(Stage::Execute, Code::InvalidRequest, message).param("response_format")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "guide_tests.rs"]
mod tests;
