//! Any bytes in a request's line and headers: the stored inputs, and mutations of them.
//!
//! The parsers are private to the program, so that this target is not in the registry of
//! `tests/fuzz`; its inputs lie there beside the others.

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{StatusCode, Uri};
use selvedge_base::Micros;
use selvedge_fuzz::{Target, corpus, guard as bounds};

use super::errors::Problem;
use super::guard::{Guard, LONGEST_MS};
use super::route::Route;
use super::script::{KEY, NARROW_KEY, Script};
use super::settings::{AdminToken, Settings};
use super::{cache, trace};

/// Mutations of the stored inputs: a second or two without optimisation.
const MUTATIONS: usize = 4_000;
/// Characters of a refusal: it may repeat a part of what it refuses, but not all of it.
const REFUSAL_CHARS: usize = 2_000;
/// What opens the admin API here.
const TOKEN: &str = "orchard";

const TARGET: Target = Target {
    name: "http.headers",
    holds: "a request's headers are understood or refused in few words; no key opens that is none",
    check,
    shares: &[],
    seeds: Vec::new,
    words: &[
        "authorization: Bearer ",
        "x-api-key: ",
        "sk-selvedge-0123",
        "Basic ",
        "host: localhost\n",
        "origin: http://localhost\n",
        "content-type: application/json\n",
        "x-selvedge-label: ",
        "x-selvedge-timeout-ms: ",
        "x-selvedge-cache: ",
        "only-if-cached",
        "no-cache",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n",
        "tracestate: ",
        "%2f",
        "[::1]:",
        "user@",
        ";",
        ", ",
    ],
};

/// The first line is the path, each further line a header.
fn check(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let uri = Uri::from_maybe_shared(Bytes::copy_from_slice(lines.next().unwrap_or_default()));
    let mut headers = HeaderMap::new();
    // As many as hyper takes.
    for line in lines.take(100) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let name = HeaderName::from_bytes(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let Ok(uri) = uri else { return };
    check_path(uri.path());
    check_who(&uri, &headers);
    check_terms(&headers);
}

fn check_path(path: &str) {
    if let Some(route) = Route::find(path) {
        assert!(!format!("{route:?}").is_empty());
        let _came = trace::came(&route);
    }
}

/// Only a key that was made opens, and only the token opens what is the operator's.
fn check_who(uri: &Uri, headers: &HeaderMap) {
    let backend = Script::hello();
    let shows = |secret: &str| {
        let holds = |value: &HeaderValue| {
            value.as_bytes().windows(secret.len()).any(|bytes| bytes == secret.as_bytes())
        };
        headers.values().any(holds)
    };
    for address in ["127.0.0.1:8420", "0.0.0.0:8420"] {
        let token = Some(AdminToken::new(TOKEN));
        let settings = Settings { admin_token: token, ..Settings::default() };
        let Ok(address) = address.parse() else { continue };
        let guard = Guard::new(&settings, address);
        said(guard.check_site(uri, headers));
        if said(guard.check_admin(headers)).is_some() {
            assert!(shows(TOKEN), "{headers:?}");
        }
        let Some(holder) = said(guard.holder(headers, backend.as_ref())) else { continue };
        assert!(!holder.keyed || shows(KEY) || shows(NARROW_KEY), "{headers:?}");
        assert!(holder.keyed || address.ip().is_loopback(), "{headers:?}");
        if let Some(caller) = said(guard.caller(headers, holder)) {
            let longest = Micros::millis(LONGEST_MS);
            assert!(caller.deadline > Micros(0) && caller.deadline <= longest, "{headers:?}");
        }
    }
}

fn check_terms(headers: &HeaderMap) {
    said(Guard::check_content(headers));
    if let Some(Some(wish)) = said(cache::wish(headers)) {
        assert!(!(wish.only_cached && wish.no_cache), "{headers:?}");
    }
    if let Some(context) = trace::context(headers) {
        assert!(context.is_within_bounds(), "{headers:?}");
    }
}

/// What was understood; a refusal is one of the client's and has few words.
fn said<T>(result: Result<T, Problem>) -> Option<T> {
    let problem = match result {
        Ok(value) => return Some(value),
        Err(problem) => problem,
    };
    let length = problem.message.chars().count();
    assert!((1..REFUSAL_CHARS).contains(&length), "a refusal of {length} characters");
    assert!(problem.status.is_client_error(), "{problem:?}");
    assert_ne!(problem.status, StatusCode::NOT_FOUND);
    None
}

#[test]
fn any_headers_are_understood_or_refused() {
    let inputs = corpus::load(&TARGET).expect("a readable corpus");
    assert!(inputs.len() > 10, "{} inputs", inputs.len());
    inputs.iter().for_each(|input| bounds::check(&TARGET, input));
    for input in corpus::mutations(&TARGET, &inputs, 0).take(MUTATIONS) {
        let run = std::panic::catch_unwind(|| bounds::check(&TARGET, &input));
        assert!(run.is_ok(), "fails on {:?}", String::from_utf8_lossy(&input));
    }
}
