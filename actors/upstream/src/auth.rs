//! How each kind of provider is told who asks.
//!
//! Owns the headers: `Authorization: Bearer`, `x-api-key` with a version, `x-goog-api-key`,
//! `api-key`, a signature, or nothing. A key is only ever in a header that is marked sensitive,
//! never in an address.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use selvedge_base::Wall;
use selvedge_core::upstream::{Ending, ProviderKind, ProviderSpec};

use crate::error::{Lost, SetupError};
use crate::secret::Secret;
use crate::sigv4;

/// Anthropic's header of versions.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// Bedrock's name in signatures; the host's prefix is another.
const BEDROCK_SERVICE: &str = "bedrock";

/// What authenticates a request.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Nothing.
    None,
    /// One text.
    Key(Secret),
    /// Amazon's three parts.
    Amazon(sigv4::Keys),
}

impl Credential {
    /// What the vault's text is for a kind of provider. Bedrock takes
    /// `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, with `:SESSION_TOKEN` for temporary ones, or one of its
    /// API keys alone.
    ///
    /// # Errors
    /// [`SetupError::Credential`]; `name` is the key's.
    pub fn of(kind: ProviderKind, name: &str, text: &Secret) -> Result<Self, SetupError> {
        let refuse = |reason| SetupError::Credential { name: name.to_owned(), reason };
        if text.expose().is_empty() || !text.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse("it is empty or has characters that no key has"));
        }
        if kind != ProviderKind::Bedrock || !text.expose().contains(':') {
            return Ok(Self::Key(text.clone()));
        }
        let mut parts = text.expose().splitn(3, ':');
        let (Some(id), Some(secret)) = (parts.next(), parts.next()) else {
            return Err(refuse("expected ACCESS_KEY_ID:SECRET_ACCESS_KEY"));
        };
        if id.is_empty() || secret.is_empty() {
            return Err(refuse("expected ACCESS_KEY_ID:SECRET_ACCESS_KEY"));
        }
        Ok(Self::Amazon(sigv4::Keys {
            id: Secret::new(id.to_owned()),
            secret: Secret::new(secret.to_owned()),
            session: parts.next().map(|token| Secret::new(token.to_owned())),
        }))
    }

    /// Takes every part of it out of what somebody else said.
    pub(crate) fn scrub(&self, said: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Key(key) => key.scrub(said),
            Self::Amazon(keys) => {
                keys.secret.scrub(said);
                if let Some(session) = &keys.session {
                    session.scrub(said);
                }
                keys.id.scrub(said);
            }
        }
    }
}

/// A credential as requests show it. What is the same in all of them is made once.
pub(crate) struct Shown {
    pub(crate) credential: Credential,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Shown {
    /// A credential for a kind of provider.
    pub(crate) fn new(kind: ProviderKind, credential: Credential) -> Self {
        let header = match &credential {
            // What cannot be a header is told when a request would need it.
            Credential::Key(key) => header_of(kind, key).ok(),
            Credential::None | Credential::Amazon(_) => None,
        };
        Self { credential, header }
    }
}

/// A request that is about to be signed.
pub(crate) struct Unsigned<'a> {
    pub(crate) method: &'a str,
    /// As it goes on the wire, with its query.
    pub(crate) path: &'a str,
    pub(crate) host: &'a str,
    pub(crate) body: &'a [u8],
}

/// Adds the headers that say who asks.
pub(crate) fn authorize(
    spec: &ProviderSpec,
    shown: &Shown,
    wall: fn() -> Wall,
    request: &Unsigned<'_>,
    headers: &mut HeaderMap,
) -> Result<(), Lost> {
    if spec.kind == ProviderKind::Anthropic && !headers.contains_key(ANTHROPIC_VERSION) {
        let version = HeaderValue::from_str(&spec.api_version)
            .map_err(|_| unsent("its version cannot be a header"))?;
        headers.insert(ANTHROPIC_VERSION, version);
    }
    if let Some((name, value)) = &shown.header {
        headers.insert(name.clone(), value.clone());
        return Ok(());
    }
    match &shown.credential {
        Credential::None => Ok(()),
        Credential::Amazon(keys) => {
            let signed = sigv4::sign(
                keys,
                &sigv4::Request {
                    method: request.method,
                    path: request.path,
                    headers: &[("host", request.host)],
                    body: request.body,
                },
                &sigv4::Scope { region: &spec.region, service: BEDROCK_SERVICE, at: wall() },
            );
            for (name, value) in signed {
                headers.insert(HeaderName::from_static(name), sensitive(value.expose())?);
            }
            Ok(())
        }
        Credential::Key(key) => {
            let (name, value) = header_of(spec.kind, key)?;
            headers.insert(name, value);
            Ok(())
        }
    }
}

/// The header that a key is shown in.
fn header_of(kind: ProviderKind, key: &Secret) -> Result<(HeaderName, HeaderValue), Lost> {
    let name = match kind {
        ProviderKind::Anthropic => HeaderName::from_static("x-api-key"),
        ProviderKind::Gemini => HeaderName::from_static("x-goog-api-key"),
        ProviderKind::Azure => HeaderName::from_static("api-key"),
        ProviderKind::OpenAi
        | ProviderKind::Bedrock
        | ProviderKind::Cohere
        | ProviderKind::Ollama => return Ok((AUTHORIZATION, bearer(key)?)),
    };
    Ok((name, sensitive(key.expose())?))
}

fn bearer(key: &Secret) -> Result<HeaderValue, Lost> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", key.expose()));
    sensitive(&text)
}

fn sensitive(text: &str) -> Result<HeaderValue, Lost> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| unsent("its key cannot be a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unsent(why: &str) -> Lost {
    Lost::new(Ending::Unsent, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: ProviderKind, text: &str) -> Result<Credential, SetupError> {
        Credential::of(kind, "main", &Secret::new(text.to_owned()))
    }

    #[test]
    fn amazons_parts_are_told_apart() {
        let Ok(Credential::Amazon(keys)) = of(ProviderKind::Bedrock, "AKID:sec/ret+x:tok:en")
        else {
            panic!("three parts")
        };
        assert_eq!((keys.id.expose(), keys.secret.expose()), ("AKID", "sec/ret+x"));
        assert_eq!(keys.session.as_ref().map(Secret::expose), Some("tok:en"));
        assert!(matches!(of(ProviderKind::Bedrock, "bedrock-api-key"), Ok(Credential::Key(_))));
        assert!(matches!(of(ProviderKind::OpenAi, "a:b"), Ok(Credential::Key(_))));
    }

    #[test]
    fn texts_that_are_no_keys_are_refused_without_being_repeated() {
        for text in ["", "two words", "planted\r\nx-evil: 1", "AKIDplanted:", ":planted"] {
            let kind = ProviderKind::Bedrock;
            let error = of(kind, text).expect_err(text).to_string();
            assert!(error.contains("'main'") && !error.contains("planted"), "{error}");
        }
    }
}
