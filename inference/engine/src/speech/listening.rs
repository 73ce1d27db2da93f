//! One request under way: its sound, window by window.
//!
//! Owns where the next window begins, which is where the last one's times say that its last whole
//! part ended, what text a window is begun with, and how parts are cut out of what was written. A
//! step is one window, so that a long recording does not hold up a short one.

use selvedge_base::{Code, Refusal, Stage};
use selvedge_contract::speech::{PROMPT_BYTES, lasting_ms, tokens_of};
use selvedge_contract::{Samples, Segment, SpeechRequest, SpeechTask, Transcript};
use selvedge_kernels::SpeechCrew;

use super::listener::{Asked, LEAST_LOGPROB, Listener, MOST_SILENCE, Written};
use super::spectrum::Spectrum;
use crate::desk::{GoOn, Step};
use crate::error::EngineError;

/// Milliseconds of a row, and rows of a step of time.
const ROW_MS: u32 = 10;
/// See [`ROW_MS`].
const STEP_ROWS: usize = 2;
/// A window begins at least so many rows after the one before it: a second. A model that says that
/// its words end where they began would go on for ever.
const LEAST_ADVANCE: usize = 100;
/// Text that was drawn more freely than this is not told to the next window, which would go on
/// with its faults.
const MOST_TOLD: u32 = 500;

/// A request's state.
pub(super) struct Listening {
    request: SpeechRequest,
    sound: Samples,
    /// Rows of sound.
    rows: usize,
    /// The first row that was not heard yet.
    at: usize,
    /// The first row that was not looked at yet, and the loudest value so far.
    measured: usize,
    loudest: f32,
    language: Option<(String, u32)>,
    /// All tokens, those of the text before first.
    tokens: Vec<u32>,
    /// Those that the next window is not told.
    untold: usize,
    windows: u64,
    /// Tokens written, those of tries that came to nothing left out.
    written: u32,
    done: Transcript,
}

impl Listening {
    pub(super) fn new(request: SpeechRequest, sound: Samples) -> Self {
        let rows = Spectrum::rows(sound.len());
        let duration_ms = lasting_ms(sound.len());
        let done = Transcript {
            duration_ms,
            prompt_tokens: tokens_of(sound.len()).0,
            ..Transcript::default()
        };
        Self {
            request,
            sound,
            rows,
            at: 0,
            measured: 0,
            loudest: f32::NEG_INFINITY,
            language: None,
            tokens: Vec::new(),
            untold: 0,
            windows: 0,
            written: 0,
            done,
        }
    }

    pub(super) const fn request(&self) -> &SpeechRequest {
        &self.request
    }

    /// What was said.
    pub(super) fn finish(&mut self) -> Transcript {
        std::mem::take(&mut self.done)
    }

    /// Looks at a window's worth of sound, or hears and writes one.
    pub(super) fn step(
        &mut self,
        listener: &mut Listener,
        crew: &mut SpeechCrew,
        go_on: &mut GoOn<'_>,
    ) -> Result<Step, Refusal> {
        if self.measured == 0 && self.at == 0 {
            self.begin(listener)?;
        }
        // The rows after the last one hold the end of its sound.
        let all = self.rows + STEP_ROWS;
        if self.measured < all {
            let count = listener.rows().min(all - self.measured);
            let most = listener.spectrum.loudest(&self.sound, self.measured, count);
            self.loudest = self.loudest.max(most);
            self.measured += count;
            let more = self.measured < all || self.rows > 0;
            return Ok(if more { Step::More } else { Step::Done });
        }
        let window = self.window(listener, crew, go_on);
        let Some(written) = window.map_err(|error| error.to_refusal())? else {
            return Ok(Step::GivenUp);
        };
        let count = self.count(listener);
        self.take(listener, &written, count).map_err(|error| error.to_refusal())?;
        Ok(if self.at < self.rows { Step::More } else { Step::Done })
    }

    /// Reads what was asked, once the model is there.
    fn begin(&mut self, listener: &Listener) -> Result<(), Refusal> {
        let words = &listener.words;
        let refused = |code, message: String, param: &str| {
            Err(Refusal::client(Stage::Validate, code, message).param(param))
        };
        if self.request.prompt.len() > PROMPT_BYTES {
            let message = format!("'prompt' has more than {PROMPT_BYTES} bytes");
            return refused(Code::InvalidRequest, message, "prompt");
        }
        if !words.multilingual {
            if self.request.task == SpeechTask::Translate {
                let message = "this model knows English only and translates nothing".to_owned();
                return refused(Code::Unsupported, message, "model");
            }
            if self.request.language.as_deref().is_some_and(|language| language != "en") {
                let message = "this model knows English only: leave 'language' out, or ask a \
                               model of several languages"
                    .to_owned();
                return refused(Code::Unsupported, message, "language");
            }
            "en".clone_into(&mut self.done.language);
        } else if let Some(name) = &self.request.language {
            let Some(id) = words.languages.get(name) else {
                let shown: String = name.chars().take(16).collect();
                let message = format!("this model does not know the language '{shown}'");
                return refused(Code::Unsupported, message, "language");
            };
            self.language = Some((name.clone(), *id));
            self.done.language.clone_from(name);
        }
        let prompt = self.request.prompt.trim();
        if !prompt.is_empty() {
            let tokens = words.tokens(&format!(" {prompt}"));
            self.tokens = tokens.map_err(|error| error.to_refusal())?;
            let counted = self.tokens.len().min(listener.most_before()) as u32;
            self.done.prompt_tokens += counted;
        }
        Ok(())
    }

    /// Whether as much was written as may be: the model repeats itself. What is left is heard in
    /// whole windows with one try each, so that it ends soon and what was written stays.
    fn is_full(&self) -> bool {
        self.written > tokens_of(self.sound.len()).1
    }

    /// Rows of the window that is next.
    fn count(&self, listener: &Listener) -> usize {
        listener.rows().min(self.rows - self.at)
    }

    fn window(
        &mut self,
        listener: &mut Listener,
        crew: &mut SpeechCrew,
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<Written>, EngineError> {
        let rows = (self.at, self.count(listener));
        if listener.hear(crew, &self.sound, rows, self.loudest, go_on)?.is_none() {
            return Ok(None);
        }
        if listener.words.multilingual && self.language.is_none() {
            let found = listener.language(crew)?;
            self.done.language.clone_from(&found.0);
            self.language = Some(found);
        }
        let asked = Asked {
            task: self.request.task,
            language: self.language.as_ref().map(|(_, id)| *id),
            before: &self.tokens[self.untold..],
            temperature_milli: self.request.temperature_milli,
            seed: self.request.seed,
            number: self.windows,
            once: self.is_full(),
        };
        self.windows += 1;
        listener.write(crew, &asked, go_on)
    }

    /// Cuts what was written into parts, and says where the next window begins.
    fn take(
        &mut self,
        listener: &Listener,
        written: &Written,
        count: usize,
    ) -> Result<(), EngineError> {
        let first = listener.words.first_time;
        self.written = self.written.saturating_add(written.tokens.len() as u32);
        // No more is reserved.
        let (_, most) = tokens_of(self.sound.len());
        let spent = self.done.completion_tokens.saturating_add(written.spent);
        self.done.completion_tokens = spent.min(most);
        if written.silence > MOST_SILENCE && written.mean_logprob < LEAST_LOGPROB {
            self.at += count;
            return Ok(());
        }
        let tokens = &written.tokens;
        let time = |token: u32| token.checked_sub(first).map(|steps| steps as usize * STEP_ROWS);
        let is_time = |at: usize| tokens.get(at).is_some_and(|token| *token >= first);
        let ends_alone =
            tokens.len() >= 2 && is_time(tokens.len() - 1) && !is_time(tokens.len() - 2);
        let mut cuts: Vec<usize> =
            (1..tokens.len()).filter(|at| is_time(at - 1) && is_time(*at)).collect();
        let mut advance = count;
        if cuts.is_empty() {
            // One part; it ends where the model says, or with the window.
            let said = tokens.iter().rev().find_map(|token| time(*token)).filter(|rows| *rows > 0);
            self.part(listener, written, tokens, (0, said.unwrap_or(count)))?;
        } else {
            if ends_alone {
                cuts.push(tokens.len());
            }
            let mut begin = 0;
            for cut in cuts {
                let part = &tokens[begin..cut];
                let ends = [part.first(), part.last()].map(|t| t.and_then(|token| time(*token)));
                let (from, to) = (ends[0].unwrap_or(0), ends[1].unwrap_or(count));
                self.part(listener, written, part, (from, to))?;
                if !ends_alone {
                    advance = to;
                }
                begin = cut;
            }
        }
        let least = if self.is_full() { count } else { LEAST_ADVANCE.min(count) };
        self.at += advance.clamp(least, count);
        if written.temperature_milli > MOST_TOLD {
            self.untold = self.tokens.len();
        }
        Ok(())
    }

    /// Keeps a part, if it lasts and says anything.
    fn part(
        &mut self,
        listener: &Listener,
        written: &Written,
        tokens: &[u32],
        (from, to): (usize, usize),
    ) -> Result<(), EngineError> {
        let text = listener.words.text(tokens)?;
        if from == to || text.trim().is_empty() {
            return Ok(());
        }
        let ms = |row: usize| row as u32 * ROW_MS;
        self.tokens.extend_from_slice(tokens);
        self.done.segments.push(Segment {
            window_ms: ms(self.at),
            start_ms: ms(self.at + from),
            end_ms: ms(self.at + to),
            text,
            tokens: tokens.to_vec(),
            temperature_milli: written.temperature_milli,
            mean_logprob: written.mean_logprob,
            compression: written.compression,
            silence: written.silence,
        });
        Ok(())
    }
}
