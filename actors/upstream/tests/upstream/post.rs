//! Bodies carried to one address: what arrives, over how many connections, and what comes back.

use bytes::Bytes;
use selvedge_base::Micros;
use selvedge_core::upstream::provider::BaseUrl;
use selvedge_upstream::Secret;
use selvedge_upstream::post::Courier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Longer than anything here takes.
async fn soon<T>(waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(20), waited).await.unwrap()
}

/// A server that gives these answers, one connection each or all on one, and tells what it read.
async fn server(answers: Vec<Vec<&'static str>>) -> (BaseUrl, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/base", listener.local_addr().unwrap());
    let (told, came) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for connection in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in connection {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                told.send(String::from_utf8_lossy(&request[..read]).into_owned()).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (BaseUrl::parse(&base).unwrap(), came)
}

fn courier(base: &BaseUrl) -> Courier {
    let headers = [("api-key".to_owned(), Secret::new("hush".to_owned()))];
    Courier::new(base, None, None, &headers).unwrap()
}

#[tokio::test]
async fn bodies_arrive_with_their_headers_on_a_connection_that_is_kept() {
    let taken = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let later = "HTTP/1.1 503 Later\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    let (base, mut came) = server(vec![vec![taken, later], vec![taken]]).await;
    let mut courier = courier(&base);
    let receipt = soon(courier.post("/v1/x", "text/plain", Bytes::from_static(b"one"))).await;
    let receipt = receipt.unwrap();
    assert_eq!((receipt.status, &receipt.body[..]), (200, &b"ok"[..]));
    let request = soon(came.recv()).await.unwrap().to_lowercase();
    for part in ["post /base/v1/x ", "api-key: hush", "content-type: text/plain", "\r\n\r\none"] {
        assert!(request.contains(part), "{request} lacks {part}");
    }
    let receipt = soon(courier.post("/v1/x", "text/plain", Bytes::new())).await.unwrap();
    assert_eq!((receipt.status, receipt.retry_after), (503, Some(Micros::secs(7))));
    // The server closes here: another connection is made, by the next body at the latest.
    let mut last = soon(courier.post("/v1/x", "text/plain", Bytes::new())).await;
    if last.is_err() {
        last = soon(courier.post("/v1/x", "text/plain", Bytes::new())).await;
    }
    assert_eq!(last.unwrap().status, 200);
}

#[tokio::test]
async fn what_is_not_answered_is_said_without_secrets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let missed = soon(courier(&base).post("/x", "text/plain", Bytes::new())).await.unwrap_err();
    assert!(missed.to_string().contains("nothing listens"), "{missed}");
    let (base, _came) =
        server(vec![vec!["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"]]).await;
    let missed = soon(courier(&base).post("/x", "text/plain", Bytes::new())).await.unwrap_err();
    assert!(!missed.to_string().contains("hush"), "{missed}");
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n";
    let (base, _came) = server(vec![vec![long]]).await;
    assert!(soon(courier(&base).post("/x", "text/plain", Bytes::new())).await.is_err());
    let bad = [("api-key".to_owned(), Secret::new("hu\nsh".to_owned()))];
    let refused = Courier::new(&base, None, None, &bad).err().unwrap().to_string();
    assert!(refused.contains("api-key") && !refused.contains("hu"), "{refused}");
}
