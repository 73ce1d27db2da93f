//! A model that writes down what is said, in memory: one window of sound at a time.
//!
//! Owns what a window's text is begun with, and when what was written is not good enough and is
//! drawn again, more freely (Radford et al., 2022, section 4.5). Which window comes next is
//! `listening`'s.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use selvedge_base::Dice;
use selvedge_contract::SpeechTask;
use selvedge_kernels::{Heard, KernelError, Speech, SpeechCrew};

use super::folder::Folder;
use super::rules;
use super::spectrum::Spectrum;
use super::words::Words;
use crate::desk::GoOn;
use crate::error::EngineError;

/// How freely tokens are drawn, in thousandths, one after the other, until the text is good.
const TEMPERATURES: [u32; 6] = [0, 200, 400, 600, 800, 1_000];
/// Text that can be packed more than so many times smaller repeats itself.
const MOST_COMPRESSION: f32 = 2.4;
/// Text whose tokens are less likely than this in the mean (logarithm) was not understood.
pub(super) const LEAST_LOGPROB: f32 = -1.0;
/// Above this probability that nobody speaks, text that was not understood is none.
pub(super) const MOST_SILENCE: f32 = 0.6;

/// A model's weights and tokens.
pub(crate) struct Listener {
    speech: Speech,
    pub(super) words: Words,
    pub(super) spectrum: Spectrum,
    heard: Heard,
    window: Vec<f32>,
    logits: Vec<f32>,
}

/// What is asked of a window.
pub(super) struct Asked<'a> {
    pub(super) task: SpeechTask,
    /// The token of the language, of a model that knows several.
    pub(super) language: Option<u32>,
    /// The text before.
    pub(super) before: &'a [u32],
    pub(super) temperature_milli: u32,
    pub(super) seed: u64,
    /// The window's number, so that each has dice of its own.
    pub(super) number: u64,
    /// Whether it is written once, good or not.
    pub(super) once: bool,
}

/// What was written of a window.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Written {
    pub(super) tokens: Vec<u32>,
    pub(super) temperature_milli: u32,
    pub(super) mean_logprob: f32,
    pub(super) compression: f32,
    pub(super) silence: f32,
    /// Tokens written, those of tries that came to nothing included.
    pub(super) spent: u32,
}

impl Listener {
    pub(crate) fn load(folder: &Folder) -> Result<Self, EngineError> {
        let words = Words::load(folder)?;
        let mut file = folder.tensors.file()?;
        let mut source = |name: &str, dims: &[usize]| {
            let read = folder.tensors.read(&mut file, name, dims);
            read.map_err(|error| KernelError::Source(Box::new(error)))
        };
        let speech = Speech::load(folder.config.clone(), &mut source);
        let speech = speech.map_err(|error| EngineError::corrupt(error.to_string()))?;
        Ok(Self {
            heard: speech.room(),
            words,
            spectrum: Spectrum::new(folder.config.bands),
            window: vec![0.0; 2 * folder.config.frames * folder.config.bands],
            logits: Vec::new(),
            speech,
        })
    }

    /// Rows of sound in a window.
    pub(super) const fn rows(&self) -> usize {
        2 * self.speech.config().frames
    }

    /// Tokens of the text before that a window's text is begun with.
    pub(super) const fn most_before(&self) -> usize {
        (self.speech.config().positions / 2).saturating_sub(1)
    }

    /// Hears a window: `count` rows from `from` on. None where it was given up.
    pub(super) fn hear(
        &mut self,
        crew: &mut SpeechCrew,
        sound: &[i16],
        rows: (usize, usize),
        loudest: f32,
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<()>, EngineError> {
        self.spectrum.window(sound, rows, loudest, &mut self.window);
        let heard = self.speech.hear(crew, &self.window, &mut self.heard, go_on);
        let heard = heard.map_err(|error| EngineError::Compute(error.to_string()))?;
        Ok(heard.is_continue().then_some(()))
    }

    /// The language that is spoken in the window that was heard.
    pub(super) fn language(&mut self, crew: &mut SpeechCrew) -> Result<(String, u32), EngineError> {
        self.heard.anew();
        self.push(crew, &[self.words.start])?;
        let logit = |id: &u32| self.logits.get(*id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let languages = self.words.languages.iter();
        let best = languages.max_by(|(_, a), (_, b)| logit(a).total_cmp(&logit(b)));
        let (name, id) = best.ok_or_else(|| EngineError::corrupt("a model without languages"))?;
        Ok((name.clone(), *id))
    }

    /// Writes down what was said in the window that was heard. None where it was given up.
    pub(super) fn write(
        &mut self,
        crew: &mut SpeechCrew,
        asked: &Asked<'_>,
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<Written>, EngineError> {
        let one = [asked.temperature_milli];
        let several = asked.temperature_milli == 0 && !asked.once;
        let temperatures = if several { &TEMPERATURES[..] } else { &one };
        let (mut last, mut spent) = (None, 0);
        for temperature in temperatures {
            let Some(mut written) = self.attempt(crew, asked, *temperature, go_on)? else {
                return Ok(None);
            };
            spent += written.spent;
            written.spent = spent;
            let silent = written.silence > MOST_SILENCE && written.mean_logprob < LEAST_LOGPROB;
            let good =
                written.compression <= MOST_COMPRESSION && written.mean_logprob >= LEAST_LOGPROB;
            last = Some(written);
            if silent || good {
                break;
            }
        }
        Ok(last)
    }

    fn attempt(
        &mut self,
        crew: &mut SpeechCrew,
        asked: &Asked<'_>,
        temperature_milli: u32,
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<Written>, EngineError> {
        let temperature = temperature_milli as f32 / 1_000.0;
        let purpose = format!("speech {} {temperature_milli}", asked.number);
        let mut dice = Dice::keyed(asked.seed, &purpose);
        let mut begin = Vec::with_capacity(asked.before.len() + 2);
        if !asked.before.is_empty() {
            begin.push(self.words.before);
            let skipped = asked.before.len().saturating_sub(self.most_before());
            begin.extend_from_slice(&asked.before[skipped..]);
        }
        begin.push(self.words.start);
        self.heard.anew();
        self.push(crew, &begin)?;
        let silence = rules::probability(&self.logits, self.words.silence);
        if let Some(language) = asked.language {
            let task = match asked.task {
                SpeechTask::Transcribe => self.words.transcribe,
                SpeechTask::Translate => self.words.translate,
            };
            self.push(crew, &[language, task])?;
        }
        let positions = self.speech.config().positions;
        let most = (positions / 2).min(positions - self.heard.written());
        let (mut tokens, mut sum) = (Vec::new(), 0.0);
        while tokens.len() < most {
            if go_on().is_break() {
                return Ok(None);
            }
            rules::restrict(&self.words, &tokens, &mut self.logits);
            let drawn = rules::choose(&self.logits, temperature, &mut dice);
            let (token, logprob) = drawn.ok_or_else(|| {
                EngineError::Compute("a window's tokens are no numbers".to_owned())
            })?;
            sum += logprob;
            if token == self.words.end {
                break;
            }
            tokens.push(token);
            if tokens.len() < most {
                self.push(crew, &[token])?;
            }
        }
        let text = self.words.text(&tokens)?;
        Ok(Some(Written {
            mean_logprob: sum / (tokens.len() + 1) as f32,
            compression: compression(text.trim()),
            silence,
            temperature_milli,
            spent: tokens.len() as u32,
            tokens,
        }))
    }

    fn push(&mut self, crew: &mut SpeechCrew, tokens: &[u32]) -> Result<(), EngineError> {
        let written = self.speech.write(crew, &mut self.heard, tokens, &mut self.logits);
        written.map_err(|error| EngineError::Compute(error.to_string()))
    }
}

/// How many times smaller a text can be packed.
fn compression(text: &str) -> f32 {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail; an empty result counts as no repetition.
    let packed = packer.write_all(text.as_bytes()).and_then(|()| packer.finish());
    packed.map_or(0.0, |packed| text.len() as f32 / packed.len().max(1) as f32)
}
