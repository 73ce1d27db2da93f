//! What responses are made of: a finished text, or a stream of events.
//!
//! Owns the body type hyper polls and the small builders every endpoint uses.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use serde::Serialize;

use super::events::Events;

/// A response's body.
pub(super) enum Answer {
    /// All of it is known.
    Whole(Option<Bytes>),
    /// It is still being made.
    Stream(Box<Events>),
    /// Lines that are written as they come.
    Lines(BoxStream<'static, Bytes>),
    /// All of it is known, and what is said after it.
    Trailed(Option<Bytes>, Option<HeaderMap>),
}

impl Answer {
    /// All of it, where that is known.
    pub(super) fn known(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => bytes.as_ref(),
            Self::Stream(_) | Self::Lines(_) | Self::Trailed(..) => None,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(events) => {
                events.poll_bytes(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Trailed(bytes, trailers) => Poll::Ready(match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
            Self::Lines(lines) => {
                lines.poll_next_unpin(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(events) => events.is_over(),
            Self::Lines(_) => false,
            Self::Trailed(bytes, trailers) => bytes.is_none() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(_) | Self::Lines(_) | Self::Trailed(..) => SizeHint::default(),
        }
    }
}

/// Headers of an answer whose account has a budget: room for them is made once, and the few answers
/// with more grow it.
const HEADERS: usize = 6;

/// A response whose text is known.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Answer> {
    let text = text.into();
    let mut response = Response::new(Answer::Whole((!text.is_empty()).then_some(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Answers are made for one caller at one moment; no cache on the way may keep them.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A response of JSON lines (NDJSON) that come one by one.
pub(super) fn lines(lines: BoxStream<'static, Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::Lines(lines));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A JSON response.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Answer> {
    // Serializing plain structs into memory cannot fail; an empty body would be the visible sign.
    whole(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}
