//! Connections of clients: accepted, limited, served, and let go when the node stops.
//!
//! Owns sockets and their number. What a request means is the router's business.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use selvedge_runtime::Run;
use selvedge_upstream::Aside;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::backend::Backend;
use super::heads::Heads;
use super::limits::Patient;
use super::router::{App, handle};
use super::settings::Settings;
use super::stop::{Phase, Stop};
use super::workers::Workers;

/// Bytes of a request's head: the longest cookies and tokens in use stay below half of it.
const HEAD_BYTES: usize = 32 << 10;
/// Bytes hyper buffers per direction and connection: one read of a fast loopback sender.
const BUFFER_BYTES: usize = 64 << 10;
/// Requests at a time on one connection of HTTP/2: as many as the protocol asks for at the least
/// (RFC 9113, section 6.5.2), so that no client is slower for it.
const STREAMS: u32 = 100;
/// Bytes on their way to us on one connection of HTTP/2, all its requests together: a large body at
/// the speed of a local network.
const WINDOW_BYTES: u32 = 1 << 20;
/// A connection of HTTP/2 is let go after this many looks in a row, one in each
/// [`Settings::header_timeout`], that found no request under way: about a minute. Clients keep them
/// and open others by themselves.
const QUIET: u32 = 6;
/// Wait for the second byte of a connection whose first one tells nothing: it is on its way.
const HALF_WORD: Duration = Duration::from_millis(5);
/// Pause after the system refused a connection (out of descriptors): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time streams get to write their last event when the grace is over.
const LAST_WORDS: Duration = Duration::from_millis(150);
/// Sent to a client that is one too many; hyper never sees that connection.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 118\r\n\r\n\
    {\"error\":{\"message\":\"too many connections; try again shortly\",\"type\":\"server_error\",\
    \"param\":null,\"code\":\"overloaded\"}}";

/// The surface as something that can be started again: the socket outlives a failure, so clients
/// wait in its queue meanwhile. It does not outlive the request to stop, after which nobody would
/// come to serve them.
///
/// # Errors
/// When the listener cannot be taken out of the runtime, or the system gives no threads.
pub(crate) fn lasting(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    settings: Settings,
    stop: Stop,
) -> io::Result<Run> {
    let socket = Arc::new(Mutex::new(Some(listener.into_std()?)));
    let workers = Arc::new(Workers::start(settings.workers)?);
    Ok(Arc::new(move || {
        let (socket, workers) = (Arc::clone(&socket), Arc::clone(&workers));
        let (backend, settings, stop) = (Arc::clone(&backend), settings.clone(), stop.clone());
        Box::pin(async move {
            let held = socket.lock().as_ref().map(std::net::TcpListener::try_clone);
            // It failed while it stopped: there is nothing left to do.
            let Some(listener) = held else { return Ok(()) };
            let listener = listener.and_then(TcpListener::from_std);
            let listener = listener.map_err(|error| error.to_string())?;
            let app = App::new(backend, settings, stop.clone(), address(&listener)?);
            let mut serving = pin!(serve(listener, Arc::new(app), &workers, stop.clone()));
            tokio::select! {
                () = &mut serving => {}
                () = stop.requested() => {
                    drop(socket.lock().take());
                    serving.await;
                }
            }
            Ok(())
        })
    }))
}

/// Where a listener listens; one without an address is not a usable socket.
fn address(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|error| error.to_string())
}

/// Serves clients on `listener` until `stop` is requested and the running answers have ended or
/// their grace is over.
async fn serve(listener: TcpListener, app: Arc<App>, workers: &Workers, stop: Stop) {
    let mut running = JoinSet::new();
    let mut requested = pin!(stop.requested());
    loop {
        tokio::select! {
            () = &mut requested => break,
            Some(_) = running.join_next(), if !running.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) if running.len() >= app.settings.connections => turn_away(socket),
                Ok((socket, _)) => {
                    // A worker knows only sockets of its own.
                    let (app, socket) = (Arc::clone(&app), socket.into_std());
                    workers.serve(&mut running, async move {
                        match socket.and_then(TcpStream::from_std) {
                            Ok(socket) => connection(app, socket).await,
                            Err(error) => warn!(%error, "a connection could not be taken over"),
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    finish(running, &stop, app.settings.grace).await;
}

/// Lets what runs finish, then makes it finish.
async fn finish(mut running: JoinSet<()>, stop: &Stop, grace: Duration) {
    if timeout(grace, ended(&mut running)).await.is_err() {
        stop.advance(Phase::Ending);
        // Whoever does not read its last event now is cut off with the set.
        let _ = timeout(LAST_WORDS, ended(&mut running)).await;
    }
}

async fn ended(running: &mut JoinSet<()>) {
    while running.join_next().await.is_some() {}
}

/// One connection, until it ends. Its errors are the client's (resets, garbage, time-outs): hyper
/// has answered what can be answered.
async fn connection(app: Arc<App>, socket: TcpStream) {
    // Events are small and must leave at once.
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "a connection ended before it began");
        return;
    }
    // Whatever is served, its first words must come in the time a head may take.
    let version = tokio::select! {
        version = timeout(app.settings.header_timeout, Version::told(&socket)) => version,
        // Nothing was asked on it yet: nobody misses it.
        () = app.stop.requested() => return,
    };
    match version {
        Ok(Ok(Version::One)) => one(app, socket).await,
        Ok(Ok(Version::Two)) => two(app, socket).await,
        Ok(Err(error)) => debug!(%error, "a connection broke before it said anything"),
        Err(_) => debug!("a connection said nothing in time"),
    }
}

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// What the first bytes say. Those of HTTP/2 are `PRI` (RFC 9113, section 3.4), which no method
    /// of HTTP/1.1 begins with; two tell. They are left where they are.
    async fn told(socket: &TcpStream) -> io::Result<Self> {
        let mut first = [0; 2];
        loop {
            match (socket.peek(&mut first).await?, first) {
                (2, [b'P', b'R']) => return Ok(Self::Two),
                (1, [b'P', _]) => sleep(HALF_WORD).await,
                // Also where it closed: hyper knows what to do then.
                _ => return Ok(Self::One),
            }
        }
    }
}

/// One connection of HTTP/2, which gRPC needs: many requests at a time.
async fn two(app: Arc<App>, socket: TcpStream) {
    let io = TokioIo::new(Patient::new(socket, app.settings.stall_timeout));
    let running = Arc::new(AtomicUsize::new(0));
    let service = {
        let (app, running) = (Arc::clone(&app), Arc::clone(&running));
        service_fn(move |request| {
            let app = Arc::clone(&app);
            let under_way = UnderWay::new(&running);
            async move {
                let _under_way = under_way;
                Ok::<_, Infallible>(handle(app, request).await)
            }
        })
    };
    let mut serving = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_BYTES as u32)
            .initial_stream_window_size(BUFFER_BYTES as u32)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_send_buf_size(BUFFER_BYTES)
            .keep_alive_interval(app.settings.stall_timeout)
            .keep_alive_timeout(app.settings.stall_timeout)
            .serve_connection(io, service)
    );
    let mut quiet = 0;
    let result = loop {
        tokio::select! {
            result = &mut serving => break result,
            () = app.stop.requested() => {}
            () = sleep(app.settings.header_timeout) => {
                quiet = if running.load(Ordering::Relaxed) == 0 { quiet + 1 } else { 0 };
                if quiet < QUIET {
                    continue;
                }
            }
        }
        // Streams under way come to their end; no new ones are taken.
        serving.as_mut().graceful_shutdown();
        break serving.await;
    };
    if let Err(error) = result {
        debug!(%error, "a connection broke");
    }
}

/// Counts a request while it waits for its answer.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(running))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection of HTTP/1.1.
async fn one(app: Arc<App>, socket: TcpStream) {
    let io = TokioIo::new(Patient::new(socket, app.settings.stall_timeout));
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let (app, asked) = (Arc::clone(&app), Arc::clone(&asked));
        service_fn(move |request| {
            asked.store(true, Ordering::Relaxed);
            let app = Arc::clone(&app);
            async move { Ok::<_, Infallible>(handle(app, request).await) }
        })
    };
    // A hundred headers is hyper's own bound, which it keeps without work for each request;
    // browsers send about 20, proxies add a few. `half_close` stays off: a client that closes its
    // side while it waits has gone, and its work must be freed at once instead of at the first
    // failed write.
    let mut serving = pin!(
        http1::Builder::new()
            .timer(Heads::default())
            .header_read_timeout(app.settings.header_timeout)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(BUFFER_BYTES)
            .half_close(false)
            .serve_connection(io, service)
    );
    let stop = pin!(app.stop.requested());
    let result = match Aside::new(stop).unless(serving.as_mut()).await {
        Ok(result) => result,
        Err(()) => {
            // Nothing was asked on it yet: nobody misses it.
            if !asked.load(Ordering::Relaxed) {
                return;
            }
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection broke");
    }
}

fn turn_away(socket: TcpStream) {
    // Best effort: the buffer of a new socket takes this at once, or the client just sees the end.
    // The socket stays non-blocking outside the runtime, which does not know it as writable yet.
    if let Ok(mut socket) = socket.into_std() {
        let _ = socket.write(FULL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_answer_is_well_formed() {
        let text = std::str::from_utf8(FULL).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }
}
