//! Where chat templates are rendered: in this process, or in one of its own for each model.
//!
//! Owns the choice and what both ways share. A template comes with a model's file and so from
//! anybody. The sandbox (`template`) bounds what it computes, but not how deep the values it makes
//! nest in each other nor what lists that are lists of themselves cost to walk: such a template
//! ends its process or never ends. Only a process of its own can be ended without the node
//! (docs/decisions/0044).

mod child;
mod host;
mod speech;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use selvedge_base::{Mono, Refusal};
use selvedge_contract::{ChatMessage, Tooled};

use crate::error::EngineError;
use crate::template::Template;
use host::Host;

pub use child::serve_templates;

/// Where chat templates are rendered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rendering {
    /// In this process: for programs that chose their model files themselves, as tests do.
    #[default]
    Here,
    /// In a process of its own for each model: this program with these arguments, which must call
    /// [`serve_templates`] and nothing else.
    Apart {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<OsString>,
    },
}

/// What a template needs of its model.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The template's text.
    pub text: &'a str,
    /// The text of the model's first token.
    pub bos: &'a str,
    /// The text of the model's last token.
    pub eos: &'a str,
    /// The texts of its control tokens, which nobody's message may say.
    pub control: &'a [String],
}

/// A model's chat template, ready to render. With it ends the process that renders, if any.
pub struct Renderer(Place);

enum Place {
    Here { template: Box<Template>, control: Vec<String> },
    Apart(Host),
}

impl Renderer {
    /// Compiles a template where it is to be rendered. `clock` measures how long one that hung or
    /// crashed is left alone.
    ///
    /// # Errors
    /// [`EngineError`] when it is no template, or when no process can be started for it.
    pub fn open(
        rendering: &Rendering,
        source: Source<'_>,
        clock: Arc<dyn Fn() -> Mono + Send + Sync>,
    ) -> Result<Self, EngineError> {
        match rendering {
            Rendering::Here => {
                let template = Template::compile(source.text, source.bos, source.eos)?;
                let control = source.control.to_vec();
                Ok(Self(Place::Here { template: Box::new(template), control }))
            }
            Rendering::Apart { program, arguments } => {
                let host = Host::open(program.clone(), arguments.clone(), source, clock)?;
                Ok(Self(Place::Apart(host)))
            }
        }
    }

    /// The prompt for `messages`, in pieces as [`Template::render`] gives them. Waits for whatever
    /// renders, and not for longer than a few seconds: call it where waiting harms nobody.
    ///
    /// # Errors
    /// A refusal when the template raises one, fails, hangs or crashes, or did so just now.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<Vec<String>, Refusal> {
        match &self.0 {
            Place::Here { template, control } => template.render(messages, control),
            Place::Apart(host) => host.render(messages),
        }
    }

    /// The same for a chat with functions, by a template that knows some.
    ///
    /// # Errors
    /// As [`Renderer::render`].
    pub(crate) fn render_tooled(&self, chat: &Tooled) -> Result<Vec<String>, Refusal> {
        match &self.0 {
            Place::Here { template, control } => template.render_tooled(chat, control),
            Place::Apart(host) => host.render_tooled(chat),
        }
    }

    /// The process that renders, where there is one now.
    pub fn process(&self) -> Option<u32> {
        match &self.0 {
            Place::Here { .. } => None,
            Place::Apart(host) => host.process(),
        }
    }
}
