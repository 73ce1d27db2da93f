//! What a request at a provider can cost, and what its answer did.
//!
//! Owns finding the price list that applies, the bounds of a request's cost, and what counts as
//! used while an answer comes. Prices and their arithmetic are [`crate::catalogue`]'s, which
//! catalogue is in force is [`crate::routes`]', what is reserved and settled [`crate::bill`]'s, and
//! how large a request is, is told by whoever can read it.

use std::sync::Arc;

use selvedge_base::plant::{self, Plant};

use crate::bill::Took;
use crate::catalogue::{self, Ask, Catalogue, Counts, Model, Price};
use crate::upstream::provider::CostClass;
use crate::upstream::{ProviderKind, ProviderSpec};

/// Tokens that a provider can have counted of one prompt or one answer: several times the longest
/// window of any model. What is above it is not a count but a fault, and would be a debt for ever.
const MOST_TOKENS: u64 = 1 << 26;

/// Whether a provider can have counted this.
const fn is_credible(counts: &Counts) -> bool {
    counts.prompt <= MOST_TOKENS && counts.completion <= MOST_TOKENS
}

/// How large a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Tokens of its prompt at most.
    pub prompt_tokens: u64,
    /// Answers it wants.
    pub answers: u32,
    /// Tokens of one answer at most, if the caller says.
    pub max_tokens: Option<u32>,
    /// Tokens of one answer that neither the caller nor the catalogue limits.
    pub usual: u32,
    /// Whether there is sound in its prompt.
    pub audio_in: bool,
    /// Whether a part of its prompt is to be kept for an hour.
    pub cache_hour: bool,
}

/// A request with its price list.
#[derive(Clone, Debug)]
pub struct Priced {
    model: Option<Arc<Model>>,
    free: bool,
    longest: u32,
    ask: Ask,
}

impl Priced {
    /// The request's bounds, by what is known of its model: see [`known`].
    pub fn new(spec: &ProviderSpec, found: Option<Arc<Model>>, size: Size) -> Self {
        let most = found.as_ref().and_then(|model| model.abilities.max_output_tokens);
        let usual = most.map_or(size.usual, |most| most.min(size.usual));
        let longest = size.max_tokens.unwrap_or(usual);
        let ask = Ask {
            prompt_tokens: size.prompt_tokens,
            output_tokens: u64::from(longest).saturating_mul(u64::from(size.answers)),
            audio_in: size.audio_in,
            audio_out: false,
            cache_hour: size.cache_hour,
            web_searches: 0,
        };
        Self { model: found, free: spec.cost == CostClass::Free, longest, ask }
    }

    /// Whether what it costs can be told.
    pub fn is_known(&self) -> bool {
        self.free || self.price().is_some_and(|price| price.worst_case(&self.ask).is_ok())
    }

    /// Tokens of one answer at most.
    pub const fn longest(&self) -> u32 {
        self.longest
    }

    /// The most it can take.
    pub fn worst(&self) -> Took {
        let tokens = self.ask.prompt_tokens.saturating_add(self.ask.output_tokens);
        Took { tokens, micro_dollars: self.money(|price| price.worst_case(&self.ask).ok()) }
    }

    /// What an answer took.
    pub fn cost(&self, counts: &Counts) -> Took {
        let micro_dollars = self.money(|price| price.cost(counts).ok());
        Took { tokens: counts.prompt.saturating_add(counts.completion), micro_dollars }
    }

    /// What a prompt takes that the provider has not counted yet: the most it can.
    pub fn unread(&self) -> Counts {
        Counts { prompt: self.ask.prompt_tokens, ..Counts::default() }
    }

    fn price(&self) -> Option<&Price> {
        self.model.as_ref().map(|model| &model.price)
    }

    /// Nothing where nothing is billed or no price is known (budgets of money refused it then).
    fn money(&self, of: impl Fn(&Price) -> Option<u64>) -> u64 {
        if self.free { 0 } else { self.price().and_then(of).unwrap_or(0) }
    }
}

/// What an answer took so far, while it comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Running {
    /// Pieces that came: a token each, at least, until the provider says what it counts.
    pieces: u64,
}

impl Running {
    /// A piece of the answer came.
    pub const fn piece(&mut self) {
        self.pieces += 1;
    }

    /// What counts as used now: the provider's own count so far, unless it cannot be true, and no
    /// less than was seen. Before it says anything the prompt counts for the most it can be; before
    /// anything came, nothing.
    pub fn counts(&self, priced: &Priced, told: Option<Counts>) -> Option<Counts> {
        let told = told.filter(is_credible);
        if self.pieces == 0 && told.is_none() {
            return None;
        }
        if plant::is_on(Plant::CutForFree) && told.is_none() {
            return None;
        }
        let mut counts = told.unwrap_or_else(|| priced.unread());
        counts.completion = counts.completion.max(self.pieces);
        Some(counts)
    }

    /// What an answer that is over took, and by which counts: what the provider says, unless it
    /// cannot be true; else what was seen. Of an answer that did not stream, or in one piece,
    /// nobody knows how many tokens it has: it took the most it can have, and there are no counts.
    pub fn at_end(
        &self,
        priced: &Priced,
        told: Option<Counts>,
        streams: bool,
    ) -> (Took, Option<Counts>) {
        let told = told.filter(is_credible);
        let seen = || self.counts(priced, None).filter(|_| streams && self.pieces > 1);
        match told.or_else(seen) {
            Some(counts) => (priced.cost(&counts), Some(counts)),
            None => (priced.worst(), None),
        }
    }
}

/// What a catalogue knows of a provider's model. `model` is the provider's own name.
pub fn known(catalogue: &Catalogue, spec: &ProviderSpec, model: &str) -> Option<Arc<Model>> {
    catalogue.find(list_of(spec), model).map(|found| Arc::clone(found.model()))
}

/// Whose price list a provider bills by. One that only speaks like OpenAI is told by its address.
pub fn list_of(spec: &ProviderSpec) -> catalogue::ProviderKind {
    use catalogue::ProviderKind as List;
    match spec.kind {
        ProviderKind::Anthropic => List::Anthropic,
        ProviderKind::Gemini => List::Gemini,
        ProviderKind::Bedrock => List::Bedrock,
        ProviderKind::Azure => List::Azure,
        ProviderKind::Cohere => List::Cohere,
        ProviderKind::Ollama => List::Ollama,
        ProviderKind::OpenAi => {
            let known = [
                ("openai.com", List::OpenAi),
                ("mistral.ai", List::Mistral),
                ("groq.com", List::Groq),
                ("together.xyz", List::Together),
                ("deepseek.com", List::DeepSeek),
                ("openrouter.ai", List::OpenRouter),
                ("x.ai", List::Xai),
                ("fireworks.ai", List::Fireworks),
                ("perplexity.ai", List::Perplexity),
            ];
            let host = spec.base.host();
            let of = |domain: &str| {
                let before = host.strip_suffix(domain);
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            };
            known.iter().find(|(domain, _)| of(domain)).map_or(List::Compatible, |(_, list)| *list)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::RawProvider;

    fn priced() -> Priced {
        let keys = vec!["k".to_owned()];
        let raw = RawProvider { keys, ..RawProvider::named("cloud", ProviderKind::OpenAi) };
        let size = Size { prompt_tokens: 1_000, answers: 1, usual: 100, ..Size::default() };
        let spec = raw.checked().unwrap();
        let model = known(Catalogue::built_in().unwrap(), &spec, "gpt-5.6-luna");
        Priced::new(&spec, model, size)
    }

    fn seen(pieces: usize) -> Running {
        let mut running = Running::default();
        (0..pieces).for_each(|_| running.piece());
        running
    }

    #[test]
    fn what_was_seen_counts_until_more_is_told() {
        let priced = priced();
        assert_eq!(seen(0).counts(&priced, None), None, "nothing came, nothing is owed");
        let two = Counts { prompt: 1_000, completion: 2, ..Counts::default() };
        assert_eq!(seen(2).counts(&priced, None), Some(two), "the prompt for the most it can be");
        let told = Counts { prompt: 40, completion: 1, ..Counts::default() };
        let counts = seen(2).counts(&priced, Some(told));
        assert_eq!(counts, Some(Counts { completion: 2, ..told }), "no less than was seen");
        assert!(
            priced.is_known() && priced.worst().micro_dollars > priced.cost(&two).micro_dollars
        );
    }

    #[test]
    fn an_answer_took_what_is_told_or_seen_or_the_most_it_can_have() {
        let priced = priced();
        let told = Counts { prompt: 40, completion: 1, ..Counts::default() };
        let end = (priced.cost(&told), Some(told));
        for streams in [false, true] {
            let took = seen(2).at_end(&priced, Some(told), streams);
            assert_eq!(took, end, "the provider's count is its bill");
        }
        let untrue = Counts { completion: 1 << 62, ..told };
        let two = Counts { prompt: 1_000, completion: 2, ..Counts::default() };
        for told in [None, Some(untrue)] {
            assert_eq!(seen(2).at_end(&priced, told, true), (priced.cost(&two), Some(two)));
            for (pieces, streams) in [(0, true), (1, true), (1, false), (2, false)] {
                // Two whole answers are two pieces.
                let took = seen(pieces).at_end(&priced, told, streams);
                assert_eq!(took, (priced.worst(), None));
            }
        }
    }
}
