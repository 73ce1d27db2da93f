//! Connections of clients: accepted, limited, served, and let go when the node stops.
//!
//! Owns sockets and their number. What a request means is the router's business.

use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use selvedge_runtime::Run;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::backend::Backend;
use super::limits::Patient;
use super::router::{App, handle};
use super::settings::Settings;
use super::stop::{Phase, Stop};

/// Headers of one request: browsers send about 20, proxies add a few.
const MAX_HEADERS: usize = 64;
/// Bytes of a request's head: the longest cookies and tokens in use stay below half of it.
const HEAD_BYTES: usize = 32 << 10;
/// Bytes hyper buffers per direction and connection: one read of a fast loopback sender.
const BUFFER_BYTES: usize = 64 << 10;
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
/// When the listener cannot be taken out of the runtime.
pub(crate) fn lasting(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    settings: Settings,
    stop: Stop,
) -> io::Result<Run> {
    let socket = Arc::new(Mutex::new(Some(listener.into_std()?)));
    Ok(Arc::new(move || {
        let socket = Arc::clone(&socket);
        let (backend, settings, stop) = (Arc::clone(&backend), settings.clone(), stop.clone());
        Box::pin(async move {
            let held = socket.lock().as_ref().map(std::net::TcpListener::try_clone);
            // It failed while it stopped: there is nothing left to do.
            let Some(listener) = held else { return Ok(()) };
            let listener = listener.and_then(TcpListener::from_std);
            let listener = listener.map_err(|error| error.to_string())?;
            let mut serving = pin!(serve(listener, backend, settings, stop.clone()));
            let served = tokio::select! {
                served = &mut serving => served,
                () = stop.requested() => {
                    drop(socket.lock().take());
                    serving.await
                }
            };
            served.map_err(|error| error.to_string())
        })
    }))
}

/// Serves clients on `listener` until `stop` is requested and the running answers have ended or
/// their grace is over.
///
/// # Errors
/// When the listener has no address, which means that it is not a usable socket.
async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    settings: Settings,
    stop: Stop,
) -> io::Result<()> {
    let app = Arc::new(App::new(backend, settings, stop.clone(), listener.local_addr()?));
    let mut running = JoinSet::new();
    let mut requested = pin!(stop.requested());
    loop {
        tokio::select! {
            () = &mut requested => break,
            Some(_) = running.join_next(), if !running.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) if running.len() >= app.settings.connections => turn_away(socket),
                Ok((socket, _)) => {
                    running.spawn(connection(Arc::clone(&app), socket));
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
    Ok(())
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
    // `half_close` stays off: a client that closes its side while it waits has gone, and its work
    // must be freed at once instead of at the first failed write.
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(app.settings.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(BUFFER_BYTES)
            .half_close(false)
            .serve_connection(io, service)
    );
    let result = tokio::select! {
        result = &mut serving => result,
        () = app.stop.requested() => {
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
