//! What holds for every request, every snapshot and every order of arrival.

use proptest::prelude::*;
use selvedge_base::Micros;

use super::*;

const POLICIES: &[&str] = &[
    "\"fixed\"",
    "\"fallback\"",
    "{ weighted = { by = \"user\" } }",
    "{ weighted = { by = \"request\" } }",
    "\"cheapest\"",
    "\"fastest\"",
    "\"least-loaded\"",
];

fn book(policy: &str, weights: &[u32]) -> Option<Routes> {
    let weighs = policy.contains("weighted");
    let mut text = format!("[[route]]\nname = \"r\"\npolicy = {policy}\n");
    let targets = [
        "mesh = \"small\"",
        "mesh = \"large\"",
        "provider = \"openai\"\nmodel = \"gpt-5-mini\"",
        "provider = \"gemini\"\nmodel = \"gemini-2.5-flash\"",
        "provider = \"lab\"\nmodel = \"house\"",
    ];
    for (target, weight) in targets.iter().zip(weights) {
        text.push_str(&format!("[[route.target]]\n{target}\n"));
        if weighs {
            text.push_str(&format!("weight = {weight}\n"));
        }
    }
    routes(&text).ok()
}

fn boundary() -> impl Strategy<Value = Boundary> {
    prop_oneof![
        Just(Boundary::Node),
        Just(Boundary::Site),
        Just(Boundary::Mesh),
        Just(Boundary::Regions(["eu".to_owned()].into())),
        Just(Boundary::Anywhere),
    ]
}

fn some_facts() -> impl Strategy<Value = Facts> {
    let until = || proptest::option::of(0u64..2_000_000_000);
    let fast = || proptest::option::of((0u64..5_000_000, 0u64..200_000));
    ((until(), until(), until()), (fast(), fast()), 0u32..50, any::<(bool, bool)>()).prop_map(
        |((broken, keys, model), (near, far), in_flight, (small, large))| {
            let latency = |fast: Option<(u64, u64)>| {
                fast.map(|(first, each)| Latency {
                    first_token: Micros(first),
                    per_token: Micros(each),
                })
            };
            let mut facts = facts();
            if !small {
                facts.mesh.remove("small");
            }
            if !large {
                facts.mesh.remove("large");
            }
            for held in facts.mesh.values_mut() {
                held.measured.latency = latency(near);
                held.measured.in_flight = in_flight;
            }
            let measured = Measured {
                broken_until: model.map(Mono),
                latency: latency(far),
                in_flight: in_flight / 2,
            };
            let openai = ProviderFacts {
                broken_until: broken.map(Mono),
                keys_empty_until: keys.map(Mono),
                models: BTreeMap::from([("gpt-5-mini".to_owned(), measured)]),
            };
            facts.providers.insert("openai".to_owned(), openai);
            facts
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_decision_is_complete_bounded_and_the_same_again(
        policy in 0..POLICIES.len(),
        weights in proptest::collection::vec(0u32..100, 5),
        boundary in boundary(),
        facts in some_facts(),
        prompt in 1u32..40_000,
        seed in any::<u64>(),
        user in proptest::option::of("[a-z]{1,6}"),
        money in proptest::option::of(0u16..=1_000),
    ) {
        let Some(routes) = book(POLICIES[policy], &weights) else { return Ok(()) };
        let mut request = Request { boundary, seed, user, ..request("r") };
        request.money = money.map(|left_permille| Money { left_permille });
        request.needs.prompt_tokens = prompt;
        let decision = routes.decide(&request, &facts, NOW).unwrap();
        prop_assert_eq!(&decision, &routes.decide(&request, &facts, NOW).unwrap());
        prop_assert_eq!(decision.verdicts.len(), decision.route.targets.len());
        prop_assert!(decision.order.len() <= MAX_TRIED);

        for (number, verdict) in decision.verdicts.iter().enumerate() {
            let at = decision.order.iter().position(|tried| *tried == number);
            let expected = match &verdict.standing {
                Standing::Chosen => Some(0),
                Standing::Next(place) => Some(place - 1),
                Standing::Unused | Standing::Excluded(_) => None,
            };
            prop_assert_eq!(at, expected, "the verdict says where it stands");
            if let Standing::Excluded(reasons) = &verdict.standing {
                prop_assert!(!reasons.is_empty());
            } else {
                prop_assert!(verdict.score.is_some());
            }
            if at.is_some() {
                let place = &decision.route.targets[number];
                prop_assert!(may_go(place, &verdict.model, &request.boundary, &facts));
                if let (Some(money), Place::Provider { .. }) = (request.money, &place.place) {
                    prop_assert!(verdict.model != "house", "{money:?} pays for no unknown price");
                }
            }
        }
        prop_assert_eq!(decision.refusal(NOW).is_some(), decision.order.is_empty());
        let explained = decision.explain();
        prop_assert_eq!(explained.targets.len(), decision.verdicts.len());
        let excluded = |target: &&ExplainedTarget| target.verdict == "excluded";
        prop_assert!(explained.targets.iter().filter(excluded).all(|t| !t.because.is_empty()));
    }

    #[test]
    fn a_share_that_goes_out_moves_its_own_callers_only(
        weights in proptest::collection::vec(1u32..100, 5),
        user in "[a-z]{1,8}",
    ) {
        let routes = book(POLICIES[2], &weights).unwrap();
        let request = Request { user: Some(user), ..request("r") };
        let with = routes.decide(&request, &facts(), NOW).unwrap();
        let mut facts = facts();
        let until = Some(Mono(u64::MAX));
        let broken = ProviderFacts { broken_until: until, ..ProviderFacts::default() };
        facts.providers.insert("openai".to_owned(), broken);
        let without = routes.decide(&request, &facts, NOW).unwrap();
        let stayed: Vec<usize> = with.order.iter().copied().filter(|number| *number != 2).collect();
        prop_assert_eq!(without.order, stayed);
    }

    #[test]
    fn averages_stay_between_what_was_measured_and_reach_what_stays(
        values in proptest::collection::vec(0u64..10_000_000, 1..40),
    ) {
        let mut latency = Latency { first_token: Micros(values[0]), per_token: Micros(values[0]) };
        for value in &values {
            latency.observe(Micros(*value), Micros(*value));
        }
        let (least, most) = (values.iter().min().unwrap(), values.iter().max().unwrap());
        prop_assert!((*least..=*most).contains(&latency.first_token.0));
        prop_assert_eq!(latency.first_token, latency.per_token);
        for _ in 0..200 {
            latency.observe(Micros(500), Micros(500));
        }
        prop_assert_eq!(latency.first_token, Micros(500));
    }

    #[test]
    fn more_of_any_signal_never_looks_simpler(
        prompt_tokens in any::<u32>(),
        turns in any::<u32>(),
        code_marks in any::<u32>(),
        maths_marks in any::<u32>(),
        tools in any::<u32>(),
        asked_output in any::<u32>(),
        more in 0u32..1_000,
    ) {
        let less = Signals {
            prompt_tokens, turns, code_marks, maths_marks, tools, asked_output, schema: false,
        };
        let harder = Signals {
            prompt_tokens: prompt_tokens.saturating_add(more),
            turns: turns.saturating_add(more),
            code_marks: code_marks.saturating_add(more),
            maths_marks: maths_marks.saturating_add(more),
            tools: tools.saturating_add(more),
            asked_output: asked_output.saturating_add(more),
            schema: true,
        };
        prop_assert!(less.complexity().score() <= harder.complexity().score());
        prop_assert!(harder.complexity().score() <= 100);
    }

    #[test]
    fn signals_are_read_from_any_text(text in ".{0,200}") {
        let mut signals = Signals::default();
        signals.read(&text);
        signals.read(&text.repeat(2_000));
        prop_assert!(signals.complexity().score() <= 100);
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for key in [Item::key_of_name("a".to_owned()), Item::key_of_model("openai/a".to_owned())] {
            if let Ok(item) = Item::of_setting(&key, &bytes) {
                prop_assert_eq!(Item::of_setting(&key, &item.to_bytes().unwrap()), Ok(item));
            }
        }
    }
}

/// The boundary once more, by what each target of these books is.
fn may_go(target: &Target, model: &str, boundary: &Boundary, facts: &Facts) -> bool {
    match (&target.place, boundary) {
        (_, Boundary::Anywhere) => true,
        (Place::Provider { provider, .. }, Boundary::Regions(_)) => provider == "gemini",
        (Place::Provider { .. }, _) => false,
        (Place::Mesh { .. }, Boundary::Node) => facts.mesh[model].nearest == Reach::Node,
        (Place::Mesh { .. }, Boundary::Site) => facts.mesh[model].nearest <= Reach::Site,
        (Place::Mesh { .. }, _) => true,
    }
}
