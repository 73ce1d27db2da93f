//! Where a request stands in a trace that other systems began or will go on with.
//!
//! Owns W3C Trace Context (<https://www.w3.org/TR/trace-context-2/>): reading `traceparent` and
//! `tracestate`, writing them, and whether a request is among those that are looked at. Does not
//! own what is told of a request, nor to whom. What is not as the specification says is as if it
//! had not come: a trace is never a reason to refuse a request.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Bytes of `tracestate` that are passed on: what the specification asks for at least (section
/// 3.3.1.5).
pub const MAX_STATE_BYTES: usize = 512;
/// Members of `tracestate` (section 3.3.1.1).
const MAX_STATE_MEMBERS: usize = 32;
/// Bytes of a member's key, and of its value (sections 3.3.1.3.1 and 3.3.1.3.2).
const MAX_PART_BYTES: usize = 256;
/// Bytes of `traceparent` in version 0.
const PARENT_BYTES: usize = 55;
/// The caller looks at this request.
const SAMPLED: u8 = 1;
/// The right half of the trace's id is random (level 2, section 3.2.2.5.2).
const RANDOM: u8 = 2;

/// One span of one trace, as it is named to whoever is asked next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// Names the trace; not zero.
    pub trace: u128,
    /// Names the span; not zero.
    pub span: u64,
    /// Sampled and random; other bits are zero.
    flags: u8,
    /// `tracestate`, as it came; at most [`MAX_STATE_BYTES`].
    state: String,
}

impl TraceContext {
    /// The first span of a trace whose id was drawn at random.
    pub fn root(trace: u128, span: u64, sampled: bool) -> Self {
        let flags = RANDOM | u8::from(sampled);
        Self { trace: trace.max(1), span: span.max(1), flags, state: String::new() }
    }

    /// Reads `traceparent`, and all `tracestate` in the order they came; `None` when there is no
    /// parent that the specification knows.
    pub fn parse<'a>(parent: &[u8], states: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        if parent.len() < PARENT_BYTES {
            return None;
        }
        let (known, more) = parent.split_at(PARENT_BYTES);
        let version = hex(&known[..2])?;
        let fits = match version {
            0 => more.is_empty(),
            0xff => false,
            // Later versions may add fields at the end.
            _ => more.is_empty() || more[0] == b'-',
        };
        if !fits || [known[2], known[35], known[52]] != [b'-'; 3] {
            return None;
        }
        let trace = hex(&known[3..35])?;
        let span = u64::try_from(hex(&known[36..52])?).ok()?;
        let flags = u8::try_from(hex(&known[53..])?).ok()? & (SAMPLED | RANDOM);
        if trace == 0 || span == 0 {
            return None;
        }
        Some(Self { trace, span, flags, state: state_of(states).unwrap_or_default() })
    }

    /// Whether whoever began it looks at it.
    pub const fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(&self, span: u64, sampled: bool) -> Self {
        let flags = self.flags & RANDOM | u8::from(sampled);
        Self { trace: self.trace, span: span.max(1), flags, state: self.state.clone() }
    }

    /// The header `traceparent`.
    pub fn parent_text(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }

    /// The header `tracestate`; empty when there is none to send.
    pub fn state_text(&self) -> &str {
        &self.state
    }

    /// The flags, as OTLP has them.
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether it may come from another node.
    pub fn is_within_bounds(&self) -> bool {
        self.trace != 0
            && self.span != 0
            && self.flags <= (SAMPLED | RANDOM)
            && (self.state.is_empty()
                || state_of([self.state.as_bytes()]).is_some_and(|state| state == self.state))
    }
}

/// Which requests are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Of 2^64 random ids, those below this one; `None` = all.
    below: Option<u64>,
    /// Whether a request that is part of a trace goes by what its caller decided.
    parent: bool,
}

impl Sampler {
    /// All, or by the caller's decision where there is one.
    pub const fn all(parent: bool) -> Self {
        Self { below: None, parent }
    }

    /// This share of them, in billionths; the same traces on every node.
    pub fn ratio(billionths: u32, parent: bool) -> Self {
        let whole = 1_000_000_000;
        if billionths >= whole {
            return Self::all(parent);
        }
        let below = (u128::from(billionths) << 64) / u128::from(whole);
        Self { below: Some(u64::try_from(below).unwrap_or(u64::MAX)), parent }
    }

    /// Whether a request of this trace is looked at.
    pub fn samples(&self, trace: u128, caller: Option<&TraceContext>) -> bool {
        match caller.filter(|_| self.parent) {
            Some(caller) => caller.sampled(),
            // The right half is the random one.
            None => self.below.is_none_or(|below| ((trace & u128::from(u64::MAX)) as u64) < below),
        }
    }
}

/// Lower-case hexadecimal digits, at most 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(digit))
    })
}

/// The members of all headers as one text, cut at a member's end; `None` when any is none.
fn state_of<'a>(states: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let (mut text, mut members, mut full) = (String::new(), 0, false);
    for state in states {
        for member in std::str::from_utf8(state).ok()?.split(',') {
            let member = member.trim_matches([' ', '\t']);
            // Empty members are allowed and mean nothing.
            if member.is_empty() {
                continue;
            }
            members += 1;
            let (key, value) = member.split_once('=')?;
            if members > MAX_STATE_MEMBERS || !is_key(key) || !is_value(value) {
                return None;
            }
            let comma = if text.is_empty() { "" } else { "," };
            full |= text.len() + comma.len() + member.len() > MAX_STATE_BYTES;
            if !full {
                // Writing to a string does not fail.
                let _written = write!(text, "{comma}{member}");
            }
        }
    }
    Some(text)
}

fn is_key(key: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() <= MAX_PART_BYTES
        && key.as_bytes().first().is_some_and(first)
        && key.bytes().all(plain)
}

fn is_value(value: &str) -> bool {
    let plain = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=';
    !value.is_empty()
        && value.len() <= MAX_PART_BYTES
        && !value.ends_with(' ')
        && value.bytes().all(plain)
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
