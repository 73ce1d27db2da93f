#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use selvedge_base::codec;
use selvedge_federated::privacy::Privacy;
use selvedge_federated::privacy::accountant::{MicroEpsilon, PicoDelta};
use selvedge_federated::privacy::ledger::{Cap, Spend};
use selvedge_train::Table;
use tokio::sync::mpsc;

use super::super::test_rounds::{job_file, run};
use super::*;
use crate::Node;
use crate::quota::tests::Home;

/// What is in one cell of a file and in nothing else.
const CELL: &str = "qzv90317";

/// Two nodes of a mesh that are linked: one asks, and the other one has a table.
struct Pair {
    asks: Node,
    has: Node,
    file: PathBuf,
    // The last to go.
    homes: (Home, Home),
}

impl Pair {
    /// The second one speaks at most `newest`.
    async fn new(name: &str, newest: u8) -> Self {
        Self::with(name, newest, None).await
    }

    /// The same; the data of the second one have this bound.
    async fn with(name: &str, newest: u8, cap: Option<Cap>) -> Self {
        let homes = (Home::new(&format!("fits-{name}-a")), Home::new(&format!("fits-{name}-b")));
        let asks = homes.0.start(&[]).await;
        let code = asks.admin().invite(Micros::secs(600)).await.unwrap();
        let mut config = homes.1.config(&[]);
        let file = config.home.join("digits.csv");
        let table = Table {
            path: file.clone(),
            label: "digit".to_owned(),
            values: Vec::new(),
            classes: Vec::new(),
            scale: 1.0,
        };
        let own = DataSource { source: Source::Csv(table), cap };
        config.data = [("digits".to_owned(), [(None, own)].into())].into();
        Node::join(&homes.1.config(&[asks.quic_addr()]), &code).await.unwrap();
        let has = Node::start(config).await.unwrap();
        has.admin().membership.speak_at_most(newest);
        let endpoint = Arc::clone(&asks.gateway().shared.endpoint);
        endpoint.connect(has.gateway().view().me, &[has.quic_addr()]).await.unwrap();
        Self { asks, has, file, homes }
    }

    fn asking(&self) -> Arc<Shared> {
        Arc::clone(&self.asks.gateway().shared)
    }

    fn asked(&self) -> Arc<Shared> {
        Arc::clone(&self.has.gateway().shared)
    }

    /// Asks whether the data of the other one fit the job of such a file.
    async fn ask(&self, file: &str) -> Answer {
        let told = run(file, false).told;
        let content = told.to_bytes().unwrap();
        let asking = self.asking();
        asking.federation.ask(&asking, self.asked().me, &told, content).await
    }

    /// Ten rows, of which one is held out; in the last one stands this.
    fn write(&self, header: &str, last: &str) {
        let rows: String = (0..9).map(|at| format!("{at},1,2,3,{}\n", at % 2)).collect();
        fs::write(&self.file, format!("{header}\n{rows}{last}\n")).unwrap();
    }

    async fn end(self) {
        self.asks.shutdown().await;
        self.has.shutdown().await;
        drop(self.homes);
    }
}

const HEADER: &str = "a,b,c,d,digit";

fn job() -> String {
    job_file("rounds = 1", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_says_whether_its_data_fit_and_nothing_of_them() {
    let pair = Pair::new("says", codec::VERSION).await;
    let not = |misfit| Answer::Said(Fit::not(misfit));
    assert_eq!(pair.ask(&job()).await, not(Misfit::File), "there is no file");

    pair.write(HEADER, "1,2,3,4,1");
    let fits = Fit { clients: 1, examples: Some(9), misfit: None };
    assert_eq!(pair.ask(&job()).await, Answer::Said(fits));
    let other = job().replace("data = 'digits'", "data = 'letters'");
    assert_eq!(pair.ask(&other).await, not(Misfit::Source));

    pair.write(HEADER, &format!("1,2,3,{CELL},1"));
    assert_eq!(pair.ask(&job()).await, not(Misfit::Content));
    let (told, asked) = (run(&job(), false).told, pair.asked());
    let (asker, content) = (pair.asking().me, told.to_bytes().unwrap());
    let (reply, look) = asked.federation.looked(&asked, asker, content).await;
    assert!(look.why.is_some_and(|why| why.contains(CELL)), "its own people hear which cell");
    assert_eq!(reply, FitsReply::Looked(Fit::not(Misfit::Content)));

    pair.write("a,b,c,digit", "1,2,3,1");
    assert_eq!(pair.ask(&job()).await, not(Misfit::Columns));
    pair.write(HEADER, "1,2,3,4,7");
    assert_eq!(pair.ask(&job()).await, not(Misfit::Classes));
    fs::write(&pair.file, format!("{HEADER}\n")).unwrap();
    assert_eq!(pair.ask(&job()).await, not(Misfit::Few));
    pair.end().await;
}

const DELTA: PicoDelta = PicoDelta(10_000_000);

fn privacy(epsilon: MicroEpsilon) -> Privacy {
    let (noise_milli, norm, honest, delta) = (2_000, 1 << 19, 3, DELTA);
    Privacy { noise_milli, norm, honest, delta, epsilon, adaptive: None }
}

/// A job that lets a client spend so much.
fn private(epsilon: MicroEpsilon) -> Announced {
    let mut told = run(&job(), false).told;
    told.job.privacy = Some(privacy(epsilon));
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn data_whose_bound_is_less_than_a_contribution_costs_do_not_fit() {
    let told = private(MicroEpsilon(50_000_000));
    let content = told.to_bytes().unwrap();
    let fits = Fit { clients: 1, examples: None, misfit: None };
    for (bound, wanted) in [(1, Fit::not(Misfit::Spent)), (50_000_000, fits)] {
        let cap = Cap { epsilon: MicroEpsilon(bound), delta: DELTA };
        let pair = Pair::with(&format!("spent-{bound}"), codec::VERSION, Some(cap)).await;
        pair.write(HEADER, "1,2,3,4,1");
        let (asking, node) = (pair.asking(), pair.asked().me);
        let answer = asking.federation.ask(&asking, node, &told, content.clone()).await;
        assert_eq!(answer, Answer::Said(wanted));
        assert_eq!(pair.ask(&job()).await, Answer::Said(Fit::not(Misfit::Privacy)));
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_without_a_bound_do_not_fit_a_job_that_is_run_again_once_they_gave_what_it_allows() {
    let of = |contributions| privacy(MicroEpsilon(0)).spent(contributions);
    let (twice, thrice) = (private(of(2)), private(of(3)));
    let pair = Pair::new("again", codec::VERSION).await;
    pair.write(HEADER, "1,2,3,4,1");
    let (asking, asked) = (pair.asking(), pair.asked());
    let looked = async |told: &Announced| {
        asking.federation.ask(&asking, asked.me, told, told.to_bytes().unwrap()).await
    };
    let fits = Answer::Said(Fit { clients: 1, examples: None, misfit: None });

    // What an earlier run spent, with another digest.
    let (job, promised) = ([1; 32], privacy(of(2)).promised());
    let own = &asked.federation.parts.data["digits"][&None::<String>];
    let ledger = asked.federation.ledger("digits", own).unwrap();
    let (tell, mut said) = mpsc::unbounded_channel();
    ledger.listen(job, tell);
    for known in 0..3 {
        let wanted = if known < 2 { fits } else { Answer::Said(Fit::not(Misfit::Spent)) };
        assert_eq!(looked(&twice).await, wanted, "{known} spent");
        let content = twice.to_bytes().unwrap();
        let (_, look) = asked.federation.looked(&asked, asked.me, content).await;
        let left = 2_u64.checked_sub(known).filter(|&left| left > 0);
        assert_eq!(look.left, left, "what an earlier job had counts");
        let (commitment, cost) = ([known as u8; 32], privacy(of(2)).cost());
        ledger.ask(Spend { job, commitment, cost, promised, known });
        assert_eq!(said.recv().await.unwrap().said.is_ok(), known < 2, "{known} spent");
    }
    assert_eq!(looked(&thrice).await, fits, "it promises less, with all that was given before");
    let content = twice.to_bytes().unwrap();
    let (_, look) = asked.federation.looked(&asked, asked.me, content).await;
    assert!(look.why.unwrap().contains("`epsilon = N` in their [[data]] table"));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_job_is_refused_and_the_link_stands() {
    let pair = Pair::new("none", codec::VERSION).await;
    pair.write(HEADER, "1,2,3,4,1");
    let (told, node) = (run(&job(), false).told, pair.asked().me);
    let asking = pair.asking();
    for content in [Vec::new(), vec![0xff; 40], vec![1; MAX_CONTENT_BYTES + 1]] {
        let answer = asking.federation.ask(&asking, node, &told, content).await;
        assert_eq!(answer, Answer::Said(Fit::not(Misfit::Program)));
    }
    assert!(matches!(pair.ask(&job()).await, Answer::Said(fit) if fit.trains()));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_the_version_before_does_not_say_and_stays_linked() {
    let pair = Pair::new("old", SINCE - 1).await;
    pair.write(HEADER, "1,2,3,4,1");
    assert_eq!(pair.ask(&job()).await, Answer::Older);
    let link = pair.asking().endpoint.link(&pair.asked().me).unwrap();
    assert_eq!((link.version(), link.is_closed()), (SINCE - 1, false));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_cannot_read_such_a_job_does_not_fit() {
    let pair = Pair::new("older", SINCE - 2).await;
    let answer = pair.ask(&job()).await;
    assert_eq!(answer, Answer::Said(Fit::not(Misfit::Program)), "it cannot read such a job");
    pair.end().await;
}

/// Whether a node comes as far as to the anchors, of which these meshes have too few.
async fn looks_for_anchors(node: &Arc<Shared>, starts: bool) -> bool {
    let text = job();
    let asked = node.federation.ask_all(node, Vec::new(), (&text, starts)).await;
    asked.unwrap_err().message.contains("the job wants 5 anchors")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_sign_a_job_hears_it_before_members_are_asked() {
    let pair = Pair::new("sign", codec::VERSION).await;
    let (may, may_not) = (pair.asking(), pair.asked());
    for starts in [false, true] {
        assert!(looks_for_anchors(&may, starts).await);
    }
    assert!(looks_for_anchors(&may_not, false).await, "anybody may look");
    assert!(!looks_for_anchors(&may_not, true).await);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_answers_each_asker_once_at_a_time_and_few_at_once() {
    let pair = Pair::new("busy", codec::VERSION).await;
    pair.write(HEADER, "1,2,3,4,1");
    let (asker, asked) = (pair.asking().me, pair.asked());
    let checks = &asked.federation.checks;
    let place = checks.place(asker);
    assert!(place.is_some() && checks.place(asker).is_none());
    assert_eq!(pair.ask(&job()).await, Answer::Busy);
    drop(place);
    assert!(matches!(pair.ask(&job()).await, Answer::Said(fit) if fit.trains()));
    let others = (0..MAX_ASKING as u8).map(|name| checks.place(NodeId([name; 32])));
    let others: Vec<Option<Place<'_>>> = others.collect();
    assert!(others.iter().all(Option::is_some));
    assert_eq!(pair.ask(&job()).await, Answer::Busy);
    drop(others);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_linked_is_away() {
    let home = Home::new("fits-away");
    let node = home.start(&[]).await;
    let shared = Arc::clone(&node.gateway().shared);
    let told = run(&job(), false).told;
    let content = told.to_bytes().unwrap();
    let answer = shared.federation.ask(&shared, NodeId([9; 32]), &told, content).await;
    assert_eq!(answer, Answer::Away);
    node.shutdown().await;
}

#[test]
fn a_job_of_which_no_round_could_end_is_refused_with_who_does_not_fit() {
    let fits = Answer::Said(Fit { clients: 1, examples: None, misfit: None });
    let wrong = Answer::Said(Fit::not(Misfit::Columns));
    let report = |answers: &[Answer]| {
        let nodes = (0..).zip(answers).map(|(at, answer)| {
            let (node, name) = (NodeId([at; 32]), format!("n{at}"));
            NodeFits { node, name, answer: *answer, why: None }
        });
        let job = run(&job(), false).told.job;
        let verdict = Verdict::of(&job, answers.iter().copied());
        FitsReport {
            name: "small".to_owned(),
            data: "digits".to_owned(),
            nodes: nodes.collect(),
            verdict,
            anchors: 5,
            anchors_reached: 5,
            max_examples: None,
            rounds: 1,
            sample_permille: 1_000,
            allowed: None,
            left: None,
        }
    };
    // The job has a floor of four.
    assert_eq!(report(&[fits; 4]).may_start(), Ok(()));
    assert_eq!(report(&[fits, fits, fits, Answer::Older]).may_start(), Ok(()), "it may train");
    let few = [fits, fits, fits, wrong, Answer::Away];
    let said = report(&few).may_start().unwrap_err().message;
    assert!(said.starts_with("3 nodes fit, and a round needs 4 nodes: too few"), "{said}");
    assert!(said.contains("n3 (columns); 1 member is away; POST"), "{said}");
    let many = report(&[wrong; MAX_NAMED + 2]).may_start().unwrap_err().message;
    assert!(many.contains("n7 (columns) and 2 more") && !many.contains("n8"), "{many}");
}

#[test]
fn the_answer_on_the_wire_is_as_it_was() {
    let fit = Fit { clients: 2, examples: Some(300), misfit: Some(Misfit::Few) };
    let table = [
        (FitsReply::Looked(fit), vec![12, 1, 0, 2, 1, 251, 44, 1, 1, 5]),
        (FitsReply::Looked(Fit::not(Misfit::Failed)), vec![12, 1, 0, 0, 0, 1, 12]),
        (FitsReply::Looked(Fit::not(Misfit::Spent)), vec![12, 1, 0, 0, 0, 1, 13]),
        (FitsReply::Busy, vec![12, 1, 1]),
        (FitsReply::Late, vec![12, 1, 2]),
    ];
    for (reply, bytes) in table {
        let frame = codec::encode_datagram_at(SINCE, &reply, codec::MAX_FRAME).unwrap();
        assert_eq!(frame, bytes, "{reply:?}");
        assert_eq!(codec::decode_body::<FitsReply>(&bytes), Ok(reply));
    }
}
