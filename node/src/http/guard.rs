//! Who may call: rules on names, origins, content types and credentials.
//!
//! A loopback address needs no key, so a web page in the user's browser must not be able to reach
//! it: `Host` has to be a name of this machine (DNS rebinding), a foreign `Origin` is refused, and
//! only JSON is accepted, which a page cannot send across origins without a preflight that is
//! never granted; forms, in which files come, are refused where a browser says that they come from
//! elsewhere. Any other address needs a key. Owns these rules; keys are verified behind the
//! backend.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, StatusCode, Uri};
use selvedge_base::{Code, Micros};
use selvedge_core::auth::KEY_PREFIX;
use selvedge_proto::policy::AccountPath;
use selvedge_proto::wire::Label;

use super::backend::{Backend, Holder, KeyRefused};
use super::errors::Problem;
use super::route::Surface;
use super::settings::{AdminToken, Settings};

/// The key, for clients that cannot set `Authorization`.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Where the request's data may go.
const LABEL: HeaderName = HeaderName::from_static("x-selvedge-label");
/// How long the caller waits.
const TIMEOUT: HeaderName = HeaderName::from_static("x-selvedge-timeout-ms");
/// Where a page is that has a browser send a request (W3C Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What files come in.
const FORM: &str = "multipart/form-data";
/// Longest deadline a caller may ask for: one hour, longer than any answer takes to generate.
pub(super) const LONGEST_MS: u64 = 3_600_000;
/// The endpoints a key may be limited to.
pub(super) const ROUTES: [&str; 9] = [
    Surface::Chat.as_str(),
    Surface::Completions.as_str(),
    Surface::Embeddings.as_str(),
    Surface::Audio.as_str(),
    Surface::Messages.as_str(),
    Surface::Responses.as_str(),
    Surface::Ollama.as_str(),
    Surface::Inference.as_str(),
    Surface::Models.as_str(),
];

/// The rules of one listening address.
pub(super) struct Guard {
    loopback: bool,
    hosts: Vec<String>,
    admin_token: Option<AdminToken>,
    deadline: Micros,
}

/// Who asks, and on what terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Whose budgets and name the request runs under, and what they may ask.
    pub(super) holder: Holder,
    /// Where the data may go, if the caller said.
    pub(super) label: Option<Label>,
    /// How long the caller waits.
    pub(super) deadline: Micros,
}

impl Guard {
    pub(super) fn new(settings: &Settings, address: SocketAddr) -> Self {
        Self {
            loopback: address.ip().is_loopback(),
            hosts: settings.hosts.clone(),
            admin_token: settings.admin_token.clone(),
            deadline: settings.deadline,
        }
    }

    /// Refuses what a foreign web page could cause.
    pub(super) fn check_site(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = self.check_host(uri, headers)?;
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) if is_same_site(origin, host) => Ok(()),
            _ => Err(forbidden("requests from web pages of another origin are refused")),
        }
    }

    /// Refuses a body that is not declared as JSON.
    pub(super) fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
        let declared = headers.get(CONTENT_TYPE);
        // As nearly all clients write it.
        if declared.is_some_and(|value| value.as_bytes() == b"application/json") {
            return Ok(());
        }
        let declared = declared.and_then(|value| value.to_str().ok());
        let essence = declared.and_then(|text| text.split(';').next()).map(str::trim);
        if essence.is_some_and(|text| text.eq_ignore_ascii_case("application/json")) {
            return Ok(());
        }
        let message = "the body must be JSON, declared with 'content-type: application/json'";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Err(Problem::new(status, "unsupported_media_type", message))
    }

    /// The content type of a body that must be a form. A page could send one across origins without
    /// asking first; browsers say so, and those that do not say where from are refused by
    /// [`Guard::check_site`].
    pub(super) fn check_form(headers: &HeaderMap) -> Result<&str, Problem> {
        let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = declared.and_then(|text| text.split(';').next()).map(str::trim);
        let foreign = headers
            .get(FETCH_SITE)
            .is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
        if foreign {
            return Err(forbidden("requests from web pages of another origin are refused"));
        }
        match declared {
            Some(text) if essence.is_some_and(|kind| kind.eq_ignore_ascii_case(FORM)) => Ok(text),
            _ => {
                let message = "the body must be a form, declared with 'content-type: \
                               multipart/form-data'";
                let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                Err(Problem::new(status, "unsupported_media_type", message))
            }
        }
    }

    /// Who calls the OpenAI API.
    pub(super) fn holder(
        &self,
        headers: &HeaderMap,
        backend: &dyn Backend,
    ) -> Result<Holder, Problem> {
        let Some(key) = credential(headers)? else {
            if self.loopback {
                return Ok(Holder::local());
            }
            let message = "this address needs an API key: 'Authorization: Bearer sk-selvedge-…'; \
                           `selvedge key create NAME` makes one";
            return Err(unauthorized(message));
        };
        match backend.holder_of(key) {
            Ok(holder) => Ok(holder),
            // The official clients cannot go without a key and send a placeholder; where none is
            // needed it counts as none. A key of ours that opens nothing is an error anywhere.
            Err(KeyRefused::Unknown) if self.loopback && !key.starts_with(KEY_PREFIX) => {
                Ok(Holder::local())
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Who asks for an answer, where its data may go and how long it may take.
    pub(super) fn caller(&self, headers: &HeaderMap, holder: Holder) -> Result<Caller, Problem> {
        let deadline = deadline(headers)?.unwrap_or(self.deadline);
        Ok(Caller { holder, label: label(headers)?, deadline })
    }

    /// Lets only the holder of the admin token pass, on any address.
    pub(super) fn check_admin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let opens = |given| self.admin_token.as_ref().is_some_and(|token| token.opens(given));
        match credential(headers)? {
            Some(given) if opens(given) => Ok(()),
            Some(_) => Err(unauthorized("the admin token is wrong")),
            None => Err(unauthorized(
                "the admin API needs the token in run/admin.token of the node's home: \
                 'Authorization: Bearer TOKEN'",
            )),
        }
    }

    /// The one name the request is addressed to.
    fn check_host<'h>(&self, uri: &Uri, headers: &'h HeaderMap) -> Result<&'h str, Problem> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(bad("the request needs exactly one Host header"));
        };
        let no_name = || bad("the Host header is not a host name");
        let host = host.to_str().map_err(|_| no_name())?;
        let is_own = if let Some(name) = plain_name(host) {
            !self.loopback || self.is_own_name(name)
        } else {
            let parsed = Authority::try_from(host).ok();
            let parsed = parsed.filter(|_| !host.contains('@')).ok_or_else(no_name)?;
            !self.loopback || self.is_own_name(parsed.host())
        };
        // A request line may name a host of its own, which would then be the one that counts.
        if uri.authority().is_some_and(|named| named.as_str() != host) {
            return Err(bad("the request line and the Host header name different hosts"));
        }
        if !is_own {
            return Err(forbidden(
                "this host name is not served here: use localhost, or add the name to the \
                 configuration",
            ));
        }
        Ok(host)
    }

    fn is_own_name(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        // The two that nearly all clients write come before a reading of addresses.
        host == "127.0.0.1"
            || host.eq_ignore_ascii_case("localhost")
            || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }
}

impl Holder {
    /// Callers on this machine that send no key.
    pub(super) fn local() -> Self {
        let account = AccountPath::local();
        let tenant = account.to_string();
        let (models, routes) = (Vec::new(), Vec::new());
        Self { tenant, account, key: None, keyed: false, models, routes }
    }

    /// Refuses an endpoint that the key does not open.
    pub(super) fn check_route(&self, surface: Surface) -> Result<(), Problem> {
        if self.routes.is_empty() || self.routes.iter().any(|route| route == surface.as_str()) {
            return Ok(());
        }
        let (routes, asked) = (self.routes.join(", "), surface.as_str());
        Err(forbidden(&format!("this key may use the endpoints {routes} only, not {asked}")))
    }

    /// Whether it may read what others of its account have asked.
    pub(crate) fn reads_account(&self) -> bool {
        self.check_route(Surface::Models).is_ok()
    }

    /// Whether the key opens a model.
    pub(super) fn may_ask(&self, model: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => model.starts_with(beginning),
            None => model == pattern,
        };
        self.models.is_empty() || self.models.iter().any(fits)
    }

    /// Refuses a model that the key does not open.
    pub(super) fn check_model(&self, model: &str) -> Result<(), Problem> {
        if self.may_ask(model) {
            return Ok(());
        }
        let models = self.models.join(", ");
        let message = format!("this key may ask the models {models} only, not '{model}'");
        Err(forbidden(&message).param("model"))
    }
}

impl From<KeyRefused> for Problem {
    fn from(refused: KeyRefused) -> Self {
        match refused {
            KeyRefused::Unknown => unauthorized("the API key is wrong or was revoked"),
            KeyRefused::Over(why) => unauthorized(&why),
            KeyRefused::Barred(why) => forbidden(&why),
        }
    }
}

/// The name in a `Host` that is a plain name or an IPv4 address, with a port or without: of such
/// a one the parser says the same, but copies it first. None of any other.
fn plain_name(host: &str) -> Option<&str> {
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let is_plain = !name.is_empty() && name.bytes().all(plain);
    (is_plain && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// Whether a page that came from this very address asks.
fn is_same_site(origin: &HeaderValue, host: &str) -> bool {
    let origin = origin.to_str().ok().and_then(|text| text.strip_prefix("http://"));
    origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

/// The secret a request presents, if any.
fn credential(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let given = value.to_str().ok().and_then(|text| text.split_once(' '));
        return match given {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(key.trim())),
            _ => Err(unauthorized("Authorization must be 'Bearer KEY'")),
        };
    }
    match headers.get(API_KEY).map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(key)) => Ok(Some(key.trim())),
        Some(Err(_)) => Err(unauthorized("x-api-key holds no key")),
    }
}

fn label(headers: &HeaderMap) -> Result<Option<Label>, Problem> {
    match headers.get(LABEL).map(HeaderValue::as_bytes) {
        None => Ok(None),
        Some(b"node") => Ok(Some(Label::Node)),
        Some(b"site") => Ok(Some(Label::Site)),
        Some(b"mesh") => Ok(Some(Label::Mesh)),
        Some(b"anywhere") => Ok(Some(Label::Anywhere)),
        Some(_) => {
            let message = "x-selvedge-label must be node, site, mesh or anywhere";
            Err(Problem::invalid(LABEL.as_str(), message))
        }
    }
}

fn deadline(headers: &HeaderMap) -> Result<Option<Micros>, Problem> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let ms = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    match ms.filter(|ms| (1..=LONGEST_MS).contains(ms)) {
        Some(ms) => Ok(Some(Micros::millis(ms))),
        None => {
            let message =
                format!("x-selvedge-timeout-ms must be a whole number, 1 to {LONGEST_MS}");
            Err(Problem::invalid(TIMEOUT.as_str(), message))
        }
    }
}

fn bad(message: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, Code::InvalidRequest.as_str(), message)
}

fn forbidden(message: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, Code::Forbidden.as_str(), message)
}

fn unauthorized(message: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthorized.as_str(), message)
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
