//! The examples of the page are what they say: each is read, checked, and decides something.

use super::*;

const PAGE: &str = include_str!("../../../../../docs/routing.md");

/// The blocks of TOML on the page.
fn examples() -> Vec<String> {
    let mut examples = Vec::new();
    let mut open: Option<String> = None;
    for line in PAGE.lines() {
        match (&mut open, line) {
            (None, "```toml") => open = Some(String::new()),
            (Some(text), "```") => {
                examples.push(std::mem::take(text));
                open = None;
            }
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    assert_eq!(open, None, "a block that is not closed");
    examples
}

#[test]
fn every_example_of_the_page_is_a_working_configuration() {
    let examples = examples();
    let mut policies = std::collections::BTreeSet::new();
    for text in &examples {
        let checked = routes(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        for name in checked.names() {
            let asked = name.replace('*', "gpt-5-mini");
            let decision = checked.decide(&request(&asked), &facts(), NOW).unwrap();
            assert!(decision.chosen().is_some(), "{}\n{text}", decision.explain());
            let policy = decision.explain().policy;
            policies.insert(policy.split(':').next().unwrap().to_owned());
        }
    }
    let all =
        ["cheapest", "fallback", "fastest", "fixed", "least-loaded", "small-first", "weighted"];
    assert_eq!(policies.into_iter().collect::<Vec<_>>(), all, "an example for each policy");
    assert!(examples.len() >= 10, "{} examples", examples.len());
}

#[test]
fn the_page_says_what_each_part_of_complexity_is_worth() {
    let all = Signals {
        prompt_tokens: u32::MAX,
        turns: u32::MAX,
        code_marks: u32::MAX,
        maths_marks: u32::MAX,
        tools: u32::MAX,
        asked_output: u32::MAX,
        schema: true,
    };
    let Complexity { length, turns, code, maths, tools, output, schema } = all.complexity();
    let rows = [
        ("length", length),
        ("turns", turns),
        ("code", code),
        ("maths", maths),
        ("tools", tools),
        ("asked output", output),
        ("schema", schema),
    ];
    for (what, most) in rows {
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| {what} |")));
        let row = row.unwrap_or_else(|| panic!("no row for {what}"));
        assert!(row.ends_with(&format!("| {most} |")), "{row} says {most}");
    }
}
