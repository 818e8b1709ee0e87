//! How a client verifies a server, and how it identifies itself.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::secrets::{Environment, resolve};
use webhook_verify::Secret;

/// CA certificates, and a certificate with its key. All are PEM. The default trusts the system's
/// CAs and has no certificate.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    ca: Option<Secret>,
    identity: Option<(Secret, Secret)>,
}

/// References (`env:NAME` or `file:PATH`), as the configuration has them.
pub(super) struct References {
    pub(super) ca: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

/// The key that is wrong, and why.
type Wrong = (&'static str, String);

impl ClientTls {
    /// Reads the references. The error says which one is wrong and why, and contains no value.
    pub(super) fn read(of: &References, environment: &Environment) -> Result<Self, Wrong> {
        let read = |key, reference: &Option<String>| {
            let Some(reference) = reference else { return Ok(None) };
            resolve(reference, environment, true).map_err(|what| (key, what))
        };
        let ca = read("ca", &of.ca)?;
        let identity = match (read("certificate", &of.certificate)?, read("key", &of.key)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (None, Some(_)) => return Err(("certificate", BOTH.into())),
            (Some(_), None) => return Err(("key", BOTH.into())),
        };
        let read = Self { ca, identity };
        if !read.is_default() {
            read.client()?;
        }
        Ok(read)
    }

    /// Whether nothing is set.
    pub fn is_default(&self) -> bool {
        self.ca.is_none() && self.identity.is_none()
    }

    /// The CA certificates that are trusted instead of the system's, PEM.
    pub fn ca(&self) -> Option<&[u8]> {
        self.ca.as_ref().map(Secret::expose)
    }

    /// The certificate chain and its key, PEM.
    pub fn identity(&self) -> Option<(&[u8], &[u8])> {
        self.identity.as_ref().map(|(chain, key)| (chain.expose(), key.expose()))
    }

    /// A client of TLS 1.2 and 1.3, without ALPN. Without a CA it trusts those of the system (or
    /// of `SSL_CERT_FILE` and `SSL_CERT_DIR`), and logs a warning if there are none.
    ///
    /// # Errors
    ///
    /// None in practice: what was read has been checked.
    pub fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        self.client().map_err(|(key, what)| rustls::Error::General(format!("{key}: {what}")))
    }

    fn client(&self) -> Result<ClientConfig, Wrong> {
        let provider = rustls::crypto::ring::default_provider();
        let client = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(|error| ("ca", error.to_string()))?
            .with_root_certificates(self.roots()?);
        let Some((chain, key)) = self.identity() else { return Ok(client.with_no_client_auth()) };
        let chain = certificates(chain).ok_or(("certificate", NO_CERTIFICATE.to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| ("key", "holds no private key in PEM form".to_owned()))?;
        client
            .with_client_auth_cert(chain, key)
            .map_err(|_| ("key", "does not belong to the certificate, or is not usable".into()))
    }

    fn roots(&self) -> Result<RootCertStore, Wrong> {
        let mut roots = RootCertStore::empty();
        let Some(ca) = self.ca() else {
            let (added, _) =
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 {
                tracing::warn!(
                    "no CA certificates found: no server can be verified; install \
                     ca-certificates, or set a ca"
                );
            }
            return Ok(roots);
        };
        let unusable = || ("ca", NO_CERTIFICATE.to_owned());
        for certificate in certificates(ca).ok_or_else(unusable)? {
            roots.add(certificate).map_err(|_| unusable())?;
        }
        Ok(roots)
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        (self.ca(), self.identity()) == (other.ca(), other.identity())
    }
}

impl Eq for ClientTls {}

const BOTH: &str = "is missing: certificate and key must both be set";
const NO_CERTIFICATE: &str = "holds no certificate in PEM form";

/// At least one.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty())
}
