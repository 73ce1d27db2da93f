use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use selvedge_base::Wall;

use super::{KeyListing, MAX_ENTRIES, Pending, Secret, VERSION, Vault, VaultError, VaultStore};

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("vault");
const PLANTED: &str = "sk-planted-AbCdEf0123456789";
const NODE: [u8; 32] = [7; 32];

/// A real redb file, held in memory by redb's own backend.
struct File(Database);

impl File {
    fn new() -> Arc<Self> {
        let backend = redb::backends::InMemoryBackend::new();
        let file = Self(Database::builder().create_with_backend(backend).unwrap());
        let write = file.0.begin_write().unwrap();
        write.open_table(TABLE).unwrap();
        write.commit().unwrap();
        Arc::new(file)
    }

    fn change(&self, name: &str, sealed: Option<&[u8]>) -> Result<(), redb::Error> {
        let write = self.0.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            match sealed {
                Some(sealed) => drop(table.insert(name, sealed)?),
                None => drop(table.remove(name)?),
            }
        }
        Ok(write.commit()?)
    }
}

impl VaultStore for File {
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        let read = self.0.begin_read().map_err(|error| error.to_string())?;
        let table = read.open_table(TABLE).map_err(|error| error.to_string())?;
        let entries = table.iter().map_err(|error| error.to_string())?;
        let entry =
            |entry: Result<(redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>), _>| {
                let (name, sealed) =
                    entry.map_err(|error: redb::StorageError| error.to_string())?;
                Ok((name.value().to_owned(), sealed.value().to_vec()))
            };
        entries.map(entry).collect()
    }

    fn save(&self, name: &str, sealed: Vec<u8>) -> Pending<'_> {
        let done = self.change(name, Some(&sealed)).map_err(|error| error.to_string());
        Box::pin(std::future::ready(done))
    }

    fn remove(&self, name: &str) -> Pending<'_> {
        let done = self.change(name, None).map_err(|error| error.to_string());
        Box::pin(std::future::ready(done))
    }
}

fn open(file: &Arc<File>, node: [u8; 32]) -> (Vault, Vec<VaultError>) {
    Vault::open(Vault::derive(&node), Arc::clone(file) as Arc<dyn VaultStore>).unwrap()
}

async fn add(vault: &Vault, name: &str, key: &str, nonce: u8) -> Result<(), VaultError> {
    vault.add(name, Secret::new(key.to_owned()), Wall(5), [nonce; 24]).await
}

#[tokio::test]
async fn keys_survive_a_restart_and_lie_sealed_on_the_disk() {
    let file = File::new();
    let (vault, closed) = open(&file, NODE);
    assert_eq!(closed, []);
    add(&vault, "main", PLANTED, 1).await.unwrap();
    drop(vault);
    for (name, sealed) in file.load().unwrap() {
        assert_eq!((name.as_str(), sealed[0]), ("main", VERSION));
        for length in 6..PLANTED.len() {
            let part = &PLANTED.as_bytes()[..length];
            assert!(!sealed.windows(part.len()).any(|window| window == part));
        }
    }
    let (vault, closed) = open(&file, NODE);
    assert_eq!(closed, []);
    assert_eq!(vault.secret("main").map(|key| key.expose().to_owned()), Some(PLANTED.to_owned()));
    let listed = KeyListing { name: "main".to_owned(), hint: "6789".to_owned(), added: Wall(5) };
    assert_eq!(vault.list(), [listed]);
    vault.remove("main").await.unwrap();
    assert_eq!(vault.secret("main"), None);
    assert_eq!(file.load().unwrap(), []);
    assert_eq!(vault.remove("main").await, Err(VaultError::Unknown("main".to_owned())));
}

#[tokio::test]
async fn entries_do_not_open_elsewhere_under_another_name_or_changed() {
    let file = File::new();
    let (vault, _) = open(&file, NODE);
    add(&vault, "main", PLANTED, 1).await.unwrap();
    let sealed = file.load().unwrap().remove(0).1;
    let (_, closed) = open(&file, [8; 32]);
    assert_eq!(closed, [VaultError::Sealed("main".to_owned())], "another node's key");
    file.change("other", Some(&sealed)).unwrap();
    let (vault, closed) = open(&file, NODE);
    assert_eq!(closed, [VaultError::Sealed("other".to_owned())]);
    assert!(vault.secret("main").is_some(), "the good ones still open");
    file.remove("other").await.unwrap();
    for place in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[place] ^= 1;
        file.change("main", Some(&changed)).unwrap();
        let (vault, closed) = open(&file, NODE);
        assert_eq!((vault.list().len(), closed.len()), (0, 1), "byte {place}");
        file.change("main", Some(&sealed[..place])).unwrap();
        assert_eq!(open(&file, NODE).1.len(), 1, "cut at {place}");
    }
    file.change("main", Some(&[9, 9])).unwrap();
    let newer = VaultError::Version { name: "main".to_owned(), version: 9 };
    assert_eq!(open(&file, NODE).1, [newer]);
}

#[tokio::test]
async fn what_is_no_name_or_no_key_is_refused_and_not_repeated() {
    let file = File::new();
    let (vault, _) = open(&file, NODE);
    let mixed_up = add(&vault, "sk/planted", "main", 1).await.expect_err("a key for a name");
    assert!(!mixed_up.to_string().contains("planted"), "{mixed_up}");
    for key in ["", "two words", "line\r\nbreak", "ключ"] {
        assert_eq!(add(&vault, "main", key, 1).await, Err(VaultError::Key));
    }
    assert_eq!(add(&vault, "main", &"x".repeat(4_097), 1).await, Err(VaultError::Key));
    assert_eq!(vault.list(), []);
    add(&vault, "main", PLANTED, 1).await.unwrap();
    let shown = format!("{vault:?} {:?} {:?}", vault.list(), vault.secret("main"));
    assert!(!shown.contains("planted"), "{shown}");
}

#[tokio::test]
async fn it_is_bounded_and_replaces_by_name() {
    let file = File::new();
    let (vault, _) = open(&file, NODE);
    for n in 0..MAX_ENTRIES {
        add(&vault, &format!("k{n}"), PLANTED, 1).await.unwrap();
    }
    assert_eq!(add(&vault, "more", PLANTED, 1).await, Err(VaultError::Full));
    add(&vault, "k0", "sk-another-0123456789", 2).await.unwrap();
    assert_eq!(vault.list().len(), MAX_ENTRIES);
}
