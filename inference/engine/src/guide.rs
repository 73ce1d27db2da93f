//! Answers that are JSON of a given shape, or hold to a grammar, by construction.
//!
//! Owns what turns a JSON Schema into the tokens that may come next (the grammar engine is
//! llguidance's), its bounds, and the schemas and grammars that one model has compiled; what a
//! grammar becomes is `grammar`'s. A schema comes from a caller. Its size, its levels, its
//! references and what the compiler multiplies are counted before it is compiled (`Counted`), as
//! the compiler's own bounds hold neither its stack nor all of its time; each step behind it has
//! bounds of its own. Nothing is ever fetched for a schema. Does not own the draw: that is
//! `sampling`.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use parking_lot::Mutex;
use selvedge_base::{Code, Refusal, Stage};
use selvedge_contract::{Constraint, Limits};
use serde_json::Value;

use crate::error::elsewhere;
use crate::grammar;
use crate::tokenizer::Tokenizer;

/// Levels of a schema: published ones have some ten, and compiling takes stack for each.
const MAX_DEPTH: usize = 48;
/// What all numbers of a schema's `multipleOf` have as their least common multiple at most: the
/// remainders of numbers are counted by states, as many as that.
const MAX_MULTIPLE: u64 = 10_000;
/// Different texts of `$ref`: compiling one compiles what it leads to, and so on, on one stack. A
/// `$id` further in may give each of them another meaning, and counts that often.
const MAX_REFERENCES: usize = 64;
/// Stack of a thread that compiles schemas. 64 references of 48 levels with some 9 KiB each are
/// 28 MiB; the rest is for what intersecting takes at the end of them. What is not used of it is
/// never backed by memory.
pub(crate) const STACK_BYTES: usize = 64 << 20;
/// Names under all `patternProperties`: the compiler intersects every two of them.
const MAX_PATTERNS: usize = 16;
/// The same in a schema that combines parts: each combination tries every two of them again.
const MAX_COMBINED_PATTERNS: usize = 2;
/// Parts of all `allOf`: each is intersected with all that came before it.
const MAX_ALL_OF: usize = 64;
/// Options of all `oneOf`: the compiler compares every two of them.
const MAX_ONE_OF: usize = 300;
/// The same in a schema that combines parts: combined, they multiply, to some 300 options.
const MAX_COMBINED_ONE_OF: usize = 16;
/// Options of all `enum` and `anyOf`: a list of the world's towns is too long, one of its
/// languages is not.
const MAX_OPTIONS: usize = 4_000;
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

/// One model's schemas and grammars, and its vocabulary as the grammar engine reads it.
#[derive(Default)]
pub(crate) struct Guides {
    /// Made at the first request that needs it; none where the vocabulary cannot be used.
    factory: OnceLock<Option<ParserFactory>>,
    /// The newest last, by their digests.
    kept: Mutex<VecDeque<([u8; 32], Arc<Matcher>)>>,
}

/// One answer on its way through a schema or a grammar.
pub(crate) struct Guide {
    matcher: Matcher,
    what: What,
}

/// What an answer is held to, as it is named where that cannot be.
#[derive(Clone, Copy)]
enum What {
    Schema,
    Grammar,
    Regex,
    Choice,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Schema => "this JSON Schema",
            Self::Grammar => "this grammar",
            Self::Regex => "this regular expression",
            Self::Choice => "these choices",
        }
    }

    /// The field that most callers say it in.
    const fn field(self) -> &'static str {
        match self {
            Self::Schema => "response_format",
            Self::Grammar => "grammar",
            Self::Regex => "structured_outputs.regex",
            Self::Choice => "structured_outputs.choice",
        }
    }

    /// The refusal for what no answer can be held to here.
    fn refused(self, why: &str) -> Refusal {
        let why: String = why.chars().take(SHOWN_CHARS).collect();
        let message = format!("answers cannot be held to {}: {why}", self.name());
        Refusal::client(Stage::Validate, Code::InvalidRequest, message).param(self.field())
    }

    /// The refusal for an answer whose next step is out of bounds.
    fn too_much(self, why: &str) -> Refusal {
        let why: String = why.chars().take(SHOWN_CHARS).collect();
        let message = format!("the answer cannot be held to {} any further: {why}", self.name());
        Refusal::client(Stage::Execute, Code::InvalidRequest, message).param(self.field())
    }
}

impl Guides {
    /// A guide to the beginning of an answer that holds to a text of [`Constraint`]'s. It is
    /// compiled here, on the caller's thread, unless it is known.
    pub(crate) fn guide(&self, tokenizer: &Tokenizer, text: &str) -> Result<Guide, Refusal> {
        let constraint = Constraint::of(text);
        let what = match constraint {
            Constraint::Schema(_) => What::Schema,
            Constraint::Grammar(_) => What::Grammar,
            Constraint::Regex(_) => What::Regex,
            Constraint::Choice(_) => What::Choice,
            Constraint::Unknown => {
                let message = "this node does not know what the answer is to be held to; update it";
                return Err(elsewhere(Code::Unsupported, message));
            }
        };
        let bytes = constraint.body().len();
        if bytes > Limits::SCHEMA_BYTES {
            let most = Limits::SCHEMA_BYTES;
            return Err(what.refused(&format!("it has {bytes} bytes ({most} are possible)")));
        }
        let digest = *blake3::hash(text.as_bytes()).as_bytes();
        let known = self.known(&digest);
        let matcher = match known {
            Some(matcher) => matcher,
            None => self.keep(digest, self.compile(tokenizer, constraint, what)?),
        };
        // A copy of its own: what one answer explores costs no other one.
        Ok(Guide { matcher: matcher.deep_clone(), what })
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

    fn compile(
        &self,
        tokenizer: &Tokenizer,
        constraint: Constraint<'_>,
        what: What,
    ) -> Result<Matcher, Refusal> {
        let schema = match constraint {
            Constraint::Schema(text) => Some(prepared(text)?),
            Constraint::Grammar(_)
            | Constraint::Regex(_)
            | Constraint::Choice(_)
            | Constraint::Unknown => None,
        };
        let factory = self.factory.get_or_init(|| factory(tokenizer));
        let Some(factory) = factory else {
            let message = "this model's vocabulary cannot be held to a schema or a grammar";
            return Err(elsewhere(Code::Unsupported, message));
        };
        let fuel = factory.limits().initial_lexer_fuel;
        let compiled = catch_unwind(AssertUnwindSafe(|| {
            let rules = match (constraint, schema) {
                (Constraint::Grammar(text), _) => grammar::of_gbnf(text, fuel)?,
                (Constraint::Regex(text), _) => grammar::of_regex(text, fuel)?,
                (Constraint::Choice(text), _) => grammar::of_choice(text, fuel)?,
                (Constraint::Schema(_) | Constraint::Unknown, schema) => {
                    let schema = TopLevelGrammar::from_json_schema(schema.unwrap_or_default());
                    GrammarInit::Serialized(schema)
                }
            };
            factory.create_parser_from_init_default(rules).map_err(|error| format!("{error:#}"))
        }));
        let parser = match compiled {
            Ok(Ok(parser)) => parser,
            Ok(Err(why)) => return Err(what.refused(said(&why))),
            Err(_) => return Err(what.refused("compiling it broke down")),
        };
        let mut matcher = Matcher::new(Ok(parser));
        // Most of a first step's work is done once for all answers.
        match matcher.compute_mask() {
            Ok(_) => Ok(matcher),
            Err(error) => Err(what.refused(said(&error.to_string()))),
        }
    }
}

impl Guide {
    /// The logits of a step with those of tokens ruled out that may not come next; `None` where
    /// the answer can only end.
    pub(crate) fn rule(&mut self, logits: &[f32]) -> Result<Option<Vec<f32>>, Refusal> {
        let what = self.what;
        let mask = self.matcher.compute_mask();
        let mask = mask.map_err(|error| what.too_much(&error.to_string()))?;
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
        match self.matcher.is_accepting() {
            Ok(true) => Ok(None),
            _ => Err(what.too_much("the model's vocabulary has no words for it")),
        }
    }

    /// Takes the next token of the answer.
    pub(crate) fn push(&mut self, token: u32) -> Result<(), Refusal> {
        let what = self.what;
        self.matcher.consume_token(token).map_err(|error| what.too_much(&error.to_string()))
    }

    /// Whether nothing can follow.
    pub(crate) fn is_over(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// Another one at the same place.
    pub(crate) fn fork(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), what: self.what }
    }

    /// Takes text that came with other text in one token; false where an answer cannot begin so.
    pub(crate) fn begun(&mut self, text: &[u8]) -> bool {
        let Ok(environment) = self.matcher.tok_env() else { return false };
        let tokens = environment.tok_trie().greedy_tokenize(text);
        self.matcher.try_consume_tokens(&tokens).is_ok_and(|taken| taken == tokens.len())
    }

    /// Whether the answer could end here.
    #[cfg(test)]
    pub(crate) fn may_end(&mut self) -> bool {
        self.matcher.is_accepting().is_ok_and(|may| may)
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
    let mut counted = Counted::default();
    counted.walk(&schema, true);
    counted.check()?;
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

/// What a schema has of the things whose compiling is not bounded by its bytes. What looks like one
/// within an example, or is the name of a property, counts too.
struct Counted<'a> {
    references: BTreeSet<&'a str>,
    /// `$id`s but the outermost one.
    ids: usize,
    patterns: usize,
    all_of: usize,
    one_of: usize,
    /// Of `enum` and `anyOf`.
    options: usize,
    /// Whether parts of it are intersected with each other.
    combines: bool,
    /// The least common multiple of all digits that its `multipleOf` have.
    common: u64,
}

impl Default for Counted<'_> {
    fn default() -> Self {
        Self {
            references: BTreeSet::new(),
            ids: 0,
            patterns: 0,
            all_of: 0,
            one_of: 0,
            options: 0,
            combines: false,
            common: 1,
        }
    }
}

impl<'a> Counted<'a> {
    fn walk(&mut self, value: &'a Value, outermost: bool) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item, false)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.field(name, value, outermost);
                    self.walk(value, false);
                }
                self.combines |= combines(fields);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn field(&mut self, name: &str, value: &'a Value, outermost: bool) {
        match (name, value) {
            ("$ref", Value::String(text)) => drop(self.references.insert(text)),
            // Older drafts say it without the sign.
            ("$id" | "id", Value::String(_)) if !outermost => self.ids += 1,
            ("patternProperties", Value::Object(fields)) => self.patterns += fields.len(),
            ("allOf", Value::Array(items)) => self.all_of += items.len(),
            ("oneOf", Value::Array(items)) => self.one_of += items.len(),
            ("enum" | "anyOf", Value::Array(items)) => self.options += items.len(),
            ("multipleOf", Value::Number(number)) => {
                let text = number.to_string();
                let digits = text.split(['e', 'E']).next().unwrap_or_default().replace('.', "");
                let digits = digits.parse::<u64>().unwrap_or(u64::MAX).max(1);
                self.common = (self.common / gcd(self.common, digits)).saturating_mul(digits);
            }
            _ => {}
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.common > MAX_MULTIPLE {
            let message = "its multipleOf makes too large a common multiple (10000 is possible)";
            return Err(refused(message));
        }
        let (one_of, patterns, where_) = match self.combines {
            true => (MAX_COMBINED_ONE_OF, MAX_COMBINED_PATTERNS, " where parts are combined"),
            false => (MAX_ONE_OF, MAX_PATTERNS, ""),
        };
        let references = self.references.len().saturating_mul(self.ids + 1);
        for (what, count, most, where_) in [
            ("different $ref", references, MAX_REFERENCES, ""),
            ("names under patternProperties", self.patterns, patterns, where_),
            ("items of allOf", self.all_of, MAX_ALL_OF, ""),
            ("items of oneOf", self.one_of, one_of, where_),
            ("items of enum and anyOf", self.options, MAX_OPTIONS, ""),
        ] {
            if count > most {
                let message = format!("it has {count} {what} ({most} are possible{where_})");
                return Err(refused(&message));
            }
        }
        Ok(())
    }
}

/// Whether one object of a schema has parts that the compiler intersects.
fn combines(fields: &serde_json::Map<String, Value>) -> bool {
    // What makes a schema of other schemas in its own place, and what has schemas further in.
    const HERE: [&str; 4] = ["allOf", "anyOf", "oneOf", "$ref"];
    const WITHIN: [&str; 5] =
        ["properties", "patternProperties", "additionalProperties", "items", "prefixItems"];
    let has = |names: &[&str]| names.iter().filter(|name| fields.contains_key(**name)).count();
    let several = fields.get("allOf").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    let patterned = fields.contains_key("patternProperties") && fields.contains_key("properties");
    let here = has(&HERE);
    several || patterned || here > 1 || (here == 1 && has(&WITHIN) > 0)
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
        // A kilobyte or two each, for each answer under way: 10 MB at worst.
        max_lexer_states: 5_000,
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
    What::Schema.refused(why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "guide_tests.rs"]
pub(crate) mod tests;
