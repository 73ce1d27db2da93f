//! What it takes to hold an answer to a JSON Schema: the schema's part of each token.
//!
//! Owns the schema and the process that measures: the model writes an answer, and what rules tokens
//! out is timed beside it. Ours alone; there is no target, a step of the model is what it adds to.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_engine::{Gauge, Held};

use crate::driver::{Measured, Starter, tell, tell_list};
use crate::place::now;

/// The argument that makes this program the measure.
pub(crate) const WORD: &str = "--hold";

/// Tokens of the answer at most.
const TOKENS: usize = 256;
/// Before the answer.
const TEXT: &str = "The order of a customer, as JSON:\n";
/// Of the kinds that callers use: texts, numbers, a choice, a pattern, lists of objects.
const SCHEMA: &str = r#"{"type":"object","properties":{
    "id":{"type":"string","pattern":"^[A-Z]{2}-[0-9]{6}$"},
    "customer":{"type":"object","properties":{"name":{"type":"string","maxLength":40},
        "email":{"type":"string","maxLength":40},"since":{"type":"string","format":"date"}},
        "required":["name","email","since"],"additionalProperties":false},
    "status":{"enum":["open","paid","sent","returned"]},
    "items":{"type":"array","minItems":2,"maxItems":4,"items":{"type":"object","properties":{
        "article":{"type":"string","maxLength":30},
        "count":{"type":"integer","minimum":1,"maximum":99},"price":{"type":"number"}},
        "required":["article","count","price"],
        "additionalProperties":false}},
    "note":{"type":["string","null"],"maxLength":60}},
    "required":["id","customer","status","items","note"],"additionalProperties":false}"#;

/// Microseconds: the model's first schema, another one, and each token's.
pub(crate) struct Masks {
    pub(crate) first: f64,
    pub(crate) compiled: f64,
    pub(crate) tokens: Vec<f64>,
}

/// Measures a model.
pub(crate) fn run(starter: &Starter, model: &Path, threads: usize) -> Result<Masks> {
    let model = model.to_str().context("a path that is no text")?;
    let this = std::env::current_exe()?;
    let mut driver = starter.start(&this, &[WORD, model, &threads.to_string()])?;
    let numbers = driver.list("hold")?;
    let [first, compiled, tokens @ ..] = numbers.as_slice() else {
        anyhow::bail!("no figures of a schema");
    };
    ensure!(!tokens.is_empty(), "an answer without a token");
    Ok(Masks { first: *first, compiled: *compiled, tokens: tokens.to_vec() })
}

/// Tells what one answer took.
pub(crate) fn serve(model: &Path, threads: usize) -> Result<()> {
    let began = now();
    let mut gauge = Gauge::open(model, threads)?;
    tell(Measured { tokens: 0, took: began.elapsed() })?;
    std::io::stdin().read_line(&mut String::new())?;
    let held = hold(&mut gauge)?;
    let times = [held.first, held.compiled].into_iter().chain(held.tokens);
    tell_list(times.map(|time: Duration| time.as_micros()))
}

fn hold(gauge: &mut Gauge) -> Result<Held> {
    let began = now();
    Ok(gauge.hold((TEXT, SCHEMA), TOKENS, &|| began.elapsed())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_that_is_timed_holds_to_the_schema() {
        let mut gauge = Gauge::open(&crate::place::model().unwrap(), 2).unwrap();
        let held = hold(&mut gauge).unwrap();
        assert!(held.text.trim_start().starts_with('{') && held.tokens.len() > 20, "{}", held.text);
        if held.tokens.len() < TOKENS {
            let value: serde_json::Value = serde_json::from_str(&held.text).unwrap();
            assert!(value["items"].as_array().unwrap().len() >= 2, "{value}");
        }
        assert!(held.first > held.compiled);
    }
}
