//! The book's parts on a real store, and what builds before them left there.

use redb::backends::InMemoryBackend;
use selvedge_base::{NodeId, Wall};
use selvedge_net::Identity;
use selvedge_proto::policy::{CutOrder, KeyDraft, NewKey, sign_cut, sign_key};
use selvedge_proto::records::Roster;
use serde::de::DeserializeOwned;

use super::*;
use crate::membership::Key;

const START: Wall = Wall(1_795_384_234_000);
const ME: NodeId = NodeId([1; 32]);

/// A mesh and keys of it.
struct Site {
    root: Identity,
    keys: Vec<NewKey>,
}

impl Site {
    fn new(keys: u8) -> Self {
        let root = Identity::generate();
        let key = |number| {
            let draft = KeyDraft {
                name: format!("key {number}"),
                account: "acme".parse().expect("a path"),
                models: Vec::new(),
                routes: Vec::new(),
                not_after: None,
            };
            let mesh = MeshId(root.public());
            sign_key(&Key(&root), None, mesh, draft, [number; 32], START).expect("signs")
        };
        let keys = (0..keys).map(key).collect();
        Self { root, keys }
    }

    fn mesh(&self) -> MeshId {
        MeshId(self.root.public())
    }

    fn roster(&self) -> Roster {
        Roster::new(self.mesh(), ME)
    }

    /// A book with the first so many keys.
    fn book(&self, keys: usize) -> PolicyBook {
        let mut book = PolicyBook::new(self.mesh(), ME);
        for key in &self.keys[..keys] {
            book.apply_key(key.notice.clone(), &self.roster(), START).expect("is good");
        }
        book
    }

    fn load(&self, store: &Store) -> (OnDisk, Option<Stored>) {
        OnDisk::load(store, self.mesh(), &self.root).expect("reads")
    }

    fn read(&self, store: &Store) -> PolicyBook {
        let stored = self.load(store).1.expect("was stored");
        stored.restore(&self.roster(), START).expect("is good")
    }

    /// Whether what is stored need not be checked.
    fn is_sealed(&self, store: &Store) -> bool {
        self.load(store).1.expect("was stored").is_sealed
    }
}

/// The same with a signature that nobody made under a key.
fn forged<T: Serialize + DeserializeOwned>(told: &T, key: &NewKey) -> T {
    let mut bytes = postcard::to_stdvec(told).expect("encodes");
    let signature = key.notice.signed.signature.0;
    let mut places = bytes.windows(signature.len());
    let at = places.position(|found| found == signature.as_slice()).expect("is in it");
    bytes[at] ^= 1;
    postcard::from_bytes(&bytes).expect("decodes")
}

async fn store() -> Store {
    Store::with_backend(InMemoryBackend::new).await.expect("opens")
}

#[tokio::test]
async fn what_an_older_build_stored_is_read_and_then_kept_in_parts() {
    let (site, store) = (Site::new(4), store().await);
    let old = site.book(3);
    store.save(POLICY, &old.snapshot()).await.expect("saves");
    assert_eq!(site.read(&store).greeting(), old.greeting());
    let (on_disk, _) = site.load(&store);
    assert!(!on_disk.wants_seal(), "the older build can be gone back to until something changes");
    let more = site.book(4);
    on_disk.save(&store, &more).await.expect("saves");
    assert_eq!(site.read(&store).greeting(), more.greeting());
    // The older build says that it cannot read this, rather than begin without a policy.
    let refused = store.load::<PolicySnapshot>(POLICY).expect_err("is of another version");
    assert!(matches!(refused, StoreError::Version { version: IN_PARTS, .. }), "{refused}");
}

#[tokio::test]
async fn a_change_writes_what_changed() {
    let (site, store) = (Site::new(20), store().await);
    let (on_disk, none) = site.load(&store);
    assert!(none.is_none());
    let mut book = site.book(20);
    on_disk.save(&store, &book).await.expect("saves");
    let known = on_disk.known.lock().clone();
    let changed = |book: &PolicyBook| {
        changes(known.clone(), book, &on_disk.sealing).expect("encodes").0.len()
    };
    assert_eq!(changed(&book), 0);
    // One key goes, its cut comes, the seal is another one.
    let order = CutOrder::Key(site.keys[5].notice.signed.body.id);
    let cut = sign_cut(&Key(&site.root), None, site.mesh(), order, START).expect("signs");
    book.apply_cut(cut, &site.roster(), START).expect("is good");
    assert_eq!(changed(&book), 3);
    // So it does after a start, which reads what is there.
    let (again, _) = site.load(&store);
    let known = again.known.lock().clone();
    assert_eq!(changes(known, &book, &again.sealing).expect("encodes").0.len(), 3);
    on_disk.save(&store, &book).await.expect("saves");
    let again = site.read(&store);
    assert_eq!(again.greeting(), book.greeting());
    assert!(again.verify(&site.keys[5].secret, START).is_err());
    assert!(again.verify(&site.keys[6].secret, START).is_ok());
}

#[tokio::test]
async fn after_a_write_that_failed_everything_is_written() {
    let (site, store) = (Site::new(3), store().await);
    let (on_disk, _) = site.load(&store);
    on_disk.save(&store, &site.book(3)).await.expect("saves");
    store.close().await;
    on_disk.save(&store, &site.book(2)).await.expect_err("the store is closed");
    assert!(on_disk.known.lock().is_none(), "nobody knows what is on the disk");
}

#[tokio::test]
async fn only_what_this_node_stored_itself_has_a_seal() {
    let (site, store) = (Site::new(3), store().await);
    let (on_disk, _) = site.load(&store);
    on_disk.save(&store, &site.book(3)).await.expect("saves");
    assert!(site.is_sealed(&store));
    let (again, _) = site.load(&store);
    assert!(!again.wants_seal(), "it has one");
    // Another node's key makes another one.
    let other = Identity::generate();
    let (_, read) = OnDisk::load(&store, site.mesh(), &other).expect("reads");
    assert!(!read.expect("was stored").is_sealed);

    // One part more, one less, one that is another, and one under another's name.
    let parts = site.book(3).parts();
    let names: Vec<String> = parts.keys().map(|name| format!("{PARTS}{name}")).collect();
    let values: Vec<PolicyPart> = parts.into_values().collect();
    let spoiled = [(3, Some(0)), (2, None), (1, Some(0)), (0, Some(1))];
    for (at, put) in spoiled {
        let name = names.get(at).cloned().unwrap_or_else(|| format!("{PARTS}key more"));
        match put {
            Some(value) => store.save(&name, &values[value]).await.expect("saves"),
            None => store.remove(&name).await.expect("removes"),
        }
        assert!(!site.is_sealed(&store), "{name} was changed");
        // A start writes it once more, after which it is as it should be.
        let (on_disk, _) = site.load(&store);
        assert!(on_disk.wants_seal() && !on_disk.wants_seal(), "once");
        on_disk.save(&store, &site.book(3)).await.expect("saves");
        assert!(site.is_sealed(&store));
    }
    // No seal, and one that cannot be read.
    store.remove(SEAL).await.expect("removes");
    assert!(!site.is_sealed(&store));
    store.save(SEAL, &7u8).await.expect("saves");
    assert!(!site.is_sealed(&store));
    assert_eq!(site.read(&store).greeting(), site.book(3).greeting());
}

#[tokio::test]
async fn a_forged_key_that_fits_no_seal_is_left_out() {
    let (site, store) = (Site::new(2), store().await);
    let (on_disk, _) = site.load(&store);
    let book = site.book(2);
    on_disk.save(&store, &book).await.expect("saves");
    let [first, second] = [0, 1].map(|at| site.keys[at].notice.signed.body.id);
    let (name, parts) = (format!("key {first}"), book.parts());
    let part = forged(&parts[&name], &site.keys[0]);
    store.save(&format!("{PARTS}{name}"), &part).await.expect("saves");
    let read = site.read(&store);
    assert!(read.key(&first).is_none(), "nobody signed it");
    assert!(read.key(&second).is_some(), "it is as it was");
}

/// What no node does by itself: it shows that the signatures of what is sealed are not looked at.
#[tokio::test]
async fn what_fits_the_seal_is_not_checked_again() {
    let (site, store) = (Site::new(1), store().await);
    let (on_disk, _) = site.load(&store);
    let unchecked = forged(&site.book(1).snapshot(), &site.keys[0]);
    let book = PolicyBook::from_own_snapshot(unchecked, &site.roster(), START).expect("is taken");
    on_disk.save(&store, &book).await.expect("saves");
    assert!(site.is_sealed(&store));
    assert_eq!(site.read(&store).keys().count(), 1);
    // Another node's key makes another seal, so that it looks.
    let (_, read) = OnDisk::load(&store, site.mesh(), &Identity::generate()).expect("reads");
    let read = read.expect("was stored").restore(&site.roster(), START).expect("is good");
    assert_eq!(read.keys().count(), 0);
}
