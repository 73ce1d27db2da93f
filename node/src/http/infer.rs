//! The Open Inference Protocol over HTTP.
//!
//! Owns its paths and the way from an inference to an answer, whichever encoding it came in: one
//! text is a chat, texts for vectors are embeddings. Bodies are the dialect's.

use futures::StreamExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Response, StatusCode};
use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use selvedge_dialect::chat::{Event, Gathered, Usage};
use selvedge_dialect::inference::{self, Infer, Makes, Output, Tensor};
use selvedge_runtime::{Asked, Said};

use super::body::{Answer, whole};
use super::errors::Problem;
use super::guard::Caller;
use super::metrics::Progress;
use super::router::{Exchange, Surface, decoded};

/// The length of a body's JSON, where bytes of tensors follow.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// The path that names of models follow.
const MODELS: &str = "/v2/models/";

/// The paths as they are described. Not among them are other spellings of the same: `/v2/`, and
/// names of models followed by their only version.
pub(super) const PATHS: [&str; 6] = [
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{model}",
    "/v2/models/{model}/ready",
    "/v2/models/{model}/infer",
];

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Server,
    Live,
    Ready,
    Model(String),
    ModelReady(String),
    Infer(String),
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
                // Names may hold slashes, escaped or not; each model has one version.
                let one = format!("/versions/{}", inference::VERSION);
                let name = decoded(name.strip_suffix(&one).unwrap_or(name))?;
                match last {
                    _ if name.is_empty() => None,
                    "infer" => Some(Self::Infer(name)),
                    "ready" => Some(Self::ModelReady(name)),
                    _ => Some(Self::Model(name)),
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
            Endpoint::Model(name) => {
                self.holder(parts, Surface::Inference)?.check_model(&name)?;
                json(StatusCode::OK, inference::metadata_body(&name, self.makes(&name)?))
            }
            Endpoint::ModelReady(name) => {
                self.holder(parts, Surface::Inference)?.check_model(&name)?;
                self.makes(&name)?;
                json(StatusCode::OK, inference::live_body("ready", true))
            }
            Endpoint::Infer(name) => {
                let holder = self.holder(parts, Surface::Inference)?.clone();
                let caller = self.app.guard.caller(&parts.headers, holder)?;
                check_content(&parts.headers)?;
                let length = json_length(&parts.headers)?;
                let received = self.app.reader.read(&parts.headers, body).await?;
                let infer = inference::parse(&received.bytes, length)?;
                drop(received);
                let (tensor, usage) = self.infer(&name, &infer, caller).await?;
                Ok(written(&inference::infer_body(&name, &infer, &tensor, usage)))
            }
        }
    }

    /// What a model makes, which there must be.
    pub(super) fn makes(&self, model: &str) -> Result<Makes, Problem> {
        self.app.backend.makes(model).ok_or_else(|| {
            let message = format!("there is no model '{model}'; GET /v1/models lists them");
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
        let asked = Asked::understood(infer.chat(model)?);
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
        let model = |name: &str| name.to_owned();
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
            ("/v2/models/m/versions/1/infer", Some(Endpoint::Infer(model("m")))),
            ("/v2/models/m/versions/1", Some(Endpoint::Model(model("m")))),
            // No model has another version: its name is not found.
            ("/v2/models/m/versions/2/infer", Some(Endpoint::Infer(model("m/versions/2")))),
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
