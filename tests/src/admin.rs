//! The admin interface of one node, as its own command line uses it.
//!
//! Owns reading the token of a running node and waiting on its event stream. Waiting reads
//! `/admin/watch` until a line says what was waited for: nothing is polled.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http::{Client, Reply};
use crate::places::MODEL;
use crate::time::Deadline;
use crate::tiny::TINY;

/// A client with the admin token.
#[derive(Clone, Debug)]
pub struct Admin(Client);

/// What a node thinks of the mesh, one JSON document per change.
#[derive(Debug)]
pub struct Watch {
    reply: Reply,
    last: Value,
}

impl Admin {
    /// The admin interface of the running node in `home`.
    ///
    /// # Errors
    /// When the node has written no token.
    pub fn of(home: &Path, client: &Client) -> Result<Self> {
        let path = home.join("run/admin.token");
        let token = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        Ok(Self(client.with_key(token.trim())))
    }

    /// The client itself, for calls without a name here.
    pub fn client(&self) -> &Client {
        &self.0
    }

    /// The node's view now.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn status(&self) -> Result<Value> {
        self.0.get("/admin/status")?.ok()
    }

    /// The node's view now and whenever it changes.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn watch(&self, deadline: Deadline) -> Result<Watch> {
        let reply = self.0.send("GET", "/admin/watch", b"", deadline)?;
        ensure!(reply.status == 200, "status {}", reply.status);
        Ok(Watch { reply, last: Value::Null })
    }

    /// Waits until the view satisfies the condition and returns it.
    ///
    /// # Errors
    /// When it does not in time; with the last view.
    pub fn until(
        &self,
        what: &str,
        deadline: Deadline,
        wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        self.watch(deadline)?.until(what, wanted)
    }

    /// Waits until this many nodes are alive and offer a test model.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn until_offered(&self, nodes: usize, deadline: Deadline) -> Result<Value> {
        let what = format!("{nodes} nodes that offer a test model");
        self.until(&what, deadline, |view| offering(view) == nodes)
    }

    /// Waits until this many nodes are alive, this one counted.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn until_alive(&self, nodes: usize, deadline: Deadline) -> Result<Value> {
        let what = format!("{nodes} living nodes");
        self.until(&what, deadline, |view| alive(view) == nodes)
    }

    /// A join code that is good for `ttl_s` seconds.
    ///
    /// # Errors
    /// When the node issues none.
    pub fn invite(&self, ttl_s: u64) -> Result<String> {
        let answer = self.0.post("/admin/invite", &json!({"ttl_s": ttl_s}))?.ok()?;
        code_in(&answer.to_string())
    }

    /// A new API key: its id and its secret.
    ///
    /// # Errors
    /// When the node makes none.
    pub fn key(&self, name: &str) -> Result<(String, String)> {
        let answer = self.0.post("/admin/keys", &json!({"name": name}))?.ok()?;
        let text = |field: &str| answer[field].as_str().map(str::to_owned);
        let key = text("id").zip(text("secret"));
        key.with_context(|| format!("no key in {answer}"))
    }
}

impl Watch {
    /// Waits for a view that satisfies the condition.
    ///
    /// # Errors
    /// When none comes before the deadline; with the last view.
    pub fn until(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Result<Value> {
        let context = |view: &Value| format!("waiting for {what}; the last view was {view}");
        loop {
            let line = self.reply.line().with_context(|| context(&self.last))?;
            let line = line.context("the node ended its event stream");
            let line = line.with_context(|| context(&self.last))?;
            self.last = serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?;
            if wanted(&self.last) {
                return Ok(self.last.clone());
            }
        }
    }
}

/// The join code in a text.
///
/// # Errors
/// When there is none.
pub fn code_in(text: &str) -> Result<String> {
    let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let found = words.find(|word| word.to_ascii_lowercase().starts_with("sv1-"));
    found.map(str::to_owned).with_context(|| format!("no join code in `{text}`"))
}

/// The nodes of a view.
pub fn nodes(view: &Value) -> &[Value] {
    view["nodes"].as_array().map_or(&[], Vec::as_slice)
}

/// A node of a view, by name.
pub fn named<'a>(view: &'a Value, name: &str) -> Option<&'a Value> {
    nodes(view).iter().find(|node| node["name"] == name)
}

/// The state of a node, by name; empty when the node is unknown.
pub fn state(view: &Value, name: &str) -> String {
    let state = named(view, name).and_then(|node| node["state"].as_str());
    state.unwrap_or_default().to_ascii_lowercase()
}

/// How many nodes are alive.
pub fn alive(view: &Value) -> usize {
    nodes(view).iter().filter(|node| is(&node["state"], "alive")).count()
}

/// How many living nodes have a test model ready.
pub fn offering(view: &Value) -> usize {
    let ready = |model: &Value| {
        (model["name"] == MODEL || model["name"] == TINY) && is(&model["state"], "ready")
    };
    let offers = |node: &&Value| {
        is(&node["state"], "alive")
            && node["models"].as_array().is_some_and(|models| models.iter().any(ready))
    };
    nodes(view).iter().filter(offers).count()
}

/// Sequences running and requests queued on all nodes.
pub fn work(view: &Value) -> u64 {
    let models = nodes(view).iter().filter_map(|node| node["models"].as_array()).flatten();
    models.map(|m| m["running"].as_u64().unwrap_or(0) + m["queued"].as_u64().unwrap_or(0)).sum()
}

fn is(value: &Value, word: &str) -> bool {
    value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(word))
}
