//! What to change after a connection that no retry can make.

use std::error::Error;

use rustls::CertificateError::{
    BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
    NotValidYetContext, UnknownIssuer,
};

/// What is wrong and what to change, if an error comes from the configuration or from the server's
/// settings: the host's name, or TLS. `None` for an outage. `section` is the section of the
/// configuration, like "rabbitmq".
pub fn remedy(error: &(dyn Error + 'static), section: &str) -> Option<String> {
    zentra_telemetry::chain(error).find_map(|cause| {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return tls_remedy(tls, section);
        }
        // The resolver's error has no type of its own.
        let is_unknown = cause.to_string().starts_with("failed to lookup address information");
        is_unknown
            .then(|| format!("the host name cannot be resolved: check the host in [{section}]"))
    })
}

fn tls_remedy(error: &rustls::Error, section: &str) -> Option<String> {
    Some(match error {
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => format!(
            "its certificate is from an unknown CA: set {section}.tls.ca to the CA's certificate"
        ),
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            format!(
                "its certificate is for another name: use a name of the certificate as the host \
                 in [{section}]"
            )
        }
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => "its certificate is not valid now: renew it, or correct the clock".into(),
        rustls::Error::InvalidCertificate(other) => {
            format!("its certificate cannot be verified ({other:?})")
        }
        rustls::Error::AlertReceived(alert) => format!(
            "it ends the TLS handshake ({alert:?}): it may want a client certificate that it \
             trusts, in {section}.tls.certificate and {section}.tls.key"
        ),
        rustls::Error::InvalidMessage(_) => format!(
            "it does not speak TLS at this port: check the scheme and the port in [{section}]"
        ),
        _ => return None,
    })
}
