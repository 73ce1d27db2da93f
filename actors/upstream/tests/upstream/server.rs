//! A server that speaks like a provider, does what a test tells it to, and records what it got.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use selvedge_core::upstream::ProviderKind;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::{shape, world};

/// Pieces of a body that a test sends; dropping the sender ends it.
pub(crate) type Pieces = mpsc::Receiver<io::Result<Bytes>>;

/// What to do with the next request.
pub(crate) enum Act {
    /// A whole answer of the provider's shape.
    Whole,
    /// A stream of the provider's shape, all at once.
    Stream,
    /// A stream whose pieces the test sends.
    Drip(Pieces),
    /// A status with an error of the provider's shape.
    Status(u16, Vec<(&'static str, String)>),
    /// 200 with these headers and this body.
    Odd(Vec<(&'static str, String)>, Vec<u8>),
    /// Nothing at all, until the client leaves.
    Hang,
}

/// What came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) authentic: bool,
    pub(crate) connection: usize,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    /// One for each request that came.
    pub(crate) came: mpsc::UnboundedReceiver<Received>,
    /// One for each request whose client left before its answer.
    pub(crate) left: mpsc::UnboundedReceiver<()>,
}

struct Shared {
    kind: ProviderKind,
    script: Mutex<VecDeque<Act>>,
    came: mpsc::UnboundedSender<Received>,
    left: mpsc::UnboundedSender<()>,
}

impl Server {
    /// A server that does these things in turn, and then answers whole or in a stream as asked.
    pub(crate) async fn start(kind: ProviderKind, script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ((came, got), (left, gone)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let shared = Arc::new(Shared { kind, script: Mutex::new(script.into()), came, left });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let shared = Arc::clone(&serving);
                let service =
                    service_fn(move |request| serve(Arc::clone(&shared), connection, request));
                let io = TokioIo::new(stream);
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(io, service));
            }
        });
        Self { address, shared, came: got, left: gone }
    }

    pub(crate) fn then(&self, act: Act) {
        self.shared.script.lock().push_back(act);
    }

    /// The next request that came.
    pub(crate) async fn received(&mut self) -> Received {
        self.came.recv().await.unwrap()
    }
}

/// The two ends of a body that a test sends piece by piece.
pub(crate) fn drip() -> (mpsc::Sender<io::Result<Bytes>>, Act) {
    let (sender, pieces) = mpsc::channel(1);
    (sender, Act::Drip(pieces))
}

async fn serve(
    shared: Arc<Shared>,
    connection: usize,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, io::Error>>, io::Error> {
    let kind = shared.kind;
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = parts.uri.to_string();
    let method = parts.method.to_string();
    let wall = world::clock().wall;
    let authentic = shape::is_authentic(kind, &method, &path, &parts.headers, &body, wall);
    let streams = body.windows(13).any(|window| window == br#""stream":true"#);
    let received = Received { method, path, headers: parts.headers, body, authentic, connection };
    // A test that is over listens no more.
    let _heard = shared.came.send(received);
    if !authentic {
        return Ok(answer(401, &[], "application/json", shape::error(kind, "bad key").into()));
    }
    let next = shared.script.lock().pop_front();
    Ok(match next.unwrap_or(if streams { Act::Stream } else { Act::Whole }) {
        Act::Whole => answer(200, &[], shape::content_type(kind, false), shape::whole(kind)),
        Act::Stream => {
            let all = shape::pieces(kind).concat();
            answer(200, &[], shape::content_type(kind, true), all)
        }
        Act::Status(status, headers) => {
            answer(status, &headers, "application/json", shape::error(kind, "no").into())
        }
        Act::Odd(headers, body) => answer(200, &headers, "application/json", body),
        Act::Drip(pieces) => {
            let left = Left(Some(shared.left.clone()));
            let body = Dripping { pieces, left }.boxed();
            let content_type = shape::content_type(kind, true);
            Response::builder().header("content-type", content_type).body(body).unwrap()
        }
        Act::Hang => {
            let _left = Left(Some(shared.left.clone()));
            std::future::pending().await
        }
    })
}

fn answer(
    status: u16,
    headers: &[(&'static str, String)],
    content_type: &str,
    body: Vec<u8>,
) -> Response<BoxBody<Bytes, io::Error>> {
    let mut response = Response::builder().status(status);
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        response = response.header("content-type", content_type);
    }
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    let body = http_body_util::Full::new(Bytes::from(body));
    response.body(body.map_err(|never| match never {}).boxed()).unwrap()
}

/// Tells that the client left, when dropped before the answer's end.
struct Left(Option<mpsc::UnboundedSender<()>>);

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(left) = self.0.take() {
            let _heard = left.send(());
        }
    }
}

struct Dripping {
    pieces: Pieces,
    left: Left,
}

impl Body for Dripping {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.pieces.poll_recv(context);
        if matches!(piece, Poll::Ready(None)) {
            self.left.0 = None;
        }
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
