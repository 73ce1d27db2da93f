//! What an answer took, exactly as the one who bills says it.
//!
//! Owns one way of counting for all dialects: [`Usage::prompt_tokens`] and
//! [`Usage::completion_tokens`] are totals that contain their parts. Dialects that count the parts
//! beside each other are added up on the way in and taken apart on the way out.

use selvedge_base::Micros;

/// Tokens of an answer. All counts are cumulative: a later one replaces an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All tokens of the prompt: read anew, read from a cache, and written to one.
    pub prompt_tokens: u64,
    /// Of these, read from a cache.
    pub cached_tokens: u64,
    /// Of these, written to a cache (billed dearer by some).
    pub cache_creation_tokens: u64,
    /// Of the written ones, those kept for an hour (billed dearer still).
    pub cache_creation_1h_tokens: u64,
    /// Of the prompt, tokens of sound.
    pub prompt_audio_tokens: u64,
    /// All tokens of the answer, thinking included.
    pub completion_tokens: u64,
    /// Of these, thinking.
    pub reasoning_tokens: u64,
    /// Of the answer, tokens of sound.
    pub completion_audio_tokens: u64,
    /// Of the answer, predicted ones that came true.
    pub accepted_prediction_tokens: u64,
    /// Predicted ones that did not come true, which are billed all the same.
    pub rejected_prediction_tokens: u64,
    /// Searches of the web the provider made for the answer (billed by the piece).
    pub web_searches: u64,
}

impl Usage {
    /// Prompt and answer together.
    pub const fn total(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }

    /// Both together, of two parts of one answer.
    #[must_use]
    pub const fn plus(&self, more: &Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(more.prompt_tokens),
            cached_tokens: self.cached_tokens.saturating_add(more.cached_tokens),
            cache_creation_tokens: self
                .cache_creation_tokens
                .saturating_add(more.cache_creation_tokens),
            cache_creation_1h_tokens: self
                .cache_creation_1h_tokens
                .saturating_add(more.cache_creation_1h_tokens),
            prompt_audio_tokens: self.prompt_audio_tokens.saturating_add(more.prompt_audio_tokens),
            completion_tokens: self.completion_tokens.saturating_add(more.completion_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(more.reasoning_tokens),
            completion_audio_tokens: self
                .completion_audio_tokens
                .saturating_add(more.completion_audio_tokens),
            accepted_prediction_tokens: self
                .accepted_prediction_tokens
                .saturating_add(more.accepted_prediction_tokens),
            rejected_prediction_tokens: self
                .rejected_prediction_tokens
                .saturating_add(more.rejected_prediction_tokens),
            web_searches: self.web_searches.saturating_add(more.web_searches),
        }
    }

    /// Tokens of the prompt that were neither read from nor written to a cache.
    pub const fn fresh_tokens(&self) -> u64 {
        self.prompt_tokens
            .saturating_sub(self.cached_tokens)
            .saturating_sub(self.cache_creation_tokens)
    }

    /// Whether nothing was counted (yet).
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How long an answer took, where the one who answers tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Loading the model.
    pub load: Micros,
    /// Reading the prompt.
    pub prompt: Micros,
    /// Writing the answer.
    pub answer: Micros,
    /// All of it.
    pub total: Micros,
}
