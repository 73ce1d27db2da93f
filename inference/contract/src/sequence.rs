//! One request in a schedule: its tokens, and how far it is.
//!
//! Owns the arithmetic of one sequence. Which sequence advances is the schedule's choice, which
//! pages there are is known by [`Prefixes`].

use selvedge_base::{Mono, RequestId};

use crate::draft::{Guess, Lookup};
use crate::fair::{Claim, MOST_OVERTAKEN, Priority, Rank, Tenant};
use crate::prefix::{Kept, PageId, Prefixes, Scope};
use crate::schedule::{Arrival, CHUNK_TOKENS, PAGE_TOKENS, TURN_ROWS, Work, pages_for};
use crate::worth::{Chances, MOST_GUESSED};

/// What is known of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) id: RequestId,
    pub(crate) scope: Option<Scope>,
    /// Whose turn it is to have.
    pub(crate) claim: Claim,
    /// It was begun once; if it waits it was paused.
    pub(crate) begun: bool,
    /// Later requests that went before it, as far as they count.
    overtaken: u32,
    /// Tokens that its tenant was given for it and that were not computed.
    pub(crate) owed: u32,
    /// Tokens that its tenant was given for it when it began.
    granted: u32,
    /// Tokens that were computed or joined once, whatever a pause took away.
    reached: u32,
    /// The prompt and what was drawn.
    pub(crate) tokens: Vec<u32>,
    pub(crate) computed: u32,
    /// Tokens that need no computing as far as was known when it was queued.
    pub(crate) expected: u32,
    /// Tokens at its longest.
    pub(crate) longest: u32,
    /// When its last turn of rows for its prompt ended, as rounds are counted.
    pub(crate) served: u64,
    /// Rows it has had in the turn that it is in.
    turn: u32,
    /// Pages it holds, those of `chain` included.
    pub(crate) pages: u64,
    /// Its whole pages, all of them when it has a scope.
    pub(crate) chain: Vec<PageId>,
    /// Pages of those it holds that are there for guessed tokens only.
    lent: u64,
    /// What it has said.
    lookup: Lookup,
    /// How often its guesses are right.
    chances: Chances,
    /// What it may say next, as far as that is not known yet.
    guess: Option<Guess>,
}

impl Sequence {
    /// A sequence of which nothing is computed, of so many tokens at its longest.
    pub(crate) fn new(arrival: Arrival, longest: u32) -> Self {
        Self {
            id: arrival.id,
            scope: arrival.scope,
            claim: arrival.claim,
            begun: false,
            overtaken: 0,
            owed: 0,
            granted: 0,
            reached: 0,
            tokens: arrival.tokens,
            computed: 0,
            expected: 0,
            longest,
            served: 0,
            turn: 0,
            pages: 0,
            chain: Vec::new(),
            lent: 0,
            lookup: Lookup::default(),
            chances: Chances::default(),
            guess: None,
        }
    }

    /// How it stands among the waiting ones of its tenant.
    pub(crate) fn rank(&self) -> Rank {
        if self.overtaken >= MOST_OVERTAKEN {
            return Rank::Overtaken;
        }
        let deadline = self.claim.deadline.unwrap_or(Mono(u64::MAX));
        match self.claim.priority {
            Priority::High => Rank::High(deadline),
            Priority::Normal => Rank::Normal(deadline),
            Priority::Low => Rank::Low(deadline),
        }
    }

    /// Notes that a later request of this tenant goes before it.
    pub(crate) fn overtake(&mut self, tenant: &Tenant) {
        if self.claim.priority == Priority::Low || self.claim.tenant == *tenant {
            self.overtaken = self.overtaken.saturating_add(1);
        }
    }

    /// Notes that it begins. Returns the tokens that it may take, of those that are not joined: the
    /// last one drawn is never computed.
    pub(crate) const fn begin(&mut self) -> u32 {
        self.begun = true;
        self.reached = self.computed;
        self.owed = self.longest.saturating_sub(1).saturating_sub(self.computed);
        self.granted = self.owed;
        self.owed
    }

    /// Tokens that were computed for it first, of those that its tenant was given for it.
    pub(crate) const fn taken(&self) -> u32 {
        self.granted.saturating_sub(self.owed)
    }

    /// Whether its time was over before it began.
    pub(crate) fn is_late(&self, now: Mono) -> bool {
        !self.begun && self.claim.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Notes that it is about to have so many rows for its prompt in this round. They end its turn
    /// where it has had a chunk and more is left than it may end.
    pub(crate) fn serve(&mut self, rows: u32, round: u64) {
        self.turn += rows;
        let left = self.known().saturating_sub(self.computed).saturating_sub(rows);
        if left > TURN_ROWS && self.turn >= CHUNK_TOKENS {
            (self.turn, self.served) = (0, round);
        }
    }

    /// Tokens known: the prompt and what was drawn.
    pub(crate) fn known(&self) -> u32 {
        u32::try_from(self.tokens.len()).unwrap_or(u32::MAX)
    }

    /// Tokens known that are still to be computed.
    pub(crate) fn pending(&self) -> u32 {
        self.known() - self.computed.max(self.expected)
    }

    /// Pages that all known tokens need, and one more.
    pub(crate) fn next_pages(&self) -> u64 {
        pages_for(self.known().saturating_add(1))
    }

    /// Pages that nobody else holds.
    pub(crate) fn own_pages(&self) -> u64 {
        self.pages - self.chain.len() as u64
    }

    /// 1 when only the last token is missing, else 0.
    pub(crate) fn next_decode(&self) -> u32 {
        u32::from(self.known() - self.computed == 1)
    }

    pub(crate) fn next_chunk(&self, chunk: u32) -> u32 {
        (self.known() - self.computed).min(chunk)
    }

    pub(crate) fn take(&mut self, tokens: u32) -> Work {
        self.pages = self.pages.max(pages_for(self.computed + tokens));
        Work {
            id: self.id,
            computed: self.computed,
            tokens,
            draft: Vec::new(),
            draws: self.computed + tokens == self.known(),
        }
    }

    /// Where its next page begins, unless it has begun to compute it or there is no whole one with
    /// a token behind it.
    fn next_page(&self) -> Option<usize> {
        let from = self.chain.len() * PAGE_TOKENS as usize;
        let whole = self.tokens.len() > from + PAGE_TOKENS as usize;
        (self.computed as usize == from && whole && self.scope.is_some()).then_some(from)
    }

    /// Pages behind its own that it need not compute. One token at least stays.
    pub(crate) fn find(&self, prefixes: &Prefixes) -> Vec<PageId> {
        let (Some(scope), Some(_)) = (&self.scope, self.next_page()) else { return Vec::new() };
        let most = (self.tokens.len() - 1) / PAGE_TOKENS as usize;
        prefixes.find(scope, &self.chain, &self.tokens, most)
    }

    pub(crate) fn join(&mut self, pages: &[PageId], prefixes: &mut Prefixes) {
        prefixes.hold(pages);
        self.chain.extend_from_slice(pages);
        self.computed += pages.len() as u32 * PAGE_TOKENS;
        self.reached = self.reached.max(self.computed);
        self.expected = 0;
    }

    /// Notes that tokens were computed. If they end a page: under which name it is kept.
    pub(crate) fn advance(&mut self, tokens: u32, prefixes: &mut Prefixes) -> Option<Kept> {
        self.computed = self.computed.saturating_add(tokens).min(self.known());
        // What is computed again after a pause is not the tenant's affair.
        let new = self.computed.saturating_sub(self.reached);
        self.reached += new;
        self.owed = self.owed.saturating_sub(new);
        self.expected = 0;
        let page = PAGE_TOKENS as usize;
        let (from, to) = (self.chain.len() * page, (self.chain.len() + 1) * page);
        if (self.computed as usize) < to {
            return None;
        }
        let kept = prefixes.keep(self.scope.as_ref()?, &self.chain, self.tokens.get(from..to)?);
        self.chain.push(kept.page);
        Some(kept)
    }

    /// Goes on with a token that was drawn, by which the guess is judged.
    pub(crate) fn draw(&mut self, token: u32) {
        self.tokens.push(token);
        let Some(guess) = &mut self.guess else { return };
        let is_right = guess.tokens.first() == Some(&token);
        self.chances.judge(guess.equal, is_right);
        guess.equal += 1;
        guess.tokens.remove(0);
        if !is_right || guess.tokens.is_empty() {
            self.guess = None;
        }
    }

    /// Remembers what it has said, at most so many tokens of it, unless it is so near its end that
    /// there is nothing to guess. Returns how many.
    pub(crate) fn remember(&mut self, most: usize) -> usize {
        if self.longest <= self.known().saturating_add(1) {
            return 0;
        }
        self.lookup.follow(&self.tokens, most)
    }

    /// Guesses what it says next, where only its last token is to be computed. Returns for each
    /// token how likely all up to it are right; none where there is no guess.
    pub(crate) fn offer(&mut self) -> Vec<u64> {
        if self.next_decode() == 0 {
            self.guess = None;
            return Vec::new();
        }
        self.guess = self.lookup.guess(&self.tokens, MOST_GUESSED);
        let Some(guess) = &self.guess else { return Vec::new() };
        // What would be drawn behind the last token that may be drawn is not wanted.
        let undrawn = self.longest.saturating_sub(self.known()).saturating_sub(1) as usize;
        self.chances.of(guess.equal, guess.tokens.len().min(undrawn)).collect()
    }

    /// The first tokens of its guess, at most so many and as many as it has room for in its pages
    /// and the free ones. It takes of those what it needs.
    pub(crate) fn lend(&mut self, count: usize, free: &mut u64) -> Vec<u32> {
        let Some(guess) = self.guess.as_ref().filter(|_| count > 0) else { return Vec::new() };
        let positions = (self.pages + *free).saturating_mul(u64::from(PAGE_TOKENS));
        let room = positions.saturating_sub(u64::from(self.known()));
        let count = guess.tokens.len().min(count).min(usize::try_from(room).unwrap_or(usize::MAX));
        let needed = pages_for(self.known().saturating_add(count as u32));
        self.lent = needed.saturating_sub(self.pages);
        self.pages += self.lent;
        *free -= self.lent;
        guess.tokens.iter().take(count).copied().collect()
    }

    /// Gives back the pages of guessed tokens that were not right.
    pub(crate) fn settle(&mut self) {
        self.pages = (self.pages - self.lent).max(pages_for(self.computed));
        self.lent = 0;
    }

    /// Forgets what is computed and holds no page any more, nor memory to guess by while it waits.
    pub(crate) fn restart(&mut self, prefixes: &mut Prefixes) {
        prefixes.release(&self.chain);
        self.chain.clear();
        (self.computed, self.pages, self.lent, self.turn) = (0, 0, 0, 0);
        (self.lookup, self.guess) = (Lookup::default(), None);
        self.expect(prefixes);
    }

    /// Notes what it need not compute as far as is known now.
    pub(crate) fn expect(&mut self, prefixes: &Prefixes) {
        self.expected = self.find(prefixes).len() as u32 * PAGE_TOKENS;
    }

    /// Whether the page it would begin is being computed by an older sequence.
    pub(crate) fn follows(&self, older: &Self) -> bool {
        let Some(from) = self.next_page() else { return false };
        let page = from..from + PAGE_TOKENS as usize;
        self.scope == older.scope
            && self.chain == older.chain
            && self.tokens.get(page.clone()) == older.tokens.get(page)
    }
}
