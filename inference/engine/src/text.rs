//! The text side of a model: what a prompt is in tokens.
//!
//! Owns tokenizer and template together, and the checks that a prompt passes before it is queued.
//! It needs no weights, so prompts are prepared and counted while a model still loads.

use std::sync::Arc;

use selvedge_base::{Code, Mono, Refusal, Stage};
use selvedge_contract::{ChatMessage, Input, Limits, Role, Tooled, Turn, TurnKind};

use crate::card::Shape;
use crate::error::{EngineError, elsewhere};
use crate::gguf::Gguf;
use crate::guide::{Guide, Guides};
use crate::renderer::{Renderer, Rendering, Source};
use crate::template::apart;
use crate::tokenizer::Tokenizer;
use crate::tools::{self, Form};

/// No published vocabulary has a token of more bytes; a file that claims one does not raise the
/// amount of text that is tokenized before it is refused.
const MAX_TOKEN_BYTES: usize = 1_024;

/// A model's tokenizer and chat template.
pub(crate) struct Text {
    pub(crate) tokenizer: Tokenizer,
    template: Option<Renderer>,
    /// How the template tells the model to call functions.
    form: Option<Form>,
    guides: Guides,
    context: usize,
}

impl Text {
    /// Reads it from a model's file. `clock` is the renderer's.
    pub(crate) fn read(
        gguf: &Gguf,
        rendering: &Rendering,
        clock: &Arc<dyn Fn() -> Mono + Send + Sync>,
    ) -> Result<Self, EngineError> {
        let shape = Shape::read(gguf)?;
        let tokenizer = Tokenizer::read(gguf, shape.vocabulary)?;
        let template = gguf
            .text("tokenizer.chat_template")
            .map(|text| {
                let (bos, eos) = (&tokenizer.bos_text, &tokenizer.eos_text);
                let source = Source { text, bos, eos, control: &tokenizer.control_texts };
                Renderer::open(rendering, source, Arc::clone(clock))
            })
            .transpose()?;
        let form = gguf.text("tokenizer.chat_template").and_then(Form::of);
        Ok(Self { tokenizer, template, form, guides: Guides::default(), context: shape.context })
    }

    /// Reads it for a program that chose the file itself: its template is rendered right here.
    pub(crate) fn here(gguf: &Gguf) -> Result<Self, EngineError> {
        let clock: Arc<dyn Fn() -> Mono + Send + Sync> = Arc::new(|| Mono(0));
        Self::read(gguf, &Rendering::Here, &clock)
    }

    /// Tokens the model can attend to.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    #[cfg(test)]
    pub(crate) const fn guides(&self) -> &Guides {
        &self.guides
    }

    /// What holds an answer to a JSON Schema or whatever else [`selvedge_contract::Constraint`]
    /// reads.
    pub(crate) fn guide(&self, held: &str) -> Result<Guide, Refusal> {
        self.guides.guide(&self.tokenizer, held)
    }

    /// How the model calls functions, where its template says how.
    pub(crate) const fn form(&self) -> Option<Form> {
        self.form
    }

    /// The tokens of a text of ours behind a prompt.
    pub(crate) fn tokens_behind(&self, text: &str) -> Result<Vec<u32>, Refusal> {
        encoded(self.tokenizer.encode_on(&[text]))
    }

    /// What a token adds to an answer: nothing where it steers, but for the marks of calls where
    /// they are to be seen.
    pub(crate) fn shown(&self, token: u32, marks: bool) -> &[u8] {
        let shown = self.tokenizer.shown(token);
        if !marks || !shown.is_empty() {
            return shown;
        }
        let bytes = self.tokenizer.bytes(token);
        let forms = [Form::Tagged, Form::Bare, Form::Listed];
        let is_mark = forms.iter().any(|form| form.mark().as_bytes() == bytes);
        if is_mark || bytes == tools::CLOSING.as_bytes() { bytes } else { shown }
    }

    /// The tokens of a prompt that leaves room for at least one token of answer.
    pub(crate) fn prompt(&self, input: &Input) -> Result<Vec<u32>, Refusal> {
        let tokens = self.tokens(input)?;
        if tokens.is_empty() {
            return Err(invalid("the prompt is empty"));
        }
        if tokens.len() >= self.context {
            return Err(self.too_long(&format!("{} tokens", tokens.len())));
        }
        Ok(tokens)
    }

    /// The tokens of a prompt of any length that is worth tokenizing.
    pub(crate) fn tokens(&self, input: &Input) -> Result<Vec<u32>, Refusal> {
        match input {
            Input::Chat(messages) => self.chat(messages),
            Input::Tooled(chat) => self.tooled(chat),
            Input::Text(text) => {
                self.check_size(text.len())?;
                let bos = self.tokenizer.bos();
                let mut tokens: Vec<u32> = bos.into_iter().collect();
                tokens.extend(encoded(self.tokenizer.encode(text))?);
                Ok(tokens)
            }
            Input::Tokens(tokens) => {
                let known = self.tokenizer.len() as u32;
                match tokens.iter().find(|&&token| token >= known) {
                    None => Ok(tokens.clone()),
                    Some(token) => Err(invalid(&format!("there is no token {token}"))),
                }
            }
        }
    }

    /// The tokens of a prompt and of the beginning of its answer. Control text in that stays text.
    pub(crate) fn begun(&self, input: &Input, text: &str) -> Result<Vec<u32>, Refusal> {
        self.check_size(text.len())?;
        let mut tokens = self.tokens(input)?;
        let pieces = apart(text, &self.tokenizer.control_texts)?;
        tokens.extend(encoded(self.tokenizer.encode_on(&pieces))?);
        Ok(tokens)
    }

    fn chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, Refusal> {
        let template = self.template()?;
        check_count(messages)?;
        self.check_size(messages.iter().map(|message| message.content.len()).sum())?;
        self.rendered(&template.render(messages)?)
    }

    /// A chat with functions, in the template's own words where it has any.
    fn tooled(&self, chat: &Tooled) -> Result<Vec<u32>, Refusal> {
        let template = self.template()?;
        check_count(&chat.messages)?;
        self.check_size(chat.bytes())?;
        if self.form.is_some() {
            let told = template.render_tooled(chat);
            // Llama's template refuses several calls in one message, which its models make all the
            // same: whoever had them answered is not to be sent away.
            let several =
                |turn: &Turn| matches!(&turn.what, TurnKind::Called(calls) if calls.len() > 1);
            if told.is_ok() || !chat.turns.iter().any(several) {
                return self.rendered(&told?);
            }
        }
        let told = template.render(&tools::in_words(chat, true));
        let has_system = chat.messages.iter().any(|message| message.role == Role::System);
        // Some templates refuse messages of the system's. The user's own are not touched for that.
        let told = told.or_else(|refusal| match has_system || chat.tools.is_empty() {
            true => Err(refusal),
            false => template.render(&tools::in_words(chat, false)),
        });
        self.rendered(&told?)
    }

    fn template(&self) -> Result<&Renderer, Refusal> {
        self.template.as_ref().ok_or_else(|| {
            let message = "this model has no chat template; ask it for a completion of text";
            Refusal::client(Stage::Validate, Code::Unsupported, message).param("model")
        })
    }

    fn rendered(&self, pieces: &[String]) -> Result<Vec<u32>, Refusal> {
        let mut tokens = encoded(self.tokenizer.encode_all(pieces))?;
        // A template may write the begin token itself; it is not wanted twice.
        if let Some(bos) = self.tokenizer.bos().filter(|bos| tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// Refuses what cannot fit however it is tokenized, before time is spent on it.
    fn check_size(&self, bytes: usize) -> Result<(), Refusal> {
        let longest = self.tokenizer.longest().min(MAX_TOKEN_BYTES);
        if bytes / longest >= self.context {
            return Err(self.too_long(&format!("{bytes} bytes")));
        }
        Ok(())
    }

    fn too_long(&self, size: &str) -> Refusal {
        let message = format!(
            "a prompt of {size} does not fit the model's context of {} tokens",
            self.context
        );
        Refusal::client(Stage::Validate, Code::ContextLengthExceeded, message).param("messages")
    }
}

fn check_count(messages: &[ChatMessage]) -> Result<(), Refusal> {
    if (1..=Limits::MESSAGES).contains(&messages.len()) {
        return Ok(());
    }
    let message = format!("{} messages (1 to {} are possible)", messages.len(), Limits::MESSAGES);
    Err(invalid(&message).param("messages"))
}

fn encoded(tokens: Result<Vec<u32>, String>) -> Result<Vec<u32>, Refusal> {
    tokens.map_err(|error| {
        elsewhere(Code::Internal, format!("the prompt cannot be tokenized: {error}"))
    })
}

fn invalid(message: &str) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, message).param("prompt")
}
