use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[path = "schedule_fair_tests.rs"]
mod fair;
#[path = "schedule_mixed_tests.rs"]
mod mixed;

fn bounds(max_batch: usize, max_queue: usize, pages: u64) -> Bounds {
    Bounds { max_batch, max_queue, pages, drafts: true }
}

/// A request that shares nothing with others.
fn arrival(id: u128, prompt_tokens: u32, answer_tokens: u32) -> Arrival {
    let tokens = vec![0; prompt_tokens as usize];
    Arrival { id: RequestId(id), tokens, answer_tokens, scope: None, claim: Claim::default() }
}

/// A request of a tenant, for its prompt.
fn shared(id: u128, tenant: &str, tokens: Vec<u32>, answer_tokens: u32) -> Arrival {
    Arrival { scope: Some(Scope::new(tenant)), tokens, ..arrival(id, 0, answer_tokens) }
}

/// Carries a plan out as an engine would; every sequence draws until its limit. A page's numbers
/// are the tokens that it is computed from: its scope's and all up to its end.
struct Engine {
    schedule: Schedule,
    pages: u64,
    limits: BTreeMap<RequestId, u32>,
    drawn: BTreeMap<RequestId, u32>,
    /// Tokens that were computed for each, again after a pause.
    worked: BTreeMap<RequestId, u32>,
    finished: Vec<RequestId>,
    arrived: BTreeMap<RequestId, Arrival>,
    /// Positions in memory of each running sequence.
    caches: BTreeMap<RequestId, Vec<u32>>,
    store: BTreeMap<PageId, (Scope, Vec<u32>)>,
    /// Microseconds of a step and of each of its rows; nothing is drafted where they are not known.
    machine: Option<(u64, u64)>,
    steps: u32,
}

impl Engine {
    fn new(bounds: Bounds) -> Self {
        Self {
            schedule: Schedule::new(bounds),
            pages: bounds.pages,
            limits: BTreeMap::new(),
            drawn: BTreeMap::new(),
            worked: BTreeMap::new(),
            finished: Vec::new(),
            arrived: BTreeMap::new(),
            caches: BTreeMap::new(),
            store: BTreeMap::new(),
            machine: None,
            steps: 0,
        }
    }

    fn arrive(&mut self, arrival: Arrival) -> Result<(), Unschedulable> {
        self.schedule.arrive(arrival.clone())?;
        self.limits.insert(arrival.id, arrival.answer_tokens);
        self.arrived.insert(arrival.id, arrival);
        Ok(())
    }

    fn step(&mut self) -> Plan {
        let plan = self.schedule.plan();
        for id in plan.paused.iter().chain(&plan.expelled) {
            self.caches.remove(id);
        }
        for page in &plan.evicted {
            assert!(self.store.remove(page).is_some(), "a page that is not there");
        }
        for id in &plan.admitted {
            self.caches.insert(*id, Vec::new());
        }
        for joined in &plan.joined {
            self.join(joined);
        }
        for work in &plan.work {
            self.work(work);
        }
        self.steps += 1;
        self.tell(&plan);
        let kept = self.store.len() as u64;
        assert_eq!(kept, self.schedule.prefixes.len());
        assert!(self.schedule.pages_held() + self.schedule.pages_idle() <= self.pages);
        plan
    }

    /// Tells how long a step took, where that is known.
    fn tell(&mut self, plan: &Plan) {
        let Some((fixed, row)) = self.machine.filter(|_| !plan.work.is_empty()) else { return };
        let rows = plan.work.iter().map(|w| w.tokens as usize + w.draft.len()).sum();
        let took = Micros(fixed + row * rows as u64);
        let answers = plan.work.iter().filter(|work| work.prompt() == 0).count();
        let prompt: u32 = plan.work.iter().map(Work::prompt).sum();
        match prompt {
            0 => self.schedule.stepped(rows, took),
            _ => self.schedule.stretched(answers, prompt, took),
        }
    }

    fn join(&mut self, joined: &Joined) {
        let arrival = &self.arrived[&joined.id];
        let cache = self.caches.get_mut(&joined.id).expect("it runs");
        for page in &joined.pages {
            let (scope, tokens) = &self.store[page];
            assert_eq!(Some(scope), arrival.scope.as_ref(), "another tenant's page");
            assert!(arrival.tokens.starts_with(tokens), "another prompt's page");
            assert_eq!(tokens.len(), cache.len() + PAGE_TOKENS as usize, "pages in order");
            cache.clone_from(tokens);
        }
        assert!(cache.len() < arrival.tokens.len(), "nothing is left to compute");
    }

    fn work(&mut self, work: &Work) {
        let arrival = &self.arrived[&work.id];
        let cache = self.caches.get_mut(&work.id).expect("it runs");
        let (from, to) = (work.computed as usize, (work.computed + work.tokens) as usize);
        assert_eq!(cache.len(), from, "the schedule counts what is in memory");
        cache.extend_from_slice(&arrival.tokens[from..to]);
        *self.worked.entry(work.id).or_default() += work.tokens;
        let kept = self.schedule.computed(work);
        self.keep(work.id, kept);
        assert!(work.draft.is_empty() || (work.draws && work.tokens == 1), "answers alone guess");
        let rows = if work.draws { work.draft.len() + 1 } else { 0 };
        for at in 0..rows {
            let drawn = self.drawn.entry(work.id).or_default();
            *drawn += 1;
            if *drawn >= self.limits[&work.id] {
                assert_eq!(at + 1, rows, "what is not wanted is not guessed");
                self.schedule.leave(work.id);
                self.caches.remove(&work.id);
                self.finished.push(work.id);
                return;
            }
            // Few different ones, so that answers are alike now and then, and repeat themselves.
            let token = if *drawn % 50 == 49 { *drawn } else { *drawn % 7 };
            self.arrived.get_mut(&work.id).expect("it arrived").tokens.push(token);
            self.schedule.drawn(work.id, token);
            if work.draft.get(at) != Some(&token) {
                return;
            }
            self.caches.get_mut(&work.id).expect("it runs").push(token);
            let kept = self.schedule.accepted(work.id);
            self.keep(work.id, kept);
        }
    }

    fn keep(&mut self, id: RequestId, kept: Option<Kept>) {
        let Some(kept) = kept else { return };
        let (cache, scope) = (&self.caches[&id], &self.arrived[&id].scope);
        let whole = cache.len() / PAGE_TOKENS as usize * PAGE_TOKENS as usize;
        let numbers = (scope.clone().expect("a scope"), cache[..whole].to_vec());
        if kept.is_new {
            assert!(self.store.insert(kept.page, numbers).is_none(), "a name used twice");
        } else {
            assert_eq!(self.store[&kept.page], numbers, "an equal page takes its place");
        }
    }

    fn resize(&mut self, pages: u64) {
        self.pages = pages;
        for page in self.schedule.resize(pages) {
            assert!(self.store.remove(&page).is_some(), "a page that is not there");
        }
    }

    /// Steps until there is nothing to do.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            if self.schedule.is_idle() {
                return;
            }
            self.step();
        }
        panic!("something never ends");
    }
}

/// An engine on a machine of which rows cost little.
fn drafting(bounds: Bounds) -> Engine {
    Engine { machine: Some((5_000, 500)), ..Engine::new(bounds) }
}

#[test]
fn a_prompt_advances_by_chunks_and_draws_after_the_last() {
    let mut engine = Engine::new(bounds(4, 4, 100));
    engine.arrive(arrival(1, 150, 2)).expect("fits");
    let steps: Vec<_> =
        (0..4).flat_map(|_| engine.step().work).map(|w| (w.computed, w.tokens, w.draws)).collect();
    assert_eq!(steps, [(0, 64, false), (64, 64, false), (128, 22, true), (150, 1, true)]);
    assert_eq!(engine.finished, [RequestId(1)]);
    assert!(engine.schedule.is_idle());
}

#[test]
fn prompts_share_the_rows_of_a_step_while_nobody_is_answered() {
    for (count, chunk) in [(1, 64), (2, 32), (3, 21), (4, 16), (5, 16)] {
        let mut engine = Engine::new(bounds(8, 8, 1_000));
        for id in 0..count {
            engine.arrive(arrival(id, 1_000, 1)).expect("fits");
        }
        let tokens: Vec<_> = engine.step().work.iter().map(|w| w.tokens).collect();
        assert_eq!(tokens, vec![chunk; count.min(4) as usize], "{count} prompts");
    }
}

#[test]
fn answers_advance_every_step_while_a_long_prompt_is_computed() {
    let mut engine = Engine::new(bounds(4, 4, 1_000));
    engine.arrive(arrival(1, 1, 100)).expect("fits");
    engine.step();
    engine.arrive(arrival(2, 10_000, 1)).expect("fits");
    for _ in 0..50 {
        let plan = engine.step();
        let tokens: Vec<_> = plan.work.iter().map(|w| (w.id.0, w.tokens)).collect();
        assert_eq!(tokens, [(1, 1), (2, 3)], "a step of four rows takes half as long again");
    }
}

#[test]
fn prompts_take_turns_within_the_rows_of_a_step() {
    let mut engine = Engine::new(bounds(16, 16, 10_000));
    for id in 0..10 {
        engine.arrive(arrival(id, 160, 1)).expect("fits");
    }
    let mut advanced = BTreeMap::<RequestId, u32>::new();
    for _ in 0..13 {
        let plan = engine.step();
        assert!(plan.work.iter().map(|w| w.tokens).sum::<u32>() <= PROMPT_ROWS + 16);
        for work in plan.work {
            *advanced.entry(work.id).or_default() += work.tokens;
        }
    }
    assert_eq!(advanced.len(), 10, "all prompts advance: {advanced:?}");
    let (least, most) = (advanced.values().min(), advanced.values().max());
    assert!(most.zip(least).is_some_and(|(m, l)| m - l <= 4 * CHUNK_TOKENS), "{advanced:?}");
}

#[test]
fn a_full_queue_refuses() {
    let mut schedule = Schedule::new(bounds(1, 2, 100));
    schedule.arrive(arrival(1, 5, 5)).expect("first");
    schedule.arrive(arrival(2, 5, 5)).expect("second");
    assert_eq!(schedule.arrive(arrival(3, 5, 5)), Err(Unschedulable::QueueFull(2)));
    schedule.leave(RequestId(1));
    assert_eq!(schedule.arrive(arrival(3, 5, 5)), Ok(()));
}

#[test]
fn a_request_larger_than_memory_is_refused() {
    let mut schedule = Schedule::new(bounds(1, 2, 2));
    let answer = schedule.arrive(arrival(1, 100, 100));
    assert_eq!(answer, Err(Unschedulable::TooLarge { needed: 4, pages: 2 }));
    assert!(schedule.arrive(arrival(2, 1, u32::MAX)).is_err());
    assert_eq!(schedule.arrive(arrival(3, 0, 1)), Err(Unschedulable::Empty));
}

#[test]
fn short_memory_pauses_the_youngest_and_everything_still_ends() {
    let mut engine = Engine::new(bounds(8, 8, 4));
    for id in 1..=3 {
        engine.arrive(arrival(id, 10, 150)).expect("fits alone");
    }
    let mut paused = Vec::new();
    for _ in 0..2_000 {
        paused.extend(engine.step().paused);
    }
    assert!(!paused.is_empty(), "four pages do not hold three such answers");
    assert!(!paused.contains(&RequestId(1)), "the oldest is never paused");
    assert_eq!(engine.finished, [1, 2, 3].map(RequestId));
}

#[test]
fn shrunken_memory_expels_what_no_longer_fits() {
    let mut engine = Engine::new(bounds(8, 8, 10));
    engine.arrive(arrival(1, 300, 10)).expect("fits");
    engine.arrive(arrival(2, 10, 10)).expect("fits");
    engine.step();
    engine.resize(1);
    assert_eq!(engine.step().expelled, [RequestId(1)]);
    for _ in 0..20 {
        engine.step();
    }
    assert_eq!(engine.finished, [RequestId(2)]);
}

#[test]
fn the_next_turn_of_a_conversation_computes_only_what_is_new() {
    let mut engine = Engine::new(bounds(4, 4, 100));
    engine.arrive(shared(1, "acme", (0..200).collect(), 60)).expect("fits");
    engine.finish();
    // Prompt and answer, all but its last token, which nobody computed.
    let mut next = engine.arrived[&RequestId(1)].tokens.clone();
    assert_eq!(next.len(), 259);
    next.extend([9; 30]);
    engine.arrive(shared(2, "acme", next, 1)).expect("fits");
    assert_eq!(engine.schedule.pending_tokens(), 289 - 256, "only what is to be computed");
    engine.finish();
    assert_eq!(engine.worked[&RequestId(2)], 289 - 256);
    assert_eq!(engine.schedule.pages_held(), 0);
    assert_eq!(engine.schedule.pages_idle(), 4);
}

#[test]
fn one_token_of_a_prompt_is_computed_in_any_case() {
    for (length, worked) in [(63, 63), (64, 64), (65, 1), (128, 64), (129, 1)] {
        let mut engine = Engine::new(bounds(1, 4, 100));
        for id in 1..=2 {
            engine.arrive(shared(id, "acme", (0..length).collect(), 1)).expect("fits");
        }
        engine.finish();
        assert_eq!(engine.worked[&RequestId(2)], worked, "{length} tokens again");
    }
}

#[test]
fn tenants_and_requests_without_one_share_nothing() {
    let mut engine = Engine::new(bounds(4, 4, 100));
    let prompt: Vec<u32> = (0..200).collect();
    engine.arrive(shared(1, "acme", prompt.clone(), 1)).expect("fits");
    engine.finish();
    engine.arrive(shared(2, "zeta", prompt.clone(), 1)).expect("fits");
    engine.arrive(Arrival { scope: None, ..shared(3, "", prompt.clone(), 1) }).expect("fits");
    engine.finish();
    engine.arrive(Arrival { scope: None, ..shared(4, "", prompt, 1) }).expect("fits");
    engine.finish();
    let worked: Vec<_> = engine.worked.values().copied().collect();
    assert_eq!(worked, [200; 4]);
}

#[test]
fn equal_prompts_that_come_together_are_computed_once() {
    let mut engine = Engine::new(bounds(8, 8, 100));
    for id in 1..=5 {
        let mut prompt: Vec<u32> = (0..300).collect();
        prompt.push(id as u32);
        engine.arrive(shared(id, "acme", prompt, 3)).expect("fits");
    }
    let mut steps = 0;
    while engine.drawn.len() < 5 {
        engine.step();
        steps += 1;
    }
    assert!(steps <= 25, "waiting for the first costs nobody more than computing: {steps}");
    engine.finish();
    let worked: Vec<_> = engine.worked.values().copied().collect();
    assert_eq!(worked, [303, 47, 47, 47, 47], "four pages of 64 are shared");
}

#[test]
fn who_waited_for_a_page_computes_it_when_the_other_leaves() {
    let mut engine = Engine::new(bounds(8, 8, 100));
    for id in 1..=2 {
        engine.arrive(shared(id, "acme", (0..300).collect(), 1)).expect("fits");
    }
    engine.step();
    assert_eq!(engine.worked.keys().copied().collect::<Vec<_>>(), [RequestId(1)]);
    engine.schedule.leave(RequestId(1));
    engine.finish();
    assert_eq!(engine.finished, [RequestId(2)]);
}

#[test]
fn nobody_waits_for_the_page_of_another_tenant_or_behind_other_pages() {
    let mut engine = Engine::new(bounds(8, 8, 100));
    let behind = |first: u32| [vec![first; 64], vec![7; 100]].concat();
    engine.arrive(shared(1, "acme", vec![7; 100], 1)).expect("fits");
    engine.arrive(shared(2, "zeta", vec![7; 100], 1)).expect("fits");
    assert_eq!(engine.step().work.len(), 2, "nobody learns what another tenant asks");
    engine.finish();
    for id in 3..=4 {
        engine.arrive(shared(id, "acme", behind(id as u32), 1)).expect("fits");
    }
    while !engine.schedule.is_idle() {
        assert_eq!(engine.step().work.len(), 2);
    }
}

#[test]
fn who_is_paused_in_the_step_in_which_it_would_join_does_not() {
    let mut engine = Engine::new(bounds(8, 8, 8));
    for id in 1..=2 {
        engine.arrive(arrival(id, 64, 200)).expect("fits");
    }
    // Two prompts take two steps; beside both answers the page of a third one takes sixteen. Then
    // they stand at the end of their second page.
    for _ in 0..50 {
        engine.step();
    }
    for id in 3..=4 {
        engine.arrive(shared(id, "acme", vec![7; 66], 1)).expect("fits");
    }
    for _ in 0..16 {
        assert!(engine.step().paused.is_empty());
    }
    let plan = engine.step();
    assert_eq!((plan.paused, plan.joined), (vec![RequestId(4)], Vec::new()));
    engine.finish();
    assert_eq!(engine.finished.len(), 4);
}

#[test]
fn idle_pages_give_way_before_anybody_waits_or_is_paused() {
    let mut engine = Engine::new(bounds(8, 8, 10));
    engine.arrive(shared(1, "acme", (0..500).collect(), 10)).expect("fits");
    engine.finish();
    assert_eq!(engine.schedule.pages_idle(), 7);
    engine.arrive(shared(2, "acme", (1_000..1_300).collect(), 10)).expect("fits");
    engine.arrive(shared(3, "zeta", (0..250).collect(), 70)).expect("fits");
    let plan = engine.step();
    assert_eq!(plan.admitted.len(), 2);
    assert_eq!(plan.evicted.len(), 6, "{:?}", plan.evicted);
    let mut paused = 0;
    while !engine.schedule.is_idle() {
        paused += engine.step().paused.len();
    }
    assert_eq!(paused, 0);
    engine.resize(3);
    assert_eq!((engine.store.len(), engine.schedule.pages_idle()), (3, 3), "without a step");
    engine.resize(0);
    assert!(engine.store.is_empty());
}

#[test]
fn what_was_paused_goes_on_behind_the_pages_that_are_left() {
    let mut engine = Engine::new(bounds(8, 8, 8));
    engine.arrive(shared(1, "acme", (0..100).collect(), 200)).expect("fits");
    engine.arrive(shared(2, "acme", (1_000..1_250).collect(), 150)).expect("fits");
    let mut paused = Vec::new();
    while !engine.schedule.is_idle() {
        paused.extend(engine.step().paused);
    }
    assert_eq!(paused, [RequestId(2)]);
    assert_eq!(engine.finished, [1, 2].map(RequestId));
    let all = 250 + 149;
    let worked = engine.worked[&RequestId(2)];
    assert!((all..2 * all - 64).contains(&worked), "{worked} tokens, some pages not again");
}

#[test]
fn an_answer_that_repeats_itself_takes_fewer_steps() {
    let mut engine = drafting(bounds(4, 4, 100));
    engine.arrive(shared(1, "acme", (100..140).collect(), 300)).expect("fits");
    engine.finish();
    assert_eq!(engine.drawn[&RequestId(1)], 300);
    let Drafts { drafted, accepted } = engine.schedule.drafts();
    assert!(engine.steps < 120, "{} steps", engine.steps);
    assert!(accepted > 200 && drafted < accepted * 4 / 3, "{accepted} of {drafted} were right");
}

#[test]
fn an_answer_that_says_nothing_twice_costs_nothing_more() {
    let mut engine = drafting(bounds(4, 4, 100));
    engine.arrive(arrival(1, 1, 6)).expect("fits");
    engine.finish();
    assert_eq!((engine.steps, engine.schedule.drafts()), (6, Drafts::default()));
}

#[test]
fn nothing_is_drafted_where_rows_depend_on_each_other() {
    let mut engine = drafting(Bounds { drafts: false, ..bounds(4, 4, 100) });
    engine.arrive(arrival(1, 40, 300)).expect("fits");
    engine.finish();
    assert_eq!((engine.steps, engine.schedule.drafts()), (300, Drafts::default()));
}

#[test]
fn nothing_is_drafted_beside_a_prompt_or_a_full_batch() {
    let mut engine = drafting(bounds(16, 16, 1_000));
    engine.arrive(arrival(0, 40, 600)).expect("fits");
    while !engine.step().work.iter().any(|work| !work.draft.is_empty()) {}
    engine.arrive(arrival(1, 640, 600)).expect("fits");
    let mut beside = 0;
    while engine.schedule.pending_tokens() > 2 {
        let plan = engine.step();
        beside += 1;
        assert!(plan.work.iter().all(|work| work.draft.is_empty()), "{plan:?}");
    }
    assert!(beside > 10, "{beside} steps");
    while !engine.step().work.iter().any(|work| !work.draft.is_empty()) {}
    for id in 2..16 {
        engine.arrive(arrival(id, 1, 600)).expect("fits");
    }
    for _ in 0..20 {
        let plan = engine.step();
        assert_eq!(plan.work.len(), 16);
        assert!(plan.work.iter().all(|work| work.draft.is_empty()), "{plan:?}");
    }
}

#[test]
fn drafts_take_no_page_that_is_kept_or_needed() {
    // The answer's two pages are all that is left beside one that is kept.
    let mut engine = drafting(bounds(4, 4, 3));
    engine.arrive(shared(1, "zeta", (1_000..1_064).collect(), 1)).expect("fits");
    engine.finish();
    assert_eq!(engine.schedule.pages_idle(), 1);
    engine.arrive(shared(2, "acme", (100..110).collect(), 110)).expect("fits");
    let mut drafted = 0;
    while !engine.schedule.is_idle() {
        let plan = engine.step();
        assert!(plan.evicted.is_empty());
        for work in &plan.work {
            let end = work.computed + work.tokens + work.draft.len() as u32;
            assert!(pages_for(end) <= 2);
            drafted += work.draft.len();
        }
    }
    assert!(drafted > 40, "{drafted}");
}

#[test]
fn beside_other_models_steps_with_drafts_stay_short() {
    let mut engine = drafting(bounds(4, 4, 100));
    engine.schedule.company(1, 0);
    engine.arrive(arrival(1, 40, 300)).expect("fits");
    while !engine.schedule.is_idle() {
        let plan = engine.step();
        // Three rows take 6.5 ms, and one 5.5.
        assert!(plan.work.iter().all(|work| work.draft.len() <= 2), "{plan:?}");
    }
    assert!(engine.schedule.drafts().accepted > 100, "{:?}", engine.schedule.drafts());
}

#[test]
fn what_was_planned_and_is_not_computed_is_not_counted() {
    let mut engine = drafting(bounds(4, 4, 100));
    engine.arrive(arrival(1, 40, 300)).expect("fits");
    while engine.schedule.drafts().drafted == 0 {
        engine.step();
    }
    let before = engine.schedule.drafts();
    let plan = engine.schedule.plan();
    assert!(plan.work.iter().any(|work| !work.draft.is_empty()), "{plan:?}");
    assert_eq!(engine.schedule.drafts(), before);
}

#[test]
fn the_time_of_a_token_is_told_without_what_was_drafted() {
    let mut schedule = Schedule::new(bounds(4, 4, 100));
    assert_eq!(schedule.plain_time(1, 8, Micros(9_000)), Micros(9_000), "nothing is known");
    for _ in 0..30 {
        schedule.stepped(1, Micros(5_000));
        schedule.stepped(8, Micros(9_000));
    }
    assert_eq!(schedule.plain_time(1, 8, Micros(9_000)), Micros(5_000));
    assert_eq!(schedule.plain_time(1, 8, Micros(4_000)), Micros(4_000), "never more than it took");
    assert_eq!(schedule.plain_time(1, 1, Micros(7_000)), Micros(7_000), "nothing was drafted");
    schedule.stepped(0, Micros(1));
    assert_eq!(schedule.step_time(1), Micros(5_000), "a step of nothing says nothing");
}

#[test]
fn an_idle_model_tells_the_time_of_one_row_after_a_burst() {
    let (fixed, row) = (5_000, 1_000);
    let step = |rows: u64| (fixed + row * rows) as u32;
    let bounds = Bounds { drafts: false, ..bounds(8, 8, 100) };
    let mut engine = Engine { machine: Some((fixed, row)), ..Engine::new(bounds) };
    let mut average = CostModel::default();
    assert_eq!(engine.schedule.next_step_us(&average), 0, "nothing is known");
    average.stepped(Micros(7_777));
    assert_eq!(engine.schedule.next_step_us(&average), 7_777, "all that is known");
    let run = |engine: &mut Engine, average: &mut CostModel| {
        while !engine.schedule.is_idle() {
            let plan = engine.step();
            if plan.work.iter().all(|work| work.prompt() == 0) {
                average.stepped(Micros(u64::from(step(plan.work.len() as u64))));
            }
        }
    };
    engine.arrive(arrival(1, 4, 40)).expect("there is room");
    run(&mut engine, &mut average);
    for id in 2..=9 {
        engine.arrive(arrival(id, 4, 200)).expect("there is room");
    }
    let began = (0..100).any(|_| {
        engine.step();
        engine.schedule.answering() == 8
    });
    assert!(began, "all eight are answered together");
    engine.step();
    assert_eq!(engine.schedule.next_step_us(&average), step(8), "a batch has no more rows");
    run(&mut engine, &mut average);
    assert!(average.step_us() > step(3), "{average:?} is that of the burst");
    assert_eq!(engine.schedule.next_step_us(&average), step(1));
}

#[test]
fn nothing_is_remembered_where_nothing_is_left_to_guess_or_while_one_waits() {
    for (answer, remembered) in [(1, 0), (2, 39), (200, 39)] {
        let mut sequence = Sequence::new(arrival(1, 40, answer), 40 + answer);
        assert_eq!(sequence.remember(100), remembered, "{answer} tokens to say");
    }
    let mut sequence = Sequence::new(arrival(1, 40, 9), 49);
    assert_eq!((sequence.remember(100), sequence.remember(100)), (39, 0));
    sequence.restart(&mut Prefixes::default());
    assert_eq!(sequence.remember(100), 39, "it was forgotten");
}

/// Prompt and answer, how many steps after the last one it comes, its tenant, and how many of its
/// tokens are those of all others.
fn arrivals() -> impl Strategy<Value = Vec<(u32, u32, usize, usize, u32)>> {
    prop::collection::vec((1u32..400, 1u32..200, 0usize..6, 0usize..3, 0u32..400), 1..40)
}

/// A request of one of two tenants, or of none.
fn any_arrival(id: u128, prompt: u32, answer: u32, tenant: usize, same: u32) -> Arrival {
    let scope = ["acme", "zeta"].get(tenant).map(|tenant| Scope::new(tenant));
    let token = |at: u32| if at < same { at % 5 } else { 1_000 + id as u32 };
    let tokens = (0..prompt).map(token).collect();
    Arrival { tokens, scope, ..arrival(id, 0, answer) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives and whenever: bounds hold at every step, admission is in order, pages are
    /// joined only by whom they belong to, and all that was accepted ends with exactly as many
    /// tokens as it asked for.
    #[test]
    fn bounds_hold_and_everything_ends(
        requests in arrivals(), batch in 1usize..9, pages in 10u64..40,
        machine in prop::option::of((0u64..10_000, 0u64..2_000)),
    ) {
        let mut engine = Engine { machine, ..Engine::new(bounds(batch, 8, pages)) };
        let mut accepted = Vec::new();
        let mut firsts = Vec::new();
        let mut waiting = requests.into_iter().enumerate().peekable();
        let mut gap = 0;
        for _ in 0..200_000 {
            while let Some((index, wanted)) = waiting.peek().copied() {
                let (prompt, answer, after, tenant, same) = wanted;
                if gap < after && !engine.schedule.is_idle() {
                    break;
                }
                gap = 0;
                let id = RequestId(index as u128);
                let arrival = any_arrival(id.0, prompt, answer, tenant, same);
                if engine.arrive(arrival).is_ok() {
                    accepted.push(id);
                }
                waiting.next();
            }
            gap += 1;
            let busy = !engine.schedule.is_idle();
            let plan = engine.step();
            prop_assert!(!busy || !plan.work.is_empty(), "a step without work");
            prop_assert!(plan.work.len() <= batch);
            prop_assert!(plan.work.iter().all(|w| (1..=PROMPT_ROWS).contains(&w.tokens)));
            prop_assert!(engine.schedule.pages_held() <= pages);
            for id in plan.admitted {
                if !firsts.contains(&id) {
                    firsts.push(id);
                }
            }
            if waiting.peek().is_none() && engine.schedule.is_idle() {
                break;
            }
        }
        prop_assert!(engine.schedule.is_idle(), "something never ends");
        prop_assert_eq!(&firsts, &accepted, "first come, first served");
        for id in accepted {
            prop_assert_eq!(engine.drawn[&id], engine.limits[&id]);
        }
    }
}
