use super::*;
use tokio::sync::mpsc;

/// Reports each start, then panics or idles as told.
struct Fragile;

struct FragileArgs {
    starts: mpsc::UnboundedSender<ActorRef<bool>>,
}

impl Actor for Fragile {
    type Msg = bool;
    type State = ();
    type Arguments = FragileArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<bool>,
        args: FragileArgs,
    ) -> Result<(), ActorProcessingErr> {
        args.starts.send(myself)?;
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<bool>,
        crash: bool,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        assert!(!crash, "told to crash");
        Ok(())
    }
}

fn fragile(starts: mpsc::UnboundedSender<ActorRef<bool>>) -> Child {
    Child {
        name: "fragile",
        start: Arc::new(move |supervisor| {
            let args = FragileArgs { starts: starts.clone() };
            Box::pin(async move {
                let (actor, _) = Actor::spawn_linked(None, Fragile, args, supervisor).await?;
                Ok(actor.get_cell())
            })
        }),
    }
}

type Starts = mpsc::UnboundedReceiver<ActorRef<bool>>;

async fn two_children() -> (ActorRef<SupervisorMessage>, Starts, Starts) {
    let (first_starts, first) = mpsc::unbounded_channel();
    let (second_starts, second) = mpsc::unbounded_channel();
    let children = vec![fragile(first_starts), fragile(second_starts)];
    (Supervisor::start(children).await.expect("both start"), first, second)
}

#[tokio::test]
async fn a_crash_restarts_one_child_and_leaves_the_other() {
    let (supervisor, mut first, mut second) = two_children().await;
    let (one, two) = (first.recv().await.expect("one"), second.recv().await.expect("two"));
    one.cast(true).expect("alive");
    let again = first.recv().await.expect("it was started again");
    assert_ne!(again.get_id(), one.get_id());
    two.cast(false).expect("the other child still lives");
    assert!(second.try_recv().is_err(), "the other child was not restarted");
    supervisor.stop(None);
}

#[tokio::test]
async fn whoever_was_asked_to_end_is_not_started_again() {
    let (supervisor, mut first, mut second) = two_children().await;
    let (one, two) = (first.recv().await.expect("one"), second.recv().await.expect("two"));
    one.drain_and_wait(None).await.expect("it ends");
    // What the supervisor hears later is heard after it.
    two.cast(true).expect("alive");
    second.recv().await.expect("the other one was started again");
    assert!(first.try_recv().is_err(), "it was started again");
    supervisor.stop(None);
}
