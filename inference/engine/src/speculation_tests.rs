//! Answers of an engine that computes ahead, beside those of one that does not.

use selvedge_base::Dice;
use selvedge_contract::TokenEvent;
use selvedge_contract::schedule::{Drafts, PAGE_TOKENS};

use super::prefix::{Bits, ask, bits, gated, prompted, tokens, with_pages};
use super::tuned::{digest, shape, version};
use super::*;

fn ahead() -> EngineConfig {
    EngineConfig { speculation: true, ..config() }
}

fn plain() -> EngineConfig {
    EngineConfig { speculation: false, ..config() }
}

fn drafts(engine: &LocalEngine) -> Drafts {
    engine.drafts().first().expect("a model").1
}

/// Tokens that say the same several times, with other things between.
fn repeating(seed: u64, count: usize) -> Vec<u32> {
    let phrase = tokens(seed, 9);
    let between = (0u64..).map(|at| tokens(seed * 1_000 + at, 2));
    between.flat_map(|between| [phrase.clone(), between].concat()).take(count).collect()
}

fn samplings() -> [Sampling; 4] {
    let cool = Sampling { temperature: 0.2, seed: 3, ..greedy() };
    let penalties = Sampling { presence_penalty: 0.05, frequency_penalty: 0.02, ..greedy() };
    let cut = Sampling { temperature: 0.6, top_p: 0.5, top_k: 20, seed: 9, ..greedy() };
    [greedy(), cool, penalties, cut]
}

/// How much of a token depends on more than the one before it.
const SHARES: [f32; 3] = [0.02, 0.05, 0.1];

/// A model whose answers turn in circles, the sooner the smaller the share.
fn circling(seed: u64, share: f32) -> Writer {
    let mut writer = Writer::tiny(seed);
    writer.circle(share);
    writer
}

/// All that is heard of an answer, but the time it took.
type Heard = (Bits, FinishReason, [u32; 3]);

fn heard(all: &Collected) -> Heard {
    let (reason, usage) = all.finished.expect("finished");
    let indices = all.tokens.iter().map(|event| event.index);
    assert!(indices.eq(0..all.tokens.len() as u32), "one event for each token, in order");
    let counts = [usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens];
    (bits(all), reason, counts)
}

/// Asks two engines of one file the same.
struct Both {
    ahead: LocalEngine,
    plain: LocalEngine,
    file: Temporary,
}

impl Both {
    fn of(writer: &Writer) -> Self {
        let file = temporary(&writer.bytes());
        let started = |config| {
            let engine = engine(config);
            engine.add_model(file.path(), "tiny", MODEL).expect("a model");
            engine
        };
        Self { ahead: started(ahead()), plain: started(plain()), file }
    }

    /// What both say; how many tokens were there before they were drawn.
    fn check(&self, request: &GenerateRequest) -> (Collected, u64) {
        let before = drafts(&self.ahead).accepted;
        let expected = answer(&self.plain, request.clone());
        let all = answer(&self.ahead, request.clone());
        assert!(heard(&all) == heard(&expected), "{request:?}");
        (all, drafts(&self.ahead).accepted - before)
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        assert_eq!(drafts(&self.plain), Drafts::default(), "it was told not to");
    }
}

#[test]
fn an_answer_computed_ahead_is_the_plain_one_to_the_last_bit() {
    for family in ["llama", "qwen2", "qwen3", "gemma3"] {
        let mut all = Drafts::default();
        let mut ahead = [0; 4];
        let mut writer = Writer::tiny(1);
        match family {
            "qwen2" => writer.become_qwen2(1),
            "qwen3" => writer.become_qwen3(1),
            // Its window is shorter than a page.
            "gemma3" => writer.become_gemma3(1),
            _ => {}
        }
        for share in SHARES {
            let mut writer = writer.clone();
            writer.circle(share);
            let both = Both::of(&writer);
            for (at, sampling) in samplings().iter().enumerate() {
                for (seed, length) in (1..).zip([5, 20, 58, 63, 90, 140]) {
                    let request = prompted(1, &repeating(seed, length), sampling);
                    ahead[at] += both.check(&GenerateRequest { max_tokens: 120, ..request }).1;
                }
            }
            let Drafts { drafted, accepted } = drafts(&both.ahead);
            all = Drafts { drafted: all.drafted + drafted, accepted: all.accepted + accepted };
        }
        assert!(ahead.iter().all(|accepted| *accepted > 20), "{family}: {ahead:?}");
        assert!(all.drafted > all.accepted + 20, "{family}: some were wrong: {all:?}");
    }
}

/// Two engines, and a request whose greedy answer goes on for long and is computed ahead for much
/// of it.
fn long() -> (Both, GenerateRequest, Collected) {
    let mut tried = (1..10).flat_map(|model| SHARES.map(|share| (model, share)));
    let found = tried.find_map(|(model, share)| {
        let both = Both::of(&circling(model, share));
        let of = |seed: u64| {
            let request = prompted(1, &repeating(seed, 40), &greedy());
            GenerateRequest { max_tokens: 200, ..request }
        };
        let asked = (1..10).map(of).find_map(|request| {
            let (all, ahead) = both.check(&request);
            (all.tokens.len() == 200 && ahead > 100).then_some((request, all))
        });
        asked.map(|(request, all)| (both, request, all))
    });
    found.expect("one of many answers turns in a circle")
}

#[test]
fn an_answer_ends_where_it_must_within_what_was_computed_ahead() {
    let (both, request, whole) = long();
    let (mut ahead, mut limits) = (0, 0);
    for most in 100..140 {
        let (all, accepted) = both.check(&GenerateRequest { max_tokens: most, ..request.clone() });
        assert_eq!(all.tokens.len(), most as usize);
        assert_eq!(all.finished.map(|end| end.0), Some(FinishReason::Length));
        (ahead, limits) = (ahead + accepted, limits + 1);
    }
    assert!(ahead > 10 * limits, "{ahead}");
    // Texts that end the answer, in its first turn and in later ones.
    let mut stopped = 0;
    for at in (0..40).chain(100..140) {
        let end = (at + 3).min(whole.tokens.len());
        let text: String = whole.tokens[at..end].iter().map(|event| &*event.text).collect();
        if text.is_empty() {
            continue;
        }
        let (all, _) = both.check(&GenerateRequest { stop: vec![text], ..request.clone() });
        stopped += usize::from(all.finished.is_some_and(|end| end.0 == FinishReason::Stop));
    }
    assert!(stopped > 20, "{stopped}");
}

#[test]
fn an_answer_computed_ahead_ends_where_the_context_does() {
    let both = Both::of(&circling(1, 0.05));
    let mut ahead = 0;
    for length in 440..452 {
        let request = prompted(1, &repeating(length, length as usize), &greedy());
        let (all, accepted) = both.check(&GenerateRequest { max_tokens: 1_000, ..request });
        let (reason, usage) = all.finished.expect("finished");
        let whole = u64::from(usage.prompt_tokens + usage.completion_tokens);
        assert!(reason == FinishReason::Stop || whole == u64::from(Writer::CONTEXT));
        ahead += accepted;
    }
    assert!(ahead > 50, "{ahead}");
}

#[test]
fn what_is_computed_ahead_holds_to_a_schema() {
    let both = Both::of(&circling(1, 0.1));
    let item = r#"{"type":"object","properties":{"name":{"enum":["red","green"]},
        "count":{"type":"integer","minimum":0,"maximum":9}},"required":["name","count"],
        "additionalProperties":false}"#;
    let schema = format!(r#"{{"type":"array","minItems":4,"maxItems":6,"items":{item}}}"#);
    let mut ahead = 0;
    for sampling in samplings() {
        let request = GenerateRequest {
            schema: Some(schema.clone()),
            max_tokens: 300,
            ..prompted(1, &tokens(1, 20), &sampling)
        };
        let (all, accepted) = both.check(&request);
        ahead += accepted;
        if all.finished.is_some_and(|end| end.0 == FinishReason::Stop) {
            serde_json::from_str::<Vec<serde_json::Value>>(&all.text()).expect("JSON");
        }
    }
    assert!(ahead > 100, "{ahead}");
}

#[test]
fn what_is_tuned_is_computed_ahead_with_what_is_added() {
    let both = Both::of(&circling(1, 0.05));
    let shape = shape(&both.file);
    for engine in [&both.ahead, &both.plain] {
        engine.tune(version(&shape, 1)).expect("fits");
    }
    let mut ahead = 0;
    for seed in 1..12 {
        let request = prompted(1, &repeating(seed, 70), &greedy());
        let model = digest(1);
        ahead += both.check(&GenerateRequest { model, max_tokens: 150, ..request }).1;
    }
    assert!(ahead > 5, "{ahead}");
}

#[test]
fn an_answer_begun_elsewhere_is_gone_on_with_from_every_token() {
    let (both, request, whole) = long();
    let request = GenerateRequest { max_tokens: 60, ..request };
    for split in (0..60).step_by(7) {
        let emitted =
            Emitted { tokens: whole.ids()[..split].to_vec(), prompt_digest: whole.digest };
        let request = GenerateRequest { emitted: Some(emitted), ..request.clone() };
        let rest = answer(&both.ahead, request);
        assert!(bits(&rest).0 == bits(&whole).0[split..60], "after {split}");
        let usage = rest.finished.expect("finished").1;
        assert_eq!(usage.completion_tokens, 60);
    }
}

/// Waits for requests that are asked while the engine is held up, so that they run together.
fn together(engine: &LocalEngine, requests: &[(&'static str, GenerateRequest)]) -> Vec<Collected> {
    let (gate, held) = gated(engine);
    let all: Vec<_> =
        requests.iter().map(|(tenant, request)| ask(engine, tenant, request.clone())).collect();
    wait_for(engine, |_| engine.shared.worker.len() == all.len());
    drop(gate);
    collect(&held);
    all.iter().map(collect).collect()
}

/// As [`heard`], but for what was there already, which depends on who asked before.
fn said(all: &Collected) -> Heard {
    let (bits, reason, [prompt_tokens, _, completion_tokens]) = heard(all);
    (bits, reason, [prompt_tokens, 0, completion_tokens])
}

/// Few pages, so that answers are paused and computed again with drafts under way, pages are
/// shared, kept and forgotten, and drafts end in the middle of them.
#[test]
fn whoever_is_beside_and_however_little_memory_there_is_every_answer_is_the_plain_one() {
    let file = temporary(&circling(1, 0.05).bytes());
    let memory_budget_bytes = with_pages(9).0.shared.config.memory_budget_bytes;
    let ahead = engine(EngineConfig { memory_budget_bytes, ..ahead() });
    let alone = engine(plain());
    for engine in [&ahead, &alone] {
        engine.add_model(file.path(), "tiny", MODEL).expect("a model");
    }
    let mut dice = Dice::keyed(5, "company");
    let mut id = 1;
    for _ in 0..16 {
        let requests: Vec<_> = (0..1 + dice.below(6))
            .map(|_| {
                id += 1;
                let beginning = repeating(dice.below(3), 100);
                let end = tokens(2_000 + id as u64, dice.below(40) as usize);
                let prompt = [&beginning[..1 + dice.below(99) as usize], &end].concat();
                let sampling = &samplings()[dice.below(4) as usize];
                let max_tokens = 1 + dice.below(200) as u32;
                let request = prompted(id, &prompt, sampling);
                (
                    ["acme", "zeta"][dice.below(2) as usize],
                    GenerateRequest { max_tokens, ..request },
                )
            })
            .collect();
        for ((_, request), all) in requests.iter().zip(together(&ahead, &requests)) {
            let expected = answer(&alone, request.clone());
            assert!(said(&all) == said(&expected), "{request:?}");
        }
    }
    let Drafts { drafted, accepted } = drafts(&ahead);
    assert!(accepted > 100 && drafted > accepted + 30, "{accepted} of {drafted}");
    let pauses = ahead.shared.pauses.load(std::sync::atomic::Ordering::Relaxed);
    assert!(pauses > 0, "memory was never short");
}

#[test]
fn pages_that_end_within_what_was_computed_ahead_are_kept_as_others() {
    let (both, request, whole) = long();
    let Input::Tokens(prompt) = &request.input else { panic!("tokens") };
    let next = [&prompt[..], &whole.ids(), &[1, 2, 3]].concat();
    let request = prompted(2, &next, &greedy());
    let (all, _) = both.check(&request);
    let cached = all.finished.expect("finished").1.cached_tokens;
    assert_eq!(cached, (prompt.len() as u32 + 199) / PAGE_TOKENS * PAGE_TOKENS);
}

/// Draws come as they always came: a caller who leaves frees the work within a step.
#[test]
fn who_leaves_in_the_midst_of_a_draft_leaves_nothing_behind() {
    struct Short(u32);
    impl EventSink for Short {
        fn send(&mut self, event: Answer) -> bool {
            !matches!(event, Answer::Token(TokenEvent { index, .. }) if index >= self.0)
        }
    }
    let (both, request, _) = long();
    for most in 100..120 {
        let sink = Box::new(Short(most));
        both.ahead.submit("acme", request.clone(), sink).expect("a place");
        wait_for(&both.ahead, |status| {
            status.models[0].running + status.models[0].queued == 0 && !status.computing
        });
    }
    both.check(&request);
}
