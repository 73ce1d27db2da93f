//! Mutual TLS 1.3 whose certificates carry the node's name.
//!
//! Owns the certificate (made once per endpoint), the two verifiers and the choice of ciphers.
//! Certificates follow the libp2p TLS specification: self-signed, with an extension in which the
//! node's key signs the certificate's key. There is no authority and no domain name: a peer is who
//! its key says. Whether it may come in is decided after the handshake, by membership.

use std::sync::{Arc, OnceLock};

use libp2p_tls::certificate;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme, SupportedCipherSuite,
};
use selvedge_base::NodeId;

use crate::error::NetError;
use crate::identity::{Identity, node_of};

/// The protocol of members.
pub(crate) const MEMBER_ALPN: &[u8] = b"selvedge/1";
/// The protocol of those who want to become members.
pub(crate) const JOIN_ALPN: &[u8] = b"selvedge-join/1";
/// TLS wants a name to ask for. Nobody checks it and it is not sent.
pub(crate) const SERVER_NAME: &str = "selvedge";

/// What every handshake of one endpoint shares.
pub(crate) struct Credentials {
    provider: Arc<CryptoProvider>,
    certificate: Arc<SingleCertAndKey>,
}

/// The name found in a certificate, kept because a failed handshake only says that it failed.
pub(crate) type FoundNode = Arc<OnceLock<NodeId>>;

impl Credentials {
    /// Makes the certificate.
    pub(crate) fn new(identity: &Identity) -> Result<Self, NetError> {
        let failed = |error: &dyn std::fmt::Display| NetError::Tls(error.to_string());
        let (chain, key) =
            certificate::generate(&identity.keypair()).map_err(|error| failed(&error))?;
        let key = aws_lc_rs::sign::any_ecdsa_type(&key).map_err(|error| failed(&error))?;
        // Not `with_single_cert`: its check of key against certificate refuses the libp2p
        // extension, which is critical.
        let certificate = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![chain], key)));
        let provider = CryptoProvider {
            cipher_suites: cipher_suites(),
            // X25519 alone fits the first flight into one datagram; the hybrid is there for peers
            // that insist on it.
            kx_groups: vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::X25519MLKEM768],
            ..aws_lc_rs::default_provider()
        };
        Ok(Self { provider: Arc::new(provider), certificate })
    }

    /// The side that is dialled: both protocols, any Ed25519 peer.
    pub(crate) fn server(&self) -> Result<quinn::ServerConfig, NetError> {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| NetError::Tls(error.to_string()))?
            .with_client_cert_verifier(Arc::new(PeerVerifier::any()))
            .with_cert_resolver(Arc::clone(&self.certificate) as _);
        tls.alpn_protocols = vec![MEMBER_ALPN.to_vec(), JOIN_ALPN.to_vec()];
        // Resumption saves 0.1 ms of a handshake and would leave tickets to think about.
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        tls.key_log = key_log();
        let tls =
            QuicServerConfig::try_from(tls).map_err(|error| NetError::Tls(error.to_string()))?;
        Ok(quinn::ServerConfig::with_crypto(Arc::new(tls)))
    }

    /// The side that dials: one protocol, and one peer when its name is known.
    pub(crate) fn client(
        &self,
        alpn: &[u8],
        expected: Option<NodeId>,
    ) -> Result<(quinn::ClientConfig, FoundNode), NetError> {
        let found = FoundNode::default();
        let verifier = PeerVerifier { expected, found: Arc::clone(&found) };
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| NetError::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.certificate) as _);
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls.enable_sni = false;
        tls.resumption = rustls::client::Resumption::disabled();
        tls.key_log = key_log();
        let tls =
            QuicClientConfig::try_from(tls).map_err(|error| NetError::Tls(error.to_string()))?;
        Ok((quinn::ClientConfig::new(Arc::new(tls)), found))
    }
}

/// Where the secrets of handshakes are written: nowhere. A debug build writes them to the file that
/// `SSLKEYLOGFILE` names, so that a test can read on the cable what a node says.
fn key_log() -> Arc<dyn rustls::KeyLog> {
    if cfg!(debug_assertions) {
        return Arc::new(rustls::KeyLogFile::new());
    }
    Arc::new(rustls::NoKeyLog {})
}

#[cfg(test)]
impl Credentials {
    /// A dialler that does not say who it is.
    pub(crate) fn client_without_certificate(
        &self,
        alpn: &[u8],
    ) -> Result<(quinn::ClientConfig, FoundNode), NetError> {
        let failed = |error: rustls::Error| NetError::Tls(error.to_string());
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier::any()))
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let tls =
            QuicClientConfig::try_from(tls).map_err(|error| NetError::Tls(error.to_string()))?;
        Ok((quinn::ClientConfig::new(Arc::new(tls)), FoundNode::default()))
    }
}

/// Who is on the other side of an established connection.
pub(crate) fn peer_of(connection: &quinn::Connection) -> Option<NodeId> {
    let certificates =
        connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let [certificate] = certificates.as_slice() else { return None };
    node_of(&certificate::parse(certificate).ok()?.peer_id())
}

/// The protocol an established connection speaks.
pub(crate) fn protocol_of(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// AES-128-GCM first: it costs half of ChaCha20-Poly1305 where the processor has AES
/// instructions. ARM boards without them get ChaCha20-Poly1305 first.
fn cipher_suites() -> Vec<SupportedCipherSuite> {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let mut suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    if aes_is_slow() {
        suites.rotate_right(1);
    }
    suites
}

#[cfg(target_arch = "aarch64")]
fn aes_is_slow() -> bool {
    !std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(target_arch = "aarch64"))]
fn aes_is_slow() -> bool {
    false
}

/// Checks that the other side holds the key its certificate names, and that it is the one wanted.
#[derive(Debug)]
struct PeerVerifier {
    expected: Option<NodeId>,
    found: FoundNode,
}

impl PeerVerifier {
    fn any() -> Self {
        Self { expected: None, found: FoundNode::default() }
    }

    fn check(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !rest.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        let node = node_of(&certificate::parse(leaf)?.peer_id())
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.expected.is_some_and(|expected| expected != node) {
            // A second certificate cannot come: the handshake ends here.
            let _first = self.found.set(node);
            return Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ));
        }
        Ok(())
    }

    fn check_signature(
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        certificate::parse(leaf)?.verify_signature(signed.scheme, message, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

/// What certificates of this project and of libp2p are signed with.
fn schemes() -> Vec<SignatureScheme> {
    vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
}

/// TLS 1.2 is never offered, so a signature of it is a peer that breaks the protocol.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme))
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, rest).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, rest).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
