//! Talking to a node's HTTP API, this home's or another's.
//!
//! Owns the calls, their errors in words, and reading a stream of server-sent events. Blocking: a
//! command does one thing at a time. Does not own the shapes of what is said (`http/wire.rs`).

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

use crate::home::Contact;

/// The largest answer read whole: a mesh of hundreds of nodes, with all their models.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// The longest line of a stream: a token with all its alternatives is far below.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// How long to wait for a connection: a node that is up answers at once.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an admin call may take: joining checks and disk writes are below a second.
const ADMIN: Duration = Duration::from_secs(30);

/// One API and what opens it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
}

/// Something a stream said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    /// One JSON document.
    Data(Value),
    /// A remark for whoever watches, such as that another node took over.
    Comment(String),
}

/// A text that was written for a form.
pub(crate) struct Written {
    pub(crate) text: String,
    /// The node that answered.
    pub(crate) node: String,
    /// The request's id.
    pub(crate) request: String,
}

/// An answer as it arrives.
pub(crate) struct Talk {
    /// The request's id.
    pub(crate) request: String,
    /// The node that began to answer.
    pub(crate) node: String,
    lines: BufReader<Box<dyn Read + Send + Sync>>,
    over: bool,
}

impl Client {
    /// The admin API of the node that runs in a home.
    pub(crate) fn admin(contact: &Contact) -> Self {
        Self::new(&contact.api, Some(contact.token.clone()))
    }

    /// Any API; a base URL with or without `/v1`.
    pub(crate) fn new(base: &str, token: Option<String>) -> Self {
        let base = base.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base).to_owned();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::WebPki)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .tls_config(tls);
        // A proxy has no business between a command and a node of the same network.
        if base.starts_with("http://") {
            config = config.proxy(None);
        }
        Self { agent: config.build().new_agent(), base, token }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        read(self.plain(self.agent.get(self.url(path)), ADMIN)?)
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        read(self.plain(self.agent.delete(self.url(path)), ADMIN)?)
    }

    /// The same of what may not be there: whether it was.
    pub(crate) fn delete_known(&self, path: &str) -> Result<bool> {
        let response = self.plain(self.agent.delete(self.url(path)), ADMIN)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        good(response).map(|_| true)
    }

    /// Documents, one a line, as they come for at most `patience`.
    pub(crate) fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<impl Iterator<Item = Result<T>> + use<T>> {
        let response = good(self.plain(self.agent.get(self.url(path)), patience)?)?;
        let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(BufReader::new(reader).lines().map(|line| Ok(serde_json::from_str(&line?)?)))
    }

    fn plain(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
        timeout: Duration,
    ) -> Result<Response<Body>> {
        let mut request = request.config().timeout_global(Some(timeout)).build();
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.sent(request.call())
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        read(self.send(path, body, Some(ADMIN))?)
    }

    /// Asks for an answer that takes as long as it takes.
    pub(crate) fn ask<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<(T, String)> {
        let response = self.send(path, body, None)?;
        let request = header(&response, "x-request-id");
        Ok((read(response)?, request))
    }

    /// Sends a form with a file in it, for an answer that takes as long as it takes.
    pub(crate) fn form(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        (name, file): (&str, &[u8]),
    ) -> Result<Written> {
        // What the file holds is not what it is called by.
        let boundary = format!("selvedge-{}", &blake3::hash(file).to_hex()[..32]);
        let mut body = Vec::with_capacity(file.len() + 1_024);
        let disposition = |more: &str| {
            format!("--{boundary}\r\ncontent-disposition: form-data; name={more}\r\n\r\n")
        };
        for (name, value) in fields {
            body.extend(disposition(&format!("\"{name}\"")).as_bytes());
            body.extend(value.as_bytes());
            body.extend(b"\r\n");
        }
        let name: String =
            name.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect();
        body.extend(disposition(&format!("\"file\"; filename=\"{name}\"")).as_bytes());
        body.extend(file);
        body.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={boundary}");
        let mut response = good(self.sent_as(&kind, path, &body, None)?)?;
        let request = header(&response, "x-request-id");
        let node = header(&response, "x-selvedge-node");
        let text = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string()?;
        Ok(Written { text, node, request })
    }

    /// Asks for a streamed answer.
    pub(crate) fn talk(&self, path: &str, body: &Value) -> Result<Talk> {
        let response = good(self.send(path, body, None)?)?;
        let request = header(&response, "x-request-id");
        let node = header(&response, "x-selvedge-node");
        let reader: Box<dyn Read + Send + Sync> =
            Box::new(response.into_body().into_with_config().limit(u64::MAX).reader());
        Ok(Talk { request, node, lines: BufReader::new(reader), over: false })
    }

    fn send(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Option<Duration>,
    ) -> Result<Response<Body>> {
        self.sent_as("application/json", path, &serde_json::to_vec(body)?, timeout)
    }

    fn sent_as(
        &self,
        kind: &str,
        path: &str,
        body: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Response<Body>> {
        let mut request = self
            .agent
            .post(self.url(path))
            .config()
            .timeout_global(timeout)
            .build()
            .header("content-type", kind);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.sent(request.send(body))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn sent(&self, result: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>> {
        result.map_err(|error| {
            anyhow!("{error}").context(format!(
                "cannot reach {}; is the node running? (`selvedge up` starts it)",
                self.base
            ))
        })
    }
}

impl Talk {
    /// The next thing said; `None` at the proper end.
    pub(crate) fn next(&mut self) -> Result<Option<Said>> {
        while !self.over {
            let mut line = String::new();
            let read = (&mut self.lines)
                .take(MAX_LINE_BYTES)
                .read_line(&mut line)
                .context("the connection to the node broke")?;
            if read == 0 {
                bail!("the answer ended without its proper end; the node may have stopped");
            }
            let line = line.trim_end();
            if let Some(comment) = line.strip_prefix(':') {
                return Ok(Some(Said::Comment(comment.trim().to_owned())));
            }
            let Some(data) = line.strip_prefix("data:").map(str::trim) else { continue };
            if data == "[DONE]" {
                self.over = true;
                return Ok(None);
            }
            let data: Value = serde_json::from_str(data).context("the node sent no JSON")?;
            if let Some(error) = data.get("error") {
                bail!("{}", words_of(error));
            }
            return Ok(Some(Said::Data(data)));
        }
        Ok(None)
    }
}

fn header(response: &Response<Body>, name: &str) -> String {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn read<T: DeserializeOwned>(response: Response<Body>) -> Result<T> {
    let mut response = good(response)?;
    let text = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
    serde_json::from_slice(&text).context("the node's answer is not what this version expects")
}

/// The response, or its error in words.
fn good(mut response: Response<Body>) -> Result<Response<Body>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string();
    let said = text.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    match said.as_ref().and_then(|said| said.get("error")) {
        Some(error) => bail!("{}", words_of(error)),
        None => bail!("the server answered {status}"),
    }
}

fn words_of(error: &Value) -> String {
    // Some surfaces say it in a text, others in an object.
    error["message"].as_str().or(error.as_str()).unwrap_or("the node gave no reason").to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn talk(text: &'static str) -> Talk {
        Talk {
            request: String::new(),
            node: String::new(),
            lines: BufReader::new(Box::new(text.as_bytes())),
            over: false,
        }
    }

    #[test]
    fn a_stream_is_read_to_its_proper_end() {
        let mut talk = talk("data: {\"a\":1}\n\n: moved\n\ndata: [DONE]\n\n");
        assert_eq!(talk.next().unwrap(), Some(Said::Data(serde_json::json!({"a": 1}))));
        assert_eq!(talk.next().unwrap(), Some(Said::Comment("moved".into())));
        assert_eq!(talk.next().unwrap(), None);
        assert_eq!(talk.next().unwrap(), None);
    }

    #[test]
    fn a_stream_that_breaks_off_or_reports_an_error_is_an_error() {
        let mut broken = talk("data: {\"a\":1}\n\n");
        broken.next().unwrap();
        assert!(broken.next().unwrap_err().to_string().contains("proper end"));
        let mut failed = talk("data: {\"error\":{\"message\":\"no node left\"}}\n\n");
        assert_eq!(failed.next().unwrap_err().to_string(), "no node left");
    }

    #[test]
    fn a_base_url_may_end_in_v1() {
        assert_eq!(Client::new("http://h:1/v1/", None).url("/v1/models"), "http://h:1/v1/models");
    }
}
