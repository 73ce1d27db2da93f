#![allow(clippy::unwrap_used, clippy::expect_used)]

use ed25519_dalek::SigningKey;

use super::*;

const START: Wall = Wall(1_800_000_000_000);
const DAY: Micros = Micros::secs(24 * 3_600);

/// A mesh with its root key and one steward, who also admits itself.
struct Site {
    mesh: MeshId,
    root: SigningKey,
    steward_key: SigningKey,
    steward: Signed<Steward>,
}

fn key(name: u8) -> SigningKey {
    SigningKey::from_bytes(&[name; 32])
}

fn node(key: &SigningKey) -> NodeId {
    NodeId(key.public())
}

fn site() -> Site {
    let (root, steward_key) = (key(1), key(2));
    let mesh = MeshId(root.public());
    let steward = grant_steward(&root, mesh, 0, node(&steward_key), START, STEWARD_LEASE);
    Site { mesh, root, steward_key, steward }
}

impl Site {
    fn admit(&self, member: &SigningKey) -> Credential {
        let name = "attic";
        grant_membership(
            &self.steward_key,
            &self.steward,
            &[],
            node(member),
            name,
            START,
            DEFAULT_LEASE,
        )
        .unwrap()
    }

    fn roster(&self, me: &SigningKey) -> Roster {
        let mut roster = Roster::new(self.mesh, node(me));
        roster.set_own(self.admit(me), START).unwrap();
        roster
    }

    fn revoke(&self, out: &SigningKey, at: Wall) -> RevocationNotice {
        revoke(&self.steward_key, Some(self.steward.clone()), self.mesh, node(out), at)
    }
}

#[test]
fn a_credential_is_checked_from_the_meshs_name_alone() {
    let site = site();
    let member = key(3);
    let credential = site.admit(&member);
    assert_eq!(credential.verify(site.mesh, node(&member), START), Ok(()));
    let other = MeshId(key(9).public());
    let refused = credential.verify(other, node(&member), START);
    assert!(matches!(refused, Err(RecordError::Mesh { .. })), "{refused:?}");
    let refused = credential.verify(site.mesh, node(&key(4)), START);
    assert!(matches!(refused, Err(RecordError::Node { .. })), "{refused:?}");
}

#[test]
fn every_changed_field_breaks_the_signature() {
    let site = site();
    let member = key(3);
    let good = site.admit(&member);
    let check = |credential: &Credential| credential.verify(site.mesh, node(&member), START);
    let mut named = good.clone();
    named.membership.body.name = "cellar".to_owned();
    assert_eq!(check(&named), Err(RecordError::Signature("membership")));
    let mut longer = good.clone();
    longer.membership.body.not_after = START.plus(DAY.times(30));
    assert_eq!(check(&longer), Err(RecordError::Signature("membership")));
    let mut steward = good.clone();
    steward.steward.body.issued = Wall(START.0 - 1);
    assert_eq!(check(&steward), Err(RecordError::Signature("steward")));
    let mut flipped = good;
    flipped.membership.signature.0[0] ^= 1;
    assert_eq!(check(&flipped), Err(RecordError::Signature("membership")));
}

#[test]
fn a_member_that_is_no_steward_admits_nobody() {
    let site = site();
    let (member, friend) = (key(3), key(4));
    let forged = grant_steward(&member, site.mesh, 0, node(&member), START, STEWARD_LEASE);
    let credential =
        grant_membership(&member, &forged, &[], node(&friend), "x", START, DAY).unwrap();
    let refused = credential.verify(site.mesh, node(&friend), START);
    assert!(matches!(refused, Err(RecordError::Signer { record: "steward", .. })));

    let mut borrowed = site.admit(&friend);
    borrowed.membership = Signed::seal(borrowed.membership.body.clone(), &member);
    let refused = borrowed.verify(site.mesh, node(&friend), START);
    assert!(matches!(refused, Err(RecordError::Signer { record: "membership", .. })));
}

#[test]
fn a_signature_of_one_kind_of_record_is_none_of_another() {
    // Steward and membership records with the same fields must not have the same bytes.
    let site = site();
    let steward = Signed::seal(site.steward.body.clone(), &site.root);
    let revocation = Revocation { mesh: site.mesh, node: steward.body.node, at: START };
    let crossed = Signed { body: revocation, signer: steward.signer, signature: steward.signature };
    assert_eq!(crossed.check_signature(), Err(RecordError::Signature("revocation")));
}

#[test]
fn a_lease_lapses_with_tolerance_for_clocks() {
    let site = site();
    let member = key(3);
    let credential = site.admit(&member);
    let check = |wall: Wall| credential.verify(site.mesh, node(&member), wall);
    let end = START.plus(DEFAULT_LEASE);
    assert_eq!(check(end.plus(CLOCK_SKEW)), Ok(()));
    let late = end.plus(CLOCK_SKEW).plus(Micros::secs(1));
    assert!(matches!(check(late), Err(RecordError::Lapsed { record: "membership", .. })));
    assert_eq!(check(START.minus(CLOCK_SKEW)), Ok(()));
    let early = START.minus(Micros::secs(180));
    assert!(matches!(check(early), Err(RecordError::NotYet { ahead_s: 180, .. })));
}

#[test]
fn no_lease_is_longer_than_allowed_or_outlasts_its_steward() {
    let site = site();
    let member = key(3);
    let short = grant_steward(&site.root, site.mesh, 0, node(&site.steward_key), START, DAY);
    let grant = |steward: &Signed<Steward>, lease| {
        let id = node(&member);
        grant_membership(&site.steward_key, steward, &[], id, "x", START, lease).unwrap()
    };
    let cut = grant(&short, DEFAULT_LEASE);
    assert_eq!(cut.membership.body.not_after, START.plus(DAY));
    let long = grant(&site.steward, MAX_LEASE.times(3));
    assert_eq!(long.membership.body.not_after, START.plus(MAX_LEASE));
    let mut forged = long;
    forged.membership.body.not_after = START.plus(MAX_LEASE.times(2));
    forged.membership = Signed::seal(forged.membership.body.clone(), &site.steward_key);
    let refused = forged.verify(site.mesh, node(&member), START);
    assert_eq!(refused, Err(RecordError::TooLong("membership")));
}

#[test]
fn names_are_bounded() {
    let long = "x".repeat(65);
    for name in ["", long.as_str(), "a\nb"] {
        assert_eq!(check_name(name), Err(RecordError::Name));
    }
    assert_eq!(check_name("Küche 2"), Ok(()));
}

#[test]
fn renewal_is_due_at_half_of_the_lease_and_a_steward_grants_it() {
    let site = site();
    let member = key(3);
    let mut theirs = site.roster(&member);
    let half = START.plus(Micros(DEFAULT_LEASE.0 / 2));
    assert!(!theirs.due_for_renewal(half.minus(Micros::secs(1))));
    assert!(theirs.due_for_renewal(half));

    let steward = site.roster(&site.steward_key);
    let presented = theirs.own().unwrap().clone();
    let renewed =
        steward.renew(&site.steward_key, &presented, node(&member), half, DEFAULT_LEASE).unwrap();
    theirs.set_own(renewed, half).unwrap();
    assert!(!theirs.due_for_renewal(half));
    assert_eq!(theirs.own().unwrap().name(), "attic");

    let late = half.plus(DEFAULT_LEASE.times(2));
    let refused = steward.renew(&site.steward_key, &presented, node(&member), late, DAY);
    assert!(matches!(refused, Err(RecordError::Lapsed { .. })), "{refused:?}");
    let refused = theirs.renew(&member, &presented, node(&member), half, DAY);
    assert_eq!(refused, Err(RecordError::NotSteward));
}

#[test]
fn a_revoked_node_is_out_and_stays_out() {
    let site = site();
    let member = key(3);
    let mut roster = site.roster(&site.steward_key);
    let credential = site.admit(&member);
    assert_eq!(roster.verify(&credential, node(&member), START), Ok(()));
    roster.learn(&credential);
    let notice = site.revoke(&member, START);
    assert_eq!(roster.apply_revocation(notice.clone(), START), Ok(true));
    assert_eq!(roster.apply_revocation(notice, START), Ok(false));
    let refused = roster.verify(&credential, node(&member), START);
    assert!(matches!(refused, Err(RecordError::Revoked(_))));
    assert!(roster.members().all(|(id, _)| *id != node(&member)));
    let again = roster.admit(&site.steward_key, node(&member), "attic", START, DAY);
    assert!(matches!(again, Err(RecordError::Revoked(_))));
    let restored = Roster::from_snapshot(roster.snapshot(), node(&site.steward_key)).unwrap();
    assert!(restored.is_revoked(&node(&member)));
}

#[test]
fn only_stewards_and_the_root_revoke() {
    let site = site();
    let (member, victim) = (key(3), key(4));
    let mut roster = site.roster(&site.steward_key);
    let by_member = revoke(&member, None, site.mesh, node(&victim), START);
    let refused = roster.apply_revocation(by_member, START);
    assert!(matches!(refused, Err(RecordError::Signer { .. })), "{refused:?}");
    let borrowed = revoke(&member, Some(site.steward.clone()), site.mesh, node(&victim), START);
    let refused = roster.apply_revocation(borrowed, START);
    assert!(matches!(refused, Err(RecordError::Signer { .. })), "{refused:?}");
    let by_root = revoke(&site.root, None, site.mesh, node(&victim), START);
    assert_eq!(roster.apply_revocation(by_root, START), Ok(true));
}

#[test]
fn a_revoked_steward_admits_nobody_afterwards() {
    let site = site();
    let member = key(3);
    let before = site.admit(&member);
    let later = START.plus(DAY);
    let after = grant_membership(
        &site.steward_key,
        &site.steward,
        &[],
        node(&member),
        "attic",
        later.plus(Micros::secs(1)),
        DAY,
    )
    .unwrap();
    let mut roster = site.roster(&key(5));
    let notice = revoke(&site.root, None, site.mesh, node(&site.steward_key), later);
    roster.apply_revocation(notice, later).unwrap();
    assert_eq!(roster.verify(&before, node(&member), later), Ok(()));
    let refused = roster.verify(&after, node(&member), later.plus(Micros::secs(2)));
    assert!(matches!(refused, Err(RecordError::StewardRevoked(_))), "{refused:?}");
    assert_eq!(roster.stewards(later).count(), 0);
}

#[test]
fn whoever_was_renewed_by_a_steward_that_was_put_out_is_a_member_by_the_lease_before() {
    let site = site();
    let (member, second, stranger) = (key(5), key(6), key(7));
    let mut roster = site.roster(&second);
    roster
        .apply_steward(grant_steward(&site.root, site.mesh, 0, node(&second), START, STEWARD_LEASE))
        .unwrap();
    let before = site.admit(&member);
    roster.verify(&before, node(&member), START).unwrap();
    roster.learn(&before);
    let later = START.plus(DAY);
    let notice = revoke(&site.root, None, site.mesh, node(&site.steward_key), later);
    roster.apply_revocation(notice.clone(), later).unwrap();
    // The steward that is out renews one that does not know, and lets in one of its own.
    let now = later.plus(Micros::secs(60));
    let by_the_thief = |guest: &SigningKey| {
        let (steward, key) = (&site.steward, &site.steward_key);
        grant_membership(key, steward, &[], node(guest), "attic", now, DAY).unwrap()
    };
    let (void, alien) = (by_the_thief(&member), by_the_thief(&stranger));
    assert_eq!(roster.verify(&void, node(&member), now), Ok(()));
    let refused = roster.verify(&alien, node(&stranger), now);
    assert!(matches!(refused, Err(RecordError::StewardRevoked(_))), "{refused:?}");
    // What is void teaches nothing, so that no second one leans on it.
    roster.learn(&void);
    let lapsed = START.plus(DEFAULT_LEASE).plus(Micros::secs(3_600));
    let long = grant_membership(
        &site.steward_key,
        &site.steward,
        &[],
        node(&member),
        "attic",
        now,
        DEFAULT_LEASE,
    );
    let refused = roster.verify(&long.unwrap(), node(&member), lapsed);
    assert!(matches!(refused, Err(RecordError::StewardRevoked(_))), "{refused:?}");
    // It hears of it, takes no more from the one that is out, and is renewed by another.
    let mut its = site.roster(&member);
    its.set_own(void.clone(), now).unwrap();
    assert!(!its.due_for_renewal(now));
    its.apply_revocation(notice, now).unwrap();
    assert!(its.due_for_renewal(now));
    let refused = its.set_own(void.clone(), now);
    assert!(matches!(refused, Err(RecordError::StewardRevoked(_))), "{refused:?}");
    let renewed = roster.renew(&second, &void, node(&member), now, DAY).unwrap();
    its.set_own(renewed, now).unwrap();
    assert!(!its.due_for_renewal(now));
}

#[test]
fn a_clock_before_its_own_membership_dates_nothing() {
    let site = site();
    let member = key(5);
    let mut roster = site.roster(&member);
    roster.set_own(site.admit(&member), START).unwrap();
    assert_eq!(roster.may_date(START), Ok(()));
    assert_eq!(roster.may_date(START.minus(Micros::secs(1))), Ok(()), "clocks are never equal");
    let refused = roster.may_date(Wall(7_000));
    assert!(matches!(refused, Err(RecordError::Clock { .. })), "{refused:?}");
}

#[test]
fn a_revoked_steward_puts_nobody_out_afterwards() {
    let site = site();
    let later = START.plus(DAY);
    let mut roster = site.roster(&key(5));
    let end = revoke(&site.root, None, site.mesh, node(&site.steward_key), START);
    roster.apply_revocation(end, later).unwrap();
    let revenge = site.revoke(&key(5), later);
    let refused = roster.apply_revocation(revenge, later);
    assert!(matches!(refused, Err(RecordError::StewardRevoked(_))), "{refused:?}");
}

#[test]
fn revocations_are_bounded_and_outlived_ones_make_room() {
    let site = site();
    let mut roster = site.roster(&site.steward_key);
    roster
        .apply_revocation(revoke(&site.root, None, site.mesh, node(&key(7)), START), START)
        .unwrap();
    // Signing thousands of records takes long in a debug build: one real one, copied.
    let mut book = roster.snapshot();
    let notice = book.revocations.values().next().unwrap().clone();
    for index in 1..MAX_REVOCATIONS as u64 {
        let mut out = [7; 32];
        out[..8].copy_from_slice(&index.to_be_bytes());
        book.revocations.insert(NodeId(out), notice.clone());
    }
    let mut roster = Roster::from_snapshot(book, node(&site.steward_key)).unwrap();
    let one_more = site.revoke(&key(8), START);
    let refused = roster.apply_revocation(one_more.clone(), START);
    assert_eq!(refused, Err(RecordError::Full { what: "revocation", limit: MAX_REVOCATIONS }));
    let much_later = START.plus(MAX_STEWARD_LEASE).plus(DAY);
    assert_eq!(roster.apply_revocation(one_more, much_later), Ok(true));
    assert_eq!(roster.revocations().count(), 1);
}

#[test]
fn the_root_rotates_along_a_chain_that_cannot_fork() {
    let site = site();
    let (second, third) = (key(20), key(21));
    let first_step = rotate_root(&site.root, site.mesh, &[], second.public(), START).unwrap();
    let chain = [first_step.clone()];
    let wrong_key = rotate_root(&site.root, site.mesh, &chain, third.public(), START);
    assert_eq!(wrong_key, Err(RecordError::Chain(2)));
    let second_step = rotate_root(&second, site.mesh, &chain, third.public(), START).unwrap();

    let mut roster = site.roster(&site.steward_key);
    let early = roster.apply_rotation(second_step.clone());
    assert_eq!(early, Err(RecordError::Chain(2)), "the one in between is missing");
    assert_eq!(roster.apply_rotation(first_step.clone()), Ok(true));
    assert_eq!(roster.apply_rotation(first_step), Ok(false));
    assert_eq!(roster.apply_rotation(second_step), Ok(true));
    assert_eq!((roster.root(), roster.generation()), (third.public(), 2));
    let fork = rotate_root(&site.root, site.mesh, &[], key(30).public(), START).unwrap();
    assert_eq!(roster.apply_rotation(fork), Err(RecordError::Fork(1)));
}

#[test]
fn what_an_earlier_root_key_put_out_stays_out() {
    let site = site();
    let (second, thief) = (key(20), key(4));
    let end = START.plus(DAY);
    let rotation = rotate_root(&site.root, site.mesh, &[], second.public(), end).unwrap();
    let before = revoke(&site.root, None, site.mesh, node(&thief), START);
    let after = revoke(&site.root, None, site.mesh, node(&thief), end.plus(DAY));
    let by_next = revoke(&second, None, site.mesh, node(&thief), end.plus(DAY));
    let today = end.plus(DAY);

    let mut late = site.roster(&key(6));
    assert_eq!(late.apply_rotation(rotation), Ok(true));
    let refused = late.apply_revocation(after, today);
    assert!(matches!(refused, Err(RecordError::Signer { .. })), "{refused:?}");
    assert_eq!(late.clone().apply_revocation(by_next, today), Ok(true));
    assert_eq!(late.apply_revocation(before, today), Ok(true));
    assert!(late.is_revoked(&node(&thief)));
}

#[test]
fn members_outlive_one_rotation_for_a_while_and_renew_under_the_new_root() {
    let site = site();
    let (member, second) = (key(3), key(20));
    let mut roster = site.roster(&member);
    let rotation = rotate_root(&site.root, site.mesh, &[], second.public(), START).unwrap();
    let id = node(&site.steward_key);
    let renewed_steward = grant_steward(&second, site.mesh, 1, id, START, STEWARD_LEASE);
    let delta = RosterDelta {
        rotations: vec![rotation.clone()],
        stewards: vec![renewed_steward.clone()],
        revocations: Vec::new(),
    };
    let known = roster.apply(delta, START);
    assert!(known.rotated && known.changed && known.refused.is_empty(), "{known:?}");
    assert!(roster.due_for_renewal(START), "a new generation asks for a new credential");
    assert_eq!(roster.stewards(START).count(), 1);

    let old = site.admit(&member);
    assert_eq!(roster.verify(&old, node(&member), START), Ok(()));
    let minted_after = grant_membership(
        &site.steward_key,
        &site.steward,
        &[],
        node(&member),
        "attic",
        START.plus(DAY),
        DEFAULT_LEASE,
    )
    .unwrap();
    let refused = roster.verify(&minted_after, node(&member), START.plus(DAY));
    assert!(matches!(refused, Err(RecordError::Generation { .. })), "{refused:?}");

    let chain = [rotation];
    let fresh = grant_membership(
        &site.steward_key,
        &renewed_steward,
        &chain,
        node(&member),
        "attic",
        START,
        DEFAULT_LEASE,
    )
    .unwrap();
    assert_eq!(fresh.verify(site.mesh, node(&member), START), Ok(()));
    assert_eq!(roster.verify(&fresh, node(&member), START), Ok(()));
    // A node that has not heard of the rotation learns it from the credential.
    let mut behind = site.roster(&key(6));
    assert_eq!(behind.verify(&fresh, node(&member), START), Ok(()));
    behind.learn(&fresh);
    assert_eq!(behind.generation(), 1);
}

#[test]
fn a_chain_longer_than_the_limit_is_refused() {
    let site = site();
    let member = key(3);
    let mut credential = site.admit(&member);
    let rotation = rotate_root(&site.root, site.mesh, &[], key(20).public(), START).unwrap();
    credential.rotations = vec![rotation; MAX_ROTATIONS + 1];
    let refused = credential.verify(site.mesh, node(&member), START);
    assert_eq!(refused, Err(RecordError::Rotations(MAX_ROTATIONS + 1)));
}

#[test]
fn rosters_exchange_what_the_other_lacks_and_nothing_else() {
    let site = site();
    let mut knowing = site.roster(&site.steward_key);
    knowing.apply_revocation(site.revoke(&key(4), START), START).unwrap();
    knowing
        .apply_rotation(rotate_root(&site.root, site.mesh, &[], key(20).public(), START).unwrap())
        .unwrap();
    let mut behind = Roster::new(site.mesh, node(&key(3)));
    let known = behind.apply(knowing.delta(&behind.digest(), 64), START);
    assert_eq!(known.revoked, [node(&key(4))]);
    assert_eq!(behind.digest(), knowing.digest());
    assert_eq!(knowing.delta(&behind.digest(), 64), RosterDelta::default());
    assert!(!behind.apply(knowing.delta(&RosterDigest::default(), 64), START).changed);
}

#[test]
fn members_are_bounded_and_the_soonest_to_lapse_makes_way() {
    let site = site();
    let mut book = site.roster(&site.steward_key).snapshot();
    for index in 0..MAX_MEMBERS as u64 {
        let mut id = [9; 32];
        id[..8].copy_from_slice(&index.to_be_bytes());
        let not_after = START.plus(Micros::secs(index));
        book.members.insert(NodeId(id), Member { name: "x".to_owned(), not_after });
    }
    let mut roster = Roster::from_snapshot(book, node(&site.steward_key)).unwrap();
    roster.learn(&site.admit(&key(3)));
    assert!(roster.members().count() <= MAX_MEMBERS + 1);
    assert!(roster.members().any(|(id, _)| *id == node(&key(3))));
}

#[test]
fn a_fingerprint_is_short_and_readable() {
    let text = fingerprint_text(&MeshId([1; 32]));
    assert_eq!(text.len(), 26 + 6, "{text}");
    assert_ne!(text, fingerprint_text(&MeshId([2; 32])));
}
