#![allow(clippy::unwrap_used, clippy::expect_used)]

//! Real nodes with real stores and connections share a budget: none of them may overspend it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use selvedge_base::Refusal;
use selvedge_core::meter::Meter;
use selvedge_core::quota::{QuotaHeader, QuotaOptions};
use selvedge_engine::EngineConfig;
use selvedge_proto::policy::{BudgetTerms, Hardness, OnExhausted, Period, Scope, Unit};

use super::*;
use crate::store::tests::Disk;
use crate::{Admin, BudgetDraft, Node, NodeConfig};

/// Nothing in these tests takes this long unless it is broken.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at what another task changes.
pub(super) const GLANCE: Duration = Duration::from_millis(10);

/// A node's home, removed when dropped.
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn new(name: &str) -> Self {
        let id = std::process::id();
        let path = std::env::temp_dir().join(format!("selvedge-budget-{name}-{id}"));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn config(&self, peers: &[SocketAddr]) -> NodeConfig {
        NodeConfig {
            home: self.0.clone(),
            name: self.0.file_name().unwrap().to_string_lossy().chars().take(40).collect(),
            site: String::new(),
            listen: ([127, 0, 0, 1], 0).into(),
            static_peers: peers.to_vec(),
            rendezvous: None,
            mdns: false,
            engine: EngineConfig { threads: 1, ..EngineConfig::default() },
            max_requests: NodeConfig::MAX_REQUESTS,
            max_handoffs_per_peer: NodeConfig::MAX_HANDOFFS_PER_PEER,
            serve_tenants: BTreeSet::new(),
            rollback_guard: false,
            cache: None,
            tracer: None,
            data: std::collections::BTreeMap::new(),
            bases: Vec::new(),
            create_mesh: true,
        }
    }

    pub(crate) async fn start(&self, peers: &[SocketAddr]) -> Node {
        Node::start(self.config(peers)).await.unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A leftover in the system's folder for such hurts nobody.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) async fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let looking = async {
        let mut glances = tokio::time::interval(GLANCE);
        while !seen() {
            glances.tick().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, looking).await.is_ok(), "never seen: {what}");
}

pub(crate) fn account() -> AccountPath {
    "acme".parse().unwrap()
}

pub(crate) fn monthly(limit: u64) -> BudgetDraft {
    BudgetDraft {
        terms: BudgetTerms {
            name: "tokens".to_owned(),
            unit: Unit::Tokens,
            period: Period::Month,
            limit,
            hardness: Hardness::Hard,
            on_exhausted: OnExhausted::Refuse,
            scope: Scope::All,
            sub_windows: 1,
            reclaimable: false,
        },
        weights: Vec::new(),
    }
}

fn line(node: &Node) -> QuotaLine {
    node.gateway().shared.quota.clone()
}

/// Another line of a node's holder, on a disk and by a clock of its own.
pub(crate) async fn another_line(
    node: &Node,
    disk: &Disk,
    clock: crate::stepper::Clock,
) -> (QuotaLine, ractor::ActorRef<crate::supervise::SupervisorMessage>) {
    let backend = disk.clone();
    let store = Store::with_backend(move || backend.clone()).await.unwrap();
    let header = QuotaHeader { incarnation: line(node).incarnation(), ..QuotaHeader::default() };
    store.save("escrow/header", &header).await.unwrap();
    let shared = std::sync::Arc::clone(&node.gateway().shared);
    let seal = Arc::new(NodeSeal::new(Arc::clone(&shared.identity)));
    let (stored, dice) = (load(&store).unwrap(), selvedge_net::entropy::dice());
    let machine = Quota::new(shared.me, stored, seal, dice, QuotaOptions::default(), clock());
    let counters = Arc::clone(&shared.counters);
    let (line, orders) = QuotaLine::new(Stepper::new(machine, clock), store, counters);
    line.policy_changed(shared.policies.book());
    let run = child(line.clone(), Arc::clone(&shared.endpoint), orders);
    let (carrier, _) = crate::task::child("budgets", run);
    let supervisor = crate::supervise::Supervisor::start(vec![carrier]).await.unwrap();
    (line, supervisor)
}

/// A request that takes `tokens`.
fn wanted(id: RequestId, tokens: u32) -> Wanted {
    Wanted {
        id,
        account: account(),
        key: None,
        model: "m".to_owned(),
        takes: Takes::Free(Meter::counted(tokens, Some(0))),
        deadline: Micros::secs(60),
    }
}

/// Reserves `tokens` on a node.
async fn reserve(node: &Node, tokens: u32) -> Result<Reservation, Refusal> {
    line(node).reserve(wanted(node.gateway().shared.run_id(), tokens)).await
}

/// Spends `tokens` for good; whether the budget allowed it.
pub(super) async fn spend(node: &Node, tokens: u32) -> bool {
    let Ok(mut reservation) = reserve(node, tokens).await else { return false };
    reservation.started(tokens);
    drop(reservation);
    true
}

/// Spends in steps until the budget ends, and says how much it was. A refusal may only mean that
/// rights are on their way.
pub(super) async fn spend_all(node: &Node, step: u32) -> u64 {
    let mut spent = 0;
    let mut refusals = 0;
    while refusals < 3 {
        if spend(node, step).await {
            spent += u64::from(step);
            refusals = 0;
        } else {
            refusals += 1;
        }
    }
    spent
}

pub(crate) fn spent(admin: &Admin) -> u64 {
    admin.budget_status(None).iter().map(|budget| budget.spent).sum()
}

/// Two linked nodes with a budget of `limit` tokens, which both know and hold rights of.
pub(crate) async fn pair(name: &str, limit: u64) -> ((Home, Node), (Home, Node)) {
    let (a_home, b_home) = (Home::new(&format!("{name}-a")), Home::new(&format!("{name}-b")));
    let a = a_home.start(&[]).await;
    let code = a.admin().invite(Micros::secs(600)).await.unwrap();
    Node::join(&b_home.config(&[a.quic_addr()]), &code).await.unwrap();
    let b = b_home.start(&[a.quic_addr()]).await;
    let b_id = b.gateway().view().me;
    let policies = std::sync::Arc::clone(&a.gateway().shared.policies);
    until("the name of the other's store", || policies.holder_of(&b_id).is_some()).await;
    let level = "acme".parse().unwrap();
    let set = a.admin().budget_set(&level, monthly(limit)).await.unwrap();
    assert!(set.in_force && set.waiting_for.is_empty(), "{set:?}");
    until("the budget at the other node", || {
        b.admin().budget_status(None).iter().any(|budget| budget.in_force)
    })
    .await;
    ((a_home, a), (b_home, b))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_spend_one_budget_to_its_end_and_no_further() {
    let ((_a_home, a), (_b_home, b)) = pair("shared", 2_000).await;
    // Only one side has demand: it gets the other's rights too.
    let by_a = spend_all(&a, 50).await;
    let by_b = spend_all(&b, 50).await;
    assert!(by_a + by_b <= 2_000, "{by_a} + {by_b}");
    assert!(by_a + by_b >= 1_800, "most of it could be spent: {by_a} + {by_b}");
    assert!(by_a > 1_000, "rights moved to where they were asked for: {by_a}");
    assert!(reserve(&a, 50).await.is_err() && reserve(&b, 50).await.is_err());
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_cut_serve_what_they_hold() {
    let ((a_home, a), (b_home, b)) = pair("cut", 1_000).await;
    // One runs while the other does not: neither can ask.
    a.shutdown().await;
    let by_b = spend_all(&b, 20).await;
    b.shutdown().await;
    let a = a_home.start(&[]).await;
    let by_a = spend_all(&a, 20).await;
    assert!(by_a + by_b <= 1_000, "{by_a} + {by_b}");
    assert!(by_a >= 400 && by_b >= 400, "each served its half: {by_a}, {by_b}");
    a.shutdown().await;
    drop(b_home);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_nothing_is_spent_twice() {
    let ((_a_home, a), (b_home, b)) = pair("crash", 1_000).await;
    a.shutdown().await;
    let before = {
        let mut before = 0;
        for _ in 0..10 {
            before += if spend(&b, 20).await { 20 } else { 0 };
        }
        before
    };
    assert_eq!(before, 200);
    // The disk as a power cut leaves it: whatever was committed, with the node still running.
    let crashed = Home::new("crash-image");
    copy(&b_home.0, &crashed.0);
    b.shutdown().await;
    let b = crashed.start(&[]).await;
    assert!(spent(&b.admin()) >= before, "what was spent stays spent");
    let after = spend_all(&b, 20).await;
    assert!(before + after <= 500, "no more than its half: {before} + {after}");
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_settles_by_what_was_used_however_it_ends() {
    let ((_a_home, a), (_b_home, b)) = pair("settle", 100_000).await;
    let status = |node: &Node| {
        let all = line(node).status();
        all.first().map_or((0, 0), |status| (status.spent, status.reserved))
    };
    // Never begun.
    drop(reserve(&a, 500).await.unwrap());
    assert_eq!(status(&a), (0, 0));
    // Begun, then dropped half-way, as a task that is aborted drops it.
    let mut begun = reserve(&a, 500).await.unwrap();
    assert_eq!(status(&a), (0, 500));
    begun.started(90);
    let task = tokio::spawn(async move {
        let _held = begun;
        std::future::pending::<()>().await;
    });
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(status(&a), (90, 0));
    // A panic is no way around.
    let mut begun = reserve(&a, 500).await.unwrap();
    begun.started(10);
    let panicked = tokio::spawn(async move {
        let _held = begun;
        panic!("as a bug would");
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(status(&a), (100, 0));
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_limit_and_a_suspension_count_at_once() {
    let ((_a_home, a), (_b_home, b)) = pair("cuts", 10_000).await;
    assert!(spend(&a, 100).await);
    let level = "acme".parse().unwrap();
    a.admin().budget_lower(&level, "tokens", 200).await.unwrap();
    until("the cut at the other node", || {
        b.admin().budget_status(None).iter().all(|budget| budget.limit == 200)
    })
    .await;
    // What a peer gave before it heard of the cut is spent; nothing can come after.
    assert!(spend_all(&a, 50).await + spend_all(&b, 50).await <= 100);
    assert!(a.gateway().shared.policies.bars(&account(), None).is_none());
    let mut let_in = None;
    let mut again = || {
        let barred = a.gateway().shared.policies.bars_again(&account(), None, &mut let_in);
        barred.is_some()
    };
    assert!(!again() && !again());
    a.admin().tenant_suspend(&account()).await.unwrap();
    assert!(a.gateway().shared.policies.bars(&account(), None).is_some());
    assert!(again() && again(), "who was let in before is looked up again");
    assert!(let_in.is_some());
    until("the suspension at the other node", || {
        b.gateway().shared.policies.bars(&account(), None).is_some()
    })
    .await;
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_gives_its_rights_away() {
    let ((_a_home, a), (_b_home, b)) = pair("leave", 1_000).await;
    // Rights are given to whoever has a row of its own: who spends has.
    assert!(spend(&a, 20).await && spend(&b, 100).await);
    let a_id = a.gateway().view().me;
    until("the other node's row", || {
        let holders = line(&b).status().into_iter().flat_map(|budget| budget.holders);
        holders.into_iter().any(|other| other.holder.node == a_id && other.seq > 0)
    })
    .await;
    b.admin().leave().await.unwrap();
    b.shutdown().await;
    let by_a = spend_all(&a, 20).await;
    assert!((860..=880).contains(&by_a), "all but what was spent before: {by_a}");
    a.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_mesh_opens_everywhere_until_it_is_revoked() {
    let ((_a_home, a), (_b_home, b)) = pair("keys", 1_000).await;
    let draft = crate::KeyDraft {
        name: "line 3".to_owned(),
        account: Some(account()),
        expires_in: None,
        models: Vec::new(),
        routes: Vec::new(),
    };
    let made = a.admin().key_create(draft).await.unwrap();
    until("the key at the other node", || b.admin().verify_key(&made.secret).is_ok()).await;
    let caller = b.admin().verify_key(&made.secret).unwrap();
    assert_eq!((caller.account, caller.tenant.as_str()), (account(), "acme"));
    a.admin().key_revoke(&made.id).await.unwrap();
    assert!(a.admin().verify_key(&made.secret).is_err());
    until("the revocation at the other node", || b.admin().verify_key(&made.secret).is_err()).await;
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_counts_once_everybody_has_given_their_word() {
    let ((_a_home, a), (_b_home, b)) = pair("words", 1_000).await;
    let (level, b_id) = ("acme".parse().unwrap(), b.gateway().view().me);
    let mut draft = monthly(500);
    draft.terms.name = "second".to_owned();
    let set = a.admin().budget_set(&level, draft).await.unwrap();
    assert_eq!((set.epoch, set.in_force), (2, false));
    assert!(set.waiting_for.contains(&b_id), "{set:?}");
    // What is new is limited at once all the same.
    let known = |node: &Node| node.admin().budget_status(None).len() == 2;
    until("the second budget at the other node", || known(&b)).await;
    assert!(spend_all(&a, 50).await + spend_all(&b, 50).await <= 500);
    for node in [&a, &b] {
        let book = || node.gateway().shared.policies.book();
        until("everybody's word", || {
            let status = book().epoch_status("acme", selvedge_net::clock::wall());
            status.is_some_and(|status| status.in_force && status.waiting_for.is_empty())
        })
        .await;
    }
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_a_budget_is_not_asked_about() {
    let ((_a_home, a), (_b_home, b)) = pair("free", 1_000).await;
    let policies = &a.gateway().shared.policies;
    assert!(policies.limits(&account(), None));
    assert!(!policies.limits(&AccountPath::local(), None));
    assert!(policies.is_hard("acme") && !policies.is_hard("local"));
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_build_stays_a_member_and_has_no_part_in_budgets() {
    let (a_home, b_home) = (Home::new("old-a"), Home::new("old-b"));
    let a = a_home.start(&[]).await;
    let code = a.admin().invite(Micros::secs(600)).await.unwrap();
    Node::join(&b_home.config(&[a.quic_addr()]), &code).await.unwrap();
    // Started where it finds nobody, so that its first hello is the older one.
    let b = b_home.start(&[]).await;
    b.admin().membership.speak_at_most(1);
    let (b_id, shared) = (b.gateway().view().me, std::sync::Arc::clone(&a.gateway().shared));
    let link = shared.endpoint.connect(b_id, &[b.quic_addr()]).await.unwrap();
    let level = "acme".parse().unwrap();
    let mut kept = monthly(500);
    kept.terms.reclaimable = true;
    let refused = a.admin().budget_set(&level, kept).await.unwrap_err();
    assert!(refused.message.contains(&b_id.short().to_string()), "{refused}");
    a.admin().budget_set(&level, monthly(500)).await.unwrap();
    // State is exchanged as ever: both see each other's rows, which travel in the oldest version.
    until("the older node's row", || {
        let view = a.gateway().view();
        view.node(&b_id).is_some_and(|node| !node.version.is_empty())
    })
    .await;
    let a_id = a.gateway().view().me;
    until("the newer node's row", || {
        let view = b.gateway().view();
        view.node(&a_id).is_some_and(|node| !node.version.is_empty())
    })
    .await;
    // Whichever connection stands by now, it is spoken on as the older build does.
    let link = shared.endpoint.link(&b_id).unwrap_or(link);
    assert_eq!(link.version(), 1);
    assert_eq!(spend_all(&a, 50).await, 500, "the newer node holds all rights and spends them");
    assert!(b.admin().budget_status(None).is_empty(), "the older one was told nothing");
    assert!(shared.policies.holder_of(&b_id).is_none());
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_writes_refuses_and_comes_back() {
    let ((_a_home, a), (_b_home, b)) = pair("disk", 100_000).await;
    let disk = Disk::default();
    let (line, supervisor) = another_line(&a, &disk, crate::stepper::system_clock()).await;
    let shared = std::sync::Arc::clone(&a.gateway().shared);
    let reserve = |tokens| line.reserve(wanted(shared.run_id(), tokens));
    drop(reserve(10).await.unwrap());
    disk.fill(true);
    // What is covered by a mark on the disk may still be spent; beyond it nothing.
    let mut held = Vec::new();
    let refusal = loop {
        match reserve(5_000).await {
            Ok(reservation) => held.push(reservation),
            Err(refusal) => break refusal,
        }
        assert!(held.len() < 20, "spends without a disk");
    };
    assert_eq!(refusal.stage, selvedge_base::Stage::Reserve, "{refusal}");
    drop(held);
    disk.fill(false);
    let looking = async {
        let mut glances = tokio::time::interval(GLANCE);
        while reserve(5_000).await.is_err() {
            glances.tick().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, looking).await.is_ok(), "the disk has room again");
    supervisor.stop(None);
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_nobody_waits_for_reaches_its_reservation() {
    let ((_a_home, a), (_b_home, b)) = pair("lost", 1_000).await;
    let id = a.gateway().shared.run_id();
    let mut held = line(&a).reserve(wanted(id, 10)).await.unwrap();
    assert!(held.ended().await.is_none());
    let (account, worst) = (
        account(),
        selvedge_core::quota::Charge {
            tokens: 1,
            requests: 1,
            micro_dollars: 0,
            class: selvedge_core::quota::CostClass::Local,
            model: "m".to_owned(),
        },
    );
    let lease = Micros::secs(1);
    line(&a).tell(QuotaInput::Asked { id, account, key: None, worst, lease });
    let lost = tokio::time::timeout(DEADLINE, held.answer()).await.unwrap();
    assert_eq!(lost.unwrap().stage, selvedge_base::Stage::Reserve);
    drop(held);
    assert!(line(&a).0.state.lock().followed.is_empty());
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farewell_that_fails_is_taken_back() {
    let ((_a_home, a), (b_home, b)) = pair("farewell", 1_000).await;
    // Given up on while a request still runs.
    let held = reserve(&b, 100).await.unwrap();
    let leaving = tokio::time::timeout(Duration::from_millis(50), b.admin().leave()).await;
    assert!(leaving.is_err(), "it waits for the request");
    drop(held);
    assert!(spend(&b, 100).await, "it serves as before");
    // A root key turns up, with which it may not leave: everything was given away by then.
    let mesh = b_home.0.join("mesh");
    std::fs::create_dir_all(&mesh).unwrap();
    std::fs::write(mesh.join("root.key"), "no key").unwrap();
    let (admin, before) = (b.admin(), line(&b).incarnation());
    line(&b).retire(Micros::secs(5)).await;
    assert!(admin.membership.leave().await.is_err());
    assert!(!admin.membership.has_left() && !admin.has_left());
    line(&b).stay();
    assert_ne!(line(&b).incarnation(), before, "what was sealed stays so");
    until("rights of the other node", || {
        let status = line(&b).status();
        line(&b).tell(QuotaInput::Ticked);
        status.iter().any(|budget| budget.ledger.is_some())
    })
    .await;
    // A right is on its way once somebody asked for it.
    let served = async {
        while spend_all(&b, 50).await == 0 {
            line(&b).tell(QuotaInput::Ticked);
        }
    };
    let served = tokio::time::timeout(DEADLINE, served).await;
    assert!(served.is_ok(), "by what the other node gives it");
    // And it can leave after all.
    std::fs::remove_file(mesh.join("root.key")).unwrap();
    admin.leave().await.unwrap();
    assert!(admin.has_left());
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_keep_coming_do_not_hold_back_the_time() {
    let ((_a_home, a), (_b_home, b)) = pair("ticks", 1_000).await;
    let (line, supervisor) =
        another_line(&a, &Disk::default(), crate::stepper::system_clock()).await;
    let id = a.gateway().shared.run_id();
    let worst = selvedge_core::quota::Charge {
        tokens: 10,
        requests: 1,
        micro_dollars: 0,
        class: selvedge_core::quota::CostClass::Local,
        model: "m".to_owned(),
    };
    let lease = Micros::millis(50);
    let asked = QuotaInput::Asked { id, account: account(), key: None, worst, lease };
    let verdict = match line.ask(id, asked) {
        Answered::Now(verdict) => verdict,
        Answered::Later(later) => later.await.unwrap(),
    };
    assert!(matches!(verdict, Verdict::Granted { .. }), "{verdict:?}");
    let reserved = || line.status().iter().map(|budget| budget.reserved).sum::<u64>();
    assert_eq!(reserved(), 10);
    // From before the lease ends until long after, there is always an order to carry out.
    let began = std::time::Duration::from_micros(selvedge_net::clock::mono().0);
    let now = || std::time::Duration::from_micros(selvedge_net::clock::mono().0);
    while now() < began + Duration::from_millis(200) {
        (0..1_000).for_each(|_| line.order(Order::WakeSooner));
    }
    let (flushed, sent) = oneshot::channel();
    line.order(Order::Flush(flushed));
    (0..200_000).for_each(|_| line.order(Order::WakeSooner));
    sent.await.unwrap();
    assert_eq!(reserved(), 0, "the lease ended in between");
    supervisor.stop(None);
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_badly_signed_do_not_reach_the_machine() {
    let ((_a_home, a), (_b_home, b)) = pair("rows", 1_000).await;
    let (b_id, key) = (b.gateway().view().me, line(&a).status()[0].ledger.unwrap());
    let holder = selvedge_crdt::escrow::Holder { node: b_id, incarnation: line(&b).incarnation() };
    let mut row = selvedge_crdt::escrow::EscrowRow::new(key, holder);
    row.seq = 1_000;
    let good = SignedRow::seal(row.clone(), &*b_seal(&b));
    let bad = SignedRow { signature: selvedge_crdt::Signature([0; 32], [0; 32]), ..good.clone() };
    let checked = line(&a).check(b_id, vec![bad.clone(), good.clone()]).await.unwrap();
    assert_eq!(checked, std::slice::from_ref(&good));
    // A flood is cut off, and only that of its sender.
    let flood = vec![bad; 500];
    let mut looked_at = 0;
    for _ in 0..20 {
        looked_at += usize::from(line(&a).check(b_id, flood.clone()).await.is_some());
    }
    assert!((1..20).contains(&looked_at), "{looked_at} of 20");
    let other = selvedge_base::NodeId([9; 32]);
    assert!(line(&a).check(other, vec![good]).await.is_some());
    a.shutdown().await;
    b.shutdown().await;
}

fn b_seal(node: &Node) -> Arc<dyn selvedge_crdt::escrow::Seal> {
    line(node).0.state.lock().stepper.machine().seal()
}

/// Copies a home as it is on the disk.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
