//! Entries as they are written, and what they must hold to become models.
//!
//! Every field but the name may be left out, since an operator's entry replaces single fields of a
//! built-in one. What is left out of both is missing, and said so.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    Abilities, Capability, CatalogueError, MAX_ALIASES, MAX_ID_BYTES, MAX_RATE, MAX_TIERS,
    Modality, Model, Price, ProviderKind, Rates, Tariff, Tier,
};

/// What is said of a model. Fields that are absent say nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Whose it is.
    pub kind: ProviderKind,
    /// What the provider calls it.
    pub id: String,
    /// Other names of it.
    #[serde(default)]
    pub aliases: Option<Vec<String>>,
    /// When this was true, as YYYY-MM-DD.
    #[serde(default)]
    pub as_of: Option<String>,
    /// Whether the provider means to switch it off.
    #[serde(default)]
    pub deprecated: Option<bool>,
    /// Tokens of prompt and answer together.
    #[serde(default)]
    pub context: Option<u32>,
    /// Tokens of the prompt.
    #[serde(default)]
    pub max_input: Option<u32>,
    /// Tokens of the answer.
    #[serde(default)]
    pub max_output: Option<u32>,
    /// Numbers in an embedding; makes it a model of embeddings.
    #[serde(default)]
    pub embedding_dimensions: Option<u32>,
    /// What it reads.
    #[serde(default)]
    pub input: Option<BTreeSet<Modality>>,
    /// What it writes.
    #[serde(default)]
    pub output: Option<BTreeSet<Modality>>,
    /// What else it can do.
    #[serde(default)]
    pub can: Option<BTreeSet<Capability>>,
    /// What it costs.
    #[serde(default)]
    pub price: Option<PriceEntry>,
}

/// What is said of a price, in micro-dollars: per million tokens, or each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceEntry {
    /// `true` forgets what was known before of this price.
    #[serde(default)]
    pub unknown: Option<bool>,
    /// See [`Rates::input`].
    #[serde(default)]
    pub input: Option<u64>,
    /// See [`Rates::cached_input`].
    #[serde(default)]
    pub cached_input: Option<u64>,
    /// See [`Rates::cache_write`].
    #[serde(default)]
    pub cache_write: Option<u64>,
    /// See [`Rates::cache_write_1h`].
    #[serde(default)]
    pub cache_write_1h: Option<u64>,
    /// See [`Rates::output`].
    #[serde(default)]
    pub output: Option<u64>,
    /// See [`Rates::reasoning`].
    #[serde(default)]
    pub reasoning: Option<u64>,
    /// See [`Rates::input_audio`].
    #[serde(default)]
    pub input_audio: Option<u64>,
    /// See [`Rates::cached_audio`].
    #[serde(default)]
    pub cached_audio: Option<u64>,
    /// See [`Rates::output_audio`].
    #[serde(default)]
    pub output_audio: Option<u64>,
    /// See [`Tariff::per_request`].
    #[serde(default)]
    pub per_request: Option<u64>,
    /// See [`Tariff::web_search`].
    #[serde(default)]
    pub web_search: Option<u64>,
    /// See [`Tariff::tiers`]; replaced as a whole.
    #[serde(default)]
    pub tiers: Option<Vec<TierEntry>>,
}

/// Prices from a length of the prompt on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierEntry {
    /// See [`Tier::above`].
    pub above: u64,
    /// See [`Rates::input`].
    pub input: u64,
    /// See [`Rates::cached_input`].
    #[serde(default)]
    pub cached_input: Option<u64>,
    /// See [`Rates::cache_write`].
    #[serde(default)]
    pub cache_write: Option<u64>,
    /// See [`Rates::cache_write_1h`].
    #[serde(default)]
    pub cache_write_1h: Option<u64>,
    /// See [`Rates::output`].
    pub output: u64,
    /// See [`Rates::reasoning`].
    #[serde(default)]
    pub reasoning: Option<u64>,
    /// See [`Rates::input_audio`].
    #[serde(default)]
    pub input_audio: Option<u64>,
    /// See [`Rates::cached_audio`].
    #[serde(default)]
    pub cached_audio: Option<u64>,
    /// See [`Rates::output_audio`].
    #[serde(default)]
    pub output_audio: Option<u64>,
}

impl Entry {
    /// An entry that says nothing yet.
    pub fn named(kind: ProviderKind, id: impl Into<String>) -> Self {
        Self {
            kind,
            id: id.into(),
            aliases: None,
            as_of: None,
            deprecated: None,
            context: None,
            max_input: None,
            max_output: None,
            embedding_dimensions: None,
            input: None,
            output: None,
            can: None,
            price: None,
        }
    }

    /// Takes over what `newer` says; fields it does not name stay.
    pub(super) fn replace(&mut self, newer: &Self) {
        replace(&mut self.aliases, &newer.aliases);
        replace(&mut self.as_of, &newer.as_of);
        replace(&mut self.deprecated, &newer.deprecated);
        replace(&mut self.context, &newer.context);
        replace(&mut self.max_input, &newer.max_input);
        replace(&mut self.max_output, &newer.max_output);
        replace(&mut self.embedding_dimensions, &newer.embedding_dimensions);
        replace(&mut self.input, &newer.input);
        replace(&mut self.output, &newer.output);
        replace(&mut self.can, &newer.can);
        if let Some(newer) = &newer.price {
            self.price.get_or_insert_default().replace(newer);
        }
    }

    /// The model it describes.
    pub(super) fn check(&self) -> Result<Model, CatalogueError> {
        check_id(&self.id).map_err(|why| self.refused(why))?;
        let aliases = self.aliases.clone().unwrap_or_default();
        if aliases.len() > MAX_ALIASES {
            return Err(self.refused(format!("it has more than {MAX_ALIASES} aliases")));
        }
        for alias in &aliases {
            check_id(alias).map_err(|why| self.refused(format!("alias '{alias}': {why}")))?;
        }
        let as_of = self.needed(self.as_of.clone(), "as_of")?;
        if !is_date(&as_of) {
            return Err(self.refused(format!("as_of '{as_of}' is no date: write YYYY-MM-DD")));
        }
        let context_tokens = self.needed(self.context, "context")?;
        if context_tokens == 0 {
            return Err(self.refused("a context of 0 tokens holds nothing"));
        }
        let within = |limit: Option<u32>| limit.is_none_or(|l| l > 0 && l <= context_tokens);
        if !within(self.max_input) || !within(self.max_output) {
            return Err(self.refused("max_input and max_output lie between 1 and context"));
        }
        let abilities = Abilities {
            context_tokens,
            max_input_tokens: self.max_input,
            max_output_tokens: self.max_output,
            input: self.needed(self.input.clone(), "input")?,
            output: self.needed(self.output.clone(), "output")?,
            can: self.needed(self.can.clone(), "can")?,
            embedding_dimensions: self.embedding_dimensions,
        };
        if abilities.embedding_dimensions.is_some() != abilities.output.is_empty() {
            return Err(
                self.refused("a model either has an output, or embedding_dimensions and no output")
            );
        }
        let price = self.price.as_ref().map_or(Ok(Price::Unknown), PriceEntry::check);
        Ok(Model {
            kind: self.kind,
            id: self.id.clone(),
            aliases,
            as_of,
            deprecated: self.deprecated.unwrap_or(false),
            abilities,
            price: price.map_err(|why| self.refused(format!("price: {why}")))?,
        })
    }

    fn needed<T>(&self, field: Option<T>, name: &str) -> Result<T, CatalogueError> {
        field.ok_or_else(|| self.refused(format!("'{name}' is missing")))
    }

    pub(super) fn refused(&self, why: impl Into<String>) -> CatalogueError {
        CatalogueError::Entry { kind: self.kind, id: self.id.clone(), why: why.into() }
    }
}

impl PriceEntry {
    fn replace(&mut self, newer: &Self) {
        if newer.unknown == Some(true) {
            *self = Self::default();
        }
        replace(&mut self.input, &newer.input);
        replace(&mut self.cached_input, &newer.cached_input);
        replace(&mut self.cache_write, &newer.cache_write);
        replace(&mut self.cache_write_1h, &newer.cache_write_1h);
        replace(&mut self.output, &newer.output);
        replace(&mut self.reasoning, &newer.reasoning);
        replace(&mut self.input_audio, &newer.input_audio);
        replace(&mut self.cached_audio, &newer.cached_audio);
        replace(&mut self.output_audio, &newer.output_audio);
        replace(&mut self.per_request, &newer.per_request);
        replace(&mut self.web_search, &newer.web_search);
        replace(&mut self.tiers, &newer.tiers);
    }

    /// The price it says; unknown when it says nothing at all.
    fn check(&self) -> Result<Price, String> {
        let silent = Self { unknown: self.unknown, ..Self::default() };
        if *self == silent {
            return Ok(Price::Unknown);
        }
        let (Some(input), Some(output)) = (self.input, self.output) else {
            return Err("it needs both input and output, or nothing (then it is unknown)".into());
        };
        let rates = Rates {
            input,
            cached_input: self.cached_input,
            cache_write: self.cache_write,
            cache_write_1h: self.cache_write_1h,
            output,
            reasoning: self.reasoning,
            input_audio: self.input_audio,
            cached_audio: self.cached_audio,
            output_audio: self.output_audio,
        };
        let tiers: Vec<Tier> = self.tiers.iter().flatten().map(TierEntry::tier).collect();
        if tiers.len() > MAX_TIERS {
            return Err(format!("it has more than {MAX_TIERS} tiers"));
        }
        if !tiers.windows(2).all(|pair| pair[0].above < pair[1].above) {
            return Err("tiers must rise, each with its own 'above'".into());
        }
        let per_request = self.per_request.unwrap_or(0);
        let each = [Some(per_request), self.web_search];
        let amounts = tiers.iter().flat_map(|tier| tier.rates.all()).chain(rates.all()).chain(each);
        if let Some(amount) = amounts.flatten().find(|amount| *amount > MAX_RATE) {
            return Err(format!("{amount} is over {MAX_RATE} micro-dollars, a dollar a token"));
        }
        let web_search = self.web_search;
        Ok(Price::Known(Box::new(Tariff { rates, tiers, per_request, web_search })))
    }
}

impl TierEntry {
    const fn tier(&self) -> Tier {
        let rates = Rates {
            input: self.input,
            cached_input: self.cached_input,
            cache_write: self.cache_write,
            cache_write_1h: self.cache_write_1h,
            output: self.output,
            reasoning: self.reasoning,
            input_audio: self.input_audio,
            cached_audio: self.cached_audio,
            output_audio: self.output_audio,
        };
        Tier { above: self.above, rates }
    }
}

impl Rates {
    const fn all(&self) -> [Option<u64>; 9] {
        [
            Some(self.input),
            self.cached_input,
            self.cache_write,
            self.cache_write_1h,
            Some(self.output),
            self.reasoning,
            self.input_audio,
            self.cached_audio,
            self.output_audio,
        ]
    }
}

fn replace<T: Clone>(field: &mut Option<T>, newer: &Option<T>) {
    if newer.is_some() {
        field.clone_from(newer);
    }
}

/// Ids go into addresses and headers: printable ASCII without spaces.
fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("a name is 1 to {MAX_ID_BYTES} printable ASCII characters, no spaces"));
    }
    Ok(())
}

/// Whether a text is a day of the calendar (leap years apart) as YYYY-MM-DD.
pub(super) fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        bytes[from..to].iter().all(u8::is_ascii_digit).then(|| text[from..to].parse::<u32>().ok())
    };
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' || !text.is_ascii() {
        return false;
    }
    match (digits(0, 4).flatten(), digits(5, 7).flatten(), digits(8, 10).flatten()) {
        (Some(year), Some(month), Some(day)) => {
            (2000..=2199).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day)
        }
        _ => false,
    }
}
