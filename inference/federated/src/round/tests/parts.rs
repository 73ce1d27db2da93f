//! A wrong part of a sum is seen and its anchor named; what only its teller vouches for is not
//! believed; and anchors that are lost stop nothing.

use super::super::outbox::SEND_AGAIN;
use super::super::parts::SENDINGS;
use super::*;

/// A closed set of two contributions: the anchors that hold it, which know that it is closed, and
/// what proves that it is.
fn closed(job: &Job) -> (Vec<Anchor>, Certificate) {
    let tip = first(job);
    let mut anchors: Vec<Anchor> = (0..5).map(|index| anchor(job, index)).collect();
    let mut headers = Vec::new();
    for client in [11, 12] {
        let shares = shares(job, client, &[0.25, -0.125, f32::from(client) / 100.0]);
        let Message::Share { header, .. } = &shares[0] else { panic!("a share") };
        headers.push(*header);
        for (anchor, share) in anchors.iter_mut().zip(shares) {
            hear(anchor, client, share);
        }
    }
    let close = closing(job, &tip, &headers);
    assert_eq!(close.check(job, &tip), Ok(()));
    let ballot = Ballot { number: 1, by: node(0) };
    let accept = |index: u8| {
        let seal = Stamp(node(index));
        let one = SignedAccept::sign(&tip.job, 0, ballot, close.digest(), node(index), &seal);
        (node(index), one.signature)
    };
    let accepts = [0, 1, 2].map(accept).to_vec();
    let certificate = Certificate { close, ballot, accepts };
    for anchor in &mut anchors {
        hear(anchor, 1, Message::Closed(Box::new(certificate.clone())));
        // Its own part, which it says to itself once what it holds is durable.
        stored(anchor, 3);
    }
    (anchors, certificate)
}

fn part(job: &Job, anchors: &[Anchor], index: u8, certificate: &Certificate) -> Opening {
    let part = anchors[usize::from(index)].part_of(&certificate.close).unwrap();
    assert!(part.is_signed(&job.digest(), &Stamp(node(9))));
    part
}

/// The part with another first value, signed all the same.
fn spoilt(job: &Job, part: &Opening) -> Opening {
    let mut partial = part.partial.clone();
    match &mut partial {
        Partial::Shares(values) => values[0] = values[0].plus(Fp::ONE),
        Partial::Open(aggregate) => aggregate.sum[0] -= 1,
    }
    let Opening { round, close, anchor, .. } = *part;
    Opening::sign(&job.digest(), round, close, anchor, partial, &Stamp(anchor))
}

fn opened(part: &Opening) -> Message {
    Message::Opened(Box::new(part.clone()))
}

/// Whom an anchor or a client named.
fn named<C>(effects: &[Effect<C>]) -> Vec<NodeId> {
    let by = |effect: &Effect<C>| match effect {
        Effect::Report(Event::Misdeed { by, .. }) => Some(*by),
        _ => None,
    };
    effects.iter().filter_map(by).collect()
}

fn disagree(effects: &[Effect<AnchorChange>]) -> bool {
    effects.contains(&Effect::Report(Event::Disagree { round: 0 }))
}

/// Looks of an anchor, so many ticks of its job.
fn ticks(anchor: &mut Anchor, from: u64, count: usize) {
    for at in from..from + count as u64 {
        let now = Now { mono: Mono((at + 1) * 100_000), ..Now::default() };
        anchor.step(now, AnchorInput::Ticked, &mut Vec::new());
    }
}

/// The end of the round of these anchors' parts.
fn end(job: &Job, anchors: &[Anchor], certificate: &Certificate, of: &[u8]) -> Folded {
    let openings = of.iter().map(|index| part(job, anchors, *index, certificate)).collect();
    Folded { certificate: certificate.clone(), openings }
}

#[test]
fn a_wrong_part_is_not_folded_and_its_anchor_is_named() {
    for mode in [Mode::Secure, Mode::Plain(Rule::Mean)] {
        let job = job(mode);
        let (mut anchors, certificate) = closed(&job);
        let honest = end(&job, &anchors, &certificate, &[0, 1, 2]);
        let wanted = first(&job).fold(&job, &honest, &Stamp(node(9))).unwrap();
        let parts: Vec<Opening> =
            (0..4).map(|index| part(&job, &anchors, index, &certificate)).collect();
        let last = &mut anchors[4];
        // The wrong one comes first: nobody else is named for what does not fit it.
        for part in [&spoilt(&job, &parts[0]), &parts[1]] {
            assert_eq!(named(&hear(last, part.anchor.0[0], opened(part))), []);
        }
        let effects = hear(last, 2, opened(&parts[2]));
        if mode == Mode::Secure {
            assert!(disagree(&effects), "four, of which one is wrong: nobody knows whose");
            assert_eq!((named(&effects), last.tip().round), (vec![], 0));
            // However long it takes.
            ticks(last, 0, SENDINGS * SEND_AGAIN + 2);
            assert_eq!(last.tip().round, 0);
            assert!(!disagree(&hear(last, 1, opened(&parts[1]))), "it is said once");
            let effects = hear(last, 3, opened(&parts[3]));
            assert_eq!(named(&effects), [node(0)]);
        } else {
            assert_eq!(named(&effects), [node(0)], "three that are equal");
        }
        assert_eq!(last.tip(), &wanted);
    }
}

#[test]
fn as_many_parts_as_tell_a_sum_are_folded_once_no_more_come() {
    let job = job(Mode::Secure);
    let (mut anchors, certificate) = closed(&job);
    let parts: Vec<Opening> =
        (0..4).map(|index| part(&job, &anchors, index, &certificate)).collect();
    let last = &mut anchors[4];
    hear(last, 1, opened(&parts[1]));
    hear(last, 2, opened(&parts[2]));
    ticks(last, 0, SENDINGS * SEND_AGAIN);
    assert_eq!(last.tip().round, 0, "another one may come");
    ticks(last, 100, 1);
    assert_eq!(last.tip().round, 1);
    // With one more nobody waits.
    let (mut anchors, _) = closed(&job);
    for part in &parts[1..] {
        hear(&mut anchors[4], part.anchor.0[0], opened(part));
    }
    assert_eq!(anchors[4].tip().round, 1);
}

#[test]
fn an_end_that_its_parts_do_not_show_is_believed_of_two_anchors() {
    let job = job(Mode::Secure);
    let (mut anchors, certificate) = closed(&job);
    let told = |of: &[u8]| end(&job, &anchors, &certificate, of);
    let (few, shown) = (told(&[0, 1, 2]), told(&[0, 1, 2, 3]));
    let mut lie = few.clone();
    lie.openings[0] = spoilt(&job, &lie.openings[0]);
    let folded = |folded: &Folded| Message::Folded(Box::new(folded.clone()));
    let asks = |effects: &[Effect<AnchorChange>]| {
        sent(effects).iter().filter(|one| matches!(one, Message::Ask { round: 0 })).count()
    };
    let wanted = first(&job).fold(&job, &few, &Stamp(node(9))).unwrap();
    // Who is no anchor: the first word makes it ask, the same one again does not.
    let mut other = anchor(&job, 7);
    assert_eq!((asks(&hear(&mut other, 0, folded(&lie))), other.tip().round), (1, 0));
    assert_eq!((asks(&hear(&mut other, 0, folded(&lie))), other.tip().round), (0, 0));
    assert_eq!((asks(&hear(&mut other, 9, folded(&lie))), other.tip().round), (0, 0), "no anchor");
    assert_eq!((asks(&hear(&mut other, 1, folded(&few))), other.tip().round), (1, 0));
    assert_eq!(named(&hear(&mut other, 2, folded(&few))), [node(0)]);
    assert_eq!(other.tip(), &wanted);
    // An anchor of the round looks at the parts beside its own.
    let last = &mut anchors[4];
    assert!(disagree(&hear(last, 0, folded(&lie))));
    hear(last, 1, folded(&few));
    assert_eq!(last.tip().round, 0);
    assert_eq!(named(&hear(last, 3, opened(&shown.openings[3]))), [node(0)]);
    assert_eq!(last.tip(), &wanted);
    // Of one that has gone on it takes the parts that nobody shows any more.
    let mut late = anchor(&job, 3);
    hear(&mut late, 1, folded(&few));
    assert_eq!(late.stored().opened.as_ref(), Some(&certificate));
    ticks(&mut late, 0, SENDINGS * SEND_AGAIN + 1);
    assert_eq!(late.tip(), &wanted);
    // A client; what one part more shows is believed of whoever tells it.
    let mut follower = client(&job, ClientStored::new(first(&job)));
    let mut hears = |from: u8, message: Message| {
        let input = ClientInput::Received { from: node(from), message: Box::new(message) };
        let by = named(&told_at(&mut follower, input));
        (by, follower.tip().round)
    };
    assert_eq!(hears(0, folded(&lie)), (vec![], 0));
    assert_eq!(hears(0, folded(&lie)), (vec![], 0));
    let mut wrong = shown.clone();
    wrong.openings[0] = lie.openings[0].clone();
    assert_eq!(hears(2, folded(&wrong)), (vec![node(2)], 0), "parts that contradict each other");
    assert_eq!(hears(7, folded(&shown)), (vec![node(0)], 1));
    assert_eq!(follower.tip(), &wanted);
    // Its own node's anchor looked at the parts itself.
    let mut own = client(&job, ClientStored::new(first(&job)));
    let input = ClientInput::Received { from: own.me().node, message: Box::new(folded(&few)) };
    told_at(&mut own, input);
    assert_eq!(own.tip(), &wanted);
}

fn told_at(client: &mut Client, input: ClientInput) -> Vec<Effect<ClientChange>> {
    super::told(client, 1, input)
}
