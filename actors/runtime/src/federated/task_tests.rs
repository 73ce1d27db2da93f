#![allow(clippy::unwrap_used)]

use selvedge_federated::privacy::Privacy;
use selvedge_federated::privacy::accountant::{MicroEpsilon, PicoDelta};
use selvedge_federated::robust::Rule;
use selvedge_federated::round::Seat;
use selvedge_federated::seal::OpeningKey;
use selvedge_net::Identity;
use selvedge_proto::seal::sealing_key;

use super::*;
use crate::federated::JobSpec;

fn told(rounds: u64) -> Announced {
    let text = format!(
        "name = 'a'\ndata = 'digits'\nrounds = {rounds}\nseed = 5\n\
         [model]\nshape = {{ flat = 4 }}\nclasses = 2\n\
         [training]\nepochs = 1\nbatch = 8\nlearning_rate = 0.1\n"
    );
    let spec = JobSpec::from_toml(&text, &|_| Err("none".to_owned())).unwrap();
    let seat = |_| {
        let identity = Identity::generate();
        let key = sealing_key(&identity.node_id()).unwrap();
        let opens = OpeningKey::from_bytes(*identity.opening_secret());
        assert_eq!(opens.public(), key, "what is sealed to a node opens there");
        Seat { node: identity.node_id(), key }
    };
    let seats: Vec<Seat> = (0..5).map(seat).collect();
    let first = Task::digest_of(&Task::weights(&spec.subject, spec.seed).unwrap());
    spec.told(7, &seats, first, seats[0].node).unwrap()
}

/// As older programs told it: without a guard.
fn bare(rounds: u64) -> Announced {
    let told = told(rounds);
    Announced { job: Job { guard: None, ..told.job }, ..told }
}

#[test]
fn a_job_is_read_as_it_was_told() {
    let told = told(3);
    let bytes = told.to_bytes().unwrap();
    assert_eq!(Announced::from_bytes(&bytes).unwrap(), told);
    let tip = told.first().unwrap();
    assert_eq!((tip.job, tip.round), (told.job.digest(), 0));
    assert!(matches!(Announced::from_bytes(&[5, 1]), Err(AnnouncedError::Version(5))));
    for end in 0..bytes.len() {
        assert!(Announced::from_bytes(&bytes[..end]).is_err(), "{end}");
    }
}

/// A guard is told in a version that older programs refuse by its number, and is a part of the
/// job's name; jobs without one are told, and called, as before.
#[test]
fn a_guard_is_told_in_the_fourth_version() {
    let (mut told, bare) = (told(3), bare(3));
    assert_eq!(told.job.guard, Some(Guard::ONE), "secure jobs have one");
    assert_eq!((told.to_bytes().unwrap()[0], bare.to_bytes().unwrap()[0]), (4, 1));
    let one = told.job.digest();
    assert_ne!(one, Job { guard: None, ..told.job.clone() }.digest());
    told.job.guard = Some(Guard { groups: 3, rule: Rule::Median });
    told.job.per_node = 2;
    let read = Announced::from_bytes(&told.to_bytes().unwrap());
    assert!(matches!(read, Err(AnnouncedError::Job(JobError::Votes))), "{read:?}");
    told.job.per_node = 1;
    assert_ne!(told.job.digest(), one);
    let bytes = told.to_bytes().unwrap();
    assert_eq!(Announced::from_bytes(&bytes).unwrap(), told);
    for end in 0..bytes.len() {
        assert!(Announced::from_bytes(&bytes[..end]).is_err(), "{end}");
    }
}

/// What counts several clients of a node is told in a version that older programs refuse by its
/// number; all others are told, and called, as before.
#[test]
fn several_clients_of_a_node_are_told_in_the_third_version() {
    let mut told = bare(3);
    let before = told.job.digest();
    told.job.per_node = 4;
    assert_ne!(told.job.digest(), before, "another job");
    let bytes = told.to_bytes().unwrap();
    assert_eq!(bytes[0], 3);
    assert_eq!(Announced::from_bytes(&bytes).unwrap(), told);
    for end in 0..bytes.len() {
        assert!(Announced::from_bytes(&bytes[..end]).is_err(), "{end}");
    }
    for per_node in [0, 1, 17] {
        let mut spoilt = bytes.clone();
        *spoilt.last_mut().unwrap() = per_node;
        assert!(Announced::from_bytes(&spoilt).is_err(), "{per_node}");
    }
    told.job.per_node = 1;
    assert_eq!((told.to_bytes().unwrap()[0], told.job.digest()), (1, before));
}

/// What has no place in the first version makes the second one; all others stay as they were.
#[test]
fn a_norm_that_follows_is_told_in_the_second_version() {
    let mut told = bare(3);
    assert_eq!(told.to_bytes().unwrap()[0], 1);
    let adaptive = Some(Adaptive { quantile_permille: 500, rate_permille: 200 });
    let epsilon = MicroEpsilon(50_000_000);
    let delta = PicoDelta(10_000_000);
    let (noise_milli, norm, honest) = (2_000, 1 << 19, 3);
    told.job.privacy = Some(Privacy { noise_milli, norm, honest, delta, epsilon, adaptive });
    let still = Job {
        privacy: told.job.privacy.map(|one| Privacy { adaptive: None, ..one }),
        ..told.job.clone()
    };
    assert_ne!(still.digest(), told.job.digest(), "another job");
    let bytes = told.to_bytes().unwrap();
    assert_eq!(bytes[0], 2);
    assert_eq!(Announced::from_bytes(&bytes).unwrap(), told);
    assert_eq!(told.first().unwrap().norm, 1 << 19);
    told.job.privacy = None;
    let none: Option<Epidemic> = None;
    let plain = (told.written(&told.task.subject), adaptive, none);
    let plain = codec::encode_datagram_at(1, &plain, 60_000).unwrap();
    let read = Announced::from_bytes(&[&[2][..], &plain].concat());
    assert!(matches!(read, Err(AnnouncedError::Unbound)), "{read:?}");
}

#[test]
fn rules_and_task_belong_together() {
    let good = told(3);
    let mut others = vec![good.clone(), good.clone(), good.clone(), good.clone()];
    others[0].task.training.epochs += 1;
    others[1].task.data = "others".to_owned();
    others[2].task.first = [0; 32];
    let Subject::Model(model) = &mut others[3].task.subject else { panic!("a small model") };
    model.hidden = vec![selvedge_train::Layer::Dense(3)];
    for other in others {
        let read = Announced::from_bytes(&other.to_bytes().unwrap());
        assert!(matches!(read, Err(AnnouncedError::Unbound)), "{read:?}");
    }
    let mut other = good.clone();
    other.task.first = [0; 32];
    other.job.task = other.task.digest(None).unwrap();
    let read = Announced::from_bytes(&other.to_bytes().unwrap()).unwrap();
    assert_ne!(read.job.digest(), good.job.digest());
    assert!(matches!(read.first(), Err(AnnouncedError::First)));
}

#[test]
fn a_name_that_is_no_key_can_be_sealed_to_by_nobody() {
    assert_eq!(sealing_key(&NodeId([0; 32])), None);
}

#[test]
fn epidemic_mode_is_bound_to_the_rules_and_told_in_a_shape_of_its_own() {
    let good = bare(3);
    assert_eq!(good.to_bytes().unwrap()[0], 1, "who knows no such mode reads the others");
    let mut plain = good.clone();
    plain.job.mode = selvedge_federated::round::Mode::Plain(selvedge_federated::robust::Rule::Mean);
    let patience = plain.job.pace.patience;
    let rules = Epidemic { peers: 2, after: patience, every: patience };
    let with = |told: &Announced, rules| {
        let mut told = Announced { epidemic: Some(rules), ..told.clone() };
        told.job.task = told.task.digest(told.epidemic.as_ref()).unwrap();
        told
    };
    let told = with(&plain, rules);
    let bytes = told.to_bytes().unwrap();
    assert_eq!(bytes[0], 2);
    assert_eq!(Announced::from_bytes(&bytes).unwrap(), told);
    assert_ne!(told.job.digest(), plain.job.digest());
    for other in [Some(Epidemic { peers: 3, ..rules }), None] {
        let unbound = Announced { epidemic: other, ..told.clone() };
        let read = Announced::from_bytes(&unbound.to_bytes().unwrap());
        assert!(matches!(read, Err(AnnouncedError::Unbound)), "{read:?}");
    }
    // Whoever told it: nobody's model is shown where the job promises more.
    let secure = Announced::from_bytes(&with(&good, rules).to_bytes().unwrap());
    assert!(matches!(secure, Err(AnnouncedError::Epidemic(EpidemicError::Secure))), "{secure:?}");
}
