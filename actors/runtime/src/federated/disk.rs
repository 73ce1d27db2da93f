//! A job on this node's disk: what its machines wrote down, one record for each thing.
//!
//! ```text
//! federated/JOB/round/N      how round N ended; kept, so that whoever is behind can be told
//! federated/JOB/anchor/tip.2 the chain as far as it was folded; the rest follows from the rounds
//! federated/JOB/anchor/held/ID, /turn, /opened
//! federated/JOB/client/tip.2 the chain as far as this node's clients folded it
//! federated/JOB/client/pending, /control
//! federated/JOB/part/PART/pending, /control, /measured, /losses   of a part of the data by itself
//! federated/JOB/client/personal   this node's own model, where the job has epidemic mode
//! federated/JOB/measured     how well this node found the models of the rounds to do
//! federated/JOB/refused      whom this node refused as an anchor, how often and for which reason
//! federated/JOB/losses       by round, where a language model is tuned: millionths of a nat
//! ```
//!
//! Owns the names and what one write of a machine is on the disk. All clients of a node follow one
//! chain, so one of them, the first, writes it down; what else a client has is its own. A tip is
//! there to spare work: a stored state is the tip and the rounds after it, so one that is too large
//! for a record is left out and its rounds are folded again at the next start.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::NodeId;
use selvedge_crdt::escrow::Seal;
use selvedge_federated::privacy::ledger::{LedgerChange, LedgerStored, Spent};
use selvedge_federated::round::{
    AnchorChange, AnchorStored, Ballot, Certificate, ClientChange, ClientStored, Close,
    ContributionId, Digest, Folded, Held, Job, MAX_STALENESS, Pending, Tip,
};
use serde::{Deserialize, Serialize};

use super::personal::Kept;
use super::refused::Recorded;
use super::trainer::moved as moved_by;
use crate::store::{Batch, Store, StoreError};

/// What the names of the records of all jobs begin with.
const PREFIX: &str = "federated/";
/// What the names of the records of ledgers begin with.
const LEDGERS: &str = "federated-spent/";

/// A tip as the anchor folded it. Those named `tip` were of a form without a norm; they are folded
/// again from their rounds.
const ANCHOR_TIP: &str = "anchor/tip.2";
/// The same of the client.
const CLIENT_TIP: &str = "client/tip.2";

/// How well a model does, by this node's own examples that are trained on nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundMeasured {
    /// Rounds folded into the model.
    pub round: u64,
    /// Examples that were given their own label.
    pub right: u64,
    /// Examples in all; where a language model is tuned, tokens.
    pub examples: u64,
    /// Where one is tuned: the mean loss of a token, in millionths of a nat.
    pub loss_micronats: Option<u64>,
}

/// The part of it that all jobs have, as it is stored. Losses are a record of their own.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Counted {
    round: u64,
    right: u64,
    examples: u64,
}

/// Which of a node's data a client has: a part by its name, or all of them.
pub(super) type Part = Option<String>;

/// The records of one job.
#[derive(Clone)]
pub(super) struct JobDisk {
    store: Store,
    prefix: String,
}

/// What a node has of a job.
pub(super) struct Loaded {
    pub(super) anchor: AnchorStored,
    /// What the disk has of the anchor, to know what a write changes.
    pub(super) written: Written,
    /// The clients, in the order of the parts that were asked for.
    pub(super) clients: Vec<LoadedClient>,
    /// This node's own model, if it ever had one.
    pub(super) personal: Option<Kept>,
    /// Whether it had one that nobody can read any more: then it makes no other.
    pub(super) is_lost: bool,
    /// Whom this node refused as an anchor.
    pub(super) refused: Recorded,
}

/// What a node has of one of its clients.
pub(super) struct LoadedClient {
    pub(super) stored: ClientStored,
    /// SCAFFOLD's control variate of this client; empty for none.
    pub(super) control: Vec<f32>,
    /// Whether it moved by what was found to count, and is on the disk as it was before.
    pub(super) moved: bool,
    pub(super) measured: Vec<RoundMeasured>,
}

/// In a round: the greatest turn promised, and what was accepted last.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Turn {
    round: u64,
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Close)>,
}

/// What the disk has of an anchor once all that was ordered is durable.
pub(super) struct Written {
    /// Contributions that have a record.
    held: BTreeSet<ContributionId>,
    turn: Turn,
}

impl JobDisk {
    pub(super) fn new(store: Store, job: &Digest) -> Self {
        Self { store, prefix: format!("{PREFIX}{}/", hex(job)) }
    }

    fn name(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// The name of a record of one client: of all of this node's data, or of a part of them.
    fn client_name(&self, part: &Part, rest: &str) -> String {
        match part {
            None => self.name(&format!("client/{rest}")),
            Some(part) => self.name(&format!("part/{part}/{rest}")),
        }
    }

    /// What is stored of a job that begins with `first`, with a client for each of these parts.
    /// Touches the disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn load(
        &self,
        job: &Job,
        first: &Tip,
        seal: &dyn Seal,
        parts: &[Part],
    ) -> Result<Loaded, StoreError> {
        let mut anchor = AnchorStored::new(self.tip(ANCHOR_TIP, first)?);
        while let Some(folded) = self.round(anchor.tip.round)? {
            let round = anchor.tip.round;
            anchor.apply(job, &AnchorChange::Folded(Box::new(folded)), seal);
            if anchor.tip.round == round {
                return Err(self.damaged(round));
            }
        }
        let round = anchor.tip.round;
        // Of what is held only that goes on which the folding above would have kept.
        let stored = self.store.load_all::<Held>(&self.name("anchor/held/"))?;
        let held = stored.iter().map(|(_, held)| held.header.id).collect();
        let goes_on = |held: &Held| held.header.goes_on(job, &anchor.tip);
        let kept = stored.into_iter().map(|(_, held)| held).filter(goes_on);
        anchor.held = kept.map(|held| (held.header.id, held)).collect();
        // What is of a round that is over counts no more: the client may have written its end.
        let turn: Option<Turn> = self.store.load(&self.name("anchor/turn"))?;
        let turn = turn.filter(|turn| turn.round == round);
        let turn = turn.unwrap_or(Turn { round, ..Turn::default() });
        (anchor.promised, anchor.accepted) = (turn.promised, turn.accepted.clone());
        let opened: Option<Certificate> = self.store.load(&self.name("anchor/opened"))?;
        anchor.opened = opened.filter(|opened| opened.close.round == round);
        let mut chain = ClientStored::new(self.tip(CLIENT_TIP, first)?);
        while let Some(folded) = self.round(chain.tip.round)?.filter(|_| !parts.is_empty()) {
            let round = chain.tip.round;
            chain.apply(job, &ClientChange::Folded(Box::new(folded)), seal);
            if chain.tip.round == round {
                return Err(self.damaged(round));
            }
        }
        let client = |part| self.load_client(job, &chain.tip, part);
        let (personal, is_lost) = self.personal_or_lost()?;
        Ok(Loaded {
            anchor,
            written: Written { held, turn },
            clients: parts.iter().map(client).collect::<Result<_, _>>()?,
            personal,
            is_lost,
            refused: self.load_refused()?,
        })
    }

    /// One client, where the chain is now.
    fn load_client(&self, job: &Job, tip: &Tip, part: &Part) -> Result<LoadedClient, StoreError> {
        let mut stored = ClientStored::new(tip.clone());
        stored.pending = self.store.load(&self.client_name(part, "pending"))?;
        let name = self.client_name(part, "control");
        let mut control: Vec<f32> = self.store.load(&name)?.unwrap_or_default();
        let mut moved = false;
        // This node's anchor wrote the round down, and its client did not hear of it.
        let is_over = |pending: &mut Pending| tip.last(&pending.id.client) >= pending.id.seq;
        if let Some(pending) = stored.pending.take_if(is_over)
            && self.counted(&pending, tip.round)?
            && let Some(after) = moved_by(job, &control, &pending)
        {
            control = after;
            moved = true;
        }
        Ok(LoadedClient { stored, control, moved, measured: self.load_measured(part)? })
    }

    /// Whether a contribution counts in one of the rounds before this one.
    fn counted(&self, pending: &Pending, round: u64) -> Result<bool, StoreError> {
        let first = pending.base_round;
        for round in first..round.min(first.saturating_add(MAX_STALENESS + 1)) {
            let Some(folded) = self.round(round)? else { return Ok(false) };
            let entries = &folded.certificate.close.entries;
            if entries.iter().any(|entry| entry.header.id == pending.id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names of the two records of how well models did.
    fn measured_names(&self, part: &Part) -> (String, String) {
        match part {
            None => (self.name("measured"), self.name("losses")),
            Some(_) => (self.client_name(part, "measured"), self.client_name(part, "losses")),
        }
    }

    fn load_measured(&self, part: &Part) -> Result<Vec<RoundMeasured>, StoreError> {
        let (rights, losses) = self.measured_names(part);
        let counted: Vec<Counted> = self.store.load(&rights)?.unwrap_or_default();
        let losses: BTreeMap<u64, u64> = self.store.load(&losses)?.unwrap_or_default();
        let whole = |Counted { round, right, examples }| {
            let loss_micronats = losses.get(&round).copied();
            RoundMeasured { round, right, examples, loss_micronats }
        };
        Ok(counted.into_iter().map(whole).collect())
    }

    /// This node's own model, if it ever had one. Touches the disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn personal(&self) -> Result<Option<Kept>, StoreError> {
        self.store.load(&self.name("client/personal"))
    }

    /// The same, and whether its record is damaged: rounds need nothing of it, but what numbers it
    /// gave to its models nobody knows any more, and no number may name two.
    fn personal_or_lost(&self) -> Result<(Option<Kept>, bool), StoreError> {
        match self.personal() {
            Err(StoreError::Damaged { name, reason }) => {
                tracing::warn!(
                    name,
                    reason,
                    "a node's own model is lost; the job mixes no more here"
                );
                Ok((None, true))
            }
            other => Ok((other?, false)),
        }
    }

    /// One write of a personal model.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn keep(&self, kept: &Kept) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        batch.put(&self.name("client/personal"), kept)?;
        Ok(batch)
    }

    fn tip(&self, name: &str, first: &Tip) -> Result<Tip, StoreError> {
        Ok(self.store.load(&self.name(name))?.unwrap_or_else(|| first.clone()))
    }

    fn damaged(&self, round: u64) -> StoreError {
        let reason = "it does not follow from the rounds before".to_owned();
        StoreError::Damaged { name: self.round_name(round), reason }
    }

    fn round_name(&self, round: u64) -> String {
        self.name(&format!("round/{round:08}"))
    }

    /// How a round ended, if it is known here. Touches the disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn round(&self, round: u64) -> Result<Option<Folded>, StoreError> {
        self.store.load(&self.round_name(round))
    }

    /// One write of an anchor; `now` is its state after it and maybe after more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn anchor(
        &self,
        change: &AnchorChange,
        now: &AnchorStored,
        written: &mut Written,
    ) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        match change {
            AnchorChange::Held(held) => {
                written.held.insert(held.header.id);
                batch.put(&self.held_name(&held.header.id), held)?;
            }
            AnchorChange::Promised(ballot) => {
                // What was accepted stays: a greater turn has to be told of it.
                written.turn.promised = Some(*ballot);
                batch.put(&self.name("anchor/turn"), &written.turn)?;
            }
            AnchorChange::Accepted(ballot, close) => {
                written.turn.promised = written.turn.promised.max(Some(*ballot));
                written.turn.accepted = Some((*ballot, (**close).clone()));
                batch.put(&self.name("anchor/turn"), &written.turn)?;
            }
            AnchorChange::Opened(certificate) => {
                batch.put(&self.name("anchor/opened"), &**certificate)?;
            }
            AnchorChange::Folded(folded) => {
                self.put_round(&mut batch, folded)?;
                self.put_tip(&mut batch, ANCHOR_TIP, &now.tip, folded);
                let round = folded.certificate.close.round + 1;
                written.turn = Turn { round, ..Turn::default() };
                batch.remove(&self.name("anchor/turn"));
                batch.remove(&self.name("anchor/opened"));
                written.held.retain(|id| {
                    let kept = now.held.contains_key(id);
                    if !kept {
                        batch.remove(&self.held_name(id));
                    }
                    kept
                });
            }
        }
        Ok(batch)
    }

    /// One write of a client; `now` is its state after it. `control` is given when it changed. The
    /// `first` of a node's clients writes the chain for all of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn client(
        &self,
        (part, first): (&Part, bool),
        change: &ClientChange,
        now: &ClientStored,
        control: Option<&[f32]>,
    ) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        match change {
            ClientChange::Contributed(pending) => {
                batch.put(&self.client_name(part, "pending"), pending)?;
            }
            ClientChange::Folded(folded) => {
                if first {
                    self.put_round(&mut batch, folded)?;
                    self.put_tip(&mut batch, CLIENT_TIP, &now.tip, folded);
                }
                if now.pending.is_none() {
                    batch.remove(&self.client_name(part, "pending"));
                }
            }
        }
        if let Some(control) = control {
            batch.put(&self.client_name(part, "control"), &control)?;
        }
        Ok(batch)
    }

    /// Both machines of a node fold a round; what proves it is the same from whichever it comes.
    fn put_round(&self, batch: &mut Batch, folded: &Folded) -> Result<(), StoreError> {
        batch.put(&self.round_name(folded.certificate.close.round), folded)
    }

    fn put_tip(&self, batch: &mut Batch, name: &str, tip: &Tip, folded: &Folded) {
        // Only with the last of the rounds that it follows from.
        if tip.round == folded.certificate.close.round + 1
            && let Err(error) = batch.put(&self.name(name), tip)
        {
            tracing::debug!(%error, "a model is not kept as a whole");
        }
    }

    fn held_name(&self, id: &ContributionId) -> String {
        let node = hex(&id.client.node.0);
        self.name(&format!("anchor/held/{node}.{:016x}.{:016x}", id.client.incarnation, id.seq))
    }

    /// Writes down how well the models did; it may be lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn measured(&self, part: &Part, all: &[RoundMeasured]) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        let (rights, micronats) = self.measured_names(part);
        let counted = |one: &RoundMeasured| {
            let RoundMeasured { round, right, examples, .. } = *one;
            Counted { round, right, examples }
        };
        batch.put(&rights, &all.iter().map(counted).collect::<Vec<_>>())?;
        let losses = all.iter().filter_map(|one| Some((one.round, one.loss_micronats?)));
        let losses: BTreeMap<u64, u64> = losses.collect();
        if !losses.is_empty() {
            batch.put(&micronats, &losses)?;
        }
        Ok(batch)
    }

    /// Writes down whom this node refused; it may be lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn refused(&self, all: &[(NodeId, String, u64)]) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        batch.put(&self.name("refused"), &all)?;
        Ok(batch)
    }

    /// Whom this node refused. Rounds need nothing of it, so a damaged record is none.
    fn load_refused(&self) -> Result<Recorded, StoreError> {
        match self.store.load(&self.name("refused")) {
            Err(StoreError::Damaged { name, reason }) => {
                tracing::warn!(name, reason, "who was refused before is not known any more");
                Ok(Recorded::new())
            }
            other => Ok(other?.unwrap_or_default()),
        }
    }

    /// Everything of the job goes.
    pub(super) fn forget(&self) -> Batch {
        let mut batch = Batch::default();
        batch.remove_all(self.prefix.clone());
        batch
    }

    /// Hands a write to the disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn begin(
        &self,
        batch: Batch,
    ) -> Result<tokio::sync::oneshot::Receiver<Result<(), StoreError>>, StoreError> {
        self.store.begin(batch)
    }
}

/// What takes the records of all jobs but these off the disk. Touches the disk.
///
/// # Errors
/// [`StoreError`].
pub(super) fn forget_others(store: &Store, jobs: &[Digest]) -> Result<Batch, StoreError> {
    let kept: BTreeSet<String> = jobs.iter().map(hex).collect();
    let mut batch = Batch::default();
    let mut last = String::new();
    for name in store.names(PREFIX)? {
        let job = name[PREFIX.len()..].split('/').next().unwrap_or_default();
        if !kept.contains(job) && job != last {
            last = job.to_owned();
            batch.remove_all(format!("{PREFIX}{job}/"));
        }
    }
    Ok(batch)
}

/// The records of one source's ledger: what is spent in all, and a record for each job.
pub(super) struct LedgerDisk {
    store: Store,
    prefix: String,
}

impl LedgerDisk {
    pub(super) fn new(store: Store, source: &str) -> Self {
        Self { store, prefix: format!("{LEDGERS}{source}/") }
    }

    /// What is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn load(&self) -> Result<LedgerStored, StoreError> {
        let spent = self.store.load(&format!("{}all", self.prefix))?.unwrap_or_default();
        let jobs = self.store.load_all::<(Digest, Spent)>(&format!("{}job/", self.prefix))?;
        Ok(LedgerStored { spent, jobs: jobs.into_iter().map(|(_, one)| one).collect() })
    }

    /// One write; `now` is what is spent after it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn write(
        &self,
        change: &LedgerChange,
        before: &BTreeMap<Digest, Spent>,
        now: &LedgerStored,
    ) -> Result<tokio::sync::oneshot::Receiver<Result<(), StoreError>>, StoreError> {
        let mut batch = Batch::default();
        let name = |job: &Digest| format!("{}job/{}", self.prefix, hex(job));
        batch.put(&format!("{}all", self.prefix), &now.spent)?;
        batch.put(&name(&change.job), &(change.job, change.now))?;
        for gone in before.keys().filter(|job| !now.jobs.contains_key(*job)) {
            batch.remove(&name(gone));
        }
        self.store.begin(batch)
    }
}

/// A digest in the letters of file names.
pub(super) fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
