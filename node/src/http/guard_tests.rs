//! The rules that decide who may call.

use hyper::header::HeaderName;

use super::super::script::{KEY, Script};
use super::*;

const ANYWHERE: &str = "0.0.0.0:8420";
const LOOPBACK: &str = "127.0.0.1:8420";

fn guard(address: &str) -> Guard {
    let settings = Settings {
        hosts: vec!["gateway.example".to_owned()],
        admin_token: Some(AdminToken::new("orchard")),
        ..Settings::default()
    };
    Guard::new(&settings, address.parse().expect("an address"))
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), value.parse().expect("a value"));
    }
    headers
}

fn site(address: &str, uri: &str, lines: &[(&'static str, &str)]) -> u16 {
    let uri = uri.parse().expect("a URI");
    match guard(address).check_site(&uri, &headers(lines)) {
        Ok(()) => 200,
        Err(problem) => problem.status.as_u16(),
    }
}

#[test]
fn only_names_of_this_machine_are_served_on_loopback() {
    let table = [
        ("localhost", 200),
        ("LocalHost:8420", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1:8420", 200),
        ("127.9.9.9:1", 200),
        ("[::1]:8420", 200),
        ("[::1]", 200),
        ("gateway.example:8420", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.1.5", 403),
        ("[::2]", 403),
        ("user@localhost", 400),
        ("localhost:", 200),
        ("evil.example:", 403),
        (":8420", 403),
        ("localhost:1@evil.example", 400),
        ("local host", 400),
        ("", 400),
    ];
    for (host, status) in table {
        assert_eq!(site(LOOPBACK, "/", &[("host", host)]), status, "{host:?}");
    }
    assert_eq!(site(LOOPBACK, "/", &[]), 400, "no Host at all");
    assert_eq!(site(LOOPBACK, "/", &[("host", "localhost"), ("host", "evil.example")]), 400);
    assert_eq!(site(ANYWHERE, "/", &[("host", "any.example")]), 200, "a key guards it");
}

#[test]
fn of_a_plain_host_the_parser_says_the_same() {
    let plain = [
        ("localhost", "localhost"),
        ("LocalHost:8420", "LocalHost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("a-b.example:99999999", "a-b.example"),
    ];
    for (host, name) in plain {
        assert_eq!(plain_name(host), Some(name));
        assert_eq!(Authority::try_from(host).expect("a host").host(), name);
    }
    for other in ["", ":1", "a:", "a:b", "a:1:2", "[::1]", "u@a", "a b", "a/b", "a_b", "é"] {
        assert_eq!(plain_name(other), None, "{other:?}");
    }
}

#[test]
fn the_request_line_names_no_other_host() {
    let host = [("host", "localhost:1")];
    assert_eq!(site(LOOPBACK, "http://localhost:1/v1/models", &host), 200);
    assert_eq!(site(LOOPBACK, "http://evil.example/v1/models", &host), 400);
}

#[test]
fn pages_of_other_origins_are_refused() {
    let table = [
        ("http://localhost:8420", 200),
        ("http://LOCALHOST:8420", 200),
        ("http://localhost:3000", 403),
        ("https://localhost:8420", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
    ];
    for (origin, status) in table {
        let lines = [("host", "localhost:8420"), ("origin", origin)];
        assert_eq!(site(LOOPBACK, "/", &lines), status, "{origin:?}");
        assert_eq!(site(ANYWHERE, "/", &lines), status, "{origin:?}");
    }
    let twice = [("host", "a"), ("origin", "http://a"), ("origin", "http://b"), ("accept", "*/*")];
    assert_eq!(site(ANYWHERE, "/", &twice), 403);
}

#[test]
fn only_json_is_taken() {
    let table = [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("application/json;", true),
        ("text/plain", false),
        ("application/jsonp", false),
        ("application/x-www-form-urlencoded", false),
        ("multipart/form-data", false),
        ("", false),
    ];
    for (declared, taken) in table {
        let result = Guard::check_content(&headers(&[("content-type", declared)]));
        assert_eq!(result.is_ok(), taken, "{declared:?}");
    }
    let problem = Guard::check_content(&headers(&[])).expect_err("undeclared");
    assert_eq!(problem.status.as_u16(), 415);
}

#[test]
fn keys_decide_the_tenant() {
    let wrong = "sk-selvedge-9999";
    type Row<'a> = (&'a str, &'a [(&'static str, &'a str)], Option<&'a str>);
    let table: [Row<'_>; 12] = [
        (LOOPBACK, &[], Some("local")),
        (LOOPBACK, &[("authorization", "Bearer unused")], Some("local")),
        (LOOPBACK, &[("authorization", &format!("Bearer {KEY}"))], Some("team")),
        (LOOPBACK, &[("authorization", &format!("Bearer {wrong}"))], None),
        (LOOPBACK, &[("authorization", "Basic abc")], None),
        (ANYWHERE, &[], None),
        (ANYWHERE, &[("authorization", "Bearer unused")], None),
        (ANYWHERE, &[("authorization", &format!("bearer {KEY}"))], Some("team")),
        (ANYWHERE, &[("x-api-key", KEY)], Some("team")),
        (ANYWHERE, &[("x-api-key", wrong)], None),
        (ANYWHERE, &[("authorization", KEY)], None),
        (ANYWHERE, &[("authorization", "Bearer wrong"), ("x-api-key", KEY)], None),
    ];
    let script = Script::hello();
    for (address, lines, tenant) in table {
        let found = guard(address).holder(&headers(lines), script.as_ref());
        match tenant {
            Some(tenant) => {
                let account = found.expect("entry").account;
                assert_eq!(account.as_str(), tenant, "{address} {lines:?}");
            }
            None => {
                let problem = found.expect_err("no entry");
                assert_eq!(problem.status.as_u16(), 401, "{address} {lines:?}");
                assert!(!problem.message.contains("9999"), "keys are not repeated");
            }
        }
    }
}

#[test]
fn keys_that_open_nothing_say_why() {
    let table = [
        (KeyRefused::Unknown, 401, "wrong or was revoked"),
        (KeyRefused::Over("it expired".to_owned()), 401, "expired"),
        (KeyRefused::Barred("it is suspended".to_owned()), 403, "suspended"),
    ];
    for (refused, status, part) in table {
        let problem = Problem::from(refused);
        assert_eq!(problem.status.as_u16(), status, "{part}");
        assert!(problem.message.contains(part), "{}", problem.message);
    }
}

#[test]
fn a_key_opens_what_its_scopes_name() {
    let all = Holder::local();
    assert!(all.check_model("any").is_ok() && all.check_route(Surface::Metrics).is_ok());
    let models = vec!["small".to_owned(), "big-*".to_owned()];
    let holder = Holder { models, routes: vec!["chat".to_owned()], ..Holder::local() };
    for (model, opens) in
        [("small", true), ("big-7", true), ("big-", true), ("small2", false), ("big", false)]
    {
        assert_eq!(holder.may_ask(model), opens, "{model}");
    }
    let problem = holder.check_model("other").expect_err("out of scope");
    assert_eq!((problem.status.as_u16(), problem.param.as_deref()), (403, Some("model")));
    assert!(problem.message.contains("small, big-* only, not 'other'"), "{}", problem.message);
    assert!(holder.check_route(Surface::Chat).is_ok());
    let problem = holder.check_route(Surface::Models).expect_err("out of scope");
    assert!(problem.message.contains("chat only, not models"), "{}", problem.message);
}

#[test]
fn the_admin_api_needs_its_token_even_on_loopback() {
    let enters = |lines: &[(&'static str, &str)]| guard(LOOPBACK).check_admin(&headers(lines));
    assert!(enters(&[("authorization", "Bearer orchard")]).is_ok());
    for lines in [
        &[][..],
        &[("authorization", "Bearer orchar")],
        &[("authorization", "Bearer sk-selvedge-0123")],
        &[("authorization", "orchard")],
    ] {
        assert_eq!(enters(lines).expect_err("shut").status.as_u16(), 401, "{lines:?}");
    }
    let settings = Settings::default();
    let shut = Guard::new(&settings, LOOPBACK.parse().expect("an address"));
    assert!(shut.check_admin(&headers(&[("authorization", "Bearer ")])).is_err());
}

#[test]
fn the_terms_of_a_call_come_from_headers() {
    let caller =
        |lines: &[(&'static str, &str)]| guard(LOOPBACK).caller(&headers(lines), Holder::local());
    let plain = caller(&[]).expect("good");
    assert_eq!((plain.label, plain.deadline), (None, Settings::default().deadline));
    let labels = [
        ("node", Label::Node),
        ("site", Label::Site),
        ("mesh", Label::Mesh),
        ("anywhere", Label::Anywhere),
    ];
    for (text, label) in labels {
        assert_eq!(caller(&[("x-selvedge-label", text)]).expect("good").label, Some(label));
    }
    let short = caller(&[("x-selvedge-timeout-ms", "1500")]).expect("good");
    assert_eq!(short.deadline, Micros::millis(1_500));
    for lines in [
        [("x-selvedge-label", "moon")],
        [("x-selvedge-timeout-ms", "0")],
        [("x-selvedge-timeout-ms", "soon")],
        [("x-selvedge-timeout-ms", "3600001")],
    ] {
        let problem = caller(&lines).expect_err("bad");
        assert_eq!((problem.status.as_u16(), problem.param.as_deref()), (400, Some(lines[0].0)));
    }
}
