//! Continuations of a text under a name that leads elsewhere: a route, an alias, a provider's
//! model.
//!
//! Owns choosing the model of the mesh that continues several texts of one request, or tokens. One
//! text goes the way of chats, to providers too; these do not, so providers are passed over.

use selvedge_base::{Code, Refusal, Stage};
use selvedge_core::journey::Target;

use super::{ChatCall, aim};
use crate::gateway::Gateway;

impl Gateway {
    /// The model of the mesh that continues a text for this call, which says what is to be
    /// continued: the first one that its model's name leads to.
    ///
    /// # Errors
    /// The refusal of a route that leads nowhere now, and one where it leads to providers alone.
    pub fn continues(&self, call: &ChatCall) -> Result<String, Refusal> {
        let found = aim::aim(&self.shared, call);
        if let Some(refusal) = found.refusal {
            return Err(refusal);
        }
        let mut targets = found.targets.into_iter();
        let model = targets.find_map(|(target, _)| match target {
            Target::Mesh { model } => Some(model),
            Target::Provider { .. } => None,
        });
        model.ok_or_else(|| only_chats(call.asked.model()))
    }
}

fn only_chats(model: &str) -> Refusal {
    let message = format!(
        "'{model}' leads to models of providers alone, which go on with one text here: make \
         'prompt' one string, or ask for each text by itself"
    );
    Refusal::client(Stage::Validate, Code::Unsupported, message).param("model")
}
