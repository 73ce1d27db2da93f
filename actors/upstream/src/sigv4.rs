//! Amazon's request signatures, version 4.
//!
//! Owns the canonical request, the derived key and the header, as "Create a signed AWS API request"
//! in the IAM user guide has them; tested with the vectors Amazon published. For services that are
//! not S3: each part of a path is encoded once more for the signature than on the wire.

use hmac::{Hmac, KeyInit, Mac};
use selvedge_base::Wall;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The algorithm's name.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The end of every scope.
const TERMINATOR: &str = "aws4_request";

/// Who signs.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The access key's id, which is sent. It opens nothing alone, but tells whose key it is.
    pub id: Secret,
    /// The secret access key, which is not.
    pub secret: Secret,
    /// The token of temporary keys, which is sent.
    pub session: Option<Secret>,
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query as they go on the wire.
    pub path: &'a str,
    /// Headers that are signed besides those made here: lower-case names, trimmed values.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// Where and when it is valid.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Such as `us-east-1`.
    pub region: &'a str,
    /// Such as `bedrock`.
    pub service: &'a str,
    /// Now: Amazon takes signatures of the last five minutes.
    pub at: Wall,
}

/// The headers to add: date, token, signature.
pub fn sign(keys: &Keys, request: &Request<'_>, scope: &Scope<'_>) -> Vec<(&'static str, Secret)> {
    let stamp = timestamp(scope.at);
    let mut signed: Vec<(&str, &str)> = request.headers.to_vec();
    signed.push(("x-amz-date", &stamp));
    if let Some(session) = &keys.session {
        signed.push(("x-amz-security-token", session.expose()));
    }
    signed.sort_unstable();
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let day = stamp.get(..8).unwrap_or_default();
    let place = format!("{day}/{}/{}/{TERMINATOR}", scope.region, scope.service);
    let digest = hex(&Sha256::digest(canonical(request, &signed, &names).as_bytes()));
    let text = format!("{ALGORITHM}\n{stamp}\n{place}\n{digest}");
    let signature = hex(&mac(&*derive(keys, day, scope), text.as_bytes()));
    let value = format!(
        "{ALGORITHM} Credential={}/{place}, SignedHeaders={names}, Signature={signature}",
        keys.id.expose()
    );
    let mut headers = vec![("x-amz-date", Secret::new(stamp.clone()))];
    if let Some(session) = &keys.session {
        headers.push(("x-amz-security-token", session.clone()));
    }
    headers.push(("authorization", Secret::new(value)));
    headers
}

fn canonical(request: &Request<'_>, signed: &[(&str, &str)], names: &str) -> Zeroizing<String> {
    let (path, query) = request.path.split_once('?').unwrap_or((request.path, ""));
    let mut text = Zeroizing::new(String::new());
    text.push_str(request.method);
    text.push('\n');
    path.split('/').enumerate().for_each(|(place, part)| {
        if place > 0 {
            text.push('/');
        }
        encode(part, &mut text);
    });
    text.push('\n');
    let mut pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    pairs.sort_unstable();
    for (place, (name, value)) in pairs.iter().enumerate() {
        if place > 0 {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    text.push('\n');
    for (name, value) in signed {
        text.push_str(name);
        text.push(':');
        text.push_str(value);
        text.push('\n');
    }
    text.push('\n');
    text.push_str(names);
    text.push('\n');
    text.push_str(&hex(&Sha256::digest(request.body)));
    text
}

/// The key of one day, region and service.
fn derive(keys: &Keys, day: &str, scope: &Scope<'_>) -> Zeroizing<[u8; 32]> {
    let first = Zeroizing::new(format!("AWS4{}", keys.secret.expose()));
    let mut key = Zeroizing::new(mac(first.as_bytes(), day.as_bytes()));
    for part in [scope.region, scope.service, TERMINATOR] {
        *key = mac(&*key, part.as_bytes());
    }
    key
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(digit(byte >> 4).to_ascii_uppercase());
            out.push(digit(byte & 15).to_ascii_uppercase());
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

/// `YYYYMMDD'T'HHMMSS'Z'`. Days to dates as in "chrono-Compatible Low-Level Date Algorithms"
/// (Hinnant, `civil_from_days`).
fn timestamp(at: Wall) -> String {
    let seconds = at.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_of_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_of_march + 2) / 5 + 1;
    let month = if month_of_march < 10 { month_of_march + 3 } else { month_of_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2015-08-30T12:36:00Z, the moment of Amazon's examples.
    const AT: Wall = Wall(1_440_938_160_000);

    fn keys() -> Keys {
        Keys {
            id: Secret::new("AKIDEXAMPLE".to_owned()),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session: None,
        }
    }

    fn authorization(request: &Request<'_>, service: &str) -> String {
        let scope = Scope { region: "us-east-1", service, at: AT };
        sign(&keys(), request, &scope).pop().map(|(_, value)| value.expose().to_owned()).unwrap()
    }

    fn signature(request: &Request<'_>, service: &str) -> String {
        authorization(request, service).rsplit_once('=').unwrap().1.to_owned()
    }

    /// "get-vanilla" and others of Amazon's signature test suite, and the example of the guide.
    #[test]
    fn amazons_vectors_hold() {
        let host = [("host", "example.amazonaws.com")];
        let vanilla = Request { method: "GET", path: "/", headers: &host, body: b"" };
        assert_eq!(
            authorization(&vanilla, "service"),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        assert_eq!(
            signature(&Request { method: "POST", ..vanilla }, "service"),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        let query = "/?Param2=value2&Param1=value1";
        assert_eq!(
            signature(&Request { path: query, ..vanilla }, "service"),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
        );
        let form = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", "example.amazonaws.com"),
        ];
        let body = b"Param1=value1";
        let post = Request { method: "POST", path: "/", headers: &form, body };
        assert_eq!(
            signature(&post, "service"),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        );
        let users = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
        ];
        let list = "/?Action=ListUsers&Version=2010-05-08";
        let list = Request { method: "GET", path: list, headers: &users, body: b"" };
        assert_eq!(
            signature(&list, "iam"),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn the_days_key_is_the_guides() {
        let scope = Scope { region: "us-east-1", service: "iam", at: AT };
        assert_eq!(
            hex(&*derive(&keys(), "20150830", &scope)),
            "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
        );
    }

    #[test]
    fn paths_are_encoded_once_more_than_on_the_wire() {
        let mut out = String::new();
        encode("anthropic.claude-v1%3A0", &mut out);
        assert_eq!(out, "anthropic.claude-v1%253A0");
    }

    #[test]
    fn dates_are_right() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(timestamp(Wall(seconds * 1_000)), text);
        }
    }

    #[test]
    fn a_session_is_signed_and_sent() {
        let keys = Keys { session: Some(Secret::new("token".to_owned())), ..keys() };
        let request = Request { method: "GET", path: "/", headers: &[("host", "h")], body: b"" };
        let scope = Scope { region: "r", service: "s", at: AT };
        let headers = sign(&keys, &request, &scope);
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["x-amz-date", "x-amz-security-token", "authorization"]);
        assert!(
            headers[2].1.expose().contains("SignedHeaders=host;x-amz-date;x-amz-security-token")
        );
    }
}
