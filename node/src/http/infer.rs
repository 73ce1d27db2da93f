//! The Open Inference Protocol over HTTP.
//!
//! Owns its paths and the way from an inference to an answer, whichever encoding it came in: one
//! text is a chat, texts for vectors are embeddings; rows of numbers are in `rows`, and tensors in
//! a model's own terms in `tensors`. Bodies are the dialect's.

use futures::StreamExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Response, StatusCode};
use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use selvedge_contract::carried::Carried;
use selvedge_contract::{self as contract, Signature};
use selvedge_dialect::chat::{Event, Gathered, Usage};
use selvedge_dialect::inference::rows::{self, Asked, Card, Found};
use selvedge_dialect::inference::{self, Infer, Makes, Output, Tensor, tensors};
use selvedge_runtime::{self as runtime, Said, TensorCall, check_version};

use super::body::{Answer, whole};
use super::errors::Problem;
use super::guard::Caller;
use super::metrics::Progress;
use super::route::{Surface, decoded};
use super::router::Exchange;

/// The length of a body's JSON, where bytes of tensors follow.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// The path that names of models follow.
const MODELS: &str = "/v2/models/";

/// What a version follows.
const VERSIONS: &str = "/versions/";

/// The paths as they are described. Not among them is another spelling of the first: `/v2/`.
pub(super) const PATHS: [&str; 9] = [
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{model}",
    "/v2/models/{model}/ready",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}",
    "/v2/models/{model}/versions/{version}/ready",
    "/v2/models/{model}/versions/{version}/infer",
];

/// A model as a path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) model: String,
    /// The version that must answer; empty: whichever does.
    pub(super) version: String,
}

/// What a model is.
pub(super) enum Meant {
    /// It takes texts.
    Texts(Makes),
    /// It takes rows of numbers.
    Rows(Card),
    /// It takes tensors in its own terms.
    Tensors,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Server,
    Live,
    Ready,
    Model(Named),
    ModelReady(Named),
    Infer(Named),
}

impl Endpoint {
    pub(super) fn find(path: &str) -> Option<Self> {
        match path {
            "/v2" | "/v2/" => Some(Self::Server),
            "/v2/health/live" => Some(Self::Live),
            "/v2/health/ready" => Some(Self::Ready),
            _ => {
                let rest = path.strip_prefix(MODELS)?;
                let (name, last) = match rest.rsplit_once('/') {
                    Some((name, last @ ("infer" | "ready"))) => (name, last),
                    _ => (rest, ""),
                };
                // Names may hold slashes, escaped or not; a version holds none.
                let (name, version) = match name.rsplit_once(VERSIONS) {
                    Some((name, version)) if !version.contains('/') => (name, decoded(version)?),
                    _ => (name, String::new()),
                };
                let named = Named { model: decoded(name)?, version };
                match last {
                    _ if named.model.is_empty() => None,
                    "infer" => Some(Self::Infer(named)),
                    "ready" => Some(Self::ModelReady(named)),
                    _ => Some(Self::Model(named)),
                }
            }
        }
    }

    pub(super) const fn methods(&self) -> &'static str {
        match self {
            Self::Infer(_) => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}

impl Exchange<'_> {
    /// One request over REST.
    pub(super) async fn inference(
        &self,
        endpoint: Endpoint,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Response<Answer>, Problem> {
        let json = |status, body: Vec<u8>| Ok(whole(status, "application/json", body));
        match endpoint {
            // No more than a stranger may know.
            Endpoint::Live => json(StatusCode::OK, inference::live_body("live", true)),
            Endpoint::Ready => {
                let ready = !self.app.stop.is_requested();
                json(status(ready), inference::live_body("ready", ready))
            }
            Endpoint::Server => {
                self.holder(parts, Surface::Inference)?;
                json(StatusCode::OK, inference::server_body(env!("CARGO_PKG_VERSION")))
            }
            Endpoint::Model(Named { model, version }) => {
                let holder = self.holder(parts, Surface::Inference)?;
                holder.check_model(&model)?;
                let told = match self.meant(&model, &version)? {
                    Meant::Texts(makes) => inference::metadata_body(&model, makes),
                    Meant::Rows(card) => rows::metadata_body(&model, &card),
                    Meant::Tensors => {
                        let caller = self.app.guard.caller(&parts.headers, holder.clone())?;
                        tensors::metadata_body(&model, &self.signature(&model, caller).await?)
                    }
                };
                json(StatusCode::OK, told)
            }
            Endpoint::ModelReady(Named { model, version }) => {
                self.holder(parts, Surface::Inference)?.check_model(&model)?;
                if let Meant::Rows(card) = self.meant(&model, &version)? {
                    check_version(&model, &card, Some(&version))?;
                }
                json(StatusCode::OK, inference::live_body("ready", true))
            }
            Endpoint::Infer(Named { model: name, version }) => {
                let holder = self.holder(parts, Surface::Inference)?.clone();
                let caller = self.app.guard.caller(&parts.headers, holder)?;
                check_content(&parts.headers)?;
                let length = json_length(&parts.headers)?;
                caller.holder.check_model(&name)?;
                let received = self.app.reader.read(&parts.headers, body).await?;
                let meant = self.meant(&name, &version)?;
                if let Meant::Tensors = meant {
                    let asked = tensors::parse(&received.bytes, length)?;
                    drop(received);
                    let (asked, outputs) = self.tensors(&name, asked, caller).await?;
                    return Ok(written(&tensors::body(&name, &asked, &outputs)?));
                }
                if let Meant::Rows(_) = meant {
                    let asked = rows::parse(&received.bytes, length)?;
                    // While others are computed for it has its numbers alone, which are bounded.
                    drop(received);
                    let (asked, found) = self.classes(&name, &version, asked, caller).await?;
                    return Ok(written(&rows::body(&name, &asked, &found)));
                }
                let infer = inference::parse(&received.bytes, length)?;
                drop(received);
                let (tensor, usage) = self.infer(&name, &infer, caller).await?;
                Ok(written(&inference::infer_body(&name, &infer, &tensor, usage)))
            }
        }
    }

    /// What a model is, which there must be, in this version. A learned one has whichever version
    /// it has when it answers: until then only a wrong version of a known one is refused.
    pub(super) fn meant(&self, model: &str, version: &str) -> Result<Meant, Problem> {
        if self.app.backend.takes_tensors(model) {
            check_only(version)?;
            return Ok(Meant::Tensors);
        }
        if let Some(makes) = self.app.backend.makes(model) {
            check_only(version)?;
            return Ok(Meant::Texts(makes));
        }
        if let Some(learned) = self.app.backend.learned(model) {
            let card = learned?;
            if !version.is_empty() {
                check_version(model, &card, Some(version))?;
            }
            return Ok(Meant::Rows(card));
        }
        self.makes(model).map(Meant::Texts)
    }

    /// The classes of rows of numbers, and what was asked, without the rows.
    pub(super) async fn classes(
        &self,
        model: &str,
        version: &str,
        mut asked: Asked,
        mut caller: Caller,
    ) -> Result<(Asked, Found), Problem> {
        caller.holder.check_model(model)?;
        if let Some(timeout) = asked.timeout {
            caller.deadline = caller.deadline.min(timeout);
        }
        // The values go to whoever computes, the rest stays here for the answer.
        let values = std::mem::take(&mut asked.values);
        let rest = asked.clone();
        asked.values = values;
        let call = self.class_call((model, version), asked, caller);
        let found = self.app.backend.classify(call).await?;
        Ok((rest, found))
    }

    /// One inference with tensors, or the question what a model takes.
    fn tensor_call(
        &self,
        model: &str,
        asked: Option<tensors::Asked>,
        caller: Caller,
    ) -> TensorCall {
        TensorCall {
            id: self.id,
            tenant: caller.holder.tenant,
            account: caller.holder.account,
            key: caller.holder.key,
            label: caller.label,
            deadline: caller.deadline,
            trace: self.trace.get().cloned(),
            model: model.to_owned(),
            asked,
        }
    }

    /// What a model takes and gives that is asked with tensors.
    pub(super) async fn signature(
        &self,
        model: &str,
        caller: Caller,
    ) -> Result<Signature, Problem> {
        match self.app.backend.infer(self.tensor_call(model, None, caller)).await? {
            Carried::Signature(signature) => Ok(signature),
            Carried::Tensors(_) => Err(odd()),
        }
    }

    /// The outputs of a model that is asked with tensors, and what was asked, without the inputs.
    pub(super) async fn tensors(
        &self,
        model: &str,
        mut asked: tensors::Asked,
        mut caller: Caller,
    ) -> Result<(tensors::Asked, Vec<contract::Tensor>), Problem> {
        caller.holder.check_model(model)?;
        if let Some(timeout) = asked.timeout {
            caller.deadline = caller.deadline.min(timeout);
        }
        // The inputs go to whoever computes, the rest stays here for the answer.
        let inputs = std::mem::take(&mut asked.inputs);
        let rest = asked.clone();
        asked.inputs = inputs;
        match self.app.backend.infer(self.tensor_call(model, Some(asked), caller)).await? {
            Carried::Tensors(outputs) => Ok((rest, outputs)),
            Carried::Signature(_) => Err(odd()),
        }
    }

    /// What a model makes, which there must be.
    pub(super) fn makes(&self, model: &str) -> Result<Makes, Problem> {
        self.app.backend.makes(model).ok_or_else(|| {
            let message = format!(
                "there is no model '{model}'; `selvedge models list` lists all that this node \
                 knows, GET /v1/models those that take texts"
            );
            let code = Code::ModelNotFound.as_str();
            Problem::new(StatusCode::NOT_FOUND, code, message).param("model")
        })
    }

    /// The answer to an inference, and what it took.
    pub(super) async fn infer(
        &self,
        model: &str,
        infer: &Infer,
        mut caller: Caller,
    ) -> Result<(Tensor, Usage), Problem> {
        caller.holder.check_model(model)?;
        let output = infer.wanted(self.makes(model)?)?;
        if let Some(timeout) = infer.settings.timeout {
            caller.deadline = caller.deadline.min(timeout);
        }
        match output {
            Output::Embedding => {
                let answer = self.embeddings(infer.embeddings(model)?, caller).await?;
                let tensor = Tensor::of_vectors(answer.vectors).ok_or_else(ragged)?;
                Ok((tensor, answer.usage.unwrap_or_default()))
            }
            Output::Text => self.text(model, infer, caller).await,
        }
    }

    async fn text(
        &self,
        model: &str,
        infer: &Infer,
        caller: Caller,
    ) -> Result<(Tensor, Usage), Problem> {
        let mut progress = Progress::new(&self.app.metrics);
        let asked = runtime::Asked::understood(infer.chat(model)?);
        let mut said = self.app.backend.chat(self.call(asked, caller));
        let mut gathered = Gathered::default();
        // Bytes that pass untranslated come only of a body that could.
        while let Some(Said::Event(event)) = said.next().await {
            if matches!(event, Event::Text { .. }) {
                progress.token();
            }
            gathered.take(event).map_err(|failure| Problem::from(failure.refusal))?;
            if gathered.complete {
                let usage = gathered.usage.unwrap_or_default();
                progress.took(usage.prompt_tokens, usage.completion_tokens);
                let text = gathered.choices.first().map(|choice| choice.text());
                return Ok((Tensor::Text(text.unwrap_or_default()), usage));
            }
        }
        let message = "the answer broke off without a reason; this is a fault of the node";
        let (blame, retry) = (Blame::Us, Retry::Elsewhere);
        Err(Refusal::new(Stage::Execute, blame, retry, Code::Internal, message).into())
    }
}

/// Models that take texts have one version.
pub(super) fn check_only(version: &str) -> Result<(), Problem> {
    if version.is_empty() || version == inference::VERSION {
        return Ok(());
    }
    let message = format!("this model has the version '{}' only", inference::VERSION);
    let code = Code::ModelNotFound.as_str();
    Err(Problem::new(StatusCode::NOT_FOUND, code, message).param("model_version"))
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn written(written: &inference::Written) -> Response<Answer> {
    let bytes = written.body.clone();
    let Some(json) = written.json else {
        return whole(StatusCode::OK, "application/json", bytes);
    };
    let mut response = whole(StatusCode::OK, "application/octet-stream", bytes);
    response.headers_mut().insert(JSON_LENGTH, HeaderValue::from(json));
    response
}

/// Refuses what a web page could send without being asked whether it may, and what is packed. The
/// official clients declare no type; a page of another origin is refused by its origin.
fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |message: &str| {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Err(Problem::new(status, "unsupported_media_type", message))
    };
    if headers.get(CONTENT_ENCODING).is_some_and(|packed| packed != "identity") {
        return unsupported("the body must not be compressed");
    }
    let Some(declared) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let essence = declared.to_str().ok().and_then(|text| text.split(';').next()).map(str::trim);
    let known = [
        "application/json",
        "application/octet-stream",
        "application/vnd.sagemaker-triton.binary+json",
    ];
    match essence.is_some_and(|text| known.iter().any(|known| text.eq_ignore_ascii_case(known))) {
        true => Ok(()),
        false => unsupported("the body must be application/json or application/octet-stream"),
    }
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Problem> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => {
            let message = "Inference-Header-Content-Length must be a whole number";
            Err(Problem::invalid("Inference-Header-Content-Length", message))
        }
    }
}

fn odd() -> Problem {
    let message = "the model answered something else than it was asked";
    let (blame, retry) = (Blame::Us, Retry::Elsewhere);
    Refusal::new(Stage::Execute, blame, retry, Code::Internal, message).into()
}

fn ragged() -> Problem {
    let message = "the provider answered with vectors of several lengths, which are no tensor";
    let (blame, retry) = (Blame::Provider, Retry::Elsewhere);
    Refusal::new(Stage::Execute, blame, retry, Code::ModelUnavailable, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_endpoints() {
        let of = |model: &str, version: &str| Named {
            model: model.to_owned(),
            version: version.to_owned(),
        };
        let model = |name: &str| of(name, "");
        let table = [
            ("/v2", Some(Endpoint::Server)),
            ("/v2/health/live", Some(Endpoint::Live)),
            ("/v2/health/ready", Some(Endpoint::Ready)),
            ("/v2/health", None),
            ("/v2/models/", None),
            ("/v2/models//infer", None),
            ("/v2/models/m", Some(Endpoint::Model(model("m")))),
            ("/v2/models/lab/embed/infer", Some(Endpoint::Infer(model("lab/embed")))),
            ("/v2/models/lab%2Fembed/ready", Some(Endpoint::ModelReady(model("lab/embed")))),
            ("/v2/models/m/versions/1/infer", Some(Endpoint::Infer(of("m", "1")))),
            ("/v2/models/m/versions/12", Some(Endpoint::Model(of("m", "12")))),
            ("/v2/models/a/m/versions/2/ready", Some(Endpoint::ModelReady(of("a/m", "2")))),
            ("/v2/models/m%2Fversions%2F2", Some(Endpoint::Model(model("m/versions/2")))),
            ("/v2/models/m/versions/2/x", Some(Endpoint::Model(model("m/versions/2/x")))),
            ("/v2/models/m/versions/%zz", None),
            ("/v2/models/m%zz", None),
        ];
        for (path, endpoint) in table {
            assert_eq!(Endpoint::find(path), endpoint, "{path}");
        }
    }

    #[test]
    fn what_a_form_can_send_is_no_inference() {
        for (declared, good) in [
            (None, true),
            (Some("application/json; charset=utf-8"), true),
            (Some("application/octet-stream"), true),
            (Some("text/plain"), false),
            (Some("application/x-www-form-urlencoded"), false),
            (Some("multipart/form-data"), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(declared) = declared {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(declared));
            }
            assert_eq!(check_content(&headers).is_ok(), good, "{declared:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(check_content(&headers).expect_err("packed").status, 415);
    }
}
