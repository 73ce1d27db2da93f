//! Prompts beside answers: what a step has of them, who is next, and when a prompt ends.

use super::*;
use crate::pace::{LEAST_ROWS, REST_STEPS};

/// An engine with so many answers under way, each of so many tokens, on such a machine.
fn answering(answers: u128, tokens: u32, machine: Option<(u64, u64)>) -> Engine {
    let mut engine = Engine { machine, ..Engine::new(bounds(16, 64, 100_000)) };
    for id in 0..answers {
        engine.arrive(arrival(id, 1, tokens)).expect("fits");
    }
    engine.step();
    assert_eq!(engine.schedule.answering(), answers as usize);
    engine
}

/// Tokens of prompts in a step.
fn prompt_rows(plan: &Plan) -> u32 {
    plan.work.iter().map(Work::prompt).sum()
}

#[test]
fn all_prompts_together_have_the_rows_that_one_would_have() {
    for (answers, rows) in [(1, 3), (2, 4), (6, 6), (8, 6)] {
        for prompts in 1..=8 {
            let mut engine = answering(answers, 1_000, None);
            for id in 100..100 + prompts {
                engine.arrive(arrival(id, 1_000, 1)).expect("fits");
            }
            for _ in 0..50 {
                let plan = engine.step();
                assert_eq!(prompt_rows(&plan), rows, "{answers} answers, {prompts} prompts");
                let advanced = plan.work.iter().filter(|work| work.prompt() == 0).count();
                assert_eq!(advanced, answers as usize, "each answer advances in every step");
            }
        }
    }
}

#[test]
fn a_prompt_has_the_whole_step_before_the_answers_and_after_them() {
    let mut engine = answering(2, 20, None);
    engine.arrive(arrival(100, 2_000, 1)).expect("fits");
    let rows: Vec<_> = (0..40).map(|_| prompt_rows(&engine.step())).collect();
    // The first of their twenty tokens is drawn already, the last in a step with the prompt.
    assert_eq!(rows[..19], [4; 19]);
    assert_eq!(rows[19..], [PROMPT_ROWS; 21]);
}

#[test]
fn where_only_other_models_are_answered_a_prompt_takes_little_of_the_time() {
    for (company, rows) in [((0, 0), 64), ((1, 0), 64), ((1, 1), 3), ((3, 2), 3)] {
        let mut engine = Engine::new(bounds(4, 4, 1_000));
        engine.schedule.company(company.0, company.1);
        engine.arrive(arrival(1, 1_000, 1)).expect("fits");
        let all: Vec<_> = (0..4).map(|_| prompt_rows(&engine.step())).collect();
        assert_eq!(all, [rows; 4], "{company:?}");
    }
}

#[test]
fn who_had_a_turn_longest_ago_is_next_whoever_comes_and_goes() {
    let mut engine = answering(1, 1_000, None);
    for id in 100..103 {
        engine.arrive(arrival(id, 500, 1)).expect("fits");
    }
    // A long one's turn is over when its rows have come to a chunk, by three in each step.
    let turn = |engine: &mut Engine| -> u128 {
        let steps: Vec<u128> = (0..CHUNK_TOKENS.div_ceil(3))
            .map(|_| engine.step())
            .flat_map(|plan| plan.work.into_iter().filter(|work| work.prompt() > 0))
            .map(|work| work.id.0)
            .collect();
        assert!(steps.iter().all(|id| *id == steps[0]), "{steps:?}");
        steps[0]
    };
    assert_eq!((turn(&mut engine), turn(&mut engine)), (100, 101));
    // Neither who leaves nor who comes takes the third one's turn.
    engine.schedule.leave(RequestId(100));
    engine.arrive(arrival(103, 500, 1)).expect("fits");
    let turns: Vec<_> = (0..6).map(|_| turn(&mut engine)).collect();
    assert_eq!(turns, [102, 101, 103, 102, 101, 103]);
}

#[test]
fn of_questions_that_come_together_one_after_the_other_is_answered() {
    let mut engine = Engine::new(bounds(16, 64, 100_000));
    for id in 0..16 {
        engine.arrive(arrival(id, 32, 1_000)).expect("fits");
    }
    let mut answered = Vec::new();
    while engine.schedule.answering() < 16 {
        engine.step();
        answered.push(engine.schedule.answering());
    }
    // 32 tokens of each: the later ones come sooner, as more rows stand beside more answers.
    assert!(answered.len() < 80, "{answered:?}");
    let half = answered.iter().position(|answered| *answered >= 8).expect("half of them");
    assert!(half <= answered.len() * 3 / 5, "{answered:?}");
}

#[test]
fn a_question_waits_for_little_of_long_prompts() {
    let mut engine = answering(6, 1_000, None);
    for id in 100..102 {
        engine.arrive(arrival(id, 2_000, 1)).expect("fits");
    }
    (0..50).for_each(|_| drop(engine.step()));
    engine.arrive(arrival(200, 32, 10)).expect("fits");
    let steps = (1..100).find(|_| {
        engine.step();
        engine.schedule.answering() == 7
    });
    // Its own 32 rows and a chunk of each long one at most, six in a step.
    assert!(steps.expect("it is answered") <= (32 + 2 * CHUNK_TOKENS).div_ceil(6) + 2);
}

#[test]
fn answers_are_measured_alone_again_and_again_while_prompts_are_computed() {
    let mut engine = answering(3, 100_000, Some((4_200, 850)));
    let mut rests = 0;
    for round in 0..640 {
        if engine.schedule.queued() == 0 {
            engine.arrive(arrival(100 + round, 2_000, 1)).expect("fits");
        }
        rests += u32::from(prompt_rows(&engine.step()) == 0);
    }
    assert!((10..=640 / REST_STEPS).contains(&rests), "{rests} of 640 steps");
}

#[test]
fn on_any_machine_steps_with_prompts_stay_within_twice_of_those_without() {
    // A card, two cores, a small board whose memory is slow, a processor without vectors.
    for machine in [(8_000, 10), (4_200, 850), (50_000, 10_000), (10, 5_000)] {
        for answers in [1, 6, 15] {
            let mut engine = answering(answers, 100_000, Some(machine));
            // Some steps without prompts first, as there are.
            (0..20).for_each(|_| drop(engine.step()));
            engine.arrive(arrival(100, 20_000, 1)).expect("fits");
            let (fixed, row) = machine;
            let plain = fixed + row * answers as u64;
            let mut steps: Vec<_> = (0..1_000)
                .map(|_| fixed + row * (answers as u64 + u64::from(prompt_rows(&engine.step()))))
                .collect();
            steps.sort_unstable();
            // The 99th percentile, in thousandths.
            let ratio = steps[989] * 1_000 / plain;
            assert!(ratio <= 2_000, "{machine:?}, {answers} answers: {ratio}");
            assert!(ratio >= 1_200 || engine.worked[&RequestId(100)] > 19_000, "rows are left");
        }
    }
}

/// Steps of a turn at most: a long prompt's may be on when it becomes one that is let end.
const LONGEST_TURN: u32 = TURN_ROWS + CHUNK_TOKENS;

/// What a prompt that is being computed was seen to wait for.
struct Waiting {
    /// Its tokens.
    prompt: u32,
    /// Those that are left.
    left: u32,
    /// Steps since it was admitted.
    steps: u32,
    /// Prompts that had rows since it had some: how many, and the most in one step.
    served: BTreeMap<RequestId, (u32, u32)>,
}

impl Waiting {
    fn new(prompt: u32) -> Self {
        Self { prompt, left: prompt, steps: 0, served: BTreeMap::new() }
    }

    /// Notes what a step computed of it, as one of so many at once, and of others.
    fn note(&mut self, own: Option<&Work>, plan: &Plan, batch: u32) -> Result<(), TestCaseError> {
        self.steps += 1;
        let others = plan.work.iter().filter(|work| work.prompt() > 0);
        match own {
            Some(work) => {
                self.left -= work.tokens;
                self.served.clear();
            }
            None => {
                for other in others {
                    let (rows, most) = self.served.entry(other.id).or_default();
                    (*rows, *most) = (*rows + other.prompt(), other.prompt().max(*most));
                    // The step after which it is let end may have been one of many rows.
                    prop_assert!(*rows < LONGEST_TURN + *most, "another had more than a turn");
                }
            }
        }
        // Between two of its turns is one of each other at most, of at least one row a step.
        let turns = self.prompt.saturating_sub(TURN_ROWS).div_ceil(CHUNK_TOKENS) + 1;
        let steps = self.prompt + (batch - 1) * turns * LONGEST_TURN;
        let bound = steps + steps / REST_STEPS + 1;
        prop_assert!(self.steps <= bound, "{} steps of {}", self.steps, bound);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives and whenever, on whatever machine: prompts beside answers have the rows of
    /// the rule, no more and no fewer but in the steps that are kept free; every answer advances;
    /// no prompt has more than a turn while another has none; each ends within the bound.
    #[test]
    fn prompts_beside_answers_are_bounded_and_fair_and_end(
        requests in arrivals(), batch in 1usize..9,
        machine in prop::option::of((0u64..10_000, 0u64..2_000)),
    ) {
        let mut engine = Engine { machine, ..Engine::new(bounds(batch, 40, 10_000)) };
        let mut requests = requests.into_iter().enumerate().peekable();
        let mut prompts = BTreeMap::<RequestId, Waiting>::new();
        let (mut gap, mut since) = (0, 0);
        while requests.peek().is_some() || !engine.schedule.is_idle() {
            while let Some((at, (prompt, answer, after, ..))) = requests.peek().copied() {
                if gap < after && !engine.schedule.is_idle() {
                    break;
                }
                gap = 0;
                engine.arrive(arrival(at as u128, prompt, answer)).expect("there is room");
                requests.next();
            }
            gap += 1;
            let answers = engine.schedule.answering();
            let most = if answers > 0 { engine.schedule.pace.rows(answers) } else { PROMPT_ROWS };
            let before: BTreeMap<_, _> =
                engine.arrived.iter().map(|(id, a)| (*id, a.tokens.len() as u32)).collect();
            let plan = engine.step();
            prop_assert!(plan.paused.is_empty(), "memory is not short here");
            prompts.extend(plan.admitted.iter().map(|id| (*id, Waiting::new(before[id]))));
            // Whoever has one token left is answered next.
            let left: u32 = prompts.values().map(|one| one.left).filter(|left| *left > 1).sum();
            let rows = prompt_rows(&plan);
            let advanced = plan.work.iter().filter(|work| work.prompt() == 0).count();
            prop_assert!(advanced >= answers, "an answer was stalled");
            if answers > 0 && rows == 0 && left > 0 {
                prop_assert!(since >= REST_STEPS, "{} steps after the last free one", since);
                since = 0;
            } else {
                prop_assert!((LEAST_ROWS.min(left)..=most).contains(&rows));
                // With nobody answered they are divided, and the division leaves a rest.
                prop_assert!(answers == 0 || rows == most.min(left), "{} of {}", rows, most);
                since += u32::from(rows > 0);
            }
            for (id, waiting) in &mut prompts {
                let own = plan.work.iter().find(|work| work.id == *id);
                waiting.note(own, &plan, batch as u32)?;
            }
            prompts.retain(|_, waiting| waiting.left > 0);
        }
    }
}
