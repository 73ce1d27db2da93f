//! Planted secrets, looked for in everything that can be read: log lines at every level, errors,
//! refusals, Debug output, reports, addresses.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_core::upstream::ProviderKind;
use tracing_subscriber::fmt::MakeWriter;

use crate::server::{Act, Server, drip};
use crate::shape::{self, AWS_ID, AWS_SECRET, KEY};
use crate::world::{all, provider, raw, soon};

/// Everything that is logged, also by hyper, rustls and tokio.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The secret's pieces would be as bad.
fn assert_clean(text: &str, whence: &str) {
    for secret in [KEY, AWS_SECRET, AWS_ID] {
        for piece in [secret, &secret[..12], &secret[secret.len() - 12..]] {
            assert!(!text.contains(piece), "{whence}: {text}");
        }
    }
}

#[tokio::test]
async fn no_secret_is_ever_seen() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::trace!("the log is on");
    for kind in ProviderKind::ALL {
        let text = selvedge_upstream::Secret::new(shape::vault_text(kind));
        let credential = selvedge_upstream::Credential::of(kind, "main", &text).unwrap();
        assert_clean(&format!("{text:?} {credential:?}"), "Debug");
        let mut acts: Vec<Act> = Vec::new();
        for status in [400, 401, 402, 403, 404, 413, 422, 429, 500, 503, 529, 307] {
            let echo = vec![("x-request-id", shape::echoed(kind))];
            acts.push(Act::Status(status, echo));
        }
        acts.push(Act::Odd(vec![("content-type", "text/html".to_owned())], Vec::new()));
        let (sender, cut) = drip();
        acts.push(cut);
        let count = acts.len();
        let mut server = Server::start(kind, acts).await;
        sender.send(Ok("first".into())).await.unwrap();
        for _ in 0..count {
            // A provider of its own each time: none rests, none is open.
            let (provider, reports) = provider(&raw(kind, server.address));
            let call = shape::call(kind, server.came.len() + 1 == count);
            let failed = match provider.ask(&call, soon()).await {
                Err(failed) => failed,
                Ok(mut answer) => {
                    answer.chunk().await.unwrap();
                    sender.send(Err(io::Error::other("cut"))).await.unwrap();
                    all(&mut answer).await.unwrap_err()
                }
            };
            let mut shown =
                format!("{failed} {failed:?} {} {:?}", failed.refusal(), failed.refusal());
            if let Some(said) = failed.said() {
                shown.push_str(&String::from_utf8_lossy(&said.body));
                shown.push_str(&format!("{said:?}"));
            }
            shown.push_str(&format!("{:?} {:?}", reports.lock(), provider.shared().spec()));
            assert_clean(&shown, kind.as_str());
        }
        while let Ok(received) = server.came.try_recv() {
            assert_clean(&received.path, "the address");
            if kind != ProviderKind::Ollama {
                assert!(received.authentic, "the secret was there to be seen");
            }
        }
    }
    let logged = String::from_utf8_lossy(&log.0.lock()).into_owned();
    assert!(logged.contains("the log is on"));
    assert_clean(&logged, "the log");
}
