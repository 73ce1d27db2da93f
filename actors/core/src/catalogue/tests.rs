#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use super::shelf::entries;
use super::*;

#[test]
fn the_built_in_list_is_sound_and_large_enough() {
    let catalogue = Catalogue::built_in().unwrap();
    let mut by_kind: BTreeMap<ProviderKind, usize> = BTreeMap::new();
    for model in catalogue.models() {
        *by_kind.entry(model.kind).or_default() += 1;
        assert!(model.as_of.as_str() >= "2026-07-02", "{} is dated", model.id);
        let abilities = &model.abilities;
        assert!(abilities.input.contains(&Modality::Text), "{} reads text", model.id);
        if let Price::Known(tariff) = &model.price {
            let rates = tariff.rates;
            let free = model.kind == ProviderKind::Ollama;
            assert_eq!(rates.input == 0, free, "{} {} is not free", model.kind, model.id);
            assert!(rates.cached_input.is_none_or(|cached| cached < rates.input), "{}", model.id);
            assert!(rates.cache_write.is_none_or(|write| write >= rates.input), "{}", model.id);
            assert!(
                abilities.embedding_dimensions.is_some() || rates.output >= rates.input,
                "{} sells answers below prompts",
                model.id
            );
            let cached = abilities.can.contains(&Capability::PromptCache);
            assert!(!cached || rates.cached_input.is_some(), "{} caches for nothing", model.id);
        }
        let parallel = abilities.can.contains(&Capability::ParallelTools);
        assert!(!parallel || abilities.can.contains(&Capability::Tools), "{}", model.id);
    }
    assert!(by_kind.values().sum::<usize>() >= 100, "{by_kind:?}");
    let kinds = by_kind.keys().copied().collect::<BTreeSet<_>>();
    assert_eq!(kinds.len(), 15, "all kinds but the one nothing is known of: {kinds:?}");
    let priced = catalogue.models().filter(|model| model.price != Price::Unknown).count();
    assert!(priced >= 100, "{priced} have a price");
}

#[test]
fn names_are_found_as_they_stand_and_by_version() {
    let catalogue = Catalogue::built_in().unwrap();
    let id = |kind, name| catalogue.find(kind, name).map(|found| found.model().id.clone());
    let some = |id: &str| Some(id.to_owned());
    assert_eq!(id(ProviderKind::OpenAi, "gpt-4o"), some("gpt-4o"));
    assert_eq!(id(ProviderKind::OpenAi, "gpt-4o-2024-08-06"), some("gpt-4o"));
    assert_eq!(id(ProviderKind::OpenAi, "gpt-4o-2024-05-13"), some("gpt-4o-2024-05-13"));
    assert_eq!(id(ProviderKind::Anthropic, "claude-opus-4-5-20251101"), some("claude-opus-4-5"));
    assert_eq!(id(ProviderKind::Anthropic, "claude-opus-4-20250514"), some("claude-opus-4-0"));
    assert_eq!(id(ProviderKind::Gemini, "gemini-2.0-flash-001"), some("gemini-2.0-flash"));
    assert_eq!(id(ProviderKind::Ollama, "llama3.1:8b"), some("llama3.1"));
    let Some(Found::Version { suffix, .. }) =
        catalogue.find(ProviderKind::OpenAi, "gpt-4o-2024-08-06")
    else {
        panic!("not exact");
    };
    assert_eq!(suffix, "-2024-08-06");

    for (kind, name) in [
        (ProviderKind::OpenAi, "gpt-4o-2024-13-06"),
        (ProviderKind::OpenAi, "gpt-4o-fine"),
        (ProviderKind::OpenAi, "ft:gpt-4o:me::1"),
        (ProviderKind::OpenAi, "llama3.1"),
        (ProviderKind::OpenAi, "gpt-4o-\u{e9}\u{e9}\u{e9}\u{e9}"),
        (ProviderKind::OpenAi, ""),
        (ProviderKind::Bedrock, "mars.anthropic.claude-sonnet-4-6"),
        (ProviderKind::Compatible, "gpt-4o"),
    ] {
        assert_eq!(id(kind, name), None, "{name}");
    }
}

#[test]
fn an_override_replaces_fields_and_not_entries() {
    let built_in = Catalogue::built_in().unwrap();
    let text = "as_of = \"2026-11-01\"\n\
                [[model]]\nkind = \"openai\"\nid = \"gpt-4o\"\nprice = { output = 9_000_000 }\n\
                [[model]]\nkind = \"openai-compatible\"\nid = \"house\"\ncontext = 8_192\n\
                input = [\"text\"]\noutput = [\"text\"]\ncan = []\n";
    let changed = built_in.with(&entries(text).unwrap()).unwrap();
    let before = built_in.find(ProviderKind::OpenAi, "gpt-4o").unwrap().model();
    let after = changed.find(ProviderKind::OpenAi, "gpt-4o").unwrap().model();
    assert_eq!(after.abilities, before.abilities);
    assert_eq!(after.as_of, "2026-11-01");
    let (Price::Known(before), Price::Known(after)) = (&before.price, &after.price) else {
        panic!("both known");
    };
    assert_eq!(after.rates, Rates { output: 9_000_000, ..before.rates });
    let house = changed.find(ProviderKind::Compatible, "house").unwrap().model();
    assert_eq!(house.price, Price::Unknown, "nothing was said of it");
    assert_eq!(changed.models().count(), built_in.models().count() + 1);

    let forget = "[[model]]\nkind = \"openai\"\nid = \"gpt-4o\"\nprice = { unknown = true }\n";
    let changed = changed.with(&entries(forget).unwrap()).unwrap();
    let model = changed.find(ProviderKind::OpenAi, "gpt-4o").unwrap().model();
    assert_eq!(model.price, Price::Unknown);
}

#[test]
fn errors_say_what_and_where() {
    let base = "kind = \"openai-compatible\"\nid = \"m\"\nas_of = \"2026-01-01\"\ncontext = 10\n\
                input = [\"text\"]\noutput = [\"text\"]\ncan = []\n";
    let error = |lines: &str| {
        let text = format!("[[model]]\n{base}{lines}");
        let read = entries(&text).and_then(|all| Catalogue::default().with(&all));
        read.unwrap_err().to_string()
    };
    assert!(error("contxt = 1").contains("unknown field `contxt`"), "{}", error("contxt = 1"));
    assert!(error("contxt = 1").contains("line 9"), "{}", error("contxt = 1"));
    for (lines, expected) in [
        ("price = { input = 1 }", "price: it needs both input and output, or nothing"),
        ("price = { input = 1, output = 2_000_000_000_000 }", "a dollar a token"),
        ("max_output = 11", "max_input and max_output lie between 1 and context"),
        ("aliases = [\"m m\"]", "alias 'm m': a name is 1 to 256 printable ASCII characters"),
        ("aliases = [\"m\"]", "'m' names 'm' too"),
        ("embedding_dimensions = 5", "a model either has an output, or embedding_dimensions"),
    ] {
        let found = error(lines);
        assert!(found.starts_with("catalogue entry openai-compatible 'm': "), "{found}");
        assert!(found.contains(expected), "{found}");
    }
    let nothing = "[[model]]\nkind = \"openai\"\nid = \"new\"\ncontext = 1\n";
    let all = entries(nothing).unwrap();
    let error = Catalogue::default().with(&all).unwrap_err().to_string();
    assert_eq!(error, "catalogue entry openai 'new': 'as_of' is missing");
    let undated = "[[model]]\nkind = \"openai\"\nid = \"new\"\nas_of = \"soon\"\n";
    let error = Catalogue::default().with(&entries(undated).unwrap()).unwrap_err().to_string();
    assert!(error.ends_with("as_of 'soon' is no date: write YYYY-MM-DD"), "{error}");
    assert!(entries("[[model]]\nkind = \"nobody\"\nid = \"x\"\n").is_err());
}

#[test]
fn an_entry_that_takes_anothers_name_is_refused() {
    let text = "[[model]]\nkind = \"openai\"\nid = \"gpt-4o\"\naliases = [\"gpt-4\"]\n";
    let error = Catalogue::built_in().unwrap().with(&entries(text).unwrap()).unwrap_err();
    assert!(error.to_string().contains("'gpt-4' names "), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let catalogue = Catalogue::built_in().unwrap();
    let find = |kind, name| catalogue.find(kind, name).unwrap().model();
    let gpt4 = find(ProviderKind::OpenAi, "gpt-4");
    let needs = Needs {
        prompt_tokens: 8_000,
        output_tokens: Some(1_000),
        input: [Modality::Text, Modality::Image].into(),
        can: [Capability::Tools, Capability::JsonSchema].into(),
        ..Needs::default()
    };
    let missing = gpt4.abilities.missing(&needs);
    let words: Vec<String> = missing.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["context of 9000 tokens (it has 8192)", "images as input", "JSON schemas"]);
    assert_eq!(gpt4.abilities.longest_answer(&needs), 192);
    assert_eq!(find(ProviderKind::OpenAi, "gpt-4o").abilities.missing(&needs), []);

    let embedder = find(ProviderKind::OpenAi, "text-embedding-3-small");
    assert_eq!(embedder.abilities.missing(&Needs::default()), [Missing::Answers]);
    let embed = Needs { embeddings: true, dimensions: Some(2_000), ..Needs::default() };
    assert_eq!(
        embedder.abilities.missing(&embed),
        [Missing::Dimensions { needs: 2_000, has: 1_536 }]
    );
    assert_eq!(gpt4.abilities.missing(&embed), [Missing::Embeddings]);
    assert_eq!(embedder.abilities.longest_answer(&embed), 0);
    let long = Needs { prompt_tokens: 300_000, output_tokens: Some(200_000), ..Needs::default() };
    assert_eq!(
        find(ProviderKind::OpenAi, "gpt-5").abilities.missing(&long),
        [
            Missing::Context { needs: 500_000, has: 400_000 },
            Missing::Prompt { needs: 300_000, has: 272_000 },
            Missing::Answer { needs: 200_000, has: 128_000 },
        ]
    );
}
