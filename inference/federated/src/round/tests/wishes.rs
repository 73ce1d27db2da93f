//! Anchors hand a job on to nobody but those that they were asked for; words that come late.

use super::*;

/// The anchors after the first ones, some of them others.
fn others(epoch: u64, first: u8) -> Committee {
    let seat = |index| Seat { node: node(index), key: key(index).public() };
    Committee { epoch, seats: (first..first + 5).map(seat).collect() }
}

fn ask(anchor: &mut Anchor, committee: Committee) {
    let mut effects = Vec::new();
    anchor.step(Now::default(), AnchorInput::Reconfigured { committee }, &mut effects);
    assert_eq!(effects, []);
}

/// What an anchor says to a set that the first one proposes, once it is on its disk.
fn proposed(anchor: &mut Anchor, number: u64, close: &Close) -> Vec<Effect<AnchorChange>> {
    let ballot = Ballot { number, by: node(0) };
    hear(anchor, 0, Message::Propose { ballot, close: Box::new(close.clone()) })
}

fn accepts(effects: &[Effect<AnchorChange>]) -> bool {
    let is_write = |effect: &Effect<AnchorChange>| match effect {
        Effect::Store { change, .. } => matches!(**change, AnchorChange::Accepted(..)),
        _ => false,
    };
    effects.iter().any(is_write)
}

#[test]
fn nobody_is_handed_a_job_whom_no_steward_asked_for() {
    let job = job(Mode::Secure);
    let mut anchor = anchor(&job, 2);
    let mut close = closing(&job, anchor.tip(), &[header(8, 0, 9), header(9, 0, 9)]);
    close.next = Some(others(1, 3));
    let unasked = [Effect::Report(Event::Unasked { by: node(0), round: 0 })];
    assert_eq!(proposed(&mut anchor, 1, &close), unasked);
    // Nor to other seats than those, nor to the same nodes with another key.
    ask(&mut anchor, others(1, 4));
    assert_eq!(proposed(&mut anchor, 1, &close), unasked);
    let mut forged = others(1, 3);
    forged.seats[4].key = key(99).public();
    ask(&mut anchor, forged);
    assert_eq!(proposed(&mut anchor, 1, &close), unasked);
    ask(&mut anchor, others(1, 3));
    assert!(accepts(&proposed(&mut anchor, 1, &close)));
}

#[test]
fn a_wish_that_another_followed_may_still_be_what_is_closed() {
    let job = job(Mode::Secure);
    let mut anchor = anchor(&job, 2);
    let mut close = closing(&job, anchor.tip(), &[header(8, 0, 9), header(9, 0, 9)]);
    close.next = Some(others(1, 3));
    ask(&mut anchor, others(1, 3));
    ask(&mut anchor, others(1, 5));
    assert!(accepts(&proposed(&mut anchor, 1, &close)));
    // Without a set of other anchors there is always one to accept.
    close.next = None;
    assert!(accepts(&proposed(&mut anchor, 2, &close)));
}

#[test]
fn wishes_are_bounded_and_the_last_ones_are_known() {
    let job = job(Mode::Secure);
    let mut anchor = anchor(&job, 2);
    for first in 0..20 {
        ask(&mut anchor, others(1, first));
    }
    assert_eq!(anchor.wanted.len(), MAX_WISHES);
    // One that was asked for before is the last one again; what is over is no wish.
    ask(&mut anchor, others(1, 15));
    ask(&mut anchor, others(0, 3));
    assert_eq!(anchor.wanted.len(), MAX_WISHES);
    assert_eq!(anchor.wanted.last(), Some(&others(1, 15)));
}

#[test]
fn word_of_a_set_that_cannot_be_is_its_tellers_and_is_not_proposed() {
    let job = job(Mode::Secure);
    let mut anchor = anchor(&job, 2);
    // Whoever waited long enough asks the others, whatever it holds itself.
    for at in [Micros::ZERO, job.pace.patience.times(5)] {
        let now = Now { mono: Mono(at.0), ..Now::default() };
        anchor.step(now, AnchorInput::Ticked, &mut Vec::new());
    }
    let ballot = Ballot { number: 1, by: node(2) };
    let mut close = closing(&job, anchor.tip(), &[header(8, 0, 9), header(9, 0, 9)]);
    close.entries.truncate(1);
    let accepted = Some((Ballot { number: 9, by: node(0) }, Box::new(close)));
    let promise = Message::Promise { round: 0, ballot, accepted, held: Vec::new() };
    let effects = hear(&mut anchor, 0, promise);
    let [Effect::Report(Event::Misdeed { by, what })] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(*by == node(0) && what.contains("cannot be closed"), "{what}");
}

/// A client of which anchors have heard, and its contribution.
fn sharing(job: &Job) -> (Client, Header) {
    let me = Holder { node: node(9), incarnation: 1 };
    let seal = Arc::new(Stamp(me.node));
    let mut client = Client::new(Arc::new(job.clone()), me, seal, ClientStored::new(first(job)));
    let mut effects = Vec::new();
    client.step(Now::default(), ClientInput::Ticked, &mut effects);
    let (delta, seed) = (vec![0.5, -0.5, 0.0], Seed([9; 32]));
    let trained = ClientInput::Trained { base_round: 0, examples: 50, delta, seed };
    client.step(Now::default(), trained, &mut effects);
    effects.clear();
    client.step(Now::default(), ClientInput::Stored { write: 1 }, &mut effects);
    let header = effects.iter().find_map(|effect| match effect {
        Effect::Send { message, .. } => match &**message {
            Message::Share { header, .. } => Some(*header),
            _ => None,
        },
        _ => None,
    });
    (client, header.unwrap())
}

fn receipt(job: &Job, by: u8, header: &Header) -> Receipt {
    Receipt::sign(&first(job).job, header, node(by), &Stamp(node(by)))
}

#[test]
fn a_receipt_that_comes_late_accuses_nobody_and_a_forged_one_does() {
    let job = job(Mode::Secure);
    let (mut client, header) = sharing(&job);
    let mut hears = |receipt: Receipt| {
        let (from, message) = (receipt.anchor, Box::new(Message::Receipt(receipt)));
        let mut effects = Vec::new();
        client.step(Now::default(), ClientInput::Received { from, message }, &mut effects);
        effects
    };
    let id = ContributionId { seq: header.id.seq + 1, ..header.id };
    let late = [
        Header { id, ..header },
        Header { epoch: 1, ..header },
        Header { sharing: [8; 32], ..header },
        Header { commitment: [8; 32], ..header },
    ];
    for one in late {
        assert_eq!(hears(receipt(&job, 1, &one)), []);
    }
    let mut forged = receipt(&job, 1, &header);
    forged.signature.0[0] ^= 1;
    let what = "a receipt that does not fit".to_owned();
    assert_eq!(hears(forged), [Effect::Report(Event::Misdeed { by: node(1), what })]);
    // None of those counted.
    for by in 1..4 {
        assert_eq!(hears(receipt(&job, by, &header)), []);
    }
    let safe = hears(receipt(&job, 4, &header));
    assert_eq!(safe, [Effect::Report(Event::Receipted(header.id))]);
}

#[test]
fn lists_of_stewards_who_did_not_know_of_each_other_become_one() {
    let of = |firsts: &[u8]| firsts.iter().map(|first| others(1, *first)).collect::<Vec<_>>();
    assert_eq!(merge_wishes([of(&[1]), of(&[2])]), of(&[1, 2]));
    // Whichever list governs has the last word; what both have is there once.
    assert_eq!(merge_wishes([of(&[2, 3]), of(&[1, 2])]), of(&[3, 1, 2]));
    assert_eq!(merge_wishes([of(&[2]), of(&[2])]), of(&[2]));
    let many: Vec<Vec<Committee>> = (0..20).map(|first| of(&[first])).collect();
    assert_eq!(merge_wishes(many), of(&[12, 13, 14, 15, 16, 17, 18, 19]));
    assert_eq!(merge_wishes([]), []);
}

#[test]
fn a_steward_tells_what_may_still_be_closed_and_nothing_where_it_is_behind() {
    let known = vec![others(1, 1), others(1, 2)];
    let more = [others(1, 1), others(1, 2), others(1, 3)];
    assert_eq!(one_more_wish(known.clone(), others(1, 3)).unwrap(), more);
    assert_eq!(one_more_wish(known.clone(), others(1, 1)).unwrap(), [others(1, 2), others(1, 1)]);
    assert_eq!(one_more_wish(known.clone(), others(2, 1)).unwrap(), [others(2, 1)]);
    let later = vec![others(2, 1), others(1, 2)];
    assert_eq!(one_more_wish(later, others(1, 3)), Err(Behind { known: 2, asked: 1 }));
    let full: Vec<Committee> = (0..8).map(|first| others(1, first)).collect();
    let told = one_more_wish(full, others(1, 9)).unwrap();
    assert_eq!((told.len(), told.last()), (MAX_WISHES, Some(&others(1, 9))));
}

#[test]
fn a_wish_of_a_steward_that_was_behind_hides_no_later_one() {
    let wishes = [others(1, 1), others(2, 2), others(1, 3)];
    assert_eq!(last_wish_after(&wishes, 0), Some(&others(1, 3)));
    assert_eq!(last_wish_after(&wishes, 1), Some(&others(2, 2)));
    assert_eq!(last_wish_after(&wishes, 2), None);
}

#[test]
fn wishes_of_two_epochs_are_told_in_any_order() {
    let job = job(Mode::Secure);
    let mut anchor = anchor(&job, 2);
    ask(&mut anchor, others(2, 5));
    ask(&mut anchor, others(1, 3));
    ask(&mut anchor, others(2, 5));
    let mut close = closing(&job, anchor.tip(), &[header(8, 0, 9), header(9, 0, 9)]);
    // A later set of anchors does not take the place of the next one.
    close.next = Some(others(1, 3));
    assert!(accepts(&proposed(&mut anchor, 1, &close)));
    assert_eq!(anchor.wanted, [others(1, 3), others(2, 5)]);
}
