//! The chain of a job as a file: the job, and how each of its rounds ended.
//!
//! ```text
//! "selvedge chain\n"  version (1 byte)
//! length (4 bytes, big endian)  the job as it was told
//! length (4 bytes, big endian)  the end of round 0, postcard
//! length (4 bytes, big endian)  the end of round 1, …
//! ```
//!
//! Owns the form of the file and its bounds. Whether what is in it is true is `verify`'s. Both ways
//! hold one round in memory, never the file.

use std::io::{self, Read, Write};

use selvedge_federated::round::Folded;
use selvedge_proto::settings::MAX_CONTENT_BYTES;
use thiserror::Error;

use super::task::{Announced, AnnouncedError};

/// What the file begins with.
const MAGIC: &[u8; 15] = b"selvedge chain\n";
/// The version of what follows it: the order of things, and postcard for the ends of rounds.
const VERSION: u8 = 1;
/// Bytes of a length.
const LENGTH_BYTES: usize = 4;
/// The longest end of a round: what a record on the disk and a message hold.
const MAX_ROUND_BYTES: usize = 8 << 20;

/// Why a chain is not written or read.
#[derive(Debug, Error)]
pub enum ChainError {
    /// The file cannot be read or written.
    #[error("the chain cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// It is another kind of file.
    #[error("this is no chain of a job: it begins with other bytes")]
    Foreign,
    /// Only a newer program understands it.
    #[error("the chain is in version {0}, which this build does not know: update selvedge")]
    Version(u8),
    /// It ends too early.
    #[error("the chain ends in the middle of {0}: the file is not whole")]
    Cut(ChainPart),
    /// A part says to be longer than it may be.
    #[error("{part} has {bytes} bytes; at most {most} are allowed")]
    TooLong {
        /// Which part.
        part: ChainPart,
        /// What its length says.
        bytes: usize,
        /// What is allowed.
        most: usize,
    },
    /// The job is none.
    #[error("the job of the chain: {0}")]
    Job(#[from] AnnouncedError),
    /// A round cannot be read.
    #[error("{part} cannot be read: {why}")]
    Malformed {
        /// Which part.
        part: ChainPart,
        /// What is wrong.
        why: String,
    },
    /// There is more than the job has rounds.
    #[error("the job has {0} rounds and the chain goes on after them")]
    Beyond(u64),
    /// A round is written that is not the next one.
    #[error(
        "round {} cannot be written where round {} must follow", .found.saturating_add(1),
        .wanted.saturating_add(1)
    )]
    Order {
        /// The round that was handed in, counted from 0.
        found: u64,
        /// The next one.
        wanted: u64,
    },
}

/// A part of a chain. Rounds are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainPart {
    /// What comes before everything else.
    Beginning,
    /// The job.
    Job,
    /// The end of a round.
    Round(u64),
}

impl std::fmt::Display for ChainPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Beginning => f.write_str("its beginning"),
            Self::Job => f.write_str("the job"),
            // People count from 1.
            Self::Round(round) => write!(f, "round {}", round.saturating_add(1)),
        }
    }
}

/// Writes a chain, round by round. Touches whatever it writes to.
pub struct ChainWriter<W> {
    to: W,
    next: u64,
    rounds: u64,
}

impl<W: Write> ChainWriter<W> {
    /// Begins the chain of a job.
    ///
    /// # Errors
    /// [`ChainError::Job`] for one that is too large to be told, [`ChainError::Io`].
    pub fn begin(mut to: W, told: &Announced) -> Result<Self, ChainError> {
        to.write_all(MAGIC)?;
        to.write_all(&[VERSION])?;
        let mut chain = Self { to, next: 0, rounds: told.job.rounds };
        chain.part(ChainPart::Job, &told.to_bytes()?, MAX_CONTENT_BYTES)?;
        Ok(chain)
    }

    /// Goes on with a chain that has so many rounds, without what comes before.
    pub(super) const fn after(to: W, told: &Announced, rounds: u64) -> Self {
        Self { to, next: rounds, rounds: told.job.rounds }
    }

    /// Adds the end of the next round.
    ///
    /// # Errors
    /// [`ChainError::Order`] for another round, [`ChainError::Beyond`] after the last one,
    /// [`ChainError::TooLong`] for one that no message would hold, [`ChainError::Io`].
    pub fn round(&mut self, folded: &Folded) -> Result<(), ChainError> {
        let (found, wanted) = (folded.certificate.close.round, self.next);
        if found != wanted {
            return Err(ChainError::Order { found, wanted });
        }
        if wanted >= self.rounds {
            return Err(ChainError::Beyond(self.rounds));
        }
        let part = ChainPart::Round(wanted);
        let bytes = postcard::to_stdvec(folded)
            .map_err(|why| ChainError::Malformed { part, why: why.to_string() })?;
        self.part(part, &bytes, MAX_ROUND_BYTES)?;
        self.next += 1;
        Ok(())
    }

    /// Ends the chain: hands everything on, and gives back what it was written to. A chain may end
    /// before its job does; it then proves the model of its last round.
    ///
    /// # Errors
    /// [`ChainError::Io`].
    pub fn finish(mut self) -> Result<W, ChainError> {
        self.to.flush()?;
        Ok(self.to)
    }

    fn part(&mut self, part: ChainPart, bytes: &[u8], most: usize) -> Result<(), ChainError> {
        if bytes.len() > most {
            return Err(ChainError::TooLong { part, bytes: bytes.len(), most });
        }
        self.to.write_all(&(bytes.len() as u32).to_be_bytes())?;
        Ok(self.to.write_all(bytes)?)
    }
}

/// Reads a chain, round by round. Touches whatever it reads from, in reads of any size.
pub struct ChainReader<R> {
    from: R,
    told: Announced,
    next: u64,
}

impl<R: Read> ChainReader<R> {
    /// Reads the beginning of a chain and its job, which is checked.
    ///
    /// # Errors
    /// [`ChainError`], the first thing that is wrong.
    pub fn open(mut from: R) -> Result<Self, ChainError> {
        let begin = bounded(&mut from, MAGIC.len() + 1)?;
        let (magic, version) = begin.split_at(begin.len().min(MAGIC.len()));
        if !MAGIC.starts_with(magic) || magic.is_empty() {
            return Err(ChainError::Foreign);
        }
        match version {
            [VERSION] => {}
            [other, ..] => return Err(ChainError::Version(*other)),
            [] => return Err(ChainError::Cut(ChainPart::Beginning)),
        }
        let bytes = part(&mut from, ChainPart::Job, MAX_CONTENT_BYTES)?;
        let bytes = bytes.ok_or(ChainError::Cut(ChainPart::Job))?;
        let told = Announced::from_bytes(&bytes)?;
        written(ChainPart::Job, &bytes, &told.to_bytes()?)?;
        Ok(Self { from, told, next: 0 })
    }

    /// The job.
    pub const fn told(&self) -> &Announced {
        &self.told
    }

    /// The end of the next round; none at the end of the file. It is read and not checked.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn round(&mut self) -> Result<Option<Folded>, ChainError> {
        let at = ChainPart::Round(self.next);
        let rounds = self.told.job.rounds;
        if self.next >= rounds {
            let rest = bounded(&mut self.from, 1)?;
            return if rest.is_empty() { Ok(None) } else { Err(ChainError::Beyond(rounds)) };
        }
        let Some(bytes) = part(&mut self.from, at, MAX_ROUND_BYTES)? else { return Ok(None) };
        let malformed = |why: String| ChainError::Malformed { part: at, why };
        let (folded, rest) = postcard::take_from_bytes::<Folded>(&bytes)
            .map_err(|why| malformed(why.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes are left after it", rest.len())));
        }
        let again = postcard::to_stdvec(&folded).map_err(|why| malformed(why.to_string()))?;
        written(at, &bytes, &again)?;
        self.next += 1;
        Ok(Some(folded))
    }
}

/// Refuses bytes that mean a part of a chain and are not those that a writer writes for it, such
/// as another tag for the same version: nothing in a proof may be changed without being noticed.
fn written(part: ChainPart, found: &[u8], again: &[u8]) -> Result<(), ChainError> {
    if found == again {
        return Ok(());
    }
    let why = "its bytes are not as they are written: somebody changed the file".to_owned();
    Err(ChainError::Malformed { part, why })
}

/// The bytes of the next part; none where the file ends before it.
fn part(from: &mut impl Read, part: ChainPart, most: usize) -> Result<Option<Vec<u8>>, ChainError> {
    let length = bounded(from, LENGTH_BYTES)?;
    if length.is_empty() {
        return Ok(None);
    }
    let length = length.try_into().map_err(|_| ChainError::Cut(part))?;
    let bytes = u32::from_be_bytes(length) as usize;
    if bytes > most {
        return Err(ChainError::TooLong { part, bytes, most });
    }
    let found = bounded(from, bytes)?;
    if found.len() < bytes { Err(ChainError::Cut(part)) } else { Ok(Some(found)) }
}

/// So many bytes, or fewer where the file ends. What is reserved grows with what is there.
fn bounded(from: &mut impl Read, bytes: usize) -> Result<Vec<u8>, ChainError> {
    let mut found = Vec::new();
    from.take(bytes as u64).read_to_end(&mut found)?;
    Ok(found)
}
