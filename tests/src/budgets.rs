//! Load on budgets, and what nodes say about them.
//!
//! Owns clients that ask one node again and again at a pace, and the tally of what they were
//! served. What was served is what clients saw in the usage of their answers: a node's own books
//! are read separately, to be compared.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::http::Client;
use crate::node::Node;
use crate::time::{Deadline, Stopwatch};
use crate::tiny::TINY;

/// How often a node's books are read while a test waits for them: they have no event stream.
const LOOK: Duration = Duration::from_millis(100);
/// How long one request may take, a node killed in its middle included.
const ANSWER: u64 = 20;

/// What one client asks for each time.
#[derive(Clone, Debug)]
pub struct Question {
    /// The body of the request.
    body: Value,
    /// From the end of an answer to the next question.
    pause: Duration,
}

/// What clients of one node were told, in total or in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers with a usage.
    pub answers: u64,
    /// Tokens of their usage.
    pub tokens: u64,
    /// Refusals because of the budget.
    pub refused: u64,
    /// Connections that failed or broke: the node was down.
    pub broken: u64,
    /// Anything else, by what was said.
    pub odd: BTreeMap<String, u64>,
}

/// Clients at work on several nodes until they are stopped.
#[derive(Debug)]
pub struct Load {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

/// One budget as one node tells it.
#[derive(Clone, Debug)]
pub struct Books {
    /// The whole budget.
    pub limit: u64,
    /// Spent on all nodes, as far as this node knows.
    pub spent: u64,
    /// Set aside for running requests of this node.
    pub reserved: u64,
    /// What is left of the limit.
    pub left: u64,
    /// All the node said.
    pub whole: Value,
}

#[derive(Debug, Default)]
struct State {
    tallies: Mutex<Vec<Tally>>,
    stopped: Mutex<bool>,
    stop: Condvar,
    /// Told whenever a tally changes.
    told: Condvar,
}

impl Question {
    /// A completion of the tiny model that costs about `prompt + answer` tokens.
    pub fn new(prompt: usize, answer: u32, pause: Duration) -> Self {
        let prompt = "x".repeat(prompt);
        let body = json!({"model": TINY, "prompt": prompt, "max_tokens": answer, "temperature": 0});
        Self { body, pause }
    }

    /// The body of the request.
    pub const fn body(&self) -> &Value {
        &self.body
    }
}

impl Tally {
    /// What came since an earlier tally.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut odd = self.odd.clone();
        for (what, count) in &mut odd {
            *count -= earlier.odd.get(what).copied().unwrap_or(0);
        }
        odd.retain(|_, count| *count > 0);
        Self {
            answers: self.answers - earlier.answers,
            tokens: self.tokens - earlier.tokens,
            refused: self.refused - earlier.refused,
            broken: self.broken - earlier.broken,
            odd,
        }
    }

    /// Asks once and notes the outcome.
    pub fn ask(&mut self, client: &Client, body: &Value) {
        match answer(client, body) {
            Ok((200, said)) => match said["usage"]["total_tokens"].as_u64() {
                Some(tokens) => {
                    self.answers += 1;
                    self.tokens += tokens;
                }
                None => self.note(format!("no usage in {said}")),
            },
            Ok((429, said)) if said["error"]["code"] == "budget_exhausted" => self.refused += 1,
            Ok((status, said)) => self.note(format!("{status}: {said}")),
            Err(_) => self.broken += 1,
        }
    }

    fn note(&mut self, what: String) {
        *self.odd.entry(what).or_default() += 1;
    }
}

impl Load {
    /// Starts one client for each node, with the key.
    pub fn start(nodes: &[&Node], key: &str, questions: &[Question]) -> Self {
        let state = Arc::new(State::default());
        lock(&state.tallies).resize(nodes.len(), Tally::default());
        let mut threads = Vec::new();
        for (index, (node, question)) in nodes.iter().zip(questions).enumerate() {
            let (state, client) = (Arc::clone(&state), node.client().with_key(key));
            let question = question.clone();
            threads.push(thread::spawn(move || state.ask_on(index, &client, &question)));
        }
        Self { state, threads }
    }

    /// What the clients of each node have been told so far.
    pub fn tallies(&self) -> Vec<Tally> {
        lock(&self.state.tallies).clone()
    }

    /// Waits until the tallies satisfy the condition and returns them.
    ///
    /// # Errors
    /// When they do not in time; with the last ones.
    pub fn until(
        &self,
        what: &str,
        deadline: Deadline,
        wanted: impl Fn(&[Tally]) -> bool,
    ) -> Result<Vec<Tally>> {
        let mut tallies = lock(&self.state.tallies);
        while !wanted(&tallies) {
            let Some(left) = deadline.left() else {
                bail!("waiting for {what}; the clients were told {tallies:?}");
            };
            let waited = self.state.told.wait_timeout(tallies, left);
            tallies = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(tallies.clone())
    }

    /// Lets the load run for a span of time.
    pub fn run_for(&self, span: Duration) -> Vec<Tally> {
        let begun = Stopwatch::start();
        // Never satisfied: what is waited for is the end of the span.
        let _ = self.until("the span", Deadline::after(span), |_| begun.elapsed() > span);
        self.tallies()
    }

    /// Ends the clients, each after the answer it waits for, and returns the tallies.
    ///
    /// # Errors
    /// When a client panicked.
    pub fn stop(mut self) -> Result<Vec<Tally>> {
        self.state.end();
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a client panicked"))?;
        }
        Ok(self.tallies())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.state.end();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn ask_on(&self, index: usize, client: &Client, question: &Question) {
        loop {
            let mut tally = Tally::default();
            tally.ask(client, &question.body);
            if let Some(sum) = lock(&self.tallies).get_mut(index) {
                sum.add(tally);
            }
            self.told.notify_all();
            let stopped = lock(&self.stopped);
            let waited = self.stop.wait_timeout_while(stopped, question.pause, |stopped| !*stopped);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return;
            }
        }
    }

    fn end(&self) {
        *lock(&self.stopped) = true;
        self.stop.notify_all();
    }
}

impl Tally {
    fn add(&mut self, more: Self) {
        self.answers += more.answers;
        self.tokens += more.tokens;
        self.refused += more.refused;
        self.broken += more.broken;
        for (what, count) in more.odd {
            *self.odd.entry(what).or_default() += count;
        }
    }
}

/// Gives an account a budget and a key, by the command line of the node that has the root key.
///
/// # Errors
/// When the node refuses.
pub fn fund(node: &Node, account: &str, amount: &str) -> Result<String> {
    node.cli(&["tenant", "create", account])?.success()?;
    node.cli(&["budget", "set", account, amount])?.success()?;
    secret(node, account)
}

/// A key of an account without a budget of its own.
///
/// # Errors
/// When the node refuses.
pub fn key(node: &Node, account: &str) -> Result<String> {
    node.cli(&["tenant", "create", account])?.success()?;
    secret(node, account)
}

fn secret(node: &Node, account: &str) -> Result<String> {
    let said = node.cli(&["key", "create", "load", "--account", account])?.success()?;
    let mut words = said.split_whitespace();
    let secret = words.find(|word| word.starts_with("sk-"));
    secret.map(str::to_owned).with_context(|| format!("no key in `{said}`"))
}

/// The only budget of an account, as the node tells it.
///
/// # Errors
/// When the node does not answer or knows no such budget.
pub fn books(node: &Node, account: &str) -> Result<Books> {
    let said = node.admin()?.client().get("/admin/budgets")?.ok()?;
    let all = said["data"].as_array().map_or(&[][..], Vec::as_slice);
    let found = all.iter().find(|budget| budget["account"] == account);
    let whole = found.with_context(|| format!("no budget of {account} in {said}"))?.clone();
    let number = |name: &str| whole[name].as_u64().with_context(|| format!("no {name} in {whole}"));
    let (limit, spent) = (number("limit")?, number("spent")?);
    let (reserved, left) = (number("reserved")?, number("left")?);
    Ok(Books { limit, spent, reserved, left, whole })
}

/// Reads a node's books until they satisfy the condition.
///
/// # Errors
/// When they do not in time; with the last ones.
pub fn until_books(
    node: &Node,
    account: &str,
    what: &str,
    deadline: Deadline,
    wanted: impl Fn(&Books) -> bool,
) -> Result<Books> {
    let (never, nobody) = (Condvar::new(), Mutex::new(()));
    loop {
        let read = books(node, account);
        match &read {
            Ok(books) if wanted(books) => return read,
            Ok(_) | Err(_) => {}
        }
        if deadline.left().is_none() {
            let said = read.map_or_else(|error| format!("{error:#}"), |b| b.whole.to_string());
            bail!("waiting for {what} at {}; it said {said}", node.name());
        }
        let _ = never.wait_timeout(lock(&nobody), LOOK);
    }
}

/// Asks with a key until the node takes it.
///
/// # Errors
/// When it does not in time; with the last answer.
pub fn until_taken(node: &Node, key: &str, deadline: Deadline) -> Result<()> {
    let client = node.client().with_key(key);
    let (never, nobody) = (Condvar::new(), Mutex::new(()));
    loop {
        let reply = client.get("/v1/models")?;
        if reply.status == 200 {
            return Ok(());
        }
        if deadline.left().is_none() {
            let (status, said) = (reply.status, reply.text()?);
            bail!("{} does not take the key; it said {status}: {said}", node.name());
        }
        let _ = never.wait_timeout(lock(&nobody), LOOK);
    }
}

fn answer(client: &Client, body: &Value) -> Result<(u16, Value)> {
    let deadline = Deadline::secs(ANSWER);
    let reply = client.send("POST", "/v1/completions", body.to_string().as_bytes(), deadline)?;
    let status = reply.status;
    Ok((status, reply.json()?))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
