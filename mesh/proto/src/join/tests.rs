#![allow(clippy::unwrap_used, clippy::expect_used)]

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use selvedge_base::{Dice, Wall};

use super::*;
use crate::records::{DEFAULT_LEASE, STEWARD_LEASE, Signer, grant_membership, grant_steward};

const START: Wall = Wall(1_800_000_000_000);

/// A steward with its book of codes, and the keys of everybody.
struct House {
    mesh: MeshId,
    root: SigningKey,
    steward: SigningKey,
    invites: Invites,
    dice: u64,
}

fn key(name: u8) -> SigningKey {
    SigningKey::from_bytes(&[name; 32])
}

fn node(key: &SigningKey) -> NodeId {
    NodeId(key.public())
}

fn house() -> House {
    let (root, steward) = (key(1), key(2));
    let mesh = MeshId(root.public());
    House { mesh, root, steward, invites: Invites::default(), dice: 0 }
}

impl House {
    fn dice(&mut self) -> Dice {
        self.dice += 1;
        Dice::keyed(self.dice, "join tests")
    }

    fn invite(&mut self) -> JoinCode {
        let mut dice = self.dice();
        let addrs = ["192.0.2.7:8421".parse().unwrap(), "[2001:db8::7]:8421".parse().unwrap()];
        let issuer = node(&self.steward);
        self.invites.issue(&self.mesh, &issuer, &addrs, DEFAULT_TTL, START, &mut dice).unwrap()
    }

    fn issuer(&mut self, joiner: NodeId) -> Issuer {
        Issuer::new(self.mesh, node(&self.steward), joiner, self.dice())
    }

    fn joiner(&mut self, code: &JoinCode, key: &SigningKey) -> (Joiner, JoinMessage) {
        let dice = self.dice();
        Joiner::new(code.clone(), node(key), node(&self.steward), "attic", dice).unwrap()
    }

    fn credential(&self, member: NodeId) -> Credential {
        let id = node(&self.steward);
        let steward = grant_steward(&self.root, self.mesh, 0, id, START, STEWARD_LEASE);
        let key = &self.steward;
        grant_membership(key, &steward, &[], member, "attic", START, DEFAULT_LEASE).unwrap()
    }

    /// Runs a whole join; what the issuer's and the joiner's side came to.
    fn join(&mut self, code: &JoinCode, key: &SigningKey, wall: Wall) -> Result<Joined, JoinError> {
        let (mut joiner, start) = self.joiner(code, key);
        let mut issuer = self.issuer(node(key));
        let challenge = sent(issuer.received(&mut self.invites, start, wall))?;
        let prove = match joiner.received(challenge, wall) {
            JoinerStep::Send(message) => message,
            JoinerStep::Failed(error) => return Err(error),
            JoinerStep::Joined(_) => panic!("joined before the proof"),
        };
        let (admitted, name) = match issuer.received(&mut self.invites, prove, wall) {
            IssuerStep::Admit { node, name } => (node, name),
            IssuerStep::Refuse(_, error) => return Err(error),
            IssuerStep::Send(message) => panic!("unexpected {message:?}"),
        };
        assert_eq!((admitted, name.as_str()), (node(key), "attic"));
        let welcome = Issuer::welcome(self.credential(admitted), Vec::new());
        match joiner.received(welcome, wall) {
            JoinerStep::Joined(joined) => Ok(*joined),
            JoinerStep::Failed(error) => Err(error),
            JoinerStep::Send(message) => panic!("unexpected {message:?}"),
        }
    }
}

fn sent(step: IssuerStep) -> Result<JoinMessage, JoinError> {
    match step {
        IssuerStep::Send(message) => Ok(message),
        IssuerStep::Refuse(JoinMessage::Refused(refusal), error) => {
            assert_eq!(refusal, error.refusal());
            Err(error)
        }
        IssuerStep::Refuse(message, _) => panic!("refused with {message:?}"),
        IssuerStep::Admit { .. } => panic!("admitted without a proof"),
    }
}

#[test]
fn the_right_code_joins_once() {
    let mut house = house();
    let code = house.invite();
    let joined = house.join(&code, &key(3), START).unwrap();
    assert_eq!(joined.mesh, house.mesh);
    assert_eq!(joined.credential.verify(house.mesh, node(&key(3)), START), Ok(()));
    assert_eq!(house.join(&code, &key(4), START), Err(JoinError::Used));
    assert_eq!(house.join(&code, &key(3), START), Err(JoinError::Used));
}

#[test]
fn of_two_at_once_only_one_gets_in() {
    let mut house = house();
    let code = house.invite();
    let (mut first, first_start) = house.joiner(&code, &key(3));
    let (mut second, second_start) = house.joiner(&code, &key(4));
    let (mut to_first, mut to_second) = (house.issuer(node(&key(3))), house.issuer(node(&key(4))));
    let book = &mut house.invites;
    let challenge = sent(to_first.received(book, first_start, START)).unwrap();
    let JoinerStep::Send(first_proof) = first.received(challenge, START) else { panic!() };
    let challenge = sent(to_second.received(book, second_start, START)).unwrap();
    let JoinerStep::Send(second_proof) = second.received(challenge, START) else { panic!() };
    let step = to_second.received(book, second_proof, START);
    assert!(matches!(step, IssuerStep::Admit { .. }), "{step:?}");
    let step = to_first.received(book, first_proof, START);
    assert!(matches!(step, IssuerStep::Refuse(_, JoinError::Used)), "{step:?}");
}

#[test]
fn a_wrong_code_fails_and_five_attempts_void_it_even_when_aborted() {
    let mut house = house();
    let code = house.invite();
    let mut wrong = code.clone();
    wrong.secret[0] ^= 1;
    assert_eq!(house.join(&wrong, &key(3), START), Err(JoinError::WrongProof));
    for _ in 1..MAX_ATTEMPTS {
        // Hangs up after the challenge.
        let (_, start) = house.joiner(&wrong, &key(3));
        let mut issuer = house.issuer(node(&key(3)));
        sent(issuer.received(&mut house.invites, start, START)).unwrap();
    }
    assert_eq!(house.join(&code, &key(3), START), Err(JoinError::TooManyAttempts));
}

#[test]
fn the_fifth_attempt_still_counts_as_one() {
    let mut house = house();
    let code = house.invite();
    let mut wrong = code.clone();
    wrong.secret[7] ^= 0x80;
    for _ in 0..MAX_ATTEMPTS - 1 {
        assert_eq!(house.join(&wrong, &key(3), START), Err(JoinError::WrongProof));
    }
    assert!(house.join(&code, &key(3), START).is_ok());
}

#[test]
fn a_guesser_that_sends_any_proof_is_refused() {
    let mut house = house();
    let code = house.invite();
    let (_, start) = house.joiner(&code, &key(3));
    let mut issuer = house.issuer(node(&key(3)));
    sent(issuer.received(&mut house.invites, start, START)).unwrap();
    let guess = JoinMessage::Prove { confirm: [0; 32] };
    let step = issuer.received(&mut house.invites, guess.clone(), START);
    assert!(matches!(step, IssuerStep::Refuse(_, JoinError::WrongProof)), "{step:?}");
    let step = issuer.received(&mut house.invites, guess, START);
    assert!(matches!(step, IssuerStep::Refuse(_, JoinError::OutOfOrder)), "{step:?}");
}

#[test]
fn a_code_expires() {
    let mut house = house();
    let code = house.invite();
    let late = START.plus(DEFAULT_TTL).plus(Micros::millis(1));
    assert_eq!(house.join(&code, &key(3), late), Err(JoinError::Expired));
    assert!(house.join(&code, &key(3), START.plus(DEFAULT_TTL)).is_ok());
}

#[test]
fn an_unknown_or_withdrawn_code_is_refused() {
    let mut house = house();
    let code = house.invite();
    assert!(house.invites.withdraw(code.id));
    assert_eq!(house.join(&code, &key(3), START), Err(JoinError::UnknownCode));
}

#[test]
fn somebody_in_between_with_another_key_is_noticed_on_both_sides() {
    // The middle holds two TLS connections under its own key and passes messages on unchanged.
    let mut house = house();
    let code = house.invite();
    let (mut joiner, start) = house.joiner(&code, &key(3));
    let middle = node(&key(66));
    let mut issuer = house.issuer(middle);
    let challenge = sent(issuer.received(&mut house.invites, start, START)).unwrap();
    let step = joiner.received(challenge, START);
    assert!(matches!(step, JoinerStep::Failed(JoinError::WrongProof)), "{step:?}");

    let refused = Joiner::new(code, node(&key(3)), middle, "attic", house.dice());
    assert!(matches!(refused, Err(JoinError::WrongIssuer(_))));
}

#[test]
fn replayed_messages_open_nothing() {
    let mut house = house();
    let code = house.invite();
    let (mut joiner, start) = house.joiner(&code, &key(3));
    let mut issuer = house.issuer(node(&key(3)));
    let book = &mut house.invites;
    let challenge = sent(issuer.received(book, start.clone(), START)).unwrap();
    let JoinerStep::Send(proof) = joiner.received(challenge, START) else { panic!() };
    // A second attempt of the same node, with the first one's messages played back.
    let mut again = house.issuer(node(&key(3)));
    sent(again.received(&mut house.invites, start, START)).unwrap();
    let step = again.received(&mut house.invites, proof, START);
    assert!(matches!(step, IssuerStep::Refuse(_, JoinError::WrongProof)), "{step:?}");
}

#[test]
fn the_name_and_the_mesh_are_part_of_the_proof() {
    let mut house = house();
    let code = house.invite();
    let (mut joiner, start) = house.joiner(&code, &key(3));
    let JoinMessage::Start { code_id, pake, .. } = start else { panic!() };
    let renamed = JoinMessage::Start { code_id, pake, name: "cellar".to_owned() };
    let mut issuer = house.issuer(node(&key(3)));
    let challenge = sent(issuer.received(&mut house.invites, renamed, START)).unwrap();
    let step = joiner.received(challenge, START);
    assert!(matches!(step, JoinerStep::Failed(JoinError::WrongProof)), "{step:?}");
}

#[test]
fn another_mesh_is_refused_by_its_fingerprint() {
    let mut house = house();
    let code = house.invite();
    house.mesh = MeshId([9; 32]);
    let refused = house.join(&code, &key(3), START);
    assert!(matches!(refused, Err(JoinError::WrongMesh { .. })), "{refused:?}");
}

#[test]
fn a_credential_for_somebody_else_is_refused() {
    let mut house = house();
    let code = house.invite();
    let (mut joiner, start) = house.joiner(&code, &key(3));
    let mut issuer = house.issuer(node(&key(3)));
    let challenge = sent(issuer.received(&mut house.invites, start, START)).unwrap();
    let JoinerStep::Send(_) = joiner.received(challenge, START) else { panic!() };
    let welcome = Issuer::welcome(house.credential(node(&key(4))), Vec::new());
    let step = joiner.received(welcome, START);
    assert!(matches!(step, JoinerStep::Failed(JoinError::Credential(_))), "{step:?}");
}

#[test]
fn codes_out_are_bounded_and_expired_ones_make_room() {
    let mut house = house();
    for _ in 0..MAX_INVITES {
        house.invite();
    }
    let mut dice = house.dice();
    let (mesh, issuer) = (house.mesh, node(&house.steward));
    let mut issue = |wall| house.invites.issue(&mesh, &issuer, &[], DEFAULT_TTL, wall, &mut dice);
    assert_eq!(issue(START), Err(JoinError::TooManyInvites));
    assert!(issue(START.plus(DEFAULT_TTL.times(2))).is_ok());
}

#[test]
fn a_code_is_one_line_that_survives_careless_copying() {
    let mut house = house();
    let code = house.invite();
    let text = code.to_string();
    assert!(text.starts_with("sv1-") && text.len() < 140 && !text.contains(' '), "{text}");
    assert_eq!(text.parse::<JoinCode>().as_ref(), Ok(&code));
    let shouted = format!("  {}\n", text.to_uppercase());
    assert_eq!(shouted.parse::<JoinCode>().as_ref(), Ok(&code));
    assert_eq!("hello".parse::<JoinCode>(), Err(ParseCodeError::Prefix));
    assert_eq!(text[..text.len() - 2].parse::<JoinCode>(), Err(ParseCodeError::Damaged));
    assert!(!format!("{code:?}").contains(&format!("{:?}", code.secret)));
}

proptest! {
    // Each case makes keys and codes in a debug build; the space is small enough for fewer.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn one_wrong_letter_is_noticed(at in 4usize..60, by in 1u8..31) {
        let mut house = house();
        let text = house.invite().to_string();
        let alphabet = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut letters = text.into_bytes();
        let old = alphabet.iter().position(|letter| *letter == letters[at]).unwrap();
        letters[at] = alphabet[(old + usize::from(by)) % 32];
        let changed = String::from_utf8(letters).unwrap();
        prop_assert_eq!(changed.parse::<JoinCode>(), Err(ParseCodeError::Damaged));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "(sv1-)?.{0,200}") {
        let _parsed = text.parse::<JoinCode>();
    }

    #[test]
    fn any_message_is_answered(
        pake in proptest::collection::vec(any::<u8>(), 0..80),
        name in ".{0,70}",
    ) {
        let mut house = house();
        let code = house.invite();
        let start = JoinMessage::Start { code_id: code.id, pake, name };
        let mut issuer = house.issuer(node(&key(3)));
        let _step = issuer.received(&mut house.invites, start, START);
    }
}
