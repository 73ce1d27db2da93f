//! What the hand-off is compared with: one bare quinn stream per request, and TCP with TLS.
//!
//! Owns two echo servers and their clients with the ciphers of the data plane. The certificate is
//! made on the spot and nobody checks it: what is measured starts after the handshake.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use libp2p::identity::Keypair;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider, sign};
use rustls::crypto::{CryptoProvider, aws_lc_rs::kx_group::X25519};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig};
use rustls::{ServerConnection, SignatureScheme, StreamOwned};

/// What a request and its answer weigh: as much as the hand-off's empty frames.
pub(crate) const BYTES: usize = 7;
/// Any name will do: nobody checks it.
const NAME: &str = "bench";

/// A QUIC connection whose other side echoes each stream.
pub(crate) struct Quinn {
    _endpoint: quinn::Endpoint,
    connection: quinn::Connection,
}

/// A TLS connection whose other side echoes.
pub(crate) struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Quinn {
    /// Serves on a thread of its own, with a runtime of its own, and connects.
    pub(crate) async fn start() -> Result<Self> {
        let provider = provider();
        let server = quic_server(&provider)?;
        let (sender, addr) = std::sync::mpsc::channel();
        thread::spawn(move || serve(server, &sender));
        let addr: SocketAddr = addr.recv().context("the bare server did not start")?;
        let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        let client = QuicClientConfig::try_from(client_config(&provider)?)?;
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(client)));
        let connection = endpoint.connect(addr, NAME)?.await?;
        Ok(Self { _endpoint: endpoint, connection })
    }

    /// One request: a stream, some bytes there, some bytes back.
    pub(crate) async fn request(&self) -> Result<()> {
        let (mut send, mut receive) = self.connection.open_bi().await?;
        send.write_all(&[7; BYTES]).await?;
        send.finish()?;
        receive.read_to_end(BYTES).await?;
        Ok(())
    }
}

fn serve(config: quinn::ServerConfig, started: &std::sync::mpsc::Sender<SocketAddr>) -> Option<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).ok()?;
        started.send(endpoint.local_addr().ok()?).ok()?;
        let connection = endpoint.accept().await?.await.ok()?;
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            tokio::spawn(async move {
                let bytes = receive.read_to_end(BYTES).await.ok()?;
                send.write_all(&bytes).await.ok()?;
                send.finish().ok()
            });
        }
        Some(())
    })
}

impl Tls {
    /// Serves on a thread of its own and connects.
    pub(crate) fn start() -> Result<Self> {
        let provider = provider();
        let server = Arc::new(server_config(&provider)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        thread::spawn(move || -> Result<()> {
            let (socket, _) = listener.accept()?;
            socket.set_nodelay(true)?;
            let mut stream = StreamOwned::new(ServerConnection::new(server)?, socket);
            let mut bytes = [0; BYTES];
            loop {
                stream.read_exact(&mut bytes)?;
                stream.write_all(&bytes)?;
                stream.flush()?;
            }
        });
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        let config = Arc::new(client_config(&provider)?);
        let client = ClientConnection::new(config, ServerName::try_from(NAME)?)?;
        Ok(Self(StreamOwned::new(client, socket)))
    }

    /// One request: some bytes there, some bytes back.
    pub(crate) fn request(&mut self) -> Result<()> {
        let mut bytes = [7; BYTES];
        self.0.write_all(&bytes)?;
        self.0.flush()?;
        self.0.read_exact(&mut bytes)?;
        Ok(())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![X25519],
        ..default_provider()
    })
}

fn quic_server(provider: &Arc<CryptoProvider>) -> Result<quinn::ServerConfig> {
    let config = QuicServerConfig::try_from(server_config(provider)?)?;
    Ok(quinn::ServerConfig::with_crypto(Arc::new(config)))
}

fn server_config(provider: &Arc<CryptoProvider>) -> Result<ServerConfig> {
    let keypair = Keypair::generate_ed25519();
    let (certificate, key) = libp2p_tls::certificate::generate(&keypair)?;
    let key = CertifiedKey::new(vec![certificate], sign::any_ecdsa_type(&key)?);
    Ok(ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key))))
}

fn client_config(provider: &Arc<CryptoProvider>) -> Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(Arc::clone(provider))))
        .with_no_client_auth())
}

/// Accepts any certificate: both sides are this process.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
