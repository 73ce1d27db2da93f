//! A whole answer, gathered from its events.
//!
//! Owns the order of its blocks and a bound on its bytes. Each dialect writes it in its own shape.

use super::event::{Event, Failure, Finish, Head, TokenLogProb};
use super::usage::{Timing, Usage};
use crate::exchange::Dialect;
use crate::json::Json;
use crate::limits::{ANSWER_BYTES, CALLS, CHOICES};

/// An answer while and after it is gathered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gathered {
    /// How it begins.
    pub head: Head,
    /// The choices, by index.
    pub choices: Vec<Choice>,
    /// What it took, if anybody said.
    pub usage: Option<Usage>,
    /// How long it took, if anybody said.
    pub timing: Option<Timing>,
    /// Whether [`Event::Finished`] came.
    pub complete: bool,
    bytes: usize,
}

/// One choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// What it says, in order.
    pub blocks: Vec<Block>,
    /// Log probabilities of its text.
    pub logprobs: Vec<TokenLogProb>,
    /// Log probabilities of its refusal.
    pub refusal_logprobs: Vec<TokenLogProb>,
    /// Why it ended.
    pub reason: Option<Finish>,
    /// The text that ended it.
    pub stop: Option<String>,
}

/// A block of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Text.
    Text(String),
    /// Thinking and the proof that it is genuine.
    Thinking {
        /// The thinking.
        text: String,
        /// The proof.
        signature: Option<String>,
    },
    /// Thinking nobody is shown.
    Redacted(String),
    /// A refusal.
    Refusal(String),
    /// A call.
    ToolUse {
        /// Ties the result to it.
        id: String,
        /// The tool.
        name: String,
        /// The arguments as JSON text.
        arguments: String,
    },
    /// A source of the text before.
    Citation {
        /// The dialect whose shape it has.
        dialect: Dialect,
        /// It.
        value: Json,
    },
    /// Something only one dialect says.
    Native {
        /// The dialect.
        dialect: Dialect,
        /// What it is.
        name: String,
        /// It.
        value: Json,
    },
}

impl Choice {
    /// All its text.
    pub fn text(&self) -> String {
        self.texts(|block| match block {
            Block::Text(text) => Some(text),
            _ => None,
        })
    }

    /// All its thinking.
    pub fn thinking(&self) -> String {
        self.texts(|block| match block {
            Block::Thinking { text, .. } => Some(text),
            _ => None,
        })
    }

    /// All its refusal.
    pub fn refusal(&self) -> String {
        self.texts(|block| match block {
            Block::Refusal(text) => Some(text),
            _ => None,
        })
    }

    fn texts(&self, of: impl Fn(&Block) -> Option<&String>) -> String {
        self.blocks.iter().filter_map(|block| of(block).map(String::as_str)).collect()
    }
}

impl Gathered {
    /// Takes the next event.
    ///
    /// # Errors
    /// The failure that ends the answer: the event's own, or that it is longer than
    /// [`ANSWER_BYTES`] or has more choices or calls than [`crate::limits`] allow.
    pub fn take(&mut self, event: Event) -> Result<(), Box<Failure>> {
        match event {
            Event::Head(head) => {
                self.usage = head.usage.or(self.usage);
                self.head = head;
            }
            Event::Text { choice, text } => self.append(
                choice,
                text,
                |block| match block {
                    Block::Text(own) => Some(own),
                    _ => None,
                },
                Block::Text,
            )?,
            Event::Refusal { choice, text } => self.append(
                choice,
                text,
                |block| match block {
                    Block::Refusal(own) => Some(own),
                    _ => None,
                },
                Block::Refusal,
            )?,
            Event::Thinking { choice, text } => self.append(
                choice,
                text,
                |block| match block {
                    Block::Thinking { text, signature: None } => Some(text),
                    _ => None,
                },
                |text| Block::Thinking { text, signature: None },
            )?,
            Event::Signature { choice, signature } => self.sign(choice, signature)?,
            Event::Redacted { choice, data } => {
                self.push(choice, data.len(), Block::Redacted(data))?
            }
            Event::ToolBegin { choice, id, name, .. } => {
                let len = id.len() + name.len();
                self.push(choice, len, Block::ToolUse { id, name, arguments: String::new() })?;
            }
            Event::ToolArguments { choice, call, json } => self.arguments(choice, call, &json)?,
            Event::ToolEnd { .. } => {}
            Event::LogProbs { choice, tokens, refusal } => {
                self.logprobs(choice, tokens, refusal)?
            }
            Event::Citation(citation) => {
                let (dialect, value) = (citation.dialect, citation.value);
                self.push(citation.choice, value.text().len(), Block::Citation { dialect, value })?;
            }
            Event::Native { choice, dialect, name, value } => {
                self.push(choice, value.text().len(), Block::Native { dialect, name, value })?;
            }
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Ended { choice, reason, stop } => {
                let own = self.choice(choice, 0)?;
                (own.reason, own.stop) = (Some(reason), stop);
            }
            Event::Finished { usage, timing } => {
                self.usage = usage.or(self.usage);
                self.timing = timing;
                self.complete = true;
            }
            Event::Failed(failure) => return Err(Box::new(failure)),
        }
        Ok(())
    }

    fn choice(&mut self, choice: u32, bytes: usize) -> Result<&mut Choice, Box<Failure>> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > ANSWER_BYTES {
            return Err(too_much("the answer is too long to be sent whole; ask for a stream"));
        }
        let at = choice as usize;
        if choice < CHOICES && self.choices.len() <= at {
            self.choices.resize_with(at + 1, Choice::default);
        }
        self.choices.get_mut(at).ok_or_else(|| too_much("the answer has too many choices"))
    }

    fn push(&mut self, choice: u32, bytes: usize, block: Block) -> Result<(), Box<Failure>> {
        // What a block costs besides its text counts too.
        let own = self.choice(choice, bytes + size_of::<Block>())?;
        let calls = own.blocks.iter().filter(|block| matches!(block, Block::ToolUse { .. }));
        if matches!(block, Block::ToolUse { .. }) && calls.count() == CALLS {
            return Err(too_much("the answer has too many calls"));
        }
        own.blocks.push(block);
        Ok(())
    }

    fn append(
        &mut self,
        choice: u32,
        text: String,
        last: impl Fn(&mut Block) -> Option<&mut String>,
        new: impl Fn(String) -> Block,
    ) -> Result<(), Box<Failure>> {
        let own = self.choice(choice, text.len())?;
        match own.blocks.last_mut().and_then(last) {
            Some(block) => block.push_str(&text),
            None => own.blocks.push(new(text)),
        }
        Ok(())
    }

    fn sign(&mut self, choice: u32, piece: String) -> Result<(), Box<Failure>> {
        let own = self.choice(choice, piece.len())?;
        match own.blocks.last_mut() {
            Some(Block::Thinking { signature, .. }) => {
                signature.get_or_insert_default().push_str(&piece);
            }
            _ => {
                let (text, signature) = (String::new(), Some(piece));
                own.blocks.push(Block::Thinking { text, signature });
            }
        }
        Ok(())
    }

    fn logprobs(
        &mut self,
        choice: u32,
        tokens: Vec<TokenLogProb>,
        refusal: bool,
    ) -> Result<(), Box<Failure>> {
        let own = self.choice(choice, tokens.len() * size_of::<TokenLogProb>())?;
        if refusal {
            own.refusal_logprobs.extend(tokens)
        } else {
            own.logprobs.extend(tokens)
        }
        Ok(())
    }

    fn arguments(&mut self, choice: u32, call: u32, json: &str) -> Result<(), Box<Failure>> {
        let own = self.choice(choice, json.len())?;
        let mut calls = own.blocks.iter_mut().filter_map(|block| match block {
            Block::ToolUse { arguments, .. } => Some(arguments),
            _ => None,
        });
        if let Some(arguments) = calls.nth(call as usize) {
            arguments.push_str(json);
        }
        Ok(())
    }
}

fn too_much(message: &str) -> Box<Failure> {
    use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
    let (stage, blame) = (Stage::Execute, Blame::Provider);
    Box::new(Refusal::new(stage, blame, Retry::Never, Code::TooLarge, message).into())
}
