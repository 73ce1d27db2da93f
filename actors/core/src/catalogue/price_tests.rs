#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

/// An answer of Claude Sonnet 4.5 with a cache, by hand.
#[test]
fn a_bill_adds_up() {
    let model = find(ProviderKind::Anthropic, "claude-sonnet-4-5");
    let counts = Counts {
        prompt: 10_000,
        cached: 6_000,
        cache_write: 3_000,
        cache_write_1h: 1_000,
        completion: 500,
        reasoning: 200,
        web_searches: 2,
        ..Counts::default()
    };
    // 1,000 read anew at 3, 6,000 from the cache at 0.3, 2,000 written at 3.75, 1,000 for an hour
    // at 6, 500 answered at 15 dollars a million; two searches at a cent.
    let by_hand = 3_000 + 1_800 + 7_500 + 6_000 + 7_500 + 20_000;
    assert_eq!(model.price.cost(&counts), Ok(by_hand));
}

#[test]
fn long_prompts_cost_by_their_tier_as_a_whole() {
    let model = find(ProviderKind::Gemini, "gemini-2.5-pro");
    let at = |prompt| model.price.cost(&Counts { prompt, completion: 1_000, ..Counts::default() });
    assert_eq!(at(200_000), Ok(250_000 + 10_000));
    assert_eq!(at(200_001), Ok(500_003 + 15_000), "2.5 micro-dollars more are rounded up");
}

#[test]
fn a_part_of_a_micro_dollar_is_a_whole_one() {
    let price = known(Rates { input: 1, output: 1, ..Rates::default() });
    assert_eq!(price.cost(&Counts { prompt: 1, ..Counts::default() }), Ok(1));
    assert_eq!(price.cost(&Counts { prompt: 1_000_000, ..Counts::default() }), Ok(1));
    assert_eq!(price.cost(&Counts { prompt: 1_000_001, ..Counts::default() }), Ok(2));
    assert_eq!(price.cost(&Counts::default()), Ok(0));
}

#[test]
fn what_has_no_price_is_refused_and_never_free() {
    let counts = Counts { prompt: 1, ..Counts::default() };
    let ask = Ask { prompt_tokens: 1, ..Ask::default() };
    assert_eq!(Price::Unknown.cost(&counts), Err(Unpriced::Model));
    assert_eq!(Price::Unknown.cost(&Counts::default()), Err(Unpriced::Model));
    assert_eq!(Price::Unknown.worst_case(&ask), Err(Unpriced::Model));

    let price = known(Rates { input: 1, output: 1, ..Rates::default() });
    let parts = [
        (Counts { prompt_audio: 1, ..counts }, Ask { audio_in: true, ..ask }, Part::InputAudio),
        (
            Counts { completion_audio: 1, ..counts },
            Ask { audio_out: true, ..ask },
            Part::OutputAudio,
        ),
        (Counts { cache_write_1h: 1, ..counts }, Ask { cache_hour: true, ..ask }, Part::CacheHour),
        (Counts { web_searches: 1, ..counts }, Ask { web_searches: 1, ..ask }, Part::WebSearch),
    ];
    for (counts, ask, part) in parts {
        assert_eq!(price.cost(&counts), Err(Unpriced::Part(part)));
        assert_eq!(price.worst_case(&ask), Err(Unpriced::Part(part)));
    }
    assert_eq!(
        Unpriced::Part(Part::WebSearch).to_string(),
        "no price of the model's web searches is known: add one to the catalogue's overrides"
    );
}

#[test]
fn a_usage_report_that_contradicts_itself_is_still_billed() {
    let price = known(Rates { input: 1_000_000, output: 1_000_000, ..Rates::default() });
    let counts = Counts { prompt: 1, cached: 5, completion: 1, reasoning: 7, ..Counts::default() };
    assert_eq!(price.cost(&counts), Ok(12), "the parts, when they are more than the whole");
    let huge = Counts { prompt: u64::MAX, completion: u64::MAX, ..Counts::default() };
    assert_eq!(price.cost(&huge), Ok(u64::MAX));
}

#[test]
fn a_reservation_covers_a_written_cache_and_the_dearer_tier() {
    let model = find(ProviderKind::OpenAi, "gpt-5.6");
    let ask = Ask { prompt_tokens: 272_001, output_tokens: 1_000, ..Ask::default() };
    let written = 272_001 * 125 / 10 + 1;
    assert_eq!(model.price.worst_case(&ask), Ok(written + 45_000));
}

proptest! {
    #[test]
    fn a_cost_is_the_exact_one_rounded_up(rates in rates(), counts in counts()) {
        let price = known(rates);
        let cost = u128::from(price.cost(&counts).unwrap());
        let exact = exact_millionths(&rates, &counts);
        prop_assert!(cost * 1_000_000 >= exact, "never less");
        prop_assert!(cost * 1_000_000 < exact + 1_000_000, "never a whole one more");
    }

    #[test]
    fn no_answer_within_the_ask_costs_more_than_the_worst_case(
        rates in rates(),
        high in rates(),
        above in 0u64..300_000,
        counts in counts(),
        spare in 0u64..1_000,
    ) {
        let tiers = vec![Tier { above, rates: high }];
        let tariff = Tariff { rates, tiers, per_request: 7, web_search: Some(11) };
        let price = Price::Known(Box::new(tariff));
        let ask = Ask {
            prompt_tokens: counts.prompt + spare,
            output_tokens: counts.completion + spare,
            audio_in: counts.prompt_audio > 0,
            audio_out: counts.completion_audio > 0,
            cache_hour: counts.cache_write_1h > 0,
            web_searches: counts.web_searches,
        };
        prop_assert!(price.cost(&counts).unwrap() <= price.worst_case(&ask).unwrap());
    }

    #[test]
    fn more_tokens_never_cost_less(rates in rates(), counts in counts(), more in 0u64..1_000) {
        let price = known(rates);
        let longer = Counts { completion: counts.completion + more, ..counts };
        prop_assert!(price.cost(&longer).unwrap() >= price.cost(&counts).unwrap());
    }
}

fn find(kind: ProviderKind, name: &str) -> std::sync::Arc<Model> {
    Catalogue::built_in().unwrap().find(kind, name).unwrap().model().clone()
}

fn known(rates: Rates) -> Price {
    Price::Known(Box::new(Tariff { rates, web_search: None, ..Tariff::default() }))
}

/// The same sum, written down a second time: each token is given its price one kind at a time.
fn exact_millionths(rates: &Rates, counts: &Counts) -> u128 {
    let times = |tokens: u64, rate: u64| u128::from(tokens) * u128::from(rate);
    let (mut fresh, mut cached) =
        (counts.prompt - counts.cached - counts.cache_write, counts.cached);
    let mut sum = 0;
    let audio = rates.input_audio.unwrap();
    let first = counts.prompt_audio.min(fresh);
    fresh -= first;
    sum += times(first, audio);
    let second = (counts.prompt_audio - first).min(cached);
    cached -= second;
    sum += times(second, rates.cached_audio.unwrap_or(audio));
    sum += times(fresh, rates.input) + times(cached, rates.cached_input.unwrap_or(rates.input));
    let short = counts.cache_write - counts.cache_write_1h;
    sum += times(short, rates.cache_write.unwrap_or(rates.input));
    sum += times(counts.cache_write_1h, rates.cache_write_1h.unwrap());
    let text = counts.completion - counts.reasoning - counts.completion_audio;
    sum += times(text, rates.output);
    sum += times(counts.reasoning, rates.reasoning.unwrap_or(rates.output));
    sum + times(counts.completion_audio, rates.output_audio.unwrap())
}

fn rates() -> impl Strategy<Value = Rates> {
    let rate = || 0..=MAX_RATE;
    let maybe = || proptest::option::of(0..=MAX_RATE);
    let first = (rate(), maybe(), maybe(), rate(), rate());
    (first, maybe(), rate(), maybe(), rate()).prop_map(
        |(
            (input, cached_input, cache_write, hour, output),
            reasoning,
            audio,
            cached_audio,
            spoken,
        )| {
            Rates {
                input,
                cached_input,
                cache_write,
                cache_write_1h: Some(hour),
                output,
                reasoning,
                input_audio: Some(audio),
                cached_audio,
                output_audio: Some(spoken),
            }
        },
    )
}

/// Counts whose parts fit their totals.
fn counts() -> impl Strategy<Value = Counts> {
    let part = || 0u64..100_000;
    (part(), part(), part(), part(), 0u64..400_000, part(), part(), part()).prop_map(
        |(fresh, cached, short, hour, audio, text, reasoning, spoken)| {
            let prompt = fresh + cached + short + hour;
            Counts {
                prompt,
                cached,
                cache_write: short + hour,
                cache_write_1h: hour,
                prompt_audio: audio.min(fresh + cached),
                completion: text + reasoning + spoken,
                reasoning,
                completion_audio: spoken,
                web_searches: 0,
            }
        },
    )
}
