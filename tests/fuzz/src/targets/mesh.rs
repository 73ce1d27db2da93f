//! What nodes of a mesh say to each other, and what a node reads back from its disk.
//!
//! Holds: what is read is no larger than its bytes, and written again it is read as the same;
//! records of others change nothing without a signature that holds.

use std::fmt::Debug;
use std::net::SocketAddr;

use ed25519_dalek::SigningKey;
use selvedge_base::codec::{self, MAX_FRAME, VERSION};
use selvedge_base::{
    Blame, Code, MeshId, Micros, ModelDigest, NodeId, Refusal, RequestId, Retry, TraceContext,
};
use selvedge_base::{Mono, Stage, Wall};
use selvedge_contract::hardware::{Condition, Hardware, Machine};
use selvedge_contract::request::{Answer, Details, Further, GenerateRequest, Input, Sampling};
use selvedge_core::cache::{Key, Near, Peers, Scope};
use selvedge_core::quota::{QuotaDigest, QuotaHeader, QuotaMessage, QuotaStored, StoredRow};
use selvedge_core::{
    Charged, Detailed, FitsWord, HandOff, HandOffReply, NodeRow, Opening, PolicyWord, Traced,
};
use selvedge_crdt::escrow::Holder;
use selvedge_crdt::{Row, RowMap, Stamp};
use selvedge_federated::fits::{Fit, FitsReply, Misfit};
use selvedge_proto::answers::{
    AnswersReply, AnswersWord, Ask, Digests, Held, KeptInBrief, PurgeBook, sign_purge,
};
use selvedge_proto::join::JoinMessage;
use selvedge_proto::policy::{PolicyBook, PolicyMessage, PolicySnapshot};
use selvedge_proto::records::{Credential, Roster, RosterSnapshot, Signer};
use selvedge_proto::records::{grant_membership, grant_steward, revoke};
use selvedge_proto::seal::sign_row;
use selvedge_proto::swim::{Beat, SwimMessage};
use selvedge_proto::sync::{MAX_ROWS, SyncDelta, SyncMessage};
use selvedge_proto::wire::{Hello, HelloReply, Knock, KnockReply, Label, Receipt, RenewReply};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Target, none};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "mesh.frames",
        holds: "no larger than its bytes; written again, it is read as the same",
        check: check_frames,
        shares: &[],
        seeds: frames,
        words: &["10.0.0.1"],
    },
    Target {
        name: "mesh.records",
        holds: "without a signature that holds, nothing changes",
        check: check_records,
        shares: &[],
        seeds: frames,
        words: &[],
    },
    Target {
        name: "mesh.length",
        holds: "a length over the limit is refused",
        check: check_length,
        shares: &[],
        seeds: none,
        words: &[],
    },
    Target {
        name: "disk.records",
        holds: "no larger than its bytes; a damaged record is refused or changes nothing",
        check: check_disk,
        shares: &[],
        seeds: disk,
        words: &[],
    },
];

fn check_length(input: &[u8]) {
    let Some(header) = input.first_chunk() else { return };
    for limit in [2, 1_200, MAX_FRAME, usize::MAX] {
        if let Ok(length) = codec::body_length(*header, limit) {
            assert!(length <= limit.min(MAX_FRAME));
        }
    }
}

/// Every kind of message and datagram, since bytes do not say which they are.
fn check_frames(body: &[u8]) {
    frame::<Knock>(body);
    frame::<KnockReply>(body);
    frame::<Hello>(body);
    frame::<HelloReply>(body);
    frame::<Opening>(body);
    frame::<HandOffReply>(body);
    frame::<RenewReply>(body);
    frame::<AnswersReply>(body);
    frame::<FitsReply>(body);
    frame::<JoinMessage>(body);
    frame::<SwimMessage>(body);
    frame::<SyncMessage>(body);
    frame::<NodeRow>(body);
}

pub(super) fn frame<T: Serialize + DeserializeOwned>(body: &[u8]) {
    let Ok(value) = codec::decode_body::<T>(body) else { return };
    let written = codec::encode_datagram_at(body[0], &value, MAX_FRAME)
        .unwrap_or_else(|error| panic!("read, but not written: {error}"));
    assert!(written.len() <= body.len(), "{} bytes from {}", written.len(), body.len());
    let again = codec::decode_body::<T>(&written)
        .unwrap_or_else(|error| panic!("written, but not read: {error}"));
    let again = codec::encode_datagram_at(body[0], &again, MAX_FRAME);
    assert_eq!(again, Ok(written), "written again, it is another");
}

/// When all of these things happen.
const NOW: Wall = Wall(1_700_000_000_000_000);

fn key(name: u8) -> SigningKey {
    SigningKey::from_bytes(&[name; 32])
}

fn node(name: u8) -> NodeId {
    NodeId(key(name).public())
}

fn mesh() -> MeshId {
    MeshId(key(1).public())
}

fn credential() -> Credential {
    let lease = Micros::secs(86_400);
    let steward = grant_steward(&key(1), mesh(), 0, node(2), NOW, lease);
    grant_membership(&key(2), &steward, &[], node(3), "kiln", NOW, lease)
        .unwrap_or_else(|error| panic!("a member: {error}"))
}

fn roster() -> Roster {
    let mut roster = Roster::new(mesh(), node(3));
    roster.set_own(credential(), NOW).unwrap_or_else(|error| panic!("a credential: {error}"));
    roster
}

fn row() -> Row {
    let stamp = Stamp { incarnation: 1, seq: 2 };
    let value = NodeRow { name: "kiln".into(), site: "shed".into(), ..NodeRow::default() };
    sign_row(&key(3), stamp, &value).unwrap_or_else(|error| panic!("a row: {error}"))
}

/// Hands what a peer says of answers to the machines that heed it.
fn check_answers(word: AnswersWord) {
    match word {
        AnswersWord::Purges(lines) => {
            let mut book = PurgeBook::new(mesh());
            book.take(lines.clone());
            let kept = book.lines();
            assert!(kept.iter().all(|line| lines.contains(line)), "an invented purge");
            assert!(kept.iter().all(|line| line.check_signature().is_ok()), "an unsigned purge");
            assert!(!book.take(lines).is_new, "taken twice, it is another");
        }
        AnswersWord::Kept(told) => {
            let mut peers = Peers::new();
            peers.heard(node(4), *told);
            let near = Near { node: node(4), same_site: true, rtt: None };
            let whom = |label| peers.whom(Mono(0), &Key([7; 32]), label, &[near]);
            assert!(whom(Label::Mesh).len() <= 1 && whom(Label::Node).is_empty());
        }
        AnswersWord::Brief(_) | AnswersWord::Ask(_) => {}
    }
}

/// Hands the records of a message to the machines that keep them.
fn check_records(body: &[u8]) {
    let mut roster = roster();
    let delta = match codec::decode_body::<SyncMessage>(body) {
        Ok(SyncMessage::Delta(delta)) => Some(delta),
        _ => None,
    };
    if let Some(delta) = delta {
        let mut rows = RowMap::new(MAX_ROWS);
        selvedge_proto::sync::apply(&mut rows, &mut roster, delta.clone(), NOW);
        for row in rows.iter() {
            assert!(delta.rows.contains(row), "an invented row");
            assert!(selvedge_proto::seal::verify_row(row), "a row that nobody signed");
        }
        let once = (rows.iter().cloned().collect::<Vec<_>>(), roster.snapshot());
        selvedge_proto::sync::apply(&mut rows, &mut roster, delta, NOW);
        let twice = (rows.iter().cloned().collect::<Vec<_>>(), roster.snapshot());
        assert_eq!(twice, once, "taken twice, it is another");
    }
    if let Ok(Opening::Policy(word)) = codec::decode_body::<Opening>(body) {
        let mut book = PolicyBook::new(mesh(), node(3));
        if let Some(answer) = book.answer(&word.message, 1) {
            assert!(codec::encode(&answer, MAX_FRAME).is_ok());
        }
        if let PolicyMessage::Delta(delta) = word.message {
            book.apply(*delta, &roster, NOW);
        }
    }
    if let Ok(Opening::Answers(word)) = codec::decode_body::<Opening>(body) {
        check_answers(*word);
    }
    if let Ok(Opening::Machine(machine)) = codec::decode_body::<Opening>(body)
        && let Some(taken) = machine.received()
    {
        let texts = [&taken.made.os, &taken.made.processor, &taken.made.kernels];
        let plain = |text: &&String| text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        assert!(texts.iter().all(plain), "what a terminal would obey: {taken:?}");
        assert_eq!(taken.clone().received(), Some(taken), "taken twice, it is another");
    }
    if let Ok(Opening::Charged(charged)) = codec::decode_body::<Opening>(body) {
        drop(charged.receipt.check());
    }
    if let Ok(Opening::Traced(traced)) = codec::decode_body::<Opening>(body)
        && traced.trace.is_within_bounds()
    {
        let (parent, state) = (traced.trace.parent_text(), traced.trace.state_text());
        let again = TraceContext::parse(parent.as_bytes(), [state.as_bytes()]);
        assert_eq!(again.as_ref(), Some(&traced.trace));
    }
    if let Ok(credential) = codec::decode_body::<Credential>(body) {
        let holds = credential.verify(mesh(), node(3), NOW).is_ok();
        roster.learn(&credential);
        assert!(!holds || credential.membership == self::credential().membership);
    }
}

/// The name of this version byte is `RECORD_VERSION` in the store.
fn check_disk(input: &[u8]) {
    if let Some(snapshot) = stored::<RosterSnapshot>(input) {
        drop(Roster::from_snapshot(snapshot, node(3)));
    }
    if let Some(snapshot) = stored::<PolicySnapshot>(input) {
        drop(PolicyBook::from_snapshot(snapshot, &roster(), NOW));
    }
    stored::<QuotaHeader>(input);
    stored::<StoredRow>(input);
    stored::<QuotaStored>(input);
}

fn stored<T: Serialize + DeserializeOwned + Debug>(input: &[u8]) -> Option<T> {
    let (value, _) = postcard::take_from_bytes::<T>(input).ok()?;
    let written = postcard::to_allocvec(&value)
        .unwrap_or_else(|error| panic!("read, but not written: {error}"));
    assert!(written.len() <= input.len(), "{} bytes from {}", written.len(), input.len());
    Some(value)
}

fn disk() -> Vec<Vec<u8>> {
    let bytes = |written: postcard::Result<Vec<u8>>| {
        written.unwrap_or_else(|error| panic!("a record: {error}"))
    };
    let header = QuotaHeader { incarnation: 7, ..QuotaHeader::default() };
    vec![
        bytes(postcard::to_allocvec(&roster().snapshot())),
        bytes(postcard::to_allocvec(&PolicyBook::new(mesh(), node(3)).snapshot())),
        bytes(postcard::to_allocvec(&header)),
        bytes(postcard::to_allocvec(&QuotaStored {
            header: Some(header),
            ..QuotaStored::default()
        })),
    ]
}

/// What is said about answers that are kept.
fn answers() -> ([AnswersWord; 3], [AnswersReply; 3]) {
    let line = PurgeBook::new(mesh()).next(node(3), Scope::default(), NOW);
    let purges = vec![sign_purge(line, &key(3))];
    let mut wide = Digests::for_so_many(1);
    wide.put(&[7; 32]);
    let told = KeptInBrief { at: (1, 1), answers: 1, wide, site: None };
    let ask = Ask { digest: [7; 32], purges: [1; 16], most_bytes: 9 };
    let (age, left) = (Micros::secs(1), Micros::secs(2));
    let held = Held { bytes: 1, digest: [1; 32], kind: 0, age, left };
    let words = [
        AnswersWord::Purges(purges.clone()),
        AnswersWord::Kept(Box::new(told)),
        AnswersWord::Ask(ask),
    ];
    let piece = AnswersReply::Piece(vec![1, 2, 3]);
    (words, [AnswersReply::Purges(purges), AnswersReply::Held(held), piece])
}

fn handed() -> HandOff {
    let request = GenerateRequest {
        id: RequestId(7),
        model: ModelDigest([8; 32]),
        input: Input::Text("hi".into()),
        sampling: Sampling {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 1,
            further: Further::NONE,
        },
        max_tokens: 5,
        stop: vec!["\n".into()],
        logprobs: None,
        schema: None,
        emitted: None,
    };
    HandOff {
        hop: 1,
        origin: node(3),
        tenant: "acme".into(),
        label: Label::Site,
        deadline: Micros::secs(9),
        fence: 1,
        request,
    }
}

/// A hand-off with what is asked beside the request.
fn detailed() -> Detailed {
    let details = Details { schema: Some("{}".into()), further: Further::NONE };
    Detailed { details, trace: None, handed: handed(), receipt: None }
}

fn machine() -> Machine {
    let made = Hardware { processor: "A Processor".into(), memory: Some(1), ..Hardware::default() };
    let now = Condition { temperature: Some(512), on_battery: Some(true), ..Condition::default() };
    Machine { made, now }
}

fn trace() -> TraceContext {
    let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::parse(parent, [b"a=1,b=2".as_slice()]);
    trace.unwrap_or_else(|| panic!("a context"))
}

/// One of each.
fn frames() -> Vec<Vec<u8>> {
    let refusal =
        Refusal::new(Stage::Execute, Blame::Us, Retry::Elsewhere, Code::Internal, "no").param("n");
    let addr = SocketAddr::from(([10, 0, 0, 1], 8_420));
    let hello = Hello::new(credential(), 1, vec![addr]);
    let handed = handed();
    let receipt = Receipt {
        request: RequestId(7),
        ingest: node(3),
        serving: node(4),
        account: "acme/web".into(),
        key: None,
        tokens: 12,
        not_after_in: Micros::secs(9),
        fence: 1,
        budgets: vec![[1; 16]],
    };
    let charged = Charged { handed: handed.clone(), receipt: receipt.seal(&key(3)) };
    let receipt = Some(charged.receipt.clone());
    let traced = Traced { trace: trace(), handed: handed.clone(), receipt };
    let notice = revoke(&key(1), None, mesh(), node(4), NOW);
    let mut delta = SyncDelta { rows: vec![row()], ..SyncDelta::default() };
    delta.roster.revocations.push(notice);
    delta.roster.stewards.push(credential().steward);
    let holder = Holder { node: node(3), incarnation: 1 };
    let digest = QuotaDigest { holder, heads: vec![] };
    let policy = PolicyMessage::Delta(Box::default());
    let word = PolicyWord { incarnation: 1, message: policy };
    let ([purges, told, ask], [purges_too, held, piece]) = answers();
    let fit = Fit { clients: 2, examples: Some(300), misfit: Some(Misfit::Few) };
    let fits = |bytes: Result<Vec<u8>, codec::CodecError>| {
        bytes.unwrap_or_else(|error| panic!("a frame: {error}"))
    };
    macro_rules! each {
        ($($value:expr),* $(,)?) => {
            vec![$(fits(codec::encode_datagram_at(VERSION, &$value, MAX_FRAME))),*]
        };
    }
    each![
        Knock { proof: [1; 32] },
        KnockReply::Refused(refusal.clone()),
        hello,
        HelloReply::Welcome(Box::new(hello.clone())),
        Opening::HandOff(handed),
        Opening::Charged(Box::new(charged)),
        Opening::Traced(Box::new(traced)),
        Opening::Detailed(Box::new(detailed())),
        Opening::Quota(Box::new(QuotaMessage::Digest(digest))),
        Opening::Policy(Box::new(word)),
        Opening::Sync(SyncMessage::Delta(delta.clone())),
        SyncMessage::Delta(delta),
        Opening::Answers(Box::new(purges)),
        Opening::Answers(Box::new(told)),
        Opening::Answers(Box::new(ask)),
        Opening::Machine(Box::new(machine())),
        Opening::Fits(Box::new(FitsWord { job: vec![1, 1, 2, 3] })),
        FitsReply::Looked(fit),
        FitsReply::Late,
        purges_too,
        held,
        piece,
        HandOffReply::Answer(Answer::Failed(refusal.clone())),
        RenewReply::Renewed(Box::new(credential())),
        JoinMessage::Refused(refusal),
        SwimMessage::Ping(Beat::default()),
        credential(),
        NodeRow { name: "kiln".into(), addrs: vec![addr], ..NodeRow::default() },
    ]
}
