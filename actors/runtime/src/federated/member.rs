//! One client of this node: a part of its data, or all of them, with a machine of its own.
//!
//! Owns what tells the clients of a node apart: who each is, and what each has beside the chain,
//! which is the same for all of them. Decides nothing of a round.

use std::collections::BTreeSet;
use std::sync::Arc;

use selvedge_base::{Machine as _, NodeId, Now};
use selvedge_crdt::escrow::{Holder, Seal};
use selvedge_federated::round::{
    Client, ClientChange, ClientInput, Digest, Effect, Event, Job, Message, Pending, Tip,
};
use selvedge_net::Identity;

use super::disk::{JobDisk, LoadedClient, Part, RoundMeasured};
use super::ledger::LedgerLine;
use super::runner::{Order, Whose};
use super::state::Contributed;
use super::trainer::{self, Bench};
use crate::store::StoreError;

/// What a client is made of, but for what the disk has.
pub(super) struct Own {
    pub(super) part: Part,
    pub(super) me: Holder,
    pub(super) bench: Bench,
    pub(super) ledger: LedgerLine,
}

/// A client and what is on the disk for it alone.
pub(super) struct Member {
    pub(super) client: Client,
    part: Part,
    /// SCAFFOLD's control variate of this client.
    control: Vec<f32>,
    /// Whether it changed since it was written.
    moved: bool,
}

/// Who the client of a part is: the node's store itself where data are not parted, so that it is
/// whom it always was; else a number that stays the part's for as long as the store does, whatever
/// other parts there are. It is made with the node's secret: others cannot try names out.
pub(super) fn holder(identity: &Identity, incarnation: u64, part: &Part) -> Holder {
    let node = identity.node_id();
    let Some(part) = part else { return Holder { node, incarnation } };
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 client of a part of data");
    hasher.update(&*identity.opening_secret());
    hasher.update(&incarnation.to_be_bytes());
    hasher.update(part.as_bytes());
    let mut number = [0; 8];
    number.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Holder { node, incarnation: u64::from_be_bytes(number) }
}

/// What the ledger of data is called: after the source, and a part has one of its own. A name has
/// no point in it.
pub(super) fn ledger_name(source: &str, part: &Part) -> String {
    part.as_ref().map_or_else(|| source.to_owned(), |part| format!("{source}.{part}"))
}

/// Another order of the examples in every round and step of one's own, and at every client.
pub(super) fn order_of(tip: &Tip, me: &NodeId, part: Option<u64>, step: u64) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 federated order");
    hasher.update(&tip.record);
    hasher.update(&me.0);
    if let Some(client) = part {
        hasher.update(b"part");
        hasher.update(&client.to_be_bytes());
    }
    if step > 0 {
        hasher.update(&step.to_be_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// The clients as the disk has them, in the order of the parts, beside those of all parts there
/// are, and how well the models did by the
/// data of each.
pub(super) fn members(
    job: &Arc<Job>,
    (seal, holders): (&Arc<dyn Seal>, &[Holder]),
    own: impl Iterator<Item = (Part, Holder)>,
    loaded: Vec<LoadedClient>,
) -> (Vec<Member>, Vec<Vec<RoundMeasured>>) {
    let member = |((part, me), loaded): ((Part, Holder), LoadedClient)| {
        let LoadedClient { stored, control, moved, measured } = loaded;
        let client = Client::new(Arc::clone(job), me, Arc::clone(seal), stored);
        let client = client.beside(holders.iter().copied());
        (Member { client, part, control, moved }, measured)
    };
    own.zip(loaded).map(member).unzip()
}

impl Member {
    /// How far its contributions are.
    pub(super) fn contributed(&self, me: Holder) -> Contributed {
        let pending = self.client.pending();
        // What another store of this node wrote down has numbers of its own.
        let own = pending.filter(|pending| pending.id.client == me);
        let written = own.map_or(0, |pending| pending.id.seq).max(self.client.tip().last(&me));
        let under_way = own.map(|pending| pending.base_round);
        Contributed { client: me.incarnation, written, under_way }
    }

    pub(super) fn control(&self) -> &[f32] {
        &self.control
    }

    /// Whether a message is for this client.
    pub(super) fn is_for(&self, message: &Message) -> bool {
        self.client.is_meant(message)
    }

    /// Takes what happened, in order; what is to be done. `at` is its place among the node's
    /// clients, of which the `first` follows the chain for all.
    pub(super) fn step(
        &mut self,
        (at, first): (usize, Option<u64>),
        (job, disk): (&Job, &JobDisk),
        now: Now,
        input: ClientInput,
        orders: &mut Vec<Order>,
    ) -> Result<(), StoreError> {
        // The end of a round is on the disk before any other client acts on it, since the first
        // one wrote it down.
        if let (ClientInput::Received { message, .. }, Some(known)) = (&input, first)
            && let Message::Folded(folded) = &**message
            && known <= folded.certificate.close.round
        {
            return Ok(());
        }
        let before: Option<Pending> = self.client.pending().cloned();
        let mut effects: Vec<Effect<ClientChange>> = Vec::new();
        self.client.step(now, input, &mut effects);
        let counted: BTreeSet<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Report(Event::Counted(id)) => Some(*id),
                _ => None,
            })
            .collect();
        if let Some(pending) = before.filter(|pending| counted.contains(&pending.id))
            && let Some(control) = trainer::moved(job, &self.control, &pending)
        {
            self.control = control;
            self.moved = true;
        }
        for effect in effects {
            orders.push(match effect {
                Effect::Store { write, change } => {
                    let control = std::mem::take(&mut self.moved).then_some(&*self.control);
                    let which = (&self.part, first.is_none());
                    let batch = disk.client(which, &change, self.client.stored(), control)?;
                    Order::Store { whose: Whose::Client(at), write, batch }
                }
                // What the first one hears of the chain all of them do.
                Effect::Send { message, .. }
                    if matches!(&*message, Message::Ask { round } if first == Some(*round)) =>
                {
                    continue;
                }
                Effect::Send { to, message } => Order::Send { to, message },
                // Of which round is decided when it begins.
                Effect::Train { .. } => Order::Train { at },
                Effect::Spend(spend) => Order::Spend { at, spend },
                // A client keeps no rounds for others: this node's anchor does.
                Effect::Replay { .. } => continue,
                // The anchor tells of rounds.
                Effect::Report(Event::Folded { .. }) => continue,
                Effect::Report(event) => Order::Report { at: Some(at), event },
            });
        }
        Ok(())
    }
}
