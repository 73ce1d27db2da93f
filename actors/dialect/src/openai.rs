//! OpenAI's chat completions, text completions, embeddings and transcriptions, and the many who
//! speak alike (Azure among them).
//!
//! Owns both roles, of transcriptions the server's. Source: the OpenAI API reference, "Chat",
//! "Completions (legacy)", "Embeddings" and "Audio". Beyond it are
//! accepted and written: `top_k`, `min_p` and `repetition_penalty` (common among compatible
//! servers), what they hold answers to (`structured_outputs`, `grammar` and their kin) and
//! `reasoning_content` (thinking, as compatible servers call it).

mod answer;
mod audio;
mod embed;
mod error;
mod fields;
mod messages;
mod render;
mod text;
mod usage;
mod whole;
mod write;

pub use answer::{Parser, WholeParser};
pub use audio::{AudioFormat, AudioRequest, audio_body, audio_schema, parse_audio};
pub use embed::{embed_body, embed_schema, parse_embed, read_embed, render_embed};
pub use error::{error_body, failure, status};
pub use fields::{body_schema, parse};
pub use render::{ENVELOPE, Target, render};
pub use text::{TextWriter, parse_text, whole_text};
pub use whole::whole;
pub use write::Writer;

pub(crate) use answer::reason;
pub(crate) use fields::{effort, function_name};
pub(crate) use usage::UsageField;

#[cfg(test)]
#[path = "openai/tests.rs"]
mod tests;
