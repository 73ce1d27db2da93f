//! One provider's address, as one worker reaches it.
//!
//! Owns the pool and the making of one exchange: a connection, the request with its secrets, the
//! head of the answer and whether it is an answer at all. Does not own whether to ask, nor asking
//! again: a request that a closed connection never took is the one exception, for it was not asked.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER,
    USER_AGENT,
};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, Response, Uri};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use selvedge_base::{Micros, Mono, Wall};
use selvedge_core::upstream::{Ending, ProviderKind, ProviderSpec, Watch};

use crate::Clock;
use crate::alarm::Alarm;
use crate::auth::{Credential, Shown, Unsigned, authorize};
use crate::body::{Flow, timed};
use crate::call::{Call, on_wire};
use crate::connect::{Connection, Route};
use crate::error::{Lost, Said, SetupError, header_text};
use crate::pool::{Lease, Pool, PoolLimits};
use crate::proxy::Proxy;
use crate::tls::Roots;

/// Bytes of an answer that says no: real ones have a few hundred, and only a message is read.
const MAX_REFUSAL_BYTES: u64 = 64 << 10;
/// The longest path: model names have 256 bytes, three times that when encoded.
const MAX_PATH_BYTES: usize = 4 << 10;
/// Where Bedrock tells the tokens of a prompt whose answer has no place for them.
const PROMPT_TOKENS: HeaderName = HeaderName::from_static("x-amzn-bedrock-input-token-count");
/// How providers name a request, for their support.
static REQUEST_IDS: [HeaderName; 4] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("request-id"),
    HeaderName::from_static("x-amzn-requestid"),
    HeaderName::from_static("apim-request-id"),
];
/// Who asks; some providers refuse requests without it.
pub(crate) const AGENT: &str = concat!("selvedge/", env!("CARGO_PKG_VERSION"));
static AGENT_VALUE: HeaderValue = HeaderValue::from_static(AGENT);
/// What nearly all requests are declared as.
static JSON: HeaderValue = HeaderValue::from_static("application/json");
/// OpenAI's and Azure's finer form of Retry-After.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Longer waits are as good as none.
const MAX_RETRY_AFTER: Micros = Micros::secs(86_400);

/// Bounds of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetSettings {
    /// Connections that wait for their next request.
    pub idle: usize,
    /// How long they wait.
    pub idle_age: Micros,
    /// How old a connection becomes: names move to other addresses.
    pub whole_age: Micros,
    /// Bytes of an answer's body.
    pub max_answer: u64,
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self {
            // As many as answer at the same time in a busy minute of one worker.
            idle: 64,
            // Just under what load balancers in the clouds wait (60 s), so that we close first.
            idle_age: Micros::secs(50),
            // A provider's move is followed within ten minutes.
            whole_age: Micros::secs(600),
            // A million tokens of text, or several images.
            max_answer: 64 << 20,
        }
    }
}

/// A provider's address with its connections, for one worker.
pub struct Target {
    route: Route,
    host: HeaderValue,
    authority: String,
    settings: TargetSettings,
    pool: Arc<Pool>,
    clock: Clock,
    /// The path of the last call, and what it is on the wire.
    last: Mutex<Option<(Cow<'static, str>, Uri)>>,
}

impl Target {
    /// The target of a provider; nothing is connected yet.
    ///
    /// # Errors
    /// [`SetupError::ServerName`].
    pub fn new(
        spec: &ProviderSpec,
        roots: Roots,
        proxy: Option<Proxy>,
        settings: TargetSettings,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let host = spec.base.host().to_owned();
        let name = || SetupError::ServerName(host.clone());
        let tls = if spec.base.is_https() {
            Some((roots, ServerName::try_from(host.clone()).map_err(|_| name())?))
        } else {
            None
        };
        let authority = spec.base.authority();
        let pool = PoolLimits {
            idle: settings.idle,
            idle_age: settings.idle_age,
            whole_age: settings.whole_age,
        };
        Ok(Self {
            host: HeaderValue::from_str(&authority).map_err(|_| name())?,
            authority,
            route: Route { host, port: spec.base.port(), tls, proxy },
            settings,
            pool: Pool::new(pool, clock),
            clock,
            last: Mutex::default(),
        })
    }

    /// Connections that wait for a request.
    pub fn idle(&self) -> usize {
        self.pool.idle()
    }

    /// One exchange, up to the first piece of a good answer's body.
    pub(crate) async fn exchange(
        &self,
        spec: &ProviderSpec,
        call: &Call,
        shown: &Shown,
        deadline: Mono,
    ) -> Result<(Flow, Head), Lost> {
        let now = self.now();
        let mut watch = Watch::new(spec.times, now, deadline);
        let request = self.request(spec, call, shown)?;
        let (response, lease) = self.send(&mut watch, request, now).await?;
        let (parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        // A good answer says nothing of when to come back.
        let after = if parts.status.is_success() { None } else { self.retry_after(&parts.headers) };
        let ending = Ending::of_status(status, after);
        let counts = spec.kind == ProviderKind::Bedrock;
        let beside = counts.then(|| header_text(&parts.headers, &PROMPT_TOKENS).parse().ok());
        let media_type = media_type(&parts.headers);
        let head = Head { status, media_type, prompt_tokens: beside.flatten() };
        let most =
            if ending == Ending::Answered { self.settings.max_answer } else { MAX_REFUSAL_BYTES };
        let pool = Arc::clone(&self.pool);
        let mut flow = Flow::new(body, lease, pool, watch, most, self.clock);
        if ending != Ending::Answered {
            let request_id = request_id(&parts.headers);
            return Err(refused(ending, (head, request_id), &mut flow, &shown.credential).await);
        }
        self.check(call, &head, &parts.headers)?;
        // An answer begins with its first byte: until then it may be made elsewhere.
        flow.peek().await?;
        Ok((flow, head))
    }

    fn request(
        &self,
        spec: &ProviderSpec,
        call: &Call,
        shown: &Shown,
    ) -> Result<Request<Full<Bytes>>, Lost> {
        let uri = self.uri(spec, call)?;
        let method = Method::from_bytes(call.method.as_bytes())
            .map_err(|_| unsent("the request has no method"))?;
        let mut headers = HeaderMap::with_capacity(call.headers.len() + 6);
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, AGENT_VALUE.clone());
        for (name, value) in &call.headers {
            // As nearly all are declared.
            if *name == "content-type" && *value == "application/json" {
                headers.append(CONTENT_TYPE, JSON.clone());
                continue;
            }
            let name = HeaderName::from_bytes(name.as_bytes());
            let name = name.map_err(|_| unsent("a header of the request has no valid name"))?;
            let value = HeaderValue::from_str(value);
            let value = value.map_err(|_| unsent("a header of the request has no valid value"))?;
            headers.append(name, value);
        }
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let unsigned =
            Unsigned { method: call.method, path, host: &self.authority, body: &call.body };
        authorize(spec, shown, self.clock.wall, &unsigned, &mut headers)?;
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Where a call goes. Nearly all calls to one target go to one path.
    fn uri(&self, spec: &ProviderSpec, call: &Call) -> Result<Uri, Lost> {
        // Azure's path names the model's deployment too.
        let same = spec.kind != ProviderKind::Azure;
        if same
            && let Some((path, uri)) = &*self.last.lock()
            && *path == call.path
        {
            return Ok(uri.clone());
        }
        let path = on_wire(spec, call);
        if path.len() > MAX_PATH_BYTES {
            return Err(unsent("the path of the request is too long"));
        }
        let uri: Uri =
            path.parse().map_err(|_| unsent("the request's path is not one that HTTP has"))?;
        if same {
            *self.last.lock() = Some((call.path.clone(), uri.clone()));
        }
        Ok(uri)
    }

    async fn send(
        &self,
        watch: &mut Watch,
        mut request: Request<Full<Bytes>>,
        now: Mono,
    ) -> Result<(Response<Incoming>, Lease), Lost> {
        let mut waiting = self.pool.take(now);
        loop {
            let fresh = waiting.is_none();
            let (mut lease, since) = match waiting.take() {
                // It was there at once.
                Some(lease) => (lease, now),
                None => {
                    watch.disconnected(self.now());
                    // Far larger than all else: most requests do not carry it along.
                    let connecting = Box::pin(self.route.connect());
                    let mut alarm = Alarm::default();
                    let connection = timed(watch, self.clock, &mut alarm, connecting).await??;
                    let since = self.now();
                    (Lease::new(connection, alarm, since), since)
                }
            };
            watch.connected(since);
            // A connection is ready for the next request once its task has seen the last one's end.
            let Lease { connection: Connection { sender, .. }, alarm, .. } = &mut lease;
            let ready = timed(watch, self.clock, alarm, sender.ready()).await?;
            if ready.is_err() && fresh {
                return Err(Lost::new(Ending::Unreachable, "it closes new connections"));
            }
            if ready.is_err() {
                continue;
            }
            let sent = sender.try_send_request(request);
            match timed(watch, self.clock, alarm, sent).await? {
                Ok(response) => return Ok((response, lease)),
                Err(mut error) => match error.take_message() {
                    None => return Err(Lost::exchange(error.error())),
                    Some(_) if fresh => {
                        return Err(Lost::new(Ending::Unreachable, "it closes new connections"));
                    }
                    Some(back) => request = back,
                },
            }
        }
    }

    fn check(&self, call: &Call, head: &Head, headers: &HeaderMap) -> Result<(), Lost> {
        let malformed = |why: String| Err(Lost::new(Ending::Malformed, why));
        if !call.expects.allows(&head.media_type) {
            let (wanted, got) = (call.expects, &head.media_type);
            return malformed(format!("it answers with '{got}' where {wanted:?} was asked for"));
        }
        let encoding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return malformed("it compresses its answer, which was not asked for".to_owned());
        }
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = length.and_then(|text| text.parse::<u64>().ok());
        let most = self.settings.max_answer;
        if length.is_some_and(|length| length > most) {
            return malformed(format!("its answer is over the limit of {most} bytes"));
        }
        Ok(())
    }

    /// Seconds, a date, or milliseconds in OpenAI's own header.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Micros> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |text: &str, unit: f64| {
            let amount = text.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)?;
            // The cast saturates, and the longest wait is far below.
            Some(Micros((amount * unit) as u64).min(MAX_RETRY_AFTER))
        };
        if let Some(wait) = text(&RETRY_AFTER_MS).and_then(|text| number(text, 1_000.0)) {
            return Some(wait);
        }
        let after = text(&RETRY_AFTER)?;
        if let Some(wait) = number(after, 1_000_000.0) {
            return Some(wait);
        }
        let date = httpdate::parse_http_date(after).ok()?.duration_since(UNIX_EPOCH).ok()?;
        let date = Wall(u64::try_from(Duration::as_millis(&date)).ok()?);
        Some(date.since((self.clock.wall)()).min(MAX_RETRY_AFTER))
    }

    fn now(&self) -> Mono {
        (self.clock.mono)()
    }
}

/// What the head of an answer says.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) media_type: Cow<'static, str>,
    pub(crate) prompt_tokens: Option<u64>,
}

/// The media type, which nearly all answers write in one of two ways: those are not copied.
fn media_type(headers: &HeaderMap) -> Cow<'static, str> {
    match headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
        Some(b"application/json") => Cow::Borrowed("application/json"),
        Some(b"text/event-stream") => Cow::Borrowed("text/event-stream"),
        _ => Cow::Owned(header_text(headers, &CONTENT_TYPE)),
    }
}

/// Reads what a provider says when it says no, and takes our secrets out of it.
async fn refused(
    ending: Ending,
    (head, request_id): (Head, String),
    flow: &mut Flow,
    credential: &Credential,
) -> Lost {
    if ending == Ending::Malformed {
        let why = if (300..400).contains(&head.status) {
            "it redirects to another address, which is not followed with a key"
        } else {
            "its status is none that an answer has"
        };
        return Lost::new(ending, why);
    }
    let mut said = Vec::new();
    // Whatever of it comes is enough: the status has said what counts.
    while let Ok(Some(piece)) = flow.chunk().await {
        said.extend_from_slice(&piece);
    }
    let clean = |text: String| {
        let mut bytes = text.into_bytes();
        credential.scrub(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    credential.scrub(&mut said);
    let said = Said {
        status: head.status,
        media_type: clean(head.media_type.into_owned()),
        request_id: clean(request_id),
        body: said.into(),
    };
    let why = format!("it answers with status {}", said.status);
    Lost { ending, why, said: Some(Box::new(said)) }
}

fn unsent(why: &str) -> Lost {
    Lost::new(Ending::Unsent, why)
}

fn request_id(headers: &HeaderMap) -> String {
    REQUEST_IDS
        .iter()
        .map(|name| header_text(headers, name))
        .find(|id| !id.is_empty())
        .unwrap_or_default()
}
