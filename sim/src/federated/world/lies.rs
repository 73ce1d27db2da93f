//! What an anchor that lies says, and who is named for it.

use selvedge_base::NodeId;
use selvedge_federated::round::Message;

use super::{Promise, World, index_of};
use crate::federated::liar;

impl World<'_> {
    /// An anchor says something; one that lies says something else to others.
    pub(super) fn anchor_sends(&mut self, node: usize, to: &NodeId, message: Box<Message>) {
        let to = index_of(to);
        let lies = self.plan.liar == Some(node) && to != node;
        let lie = lies.then(|| liar::lie(self.plan, node, to, &message)).flatten();
        match &lie {
            Some(Message::Opened(_)) => self.count("a part of a sum that is a lie"),
            Some(_) => self.count("an end of a round that is a lie"),
            None => {}
        }
        self.send(node, to, lie.map_or(message, Box::new));
    }

    /// Somebody is named for what cannot be.
    pub(super) fn misdeed(&mut self, by: &NodeId, what: &str) {
        self.count("misdeed");
        let by = index_of(by);
        let is_so = self.plan.liar == Some(by);
        self.observer.require(is_so, Promise::LiarsNamed, || format!("{by} is honest: {what}"));
    }
}
