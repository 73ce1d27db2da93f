//! The tokens of a prompt, counted by whoever would answer it, without an answer.

use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use selvedge_core::journey::Target;
use selvedge_dialect::anthropic;
use selvedge_dialect::chat::for_engine;
use selvedge_net::clock;
use selvedge_upstream::{Call, MediaType};

use super::{ChatCall, Gateway, aim, paid};
use crate::providers::speak;

/// Bytes of an answer that is one number.
const MOST: usize = 64 << 10;

impl Gateway {
    /// Counts the tokens of a chat's prompt.
    ///
    /// # Errors
    /// A refusal when whoever would answer it cannot count, or is not this node.
    pub async fn count_tokens(&self, call: ChatCall) -> Result<u64, Refusal> {
        let aim = aim::aim(&self.shared, &call);
        // Only a route's targets may all be told of the prompt.
        let goes_on = aim.routed && !call.asked.request()?.tools.is_empty();
        let mut why = None;
        for (target, _) in aim.targets {
            let counted = match target {
                Target::Provider { provider, model } => {
                    self.count_at(&call, &provider, &model).await
                }
                Target::Mesh { model } => match self.count_here(&call, &model).await {
                    // Not every model of the mesh takes every tool, nor is every one here: the next
                    // in turn may answer such a chat, and so count it.
                    Err(refusal) if goes_on => {
                        why.get_or_insert(refusal);
                        continue;
                    }
                    counted => counted,
                },
            };
            return counted.map_err(|refusal| why.unwrap_or(refusal));
        }
        Err(why.unwrap_or_else(super::nowhere))
    }

    async fn count_here(&self, call: &ChatCall, model: &str) -> Result<u64, Refusal> {
        let view = self.shared.view.load_full();
        let input = for_engine(call.asked.request()?)?.input;
        let digest = view.own_model(model).ok_or_else(|| elsewhere(model))?;
        Ok(u64::from(self.shared.count_tokens(digest, input).await?))
    }

    async fn count_at(&self, call: &ChatCall, provider: &str, model: &str) -> Result<u64, Refusal> {
        let open = self.shared.providers.find(provider).ok_or_else(|| paid::gone(provider))?;
        paid::may_leave(call, &open, true)?;
        let mut request = call.asked.request()?.clone();
        let known = open.spec().model(model);
        request.model = known.map_or_else(|| model.to_owned(), |known| known.upstream.clone());
        let outgoing = speak::say_count(open.spec(), &request)?;
        let asked = Call::of(outgoing, &request.model, MediaType::Json, 0);
        let asked = Call { idempotent: true, ..asked };
        let deadline = clock::mono().plus(call.deadline);
        let told = |failed| paid::failure(&open, &failed).refusal;
        let mut answer = open.provider.ask(&asked, deadline).await.map_err(told)?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(told)? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > MOST {
                return Err(unreadable(provider));
            }
        }
        anthropic::read_count(&bytes).map_err(|_| unreadable(provider))
    }
}

fn elsewhere(model: &str) -> Refusal {
    let message = format!(
        "the tokens of a prompt for '{model}' are counted only at a node that has it, and this one \
         has not"
    );
    Refusal::client(Stage::Route, Code::ModelNotFound, message).param("model")
}

fn unreadable(provider: &str) -> Refusal {
    let message = format!("provider '{provider}' answered with something that is no count");
    Refusal::new(Stage::Execute, Blame::Provider, Retry::Elsewhere, Code::ModelUnavailable, message)
}
