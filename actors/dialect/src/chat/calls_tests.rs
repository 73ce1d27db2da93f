use proptest::prelude::*;
use selvedge_contract::{ChatMessage, Role, Tool, ToolChoice};

use super::*;

/// What was said: text, or a call's name and arguments.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Text(String),
    Call(String, String),
}

fn chat(parallel: bool) -> Tooled {
    let tool = |name: &str| Tool {
        name: name.to_owned(),
        description: String::new(),
        parameters: "{}".to_owned(),
    };
    Tooled {
        messages: vec![ChatMessage { role: Role::User, content: "hi".to_owned() }],
        turns: Vec::new(),
        tools: vec![tool("f"), tool("look_up")],
        choice: ToolChoice::Auto,
        parallel,
    }
}

/// What is told of pieces of a text; texts that follow each other are one.
fn told(pieces: &[&str], parallel: bool) -> Vec<Told> {
    let mut calls = Calls::new(0, "id".to_owned(), &chat(parallel));
    let mut events = Vec::new();
    pieces.iter().for_each(|piece| calls.push(piece, &mut events));
    calls.finish(&mut events);
    let mut all: Vec<Told> = Vec::new();
    for event in events {
        match (event, all.last_mut()) {
            (Event::Text { text, .. }, Some(Told::Text(last))) => last.push_str(&text),
            (Event::Text { text, .. }, _) => all.push(Told::Text(text)),
            (Event::ToolBegin { id, name, call, .. }, _) => {
                let before = all.iter().filter(|told| matches!(told, Told::Call(..))).count();
                assert_eq!((call as usize, id), (before, format!("id{before:03}")));
                all.push(Told::Call(name, String::new()));
            }
            (Event::ToolArguments { json, .. }, Some(Told::Call(_, arguments))) => {
                arguments.push_str(&json);
            }
            (Event::ToolEnd { .. }, Some(Told::Call(..))) => {}
            (other, _) => panic!("{other:?}"),
        }
    }
    all
}

fn call(name: &str, arguments: &str) -> Told {
    Told::Call(name.to_owned(), arguments.to_owned())
}

fn text(text: &str) -> Told {
    Told::Text(text.to_owned())
}

#[test]
fn every_form_is_a_call() {
    for one in [
        r#"<tool_call>{"name": "f", "arguments": {"a": 1.50}}</tool_call>"#,
        "\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1.50}}\n</tool_call>\n",
        r#"<tool_call>{"arguments": {"a": 1.50}, "name": "f"}"#,
        r#"{"name": "f", "parameters": {"a": 1.50}}"#,
        r#"{"type": "function", "name": "f", "parameters": {"a": 1.50}}"#,
        r#"<|python_tag|>{"name": "f", "parameters": {"a": 1.50}}"#,
        r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1.50}}]"#,
        r#" [ {"name": "f", "arguments": {"a": 1.50}}]"#,
        r#"[TOOL_CALLS]{"name": "f", "arguments": "{\"a\": 1.50}", "id": "x"}"#,
    ] {
        assert_eq!(told(&[one], true), [call("f", r#"{"a": 1.50}"#)], "{one}");
    }
    let two = r#"{"name":"f"}; {"name":"look_up","parameters":{"q":"}"}}"#;
    assert_eq!(told(&[two], true), [call("f", "{}"), call("look_up", r#"{"q":"}"}"#)]);
    let listed = r#"I look. [TOOL_CALLS] [{"name":"f","arguments":{}},{"name":"f"}]"#;
    assert_eq!(told(&[listed], true), [text("I look. "), call("f", "{}"), call("f", "{}")]);
    let tagged = "One.\n<tool_call>{\"name\":\"f\"}</tool_call>\n<tool_call>{\"name\":\"f\"}\
                  </tool_call>\nTwo.";
    let wanted = [text("One.\n"), call("f", "{}"), call("f", "{}"), text("Two.")];
    assert_eq!(told(&[tagged], true), wanted);
}

#[test]
fn what_is_no_call_is_text() {
    let deep = format!("<tool_call>{}", "[".repeat(DEPTH + 1));
    let spaces = " ".repeat(LEAD_BYTES + 5);
    for whole in [
        "Hello, world.",
        "",
        "  \n",
        "a < b and <tool, [TOOL",
        r#"{"answer": 42}"#,
        r#"{"name": "Alice", "age": 7}"#,
        r#"{"name": "f", "arguments": [1]}"#,
        r#"{"name": "f", "arguments": "no"}"#,
        r#"<tool_call>{"name": "unknown", "arguments": {}}</tool_call>"#,
        r#"<tool_call>{"name": "f", "arguments": {"a": </tool_call>"#,
        r#"<tool_call>{"name": "f", "argu"#,
        "<tool_call>f(1)</tool_call>",
        "[1, 2, 3]",
        "[TOOL_CALLS] []",
        r#"[TOOL_CALLS] [{"name": "f"}, 1]"#,
        "<|python_tag|>print(1)",
        deep.as_str(),
        spaces.as_str(),
    ] {
        let wanted: Vec<Told> = if whole.is_empty() { vec![] } else { vec![text(whole)] };
        assert_eq!(told(&[whole], true), wanted, "{whole}");
    }
}

#[test]
fn only_what_may_become_a_call_is_held_back() {
    let mut calls = Calls::new(0, String::new(), &chat(true));
    for (piece, shown) in [
        ("Hi", "Hi"),
        (" <tool", " "),
        ("s> ", "<tools> "),
        ("<tool_call", ""),
        (">{\"x\"", ""),
        (":1}", "<tool_call>{\"x\":1}"),
        ("!", "!"),
    ] {
        let mut events = Vec::new();
        calls.push(piece, &mut events);
        let said: String = events
            .into_iter()
            .map(|event| match event {
                Event::Text { text, .. } => text,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(said, shown, "{piece}");
    }
    // An object that cannot be a call is not waited for.
    let mut bare = Calls::new(0, String::new(), &chat(true));
    let mut events = Vec::new();
    bare.push("{\"answer", &mut events);
    assert!(!events.is_empty());
}

#[test]
fn calls_are_bounded() {
    let one = r#"<tool_call>{"name":"f"}</tool_call>"#;
    assert_eq!(told(&[one, one], false), [call("f", "{}"), text(one)]);
    let many = vec![one; CALLS + 1];
    let all = told(&many, true);
    assert_eq!(all.len(), CALLS + 1);
    assert_eq!(all.last(), Some(&text(one)));
    let long = format!(r#"<tool_call>{{"name":"f","arguments":{{"a":"{}"#, "x".repeat(CALL_BYTES));
    assert_eq!(told(&[&long], true), [text(&long)]);
}

/// The whole text at once: where each mark stands, what follows it, and what is left between.
fn reference(whole: &str) -> Vec<Told> {
    let names = ["f".to_owned(), "look_up".to_owned()];
    let mut all = Vec::new();
    let mut said = String::new();
    let mut at = 0;
    let lead = whole.len() - whole.trim_start().len();
    let marked = MARKS.iter().any(|mark| whole[lead..].starts_with(mark));
    let mut bare = (!marked).then_some((lead, None));
    let mut leads = marked;
    loop {
        // Where the next JSON begins that may be a call, and what stands before it.
        let (json, mark) = match bare.take() {
            Some((json, mark)) => (json, mark),
            None => {
                let found = MARKS.iter().filter_map(|mark| Some((whole[at..].find(mark)?, mark)));
                let Some((before, mark)) = found.min() else { break };
                said.push_str(&whole[at..at + before]);
                at += before;
                let behind = at + mark.len();
                let gap = whole[behind..].len() - whole[behind..].trim_start().len();
                (behind + gap, Some(*mark))
            }
        };
        match whole_calls(&whole[json..], mark.is_none(), &names) {
            Ok((length, calls)) => {
                // White space before a call that an answer begins with is left out.
                if leads {
                    said.clear();
                }
                if !said.is_empty() {
                    all.push(Told::Text(std::mem::take(&mut said)));
                }
                all.extend(calls.into_iter().map(|(name, arguments)| Told::Call(name, arguments)));
                at = json + length;
                let endless = mark.is_none() || mark == Some("<|python_tag|>");
                loop {
                    let rest = whole[at..].trim_start();
                    let rest = rest
                        .strip_prefix(CLOSING)
                        .or_else(|| rest.strip_prefix([';', ',']).filter(|_| endless));
                    let Some(rest) = rest else { break };
                    at = whole.len() - rest.len();
                }
                at = whole.len() - whole[at..].trim_start().len();
                if endless && whole[at..].starts_with('{') {
                    bare = Some((at, mark));
                }
            }
            Err(wrong) => {
                said.push_str(&whole[at..json + wrong]);
                at = json + wrong;
            }
        }
        leads = false;
    }
    said.push_str(&whole[at..]);
    if !said.is_empty() {
        all.push(Told::Text(said));
    }
    all
}

type Found = (usize, Vec<(String, String)>);

/// The calls that a text begins with, and their length; or how much of it shows that it has none.
fn whole_calls(text: &str, bare: bool, names: &[String]) -> Result<Found, usize> {
    if !text.starts_with(['{', '[']) {
        return Err(0);
    }
    let (mut open, mut string, mut skip) = (Vec::new(), false, false);
    for (at, char) in text.char_indices() {
        let good = match (string, char) {
            (true, _) if skip => {
                skip = false;
                true
            }
            (true, '\\') => {
                skip = true;
                true
            }
            (_, '"') => {
                string = !string;
                true
            }
            (true, char) => char >= ' ',
            (false, '{' | '[') => {
                open.push(char);
                open.len() <= DEPTH
            }
            (false, '}') => open.pop() == Some('{'),
            (false, ']') => open.pop() == Some('['),
            (false, char) => char.is_ascii_alphanumeric() || ":,-+. \t\r\n".contains(char),
        };
        if !good {
            return Err(at);
        }
        let end = at + char.len_utf8();
        if open.is_empty() {
            return calls(&text[..end], names).map(|calls| (end, calls)).ok_or(end);
        }
        if bare && !begins_call(&text[..end]) {
            // A mark may begin right behind the bracket.
            return Err(1);
        }
    }
    Err(text.len())
}

fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "<tool",
        "[TOOL_",
        "<|p",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        ";",
        ",",
        " ",
        "\n",
        "x",
        "é",
        "name",
        "{\"name\":\"f\"}",
        "{\"name\": \"look_up\", \"arguments\": {\"q\": \"a}b\\\"c\"}}",
        "{\"name\":\"g\"}",
        "[{\"name\":\"f\",\"parameters\":{}}]",
        "{\"a\":[1,{}]}",
        "\"name\":",
        "\"f\"",
    ]);
    prop::collection::vec(fragment, 0..14).prop_map(|all| all.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_is_told_as_if_it_came_at_once(whole in fragments(), cuts in any::<[u8; 4]>()) {
        prop_assume!(whole.len() - whole.trim_start().len() < LEAD_BYTES / 2);
        let wanted = reference(&whole);
        prop_assert_eq!(&told(&[&whole], true), &wanted, "{}", whole);
        let chars: Vec<String> = whole.chars().map(String::from).collect();
        let ones: Vec<&str> = chars.iter().map(String::as_str).collect();
        prop_assert_eq!(&told(&ones, true), &wanted, "{}", whole);
        let ends = ones.len() + 1;
        let mut at: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % ends).collect();
        at.extend([0, ones.len()]);
        at.sort_unstable();
        let pieces: Vec<String> = at.windows(2).map(|two| ones[two[0]..two[1]].concat()).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        prop_assert_eq!(&told(&pieces, true), &wanted, "{}", whole);
    }

    #[test]
    fn text_without_calls_is_never_lost(whole in "[a-z<>\\[\\]{}|_ \n\"TOL]{0,60}") {
        prop_assume!(whole.len() - whole.trim_start().len() < LEAD_BYTES / 2);
        let wanted: Vec<Told> = if whole.is_empty() { vec![] } else { vec![text(&whole)] };
        prop_assert_eq!(told(&[&whole], true), wanted);
    }
}
