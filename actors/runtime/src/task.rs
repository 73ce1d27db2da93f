//! A task with a life of its own, kept running: the data side's supervised actor.
//!
//! Owns the actor around a future that ends only when it is told to or when it fails. A failure or
//! a panic makes the supervisor start it again with back-off; a good end is final and told to
//! whoever waits. Used for listeners, which belong to surfaces and know nothing of actors.

use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::supervise::Child;

/// Makes the future anew for every start; its error says why it failed.
pub type Run = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Tells when a supervised task came to a good end.
#[derive(Clone, Debug)]
pub struct Finished(watch::Receiver<bool>);

impl Finished {
    /// Waits for the end.
    pub async fn wait(&mut self) {
        // An error means that the node itself is gone, which ends the task too.
        let _ended = self.0.wait_for(|finished| *finished).await;
    }
}

/// The supervised child that keeps `run` running, and the sign of its good end.
pub(crate) fn child(name: &'static str, run: Run) -> (Child, Finished) {
    let (finished, sign) = watch::channel(false);
    let finished = Arc::new(finished);
    let start = Arc::new(move |supervisor| {
        let args = TaskArgs { run: Arc::clone(&run), finished: Arc::clone(&finished) };
        let started: BoxFuture<'static, _> = Box::pin(async move {
            let (actor, _) = Actor::spawn_linked(None, TaskActor, args, supervisor).await?;
            Ok(actor.get_cell())
        });
        started
    });
    (Child { name, start }, Finished(sign))
}

struct TaskActor;

struct TaskArgs {
    run: Run,
    finished: Arc<watch::Sender<bool>>,
}

/// How the task ended.
struct Ended(Result<(), String>);

struct TaskState {
    finished: Arc<watch::Sender<bool>>,
    /// Taken when the actor stops; the task must not outlive it.
    task: Mutex<Option<AbortHandle>>,
}

impl Actor for TaskActor {
    type Msg = Ended;
    type State = TaskState;
    type Arguments = TaskArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Ended>,
        args: TaskArgs,
    ) -> Result<TaskState, ActorProcessingErr> {
        let task = tokio::spawn((args.run)());
        let abort = task.abort_handle();
        tokio::spawn(async move {
            let result = match task.await {
                Ok(result) => result,
                Err(error) if error.is_cancelled() => return,
                Err(error) => Err(format!("it panicked: {error}")),
            };
            // Fails only when the actor is gone already.
            let _gone = myself.cast(Ended(result));
        });
        Ok(TaskState { finished: args.finished, task: Mutex::new(Some(abort)) })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Ended>,
        Ended(result): Ended,
        state: &mut TaskState,
    ) -> Result<(), ActorProcessingErr> {
        result?;
        state.finished.send_replace(true);
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Ended>,
        state: &mut TaskState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(task) = state.task.lock().take() {
            task.abort();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::supervise::Supervisor;

    #[tokio::test]
    async fn a_task_that_fails_or_panics_runs_again_until_it_ends_well() {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let run: Run = Arc::new(move || {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                assert!(run != 1, "the second run panics");
                if run == 0 { Err("the first run fails".to_owned()) } else { Ok(()) }
            })
        });
        let (child, mut finished) = child("task", run);
        let supervisor = Supervisor::start(vec![child]).await.expect("starts");
        finished.wait().await;
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        supervisor.stop(None);
    }
}
