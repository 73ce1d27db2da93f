#![allow(clippy::unwrap_used, clippy::expect_used)]

//! What a serving node makes of hand-offs for a tenant with a hard budget.

use selvedge_base::{Code, ModelDigest, Refusal, RequestId, codec};
use selvedge_contract::{Further, Input, Sampling};

use super::*;
use crate::Node;
use crate::quota::tests::pair;

fn handed(to: NodeId, id: u128) -> Handed {
    Handed {
        fence: 1,
        to,
        tenant: "acme".to_owned(),
        label: Label::Mesh,
        deadline: Micros::secs(10),
        receipt: None,
        trace: None,
        request: GenerateRequest {
            id: RequestId(id),
            model: ModelDigest([9; 32]),
            input: Input::Text("hello".to_owned()),
            sampling: Sampling {
                temperature: 0.0,
                top_p: 1.0,
                top_k: 0,
                presence_penalty: 0.0,
                frequency_penalty: 0.0,
                seed: 0,
                further: Further::NONE,
            },
            max_tokens: 100,
            stop: Vec::new(),
            logprobs: None,
            schema: None,
            emitted: None,
        },
    }
}

/// What its first hop says of it.
fn told_of(given: Handed) -> HandOff {
    let Handed { tenant, label, deadline, fence, request, .. } = given;
    HandOff { hop: 1, origin: NodeId([5; 32]), tenant, label, deadline, fence, request }
}

fn receipt(ingest: NodeId, handed: &Handed) -> Receipt {
    Receipt {
        request: handed.request.id,
        ingest,
        serving: handed.to,
        account: "acme".to_owned(),
        key: None,
        tokens: 150,
        not_after_in: handed.deadline,
        fence: handed.fence,
        budgets: vec![[1; 16]],
    }
}

/// What the peer answers. It has no model: a request that passed its checks is refused for that.
async fn refusal(from: &Node, handed: Handed) -> Refusal {
    let (events, mut told) = mpsc::channel(8);
    let _under_way = send(Arc::clone(&from.gateway().shared), handed, events);
    match told.recv().await {
        Some(FlowInput::Refused { refusal, .. }) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_serves_a_hard_budget_only_on_a_receipt_and_once() {
    let ((_a_home, a), (_b_home, b)) = pair("receipts", 1_000).await;
    let (me, to) = (a.gateway().view().me, b.gateway().view().me);

    let plain = refusal(&a, handed(to, 1)).await;
    assert_eq!(plain.code, Code::Forbidden);
    assert!(plain.message.contains("a receipt is needed"), "{plain}");
    let free = Handed { tenant: "local".to_owned(), ..handed(to, 2) };
    assert_ne!(refusal(&a, free).await.code, Code::Forbidden, "others need none");

    let with = |id, change: fn(&mut Receipt)| {
        let handed = handed(to, id);
        let mut receipt = receipt(me, &handed);
        change(&mut receipt);
        Handed { receipt: Some(receipt), ..handed }
    };
    assert_ne!(refusal(&a, with(3, |_| {})).await.code, Code::Forbidden, "a good one");
    let again = refusal(&a, with(3, |_| {})).await;
    assert!(again.message.contains("used before"), "{again}");
    let short = refusal(&a, with(4, |receipt| receipt.tokens = 99)).await;
    assert!(short.message.contains("does not cover"), "{short}");
    let stolen = refusal(&a, with(5, |receipt| receipt.ingest = receipt.serving)).await;
    assert!(stolen.message.contains("other nodes"), "{stolen}");
    a.shutdown().await;
    b.shutdown().await;
}

#[test]
fn a_schema_reaches_peers_that_know_it_and_no_others() {
    let mut given = handed(NodeId([4; 32]), 7);
    assert!(unfit(1, &given.request).is_none());
    let schema = r#"{"type":"object"}"#;
    given.request.schema = Some(schema.to_owned());
    let refusal = unfit(SCHEMAS_SINCE - 1, &given.request).expect("an older one is not asked");
    assert_eq!((refusal.retry, refusal.code), (Retry::Elsewhere, Code::Unsupported));
    assert!(unfit(SCHEMAS_SINCE, &given.request).is_none());
    let handed = told_of(given);
    match opening(SCHEMAS_SINCE, handed, None, None) {
        Opening::Shaped(shaped) => assert_eq!(shaped.schema, schema),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_grammar_reaches_peers_that_know_it_and_no_others() {
    for text in ["root ::= \"a\"", "[a-z]+", "[\"a\"]"] {
        for held in [Constraint::Grammar(text), Constraint::Regex(text), Constraint::Choice(text)] {
            let mut given = handed(NodeId([4; 32]), 7);
            given.request.schema = Some(held.to_text());
            // To one that knows schemas alone it would be one that is no JSON.
            for older in [SCHEMAS_SINCE - 1, SCHEMAS_SINCE, GRAMMARS_SINCE - 1] {
                let refusal = unfit(older, &given.request).expect("an older one is not asked");
                assert_eq!((refusal.retry, refusal.code), (Retry::Elsewhere, Code::Unsupported));
            }
            assert!(unfit(GRAMMARS_SINCE, &given.request).is_none());
            assert!(unfit(codec::VERSION, &given.request).is_none());
            let asked = given.request.clone();
            let handed = told_of(given);
            let told = opening(GRAMMARS_SINCE, handed, None, None);
            let bytes = codec::encode(&told, codec::MAX_FRAME).expect("fits a frame");
            match codec::decode_body(&bytes[codec::LENGTH_BYTES..]) {
                Ok(Opening::Shaped(shaped)) => {
                    assert_eq!(Constraint::of(&shaped.schema), held);
                    assert_eq!(Some(shaped.schema), asked.schema, "it comes as it was asked");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What a node of version 13 wrote is read: the same bytes but for the version, which one of this
/// build says to it too.
#[test]
fn a_schema_is_said_in_the_bytes_of_the_version_before() {
    let mut given = handed(NodeId([4; 32]), 7);
    given.request.schema = Some("{}".to_owned());
    let handed = told_of(given);
    let told = opening(GRAMMARS_SINCE - 1, handed, None, None);
    let before = codec::encode_at(GRAMMARS_SINCE - 1, &told, codec::MAX_FRAME).expect("fits");
    let now = codec::encode(&told, codec::MAX_FRAME).expect("fits");
    let (version, rest) = (codec::LENGTH_BYTES, codec::LENGTH_BYTES + 1);
    assert_eq!((before[version], now[version]), (GRAMMARS_SINCE - 1, codec::VERSION));
    assert_eq!(before[rest..], now[rest..]);
    match codec::decode_body(&before[codec::LENGTH_BYTES..]) {
        Ok(Opening::Shaped(shaped)) => assert_eq!(shaped.schema, "{}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_more_a_draw_heeds_reaches_peers_that_know_it_and_no_others() {
    let mut given = handed(NodeId([4; 32]), 7);
    // A window alone asks for nothing.
    given.request.sampling.further = Further { repetition_window: 7, ..Further::NONE };
    assert!(unfit(1, &given.request).is_none());
    let further = Further { min_p: 0.05, repetition_penalty: 1.1, repetition_window: 9 };
    given.request.sampling.further = further;
    given.request.schema = Some("{}".to_owned());
    let refusal = unfit(DETAILS_SINCE - 1, &given.request).expect("an older one is not asked");
    assert_eq!((refusal.retry, refusal.code), (Retry::Elsewhere, Code::Unsupported));
    assert!(refusal.message.contains("min_p"), "{refusal}");
    assert!(unfit(DETAILS_SINCE, &given.request).is_none());
    let asked = given.request.clone();
    let handed = told_of(given);
    let told = opening(DETAILS_SINCE, handed, None, None);
    assert_eq!(told.since(), DETAILS_SINCE);
    let bytes = codec::encode(&told, codec::MAX_FRAME).expect("fits a frame");
    match codec::decode_body(&bytes[codec::LENGTH_BYTES..]) {
        Ok(Opening::Detailed(detailed)) => {
            let Detailed { details, handed, .. } = *detailed;
            assert_eq!(handed.request.with_details(details), asked, "it comes as it was asked");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chat_with_tools_reaches_peers_that_know_them_and_no_others() {
    let mut given = handed(NodeId([4; 32]), 7);
    given.request.input = Input::Tooled(Box::new(selvedge_contract::Tooled {
        messages: Vec::new(),
        turns: Vec::new(),
        tools: Vec::new(),
        choice: selvedge_contract::ToolChoice::Auto,
        parallel: true,
    }));
    let refusal = unfit(TOOLS_SINCE - 1, &given.request).expect("an older one is not asked");
    assert_eq!((refusal.retry, refusal.code), (Retry::Elsewhere, Code::Unsupported));
    assert!(unfit(TOOLS_SINCE, &given.request).is_none());
}

#[test]
fn a_peer_is_told_as_much_as_its_version_knows() {
    let identity = selvedge_net::Identity::generate();
    let (me, given) = (identity.node_id(), handed(NodeId([4; 32]), 7));
    let receipt = receipt(me, &given).seal(&Key(&identity));
    let trace = TraceContext::root(1, 2, true);
    let told = |version, receipt, trace| {
        let handed = HandOff {
            hop: 1,
            origin: me,
            tenant: given.tenant.clone(),
            label: given.label,
            deadline: given.deadline,
            fence: given.fence,
            request: given.request.clone(),
        };
        let told = opening(version, handed, receipt, trace);
        assert!(told.since() <= version, "version {version} is told {told:?}");
        match told {
            Opening::HandOff(_) => (false, false),
            Opening::Charged(_) => (true, false),
            Opening::Traced(traced) => (traced.receipt.is_some(), true),
            other => panic!("{other:?}"),
        }
    };
    for (version, known) in [(1, (false, false)), (2, (true, false)), (3, (true, false))] {
        assert_eq!(told(version, Some(receipt.clone()), Some(trace.clone())), known, "{version}");
    }
    assert_eq!(told(4, Some(receipt.clone()), Some(trace.clone())), (true, true));
    assert_eq!(told(4, None, Some(trace)), (false, true));
    assert_eq!(told(4, Some(receipt), None), (true, false));
    assert_eq!(told(4, None, None), (false, false));
}
