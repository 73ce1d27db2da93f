use super::*;

/// A grammar as text again, with everything in parentheses.
fn told(gbnf: &Gbnf) -> Vec<String> {
    fn node(gbnf: &Gbnf, id: NodeId) -> String {
        let several = |all: &[NodeId], between: &str| {
            let all: Vec<String> = all.iter().map(|id| node(gbnf, *id)).collect();
            format!("({})", all.join(between))
        };
        match &gbnf.nodes[id] {
            Node::Text(text) => format!("{text:?}"),
            Node::Set(spans) => format!("{spans:?}"),
            Node::Rule(rule) => gbnf.rules[*rule].name.clone(),
            Node::Row(parts) => several(parts, " "),
            Node::Any(options) => several(options, " | "),
            Node::Repeat(inner, least, most) => {
                let most = most.map_or(String::new(), |most| most.to_string());
                format!("{}{{{least},{most}}}", node(gbnf, *inner))
            }
        }
    }
    let line = |rule: &Rule| format!("{} {} {}", rule.line, rule.name, node(gbnf, rule.body));
    gbnf.rules.iter().map(line).collect()
}

fn one(body: &str) -> String {
    let text = format!("root ::= {body}");
    let read = Gbnf::read(&text).unwrap_or_else(|error| panic!("{body}: {error}"));
    told(&read)[0].strip_prefix("1 root ").expect("its name").to_owned()
}

fn error(text: &str) -> String {
    match Gbnf::read(text) {
        Err(error) => error.to_string(),
        Ok(read) => panic!("{text:.80} must be refused: {:?}", told(&read)),
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    for (body, read) in [
        (r#""a""#, r#""a""#),
        (r#""a" "b"|"c""#, r#"(("a" "b") | "c")"#),
        (r#""""#, "()"),
        (r#""a" | "#, r#"("a" | ())"#),
        (r#"("a" | ("b"))"#, r#"("a" | "b")"#),
        (r#""ab"* "c"+ "d"?"#, r#"("ab"{0,} "c"{1,} "d"{0,1})"#),
        (r#""a"{3} "b"{2,} "c"{ 0 , 4 }"#, r#"("a"{3,3} "b"{2,} "c"{0,4})"#),
        (r#""a"{0} "b""#, r#"(() "b")"#),
        (r#""a" * ?"#, r#""a"{0,}{0,1}"#),
        ("root?", "root{0,1}"),
        (r#""\n\t\r\\\"\[\]\x41\u00e9\U0001F600\-""#, r#""\n\t\r\\\"[]Aé😀-""#),
        ("[a-z]", "[('a', 'z')]"),
        ("[a-cb-d_x-]", "[('-', '-'), ('_', '_'), ('a', 'd'), ('x', 'x')]"),
        (r"[\]\\\x61]", r"[('\\', ']'), ('a', 'a')]"),
        ("[^b-y]", "[('\\0', 'a'), ('z', '\\u{10ffff}')]"),
        ("[^]", "[('\\0', '\\u{10ffff}')]"),
        (".", "[('\\0', '\\u{10ffff}')]"),
        ("[\u{d7ff}\u{e000}]", "[('\\u{d7ff}', '\\u{e000}')]"),
        ("[^\\x00-\u{d7ff}]", "[('\\u{e000}', '\\u{10ffff}')]"),
    ] {
        assert_eq!(one(body), read, "{body}");
    }
}

#[test]
fn lines_end_rules_but_not_everywhere() {
    let text = "# begins\r\nroot ::=\n  a # the first\n  | \"x\" (\n    b # inside\n    a\n  )*\n\n\
                a ::= \"(\" a \")\"\n    | b\nb-1 ::= [\n]\nb ::= \"|\"";
    let read = told(&Gbnf::read(text).expect("reads"));
    assert_eq!(
        read,
        [
            "2 root (a | (\"x\" (b a){0,}))",
            "9 a ((\"(\" a \")\") | b)",
            "13 b \"|\"",
            "11 b-1 [('\\n', '\\n')]",
        ]
    );
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, words) in [
        ("", "no rule 'root'"),
        ("a ::= \"b\"", "no rule 'root'"),
        ("root ::= \"a\"\nroot ::= \"b\"", "line 2: the rule 'root' is there already, in line 1"),
        ("root ::= a\na ::= b |\n  c", "line 2: the rule 'b' is nowhere"),
        ("root ::= \"a\"\n\n?", "line 3: a rule begins with its name"),
        ("root = \"a\"", "line 1: '::='"),
        ("root ::= \"a\" )", "line 1: ')' has no place"),
        ("root ::= (\n\"a\"", "line 2: ')' is missing for the '(' of line 1, before the end"),
        ("root ::= \n\"a\n\n", "line 2: the text that begins here has no second"),
        ("root ::= [a-", "line 1: ']' is missing"),
        ("root ::= []", "line 1: no character"),
        ("root ::= [^\\x00-\\U0010ffff]", "line 1: no character"),
        ("root ::= [z-a]", "line 1: the range 'z' to 'a'"),
        ("root ::= * \"a\"", "line 1: '*' has nothing"),
        ("root ::= \"a\" | +", "line 1: '+' has nothing"),
        ("root ::= \"a\"{", "line 1: a number"),
        ("root ::= \"a\"{,3}", "line 1: a number"),
        ("root ::= \"a\"{3,2}", "line 1: {3,2}"),
        ("root ::= \"a\"{2001}", "line 1: more than 2000"),
        ("root ::= \"a\"{99999999999999999999}", "line 1: more than 2000"),
        ("root ::= \"a\"{1", "line 1: '}' is missing before the end"),
        ("root ::= \"a\"*****", "line 1: more than 4"),
        ("root ::= \"\\q\"", "line 1: '\\q'"),
        ("root ::= \"\\x4\"", "line 1: 2 hexadecimal"),
        ("root ::= \"\\xé\"", "line 1: 2 hexadecimal"),
        ("root ::= \"\\ud83d\"", "line 1: d83d is no character"),
        ("root ::= \"\\", "line 1: a backslash"),
        ("root ::= <[17]>", "line 1: tokens"),
        ("root ::= !<[17]>", "line 1: tokens"),
        ("root ::= %json{}", "line 1: '%' has no place"),
        ("root ::= /a/", "line 1: '/' has no place"),
        ("root ::= 'a'", "line 1: '\\'' has no place"),
        ("root ::= root", "line 1: the rule 'root' never ends"),
        ("root ::= \"a\" | b\nb ::= \"c\" c\nc ::= b+", "line 2: the rule 'b' never ends"),
        ("root ::= a{1,5}\na ::= a | a", "line 1: the rule 'root' never ends"),
    ] {
        let error = error(text);
        assert!(error.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn rules_that_lead_to_themselves_end_where_they_can() {
    for text in [
        "root ::= \"(\" root \")\" | \"x\"",
        "root ::= root \"x\" | \"x\"",
        "root ::= (\"x\" root)?",
        "root ::= (\"x\" root)*",
        "root ::= a | \"x\"\na ::= root",
        // Nobody comes to it.
        "root ::= \"x\"\nnever ::= never",
    ] {
        Gbnf::read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn what_grows_is_counted() {
    let rules = |count: usize| {
        let more = (0..count).map(|n| format!("\nr{n} ::= \"a\"")).collect::<String>();
        format!("root ::= \"a\"{more}")
    };
    let levels = |count: usize| format!("root ::= {}\"a\"{}", "(".repeat(count), ")".repeat(count));
    let things = |count: usize| format!("root ::= {}", "\"a\" ".repeat(count));
    for good in [rules(999), levels(48), things(19_000)] {
        assert!(Gbnf::read(&good).is_ok(), "{good:.40}");
    }
    for (bad, words) in [
        (rules(1_000), "more than 1000 rules"),
        (levels(49), "more than 48 levels"),
        (levels(100_000), "more than 48 levels"),
        (things(20_000), "more than 20000 things"),
    ] {
        assert!(error(&bad).contains(words), "{bad:.40}");
    }
}
