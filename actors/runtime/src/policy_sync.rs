//! Carrying signed records between members, policies, settings and purges: what each side lacks.
//!
//! Owns the messages and when they are sent: at once when something changed, to every peer that
//! came, and every few seconds besides. What is lacking, what may be taken and what follows from it
//! are the books' to say.

use std::sync::Arc;

use selvedge_base::{Micros, NodeId};
use selvedge_core::{Opening, PolicyWord};
use selvedge_net::Link;
use selvedge_proto::settings::SettingsMessage;
use tokio::time::Instant;

use crate::answers;
use crate::handoff::{CONTROL_PRIORITY, deliver};
use crate::serve::Context;
use crate::shared::Shared;
use crate::task::Run;

/// How often policies are compared with every peer even if nothing seems to have changed: a cut
/// that a broken link swallowed is then known within this.
const COMPARE_EVERY: Micros = Micros::secs(3);
/// How often the node looks after its own promises and the epochs' time.
const LOOK_EVERY: Micros = Micros::secs(1);
/// A message that takes longer is lost; the next comparison makes up for it.
const SEND_WITHIN: Micros = Micros::secs(5);

/// The exchange as a supervised task.
pub(crate) fn child(shared: Arc<Shared>) -> Run {
    Arc::new(move || {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            run(&shared).await;
            Ok(())
        })
    })
}

async fn run(shared: &Arc<Shared>) {
    let mut policies = shared.policies.changes();
    let mut settings = shared.routing.shared_changes();
    let mut purges = shared.purges.changes();
    let mut look_at = Instant::now() + LOOK_EVERY.into();
    let mut looks: u64 = 0;
    loop {
        let change = async {
            tokio::select! {
                changed = policies.changed() => changed,
                changed = settings.changed() => changed,
                changed = purges.changed() => changed,
            }
        };
        match tokio::time::timeout_at(look_at, change).await {
            // The senders live in `shared`.
            Ok(Err(_)) => return,
            Ok(Ok(())) => compare_all(shared),
            Err(_) => {
                look_at = Instant::now() + LOOK_EVERY.into();
                looks += 1;
                shared.policies.look(&shared.quota).await;
                shared.routing.look().await;
                if looks.is_multiple_of(COMPARE_EVERY.0 / LOOK_EVERY.0) {
                    compare_all(shared);
                }
            }
        }
    }
}

fn compare_all(shared: &Arc<Shared>) {
    for link in shared.endpoint.links() {
        compare(shared, link);
    }
}

/// Tells a peer, in brief, what this node has.
pub(crate) fn compare(shared: &Arc<Shared>, link: Link) {
    send(link.clone(), Opening::Settings(Box::new(shared.routing.greeting())));
    tokio::spawn(answers::compare(Arc::clone(shared), link.clone()));
    send_policy(link, shared.policies.greeting(&shared.quota));
}

/// Takes what a peer says and answers it.
pub(crate) async fn take(context: &Context, from: NodeId, word: PolicyWord) {
    let shared = &context.shared;
    let answer = shared.policies.heard(&shared.quota, from, word).await;
    if let (Some(answer), Some(link)) = (answer, shared.endpoint.link(&from)) {
        send_policy(link, answer);
    }
}

/// Takes what a peer says of settings and answers it.
pub(crate) async fn take_settings(context: &Context, from: NodeId, message: SettingsMessage) {
    let shared = &context.shared;
    let answer = shared.routing.heard(from, message).await;
    if let (Some(answer), Some(link)) = (answer, shared.endpoint.link(&from)) {
        send(link, Opening::Settings(Box::new(answer)));
    }
}

fn send_policy(link: Link, word: PolicyWord) {
    let PolicyWord { incarnation, message } = word;
    // An older peer is told what it can read.
    let Some(message) = message.spoken_at(link.version()) else { return };
    let word = PolicyWord { incarnation, message };
    send(link, Opening::Policy(Box::new(word)));
}

fn send(link: Link, opening: Opening) {
    if link.version() < opening.since() {
        return;
    }
    tokio::spawn(async move {
        let told = deliver(&link, CONTROL_PRIORITY, &opening);
        if let Ok(Err(error)) = tokio::time::timeout(SEND_WITHIN.into(), told).await {
            tracing::debug!(peer = %link.node().short(), %error, "records were not sent");
        }
    });
}
