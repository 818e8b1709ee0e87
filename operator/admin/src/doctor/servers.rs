//! RabbitMQ, Redis, and the health of running programs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::{StatusCode, Uri};
use tokio::net::TcpStream;
use tokio::time::timeout;
use webhook_verify::Secret;
use zentra_config::{ClientTls, Config, RedisServers};
use zentra_core::clock;
use zentra_rabbitmq::{Greeting, greeting};
use zentra_redis::RedisJournal;
use zentra_store::control::OperatorControl;

use super::http_get::HttpGet;
use super::reach::{certificate_left, handshake};
use super::{Finding, LIMIT, OtherClock};
use crate::error::AdminError;

/// The oldest RabbitMQ that has all that is used.
const OLDEST: (u32, u32) = (3, 10);
/// The oldest major version that its makers still maintain.
const MAINTAINED: u32 = 4;
/// Time limit of a health endpoint on this machine.
const HEALTH: Duration = Duration::from_secs(2);

/// Each node of RabbitMQ.
pub(super) async fn rabbitmq(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, url) in config.rabbitmq.urls.iter().enumerate() {
        let about = match authority(url) {
            Some(authority) => format!("rabbitmq {authority}"),
            None => format!("rabbitmq.urls[{at}]"),
        };
        match greeting(url, &config.rabbitmq.tls, LIMIT).await {
            Ok(greeting) => found.extend(judge(&about, &greeting)),
            Err(error) => {
                found.push(Finding::failed(about, &AdminError::from(error).text()));
            }
        }
    }
    found
}

fn judge(
    about: &str,
    Greeting { product, version, cluster, certificate, .. }: &Greeting,
) -> Vec<Finding> {
    let state = format!("{product} {version}, cluster {cluster}");
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let version = match () {
        () if product != "RabbitMQ" => {
            Finding::warning(about, format!("{state}: it is not RabbitMQ, and is not tested"))
        }
        () if (major, minor) < OLDEST => {
            Finding::problem(about, format!("{state}: 3.10 or later is needed"))
                .remedy("Upgrade RabbitMQ")
        }
        () if major < MAINTAINED => {
            Finding::warning(about, format!("{state}: its makers no longer maintain this version"))
                .remedy("Upgrade RabbitMQ to 4")
        }
        () => Finding::ok(about, state),
    };
    let tls = certificate.iter().map(|der| certificate_left(about, "TLS", der));
    [version].into_iter().chain(tls).collect()
}

/// Redis: settings, clock, certificates, workers.
pub(super) async fn redis(config: &Config, clocks: &mut Vec<OtherClock>) -> Vec<Finding> {
    let Some(servers) = &config.redis.servers else {
        return vec![Finding::skipped("redis", "not configured")];
    };
    let about = match servers {
        RedisServers::One(url) => {
            format!("redis {}", authority(url).unwrap_or_else(|| "redis.url".into()))
        }
        RedisServers::Sentinel { service, .. } => format!("redis primary {service}"),
        RedisServers::Cluster { .. } => "redis cluster".into(),
    };
    let failed = |error: AdminError| vec![Finding::failed(&about, &error.text())];
    let (tls, retention) = (&config.redis.tls, config.store.retention);
    let journal = match RedisJournal::new(servers, tls, &config.namespace, retention) {
        Ok(journal) => journal,
        Err(error) => return failed(error.into()),
    };
    let mut found = match journal.servers().await {
        Ok(servers) => judge_redis(&about, &servers, clocks),
        Err(error) => return failed(error.into()),
    };
    for url in servers.urls() {
        found.extend(redis_certificate(url, tls).await);
    }
    found.push(match journal.workers().await {
        Ok(workers) if workers.items.is_empty() && workers.newer.is_empty() => {
            Finding::warning("workers", "none has sent a heartbeat, so nothing is delivered")
                .remedy("Start zentra-worker")
        }
        Ok(workers) => {
            Finding::ok("workers", format!("{} running", workers.items.len() + workers.newer.len()))
        }
        Err(error) => Finding::failed("workers", &AdminError::from(error).text()),
    });
    found
}

fn judge_redis(
    about: &str,
    servers: &[zentra_redis::Server],
    clocks: &mut Vec<OtherClock>,
) -> Vec<Finding> {
    let ours = clock::now();
    let mut found = Vec::new();
    for server in servers {
        found.push(match &server.not_writable {
            Some(why) => Finding::problem(about, format!("{}: {why}", server.version)),
            None => Finding::ok(about, format!("{}, accepts writes", server.version)),
        });
        let weak = |weakness: &&str| Finding::warning(about, *weakness);
        found.extend(server.weaknesses.iter().map(weak));
    }
    if let Some(theirs) = servers.first().and_then(|server| server.clock) {
        clocks.push(OtherClock { of: "Redis".into(), theirs, ours });
    }
    found
}

async fn redis_certificate(url: &Secret, tls: &ClientTls) -> Option<Finding> {
    let uri = parsed(url).filter(|uri| uri.scheme_str() == Some("rediss"))?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(6379);
    let connect = async {
        let tcp = TcpStream::connect((host, port)).await.ok()?;
        handshake(host, tcp, tls).await.ok()
    };
    let der = timeout(LIMIT, connect).await.ok()??;
    Some(certificate_left(&format!("redis {host}:{port}"), "TLS", &der))
}

/// Whether a program on this machine says that it is ready.
pub(super) async fn ready(http: &HttpGet, name: &str, address: SocketAddr) -> Finding {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(host, address.port());
    let answer = http.get(&format!("http://{address}/readyz"), HEALTH).await;
    match answer {
        Ok(answer) if answer.status == StatusCode::OK => {
            Finding::ok(name, format!("ready at {address}"))
        }
        Ok(answer) => {
            let said = String::from_utf8_lossy(&answer.body);
            let said = said.lines().next().unwrap_or_default();
            Finding::problem(name, format!("not ready at {address}: {} {said}", answer.status))
                .remedy("Read its log")
        }
        Err(_) => Finding::skipped(
            name,
            format!("does not run here, or as zentra dev (nothing at {address})"),
        ),
    }
}

/// Host and port of a URL, without user and password.
fn authority(url: &Secret) -> Option<String> {
    let uri = parsed(url)?;
    let host = uri.host()?;
    Some(uri.port_u16().map_or_else(|| host.into(), |port| format!("{host}:{port}")))
}

fn parsed(url: &Secret) -> Option<Uri> {
    std::str::from_utf8(url.expose()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_version_is_judged_by_its_numbers() {
        for (version, level) in [
            ("3.9.29", Level::Problem),
            ("3.10.8", Level::Warning),
            ("3.13.7", Level::Warning),
            ("4.0.5", Level::Ok),
            ("4.3.6+1", Level::Ok),
            ("10.0", Level::Ok),
            ("", Level::Problem),
        ] {
            let greeting = Greeting {
                product: "RabbitMQ".into(),
                version: version.into(),
                ..Greeting::default()
            };
            assert_eq!(judge("it", &greeting)[0].level, level, "{version}");
        }
    }

    #[test]
    fn the_authority_has_neither_user_nor_password() {
        for (url, shown) in [
            ("amqp://u:p@h:5672/%2f", "h:5672"),
            ("rediss://:p@h/0", "h"),
            ("amqp://u:p@[::1]:5672", "[::1]:5672"),
        ] {
            assert_eq!(authority(&Secret::new(url.as_bytes())).unwrap(), shown);
        }
    }
}
