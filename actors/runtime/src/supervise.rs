//! The supervisor: starts actors, and starts them again when they fail.
//!
//! Owns the children of one side of the node (data or control) and their back-off. One child's
//! crash never stops another. Actors are never named: several nodes may share one process.

use std::sync::Arc;

use futures::future::BoxFuture;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use selvedge_core::restart::{Patience, Restart};
use selvedge_net::clock;

/// What ractor says of an actor that was asked to end once it has done what it was told: nobody
/// wants it started again.
const DRAINED: &str = "Drained";

/// Starts a child linked to the supervisor handed in.
pub(crate) type Start =
    Arc<dyn Fn(ActorCell) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync>;

/// One thing to keep running.
#[derive(Clone)]
pub(crate) struct Child {
    /// For logs.
    pub(crate) name: &'static str,
    /// How to start it.
    pub(crate) start: Start,
}

/// Keeps its children running.
pub(crate) struct Supervisor;

/// What the supervisor hears.
pub(crate) enum SupervisorMessage {
    /// The back-off of a child is over.
    StartAgain(usize),
}

/// The supervisor's memory.
pub(crate) struct SupervisorState {
    children: Vec<Slot>,
}

struct Slot {
    child: Child,
    running: Option<ActorCell>,
    restart: Restart,
}

impl Supervisor {
    /// Starts a supervisor and its children, in order.
    ///
    /// # Errors
    /// When a child fails to start at all: then the node's start-up fails with it.
    pub(crate) async fn start(
        children: Vec<Child>,
    ) -> Result<ActorRef<SupervisorMessage>, SpawnErr> {
        Actor::spawn(None, Self, children).await.map(|(supervisor, _)| supervisor)
    }
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = Vec<Child>;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        children: Vec<Child>,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let mut slots = Vec::with_capacity(children.len());
        for child in children {
            let running = Some((child.start)(myself.get_cell()).await?);
            let restart = Restart::new(Patience::ACTOR, clock::mono());
            slots.push(Slot { child, running, restart });
        }
        Ok(SupervisorState { children: slots })
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        SupervisorMessage::StartAgain(index): SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let Some(slot) = state.children.get_mut(index) else { return Ok(()) };
        slot.restart.started(clock::mono());
        match (slot.child.start)(myself.get_cell()).await {
            Ok(cell) => {
                tracing::info!(actor = slot.child.name, "started again");
                slot.running = Some(cell);
            }
            Err(error) => {
                tracing::warn!(actor = slot.child.name, %error, "could not be started again");
                schedule(&myself, index, &mut slot.restart);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let mut drained = false;
        let (cell, why) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                drained = reason.as_deref() == Some(DRAINED);
                (cell, reason.unwrap_or_else(|| "ended".to_owned()))
            }
            _started_or_group => return Ok(()),
        };
        let failed = state.children.iter_mut().enumerate().find(|(_, slot)| {
            slot.running.as_ref().is_some_and(|running| running.get_id() == cell.get_id())
        });
        if let Some((index, slot)) = failed {
            slot.running = None;
            if drained {
                return Ok(());
            }
            tracing::error!(actor = slot.child.name, why, "failed; it will be started again");
            schedule(&myself, index, &mut slot.restart);
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<SupervisorMessage>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        // In reverse order of starting: later children lean on earlier ones.
        for slot in state.children.iter().rev() {
            if let Some(running) = &slot.running {
                running.stop(None);
            }
        }
        Ok(())
    }
}

fn schedule(myself: &ActorRef<SupervisorMessage>, index: usize, restart: &mut Restart) {
    let wait = restart.failed(clock::mono());
    myself.send_after(wait.into(), move || SupervisorMessage::StartAgain(index));
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
