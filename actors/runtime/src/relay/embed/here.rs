//! Vectors that this node's own engine makes: reserve → engine → settle.
//!
//! Owns what of a request a model of the mesh can be told, and the refusals for what it cannot.
//! Vectors are made only at the node that has the model; other nodes are not asked for them.

use selvedge_base::{Blame, Code, ModelDigest, Refusal, Retry, Stage};
use selvedge_contract as contract;
use selvedge_core::bill::Took;
use selvedge_core::meter::Meter;
use selvedge_core::route::MeshView;
use selvedge_dialect::chat::{Extension, Usage};
use selvedge_dialect::embed::{EmbedInput, Embeddings};
use selvedge_dialect::exchange::Dialect;
use selvedge_net::clock;
use tokio::sync::oneshot;

use super::{Errand, Missed, errand, lost, no_stand_in};
use crate::serve::CancelOnDrop;
use crate::trace::{EMBEDDINGS, Trace, Whom};

/// Tokens that a model puts around a text: BERT has two, and no published one more than four.
const MARKS: usize = 4;

impl Errand {
    /// Has a model of this node make all vectors.
    pub(super) async fn ask_here(&mut self, model: &str) -> Result<Embeddings, Missed> {
        let view = self.shared.view.load_full();
        let digest = held_here(&view, model)?;
        let texts = self.texts(digest, model)?;
        let most = at_most(&view, digest, &texts);
        let times = (self.call.id, self.call.deadline);
        let asks = || (view.plain_model_name(model), Meter::counted(most, Some(0)));
        let reserved = errand::reserve(&self.shared, times, self.payer(), asks, no_stand_in);
        let mut reservation = reserved.await?;
        self.shared.counters.admitted.bump();
        let mut asking = Trace::ask(self.call.trace.as_ref(), model, || Whom::Here);
        asking.note(|turn| turn.operation = EMBEDDINGS);
        let made = tokio::select! {
            biased;
            lost = lost(&mut reservation) => Err(lost),
            barred = errand::barred(&self.shared, self.payer()) => Err(barred),
            made = self.made(digest, texts) => made,
        };
        let made = match made {
            Ok(made) => made,
            Err(refusal) => {
                asking.failed(refusal.code.as_str());
                return Err(refusal.into());
            }
        };
        let took = Usage { prompt_tokens: made.tokens, ..Usage::default() };
        if let Some(reservation) = &mut reservation {
            // All of it is a prompt, which has been read.
            reservation.started(u32::try_from(made.tokens).unwrap_or(u32::MAX));
        }
        self.journey.took(Took { tokens: made.tokens, micro_dollars: 0 });
        asking.finished(Some(took));
        // Whoever has the answer finds it settled.
        drop(reservation);
        let model = self.call.request.model.clone();
        Ok(Embeddings { model, vectors: made.vectors, usage: Some(took) })
    }

    /// The engine's vectors, within the request's time.
    async fn made(
        &self,
        model: ModelDigest,
        texts: Vec<String>,
    ) -> Result<contract::Embedded, Refusal> {
        let id = self.shared.run_id();
        let cut = self.call.request.truncate.unwrap_or(true);
        let (sink, end) = oneshot::channel();
        let sink = Box::new(move |made| {
            // Nobody listens when the request was given up.
            let _heard = sink.send(made);
        });
        let _cancel = CancelOnDrop { shared: &self.shared, id };
        let request = contract::EmbedRequest { id, model, texts, cut };
        self.shared.engine.embed(request, sink)?;
        let left = self.deadline.since(clock::mono());
        match tokio::time::timeout(left.into(), end).await {
            Ok(Ok(made)) => made,
            Ok(Err(_)) => {
                let message = "the computation of the vectors broke down";
                Err(ours(Retry::Elsewhere, Code::Internal, message))
            }
            Err(_) => {
                let message = "the vectors were not made within the request's time";
                Err(ours(Retry::Never, Code::Timeout, message))
            }
        }
    }

    /// The texts, where the request asks for nothing that such a model cannot do.
    fn texts(&self, digest: ModelDigest, model: &str) -> Result<Vec<String>, Refusal> {
        let request = &self.call.request;
        let cannot = |param: &str, message: String| unsupported(message).param(param);
        let has = self.shared.engine.dimensions(digest);
        if let (Some(asked), Some(has)) = (request.dimensions, has)
            && asked != has
        {
            let message =
                format!("model '{model}' makes vectors of {has} numbers and cannot shorten them");
            return Err(cannot("dimensions", message));
        }
        if request.purpose.is_some() {
            let message = format!("model '{model}' does not tell apart what vectors are for");
            return Err(cannot("input_type", message));
        }
        if let Some(other) = request.extensions.iter().find(|field| !is_hint(field)) {
            let message = format!("'{}' means nothing to models of this mesh", other.name);
            return Err(cannot(&other.name, message));
        }
        let texts = request.inputs.iter().map(|input| match input {
            EmbedInput::Text(text) => Ok(text.clone()),
            EmbedInput::Tokens(_) => {
                let message = format!(
                    "model '{model}' takes texts and no tokens: those of another vocabulary would \
                     give vectors without meaning"
                );
                Err(cannot("input", message))
            }
        });
        texts.collect()
    }
}

/// Ollama's options and how long it keeps a model in memory: no vector depends on them.
fn is_hint(field: &Extension) -> bool {
    field.dialect == Dialect::Ollama && matches!(field.name.as_str(), "options" | "keep_alive")
}

/// The model's file, if this node has it and it makes vectors.
fn held_here(view: &MeshView, model: &str) -> Result<ModelDigest, Refusal> {
    let Some(card) = view.card_of(model) else {
        let message = format!("there is no model '{model}'; GET /v1/models lists them");
        return Err(Refusal::client(Stage::Route, Code::ModelNotFound, message).param("model"));
    };
    if !card.embeds() {
        let does = match (card.infers(), card.hears()) {
            (true, _) => "takes tensors",
            (_, true) => "writes down speech",
            _ => "generates text",
        };
        let message = format!(
            "model '{model}' of the mesh {does} and makes no embeddings; models made for them do, \
             here and at providers"
        );
        return Err(Refusal::client(Stage::Route, Code::Unsupported, message).param("model"));
    }
    view.own_model(model).ok_or_else(|| {
        let holders = view.models().into_iter().filter(|held| held.card.digest == card.digest);
        let nodes: Vec<String> = holders.flat_map(|held| held.nodes).collect();
        let message = format!(
            "model '{model}' is on {}, and embeddings are made only by the node that is asked: ask \
             there, or fetch the model here with `selvedge models pull`",
            if nodes.is_empty() { "no node within reach".to_owned() } else { nodes.join(", ") }
        );
        Refusal::new(Stage::Route, Blame::Us, Retry::Elsewhere, Code::ModelUnavailable, message)
            .param("model")
    })
}

/// Tokens of the texts at most: each no more than its bytes and the model's marks, and no more than
/// the model reads.
fn at_most(view: &MeshView, digest: ModelDigest, texts: &[String]) -> u32 {
    let card = view.card_of(&digest.to_string());
    let longest = card.map_or(usize::MAX, |card| card.context_length as usize);
    let tokens = texts.iter().map(|text| text.len().saturating_add(MARKS).min(longest));
    u32::try_from(tokens.fold(0, usize::saturating_add)).unwrap_or(u32::MAX)
}

/// Another target may do it.
fn unsupported(message: String) -> Refusal {
    let (stage, blame) = (Stage::Validate, Blame::Client);
    Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message)
}

fn ours(retry: Retry, code: Code, message: &str) -> Refusal {
    Refusal::new(Stage::Execute, Blame::Us, retry, code, message)
}
