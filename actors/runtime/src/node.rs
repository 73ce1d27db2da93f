//! Starting and stopping a node: what is opened in which order, and who owns it.
//!
//! ```text
//! identity → store → roster → engine → endpoint ─┬─ data side: engine's own threads, streams
//!                                                └─ control side (supervised): mesh, discovery
//! ```
//!
//! Owns the order. Stopping goes the other way round: nothing new comes in, links say good-bye,
//! the store writes what it holds.

use std::fs::{OpenOptions, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use ractor::{Actor, ActorRef};
use selvedge_base::{MeshId, Micros, NodeId};
use selvedge_contract::Engine;
use selvedge_core::auth::KeyRing;
use selvedge_core::quota::{Quota, QuotaEffect, QuotaInput, QuotaOptions, QuotaStored};
use selvedge_core::receive::ReceivePolicy;
use selvedge_core::route::MeshView;
use selvedge_engine::{EngineError, LocalEngine};
use selvedge_net::{Endpoint, Identity, IdentityError, NetConfig, NetError, clock, entropy, hold};
use selvedge_proto::join::{Invites, JoinCode};
use selvedge_proto::records::{
    DEFAULT_LEASE, RecordError, Roster, RosterSnapshot, STEWARD_LEASE, check_name,
    fingerprint_text, grant_steward,
};
use selvedge_proto::swim::{Swim, SwimEffect, SwimInput};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::admin::{Admin, KEYS};
use crate::answers::{self, Purges};
use crate::config::NodeConfig;
use crate::contacts::Contacts;
use crate::counters::Counters;
use crate::custody::{self, CustodyError};
use crate::discover::{self, DiscoveryArgs};
use crate::federated::{self, Federation, FederationParts};
use crate::gate::MemberGate;
use crate::gateway::Gateway;
use crate::hardware::{self, Machines, Probe};
use crate::ingress::Ingress;
use crate::join::{self, JoinFailed};
use crate::line::MeshLine;
use crate::membership::{INVITES, Key, Membership, load_roster, save_roster};
use crate::mesh::{CONTACTS, INCARNATION, MeshActor, MeshArgs, MeshMessage, MeshSettings};
use crate::policies::Policies;
use crate::policy_sync;
use crate::providers::{Providers, ProvidersError};
use crate::quota::{self, NodeSeal, Order, QuotaLine};
use crate::records::Records;
use crate::relay::CacheLine;
use crate::relay::speech::Sounds;
use crate::routing::{Place, Routing};
use crate::shared::{Preparing, Shared, Tally};
use crate::stepper::{Clock, Stepper, system_clock};
use crate::store::{Batch, Store, StoreError};
use crate::supervise::{Child, Supervisor, SupervisorMessage};
use crate::task::{self, Finished, Run};

/// The system lists its interfaces within milliseconds; waiting a little makes the first join code
/// carry them.
const ADDRESSES_WITHIN: Micros = Micros::millis(500);

/// Why a node could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The home cannot be made.
    #[error("cannot create {}: {source}", path.display())]
    Home {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The node's key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The durable state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored or new records are not good.
    #[error("the membership records are not good: {0}")]
    Records(#[from] RecordError),
    /// The root key cannot be used.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// The endpoint cannot be opened.
    #[error("{0}; choose another address with --listen")]
    Net(#[from] NetError),
    /// The providers' keys cannot be opened.
    #[error(transparent)]
    Providers(#[from] ProvidersError),
    /// The engine cannot be started.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An actor could not be started.
    #[error("an actor could not be started: {0}")]
    Actor(#[from] ractor::SpawnErr),
    /// The home belongs to no mesh, and none was to be made.
    #[error("this home belongs to no mesh: join one with `selvedge up --join CODE`")]
    NoMesh,
    /// The home belongs to a mesh already.
    #[error(
        "this home already belongs to mesh {0}: `selvedge up` without --join starts it there; for \
         another mesh `selvedge mesh leave` first, or use another --home"
    )]
    AlreadyMember(String),
    /// The home belongs to the mesh of the code already.
    #[error("this home belongs to mesh {0} already, which the code is for: leave out --join")]
    Joined(String),
    /// The home belonged to the mesh of the code, and nobody there takes it for a member any more.
    #[error(
        "this home belongs to mesh {0}, which the code is for, and its membership has lapsed: \
         `selvedge mesh leave`, then join again with this code"
    )]
    Lapsed(String),
    /// Joining failed.
    #[error(transparent)]
    Join(#[from] JoinFailed),
}

impl StartError {
    /// A home that belongs to a mesh is given a code. With a lease that is over it would find
    /// nobody: it has to leave before a code helps.
    pub(crate) fn belongs(mesh: &MeshId, code: &JoinCode, is_in: bool) -> Self {
        let name = fingerprint_text(mesh);
        match (code.is_for(mesh), is_in) {
            (true, true) => Self::Joined(name),
            (true, false) => Self::Lapsed(name),
            (false, _) => Self::AlreadyMember(name),
        }
    }
}

/// A running node.
pub struct Node {
    gateway: Gateway,
    admin: Admin,
    settings: Arc<MeshSettings>,
    control: ActorRef<SupervisorMessage>,
    /// One supervisor per way in, so that one that fails over and over does not touch the others.
    surfaces: Vec<ActorRef<SupervisorMessage>>,
    store: Store,
    replaying: bool,
}

/// What takes the place of a running node's own machine and clock, so that a recorded or simulated
/// trace goes through the code that runs in production.
pub struct Replay {
    /// The failure detector as the trace's was before its first step.
    pub detector: Swim,
    /// The quota machine likewise, if the trace has one; a fresh one otherwise.
    pub quota: Option<Quota>,
    /// Tells the time of the step that comes next.
    pub clock: Clock,
}

/// What was opened before anything runs.
struct Opened {
    identity: Arc<Identity>,
    store: Store,
}

impl Node {
    /// Joins the mesh a code is for and stores the membership; the node can then be started.
    ///
    /// # Errors
    /// [`StartError`], among them `AlreadyMember`, `Lapsed`, `Joined`, after which the node can be
    /// started as well, and `Join`.
    pub async fn join(config: &NodeConfig, code: &JoinCode) -> Result<MeshId, StartError> {
        // A code is good once: not for a node that could not listen then.
        let _listens = hold(config.listen)?;
        let opened = open(&config.home).await?;
        if let Some(snapshot) = load_roster(&opened.store)? {
            opened.store.close().await;
            let RosterSnapshot { mesh, own, .. } = snapshot;
            let is_in = own.is_some_and(|own| clock::wall() < own.membership.body.not_after);
            return Err(StartError::belongs(&mesh, code, is_in));
        }
        check_name(&config.name)?;
        let (joined, issued) = join::join(&opened.identity, config, code).await?;
        let mut roster = Roster::new(joined.mesh, opened.identity.node_id());
        roster.set_own(joined.credential, clock::wall())?;
        let mut contacts = Contacts::default();
        for (node, addrs) in &joined.peers {
            contacts.proven(*node, addrs);
        }
        contacts.proven(issued.by, &[issued.at]);
        opened.store.save(CONTACTS, &contacts).await?;
        save_roster(&opened.store, &roster.snapshot()).await?;
        opened.store.close().await;
        Ok(joined.mesh)
    }

    /// Makes a mesh of one in this home without starting a node.
    ///
    /// # Errors
    /// [`StartError::AlreadyMember`], and whatever opening the home may fail with.
    pub async fn init(home: &Path, name: &str) -> Result<MeshId, StartError> {
        let opened = open(home).await?;
        if let Some(snapshot) = load_roster(&opened.store)? {
            return Err(StartError::AlreadyMember(fingerprint_text(&snapshot.mesh)));
        }
        let roster = create_mesh(&opened, home, name).await?;
        opened.store.close().await;
        Ok(roster.mesh())
    }

    /// Starts a node. Models are added afterwards through [`Node::admin`].
    ///
    /// # Errors
    /// [`StartError`]; whatever was opened is closed again.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        Self::begin(config, None).await
    }

    /// Starts a node that takes no part in anything: its failure detector is told what
    /// [`Node::replay`] says, at the time the replay's clock says, and nothing else.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_replay(config: NodeConfig, replay: Replay) -> Result<Self, StartError> {
        Self::begin(config, Some(replay)).await
    }

    /// Tells the failure detector a fact of a trace, through the actor that owns it. What it
    /// ordered, which the node carries out as ever; `None` when the node does not run for a replay.
    pub async fn replay(&self, input: SwimInput) -> Option<Vec<SwimEffect>> {
        let (ordered, orders) = oneshot::channel();
        let input = Box::new(input);
        self.replaying.then(|| self.admin.mesh.tell(MeshMessage::Replayed { input, ordered }))?;
        orders.await.ok()
    }

    /// Tells the quota machine a fact of a trace, through the line that requests, peers and the
    /// disk tell it theirs. What it ordered: writes reach the disk as ever, messages go nowhere.
    /// `None` when the node does not run for a replay.
    pub fn replay_quota(&self, input: QuotaInput) -> Option<Vec<QuotaEffect>> {
        self.replaying.then(|| self.gateway.shared.quota.replay(input))
    }

    /// What the disk holds of budgets once everything ordered so far has reached it.
    ///
    /// # Errors
    /// When it cannot be written or read.
    pub async fn stored_quota(&self) -> Result<QuotaStored, StoreError> {
        // Writes keep their order: when this one is durable, so are those before.
        self.store.save(INCARNATION, &self.admin.membership.incarnation()).await?;
        quota::load(&self.store)
    }

    async fn begin(config: NodeConfig, mut replay: Option<Replay>) -> Result<Self, StartError> {
        entropy::prewarm();
        let opened = open(&config.home).await?;
        let (membership, numbered) = open_membership(&opened, &config).await?;
        // The disk takes the number of this start meanwhile. It is waited for even where these
        // fail: whoever tries again then finds no write under way.
        let engine = LocalEngine::start(config.engine.clone(), Arc::new(clock::mono)).map(Arc::new);
        let loaded = load(&opened, &config, &membership).await;
        // Stored before it is used: no two starts share one.
        numbered.await.map_err(|_| StoreError::Closed)??;
        let (engine, loaded) = (engine?, loaded?);
        let gate = Arc::new(MemberGate(Arc::clone(&membership)));
        let identity = Arc::clone(&opened.identity);
        let (endpoint, events) =
            Endpoint::bind(identity, config.listen, gate, NetConfig::default()).await?;
        let (endpoint, counters) = (Arc::new(endpoint), Arc::new(Counters::default()));
        let mesh = MeshLine::new();
        let (quota, orders) = budgets(&opened, &config, &counters, replay.as_mut())?;
        let parts =
            Parts { endpoint, engine: Arc::clone(&engine), mesh: mesh.clone(), quota, counters };
        let shared = Arc::new(share(&opened, &config, &membership, loaded, parts));
        if replay.is_none() {
            shared.quota.policy_changed(shared.policies.book());
        }
        let settings = Arc::new(mesh_settings(&config));
        let mesh_args = MeshArgs {
            shared: Arc::clone(&shared),
            membership: Arc::clone(&membership),
            store: opened.store.clone(),
            settings: Arc::clone(&settings),
            line: mesh.clone(),
            clock: replay.as_ref().map_or_else(system_clock, |replay| replay.clock.clone()),
            replay: replay.as_ref().map(|replay| replay.detector.clone()),
        };
        let discovery_args = DiscoveryArgs {
            me: shared.me,
            listen: shared.endpoint.local_addr(),
            mdns: config.mdns,
            rendezvous: config.rendezvous.clone(),
            mesh: mesh.clone(),
        };
        membership.set_listen(discover::fixed_addresses(shared.endpoint.local_addr()));
        let children = vec![mesh_child(mesh_args), discover::child(discovery_args)];
        let control = Supervisor::start(children).await?;
        membership.addressed(ADDRESSES_WITHIN).await;
        let ingress = Ingress {
            shared: Arc::clone(&shared),
            membership: Arc::clone(&membership),
            mesh: mesh.clone(),
        };
        let admin = Admin {
            shared: Arc::clone(&shared),
            membership,
            engine: Arc::clone(&engine),
            store: opened.store.clone(),
            mesh,
            keys: Arc::default(),
            left: Arc::new(Mutex::new(false)),
        };
        let (ingress, _until_shutdown) = task::child("ingress", ingress.keep_reading(events));
        let mut surfaces = vec![Supervisor::start(vec![ingress]).await?];
        if replay.is_none() {
            surfaces.push(keep_budgets(&shared, &engine, orders).await?);
        }
        let gateway = Gateway { shared };
        let (store, replaying) = (opened.store, replay.is_some());
        Ok(Self { gateway, admin, settings, control, surfaces, store, replaying })
    }

    /// The way in for requests.
    pub fn gateway(&self) -> Gateway {
        self.gateway.clone()
    }

    /// The way in for operators.
    pub fn admin(&self) -> Admin {
        self.admin.clone()
    }

    /// Where the QUIC endpoint listens.
    pub fn quic_addr(&self) -> SocketAddr {
        self.gateway.shared.endpoint.local_addr()
    }

    /// Keeps a surface of this node running: when it fails it is started again with back-off.
    ///
    /// # Errors
    /// [`StartError::Actor`] when it cannot be started at all.
    pub async fn keep_running(
        &mut self,
        name: &'static str,
        run: Run,
    ) -> Result<Finished, StartError> {
        let (child, finished) = task::child(name, run);
        self.surfaces.push(Supervisor::start(vec![child]).await?);
        Ok(finished)
    }

    /// Tells the mesh where this node's HTTP surface is.
    pub fn announce_api(&self, api: SocketAddr) {
        *self.settings.api.write() = Some(api);
    }

    /// Stops the node: peers hear a good-bye, the store is closed last.
    pub async fn shutdown(self) {
        self.control.stop(None);
        self.gateway.shared.endpoint.shutdown().await;
        for supervisor in &self.surfaces {
            supervisor.stop(None);
        }
        self.gateway.shared.federation.stop();
        self.store.close().await;
    }
}

async fn open(home: &Path) -> Result<Opened, StartError> {
    let failed = |source| StartError::Home { path: home.to_owned(), source };
    std::fs::create_dir_all(home).map_err(failed)?;
    let identity = Arc::new(Identity::load_or_create(&home.join("node.key"))?);
    let path = home.join("state.redb");
    // It holds the secrets of open join codes: made before redb opens it, for its owner only.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
        .map_err(|source| StartError::Home { path: path.clone(), source })?;
    let store = Store::open(&path).await?;
    Ok(Opened { identity, store })
}

/// Who belongs, as the disk has it, and when the number of this start is on the disk.
async fn open_membership(
    opened: &Opened,
    config: &NodeConfig,
) -> Result<(Arc<Membership>, oneshot::Receiver<Result<(), StoreError>>), StartError> {
    let me = opened.identity.node_id();
    let roster = match load_roster(&opened.store)? {
        Some(snapshot) => Roster::from_snapshot(snapshot, me)?,
        None if config.create_mesh => create_mesh(opened, &config.home, &config.name).await?,
        None => return Err(StartError::NoMesh),
    };
    // A rotation of the root key that a crash cut short is finished before anything signs.
    custody::resume_rotation(&config.home, roster.root())?;
    let invites = opened.store.load::<Invites>(INVITES)?.unwrap_or_default();
    let incarnation = opened.store.load::<u64>(INCARNATION)?.unwrap_or(0) + 1;
    let mut batch = Batch::default();
    batch.put(INCARNATION, &incarnation)?;
    let numbered = opened.store.begin(batch)?;
    let (identity, store) = (Arc::clone(&opened.identity), opened.store.clone());
    let home = config.home.clone();
    let membership = Membership::new(identity, store, home, incarnation, roster, invites);
    Ok((Arc::new(membership), numbered))
}

/// A mesh of one: its root key, this node as its first steward and member.
async fn create_mesh(opened: &Opened, home: &Path, name: &str) -> Result<Roster, StartError> {
    check_name(name)?;
    let root = custody::create_root(&custody::root_key_path(home))?;
    let (mesh, me, wall) = (MeshId(root.public()), opened.identity.node_id(), clock::wall());
    let mut roster = Roster::new(mesh, me);
    roster.apply_steward(grant_steward(&Key(&root), mesh, 0, me, wall, STEWARD_LEASE))?;
    let own = roster.admit(&Key(&opened.identity), me, name, wall, DEFAULT_LEASE)?;
    roster.set_own(own, wall)?;
    save_roster(&opened.store, &roster.snapshot()).await?;
    Ok(roster)
}

/// The machine of the budgets with what the disk holds, and the orders it will give.
fn budgets(
    opened: &Opened,
    config: &NodeConfig,
    counters: &Arc<Counters>,
    replay: Option<&mut Replay>,
) -> Result<(QuotaLine, UnboundedReceiver<Order>), StartError> {
    if let Some(Replay { quota, clock, .. }) = replay
        && let Some(machine) = quota.take()
    {
        let stepper = Stepper::new(machine, Clock::clone(clock)).recording(1);
        return Ok(QuotaLine::new(stepper, opened.store.clone(), Arc::clone(counters)));
    }
    let clock = system_clock();
    let options = QuotaOptions { rollback_guard: config.rollback_guard, ..QuotaOptions::default() };
    let seal = Arc::new(NodeSeal::new(Arc::clone(&opened.identity)));
    let (me, stored) = (opened.identity.node_id(), quota::load(&opened.store)?);
    let machine = Quota::new(me, stored, seal, entropy::dice(), options, clock());
    let stepper = Stepper::new(machine, clock);
    Ok(QuotaLine::new(stepper, opened.store.clone(), Arc::clone(counters)))
}

/// Keeps running what carries out the orders of the budgets' machine, what spreads policies, what
/// tells peers which answers are kept and what this machine is, and the jobs of learning.
async fn keep_budgets(
    shared: &Arc<Shared>,
    engine: &Arc<LocalEngine>,
    orders: UnboundedReceiver<Order>,
) -> Result<ActorRef<SupervisorMessage>, StartError> {
    let run = quota::child(shared.quota.clone(), Arc::clone(&shared.endpoint), orders);
    let (quota, _until_shutdown) = task::child("budgets", run);
    let (policies, _until_shutdown) =
        task::child("policies", policy_sync::child(Arc::clone(shared)));
    let (answers, _until_shutdown) = task::child("answers", answers::child(Arc::clone(shared)));
    let (learning, _until_shutdown) = task::child("learning", federated::child(Arc::clone(shared)));
    let machine = hardware::child(Arc::clone(shared));
    let (machine, _until_shutdown) = task::child("machine", machine);
    let tuned = federated::serving(Arc::clone(shared), Arc::clone(engine));
    let (tuned, _until_shutdown) = task::child("tuned models", tuned);
    Ok(Supervisor::start(vec![quota, policies, answers, machine, learning, tuned]).await?)
}

/// The keys of this node alone.
async fn key_ring(store: &Store) -> Result<KeyRing, StoreError> {
    if let Some(ring) = store.load::<KeyRing>(KEYS)? {
        return Ok(ring);
    }
    // The pepper must outlive this start, or keys made later would open nothing.
    let ring = KeyRing::new(entropy::seed());
    store.save(KEYS, &ring).await?;
    Ok(ring)
}

/// What the disk has of a node's keys, policies, providers, routes and purges.
struct Loaded {
    keys: KeyRing,
    policies: Policies,
    providers: Arc<Providers>,
    routing: Routing,
    purges: Purges,
}

async fn load(
    opened: &Opened,
    config: &NodeConfig,
    membership: &Arc<Membership>,
) -> Result<Loaded, StartError> {
    let (identity, store) = (&opened.identity, &opened.store);
    let keys = key_ring(store).await?;
    let policies = Policies::load(
        Arc::clone(identity),
        Arc::clone(membership),
        store.clone(),
        config.home.clone(),
    )?;
    let providers = Arc::new(Providers::open(identity, store).await?);
    let place = Place {
        identity: Arc::clone(identity),
        membership: Arc::clone(membership),
        store: store.clone(),
        home: config.home.clone(),
    };
    let routing = Routing::load(place, Arc::clone(&providers))?;
    let purges = Purges::load(Arc::clone(identity), Arc::clone(membership), store.clone())?;
    Ok(Loaded { keys, policies, providers, routing, purges })
}

/// What runs already when the shared part is put together.
struct Parts {
    endpoint: Arc<Endpoint>,
    engine: Arc<LocalEngine>,
    mesh: MeshLine,
    quota: QuotaLine,
    counters: Arc<Counters>,
}

fn share(
    opened: &Opened,
    config: &NodeConfig,
    membership: &Arc<Membership>,
    loaded: Loaded,
    parts: Parts,
) -> Shared {
    let me: NodeId = opened.identity.node_id();
    let view = MeshView { me, mesh: Some(membership.mesh()), nodes: Vec::new() };
    let federation_endpoint = Arc::clone(&parts.endpoint);
    Shared {
        me,
        endpoint: parts.endpoint,
        engine: parts.engine as Arc<dyn Engine>,
        mesh: parts.mesh,
        view: ArcSwap::from_pointee(view),
        view_changed: watch::Sender::new(()),
        keys: ArcSwap::from_pointee(loaded.keys),
        receive: ReceivePolicy {
            site: config.site.clone(),
            tenants: config.serve_tenants.clone(),
            max_per_peer: config.max_handoffs_per_peer,
        },
        receipts: Mutex::default(),
        machines: Machines::new(Probe::here(config.engine.kernels())),
        identity: Arc::clone(&opened.identity),
        policies: Arc::new(loaded.policies),
        quota: parts.quota,
        counters: parts.counters,
        records: Records::default(),
        providers: loaded.providers,
        routing: Arc::new(loaded.routing),
        federation: Arc::new(Federation::new(FederationParts {
            identity: Arc::clone(&opened.identity),
            store: opened.store.clone(),
            endpoint: federation_endpoint,
            data: config.data.clone(),
            bases: config.bases.clone(),
        })),
        cache: config.cache.map(CacheLine::new),
        purges: Arc::new(loaded.purges),
        tracer: config.tracer.clone(),
        permits: Arc::new(Semaphore::new(config.max_requests)),
        preparing: Preparing::default(),
        sounds: Sounds::default(),
        in_flight: Tally::default(),
        serving: Tally::default(),
        unread: Mutex::default(),
        dice: Mutex::new(entropy::dice()),
    }
}

fn mesh_settings(config: &NodeConfig) -> MeshSettings {
    MeshSettings {
        name: config.name.clone(),
        site: config.site.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: RwLock::new(None),
        static_peers: config.static_peers.clone(),
    }
}

fn mesh_child(args: MeshArgs) -> Child {
    Child {
        name: "mesh",
        start: Arc::new(move |supervisor| {
            let args = args.clone();
            Box::pin(async move {
                let (actor, _) = Actor::spawn_linked(None, MeshActor, args, supervisor).await?;
                Ok(actor.get_cell())
            })
        }),
    }
}
