//! A wrong part of a sum is seen and its anchor named; what only its teller vouches for is not
//! believed; and anchors that are lost stop nothing.

use super::super::parts::LOST_AFTER;
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

/// Looks of an anchor, so many ticks of its job: what it orders.
fn ticks(anchor: &mut Anchor, from: u64, count: usize) -> Vec<Effect<AnchorChange>> {
    let mut effects = Vec::new();
    for at in from..from + count as u64 {
        let now = Now { mono: Mono((at + 1) * 100_000), ..Now::default() };
        anchor.step(now, AnchorInput::Ticked, &mut effects);
    }
    effects
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
            // Of four one is wrong, and nobody knows whose, however long it takes.
            assert!(!disagree(&effects), "another one may be under way");
            assert_eq!((named(&effects), last.tip().round), (vec![], 0));
            assert!(disagree(&ticks(last, 0, LOST_AFTER + 1)));
            assert!(!disagree(&ticks(last, 50, 2 * LOST_AFTER)), "it is said once");
            assert_eq!(last.tip().round, 0);
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
    let told = |effects: &[Effect<AnchorChange>]| {
        let to = |effect: &Effect<AnchorChange>| match effect {
            Effect::Send { to, message } => match &**message {
                Message::Opened(part) if part.anchor != node(4) => Some((*to, part.anchor)),
                _ => None,
            },
            _ => None,
        };
        effects.iter().filter_map(to).collect::<Vec<(NodeId, NodeId)>>()
    };
    let effects = ticks(last, 0, LOST_AFTER);
    assert_eq!(last.tip().round, 0, "another one may come");
    let each = [(node(2), node(1)), (node(1), node(2))];
    assert_eq!(told(&effects), each.repeat(3), "those who showed one hear of the others'");
    ticks(last, 100, 1);
    assert_eq!(last.tip().round, 1);
    // Anchors that are there, with a slow link, are waited for longer.
    let (mut anchors, _) = closed(&job);
    let last = &mut anchors[4];
    hear(last, 1, opened(&parts[1]));
    hear(last, 2, opened(&parts[2]));
    ticks(last, 0, 1);
    hear(last, 3, Message::Ask { round: 0 });
    ticks(last, 10, 2 * LOST_AFTER);
    assert_eq!(last.tip().round, 0);
    ticks(last, 100, 2 * LOST_AFTER);
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
    hear(&mut other, 2, folded(&few));
    assert_eq!(other.tip(), &wanted);
    // An anchor of the round looks at the parts beside its own; who shows two of one sum lies.
    let last = &mut anchors[4];
    assert_eq!(named(&hear(last, 0, folded(&lie))), []);
    assert_eq!(named(&hear(last, 1, folded(&few))), [node(0)]);
    assert_eq!(named(&hear(last, 0, opened(&few.openings[0]))), [], "none of its parts counts");
    assert_eq!(last.tip().round, 0);
    hear(last, 3, opened(&shown.openings[3]));
    assert_eq!(last.tip(), &wanted);
    // Of one that has gone on it takes the parts that nobody shows any more.
    let mut late = anchor(&job, 3);
    hear(&mut late, 1, folded(&few));
    assert_eq!(late.stored().opened.as_ref(), Some(&certificate));
    ticks(&mut late, 0, LOST_AFTER + 1);
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
    assert_eq!(hears(7, folded(&shown)), (vec![], 1));
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

/// Whoever reaches one other node only, or comes to a job whose anchors were replaced, follows too.
#[test]
fn an_end_is_believed_that_the_next_round_was_closed_on_top_of() {
    let job = job(Mode::Secure);
    let (anchors, certificate) = closed(&job);
    let few = end(&job, &anchors, &certificate, &[0, 1, 2]);
    let wanted = first(&job).fold(&job, &few, &Stamp(node(9))).unwrap();
    let close = closing(&job, &wanted, &[header(21, 1, 9), header(22, 1, 9)]);
    assert_eq!(close.check(&job, &wanted), Ok(()));
    let ballot = Ballot { number: 1, by: node(0) };
    let accept = |index: u8| {
        let seal = Stamp(node(index));
        let one = SignedAccept::sign(&wanted.job, 1, ballot, close.digest(), node(index), &seal);
        (node(index), one.signature)
    };
    let next = |indices: &[u8]| {
        let accepts = indices.iter().map(|index| accept(*index)).collect();
        Certificate { close: close.clone(), ballot, accepts }
    };
    let told = Message::Folded(Box::new(few.clone()));
    // Nobody knows who tells it.
    let mut other = anchor(&job, 7);
    let asked = sent(&hear(&mut other, 77, told.clone()));
    assert!(asked.contains(&Message::Ask { round: 1 }), "{asked:?}");
    hear(&mut other, 77, Message::Closed(Box::new(next(&[0, 1]))));
    assert_eq!(other.tip().round, 0, "two are no quorum");
    hear(&mut other, 77, Message::Closed(Box::new(next(&[0, 1, 2]))));
    assert_eq!(other.tip(), &wanted);
    let mut follower = client(&job, ClientStored::new(first(&job)));
    let received =
        |message: Message| ClientInput::Received { from: node(77), message: Box::new(message) };
    told_at(&mut follower, received(told.clone()));
    assert_eq!(follower.tip().round, 0);
    let after = Folded { certificate: next(&[0, 1, 2]), openings: Vec::new() };
    told_at(&mut follower, received(Message::Folded(Box::new(after))));
    assert_eq!(follower.tip(), &wanted);
}

/// Anchors that reach as many as tell a sum and no more find out who tells each something else.
#[test]
fn who_tells_as_few_as_can_be_each_something_else_is_found_out() {
    let job = job(Mode::Secure);
    let (mut anchors, certificate) = closed(&job);
    let parts: Vec<Opening> =
        (0..3).map(|index| part(&job, &anchors, index, &certificate)).collect();
    let lie = spoilt(&job, &parts[0]);
    hear(&mut anchors[1], 0, opened(&parts[0]));
    hear(&mut anchors[1], 2, opened(&parts[2]));
    hear(&mut anchors[2], 0, opened(&lie));
    hear(&mut anchors[2], 1, opened(&parts[1]));
    let told = sent(&ticks(&mut anchors[1], 0, 2));
    assert!(told.contains(&opened(&parts[0])));
    assert_eq!(named(&hear(&mut anchors[2], 1, opened(&parts[0]))), [node(0)]);
    ticks(&mut anchors[2], 0, 8 * LOST_AFTER);
    assert_eq!(anchors[2].tip().round, 0, "two parts tell nothing");
}
