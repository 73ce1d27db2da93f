//! Threads that serve connections, one for each core.
//!
//! Owns the threads and which of them takes a connection. All that a request needs is done where
//! its connection is, so that tasks are woken by the thread that they wait on and no other one is
//! asked; what a node does besides requests has the threads of the main runtime.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Threads with a runtime each. They end when this is dropped, and their tasks with them.
pub(super) struct Workers(Vec<Worker>);

struct Worker {
    handle: Handle,
    /// Each of its connections has a clone.
    load: Arc<()>,
    /// Closed once the thread has ended, for which only a fault in the runtime itself is a reason.
    alive: oneshot::Sender<Infallible>,
}

impl Workers {
    /// Starts so many; with none, connections are served by the runtime that this is called in.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        (0..count).map(Worker::start).collect::<io::Result<_>>().map(Self)
    }

    /// Has the worker with the fewest connections serve one. A thread that ended has none, and
    /// would be given them all: it is left out. Where no thread is left, the runtime that this is
    /// called in serves.
    pub(super) fn serve(
        &self,
        running: &mut JoinSet<()>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        let living = self.0.iter().filter(|worker| !worker.alive.is_closed());
        let Some(worker) = living.min_by_key(|worker| Arc::strong_count(&worker.load)) else {
            running.spawn(connection);
            return;
        };
        let load = Arc::clone(&worker.load);
        let counted = async move {
            connection.await;
            drop(load);
        };
        running.spawn_on(counted, &worker.handle);
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, over) = oneshot::channel();
        thread::Builder::new().name(format!("http-{number}")).spawn(move || {
            // There is no message: the other side goes.
            let _over: Result<Infallible, _> = runtime.block_on(over);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, load: Arc::new(()), alive })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn connections_are_spread_over_the_threads() {
        let workers = Workers::start(2).expect("two threads");
        let mut running = JoinSet::new();
        let (told, mut tells) = mpsc::unbounded_channel();
        let (end, _) = tokio::sync::broadcast::channel::<()>(1);
        for _ in 0..4 {
            let (told, mut ended) = (told.clone(), end.subscribe());
            workers.serve(&mut running, async move {
                told.send(thread::current().name().map(str::to_owned)).expect("somebody asks");
                let _ended = ended.recv().await;
            });
        }
        let mut names = Vec::new();
        for _ in 0..4 {
            names.extend(tells.recv().await.expect("four are served"));
        }
        names.sort();
        assert_eq!(names, ["http-0", "http-0", "http-1", "http-1"]);
        drop(end);
        while let Some(ended) = running.join_next().await {
            ended.expect("no panic");
        }
    }

    /// The name of the thread that a connection is given to.
    async fn given_to(workers: &Workers) -> Option<String> {
        let (tell, told) = oneshot::channel();
        let mut running = JoinSet::new();
        workers.serve(&mut running, async move {
            tell.send(thread::current().name().map(str::to_owned)).expect("somebody asks");
        });
        told.await.expect("it is served")
    }

    #[tokio::test]
    async fn a_thread_that_ended_is_given_no_connections() {
        let mut workers = Workers::start(2).expect("two threads");
        // What a thread that ends leaves behind; these two run on, so that they could serve.
        let ended = || oneshot::channel().0;
        let _first = std::mem::replace(&mut workers.0[0].alive, ended());
        assert_eq!(given_to(&workers).await.as_deref(), Some("http-1"));
        let _second = std::mem::replace(&mut workers.0[1].alive, ended());
        assert_eq!(given_to(&workers).await.as_deref(), thread::current().name());
    }

    #[tokio::test]
    async fn without_threads_they_are_served_here() {
        let workers = Workers::start(0).expect("nothing to start");
        let mut running = JoinSet::new();
        let (here, there) = (thread::current().id(), oneshot::channel());
        workers.serve(&mut running, async move {
            there.0.send(thread::current().id()).expect("somebody asks");
        });
        assert_eq!(there.1.await.expect("it is served"), here);
    }
}
