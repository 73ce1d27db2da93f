//! `selvedge up`: one node, from start to stop.
//!
//! Owns the order in which a node's parts come up and go down, what is printed on the way (scripts
//! read the `ready` line), and signals. The parts themselves are the runtime's and `http`'s.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use selvedge_base::{Micros, ModelDigest};
use selvedge_engine::{EngineConfig, Keeping, Rendering, Running};
use selvedge_net::entropy;
use selvedge_proto::join::JoinCode;
use selvedge_proto::records::fingerprint_text;
use selvedge_runtime::{BaseModel, Node, NodeConfig, StartError, custody};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::bridge::Bridge;
use crate::cli;
use crate::config::{Config, data_problems};
use crate::home::Home;
use crate::http::{self, AdminToken, Settings, Stop};
use crate::pull::{Store, Stored, file_digest};
use crate::rest;
use crate::telemetry::{Last, Telemetry, Who};
use crate::ui::{self, Ink, paint};
use crate::unserved::Unserved;
use crate::variants::{Decided, Means, decide};

/// How long the code printed at the first start is good for: time to walk to the other machines.
const FIRST_INVITE: Micros = Micros::secs(3_600);
/// Time for peers to hear a good-bye and the store to close, after the HTTP surface has ended; with
/// the surface's own grace it keeps the whole stop below 2 s.
const CLOSING: std::time::Duration = std::time::Duration::from_millis(600);

/// Connections beyond those with a request: what clients keep open for their next one.
const RESTING: usize = 512;
/// Descriptors besides those of clients and providers: the store, models, peers, what is accepted
/// while others close.
const OTHER_FILES: u64 = 256;
/// Descriptors of a thread that serves connections: its runtime waits at two, is woken by one and
/// hears of signals by one.
const WORKER_FILES: u64 = 4;

/// A stop that hangs must not keep an orphan alive: twice the time any stop takes.
const ORPHAN: std::time::Duration = std::time::Duration::from_secs(4);

/// A model to serve.
struct Served {
    name: String,
    path: std::path::PathBuf,
    digest: ModelDigest,
}

/// Runs a node until it is told to stop.
pub(crate) async fn up(home: &Home, config: &Config, options: &cli::Up) -> Result<()> {
    raise_descriptors(config.api.max_requests);
    let stop = Stop::new();
    // Before anything takes time: a signal during the start must not be lost.
    watch_signals(stop.clone())?;
    if options.exit_with_parent {
        watch_stdin(stop.clone());
    }
    let running = home.occupy()?;
    let (bytes, reason) = (config.budget.bytes, &config.budget.reason);
    tracing::info!(bytes, reason, "memory for models");
    let started = tokio::select! {
        started = begin(home, config, options, &stop) => started?,
        // Joining may wait for another node; whoever stops this one meanwhile need not.
        () = stop.requested() => return Ok(()),
    };
    let Started { mut node, listener, bridge, telemetry, greeting } = started;
    let last = keep_telling(&mut node, config, telemetry).await?;
    let token = fresh_token();
    let api = listener.local_addr()?;
    let settings = settings(config, &token);
    let stopping = stop.clone();
    let surface = http::lasting(listener, bridge, settings, stop)?;
    let mut surface = node.keep_running("http", surface).await?;
    node.keep_running("rest", rest::watching()).await?;
    let greeted = tokio::select! {
        greeted = greeting => {
            greeted.context("telling how to use the node failed")?;
            true
        }
        // A slow disk, which the invitation waits for, must not hold up a stop.
        () = stopping.requested() => false,
    };
    if greeted {
        running.announce(&api.to_string(), &token)?;
        ui::out(format_args!(
            "ready api=http://{api} quic={} node={}",
            node.quic_addr(),
            node.gateway().view().me
        ));
    }
    surface.wait().await;
    // The commands of this home must not find a node that answers no more.
    drop(running);
    if let Some(last) = last {
        last.flush().await;
    }
    if timeout(CLOSING, node.shutdown()).await.is_err() {
        tracing::warn!("peers were not all told of the stop");
    }
    Ok(())
}

/// A node that is up but not yet reachable over HTTP.
struct Started {
    node: Node,
    listener: TcpListener,
    bridge: Arc<Bridge>,
    telemetry: Option<Telemetry>,
    /// Ends when a person was told what they want to know.
    greeting: JoinHandle<()>,
}

async fn begin(home: &Home, config: &Config, options: &cli::Up, stop: &Stop) -> Result<Started> {
    // Reading large files takes a while, in which this thread must hear of a signal.
    let (store, named) = (Store::of(home), options.model.clone());
    let unserved = Unserved::default();
    let (noting, wanted, place) = (unserved.clone(), config.clone(), home.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let decided = decided(&store, &wanted);
        let models = models_to_serve(&store, &named, &decided, &noting)?;
        sweep(&store, (&models, named.is_empty()), &wanted, &place);
        let variants = decided.iter().map(Decided::told).collect::<Vec<_>>();
        Ok::<_, anyhow::Error>((models, variants))
    });
    let (models, variants) = reading.await.context("reading the models failed")??;
    let listener = listen(config.api.listen).await?;
    let api = listener.local_addr()?;
    let first = !home.path().join("state.redb").exists() && options.join.is_none();
    let telemetry = match config.telemetry.clone() {
        Some(config) => {
            let opening = tokio::task::spawn_blocking(move || Telemetry::new(config));
            Some(opening.await.context("opening telemetry failed")??)
        }
        None => None,
    };
    let node = start(home, config, options, telemetry.as_ref(), &models).await?;
    let data = config.data.clone();
    // Beside the rest of the start: a disk that is slow to answer keeps no request waiting.
    tokio::task::spawn_blocking(move || {
        for why in data_problems(&data) {
            tracing::warn!(why, "data of this node cannot be trained on as they are");
        }
    });
    let (gateway, admin) = (node.gateway(), node.admin());
    let variants = variants.into();
    let bridge = Arc::new(Bridge { gateway, admin, stop: stop.clone(), unserved, variants });
    node.announce_api(api);
    let served = add_models(&bridge, &models).await;
    // Its invitation waits for the disk, which need not keep requests waiting.
    let greeting = tokio::spawn({
        let (home, bridge, served) = (home.clone(), Arc::clone(&bridge), served.clone());
        async move { say_hello(&home, &bridge, api, &served, first).await }
    });
    // So that `ready` means that requests find the models.
    for name in &served {
        bridge.until_served(name, true).await;
    }
    Ok(Started { node, listener, bridge, telemetry, greeting })
}

/// Begins to tell a collector of requests, if there is one.
async fn keep_telling(
    node: &mut Node,
    config: &Config,
    telemetry: Option<Telemetry>,
) -> Result<Option<Last>> {
    let Some(telemetry) = telemetry else { return Ok(None) };
    let id = node.gateway().view().me.to_string();
    let who = Who { id, name: &config.name, site: &config.site };
    let (run, last) = telemetry.sending(&who)?;
    node.keep_running("telemetry", run).await?;
    Ok(Some(last))
}

async fn start(
    home: &Home,
    config: &Config,
    options: &cli::Up,
    telemetry: Option<&Telemetry>,
    models: &[Served],
) -> Result<Node> {
    // Their bytes were just compared with their digests; of those that were named, their lengths.
    let bases = models.iter().map(|model| {
        let (name, path) = (model.name.clone(), model.path.clone());
        BaseModel { name, path, digest: model.digest.0 }
    });
    let bases = bases.collect();
    let node = NodeConfig {
        home: home.path().to_owned(),
        name: config.name.clone(),
        site: config.site.clone(),
        listen: config.mesh.listen,
        static_peers: config.mesh.peers.clone(),
        rendezvous: config.mesh.rendezvous.clone(),
        mdns: config.mesh.mdns,
        engine: EngineConfig {
            rendering: rendering()?,
            running: running()?,
            keeping: config.packed.keeping(home),
            ..config.engine.clone()
        },
        max_requests: config.api.max_requests,
        max_handoffs_per_peer: config.mesh.max_handoffs_per_peer,
        serve_tenants: config.mesh.serve_tenants.clone(),
        rollback_guard: config.rollback_guard,
        cache: config.cache,
        tracer: telemetry.map(Telemetry::tracer),
        data: config.data.clone(),
        bases,
        create_mesh: true,
    };
    if let Some(code) = &options.join {
        let code: JoinCode = code.trim().parse().context(
            "the join code is not right; make a new one with `selvedge mesh invite` on a node of \
             the mesh",
        )?;
        join(&node, &code).await?;
    }
    Ok(Node::start(node).await?)
}

/// Joins the mesh of a code. A home that is in it already goes on: whoever repeats a line whose
/// first try failed after the join wants the node to run.
async fn join(node: &NodeConfig, code: &JoinCode) -> Result<()> {
    match Node::join(node, code).await {
        Ok(mesh) => ui::out(format_args!("joined mesh {}", fingerprint_text(&mesh))),
        Err(StartError::Joined(mesh)) => ui::note(format_args!(
            "this home belongs to mesh {mesh} already, which the code is for: it starts without \
             --join, and the code is not used. If the node was put out, `selvedge mesh leave` first"
        )),
        Err(error @ StartError::Join(_)) => {
            return Err(anyhow!(error).context(
                "could not join; a code works once and for a limited time: `selvedge mesh invite` \
                 makes another",
            ));
        }
        Err(error) => return Err(anyhow!(error)),
    }
    Ok(())
}

/// Chat templates come with models, from anybody: each runs in a process of its own.
fn rendering() -> Result<Rendering> {
    Ok(Rendering::Apart { program: myself()?, arguments: vec!["render-template".into()] })
}

/// So do ONNX models, and each runs in a process of its own too.
fn running() -> Result<Running> {
    Ok(Running::Apart { program: myself()?, arguments: vec!["run-onnx".into()] })
}

/// This very program, even where another one has taken its place on disk.
fn myself() -> Result<PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok("/proc/self/exe".into()),
        false => std::env::current_exe().context("this program cannot find itself"),
    }
}

/// Which file of each model that has several suits this machine.
fn decided(store: &Store, config: &Config) -> Vec<Decided> {
    if config.variants.is_empty() {
        return Vec::new();
    }
    let decided = decide(store, &config.variants, &Means::here(config));
    for one in &decided {
        let (model, reason) = (&one.name, &one.chosen.reason);
        let file = one.file().map_or("none", |found| found.listed.as_str());
        tracing::info!(model, file, reason, "a variant was chosen");
    }
    decided
}

/// The models named on the command line, or all in the home, and what was decided for those with
/// several files. What is named must exist.
fn models_to_serve(
    store: &Store,
    named: &[String],
    decided: &[Decided],
    unserved: &Unserved,
) -> Result<Vec<Served>> {
    if !named.is_empty() {
        let each = named.iter().map(|text| match decided.iter().find(|one| one.name == *text) {
            Some(one) => chosen_to_serve(store, one),
            None => model_to_serve(store, text),
        });
        return each.collect();
    }
    let files = || decided.iter().flat_map(|one| &one.files);
    let is_variant = |name: &str| files().any(|found| found.stored.as_deref() == Some(name));
    let is_taken = |name: &str| decided.iter().any(|one| one.name == name);
    let mut models = Vec::new();
    for model in store.list()? {
        if is_taken(&model.name) {
            ui::warn(format_args!(
                "the model '{0}' of this home is not served: [[model]] '{0}' in the configuration \
                 has its name; give that another one, or list this one among its variants under \
                 another name",
                model.name
            ));
        } else if !is_variant(&model.name) {
            models.extend(intact(model, unserved));
        }
    }
    for one in decided {
        match chosen_to_serve(store, one) {
            Ok(served) => models.push(served),
            Err(error) => {
                unserved.note(&one.name, &format!("{error:#}"));
                ui::warn(format_args!("the model '{}' is not served: {error:#}", one.name));
            }
        }
    }
    Ok(models)
}

/// Removes packed copies of models that are neither in the home nor served, where all of the home
/// are looked at, and all copies in the home if none are kept there. In a directory of its own
/// choice other nodes may have theirs, and nothing is removed.
fn sweep(store: &Store, (served, all): (&[Served], bool), config: &Config, home: &Home) {
    let kept_here = config.packed.max_bytes > 0 && config.packed.directory.is_none();
    if kept_here && !all {
        return;
    }
    let mut known = BTreeSet::new();
    if kept_here {
        // What cannot be listed is not known to be gone.
        let Ok(stored) = store.list() else { return };
        known.extend(stored.iter().map(|model| model.digest));
        known.extend(served.iter().map(|model| model.digest));
    }
    let keeping = Keeping { directory: home.packed(), max_bytes: config.packed.max_bytes };
    let removed = keeping.sweep(&known);
    if removed > 0 {
        tracing::info!(removed, "packed copies that nothing needs any more were removed");
    }
}

/// The file that was chosen, if its bytes are those that were pulled.
fn chosen_to_serve(store: &Store, decided: &Decided) -> Result<Served> {
    let name = decided.name.clone();
    let Some(found) = decided.file() else {
        bail!(
            "{}; `selvedge models list` says what each of its files needs",
            decided.chosen.reason
        );
    };
    if let Some(stored) = &found.stored {
        let model = model_to_serve(store, stored)?;
        if file_digest(&model.path)?.1 != model.digest {
            bail!(
                "the bytes of {stored} are not those that were pulled; fetch it again with \
                 `selvedge models pull`"
            );
        }
        return Ok(Served { name, ..model });
    }
    let path = found.path.clone().context("the chosen file is not here")?;
    let (_, digest) = file_digest(&path)?;
    Ok(Served { name, path, digest })
}

/// A stored model whose bytes are still those that were pulled; nothing else is loaded.
fn intact(model: Stored, unserved: &Unserved) -> Option<Served> {
    let Stored { name, path, digest, .. } = model;
    let why = match file_digest(&path) {
        Ok((_, found)) if found == digest => return Some(Served { name, path, digest }),
        Ok(_) => "its bytes are not those that were pulled; fetch it again with `selvedge models \
                  pull`"
            .to_owned(),
        Err(error) => error.to_string(),
    };
    ui::warn(format_args!("the model '{name}' is not served: {why}"));
    unserved.note(&name, &why);
    None
}

fn model_to_serve(store: &Store, text: &str) -> Result<Served> {
    if text.contains('/') || text.ends_with(".gguf") || text.ends_with(".onnx") {
        let path = std::path::absolute(text)?;
        let (name, digest) = file_digest(&path)?;
        return Ok(Served { name, path, digest });
    }
    let found = store.find(text)?.ok_or_else(|| {
        anyhow!(
            "no model is called '{text}' in this home; `selvedge models list` lists them, \
             `selvedge models pull` fetches one"
        )
    })?;
    Ok(Served { name: found.name, path: found.path, digest: found.digest })
}

/// Adds the models; one that cannot be used is reported and does not keep the node from serving.
async fn add_models(bridge: &Bridge, models: &[Served]) -> Vec<String> {
    let mut served = Vec::new();
    for model in models {
        match bridge.admin.model_add(&model.path, &model.name, model.digest).await {
            Ok(card) => served.push(card.name),
            Err(refusal) => {
                bridge.unserved.note(&model.name, &refusal.message);
                ui::warn(format_args!(
                    "the model '{}' cannot be used: {}",
                    model.name, refusal.message
                ));
            }
        }
    }
    served
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for the API; choose another address with --api ADDR")
    })
}

fn settings(config: &Config, token: &str) -> Settings {
    Settings {
        hosts: config.api.allowed_hosts.clone(),
        admin_token: Some(AdminToken::new(token)),
        body_limit: config.api.max_body_bytes,
        deadline: Micros(u64::try_from(config.api.request_timeout.as_micros()).unwrap_or(u64::MAX)),
        connections: config.api.max_requests.saturating_add(RESTING),
        workers: workers(),
        ..Settings::default()
    }
}

/// Threads that serve connections: one for each core that this process may use.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Lets the process open as many sockets as its requests may need, one to the client and one to a
/// provider each; as far as the machine allows, which a connection too many is told then.
fn raise_descriptors(requests: usize) {
    let sockets = u64::try_from(requests.saturating_mul(2).saturating_add(RESTING));
    let others = OTHER_FILES.saturating_add(WORKER_FILES.saturating_mul(workers() as u64));
    let wanted = sockets.unwrap_or(u64::MAX).saturating_add(others);
    let limits = getrlimit(Resource::Nofile);
    let allowed = limits.maximum.map_or(wanted, |most| most.min(wanted));
    if limits.current.is_some_and(|now| now < allowed) {
        let raised = Rlimit { current: Some(allowed), maximum: limits.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, allowed, "the limit of open files stays as it is");
        }
    }
}

/// 256 random bits, new at every start.
fn fresh_token() -> String {
    ModelDigest(entropy::seed()).to_string()
}

/// What a person wants to know of a node that has just started.
async fn say_hello(home: &Home, bridge: &Bridge, api: SocketAddr, models: &[String], first: bool) {
    let label = |text: &str| paint(Ink::Dim, format_args!("{text:<8}"));
    let line = |name: &str, text: &str, advice: &str| {
        ui::out(
            format_args!("{}{text}  {}", label(name), paint(Ink::Dim, advice))
                .to_string()
                .trim_end(),
        );
    };
    ui::out(format_args!("{} {}", paint(Ink::Bold, "selvedge"), env!("CARGO_PKG_VERSION")));
    line("home", &home.path().display().to_string(), "");
    let key = if api.ip().is_loopback() {
        "OpenAI-compatible; from this machine no key is needed"
    } else {
        "OpenAI-compatible; clients need a key: selvedge key create NAME"
    };
    line("api", &format!("http://{api}/v1"), key);
    line("mesh", &bridge.admin.fingerprint(), "");
    match models {
        [] => line("models", "none yet", "in another terminal: selvedge models pull"),
        models => line("models", &models.join(", "), ""),
    }
    line("join", &how_to_join(bridge, first).await, "");
    let root = custody::root_key_path(home.path());
    if first && root.exists() {
        let advice = "back it up: selvedge mesh root export FILE";
        line("root", &root.display().to_string(), advice);
    }
}

/// The line to type on the next machine, as long as there is no other one.
async fn how_to_join(bridge: &Bridge, first: bool) -> String {
    let members = bridge.admin.members();
    let alone = members.iter().filter(|member| !member.revoked).count() < 2;
    let steward = members.iter().any(|member| member.me && member.steward);
    if (first || (alone && steward))
        && let Ok(code) = bridge.admin.invite(FIRST_INVITE).await
    {
        return format!("on the next machine: selvedge up --join {code}");
    }
    "selvedge mesh invite, on a steward of the mesh, admits more machines".to_owned()
}

fn watch_signals(stop: Stop) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.request();
        // Whoever asks twice does not want to wait.
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(())
}

/// Stops when standard input closes: whoever holds its other end is gone.
fn watch_stdin(stop: Stop) {
    tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        let mut ignored = [0; 64];
        while matches!(stdin.read(&mut ignored).await, Ok(read) if read > 0) {}
        stop.request();
        tokio::time::sleep(ORPHAN).await;
        std::process::exit(1);
    });
}
