//! A model of a provider outside of the mesh: how it answers, what it bills, and how it fails.
//!
//! Owns what a request meets there and what is said back, a word at a time. Knows nothing of who
//! asks but a number. It is environment, as the network and the disks are: nothing of production
//! is replaced by it.

use std::collections::BTreeSet;

use selvedge_base::Micros;
use selvedge_core::catalogue::Counts;

use crate::engine::Prompt;
use crate::plan::{ProviderFault, ProviderPlan};
use crate::stream::Stream;

/// The purpose of providers' streams.
const CLOUD: u64 = 11;
/// A piece has up to this many tokens.
const MOST_IN_A_PIECE: u64 = 4;
/// Of answers that a provider cuts, so many are cut after any piece.
const CUT_PERMILLE: u64 = 400;

/// One provider.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub(crate) latency: Micros,
    first: Micros,
    each: Micros,
    tells_early: bool,
    stream: Stream,
    /// What is wrong with it: the faults that began and did not end, by their place in the plan.
    faults: Vec<(usize, ProviderFault, u64)>,
    /// Faults that somebody met.
    pub(crate) met: BTreeSet<usize>,
}

/// One request at a provider.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) cloud: usize,
    /// Who asks: a node, and which start of its process.
    pub(crate) node: usize,
    pub(crate) start: u64,
    pub(crate) request: u64,
    pub(crate) prompt: Prompt,
    /// Tokens of the answer at most.
    pub(crate) most: u32,
    state: State,
    /// Tokens of the answer that it was given as its beginning.
    begun: u32,
    /// Tokens and pieces of the answer there are, those included.
    made: u32,
    pieces: u32,
    /// Whoever asked does not want it any more.
    pub(crate) gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    OnTheWay,
    Thinking,
    Answering,
    Over,
}

/// What a provider, or the way to it, lets a node hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The connection is ready.
    Connected,
    /// There is no way there.
    NoRoute,
    /// A status that is no answer.
    Status { status: u16, retry_after: Option<Micros> },
    /// The first byte; the tokens of the prompt, if it tells them so early.
    Head { prompt: Option<u32> },
    /// A piece of the answer.
    Piece { index: u32, from: u32, to: u32 },
    /// The end, and what is billed.
    Done { prompt: u64, completion: u64 },
    /// The connection closed.
    Cut,
}

impl Exchange {
    pub(crate) const fn new(
        (cloud, node, start): (usize, usize, u64),
        request: u64,
        (prompt, most): (Prompt, u32),
        (begun, pieces): (u32, u32),
    ) -> Self {
        Self {
            cloud,
            node,
            start,
            request,
            prompt,
            most,
            state: State::OnTheWay,
            begun,
            made: begun,
            pieces,
            gone: false,
        }
    }

    /// Whether nothing more comes of it.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Over
    }
}

impl Cloud {
    pub(crate) fn new(seed: u64, index: usize, plan: &ProviderPlan) -> Self {
        use selvedge_core::upstream::ProviderKind;
        Self {
            latency: plan.latency,
            first: plan.first,
            each: plan.each,
            tells_early: plan.kind == ProviderKind::Anthropic,
            stream: Stream::keyed(seed, CLOUD, index, 0),
            faults: Vec::new(),
            met: BTreeSet::new(),
        }
    }

    pub(crate) fn begin(&mut self, index: usize, fault: ProviderFault, by: u64) {
        self.faults.push((index, fault, by));
    }

    pub(crate) fn end(&mut self, index: usize) {
        self.faults.retain(|(known, _, _)| *known != index);
    }

    /// Whether the other side of the way is silent when there is none, or says so.
    pub(crate) fn is_dropped(&mut self) -> bool {
        self.stream.chance(500)
    }

    /// Whether this is wrong with it, and by how much; whoever asks has met it.
    fn meets(&mut self, fault: ProviderFault) -> Option<u64> {
        let (index, _, by) = *self.faults.iter().find(|(_, known, _)| *known == fault)?;
        self.met.insert(index);
        Some(by)
    }

    /// The provider's next word on an exchange, and when the one after is due.
    pub(crate) fn speak(&mut self, exchange: &mut Exchange) -> (Vec<Word>, Option<Micros>) {
        if exchange.gone {
            exchange.state = State::Over;
        }
        match exchange.state {
            State::OnTheWay => self.hears(exchange),
            State::Thinking => {
                exchange.state = State::Answering;
                let prompt = self.tells_early.then_some(exchange.prompt.tokens + exchange.begun);
                (vec![Word::Head { prompt }], Some(self.pause()))
            }
            State::Answering => self.goes_on(exchange),
            State::Over => (Vec::new(), None),
        }
    }

    fn hears(&mut self, exchange: &mut Exchange) -> (Vec<Word>, Option<Micros>) {
        exchange.state = State::Over;
        if let Some(by) = self.meets(ProviderFault::Limits) {
            let retry_after = (by > 0).then(|| Micros::millis(by));
            return (vec![Word::Status { status: 429, retry_after }], None);
        }
        if self.meets(ProviderFault::Fails).is_some() {
            let status = [500, 502, 503, 529][self.stream.below(4) as usize];
            return (vec![Word::Status { status, retry_after: None }], None);
        }
        if self.meets(ProviderFault::Hangs).is_some() {
            return (Vec::new(), None);
        }
        exchange.state = State::Thinking;
        (Vec::new(), Some(self.first))
    }

    fn goes_on(&mut self, exchange: &mut Exchange) -> (Vec<Word>, Option<Micros>) {
        let whole = exchange.prompt.answer.min(exchange.most).max(1);
        let piece = 1 + self.stream.below(MOST_IN_A_PIECE) as u32;
        let from = exchange.made;
        exchange.made = (exchange.made + piece).min(whole).max(from);
        let (index, to) = (exchange.pieces, exchange.made);
        let mut words = vec![Word::Piece { index, from, to }];
        exchange.pieces += 1;
        if exchange.made >= whole {
            exchange.state = State::Over;
            let mut counts = exchange.counts();
            if let Some(times) = self.meets(ProviderFault::Overbills) {
                counts.completion = counts.completion.saturating_mul(times);
            }
            let Counts { prompt, completion, .. } = counts;
            words.push(Word::Done { prompt, completion });
            return (words, None);
        }
        if self.stream.chance(CUT_PERMILLE) && self.meets(ProviderFault::Cuts).is_some() {
            exchange.state = State::Over;
            words.push(Word::Cut);
            return (words, None);
        }
        (words, Some(self.pause()))
    }

    fn pause(&mut self) -> Micros {
        match self.meets(ProviderFault::Drips) {
            Some(by) => Micros::millis(by),
            None => self.each,
        }
    }
}

impl Exchange {
    /// What it took so far.
    pub(crate) fn counts(&self) -> Counts {
        let prompt = u64::from(self.prompt.tokens + self.begun);
        let completion = u64::from(self.made - self.begun);
        Counts { prompt, completion, ..Counts::default() }
    }
}
