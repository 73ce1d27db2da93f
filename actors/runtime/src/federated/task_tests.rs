#![allow(clippy::unwrap_used)]

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
    let spec = JobSpec::from_toml(&text).unwrap();
    let seat = |_| {
        let identity = Identity::generate();
        let key = sealing_key(&identity.node_id()).unwrap();
        let opens = OpeningKey::from_bytes(*identity.opening_secret());
        assert_eq!(opens.public(), key, "what is sealed to a node opens there");
        Seat { node: identity.node_id(), key }
    };
    let seats: Vec<Seat> = (0..5).map(seat).collect();
    let first = Task::digest_of(&Task::weights(&spec.model, spec.seed).unwrap());
    spec.told(7, &seats, first, seats[0].node).unwrap()
}

#[test]
fn a_job_is_read_as_it_was_told() {
    let told = told(3);
    let bytes = told.to_bytes().unwrap();
    assert_eq!(Announced::from_bytes(&bytes).unwrap(), told);
    let tip = told.first().unwrap();
    assert_eq!((tip.job, tip.round), (told.job.digest(), 0));
    assert!(matches!(Announced::from_bytes(&[2, 1]), Err(AnnouncedError::Version(2))));
    for end in 0..bytes.len() {
        assert!(Announced::from_bytes(&bytes[..end]).is_err(), "{end}");
    }
}

#[test]
fn rules_and_task_belong_together() {
    let good = told(3);
    let mut others = vec![good.clone(), good.clone(), good.clone(), good.clone()];
    others[0].task.training.epochs += 1;
    others[1].task.data = "others".to_owned();
    others[2].task.first = [0; 32];
    others[3].task.model.hidden = vec![selvedge_train::Layer::Dense(3)];
    for other in others {
        let read = Announced::from_bytes(&other.to_bytes().unwrap());
        assert!(matches!(read, Err(AnnouncedError::Unbound)), "{read:?}");
    }
    let mut other = good.clone();
    other.task.first = [0; 32];
    other.job.task = other.task.digest().unwrap();
    let read = Announced::from_bytes(&other.to_bytes().unwrap()).unwrap();
    assert_ne!(read.job.digest(), good.job.digest());
    assert!(matches!(read.first(), Err(AnnouncedError::First)));
}

#[test]
fn a_name_that_is_no_key_can_be_sealed_to_by_nobody() {
    assert_eq!(sealing_key(&NodeId([0; 32])), None);
}
