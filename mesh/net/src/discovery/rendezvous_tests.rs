#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::identity::Identity;
use crate::scratch::Scratch;

fn node() -> NodeId {
    Identity::generate().node_id()
}

fn addr(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn two_nodes_see_each_other_come_and_go() {
    let directory = Scratch::new();
    let mut a = Rendezvous::new(directory.path().join("not/yet/there"), node());
    let mut b = Rendezvous::new(directory.path().join("not/yet/there"), node());
    assert_eq!(a.read(), Ok(vec![]), "nothing to announce, nothing there");
    a.announce(vec![addr(1), addr(2)]);
    b.announce(vec![addr(3)]);
    assert_eq!(a.read(), Ok(vec![]));
    assert_eq!(b.read(), Ok(vec![Change::OnlyAt(a.node, vec![addr(1), addr(2)])]));
    assert_eq!(a.read(), Ok(vec![Change::OnlyAt(b.node, vec![addr(3)])]));
    assert_eq!(a.read(), Ok(vec![]), "no news");
    b.announce(vec![addr(4)]);
    b.read().unwrap();
    assert_eq!(a.read(), Ok(vec![Change::OnlyAt(b.node, vec![addr(4)])]));
    b.leave();
    assert_eq!(a.read(), Ok(vec![Change::OnlyAt(b.node, vec![])]));
}

#[test]
fn stale_and_foreign_files_are_ignored() {
    let directory = Scratch::new();
    let mut a = Rendezvous::new(directory.path().to_owned(), node());
    let write = |name: &str, text: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let stale = write(&format!("{}.addr", node()), b"selvedge-address 1\n127.0.0.1:1\n");
    let old = UNIX_EPOCH + Duration::from_millis(clock::wall().minus(Micros::secs(120)).0);
    fs::File::options().write(true).open(&stale).unwrap().set_modified(old).unwrap();
    write("README.addr", b"selvedge-address 1\n127.0.0.1:1\n");
    write(&format!("{}.addr", node()), b"selvedge-address 2\n127.0.0.1:1\n");
    write(&format!("{}.addr", node()), b"selvedge-address 1\nnonsense\n127.0.0.1:0\n");
    write(&format!("{}.addr", node()), &[0xff; 4_096]);
    fs::create_dir(directory.path().join(format!("{}.addr", node()))).unwrap();
    let good = node();
    write(&format!("{good}.addr"), b"selvedge-address 1\nnonsense\n127.0.0.1:7\n");
    assert_eq!(a.read(), Ok(vec![Change::OnlyAt(good, vec![addr(7)])]));
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let directory = Scratch::new();
    let path = directory.path().join("file");
    fs::write(&path, b"").unwrap();
    let mut a = Rendezvous::new(path.clone(), node());
    a.announce(vec![addr(1)]);
    let error = a.read().unwrap_err();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn nodes_that_start_together_look_often() {
    let directory = Scratch::new();
    let mut a = Rendezvous::new(directory.path().to_owned(), node());
    a.read().unwrap();
    assert!(a.due_at() <= Instant::now() + READ_YOUNG);
}
