//! The floor: the least that a gateway on hyper must do, and what that costs.
//!
//! A bare proxy, hyper on both sides, one thread: the key is looked up by its BLAKE3 hash, a token
//! bucket is drawn from, `model` and `stream` are read from the body, the model leads to its
//! upstream, usage is counted from the answer or the stream, and a line goes to a log that another
//! thread writes. Owns nothing else: no budgets that survive, no retries, no metrics. What Selvedge
//! does beyond this is what its targets compare.

mod body;
mod checks;
mod log;
mod translate;
mod upstream;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use body::{Out, Tap};
use checks::Keys;
use log::{Entry, Log};
use upstream::Pool;

/// The largest request body taken: what Selvedge takes too.
const LARGEST_BODY: usize = 4 * 1024 * 1024;
/// Answers the cache holds: one is asked for, and a bound there must be.
const CACHED: usize = 1_024;

/// How a floor is set up.
#[derive(Debug, Serialize, Deserialize)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The upstream of every model.
    pub upstream: SocketAddr,
    /// What it shows to the upstream.
    pub upstream_key: String,
    /// The models it knows.
    pub models: Vec<String>,
    /// The keys it knows.
    pub keys: Vec<String>,
    /// Where the log goes.
    pub log: PathBuf,
    /// Answers are kept and given again.
    pub cache: bool,
}

struct Floor {
    keys: Keys,
    /// Which upstream a model has.
    models: HashMap<String, Arc<Pool>>,
    log: Log,
    cache: Option<Mutex<HashMap<blake3::Hash, Bytes>>>,
}

/// Serves until standard input ends or the process is ended.
///
/// # Errors
/// When it cannot listen.
pub fn main(config: &str) -> Result<()> {
    let config: Config = serde_json::from_str(config).context("the configuration")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<()> {
    let pool = Arc::new(Pool::new(config.upstream, &config.upstream_key)?);
    let floor = Arc::new(Floor {
        keys: Keys::new(&config.keys),
        models: config.models.iter().map(|name| (name.clone(), Arc::clone(&pool))).collect(),
        log: Log::start(&config.log)?,
        cache: config.cache.then(Mutex::default),
    });
    let listener = TcpListener::bind(config.listen).await?;
    rustix::net::listen(&listener, crate::mock::BACKLOG)?;
    println!("ready {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(Arc::clone(&floor), stream));
    }
}

async fn connection(floor: Arc<Floor>, stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|request| {
        let floor = Arc::clone(&floor);
        async move { Ok::<_, Infallible>(floor.answer(request).await) }
    });
    // A client that leaves in the middle is no matter of the floor's.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Floor {
    async fn answer(&self, request: Request<Incoming>) -> Response<Out> {
        match self.forward(request).await {
            Ok(response) => response,
            Err((status, message)) => {
                let body = format!("{{\"error\":{{\"message\":\"{message}\"}}}}");
                json_answer(status, Bytes::from(body))
            }
        }
    }

    /// The request path, top to bottom.
    async fn forward(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Out>, (StatusCode, &'static str)> {
        let (head, body) = request.into_parts();
        let key = self.keys.admit(&head.headers)?;
        if head.method != Method::POST {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "only POST is served"));
        }
        let body = read(body).await.map_err(|message| (StatusCode::BAD_REQUEST, message))?;
        let asked =
            checks::asked(&body).ok_or((StatusCode::BAD_REQUEST, "no model in the body"))?;
        let pool = self.models.get(asked.model.as_ref());
        let pool = pool.ok_or((StatusCode::NOT_FOUND, "unknown model"))?;
        let entry = Entry::new(key, &asked.model, asked.stream);
        let digest = self.cache.as_ref().map(|_| digest(key, &body));
        if let Some(hit) = self.cached(digest.as_ref()) {
            self.log.note(entry.with(checks::usage(&hit)));
            return Ok(json_answer(StatusCode::OK, hit));
        }
        let translated = head.uri.path() == "/v1/messages";
        let (path, sent) = if translated {
            let body = translate::request(&body);
            let body = body.ok_or((StatusCode::BAD_REQUEST, "this message is not translated"))?;
            ("/v1/chat/completions", body)
        } else {
            (head.uri.path(), body.clone())
        };
        let answered = pool.ask(path, sent).await;
        let (mut response, lease) = answered.map_err(|()| bad_gateway())?;
        let stream = is_stream(response.headers().get(CONTENT_TYPE));
        if stream {
            let log = self.log.clone();
            return Ok(response.map(|body| Out::Tap(Tap::new(body, lease, log, entry))));
        }
        let answer = response.body_mut().collect().await.map_err(|_| bad_gateway())?.to_bytes();
        lease.give_back();
        self.log.note(entry.with(checks::usage(&answer)));
        if let (Some(cache), Some(digest), StatusCode::OK) =
            (&self.cache, digest, response.status())
        {
            keep(&mut cache.lock(), digest, &answer);
        }
        let answer = if translated {
            translate::answer(&answer).map_or_else(|| Err(bad_gateway()), Ok)?
        } else {
            answer
        };
        Ok(json_answer(response.status(), answer))
    }

    fn cached(&self, digest: Option<&blake3::Hash>) -> Option<Bytes> {
        self.cache.as_ref()?.lock().get(digest?).cloned()
    }
}

fn keep(cache: &mut HashMap<blake3::Hash, Bytes>, digest: blake3::Hash, answer: &Bytes) {
    if cache.len() < CACHED {
        cache.insert(digest, answer.clone());
    }
}

fn digest(key: u32, body: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&key.to_le_bytes()).update(body);
    hasher.finalize()
}

/// A whole body; one that came in one piece is not copied.
async fn read(body: Incoming) -> Result<Bytes, &'static str> {
    let body = http_body_util::Limited::new(body, LARGEST_BODY);
    body.collect().await.map(http_body_util::Collected::to_bytes).map_err(|_| "no whole body")
}

fn bad_gateway() -> (StatusCode, &'static str) {
    (StatusCode::BAD_GATEWAY, "the upstream did not answer")
}

fn is_stream(kind: Option<&HeaderValue>) -> bool {
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

fn json_answer(status: StatusCode, body: Bytes) -> Response<Out> {
    let mut response = Response::new(Out::Whole(Some(body)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The credential of a request without its scheme.
fn credential(headers: &hyper::HeaderMap) -> Option<&[u8]> {
    match headers.get(AUTHORIZATION) {
        Some(value) => value.as_bytes().strip_prefix(b"Bearer "),
        None => headers.get("x-api-key").map(HeaderValue::as_bytes),
    }
}
