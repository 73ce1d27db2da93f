//! What is refused, in which words, and how names lead to routes.

use super::*;

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let route = |rest: &str| format!("[[route]]\nname = \"r\"\n{rest}\n");
    let mesh = "[[route.target]]\nmesh = \"small\"\n";
    let cases = [
        (route("policy = \"fixed\""), "route 'r': it needs 1 to 32 targets"),
        (route("policy = \"nearest\""), "unknown variant `nearest`"),
        (
            route("policy = \"fixed\"\n[[route.target]]\nprovider = \"opnai\"\nmodel = \"gpt-4o\""),
            "route 'r', target 1: provider 'opnai' is unknown; configured are azure-eu, claude",
        ),
        (
            route(&format!("policy = \"fixed\"\n{mesh}[[route.target]]\nmodel = \"x\"")),
            "route 'r', target 2: write either mesh, or provider and model",
        ),
        (
            route(&format!("policy = \"fixed\"\n{mesh}{mesh}")),
            "route 'r', target 2: mesh small is a target already",
        ),
        (
            route(
                "policy = { weighted = { by = \"user\" } }\n[[route.target]]\nmesh = \"small\"\n\
                 weight = 0",
            ),
            "route 'r': all weights are 0",
        ),
        (route(&format!("policy = \"fixed\"\n{mesh}weight = 2")), "weight has a meaning for"),
        (route(&format!("policy = \"cheapest\"\n{mesh}up_to = 2")), "up_to has a meaning for"),
        (
            route(&format!("policy = {{ small-first = {{}} }}\n{mesh}up_to = 20")),
            "route 'r': every target but the last needs up_to, and the last has none",
        ),
        (
            route(&format!(
                "policy = {{ small-first = {{}} }}\n{mesh}up_to = 20\n[[route.target]]\n\
                 mesh = \"mid\"\nup_to = 20\n[[route.target]]\nmesh = \"large\""
            )),
            "route 'r': up_to must rise from target to target",
        ),
        (
            route(&format!("policy = {{ small-first = {{ min_confidence = 5 }} }}\n{mesh}")),
            "route 'r': min_confidence is a log-probability: 0 or less",
        ),
        (
            route(
                "policy = \"fixed\"\nkeep_budget_percent = 101\n[[route.target]]\nmesh = \"small\"",
            ),
            "keep_budget_percent lies between 0 and 100",
        ),
        (
            route("policy = \"fixed\"\n[[route.target]]\nprovider = \"openai\"\nmodel = \"*\""),
            "'*' as model needs a route whose name ends in '*'",
        ),
        (
            route(
                "policy = \"fixed\"\n[[route.target]]\nprovider = \"azure-eu\"\nmodel = \"ours\"\n\
                 known_as = \"gpt-9\"",
            ),
            "known_as: the catalogue has no azure model 'gpt-9'",
        ),
        (route(&format!("policy = \"fixed\"\n{mesh}region = \"eu\"")), "for targets at providers"),
    ];
    for (text, expected) in cases {
        assert_refused(&text, expected);
    }
}

#[test]
fn names_that_clash_or_lead_nowhere_are_refused() {
    let fixed = "[[route]]\nname = \"r\"\npolicy = \"fixed\"\n[[route.target]]\nmesh = \"small\"\n";
    let cases = [
        (format!("{fixed}{fixed}"), "'r' is the name of two routes"),
        (
            format!("[aliases]\nr = \"r\"\n{fixed}"),
            "'r' is the name of two routes, or of a route and an alias",
        ),
        ("[aliases]\na = \"b\"\n".to_owned(), "alias 'a' leads to 'b', which is neither"),
        (
            "[aliases]\na = \"b\"\nb = \"c\"\nc = \"a\"\n".to_owned(),
            "aliases lead in a circle: a > b > c > a",
        ),
        ("[aliases]\n\"a*\" = \"ab\"\n".to_owned(), "aliases lead in a circle: a* > ab > ab"),
        ("[aliases]\n\"a*\" = \"b*\"\n".to_owned(), "an alias leads to one name"),
        ("[aliases]\n\"a*b\" = \"c\"\n".to_owned(), "'a*b': a '*' stands at the end only"),
        ("[aliases]\n\"a b\" = \"c\"\n".to_owned(), "printable ASCII without spaces"),
        ("version = 9\n".to_owned(), "the book of routes has version 9; this build reads 1"),
        ("[[model]]\nkind = \"openai\"\nid = \"new\"\n".to_owned(), "'as_of' is missing"),
        ("[[routes]]\n".to_owned(), "unknown field `routes`"),
    ];
    for (text, expected) in cases {
        assert_refused(&text, expected);
    }
}

fn assert_refused(text: &str, expected: &str) {
    let error = routes(text).unwrap_err().to_string();
    assert!(error.contains(expected), "expected: {expected}\nfound: {error}");
}

#[test]
fn the_exact_name_comes_first_and_then_the_longest_beginning() {
    let routes = routes(
        "[aliases]\n\"gpt-4o\" = \"chat\"\n\"gpt-4o-latest\" = \"gpt-4o\"\n\
         \"claude-*\" = \"chat\"\n\
         [[route]]\nname = \"chat\"\npolicy = \"fixed\"\n[[route.target]]\nmesh = \"small\"\n\
         [[route]]\nname = \"openai/*\"\npolicy = \"fixed\"\n\
         [[route.target]]\nprovider = \"openai\"\nmodel = \"*\"\n\
         [[route]]\nname = \"openai/gpt-5*\"\npolicy = \"fixed\"\n\
         [[route.target]]\nmesh = \"large\"\n\
         [[route]]\nname = \"*\"\npolicy = \"fixed\"\n[[route.target]]\nmesh = \"*\"\n",
    )
    .unwrap();
    let answers = |name: &str| {
        let decision = routes.decide(&request(name), &facts(), NOW).unwrap();
        (decision.route.name.clone(), decision.verdicts[0].model.clone(), decision.via)
    };
    let found = |route: &str, model: &str, via: &[&str]| {
        let via = via.iter().map(|name| (*name).to_owned()).collect();
        (route.to_owned(), model.to_owned(), via)
    };
    assert_eq!(answers("chat"), found("chat", "small", &[]));
    assert_eq!(answers("gpt-4o-latest"), found("chat", "small", &["gpt-4o-latest", "gpt-4o"]));
    assert_eq!(answers("claude-opus-4-8"), found("chat", "small", &["claude-opus-4-8"]));
    assert_eq!(answers("openai/o3"), found("openai/*", "o3", &[]));
    assert_eq!(answers("openai/gpt-5-mini"), found("openai/gpt-5*", "large", &[]));
    assert_eq!(answers("small"), found("*", "small", &[]));
    assert!(routes.names().any(|name| name == "openai/gpt-5*"));

    let o3 = routes.decide(&request("openai/o3"), &facts(), NOW).unwrap();
    assert_eq!(o3.verdicts[0].known.as_ref().unwrap().id, "o3", "looked up by what the * is");
}

#[test]
fn a_way_over_too_many_aliases_is_refused() {
    let way = |steps: usize| {
        let mut text = "[aliases]\n".to_owned();
        for at in 0..steps {
            text.push_str(&format!("a{at} = \"a{}\"\n", at + 1));
        }
        text.push_str(&format!("[[route]]\nname = \"a{steps}\"\npolicy = \"fixed\"\n"));
        text.push_str("[[route.target]]\nmesh = \"small\"\n");
        routes(&text)
    };
    let longest = way(MAX_ALIAS_HOPS + 1).unwrap();
    assert!(longest.decide(&request("a0"), &facts(), NOW).is_some());
    let what = "aliases on the way to one route";
    assert_eq!(way(MAX_ALIAS_HOPS + 2), Err(RouteError::Full { what, limit: MAX_ALIAS_HOPS }));
}

#[test]
fn no_route_is_no_decision() {
    let routes = routes("").unwrap();
    assert_eq!(routes.decide(&request("gpt-4o"), &facts(), NOW), None);
}
