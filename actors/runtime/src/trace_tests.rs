#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn came() -> Came {
    Came::Client { route: "/v1/chat/completions", operation: CHAT }
}

fn tracer(sampler: Sampler) -> (Arc<Tracer>, mpsc::Receiver<Box<Told>>) {
    Tracer::new(sampler, Dice::from_seed([7; 32]))
}

fn caller(sampled: bool) -> TraceContext {
    TraceContext::root(0xabc, 0xdef, sampled)
}

#[test]
fn a_request_is_told_once_when_the_last_lets_go() {
    let (tracer, mut told) = tracer(Sampler::all(true));
    let trace = tracer.begin(Some(&caller(true)), came());
    let mut asking = Trace::ask(Some(&trace), "large", || Whom::Here);
    let next = asking.context().expect("a context");
    assert_eq!((next.trace, next.sampled()), (0xabc, true));
    asking.came();
    asking.note(|turn| turn.finish.push("stop"));
    asking.finished(Some(Usage { prompt_tokens: 3, ..Usage::default() }));
    let left = Trace::ask(Some(&trace), "small", || Whom::Peer { node: "b".to_owned() });
    trace.answered(200, None);
    drop(trace);
    assert!(told.try_recv().is_err(), "somebody still works on it");
    drop(left);
    let told_of = told.try_recv().expect("a telling");
    assert!(told.try_recv().is_err(), "told twice");
    assert_eq!((told_of.context.trace, told_of.parent), (0xabc, Some(0xdef)));
    let [first, second] = &told_of.story.turns[..] else { panic!("{:?}", told_of.story) };
    assert_eq!((first.span, first.error), (next.span, None));
    assert_eq!(first.usage.map(|usage| usage.prompt_tokens), Some(3));
    assert!(first.first.is_some());
    assert_eq!(second.error, Some("cancelled"), "nobody said how it ended");
    let ids = [told_of.context.span, first.span, second.span, 0xdef];
    assert!(ids.iter().all(|id| ids.iter().filter(|other| *other == id).count() == 1));
}

#[test]
fn nobody_is_told_without_a_tracer_and_the_context_passes_as_it_came() {
    let asking = Trace::ask(None, "large", || panic!("nobody wants to know"));
    assert_eq!((asking.context(), asking.headers()), (None, Vec::new()));
    let trace = Trace::passing(caller(false));
    let asking = Trace::ask(Some(&trace), "large", || panic!("nobody wants to know"));
    assert_eq!(asking.context(), Some(caller(false)));
    let parent = caller(false).parent_text();
    assert_eq!(asking.headers(), [("traceparent", parent)], "an empty state is not sent");
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (tracer, told) = tracer(Sampler::all(true));
    for _ in 0..QUEUE + 3 {
        drop(tracer.begin(None, came()));
    }
    assert_eq!((told.len(), tracer.dropped.value()), (QUEUE, 3));
    drop(told);
    drop(tracer.begin(None, came()));
    assert_eq!(tracer.dropped.value(), 4, "with nobody to send it on it is lost, too");
}

#[test]
fn who_is_not_looked_at_is_told_as_such() {
    let (tracer, mut told) = tracer(Sampler::ratio(0, true));
    drop(tracer.begin(None, came()));
    drop(tracer.begin(Some(&caller(true)), came()));
    let sampled: Vec<_> =
        std::iter::from_fn(|| told.try_recv().ok()).map(|told| told.context.sampled()).collect();
    assert_eq!(sampled, [false, true], "by the share, and by the caller's decision");
}

#[test]
fn what_is_noted_is_bounded() {
    let (tracer, mut told) = tracer(Sampler::all(true));
    let trace = tracer.begin(None, came());
    for _ in 0..2 * MAX_TURNS {
        drop(Trace::ask(Some(&trace), "m", || Whom::Here));
    }
    drop(trace);
    assert_eq!(told.try_recv().expect("a telling").story.turns.len(), MAX_TURNS);
}

#[test]
fn what_others_name_is_cut_and_what_nobody_reads_does_not_wait() {
    let (tracer, mut told) = tracer(Sampler::all(true));
    let endless = "\u{e9}".repeat(1 << 20);
    let trace = tracer.begin(None, Came::Peer { origin: endless.clone() });
    let mut asking = Trace::ask(Some(&trace), &endless, || Whom::Peer { node: endless.clone() });
    asking.note(|turn| {
        turn.answered_by = Some(endless.clone());
        turn.answer_id = Some(endless.clone());
    });
    drop(asking);
    let target = || Target::Provider { provider: endless.clone(), model: endless.clone() };
    let leg = |asked| {
        let (why, ended) = (endless.clone(), Some(endless.clone()));
        Leg { asked, ..Leg::unasked(target(), why, ended) }
    };
    let refusal = Refusal::client(selvedge_base::Stage::Route, Code::InvalidRequest, &*endless);
    trace.recorded(&RequestRecord {
        id: selvedge_base::RequestId(7),
        model: endless.clone(),
        downgraded_to: Some(endless.clone()),
        tenant: endless.clone(),
        legs: vec![leg(true), leg(false)],
        attempts: Vec::new(),
        outcome: Outcome::Failed(refusal),
        took: selvedge_base::Micros(1),
        first_token: None,
        longest_gap: None,
        saving: None,
    });
    drop(trace);
    let story = told.try_recv().expect("a telling").story;
    let size = format!("{story:?}").len();
    assert!(size < 24 * NAME_BYTES, "{size} bytes of it");
    let [record] = &story.records[..] else { panic!("one record") };
    assert_eq!(record.legs.len(), 1, "who was asked");
    assert!(matches!(&record.outcome, Outcome::Failed(why) if why.code == Code::InvalidRequest));
}
