use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use redb::backends::InMemoryBackend;

#[tokio::test]
async fn what_was_saved_is_loaded_after_reopening() {
    let folder = std::env::temp_dir().join(format!("selvedge-store-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let path = folder.join("state.redb");
    let store = Store::open(&path).await.expect("opens");
    assert_eq!(store.load::<u32>("a").expect("reads"), None);
    store.save("a", &7u32).await.expect("saves");
    store.close().await;
    drop(store);
    let store = Store::open(&path).await.expect("opens again");
    assert_eq!(store.load::<u32>("a").expect("reads"), Some(7));
    std::fs::remove_dir_all(&folder).expect("cleans up");
}

/// The first start was cut off while the file was made: what is left of it is made anew.
#[tokio::test]
async fn a_file_that_was_half_made_is_made_again() {
    let folder = std::env::temp_dir().join(format!("selvedge-made-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let (path, beside) = (folder.join("state.redb"), folder.join("state.redb.new"));
    for (at, left) in [&b""[..], b"redb", &[0; 5_000]].into_iter().enumerate() {
        std::fs::write(&beside, left).expect("written");
        // As whoever locks it, or an earlier start, left it.
        (at > 0).then(|| std::fs::write(&path, b"").expect("written"));
        let store = Store::open(&path).await.expect("opens");
        store.save("a", &7u32).await.expect("saves");
        store.close().await;
        assert!(!beside.exists(), "what is left is gone");
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "its owner's alone");
        std::fs::remove_file(&path).expect("removed");
    }
    std::fs::create_dir(&beside).expect("a folder in its place");
    let refused = Store::open(&path).await.err().expect("refused");
    assert!(refused.to_string().contains("state.redb"), "{refused}");
    assert_eq!(std::fs::metadata(&path).map(|made| made.len()).ok(), Some(0));
    std::fs::remove_dir(&beside).expect("removed");
    // Of two that start at once one has the lock: the other one makes nothing.
    let held = std::fs::File::open(&path).expect("opens");
    held.try_lock().expect("locks");
    assert!(make(&path).is_err_and(|why| why.contains("another process")));
    assert_eq!(std::fs::metadata(&path).map(|made| made.len()).ok(), Some(0));
    drop(held);
    let store = Store::open(&path).await.expect("opens");
    store.save("a", &7u32).await.expect("saves");
    assert!(Store::open(&path).await.is_err(), "a second node");
    assert_eq!(store.load::<u32>("a").expect("reads"), Some(7));
    store.close().await;
    std::fs::remove_dir_all(&folder).expect("cleans up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_can_be_opened_again_at_once() {
    let folder = std::env::temp_dir().join(format!("selvedge-reopen-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let path = folder.join("state.redb");
    for round in 0..50u32 {
        let store = Store::open(&path).await.expect("opens, as nothing of the last one is left");
        store.save("round", &round).await.expect("saves");
        store.close().await;
    }
    std::fs::remove_dir_all(&folder).expect("cleans up");
}

#[tokio::test]
async fn concurrent_writers_are_all_answered() {
    let store = Store::with_backend(InMemoryBackend::new).await.expect("opens");
    let writes = (0..100u32).map(|n| {
        let store = store.clone();
        async move { store.save(&format!("record {n}"), &n).await }
    });
    for result in futures::future::join_all(writes).await {
        result.expect("committed");
    }
    assert_eq!(store.load::<u32>("record 99").expect("reads"), Some(99));
}

#[test]
fn damaged_and_future_records_are_named() {
    let mut bytes = encode("x", &"hello").expect("small");
    assert_eq!(decode::<String>("x", &bytes).expect("reads"), "hello");
    bytes.push(0);
    assert!(matches!(decode::<String>("x", &bytes), Err(StoreError::Damaged { .. })));
    bytes[0] = 9;
    assert!(matches!(decode::<String>("x", &bytes), Err(StoreError::Version { version: 9, .. })));
    assert!(matches!(decode::<String>("x", &[]), Err(StoreError::Damaged { .. })));
    let huge = vec![0u8; MAX_RECORD + 1];
    assert!(matches!(encode("x", &huge), Err(StoreError::TooLarge { .. })));
}

/// A disk in memory that can be full.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl Disk {
    /// From now on there is no room, or there is.
    pub(crate) fn fill(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    fn room(&self) -> Result<(), std::io::Error> {
        if self.full.load(Ordering::Relaxed) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let at = offset as usize;
        out.copy_from_slice(&self.bytes.lock()[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.room()?;
        self.bytes.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.room()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.room()?;
        let at = offset as usize;
        self.bytes.lock()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_is_used_again_when_there_is_room() {
    let disk = Disk::default();
    let backend = disk.clone();
    let store = Store::with_backend(move || backend.clone()).await.expect("opens");
    store.save("a", &1u32).await.expect("saves");
    disk.fill(true);
    for n in 2..5u32 {
        assert!(store.save("a", &n).await.is_err(), "there is no room for {n}");
    }
    disk.fill(false);
    assert_eq!(store.load::<u32>("a").expect("reads"), Some(1), "nothing of a failed write stays");
    store.save("a", &5u32).await.expect("saves again");
    assert_eq!(store.load::<u32>("a").expect("reads"), Some(5));
}

#[tokio::test]
async fn a_batch_is_written_as_a_whole_and_in_order() {
    let store = Store::with_backend(InMemoryBackend::new).await.expect("opens");
    let mut first = Batch::default();
    for n in 0..3u32 {
        first.put(&format!("row/{n}"), &n).expect("small");
    }
    first.put("rox", &9u32).expect("small");
    let mut second = Batch::default();
    second.remove("row/1");
    second.put("row/2", &7u32).expect("small");
    second.put("gone/1", &1u32).expect("small");
    second.put("gone/2", &2u32).expect("small");
    let mut third = Batch::default();
    third.remove_all("gone/".to_owned());
    third.put("gone/3", &3u32).expect("small");
    for begun in [store.begin(first), store.begin(second), store.begin(third)] {
        begun.expect("open").await.expect("answered").expect("written");
    }
    let rows = store.load_all::<u32>("row/").expect("reads");
    assert_eq!(rows, [("row/0".to_owned(), 0), ("row/2".to_owned(), 7)]);
    assert_eq!(store.load_all::<u32>("gone/").expect("reads"), [("gone/3".to_owned(), 3)]);
}
