#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::join::JoinMessage;
use crate::swim::{Beat, MAX_MESSAGE_BYTES, MAX_RUMOURS, PeerState, Rumour, SwimMessage};
use proptest::prelude::*;
use selvedge_base::codec::{self, decode_body, encode, encode_datagram};
use serde::de::DeserializeOwned;

type Request = (String, Vec<u32>);

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
            survives::<Opening<Request>>(bytes);
            survives::<HandOffReply<Request>>(bytes);
            survives::<SyncMessage>(bytes);
            survives::<RenewReply>(bytes);
            survives::<SwimMessage>(bytes);
            survives::<JoinMessage>(bytes);
        }
    }

    #[test]
    fn a_damaged_frame_never_panics(at in 0usize..200, with in any::<u8>(), cut in 0usize..200) {
        let opening = Opening::HandOff(hand_off());
        let mut frame = encode(&opening, codec::MAX_FRAME).unwrap();
        let index = 4 + at % (frame.len() - 4);
        frame[index] = with;
        frame.truncate(frame.len() - cut % (frame.len() - 4));
        survives::<Opening<Request>>(&frame[4..]);
    }
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
    for opening in [Opening::HandOff(hand_off()), Opening::Echo] {
        let frame = encode(&opening, codec::MAX_FRAME).unwrap();
        assert_eq!(decode_body(&frame[4..]), Ok(opening));
    }
    let alive = HandOffReply::<u8>::Alive(Pulse { progress: 7, ..Pulse::default() });
    let frame = encode(&alive, codec::MAX_FRAME).unwrap();
    assert_eq!(decode_body(&frame[4..]), Ok(alive));
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
