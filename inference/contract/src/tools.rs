//! A chat in which functions may be called, or were.
//!
//! Owns the plain data: which functions there are, whether one must be called, and which messages
//! are calls or results of calls. It crosses the wire, so it is bounded ([`Tooled::check`]). How a
//! model is told of functions and how it calls one is the engine's business.

use serde::{Deserialize, Serialize};

use crate::request::{ChatMessage, Limits};

/// A chat with functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tooled {
    /// What was said. Results of calls are messages of [`crate::Role::Tool`].
    pub messages: Vec<ChatMessage>,
    /// Which of the messages are calls or results, in their order.
    pub turns: Vec<Turn>,
    /// What may be called; nothing, where only the past has calls.
    pub tools: Vec<Tool>,
    /// Whether something must be called.
    pub choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel: bool,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does and when to call it; possibly nothing.
    pub description: String,
    /// The JSON Schema of its arguments, as text: an object.
    pub parameters: String,
}

/// Whether something must be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    /// As the model sees fit.
    Auto,
    /// One of the functions.
    Required,
    /// This function.
    Named(String),
}

/// What a message is besides its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Which message.
    pub at: u32,
    /// What it is.
    pub what: TurnKind,
}

/// A call or a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TurnKind {
    /// The model called these.
    Called(Vec<ToolCall>),
    /// The result of a call.
    Answers {
        /// The call.
        id: String,
        /// The function.
        name: String,
    },
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Ties the result to the call.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments, as the model wrote them.
    pub arguments: String,
}

impl Tooled {
    /// What a message is besides its text.
    pub fn turn(&self, at: usize) -> Option<&TurnKind> {
        let known = u32::try_from(at).ok()?;
        let found = self.turns.binary_search_by_key(&known, |turn| turn.at).ok()?;
        self.turns.get(found).map(|turn| &turn.what)
    }

    /// The functions that may be called: all, or the one that must be.
    pub fn callable(&self) -> impl Iterator<Item = &Tool> {
        self.tools.iter().filter(|tool| match &self.choice {
            ToolChoice::Auto | ToolChoice::Required => true,
            ToolChoice::Named(name) => *name == tool.name,
        })
    }

    /// Bytes of everything that a model reads of it.
    pub fn bytes(&self) -> usize {
        let messages: usize = self.messages.iter().map(|message| message.content.len()).sum();
        let turns: usize = self.turns.iter().map(Turn::bytes).sum();
        messages + turns + self.tool_bytes()
    }

    /// Bytes of what may be called.
    pub fn tool_bytes(&self) -> usize {
        let of = |tool: &Tool| tool.name.len() + tool.description.len() + tool.parameters.len();
        self.tools.iter().map(of).sum()
    }

    /// What is out of bounds, or does not fit together, in words for people; for what a peer sent,
    /// too.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.tools.len() > Limits::TOOLS {
            return Err(format!("{} tools ({} are possible)", self.tools.len(), Limits::TOOLS));
        }
        if self.tool_bytes() > Limits::TOOL_BYTES {
            let (bytes, most) = (self.tool_bytes(), Limits::TOOL_BYTES);
            return Err(format!("tools of {bytes} bytes ({most} are possible)"));
        }
        let named = |name: &str| (1..=Limits::TOOL_NAME_BYTES).contains(&name.len());
        if let Some(at) = self.tools.iter().position(|tool| !named(&tool.name)) {
            let most = Limits::TOOL_NAME_BYTES;
            return Err(format!("tools have names of 1 to {most} bytes, and number {at} has not"));
        }
        let mut names: Vec<&str> = self.tools.iter().map(|tool| tool.name.as_str()).collect();
        names.sort_unstable();
        if let Some(two) = names.windows(2).find(|two| two[0] == two[1]) {
            return Err(format!("two tools are named '{}'", two[0]));
        }
        if self.choice != ToolChoice::Auto && self.callable().next().is_none() {
            return Err("a tool must be called that is not among the tools".to_owned());
        }
        let in_order = self.turns.windows(2).all(|two| two[0].at < two[1].at);
        let within = self.turns.iter().all(|turn| (turn.at as usize) < self.messages.len());
        let few = self.turns.iter().all(|turn| turn.calls() <= Limits::CALLS);
        if in_order && within && few {
            return Ok(());
        }
        Err(format!("calls that belong to no message, or more than {} of one", Limits::CALLS))
    }
}

impl Turn {
    fn calls(&self) -> usize {
        match &self.what {
            TurnKind::Called(calls) => calls.len(),
            TurnKind::Answers { .. } => 1,
        }
    }

    fn bytes(&self) -> usize {
        match &self.what {
            TurnKind::Called(calls) => {
                let of = |call: &ToolCall| call.id.len() + call.name.len() + call.arguments.len();
                calls.iter().map(of).sum()
            }
            TurnKind::Answers { id, name } => id.len() + name.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Role;

    fn tool(name: &str) -> Tool {
        let parameters = r#"{"type":"object"}"#.to_owned();
        Tool { name: name.to_owned(), description: String::new(), parameters }
    }

    fn chat(tools: Vec<Tool>, choice: ToolChoice) -> Tooled {
        let messages = vec![ChatMessage { role: Role::User, content: "hi".to_owned() }; 3];
        Tooled { messages, turns: Vec::new(), tools, choice, parallel: true }
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let good = chat(vec![tool("a"), tool("b")], ToolChoice::Named("b".to_owned()));
        assert_eq!(good.check(), Ok(()));
        assert_eq!(good.callable().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["b"]);
        let many = (0..=Limits::TOOLS).map(|at| tool(&at.to_string())).collect();
        let long = Tool { description: "x".repeat(Limits::TOOL_BYTES), ..tool("a") };
        for (bad, word) in [
            (chat(many, ToolChoice::Auto), "129 tools"),
            (chat(vec![long], ToolChoice::Auto), "tools of"),
            (chat(vec![tool("")], ToolChoice::Auto), "number 0"),
            (chat(vec![tool(&"n".repeat(257))], ToolChoice::Auto), "number 0"),
            (chat(vec![tool("a"), tool("a")], ToolChoice::Auto), "two tools"),
            (chat(vec![tool("a")], ToolChoice::Named("b".to_owned())), "must be called"),
            (chat(vec![], ToolChoice::Required), "must be called"),
        ] {
            let why = bad.check().expect_err(word);
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn turns_belong_to_messages() {
        let answers =
            |at| Turn { at, what: TurnKind::Answers { id: "1".into(), name: "a".into() } };
        let of = |turns| Tooled { turns, ..chat(vec![], ToolChoice::Auto) };
        let good = of(vec![answers(0), answers(2)]);
        assert_eq!(good.check(), Ok(()));
        assert!(good.turn(2).is_some() && good.turn(1).is_none() && good.turn(9).is_none());
        for bad in [vec![answers(1), answers(1)], vec![answers(2), answers(0)], vec![answers(3)]] {
            assert!(of(bad).check().is_err());
        }
        let call = ToolCall { id: String::new(), name: String::new(), arguments: String::new() };
        let many = TurnKind::Called(vec![call; Limits::CALLS + 1]);
        assert!(of(vec![Turn { at: 0, what: many }]).check().is_err());
    }
}
