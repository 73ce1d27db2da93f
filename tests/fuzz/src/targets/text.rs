//! Short texts that people and other programs hand over: join codes, names, ids, addresses.
//!
//! Holds: what is read is shown as a text that reads as the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use selvedge_base::{MeshId, ModelDigest, NodeId, RequestId};
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
    words: &["sv1-", "https://", "http://", "[::1]", ":443", "acme/web/app", "-", "@", "%2e"],
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
