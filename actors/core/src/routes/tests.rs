#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod config;
mod gather;
mod page;
mod policies;
mod properties;

use std::collections::BTreeMap;

use selvedge_base::Mono;

use super::*;
use crate::catalogue::{Abilities, Catalogue, Modality, Needs, ProviderKind};

/// A book in TOML, checked against the providers of [`providers`].
fn routes(text: &str) -> Result<Routes, RouteError> {
    let book = RouteBook::from_toml(text)?;
    Routes::check(&book, &providers(), Catalogue::built_in().unwrap())
}

fn providers() -> BTreeMap<String, Provider> {
    let provider = |kind, region: Option<&str>| {
        let region = region.map(str::to_owned);
        Provider { kind, region, free: false }
    };
    BTreeMap::from([
        ("openai".to_owned(), provider(ProviderKind::OpenAi, None)),
        ("claude".to_owned(), provider(ProviderKind::Anthropic, None)),
        ("gemini".to_owned(), provider(ProviderKind::Gemini, Some("eu"))),
        ("azure-eu".to_owned(), provider(ProviderKind::Azure, Some("eu"))),
        ("groq".to_owned(), provider(ProviderKind::Groq, Some("us"))),
        ("lab".to_owned(), provider(ProviderKind::Compatible, None)),
    ])
}

/// When all this happens.
const NOW: Mono = Mono(1_000_000_000);

/// A mesh with a small and a larger model, the small one on this node.
fn facts() -> Facts {
    let abilities = |context_tokens| Abilities {
        context_tokens,
        input: [Modality::Text].into(),
        output: [Modality::Text].into(),
        can: [crate::catalogue::Capability::Streaming].into(),
        ..Abilities::default()
    };
    let model = |nearest, context| MeshFacts {
        nearest,
        abilities: abilities(context),
        measured: Measured::default(),
    };
    Facts {
        mesh: BTreeMap::from([
            ("small".to_owned(), model(Reach::Node, 4_096)),
            ("large".to_owned(), model(Reach::Mesh, 32_768)),
        ]),
        providers: BTreeMap::new(),
    }
}

/// A short question whose data may go anywhere.
fn request(model: &str) -> Request {
    Request {
        model: model.to_owned(),
        needs: Needs { prompt_tokens: 100, output_tokens: Some(200), ..Needs::default() },
        boundary: Boundary::Anywhere,
        tenant: "acme".to_owned(),
        seed: 1,
        ..Request::default()
    }
}

/// The models to try, best first.
fn tried(decision: &Decision) -> Vec<&str> {
    decision.order.iter().map(|at| decision.verdicts[*at].model.as_str()).collect()
}

/// What is said of the target with a model.
fn because(decision: &Decision, model: &str) -> Vec<String> {
    let explanation = decision.explain();
    let of = explanation.targets.iter().find(|target| target.target.ends_with(model)).unwrap();
    of.because.clone()
}
