//! Which path leads where.

use super::*;

#[test]
fn paths_lead_to_endpoints() {
    let model = |name: &str| Some(Route::Model(name.to_owned()));
    let table = [
        ("/v1/chat/completions", Some(Route::Chat)),
        ("/v1/completions", Some(Route::Completions)),
        ("/v1/embeddings", Some(Route::Embeddings)),
        ("/api/embed", Some(Route::OllamaEmbed)),
        ("/api/embeddings", Some(Route::OllamaEmbeddings)),
        ("/v1/models", Some(Route::Models)),
        ("/v1/models/", None),
        ("/v1/models/a", model("a")),
        ("/v1/models/a/b", model("a/b")),
        ("/v1/models/a%2Fb%20c", model("a/b c")),
        ("/v1/models/a%2", None),
        ("/v1/models/a%zz", None),
        ("/v1/models/%ff", None),
        ("/v1/requests/req_1", Some(Route::Request("req_1".to_owned()))),
        ("/v1/requests/", None),
        ("/v1/requests", None),
        ("/health", Some(Route::Health)),
        ("/metrics", Some(Route::Metrics)),
        ("/admin/keys/ab", Some(Route::Admin("keys/ab".to_owned(), "DELETE, OPTIONS"))),
        ("/admin/", None),
        ("/admin/nothing", None),
        ("/", None),
        ("/v1/chat/completions/", None),
        ("/V1/models", None),
    ];
    for (path, route) in table {
        assert_eq!(Route::find(path), route, "{path}");
    }
}

#[test]
fn every_path_that_is_listed_leads_to_its_own_endpoint() {
    let paths = paths();
    let listed = FIXED.len() + infer::PATHS.len() + 3 + admin::PATHS.len();
    assert_eq!(paths.len(), listed, "one of them leads nowhere");
    let mut seen = std::collections::BTreeSet::new();
    for (path, surface, methods) in &paths {
        assert!(seen.insert(path.clone()), "{path} is listed twice");
        let route = Route::find(path).unwrap_or_else(|| panic!("{path} leads nowhere"));
        assert_eq!((route.surface(), route.methods()), (*surface, *methods), "{path}");
        // What a name stands for is found in its place, and not taken for something else.
        let name = path.find('{').and_then(|at| path[at..].split('/').next());
        let shown = format!("{route:?}");
        assert!(name.is_none_or(|name| shown.contains(name)), "{path}: {shown}");
    }
    for (path, route) in &FIXED {
        assert_eq!(Route::find(path).as_ref(), Some(route), "{path}");
    }
}
