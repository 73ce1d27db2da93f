//! Who may call: keys of the mesh and of single nodes, what they are good for, when they end.
//!
//! The verdicts are those of production's policy book and key ring. The observer keeps its own
//! account of which node heard that a key was revoked.

use std::collections::BTreeSet;

use selvedge_base::{Blame, Code, NodeId, Refusal, Retry, Stage, Wall};
use selvedge_core::FlowInput;
use selvedge_core::auth::KeyRing;
use selvedge_proto::policy::{
    AccountPath, KeyDraft, KeyId, KeyProblem, PolicyDelta, sign_cut, sign_key,
};

use super::World;
use super::relay::End;
use crate::clock::EPOCH;
use crate::invariant::Invariant;
use crate::marks::Mark;
use crate::plan::{ClientPlan, Plan};
use crate::watch::EventKind;

/// What the clients of one group call with.
#[derive(Debug)]
pub(super) struct Secret {
    /// Of a key that single nodes know.
    local: String,
    /// Of a key of the mesh, once the operator made it.
    mesh: Option<(KeyId, String)>,
    /// When that one expires.
    not_after: Option<Wall>,
}

/// All keys, as the observer knows them.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    groups: Vec<Secret>,
    /// Which node heard that which key was revoked.
    known: BTreeSet<(usize, KeyId)>,
}

impl Secrets {
    /// One secret per group of clients, known to all nodes.
    pub(super) fn new(plan: &Plan, rings: &mut [&mut KeyRing]) -> Self {
        let mut groups = Vec::new();
        for (group, client) in plan.workload.clients.iter().enumerate() {
            let entropy = entropy(plan.seed, "local", group);
            let mut local = String::new();
            for ring in rings.iter_mut() {
                // A name is too long for a key of a node only where a test makes it so.
                if let Ok(made) = ring.create(&client.account, entropy, EPOCH) {
                    local = made.secret;
                }
            }
            groups.push(Secret { local, mesh: None, not_after: None });
        }
        Self { groups, known: BTreeSet::new() }
    }

    /// A node's disk went back, or is empty: it may have forgotten what it heard.
    pub(super) fn forget(&mut self, node: usize) {
        self.known.retain(|(known, _)| *known != node);
    }
}

fn entropy(seed: u64, what: &str, group: usize) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 simulated secret");
    hasher.update(what.as_bytes());
    hasher.update(&seed.to_be_bytes());
    hasher.update(&(group as u64).to_be_bytes());
    *hasher.finalize().as_bytes()
}

impl World<'_> {
    /// The operator makes a key for each group of clients whose tenant has budgets.
    pub(super) fn make_keys(&mut self, node: usize) {
        let plan = self.plan;
        let wall = self.nodes[node].now(self.now.0).wall;
        for (group, client) in plan.workload.clients.iter().enumerate() {
            let Some(account) = self.accounts[group].clone() else { continue };
            if !self.tenants.contains(&account.tenant_path()) {
                continue;
            }
            let not_after = client.key_lasts.map(|lasts| wall.plus(lasts));
            let draft = KeyDraft {
                name: format!("group {group}"),
                account,
                models: client.key_models.clone(),
                routes: Vec::new(),
                not_after,
            };
            let mesh = self.truth_book.mesh();
            let entropy = entropy(plan.seed, "mesh", group);
            let made = sign_key(&self.names.root, None, mesh, draft, entropy, wall);
            let Ok(made) = made else { continue };
            let id = made.notice.signed.body.id;
            let memory = &mut self.nodes[node].memory;
            let taken = memory.book.apply_key(made.notice.clone(), &memory.roster, wall);
            debug_assert!(taken.is_ok(), "the operator's key is good: {taken:?}");
            let secret = &mut self.secrets.groups[group];
            (secret.mesh, secret.not_after) = (Some((id, made.secret)), not_after);
        }
    }

    /// Whether a caller is let in; if not, it is told.
    pub(super) fn may_call(&mut self, node: usize, request: u64) -> bool {
        let Err(refusal) = self.let_in(node, request) else { return true };
        self.tally.refused += 1;
        self.tally.failed = self.tally.failed.saturating_sub(1);
        self.flow(node, request, FlowInput::NotReserved(refusal));
        false
    }

    /// What the caller asks for, as it writes it.
    fn asked_name(&self, request: u64) -> &str {
        let truth = &self.requests[request as usize];
        let asks = self.plan.workload.clients[truth.group].asks.as_deref();
        asks.unwrap_or(truth.asked.name())
    }

    /// Whether a caller is let in, and under which key.
    pub(super) fn let_in(&mut self, node: usize, request: u64) -> Result<(), Refusal> {
        let group = self.requests[request as usize].group;
        let model = self.asked_name(request);
        let wall = self.nodes[node].now(self.now.0).wall;
        let memory = &self.nodes[node].memory;
        let secret = &self.secrets.groups[group];
        let verdict = match &secret.mesh {
            Some((_, secret)) if memory.quota.is_some() => match memory.book.verify(secret, wall) {
                Ok(caller) if caller.may_use(model) => Ok(Some(caller.key)),
                Ok(_) => Err((Mark::KeyOutOfScope, "this key is not for this model".to_owned())),
                Err(KeyProblem::Expired { id, ago_s }) => {
                    let text = KeyProblem::Expired { id, ago_s }.to_string();
                    Err((Mark::KeyExpired, text))
                }
                Err(problem) => Err((Mark::KeyRefused, problem.to_string())),
            },
            _ => match self.nodes[node].ring.verify(&secret.local) {
                Some(_) => Ok(None),
                None => Err((Mark::LocalKeyRefused, "this key is not known here".to_owned())),
            },
        };
        match verdict {
            Ok(key) => {
                self.requests[request as usize].key = key;
                self.audit_key(node, request, true);
                Ok(())
            }
            Err((mark, message)) => {
                self.hit(mark);
                let code = Code::Unauthorized;
                let (stage, blame) = (Stage::Authenticate, Blame::Client);
                Err(Refusal::new(stage, blame, Retry::Never, code, message))
            }
        }
    }

    /// Holds what a key is used for against what the observer knows of it. That a key expires ends
    /// nothing that it began.
    pub(super) fn audit_key(&mut self, node: usize, request: u64, begins: bool) {
        let truth = &self.requests[request as usize];
        let Some(key) = truth.key else { return };
        let client: &ClientPlan = &self.plan.workload.clients[truth.group];
        let wall = EPOCH.plus(selvedge_base::Micros(self.now.0.0));
        let ended = self.secrets.groups[truth.group].not_after.is_some_and(|end| wall > end);
        let models = &client.key_models;
        let asked = self.asked_name(request);
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(head) => asked.starts_with(head),
            None => asked == pattern,
        };
        let wrong = if self.secrets.known.contains(&(node, key)) {
            "revoked"
        } else if begins && ended && self.nodes[node].clock.is_right() {
            "expired"
        } else if begins && !models.is_empty() && !models.iter().any(fits) {
            "for other models"
        } else {
            return;
        };
        let seen = format!("request {request} at node {node}: its key is {wrong}");
        self.broken(Invariant::FlowKeysBind, seen);
    }

    /// A node took records: the observer notes which keys it must refuse from now on.
    pub(super) fn heard_cuts(&mut self, node: usize, delta: &PolicyDelta) {
        for cut in &delta.cuts {
            let key = cut.signed.body.order.key();
            self.secrets.known.extend(key.map(|key| (node, key)));
        }
    }

    /// Running answers whose key was revoked or whose account was suspended end.
    pub(super) fn bar_callers(&mut self, node: usize) {
        let requests: Vec<u64> = self.nodes[node].memory.taken.keys().copied().collect();
        for request in requests {
            let granted =
                self.nodes[node].memory.taken.get(&request).is_some_and(|taken| taken.granted);
            if granted && let Some(refusal) = self.barred(node, request) {
                self.hit(Mark::CallerBarred);
                self.flow(node, request, FlowInput::Barred(refusal));
            }
        }
        self.bar_paid_answers(node);
    }

    /// The same for answers that providers give.
    fn bar_paid_answers(&mut self, node: usize) {
        let relays = self.nodes[node].memory.relays.iter();
        let streams = relays.filter(|(_, relayed)| relayed.is_asking());
        let requests: Vec<u64> = streams.map(|(request, _)| *request).collect();
        for request in requests {
            if let Some(refusal) = self.barred(node, request) {
                self.hit(Mark::CallerBarred);
                self.leave_errand(node, request);
                self.leg_ended(node, request, End::Failed(refusal));
            }
        }
    }

    /// The key of the mesh that a group calls with.
    pub(super) fn key_of(&self, group: usize) -> Option<KeyId> {
        self.secrets.groups[group].mesh.as_ref().map(|(id, _)| *id)
    }

    /// Whether a group will not be let in at a node, or may not be soon.
    pub(super) fn is_barred_for_good(&self, node: usize, group: usize) -> bool {
        let secret = &self.secrets.groups[group];
        let Some((id, _)) = &secret.mesh else {
            return self.nodes[node].ring.verify(&secret.local).is_none();
        };
        let client = &self.plan.workload.clients[group];
        let revoked = self.secrets.known.iter().any(|(_, known)| known == id);
        let suspended = self.accounts[group]
            .as_ref()
            .is_some_and(|account| self.truth_book.suspended(account).is_some());
        let scoped = client.key_models.iter().any(|pattern| !pattern.ends_with('*'));
        revoked || suspended || secret.not_after.is_some() || scoped
    }

    /// Why a caller that was let in may not go on, if it may not.
    pub(super) fn barred(&self, node: usize, request: u64) -> Option<Refusal> {
        let truth = &self.requests[request as usize];
        let account = self.accounts[truth.group].as_ref()?;
        let memory = &self.nodes[node].memory;
        memory.quota.as_ref()?;
        let problem = memory.book.bars(account, truth.key.as_ref())?;
        Some(Refusal::client(Stage::Authenticate, Code::Unauthorized, problem.to_string()))
    }

    /// A steward revokes all keys of an account at one node: those of the mesh, or where its tenant
    /// has no budgets, those that only this node knows.
    pub(super) fn revoke_keys(&mut self, index: usize, tenant: usize, node: usize) {
        let path = match self.plan.workload.tenants.get(tenant) {
            Some(plan) => plan.path.clone(),
            None => format!("t{tenant}"),
        };
        let Ok(account) = path.parse::<AccountPath>() else { return };
        if !self.nodes[node].acts() || self.is_out(node) {
            return;
        }
        let wall = self.nodes[node].now(self.now.0).wall;
        let mesh = self.truth_book.mesh();
        let mut cuts = PolicyDelta::default();
        for group in 0..self.secrets.groups.len() {
            let own = |known: &AccountPath| known.tenant_path() == account.tenant_path();
            if !self.accounts[group].as_ref().is_some_and(own) {
                continue;
            }
            let secret = &self.secrets.groups[group];
            match &secret.mesh {
                Some((id, _)) => {
                    let order = self.nodes[node].memory.book.close_key(*id);
                    cuts.cuts.extend(sign_cut(&self.names.root, None, mesh, order, wall));
                }
                None => {
                    let ring = &mut self.nodes[node].ring;
                    let found = ring.verify(&secret.local).map(|(id, _)| id.clone());
                    if found.is_some_and(|id| ring.revoke(&id).is_ok()) {
                        self.fired(index);
                    }
                }
            }
        }
        if cuts.cuts.is_empty() || self.nodes[node].memory.quota.is_none() {
            return;
        }
        self.fired(index);
        self.hit(Mark::KeyRevoked);
        self.heard_cuts(node, &cuts);
        for notice in cuts.cuts {
            let memory = &mut self.nodes[node].memory;
            let taken = memory.book.apply_cut(notice.clone(), &memory.roster, wall);
            debug_assert!(taken.is_ok(), "the operator's cut is good: {taken:?}");
        }
        self.show(EventKind::PolicyChanged, node, None, || "keys revoked".to_owned());
        self.policy_changed(node, true);
    }
}

/// The ring of a node: its pepper never leaves it.
pub(crate) fn ring(node: &NodeId) -> KeyRing {
    KeyRing::new(*blake3::hash(&node.0).as_bytes())
}
