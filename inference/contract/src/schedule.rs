//! What an engine computes in its next step.
//!
//! Owns one model's queue and the choice, step by step, of which sequences advance and by how many
//! tokens, whom to admit, and whom to pause when memory for keys and values runs short. It is a
//! pure policy: no clock, no tensors; the engine carries a [`Plan`] out and says what came of it.
//!
//! The rules: every running answer advances by one token in every step. Prompts advance by chunks,
//! in turn, within a budget of rows per step: while nobody is answered it is a whole step's, and
//! beside answers as many rows, of all prompts together, as lengthen the step little
//! ([`crate::pace`]), so that a long prompt never stalls the others. Prompts take turns: one that
//! can end within [`TURN_ROWS`] does, so that of many questions that come together the first is
//! answered first and not all of them last; a longer one lets others go on after
//! [`CHUNK_TOKENS`]. Whoever had a turn longest ago is next.
//! Admission is in fair turns of the tenants ([`crate::fair`]), by arrival where there is one, and
//! never ahead of the growth of what runs. When memory is short the youngest sequence is paused:
//! its memory is freed, it goes back to the head of the queue and is recomputed later. The oldest
//! therefore always advances, so everything ends.
//!
//! Whole pages stay when their sequence ends, as long as nobody needs the memory, and a sequence
//! that begins with their tokens joins them ([`Prefixes`]); at least one token of its prompt is
//! computed, since the first draw needs it. A prompt whose next page an older sequence is computing
//! waits for that page. Pages that no sequence holds give way before anybody waits or is paused.
//!
//! Where a sequence has said before what it says now, what followed then is guessed to follow again
//! ([`crate::draft`]) and computed in the same step, as drafted tokens: as many as are worth it
//! ([`crate::worth`]), and none while a prompt is computed or pages that are kept would have to go.
//! What is drawn decides which of them stay, so no answer depends on them. How long steps took is
//! told; it decides how many tokens are drafted, how many of prompts are computed beside answers,
//! and nothing else.

use std::collections::VecDeque;

use selvedge_base::{Micros, Mono, RequestId};
use thiserror::Error;

use crate::cost::CostModel;
use crate::fair::{Claim, Shares};
use crate::pace::Pace;
use crate::prefix::{Kept, PageId, Prefixes, Scope};
use crate::sequence::Sequence;
use crate::worth::{MOST_GUESSED, RowTimes, choose};

/// Tokens per page of the key/value cache: small enough that a short answer wastes little, large
/// enough that growing is rare.
pub const PAGE_TOKENS: u32 = 64;
/// Prompt tokens of one sequence in one step while nobody is answered, at least: fewer cost more a
/// token, and four prompts at once share a step.
pub const CHUNK_TOKENS: u32 = 16;
/// Prompt tokens of all sequences in one step: bounds how long those wait that come meanwhile.
pub const PROMPT_ROWS: u32 = 64;

/// Tokens of prompts that are remembered in one step, to guess by: a millisecond's worth, so that a
/// long prompt that comes delays nobody.
const REMEMBERED_TOKENS: usize = 1_024;

/// Rows that are left of a prompt which is let end: a step's worth. Fewer would cut questions of a
/// few sentences, and more would make the others wait for them.
pub(crate) const TURN_ROWS: u32 = PROMPT_ROWS;
// So a step ends at most one page of a sequence.
const _: () = assert!(CHUNK_TOKENS <= PROMPT_ROWS && PROMPT_ROWS <= PAGE_TOKENS);
const _: () = assert!(MOST_GUESSED < PAGE_TOKENS as usize);

/// Bounds of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Sequences computed together; at least one.
    pub max_batch: usize,
    /// Requests that may wait.
    pub max_queue: usize,
    /// Pages for the keys and values of all sequences.
    pub pages: u64,
    /// Whether tokens are drafted. Only where a row's numbers do not depend on how many rows there
    /// are: else an answer would depend on what was guessed.
    pub drafts: bool,
}

/// A request as the schedule sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Which request.
    pub id: RequestId,
    /// Tokens that come before the first one to draw; at least one.
    pub tokens: Vec<u32>,
    /// Tokens that may be drawn at most.
    pub answer_tokens: u32,
    /// With whom its pages may be shared; `None` = with nobody.
    pub scope: Option<Scope>,
    /// Whose turn it takes, and when it is to.
    pub claim: Claim,
}

/// Why a request was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unschedulable {
    /// There is no token to begin with.
    #[error("the request has no token")]
    Empty,
    /// The queue is full.
    #[error("{0} requests are waiting already")]
    QueueFull(usize),
    /// Even alone it would need more memory than there is.
    #[error("{needed} pages of memory are needed and there are {pages}")]
    TooLarge {
        /// Pages at its longest.
        needed: u64,
        /// Pages there are.
        pages: u64,
    },
}

/// The work of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sequences whose memory is to be freed; they will be admitted again.
    pub paused: Vec<RequestId>,
    /// Sequences that no longer fit at all since memory shrank; they have left the schedule.
    pub expelled: Vec<RequestId>,
    /// Pages whose memory is to be freed.
    pub evicted: Vec<PageId>,
    /// Sequences that begin, or begin again, with nothing computed.
    pub admitted: Vec<RequestId>,
    /// What sequences need not compute, admitted ones included.
    pub joined: Vec<Joined>,
    /// What to compute, oldest sequence first.
    pub work: Vec<Work>,
}

/// Pages that a sequence goes on behind, instead of computing them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Which sequence.
    pub id: RequestId,
    /// The pages, in order, behind those it has.
    pub pages: Vec<PageId>,
}

/// One sequence's part of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Which sequence.
    pub id: RequestId,
    /// How many tokens were computed before.
    pub computed: u32,
    /// How many to compute now.
    pub tokens: u32,
    /// Tokens to compute behind them although they are not drawn yet. Those that are then drawn
    /// stay computed ([`Schedule::accepted`]); what was computed for the others is to be dropped.
    pub draft: Vec<u32>,
    /// Whether a token is to be drawn afterwards, and one more behind each drafted token that was
    /// drawn.
    pub draws: bool,
}

impl Work {
    /// Tokens of a prompt that are computed; none where an answer goes on by its last token.
    pub const fn prompt(&self) -> u32 {
        if self.tokens == 1 && self.draws { 0 } else { self.tokens }
    }
}

/// What prompts may have of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// Rows of all prompts together.
    rows: u32,
    /// Rows of one.
    chunk: u32,
}

/// Tokens drafted since the schedule began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drafts {
    /// Tokens that were computed before they were drawn.
    pub drafted: u64,
    /// Those of them that were then drawn.
    pub accepted: u64,
}

/// One model's queue and running sequences.
#[derive(Clone, Debug)]
pub struct Schedule {
    bounds: Bounds,
    prefixes: Prefixes,
    /// In order of arrival, behind those that were paused.
    queue: VecDeque<Sequence>,
    shares: Shares,
    /// In order of admission.
    running: Vec<Sequence>,
    /// Two for each step, so that there is a place between: who had a turn longest ago is next.
    round: u64,
    times: RowTimes,
    pace: Pace,
    drafts: Drafts,
    /// Nobody waits for the machine but these sequences.
    is_alone: bool,
    /// Answers of other models wait for each of these steps.
    others_answer: bool,
}

impl Schedule {
    /// An empty schedule.
    pub fn new(bounds: Bounds) -> Self {
        let bounds = Bounds { max_batch: bounds.max_batch.max(1), ..bounds };
        Self {
            bounds,
            prefixes: Prefixes::default(),
            queue: VecDeque::new(),
            shares: Shares::new(bounds.max_batch.saturating_add(bounds.max_queue)),
            running: Vec::new(),
            round: 0,
            times: RowTimes::default(),
            pace: Pace::default(),
            drafts: Drafts::default(),
            is_alone: true,
            others_answer: false,
        }
    }

    /// Queues a request.
    ///
    /// # Errors
    /// [`Unschedulable`] when the queue is full, the request is empty or could never fit.
    pub fn arrive(&mut self, arrival: Arrival) -> Result<(), Unschedulable> {
        if self.queue.len() >= self.bounds.max_queue {
            return Err(Unschedulable::QueueFull(self.queue.len()));
        }
        if arrival.tokens.is_empty() {
            return Err(Unschedulable::Empty);
        }
        let known = u32::try_from(arrival.tokens.len()).unwrap_or(u32::MAX);
        let longest = known.saturating_add(arrival.answer_tokens);
        let needed = pages_for(longest);
        if needed > self.bounds.pages {
            return Err(Unschedulable::TooLarge { needed, pages: self.bounds.pages });
        }
        let mut sequence = Sequence::new(arrival, longest);
        sequence.expect(&self.prefixes);
        self.queue.push_back(sequence);
        Ok(())
    }

    /// Forgets a request that ended or was given up; unknown ids are ignored.
    pub fn leave(&mut self, id: RequestId) {
        let (prefixes, shares) = (&mut self.prefixes, &mut self.shares);
        let mut stays = |sequence: &Sequence| {
            if sequence.id == id {
                prefixes.release(&sequence.chain);
                shares.end(&sequence.claim.tenant, sequence.taken(), sequence.owed);
            }
            sequence.id != id
        };
        self.queue.retain(&mut stays);
        self.running.retain(&mut stays);
        self.rest();
    }

    /// Forgets the requests whose deadline passed before they were begun, and says which.
    pub fn expire(&mut self, now: Mono) -> Vec<RequestId> {
        let late = self.queue.iter().filter(|sequence| sequence.is_late(now));
        let late: Vec<_> = late.map(|sequence| sequence.id).collect();
        if !late.is_empty() {
            self.queue.retain(|sequence| !sequence.is_late(now));
            self.rest();
        }
        late
    }

    /// Forgets what tenants were given, where there is nothing to share.
    fn rest(&mut self) {
        if self.is_idle() {
            self.shares.rest();
        }
    }

    /// Changes the memory there is. Returns pages whose memory is to be freed now; what no longer
    /// fits of what runs is paused or expelled by the next plan.
    pub fn resize(&mut self, pages: u64) -> Vec<PageId> {
        self.bounds.pages = pages;
        self.evict()
    }

    /// Decides the next step. The caller carries all of it out, in the order of the plan's fields,
    /// and reports each part with [`Schedule::computed`], [`Schedule::drawn`] and
    /// [`Schedule::accepted`] before it asks again.
    pub fn plan(&mut self) -> Plan {
        let mut plan = Plan::default();
        self.running.iter_mut().for_each(Sequence::settle);
        self.expel(&mut plan);
        self.join(&mut plan);
        let room = self.room();
        let shares = self.shares(room);
        self.grow(&shares, &mut plan);
        self.admit(room, &mut plan);
        self.draft(&mut plan);
        plan.evicted = self.evict();
        plan
    }

    /// Notes how many other models wait for each of these steps, and how many of them have answers
    /// that do; at first none.
    pub const fn company(&mut self, others: usize, answering: usize) {
        self.is_alone = others == 0;
        self.others_answer = answering > 0;
    }

    /// Notes that `work` was computed, up to what was drafted. If it ended a page: under which name
    /// the page is kept from now on, or which equal one takes its place.
    pub fn computed(&mut self, work: &Work) -> Option<Kept> {
        self.drafts.drafted += work.draft.len() as u64;
        let sequence = self.running.iter_mut().find(|s| s.id == work.id)?;
        sequence.advance(work.tokens, &mut self.prefixes)
    }

    /// Notes that a sequence goes on with a token that was drawn.
    pub fn drawn(&mut self, id: RequestId, token: u32) {
        if let Some(sequence) = self.running.iter_mut().find(|s| s.id == id) {
            sequence.draw(token);
        }
    }

    /// Notes that the token drawn last was the one drafted: what was computed for it stays. If it
    /// ended a page: as [`Schedule::computed`].
    pub fn accepted(&mut self, id: RequestId) -> Option<Kept> {
        let sequence = self.running.iter_mut().find(|s| s.id == id)?;
        self.drafts.accepted += 1;
        sequence.advance(1, &mut self.prefixes)
    }

    /// Notes how long a step without any prompt took: so many rows, drafted ones included. One of
    /// none says nothing.
    pub fn stepped(&mut self, rows: usize, took: Micros) {
        self.pace.rested();
        self.times.measured(rows, took);
    }

    /// Notes how long a step took that had so many tokens of prompts beside so many answers. One
    /// without either says nothing.
    pub fn stretched(&mut self, answers: usize, prompt: u32, took: Micros) {
        if answers > 0 && prompt > 0 {
            self.times.passed();
            self.pace.stretched(answers, prompt, self.times.of(answers), took);
        }
    }

    /// How long a step of so many rows takes; zero = not known.
    pub fn step_time(&self, rows: usize) -> Micros {
        Micros(self.times.of(rows) / 1_000)
    }

    /// Microseconds that each token of an answer takes which comes next: those of a step of a row
    /// more than there are answers, as far as a batch goes. What steps took on average says where
    /// nothing else is known: it is of as many rows as the last ones had, which an answer that
    /// comes after a burst does not share its steps with.
    pub fn next_step_us(&self, average: &CostModel) -> u32 {
        let rows = (self.running() + 1).min(self.bounds.max_batch);
        match self.step_time(rows) {
            Micros(0) => average.step_us(),
            Micros(time) => u32::try_from(time).unwrap_or(u32::MAX),
        }
    }

    /// How long a step of so many rows would have taken without what was drafted, for so many
    /// answers: the time that each of their tokens takes where nothing repeats itself.
    pub fn plain_time(&self, answers: usize, rows: usize, took: Micros) -> Micros {
        match self.step_time(answers) {
            plain if rows > answers && plain > Micros::ZERO => plain.min(took),
            _ => took,
        }
    }

    /// What was drafted so far.
    pub const fn drafts(&self) -> Drafts {
        self.drafts
    }

    /// Sequences being computed.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences of which only the last token is to be computed: answers that are under way.
    pub fn answering(&self) -> usize {
        self.running.iter().filter(|sequence| sequence.next_decode() > 0).count()
    }

    /// Requests waiting, paused ones included.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty()
    }

    /// Tokens known and still to be computed, of all requests.
    pub fn pending_tokens(&self) -> u64 {
        let all = self.queue.iter().chain(&self.running);
        all.map(|sequence| u64::from(sequence.pending())).sum()
    }

    /// Tokens that may yet be drawn, of all requests.
    pub fn undrawn_tokens(&self) -> u64 {
        let all = self.queue.iter().chain(&self.running);
        all.map(|sequence| u64::from(sequence.longest.saturating_sub(sequence.known()))).sum()
    }

    /// Pages of the longest sequence at its longest, were it alone.
    pub fn longest_pages(&self) -> u64 {
        let all = self.queue.iter().chain(&self.running);
        all.map(|sequence| pages_for(sequence.longest)).max().unwrap_or(0)
    }

    /// Pages held by running sequences, each counted once.
    pub fn pages_held(&self) -> u64 {
        self.running.iter().map(Sequence::own_pages).sum::<u64>() + self.prefixes.used()
    }

    /// Pages that no sequence holds and that are still there.
    pub fn pages_idle(&self) -> u64 {
        self.prefixes.len() - self.prefixes.used()
    }

    /// Drops what could not even run alone: memory has shrunk since it arrived.
    fn expel(&mut self, plan: &mut Plan) {
        let (pages, prefixes, shares) = (self.bounds.pages, &mut self.prefixes, &mut self.shares);
        let mut fits = |sequence: &Sequence| {
            let fits = sequence.next_pages() <= pages;
            if !fits {
                plan.expelled.push(sequence.id);
                prefixes.release(&sequence.chain);
                shares.end(&sequence.claim.tenant, sequence.taken(), sequence.owed);
            }
            fits
        };
        self.running.retain(&mut fits);
        self.queue.retain(&mut fits);
    }

    /// Forgets pages that nobody holds until all there are fit.
    fn evict(&mut self) -> Vec<PageId> {
        let room = self.bounds.pages.saturating_sub(self.pages_held());
        let mut evicted = Vec::new();
        while self.pages_idle() > room {
            let Some(page) = self.prefixes.evict() else { break };
            evicted.push(page);
        }
        evicted
    }

    /// Lets prompts go on behind pages that others have computed since.
    fn join(&mut self, plan: &mut Plan) {
        for sequence in &mut self.running {
            let pages = sequence.find(&self.prefixes);
            if !pages.is_empty() {
                sequence.join(&pages, &mut self.prefixes);
                plan.joined.push(Joined { id: sequence.id, pages });
            }
        }
    }

    /// What prompts may have of this step. While nobody is answered it is all of it; larger chunks
    /// compute a prompt a third faster, and they are divided among all that have a prompt, so that
    /// the step is no longer for it. Where only answers of other models wait, a step is as long as
    /// it would be beside one answer.
    fn room(&mut self) -> Room {
        let answers = self.answering();
        let oldest = self.running.iter().position(|sequence| sequence.next_decode() > 0);
        // Where the oldest one waits for memory a step without prompts might have no work at all.
        if oldest.is_some_and(|oldest| self.fits(oldest, 1))
            && self.pace.rests(self.times.is_plain(answers))
        {
            return Room { rows: 0, chunk: 0 };
        }
        if answers > 0 || self.others_answer {
            let rows = self.pace.rows(answers.max(1));
            return Room { rows, chunk: rows };
        }
        // Whoever waits for a page that another computes, or for a place, takes no rows.
        let alone = |(at, sequence): &(usize, &Sequence)| {
            !self.running.iter().take(*at).any(|older| sequence.follows(older))
        };
        let computing = self.running.iter().enumerate().filter(alone).count();
        let places = self.bounds.max_batch.saturating_sub(self.running.len());
        let prompts = computing + self.queue.len().min(places);
        let prompts = u32::try_from(prompts).unwrap_or(u32::MAX);
        let chunk = (PROMPT_ROWS / prompts.max(1)).max(CHUNK_TOKENS);
        Room { rows: PROMPT_ROWS, chunk }
    }

    /// How many tokens each running sequence advances: one when it decodes, a chunk of its prompt
    /// when it is its turn.
    fn shares(&mut self, room: Room) -> Vec<(RequestId, u32)> {
        self.round += 2;
        let mut shares: Vec<_> = self.running.iter().map(|s| (s.id, s.next_decode())).collect();
        let mut turns: Vec<_> = self.running.iter().map(|s| s.served).enumerate().collect();
        // Of those whose turns ended at the same time the oldest is first.
        turns.sort_by_key(|(_, served)| *served);
        let mut rows = room.rows;
        for (index, _) in turns {
            let waits = |sequence: &Sequence| {
                self.running.iter().take(index).any(|older| sequence.follows(older))
            };
            if let (Some(sequence), Some(share)) = (self.running.get(index), shares.get_mut(index))
                && share.1 == 0
                && rows > 0
                && !waits(sequence)
            {
                share.1 = sequence.next_chunk(room.chunk).min(rows);
                rows -= share.1;
                if let Some(sequence) = self.running.get_mut(index) {
                    sequence.serve(share.1, self.round);
                }
            }
        }
        shares
    }

    /// Gives each running sequence its share, oldest first, pausing the youngest for room.
    fn grow(&mut self, shares: &[(RequestId, u32)], plan: &mut Plan) {
        for &(id, tokens) in shares {
            let Some(index) = self.running.iter().position(|s| s.id == id) else {
                continue; // paused for an older one
            };
            if tokens == 0 {
                continue;
            }
            while !self.fits(index, tokens) && self.running.len() > index + 1 {
                self.pause_youngest(plan);
            }
            if !self.fits(index, tokens) {
                self.pause_youngest(plan); // itself: it is the youngest now
                continue;
            }
            if let Some(sequence) = self.running.get_mut(index) {
                plan.work.push(sequence.take(tokens));
            }
        }
    }

    /// Admits from the queue while there is room for a whole prompt and the token after it.
    fn admit(&mut self, room: Room, plan: &mut Plan) {
        let computing: u32 = plan.work.iter().map(Work::prompt).sum();
        let mut rows = room.rows.saturating_sub(computing);
        while self.running.len() < self.bounds.max_batch && plan.paused.is_empty() {
            let Some(mut sequence) = self.take_next() else { break };
            let prefixes = &mut self.prefixes;
            // The whole prompt's pages are set aside now: admitting more than fits would only
            // lead to pauses.
            sequence.pages = sequence.next_pages();
            plan.admitted.push(sequence.id);
            let pages = sequence.find(prefixes);
            if !pages.is_empty() {
                sequence.join(&pages, prefixes);
                plan.joined.push(Joined { id: sequence.id, pages });
            }
            if !sequence.begun {
                let tenant = &sequence.claim.tenant;
                let begun = self.queue.iter().filter(|waits| waits.begun);
                let own =
                    self.running.iter().chain(begun).filter(|own| own.claim.tenant == *tenant);
                let open: u64 = own.map(|own| u64::from(own.owed)).sum();
                let tenant = tenant.clone();
                self.shares.begin(&tenant, sequence.begin(), open);
            }
            let waits = self.running.iter().any(|older| sequence.follows(older));
            let decode = sequence.next_decode();
            let prompt = match decode > 0 || waits {
                true => 0,
                false => sequence.next_chunk(room.chunk).min(rows),
            };
            rows -= prompt;
            let tokens = decode.max(prompt);
            // Its turn is behind those that have waited for theirs, and before those that ended
            // theirs in this step, whether or not rows were left for it to begin.
            sequence.served = self.round - 1;
            sequence.serve(prompt, self.round);
            if tokens > 0 {
                plan.work.push(sequence.take(tokens));
            }
            self.running.push(sequence);
        }
    }

    /// Takes whoever is next from the queue, if there is room for it. Nobody else goes meanwhile: a
    /// long prompt would wait for ever.
    fn take_next(&mut self) -> Option<Sequence> {
        let free = self.bounds.pages.saturating_sub(self.pages_held());
        let at = self.shares.next(&self.queue)?;
        let next = self.queue.get(at)?;
        let shared = self.prefixes.held_of(&next.find(&self.prefixes));
        if next.next_pages() - shared > free {
            return None;
        }
        let sequence = self.queue.remove(at)?;
        for older in self.queue.iter_mut().take(at) {
            older.overtake(&sequence.claim.tenant);
        }
        Some(sequence)
    }

    /// Adds what may be drawn next to a step of answers alone. Guesses are made in every step: how
    /// they turn out tells what they are worth.
    fn draft(&mut self, plan: &mut Plan) {
        if !self.bounds.drafts {
            return;
        }
        let mut left = REMEMBERED_TOKENS;
        for sequence in &mut self.running {
            left -= sequence.remember(left).min(left);
        }
        let offers: Vec<_> = self.running.iter_mut().map(Sequence::offer).collect();
        let answers = plan.work.iter().filter(|work| work.prompt() == 0).count();
        if answers < self.running.len() || !plan.paused.is_empty() {
            return;
        }
        let counts = choose(&self.times, &offers, self.is_alone);
        let taken = self.pages_held() + self.pages_idle();
        let mut free = self.bounds.pages.saturating_sub(taken);
        for (sequence, count) in self.running.iter_mut().zip(counts) {
            if let Some(work) = plan.work.iter_mut().find(|work| work.id == sequence.id) {
                work.draft = sequence.lend(count, &mut free);
            }
        }
    }

    fn fits(&self, index: usize, tokens: u32) -> bool {
        self.running.get(index).is_some_and(|sequence| {
            let wanted = pages_for(sequence.computed.saturating_add(tokens)).max(sequence.pages);
            self.pages_held() + (wanted - sequence.pages) <= self.bounds.pages
        })
    }

    fn pause_youngest(&mut self, plan: &mut Plan) {
        if let Some(mut sequence) = self.running.pop() {
            sequence.restart(&mut self.prefixes);
            plan.paused.push(sequence.id);
            plan.work.retain(|work| work.id != sequence.id);
            plan.joined.retain(|joined| joined.id != sequence.id);
            self.queue.push_front(sequence);
        }
    }
}

/// Pages that hold this many tokens.
pub const fn pages_for(tokens: u32) -> u64 {
    tokens.div_ceil(PAGE_TOKENS) as u64
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
