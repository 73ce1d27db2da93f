//! Grammars in GBNF, the notation of llama.cpp, read into rules.
//!
//! Owns the notation and its bounds, and that every rule has an end. All of it comes from callers,
//! so that each thing that grows is counted while it is read, and what is wrong is told with its
//! line. Does not own what becomes of the rules: that is `grammar`. Source: llama.cpp's
//! `grammars/README.md` and its parser; beyond it, options may stand on lines of their own, and any
//! ASCII punctuation may stand behind a backslash for itself.

use std::collections::BTreeMap;
use std::ops::Range;

use thiserror::Error;

/// Rules of one grammar: those of programming languages have some hundred.
const MAX_RULES: usize = 1_000;
/// Things in all rules. What works on them goes over all of them once for each rule at worst.
const MAX_NODES: usize = 20_000;
/// Levels of parentheses; they are read on the stack, and people write some five.
const MAX_LEVELS: usize = 48;
/// Repetitions of one thing that stand behind each other, as in `a*?`. One is what anybody means.
const MAX_CHAIN: usize = 4;
/// The largest number of repetitions, which is llama.cpp's.
const MAX_COUNT: u32 = 2_000;
/// Characters of what is wrong that are shown.
const SHOWN_CHARS: usize = 60;

/// A thing in a rule, by its place among all.
pub(crate) type NodeId = usize;

/// Characters from the first to the last, both of them in.
pub(crate) type Span = (char, char);

/// One thing in a rule. What it is made of stands before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// These characters, at least one.
    Text(String),
    /// One character of these: in order, apart from each other, at least one.
    Set(Vec<Span>),
    /// What a rule says.
    Rule(usize),
    /// One after the other; nothing where there are none.
    Row(Vec<NodeId>),
    /// One of these.
    Any(Vec<NodeId>),
    /// So many times at least, and at most.
    Repeat(NodeId, u32, Option<u32>),
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// Where it stands, from 1.
    pub(crate) line: usize,
    pub(crate) body: NodeId,
    /// Everything in it.
    pub(crate) nodes: Range<NodeId>,
}

/// A grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gbnf {
    pub(crate) nodes: Vec<Node>,
    pub(crate) rules: Vec<Rule>,
    /// The rule that an answer is.
    pub(crate) root: usize,
}

/// What is wrong with a grammar.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrammarError {
    /// Something in a line.
    #[error("line {line}: {what}")]
    At {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The grammar as a whole.
    #[error("{0}")]
    Whole(&'static str),
}

/// How many rules a grammar has and things in them, for whoever only wants to know whether it can
/// be read.
///
/// # Errors
/// What is wrong with it.
pub fn inspect_grammar(text: &str) -> Result<(usize, usize), GrammarError> {
    let read = Gbnf::read(text)?;
    Ok((read.rules.len(), read.nodes.len()))
}

impl Gbnf {
    /// Reads a grammar.
    pub(crate) fn read(text: &str) -> Result<Self, GrammarError> {
        let mut reader = Reader::new(text);
        reader.space(true);
        while reader.peek().is_some() {
            reader.rule()?;
            reader.space(true);
        }
        let read = reader.finish()?;
        read.check_ends()?;
        Ok(read)
    }

    /// Refuses rules that never end, wherever an answer can come to them: it would not end either.
    fn check_ends(&self) -> Result<(), GrammarError> {
        let (mut ends, mut good) = (vec![false; self.rules.len()], vec![false; self.nodes.len()]);
        let reached = self.reached();
        loop {
            let mut more = false;
            for (at, rule) in self.rules.iter().enumerate() {
                if ends[at] || !reached[at] {
                    continue;
                }
                for id in rule.nodes.clone() {
                    good[id] = match &self.nodes[id] {
                        Node::Text(_) | Node::Set(_) => true,
                        Node::Rule(rule) => ends[*rule],
                        Node::Row(parts) => parts.iter().all(|part| good[*part]),
                        Node::Any(options) => options.iter().any(|option| good[*option]),
                        Node::Repeat(inner, least, _) => *least == 0 || good[*inner],
                    };
                }
                ends[at] = good[rule.body];
                more |= ends[at];
            }
            if !more {
                break;
            }
        }
        match self.rules.iter().enumerate().find(|(at, _)| reached[*at] && !ends[*at]) {
            None => Ok(()),
            Some((_, rule)) => {
                let what = format!("the rule '{}' never ends", shown(&rule.name));
                Err(GrammarError::At { line: rule.line, what })
            }
        }
    }

    /// Which rules an answer can come to.
    fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; self.rules.len()];
        let mut todo = vec![self.rules[self.root].body];
        reached[self.root] = true;
        while let Some(id) = todo.pop() {
            match &self.nodes[id] {
                Node::Text(_) | Node::Set(_) => {}
                Node::Rule(rule) => {
                    if !std::mem::replace(&mut reached[*rule], true) {
                        todo.push(self.rules[*rule].body);
                    }
                }
                Node::Row(parts) | Node::Any(parts) => todo.extend(parts),
                Node::Repeat(inner, ..) => todo.push(*inner),
            }
        }
        reached
    }
}

/// A rule's name, where it was met first, and the rule once it was read.
struct Named {
    name: String,
    line: usize,
    rule: Option<Rule>,
}

struct Reader<'t> {
    text: &'t str,
    /// Bytes that were read.
    at: usize,
    line: usize,
    levels: usize,
    nodes: Vec<Node>,
    named: Vec<Named>,
    numbers: BTreeMap<&'t str, usize>,
}

type Read<T> = Result<T, GrammarError>;

impl<'t> Reader<'t> {
    const fn new(text: &'t str) -> Self {
        let numbers = BTreeMap::new();
        Self { text, at: 0, line: 1, levels: 0, nodes: Vec::new(), named: Vec::new(), numbers }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        self.line += usize::from(next == '\n');
        Some(next)
    }

    /// Takes the next character if it is this one.
    fn eat(&mut self, wanted: char) -> bool {
        let is = self.peek() == Some(wanted);
        if is {
            self.bump();
        }
        is
    }

    /// Skips white space and comments, over the ends of lines where `lines` says so.
    fn space(&mut self, lines: bool) {
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' => {}
                '\r' | '\n' if lines => {}
                '#' => {
                    let rest = &self.text[self.at..];
                    // The end of the line is not part of the comment.
                    self.at += rest.find(['\r', '\n']).unwrap_or(rest.len());
                    continue;
                }
                _ => return,
            }
            self.bump();
        }
    }

    fn wrong(&self, what: impl Into<String>) -> GrammarError {
        GrammarError::At { line: self.line, what: what.into() }
    }

    /// What stands here, to be named.
    fn here(&self) -> String {
        self.peek().map_or_else(|| "the end".to_owned(), |next| format!("{next:?}"))
    }

    fn add(&mut self, node: Node) -> Read<NodeId> {
        if self.nodes.len() >= MAX_NODES {
            return Err(self.wrong(format!("more than {MAX_NODES} things in all rules")));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// The number of the rule of this name.
    fn number(&mut self, name: &'t str) -> Read<usize> {
        if let Some(known) = self.numbers.get(name) {
            return Ok(*known);
        }
        let next = self.named.len();
        if next >= MAX_RULES {
            return Err(self.wrong(format!("more than {MAX_RULES} rules")));
        }
        self.named.push(Named { name: name.to_owned(), line: self.line, rule: None });
        self.numbers.insert(name, next);
        Ok(next)
    }

    /// A name, which may be empty.
    fn name(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let name = &rest[..rest.find(|next| !is_word(next)).unwrap_or(rest.len())];
        self.at += name.len();
        name
    }

    fn rule(&mut self) -> Read<()> {
        let line = self.line;
        let name = self.name();
        if name.is_empty() {
            return Err(self.wrong(format!("a rule begins with its name, not {}", self.here())));
        }
        let number = self.number(name)?;
        self.space(false);
        if !self.text[self.at..].starts_with("::=") {
            let what = format!("'::=' comes after the rule's name '{}'", shown(name));
            return Err(self.wrong(what));
        }
        self.at += "::=".len();
        self.space(true);
        let from = self.nodes.len();
        let body = self.options(false)?;
        if !matches!(self.peek(), None | Some('\r' | '\n')) {
            return Err(self.wrong(format!("{} has no place here", self.here())));
        }
        let nodes = from..self.nodes.len();
        let rule = Rule { name: name.to_owned(), line, body, nodes };
        let place = &mut self.named[number].rule;
        if let Some(before) = place {
            let (name, first) = (shown(name), before.line);
            let what = format!("the rule '{name}' is there already, in line {first}");
            return Err(GrammarError::At { line, what });
        }
        *place = Some(rule);
        Ok(())
    }

    /// Options, to the end of the rule or of the parentheses.
    fn options(&mut self, nested: bool) -> Read<NodeId> {
        let first = self.row(nested)?;
        let mut options = vec![first];
        while self.another(nested) {
            self.space(true);
            options.push(self.row(nested)?);
        }
        match options.len() {
            1 => Ok(first),
            _ => self.add(Node::Any(options)),
        }
    }

    /// Whether another option follows, which may be on a line of its own.
    fn another(&mut self, nested: bool) -> bool {
        let before = (self.at, self.line);
        if !nested {
            self.space(true);
        }
        let follows = self.eat('|');
        if !follows {
            (self.at, self.line) = before;
        }
        follows
    }

    fn row(&mut self, nested: bool) -> Read<NodeId> {
        let mut parts = Vec::new();
        while let Some(next) = self.peek() {
            let part = match next {
                '"' => self.literal()?,
                '[' => self.class()?,
                '(' => self.group()?,
                '.' => {
                    self.bump();
                    self.add(Node::Set(vec![('\0', char::MAX)]))?
                }
                '*' | '+' | '?' | '{' => {
                    return Err(self.wrong(format!("'{next}' has nothing before it to repeat")));
                }
                '<' | '!' => return Err(self.wrong("tokens cannot be named here, only text")),
                next if is_word(next) => {
                    let name = self.name();
                    let number = self.number(name)?;
                    self.add(Node::Rule(number))?
                }
                _ => break,
            };
            self.space(nested);
            parts.push(self.repeated(part, nested)?);
        }
        match parts.as_slice() {
            [one] => Ok(*one),
            _ => self.add(Node::Row(parts)),
        }
    }

    fn group(&mut self) -> Read<NodeId> {
        let line = self.line;
        self.bump();
        self.levels += 1;
        if self.levels > MAX_LEVELS {
            return Err(self.wrong(format!("more than {MAX_LEVELS} levels of parentheses")));
        }
        self.space(true);
        let inner = self.options(true)?;
        if !self.eat(')') {
            let what = format!("')' is missing for the '(' of line {line}, before {}", self.here());
            return Err(self.wrong(what));
        }
        self.levels -= 1;
        Ok(inner)
    }

    /// The repetitions behind a thing.
    fn repeated(&mut self, mut part: NodeId, nested: bool) -> Read<NodeId> {
        for count in 0.. {
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.counts()?,
                _ => break,
            };
            if count == MAX_CHAIN {
                let what = format!("more than {MAX_CHAIN} repetitions of one thing");
                return Err(self.wrong(what));
            }
            // The last one of the counts is its closing brace.
            self.bump();
            self.space(nested);
            part = match most {
                Some(0) => self.add(Node::Row(Vec::new()))?,
                _ => self.add(Node::Repeat(part, least, most))?,
            };
        }
        Ok(part)
    }

    /// `{m}`, `{m,}` or `{m,n}`, up to the brace that closes it.
    fn counts(&mut self) -> Read<(u32, Option<u32>)> {
        self.bump();
        self.space(false);
        let least = self.count()?;
        self.space(false);
        let mut most = Some(least);
        if self.eat(',') {
            self.space(false);
            most = match self.peek() {
                Some('}') => None,
                _ => Some(self.count()?),
            };
            self.space(false);
        }
        if self.peek() != Some('}') {
            return Err(self.wrong(format!("'}}' is missing before {}", self.here())));
        }
        match most {
            Some(most) if most < least => {
                Err(self.wrong(format!("{{{least},{most}}}: the second number is the larger one")))
            }
            most => Ok((least, most)),
        }
    }

    fn count(&mut self) -> Read<u32> {
        let rest = &self.text[self.at..];
        let digits = &rest[..rest.find(|next: char| !next.is_ascii_digit()).unwrap_or(rest.len())];
        self.at += digits.len();
        if digits.is_empty() {
            return Err(self.wrong(format!("a number belongs before {}", self.here())));
        }
        match digits.parse() {
            Ok(count) if count <= MAX_COUNT => Ok(count),
            _ => Err(self.wrong(format!("more than {MAX_COUNT} repetitions"))),
        }
    }

    fn literal(&mut self) -> Read<NodeId> {
        let line = self.line;
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                Some('"') => break,
                Some('\\') => text.push(self.escaped()?),
                Some(next) => text.push(next),
                None => {
                    let what = "the text that begins here has no second '\"'".to_owned();
                    return Err(GrammarError::At { line, what });
                }
            }
        }
        match text.is_empty() {
            true => self.add(Node::Row(Vec::new())),
            false => self.add(Node::Text(text)),
        }
    }

    fn class(&mut self) -> Read<NodeId> {
        let line = self.line;
        self.bump();
        let negated = self.eat('^');
        let mut spans = Vec::new();
        while !self.eat(']') {
            let first = self.member(line)?;
            let ranges = self.text[self.at..].strip_prefix('-').is_some_and(|rest| {
                // One at the end stands for itself.
                !rest.starts_with(']')
            });
            let mut last = first;
            if ranges {
                self.bump();
                last = self.member(line)?;
            }
            if last < first {
                let what = format!("the range {first:?} to {last:?} is the wrong way round");
                return Err(self.wrong(what));
            }
            spans.push((first, last));
        }
        let mut spans = joined(spans);
        if negated {
            spans = others(&spans);
        }
        if spans.is_empty() {
            return Err(self.wrong("no character is in these brackets"));
        }
        self.add(Node::Set(spans))
    }

    fn member(&mut self, line: usize) -> Read<char> {
        match self.bump() {
            Some('\\') => self.escaped(),
            Some(next) => Ok(next),
            None => {
                let what = "']' is missing for the '[' of this line".to_owned();
                Err(GrammarError::At { line, what })
            }
        }
    }

    /// The character behind a backslash.
    fn escaped(&mut self) -> Read<char> {
        match self.bump() {
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('x') => self.hex(2),
            Some('u') => self.hex(4),
            Some('U') => self.hex(8),
            Some(next) if next.is_ascii_punctuation() => Ok(next),
            Some(next) => Err(self.wrong(format!("'\\{}' means nothing", next.escape_default()))),
            None => Err(self.wrong("a backslash is the last character")),
        }
    }

    fn hex(&mut self, digits: usize) -> Read<char> {
        let rest = &self.text[self.at..];
        let number =
            rest.get(..digits).filter(|all| all.bytes().all(|one| one.is_ascii_hexdigit()));
        let Some(number) = number else {
            return Err(self.wrong(format!("{digits} hexadecimal digits belong here")));
        };
        self.at += digits;
        let read = u32::from_str_radix(number, 16).ok().and_then(char::from_u32);
        read.ok_or_else(|| {
            self.wrong(format!(
                "{number} is no character; those above FFFF are written \\U000HHHHH"
            ))
        })
    }

    fn finish(self) -> Read<Gbnf> {
        let root = self.numbers.get("root").copied();
        let mut rules = Vec::with_capacity(self.named.len());
        for Named { name, line, rule } in self.named {
            let Some(rule) = rule else {
                let what = format!("the rule '{}' is nowhere", shown(&name));
                return Err(GrammarError::At { line, what });
            };
            rules.push(rule);
        }
        let root =
            root.ok_or(GrammarError::Whole("there is no rule 'root', which is the answer"))?;
        Ok(Gbnf { nodes: self.nodes, rules, root })
    }
}

const fn is_word(next: char) -> bool {
    next.is_ascii_alphanumeric() || matches!(next, '-' | '_')
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS).collect()
}

/// The character after this one, without those that are halves of others.
fn after(one: char) -> Option<char> {
    match one {
        '\u{d7ff}' => Some('\u{e000}'),
        one => char::from_u32(u32::from(one) + 1),
    }
}

fn before(one: char) -> Option<char> {
    match one {
        '\u{e000}' => Some('\u{d7ff}'),
        one => u32::from(one).checked_sub(1).and_then(char::from_u32),
    }
}

/// The same characters in order, none twice.
fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for (first, last) in spans {
        match joined.last_mut() {
            Some(one) if after(one.1).is_none_or(|next| first <= next) => one.1 = one.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// All characters but these, which are in order.
fn others(spans: &[Span]) -> Vec<Span> {
    let (mut others, mut from) = (Vec::new(), Some('\0'));
    for (first, last) in spans {
        if let (Some(from), Some(to)) = (from, before(*first))
            && from <= to
        {
            others.push((from, to));
        }
        from = after(*last);
    }
    others.extend(from.map(|from| (from, char::MAX)));
    others
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "gbnf_tests.rs"]
mod tests;
