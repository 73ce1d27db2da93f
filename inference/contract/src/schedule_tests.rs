use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn bounds(max_batch: usize, max_queue: usize, pages: u64) -> Bounds {
    Bounds { max_batch, max_queue, pages }
}

fn arrival(id: u128, prompt_tokens: u32, answer_tokens: u32) -> Arrival {
    Arrival { id: RequestId(id), prompt_tokens, answer_tokens }
}

/// Carries a plan out as an engine would; every sequence draws until its limit.
struct Engine {
    schedule: Schedule,
    limits: BTreeMap<RequestId, u32>,
    drawn: BTreeMap<RequestId, u32>,
    finished: Vec<RequestId>,
}

impl Engine {
    fn new(bounds: Bounds) -> Self {
        Self {
            schedule: Schedule::new(bounds),
            limits: BTreeMap::new(),
            drawn: BTreeMap::new(),
            finished: Vec::new(),
        }
    }

    fn arrive(&mut self, arrival: Arrival) -> Result<(), Unschedulable> {
        self.schedule.arrive(arrival)?;
        self.limits.insert(arrival.id, arrival.answer_tokens);
        Ok(())
    }

    fn step(&mut self) -> Plan {
        let plan = self.schedule.plan();
        for work in &plan.work {
            let drawn = self.drawn.entry(work.id).or_default();
            *drawn += u32::from(work.draws);
            self.schedule.computed(work, work.draws);
            if work.draws && *drawn >= self.limits[&work.id] {
                self.schedule.leave(work.id);
                self.finished.push(work.id);
            }
        }
        plan
    }
}

#[test]
fn a_prompt_advances_by_chunks_and_draws_after_the_last() {
    let mut engine = Engine::new(bounds(4, 4, 100));
    engine.arrive(arrival(1, 40, 2)).expect("fits");
    let steps: Vec<_> =
        (0..4).flat_map(|_| engine.step().work).map(|w| (w.computed, w.tokens, w.draws)).collect();
    assert_eq!(steps, [(0, 16, false), (16, 16, false), (32, 8, true), (40, 1, true)]);
    assert_eq!(engine.finished, [RequestId(1)]);
    assert!(engine.schedule.is_idle());
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
        assert_eq!(tokens, [(1, 1), (2, CHUNK_TOKENS)]);
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
    assert!(schedule.arrive(arrival(2, u32::MAX, u32::MAX)).is_err());
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
    engine.schedule.resize(1);
    assert_eq!(engine.step().expelled, [RequestId(1)]);
    for _ in 0..20 {
        engine.step();
    }
    assert_eq!(engine.finished, [RequestId(2)]);
}

fn arrivals() -> impl Strategy<Value = Vec<(u32, u32, usize)>> {
    prop::collection::vec((1u32..400, 1u32..200, 0usize..6), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives and whenever: bounds hold at every step, admission is in order, and all
    /// that was accepted ends with exactly as many tokens as it asked for.
    #[test]
    fn bounds_hold_and_everything_ends(
        requests in arrivals(), batch in 1usize..9, pages in 10u64..40,
    ) {
        let mut engine = Engine::new(bounds(batch, 8, pages));
        let mut accepted = Vec::new();
        let mut firsts = Vec::new();
        let mut waiting = requests.into_iter().enumerate().peekable();
        let mut gap = 0;
        for _ in 0..200_000 {
            while let Some((index, (prompt, answer, after))) = waiting.peek().copied() {
                if gap < after && !engine.schedule.is_idle() {
                    break;
                }
                gap = 0;
                let id = RequestId(index as u128);
                if engine.arrive(arrival(id.0, prompt, answer)).is_ok() {
                    accepted.push(id);
                }
                waiting.next();
            }
            gap += 1;
            let busy = !engine.schedule.is_idle();
            let plan = engine.step();
            prop_assert!(!busy || !plan.work.is_empty(), "a step without work");
            prop_assert!(plan.work.len() <= batch);
            prop_assert!(plan.work.iter().all(|w| (1..=CHUNK_TOKENS).contains(&w.tokens)));
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
