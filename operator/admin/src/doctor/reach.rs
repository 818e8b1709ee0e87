//! Destinations and certificates: a connection is made as for a delivery, and nothing is sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use zentra_config::{ClientTls, Config, Destination, remedy};
use zentra_core::address::public_only;
use zentra_core::clock;

use super::{Finding, LIMIT, Level};

/// From this number of days before its end, a certificate gets a warning.
const RENEW_DAYS: i64 = 21;
/// From this number of days before its end, a certificate is a problem.
const URGENT_DAYS: i64 = 3;
const DAY_SECS: i64 = 24 * 3600;

/// A destination's server.
pub(super) struct Target<'a> {
    name: String,
    section: String,
    host: String,
    port: u16,
    tls: Option<&'a ClientTls>,
    public_only: bool,
}

impl<'a> Target<'a> {
    /// `None` for a destination that is a handler.
    pub(super) fn of(destination: &'a Destination) -> Option<Self> {
        let url = destination.url.as_ref()?;
        let is_tls = url.scheme_str() == Some("https");
        let name = &destination.name;
        Some(Self {
            name: format!("destination {name}"),
            section: format!("destination.{name}"),
            host: url.host()?.trim_matches(['[', ']']).to_owned(),
            port: url.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            tls: is_tls.then_some(&destination.tls),
            public_only: !destination.allow_private,
        })
    }

    /// Connects, with the TLS handshake if the URL asks for it.
    pub(super) async fn examine(self) -> Finding {
        let Self { name, section, host, port, .. } = &self;
        let at = format!("{host}:{port}");
        match timeout(LIMIT, self.connect()).await {
            Err(_) => {
                Finding::problem(name, format!("{at}: no answer within {} s", LIMIT.as_secs()))
                    .remedy("Check the address and the firewalls between")
            }
            Ok(Err(error)) => match (remedy(&error, section), error.kind()) {
                (Some(remedy), _) => Finding::problem(name, format!("{at}: {remedy}")),
                (None, io::ErrorKind::ConnectionRefused) => {
                    Finding::problem(name, format!("{at}: the connection is refused"))
                        .remedy(format!("Start the application, or correct {section}.url"))
                }
                (None, _) => Finding::problem(name, format!("{at}: {error}")),
            },
            Ok(Ok(None)) => Finding::ok(name, format!("{at} accepts connections")),
            Ok(Ok(Some(certificate))) => {
                certificate_left(name, &format!("{at} accepts TLS connections"), &certificate)
            }
        }
    }

    /// The server's certificate in DER form, if it is a TLS server.
    async fn connect(&self) -> io::Result<Option<Vec<u8>>> {
        let tcp = TcpStream::connect(&*self.addresses().await?).await?;
        match self.tls {
            Some(tls) => handshake(&self.host, tcp, tls).await.map(Some),
            None => Ok(None),
        }
    }

    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let found = lookup_host((&*self.host, self.port)).await?;
        // An IP address in the configuration is intended.
        match self.public_only && self.host.parse::<IpAddr>().is_err() {
            true => public_only(found).map_err(io::Error::other),
            false => Ok(found.collect()),
        }
    }
}

/// Shakes hands as a client. Returns the server's certificate in DER form.
pub(super) async fn handshake(host: &str, tcp: TcpStream, tls: &ClientTls) -> io::Result<Vec<u8>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let client = Arc::new(tls.client_config().map_err(io::Error::other)?);
    let stream = TlsConnector::from(client).connect(name, tcp).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default())
}

/// The certificates that Zentra itself shows: the ingress's, and those of a client.
pub(super) fn own_certificates(config: &Config) -> Vec<Finding> {
    let ingress =
        config.ingress.tls.iter().map(|tls| ("ingress.tls".to_owned(), tls.certificate()));
    let client =
        |name: String, tls: &ClientTls| tls.identity().map(|(chain, _)| (name, chain.to_vec()));
    let clients = [
        client("rabbitmq.tls".into(), &config.rabbitmq.tls),
        client("redis.tls".into(), &config.redis.tls),
    ];
    let of_destinations = config
        .destinations
        .iter()
        .filter_map(|one| client(format!("destination.{}.tls", one.name), &one.tls));
    let ingress = ingress.map(|(name, pem)| (name, pem.to_vec()));
    let all = ingress.chain(clients.into_iter().flatten()).chain(of_destinations);
    all.map(|(name, pem)| {
        let chain = Certificate::load_pem_chain(&pem).unwrap_or_default();
        match chain.first() {
            Some(leaf) => judge_days(&name, "the certificate is readable", days_left(leaf)),
            None => Finding::problem(name, "the certificate cannot be read"),
        }
    })
    .collect()
}

/// How long a certificate in DER form is still valid.
pub(super) fn certificate_left(about: &str, state: &str, der: &[u8]) -> Finding {
    match Certificate::from_der(der) {
        Ok(certificate) => judge_days(about, state, days_left(&certificate)),
        Err(_) => Finding::warning(about, format!("{state}; its certificate cannot be read")),
    }
}

fn days_left(certificate: &Certificate) -> i64 {
    let end = certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
    let (end, now) = (i64::try_from(end), i64::try_from(clock::now().secs()));
    (end.unwrap_or(i64::MAX) - now.unwrap_or(i64::MAX)).div_euclid(DAY_SECS)
}

fn judge_days(about: &str, state: &str, days: i64) -> Finding {
    let (level, text) = match days {
        ..0 => (Level::Problem, format!("{state}; the certificate has expired")),
        0..URGENT_DAYS => (Level::Problem, format!("{state}; the certificate ends in {days} days")),
        URGENT_DAYS..RENEW_DAYS => {
            (Level::Warning, format!("{state}; the certificate ends in {days} days"))
        }
        _ => {
            return Finding::ok(
                about,
                format!("{state}; the certificate is valid for {days} days"),
            );
        }
    };
    Finding::new(level, about, text).remedy("Renew the certificate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewer_days_are_left_the_more_urgent_it_is() {
        for (days, level) in [
            (-1, Level::Problem),
            (0, Level::Problem),
            (2, Level::Problem),
            (3, Level::Warning),
            (20, Level::Warning),
            (21, Level::Ok),
        ] {
            assert_eq!(judge_days("it", "it is", days).level, level, "{days}");
        }
    }
}
