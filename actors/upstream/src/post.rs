//! Bodies carried to one address that is no provider, one after another.
//!
//! Owns the connection, which is kept from one body to the next, and what is read of an answer.
//! Does not own whether and when to send, nor how long it may take: whoever waits has a deadline.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Request};
use rustls_pki_types::ServerName;
use selvedge_base::Micros;
use selvedge_core::upstream::provider::BaseUrl;
use thiserror::Error;

use crate::connect::{Connection, Route};
use crate::error::SetupError;
use crate::proxy::Proxy;
use crate::secret::Secret;
use crate::target::AGENT;
use crate::tls::Roots;

/// Bytes of an answer that are read: it says what was not taken, in a sentence.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Longer waits are as good as none.
const MAX_RETRY_AFTER: Micros = Micros::secs(86_400);

/// What became of a body.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// HTTP status.
    pub status: u16,
    /// The wait the other side asked for, in whole seconds.
    pub retry_after: Option<Micros>,
    /// What it said.
    pub body: Bytes,
}

/// A body that was not answered; whether it arrived is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Undelivered(String);

/// An address and the way there.
pub struct Courier {
    route: Route,
    host: HeaderValue,
    base: String,
    headers: HeaderMap,
    connection: Option<Connection>,
}

impl Courier {
    /// A courier to an address; nothing is connected yet. `headers` are sent with every body, and
    /// are never shown. Without `roots`, an https address is checked by the authorities of the
    /// public web.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        base: &BaseUrl,
        roots: Option<Roots>,
        proxy: Option<Proxy>,
        headers: &[(String, Secret)],
    ) -> Result<Self, SetupError> {
        let host = base.host().to_owned();
        let name = || SetupError::ServerName(host.clone());
        let tls = if base.is_https() {
            let roots = roots.map_or_else(Roots::public, Ok)?;
            Some((roots, ServerName::try_from(host.clone()).map_err(|_| name())?))
        } else {
            None
        };
        let mut sent = HeaderMap::with_capacity(headers.len());
        for (header, value) in headers {
            let unusable = || SetupError::Credential {
                name: header.clone(),
                reason: "it cannot be a header of HTTP",
            };
            let header = HeaderName::from_bytes(header.as_bytes()).map_err(|_| unusable())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| unusable())?;
            value.set_sensitive(true);
            sent.append(header, value);
        }
        Ok(Self {
            host: HeaderValue::from_str(&base.authority()).map_err(|_| name())?,
            base: base.path().to_owned(),
            route: Route { host, port: base.port(), tls, proxy },
            headers: sent,
            connection: None,
        })
    }

    /// Carries a body to a path below the address. Dropped before its end, the connection is
    /// closed.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub async fn post(
        &mut self,
        path: &str,
        media_type: &'static str,
        body: Bytes,
    ) -> Result<Receipt, Undelivered> {
        let lost = |why: &str| Undelivered(why.to_owned());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let path = format!("{}{path}", self.base);
        *request.uri_mut() = path.parse().map_err(|_| lost("its path is none that HTTP has"))?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && connection.sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.route.connect().await.map_err(|missed| Undelivered(missed.why))?,
        };
        let sent = connection.sender.send_request(request).await;
        let answer = sent.map_err(|_| lost("the connection ended before an answer"))?;
        let (head, body) = answer.into_parts();
        let read = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = read.map_err(|_| lost("its answer broke off or is too long"))?.to_bytes();
        self.connection = Some(connection);
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok());
        Ok(Receipt {
            status: head.status.as_u16(),
            retry_after: retry_after.map(|secs| Micros::secs(secs).min(MAX_RETRY_AFTER)),
            body,
        })
    }
}
