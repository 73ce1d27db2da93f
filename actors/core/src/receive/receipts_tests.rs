#![allow(clippy::unwrap_used, clippy::expect_used)]

use selvedge_base::{Micros, ModelDigest};
use selvedge_contract::{Further, GenerateRequest, Input, Sampling};
use selvedge_proto::records::Signer;
use selvedge_proto::wire::Label;

use super::*;

const ME: NodeId = NodeId([7; 32]);

/// A key whose signatures nobody checks: the refusals under test come before.
struct NoKey(NodeId);

impl Signer for NoKey {
    fn public(&self) -> [u8; 32] {
        self.0.0
    }

    fn sign(&self, _: &[u8]) -> [u8; 64] {
        [0; 64]
    }
}

fn peer() -> NodeId {
    NodeId([1; 32])
}

fn handed() -> HandOff {
    let sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
        further: Further::NONE,
    };
    HandOff {
        hop: 1,
        origin: peer(),
        tenant: "acme".to_owned(),
        label: Label::Mesh,
        deadline: Micros::secs(30),
        fence: 1,
        request: GenerateRequest {
            id: RequestId(5),
            model: ModelDigest([1; 32]),
            input: Input::Text("hello".to_owned()),
            sampling,
            max_tokens: 100,
            stop: Vec::new(),
            logprobs: None,
            schema: None,
            emitted: None,
        },
    }
}

fn receipt() -> Receipt {
    Receipt {
        request: RequestId(5),
        ingest: peer(),
        serving: ME,
        account: "acme/line3".to_owned(),
        key: None,
        tokens: 150,
        not_after_in: Micros::secs(30),
        fence: 1,
        budgets: vec![[1; 16]],
    }
}

fn verdict(receipt: Option<Receipt>, must: bool) -> Result<(), String> {
    let signed = receipt.map(|receipt| receipt.seal(&NoKey(peer())));
    Receipts::default()
        .check(Mono(1), (peer(), ME), &handed(), signed.as_ref(), must)
        .map_err(|refusal| refusal.message)
}

#[test]
fn a_tenant_with_a_hard_budget_is_not_served_on_a_peers_word() {
    assert_eq!(verdict(None, false), Ok(()));
    assert!(verdict(None, true).unwrap_err().contains("a receipt is needed"));
}

#[test]
fn a_receipt_fits_one_request_between_two_nodes() {
    type Change = fn(&mut Receipt);
    let changes: [(Change, &str); 8] = [
        (|r| r.ingest = ME, "other nodes"),
        (|r| r.serving = peer(), "other nodes"),
        (|r| r.request = RequestId(6), "another request"),
        (|r| r.account = "acme2".to_owned(), "another request"),
        (|r| r.fence = 2, "another request"),
        (|r| r.tokens = 99, "does not cover"),
        (|r| r.not_after_in = Micros::secs(29), "does not cover"),
        (|_| {}, "not signed"),
    ];
    for (change, why) in changes {
        let mut receipt = receipt();
        change(&mut receipt);
        let message = verdict(Some(receipt), true).unwrap_err();
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn a_key_of_one_node_hands_off_by_its_name_and_pays_from_the_local_account() {
    let local = || Receipt { account: LOCAL_ACCOUNT.to_owned(), ..receipt() };
    let message = verdict(Some(local()), false).unwrap_err();
    assert!(message.contains("not signed"), "only the signature is wrong: {message}");
    let message = verdict(Some(local()), true).unwrap_err();
    assert!(message.contains("another request"), "a tenant's hard budgets stand: {message}");
}

#[test]
fn an_attempt_is_worked_on_once() {
    let mut receipts = Receipts::default();
    let mut receipt = receipt();
    assert!(receipts.remember(Mono(1).plus(Micros::secs(30)), Mono(1), &receipt).is_ok());
    assert!(
        receipts.remember(Mono(2).plus(Micros::secs(30)), Mono(2), &receipt).is_err(),
        "shown again"
    );
    receipt.fence = 3;
    assert!(
        receipts.remember(Mono(3).plus(Micros::secs(30)), Mono(3), &receipt).is_ok(),
        "the request came back"
    );
    receipt.fence = 2;
    assert!(
        receipts.remember(Mono(4).plus(Micros::secs(30)), Mono(4), &receipt).is_err(),
        "an older attempt"
    );
    assert_eq!(receipts.len(), 1);
    let later = Mono(5).plus(Micros::secs(31));
    receipt.request = RequestId(9);
    assert!(receipts.remember(later.plus(Micros::secs(30)), later, &receipt).is_ok());
    assert_eq!(receipts.len(), 1, "what lapsed is forgotten");
}

#[test]
fn the_memory_is_bounded() {
    let mut receipts = Receipts::default();
    for n in 0..2 * MAX_RECEIPTS as u128 {
        let receipt = Receipt { request: RequestId(n), ..receipt() };
        let now = Mono(n as u64);
        assert!(receipts.remember(now.plus(Micros::secs(30)), now, &receipt).is_ok());
    }
    assert_eq!(receipts.len(), MAX_RECEIPTS);
    assert_eq!(receipts.lapsing.len(), MAX_RECEIPTS);
}
