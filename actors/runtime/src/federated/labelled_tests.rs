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

/// What a job of two values and two classes reads.
fn read(log: &RequestLog, model: &str) -> (Vec<f32>, Vec<u32>) {
    let read = log.examples(model, (2, 2), &nobody).unwrap();
    assert_eq!((read.draws.len(), read.unfit), (read.labels.len(), 0));
    (read.values, read.labels)
}

async fn by_operator(log: &Arc<RequestLog>, id: u128, labels: &[u32]) -> Labelled {
    log.label(MODEL, RequestId(id), &Labeller::Operator, labels.to_vec()).await.unwrap()
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
    assert_eq!(read(&log, MODEL), (vec![], vec![]), "it waits");
    for by in [own("acme", key(2)), own("acme", None), own("acme/line3", key(1))] {
        assert_eq!(log.find(RequestId(1), &by).await, None, "{by:?}");
        let refused = log.label(MODEL, RequestId(1), &by, vec![0, 1]).await.unwrap_err();
        assert!(refused.message.contains("no request of this id that you made"), "{refused:?}");
    }
    let by = own("acme", key(1));
    assert_eq!(log.find(RequestId(1), &by).await.as_deref(), Some(MODEL));
    let refused = log.label(MODEL, RequestId(1), &by, vec![1]).await.unwrap_err();
    assert!(refused.message.contains("1 labels, and the request asked about 2"), "{refused:?}");
    let mut changes = log.changes([MODEL.to_owned()].into());
    let others = log.changes(["other".to_owned()].into());
    let told = log.label(MODEL, RequestId(1), &by, vec![0, 1]).await.unwrap();
    assert_eq!(told, Labelled { model: MODEL.to_owned(), kept: 1, forgotten: 0 });
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    // Somebody who looks again says otherwise; an operator may too, and it is one request still.
    let told = log.label(MODEL, RequestId(1), &Labeller::Operator, vec![1, 1]).await.unwrap();
    assert_eq!(told.kept, 1);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    // Who says the same again gives nothing to learn.
    let told = log.label(MODEL, RequestId(1), &by, vec![1, 1]).await.unwrap();
    assert_eq!((told.kept, changes.has_changed().unwrap()), (1, false));
    assert!(!others.has_changed().unwrap(), "it is of another model");
    let all = (vec![0.5, 0.25, 0.75, 1.0], vec![1, 1]);
    assert_eq!(read(&log, MODEL), all);
    // A node that starts again has what had labels.
    let again = Arc::new(RequestLog::new(store, [MODEL.to_owned()]));
    assert_eq!(read(&again, MODEL), all);
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
    let (values, labels) = read(&log, MODEL);
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
    assert_eq!(log.examples(MODEL, (2, 2), &barred).unwrap().values, [2.0, 0.0]);
    let mut changes = log.changes([MODEL.to_owned()].into());
    assert_eq!(log.forget_key(KeyId([9; 8])).await.unwrap(), 0);
    assert!(!changes.has_changed().unwrap(), "nothing went");
    assert_eq!(log.forget_key(KeyId([1; 8])).await.unwrap(), 2);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(log.forget_key(KeyId([1; 8])).await.unwrap(), 0, "again, as after a failure");
    assert_eq!(read(&log, MODEL), (vec![2.0, 0.0], vec![0]));
    for id in [1, 3] {
        assert_eq!(log.find(RequestId(id), &Labeller::Operator).await, None, "{id}");
    }
    assert_eq!(log.forget(MODEL).await.unwrap(), 1);
    assert_eq!(read(&log, MODEL), (vec![], vec![]));
    assert!(log.forget("other").await.is_err());
}

/// A table that is taken out of the configuration leaves nothing that cannot be forgotten.
#[tokio::test]
async fn what_no_table_names_any_more_is_forgotten_too() {
    let (store, log) = log().await;
    for id in 1..4_u128 {
        note(&log, id, key(id as u8), &[id as f32, 0.0]);
        by_operator(&log, id, &[0]).await;
    }
    let bare = Arc::new(RequestLog::new(store.clone(), []));
    assert_eq!(bare.forget_key(KeyId([2; 8])).await.unwrap(), 1);
    assert_eq!(store.names(PREFIX).unwrap().len(), 2);
    assert_eq!(bare.forget(MODEL).await.unwrap(), 2);
    assert_eq!(store.names(PREFIX).unwrap(), Vec::<String>::new());
    let refused = bare.forget(MODEL).await.unwrap_err();
    assert!(refused.message.contains("none are left on the disk"), "{refused:?}");
}

/// What the disk did not take is as it was: it is found, and can be forgotten later.
#[tokio::test]
async fn what_the_disk_refuses_is_still_there() {
    let (store, log) = log().await;
    note(&log, 1, key(1), &[1.0, 0.0]);
    by_operator(&log, 1, &[0]).await;
    note(&log, 2, key(1), &[2.0, 0.0]);
    // A closed store takes no change, and refuses to be read too.
    store.close().await;
    assert!(log.label(MODEL, RequestId(2), &Labeller::Operator, vec![0]).await.is_err());
    assert!(log.waiting[MODEL].lock().iter().any(|one| one.id == RequestId(2)));
    assert!(!log.on_disk.lock().await.contains_key(MODEL), "it is read again when it is needed");
    assert!(log.forget(MODEL).await.is_err());
    assert!(log.forget_key(KeyId([1; 8])).await.is_err());
}

#[tokio::test]
async fn nobody_pushes_out_what_others_gave() {
    let (_store, log) = log().await;
    let whose = |path: &str| (account(path), None);
    let ask = |id: u128, path: &str| {
        let (account, key) = whose(path);
        log.note((MODEL, RequestId(id)), (&account, key), 1, vec![0.0, 0.0]);
    };
    ask(0, "small");
    for id in 1..=2 * MAX_WAITING as u128 {
        ask(id, "greedy");
    }
    let waits = |id: u128| log.waiting[MODEL].lock().iter().any(|one| one.id == RequestId(id));
    assert_eq!(log.waiting[MODEL].lock().len(), MAX_WAITING);
    assert!(waits(0) && waits(2 * MAX_WAITING as u128) && !waits(1), "its own oldest went");
    by_operator(&log, 0, &[1]).await;
    let rows = MAX_WAITING_VALUES / 2;
    for id in 0..5_u128 {
        let (account, key) = whose("greedy");
        let values = vec![0.0; MAX_WAITING_VALUES];
        log.note((MODEL, RequestId((id << 64) + 1)), (&account, key), rows, values);
        by_operator(&log, (id << 64) + 1, &vec![0; rows]).await;
    }
    let on_disk = log.on_disk.lock().await;
    let small = on_disk[MODEL].iter().filter(|row| row.whose.account == "small").count();
    assert_eq!((small, on_disk[MODEL].len()), (1, 4), "the one of the small account stayed");
}

/// Rows of a model that was given another shape, or fewer classes, since.
#[tokio::test]
async fn rows_that_do_not_fit_are_left_out_and_counted() {
    let (_store, log) = log().await;
    note(&log, 1, None, &[1.0, 0.0, 2.0, 0.0]);
    by_operator(&log, 1, &[0, 7]).await;
    log.note((MODEL, RequestId(2)), (&account("acme"), None), 1, vec![3.0; 3]);
    by_operator(&log, 2, &[1]).await;
    let read = log.examples(MODEL, (2, 2), &nobody).unwrap();
    assert_eq!((read.values, read.labels, read.unfit), (vec![1.0, 0.0], vec![0], 2));
    let read = log.examples(MODEL, (3, 2), &nobody).unwrap();
    assert_eq!((read.values, read.labels, read.unfit), (vec![3.0; 3], vec![1], 2));
    // Whoever asks about values that nobody can learn from spoils no other's examples.
    note(&log, 3, None, &[2e6, 0.0]);
    by_operator(&log, 3, &[0]).await;
    let read = log.examples(MODEL, (2, 2), &nobody).unwrap();
    assert_eq!((read.values, read.unfit), (vec![1.0, 0.0], 3));
}

/// Which examples are held out follows from each alone: what comes and goes moves none over.
#[tokio::test]
async fn an_example_is_on_one_side_for_ever() {
    let (_store, log) = log().await;
    for id in 0..64_u128 {
        note(&log, id, key((id % 2) as u8), &[id as f32, 0.0]);
        by_operator(&log, id, &[0]).await;
    }
    let sides = || -> BTreeMap<u32, u16> {
        let read = log.examples(MODEL, (2, 2), &nobody).unwrap();
        let which = read.values.chunks_exact(2).map(|row| row[0] as u32);
        which.zip(read.draws).collect()
    };
    let before = sides();
    let held_out = before.values().filter(|draw| **draw < 250).count();
    assert!((6..30).contains(&held_out), "{held_out} of 64 at a quarter");
    assert!(before.values().all(|draw| *draw < 1_000));
    log.forget_key(KeyId([0; 8])).await.unwrap();
    let after = sides();
    assert_eq!(after.len(), 32);
    assert!(after.iter().all(|(id, draw)| before[id] == *draw));
    assert_ne!(draw(1, 0), draw(1, 1), "rows of a request are drawn each");
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
    let lessons = log.examples(MODEL, (2, 2), &nobody).unwrap();
    let out = lessons.draws.iter().filter(|draw| **draw < 200).count();
    assert!((1..20).contains(&out), "{out} of 40 are held out at a fifth");
    let (values, all) = (lessons.values.clone(), lessons.draws.clone());
    let data = Data::of(&told.task, lessons).unwrap();
    assert_eq!(data.len(), 40 - out);
    let (tip, local) = (told.first().unwrap(), Local::new().unwrap());
    let learned =
        trainer::train(&local, &told.job, &told.task, &data, (&tip, &[]), &[7; 32]).unwrap();
    assert_eq!(learned.examples as usize, 40 - out);
    assert!(learned.delta.iter().any(|value| *value != 0.0));
    // Something must be left to train on.
    let one = |values: &[f32]| Lessons {
        values: values.to_vec(),
        labels: vec![0],
        draws: vec![0],
        unfit: 0,
    };
    let why = Data::of(&told.task, one(&values[..2])).err().unwrap().to_string();
    assert!(why.contains("no examples for the job but 1 that are held out"), "{why}");
    // Of another shape, or of more classes, they do not fit.
    let beyond = Lessons { values: values.clone(), labels: vec![2; 40], draws: all, unfit: 0 };
    let why = Data::of(&told.task, beyond).err().unwrap().to_string();
    assert!(why.contains("the label 2, and the job has 2 classes"), "{why}");
    let schema = Schema { shape: Shape::Flat(3), classes: 2 };
    assert!(selvedge_train::Examples::new(schema, values, vec![0; 40]).is_err());
}
