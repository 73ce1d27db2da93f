//! Sound that clients want written down: a form with a file in, a transcript out.
//!
//! Owns the bounds of a file and the order of the steps. What a form says is `selvedge-dialect`'s,
//! decoding and hearing are behind the backend.

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use selvedge_contract::SpeechTask;
use selvedge_dialect::openai;
use selvedge_runtime::SpeechCall;

use super::body::{Answer, whole};
use super::errors::Problem;
use super::guard::Guard;
use super::metrics::Progress;
use super::route::{Route, Surface};
use super::router::Exchange;

/// Bytes of a form: a file of 25 MiB, which is what OpenAI's API takes, and the other fields.
const FORM_BYTES: usize = (25 << 20) + (64 << 10);

impl Exchange<'_> {
    /// What is said in the file of a form.
    pub(super) async fn hear(
        &self,
        parts: &Parts,
        body: Incoming,
        route: &Route,
    ) -> Result<Response<Answer>, Problem> {
        let translates = matches!(route, Route::Translations);
        let task = if translates { SpeechTask::Translate } else { SpeechTask::Transcribe };
        let holder = self.holder(parts, Surface::Audio)?;
        let caller = self.app.guard.caller(&parts.headers, holder.clone())?;
        let form = Guard::check_form(&parts.headers)?;
        let received = self.app.reader.read_within(&parts.headers, body, FORM_BYTES).await?;
        let asked = openai::parse_audio(form, &received.bytes, task)?;
        caller.holder.check_model(&asked.model)?;
        let backend = self.app.backend.as_ref();
        let file = received.bytes.slice(asked.file.clone());
        let sound = backend.sound(file, caller.deadline).await?;
        // From here on the sound counts instead.
        drop(received);
        let mut progress = Progress::new(&self.app.metrics);
        let call = SpeechCall {
            id: self.id,
            tenant: caller.holder.tenant,
            account: caller.holder.account,
            key: caller.holder.key,
            label: caller.label,
            deadline: caller.deadline,
            drawn: self.drawn,
            trace: self.trace.get().cloned(),
            model: asked.model.clone(),
            task,
            language: asked.language.clone(),
            prompt: asked.prompt.clone(),
            temperature_milli: asked.temperature_milli,
            sound,
        };
        let heard = backend.hear(call).await?;
        let transcript = &heard.transcript;
        let counts = (transcript.prompt_tokens, transcript.completion_tokens);
        progress.took(u64::from(counts.0), u64::from(counts.1));
        let text = openai::audio_body(&asked, transcript);
        let mut response = whole(StatusCode::OK, asked.format.content_type(), text);
        self.name_node(&mut response, Some(heard.by));
        Ok(response)
    }
}
