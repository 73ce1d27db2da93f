use super::*;
use proptest::prelude::*;

const A: NodeId = NodeId([1; 32]);
const B: NodeId = NodeId([2; 32]);
const DIGEST: [u8; 32] = [9; 32];

/// A flow and a clock: tests read as a story of what happened and what was ordered.
struct Story {
    flow: Flow,
    now: Now,
    effects: Vec<FlowEffect>,
}

impl Story {
    fn begin() -> Self {
        let now = Now::default();
        let flow = Flow::new(now, RequestId(1), "m".into(), "local".into(), Micros::secs(60));
        let mut story = Self { flow, now, effects: Vec::new() };
        story.happens(FlowInput::Arrived);
        story
    }

    fn happens(&mut self, input: FlowInput) -> &[FlowEffect] {
        self.effects.clear();
        self.flow.step(self.now, input, &mut self.effects);
        &self.effects
    }

    fn passes(&mut self, span: Micros) -> &mut Self {
        self.now.mono = self.now.mono.plus(span);
        self
    }

    fn routed_to(&mut self, node: NodeId) -> &mut Self {
        self.happens(FlowInput::Routed(Ok(chosen(Some(node)))));
        self
    }

    fn started(&mut self, fence: u64) -> &mut Self {
        self.happens(FlowInput::Accepted { fence });
        let answer = Answer::Started { prompt_tokens: 5, prompt_digest: DIGEST };
        self.happens(FlowInput::Answered { fence, answer });
        self
    }

    fn token(&mut self, fence: u64, index: u32) -> &[FlowEffect] {
        self.happens(FlowInput::Answered { fence, answer: Answer::Token(event(index)) })
    }

    fn delivered(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for effect in &self.effects {
            if let FlowEffect::Deliver(piece) = effect {
                pieces.push(piece.clone());
            }
        }
        pieces
    }
}

fn chosen(node: Option<NodeId>) -> Choice {
    Choice { ranked: Vec::new(), chosen: node }
}

fn event(index: u32) -> TokenEvent {
    TokenEvent { index, token: index + 100, text: format!("t{index}"), logprob: None }
}

fn finished() -> Answer {
    let usage = Usage { prompt_tokens: 5, completion_tokens: 3, ..Usage::default() };
    Answer::Finished { reason: FinishReason::Stop, text: String::new(), usage }
}

fn pulse(progress: u64, computing: bool, loading: bool) -> Pulse {
    Pulse { progress, computing, loading, ..Pulse::default() }
}

fn used_up() -> Refusal {
    Refusal::client(Stage::Reserve, Code::QuotaExhausted, "nothing left")
}

#[test]
fn an_answer_ends_where_its_budget_does() {
    let mut story = Story::begin();
    story.routed_to(A).started(1).token(1, 0);
    story.token(1, 1);
    story.happens(FlowInput::QuotaEnded(used_up()));
    assert!(story.effects.contains(&FlowEffect::Cancel { fence: 1 }));
    let [Piece::Finished { reason, usage, served_by, .. }] = &story.delivered()[..] else {
        panic!("one end, got {:?}", story.delivered());
    };
    assert_eq!((*reason, *served_by), (FinishReason::Quota, A));
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (5, 2));
    assert!(story.flow.is_closed());
    assert!(story.token(1, 2).is_empty(), "what comes later is not delivered");
}

#[test]
fn a_barred_caller_gets_nothing_more() {
    let mut story = Story::begin();
    story.routed_to(A).started(1).token(1, 0);
    let barred = Refusal::client(Stage::Authenticate, Code::Unauthorized, "revoked");
    story.happens(FlowInput::Barred(barred.clone()));
    assert!(story.effects.contains(&FlowEffect::Cancel { fence: 1 }));
    assert_eq!(story.delivered(), [Piece::Failed(barred)]);
    assert!(story.token(1, 1).is_empty());
}

#[test]
fn without_a_budget_nothing_is_routed() {
    let now = Now::default();
    let flow = Flow::new(now, RequestId(1), "m".into(), "local".into(), Micros::secs(60));
    let mut story = Story { flow, now, effects: Vec::new() };
    story.happens(FlowInput::NotReserved(used_up()));
    assert_eq!(story.delivered(), [Piece::Failed(used_up())]);
    assert!(story.happens(FlowInput::Arrived).is_empty());
    // The same when the prompt alone is more than there is.
    let mut story = Story::begin();
    story.routed_to(A).happens(FlowInput::QuotaEnded(used_up()));
    assert_eq!(story.delivered(), [Piece::Failed(used_up())]);
}

#[test]
fn a_quiet_life() {
    let mut story = Story::begin();
    assert_eq!(story.effects, [FlowEffect::Route { exclude: vec![] }]);
    story.routed_to(A);
    assert!(matches!(
        story.effects[..],
        [FlowEffect::Dispatch { fence: 1, to: A, emitted: None, .. }]
    ));
    story.started(1);
    assert_eq!(story.delivered(), [Piece::Started { prompt_tokens: 5, served_by: A }]);
    story.token(1, 0);
    assert_eq!(story.delivered(), [Piece::Token(event(0))]);
    story.happens(FlowInput::Answered { fence: 1, answer: finished() });
    assert!(matches!(story.delivered()[..], [Piece::Finished { served_by: A, .. }]));
    assert_eq!(story.effects.last(), Some(&FlowEffect::Close));
    assert!(story.flow.is_closed());
    assert!(matches!(story.flow.record().outcome, Outcome::Finished { .. }));
}

#[test]
fn a_dead_node_is_continued_from_the_token_log() {
    let mut story = Story::begin();
    story.routed_to(A).started(1);
    story.token(1, 0);
    story.token(1, 1);
    story.passes(Micros::millis(10));
    story.happens(FlowInput::Lost { fence: 1, why: "reset".into() });
    assert_eq!(
        story.effects,
        [FlowEffect::Cancel { fence: 1 }, FlowEffect::Route { exclude: vec![A] }]
    );
    story.routed_to(B);
    let emitted = Some(Emitted { tokens: vec![100, 101], prompt_digest: DIGEST });
    assert!(matches!(&story.effects[..],
        [FlowEffect::Dispatch { fence: 2, to: B, emitted: sent, .. }] if *sent == emitted));
    story.started(2);
    assert_eq!(story.delivered(), [Piece::Moved { from: A, to: B, why: "reset".into() }]);
    assert!(story.token(1, 2).is_empty(), "the dead node's voice is fenced off");
    story.passes(Micros::millis(300)).token(2, 2);
    assert_eq!(story.delivered(), [Piece::Token(event(2))]);
    let record = story.flow.record();
    assert_eq!(record.longest_gap, Some(Micros::millis(310)));
    assert_eq!(record.attempts[0].ended.as_deref(), Some("reset"));
    assert_eq!(record.attempts[1].from_index, 2);
}

#[test]
fn silence_and_standing_still_are_told_from_slowness() {
    let mut story = Story::begin();
    story.routed_to(A).started(1);
    for progress in 1..40 {
        story.passes(Micros::millis(150));
        let slow = FlowInput::Pulsed { fence: 1, pulse: pulse(progress, true, false) };
        story.happens(slow);
        assert!(story.happens(FlowInput::Ticked).is_empty(), "slow, but moving");
    }
    for _ in 0..40 {
        story.passes(Micros::millis(150));
        let loading = FlowInput::Pulsed { fence: 1, pulse: pulse(40, true, true) };
        story.happens(loading);
        assert!(story.happens(FlowInput::Ticked).is_empty(), "loading");
    }
    let mut stood = Micros::ZERO;
    let lost = loop {
        story.passes(Micros::millis(150));
        stood = stood.plus(Micros::millis(150));
        let frozen = FlowInput::Pulsed { fence: 1, pulse: pulse(41, true, false) };
        story.happens(frozen);
        if let Some(effect) = story.happens(FlowInput::Ticked).last() {
            break effect.clone();
        }
        assert!(stood < Micros::secs(2), "a frozen node is left within two seconds");
    };
    assert_eq!(lost, FlowEffect::Route { exclude: vec![A] });
    assert!(story.flow.record().attempts[0].ended.as_deref().is_some_and(|w| w.contains("frozen")));
    story.routed_to(B).started(2);
    let wake = story.flow.wake_at().expect("it watches for silence");
    story.now.mono = wake;
    story.happens(FlowInput::Ticked);
    assert!(story.flow.record().attempts[1].ended.as_deref().is_some_and(|w| w.contains("silent")));
}

#[test]
fn a_node_that_was_only_silent_gets_another_chance_when_nobody_else_is_left() {
    let mut story = Story::begin();
    story.routed_to(A).started(1);
    story.token(1, 0);
    story.passes(SILENT_AFTER);
    story.happens(FlowInput::Ticked);
    assert_eq!(story.effects.last(), Some(&FlowEffect::Route { exclude: vec![A] }));
    story.happens(FlowInput::Routed(Ok(chosen(None))));
    assert_eq!(story.effects, [FlowEffect::Route { exclude: vec![] }], "A may only be busy");
    story.routed_to(A).started(2);
    assert_eq!(story.delivered().len(), 1, "moved, from A to A");
    story.token(2, 1);
    assert_eq!(story.delivered(), [Piece::Token(event(1))]);
    // A node whose stream broke is not doubtful: it is gone.
    story.happens(FlowInput::Lost { fence: 2, why: "reset".into() });
    story.happens(FlowInput::Routed(Ok(chosen(None))));
    assert!(matches!(story.delivered()[..], [Piece::Failed(_)]));
}

#[test]
fn a_peer_is_not_blamed_for_this_nodes_own_stall() {
    let mut story = Story::begin();
    story.routed_to(A).started(1);
    story.token(1, 0);
    story.passes(Micros::secs(5));
    assert!(story.happens(FlowInput::Ticked).is_empty(), "this node slept: it listens first");
    assert_eq!(story.flow.wake_at(), Some(story.now.mono.plus(STALL_GRACE)));
    story.token(1, 1);
    assert_eq!(story.delivered(), [Piece::Token(event(1))], "what had arrived meanwhile");
    assert!(story.passes(STALL_GRACE).happens(FlowInput::Ticked).is_empty());

    // Silence after the stall is the peer's.
    story.passes(Micros::secs(5));
    assert!(story.happens(FlowInput::Ticked).is_empty());
    story.passes(STALL_GRACE);
    story.happens(FlowInput::Ticked);
    assert_eq!(story.effects.last(), Some(&FlowEffect::Route { exclude: vec![A] }));
}

#[test]
fn a_stall_before_the_acceptance_is_spared_too() {
    let mut story = Story::begin();
    story.routed_to(A);
    story.passes(ACCEPT_WITHIN.plus(STALL_GRACE));
    assert!(story.happens(FlowInput::Ticked).is_empty());
    story.started(1);
    assert_eq!(story.delivered(), [Piece::Started { prompt_tokens: 5, served_by: A }]);
}

#[test]
fn a_node_that_is_always_late_still_leaves_a_dead_peer() {
    let mut story = Story::begin();
    story.routed_to(A).started(1);
    let mut spared = 0;
    loop {
        let wake = story.flow.wake_at().expect("it watches");
        story.now.mono = wake.plus(STALL_GRACE);
        if !story.happens(FlowInput::Ticked).is_empty() {
            break;
        }
        spared += 1;
        assert!(spared <= MAX_GRACES, "the graces run out");
    }
    assert_eq!(story.effects.last(), Some(&FlowEffect::Route { exclude: vec![A] }));
    assert_eq!(spared, MAX_GRACES);
}

#[test]
fn no_peer_is_asked_for_more_time_than_it_gives() {
    let now = Now::default();
    let day = Micros::secs(86_400);
    let flow = Flow::new(now, RequestId(1), "m".into(), "local".into(), day);
    let mut story = Story { flow, now, effects: Vec::new() };
    story.happens(FlowInput::Arrived);
    story.routed_to(A);
    assert!(matches!(
        story.effects[..],
        [FlowEffect::Dispatch { deadline: crate::receive::MAX_DEADLINE, .. }]
    ));
}

#[test]
fn refusals_walk_on_or_end_it() {
    let mut story = Story::begin();
    story.routed_to(A);
    let full = Refusal::new(
        Stage::HandOff,
        Blame::Peer,
        Retry::Elsewhere,
        Code::Overloaded,
        "full".to_owned(),
    );
    story.happens(FlowInput::Refused { fence: 1, refusal: full.clone() });
    assert_eq!(story.effects.last(), Some(&FlowEffect::Route { exclude: vec![A] }));
    story.happens(FlowInput::Routed(Ok(chosen(None))));
    assert_eq!(story.delivered(), [Piece::Failed(full)], "the last word is the real reason");

    let mut story = Story::begin();
    story.routed_to(A);
    let never = Refusal::client(Stage::Validate, Code::InvalidRequest, "no");
    story.happens(FlowInput::Refused { fence: 1, refusal: never.clone() });
    assert_eq!(story.delivered(), [Piece::Failed(never)]);
}

#[test]
fn a_wrong_index_or_another_prompt_is_never_passed_on() {
    let mut story = Story::begin();
    story.routed_to(A).started(1);
    story.token(1, 0);
    story.token(1, 2);
    assert!(story.delivered().is_empty());
    assert_eq!(story.effects.last(), Some(&FlowEffect::Route { exclude: vec![A] }));
    story.routed_to(B);
    story.happens(FlowInput::Accepted { fence: 2 });
    let other = Answer::Started { prompt_tokens: 5, prompt_digest: [0; 32] };
    story.happens(FlowInput::Answered { fence: 2, answer: other });
    assert!(story.delivered().is_empty());
}

#[test]
fn the_deadline_ends_everything() {
    let mut story = Story::begin();
    story.routed_to(A).started(1);
    story.passes(Micros::secs(60));
    story.happens(FlowInput::Ticked);
    assert_eq!(story.effects[0], FlowEffect::Cancel { fence: 1 });
    assert!(matches!(&story.delivered()[..], [Piece::Failed(r)] if r.code == Code::Timeout));
    assert_eq!(story.flow.wake_at(), None);
}

/// Anything that may happen, in any order.
fn anything() -> impl Strategy<Value = FlowInput> {
    let fence = 0u64..5;
    prop_oneof![
        Just(FlowInput::Arrived),
        (0u8..4).prop_map(|n| FlowInput::Routed(Ok(chosen((n > 0).then_some(NodeId([n; 32])))))),
        fence.clone().prop_map(|fence| FlowInput::Accepted { fence }),
        fence.clone().prop_map(|fence| FlowInput::Lost { fence, why: "x".into() }),
        (fence.clone(), 0u32..6).prop_map(|(fence, index)| FlowInput::Answered {
            fence,
            answer: Answer::Token(event(index)),
        }),
        fence.clone().prop_map(|fence| FlowInput::Answered {
            fence,
            answer: Answer::Started { prompt_tokens: 1, prompt_digest: DIGEST },
        }),
        fence.clone().prop_map(|fence| FlowInput::Answered { fence, answer: finished() }),
        (fence, any::<u64>()).prop_map(|(fence, progress)| FlowInput::Pulsed {
            fence,
            pulse: pulse(progress, true, false),
        }),
        Just(FlowInput::Ticked),
        Just(FlowInput::CallerLeft),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_caller_sees_one_clean_answer(
        inputs in prop::collection::vec((anything(), 0u64..800), 1..200)
    ) {
        let mut story = Story::begin();
        let mut next_index = 0;
        let mut over = 0;
        let mut closed = false;
        for (input, wait_ms) in inputs {
            story.passes(Micros::millis(wait_ms));
            story.happens(input);
            closed |= story.effects.contains(&FlowEffect::Close);
            for piece in story.delivered() {
                prop_assert_eq!(over, 0, "nothing follows the end");
                match piece {
                    Piece::Token(token) => {
                        prop_assert_eq!(token.index, next_index);
                        next_index += 1;
                    }
                    Piece::Finished { .. } | Piece::Failed(_) => over += 1,
                    Piece::Started { .. } | Piece::Moved { .. } => {}
                }
            }
            prop_assert!(over <= 1);
            prop_assert_eq!(closed, story.flow.is_closed(), "closing is told");
            prop_assert!(story.flow.record().attempts.len() <= MAX_ATTEMPTS as usize);
        }
        // However it went, time ends it.
        story.passes(Micros::secs(61));
        story.happens(FlowInput::Ticked);
        prop_assert!(story.flow.is_closed());
        prop_assert!(story.flow.record().outcome != Outcome::Running);
    }
}
