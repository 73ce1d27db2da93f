//! Fetching a file over HTTP, taking up again what was cut.
//!
//! Owns ranges, validators, redirects and patience: a cut connection is resumed while bytes keep
//! coming, a server that cannot be reached is given up at once so that another place can be tried.
//! Does not own digests or limits; the part file does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::part::Part;
use crate::ui::Progress;

/// Connections for one file. Each but the last must have brought bytes, so this bounds a server
/// that keeps cutting; a large file over a bad line needs several.
const MAX_CONNECTIONS: usize = 16;
/// Redirects followed: hubs use one or two.
const MAX_REDIRECTS: u32 = 5;
/// A connection that brings nothing for this long is treated as cut.
const SILENCE: Duration = Duration::from_secs(30);

/// What to fetch.
pub(crate) struct Wanted<'a> {
    pub(crate) url: &'a str,
    /// Sent as a bearer token; never to the host of a redirect.
    pub(crate) token: Option<&'a str>,
    /// For finding and reaching the server.
    pub(crate) timeout: Duration,
    /// There is nowhere else to go: a server that takes long to answer is waited for.
    pub(crate) last_resort: bool,
}

/// What is remembered of a file that was begun, to know that it is still the same one.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Notes {
    validator: Option<String>,
    total: Option<u64>,
}

/// One connection's result.
enum Turn {
    Complete,
    /// Bytes came, then the connection was cut.
    Cut(anyhow::Error),
    /// What was there cannot be continued; it was dropped.
    Anew,
}

/// Fetches the file into the part.
pub(crate) fn download(wanted: &Wanted, part: &mut Part, progress: &mut Progress) -> Result<()> {
    let agent = agent(wanted);
    let mut last = anyhow!("the server keeps changing the file");
    for _ in 0..MAX_CONNECTIONS {
        let before = part.len();
        match turn(&agent, wanted, part, progress)? {
            Turn::Complete => return Ok(()),
            Turn::Cut(error) if part.len() > before => last = error,
            Turn::Cut(error) => {
                return Err(error.context(format!(
                    "the connection was cut at {} bytes; the same command resumes",
                    part.len()
                )));
            }
            Turn::Anew => {}
        }
    }
    Err(last.context(format!(
        "the connection was cut {MAX_CONNECTIONS} times; the same command resumes at {} bytes",
        part.len()
    )))
}

/// An HTTP client for the outside world: the one TLS provider of this program, proxies from the
/// environment, no transparent compression (ranges count the bytes of the file itself).
fn agent(wanted: &Wanted) -> Agent {
    let timeout = wanted.timeout;
    let response = if wanted.last_resort { SILENCE } else { timeout / 2 };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::WebPki)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .accept_encoding("identity")
        .user_agent(concat!("selvedge/", env!("CARGO_PKG_VERSION")))
        // Parts of the limit the person set; finding a name is the quickest of them.
        .timeout_resolve(Some(timeout / 4))
        .timeout_connect(Some(timeout / 2))
        .timeout_recv_response(Some(response))
        .timeout_per_read(Some(SILENCE))
        .tls_config(tls)
        .build()
        .new_agent()
}

fn turn(agent: &Agent, wanted: &Wanted, part: &mut Part, progress: &mut Progress) -> Result<Turn> {
    let notes = read_notes(part);
    // Without a validator nobody could tell that the file has changed meanwhile.
    if part.len() > 0 && notes.validator.is_none() {
        part.restart()?;
    }
    if part.len() > 0 && notes.total == Some(part.len()) {
        return Ok(Turn::Complete);
    }
    // When this fails, what came so far stays for the next attempt.
    let response = ask(agent, wanted, part.len(), &notes)?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT if part.len() > 0 => continued(response, part, progress),
        StatusCode::OK => {
            part.restart()?;
            let total = length(&response);
            let seen = Notes { validator: validator(&response), total };
            std::fs::write(part.notes_path(), serde_json::to_vec(&seen)?)?;
            receive(response, total, part, progress)
        }
        StatusCode::RANGE_NOT_SATISFIABLE if part.len() > 0 => {
            part.restart()?;
            Ok(Turn::Anew)
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => bail!(
            "the server wants a login ({}); for the hub set HF_TOKEN",
            response.status().as_u16()
        ),
        StatusCode::NOT_FOUND => bail!("the server has no such file (404)"),
        status => bail!("the server answered {status}"),
    }
}

fn ask(agent: &Agent, wanted: &Wanted, have: u64, notes: &Notes) -> Result<Response<ureq::Body>> {
    let mut request = agent.get(wanted.url);
    if let Some(token) = wanted.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
        if let Some(validator) = &notes.validator {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    request.call().map_err(|error| anyhow!("{error}")).context("cannot reach the server")
}

/// A 206: it must continue exactly where the part ends.
fn continued(
    response: Response<ureq::Body>,
    part: &mut Part,
    progress: &mut Progress,
) -> Result<Turn> {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    match range.and_then(parse_range) {
        Some((start, total)) if start == part.len() => {
            receive(response, Some(total), part, progress)
        }
        _ => {
            part.restart()?;
            Ok(Turn::Anew)
        }
    }
}

fn receive(
    response: Response<ureq::Body>,
    total: Option<u64>,
    part: &mut Part,
    progress: &mut Progress,
) -> Result<Turn> {
    if let Some(total) = total {
        part.announce(total)?;
    }
    progress.set_total(total);
    let mut reader = Watched {
        inner: response.into_body().into_with_config().limit(u64::MAX).reader(),
        failed: None,
    };
    part.take_from(&mut reader, &mut |done| progress.at(done))?;
    if let Some(error) = reader.failed {
        return Ok(Turn::Cut(anyhow!(error)));
    }
    match total {
        Some(total) if part.len() < total => {
            Ok(Turn::Cut(anyhow!("{} of {total} bytes came", part.len())))
        }
        Some(total) if part.len() > total => {
            part.restart()?;
            bail!("the server sent more than the {total} bytes it announced")
        }
        Some(_) | None => Ok(Turn::Complete),
    }
}

/// A reader whose failure ends the stream and is kept, so that failing to read the network (which
/// is resumed) is not taken for failing to write the disk (which is not).
struct Watched<R> {
    inner: R,
    failed: Option<std::io::Error>,
}

impl<R: std::io::Read> std::io::Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.inner.read(buffer) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                self.failed = Some(error);
                Ok(0)
            }
            read => read,
        }
    }
}

fn length(response: &Response<ureq::Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What tells this version of the file from another: a strong ETag, or the date.
fn validator(response: &Response<ureq::Body>) -> Option<String> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    text(header::ETAG)
        .filter(|tag| !tag.starts_with("W/"))
        .or_else(|| text(header::LAST_MODIFIED))
        .map(ToOwned::to_owned)
}

fn read_notes(part: &Part) -> Notes {
    std::fs::read(part.notes_path())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Start and total of `bytes START-END/TOTAL`.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}
