//! The exact cache at the surface: what the caller says about it, and what the response says.
//!
//! Owns the header `x-selvedge-cache` in both directions, those beside it and the response of what
//! is kept. What is kept, where it is looked for, and for whom, is decided behind the backend.

use hyper::header::{AGE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use selvedge_dialect::canon::Knobs;
use selvedge_runtime::{Cached, Call, ChatCall, EmbedCall, Keeper, Question, Wish};

use super::backend::Backend;
use super::body::{Answer, whole};
use super::errors::Problem;
use super::params::Shape;
use super::router::UNBUFFERED;
use super::speech::Speech;

/// What the caller says about the cache; what the cache did.
const CACHE: HeaderName = HeaderName::from_static("x-selvedge-cache");
/// Why it did not more.
const REASON: HeaderName = HeaderName::from_static("x-selvedge-cache-reason");
/// The peer that kept the answer; absent where this node did.
const FROM: HeaderName = HeaderName::from_static("x-selvedge-cache-from");
/// What a stream of events is declared as.
const STREAMED: &str = "text/event-stream";

/// What the cache did for a request that is asked.
#[derive(Default)]
pub(super) struct Verdict {
    said: Option<(&'static str, Option<&'static str>)>,
    /// Takes the answer, if it may be kept.
    pub(super) keeper: Option<Keeper>,
}

/// What comes of a request at the cache.
pub(super) enum Door {
    /// This is the response.
    Answered(Box<Response<Answer>>),
    /// It is asked.
    Ask(Verdict),
}

impl Verdict {
    fn bypass(why: &'static str, keeper: Option<Keeper>) -> Self {
        Self { said: Some(("bypass", Some(why))), keeper }
    }

    /// What is to be said, and who takes the answer.
    pub(super) fn parts(self) -> (Said, Option<Keeper>) {
        (Said(self.said), self.keeper)
    }
}

/// What the response says of the cache.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said(Option<(&'static str, Option<&'static str>)>);

impl Said {
    /// Says so in the response.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        let Some((what, why)) = self.0 else { return };
        headers.insert(CACHE, HeaderValue::from_static(what));
        if let Some(why) = why {
            headers.insert(REASON, HeaderValue::from_static(why));
        }
    }
}

/// What the caller says about the cache; none when nothing.
pub(super) fn wish(headers: &HeaderMap) -> Result<Option<Wish>, Problem> {
    let mut wish = Wish::default();
    let mut values = headers.get_all(CACHE).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    for value in values {
        let words = value.to_str().unwrap_or("?").split(',').map(str::trim);
        for word in words.filter(|word| !word.is_empty()) {
            match word {
                "no-cache" => wish.no_cache = true,
                "no-store" => wish.no_store = true,
                "only-if-cached" => wish.only_cached = true,
                "sampled" => wish.sampled = true,
                _ => {
                    let message = "x-selvedge-cache takes no-cache, no-store, only-if-cached and \
                                   sampled, separated by commas";
                    return Err(Problem::invalid(CACHE.as_str(), message));
                }
            }
        }
    }
    if wish.only_cached && wish.no_cache {
        let message = "x-selvedge-cache: only-if-cached and no-cache exclude each other";
        return Err(Problem::invalid(CACHE.as_str(), message));
    }
    Ok(Some(wish))
}

/// Asks the cache. With the cache off nothing is said of it, unless the caller did.
pub(super) async fn door(
    backend: &dyn Backend,
    call: &ChatCall,
    speech: &Speech,
    wish: Option<Wish>,
    body: &[u8],
) -> Result<Door, Problem> {
    let known = wish.unwrap_or_default();
    let (dialect, knobs) = match speech.cache {
        _ if !backend.caches() => return off(wish).map(Door::Ask),
        None => return beside("surface", wish).map(Door::Ask),
        Some(cache) => cache,
    };
    let question = Question { dialect, knobs: Some(knobs), body, wish: known };
    opened(backend.cached(call, question).await, known)
}

/// The same for a request that a model of the mesh answers by itself, once for each of `calls`:
/// several answers are not kept.
pub(super) async fn mesh_door(
    backend: &dyn Backend,
    calls: &[Call],
    (shape, routed): (Shape, bool),
    wish: Option<Wish>,
    body: &[u8],
) -> Result<Door, Problem> {
    if !backend.caches() {
        return off(wish).map(Door::Ask);
    }
    let [call] = calls else { return beside("several", wish).map(Door::Ask) };
    // What a route leads to here is not what was asked for.
    if routed {
        return beside("surface", wish).map(Door::Ask);
    }
    let known = wish.unwrap_or_default();
    let dialect = match shape {
        Shape::Chat => "openai.chat",
        Shape::Text => "openai.completions",
    };
    let question = Question { dialect, knobs: Some(Knobs::Top), body, wish: known };
    opened(backend.cached_in_mesh(call, question).await, known)
}

/// The same for embeddings, which are never drawn by chance.
pub(super) async fn embed_door(
    backend: &dyn Backend,
    call: &EmbedCall,
    dialect: &'static str,
    wish: Option<Wish>,
    body: &[u8],
) -> Result<Door, Problem> {
    if !backend.caches() {
        return off(wish).map(Door::Ask);
    }
    let known = wish.unwrap_or_default();
    let question = Question { dialect, knobs: None, body, wish: known };
    opened(backend.cached_embeddings(call, question).await, known)
}

/// What follows from what the cache says.
fn opened(cached: Cached, wish: Wish) -> Result<Door, Problem> {
    match cached {
        Cached::Hit { kept, age, shared, from } => {
            let mut response = whole(StatusCode::OK, kept.content_type, kept.body.clone());
            let headers = response.headers_mut();
            let why = match from {
                Some(_) => Some("peer"),
                None => shared.then_some("coalesced"),
            };
            Said(Some(("hit", why))).write(headers);
            // A name that no header can hold is left out.
            if let Some(Ok(name)) = from.map(HeaderValue::try_from) {
                headers.insert(FROM, name);
            }
            headers.insert(AGE, HeaderValue::from(age.0 / 1_000_000));
            if kept.content_type == STREAMED {
                headers.insert(UNBUFFERED, HeaderValue::from_static("no"));
            }
            Ok(Door::Answered(Box::new(response)))
        }
        Cached::Miss(why, keeper) => {
            Ok(Door::Ask(Verdict { said: Some(("miss", why)), keeper: Some(keeper) }))
        }
        Cached::Bypass(why, _) if wish.only_cached => Err(not_kept(why)),
        Cached::Bypass(why, keeper) => Ok(Door::Ask(Verdict::bypass(why, keeper))),
    }
}

/// What is said where the cache is off.
fn off(wish: Option<Wish>) -> Result<Verdict, Problem> {
    match wish {
        None => Ok(Verdict::default()),
        Some(wish) => beside("off", Some(wish)),
    }
}

/// A request that no answer is kept for, for this reason.
fn beside(why: &'static str, wish: Option<Wish>) -> Result<Verdict, Problem> {
    if wish.is_some_and(|wish| wish.only_cached) {
        return Err(not_kept(why));
    }
    Ok(Verdict::bypass(why, None))
}

/// The answer to who takes none but one that is kept (RFC 9111, section 5.2.1.7).
fn not_kept(why: &str) -> Problem {
    let message = format!(
        "no answer to this request is kept ({why}), and 'x-selvedge-cache: only-if-cached' asks \
         for no other one"
    );
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "not_cached", message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_words_are_understood_or_refused() {
        let read = |texts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for text in texts {
                headers.append(CACHE, HeaderValue::from_static(text));
            }
            wish(&headers)
        };
        assert_eq!(read(&[]).unwrap(), None);
        let both = read(&["no-cache , sampled"]).unwrap().unwrap();
        assert_eq!(both, Wish { no_cache: true, sampled: true, ..Wish::default() });
        let more = read(&["no-store", "only-if-cached"]).unwrap().unwrap();
        assert_eq!(more, Wish { no_store: true, only_cached: true, ..Wish::default() });
        for wrong in [&["max-age=3"][..], &["no-cache", "maybe"], &["only-if-cached,no-cache"]] {
            assert_eq!(read(wrong).unwrap_err().status, StatusCode::BAD_REQUEST, "{wrong:?}");
        }
    }

    #[test]
    fn nothing_is_said_of_a_cache_that_is_off_unless_asked() {
        let mut headers = HeaderMap::new();
        off(None).unwrap().parts().0.write(&mut headers);
        assert!(headers.is_empty());
        off(Some(Wish::default())).unwrap().parts().0.write(&mut headers);
        assert_eq!(
            (headers[CACHE].as_bytes(), headers[REASON].as_bytes()),
            (&b"bypass"[..], &b"off"[..])
        );
        let only = Wish { only_cached: true, ..Wish::default() };
        assert_eq!(off(Some(only)).err().unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    }
}
