//! Certificate and key of the ingress.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::secrets::{Environment, resolve};
use webhook_verify::Secret;

/// A certificate chain and its key, ready to serve TLS 1.2 and 1.3 with HTTP/2 or HTTP/1.1, and
/// the references that they were read from.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The configuration of the TLS server.
    pub server: Arc<ServerConfig>,
    references: [String; 2],
    pem: [Secret; 2],
}

impl Tls {
    /// Reads both by their references (`env:NAME` or `file:PATH`). The error says which of the two
    /// is wrong and why, and contains no value.
    pub(super) fn read(
        certificate: String,
        key: String,
        environment: &Environment,
    ) -> Result<Self, Wrong> {
        let references = [certificate, key];
        let pem = pem(&references, environment)?;
        let server = Arc::new(server(&pem)?);
        Ok(Self { server, references, pem })
    }

    /// The certificate chain, PEM.
    pub fn certificate(&self) -> &[u8] {
        self.pem[0].expose()
    }

    /// Reads both again. `None` if nothing has changed.
    ///
    /// # Errors
    ///
    /// What is wrong with the new ones. The old ones stay in use.
    pub fn changed(&self, environment: &Environment) -> Result<Option<Self>, String> {
        let read = || {
            let pem = pem(&self.references, environment)?;
            let same = |(new, old): (&Secret, &Secret)| new.expose() == old.expose();
            if pem.iter().zip(&self.pem).all(same) {
                return Ok(None);
            }
            let (server, references) = (Arc::new(server(&pem)?), self.references.clone());
            Ok(Some(Self { server, references, pem }))
        };
        read().map_err(|(key, what): Wrong| format!("ingress.tls.{key}: {what}"))
    }
}

/// The key that is wrong, and why.
type Wrong = (&'static str, String);

fn pem(references: &[String; 2], environment: &Environment) -> Result<[Secret; 2], Wrong> {
    let read = |key, reference: &str| match resolve(reference, environment, true) {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err((key, "is missing".to_owned())),
        Err(what) => Err((key, what)),
    };
    Ok([read("certificate", &references[0])?, read("key", &references[1])?])
}

fn server([certificate, key]: &[Secret; 2]) -> Result<ServerConfig, Wrong> {
    let no_chain = || ("certificate", "holds no certificate in PEM form".to_owned());
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(certificate.expose()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(no_chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose())
        .map_err(|_| ("key", "holds no private key in PEM form".to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ("certificate", error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|_| ("key", "does not belong to the certificate, or is not usable".to_owned()))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}
