//! Short texts that people and other programs hand over: join codes, names, ids, addresses, places
//! in a trace.
//!
//! Holds: what is read is shown as a text that reads as the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use selvedge_base::{MeshId, ModelDigest, NodeId, RequestId, TraceContext};
use selvedge_core::upstream::provider::BaseUrl;
use selvedge_proto::base32;
use selvedge_proto::join::JoinCode;
use selvedge_proto::policy::{AccountPath, KeyId, Level};

use super::{Target, none};

pub(super) const TARGETS: &[Target] = &[Target {
    name: "text.short",
    holds: "what is read is shown as a text that reads as the same",
    check,
    shares: &[],
    seeds: none,
    words: &[
        "sv1-",
        "https://",
        "http://",
        "[::1]",
        ":443",
        "acme/web/app",
        "-",
        "@",
        "%2e",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "\n",
        "a=1,b=2",
    ],
}];

fn check(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    shown::<AccountPath>(text);
    shown::<KeyId>(text);
    shown::<Level>(text);
    shown::<NodeId>(text);
    shown::<MeshId>(text);
    shown::<ModelDigest>(text);
    shown::<RequestId>(text);
    if let Ok(code) = text.parse::<JoinCode>() {
        assert_eq!(code.to_string().parse(), Ok(code), "{text}");
    }
    if let Ok(url) = BaseUrl::parse(text) {
        assert_eq!(BaseUrl::parse(&url.to_string()), Ok(url), "{text}");
    }
    // The parent, and a state on each line after it.
    let mut lines = input.split(|byte| *byte == b'\n');
    let parent = lines.next().unwrap_or_default();
    if let Some(context) = TraceContext::parse(parent, lines) {
        assert!(context.is_within_bounds(), "{text}");
        let (parent, state) = (context.parent_text(), context.state_text());
        let again = TraceContext::parse(parent.as_bytes(), [state.as_bytes()]);
        assert_eq!(again.as_ref(), Some(&context), "{text}");
    }
    if let Some(bytes) = base32::decode(text) {
        assert_eq!(base32::decode(&base32::encode(&bytes)), Some(bytes), "{text}");
    }
}

fn shown<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) {
    let Ok(value) = T::from_str(text) else { return };
    let again = T::from_str(&value.to_string())
        .unwrap_or_else(|error| panic!("{value} of {text} is not read: {error:?}"));
    assert_eq!(again, value, "{text}");
}
