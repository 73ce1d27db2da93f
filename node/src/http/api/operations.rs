//! What is said of each path and method.
//!
//! Owns the table beside the router's: which body an operation takes, what it answers, and with
//! which statuses it refuses. HEAD and OPTIONS follow from the paths' methods.

use schemars::{JsonSchema, SchemaGenerator};
use selvedge_contract::SpeechTask;
use selvedge_core::upstream::RawProvider;
use selvedge_dialect::{anthropic, inference, ollama, openai, responses};
use serde_json::Value;

use super::super::route::Surface;
use super::super::{completions, models, wire};
use super::answers;
use crate::record::Record;

/// Makes a schema, or a reference to one.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Value;

/// What a request's body holds.
pub(super) enum Takes {
    Nothing,
    /// No body, or an object without fields.
    Empty,
    Optional(Shape),
    Body(Shape),
    /// A form, with a file in it.
    Form(Shape),
    /// JSON, or JSON and bytes after it.
    Tensors(Shape),
}

/// What a good response's body holds.
pub(super) enum Gives {
    Json(Shape),
    /// The same, before it is done.
    Accepted(Shape),
    /// JSON, or JSON and bytes after it.
    Tensors(Shape),
    /// JSON, or server-sent events where the body asks for a stream.
    OrEvents(Shape),
    /// JSON, or lines of JSON.
    OrLines(Shape),
    /// JSON, or text where the form asks for it.
    OrText(Shape),
    /// A text of this type.
    Text(&'static str),
}

/// One method of one path.
pub(super) struct Operation {
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    pub(super) about: &'static str,
    pub(super) takes: Takes,
    pub(super) gives: Gives,
}

impl Operation {
    /// The status of a good response.
    pub(super) const fn status(&self) -> u16 {
        if matches!(self.gives, Gives::Accepted(_)) { 202 } else { 200 }
    }

    /// Whether a model works for it, here or elsewhere.
    pub(super) fn is_generation(&self) -> bool {
        self.takes_caller() && self.path != "/api/show"
    }

    /// Whether answers to it may be kept for equal requests.
    pub(super) const fn is_kept(&self) -> bool {
        matches!(self.gives, Gives::OrEvents(_) | Gives::OrLines(_))
    }

    /// Whether it heeds what callers say about labels and deadlines.
    pub(super) fn takes_caller(&self) -> bool {
        let asks = matches!(self.takes, Takes::Body(_) | Takes::Form(_) | Takes::Tensors(_));
        asks && !self.path.starts_with("/admin")
    }

    /// Whether it is open to the holders of keys.
    pub(super) fn takes_key(&self, surface: Surface) -> bool {
        let open = surface == Surface::Health || self.path.starts_with("/v2/health/");
        surface != Surface::Admin && !open
    }

    /// Whether it answers otherwise while the node stops.
    pub(super) fn says_when_it_stops(&self) -> bool {
        matches!(self.path, "/health" | "/v2/health/ready")
    }

    /// The statuses of refusals.
    pub(super) fn refusals(&self, surface: Surface) -> Vec<u16> {
        let mut all = vec![400, 403];
        if self.takes_key(surface) || surface == Surface::Admin {
            all.push(401);
        }
        if self.path.contains('{') || self.takes_caller() {
            all.push(404);
        }
        if self.method == "POST" {
            all.extend([408, 413, 415, 503]);
        }
        if self.is_generation() {
            all.extend([429, 500, 502, 504]);
        }
        if surface == Surface::Admin {
            // Orders are carried out in the mesh, where any of this can happen.
            all.extend([404, 500, 502, 503, 504]);
        }
        if self.path == "/metrics" {
            all.push(500);
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A type's own schema.
fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

macro_rules! operations {
    ($($method:ident $path:literal $takes:expr => $gives:expr, $about:literal;)*) => {
        /// All of them, in the order in which they are read.
        pub(super) const OPERATIONS: &[Operation] = &[$(Operation {
            path: $path,
            method: stringify!($method),
            about: $about,
            takes: { use Takes::*; $takes },
            gives: { use Gives::*; $gives },
        }),*];
    };
}

operations! {
    POST "/v1/chat/completions" Body(|_| openai::body_schema())
        => OrEvents(|_| answers::chat()), "A chat, as OpenAI's API has it";
    POST "/v1/completions" Body(|_| completions::body_schema())
        => OrEvents(|_| answers::completion()), "A text goes on, as OpenAI's API has it";
    POST "/v1/embeddings" Body(|_| openai::embed_schema())
        => Json(|_| answers::embeddings()), "Vectors of texts, as OpenAI's API has it";
    POST "/v1/audio/transcriptions" Form(|_| openai::audio_schema(SpeechTask::Transcribe))
        => OrText(|_| answers::transcript()), "What is said in sound, as OpenAI's API has it";
    POST "/v1/audio/translations" Form(|_| openai::audio_schema(SpeechTask::Translate))
        => OrText(|_| answers::transcript()), "The same in English";
    POST "/v1/responses" Body(|_| responses::body_schema())
        => OrEvents(|_| answers::response()), "A response, as OpenAI's API has it";
    POST "/v1/messages" Body(|_| anthropic::body_schema())
        => OrEvents(|_| answers::message()), "A message, as Anthropic's API has it";
    POST "/v1/messages/count_tokens" Body(|_| anthropic::count_schema())
        => Json(|_| answers::count_tokens()), "The tokens of a message, without answering it";
    POST "/api/chat" Body(|_| ollama::chat_schema())
        => OrLines(|_| answers::ollama("message")), "A chat, as Ollama's API has it";
    POST "/api/generate" Body(|_| ollama::generate_schema())
        => OrLines(|_| answers::ollama("response")), "A text goes on, as Ollama's API has it";
    POST "/api/embed" Body(|_| ollama::embed_schema())
        => Json(|_| answers::ollama_embed()), "Vectors of texts, as Ollama's API has it";
    POST "/api/embeddings" Body(|_| ollama::embeddings_schema())
        => Json(|_| answers::ollama_embeddings()), "The vector of one text, as it was before";
    GET "/api/tags" Nothing => Json(|_| answers::tags()), "The models, as Ollama's API has it";
    POST "/api/show" Body(|_| ollama::show_schema())
        => Json(|_| answers::show()), "One model, as Ollama's API has it";
    GET "/api/version" Nothing => Json(|_| answers::version()), "The node's version";
    GET "/v2" Nothing => Json(|_| answers::server()), "Who serves, and what it speaks";
    GET "/v2/health/live" Nothing => Json(|_| answers::yes("live")), "Whether the node lives";
    GET "/v2/health/ready" Nothing => Json(|_| answers::yes("ready")), "Whether it takes requests";
    GET "/v2/models/{model}" Nothing
        => Json(|_| answers::metadata()), "What a model takes and gives";
    GET "/v2/models/{model}/ready" Nothing
        => Json(|_| answers::yes("ready")), "Whether a model can be asked";
    POST "/v2/models/{model}/infer" Tensors(|_| inference::infer_schema())
        => Tensors(|_| answers::inference()), "What a model makes, as tensors";
    GET "/v2/models/{model}/versions/{version}" Nothing
        => Json(|_| answers::metadata()), "What a version of a model takes and gives";
    GET "/v2/models/{model}/versions/{version}/ready" Nothing
        => Json(|_| answers::yes("ready")), "Whether a version of a model can be asked";
    POST "/v2/models/{model}/versions/{version}/infer" Tensors(|_| inference::infer_schema())
        => Tensors(|_| answers::inference()), "The same, of this version or not at all";
    GET "/v1/models" Nothing => Json(of::<models::List<'static>>), "The models within reach";
    GET "/v1/models/{model}" Nothing => Json(of::<models::Entry<'static>>), "One model";
    GET "/v1/requests/{id}" Nothing
        => Json(of::<Record>), "What became of a request: candidates, estimates, why";
    POST "/v1/requests/{id}/labels" Body(of::<wire::Labels>)
        => Json(of::<wire::Labelled>), "What a learned model should have said, to learn from";
    GET "/openapi.json" Nothing => Json(|_| answers::object()), "This description";
    GET "/health" Nothing => Json(|_| answers::health()), "Whether the node takes requests";
    GET "/metrics" Nothing => Text("application/openmetrics-text"), "What is counted";
    GET "/admin/status" Nothing => Json(of::<wire::Status>), "The mesh as this node sees it";
    GET "/admin/watch" Nothing => Text("application/x-ndjson"), "The same, at every change";
    GET "/admin/members" Nothing => Json(of::<wire::List<wire::Member>>), "The mesh's members";
    POST "/admin/invite" Optional(of::<wire::InviteRequest>)
        => Json(of::<wire::Invite>), "Makes a join code";
    POST "/admin/revoke" Body(of::<wire::NodeRequest>)
        => Json(of::<wire::Done>), "Shuts a node out";
    POST "/admin/promote" Body(of::<wire::NodeRequest>)
        => Json(of::<wire::Done>), "Lets a node admit others";
    POST "/admin/leave" Empty => Json(of::<wire::Done>), "Leaves the mesh and stops the node";
    POST "/admin/shutdown" Empty => Accepted(of::<wire::Done>), "Stops the node";
    POST "/admin/root/rotate" Empty => Json(of::<wire::Done>), "Replaces the mesh's root key";
    GET "/admin/routes" Nothing => Json(of::<wire::Routes>), "The node's own routes";
    POST "/admin/routes" Body(of::<wire::Routes>)
        => Json(of::<wire::Done>), "Puts other routes of the node's own in force";
    POST "/admin/routes/rollback" Empty
        => Json(of::<wire::Done>), "Puts the node's own routes before them in force again";
    GET "/admin/mesh-routes" Nothing
        => Json(of::<wire::List<wire::RouteEntry>>), "The routes of the mesh";
    POST "/admin/mesh-routes" Body(of::<wire::Routes>)
        => Json(of::<wire::List<wire::RouteEntry>>), "Changes routes of the mesh";
    POST "/admin/mesh-routes/remove" Body(of::<wire::EntryOrder>)
        => Json(of::<wire::List<wire::RouteEntry>>), "Removes an entry of the mesh's routes";
    POST "/admin/mesh-routes/rollback" Body(of::<wire::EntryOrder>)
        => Json(of::<wire::List<wire::RouteEntry>>), "Goes back to a version of an entry";
    GET "/admin/mesh-routes/name/{name}" Nothing
        => Json(of::<wire::List<wire::RouteEntry>>), "The versions of a route or an alias";
    GET "/admin/mesh-routes/model/{name}" Nothing
        => Json(of::<wire::List<wire::RouteEntry>>), "The versions of a model's entry";
    GET "/admin/tenants" Nothing => Json(of::<wire::List<wire::Tenant>>), "The accounts";
    POST "/admin/tenants" Body(of::<wire::TenantRequest>)
        => Json(of::<wire::Done>), "Makes an account known";
    POST "/admin/tenants/suspend" Body(of::<wire::PathRequest>)
        => Json(of::<wire::Done>), "Refuses an account from now on";
    GET "/admin/keys" Nothing => Json(of::<wire::List<wire::Key>>), "The API keys";
    POST "/admin/keys" Body(of::<wire::KeyRequest>)
        => Json(of::<wire::NewKey>), "Makes an API key";
    DELETE "/admin/keys/{id}" Nothing => Json(of::<wire::Done>), "Removes an API key";
    GET "/admin/budgets" Nothing => Json(of::<wire::List<wire::Budget>>), "The budgets";
    POST "/admin/budgets" Body(of::<wire::BudgetRequest>)
        => Json(of::<wire::Enacted>), "Gives an account a budget, or changes it";
    GET "/admin/budgets/lower" Nothing
        => Json(of::<wire::List<wire::Budget>>), "The budgets of an account of this name";
    POST "/admin/budgets/lower" Body(of::<wire::LowerRequest>)
        => Json(of::<wire::Done>), "Lowers a budget at once";
    GET "/admin/budgets/remove" Nothing
        => Json(of::<wire::List<wire::Budget>>), "The budgets of an account of this name";
    POST "/admin/budgets/remove" Body(of::<wire::RemoveRequest>)
        => Json(of::<wire::Enacted>), "Takes a budget away";
    GET "/admin/budgets/renew" Nothing
        => Json(of::<wire::List<wire::Budget>>), "The budgets of an account of this name";
    POST "/admin/budgets/renew" Empty
        => Json(of::<wire::Enacted>), "Prolongs the validity of all budgets";
    GET "/admin/budgets/{account}" Nothing
        => Json(of::<wire::List<wire::Budget>>), "The budgets of an account";
    GET "/admin/models" Nothing => Json(of::<wire::List<wire::Model>>), "This node's own models";
    POST "/admin/models" Body(of::<wire::ModelRequest>)
        => Json(of::<wire::Done>), "Adds a model from this node's disk";
    DELETE "/admin/models/{name}" Nothing
        => Json(of::<wire::Done>), "Removes a model from service";
    GET "/admin/variants" Nothing
        => Json(of::<wire::List<wire::VariantChoice>>), "Which file of each model with several";
    GET "/admin/providers" Nothing => Json(of::<wire::List<wire::Provider>>), "The providers";
    POST "/admin/providers" Body(of::<RawProvider>)
        => Json(of::<wire::Done>), "Adds a provider, or replaces the one of its name";
    DELETE "/admin/providers/{name}" Nothing => Json(of::<wire::Done>), "Removes a provider";
    GET "/admin/provider-keys" Nothing
        => Json(of::<wire::List<wire::StoredKey>>), "The keys of providers, without the keys";
    POST "/admin/provider-keys" Body(of::<wire::ProviderKey>)
        => Json(of::<wire::Done>), "Stores a provider's key";
    DELETE "/admin/provider-keys/{name}" Nothing
        => Json(of::<wire::Done>), "Removes a provider's key";
    GET "/admin/federated" Nothing
        => Json(of::<wire::List<wire::FederatedJob>>), "The jobs of learning across nodes";
    POST "/admin/federated" Body(of::<wire::FederatedRequest>)
        => Json(of::<wire::FederatedJob>), "Asks members if their data fit a job, and starts it";
    POST "/admin/federated-check" Body(of::<wire::FederatedQuestion>)
        => Json(of::<wire::FederatedCheck>), "Whether nodes' data fit a job, before it starts";
    POST "/admin/federated-anchors/{name}" Nothing
        => Json(of::<wire::Done>), "Replaces the anchors of a job that cannot be reached";
    GET "/admin/federated-watch" Nothing
        => Text("application/x-ndjson"), "The same, at every change";
    GET "/admin/federated-chain/{piece}" Nothing
        => Json(of::<wire::FederatedPiece>), "A piece of the proof of a job's model";
    GET "/admin/federated-personal/{name}" Nothing
        => Json(of::<wire::FederatedPiece>), "This node's own model of a job, as a file";
    GET "/admin/federated-name/{name}" Nothing
        => Json(of::<wire::FederatedName>), "Whether a job of learning could have a name";
    DELETE "/admin/federated/{name}" Nothing
        => Json(of::<wire::Done>), "Takes a job of learning away from all nodes";
    GET "/admin/cache" Nothing => Json(of::<wire::Cache>), "The cache of answers";
    POST "/admin/cache/purge" Optional(of::<wire::CachePurge>)
        => Json(of::<wire::Done>), "Drops answers that are kept";
    GET "/admin/requests/{id}" Nothing => Json(of::<Record>), "What is remembered of a request";
    POST "/admin/labels" Body(of::<wire::LabelOrder>)
        => Json(of::<wire::Labelled>), "What a learned model should have said to a request";
    DELETE "/admin/labels/{model}" Nothing
        => Json(of::<wire::Done>), "Forgets the labelled requests of a model at this node";
}
