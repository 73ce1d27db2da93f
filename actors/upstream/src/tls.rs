//! TLS towards providers.
//!
//! Owns which authorities are believed (those of the public web, and an operator's own file) and
//! that HTTP/1.1 is offered alone. The provider of cryptography is the workspace's, named here so
//! that none needs to be installed for the process.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::error::SetupError;

/// Bytes of a file of authorities: the public web's own list has a quarter of a megabyte.
const MAX_CA_FILE: u64 = 4 << 20;

/// Settings of TLS, one for each set of authorities; cheap to clone.
#[derive(Clone)]
pub struct Roots(pub(crate) Arc<ClientConfig>);

impl Roots {
    /// The authorities of the public web (Mozilla's list, as built in).
    ///
    /// # Errors
    /// [`SetupError::Tls`].
    pub fn public() -> Result<Self, SetupError> {
        Self::of(Self::store())
    }

    /// These and the ones in a PEM file. Reads the file: call it off the async threads.
    ///
    /// # Errors
    /// [`SetupError::ExtraCa`] when it cannot be read, holds no certificate or a broken one.
    pub fn with_file(path: &Path) -> Result<Self, SetupError> {
        let refuse =
            |reason: String| SetupError::ExtraCa { path: path.display().to_string(), reason };
        let size = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len();
        if size > MAX_CA_FILE {
            return Err(refuse(format!("{size} bytes are over the limit of {MAX_CA_FILE}")));
        }
        let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        let mut store = Self::store();
        let public = store.len();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
            store.add(certificate).map_err(|error| refuse(error.to_string()))?;
        }
        if store.len() == public {
            return Err(refuse("it holds no certificate".to_owned()));
        }
        Self::of(store)
    }

    fn store() -> RootCertStore {
        RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
    }

    fn of(store: RootCertStore) -> Result<Self, SetupError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SetupError::Tls(error.to_string()))?;
        let mut config = builder.with_root_certificates(store).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}
