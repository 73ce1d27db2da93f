#![allow(clippy::unwrap_used, clippy::expect_used)]

//! Requests against budgets, from the call to the settlement, with an engine that follows a script.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use selvedge_contract::{
    Engine, EngineStatus, FinishReason, Further, ModelCard, ModelState, ModelStatus, TokenEvent,
    Usage,
};
use selvedge_dialect::chat::Event;
use selvedge_proto::policy::{OnExhausted, Scope, Unit};
use tokio::sync::Semaphore;

use super::*;
use crate::hardware::{Machines, Probe};
use crate::quota::tests::{Home, account, another_line, monthly, spent, until};
use crate::store::tests::Disk;
use crate::{KeyDraft, Node};

/// The model the script's engine has.
const MODEL: &str = "script";
/// Another one, to downgrade to.
const SMALL: &str = "small";
/// Tokens of every prompt.
const PROMPT: u32 = 10;

/// Bytes that the work of a chat may take: what is seldom wanted is boxed.
const MOST_WORK: usize = 7_168;

/// Emits tokens at a pace until it is cancelled, or has emitted as many as it may.
#[derive(Default)]
struct Script {
    pace: Duration,
    cancelled: Arc<Mutex<BTreeSet<RequestId>>>,
}

impl Engine for Script {
    fn submit_as(
        &self,
        _asker: &Asker<'_>,
        request: GenerateRequest,
        mut sink: Box<dyn EventSink>,
    ) -> Result<(), Refusal> {
        let cancelled = Arc::clone(&self.cancelled);
        let mut pace = (!self.pace.is_zero()).then(|| tokio::time::interval(self.pace));
        tokio::spawn(async move {
            sink.send(Answer::Started { prompt_tokens: PROMPT, prompt_digest: [1; 32] });
            for index in 0..request.max_tokens {
                if cancelled.lock().contains(&request.id) {
                    return;
                }
                let text = "x".to_owned();
                let token = TokenEvent { index, token: 7, text, logprob: None };
                if !sink.send(Answer::Token(token)) {
                    return;
                }
                if let Some(pace) = &mut pace {
                    pace.tick().await;
                }
            }
            let usage = Usage {
                prompt_tokens: PROMPT,
                completion_tokens: request.max_tokens,
                ..Usage::default()
            };
            let reason = FinishReason::Length;
            sink.send(Answer::Finished { reason, text: String::new(), usage });
        });
        Ok(())
    }

    fn cancel(&self, id: RequestId) {
        self.cancelled.lock().insert(id);
    }

    fn status(&self) -> EngineStatus {
        let model = |name: &str, digest| ModelStatus {
            card: ModelCard {
                name: name.to_owned(),
                digest: ModelDigest([digest; 32]),
                bytes: 1,
                architecture: "llama".to_owned(),
                quantization: "Q4_1".to_owned(),
                parameters: 1,
                context_length: 2_048,
                chat: true,
            },
            state: ModelState::Ready,
            running: 0,
            queued: 0,
            pending_prompt_tokens: 0,
            prefill_rate: 1_000,
            step_us: 1_000,
        };
        let models = vec![model(MODEL, 7), model(SMALL, 8)];
        EngineStatus { models, ..EngineStatus::default() }
    }

    fn begun(&self, _: ModelDigest, _: &Input, _: &str) -> Result<Vec<u32>, Refusal> {
        Err(Refusal::client(Stage::Validate, Code::Unsupported, "no tokenizer"))
    }

    fn count_tokens(&self, _: ModelDigest, _: &Input) -> Result<u32, Refusal> {
        Ok(PROMPT)
    }
}

/// The way into a node whose engine follows the script.
fn gateway(node: &Node, pace: Duration) -> Gateway {
    gateway_by(node, pace, node.gateway().shared.quota.clone())
}

/// The same, drawing on other budgets than the node's own.
fn gateway_by(node: &Node, pace: Duration, quota: crate::quota::QuotaLine) -> Gateway {
    let real = Arc::clone(&node.gateway().shared);
    let engine = Arc::new(Script { pace, ..Script::default() });
    let mut view = MeshView::clone(&real.view.load());
    view.nodes[0].engine = engine.status();
    let shared = Shared {
        me: real.me,
        endpoint: Arc::clone(&real.endpoint),
        engine,
        mesh: real.mesh.clone(),
        view: ArcSwap::from_pointee(view),
        view_changed: watch::Sender::new(()),
        keys: ArcSwap::new(real.keys.load_full()),
        receive: real.receive.clone(),
        receipts: Mutex::default(),
        machines: Machines::new(Probe::here("scalar")),
        identity: Arc::clone(&real.identity),
        policies: Arc::clone(&real.policies),
        quota,
        counters: Arc::default(),
        records: crate::records::Records::default(),
        providers: Arc::clone(&real.providers),
        routing: Arc::clone(&real.routing),
        federation: Arc::clone(&real.federation),
        cache: None,
        purges: Arc::clone(&real.purges),
        tracer: None,
        permits: Arc::new(Semaphore::new(64)),
        preparing: crate::shared::Preparing::default(),
        sounds: crate::relay::speech::Sounds::default(),
        in_flight: crate::shared::Tally::default(),
        serving: crate::shared::Tally::default(),
        unread: Mutex::default(),
        dice: Mutex::new(selvedge_net::entropy::dice()),
    };
    Gateway { shared: Arc::new(shared) }
}

fn call(gateway: &Gateway, max_tokens: Option<u32>) -> Call {
    Call {
        id: gateway.shared.run_id(),
        tenant: "acme".to_owned(),
        account: account(),
        key: None,
        label: Label::Node,
        deadline: Micros::secs(60),
        priority: Priority::Normal,
        model: MODEL.to_owned(),
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
        max_tokens,
        stop: Vec::new(),
        logprobs: None,
        schema: None,
        trace: None,
        leg: 0,
    }
}

/// All of an answer: how many tokens, and its end.
async fn whole(mut answer: AnswerStream) -> (u32, Piece) {
    let mut tokens = 0;
    while let Some(piece) = answer.next().await {
        match piece {
            Piece::Token(_) => tokens += 1,
            Piece::Finished { .. } | Piece::Failed(_) => return (tokens, piece),
            Piece::Started { .. } | Piece::Moved { .. } => {}
        }
    }
    panic!("an answer without an end");
}

/// A mesh of one with a budget of `limit` tokens.
async fn one(name: &str, limit: u64) -> (Home, Node) {
    let home = Home::new(name);
    let node = home.start(&[]).await;
    until("the node's own view", || !node.gateway().view().nodes.is_empty()).await;
    node.admin().budget_set(&"acme".parse().unwrap(), monthly(limit)).await.unwrap();
    (home, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_costs_what_it_took() {
    let (_home, node) = one("cost", 1_000).await;
    let gateway = gateway(&node, Duration::ZERO);
    let (tokens, end) = whole(gateway.generate(call(&gateway, Some(40)))).await;
    assert_eq!(tokens, 40);
    assert!(matches!(end, Piece::Finished { reason: FinishReason::Length, .. }), "{end:?}");
    // Whoever has the end finds it settled.
    assert_eq!(spent(&node.admin()), 50);
    let (tokens, end) = whole(gateway.generate(call(&gateway, Some(960)))).await;
    let Piece::Failed(refusal) = end else { panic!("{end:?}") };
    assert_eq!((tokens, refusal.stage, refusal.code), (0, Stage::Reserve, Code::QuotaExhausted));
    assert_eq!(spent(&node.admin()), 50, "a refusal costs nothing");
    let free = Call { account: AccountPath::local(), ..call(&gateway, Some(960)) };
    let (tokens, _) = whole(gateway.generate(free)).await;
    assert_eq!((tokens, spent(&node.admin())), (960, 50), "others are not counted");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_limit_grows_until_its_budget_ends() {
    let (_home, node) = one("grow", 3_000).await;
    let gateway = gateway(&node, Duration::from_micros(50));
    let (tokens, end) = whole(gateway.generate(call(&gateway, None))).await;
    let Piece::Finished { reason, usage, .. } = end else { panic!("{end:?}") };
    assert_eq!(reason, FinishReason::Quota);
    assert!(tokens > 2_000, "it was extended: {tokens}");
    assert_eq!(usage.completion_tokens, tokens);
    let spent = spent(&node.admin());
    assert_eq!(spent, u64::from(tokens + PROMPT));
    assert!(spent <= 3_000);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_pays_for_what_it_got() {
    let (_home, node) = one("gone", 1_000).await;
    let gateway = gateway(&node, Duration::from_millis(2));
    let mut answer = gateway.generate(call(&gateway, Some(500)));
    let mut tokens = 0;
    while tokens < 20 {
        if let Some(Piece::Token(_)) = answer.next().await {
            tokens += 1;
        }
    }
    drop(answer);
    let reserved = || node.admin().budget_status(None)[0].reserved;
    until("the settlement", || reserved() == 0).await;
    let spent = spent(&node.admin());
    assert!((30..200).contains(&spent), "the prompt and the tokens until then: {spent}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_never_spend_more_than_there_is() {
    let (_home, node) = one("many", 1_000).await;
    let gateway = gateway(&node, Duration::from_micros(200));
    let calls = (0..40).map(|_| whole(gateway.generate(call(&gateway, Some(50)))));
    let answers = futures::future::join_all(calls).await;
    let served = answers.iter().filter(|(tokens, _)| *tokens == 50).count() as u64;
    assert_eq!(spent(&node.admin()), served * 60);
    assert_eq!(served, 16, "as many as fit, and not one more");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chats_time_runs_from_when_it_came() {
    let (_home, node) = one("late", 10_000).await;
    let gateway = gateway(&node, Duration::ZERO);
    let body = format!(
        r#"{{"model":"{MODEL}","max_tokens":2,"messages":[{{"role":"user","content":"hello"}}]}}"#
    );
    let chat = |came: selvedge_base::Mono| crate::ChatCall {
        id: gateway.shared.run_id(),
        tenant: "acme".to_owned(),
        account: account(),
        key: None,
        keyed: true,
        label: Some(Label::Node),
        came,
        deadline: Micros::secs(30),
        drawn: 1,
        trace: None,
        asked: crate::Asked::understood(
            selvedge_dialect::anthropic::parse(body.as_bytes()).unwrap(),
        ),
    };
    let end = async |call: crate::ChatCall| {
        let said: Vec<crate::Said> = futures::StreamExt::collect(gateway.chat(call)).await;
        said.last().cloned()
    };
    let soon = clock::mono();
    let ended = end(chat(soon)).await;
    assert!(matches!(ended, Some(crate::Said::Event(Event::Finished { .. }))), "{ended:?}");
    // It waited somewhere for all of its time.
    let late = crate::ChatCall { deadline: Micros(1), ..chat(soon) };
    match end(late).await {
        Some(crate::Said::Event(Event::Failed(failure))) => {
            assert_eq!(failure.refusal.code, Code::Timeout, "{failure:?}");
        }
        ended => panic!("after its time: {ended:?}"),
    }
    // Each chat copies its work once, from the stack to where it is polled.
    let size = gateway.chat(chat(soon)).size();
    assert!((1..=MOST_WORK).contains(&size), "{size} bytes");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_budget_downgrades_where_it_says_so() {
    let (_home, node) = one("down", 10_000).await;
    let mut draft = monthly(100);
    draft.terms.name = "dear".to_owned();
    draft.terms.scope = Scope::Models(vec![MODEL.to_owned()]);
    draft.terms.on_exhausted = OnExhausted::Downgrade(SMALL.to_owned());
    node.admin().budget_set(&"acme".parse().unwrap(), draft).await.unwrap();
    let gateway = gateway(&node, Duration::ZERO);
    let models = async || {
        let asked = call(&gateway, Some(50));
        let id = asked.id;
        let (tokens, _) = whole(gateway.generate(asked)).await;
        assert_eq!(tokens, 50);
        gateway.request_record(id).unwrap().downgraded_to.clone()
    };
    assert_eq!(models().await, None);
    assert_eq!(models().await, Some(SMALL.to_owned()));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_ends_the_answers_it_opened() {
    let (_home, node) = one("barred", 10_000).await;
    let gateway = gateway(&node, Duration::from_millis(5));
    let draft = KeyDraft {
        name: "robot".to_owned(),
        account: Some(account()),
        expires_in: None,
        models: Vec::new(),
        routes: Vec::new(),
    };
    let made = node.admin().key_create(draft).await.unwrap();
    let key = node.admin().verify_key(&made.secret).unwrap().key;
    let mut answer = gateway.generate(Call { key, ..call(&gateway, Some(1_000)) });
    while !matches!(answer.next().await, Some(Piece::Token(_))) {}
    node.admin().key_revoke(&made.id).await.unwrap();
    let (tokens, end) = whole(answer).await;
    let Piece::Failed(refusal) = end else { panic!("{end:?}") };
    assert_eq!(refusal.code, Code::Unauthorized);
    assert!(tokens < 500, "{tokens}");
    assert!(spent(&node.admin()) < 500);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_answers_one_ends_when_the_limit_allows_only_one() {
    let (_home, node) = one("permits", 1_000_000).await;
    let level = "acme".parse().unwrap();
    let mut draft = monthly(2);
    (draft.terms.name, draft.terms.unit) = ("at-once".to_owned(), Unit::Concurrent);
    node.admin().budget_set(&level, draft).await.unwrap();
    // A permit lasts for a quarter of an hour: by this clock that passes when the test says so.
    let ahead_ms = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&ahead_ms);
    let clock: crate::stepper::Clock = Arc::new(move || {
        let (now, ahead) = (clock::now(), Micros::millis(told.load(Ordering::Relaxed)));
        selvedge_base::Now { mono: now.mono.plus(ahead), wall: now.wall.plus(ahead) }
    });
    let (line, supervisor) = another_line(&node, &Disk::default(), clock).await;
    let gateway = gateway_by(&node, Duration::from_millis(5), line.clone());
    let hour = || Call { deadline: Micros::secs(3_600), ..call(&gateway, Some(400_000)) };
    let (mut first, mut second) = (gateway.generate(hour()), gateway.generate(hour()));
    for answer in [&mut first, &mut second] {
        while !matches!(answer.next().await, Some(Piece::Token(_))) {}
    }
    let (_, refused) = whole(gateway.generate(hour())).await;
    assert!(matches!(&refused, Piece::Failed(why) if why.code == Code::QuotaExhausted));
    node.admin().budget_lower(&level, "at-once", 1).await.unwrap();
    line.policy_changed(gateway.shared.policies.book());
    ahead_ms.store(15 * 60_000, Ordering::Relaxed);
    let ended = async |answer: &mut AnswerStream| loop {
        match answer.next().await {
            Some(Piece::Token(_)) => {}
            other => return other,
        }
    };
    let (end, other) = tokio::time::timeout(Duration::from_secs(30), async {
        tokio::select! {
            end = ended(&mut first) => (end, &mut second),
            end = ended(&mut second) => (end, &mut first),
        }
    })
    .await
    .expect("one of them ends");
    let Some(Piece::Finished { reason: FinishReason::Quota, .. }) = end else { panic!("{end:?}") };
    // The other one holds the only permit there is, and keeps it.
    ahead_ms.store(31 * 60_000, Ordering::Relaxed);
    let (_, refused) = whole(gateway.generate(hour())).await;
    assert!(matches!(refused, Piece::Failed(_)), "{refused:?}");
    for _ in 0..400 {
        let next = other.next().await;
        assert!(matches!(next, Some(Piece::Token(_))), "{next:?}");
    }
    drop((first, second));
    supervisor.stop(None);
    node.shutdown().await;
}
