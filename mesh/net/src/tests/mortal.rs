//! A node in a runtime of its own, which can die without a word.

use super::*;

pub(super) struct Mortal {
    pub(super) node: Node,
    runtime: tokio::runtime::Runtime,
}

impl Mortal {
    pub(super) fn start(
        mesh: &Mesh,
        identity: Identity,
        listen: SocketAddr,
        incarnation: u64,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let change = |pass: &mut Pass| pass.incarnation = incarnation;
        let start = Node::at(mesh, identity, change, NetConfig::default(), listen);
        let node =
            std::thread::scope(|scope| scope.spawn(|| runtime.block_on(start)).join().unwrap());
        Self { node, runtime }
    }

    pub(super) fn die(self) {
        let Self { node, runtime } = self;
        // Its tasks go first, so that nothing is left to say goodbye when the socket closes.
        let end = move || {
            runtime.shutdown_timeout(DEADLINE);
            drop(node);
        };
        std::thread::scope(|scope| scope.spawn(end).join().unwrap());
    }
}
