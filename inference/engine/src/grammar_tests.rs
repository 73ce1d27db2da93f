use std::collections::BTreeSet;
use std::sync::mpsc;

use proptest::prelude::*;
use selvedge_base::{Blame, Dice, ModelDigest, Retry};
use selvedge_contract::{
    Answer, Constraint, Emitted, Engine, FinishReason, GenerateRequest, Input, Sampling,
};

use super::*;
use crate::guide::Guide;
use crate::guide::tests::{explore, text};
use crate::testing::{
    Collected, Outlet, Temporary, Writer, collect, engine, greedy, request, temporary,
};
use crate::text::Text;
use crate::{EngineConfig, LocalEngine};

const MODEL: ModelDigest = ModelDigest([1; 32]);

/// Of llama.cpp's own `grammars/json.gbnf`.
const JSON: &str = r#"root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#;

fn guided(text: &Text, grammar: &str) -> Guide {
    let guide = text.guide(&Constraint::Grammar(grammar).to_text());
    guide.unwrap_or_else(|refusal| panic!("{grammar}: {refusal}"))
}

/// Whether a guide takes an answer byte by byte, and lets it end there.
fn takes(guide: &Guide, answer: &str) -> bool {
    let mut here = guide.fork();
    answer.bytes().all(|byte| here.begun(&[byte])) && here.may_end()
}

/// Whether an answer is one of a grammar's: a second opinion that shares nothing with the parser
/// but the rules that were read.
fn is_in(gbnf: &Gbnf, answer: &str) -> bool {
    let answer: Vec<char> = answer.chars().collect();
    let none = vec![BTreeSet::new(); answer.len() + 1];
    let mut table = vec![none; gbnf.rules.len()];
    loop {
        let mut more = false;
        for (rule, from) in (0..table.len()).flat_map(|r| (0..=answer.len()).map(move |f| (r, f))) {
            let found = ends(gbnf, gbnf.rules[rule].body, from, &answer, &table);
            more |= found.len() > table[rule][from].len();
            table[rule][from] = found;
        }
        if !more {
            return table[gbnf.root][0].contains(&answer.len());
        }
    }
}

type Table = [Vec<BTreeSet<usize>>];

/// Where a thing that begins at a place can end.
fn ends(gbnf: &Gbnf, id: NodeId, from: usize, answer: &[char], table: &Table) -> BTreeSet<usize> {
    let all = |at: &BTreeSet<usize>, id: NodeId| -> BTreeSet<usize> {
        at.iter().flat_map(|from| ends(gbnf, id, *from, answer, table)).collect()
    };
    match &gbnf.nodes[id] {
        Node::Text(text) => {
            let text: Vec<char> = text.chars().collect();
            let is = answer[from..].starts_with(&text);
            is.then_some(from + text.len()).into_iter().collect()
        }
        Node::Set(spans) => {
            let next = answer.get(from);
            let is = next.is_some_and(|one| spans.iter().any(|(a, b)| (a..=b).contains(&one)));
            is.then_some(from + 1).into_iter().collect()
        }
        Node::Rule(rule) => table[*rule][from].clone(),
        Node::Row(parts) => parts.iter().fold(BTreeSet::from([from]), |at, part| all(&at, *part)),
        Node::Any(options) => {
            options.iter().flat_map(|id| ends(gbnf, *id, from, answer, table)).collect()
        }
        Node::Repeat(inner, least, most) => {
            let (mut found, mut at) = (BTreeSet::new(), BTreeSet::from([from]));
            for count in 0.. {
                if count >= *least {
                    let before = found.len();
                    found.extend(&at);
                    if found.len() == before {
                        break;
                    }
                }
                if Some(count) == *most || at.is_empty() {
                    break;
                }
                at = all(&at, *inner);
            }
            found
        }
    }
}

/// All texts of these characters up to a length.
fn texts(of: &[char], most: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut from = 0;
    for _ in 0..most {
        let until = all.len();
        for at in from..until {
            all.extend(of.iter().map(|one| format!("{}{one}", all[at])).collect::<Vec<_>>());
        }
        from = until;
    }
    all
}

/// Holds a grammar's guide against the second opinion, on all short texts of some characters.
fn compare(grammar: &str, of: &[char], most: usize) {
    let (text, gbnf) = (text(), Gbnf::read(grammar).expect("reads"));
    let wanted: Vec<(String, bool)> =
        texts(of, most).into_iter().map(|one| (one.clone(), is_in(&gbnf, &one))).collect();
    match text.guide(&Constraint::Grammar(grammar).to_text()) {
        Ok(guide) => {
            for (one, is) in wanted {
                assert_eq!(takes(&guide, &one), is, "{one:?} of {grammar}");
            }
        }
        // Where nothing can be said there is no answer.
        Err(refusal) => {
            let said = wanted.iter().any(|(one, is)| *is && !one.is_empty());
            assert!(!said, "{grammar}: {refusal}");
        }
    }
}

const LETTERS: [char; 4] = ['a', 'b', '\u{e9}', '\u{e8}'];

/// What a rule may say, of few letters, so that one thing is often the beginning of another.
fn bodies() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => prop::sample::select(vec![
            "\"a\"", "\"b\"", "\"ab\"", "\"aba\"", "\"\u{e9}\"", "\"a\u{e8}\"", "\"\"",
        ]),
        2 => prop::sample::select(vec!["[ab]", "[^a]", "[\u{e8}-\u{e9}]", "[b\u{e9}]", "."]),
        2 => prop::sample::select(vec!["root", "x", "y"]),
    ];
    leaf.prop_map(str::to_owned).prop_recursive(4, 14, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|all| format!("({})", all.join(" "))),
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|all| format!("({})", all.join(" | "))),
            (inner, prop::sample::select(vec!["*", "+", "?", "{2}", "{1,2}", "{0,3}", "{2,}"]))
                .prop_map(|(inner, times)| format!("({inner}){times}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_grammar_means_what_its_rules_say(root in bodies(), x in bodies(), y in bodies()) {
        let grammar = format!("root ::= {root}\nx ::= {x}\ny ::= {y}");
        // Rules that never end are refused, which the parser's own tests are about.
        if Gbnf::read(&grammar).is_ok() {
            compare(&grammar, &LETTERS, 4);
        }
    }

    #[test]
    fn it_means_the_same_where_it_is_cut_to_characters(root in bodies(), x in bodies()) {
        let grammar = format!("root ::= {root}\nx ::= {x} | \"b\"\ny ::= \"a\" root? \"b\"");
        let Ok(gbnf) = Gbnf::read(&grammar) else { return Ok(()) };
        let (lexer, drafted) = cut(&gbnf, 0).expect("is cut");
        let built = built(lexer, &drafted.terminals, &drafted.rules, u64::MAX);
        prop_assert!(built.is_ok());
        let one = |part: &Part| match part {
            Part::Row(parts) => {
                let set = |id: &NodeId| matches!(gbnf.nodes[*id], Node::Set(_));
                parts.len() == 1 && parts.iter().all(set)
            }
            Part::Any(_) => false,
            Part::Character(_) => true,
        };
        prop_assert!(drafted.terminals.iter().all(|terminal| one(&terminal.part)), "{grammar}");
    }

    #[test]
    fn whatever_is_drawn_is_of_the_grammar(root in bodies(), x in bodies(), seed in any::<u64>()) {
        let grammar = format!("root ::= {root}\nx ::= {x} | \"b\"\ny ::= \"a\" root? \"b\"");
        let Ok(gbnf) = Gbnf::read(&grammar) else { return Ok(()) };
        let text = text();
        let Ok(mut guide) = text.guide(&Constraint::Grammar(&grammar).to_text()) else {
            return Ok(());
        };
        if let Some(answer) = drawn(&text, &mut guide, seed, 20) {
            prop_assert!(is_in(&gbnf, &answer), "{answer:?} of {grammar}");
        }
    }
}

/// An answer drawn evenly from everything the guide allows, if it ends within so many tokens.
fn drawn(text: &Text, guide: &mut Guide, seed: u64, most: usize) -> Option<String> {
    let logits = vec![0.0; text.tokenizer.len()];
    let (mut dice, mut bytes) = (Dice::keyed(seed, "evenly"), Vec::new());
    let whole = |bytes: Vec<u8>| Some(String::from_utf8(bytes).expect("whole characters"));
    for _ in 0..most {
        // A grammar that says one thing in many ways comes to the bounds of a step.
        let Ok(ruled) = guide.rule(&logits) else { return None };
        let Some(ruled) = ruled else { return whole(bytes) };
        let allowed: Vec<u32> =
            (0u32..).zip(&ruled).filter(|(_, logit)| logit.is_finite()).map(|(t, _)| t).collect();
        let token = allowed[dice.below(allowed.len() as u64) as usize];
        if text.tokenizer.ends_answer(token) {
            return whole(bytes);
        }
        bytes.extend_from_slice(text.tokenizer.shown(token));
        guide.push(token).expect("it was allowed");
        if guide.is_over() {
            return whole(bytes);
        }
    }
    None
}

/// Where the longest terminal is not the one that is meant, or is.
#[test]
fn what_is_longest_is_not_always_meant() {
    for (grammar, of) in [
        // Without recursion everything is one terminal.
        ("root ::= \"a\" (\"a\" | \"aab\")* \"a\" \"b\"?", "ab"),
        ("root ::= w w\nw ::= \"a\" | \"ab\" | \"b\"", "ab"),
        // One that goes on where another one follows.
        ("root ::= \"(\" root \")\" | w w\nw ::= \"a\" | \"ab\"", "ab()"),
        ("root ::= s \"x\" (root s)?\ns ::= \" \"*", " x"),
        ("root ::= (\"a\"+ | \"b\" root \"a\")*", "ab"),
        ("root ::= a (\"b\" root)? a\na ::= \"a\"{1,2}", "ab"),
        // Names and words: both are taken, and what follows tells.
        ("root ::= e\ne ::= \"if \" e | n | \"(\" e \")\"\nn ::= [f-i]+", "if ("),
        ("root ::= n (\"-\" root)?\nn ::= \"ab\" | [a-b]+", "ab-"),
        // Characters that begin with the same byte.
        ("root ::= \"a\" \"\u{e9}\"? root? \"\u{e8}\"?", "a\u{e9}\u{e8}"),
        ("root ::= [\u{e8}]+ root? [\u{e9}]", "\u{e9}\u{e8}"),
        // To the left, around, and of nothing.
        ("root ::= root \"a\" | root \"b\" root | \"a\"", "ab"),
        ("root ::= x | y\nx ::= y | \"a\"\ny ::= x | \"b\" x", "ab"),
        ("root ::= x x\nx ::= (\"a\" | \"\")* root?", "ab"),
        ("root ::= \"\" | \"a\" root", "ab"),
    ] {
        compare(grammar, &of.chars().collect::<Vec<_>>(), 5);
    }
}

/// Numbers of repetitions where the parser counts, since what is repeated leads to itself.
#[test]
fn repetitions_of_what_leads_to_itself_are_counted() {
    let text = text();
    for (least, most) in [(0, 1), (1, 1), (2, 2), (0, 2), (0, 7), (3, 5), (1, 12), (5, 6), (4, 4)] {
        let grammar = format!("root ::= x{{{least},{most}}} \".\"\nx ::= \"a\" | \"(\" x \")\"");
        let guide = guided(&text, &grammar);
        for count in 0..most + 3 {
            let answer = format!("{}.", "a".repeat(count));
            assert_eq!(
                takes(&guide, &answer),
                (least..=most).contains(&count),
                "{grammar} {count}"
            );
        }
    }
    let guide = guided(&text, "root ::= x{1000,} \".\"\nx ::= \"a\" | \"(\" x \")\"");
    for (count, is) in [(999, false), (1_000, true), (1_003, true)] {
        assert_eq!(takes(&guide, &format!("{}.", "a".repeat(count))), is, "{count}");
    }
}

#[test]
fn a_grammar_that_people_use_keeps_its_terminals() {
    let gbnf = Gbnf::read(JSON).expect("reads");
    let (_, drafted) = cut(&gbnf, lexing::MAX_WORK).expect("is cut");
    let cut = drafted.terminals.iter().any(|one| matches!(one.part, Part::Character(_)));
    assert!(!cut && drafted.terminals.len() < 24, "{:?}", drafted.terminals);
    let text = text();
    for seed in 0..12 {
        let mut guide = guided(&text, JSON);
        if let Some(answer) = drawn(&text, &mut guide, seed, 400) {
            serde_json::from_str::<serde::de::IgnoredAny>(&answer).expect(&answer);
            assert!(answer.len() > 80 || is_in(&gbnf, &answer), "{answer}");
        }
    }
    let guide = guided(&text, JSON);
    for (answer, is) in [
        (r#"{"a":[1,-2.5e+3,"\u00e9 \n"],"b":{"c":null}}"#, true),
        (r#"{ "a": [true, {}], "b": [] } "#, true),
        (r#"{"a":[1,"b":2]}"#, false),
        (r#"{"a":01x}"#, false),
        (r#"{"a" 1}"#, false),
    ] {
        assert_eq!(takes(&guide, answer), is, "{answer}");
    }
}

#[test]
fn regular_expressions_match_the_whole_answer() {
    let text = text();
    for (regex, good, bad) in [
        (r"[a-c]+", "abc", "abd"),
        (r"^\d{4}-\d{2}-\d{2}$", "2024-05-06", "2024-5-06"),
        (r"(yes|no|maybe not)", "maybe not", "maybe"),
        (r"(?i)a\u{e9}?", "A\u{c9}", "b"),
        (r"[a-z]+@[a-z]+\.com", "a@b.com", "a@b.org"),
        (r"a?", "", "b"),
        (r"(a|b)*a(a|b){3}", "babab", "abbbb"),
    ] {
        let held = Constraint::Regex(regex).to_text();
        let guide = text.guide(&held).unwrap_or_else(|refusal| panic!("{regex}: {refusal}"));
        assert!(takes(&guide, good), "{regex} {good}");
        assert!(!takes(&guide, bad), "{regex} {bad}");
    }
}

#[test]
fn one_of_the_choices_is_answered_and_ends() {
    let text = text();
    let choices = ["red", "reddish", "green \"x\"", "\u{e9}t\u{e9}"];
    let held = serde_json::to_string(&choices).unwrap();
    let held = Constraint::Choice(&held).to_text();
    let guide = text.guide(&held).expect("compiles");
    for one in choices {
        assert!(takes(&guide, one), "{one}");
    }
    for other in ["", "re", "redd", "greenish", "redred"] {
        assert!(!takes(&guide, other), "{other}");
    }
    for seed in 0..20 {
        let answer = drawn(&text, &mut text.guide(&held).expect("is known"), seed, 40);
        assert!(answer.is_some_and(|answer| choices.contains(&answer.as_str())));
    }
    let mut guide = guide.fork();
    assert!(guide.begun(b"reddish") && guide.is_over(), "nothing can follow");
}

#[test]
fn what_cannot_be_held_to_is_named() {
    let text = text();
    let (grammar, regex, choice) =
        ("grammar", "structured_outputs.regex", "structured_outputs.choice");
    let long = "a".repeat(MAX_REGEX_BYTES + 1);
    let many = serde_json::to_string(&vec!["a"; MAX_CHOICES + 1]).unwrap();
    let large = format!("root ::= \"{}\"", "a".repeat(64 << 10));
    for (held, param, word) in [
        (Constraint::Grammar("root ::= a"), grammar, "line 1: the rule 'a'"),
        (Constraint::Grammar("root ::= root"), grammar, "never ends"),
        (Constraint::Grammar("start: \"a\""), grammar, "line 1"),
        (Constraint::Grammar(&large), grammar, "65536 are possible"),
        (Constraint::Regex("(?=a)b"), regex, "look-around"),
        (Constraint::Regex("a^b"), regex, "anchors"),
        (Constraint::Regex(r"\bword\b"), regex, "anchors"),
        (Constraint::Regex(r"(a)\1"), regex, "backreference"),
        (Constraint::Regex("(a"), regex, "unclosed"),
        (Constraint::Regex("(?P<stop>a)"), regex, "stop"),
        (Constraint::Regex("(?<stop>a)"), regex, "stop"),
        (Constraint::Regex("[a&&b]"), regex, "no text"),
        (Constraint::Regex(&long), regex, "4096 are possible"),
        (Constraint::Choice("[]"), choice, "0 texts"),
        (Constraint::Choice("[1]"), choice, "string"),
        (Constraint::Choice(&many), choice, "4000 are possible"),
    ] {
        let refusal = text.guide(&held.to_text()).err();
        let refusal = refusal.unwrap_or_else(|| panic!("{held:.80?} must be refused"));
        assert_eq!((refusal.blame, refusal.retry), (Blame::Client, Retry::Never), "{refusal}");
        assert_eq!(refusal.param.as_deref(), Some(param), "{refusal}");
        assert!(refusal.message.contains(word), "{word}: {refusal}");
        assert!(refusal.message.chars().count() < 500, "{refusal}");
    }
    let newer = text.guide("#lark\nstart: \"a\"").err().expect("is not known here");
    assert_eq!(newer.retry, Retry::Elsewhere);
}

/// Each is refused, or compiled and answered, within bounds.
#[test]
fn hostile_grammars_are_bounded() {
    let text = text();
    let doubling = (0..60).fold("root ::= r0\n".to_owned(), |all, n| {
        format!("{all}r{n} ::= r{0} r{0} | \"a\"\n", n + 1)
    }) + "r60 ::= \"b\"";
    let names =
        (0..1_500).map(|n| format!("\"name_{n}_{}\"", n * 7)).collect::<Vec<_>>().join(" | ");
    // Rules that are empty have no places to count.
    let empty = (0..60)
        .fold("root ::= x root | \"b\"\nx ::= a60 \"c\"\na0 ::= \"\"\n".to_owned(), |all, n| {
            format!("{all}a{} ::= a{n} a{n}\n", n + 1)
        });
    // A bracket of many parts, in many places.
    let wide: String = (0..15_000).filter_map(|n| char::from_u32(0x800 + 2 * n)).collect();
    let doubled = (0..12)
        .fold(format!("x0 ::= [{wide}]\n"), |all, n| format!("{all}x{} ::= x{n} x{n}\n", n + 1));
    let options = (0..60).map(|n| format!("x12 x11 \"{n}\"")).collect::<Vec<_>>().join(" | ");
    for grammar in [
        doubling,
        empty,
        format!("{doubled}root ::= ({options}) root | \"b\""),
        format!("root ::= {}", "\"a\"? ".repeat(5_000)),
        format!("root ::= \"(\" root \")\" | {}", "\"a\"? ".repeat(2_000)),
        format!("root ::= \"(\" root \")\" | {}", "[ab]* ".repeat(300)),
        format!("root ::= \"(\" root \")\" | {names}"),
        format!("root ::= n \"(\" root \")\" | n\nn ::= {names}"),
        "root ::= ((((\"a\"{2000}){2000}){2000}){2000} root?)".to_owned(),
        "root ::= ((((\"a\"?){2000}){2000}){2000} root?)".to_owned(),
        "root ::= (root | \"a\"){2000}".to_owned(),
        "root ::= root root root | root* | \"a\"? | \"\"".to_owned(),
        "root ::= ([ab]* \"a\" [ab]{200} | \"(\" root \")\")".to_owned(),
        "root ::= ([ab]* \"a\" [ab] [ab] [ab] [ab] [ab] [ab] [ab] [ab] [ab] [ab] [ab] [ab] [ab] \
         [ab] [ab] [ab] [ab] [ab] [ab] [ab] [ab] [ab] [ab] [ab] | root \"c\")+"
            .to_owned(),
        format!("root ::= {}\"a\"{} | root", "(".repeat(48), ")*".repeat(48)),
        format!("root ::= . root? {}", "| . . root ".repeat(800)),
    ] {
        let held = Constraint::Grammar(&grammar).to_text();
        match text.guide(&held) {
            Err(refusal) => assert_eq!(refusal.blame, Blame::Client, "{grammar:.80}: {refusal}"),
            Ok(mut guide) => explore(&text, &mut guide, 100),
        }
    }
}

fn with_tiny() -> (LocalEngine, Temporary) {
    let file = temporary(&Writer::tiny(1).bytes());
    let engine = engine(EngineConfig { threads: 1, ..EngineConfig::default() });
    engine.add_model(file.path(), "tiny", MODEL).expect("a model");
    (engine, file)
}

/// A sum of some numbers, with parentheses.
const SUM: &str = "root ::= term (\" + \" term){1,3}\nterm ::= [0-9]{1,3} | \"(\" sub \")\"\n\
                   sub ::= [0-9] (\"*\" term)?";

fn summed(id: u128, seed: u64) -> GenerateRequest {
    let sampling = Sampling { temperature: 1.5, seed, top_p: 0.95, ..greedy() };
    let schema = Some(Constraint::Grammar(SUM).to_text());
    let input = Input::Text("once upon a time".to_owned());
    GenerateRequest { sampling, schema, max_tokens: 300, ..request(id, MODEL, input) }
}

fn answer(engine: &LocalEngine, request: GenerateRequest) -> Collected {
    let (sender, receiver): (_, mpsc::Receiver<Answer>) = mpsc::channel();
    engine.submit("acme", request, Box::new(Outlet(sender))).expect("submitted");
    collect(&receiver)
}

#[test]
fn a_model_that_knows_nothing_answers_to_the_grammar() {
    let (engine, _file) = with_tiny();
    let gbnf = Gbnf::read(SUM).expect("reads");
    let answers = (0..8).map(|seed| summed(seed.into(), seed));
    let greediest = GenerateRequest { sampling: greedy(), ..summed(9, 0) };
    let mut whole = 0;
    for request in answers.chain([greediest]) {
        let all = answer(&engine, request);
        // One that goes deeper and deeper is cut, as any other is.
        if all.finished.expect("finished").0 == FinishReason::Stop {
            whole += 1;
            assert!(is_in(&gbnf, &all.text()), "{}", all.text());
        }
    }
    assert!(whole > 0, "none of nine came to an end");
}

#[test]
fn a_grammar_that_cannot_be_held_to_fails_its_request_alone() {
    let (engine, _file) = with_tiny();
    let schema = Some(Constraint::Grammar("root ::= never").to_text());
    let refusal = answer(&engine, GenerateRequest { schema, ..summed(1, 1) }).failed;
    let refusal = refusal.expect("refused");
    assert_eq!((refusal.blame, refusal.param.as_deref()), (Blame::Client, Some("grammar")));
    assert!(answer(&engine, summed(2, 1)).finished.is_some());
}

#[test]
fn an_answer_without_an_end_of_its_own_is_cut() {
    let (engine, _file) = with_tiny();
    let schema = Some(Constraint::Grammar("root ::= [a-z]{100,}").to_text());
    let all = answer(&engine, GenerateRequest { schema, max_tokens: 9, ..summed(1, 1) });
    assert_eq!(all.finished.expect("finished").0, FinishReason::Length);
    assert!(all.text().bytes().all(|byte| byte.is_ascii_lowercase()), "{}", all.text());
}

#[test]
fn another_node_goes_on_within_the_grammar() {
    let (engine, _file) = with_tiny();
    let whole = answer(&engine, summed(1, 4));
    assert!(whole.tokens.len() > 1, "{}", whole.text());
    for split in [1, whole.tokens.len() / 2, whole.tokens.len() - 1] {
        let emitted =
            Emitted { tokens: whole.ids()[..split].to_vec(), prompt_digest: whole.digest };
        let rest = answer(&engine, GenerateRequest { emitted: Some(emitted), ..summed(2, 4) });
        assert_eq!(rest.ids(), whole.ids()[split..], "continued after {split}");
        assert_eq!(rest.finished.map(|f| f.0), whole.finished.map(|f| f.0));
    }
}
