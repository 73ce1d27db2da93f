use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use selvedge_contract::{Answer, Engine as _, Input};
use selvedge_kernels::{Crew, Logits, Model, Segment};

use super::file::{ALIGN, HEADER};
use super::*;
use crate::gguf::Gguf;
use crate::packed;
use crate::testing::{
    Directory, Family, Outlet, Temporary, Writer, collect, engine, request, temporary,
};
use crate::{EngineConfig, LocalEngine};

const FIRST: ModelDigest = ModelDigest([1; 32]);
const SECOND: ModelDigest = ModelDigest([2; 32]);
const THIRD: ModelDigest = ModelDigest([3; 32]);

fn keeping(directory: &Directory) -> Keeping {
    Keeping { directory: directory.path().join("packed"), max_bytes: 1 << 30 }
}

fn tiny(seed: u64) -> (Temporary, Gguf) {
    opened(&Writer::tiny(seed))
}

fn opened(writer: &Writer) -> (Temporary, Gguf) {
    let file = temporary(&writer.bytes());
    let gguf = Gguf::open(file.path()).expect("well formed");
    (file, gguf)
}

fn load(gguf: &Gguf, keeping: &Keeping, digest: ModelDigest) -> Model {
    packed::load_kept(gguf, (keeping, digest), 2, &|| ()).expect("loads")
}

/// A model from the file that is there, or why there is none.
fn mapped(gguf: &Gguf, keeping: &Keeping, digest: ModelDigest) -> Result<Model, String> {
    let found = keeping.find(&Identity::of(digest, gguf)).map_err(|why| why.to_string())?;
    let found = found.ok_or("nothing is there")?;
    let config = packed::checked(gguf).expect("a model");
    packed::load_with(gguf, config, (2, Some(&found)), &|| ()).map_err(|why| why.to_string())
}

fn logits(model: &Model) -> Vec<u32> {
    let tokens: Vec<u32> = (0..40).map(|at| at * 37 % 48).collect();
    let (mut crew, mut cache) = (Crew::new(2).expect("threads"), model.cache());
    let segment = Segment { cache: &mut cache, tokens: &tokens, logits: Logits::All, added: None };
    let computed = model.step(&mut crew, &mut [segment], &AtomicU64::new(0)).expect("computes");
    computed.into_iter().flatten().flatten().map(f32::to_bits).collect()
}

fn alone(gguf: &Gguf) -> Vec<u32> {
    logits(&packed::load(gguf, 2, &|| ()).expect("loads"))
}

/// The directory's files but for locks, by name.
fn files(keeping: &Keeping) -> Vec<String> {
    let all = keeping.entries().filter(|(.., ending)| *ending != LOCK);
    let name = |path: PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    let mut names: Vec<String> = all.map(|(path, ..)| name(path)).collect();
    names.sort();
    names
}

fn whole(digest: ModelDigest) -> String {
    format!("{digest}{WHOLE}")
}

/// Puts a file there as a load would, in place of what is there.
fn place(path: &Path, bytes: &[u8]) {
    gone(path).expect("removed");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).expect("made");
    io::Write::write_all(&mut file, bytes).expect("written");
}

/// Has the header's digest say that it is whole.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = blake3::hash(&bytes[..160]);
    bytes[160..HEADER].copy_from_slice(digest.as_bytes());
    bytes
}

#[test]
fn a_mapped_model_is_the_packed_one_bit_for_bit() {
    let mut writers = vec![Writer::tiny(3), Writer::tiny(3).without("output.weight")];
    writers.extend(Family::NAMES.map(|name| Family::read(name).writer));
    for writer in writers {
        let (directory, (_file, gguf)) = (Directory::new(), opened(&writer));
        let (keeping, advanced) = (keeping(&directory), AtomicU64::new(0));
        let count = || {
            advanced.fetch_add(1, Ordering::Relaxed);
        };
        let expected = logits(&packed::load(&gguf, 2, &count).expect("loads"));
        let steps = advanced.swap(0, Ordering::Relaxed);
        for way in ["packed and kept", "mapped"] {
            let model = packed::load_kept(&gguf, (&keeping, FIRST), 2, &count).expect("loads");
            assert!(model.is_kept(), "{way}");
            assert!(logits(&model) == expected, "{way}");
            assert_eq!(advanced.swap(0, Ordering::Relaxed), steps, "{way}: each tensor once");
            assert_eq!(files(&keeping), [whole(FIRST)], "{way}");
        }
        assert!(mapped(&gguf, &keeping, FIRST).is_ok(), "the second load had a file to map");
        let path = keeping.path(FIRST, WHOLE);
        let mode = std::fs::metadata(path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let (directory, (_file, gguf)) = (Directory::new(), tiny(1));
    let (keeping, expected) = (keeping(&directory), alone(&gguf));
    drop(load(&gguf, &keeping, FIRST));
    let path = keeping.path(FIRST, WHOLE);
    let bytes = std::fs::read(&path).expect("is there");
    let table = u64::from_le_bytes(*bytes[80..].first_chunk().expect("a header")) as usize;
    assert!(table > HEADER && table < bytes.len());
    // All of the header and of the table, and of the tiles some bytes in each matrix.
    let tiles = (HEADER..table).step_by(89).chain([HEADER, table - 1]);
    for at in (0..HEADER).chain(table..bytes.len()).chain(tiles) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        place(&path, &flipped);
        assert!(mapped(&gguf, &keeping, FIRST).is_err(), "byte {at}");
    }
    place(&path, &bytes);
    assert!(logits(&mapped(&gguf, &keeping, FIRST).expect("is as it was")) == expected);
    // And packed anew.
    for at in [0, HEADER, table] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        place(&path, &flipped);
        assert!(logits(&load(&gguf, &keeping, FIRST)) == expected);
        assert!(mapped(&gguf, &keeping, FIRST).is_ok(), "byte {at}: it was made anew");
    }
}

#[test]
fn a_file_that_was_cut_short_or_goes_on_is_found() {
    let (directory, (_file, gguf)) = (Directory::new(), tiny(1));
    let (keeping, expected) = (keeping(&directory), alone(&gguf));
    drop(load(&gguf, &keeping, FIRST));
    let path = keeping.path(FIRST, WHOLE);
    let bytes = std::fs::read(&path).expect("is there");
    let table = u64::from_le_bytes(*bytes[80..].first_chunk().expect("a header")) as usize;
    let matrices = (HEADER..table).step_by(ALIGN as usize * 7);
    let edges = [0, 1, 7, 8, 159, 160, 191, 192, 193, table - 1, table, table + 1, bytes.len() - 1];
    for length in edges.into_iter().chain(matrices) {
        place(&path, &bytes[..length]);
        assert!(mapped(&gguf, &keeping, FIRST).is_err(), "{length} bytes");
        // As a crash of the machine may leave it: of the right length, with nothing in it.
        let mut torn = bytes[..length].to_vec();
        torn.resize(bytes.len(), 0);
        if torn != bytes {
            place(&path, &torn);
            assert!(mapped(&gguf, &keeping, FIRST).is_err(), "nothing behind {length} bytes");
        }
    }
    place(&path, &[&*bytes, &[0]].concat());
    assert!(mapped(&gguf, &keeping, FIRST).is_err(), "a byte more");
    place(&path, &bytes[..table]);
    assert!(logits(&load(&gguf, &keeping, FIRST)) == expected);
    assert!(std::fs::read(&path).expect("is there").len() == bytes.len(), "it was made anew");
}

#[test]
fn what_is_of_another_model_or_version_is_not_used() {
    let (directory, (_file, gguf), (_other, other)) = (Directory::new(), tiny(1), tiny(2));
    let keeping = keeping(&directory);
    drop(load(&gguf, &keeping, FIRST));
    let path = keeping.path(FIRST, WHOLE);
    let bytes = std::fs::read(&path).expect("is there");
    let why = |bytes: &[u8], gguf: &Gguf, digest| {
        place(&keeping.path(digest, WHOLE), bytes);
        let why = mapped(gguf, &keeping, digest).map(drop).expect_err("not used");
        assert!(!keeping.path(digest, WHOLE).exists(), "it is removed: {why}");
        why
    };
    assert!(why(&bytes, &gguf, SECOND).contains("another model"), "of another name");
    // The same digest, and a file whose tensors lie otherwise.
    let (_tied, tied) = opened(&Writer::tiny(1).without("output.weight"));
    assert!(why(&bytes, &tied, FIRST).contains("another model"));
    // A file that was written again may have other weights of the same shape.
    let file = std::fs::OpenOptions::new().write(true).open(&gguf.path).expect("opens");
    let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    file.set_modified(then).expect("is ours");
    let again = Gguf::open(&gguf.path).expect("reads");
    assert!(why(&bytes, &again, FIRST).contains("another model"), "written again");
    let edited = |at: usize, byte: u8| {
        let mut edited = bytes.clone();
        edited[at] = byte;
        sealed(edited)
    };
    assert!(why(&edited(8, 2), &gguf, FIRST).contains("version 2.1"));
    assert!(why(&edited(9, 7), &gguf, FIRST).contains("version 1.7"));
    assert!(why(&edited(0, b'X'), &gguf, FIRST).contains("not one of packed weights"));
    // Whoever can make digests is still not believed.
    for at in [12, 15, 80, 87] {
        why(&edited(at, 0xff), &gguf, FIRST);
    }
    // A model of another seed has the same tensors, and its digest is its own.
    assert!(logits(&load(&other, &keeping, SECOND)) == alone(&other));
    assert_eq!(files(&keeping), [whole(SECOND)]);
}

#[test]
fn a_file_that_others_may_write_is_not_used() {
    let (directory, (_file, gguf)) = (Directory::new(), tiny(1));
    let keeping = keeping(&directory);
    drop(load(&gguf, &keeping, FIRST));
    let path = keeping.path(FIRST, WHOLE);
    for mode in [0o620, 0o602] {
        let changed = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        changed.expect("changed");
        let why = mapped(&gguf, &keeping, FIRST).map(drop).expect_err("not used");
        assert!(why.contains("others than this user"), "{why}");
        drop(load(&gguf, &keeping, FIRST));
        assert!(mapped(&gguf, &keeping, FIRST).is_ok(), "it was made anew");
    }
}

#[test]
fn where_nothing_can_be_kept_a_model_is_loaded_all_the_same() {
    let (directory, (_file, gguf)) = (Directory::new(), tiny(1));
    let expected = alone(&gguf);
    directory.write("full", b"no directory");
    let nowhere =
        Keeping { directory: directory.path().join("full/packed"), ..keeping(&directory) };
    let short = Keeping { max_bytes: 1_000, ..keeping(&directory) };
    for keeping in [&nowhere, &short] {
        let model = load(&gguf, keeping, FIRST);
        assert!(!model.is_kept() && logits(&model) == expected);
        assert!(files(keeping).is_empty(), "nothing half done stays");
    }
    // Something stands where the file would be, and cannot be removed as one.
    let keeping = keeping(&directory);
    std::fs::create_dir_all(keeping.path(FIRST, WHOLE)).expect("made");
    let model = load(&gguf, &keeping, FIRST);
    assert!(!model.is_kept() && logits(&model) == expected);
    assert_eq!(files(&keeping), [whole(FIRST)], "no draft stays");
}

/// A model that is damaged is refused as ever, and leaves nothing behind.
#[test]
fn an_error_of_the_model_is_its_error() {
    let directory = Directory::new();
    let (_file, gguf) = opened(&Writer::tiny(1).without("blk.1.ffn_norm.weight"));
    let keeping = keeping(&directory);
    let refused = packed::load_kept(&gguf, (&keeping, FIRST), 2, &|| ()).expect_err("refused");
    assert!(refused.to_string().contains("blk.1.ffn_norm.weight is missing"), "{refused}");
    assert!(files(&keeping).is_empty());
}

#[test]
fn the_least_recently_used_goes_and_what_is_in_use_stays() {
    let directory = Directory::new();
    let models = [tiny(1), tiny(2), tiny(3)];
    let gguf = |at: usize| &models[at].1;
    let mut keeping = keeping(&directory);
    drop(load(gguf(0), &keeping, FIRST));
    let size = std::fs::metadata(keeping.path(FIRST, WHOLE)).expect("is there").len();
    let needed = packed::bytes(gguf(0)) + file::beside(gguf(0).tensors.len());
    assert!(size <= needed, "{size} of {needed}");
    // Two at a time.
    keeping.max_bytes = size + needed;
    drop(load(gguf(1), &keeping, SECOND));
    assert_eq!(files(&keeping), [whole(FIRST), whole(SECOND)]);
    let used = |digest: ModelDigest, seconds: u64| {
        let file = File::open(keeping.path(digest, WHOLE)).expect("is there");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        file.set_modified(at).expect("changed");
    };
    used(FIRST, 200);
    used(SECOND, 100);
    let third = load(gguf(2), &keeping, THIRD);
    assert!(third.is_kept());
    assert_eq!(files(&keeping), [whole(FIRST), whole(THIRD)]);
    // A load is a use.
    used(FIRST, 50);
    used(THIRD, 60);
    let first = load(gguf(0), &keeping, FIRST);
    let now = std::fs::metadata(keeping.path(FIRST, WHOLE)).expect("is there").mtime();
    assert!(first.is_kept() && now > 60, "{now}");
    // Both are mapped: neither goes for a third.
    let second = load(gguf(1), &keeping, SECOND);
    assert!(!second.is_kept() && logits(&second) == alone(gguf(1)));
    assert_eq!(files(&keeping), [whole(FIRST), whole(THIRD)]);
    drop(third);
    assert!(load(gguf(1), &keeping, SECOND).is_kept());
    assert_eq!(files(&keeping), [whole(FIRST), whole(SECOND)]);
    // What could never fit throws nobody out.
    keeping.max_bytes = needed - 1;
    assert!(!load(gguf(2), &keeping, THIRD).is_kept());
    assert_eq!(files(&keeping), [whole(FIRST), whole(SECOND)]);
}

#[test]
fn loads_at_once_leave_one_file_and_are_all_right() {
    let (directory, (_file, gguf)) = (Directory::new(), tiny(1));
    let (keeping, expected) = (keeping(&directory), alone(&gguf));
    let gate = std::sync::Barrier::new(4);
    let models: Vec<Model> = std::thread::scope(|scope| {
        let load = || {
            gate.wait();
            load(&gguf, &keeping, FIRST)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        threads.into_iter().map(|thread| thread.join().expect("loads")).collect()
    });
    assert!(models.iter().any(Model::is_kept));
    assert!(models.iter().all(|model| logits(model) == expected));
    assert_eq!(files(&keeping), [whole(FIRST)]);
    assert!(mapped(&gguf, &keeping, FIRST).is_ok());
}

/// Whoever packs a model is not waited for.
#[test]
fn a_model_that_another_packs_is_packed_into_memory() {
    let (directory, (_file, gguf)) = (Directory::new(), tiny(1));
    let (keeping, expected) = (keeping(&directory), alone(&gguf));
    let identity = Identity::of(FIRST, &gguf);
    let theirs = keeping.begin(identity, 1, 1).expect("begins");
    let model = load(&gguf, &keeping, FIRST);
    assert!(!model.is_kept() && logits(&model) == expected);
    assert_eq!(files(&keeping).len(), 1, "their draft");
    // Tidying up leaves what is in the making alone; given up, it is gone.
    assert_eq!(keeping.sweep(&BTreeSet::new()), 0);
    assert_eq!(files(&keeping).len(), 1);
    drop(theirs);
    assert!(files(&keeping).is_empty());
    assert!(load(&gguf, &keeping, FIRST).is_kept());
}

#[test]
fn a_file_that_is_removed_stays_for_those_who_have_it() {
    let (directory, (_file, gguf)) = (Directory::new(), tiny(1));
    let (keeping, expected) = (keeping(&directory), alone(&gguf));
    drop(load(&gguf, &keeping, FIRST));
    let model = load(&gguf, &keeping, FIRST);
    keeping.forget(FIRST).expect("removed");
    keeping.forget(FIRST).expect("it is not there");
    assert!(files(&keeping).is_empty());
    assert!(logits(&model) == expected);
    let next = load(&gguf, &keeping, FIRST);
    assert!(next.is_kept() && logits(&next) == expected && logits(&model) == expected);
}

#[test]
fn what_nobody_knows_any_more_is_swept() {
    let directory = Directory::new();
    let models = [tiny(1), tiny(2), tiny(3)];
    let keeping = keeping(&directory);
    assert_eq!(keeping.sweep(&BTreeSet::new()), 0, "there is no directory yet");
    drop(load(&models[0].1, &keeping, FIRST));
    drop(load(&models[1].1, &keeping, SECOND));
    let third = load(&models[2].1, &keeping, THIRD);
    // What a process that was killed left behind, of a model that is still there, too.
    std::fs::write(keeping.path(FIRST, ".1-0.draft"), b"half").expect("written");
    std::fs::write(keeping.directory.join("notes"), b"not ours").expect("written");
    let known = BTreeSet::from([FIRST]);
    // The second's file and lock, the third's lock, and the draft; the third's file is mapped.
    assert_eq!(keeping.sweep(&known), 4);
    assert_eq!(files(&keeping), [whole(FIRST), whole(THIRD)]);
    drop(third);
    assert_eq!(keeping.sweep(&known), 1);
    assert_eq!(files(&keeping), [whole(FIRST)]);
    assert!(keeping.directory.join("notes").exists());
}

#[test]
fn a_draft_that_nobody_completes_makes_room_first() {
    let (directory, (_file, gguf)) = (Directory::new(), tiny(1));
    let mut keeping = keeping(&directory);
    keeping.max_bytes = packed::bytes(&gguf) + file::beside(gguf.tensors.len());
    std::fs::create_dir_all(&keeping.directory).expect("made");
    let left = keeping.path(SECOND, ".1-0.draft");
    File::create(&left).and_then(|file| file.set_len(1 << 20)).expect("written");
    assert!(load(&gguf, &keeping, FIRST).is_kept());
    assert_eq!(files(&keeping), [whole(FIRST)]);
}

/// What an engine of this configuration says to a question.
fn asked(engine: &LocalEngine) -> Vec<u32> {
    let (sender, events) = mpsc::channel::<Answer>();
    let ask = request(1, FIRST, Input::Text("once upon".to_owned()));
    engine.submit("acme", ask, Box::new(Outlet(sender))).expect("submitted");
    collect(&events).ids()
}

#[test]
fn an_engine_answers_the_same_from_the_map_and_counts_it_as_weights() {
    let (directory, (file, gguf)) = (Directory::new(), tiny(1));
    let keeping = Some(keeping(&directory));
    let config = |keeping| EngineConfig { threads: 1, keeping, ..EngineConfig::default() };
    let mut answers = Vec::new();
    for kept in [None, keeping.clone(), keeping.clone()] {
        let engine = engine(config(kept));
        engine.add_model(file.path(), "tiny", FIRST).expect("a model");
        answers.push(asked(&engine));
        assert_eq!(engine.memory().taken, packed::bytes(&gguf));
    }
    assert!(!answers[0].is_empty());
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(keeping.map(|keeping| files(&keeping)), Some(vec![whole(FIRST)]));
}
