//! What is told of requests, and where to, as the program uses it.
//!
//! Owns reading the section `telemetry`: addresses, samplers, and the lists of names and values
//! that OpenTelemetry's own variables have. Values of headers are secrets: no message repeats them.

use std::path::PathBuf;
use std::time::Duration;

use selvedge_base::Sampler;
use selvedge_core::upstream::provider::BaseUrl;

use super::check::Problems;
use super::raw::RawTelemetry;
use super::secret::Secret;

/// Names and values in one list: OpenTelemetry allows 128 attributes by default.
const MAX_PAIRS: usize = 128;
/// Characters of a name or a value; the longest of real ones are tokens of a few kilobytes.
const MAX_PART: usize = 4_096;

/// Where to tell, and what.
#[derive(Clone, Debug)]
pub(crate) struct TelemetryConfig {
    pub(crate) endpoint: BaseUrl,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, Secret)>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) signals: Signals,
    pub(crate) sampler: Sampler,
    pub(crate) service_name: String,
    pub(crate) resource: Vec<(String, String)>,
    pub(crate) timeout: Duration,
    pub(crate) delay: Duration,
    pub(crate) metric_interval: Duration,
}

/// What is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signals {
    pub(crate) traces: bool,
    pub(crate) metrics: bool,
    pub(crate) logs: bool,
}

/// The section, checked; `None` when nothing is told. Fields are judged only when something is.
pub(super) fn checked(raw: &RawTelemetry, problems: &mut Problems) -> Option<TelemetryConfig> {
    if raw.endpoint.is_empty() || raw.disabled {
        return None;
    }
    let endpoint = BaseUrl::parse(raw.endpoint.trim_end_matches('/'));
    let endpoint = endpoint.map_err(|allowed| {
        // An address may hold a password.
        problems.say("telemetry.endpoint", "not an address of a collector", allowed);
    });
    if raw.protocol != "http/protobuf" {
        let allowed = "http/protobuf, which collectors take at port 4318";
        problems.say("telemetry.protocol", &raw.protocol, allowed);
    }
    let millis = Duration::from_millis;
    Some(TelemetryConfig {
        headers: headers(&raw.headers, problems),
        certificate: Some(&raw.certificate).filter(|path| !path.is_empty()).map(PathBuf::from),
        signals: signals(&raw.signals, problems),
        sampler: sampler(&raw.sampler, &raw.sampler_arg, problems),
        service_name: Some(raw.service_name.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "selvedge".to_owned()),
        resource: pairs(&raw.resource_attributes).unwrap_or_else(|| {
            let allowed = "name=value,name=value with percent-encoded values";
            problems.say("telemetry.resource_attributes", &raw.resource_attributes, allowed);
            Vec::new()
        }),
        timeout: millis(raw.timeout_ms),
        delay: millis(raw.delay_ms),
        metric_interval: millis(raw.metric_interval_ms),
        endpoint: endpoint.ok()?,
    })
}

fn headers(raw: &Secret, problems: &mut Problems) -> Vec<(String, Secret)> {
    let Some(text) = raw.reveal() else { return Vec::new() };
    let token = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !name.is_empty() && name.bytes().all(plain)
    };
    let value = |value: &str| value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let read = pairs(text).filter(|all| all.iter().all(|(name, v)| token(name) && value(v)));
    let Some(read) = read else {
        let allowed = "name=value,name=value with percent-encoded values";
        problems.say("telemetry.headers", "(hidden)", allowed);
        return Vec::new();
    };
    read.into_iter().map(|(name, value)| (name.to_lowercase(), Secret::from(value))).collect()
}

fn signals(raw: &[String], problems: &mut Problems) -> Signals {
    let mut signals = Signals::default();
    for signal in raw {
        match signal.as_str() {
            "traces" => signals.traces = true,
            "metrics" => signals.metrics = true,
            "logs" => signals.logs = true,
            other => problems.say("telemetry.signals", other, "traces, metrics, logs"),
        }
    }
    signals
}

fn sampler(name: &str, share: &str, problems: &mut Problems) -> Sampler {
    let (parent, kind) = match name.strip_prefix("parentbased_") {
        Some(kind) => (true, kind),
        None => (false, name),
    };
    match kind {
        "always_on" => Sampler::all(parent),
        "always_off" => Sampler::ratio(0, parent),
        "traceidratio" => match share.trim().parse::<f64>() {
            // Exact enough: the product has at most thirty bits.
            Ok(share) if (0.0..=1.0).contains(&share) => {
                Sampler::ratio((share * 1e9).round() as u32, parent)
            }
            _ => {
                problems.say("telemetry.sampler_arg", share, "a number of 0 to 1");
                Sampler::all(parent)
            }
        },
        _ => {
            let allowed = "always_on, always_off, traceidratio, alone or after parentbased_";
            problems.say("telemetry.sampler", name, allowed);
            Sampler::all(parent)
        }
    }
}

/// `name=value,name=value` with percent-encoded values, as the variables have it.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let (name, value) = (name.trim(), decoded(value.trim())?);
        let fits = !name.is_empty() && name.len() <= MAX_PART && value.len() <= MAX_PART;
        fits.then(|| (name.to_owned(), value))
    };
    let all: Option<Vec<_>> = parts.map(pair).collect();
    all.filter(|all| all.len() <= MAX_PAIRS)
}

fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        let byte = match (first, after) {
            (b'%', [high, low, next @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                rest = next;
                u8::try_from(digit(high)? * 16 + digit(low)?).ok()?
            }
            (b'%', _) => return None,
            _ => *first,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}
