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
    let store = Store::with_backend(InMemoryBackend::new()).await.expect("opens");
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
