//! Limits on what clients send and how slowly they read.
//!
//! Owns reading a body within its bounds of size, time and memory, and cutting off a client that
//! leaves a response unread. Limits on heads and idle connections are hyper's, set in
//! `connections`.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::EXPECT;
use hyper::{HeaderMap, StatusCode};
use selvedge_base::Code;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

use super::errors::Problem;
use super::settings::Settings;

/// Bytes of all bodies being read or parsed at a time: 32 of the largest.
const BODIES_TOTAL: usize = 256 << 20;
/// A body that was refused is still read, and thrown away, up to here: a client that sees its
/// connection reset while it sends does not read the refusal.
const DRAIN_BYTES: usize = 64 << 20;
/// Bytes that room is made for before they came: what a fast sender has on its way, and nothing
/// that many who only announce it could fill the memory with.
const MORE_BYTES: usize = 64 << 10;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Reads bodies within bounds.
#[derive(Clone)]
pub(super) struct Reader {
    limit: usize,
    time: Duration,
    budget: Arc<Semaphore>,
}

/// A body that was read. Its share of the memory is given back when this is dropped.
pub(super) struct Received {
    /// The body.
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl Reader {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            limit: settings.body_limit,
            time: settings.body_timeout,
            budget: Arc::new(Semaphore::new(BODIES_TOTAL.max(settings.body_limit))),
        }
    }

    /// The whole body, or why not. A refused body goes on being read in the background, within
    /// bounds, so that the refusal reaches its sender.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Received, Problem> {
        self.read_within(headers, body, self.limit).await
    }

    /// The same of a body that may have another size. A larger one may take longer in proportion.
    pub(super) async fn read_within(
        &self,
        headers: &HeaderMap,
        mut body: Incoming,
        limit: usize,
    ) -> Result<Received, Problem> {
        let announced = body.size_hint().exact().map(usize::try_from);
        if announced.is_some_and(|len| len.map_or(true, |len| len > limit)) {
            // Who asks first (`Expect: 100-continue`) does not send without a yes.
            if !headers.contains_key(EXPECT) {
                drain(body);
            }
            return Err(too_large(limit));
        }
        let time = self.time * limit.div_ceil(self.limit.max(1)) as u32;
        let collected = {
            let mut collecting = pin!(self.collect(&mut body, limit));
            match glance(collecting.as_mut()).await {
                Some(collected) => Ok(collected),
                None => timeout(time, collecting).await,
            }
        };
        match collected {
            Ok(Ok(received)) => Ok(received),
            Ok(Err(problem)) => {
                drain(body);
                Err(problem)
            }
            Err(_) => Err(too_slow(time)),
        }
    }

    /// Reads to the end, taking a share of the memory for what has arrived, not for what was
    /// announced.
    async fn collect(&self, body: &mut Incoming, limit: usize) -> Result<Received, Problem> {
        let mut share: Option<OwnedSemaphorePermit> = None;
        let mut whole = Whole::default();
        let mut len = 0;
        while let Some(chunk) = self.chunk(body).await? {
            len += chunk.len();
            if len > limit {
                return Err(too_large(limit));
            }
            let more = self.share(chunk.len())?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
            let more = body.size_hint().exact().unwrap_or(0).min(MORE_BYTES as u64);
            whole.push(chunk, more as usize);
            // All that was announced is there: there is no end to be asked for.
            if body.is_end_stream() {
                break;
            }
        }
        Ok(Received { bytes: whole.bytes(), _share: share })
    }

    fn share(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.budget).try_acquire_many_owned(permits).map_err(|_| {
            let message = "too many large requests at once; try again shortly";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded.as_str(), message)
                .retry_after(1)
        })
    }

    async fn chunk(&self, body: &mut Incoming) -> Result<Option<Bytes>, Problem> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let message = format!("the body broke off: {error}");
                Problem::new(StatusCode::BAD_REQUEST, Code::InvalidRequest.as_str(), message)
            })?;
            // Trailers carry nothing the surface uses.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// What is there within two looks: hyper gives out a body that came with its head only when it was
/// asked for once. Most need no timer, then.
async fn glance<T>(mut what: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut looked = false;
    poll_fn(|cx| match what.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if std::mem::replace(&mut looked, true) => Poll::Ready(None),
        Poll::Pending => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

fn too_large(limit: usize) -> Problem {
    let message = format!("the body is larger than the limit of {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge.as_str(), message)
}

fn too_slow(time: Duration) -> Problem {
    let message = format!("the body did not arrive within {} s", time.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, Code::Timeout.as_str(), message)
}

/// A body as it grows. Most arrive in one piece, which then is not copied.
#[derive(Default)]
enum Whole {
    #[default]
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Whole {
    /// Takes a chunk, which so many bytes are to follow.
    fn push(&mut self, chunk: Bytes, more: usize) {
        *self = match std::mem::take(self) {
            Self::Nothing => Self::One(chunk),
            Self::One(first) => {
                let mut all = BytesMut::with_capacity(first.len() + chunk.len() + more);
                all.extend_from_slice(&first);
                all.extend_from_slice(&chunk);
                Self::Many(all)
            }
            Self::Many(mut all) => {
                all.extend_from_slice(&chunk);
                Self::Many(all)
            }
        };
    }

    fn bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(all) => all.freeze(),
        }
    }
}

/// Throws away the rest of a body, within bounds. At most one runs per connection.
fn drain(mut body: Incoming) {
    tokio::spawn(timeout(DRAIN_TIME, async move {
        let mut left = DRAIN_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, Bytes::len);
            left = match left.checked_sub(len) {
                Some(left) => left,
                None => break,
            };
        }
    }));
}

/// A socket that breaks when its peer takes nothing for too long.
pub(super) struct Patient<S> {
    socket: S,
    patience: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(socket: S, patience: Duration) -> Self {
        Self { socket, patience, stalled: None }
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.judge(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        this.judge(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_cut_off() {
        let (mut client, server) = tokio::io::duplex(16);
        let mut server = Patient::new(server, Duration::from_secs(30));
        let error = server.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut buffer = [0; 16];
        client.read_exact(&mut buffer).await.expect("what was written before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_served() {
        let (mut client, server) = tokio::io::duplex(16);
        let mut server = Patient::new(server, Duration::from_secs(30));
        let reading = tokio::spawn(async move {
            let mut buffer = [0; 16];
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                client.read_exact(&mut buffer).await.expect("more");
            }
        });
        server.write_all(&[0; 64]).await.expect("each pause is below the limit");
        reading.await.expect("read all");
    }
}
