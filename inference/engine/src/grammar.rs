//! What grammars, regular expressions and lists of texts become: llguidance's own rules.
//!
//! Owns where a grammar is cut into terminals, and that this changes nothing of what it says. The
//! rules are built with llguidance's types, not through Lark: what a text of Lark can do besides
//! (`%json`, `%llguidance`, tokens by number) does not exist here.
//!
//! llguidance reads the text of an answer as terminals, each of which is a regular expression, and
//! takes the longest one. The longer the terminals, the fewer steps of its parser a token takes,
//! and a vocabulary has a hundred thousand of them. But what is the longest terminal need not be
//! the one that the rules mean. So a terminal begins as large as it can be, everything that leads
//! to no rule that leads to itself, and is opened (a row into its parts, a text into its
//! characters) wherever `lexing` finds that the longest one could be wrong. What is left has been
//! shown to be exact. In the end there are single characters, of which none is the beginning of
//! another. A grammar without such rules is one terminal, behind which nothing follows: always
//! exact.
//!
//! Depth: derivre, which computes the expressions, keeps its own stack on the heap wherever it goes
//! through one, but for a common prefix of options, where it goes 100 levels deep at most. Nothing
//! of it grows on the stack of the thread that steps. What goes through a grammar here is on the
//! stack of the thread that compiles, and bounded by [`MAX_DEPTH`].

mod lexing;

use std::collections::BTreeMap;

use llguidance::api::GrammarInit;
use llguidance::derivre::{ExprRef, RegexAst};
use llguidance::earley::lexerspec::LexerSpec;
use llguidance::earley::{Grammar, SymbolProps};

use crate::gbnf::{Gbnf, Node, NodeId, Span};

/// Levels of one terminal, the rules in it taken in: a few hundred bytes of stack each.
const MAX_DEPTH: usize = 400;
/// Places for a character in one terminal. Larger ones are cut; languages' strings and names have
/// some ten.
const MAX_PLACES: usize = 8_192;
/// Ways from such a place to another: each step works through those of where it is, so options
/// that may all be left out, which have the square of their number, are cut.
const MAX_WAYS: usize = 100_000;
/// Terminals: a row of the parser may have as many things in it, and no more.
const MAX_TERMINALS: usize = 2_000;
/// Terminals and rules. The parser numbers them with 16 bits, and makes some more of its own.
const MAX_SYMBOLS: usize = 20_000;
/// Bytes of a regular expression. The compiler's work can grow with its square; those in use have
/// some hundred.
const MAX_REGEX_BYTES: usize = 4 << 10;
/// Texts to choose from, as many as options of a JSON Schema.
const MAX_CHOICES: usize = 4_000;
/// How derivre's regular expressions call what may follow but is not part of what matches. What
/// follows an answer is nothing.
const LOOKS_AHEAD: [&str; 2] = ["?P<stop>", "?<stop>"];

/// What the answers of a grammar in GBNF are.
pub(crate) fn of_gbnf(text: &str, fuel: u64) -> Result<GrammarInit, String> {
    let gbnf = Gbnf::read(text).map_err(|error| error.to_string())?;
    let (lexer, Drafted { terminals, rules }) = cut(&gbnf, lexing::MAX_WORK)?;
    built(lexer, &terminals, &rules, fuel)
}

/// Terminals and rules that say what a grammar says. `work` is what telling may cost.
fn cut(gbnf: &Gbnf, mut work: usize) -> Result<(LexerSpec, Drafted), String> {
    let mut cutter = Cutter::new(gbnf)?;
    let mut opened = vec![false; gbnf.nodes.len()];
    loop {
        let draft = Draft::of(&mut cutter, &opened)?;
        let Some(wrong) = lexing::wrong(gbnf, &draft.terminals, &draft.rules, &mut work) else {
            // It cannot be told within bounds. Single characters need no telling.
            opened.fill(true);
            let draft = Draft::of(&mut cutter, &opened)?;
            return Ok((cutter.lexer, draft));
        };
        if wrong.is_empty() {
            return Ok((cutter.lexer, draft));
        }
        // Each was not opened before, so that this ends.
        for terminal in wrong {
            draft.terminals[terminal].owners.iter().for_each(|owner| opened[*owner] = true);
        }
    }
}

/// What the answers are that a regular expression matches as a whole.
pub(crate) fn of_regex(text: &str, fuel: u64) -> Result<GrammarInit, String> {
    if text.len() > MAX_REGEX_BYTES {
        return Err(format!("it has {} bytes ({MAX_REGEX_BYTES} are possible)", text.len()));
    }
    if LOOKS_AHEAD.iter().any(|named| text.contains(named)) {
        return Err("a group may not be called 'stop'".to_owned());
    }
    let mut lexer = lexer()?;
    let whole = lexer.regex_builder.mk_regex(text).map_err(|error| of_regex_syntax(&error))?;
    alone(lexer, whole, fuel)
}

/// What the answers are that a JSON array of texts has.
pub(crate) fn of_choice(text: &str, fuel: u64) -> Result<GrammarInit, String> {
    let texts: Vec<String> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if texts.is_empty() || texts.len() > MAX_CHOICES {
        return Err(format!("it has {} texts (1 to {MAX_CHOICES} are possible)", texts.len()));
    }
    let mut lexer = lexer()?;
    let texts = texts.into_iter().map(RegexAst::Literal).collect();
    let whole = make(&mut lexer, &RegexAst::Or(texts))?;
    alone(lexer, whole, fuel)
}

/// What one regular expression matches, which is exact whatever it is: nothing follows it.
fn alone(mut lexer: LexerSpec, whole: ExprRef, fuel: u64) -> Result<GrammarInit, String> {
    if whole == ExprRef::NO_MATCH {
        return Err("no text matches it".to_owned());
    }
    let mut options = Vec::new();
    let mut terminals = Vec::new();
    if lexer.regex_builder.is_nullable(whole) {
        options.push(Vec::new());
    }
    if whole != ExprRef::EMPTY_STRING {
        options.push(vec![Symbol::Terminal(0)]);
        let (part, owners) = (Part::Row(Vec::new()), Vec::new());
        let expression = solid(&mut lexer, whole)?;
        terminals.push(Terminal { expression, part, owners });
    }
    built(lexer, &terminals, &[options], fuel)
}

/// A lexer that skips nothing between terminals.
fn lexer() -> Result<LexerSpec, String> {
    let mut lexer = LexerSpec::new().map_err(|error| error.to_string())?;
    lexer.setup_lexeme_class(RegexAst::NoMatch).map_err(|error| error.to_string())?;
    Ok(lexer)
}

fn make(lexer: &mut LexerSpec, expression: &RegexAst) -> Result<ExprRef, String> {
    lexer.regex_builder.mk(expression).map_err(|error| error.to_string())
}

/// The same expression without the empty text. A terminal is never empty: what may be left out is
/// said by rules, so that the lexer has no choice between nothing and something.
fn solid(lexer: &mut LexerSpec, whole: ExprRef) -> Result<ExprRef, String> {
    if !lexer.regex_builder.is_nullable(whole) {
        return Ok(whole);
    }
    let any = RegexAst::Not(Box::new(RegexAst::EmptyString));
    make(lexer, &RegexAst::And(vec![RegexAst::ExprRef(whole), any]))
}

/// The words of who reads regular expressions, without the expression, which they begin with.
fn of_regex_syntax(error: &impl ToString) -> String {
    let all = error.to_string();
    if all.starts_with("lookarounds") {
        return "anchors (^, $, \\b) are possible at its ends only".to_owned();
    }
    all.rsplit_once("error: ").map_or(all.clone(), |(_, why)| why.to_owned())
}

/// What stands in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Symbol {
    Terminal(usize),
    Rule(usize),
}

/// Options of a rule, each some symbols in a row.
type Options = Vec<Vec<Symbol>>;

/// What is read in one piece.
#[derive(Debug)]
struct Terminal {
    expression: ExprRef,
    part: Part,
    /// What to open where it cannot stay one.
    owners: Vec<NodeId>,
}

/// What a terminal is made of.
#[derive(Debug)]
enum Part {
    Row(Vec<NodeId>),
    Any(Vec<NodeId>),
    Character(char),
}

/// Rules as they are built, the first of which is the answer.
fn built(
    mut lexer: LexerSpec,
    terminals: &[Terminal],
    rules: &[Options],
    fuel: u64,
) -> Result<GrammarInit, String> {
    let mut grammar = Grammar::new(None);
    let mut names = Vec::with_capacity(rules.len());
    for at in 0..rules.len() {
        let props = SymbolProps { is_start: at == 0, ..SymbolProps::default() };
        names.push(grammar.fresh_symbol_ext("rule", props));
    }
    let mut read = Vec::with_capacity(terminals.len());
    for terminal in terminals {
        let expression = RegexAst::ExprRef(terminal.expression);
        let lexeme = lexer
            .add_greedy_lexeme(String::new(), expression, false, None, usize::MAX)
            .map_err(|error| error.to_string())?;
        let name = grammar.fresh_symbol_ext("text", SymbolProps::default());
        grammar.make_terminal(name, lexeme, &lexer).map_err(|error| error.to_string())?;
        read.push(name);
    }
    if lexer.cost() > fuel {
        return Err("it is too large".to_owned());
    }
    for (name, options) in names.iter().zip(rules) {
        for option in options {
            let symbols = option.iter().map(|symbol| match symbol {
                Symbol::Terminal(at) => read[*at],
                Symbol::Rule(at) => names[*at],
            });
            let symbols = symbols.collect();
            grammar.add_rule(*name, symbols).map_err(|error| error.to_string())?;
        }
    }
    Ok(GrammarInit::Internal(grammar, lexer))
}

/// How large something is as one terminal.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Places for a character.
    places: usize,
    /// Those it can begin with, and end with.
    first: usize,
    last: usize,
    /// Ways from one to the next.
    ways: usize,
    depth: usize,
    /// Whether it can be empty.
    empty: bool,
}

impl Size {
    const NOTHING: Self = Self { places: 0, first: 0, last: 0, ways: 0, depth: 1, empty: true };

    const fn text(characters: usize) -> Self {
        let ways = characters.saturating_sub(1);
        Self { places: characters, first: 1, last: 1, ways, depth: 1, empty: false }
    }

    fn then(self, next: Self) -> Self {
        Self {
            places: self.places.saturating_add(next.places),
            first: self.first.saturating_add(if self.empty { next.first } else { 0 }),
            last: next.last.saturating_add(if next.empty { self.last } else { 0 }),
            ways: self
                .ways
                .saturating_add(next.ways)
                .saturating_add(self.last.saturating_mul(next.first)),
            depth: self.depth.max(next.depth),
            empty: self.empty && next.empty,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            places: self.places.saturating_add(other.places),
            first: self.first.saturating_add(other.first),
            last: self.last.saturating_add(other.last),
            ways: self.ways.saturating_add(other.ways),
            depth: self.depth.max(other.depth),
            empty: self.empty || other.empty,
        }
    }

    fn repeated(self, least: u32, most: Option<u32>) -> Self {
        let again = if most.is_some_and(|most| most < 2) { 0 } else { self.last };
        Self {
            ways: self.ways.saturating_add(again.saturating_mul(self.first)),
            empty: self.empty || least == 0,
            ..self
        }
    }

    /// The same one level up, where it can be one terminal.
    fn checked(self) -> Option<Self> {
        let fits = self.places <= MAX_PLACES && self.ways <= MAX_WAYS && self.depth < MAX_DEPTH;
        fits.then_some(Self { depth: self.depth + 1, ..self })
    }

    /// Of several in a row.
    fn of_row(mut parts: impl Iterator<Item = Option<Self>>) -> Option<Self> {
        parts.try_fold(Self::NOTHING, |all, part| Some(all.then(part?)))?.checked()
    }

    /// Of one of several, of which there is one at least.
    fn of_any(mut options: impl Iterator<Item = Option<Self>>) -> Option<Self> {
        let first = options.next()??;
        options.try_fold(first, |all, option| Some(all.or(option?)))?.checked()
    }
}

/// Makes terminals of what can be one.
struct Cutter<'g> {
    gbnf: &'g Gbnf,
    /// Of each thing that can be a terminal.
    sizes: Vec<Option<Size>>,
    lexer: LexerSpec,
    /// Of each thing, once it was wanted.
    expressions: Vec<Option<ExprRef>>,
}

impl<'g> Cutter<'g> {
    fn new(gbnf: &'g Gbnf) -> Result<Self, String> {
        let expressions = vec![None; gbnf.nodes.len()];
        Ok(Self { gbnf, sizes: sizes(gbnf), lexer: lexer()?, expressions })
    }

    /// A thing as a regular expression, the rules in it taken in.
    fn expression(&mut self, id: NodeId) -> Result<ExprRef, String> {
        if let Some(known) = self.expressions[id] {
            return Ok(known);
        }
        let gbnf = self.gbnf;
        let made = match &gbnf.nodes[id] {
            Node::Text(text) => make(&mut self.lexer, &RegexAst::Literal(text.clone()))?,
            Node::Set(spans) => make(&mut self.lexer, &RegexAst::Regex(brackets(spans)))?,
            Node::Rule(rule) => self.expression(gbnf.rules[*rule].body)?,
            Node::Row(parts) => self.row(parts)?,
            Node::Any(options) => self.any(options)?,
            Node::Repeat(inner, least, most) => {
                let inner = Box::new(RegexAst::ExprRef(self.expression(*inner)?));
                // The largest number is without end there.
                let most = most.unwrap_or(u32::MAX);
                make(&mut self.lexer, &RegexAst::Repeat(inner, *least, most))?
            }
        };
        self.expressions[id] = Some(made);
        Ok(made)
    }

    fn all(&mut self, parts: &[NodeId]) -> Result<Vec<RegexAst>, String> {
        parts.iter().map(|part| self.expression(*part).map(RegexAst::ExprRef)).collect()
    }

    fn row(&mut self, parts: &[NodeId]) -> Result<ExprRef, String> {
        let parts = self.all(parts)?;
        make(&mut self.lexer, &RegexAst::Concat(parts))
    }

    fn any(&mut self, options: &[NodeId]) -> Result<ExprRef, String> {
        let options = self.all(options)?;
        make(&mut self.lexer, &RegexAst::Or(options))
    }

    fn of_part(&mut self, part: &Part) -> Result<ExprRef, String> {
        match part {
            Part::Row(parts) => self.row(parts),
            Part::Any(options) => self.any(options),
            Part::Character(one) => make(&mut self.lexer, &RegexAst::Literal(one.to_string())),
        }
    }
}

/// The characters as derivre reads them.
fn brackets(spans: &[Span]) -> String {
    let point = |one: char| format!("\\x{{{:x}}}", u32::from(one));
    let spans = spans.iter().map(|(first, last)| format!("{}-{}", point(*first), point(*last)));
    format!("[{}]", spans.collect::<String>())
}

/// How large each thing is that leads to no rule that leads to itself.
fn sizes(gbnf: &Gbnf) -> Vec<Option<Size>> {
    let mut sizes: Vec<Option<Size>> = vec![None; gbnf.nodes.len()];
    // Rules whose own rules are all known, and who waits for how many.
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); gbnf.rules.len()];
    let mut waits = vec![0_usize; gbnf.rules.len()];
    for (at, rule) in gbnf.rules.iter().enumerate() {
        for id in rule.nodes.clone() {
            if let Node::Rule(used) = &gbnf.nodes[id] {
                users[*used].push(at);
                waits[at] += 1;
            }
        }
    }
    let mut ready: Vec<usize> = (0..waits.len()).filter(|at| waits[*at] == 0).collect();
    let mut known = 0;
    while let Some(at) = ready.get(known).copied() {
        known += 1;
        measure(gbnf, at, &mut sizes);
        for user in &users[at] {
            waits[*user] -= 1;
            if waits[*user] == 0 {
                ready.push(*user);
            }
        }
    }
    // In the others there are things that can be terminals, too.
    (0..waits.len()).filter(|at| waits[*at] > 0).for_each(|at| measure(gbnf, at, &mut sizes));
    sizes
}

/// Sizes of what is in one rule. What a thing is made of stands before it.
fn measure(gbnf: &Gbnf, rule: usize, sizes: &mut [Option<Size>]) {
    for id in gbnf.rules[rule].nodes.clone() {
        let size = match &gbnf.nodes[id] {
            Node::Text(text) => Size::text(text.chars().count()).checked(),
            Node::Set(_) => Size::text(1).checked(),
            Node::Rule(used) => sizes[gbnf.rules[*used].body].and_then(Size::checked),
            Node::Row(parts) => Size::of_row(parts.iter().map(|part| sizes[*part])),
            Node::Any(options) => Size::of_any(options.iter().map(|option| sizes[*option])),
            Node::Repeat(inner, least, most) => {
                sizes[*inner].and_then(|inner| inner.repeated(*least, *most).checked())
            }
        };
        sizes[id] = size;
    }
}

/// Terminals and rules, with some things opened.
struct Draft<'c, 'g> {
    cutter: &'c mut Cutter<'g>,
    opened: &'c [bool],
    terminals: Vec<Terminal>,
    rules: Vec<Options>,
    /// Terminals by their expressions.
    known: BTreeMap<ExprRef, usize>,
    /// A terminal, or nothing.
    optional: BTreeMap<usize, Symbol>,
    /// Rules of the grammar that were met, and those whose body is still to come.
    met: BTreeMap<usize, usize>,
    waiting: Vec<(usize, usize)>,
    /// Repetitions: without end, of one number, and up to one.
    endless: BTreeMap<Symbol, Symbol>,
    exact: BTreeMap<(Symbol, u32), Symbol>,
    up_to: BTreeMap<(Symbol, u32), Symbol>,
}

/// What came of a draft.
struct Drafted {
    terminals: Vec<Terminal>,
    rules: Vec<Options>,
}

impl<'c, 'g> Draft<'c, 'g> {
    fn of(cutter: &'c mut Cutter<'g>, opened: &'c [bool]) -> Result<Drafted, String> {
        let gbnf = cutter.gbnf;
        let mut draft = Self {
            cutter,
            opened,
            terminals: Vec::new(),
            rules: Vec::new(),
            known: BTreeMap::new(),
            optional: BTreeMap::new(),
            met: BTreeMap::new(),
            waiting: Vec::new(),
            endless: BTreeMap::new(),
            exact: BTreeMap::new(),
            up_to: BTreeMap::new(),
        };
        // The answer has a rule of its own, which no other one leads to: where it is complete, the
        // answer is.
        draft.fresh(Vec::new())?;
        let root = draft.rule(gbnf.root)?;
        draft.rules[0] = vec![vec![root]];
        while let Some((rule, at)) = draft.waiting.pop() {
            let body = draft.symbols(gbnf.rules[rule].body)?;
            draft.rules[at] = vec![body];
        }
        Ok(Drafted { terminals: draft.terminals, rules: draft.rules })
    }

    /// A rule of these options, which may be filled in later.
    fn fresh(&mut self, options: Options) -> Result<Symbol, String> {
        if self.rules.len() + self.terminals.len() >= MAX_SYMBOLS {
            return Err(format!("it makes more than {MAX_SYMBOLS} rules"));
        }
        self.rules.push(options);
        Ok(Symbol::Rule(self.rules.len() - 1))
    }

    /// A rule of the grammar.
    fn rule(&mut self, rule: usize) -> Result<Symbol, String> {
        if let Some(at) = self.met.get(&rule) {
            return Ok(Symbol::Rule(*at));
        }
        let at = self.rules.len();
        let symbol = self.fresh(Vec::new())?;
        self.met.insert(rule, at);
        self.waiting.push((rule, at));
        Ok(symbol)
    }

    /// Whether a thing stays one terminal, or part of one.
    fn stays(&self, id: NodeId) -> bool {
        !self.opened[id] && self.cutter.sizes[id].is_some()
    }

    /// A thing as symbols in a row.
    fn symbols(&mut self, id: NodeId) -> Result<Vec<Symbol>, String> {
        if self.stays(id) {
            return self.terminal(Part::Row(vec![id]), Some(id));
        }
        let gbnf = self.cutter.gbnf;
        match &gbnf.nodes[id] {
            Node::Text(text) => {
                let mut all = Vec::new();
                for one in text.chars() {
                    all.extend(self.terminal(Part::Character(one), None)?);
                }
                Ok(all)
            }
            // One character has nothing to open.
            Node::Set(_) => self.terminal(Part::Row(vec![id]), None),
            Node::Rule(rule) => Ok(vec![self.rule(*rule)?]),
            Node::Row(parts) => self.row(id, parts),
            Node::Any(options) => self.options(id, options),
            Node::Repeat(inner, least, most) => {
                let inner = self.symbols(*inner)?;
                self.repeated(inner, *least, *most)
            }
        }
    }

    /// One terminal, or a rule that may leave it out, or nothing where it is empty.
    fn terminal(&mut self, part: Part, owner: Option<NodeId>) -> Result<Vec<Symbol>, String> {
        let whole = self.cutter.of_part(&part)?;
        if whole == ExprRef::EMPTY_STRING {
            return Ok(Vec::new());
        }
        let expression = solid(&mut self.cutter.lexer, whole)?;
        let at = match self.known.get(&expression) {
            Some(at) => *at,
            None => {
                let at = self.terminals.len();
                if at >= MAX_TERMINALS {
                    return Err(format!("it makes more than {MAX_TERMINALS} different texts"));
                }
                self.terminals.push(Terminal { expression, part, owners: Vec::new() });
                self.known.insert(expression, at);
                at
            }
        };
        self.terminals[at].owners.extend(owner);
        let symbol = Symbol::Terminal(at);
        if whole == expression {
            return Ok(vec![symbol]);
        }
        if let Some(known) = self.optional.get(&at) {
            return Ok(vec![*known]);
        }
        let optional = self.fresh(vec![Vec::new(), vec![symbol]])?;
        self.optional.insert(at, optional);
        Ok(vec![optional])
    }

    /// Things in a row; neighbours that can be one terminal are, unless the row was opened.
    fn row(&mut self, id: NodeId, parts: &[NodeId]) -> Result<Vec<Symbol>, String> {
        let (mut all, mut together) = (Vec::new(), Vec::new());
        for part in parts {
            if !self.opened[id] && self.stays(*part) {
                together.push(*part);
                continue;
            }
            all.extend(self.neighbours(id, std::mem::take(&mut together))?);
            all.extend(self.symbols(*part)?);
        }
        all.extend(self.neighbours(id, together)?);
        Ok(all)
    }

    fn neighbours(&mut self, id: NodeId, parts: Vec<NodeId>) -> Result<Vec<Symbol>, String> {
        let sizes = &self.cutter.sizes;
        let fits = Size::of_row(parts.iter().map(|part| sizes[*part])).is_some();
        if parts.len() > 1 && fits {
            return self.terminal(Part::Row(parts), Some(id));
        }
        let mut all = Vec::new();
        for part in parts {
            all.extend(self.symbols(part)?);
        }
        Ok(all)
    }

    /// Options; those that can be one terminal are, unless they were opened.
    fn options(&mut self, id: NodeId, options: &[NodeId]) -> Result<Vec<Symbol>, String> {
        let (mut all, mut together) = (Vec::new(), Vec::new());
        for option in options {
            match !self.opened[id] && self.stays(*option) {
                true => together.push(*option),
                false => all.push(self.symbols(*option)?),
            }
        }
        let sizes = &self.cutter.sizes;
        let fits = Size::of_any(together.iter().map(|option| sizes[*option])).is_some();
        if together.len() > 1 && fits {
            all.push(self.terminal(Part::Any(together), Some(id))?);
        } else {
            for option in together {
                all.push(self.symbols(option)?);
            }
        }
        Ok(vec![self.fresh(all)?])
    }

    fn repeated(
        &mut self,
        inner: Vec<Symbol>,
        least: u32,
        most: Option<u32>,
    ) -> Result<Vec<Symbol>, String> {
        let one = match inner.as_slice() {
            [] => return Ok(Vec::new()),
            [one] => *one,
            _ => self.fresh(vec![inner])?,
        };
        let mut all = Vec::new();
        if least > 0 {
            all.push(self.exactly(one, least)?);
        }
        match most {
            None => all.push(self.endless(one)?),
            Some(most) if most > least => all.push(self.at_most(one, most - least)?),
            Some(_) => {}
        }
        Ok(all)
    }

    /// What was read so far and one more: the parser keeps one thing for all of them.
    fn endless(&mut self, one: Symbol) -> Result<Symbol, String> {
        if let Some(known) = self.endless.get(&one) {
            return Ok(*known);
        }
        let all = self.fresh(vec![Vec::new()])?;
        if let Symbol::Rule(at) = all {
            self.rules[at].push(vec![all, one]);
        }
        self.endless.insert(one, all);
        Ok(all)
    }

    /// So many, at least one, by halves: as many rules as the number has digits.
    fn exactly(&mut self, one: Symbol, count: u32) -> Result<Symbol, String> {
        if count == 1 {
            return Ok(one);
        }
        if let Some(known) = self.exact.get(&(one, count)) {
            return Ok(*known);
        }
        let half = self.exactly(one, count / 2)?;
        let mut all = vec![half, half];
        all.extend((count % 2 == 1).then_some(one));
        let all = self.fresh(vec![all])?;
        self.exact.insert((one, count), all);
        Ok(all)
    }

    /// None to so many, at least one: up to half of them, or one more than that and up to the rest.
    fn at_most(&mut self, one: Symbol, count: u32) -> Result<Symbol, String> {
        if let Some(known) = self.up_to.get(&(one, count)) {
            return Ok(*known);
        }
        let half = count / 2;
        let fewer = match half {
            0 => Vec::new(),
            half => vec![self.at_most(one, half)?],
        };
        let mut more = vec![self.exactly(one, half + 1)?];
        if count > half + 1 {
            more.push(self.at_most(one, count - half - 1)?);
        }
        let all = self.fresh(vec![fewer, more])?;
        self.up_to.insert((one, count), all);
        Ok(all)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "grammar_tests.rs"]
mod tests;
