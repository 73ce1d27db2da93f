use selvedge_base::Dice;
use selvedge_contract::schedule::{PAGE_TOKENS, pages_for};

use super::*;

/// An answer to the last bit: its tokens with their texts and log probabilities.
pub(super) type Bits = (Vec<(u32, String, u32, Vec<u32>)>, String);

pub(super) fn bits(all: &Collected) -> Bits {
    let token = |event: &selvedge_contract::TokenEvent| {
        let scored = event.logprob.as_ref().expect("asked for");
        let top = scored.top.iter().map(|(_, logprob)| logprob.to_bits()).collect();
        (event.token, event.text.clone(), scored.logprob.to_bits(), top)
    };
    assert!(all.failed.is_none(), "{:?}", all.failed);
    (all.tokens.iter().map(token).collect(), all.tail.clone())
}

pub(super) fn cached(all: &Collected) -> u32 {
    all.finished.as_ref().expect("finished").1.cached_tokens
}

pub(super) fn ask(
    engine: &LocalEngine,
    tenant: &str,
    request: GenerateRequest,
) -> mpsc::Receiver<Answer> {
    let (sender, receiver) = mpsc::channel();
    engine.submit(tenant, request, Box::new(Outlet(sender))).expect("submitted");
    receiver
}

pub(super) fn told(engine: &LocalEngine, tenant: &str, request: GenerateRequest) -> Collected {
    collect(&ask(engine, tenant, request))
}

/// Always the likeliest token, or a draw with penalties.
fn samplings() -> [Sampling; 2] {
    let penalties = Sampling { presence_penalty: 0.3, frequency_penalty: 0.2, ..greedy() };
    [greedy(), Sampling { temperature: 1.2, top_p: 0.9, seed: 5, ..penalties }]
}

pub(super) fn prompted(id: u128, tokens: &[u32], sampling: &Sampling) -> GenerateRequest {
    let input = Input::Tokens(tokens.to_vec());
    let logprobs = Some(LogProbs { top: 5 });
    GenerateRequest { sampling: sampling.clone(), logprobs, ..request(id, MODEL, input) }
}

/// Tokens of text that follow from a number.
pub(super) fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let mut dice = Dice::keyed(seed, "prompt");
    (0..count).map(|_| (dice.unit_f32() * 250.0) as u32).collect()
}

/// An engine with memory for so many pages beside the tiny model's weights.
pub(super) fn with_pages(pages: u64) -> (LocalEngine, Temporary) {
    let (engine, file) = with_tiny(config());
    wait_for(&engine, |status| status.models[0].state == ModelState::Ready);
    let weights = config().memory_budget_bytes - engine.shared.free_bytes();
    drop((engine, file));
    // Two layers, two key heads, keys and values of sixteen dimensions in two bytes each.
    let page = u64::from(PAGE_TOKENS) * 2 * 2 * 2 * 16 * 2;
    let memory_budget_bytes = weights + pages * page;
    let (engine, file) = with_tiny(EngineConfig { memory_budget_bytes, ..config() });
    wait_for(&engine, |status| status.models[0].state == ModelState::Ready);
    (engine, file)
}

/// Holds the stepping thread up until the gate is dropped.
pub(super) fn gated(engine: &LocalEngine) -> (mpsc::Sender<()>, mpsc::Receiver<Answer>) {
    let request = prompted(999, &[1, 2, 3], &greedy());
    recovery::hold(engine, GenerateRequest { max_tokens: 2, ..request })
}

#[test]
fn an_answer_behind_kept_pages_is_the_cold_one_to_the_last_bit() {
    for family in ["llama", "qwen2", "qwen3", "gemma3"] {
        let mut writer = Writer::tiny(1);
        match family {
            "qwen2" => writer.become_qwen2(1),
            "qwen3" => writer.become_qwen3(1),
            "gemma3" => writer.become_gemma3(1),
            _ => {}
        }
        let file = temporary(&writer.bytes());
        let warm = engine(config());
        warm.add_model(file.path(), "tiny", MODEL).expect("a model");
        let whole = tokens(1, 300);
        told(&warm, "acme", prompted(1, &whole, &greedy()));
        for (length, sampling) in [64, 65, 79, 128, 129, 200, 300]
            .into_iter()
            .flat_map(|length| samplings().map(|sampling| (length, sampling)))
        {
            let cold = engine(config());
            cold.add_model(file.path(), "tiny", MODEL).expect("a model");
            // The same beginning and the same to its end; another end.
            for (same, other) in [(length, 0), (length, 33)] {
                let prompt = [&whole[..same], &tokens(2, other)].concat();
                let expected =
                    told(&cold, &format!("{same}+{other}"), prompted(1, &prompt, &sampling));
                assert_eq!(cached(&expected), 0);
                let again = told(&warm, "acme", prompted(1, &prompt, &sampling));
                assert!(bits(&expected) == bits(&again), "{family}, {length} + {other}");
                let most = (prompt.len() as u32 - 1) / PAGE_TOKENS * PAGE_TOKENS;
                let least = (same.min(prompt.len() - 1) as u32) / PAGE_TOKENS * PAGE_TOKENS;
                assert!((least..=most).contains(&cached(&again)), "{}", cached(&again));
            }
        }
    }
}

#[test]
fn the_next_turn_of_a_conversation_goes_on_behind_the_last_answer() {
    let (engine, _file) = with_tiny(config());
    for sampling in samplings() {
        let mut prompt = tokens(3, 50);
        let mut known = 0;
        for turn in 0..6 {
            let cold =
                told(&engine, &format!("{turn} {sampling:?}"), prompted(1, &prompt, &sampling));
            let warm = told(&engine, "acme", prompted(1, &prompt, &sampling));
            assert!(bits(&cold) == bits(&warm), "turn {turn}");
            assert!(cached(&warm) >= known, "turn {turn}: {} of {known}", cached(&warm));
            assert_eq!(cached(&cold), 0);
            prompt.extend(warm.ids());
            // The last token that was drawn was not computed.
            known = (prompt.len() as u32 - 1) / PAGE_TOKENS * PAGE_TOKENS;
            prompt.extend(tokens(turn, 25));
        }
        assert!(known >= 128, "the conversation is long enough to tell");
    }
}

#[test]
fn tenants_do_not_learn_from_each_other() {
    let (engine, _file) = with_tiny(config());
    let prompt = tokens(4, 200);
    let first = told(&engine, "acme", prompted(1, &prompt, &greedy()));
    let other = told(&engine, "zeta", prompted(1, &prompt, &greedy()));
    let again = told(&engine, "acme", prompted(1, &prompt, &greedy()));
    assert_eq!([&first, &other, &again].map(cached), [0, 0, 192]);
    assert!(bits(&first) == bits(&other) && bits(&first) == bits(&again));
}

#[test]
fn equal_prompts_at_once_are_computed_once() {
    let (engine, _file) = with_tiny(config());
    let prompt = tokens(5, 200);
    for sampling in samplings() {
        let tenant = format!("{sampling:?}");
        let cold = told(&engine, &format!("cold {tenant}"), prompted(1, &prompt, &sampling));
        let (gate, held) = gated(&engine);
        let all: Vec<_> =
            (2..8).map(|id| ask(&engine, &tenant, prompted(id, &prompt, &sampling))).collect();
        wait_for(&engine, |_| engine.shared.worker.len() == 6);
        drop(gate);
        let all: Vec<_> = all.iter().map(collect).collect();
        collect(&held);
        assert!(all.iter().all(|warm| bits(warm) == bits(&cold)));
        let mut cached: Vec<_> = all.iter().map(cached).collect();
        cached.sort_unstable();
        assert_eq!(cached, [0, 192, 192, 192, 192, 192]);
    }
}

#[test]
fn what_had_to_give_way_is_computed_again_the_same() {
    let (engine, _file) = with_pages(8);
    let prompt = tokens(6, 200);
    let cold = told(&engine, "acme", prompted(1, &prompt, &greedy()));
    assert_eq!(cached(&told(&engine, "acme", prompted(1, &prompt, &greedy()))), 192);
    for other in 0..3 {
        told(&engine, "acme", prompted(2, &tokens(70 + other, 300), &greedy()));
    }
    let again = told(&engine, "acme", prompted(1, &prompt, &greedy()));
    assert_eq!(cached(&again), 0, "eight pages are not enough for all");
    assert!(bits(&cold) == bits(&again));
}

#[test]
fn a_pause_changes_no_bit() {
    let (engine, _file) = with_pages(12);
    // Greedy answers that go on and on.
    let long = |seed: u64| {
        let request = prompted(seed.into(), &tokens(seed, 70), &greedy());
        GenerateRequest { max_tokens: 250, ..request }
    };
    let colds: Vec<_> = (100..140)
        .map(|seed| (seed, told(&engine, &format!("cold {seed}"), long(seed))))
        .filter(|(_, cold)| cold.tokens.len() == 250)
        .take(5)
        .collect();
    assert!(pages_for(320) * colds.len() as u64 > 12, "{} long answers", colds.len());
    let (gate, held) = gated(&engine);
    let all: Vec<_> = colds.iter().map(|(seed, _)| ask(&engine, "acme", long(*seed))).collect();
    wait_for(&engine, |_| engine.shared.worker.len() == colds.len());
    drop(gate);
    collect(&held);
    for ((seed, cold), warm) in colds.iter().zip(&all) {
        let warm = collect(warm);
        assert!(bits(cold) == bits(&warm), "{seed}");
        assert_eq!(cached(&warm), 0, "what it had computed itself was not reused");
    }
}

#[test]
fn an_answer_begun_elsewhere_goes_on_behind_kept_pages() {
    let (engine, _file) = with_tiny(config());
    let prompt = tokens(8, 120);
    let [_, sampling] = samplings();
    let whole = told(&engine, "acme", prompted(1, &prompt, &sampling));
    assert!(whole.tokens.len() > 12, "{}", whole.tokens.len());
    for split in 0..whole.tokens.len() {
        let emitted =
            Emitted { tokens: whole.ids()[..split].to_vec(), prompt_digest: whole.digest };
        let request = GenerateRequest { emitted: Some(emitted), ..prompted(2, &prompt, &sampling) };
        let rest = told(&engine, "acme", request);
        assert!(bits(&rest).0 == bits(&whole).0[split..], "after {split}");
        assert!([64, 120].contains(&cached(&rest)), "not more than the prompt's own tokens");
    }
}

#[test]
fn pages_do_not_outlive_their_model() {
    let (engine, file) = with_tiny(config());
    let prompt = tokens(9, 200);
    told(&engine, "acme", prompted(1, &prompt, &greedy()));
    assert!(engine.remove_model("tiny"));
    let other = temporary(&Writer::tiny(2).bytes());
    // Another model under the same digest would be a lie; its answers show what was kept.
    wait_for(&engine, |_| engine.shared.worker.len() == 0);
    engine.add_model(other.path(), "tiny", MODEL).expect("a model");
    let again = told(&engine, "acme", prompted(1, &prompt, &greedy()));
    assert_eq!(cached(&again), 0);
    drop(file);
}

#[test]
fn whatever_is_asked_together_and_kept_and_forgotten_every_answer_is_the_cold_one() {
    let ((engine, _file), (cold, _other)) = (with_pages(14), with_tiny(config()));
    let mut dice = Dice::keyed(11, "traffic");
    let mut below = |most: usize| (dice.unit_f32() * most as f32) as usize;
    let (mut id, mut reused, mut missed) = (1, 0, 0);
    for _ in 0..25 {
        let (gate, held) = gated(&engine);
        let burst: Vec<_> = (0..1 + below(8))
            .map(|_| {
                id += 1;
                // One of a few beginnings, and an end of one's own.
                let beginning = tokens(20 + below(4) as u64, 300);
                let end = tokens(1_000 + id as u64, below(60));
                let prompt = [&beginning[..1 + below(299)], &end].concat();
                let request = prompted(id, &prompt, &samplings()[below(2)]);
                let request = GenerateRequest { max_tokens: 1 + below(60) as u32, ..request };
                let tenant = ["acme", "zeta"][below(2)];
                (request.clone(), ask(&engine, tenant, request))
            })
            .collect();
        wait_for(&engine, |_| engine.shared.worker.len() == burst.len());
        drop(gate);
        collect(&held);
        for (request, answers) in burst {
            let expected = told(&cold, &format!("{}", request.id), request.clone());
            let warm = collect(&answers);
            assert!(bits(&warm) == bits(&expected), "{request:?}");
            reused += usize::from(cached(&warm) > 0);
            missed += usize::from(cached(&warm) == 0);
        }
    }
    assert!(reused > 20 && missed > 20, "{reused} reused, {missed} not");
}
