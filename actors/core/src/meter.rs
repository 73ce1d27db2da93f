//! How much of its reservation an answer has used, and when to ask for more.
//!
//! Owns the arithmetic between a request and its budgets: the worst case before anything is known,
//! the real prompt once a node has read it, the tokens as they come, and what is settled at the end
//! whatever the end was. Does not own budgets: `quota` says what is granted.

use selvedge_base::plant::{self, Plant};
use selvedge_contract::{Input, Limits, Usage};

/// Answer tokens reserved at a time for a caller that set no limit. Several screens: most answers
/// need no second piece, and a caller that leaves holds little of the budget for its lease.
pub const CHUNK_TOKENS: u64 = 1_024;
/// More is asked for when this is left. A fast engine on this class of hardware makes a token every
/// 5 ms or so: 64 leave a third of a second for the budget's answer, ten times what it may take.
pub const ASK_AT_TOKENS: u64 = 64;
/// Tokens around each message and around the whole: role, begin and end marks. Three or four where
/// the tokenizer knows the marks; the longest in use has thirty bytes, should it know none.
const TEMPLATE_TOKENS: u64 = 32;
/// What a template says by itself when the caller gives no system message: those in use add up to
/// forty tokens.
const SYSTEM_TOKENS: u64 = 64;
/// What a template says of how to call functions, or this program where a template says nothing:
/// the published ones write up to some 900 bytes of it.
const CALLING_TOKENS: u64 = 1_024;
/// What stands around each function in a prompt.
const TOOL_TOKENS: u64 = 128;
/// Tokens a node may count that were not seen: the end mark, and a stop sequence it kept back.
const HIDDEN_TOKENS: u64 = 64;

/// The use of one reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    reserved: u64,
    /// What the prompt takes: an estimate until a node has read it.
    prompt: u64,
    /// What the prompt can take at most, whatever a node says.
    longest: u64,
    read: bool,
    emitted: u64,
    /// The caller's own limit, which was reserved for in full.
    limit: Option<u64>,
    /// More was asked for and not answered yet.
    asked: Option<u64>,
}

impl Meter {
    /// The meter of a request whose answer has at most `max_tokens` tokens, if it has a limit.
    pub fn new(input: &Input, max_tokens: Option<u32>) -> Self {
        Self::of(prompt_at_most(input), max_tokens)
    }

    /// The same of a prompt whose tokens were counted.
    pub fn counted(prompt_tokens: u32, max_tokens: Option<u32>) -> Self {
        Self::of(u64::from(prompt_tokens), max_tokens)
    }

    fn of(prompt: u64, max_tokens: Option<u32>) -> Self {
        let limit = max_tokens.map(u64::from);
        let reserved = prompt.saturating_add(limit.unwrap_or(CHUNK_TOKENS));
        Self { reserved, prompt, longest: prompt, read: false, emitted: 0, limit, asked: None }
    }

    /// Tokens reserved or asked for so far.
    pub const fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Tokens the node answers for to a serving peer: all that was reserved, or without a limit as
    /// many as an answer can have, since the node stops it where its budgets end.
    pub const fn answers_for(&self) -> u64 {
        match self.limit {
            Some(_) => self.reserved,
            None => self.prompt.saturating_add(Limits::ANSWER_TOKENS as u64),
        }
    }

    /// A node has read the prompt; what it says beyond the longest it can be is not believed. Some:
    /// more must be asked for.
    pub fn started(&mut self, prompt_tokens: u32) -> Option<u64> {
        if !self.read {
            self.prompt = u64::from(prompt_tokens).min(self.longest);
            self.read = true;
        }
        self.ask()
    }

    /// A token came. Some: so much more must be asked for.
    pub fn token(&mut self) -> Option<u64> {
        self.emitted += 1;
        self.ask()
    }

    /// What was asked for was granted.
    pub fn extended(&mut self) {
        self.reserved = self.reserved.saturating_add(self.asked.take().unwrap_or(0));
    }

    /// Whether everything reserved is used, so that no token more may be given out.
    pub fn is_used_up(&self) -> bool {
        let used_up = self.used() >= self.reserved && self.emitted < self.most();
        self.read && used_up && !plant::is_on(Plant::UsedUpUnnoticed)
    }

    /// Tokens used so far: the prompt if it was read, and what was given out.
    pub const fn used(&self) -> u64 {
        if self.read { self.prompt.saturating_add(self.emitted) } else { 0 }
    }

    /// The answer is complete, and the node that served it says what it took. A node that counts
    /// less than was seen is not believed, nor one that counts more than there can be.
    pub fn finished(&mut self, usage: &Usage) {
        let prompt = u64::from(usage.prompt_tokens).min(self.longest);
        self.prompt = self.prompt.max(prompt);
        let most = self.most().min(u64::from(Limits::ANSWER_TOKENS));
        let told = u64::from(usage.completion_tokens).min(most);
        self.emitted = self.emitted.max(told.min(self.emitted.saturating_add(HIDDEN_TOKENS)));
        self.read = true;
    }

    /// Whether a node has read the prompt, from when on the request counts as one.
    pub const fn has_begun(&self) -> bool {
        self.read
    }

    const fn most(&self) -> u64 {
        match self.limit {
            Some(limit) => limit,
            None => u64::MAX,
        }
    }

    fn ask(&mut self) -> Option<u64> {
        if self.asked.is_some() {
            return None;
        }
        let more = match self.limit {
            // The whole answer was reserved for: only a longer prompt can need more.
            Some(limit) => self.prompt.saturating_add(limit).saturating_sub(self.reserved),
            None => {
                let left = self.reserved.saturating_sub(self.used());
                let lacking = self.used().saturating_sub(self.reserved);
                if left > ASK_AT_TOKENS { 0 } else { CHUNK_TOKENS.saturating_add(lacking) }
            }
        };
        self.asked = (more > 0).then_some(more);
        self.asked
    }
}

/// Tokens a prompt is reserved for before any node has read it. No tokenizer makes more tokens than
/// a text has bytes; English takes a quarter of that, and the rest comes back when the answer ends.
/// Reserving for less would let a dense prompt be read that no budget can pay for.
fn prompt_at_most(input: &Input) -> u64 {
    let of = |text: &str| text.len() as u64;
    let tokens = match input {
        Input::Chat(messages) => {
            let each = messages.iter().map(|message| of(&message.content) + TEMPLATE_TOKENS);
            each.sum::<u64>() + SYSTEM_TOKENS
        }
        Input::Text(text) => of(text),
        Input::Tokens(tokens) => tokens.len() as u64,
        // Templates write tools and calls with spaces between the parts of their JSON, or each on a
        // line of its own, and say how a function is called.
        Input::Tooled(chat) => {
            let around = chat.messages.len() as u64 * TEMPLATE_TOKENS
                + chat.tools.len() as u64 * TOOL_TOKENS;
            2 * chat.bytes() as u64 + around + SYSTEM_TOKENS + CALLING_TOKENS
        }
    };
    tokens + TEMPLATE_TOKENS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Input {
        Input::Text("x".repeat(bytes))
    }

    #[test]
    fn an_answer_with_a_limit_is_reserved_for_at_once() {
        let mut meter = Meter::new(&text(400), Some(100));
        assert_eq!(meter.reserved(), 400 + 32 + 100);
        assert_eq!(meter.used(), 0, "nothing is used before a node has read the prompt");
        assert_eq!(meter.started(90), None);
        for _ in 0..100 {
            assert_eq!(meter.token(), None);
            assert!(!meter.is_used_up());
        }
        assert_eq!(meter.used(), 190);
    }

    #[test]
    fn a_counted_prompt_is_reserved_for_exactly() {
        let mut meter = Meter::counted(120, Some(100));
        assert_eq!(meter.reserved(), 220);
        assert_eq!(meter.started(120), None);
    }

    #[test]
    fn a_node_that_counts_more_than_there_can_be_is_not_believed() {
        let mut meter = Meter::new(&text(400), Some(100));
        assert_eq!(meter.started(u32::MAX), None);
        assert_eq!(meter.used(), 432, "no more tokens than bytes");
        meter.token();
        let wild =
            Usage { prompt_tokens: u32::MAX, completion_tokens: u32::MAX, ..Usage::default() };
        let mut open = Meter::new(&text(400), None);
        open.started(100);
        open.finished(&wild);
        assert_eq!(open.used(), 432 + HIDDEN_TOKENS);
        meter.finished(&wild);
        assert_eq!(meter.used(), 432 + 1 + HIDDEN_TOKENS);
        let mut ended = Meter::new(&text(0), Some(2));
        ended.started(1);
        ended.token();
        ended.finished(&wild);
        assert_eq!(ended.used(), 32 + 2, "never above the caller's own limit");
    }

    #[test]
    fn an_answer_without_a_limit_grows_by_pieces_and_never_beyond_them() {
        let mut meter = Meter::new(&text(0), None);
        assert_eq!(meter.started(32), None);
        let mut asked = Vec::new();
        for n in 1..=CHUNK_TOKENS {
            if let Some(more) = meter.token() {
                asked.push((n, more));
            }
            assert_eq!(meter.is_used_up(), n == CHUNK_TOKENS);
        }
        assert_eq!(asked, [(CHUNK_TOKENS - ASK_AT_TOKENS, CHUNK_TOKENS)]);
        meter.extended();
        assert!(!meter.is_used_up());
        assert_eq!(meter.reserved(), 32 + 2 * CHUNK_TOKENS);
    }

    #[test]
    fn what_was_seen_counts_at_least() {
        let mut meter = Meter::new(&text(40), Some(10));
        meter.started(20);
        for _ in 0..5 {
            meter.token();
        }
        let told = Usage { prompt_tokens: 3, completion_tokens: 2, ..Usage::default() };
        meter.finished(&told);
        assert_eq!(meter.used(), 25);
        let hidden = Usage { prompt_tokens: 20, completion_tokens: 9, ..Usage::default() };
        meter.finished(&hidden);
        assert_eq!(meter.used(), 29);
    }
}
