//! Which models are in memory, and which go when another must come.
//!
//! Owns the account of an engine's memory budget: what weights take, what models that are loaded
//! need beside them to go on answering, and what is promised to models that wait for others to go.
//! Whoever wants a model in memory asks until the answer is [`Decision::Load`] or
//! [`Decision::Refuse`]; whatever changes the account (work that ends, memory that is freed, time)
//! is reason to ask again. Owns no memory: the shell frees and reports. Knows no requests either,
//! only how many of each model have not ended: one that has any never goes.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, ModelDigest, Mono};

/// How long a model waits for those that could make room: a usual answer of 256 tokens takes a
/// small machine some ten seconds, so that most are over by then; whoever asked has better use for
/// the time after that at another node.
pub const MOST_WAIT: Micros = Micros::secs(30);
/// A model stays for so many times what loading it took before it goes for another: loading then
/// never takes more than a quarter of the time, however requests alternate.
const REST_PER_LOAD: u64 = 3;
/// The longest of these rests: [`MOST_WAIT`] less what loading a model takes, or one that waits
/// for a rest to end would give up just before.
const MOST_REST: Micros = Micros::secs(20);

/// The bytes that a model needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Of its weights.
    pub weights: u64,
    /// Beside them, so that it can answer at all.
    pub beside: u64,
}

impl Room {
    const fn total(self) -> u64 {
        self.weights.saturating_add(self.beside)
    }
}

/// Why a model is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// So that it is there when somebody asks: it takes what is free, and no other goes for it.
    Ahead,
    /// Somebody asks for it.
    Asked,
}

/// What becomes of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its memory is set aside: load it.
    Load,
    /// These are to be freed for it. Its place is kept: ask again when one is.
    Evict(Vec<Eviction>),
    /// Ask again when the account changes, and at this time at the latest.
    Wait {
        /// When.
        until: Mono,
    },
    /// It is not loaded now.
    Refuse(Reason),
}

/// A model that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Which.
    pub model: ModelDigest,
    /// Its name.
    pub name: String,
    /// The name of the model that comes.
    pub comes: String,
    /// Why this one.
    pub why: Why,
    /// When it was asked for the last time, if ever.
    pub used: Option<Mono>,
    /// Bytes of its weights.
    pub bytes: u64,
}

/// Why a model goes rather than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A peer has it in memory, too, and answers for it.
    Copied,
    /// No peer has one that goes in its place, and it was asked for the longest ago.
    Oldest,
}

impl Why {
    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copied => "copy_elsewhere",
            Self::Oldest => "least_recently_used",
        }
    }
}

/// Why a model is not loaded now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The whole budget is less than it needs.
    TooLarge {
        /// Bytes it needs.
        needed: u64,
        /// Bytes of the budget.
        budget: u64,
    },
    /// What never goes leaves less than it needs.
    Kept {
        /// Bytes it needs.
        needed: u64,
        /// Bytes that all the others could leave.
        left: u64,
        /// The models that never go.
        names: Vec<String>,
    },
    /// Those that could go were at work all the time that it waited.
    Busy {
        /// Bytes it needs.
        needed: u64,
        /// How long it waited.
        waited: Micros,
    },
    /// Nobody asks for it, and what is free is less than it needs.
    NoRoom {
        /// Bytes it needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// It was removed, or nobody waits for it any more.
    Unwanted,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Models loaded before anybody asked.
    pub loaded_ahead: u64,
    /// Models loaded because somebody asked.
    pub loaded_asked: u64,
    /// Models that went because a peer has them in memory.
    pub evicted_copied: u64,
    /// Models that went because they were asked for the longest ago.
    pub evicted_oldest: u64,
    /// Loads refused because the whole budget is too small.
    pub refused_too_large: u64,
    /// Loads refused because of what never goes.
    pub refused_kept: u64,
    /// Loads refused because all that could go was at work.
    pub refused_busy: u64,
}

/// One model's part in the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub model: ModelDigest,
    /// Bytes of its weights in memory, or being loaded or freed.
    pub bytes: u64,
    /// Whether it never goes.
    pub pinned: bool,
    /// How long ago it was asked for the last time.
    pub idle: Option<Micros>,
    /// Why it went the last time, if it did, for which model and how long ago.
    pub evicted: Option<(Why, String, Micros)>,
}

/// The account.
#[derive(Clone, Debug)]
pub struct Residence {
    budget: u64,
    /// Bytes of weights set aside, of models and of what is added to them.
    taken: u64,
    /// As many as the engine has, and those removed that are still being freed.
    models: BTreeMap<ModelDigest, Model>,
    /// Counts wishes, so that the first one who waits is the first one served.
    arrivals: u64,
    counts: Counts,
    closed: bool,
}

#[derive(Clone, Debug, Default)]
struct Model {
    name: String,
    pinned: bool,
    removed: bool,
    used: Option<Mono>,
    /// Requests that have not ended.
    work: usize,
    /// Other nodes that have it in memory.
    copies: u32,
    /// Bytes of weights set aside for it, in so many pieces: a model that is removed and added
    /// again while it is loaded is loaded twice.
    held: u64,
    pieces: u32,
    /// Bytes that it needs beside them now, and at least.
    floor: u64,
    least: u64,
    /// Since when memory is set aside for it, and on which wish.
    granted: Option<(Mono, Wish)>,
    /// It is loaded, and stays until then at least.
    rests_until: Option<Mono>,
    /// It is being freed.
    leaving: bool,
    wanted: Option<Wanted>,
    evicted: Option<(Why, String, Mono)>,
    /// It is no model, but what is to be added to this one, and is here while it waits.
    adds_to: Option<ModelDigest>,
}

/// A wish that is not decided.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    arrival: u64,
    since: Mono,
    /// Promised to it: what it waits for is on its way.
    claim: Option<u64>,
}

impl Model {
    /// Bytes that it takes once those that leave have left.
    const fn stays(&self) -> u64 {
        if self.leaves() { 0 } else { self.held.saturating_add(self.floor) }
    }

    const fn leaves(&self) -> bool {
        self.leaving || self.removed
    }

    fn claim(&self) -> u64 {
        self.wanted.and_then(|wanted| wanted.claim).unwrap_or(0)
    }

    /// Whether it is in memory whole: nothing more of it is on its way there.
    const fn is_settled(&self) -> bool {
        self.rests_until.is_some() && self.pieces == 1
    }

    /// Whether it could go now, were its rest over.
    fn is_idle(&self) -> bool {
        let works = self.work > 0 && !plant::is_on(Plant::BusyModelGoes);
        self.is_settled() && !works && !self.pinned && !self.leaves()
    }

    /// Whether it may go now. One that a peer has in memory needs no rest: who asks for it is
    /// answered there without any load.
    fn may_go(&self, now: Mono, hurried: bool) -> bool {
        let rested = self.rests_until.is_some_and(|until| until <= now);
        self.is_idle() && (rested || self.copies > 0 || hurried)
    }
}

impl Residence {
    /// An account of so many bytes, of which none are taken.
    pub fn new(budget: u64) -> Self {
        let (models, counts) = (BTreeMap::new(), Counts::default());
        Self { budget, taken: 0, models, arrivals: 0, counts, closed: false }
    }

    /// A model is there to be loaded; `pinned` ones never go once they are.
    pub fn added(&mut self, model: ModelDigest, name: &str, pinned: bool, work: usize) {
        let entry = self.models.entry(model).or_default();
        (entry.name, entry.pinned) = (name.to_owned(), pinned);
        (entry.removed, entry.work, entry.adds_to) = (false, work, None);
    }

    /// A model is there no more; its memory is freed as it is reported.
    pub fn removed(&mut self, model: ModelDigest) {
        if let Some(entry) = self.models.get_mut(&model) {
            (entry.removed, entry.wanted) = (true, None);
            // It goes all the same when it is added again before it is gone.
            entry.leaving |= entry.is_settled();
            if entry.pieces == 0 {
                self.models.remove(&model);
            }
        }
    }

    /// So many requests for a model have not ended.
    pub fn worked(&mut self, model: ModelDigest, work: usize, now: Mono) {
        if let Some(entry) = self.models.get_mut(&model) {
            (entry.work, entry.used) = (work, Some(now));
        }
    }

    /// How many other nodes have which models in memory; none have the others.
    pub fn copied(&mut self, copies: &BTreeMap<ModelDigest, u32>) {
        for (model, entry) in &mut self.models {
            entry.copies = copies.get(model).copied().unwrap_or(0);
        }
    }

    /// Nothing is loaded any more.
    pub const fn close(&mut self) {
        self.closed = true;
    }

    /// Somebody wants a model in memory. Asking again is the same wish until it is decided.
    pub fn want(&mut self, model: ModelDigest, room: Room, wish: Wish, now: Mono) -> Decision {
        let decision = self.decide(model, room, wish, now);
        if let Decision::Refuse(reason) = &decision {
            if let Some(entry) = self.models.get_mut(&model) {
                entry.wanted = None;
            }
            match reason {
                Reason::TooLarge { .. } => self.counts.refused_too_large += 1,
                Reason::Kept { .. } => self.counts.refused_kept += 1,
                Reason::Busy { .. } => self.counts.refused_busy += 1,
                Reason::NoRoom { .. } | Reason::Unwanted => {}
            }
        }
        decision
    }

    /// Whoever wanted a model asks no more.
    pub fn given_up(&mut self, model: ModelDigest) {
        if let Some(entry) = self.models.get_mut(&model) {
            entry.wanted = None;
        }
    }

    /// Somebody wants memory for what is added to a model, under a digest of its own. Others go for
    /// it as for a model that is asked for, but not the one that it is added to: it is of no use
    /// without that. Asking again is the same wish until it is decided; what is set aside then is
    /// no model's.
    pub fn want_added(
        &mut self,
        (added, base): (ModelDigest, ModelDigest),
        name: &str,
        bytes: u64,
        now: Mono,
    ) -> Decision {
        let has_base = self.models.get(&base).is_some_and(|entry| !entry.removed);
        let entry = self.models.entry(added).or_insert_with(|| Model {
            name: name.to_owned(),
            // Whoever waits for it.
            work: 1,
            adds_to: Some(base),
            ..Model::default()
        });
        if entry.adds_to.is_none() {
            // A model of this digest is here already.
            return Decision::Refuse(Reason::Unwanted);
        }
        let decision = match has_base {
            true => self.want(added, Room { weights: bytes, beside: 0 }, Wish::Asked, now),
            false => Decision::Refuse(Reason::Unwanted),
        };
        if matches!(decision, Decision::Load | Decision::Refuse(_)) {
            self.models.remove(&added);
        }
        decision
    }

    /// Memory was freed: a model's, or what [`Residence::want_added`] had set aside.
    pub fn freed(&mut self, model: Option<ModelDigest>, bytes: u64) {
        self.taken = self.taken.saturating_sub(bytes);
        let Some(model) = model else { return };
        let Some(entry) = self.models.get_mut(&model) else { return };
        entry.held = entry.held.saturating_sub(bytes);
        entry.pieces = entry.pieces.saturating_sub(1);
        if entry.pieces == 0 {
            (entry.floor, entry.least, entry.leaving) = (0, 0, false);
            (entry.granted, entry.rests_until) = (None, None);
            if entry.removed {
                self.models.remove(&model);
            }
        }
    }

    /// A model answers from now on.
    pub fn loaded(&mut self, model: ModelDigest, now: Mono) {
        let Some(entry) = self.models.get_mut(&model) else { return };
        let Some((since, wish)) = entry.granted.filter(|_| entry.rests_until.is_none()) else {
            return;
        };
        let rest = now.since(since).times(REST_PER_LOAD).min(MOST_REST);
        entry.rests_until = Some(now.plus(rest));
        match wish {
            Wish::Ahead => self.counts.loaded_ahead += 1,
            Wish::Asked => self.counts.loaded_asked += 1,
        }
    }

    /// Keeps so many bytes for a loaded model beside its weights, or as many as there are; at least
    /// as many as are kept for it already. What is promised to others is not touched.
    pub fn keep(&mut self, model: ModelDigest, bytes: u64) -> u64 {
        let most = self.free(model);
        let Some(entry) = self.models.get_mut(&model).filter(|entry| entry.pieces > 0) else {
            return 0;
        };
        entry.floor = entry.floor.max(bytes.min(most));
        entry.floor
    }

    /// A model needs no more than so many bytes beside its weights now.
    pub fn release(&mut self, model: ModelDigest, bytes: u64) {
        if let Some(entry) = self.models.get_mut(&model) {
            entry.floor = entry.floor.min(bytes.max(entry.least));
        }
    }

    /// Bytes of the budget that no weights take.
    pub const fn untaken(&self) -> u64 {
        self.budget.saturating_sub(self.taken)
    }

    /// Bytes of weights, of everything.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes that may be taken.
    pub const fn budget(&self) -> u64 {
        self.budget
    }

    /// Models that wait for memory.
    pub fn waiting(&self) -> u64 {
        self.models.values().filter(|entry| entry.wanted.is_some()).count() as u64
    }

    /// How often what happened.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Each model's part.
    pub fn standings(&self, now: Mono) -> Vec<Standing> {
        let is_model = |entry: &Model| !entry.removed && entry.adds_to.is_none();
        let models = self.models.iter().filter(|(_, entry)| is_model(entry));
        let standing = |(model, entry): (&ModelDigest, &Model)| Standing {
            model: *model,
            bytes: entry.held,
            pinned: entry.pinned,
            idle: entry.used.map(|used| now.since(used)),
            evicted: entry.evicted.as_ref().map(|(why, comes, at)| {
                let ago = now.since(*at);
                (*why, comes.clone(), ago)
            }),
        };
        models.map(standing).collect()
    }

    fn decide(&mut self, model: ModelDigest, room: Room, wish: Wish, now: Mono) -> Decision {
        let (needed, closed) = (room.total(), self.closed);
        let arrival = self.arrivals;
        let Some(entry) = self.models.get_mut(&model) else {
            return Decision::Refuse(Reason::Unwanted);
        };
        if closed || entry.removed || (wish == Wish::Asked && entry.work == 0) {
            return Decision::Refuse(Reason::Unwanted);
        }
        if needed > self.budget {
            return Decision::Refuse(Reason::TooLarge { needed, budget: self.budget });
        }
        if entry.wanted.is_none() {
            entry.wanted = Some(Wanted { arrival, since: now, claim: None });
            self.arrivals += 1;
        }
        let (leaving, pinned, claimed) = (entry.leaving, entry.pinned, entry.claim() > 0);
        if !claimed {
            let free = self.unpromised(model);
            if needed > free {
                return self.make_room(model, needed, (wish, pinned), now);
            }
            self.claim(model, needed);
        }
        let gone = if plant::is_on(Plant::LeavingCountsAsFree) { self.leaving() } else { 0 };
        let used = (self.taken - gone).saturating_add(self.floors(None));
        if !leaving && used.saturating_add(needed) <= self.budget {
            self.grant(model, room, wish, now);
            return Decision::Load;
        }
        // What leaves is enough, and not gone yet.
        self.wait(model, needed, now, None)
    }

    /// Others go, or are waited for.
    fn make_room(
        &mut self,
        model: ModelDigest,
        needed: u64,
        (wish, pinned): (Wish, bool),
        now: Mono,
    ) -> Decision {
        let free = self.unpromised(model);
        if wish == Wish::Ahead && !pinned {
            return Decision::Refuse(Reason::NoRoom { needed, free });
        }
        let base = self.base(model);
        let others = || self.models.iter().filter(|(digest, _)| **digest != model);
        let remains = |digest: &ModelDigest, other: &Model| other.pinned || Some(*digest) == base;
        let movable = others().filter(|(digest, other)| !remains(digest, other));
        // What is added to a model does not go again for others.
        let movable = movable.filter(|(_, other)| other.adds_to.is_none());
        let left = movable.fold(free, |sum, (_, other)| {
            sum.saturating_add(other.stays()).saturating_add(other.claim())
        });
        if needed > left {
            let stays = |other: &Model| other.pieces > 0 || other.claim() > 0;
            let kept = others().filter(|(digest, other)| remains(digest, other) && stays(other));
            let names = kept.map(|(_, other)| other.name.clone()).collect();
            return Decision::Refuse(Reason::Kept { needed, left, names });
        }
        let arrival = self.wanted(model).map_or(0, |wanted| wanted.arrival);
        // Whoever waits longest goes first, or small models would keep a large one out for ever.
        let earlier = |other: &Model| {
            other.wanted.is_some_and(|wanted| {
                let waits = now.since(wanted.since) < MOST_WAIT;
                waits && wanted.claim.is_none() && wanted.arrival < arrival
            })
        };
        if others().any(|(_, other)| earlier(other)) {
            return self.wait(model, needed, now, None);
        }
        let victims = self.victims(model, needed - free, pinned, now);
        if victims.is_empty() {
            let idle = others().filter(|(_, other)| other.is_idle());
            let next = idle.filter_map(|(_, other)| other.rests_until).filter(|at| *at > now).min();
            return self.wait(model, needed, now, next);
        }
        self.claim(model, needed);
        Decision::Evict(self.evict(model, &victims, now))
    }

    /// The models that go so that so many bytes are free; none when those that may go are too few.
    /// Those that a peer has in memory come first, then the others, each by their last use.
    fn victims(
        &self,
        model: ModelDigest,
        missing: u64,
        hurried: bool,
        now: Mono,
    ) -> BTreeSet<ModelDigest> {
        let base = self.base(model);
        let may_go = |(digest, other): &(&ModelDigest, &Model)| {
            **digest != model && Some(**digest) != base && other.may_go(now, hurried)
        };
        let mut order: Vec<(&ModelDigest, &Model)> = self.models.iter().filter(may_go).collect();
        order.sort_by_key(|(digest, other)| {
            let is_last = other.copies == 0 && !plant::is_on(Plant::CopiesIgnored);
            (is_last, other.used, other.name.as_str(), **digest)
        });
        let mut sum = 0_u64;
        let mut victims = Vec::new();
        for (digest, other) in order {
            if sum >= missing {
                break;
            }
            sum = sum.saturating_add(other.stays());
            victims.push((*digest, other.stays()));
        }
        if sum < missing {
            return BTreeSet::new();
        }
        // A large one may have made smaller ones before it superfluous. The last of these are
        // spared first: those that are last copies, and were asked for more lately.
        let mut spared = |(_, bytes): &(ModelDigest, u64)| {
            let spared = sum - bytes >= missing;
            sum -= if spared { *bytes } else { 0 };
            spared
        };
        victims.reverse();
        victims.retain(|one| !spared(one));
        victims.into_iter().map(|(digest, _)| digest).collect()
    }

    fn evict(
        &mut self,
        model: ModelDigest,
        victims: &BTreeSet<ModelDigest>,
        now: Mono,
    ) -> Vec<Eviction> {
        let comes = self.models.get(&model).map(|entry| entry.name.clone()).unwrap_or_default();
        let mut evictions = Vec::with_capacity(victims.len());
        for (digest, entry) in &mut self.models {
            if !victims.contains(digest) {
                continue;
            }
            let why = if entry.copies > 0 { Why::Copied } else { Why::Oldest };
            match why {
                Why::Copied => self.counts.evicted_copied += 1,
                Why::Oldest => self.counts.evicted_oldest += 1,
            }
            entry.leaving = true;
            entry.evicted = Some((why, comes.clone(), now));
            evictions.push(Eviction {
                model: *digest,
                name: entry.name.clone(),
                comes: comes.clone(),
                why,
                used: entry.used,
                bytes: entry.held,
            });
        }
        evictions
    }

    fn wait(&self, model: ModelDigest, needed: u64, now: Mono, next: Option<Mono>) -> Decision {
        let since = self.wanted(model).map_or(now, |wanted| wanted.since);
        let since = if plant::is_on(Plant::WaitsForMemoryForEver) { now } else { since };
        let (waited, last) = (now.since(since), since.plus(MOST_WAIT));
        if waited >= MOST_WAIT {
            return Decision::Refuse(Reason::Busy { needed, waited });
        }
        Decision::Wait { until: next.map_or(last, |next| next.min(last)) }
    }

    fn claim(&mut self, model: ModelDigest, needed: u64) {
        let wanted = self.models.get_mut(&model).and_then(|entry| entry.wanted.as_mut());
        if let Some(wanted) = wanted {
            wanted.claim = Some(needed);
        }
    }

    fn grant(&mut self, model: ModelDigest, room: Room, wish: Wish, now: Mono) {
        if let Some(entry) = self.models.get_mut(&model) {
            self.taken += room.weights;
            entry.held += room.weights;
            entry.pieces += 1;
            entry.least = room.beside;
            entry.floor = entry.floor.max(room.beside);
            entry.granted.get_or_insert((now, wish));
            entry.wanted = None;
        }
    }

    fn wanted(&self, model: ModelDigest) -> Option<Wanted> {
        self.models.get(&model)?.wanted
    }

    /// The model that this is to be added to, if it is no model itself.
    fn base(&self, model: ModelDigest) -> Option<ModelDigest> {
        self.models.get(&model)?.adds_to
    }

    /// What models that stay need beside their weights, but for one.
    fn floors(&self, but: Option<ModelDigest>) -> u64 {
        let stay = self.models.iter().filter(|(_, entry)| !entry.leaves());
        let others = stay.filter(|(digest, _)| Some(**digest) != but);
        others.map(|(_, entry)| entry.floor).fold(0, u64::saturating_add)
    }

    /// Bytes that leave.
    fn leaving(&self) -> u64 {
        let leave = self.models.values().filter(|entry| entry.leaves());
        leave.map(|entry| entry.held).fold(0, u64::saturating_add)
    }

    fn claims(&self, but: Option<ModelDigest>) -> u64 {
        let others = self.models.iter().filter(|(digest, _)| Some(**digest) != but);
        others.map(|(_, entry)| entry.claim()).fold(0, u64::saturating_add)
    }

    /// Bytes that are neither used nor promised once all that leaves has left, for one that wants
    /// them.
    fn unpromised(&self, model: ModelDigest) -> u64 {
        let stays = self.taken.saturating_sub(self.leaving());
        let used = stays.saturating_add(self.floors(None)).saturating_add(self.claims(Some(model)));
        self.budget.saturating_sub(used)
    }

    /// Bytes that are neither used nor promised, now and later; those that are a model's own beside
    /// its weights count as free to it.
    fn free(&self, model: ModelDigest) -> u64 {
        let later = self.taken.saturating_sub(self.leaving()).saturating_add(self.claims(None));
        self.budget.saturating_sub(self.taken.max(later).saturating_add(self.floors(Some(model))))
    }
}

/// Divides memory among models in memory: equal parts, but to each what it needs at least, as far
/// as there is so much.
pub fn divide(bytes: u64, floors: &[u64]) -> Vec<u64> {
    let mut parts = vec![None; floors.len()];
    loop {
        let given: u64 = parts.iter().flatten().fold(0, |sum: u64, part| sum.saturating_add(*part));
        let open = parts.iter().filter(|part| part.is_none()).count() as u64;
        let equal = bytes.saturating_sub(given).checked_div(open).unwrap_or(0);
        let more = |at: &usize| parts[*at].is_none() && floors[*at] > equal;
        match (0..floors.len()).find(more) {
            // No more than is left: the account promises no more than there is.
            Some(at) => parts[at] = Some(floors[at].min(bytes.saturating_sub(given))),
            None => return parts.into_iter().map(|part| part.unwrap_or(equal)).collect(),
        }
    }
}

#[cfg(test)]
#[path = "residence_tests.rs"]
mod tests;
