//! A member of a mesh of real nodes that says in rounds of learning whatever a test wants.
//!
//! It is let in by a join code, keeps its links and answers heartbeats as members do, by the
//! product's own machines: to the others it is a member, alive, with a name. What it says of a job
//! is the test's; what it hears of jobs waits to be read. It answers nothing else.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail};
use selvedge_base::codec::{self, LENGTH_BYTES, MAX_FRAME, TAG_BYTES};
use selvedge_base::{Machine as _, NodeId};
use selvedge_core::{FederatedWord, Opening};
use selvedge_federated::round::{Digest, Folded, Message, Refused};
use selvedge_net::{Endpoint, FrameReceiver, Link, NetEvent, clock, entropy};
use selvedge_proto::swim::{
    MAX_MESSAGE_BYTES, PROBE_PERIOD, Swim, SwimEffect, SwimInput, SwimMessage,
};
use serde::ser::{Serialize, SerializeTuple as _, Serializer};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::members::{Member, joined};
use crate::time::Deadline;

/// The priority of what is said of rounds, as nodes say it.
const PRIORITY: i32 = 0;

/// A member that lies.
#[derive(Debug)]
pub struct Liar {
    runtime: Runtime,
    endpoint: Endpoint,
    heard: mpsc::UnboundedReceiver<(NodeId, FederatedWord)>,
}

/// What an anchor answers to a contribution.
pub type Answer = Result<(), Refused>;

/// Bytes that are written as they are.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| bytes.serialize_element(byte))?;
        bytes.end()
    }
}

impl Liar {
    /// Joins a mesh on loopback by a code.
    ///
    /// # Errors
    /// When it is not let in.
    pub fn join(name: &str, code: &str) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let Member { endpoint, events } = runtime.block_on(joined(name, code, listen))?;
        let (tell, heard) = mpsc::unbounded_channel();
        runtime.spawn(live(endpoint.clone(), events, tell));
        Ok(Self { runtime, endpoint, heard })
    }

    /// Who it is.
    pub fn node(&self) -> NodeId {
        self.endpoint.node_id()
    }

    /// Links with a node.
    ///
    /// # Errors
    /// When the node cannot be reached or does not want it.
    pub fn meet(&self, node: NodeId, addr: SocketAddr) -> Result<()> {
        let met = self.runtime.block_on(self.endpoint.connect(node, &[addr]));
        met.map(drop).with_context(|| format!("{} at {addr}", node.short()))
    }

    /// Says something of a job, and waits until the node has it.
    ///
    /// # Errors
    /// When it does not come to the node.
    pub fn say(&self, to: NodeId, job: Digest, message: Message) -> Result<()> {
        let opening = Opening::Federated(Box::new(FederatedWord { job, message }));
        self.send(to, &opening)
    }

    /// Says what is cut short in the middle: the beginning of something that could be said.
    ///
    /// # Errors
    /// When it does not come to the node.
    pub fn stammer(&self, to: NodeId, job: Digest, message: Message) -> Result<()> {
        let opening = Opening::Federated(Box::new(FederatedWord { job, message }));
        let frame = codec::encode(&opening, MAX_FRAME)?;
        let said = frame.get(LENGTH_BYTES + TAG_BYTES..).unwrap_or_default();
        self.send(to, &Raw(&said[..said.len() / 2]))
    }

    /// Says bytes that mean nothing.
    ///
    /// # Errors
    /// When they do not come to the node.
    pub fn babble(&self, to: NodeId, bytes: &[u8]) -> Result<()> {
        self.send(to, &Raw(bytes))
    }

    fn send<T: Serialize + ?Sized>(&self, to: NodeId, what: &T) -> Result<()> {
        let link = self.endpoint.link(&to).with_context(|| format!("no link to {}", to.short()))?;
        self.runtime.block_on(async {
            let (mut sender, _no_answer) = link.open(PRIORITY).await?;
            sender.send(what).await?;
            sender.finish();
            sender.stopped().await;
            Ok(())
        })
    }

    /// The next of what nodes say of a job that a test can make something of.
    ///
    /// # Errors
    /// When nobody says such a thing in time.
    pub fn hear<T>(
        &mut self,
        (job, deadline): (Digest, Deadline),
        what: &str,
        mut wanted: impl FnMut(NodeId, Message) -> Option<T>,
    ) -> Result<T> {
        loop {
            let left = deadline.left().with_context(|| format!("nobody said {what}"))?;
            let heard = &mut self.heard;
            let next = async { tokio::time::timeout(left, heard.recv()).await };
            let next = self.runtime.block_on(next);
            let Some((from, word)) = next.with_context(|| format!("nobody said {what}"))? else {
                bail!("the links are gone before somebody said {what}");
            };
            if word.job == job
                && let Some(found) = wanted(from, word.message)
            {
                return Ok(found);
            }
        }
    }

    /// Sends each of these nodes a contribution of its own, and hears what each makes of it.
    ///
    /// # Errors
    /// When one of them does not answer in time.
    pub fn contribute(
        &mut self,
        job: Digest,
        shares: Vec<(NodeId, Message)>,
        deadline: Deadline,
    ) -> Result<BTreeMap<NodeId, Answer>> {
        let wanted = shares.len();
        for (to, share) in shares {
            self.say(to, job, share)?;
        }
        let mut answers = BTreeMap::new();
        self.hear((job, deadline), "whether it is refused", |from, message| {
            match message {
                Message::Receipt(_) => answers.insert(from, Ok(())),
                Message::Refused { why, .. } => answers.insert(from, Err(why)),
                _ => None,
            };
            (answers.len() == wanted).then_some(())
        })?;
        Ok(answers)
    }

    /// How a round that is over ended, by the word of a node.
    ///
    /// # Errors
    /// When the node does not say so in time.
    pub fn ask(&mut self, of: NodeId, job: Digest, round: u64) -> Result<Folded> {
        self.say(of, job, Message::Ask { round })?;
        let what = format!("how round {round} ended");
        self.hear((job, Deadline::patient()), &what, |_, message| match message {
            Message::Folded(folded) => Some(*folded),
            _ => None,
        })
    }
}

/// Lives as a member does, until its endpoint is gone.
async fn live(
    endpoint: Endpoint,
    mut events: mpsc::Receiver<NetEvent>,
    tell: mpsc::UnboundedSender<(NodeId, FederatedWord)>,
) {
    let mut swim = Swim::new(endpoint.node_id(), 1, entropy::dice());
    loop {
        let wake = swim.wake_at().map(|at| at.since(clock::mono()));
        let rest = wake.unwrap_or(PROBE_PERIOD).into();
        let inputs = match tokio::time::timeout(rest, events.recv()).await {
            Ok(Some(event)) => inputs_of(event, &tell),
            Ok(None) => return,
            Err(_elapsed) => vec![SwimInput::Ticked],
        };
        let mut effects = Vec::new();
        for input in inputs {
            swim.step(clock::now(), input, &mut effects);
        }
        for effect in effects {
            if let SwimEffect::Send { to, message } = effect
                && let Some(link) = endpoint.link(&to)
            {
                beat(&link, &message);
            }
        }
    }
}

/// What an event is to the failure detector; what is said of jobs is passed on.
fn inputs_of(
    event: NetEvent,
    tell: &mpsc::UnboundedSender<(NodeId, FederatedWord)>,
) -> Vec<SwimInput> {
    match event {
        NetEvent::LinkUp { link, hello, .. } => {
            let (node, incarnation) = (link.node(), hello.incarnation);
            vec![SwimInput::PeerIntroduced { node }, SwimInput::LinkUp { node, incarnation }]
        }
        NetEvent::LinkLost { node, .. } => vec![SwimInput::LinkLost { node }],
        NetEvent::Datagram { from, bytes } => {
            let message = codec::decode_body::<SwimMessage>(&bytes).ok();
            message.map(|message| SwimInput::Received { from, message }).into_iter().collect()
        }
        NetEvent::Stream { from, receiver, .. } => {
            tokio::spawn(listen(from, receiver, tell.clone()));
            Vec::new()
        }
        NetEvent::JoinAttempt { .. } => Vec::new(),
    }
}

async fn listen(
    from: NodeId,
    mut receiver: FrameReceiver,
    tell: mpsc::UnboundedSender<(NodeId, FederatedWord)>,
) {
    if let Ok(Some(Opening::Federated(word))) = receiver.recv::<Opening>().await {
        // Nobody reads on once the test is over.
        let _over = tell.send((from, *word));
    }
}

/// A heartbeat; what is lost is said again.
fn beat(link: &Link, message: &SwimMessage) {
    if let Ok(bytes) = codec::encode_datagram_at(link.version(), message, MAX_MESSAGE_BYTES) {
        let _lost = link.datagram(&bytes);
    }
}
