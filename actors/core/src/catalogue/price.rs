//! What an answer costs, exactly, and what it can cost at most.
//!
//! Owns the arithmetic: micro-dollars per million tokens times tokens, summed without loss in 128
//! bits and rounded up once, to whole micro-dollars. A count whose price is not known is an error
//! and never free. Where a usage report does not say which of two prices a token has, it gets the
//! dearer one.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Prices of tokens are for this many: the unit of all public price lists.
const PER_TOKENS: u128 = 1_000_000;

/// What a model costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Price {
    /// All of it is known.
    Known(Box<Tariff>),
    /// It is not known: budgets of money must refuse the model.
    #[default]
    Unknown,
}

/// A price list. All amounts are micro-dollars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tariff {
    /// The prices of tokens.
    pub rates: Rates,
    /// Prices of all tokens of requests with longer prompts, by rising length.
    pub tiers: Vec<Tier>,
    /// For each request, whatever its size.
    pub per_request: u64,
    /// For each search of the web; `None` when not known.
    pub web_search: Option<u64>,
}

/// Prices of tokens, in micro-dollars per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Prompts.
    pub input: u64,
    /// Prompts read from a cache; `None`: no discount.
    pub cached_input: Option<u64>,
    /// Prompts written to a cache; `None`: no surcharge.
    pub cache_write: Option<u64>,
    /// Prompts written to a cache for an hour; `None`: not known.
    pub cache_write_1h: Option<u64>,
    /// Answers.
    pub output: u64,
    /// Thinking; `None`: as answers.
    pub reasoning: Option<u64>,
    /// Prompts of sound; `None`: not known.
    pub input_audio: Option<u64>,
    /// Prompts of sound read from a cache; `None`: no discount.
    pub cached_audio: Option<u64>,
    /// Answers of sound; `None`: not known.
    pub output_audio: Option<u64>,
}

/// Prices from a length of the prompt on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tier {
    /// They hold for prompts of more tokens than this.
    pub above: u64,
    /// The prices.
    pub rates: Rates,
}

/// What an answer took. Totals contain their parts, and all counts are of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All tokens of the prompt: read anew, read from a cache, written to one.
    pub prompt: u64,
    /// Of these, read from a cache.
    pub cached: u64,
    /// Of these, written to a cache, for whatever time.
    pub cache_write: u64,
    /// Of the written ones, those kept for an hour.
    pub cache_write_1h: u64,
    /// Of the prompt, tokens of sound.
    pub prompt_audio: u64,
    /// All tokens of the answer, thinking and predictions that did not come true included.
    pub completion: u64,
    /// Of these, thinking.
    pub reasoning: u64,
    /// Of the answer, tokens of sound.
    pub completion_audio: u64,
    /// Searches of the web.
    pub web_searches: u64,
}

/// What a request may come to take, for a reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Tokens of the prompt, at most.
    pub prompt_tokens: u64,
    /// Tokens of the answer, at most, thinking included.
    pub output_tokens: u64,
    /// Whether the prompt has sound in it.
    pub audio_in: bool,
    /// Whether the answer may have sound in it.
    pub audio_out: bool,
    /// Whether the request asks for a part of its prompt to be kept for an hour.
    pub cache_hour: bool,
    /// Searches of the web, at most.
    pub web_searches: u64,
}

/// A part of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// Prompts of sound.
    InputAudio,
    /// Answers of sound.
    OutputAudio,
    /// Prompts kept for an hour.
    CacheHour,
    /// Searches of the web.
    WebSearch,
}

/// There is no price for it, so it cannot be paid for from a budget of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Error)]
pub enum Unpriced {
    /// Nothing is known of what the model costs.
    #[error("no price of the model is known: add one to the catalogue's overrides")]
    Model,
    /// A part of the bill has no known price.
    #[error("no price of the model's {0} is known: add one to the catalogue's overrides")]
    Part(Part),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InputAudio => "audio input",
            Self::OutputAudio => "audio output",
            Self::CacheHour => "cache of an hour",
            Self::WebSearch => "web searches",
        })
    }
}

impl Price {
    /// What an answer costs, in micro-dollars, rounded up; `u64::MAX` when it is more than that.
    ///
    /// # Errors
    /// [`Unpriced`] when the price of the model, or of something the answer took, is not known.
    pub fn cost(&self, counts: &Counts) -> Result<u64, Unpriced> {
        let tariff = self.known()?;
        let tokens = tariff.rates_for(counts.prompt).millionths(counts)?;
        let searches = match (counts.web_searches, tariff.web_search) {
            (0, _) => 0,
            (count, Some(each)) => u128::from(count) * u128::from(each),
            (_, None) => return Err(Unpriced::Part(Part::WebSearch)),
        };
        let whole = tokens.div_ceil(PER_TOKENS) + searches + u128::from(tariff.per_request);
        Ok(u64::try_from(whole).unwrap_or(u64::MAX))
    }

    /// The most that any answer within `ask` can cost, in micro-dollars: every token at the dearest
    /// price it may turn out to have.
    ///
    /// # Errors
    /// [`Unpriced`] when something it may take has no known price.
    pub fn worst_case(&self, ask: &Ask) -> Result<u64, Unpriced> {
        let tariff = self.known()?;
        let mut most = tariff.rates.worst(ask)?;
        for tier in tariff.tiers.iter().filter(|tier| ask.prompt_tokens > tier.above) {
            most = most.max(tier.rates.worst(ask)?);
        }
        let searches = match (ask.web_searches, tariff.web_search) {
            (0, _) => 0,
            (count, Some(each)) => u128::from(count) * u128::from(each),
            (_, None) => return Err(Unpriced::Part(Part::WebSearch)),
        };
        let whole = most.div_ceil(PER_TOKENS) + searches + u128::from(tariff.per_request);
        Ok(u64::try_from(whole).unwrap_or(u64::MAX))
    }

    /// The price list.
    ///
    /// # Errors
    /// [`Unpriced::Model`] when there is none.
    pub fn known(&self) -> Result<&Tariff, Unpriced> {
        match self {
            Self::Known(tariff) => Ok(tariff),
            Self::Unknown => Err(Unpriced::Model),
        }
    }
}

impl Tariff {
    /// The prices that hold for a prompt of this length.
    pub fn rates_for(&self, prompt_tokens: u64) -> &Rates {
        let tier = self.tiers.iter().rev().find(|tier| prompt_tokens > tier.above);
        tier.map_or(&self.rates, |tier| &tier.rates)
    }
}

impl Rates {
    /// The price of the tokens in millionths of micro-dollars. Sound is taken to be read anew as
    /// far as anything was, since that is dearer than from a cache.
    fn millionths(&self, counts: &Counts) -> Result<u128, Unpriced> {
        let fresh = counts.prompt.saturating_sub(counts.cached).saturating_sub(counts.cache_write);
        let fresh_audio = counts.prompt_audio.min(fresh);
        let cached_audio = (counts.prompt_audio - fresh_audio).min(counts.cached);
        let written_short = counts.cache_write.saturating_sub(counts.cache_write_1h);
        let text = counts
            .completion
            .saturating_sub(counts.reasoning)
            .saturating_sub(counts.completion_audio);
        let input_audio = part(counts.prompt_audio, self.input_audio, Part::InputAudio)?;
        let hour = part(counts.cache_write_1h, self.cache_write_1h, Part::CacheHour)?;
        let output_audio = part(counts.completion_audio, self.output_audio, Part::OutputAudio)?;
        let lines = [
            (fresh - fresh_audio, self.input),
            (fresh_audio, input_audio),
            (counts.cached - cached_audio, self.cached_input.unwrap_or(self.input)),
            (cached_audio, self.cached_audio.unwrap_or(input_audio)),
            (written_short, self.cache_write.unwrap_or(self.input)),
            (counts.cache_write_1h, hour),
            (text, self.output),
            (counts.reasoning, self.reasoning.unwrap_or(self.output)),
            (counts.completion_audio, output_audio),
        ];
        Ok(lines.into_iter().map(|(tokens, rate)| u128::from(tokens) * u128::from(rate)).sum())
    }

    /// The most that tokens within `ask` can cost, in millionths of micro-dollars. Whether a prompt
    /// is written to a cache is up to some providers, so that price counts always.
    fn worst(&self, ask: &Ask) -> Result<u128, Unpriced> {
        let mut input = self.input.max(self.cached_input.unwrap_or(0));
        input = input.max(self.cache_write.unwrap_or(0));
        if ask.audio_in {
            let audio = part(1, self.input_audio, Part::InputAudio)?;
            input = input.max(audio).max(self.cached_audio.unwrap_or(0));
        }
        if ask.cache_hour {
            input = input.max(part(1, self.cache_write_1h, Part::CacheHour)?);
        }
        let mut output = self.output.max(self.reasoning.unwrap_or(0));
        if ask.audio_out {
            output = output.max(part(1, self.output_audio, Part::OutputAudio)?);
        }
        let prompt = u128::from(ask.prompt_tokens) * u128::from(input);
        Ok(prompt + u128::from(ask.output_tokens) * u128::from(output))
    }
}

/// The price of a part that must be known as soon as there is some of it.
fn part(tokens: u64, rate: Option<u64>, which: Part) -> Result<u64, Unpriced> {
    match (tokens, rate) {
        (_, Some(rate)) => Ok(rate),
        (0, None) => Ok(0),
        (_, None) => Err(Unpriced::Part(which)),
    }
}
