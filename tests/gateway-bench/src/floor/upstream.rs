//! The floor's connections to an upstream: a pool over hyper's plain client connections.
//!
//! Owns opening, lending and taking back. A connection is taken back when its answer was read to
//! the end, and only if it may be used again.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// Idle connections kept: 2,000 streams that end together, and room.
const IDLE: usize = 4_096;

type Sender = SendRequest<Full<Bytes>>;

/// Connections to one upstream.
pub(super) struct Pool {
    addr: SocketAddr,
    host: HeaderValue,
    credential: HeaderValue,
    idle: Arc<Mutex<Vec<Sender>>>,
}

/// A connection that is lent until its answer has been read.
pub(super) struct Lease {
    sender: Option<Sender>,
    idle: Arc<Mutex<Vec<Sender>>>,
}

impl Pool {
    pub(super) fn new(addr: SocketAddr, key: &str) -> Result<Self> {
        Ok(Self {
            addr,
            host: HeaderValue::from_str(&addr.to_string())?,
            credential: HeaderValue::from_str(&format!("Bearer {key}"))?,
            idle: Arc::default(),
        })
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn ask(
        &self,
        path: &str,
        body: Bytes,
    ) -> Result<(Response<Incoming>, Lease), ()> {
        let mut sender = self.sender().await?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse::<Uri>().map_err(|_| ())?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(AUTHORIZATION, self.credential.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = sender.send_request(request).await.map_err(|_| ())?;
        let lease = Lease { sender: Some(sender), idle: Arc::clone(&self.idle) };
        Ok((response, lease))
    }

    async fn sender(&self) -> Result<Sender, ()> {
        loop {
            let Some(mut sender) = self.idle.lock().pop() else { break };
            // Not ready any more means closed by the upstream while it was idle.
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TcpStream::connect(self.addr).await.map_err(|_| ())?;
        stream.set_nodelay(true).map_err(|_| ())?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| ())?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

impl Lease {
    /// The answer has been read to its end.
    pub(super) fn give_back(mut self) {
        if let Some(sender) = self.sender.take() {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE && !sender.is_closed() {
                idle.push(sender);
            }
        }
    }
}
