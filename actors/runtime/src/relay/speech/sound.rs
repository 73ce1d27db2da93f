//! Sound that is decoded and held, within bounds.
//!
//! Owns how many files are decoded at a time, off the threads that everything else runs on, and how
//! much sound requests hold together.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use selvedge_base::{Blame, Code, Micros, Refusal, Retry, Stage};
use selvedge_contract::Samples;
use selvedge_contract::speech::{MAX_SAMPLES, RATE};
use selvedge_engine::{SoundError, samples};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Files decoded at a time: each takes a processor for a second or more, and up to an hour of
/// sound that nobody has counted yet.
const DECODED_AT_ONCE: usize = 2;
/// How long a file waits for its turn: that of some long ones before it.
const TURN_WITHIN: Micros = Micros::secs(30);
/// Seconds of sound that requests hold together: four of the longest, which take 460 MB, or
/// hundreds of usual ones.
const HELD_SECONDS: usize = 4 * MAX_SAMPLES / RATE as usize;

/// Bounds on what is decoded and held.
pub(crate) struct Sounds {
    turns: Arc<Semaphore>,
    seconds: Arc<Semaphore>,
}

impl Default for Sounds {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(DECODED_AT_ONCE)),
            seconds: Arc::new(Semaphore::new(HELD_SECONDS)),
        }
    }
}

/// What is heard, and its share of what may be held.
pub struct Sound {
    samples: Samples,
    _share: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sound({} samples)", self.samples.len())
    }
}

impl Sound {
    /// Sound that counts for nothing that is held.
    pub const fn new(samples: Samples) -> Self {
        Self { samples, _share: None }
    }

    /// The samples.
    pub(super) fn samples(&self) -> Samples {
        Arc::clone(&self.samples)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }
}

impl Sounds {
    pub(super) async fn decode(&self, file: Bytes) -> Result<Sound, Refusal> {
        let turn = Arc::clone(&self.turns).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(TURN_WITHIN.into(), turn).await else {
            return Err(full("other sound is being decoded; ask again in a moment"));
        };
        // The work keeps its turn when whoever wanted it has left: its thread is taken all the
        // same.
        let work = move || {
            let _turn = turn;
            samples(&file)
        };
        let decoded = tokio::task::spawn_blocking(work).await;
        // Only the end of the runtime comes in between.
        let decoded = decoded.map_err(|_| full("the node is shutting down"))?;
        let samples = decoded.map_err(|error| refused(&error))?;
        let share = self.share(samples.len())?;
        Ok(Sound { samples: Arc::new(samples), _share: Some(share) })
    }

    /// Room for so many samples.
    pub(super) fn share(&self, samples: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let seconds = samples.div_ceil(RATE as usize) as u32;
        Arc::clone(&self.seconds)
            .try_acquire_many_owned(seconds)
            .map_err(|_| full("requests hold as much sound as this node keeps at a time"))
    }
}

/// A refusal of what cannot be heard.
fn refused(error: &SoundError) -> Refusal {
    let code = match error {
        SoundError::TooLong => Code::TooLarge,
        _ => Code::InvalidRequest,
    };
    Refusal::client(Stage::Validate, code, error.to_string()).param("file")
}

fn full(message: &str) -> Refusal {
    let retry = Retry::After(Micros::secs(5));
    Refusal::new(Stage::Admit, Blame::Us, retry, Code::Overloaded, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_is_bounded_and_given_back() {
        let sounds = Sounds::default();
        let all: Vec<_> = (0..4).map(|_| sounds.share(MAX_SAMPLES).unwrap()).collect();
        let refused = sounds.share(1).unwrap_err();
        assert_eq!(refused.code, Code::Overloaded);
        assert!(matches!(refused.retry, Retry::After(_)));
        drop(all);
        assert!(sounds.share(MAX_SAMPLES).is_ok());
    }

    #[tokio::test]
    async fn what_is_no_sound_is_the_caller_s_fault() {
        let sounds = Sounds::default();
        let refused = sounds.decode(Bytes::from_static(b"hello")).await.unwrap_err();
        assert_eq!((refused.code, refused.blame), (Code::InvalidRequest, Blame::Client));
        assert_eq!(refused.param.as_deref(), Some("file"));
    }
}
