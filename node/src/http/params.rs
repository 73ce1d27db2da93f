//! What a request asks for, judged: every parameter is honoured or refused by name.
//!
//! Owns the parameters both endpoints share and the plan they lead to. Parameters of one endpoint
//! are judged in `chat` and `completions`.

use std::ops::RangeInclusive;

use selvedge_base::{Dice, RequestId};
use selvedge_contract::{Further, Input, Limits, LogProbs, Priority, Sampling};
use selvedge_dialect::chat::{self, Held};
use selvedge_dialect::json::Json;
use selvedge_runtime::Call;
use serde_json::Value;

use super::errors::Problem;
use super::fields::{Fields, Seed, Texts};
use super::guard::Caller;

/// Bytes of a model's name: far above any in use.
const MODEL_BYTES: usize = 256;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// The shape of the answer.
    pub(super) shape: Shape,
    /// The model as the caller wrote it.
    pub(super) model: String,
    /// One per prompt.
    pub(super) inputs: Vec<Input>,
    /// Answers per prompt.
    pub(super) n: usize,
    /// How to draw tokens; its seed is filled in per answer.
    pub(super) sampling: Sampling,
    /// The caller's seed.
    pub(super) seed: Option<u64>,
    /// Most tokens per answer; none = as many as fit.
    pub(super) max_tokens: Option<u32>,
    /// Texts that end an answer.
    pub(super) stop: Vec<String>,
    /// Log probabilities wanted.
    pub(super) logprobs: Option<LogProbs>,
    /// What answers must hold to, as [`selvedge_contract::Constraint`] reads it.
    pub(super) schema: Option<String>,
    /// How urgent it is, where the caller said so.
    pub(super) tier: Option<Priority>,
    /// Whether to send the answer as it is made.
    pub(super) stream: bool,
    /// Whether a stream ends with its usage.
    pub(super) include_usage: bool,
}

/// The shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `chat.completion`.
    Chat,
    /// `text_completion`.
    Text,
}

impl Plan {
    /// The parameters both endpoints share, judged. `inputs` and `logprobs` come from the endpoint.
    pub(super) fn new(
        shape: Shape,
        fields: &mut Fields,
        inputs: Vec<Input>,
        logprobs: Option<LogProbs>,
    ) -> Result<Self, Problem> {
        let stream = fields.stream.unwrap_or(false);
        refuse_unless_empty("logit_bias", fields.logit_bias.as_ref())?;
        let n = whole("n", fields.n, 1..=i64::from(Limits::CHOICES))?.unwrap_or(1) as usize;
        if inputs.len() * n > usize::from(Limits::CHOICES) {
            let message = format!("prompts times 'n' may be at most {}", Limits::CHOICES);
            return Err(Problem::invalid("n", message));
        }
        Ok(Self {
            shape,
            model: model(fields.model.take())?,
            inputs,
            n,
            sampling: sampling(fields)?,
            seed: fields.seed.map(|Seed(seed)| seed),
            max_tokens: max_tokens(fields)?,
            stop: stop(fields.stop.take())?,
            logprobs,
            schema: held(fields)?.map(|held| held.text),
            tier: None,
            stream,
            include_usage: include_usage(fields, stream)?,
        })
    }

    /// The questions to ask, one per answer, in the order of the answers' indexes. `drawn` is the
    /// seed if the caller gave none.
    pub(super) fn calls(self, id: RequestId, drawn: u64, caller: &Caller) -> Vec<Call> {
        let seed = self.seed.unwrap_or(drawn);
        let n = self.n;
        let inputs = self.inputs.into_iter();
        // The last copy is the original: a single answer copies nothing.
        let inputs = inputs.flat_map(|input| std::iter::repeat_n(input, n));
        let call = |(index, input)| Call {
            id: RequestId(id.0.wrapping_add(index as u128)),
            tenant: caller.holder.tenant.clone(),
            account: caller.holder.account.clone(),
            key: caller.holder.key,
            // Leaving the mesh has to be allowed by the caller.
            label: caller.label.unwrap_or_default(),
            deadline: caller.deadline,
            priority: self.tier.unwrap_or_default(),
            model: self.model.clone(),
            input,
            sampling: Sampling { seed: seed_of(seed, index), ..self.sampling.clone() },
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            logprobs: self.logprobs,
            schema: self.schema.clone(),
            trace: None,
            leg: 0,
        };
        inputs.enumerate().map(call).collect()
    }
}

/// The seed of one answer: the first uses the caller's, so that `n` does not change it.
fn seed_of(seed: u64, index: usize) -> u64 {
    match index {
        0 => seed,
        _ => Dice::keyed(seed, &format!("answer {index}")).next(),
    }
}

fn model(model: Option<String>) -> Result<String, Problem> {
    match model {
        Some(model) if !model.is_empty() && model.len() <= MODEL_BYTES => Ok(model),
        Some(_) => {
            let message = format!("'model' must have 1 to {MODEL_BYTES} bytes");
            Err(Problem::invalid("model", message))
        }
        None => Err(Problem::invalid("model", "'model' is required; GET /v1/models lists them")),
    }
}

fn sampling(fields: &Fields) -> Result<Sampling, Problem> {
    let top_p = fields.top_p.unwrap_or(1.0);
    if !(top_p > 0.0 && top_p <= 1.0) {
        let message = "'top_p' must be above 0.0 and at most 1.0; for the likeliest token \
                       always, use 'temperature' 0";
        return Err(Problem::invalid("top_p", message));
    }
    let penalties = -2.0..=2.0;
    Ok(Sampling {
        temperature: number("temperature", fields.temperature, 0.0..=2.0)?.unwrap_or(1.0),
        // The smallest numbers of 64 bits are zero in 32.
        top_p: (top_p as f32).max(f32::MIN_POSITIVE),
        top_k: whole("top_k", fields.top_k, 0..=i64::from(u32::MAX))?.unwrap_or(0) as u32,
        presence_penalty: number("presence_penalty", fields.presence_penalty, penalties.clone())?
            .unwrap_or(0.0),
        frequency_penalty: number("frequency_penalty", fields.frequency_penalty, penalties)?
            .unwrap_or(0.0),
        seed: 0,
        further: Further {
            min_p: number("min_p", fields.min_p, 0.0..=1.0)?.unwrap_or(0.0),
            // What divides by less makes logits that are no numbers.
            repetition_penalty: number(
                "repetition_penalty",
                fields.repetition_penalty,
                0.01..=2.0,
            )?
            .unwrap_or(1.0),
            ..Further::NONE
        },
    })
}

fn max_tokens(fields: &Fields) -> Result<Option<u32>, Problem> {
    let range = 1..=i64::from(Limits::ANSWER_TOKENS);
    let old = whole("max_tokens", fields.max_tokens, range.clone())?;
    let new = whole("max_completion_tokens", fields.max_completion_tokens, range)?;
    if old.is_some() && new.is_some() && old != new {
        let message = "'max_tokens' and 'max_completion_tokens' differ; give one of them";
        return Err(Problem::invalid("max_tokens", message));
    }
    Ok(new.or(old).map(|tokens| tokens as u32))
}

fn stop(stop: Option<Texts>) -> Result<Vec<String>, Problem> {
    let stop = match stop {
        None => Vec::new(),
        Some(Texts::One(text)) => vec![text],
        Some(Texts::Many(texts)) => texts,
    };
    let fits = |text: &String| (1..=Limits::STOP_BYTES).contains(&text.len());
    if stop.len() > Limits::STOPS || !stop.iter().all(fits) {
        let (most, bytes) = (Limits::STOPS, Limits::STOP_BYTES);
        let message = format!("'stop' may be at most {most} strings of 1 to {bytes} bytes each");
        return Err(Problem::invalid("stop", message));
    }
    Ok(stop)
}

/// What the answer is held to by other fields than `response_format`.
pub(super) fn held(fields: &Fields) -> Result<Option<Held>, Problem> {
    let given = [
        ("structured_outputs", &fields.structured_outputs),
        ("grammar", &fields.grammar),
        ("guided_json", &fields.guided_json),
        ("guided_regex", &fields.guided_regex),
        ("guided_choice", &fields.guided_choice),
        ("guided_grammar", &fields.guided_grammar),
    ];
    let given: Vec<(&str, Json)> = given
        .into_iter()
        .filter_map(|(name, value)| value.as_deref().map(|value| (name, Json::from(value))))
        .collect();
    Ok(chat::held(given.iter().map(|(name, value)| (*name, value)))?)
}

fn include_usage(fields: &Fields, stream: bool) -> Result<bool, Problem> {
    let Some(options) = &fields.stream_options else { return Ok(false) };
    if !stream {
        let message = "'stream_options' needs 'stream': true";
        return Err(Problem::invalid("stream_options", message));
    }
    if options.include_obfuscation == Some(true) {
        let message = "'include_obfuscation' is not supported; leave it out or false";
        return Err(Problem::unsupported("stream_options.include_obfuscation", message));
    }
    Ok(options.include_usage.unwrap_or(false))
}

/// A number in its range, or a refusal that names both.
fn number(
    name: &str,
    value: Option<f64>,
    range: RangeInclusive<f64>,
) -> Result<Option<f32>, Problem> {
    match value {
        Some(value) if !range.contains(&value) => {
            let (from, to) = range.into_inner();
            let message = format!("'{name}' must be {from:?} to {to:?}, not {value}");
            Err(Problem::invalid(name, message))
        }
        value => Ok(value.map(|value| value as f32)),
    }
}

/// A whole number in its range, or a refusal that names both.
pub(super) fn whole(
    name: &str,
    value: Option<i64>,
    range: RangeInclusive<i64>,
) -> Result<Option<i64>, Problem> {
    match value {
        Some(value) if !range.contains(&value) => {
            let (from, to) = range.into_inner();
            let message = format!("'{name}' must be {from} to {to}, not {value}");
            Err(Problem::invalid(name, message))
        }
        value => Ok(value),
    }
}

/// Refuses a parameter this version does not honour, unless its value asks for nothing.
pub(super) fn refuse_unless_empty(name: &str, value: Option<&Value>) -> Result<(), Problem> {
    let empty = match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(array)) => array.is_empty(),
        Some(Value::Object(object)) => object.is_empty(),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => false,
    };
    if empty {
        Ok(())
    } else {
        Err(Problem::unsupported(name, format!("'{name}' is not supported")))
    }
}

/// Refuses a parameter unless its value is one of those that change nothing.
pub(super) fn refuse_unless(
    name: &str,
    value: Option<&Value>,
    harmless: &[&str],
) -> Result<(), Problem> {
    let Some(value) = value else { return Ok(()) };
    if value.as_str().is_some_and(|text| harmless.contains(&text)) {
        return Ok(());
    }
    let allowed = harmless.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>();
    let message = match allowed.is_empty() {
        true => format!("'{name}' is not supported"),
        false => format!("'{name}' may only be {} here", allowed.join(" or ")),
    };
    Err(Problem::unsupported(name, message))
}
