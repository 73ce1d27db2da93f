#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use redb::backends::InMemoryBackend;
use selvedge_train::{Local, Schema, Shape};

use super::*;
use crate::federated::trainer::{self, Data};
use crate::federated::{JobSpec, Task};

const MODEL: &str = "wear";

fn account(path: &str) -> AccountPath {
    path.parse().unwrap()
}

fn key(byte: u8) -> Option<KeyId> {
    Some(KeyId([byte; 8]))
}

fn own(path: &str, key: Option<KeyId>) -> Labeller {
    Labeller::Own(account(path), key)
}

async fn log() -> (Store, Arc<RequestLog>) {
    let store = Store::with_backend(InMemoryBackend::new).await.unwrap();
    let log = Arc::new(RequestLog::new(store.clone(), [MODEL.to_owned()]));
    (store, log)
}

fn nobody(_: &AccountPath, _: Option<&KeyId>) -> bool {
    false
}

fn note(log: &RequestLog, id: u128, key: Option<KeyId>, values: &[f32]) {
    let rows = values.len() / 2;
    log.note((MODEL, RequestId(id)), (&account("acme"), key), rows, values.to_vec());
}

#[tokio::test]
async fn whoever_asked_gives_labels_and_nobody_else() {
    let (store, log) = log().await;
    assert!(log.keeps(MODEL) && !log.keeps("other"), "only what the configuration names");
    log.note(("other", RequestId(9)), (&account("acme"), key(1)), 1, vec![1.0, 2.0]);
    assert_eq!(log.find(RequestId(9), &Labeller::Operator).await, None);
    note(&log, 1, key(1), &[0.5, 0.25, 0.75, 1.0]);
    assert_eq!(log.examples(MODEL, &nobody).unwrap(), (vec![], vec![]), "it waits");
    for by in [own("acme", key(2)), own("acme", None), own("acme/line3", key(1))] {
        assert_eq!(log.find(RequestId(1), &by).await, None, "{by:?}");
        let refused = log.label(MODEL, RequestId(1), &by, vec![0, 1]).await.unwrap_err();
        assert!(refused.message.contains("no request of this id that you made"), "{refused:?}");
    }
    let by = own("acme", key(1));
    assert_eq!(log.find(RequestId(1), &by).await.as_deref(), Some(MODEL));
    let refused = log.label(MODEL, RequestId(1), &by, vec![1]).await.unwrap_err();
    assert!(refused.message.contains("1 labels, and the request asked about 2"), "{refused:?}");
    let mut changes = log.changes();
    let told = log.label(MODEL, RequestId(1), &by, vec![0, 1]).await.unwrap();
    assert_eq!(told, Labelled { model: MODEL.to_owned(), kept: 1, forgotten: 0 });
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    // Somebody who looks again says otherwise; an operator may too, and it is one request still.
    let told = log.label(MODEL, RequestId(1), &Labeller::Operator, vec![1, 1]).await.unwrap();
    assert_eq!(told.kept, 1);
    let all = (vec![0.5, 0.25, 0.75, 1.0], vec![1, 1]);
    assert_eq!(log.examples(MODEL, &nobody).unwrap(), all);
    // A node that starts again has what had labels.
    let again = Arc::new(RequestLog::new(store, [MODEL.to_owned()]));
    assert_eq!(again.examples(MODEL, &nobody).unwrap(), all);
    assert_eq!(again.find(RequestId(1), &by).await.as_deref(), Some(MODEL));
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_the_oldest_go_first() {
    let (_store, log) = log().await;
    for id in 0..=MAX_WAITING as u128 {
        note(&log, id, None, &[id as f32, 0.0]);
    }
    assert_eq!(log.find(RequestId(0), &Labeller::Operator).await, None, "it made room");
    assert!(log.find(RequestId(1), &Labeller::Operator).await.is_some());
    // Half of all values that may wait: of three such requests two do, and all else is gone.
    for id in 1..4 {
        note(&log, id << 64, None, &vec![id as f32; MAX_WAITING_VALUES / 2]);
    }
    let found = |id: u128| log.find(RequestId(id), &Labeller::Operator);
    assert!(found(1).await.is_none() && found(1 << 64).await.is_none());
    assert!(found(2 << 64).await.is_some() && found(3 << 64).await.is_some());
    note(&log, 77, None, &vec![0.0; MAX_WAITING_VALUES + 2]);
    assert!(found(77).await.is_none(), "no record would hold it");
    let rows = MAX_WAITING_VALUES / 2;
    for id in 0..5_u128 {
        note(&log, id, None, &vec![id as f32; MAX_WAITING_VALUES]);
        let labels = vec![0; rows];
        let told = log.label(MODEL, RequestId(id), &Labeller::Operator, labels).await.unwrap();
        let (kept, forgotten) = if id == 4 { (4, 1) } else { (id as u64 + 1, 0) };
        assert_eq!((told.kept, told.forgotten), (kept, forgotten), "{id}");
    }
    let (values, labels) = log.examples(MODEL, &nobody).unwrap();
    assert_eq!((values.len(), labels.len()), (MAX_KEPT_VALUES, 4 * rows));
    assert_eq!(values[0], 1.0, "the oldest went first");
}

#[tokio::test]
async fn what_a_key_asked_goes_with_the_key() {
    let (_store, log) = log().await;
    for (id, byte) in [(1, 1), (2, 2), (3, 1)] {
        note(&log, id, key(byte), &[id as f32, 0.0]);
    }
    for id in [1, 2] {
        log.label(MODEL, RequestId(id), &Labeller::Operator, vec![0]).await.unwrap();
    }
    // Where the node has only heard that the key is refused, nothing is learned from it.
    let barred = |_: &AccountPath, key: Option<&KeyId>| key == Some(&KeyId([1; 8]));
    assert_eq!(log.examples(MODEL, &barred).unwrap(), (vec![2.0, 0.0], vec![0]));
    log.forget_key(KeyId([1; 8])).await.unwrap();
    assert_eq!(log.examples(MODEL, &nobody).unwrap(), (vec![2.0, 0.0], vec![0]));
    for id in [1, 3] {
        assert_eq!(log.find(RequestId(id), &Labeller::Operator).await, None, "{id}");
    }
    assert_eq!(log.forget(MODEL).await.unwrap(), 1);
    assert_eq!(log.examples(MODEL, &nobody).unwrap(), (vec![], vec![]));
    assert!(log.forget("other").await.is_err());
}

/// What was asked and labelled is what a client trains on, held against the job as any data are.
#[tokio::test]
async fn a_job_trains_on_labelled_requests() {
    let (_store, log) = log().await;
    for id in 0..40_u128 {
        let (heat, cold) = ((id % 10) as f32 / 10.0, (id % 7) as f32 / 7.0);
        note(&log, id, None, &[heat, cold]);
        let label = u32::from(heat > cold);
        log.label(MODEL, RequestId(id), &Labeller::Operator, vec![label]).await.unwrap();
    }
    let text = "name = 'wear'\ndata = 'log'\nrounds = 3\nheld_out_permille = 200\n\
         [model]\nshape = { flat = 2 }\nclasses = 2\n\
         [training]\nepochs = 1\nbatch = 8\nlearning_rate = 0.1\n";
    let spec = JobSpec::from_toml(text, &|_| Err("none".to_owned())).unwrap();
    let seat = |byte: u8| selvedge_federated::round::Seat {
        node: selvedge_base::NodeId([byte; 32]),
        key: [byte; 32],
    };
    let seats: Vec<_> = (1..6).map(seat).collect();
    let first = Task::digest_of(&Task::weights(&spec.subject, spec.seed).unwrap());
    let told = spec.told(7, &seats, first, seats[0].node).unwrap();
    let (values, labels) = log.examples(MODEL, &nobody).unwrap();
    let data = Data::of(&told.task, values.clone(), labels).unwrap();
    assert_eq!(data.len(), 32, "and eight are held out");
    let (tip, local) = (told.first().unwrap(), Local::new().unwrap());
    let learned =
        trainer::train(&local, &told.job, &told.task, &data, (&tip, &[]), &[7; 32]).unwrap();
    assert_eq!(learned.examples, 32);
    assert!(learned.delta.iter().any(|value| *value != 0.0));
    // Of another shape, or of more classes, they do not fit.
    let beyond = vec![2; 40];
    let why = Data::of(&told.task, values.clone(), beyond).err().unwrap().to_string();
    assert!(why.contains("the label 2, and the job has 2 classes"), "{why}");
    let schema = Schema { shape: Shape::Flat(3), classes: 2 };
    assert!(selvedge_train::Examples::new(schema, values, vec![0; 40]).is_err());
}
