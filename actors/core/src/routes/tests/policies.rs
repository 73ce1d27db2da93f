//! Each policy and each filter, one story each.

use selvedge_base::{Blame, Code, Micros, Retry};

use super::*;
use crate::catalogue::{Capability, Counts};

const FOUR: &str = "[[route.target]]\nmesh = \"small\"\n\
                    [[route.target]]\nprovider = \"openai\"\nmodel = \"gpt-5-mini\"\n\
                    [[route.target]]\nprovider = \"claude\"\nmodel = \"claude-haiku-4-5\"\n\
                    [[route.target]]\nprovider = \"groq\"\nmodel = \"llama-3.1-8b-instant\"\n";

fn four(policy: &str) -> Routes {
    routes(&format!("[[route]]\nname = \"r\"\npolicy = {policy}\n{FOUR}")).unwrap()
}

fn decide(routes: &Routes, request: &Request, facts: &Facts) -> Decision {
    routes.decide(request, facts, NOW).unwrap()
}

#[test]
fn fixed_tries_one_and_fallback_all() {
    let fixed = decide(&four("\"fixed\""), &request("r"), &facts());
    assert_eq!(tried(&fixed), ["small"]);
    assert_eq!(fixed.verdicts[1].standing, Standing::Unused);
    let all = decide(&four("\"fallback\""), &request("r"), &facts());
    let order = ["small", "gpt-5-mini", "claude-haiku-4-5", "llama-3.1-8b-instant"];
    assert_eq!(tried(&all), order);
    assert_eq!(all.verdicts[2].standing, Standing::Next(3));
}

#[test]
fn cheapest_goes_by_the_catalogue_and_puts_the_unknown_last() {
    let text = format!(
        "[[route]]\nname = \"r\"\npolicy = \"cheapest\"\n\
         [[route.target]]\nprovider = \"lab\"\nmodel = \"house\"\n{FOUR}"
    );
    let routes = routes(&text).unwrap();
    let decision = decide(&routes, &request("r"), &facts());
    // For 100 tokens read and 200 written: 0, 5 + 16, 25 + 400, 100 + 1000 micro-dollars.
    let order = ["small", "llama-3.1-8b-instant", "gpt-5-mini", "claude-haiku-4-5", "house"];
    assert_eq!(tried(&decision), order);
    assert_eq!(decision.verdicts[2].score, Some(Score::Cost(425)));
    assert_eq!(decision.verdicts[0].score, Some(Score::CostUnknown));

    let budgeted = Request { money: Some(Money { left_permille: 1_000 }), ..request("r") };
    let decision = decide(&routes, &budgeted, &facts());
    assert_eq!(tried(&decision), order[..4]);
    assert_eq!(
        because(&decision, "house"),
        ["its price is not known, so no budget of money can pay for it"]
    );
}

#[test]
fn fastest_goes_by_measured_time_and_finds_out_what_it_does_not_know() {
    let routes = four("\"fastest\"");
    let mut facts = facts();
    let speed = |first, each| Measured {
        latency: Some(Latency {
            first_token: Micros::millis(first),
            per_token: Micros::millis(each),
        }),
        ..Measured::default()
    };
    facts.mesh.get_mut("small").unwrap().measured = speed(50, 40);
    let models = BTreeMap::from([("gpt-5-mini".to_owned(), speed(900, 8))]);
    let openai = ProviderFacts { models, ..ProviderFacts::default() };
    facts.providers.insert("openai".to_owned(), openai);

    let order = ["gpt-5-mini", "small", "claude-haiku-4-5", "llama-3.1-8b-instant"];
    assert_eq!(tried(&decide(&routes, &request("r"), &facts)), order);
    let mut short = request("r");
    short.needs.output_tokens = Some(10);
    assert_eq!(tried(&decide(&routes, &short, &facts))[0], "small", "450 against 980 ms");
    let curious = Request { seed: 32, ..request("r") };
    let decision = decide(&routes, &curious, &facts);
    assert_eq!(tried(&decision)[0], "claude-haiku-4-5");
    assert_eq!(decision.verdicts[2].score, Some(Score::Explored));
}

#[test]
fn least_loaded_counts_in_proportion_to_weights() {
    let routes = routes(
        "[[route]]\nname = \"r\"\npolicy = \"least-loaded\"\n\
         [[route.target]]\nmesh = \"small\"\n[[route.target]]\nmesh = \"large\"\nweight = 4\n",
    )
    .unwrap();
    let mut facts = facts();
    facts.mesh.get_mut("small").unwrap().measured.in_flight = 2;
    facts.mesh.get_mut("large").unwrap().measured.in_flight = 10;
    assert_eq!(tried(&decide(&routes, &request("r"), &facts)), ["large", "small"]);
    facts.mesh.get_mut("large").unwrap().measured.in_flight = 12;
    assert_eq!(tried(&decide(&routes, &request("r"), &facts)), ["small", "large"]);
}

#[test]
fn a_share_is_sticky_and_its_callers_come_back() {
    let text = "[[route]]\nname = \"r\"\npolicy = { weighted = { by = \"user\" } }\n\
                [[route.target]]\nmesh = \"small\"\nweight = 90\n\
                [[route.target]]\nprovider = \"openai\"\nmodel = \"gpt-5-mini\"\nweight = 10\n";
    let routes = routes(text).unwrap();
    let broken = ProviderFacts { broken_until: Some(Mono(u64::MAX)), ..ProviderFacts::default() };
    let mut without = facts();
    without.providers.insert("openai".to_owned(), broken);
    let mut on_b = 0;
    for user in 0..1_000u64 {
        let request = Request { user: Some(format!("user-{user}")), seed: user, ..request("r") };
        let decision = decide(&routes, &request, &facts());
        let later = decide(&routes, &Request { seed: user + 7_777, ..request.clone() }, &facts());
        assert_eq!(decision.order, later.order, "whatever the seed");
        let chosen = decision.chosen().unwrap();
        on_b += chosen;
        let meanwhile = decide(&routes, &request, &without);
        assert_eq!(meanwhile.chosen(), Some(0), "either at home or moved");
        assert_eq!(decide(&routes, &request, &facts()).chosen(), Some(chosen), "and back");
    }
    assert!((70..=130).contains(&on_b), "{on_b} of 1000 at a weight of 10 in 100");
    let nobody = decide(&routes, &request("r"), &facts());
    assert!(matches!(nobody.verdicts[0].score, Some(Score::Share { by: StickyBy::Request, .. })));
}

#[test]
fn small_first_starts_where_the_request_looks_to_belong() {
    let text = "[[route]]\nname = \"r\"\npolicy = { small-first = { min_confidence = -800 } }\n\
                [[route.target]]\nmesh = \"small\"\nup_to = 20\n\
                [[route.target]]\nmesh = \"large\"\nup_to = 50\n\
                [[route.target]]\nprovider = \"openai\"\nmodel = \"gpt-5\"\n";
    let routes = routes(text).unwrap();
    assert!(routes.asks_complexity("r") && !four("\"fixed\"").asks_complexity("r"));
    let simple = decide(&routes, &request("r"), &facts());
    assert_eq!(tried(&simple), ["small", "large", "gpt-5"]);
    assert_eq!(simple.larger_than(0), Some(1));
    assert_eq!(simple.larger_than(2), None);

    let mut coding = request("r");
    coding.signals.turns = 4;
    coding.signals.read("```rust\nfn main() {\n    work();\n}\n```\nWhy does this -> that?");
    let decision = decide(&routes, &coding, &facts());
    assert_eq!(tried(&decision), ["large", "gpt-5", "small"]);
    assert_eq!(decision.complexity.unwrap().to_string(), "26 of 100: turns 6, code 20");
    assert_eq!(decision.verdicts[0].score, Some(Score::Size { level: 1, wanted: 2 }));
    assert_eq!(decision.larger_than(1), Some(2), "the small one is a last resort, no step up");
}

#[test]
fn an_unsure_answer_is_asked_for_again_and_the_saving_is_told() {
    let mut sure = Confidence::default();
    let mut unsure = Confidence::default();
    for _ in 0..10 {
        sure.add(-100_000);
        unsure.add(-800_100);
    }
    assert_eq!(sure.judge(-800), Judgement::Keep { mean_millinats: Some(-100) });
    assert_eq!(unsure.judge(-800), Judgement::Escalate { mean_millinats: -801 });
    assert!(unsure.judge(-800).escalates());
    assert_eq!(Confidence::default().judge(-800), Judgement::Empty);
    let yes = Confidence { sum_micronats: -9_000_000, tokens: 2 };
    assert_eq!(yes.judge(-800), Judgement::Keep { mean_millinats: None });

    let catalogue = Catalogue::built_in().unwrap();
    let gpt5 = catalogue.find(ProviderKind::OpenAi, "gpt-5").unwrap().model();
    let answer = Counts { prompt: 1_000, completion: 500, ..Counts::default() };
    let saving = Saving::of(0, &gpt5.price, &answer).unwrap();
    assert_eq!(saving.to_string(), "saved 6250 micro-dollars (0 instead of 6250)");
    let worse = Saving::of(7_000, &gpt5.price, &answer).unwrap();
    assert_eq!(worse.to_string(), "cost 750 micro-dollars more (7000 instead of 6250)");
    assert!(Saving::of(0, &crate::catalogue::Price::Unknown, &answer).is_err());
}

#[test]
fn data_stays_within_its_boundary() {
    let text = "[[route]]\nname = \"r\"\npolicy = \"fallback\"\n\
                [[route.target]]\nmesh = \"small\"\n[[route.target]]\nmesh = \"large\"\n\
                [[route.target]]\nprovider = \"gemini\"\nmodel = \"gemini-2.5-flash\"\n\
                [[route.target]]\nprovider = \"openai\"\nmodel = \"gpt-5\"\n\
                [[route.target]]\nprovider = \"groq\"\nmodel = \"llama-3.1-8b-instant\"\n\
                region = \"eu\"\n";
    let routes = routes(text).unwrap();
    let within = |boundary| {
        let decision = decide(&routes, &Request { boundary, ..request("r") }, &facts());
        tried(&decision).iter().map(|model| (*model).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(within(Boundary::Node), ["small"]);
    assert_eq!(within(Boundary::Site), ["small"]);
    assert_eq!(within(Boundary::Mesh), ["small", "large"]);
    let eu = Boundary::Regions(["eu".to_owned()].into());
    assert_eq!(within(eu), ["small", "large", "gemini-2.5-flash", "llama-3.1-8b-instant"]);
    assert_eq!(within(Boundary::Anywhere).len(), 5);
    let moon = Boundary::Regions(["moon".to_owned()].into());
    let decision = decide(&routes, &Request { boundary: moon, ..request("r") }, &facts());
    let said = because(&decision, "gpt-5");
    assert!(said[0].ends_with("in none that is configured"), "{said:?}");
}

#[test]
fn what_a_target_lacks_excludes_it_with_every_reason() {
    let mut request = request("r");
    request.needs.can = [Capability::Tools].into();
    request.needs.input = [Modality::Image].into();
    request.needs.prompt_tokens = 5_000;
    let decision = decide(&four("\"fallback\""), &request, &facts());
    assert_eq!(tried(&decision), ["gpt-5-mini", "claude-haiku-4-5"]);
    assert_eq!(
        because(&decision, "small"),
        [
            "it lacks context of 5200 tokens (it has 4096)",
            "it lacks images as input",
            "it lacks tools"
        ]
    );
}

#[test]
fn a_route_may_ask_for_more_than_the_request_and_keep_targets_apart() {
    let text = "[[route]]\nname = \"r\"\npolicy = \"fallback\"\nneeds = [\"json-schema\"]\n\
                min_context = 200_000\n\
                [[route.target]]\nmesh = \"small\"\n\
                [[route.target]]\nprovider = \"openai\"\nmodel = \"gpt-5\"\n\
                only_input = [\"image\"]\n\
                [[route.target]]\nprovider = \"openai\"\nmodel = \"gpt-5-mini\"\n";
    let routes = routes(text).unwrap();
    let decision = decide(&routes, &request("r"), &facts());
    assert_eq!(tried(&decision), ["gpt-5-mini"]);
    assert_eq!(
        because(&decision, "small"),
        [
            "the route asks for JSON schemas, which it lacks",
            "the route asks for a context of 200000 tokens (it has 4096)"
        ]
    );
    assert_eq!(because(&decision, "gpt-5"), ["it is kept for requests with images"]);
    let mut seeing = request("r");
    seeing.needs.input = [Modality::Image].into();
    assert_eq!(tried(&decide(&routes, &seeing, &facts())), ["gpt-5", "gpt-5-mini"]);
}

#[test]
fn money_is_kept_for_other_things_but_the_mesh_goes_on() {
    let text =
        format!("[[route]]\nname = \"r\"\npolicy = \"fallback\"\nkeep_budget_percent = 20\n{FOUR}");
    let routes = routes(&text).unwrap();
    let left = |left_permille| Request { money: Some(Money { left_permille }), ..request("r") };
    assert_eq!(tried(&decide(&routes, &left(200), &facts())).len(), 4);
    let decision = decide(&routes, &left(199), &facts());
    assert_eq!(tried(&decision), ["small"]);
    assert_eq!(
        because(&decision, "gpt-5-mini"),
        ["199 per mille of the budget is left, and the route keeps 200 for other things"]
    );
}

#[test]
fn what_rests_is_passed_over_until_its_time() {
    let routes = four("\"fallback\"");
    let mut facts = facts();
    let later = |ms| Some(NOW.plus(Micros::millis(ms)));
    let openai = ProviderFacts { broken_until: later(500), ..ProviderFacts::default() };
    let claude = ProviderFacts { keys_empty_until: later(300), ..ProviderFacts::default() };
    let rests = Measured { broken_until: later(900), ..Measured::default() };
    let groq = ProviderFacts {
        models: BTreeMap::from([("llama-3.1-8b-instant".to_owned(), rests)]),
        ..ProviderFacts::default()
    };
    facts.providers = BTreeMap::from([
        ("openai".to_owned(), openai),
        ("claude".to_owned(), claude),
        ("groq".to_owned(), groq),
    ]);
    facts.mesh.clear();
    let decision = decide(&routes, &request("r"), &facts);
    assert_eq!(decision.chosen(), None);
    assert_eq!(because(&decision, "small"), ["no node that can be relied on has this model"]);
    assert_eq!(
        because(&decision, "claude-haiku-4-5"),
        ["none of its keys may be used for another 300 ms"]
    );
    let refusal = decision.refusal(NOW).unwrap();
    assert_eq!(refusal.retry, Retry::After(Micros::millis(300)), "the first to be back");
    assert_eq!((refusal.blame, refusal.code), (Blame::Provider, Code::ModelUnavailable));
    let soon = NOW.plus(Micros::millis(500));
    let decision = routes.decide(&request("r"), &facts, soon).unwrap();
    assert_eq!(tried(&decision), ["gpt-5-mini", "claude-haiku-4-5"]);
    assert_eq!(decision.refusal(soon), None);
}

#[test]
fn a_refusal_names_what_is_easiest_to_change() {
    let routes = four("\"fallback\"");
    let refuse = |request: &Request, facts: &Facts| {
        let refusal = decide(&routes, request, facts).refusal(NOW).unwrap();
        (refusal.code, refusal.message)
    };
    let mut nowhere = facts();
    nowhere.mesh.clear();
    let inside = Request { boundary: Boundary::Mesh, ..request("r") };
    assert_eq!(refuse(&inside, &nowhere).0, Code::ModelUnavailable, "it may come back");
    let mut long = request("r");
    long.needs.prompt_tokens = 3_000_000;
    assert_eq!(refuse(&long, &facts()).0, Code::ContextLengthExceeded);
    let mut spoken = request("r");
    spoken.needs.output = [Modality::Audio].into();
    let (code, message) = refuse(&spoken, &facts());
    assert_eq!(code, Code::Unsupported);
    assert_eq!(
        message,
        "no target of route 'r' can answer this request for 'r': it lacks audio as output"
    );
}

#[test]
fn no_more_are_tried_than_a_request_has_attempts() {
    let mut text = "[[route]]\nname = \"r\"\npolicy = \"fallback\"\n".to_owned();
    for at in 0..9 {
        text.push_str(&format!("[[route.target]]\nprovider = \"lab\"\nmodel = \"m{at}\"\n"));
    }
    let decision = decide(&routes(&text).unwrap(), &request("r"), &facts());
    assert_eq!(decision.order.len(), MAX_TRIED);
    assert_eq!(MAX_TRIED as u32, crate::flow::MAX_ATTEMPTS);
    assert_eq!(decision.verdicts[8].standing, Standing::Unused);
}

#[test]
fn a_decision_reads_like_prose() {
    let routes = routes(
        "[aliases]\n\"gpt-4\" = \"chat\"\n\
         [[route]]\nname = \"chat\"\npolicy = \"cheapest\"\n\
         [[route.target]]\nmesh = \"small\"\n\
         [[route.target]]\nprovider = \"lab\"\nmodel = \"house\"\n\
         [[route.target]]\nprovider = \"azure-eu\"\nmodel = \"ours\"\nknown_as = \"gpt-4o\"\n",
    )
    .unwrap();
    let mut request = request("gpt-4");
    request.needs.prompt_tokens = 5_000;
    let decision = decide(&routes, &request, &facts());
    let explanation = decision.explain();
    assert_eq!(
        explanation.to_string(),
        "'gpt-4' goes by route 'chat', cheapest: by the price of a usual answer\n  \
         mesh small: excluded; it lacks context of 5200 tokens (it has 4096)\n  \
         lab house: next (2); price not known; the catalogue does not know it: what it can do is \
         not checked\n  \
         azure-eu ours: chosen; 14500 micro-dollars for a usual answer; taken for 'gpt-4o' of the \
         catalogue; price as of 2026-07-02\n"
    );
}
