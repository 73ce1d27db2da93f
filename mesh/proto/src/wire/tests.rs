#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::answers::{AnswersReply, Ask, Digests, Held, KeptInBrief, Missing};
use crate::join::JoinMessage;
use crate::records::{grant_membership, grant_steward};
use crate::swim::{Beat, MAX_MESSAGE_BYTES, MAX_RUMOURS, PeerState, Rumour, SwimMessage};
use crate::sync::SyncDigest;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use selvedge_base::codec::{
    self, decode_body, encode, encode_at, encode_datagram, encode_datagram_at,
};
use selvedge_base::{Blame, RequestId, Retry, Wall};
use serde::de::DeserializeOwned;

type Request = (String, Vec<u32>);
type Fitting = (u8, String);
type Opening = super::Opening<
    Request,
    u64,
    String,
    [u8; 3],
    [u16; 2],
    Request,
    Option<u32>,
    Fitting,
    Option<String>,
>;

/// Whatever the bytes, decoding ends with a value or an error.
fn survives<T: DeserializeOwned + Serialize>(body: &[u8]) {
    if let Ok(value) = decode_body::<T>(body) {
        assert!(encode(&value, codec::MAX_FRAME).is_ok());
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut body = vec![codec::VERSION, codec::FORMAT_BINCODE];
        body.extend(&payload);
        for bytes in [payload.as_slice(), body.as_slice()] {
            survives::<Hello>(bytes);
            survives::<HelloReply>(bytes);
            survives::<Opening>(bytes);
            survives::<HandOffReply<Request>>(bytes);
            survives::<SyncMessage>(bytes);
            survives::<RenewReply>(bytes);
            survives::<SwimMessage>(bytes);
            survives::<JoinMessage>(bytes);
            survives::<AnswersReply>(bytes);
        }
    }

    #[test]
    fn a_damaged_frame_never_panics(at in 0usize..200, with in any::<u8>(), cut in 0usize..200) {
        let opening = Opening::HandOff(hand_off());
        let mut frame = encode(&opening, codec::MAX_FRAME).unwrap();
        let index = 4 + at % (frame.len() - 4);
        frame[index] = with;
        frame.truncate(frame.len() - cut % (frame.len() - 4));
        survives::<Opening>(&frame[4..]);
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn hand_off() -> HandOff<Request> {
    HandOff {
        hop: 1,
        origin: NodeId([3; 32]),
        tenant: "acme".to_owned(),
        label: Label::Site,
        deadline: Micros::secs(30),
        fence: 2,
        request: ("rewrite this".to_owned(), vec![1, 2, 3]),
    }
}

#[test]
fn openings_and_replies_round_trip() {
    let receipt = Receipt {
        request: RequestId(4),
        ingest: NodeId(key().verifying_key().to_bytes()),
        serving: NodeId([8; 32]),
        account: "acme".to_owned(),
        key: None,
        tokens: 100,
        not_after_in: Micros::secs(1),
        fence: 1,
        budgets: vec![[1; 16]],
    };
    let charged = Charged { handed: hand_off(), receipt: receipt.seal(&key()) };
    let trace = TraceContext::root(1 << 100, 2, true);
    let receipt = Some(charged.receipt.clone());
    let traced = Traced { trace: trace.clone(), handed: hand_off(), receipt };
    let free = Traced { trace: trace.clone(), handed: hand_off(), receipt: None };
    let schema = r#"{"type":"object"}"#.to_owned();
    let (handed, receipt) = (hand_off(), Some(charged.receipt.clone()));
    let shaped = Shaped { schema: schema.clone(), trace: Some(trace), handed, receipt };
    let plain = Shaped { schema, trace: None, handed: hand_off(), receipt: None };
    let (details, receipt) = (Some("least".to_owned()), Some(charged.receipt.clone()));
    let detailed = Detailed { details, trace: None, handed: hand_off(), receipt };
    let spoken = Spoken { samples: 16_000, trace: None, handed: hand_off(), receipt: None };
    for opening in [
        Opening::HandOff(hand_off()),
        Opening::Echo,
        Opening::Quota(Box::new(7)),
        Opening::Policy(Box::new("policy".to_owned())),
        Opening::Charged(Box::new(charged)),
        Opening::Settings(Box::new(SettingsMessage::Brief([9; 16]))),
        Opening::Traced(Box::new(traced)),
        Opening::Traced(Box::new(free)),
        Opening::Answers(Box::new(AnswersWord::Brief([3; 16]))),
        Opening::Answers(Box::new(AnswersWord::Kept(Box::new(in_brief())))),
        Opening::Answers(Box::new(AnswersWord::Ask(ask()))),
        Opening::Federated(Box::new([1, 2, 3])),
        Opening::Personal(Box::new([7, 700])),
        Opening::Shaped(Box::new(shaped)),
        Opening::Shaped(Box::new(plain)),
        Opening::Spoken(Box::new(spoken)),
        Opening::Machine(Box::new(Some(7))),
        Opening::Fits(Box::new((1, "job".to_owned()))),
        Opening::Detailed(Box::new(detailed)),
    ] {
        let frame = encode(&opening, codec::MAX_FRAME).unwrap();
        assert_eq!(decode_body(&frame[4..]), Ok(opening));
    }
    let alive = HandOffReply::<u8>::Alive(Pulse { progress: 7, ..Pulse::default() });
    let frame = encode(&alive, codec::MAX_FRAME).unwrap();
    assert_eq!(decode_body(&frame[4..]), Ok(alive));
}

fn ask() -> Ask {
    Ask { digest: [1; 32], purges: [2; 16], most_bytes: 9 }
}

fn in_brief() -> KeptInBrief {
    let mut wide = Digests::for_so_many(1);
    wide.put(&[7; 32]);
    KeptInBrief { at: (1, 2), answers: 3, wide, site: None }
}

#[test]
fn replies_about_answers_round_trip() {
    let held = Held { bytes: 1, digest: [1; 32], kind: 1, age: Micros(2), left: Micros(3) };
    for reply in [
        AnswersReply::Same,
        AnswersReply::Purges(Vec::new()),
        AnswersReply::Missing(Missing::Stays),
        AnswersReply::Held(held),
        AnswersReply::Piece(vec![1, 2, 3]),
    ] {
        let frame = encode(&reply, codec::MAX_FRAME).unwrap();
        assert_eq!(decode_body(&frame[4..]), Ok(reply));
    }
}

#[test]
fn the_largest_swim_message_fits_a_datagram() {
    let rumour = Rumour { node: NodeId([0xff; 32]), incarnation: u64::MAX, state: PeerState::Dead };
    let pulse = Pulse {
        progress: u64::MAX,
        computing: true,
        loading: true,
        running: u32::MAX,
        queued: u32::MAX,
    };
    let gossip = vec![rumour; MAX_RUMOURS];
    let beat = Beat { seq: u64::MAX, incarnation: u64::MAX, pulse, gossip };
    let target = NodeId([0xff; 32]);
    let message = SwimMessage::Reached { target, incarnation: u64::MAX, pulse, beat };
    let bytes = encode_datagram(&message, MAX_MESSAGE_BYTES).unwrap();
    assert!(bytes.len() <= MAX_MESSAGE_BYTES, "{}", bytes.len());
    assert_eq!(decode_body(&bytes), Ok(message));
}

#[test]
fn two_versions_agree_on_the_newest_both_speak() {
    assert_eq!(agree((1, 2), (2, 3)), Ok(2));
    assert_eq!(agree((2, 3), (1, 2)), Ok(2));
    assert_eq!(agree((1, 1), (1, 1)), Ok(1));
    let refused = agree((3, 4), (1, 2)).unwrap_err();
    assert!(refused.message.contains("3 to 4") && refused.message.contains("1 to 2"));
    assert_eq!(agree((1, 2), (9, 1)).map_err(|refusal| refusal.code), Err(Code::Unsupported));
}

#[test]
fn labels_are_ordered_from_narrow_to_wide() {
    assert!(
        Label::Node < Label::Site && Label::Site < Label::Mesh && Label::Mesh < Label::Anywhere
    );
}

fn credential() -> Credential {
    let (key, wall, lease) = (key(), Wall(1_700_000_000_000), Micros::secs(3_600));
    let (mesh, node) =
        (MeshId(key.verifying_key().to_bytes()), NodeId(key.verifying_key().to_bytes()));
    let steward = grant_steward(&key, mesh, 0, node, wall, lease);
    grant_membership(&key, &steward, &[], node, "line 3", wall, lease).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// A value that a version 1 build wrote is read, and written again as that build would.
fn is_as_in_version_1<T>(fixture: &str, value: &T)
where
    T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug,
{
    let frame = unhex(fixture);
    assert_eq!(frame[codec::LENGTH_BYTES], 1);
    assert_eq!(decode_body::<T>(&frame[codec::LENGTH_BYTES..]).as_ref(), Ok(value));
    assert_eq!(encode_at(1, value, codec::MAX_FRAME).as_ref(), Ok(&frame));
}

#[test]
fn what_a_build_of_version_1_wrote_is_read_and_written_alike() {
    let listen = vec!["10.0.0.1:8421".parse().unwrap()];
    let credential = credential();
    let hello =
        Hello { oldest: 1, newest: 1, credential: credential.clone(), incarnation: 7, listen };
    let retry = Retry::After(Micros::secs(1));
    let refusal = Refusal::new(Stage::Resume, Blame::Us, retry, Code::Internal, "no");
    let pulse = Pulse { progress: 7, computing: true, loading: false, running: 2, queued: 300 };
    is_as_in_version_1(v1::KNOCK, &Knock { proof: [6; 32] });
    is_as_in_version_1(v1::HELLO, &hello);
    is_as_in_version_1(v1::WELCOME, &HelloReply::Welcome(Box::new(hello)));
    is_as_in_version_1(v1::HAND_OFF, &Opening::HandOff(hand_off()));
    is_as_in_version_1(v1::SYNC, &Opening::Sync(SyncMessage::Digest(SyncDigest::default())));
    is_as_in_version_1(v1::RENEW, &Opening::Renew(Box::new(credential)));
    is_as_in_version_1(v1::ECHO, &Opening::Echo);
    is_as_in_version_1(v1::ACCEPTED, &HandOffReply::<u8>::Accepted);
    is_as_in_version_1(v1::REFUSED, &HandOffReply::<u8>::Refused(refusal));
    is_as_in_version_1(v1::ANSWER, &HandOffReply::Answer(4u8));
    is_as_in_version_1(v1::ALIVE, &HandOffReply::<u8>::Alive(pulse));
    let gossip = vec![Rumour {
        node: NodeId(key().verifying_key().to_bytes()),
        incarnation: 1,
        state: PeerState::Suspect,
    }];
    let ping = SwimMessage::Ping(Beat { seq: 9, incarnation: 2, pulse, gossip });
    assert_eq!(decode_body(&unhex(v1::PING)).as_ref(), Ok(&ping));
    assert_eq!(encode_datagram_at(1, &ping, MAX_MESSAGE_BYTES), Ok(unhex(v1::PING)));
}

#[test]
fn what_version_1_does_not_have_says_so() {
    assert_eq!(Opening::HandOff(hand_off()).since(), 1);
    assert_eq!(Opening::Echo.since(), 1);
    assert_eq!(Opening::Quota(Box::new(7)).since(), 2);
    assert_eq!(Opening::Policy(Box::default()).since(), 2);
    assert_eq!(Opening::Settings(Box::new(SettingsMessage::Brief([9; 16]))).since(), 4);
    assert_eq!(Opening::Answers(Box::new(AnswersWord::Ask(ask()))).since(), 5);
    assert_eq!(Opening::Federated(Box::default()).since(), 6);
    assert_eq!(Opening::Personal(Box::default()).since(), 7);
    let shaped = Shaped { schema: String::new(), trace: None, handed: hand_off(), receipt: None };
    assert_eq!(Opening::Shaped(Box::new(shaped)).since(), 8);
    assert_eq!(Opening::Machine(Box::default()).since(), 10);
    assert_eq!(Opening::Fits(Box::default()).since(), 12);
    let detailed = Detailed { details: None, trace: None, handed: hand_off(), receipt: None };
    assert_eq!(Opening::Detailed(Box::new(detailed)).since(), 13);
    // A refusal for want of budget is said to an old peer in words it has.
    let refusal = Refusal::client(Stage::Reserve, Code::QuotaExhausted, "nothing left");
    let reply = HandOffReply::<u8>::Refused(refusal.clone().spoken_at(1));
    let frame = encode_at(1, &reply, codec::MAX_FRAME).unwrap();
    let last_of_version_1 = (Stage::Resume as u8, Code::Internal as u8);
    assert!(frame[7] <= last_of_version_1.0 && frame[10] <= last_of_version_1.1, "{frame:?}");
    assert_eq!(refusal.clone().spoken_at(2), refusal);
}
