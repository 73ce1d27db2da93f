//! Jobs on a disk that tears: whatever of the last writes reached it, and in which order, a node
//! opens the file again with all that it had said was written, and writes on.
//!
//! The disk is a tape of what redb asked of it. A crash leaves what was there at the last sync and
//! any part of what was written since: whole writes, some of their bytes, none. The file has been
//! made before: one that a crash leaves half made holds nothing yet, and is refused in words.

use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;
use selvedge_federated::epidemic::{Base, MixerStored, Told};
use selvedge_federated::field::Fp;
use selvedge_federated::mask::Seed;
use selvedge_federated::privacy::accountant::Rho;
use selvedge_net::Identity;

use super::super::test_rounds;
use super::*;
use crate::quota::NodeSeal;

/// What redb asks of a disk.
enum Op {
    Length(usize),
    Write(usize, Vec<u8>),
    Sync,
}

/// A disk that remembers what was asked of it.
#[derive(Clone, Default)]
struct Tape {
    bytes: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<Vec<Op>>>,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tape")
    }
}

impl Tape {
    /// A disk as a crash left it.
    fn left(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(Mutex::new(bytes)), asked: Arc::default() }
    }

    async fn open(&self) -> Result<Store, StoreError> {
        let backend = self.clone();
        Store::with_backend(move || backend.clone()).await
    }

    fn asks(&self, op: Op) {
        apply(&mut self.bytes.lock(), &op);
        self.asked.lock().push(op);
    }
}

fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Length(len) => bytes.resize(*len, 0),
        Op::Write(at, data) => bytes[*at..*at + data.len()].copy_from_slice(data),
        Op::Sync => {}
    }
}

impl StorageBackend for Tape {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let (bytes, at) = (self.bytes.lock(), offset as usize);
        let found = bytes.get(at..at + out.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.asks(Op::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.asks(Op::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.asks(Op::Write(offset as usize, data.to_vec()));
        Ok(())
    }
}

/// All that a node reads of a job and of a ledger when it starts.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    anchor: AnchorStored,
    client: ClientStored,
    control: Vec<f32>,
    measured: Vec<RoundMeasured>,
    personal: Option<Kept>,
    rounds: Vec<Option<Folded>>,
    spent: LedgerStored,
    refused: Recorded,
}

/// A job that ran, of which one node writes things down.
struct Life {
    job: Job,
    first: Tip,
    rounds: Vec<Folded>,
    seal: NodeSeal,
}

impl Life {
    fn new() -> Self {
        let ran = test_rounds::run(&test_rounds::job_file("rounds = 2", ""), false);
        let first = ran.told.first().expect("a beginning");
        let seal = NodeSeal::new(Arc::new(Identity::generate()));
        Self { job: ran.told.job.clone(), first, rounds: ran.rounds, seal }
    }

    fn disks(&self, store: &Store) -> (JobDisk, LedgerDisk) {
        let disk = JobDisk::new(store.clone(), &self.first.job);
        (disk, LedgerDisk::new(store.clone(), "digits"))
    }

    /// What a node has that begins from this store.
    fn found(&self, store: &Store) -> Result<Found, StoreError> {
        let (disk, ledger) = self.disks(store);
        let Loaded { anchor, mut clients, personal, is_lost, refused, .. } =
            disk.load(&self.job, &self.first, &self.seal, &[None])?;
        assert!(!is_lost, "a personal model was half a one");
        let LoadedClient { stored, control, measured, .. } = clients.remove(0);
        Ok(Found {
            anchor,
            client: stored,
            control,
            measured,
            personal,
            rounds: (0..2).map(|round| disk.round(round)).collect::<Result<_, _>>()?,
            spent: ledger.load()?,
            refused,
        })
    }

    fn held(&self, at: usize, elements: u32) -> AnchorChange {
        let header = self.rounds[0].certificate.close.entries[at].header;
        let share = (0..elements).map(|one| Fp::reduced(u64::from(one) << 12)).collect();
        AnchorChange::Held(Held { header, share })
    }

    /// What the node writes down, one commit after the other.
    fn writes(&self) -> Vec<Write> {
        let first = &self.rounds[0];
        let Certificate { close, ballot, .. } = &first.certificate;
        let pending = Pending {
            id: close.entries[0].header.id,
            base_round: 0,
            examples: 9,
            levels: vec![7; 40],
            seed: Seed([3; 32]),
        };
        let base = Base { round: 0, record: self.first.record };
        let (client, drift) = (pending.id.client, vec![5; 40]);
        let told = Told { client, seq: 1, base, age: 1, examples: 9, drift };
        let stored = MixerStored { told: Some(told), ..MixerStored::default() };
        let spent = Spent { contributions: 1, last: Some([9; 32]) };
        let spends = LedgerChange { job: self.first.job, now: spent, more: Rho(11) };
        let loss_micronats = Some(1_500_000);
        vec![
            Write::Ledger(spends),
            Write::Client(ClientChange::Contributed(pending)),
            Write::Anchor(self.held(0, 40)),
            // As much as goes into several pages.
            Write::Anchor(self.held(1, 6_000)),
            Write::Anchor(AnchorChange::Promised(*ballot)),
            Write::Anchor(AnchorChange::Accepted(*ballot, Box::new(close.clone()))),
            Write::Anchor(AnchorChange::Opened(Box::new(first.certificate.clone()))),
            Write::Anchor(AnchorChange::Folded(Box::new(first.clone()))),
            Write::Client(ClientChange::Folded(Box::new(first.clone()))),
            Write::Measured(RoundMeasured { round: 1, right: 3, examples: 5, loss_micronats }),
            Write::Personal(Kept { stored, weights: vec![6; 40] }),
            Write::Refused(vec![(client.node, "digest".to_owned(), 3)]),
        ]
    }

    /// Writes one of them down.
    async fn write(&self, store: &Store, write: &Write) {
        let (disk, ledger) = self.disks(store);
        let loaded = disk.load(&self.job, &self.first, &self.seal, &[None]).expect("loads");
        let Loaded { mut anchor, mut written, mut clients, .. } = loaded;
        let batch = match write {
            Write::Anchor(change) => {
                anchor.apply(&self.job, change, &self.seal);
                disk.anchor(change, &anchor, &mut written)
            }
            Write::Client(change) => {
                let client = &mut clients[0].stored;
                client.apply(&self.job, change, &self.seal);
                let control = client.pending.is_none().then_some([0.5; 9]);
                disk.client((&None, true), change, client, control.as_ref().map(|one| &one[..]))
            }
            Write::Measured(one) => disk.measured(&None, &[*one]),
            Write::Personal(kept) => disk.keep(kept),
            Write::Refused(all) => disk.refused(all),
            Write::Ledger(change) => {
                let before = ledger.load().expect("loads");
                let mut now = before.clone();
                now.apply(change);
                let begun = ledger.write(change, &before.jobs, &now).expect("begins");
                return begun.await.expect("answered").expect("written");
            }
        };
        let begun = disk.begin(batch.expect("a write")).expect("begins");
        begun.await.expect("answered").expect("written");
    }
}

/// A write of one of a node's machines.
enum Write {
    Anchor(AnchorChange),
    Client(ClientChange),
    Measured(RoundMeasured),
    Personal(Kept),
    Refused(Recorded),
    Ledger(LedgerChange),
}

/// What a node wrote, what it found after each write, and when each was answered.
struct History {
    life: Life,
    asked: Vec<Op>,
    /// What is found after so many writes.
    states: Vec<Found>,
    /// How much was asked of the disk when a write had been answered; first, of an empty store.
    answered: Vec<usize>,
    /// The file at the end, closed as it should be.
    closed: Vec<u8>,
}

impl History {
    async fn new() -> Self {
        let (life, tape) = (Life::new(), Tape::default());
        let store = tape.open().await.expect("opens");
        let mut answered = vec![tape.asked.lock().len()];
        let mut states = vec![life.found(&store).expect("loads")];
        for write in life.writes() {
            life.write(&store, &write).await;
            answered.push(tape.asked.lock().len());
            let state = life.found(&store).expect("loads");
            assert_ne!(states.last(), Some(&state), "every write is seen");
            states.push(state);
        }
        store.close().await;
        drop(store);
        let asked = std::mem::take(&mut *tape.asked.lock());
        let closed = tape.bytes.lock().clone();
        Self { life, asked, states, answered, closed }
    }

    /// Opens what a crash left when so much had been asked: the last answered write and all before
    /// are there, the next one is there or is not, and the node writes on. Whether it is there.
    async fn opens(&self, bytes: Vec<u8>, asked: usize) -> Result<bool, String> {
        let said = |error: StoreError| error.to_string();
        let tape = Tape::left(bytes);
        let store = tape.open().await.map_err(said)?;
        let found = self.life.found(&store).map_err(said)?;
        let written = self.answered.iter().filter(|at| **at <= asked).count().saturating_sub(1);
        let is_there = self.states.get(written + 1) == Some(&found);
        if !is_there && self.states[written] != found {
            return Err(format!("after {written} writes it found {found:?}"));
        }
        store.save("later", &asked).await.map_err(said)?;
        store.close().await;
        drop(store);
        let store = tape.open().await.map_err(said)?;
        let goes_on = store.load::<usize>("later").map_err(said)? == Some(asked)
            && self.life.found(&store).map_err(said)? == found;
        store.close().await;
        if goes_on { Ok(is_there) } else { Err("what it wrote later is not there".to_owned()) }
    }
}

/// Bytes of a write that reach the disk before it tears. Of what is short, as the header is, every
/// number where `fine`.
fn tears(len: usize, fine: bool) -> impl Iterator<Item = usize> {
    let step = match (len <= SECTOR, fine) {
        (true, true) => 1,
        (true, false) => 16,
        (false, true) => 127,
        (false, false) => 1_021,
    };
    (1..len).step_by(step)
}

/// Numbers that look drawn (SplitMix64).
fn drawn(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

/// Crashes that are drawn before every sync.
const DRAWS: usize = 40;
/// Bytes that a disk writes at once, or not.
const SECTOR: usize = 512;
/// Where the pages begin. They are never written where something lies that counts, so what tears
/// there may leave noise; the header before them holds old bytes or new ones.
const PAGES: usize = 4_096;

/// What a crash leaves of a file that had this at the last sync, and was asked for that since: of
/// each write all, nothing, some sectors, or torn ones. A disk that was quick has most of it.
fn crashed(durable: &[u8], since: &[&Op], dice: &mut u64) -> Vec<u8> {
    let (mut left, quick) = (durable.to_vec(), drawn(dice).is_multiple_of(2));
    for op in since {
        let Op::Write(offset, data) = op else {
            apply(&mut left, op);
            continue;
        };
        let is_whole = quick && !drawn(dice).is_multiple_of(8);
        let kind = if is_whole { 1 } else { drawn(dice) % 4 };
        for (sector, new) in data.chunks(SECTOR).enumerate() {
            let place = offset + sector * SECTOR;
            let old = &mut left[place..place + new.len()];
            let kept = match kind {
                0 => 0,
                1 => new.len(),
                2 => new.len() * (drawn(dice) % 2) as usize,
                _ => drawn(dice) as usize % (new.len() + 1),
            };
            old[..kept].copy_from_slice(&new[..kept]);
            if kind == 3 && place >= PAGES {
                old[kept..].iter_mut().for_each(|byte| *byte = drawn(dice) as u8);
            }
        }
    }
    left
}

#[tokio::test]
async fn a_write_that_tears_anywhere_takes_nothing_with_it() {
    let history = History::new().await;
    let (mut bytes, mut torn, mut failed) = (Vec::new(), 0u64, Vec::new());
    for (at, op) in history.asked.iter().enumerate() {
        let fine = at >= history.answered[history.answered.len() - 3];
        if let Op::Write(offset, data) = op
            && at >= history.answered[0]
        {
            for cut in tears(data.len(), fine) {
                // The beginning reached the disk; here and there the end did instead.
                let ends = [0..cut, cut..data.len()];
                for range in ends.into_iter().take(1 + usize::from(cut % 16 == 1)) {
                    let mut left = bytes.clone();
                    let place = offset + range.start..offset + range.end;
                    left[place].copy_from_slice(&data[range.clone()]);
                    if let Err(why) = history.opens(left, at).await {
                        failed.push(format!("{at}: {range:?} of a write to {offset}: {why}"));
                    }
                    torn += 1;
                }
            }
        }
        apply(&mut bytes, op);
        if at >= history.answered[0]
            && let Err(why) = history.opens(bytes.clone(), at + 1).await
        {
            failed.push(format!("after {at}: {why}"));
        }
    }
    assert!(failed.is_empty(), "{} of {torn}: {:#?}", failed.len(), &failed[..failed.len().min(4)]);
    assert!(torn > 1_000, "{torn} torn writes");
}

#[tokio::test]
async fn what_no_sync_followed_may_be_lost_in_any_part() {
    let history = History::new().await;
    let (mut durable, mut bytes, mut since) = (Vec::new(), Vec::new(), Vec::new());
    let (mut dice, mut found, mut failed) = (1, [0u64; 2], Vec::new());
    for (at, op) in history.asked.iter().enumerate() {
        if let Op::Sync = op {
            let draws = if at >= history.answered[0] { DRAWS } else { 0 };
            for _ in 0..draws {
                let left = crashed(&durable, &since, &mut dice);
                match history.opens(left, at).await {
                    Ok(is_there) => found[usize::from(is_there)] += 1,
                    Err(why) => failed.push(format!("before sync {at}: {why}")),
                }
            }
            durable.clone_from(&bytes);
            since.clear();
        } else {
            since.push(op);
        }
        apply(&mut bytes, op);
    }
    assert!(failed.is_empty(), "{}: {:#?}", failed.len(), &failed[..failed.len().min(4)]);
    assert!(found.iter().all(|times| *times > 0), "{found:?}");
}

#[tokio::test]
async fn a_disk_that_forgets_what_it_had_synced_is_noticed() {
    let history = History::new().await;
    let (mut bytes, mut noticed) = (Vec::new(), 0);
    for (at, op) in history.asked.iter().enumerate() {
        apply(&mut bytes, op);
        // This is what there was then, and two further writes were said to be on the disk.
        let next = history.answered.iter().position(|answered| *answered > at);
        let later = next.and_then(|next| history.answered.get(next + 1));
        if let (Op::Sync, Some(later)) = (op, later) {
            assert!(history.opens(bytes.clone(), *later).await.is_err(), "after {at}");
            noticed += 1;
        }
    }
    assert!(noticed > 5, "{noticed}");
}

#[tokio::test]
async fn a_file_that_is_cut_off_is_refused_in_words_or_read_whole() {
    let history = History::new().await;
    let all = history.asked.len();
    let mut refused = 0;
    for len in (0..history.closed.len()).step_by(509) {
        let tape = Tape::left(history.closed[..len].to_vec());
        let found = match tape.open().await {
            Ok(store) => history.life.found(&store),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) if len == 0 => assert_eq!(found, history.states[0], "an empty file"),
            Ok(found) => assert_eq!(history.states.last(), Some(&found), "{len} bytes"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
    assert_eq!(history.opens(history.closed.clone(), all).await, Ok(false), "as it was");
}
