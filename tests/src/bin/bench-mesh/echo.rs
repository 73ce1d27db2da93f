//! A handed-off request that asks for nothing, against the bare transport.
//!
//! Owns the rounds: the three sides take turns in one process run, so that a busy machine hits all
//! of them alike. Client and server run on threads of their own, one runtime each, and share one
//! core: across cores the time to wake a sleeping core would be most of what is measured, on
//! virtual machines many times the request itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use selvedge_base::NodeId;
use selvedge_net::{Link, NetEvent};
use selvedge_proto::wire::Opening;
use selvedge_tests::figures::Figures;
use selvedge_tests::members::{Clique, Member};
use selvedge_tests::time::{self, Stopwatch};

use crate::bare::{Quinn, Tls};
use selvedge_tests::report::Report;

/// Turns each side takes.
const ROUNDS: usize = 8;
/// Requests in a turn: at 10 to 30 µs each a turn is short enough for load to hit all sides.
const REQUESTS: usize = 3_000;
/// Requests in flight of the throughput figure, as many as one peer may hand over.
const FLIGHT: usize = 64;
/// The core of client and server: the first one, which every machine has.
const CORE: usize = 0;
/// The hand-off may cost this many times the bare request.
const RATIO: f64 = 1.5;

#[derive(Default)]
struct Side {
    times: Figures,
    cpu: Duration,
}

/// Measures and notes all three sides.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    // On a thread of its own: the threads it starts share its core, what comes later does not.
    let measured = thread::scope(|scope| {
        let pinned = scope.spawn(|| {
            let mut one = CpuSet::new();
            one.set(CORE);
            sched_setaffinity(None, &one).context("cannot stay on one core")?;
            measure_here(report)
        });
        pinned.join()
    });
    measured.map_err(|_| anyhow!("the measuring thread panicked"))?
}

fn measure_here(report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut ours, mut bare, mut tcp) = (Side::default(), Side::default(), Side::default());
    let (ours_busy, bare_busy) = runtime.block_on(async {
        let (_member, link) = hand_off_pair().await?;
        let quinn = Quinn::start().await?;
        let mut tls = Tls::start()?;
        for round in 0..=ROUNDS {
            let mut turn = (Side::default(), Side::default(), Side::default());
            take_turn(&mut turn.0, async || hand_off(&link).await).await?;
            take_turn(&mut turn.1, async || quinn.request().await).await?;
            take_turn(&mut turn.2, async || tls.request()).await?;
            // The first round warms up.
            if round > 0 {
                ours.add(turn.0);
                bare.add(turn.1);
                tcp.add(turn.2);
            }
        }
        let ours = throughput(async || hand_off(&link).await).await?;
        let bare = throughput(async || quinn.request().await).await?;
        anyhow::Ok((ours, bare))
    })?;
    report.micros("handoff", &ours.times, ours.cpu);
    report.micros("bare_quinn", &bare.times, bare.cpu);
    report.micros("tcp_tls", &tcp.times, tcp.cpu);
    let ratio = |figure: &str| {
        report.value(&format!("handoff_{figure}")) / report.value(&format!("bare_quinn_{figure}"))
    };
    let (p50, cpu) = (ratio("p50_us"), ratio("cpu_us"));
    report.note("handoff_to_bare_p50", p50, Some(RATIO));
    report.note("handoff_to_bare_cpu", cpu, Some(RATIO));
    report.note("handoff_64_in_flight_per_s", ours_busy, None);
    report.note("bare_quinn_64_in_flight_per_s", bare_busy, None);
    Ok(())
}

impl Side {
    fn add(&mut self, turn: Self) {
        self.times.extend(turn.times);
        self.cpu += turn.cpu;
    }
}

async fn take_turn(side: &mut Side, mut request: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let before = time::cpu_time();
    for _ in 0..REQUESTS {
        let begun = Stopwatch::start();
        request().await?;
        side.times.push(begun.elapsed());
    }
    side.cpu = time::cpu_time().saturating_sub(before);
    Ok(())
}

/// Requests per second with many in flight.
async fn throughput(request: impl AsyncFn() -> Result<()>) -> Result<f64> {
    let each = REQUESTS * 4 / FLIGHT;
    let begun = Stopwatch::start();
    let lane = async || {
        for _ in 0..each {
            request().await?;
        }
        anyhow::Ok(())
    };
    let lanes: Vec<_> = (0..FLIGHT).map(|_| lane()).collect();
    for done in futures::future::join_all(lanes).await {
        done?;
    }
    Ok((each * FLIGHT) as f64 / begun.elapsed().as_secs_f64())
}

/// A member here, linked to one that answers on a thread of its own.
async fn hand_off_pair() -> Result<(Member, Link)> {
    let clique = Clique::default();
    let nowhere: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let member = clique.member("asks", nowhere).await?;
    let (sender, served) = std::sync::mpsc::channel();
    thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let server = clique.member("answers", nowhere).await?;
            sender.send((server.endpoint.node_id(), server.endpoint.local_addr()))?;
            answer(server).await
        })
    });
    let (node, addr): (NodeId, SocketAddr) = served.recv().context("the server did not start")?;
    let link = member.endpoint.connect(node, &[addr]).await?;
    Ok((member, link))
}

async fn answer(mut server: Member) -> Result<()> {
    while let Some(event) = server.events.recv().await {
        if let NetEvent::Stream { mut sender, mut receiver, .. } = event {
            tokio::spawn(async move {
                let opening: Option<Opening<()>> = receiver.recv().await.ok()?;
                matches!(opening, Some(Opening::Echo)).then_some(())?;
                sender.send(&()).await.ok()?;
                sender.finish();
                Some(())
            });
        }
    }
    Ok(())
}

async fn hand_off(link: &Link) -> Result<()> {
    let (mut sender, mut receiver) = link.open(0).await?;
    sender.send(&Opening::<()>::Echo).await?;
    sender.finish();
    let answer: Option<()> = receiver.recv().await?;
    ensure!(answer.is_some(), "no answer to a hand-off");
    Ok(())
}
