//! From a request to its response: which endpoint, who may, and what every response carries.
//!
//! Owns the order of the checks: site, path, method, caller, content, body. Paths and their methods
//! are `route`'s, and what an endpoint does is in its own file.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HOST, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use selvedge_base::{Code, ModelDigest, NodeId, RequestId};
use selvedge_core::Piece;
use selvedge_dialect::embed::{EmbedRequest, Embeddings};
use selvedge_dialect::inference::rows;
use selvedge_dialect::tap::{self, Kind};
use selvedge_dialect::{self as dialect, anthropic};
use selvedge_net::clock;
use selvedge_runtime::{Asked, ChatCall, ClassCall, EmbedCall, Keeper, Trace, Wish, tells_classes};

use super::allowance::Tightest;
use super::answers::Answers;
use super::backend::{Backend, Holder};
use super::body::{Answer, json, whole};
use super::errors::Problem;
use super::events::{Events, Setting};
use super::guard::{Caller, Guard};
use super::ids::Ids;
use super::limits::{Reader, Received};
use super::metrics::{Metrics, Progress, Tally};
use super::params::Plan;
use super::reply::{self, Heading};
use super::route::{Route, Surface};
use super::settings::Settings;
use super::speech::{self, Speech};
use super::stop::Stop;
use super::{admin, api, cache, chat, completions, embed, grpc, models, ollama, relay, trace};

/// Names a response, so that a person can ask about it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The name of the node that answers.
const NODE: HeaderName = HeaderName::from_static("x-selvedge-node");

/// Asks nginx and its kin to pass events on at once.
pub(super) const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What all requests of a surface share.
pub(super) struct App {
    pub(super) settings: Settings,
    pub(super) stop: Stop,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) guard: Guard,
    pub(super) reader: Reader,
    pub(super) metrics: Arc<Metrics>,
    ids: Ids,
}

impl App {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        settings: Settings,
        stop: Stop,
        address: SocketAddr,
    ) -> Self {
        Self {
            guard: Guard::new(&settings, address),
            reader: Reader::new(&settings),
            metrics: Arc::new(Metrics::new(Arc::clone(&backend))),
            ids: Ids::new(),
            settings,
            stop,
            backend,
        }
    }
}

/// Answers one request.
pub(super) async fn handle(app: Arc<App>, request: Request<Incoming>) -> Response<Answer> {
    let (id, drawn) = app.ids.draw();
    let mut tally = Tally::new(&app.metrics);
    let (holder, trace) = (OnceLock::new(), OnceLock::new());
    let exchange = Exchange { app: &app, id, drawn, holder, trace };
    let mut code = None;
    let (mut response, status) = match exchange.answer(request, &mut tally).await {
        Ok(response) => {
            let status = response.status();
            (response, status)
        }
        Err(problem) => {
            app.metrics.refused(problem.code);
            code = Some(problem.code);
            let response = match tally.surface_of() {
                Surface::Messages => problem.response_as_anthropic(),
                Surface::Ollama | Surface::Inference => problem.response_as_text(),
                Surface::Grpc => grpc::refused(&problem),
                _ => problem.response(),
            };
            // A call of gRPC has its own status beside that of HTTP, which is always good.
            (response, problem.status)
        }
    };
    tally.answered(status);
    if let Some(trace) = exchange.trace.get() {
        trace.answered(status.as_u16(), code);
    }
    if let Some(holder) = exchange.holder.get() {
        let mut tightest = Tightest::default();
        app.backend.allowances(holder, &mut |allowance| tightest.take(allowance));
        tightest.write(response.headers_mut());
    }
    if let Ok(value) = HeaderValue::from_bytes(&id.text()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The answer to a path nobody knows.
pub(super) fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
}

/// One request on its way.
pub(super) struct Exchange<'a> {
    pub(super) app: &'a App,
    pub(super) id: RequestId,
    pub(super) drawn: u64,
    /// Who asks, once that is known.
    holder: OnceLock<Holder>,
    /// Its place in a trace, if it has one.
    pub(super) trace: OnceLock<Arc<Trace>>,
}

impl Exchange<'_> {
    async fn answer(
        &self,
        request: Request<Incoming>,
        tally: &mut Tally,
    ) -> Result<Response<Answer>, Problem> {
        let (mut parts, body) = request.into_parts();
        name_host(&mut parts);
        let path = parts.uri.path();
        let route = Route::find(path);
        // Known before the first refusal, which is in the surface's own shape.
        if let Some(route) = &route {
            tally.surface(route.surface());
        }
        self.app.guard.check_site(&parts.uri, &parts.headers)?;
        if path == "*" && parts.method == Method::OPTIONS {
            return Ok(options("GET, HEAD, POST, DELETE, OPTIONS"));
        }
        let route = route.ok_or_else(not_found)?;
        let methods = route.methods();
        if !is_known(&parts.method, methods) {
            return Err(wrong_method(methods));
        }
        if parts.method == Method::OPTIONS {
            return Ok(options(methods));
        }
        // A stranger is told of to nobody: it could fill the queue with what is refused.
        if let Some(came) = trace::came(&route)
            && self.caller(&parts).is_ok()
        {
            let caller = trace::context(&parts.headers);
            if let Some(begun) = self.app.backend.trace(caller, came) {
                let _first = self.trace.set(begun);
            }
        }
        self.endpoint(route, &parts, body).await
    }

    async fn endpoint(
        &self,
        route: Route,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Response<Answer>, Problem> {
        let App { backend, metrics, stop, .. } = self.app;
        let surface = route.surface();
        match route {
            Route::Chat => self.generate(parts, body, surface, chat::plan).await,
            Route::Completions => self.generate(parts, body, surface, completions::plan).await,
            // Boxed, as others below: chats do not carry along what they have no use for.
            Route::Embeddings => Box::pin(self.embed(parts, body, surface, embed::OPENAI)).await,
            Route::Transcriptions | Route::Translations => {
                Box::pin(self.hear(parts, body, &route)).await
            }
            Route::OllamaEmbed => Box::pin(self.embed(parts, body, surface, embed::OLLAMA)).await,
            Route::OllamaEmbeddings => {
                Box::pin(self.embed(parts, body, surface, embed::OLLAMA_OLDER)).await
            }
            Route::Messages => self.told(parts, body, surface, speech::ANTHROPIC).await,
            Route::Responses => self.told(parts, body, surface, speech::RESPONSES).await,
            Route::OllamaChat => self.told(parts, body, surface, speech::OLLAMA_CHAT).await,
            Route::OllamaGenerate => self.told(parts, body, surface, speech::OLLAMA_GENERATE).await,
            Route::OllamaTags => {
                let holder = self.holder(parts, surface)?;
                let provided = backend.provided();
                Ok(ollama::tags(&backend.status(), &provided, |model| holder.may_ask(model)))
            }
            Route::OllamaShow => {
                let (caller, received) = self.receive(parts, body, surface).await?;
                let name = dialect::ollama::parse_show(&received.bytes)?;
                caller.holder.check_model(&name)?;
                ollama::show(&backend.status(), &backend.provided(), &name)
            }
            Route::OllamaVersion => self.holder(parts, surface).map(|_| ollama::version()),
            Route::CountTokens => {
                let (caller, received) = self.receive(parts, body, surface).await?;
                let request = anthropic::parse_count(&received.bytes)?;
                caller.holder.check_model(&request.model)?;
                let tokens = backend.count_tokens(self.call(request.into(), caller)).await?;
                let body = anthropic::count_body(tokens);
                Ok(whole(StatusCode::OK, "application/json", body))
            }
            Route::Grpc(method) => Box::pin(self.grpc(method, parts, body)).await,
            Route::Inference(endpoint) => Box::pin(self.inference(endpoint, parts, body)).await,
            Route::Models => {
                let holder = self.holder(parts, surface)?;
                let provided = backend.provided();
                Ok(models::list(&backend.status(), &provided, |model| holder.may_ask(model)))
            }
            Route::Model(name) => {
                self.holder(parts, surface)?.check_model(&name)?;
                models::one(&backend.status(), &backend.provided(), &name)
            }
            Route::Request(id) => self.past(&id, parts),
            Route::Labels(id) => Box::pin(self.label(&id, parts, body)).await,
            Route::Description => {
                self.holder(parts, surface)?;
                Ok(whole(StatusCode::OK, "application/json", api::description()))
            }
            Route::Health => Ok(health(stop)),
            Route::Metrics => self.holder(parts, surface).map(|holder| metrics.page(holder)),
            Route::Admin(path, _) => Box::pin(self.manage(&path, parts, body)).await,
        }
    }

    /// What operators order.
    async fn manage(
        &self,
        path: &str,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Response<Answer>, Problem> {
        let App { backend, guard, stop, .. } = self.app;
        guard.check_admin(&parts.headers)?;
        if parts.method != Method::POST {
            return admin::answer(&parts.method, path, b"", backend.as_ref(), stop).await;
        }
        Guard::check_content(&parts.headers)?;
        let received = self.app.reader.read(&parts.headers, body).await?;
        admin::answer(&parts.method, path, &received.bytes, backend.as_ref(), stop).await
    }

    /// Who asks, if this endpoint is open to them.
    pub(super) fn holder(&self, parts: &Parts, surface: Surface) -> Result<&Holder, Problem> {
        let holder = self.caller(parts)?;
        holder.check_route(surface)?;
        Ok(holder)
    }

    /// Who asks, whatever for. The key is looked at once.
    pub(super) fn caller(&self, parts: &Parts) -> Result<&Holder, Problem> {
        if let Some(known) = self.holder.get() {
            return Ok(known);
        }
        let holder = self.app.guard.holder(&parts.headers, self.app.backend.as_ref())?;
        Ok(self.holder.get_or_init(|| holder))
    }

    async fn generate(
        &self,
        parts: &Parts,
        body: Incoming,
        surface: Surface,
        plan: fn(&[u8]) -> Result<Plan, Problem>,
    ) -> Result<Response<Answer>, Problem> {
        let backend = &self.app.backend;
        let (caller, received) = self.receive(parts, body, surface).await?;
        let wish = cache::wish(&parts.headers)?;
        // A body that is not good is refused by whoever reads all of it.
        if surface == Surface::Chat
            && let Ok(seen) = tap::look(&received.bytes)
            && (seen.has_tools || backend.leaves_the_mesh(&seen.model))
        {
            let (bytes, parse) = (received.bytes.clone(), speech::OPENAI.parse);
            let asked = Asked::seen(seen, bytes, Kind::OpenAi, parse)?;
            return self.relay(asked, speech::OPENAI, caller, wish, received.bytes).await;
        }
        // Boxed: what passes does not carry it along.
        Box::pin(self.generate_read(surface, plan, caller, wish, received)).await
    }

    /// A request whose body is read whole, as all are that the mesh answers.
    async fn generate_read(
        &self,
        surface: Surface,
        plan: fn(&[u8]) -> Result<Plan, Problem>,
        caller: Caller,
        wish: Option<Wish>,
        received: Received,
    ) -> Result<Response<Answer>, Problem> {
        let App { backend, metrics, .. } = self.app;
        // Several texts, or tokens, are for models of the mesh alone.
        if surface == Surface::Completions
            && let Ok(request) = dialect::openai::parse_text(&received.bytes)
            && backend.leaves_the_mesh(&request.model)
        {
            return self.relay(request.into(), speech::TEXT, caller, wish, received.bytes).await;
        }
        let plan = plan(&received.bytes);
        if plan.is_err() && surface == Surface::Chat && chat::speaks_of_calls(&received.bytes) {
            let asked = (speech::OPENAI.parse)(&received.bytes)?.into();
            return self.relay(asked, speech::OPENAI, caller, wish, received.bytes).await;
        }
        let mut plan = plan?;
        caller.holder.check_model(&plan.model)?;
        let (named, completes) = (plan.model.clone(), surface == Surface::Completions);
        let routed = completes && backend.leaves_the_mesh(&named);
        if routed {
            let asked = completions::as_chat(&plan).into();
            plan.model = backend.continues(&self.call(asked, caller.clone()))?;
        }
        let (shape, stream, include_usage) = (plan.shape, plan.stream, plan.include_usage);
        let digest = self.writer(&plan.model)?;
        // An answer comes under the name that was asked for.
        let heading = Heading { model: named, ..Heading::new(&plan, self.id, digest) };
        let mut calls = plan.calls(self.id, self.drawn, &caller);
        for call in &mut calls {
            call.trace = self.trace.get().cloned();
        }
        let (bytes, shape) = (&received.bytes, (shape, routed));
        let door = cache::mesh_door(backend.as_ref(), &calls, shape, wish, bytes).await?;
        let (said, keeper) = match door {
            cache::Door::Answered(response) => return Ok(*response),
            cache::Door::Ask(verdict) => verdict.parts(),
        };
        drop(received);
        let (progress, count) = (Progress::new(metrics), calls.len());
        let answers = Answers::ask(backend.as_ref(), calls);
        if stream {
            let mut response =
                self.stream(heading, answers, progress, (include_usage, keeper)).await?;
            said.write(response.headers_mut());
            return Ok(response);
        }
        let (mut response, node) = reply::whole(heading, answers, progress, count).await?;
        if let (Some(keeper), Some(bytes)) = (keeper, response.body().known()) {
            keeper.keep_whole(bytes.clone(), "application/json");
        }
        self.name_node(&mut response, node);
        said.write(response.headers_mut());
        Ok(response)
    }

    /// The file behind a model's name, if any node has it; refuses what only tells classes.
    fn writer(&self, model: &str) -> Result<Option<ModelDigest>, Problem> {
        let digest = self.app.backend.digest_of(model);
        match digest.is_none() && self.app.backend.learned(model).is_some() {
            true => Err(tells_classes(model).into()),
            false => Ok(digest),
        }
    }

    /// A chat in a surface's own dialect, whoever answers it.
    async fn told(
        &self,
        parts: &Parts,
        body: Incoming,
        surface: Surface,
        speech: Speech,
    ) -> Result<Response<Answer>, Problem> {
        let (caller, received) = self.receive(parts, body, surface).await?;
        let wish = cache::wish(&parts.headers)?;
        let asked = Asked::read(received.bytes.clone(), speech.kind, speech.parse)?;
        self.relay(asked, speech, caller, wish, received.bytes).await
    }

    /// Embeddings in a surface's own dialect.
    async fn embed(
        &self,
        parts: &Parts,
        body: Incoming,
        surface: Surface,
        speech: embed::Speech,
    ) -> Result<Response<Answer>, Problem> {
        let (caller, received) = self.receive(parts, body, surface).await?;
        let wish = cache::wish(&parts.headers)?;
        let request = (speech.parse)(&received.bytes)?;
        let encoding = request.encoding;
        let call = self.embed_call(request, caller)?;
        let backend = self.app.backend.as_ref();
        let bytes = &received.bytes;
        let (said, keeper) =
            match cache::embed_door(backend, &call, speech.cache, wish, bytes).await? {
                cache::Door::Answered(response) => return Ok(*response),
                cache::Door::Ask(verdict) => verdict.parts(),
            };
        drop(received);
        let answer = self.vectors(call).await?;
        let body = Bytes::from((speech.whole)(&answer, encoding));
        if let Some(keeper) = keeper {
            keeper.keep_whole(body.clone(), "application/json");
        }
        let mut response = whole(StatusCode::OK, "application/json", body);
        said.write(response.headers_mut());
        Ok(response)
    }

    /// The vectors that a caller wants.
    pub(super) async fn embeddings(
        &self,
        request: EmbedRequest,
        caller: Caller,
    ) -> Result<Embeddings, Problem> {
        self.vectors(self.embed_call(request, caller)?).await
    }

    async fn vectors(&self, call: EmbedCall) -> Result<Embeddings, Problem> {
        let App { backend, metrics, .. } = self.app;
        let mut progress = Progress::new(metrics);
        let answer = backend.embed(call).await.map_err(|failure| Problem::from(failure.refusal))?;
        progress.took(answer.usage.unwrap_or_default().prompt_tokens, 0);
        Ok(answer)
    }

    fn embed_call(&self, request: EmbedRequest, caller: Caller) -> Result<EmbedCall, Problem> {
        caller.holder.check_model(&request.model)?;
        Ok(EmbedCall {
            id: self.id,
            tenant: caller.holder.tenant,
            account: caller.holder.account,
            key: caller.holder.key,
            keyed: caller.holder.keyed,
            label: caller.label,
            deadline: caller.deadline,
            drawn: self.drawn,
            trace: self.trace.get().cloned(),
            request,
        })
    }

    /// Who asks, and the whole body.
    pub(super) async fn receive(
        &self,
        parts: &Parts,
        body: Incoming,
        surface: Surface,
    ) -> Result<(Caller, Received), Problem> {
        let holder = self.holder(parts, surface)?;
        let caller = self.app.guard.caller(&parts.headers, holder.clone())?;
        Guard::check_content(&parts.headers)?;
        Ok((caller, self.app.reader.read(&parts.headers, body).await?))
    }

    pub(super) fn call(&self, asked: Asked, caller: Caller) -> ChatCall {
        ChatCall {
            id: self.id,
            tenant: caller.holder.tenant,
            account: caller.holder.account,
            key: caller.holder.key,
            keyed: caller.holder.keyed,
            label: caller.label,
            came: clock::mono(),
            deadline: caller.deadline,
            drawn: self.drawn,
            trace: self.trace.get().cloned(),
            asked,
        }
    }

    /// A request for classes, of a model in this version or, where that is empty, any.
    pub(super) fn class_call(
        &self,
        (model, version): (&str, &str),
        asked: rows::Asked,
        caller: Caller,
    ) -> ClassCall {
        ClassCall {
            id: self.id,
            tenant: caller.holder.tenant,
            account: caller.holder.account,
            key: caller.holder.key,
            deadline: caller.deadline,
            trace: self.trace.get().cloned(),
            model: model.to_owned(),
            version: (!version.is_empty()).then(|| version.to_owned()),
            asked,
        }
    }

    async fn relay(
        &self,
        asked: Asked,
        speech: Speech,
        caller: Caller,
        wish: Option<Wish>,
        body: Bytes,
    ) -> Result<Response<Answer>, Problem> {
        let App { backend, metrics, settings, stop, .. } = self.app;
        caller.holder.check_model(asked.model())?;
        let (model, include_usage) = (asked.model().to_owned(), asked.include_usage());
        let streams = asked.stream();
        let call = self.call(asked, caller);
        let (kept, keeper) =
            match cache::door(backend.as_ref(), &call, &speech, wish, &body).await? {
                cache::Door::Answered(response) => return Ok(*response),
                cache::Door::Ask(verdict) => verdict.parts(),
            };
        drop(body);
        let setting = relay::Setting {
            id: self.id,
            model,
            include_usage,
            speech,
            keep_alive: settings.keep_alive,
            stop: stop.clone(),
            progress: Progress::new(metrics),
            keeper,
        };
        let said = backend.chat(call);
        let mut response = match streams {
            true => relay::stream(said, setting).await,
            false => relay::whole_answer(said, setting).await,
        }?;
        kept.write(response.headers_mut());
        Ok(response)
    }

    async fn stream(
        &self,
        heading: Heading,
        mut answers: Answers,
        progress: Progress,
        (include_usage, keeper): (bool, Option<Keeper>),
    ) -> Result<Response<Answer>, Problem> {
        let Some(first) = answers.next().await else {
            let code = Code::Internal.as_str();
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, code, "no answer came"));
        };
        let node = match &first.1 {
            Piece::Failed(refusal) => return Err(Problem::from(refusal.clone())),
            Piece::Started { served_by, .. } | Piece::Finished { served_by, .. } => {
                Some(*served_by)
            }
            Piece::Moved { to, .. } => Some(*to),
            Piece::Token(_) => None,
        };
        let setting = Setting {
            backend: Arc::clone(&self.app.backend),
            keep_alive: self.app.settings.keep_alive,
            include_usage,
            stop: self.app.stop.clone(),
            keeper,
        };
        let events = Events::new(&heading, first, answers, progress, setting);
        let mut response = whole(StatusCode::OK, "text/event-stream", "");
        // Some reverse proxies hold streams back unless told not to.
        response.headers_mut().insert(UNBUFFERED, HeaderValue::from_static("no"));
        *response.body_mut() = Answer::Stream(Box::new(events));
        self.name_node(&mut response, node);
        Ok(response)
    }

    /// Says which node answered. A name that no header can hold is given as the node's id.
    pub(super) fn name_node(&self, response: &mut Response<Answer>, node: Option<NodeId>) {
        let Some(node) = node else { return };
        let name = self.app.backend.name_of(&node);
        let value = HeaderValue::from_str(&name).or_else(|_| HeaderValue::from_str(&node.short()));
        if let Ok(value) = value {
            response.headers_mut().insert(NODE, value);
        }
    }
}

/// HTTP/2 names the host beside the headers (RFC 9113, section 8.3.1): from here on it stands where
/// it does otherwise.
fn name_host(parts: &mut Parts) {
    if parts.version != Version::HTTP_2 || parts.headers.contains_key(HOST) {
        return;
    }
    let authority = parts.uri.authority().map(|host| HeaderValue::from_str(host.as_str()));
    if let Some(Ok(host)) = authority {
        parts.headers.insert(HOST, host);
    }
}

/// Says no more than a stranger may know.
fn health(stop: &Stop) -> Response<Answer> {
    let (code, status) = match stop.is_requested() {
        false => (StatusCode::OK, "ok"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    json(code, &serde_json::json!({ "status": status }))
}

fn options(methods: &'static str) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// Whether a method is one of a path's.
fn is_known(method: &Method, methods: &str) -> bool {
    // What nearly all requests are, and the first that their paths name.
    *method == Method::POST && methods.starts_with("POST, ")
        || methods.split(", ").any(|known| known == method.as_str())
}

fn wrong_method(methods: &'static str) -> Problem {
    let message = format!("this path answers {methods}");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem { allow: Some(methods), ..Problem::new(status, "method_not_allowed", message) }
}
