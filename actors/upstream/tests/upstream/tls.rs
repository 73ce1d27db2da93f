//! TLS: an operator's own authority is believed, others are not, and a proxy is tunnelled through.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use selvedge_base::Dice;
use selvedge_core::upstream::{Ending, ProviderKind, RawProvider};
use selvedge_upstream::{
    Credential, Provider, Proxy, Roots, Secret, SetupError, Shared, Target, TargetSettings,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::shape;
use crate::world::{CLOCK, all, raw, soon};

const KIND: ProviderKind = ProviderKind::Anthropic;

/// A TLS server for `localhost` and the PEM of who vouches for it.
async fn secure() -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..read]).into_owned();
            assert!(text.contains(shape::KEY), "the key goes through TLS");
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2";
            stream.write_all(format!("{head}\r\n\r\n{{}}").as_bytes()).await.unwrap();
        }
    });
    (address, made.cert.pem())
}

fn provider(port: u16, roots: Roots, proxy: Option<Proxy>) -> Provider {
    let raw = RawProvider {
        base_url: format!("https://localhost:{port}"),
        ..raw(KIND, ([127, 0, 0, 1], port).into())
    };
    let spec = raw.checked().unwrap();
    let target = Target::new(&spec, roots, proxy, TargetSettings::default(), CLOCK).unwrap();
    let text = Secret::new(shape::KEY.to_owned());
    let credential = Credential::of(KIND, "main", &text).unwrap();
    let watcher = Box::new(|_: &_, _: &_| {});
    let dice = Dice::keyed(1, "tls");
    Provider::new(Shared::new(spec, vec![Some(credential)], dice, CLOCK, watcher), target)
}

/// A file of this test binary's own folder.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn an_operators_authority_is_believed_and_a_strangers_is_not() {
    let (address, pem) = secure().await;
    let file = file("known.pem", &pem);
    let known = provider(address.port(), Roots::with_file(&file).unwrap(), None);
    let mut answer = known.ask(&shape::call(KIND, false), soon()).await.unwrap();
    assert_eq!(all(&mut answer).await.unwrap(), "{}");
    let stranger = provider(address.port(), Roots::public().unwrap(), None);
    let failed = stranger.ask(&shape::call(KIND, false), soon()).await.err().unwrap();
    assert_eq!(failed.ending(), Some(Ending::Unreachable));
    assert!(failed.to_string().contains("TLS"), "{failed}");
}

#[tokio::test]
async fn a_proxy_sees_a_name_and_nothing_else() {
    let (address, pem) = secure().await;
    let file = file("proxied.pem", &pem);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let proxied = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let mut upstream = TcpStream::connect(address).await.unwrap();
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
        let _closed = copy_bidirectional(&mut client, &mut upstream).await;
        String::from_utf8(head).unwrap()
    });
    let proxy = Proxy::parse(&format!("http://{at}"), "").unwrap();
    let provider = provider(address.port(), Roots::with_file(&file).unwrap(), Some(proxy));
    let mut answer = provider.ask(&shape::call(KIND, false), soon()).await.unwrap();
    assert_eq!(all(&mut answer).await.unwrap(), "{}");
    drop((answer, provider));
    let head = proxied.await.unwrap();
    assert!(
        head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", address.port())),
        "{head}"
    );
    assert!(!head.contains(shape::KEY), "{head}");
}

#[test]
fn a_file_of_authorities_must_hold_some() {
    let empty = file("empty.pem", "nothing of the kind");
    let nowhere = Path::new("/nowhere");
    for (path, reason) in [(empty.as_path(), "no certificate"), (nowhere, "No such file")] {
        let Err(SetupError::ExtraCa { reason: said, .. }) = Roots::with_file(path).map(|_| ())
        else {
            panic!("{reason}")
        };
        assert!(said.contains(reason), "{said}");
    }
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(Roots::with_file(&file("broken.pem", pem)).is_err());
}
