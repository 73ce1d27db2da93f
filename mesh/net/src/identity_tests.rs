#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::scratch::Scratch;

#[test]
fn the_key_outlives_the_process() {
    let home = Scratch::new();
    let path = home.path().join("deep/er/node.key");
    let made = Identity::load_or_create(&path).unwrap();
    let found = Identity::load_or_create(&path).unwrap();
    assert_eq!(made.node_id(), found.node_id());
    assert_eq!(made.sign(b"x"), found.sign(b"x"));
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "the draft is gone");
}

#[test]
fn the_name_is_the_peer_id_and_checks_the_signature() {
    let identity = Identity::generate();
    let peer = identity.keypair().public().to_peer_id();
    assert_eq!(peer.to_string(), identity.node_id().to_string());
    assert_eq!(node_of(&peer), Some(identity.node_id()));
    assert!(identity.keypair().public().verify(b"said", &identity.sign(b"said")));
    assert!(!format!("{identity:?}").contains("secret"));
}

#[cfg(unix)]
#[test]
fn an_exposed_key_is_refused_with_the_cure() {
    use std::os::unix::fs::PermissionsExt;
    let home = Scratch::new();
    let path = home.path().join("node.key");
    Identity::load_or_create(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Identity::load_or_create(&path).unwrap_err().to_string();
    assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
}

#[test]
fn a_damaged_key_is_refused_and_kept() {
    let home = Scratch::new();
    let path = home.path().join("node.key");
    Identity::load_or_create(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[7] ^= 1;
    let newer = [&[9], &whole[1..]].concat();
    let longer = [&whole[..], &[0]].concat();
    for damaged in [&whole[..20], &flipped, &newer, &longer, &[]] {
        fs::write(&path, damaged).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Corrupt { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
}

#[test]
fn two_first_runs_agree_on_one_key() {
    let home = Scratch::new();
    let path = home.path().join("node.key");
    let nodes: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Identity::load_or_create(&path).unwrap().node_id()))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(nodes.iter().all(|node| *node == nodes[0]), "{nodes:?}");
}
