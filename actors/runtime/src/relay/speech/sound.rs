//! Sound that is decoded and held, within bounds.
//!
//! Owns how many files are decoded at a time, off the threads that everything else runs on and for
//! no longer than somebody waits, and how much sound requests hold together. What a decoder panics
//! on is a damaged file.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use selvedge_base::{Blame, Code, Micros, Mono, NodeId, Refusal, Retry, Stage};
use selvedge_contract::Samples;
use selvedge_contract::speech::{MAX_SAMPLES, RATE};
use selvedge_engine::{SoundError, samples_while};
use selvedge_net::clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Files decoded at a time: each takes a processor for a second or more, and up to an hour of
/// sound that nobody has counted yet.
const DECODED_AT_ONCE: usize = 2;
/// How long a file waits for its turn: that of some long ones before it.
const TURN_WITHIN: Micros = Micros::secs(30);
/// Seconds of sound that requests hold together: four of the longest, which take 460 MB, or
/// hundreds of usual ones.
const HELD_SECONDS: usize = 4 * MAX_SAMPLES / RATE as usize;
/// Seconds of sound that are held for one peer: a quarter, which is one of the longest, so that no
/// peer takes the room of all others.
const PEER_SECONDS: usize = HELD_SECONDS / 4;

/// Bounds on what is decoded and held.
pub(crate) struct Sounds {
    turns: Arc<Semaphore>,
    seconds: Arc<Semaphore>,
    /// The shares of peers that hold any.
    peers: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
}

impl Default for Sounds {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(DECODED_AT_ONCE)),
            seconds: Arc::new(Semaphore::new(HELD_SECONDS)),
            peers: Mutex::default(),
        }
    }
}

/// What is heard, and its share of what may be held.
pub struct Sound {
    samples: Samples,
    /// When its file came: the request's time runs since then.
    came: Option<Mono>,
    _share: Option<OwnedSemaphorePermit>,
}

/// Tells whoever decodes that nobody waits any more.
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sound({} samples)", self.samples.len())
    }
}

impl Sound {
    /// Sound that counts for nothing that is held.
    pub const fn new(samples: Samples) -> Self {
        Self { samples, came: None, _share: None }
    }

    /// When its file came, if it was one.
    pub(super) const fn came(&self) -> Option<Mono> {
        self.came
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
    /// The sound in a file, if it takes no longer than `within`.
    pub(super) async fn decode(&self, file: Bytes, within: Micros) -> Result<Sound, Refusal> {
        let came = clock::mono();
        let until = came.plus(within);
        let turn = Arc::clone(&self.turns).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(TURN_WITHIN.into(), turn).await else {
            return Err(full("other sound is being decoded; ask again in a moment"));
        };
        let left = Arc::new(AtomicBool::new(false));
        let _waits = Waits(Arc::clone(&left));
        // The work keeps its turn until it notices that whoever wanted it has left: its thread is
        // taken as long.
        let work = move || {
            let _turn = turn;
            samples_while(&file, &|| !left.load(Ordering::Relaxed) && clock::mono() < until)
        };
        let decoded = match tokio::task::spawn_blocking(work).await {
            Ok(decoded) => decoded,
            Err(error) if error.is_panic() => {
                tracing::warn!("reading a sound file panicked");
                Err(SoundError::Damaged("it cannot be decoded".to_owned()))
            }
            // Only the end of the runtime comes in between.
            Err(_) => return Err(full("the node is shutting down")),
        };
        let samples = decoded.map_err(|error| refused(&error))?;
        let share = self.share(samples.len())?;
        Ok(Sound { samples: Arc::new(samples), came: Some(came), _share: Some(share) })
    }

    /// Room for so many samples of a peer: in its own share, and in that of all.
    pub(super) fn share_of(
        &self,
        peer: NodeId,
        samples: usize,
    ) -> Result<[OwnedSemaphorePermit; 2], Refusal> {
        let own = {
            let mut peers = self.peers.lock();
            // Whoever holds nothing is forgotten.
            peers.retain(|_, share| Arc::strong_count(share) > 1);
            let new = || Arc::new(Semaphore::new(PEER_SECONDS));
            Arc::clone(peers.entry(peer).or_insert_with(new))
        };
        let own = own
            .try_acquire_many_owned(seconds(samples))
            .map_err(|_| full("a peer has as much sound here as this node keeps for one"))?;
        Ok([own, self.share(samples)?])
    }

    /// Room for so many samples.
    pub(super) fn share(&self, samples: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.seconds)
            .try_acquire_many_owned(seconds(samples))
            .map_err(|_| full("requests hold as much sound as this node keeps at a time"))
    }
}

/// Seconds that so many samples take of what may be held.
const fn seconds(samples: usize) -> u32 {
    samples.div_ceil(RATE as usize) as u32
}

/// A refusal of what cannot be heard.
fn refused(error: &SoundError) -> Refusal {
    if *error == SoundError::GivenUp {
        let (stage, blame) = (Stage::Validate, Blame::Us);
        let refusal = Refusal::new(stage, blame, Retry::Never, Code::Timeout, error.to_string());
        return refusal.param("file");
    }
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
    async fn no_peer_holds_the_room_of_all_others() {
        let sounds = Sounds::default();
        let (one, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let held = sounds.share_of(one, MAX_SAMPLES).unwrap();
        assert_eq!(sounds.share_of(one, 1).unwrap_err().code, Code::Overloaded);
        assert!(sounds.share_of(other, MAX_SAMPLES).is_ok());
        drop(held);
        assert!(sounds.share_of(one, MAX_SAMPLES).is_ok());
    }

    #[tokio::test]
    async fn what_is_no_sound_is_the_caller_s_fault() {
        let sounds = Sounds::default();
        let file = Bytes::from_static(b"hello");
        let refused = sounds.decode(file, Micros::secs(60)).await.unwrap_err();
        assert_eq!((refused.code, refused.blame), (Code::InvalidRequest, Blame::Client));
        assert_eq!(refused.param.as_deref(), Some("file"));
    }
}
