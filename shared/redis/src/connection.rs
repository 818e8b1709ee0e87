//! The connection to one server, to the primary that Sentinel names, or to a cluster.

use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, Cmd, ConnectionInfo, InfoDict, IntoConnectionInfo, Pipeline,
    RedisFuture, RedisResult, TlsCertificates, Value,
};
use webhook_verify::Secret;
use zentra_config::{ClientTls, RedisServers};
use zentra_store::journal::JournalError;

use crate::cluster::Cluster;
use crate::failed;
use crate::replaced::Replaced;
use crate::sentinel::Primary;

/// Time limit to connect, and for an answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);

/// A connection that is made at the first use, and again whenever it is lost.
#[derive(Clone)]
pub(crate) enum Connection {
    Server(Replaced<ConnectionManager>),
    Sentinel(Primary),
    Cluster(Cluster),
}

impl Connection {
    /// # Errors
    ///
    /// An invalid URL. The message contains no part of it.
    pub(crate) fn new(servers: &RedisServers, tls: &ClientTls) -> Result<Self, JournalError> {
        let certificates = certificates(tls);
        let info = |url: &Secret| info(url, certificates.as_ref());
        Ok(match servers {
            RedisServers::One(url) => Self::Server(server(info(url)?)?),
            RedisServers::Sentinel { urls, service, primary } => {
                let sentinels = urls.iter().map(info).collect::<Result<_, _>>()?;
                Self::Sentinel(Primary::new(sentinels, service, info(primary)?))
            }
            RedisServers::Cluster { urls } => {
                let nodes = urls.iter().map(info).collect::<Result<_, _>>()?;
                Self::Cluster(Cluster::of(nodes, certificates).map_err(unreadable)?)
            }
        })
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// The keys that match a pattern, page by page. A key may come twice.
    pub(crate) async fn scan(&self, pattern: String) -> RedisResult<Scan> {
        let nodes = match self {
            Self::Cluster(cluster) => {
                let all = cluster.all_primaries().await?;
                all.into_iter().map(|(address, _)| Some(address)).collect()
            }
            _ => vec![None],
        };
        Ok(Scan { connection: self.clone(), pattern, nodes, cursor: None })
    }

    /// `INFO` of each server that takes writes.
    pub(crate) async fn infos(&self) -> RedisResult<Vec<InfoDict>> {
        let command = redis::cmd("INFO");
        let Self::Cluster(cluster) = self else {
            return Ok(vec![command.query_async(&mut self.clone()).await?]);
        };
        Ok(cluster.primaries().await?.into_iter().map(|(_, info)| info).collect())
    }
}

/// Reads the keys of one node after the other.
pub(crate) struct Scan {
    connection: Connection,
    pattern: String,
    /// The nodes that are left: addresses in a cluster.
    nodes: Vec<Option<String>>,
    /// Where the last of them goes on.
    cursor: Option<u64>,
}

impl Scan {
    /// The next keys. `None` after the last ones.
    pub(crate) async fn next(&mut self) -> RedisResult<Option<Vec<String>>> {
        let Some(node) = self.nodes.last() else { return Ok(None) };
        let mut scan = redis::cmd("SCAN");
        scan.arg(self.cursor.unwrap_or(0)).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(1000);
        let (cursor, keys): (u64, Vec<String>) = match (&mut self.connection, node) {
            (Connection::Cluster(cluster), Some(address)) => cluster.ask(scan, address).await?,
            (connection, _) => scan.query_async(connection).await?,
        };
        self.cursor = Some(cursor);
        if cursor == 0 {
            self.nodes.pop();
            self.cursor = None;
        }
        Ok(Some(keys))
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(server) => server.req_packed_command(command),
            Self::Sentinel(primary) => primary.req_packed_command(command),
            Self::Cluster(cluster) => cluster.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(server) => server.req_packed_commands(pipeline, offset, count),
            Self::Sentinel(primary) => primary.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(server) => server.get_db(),
            Self::Sentinel(primary) => primary.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}

fn unreadable(_: redis::RedisError) -> JournalError {
    JournalError::Unavailable("cannot parse the url".into())
}

/// What a `rediss://` URL does not say. `None`: the system's CAs, and no certificate.
fn certificates(tls: &ClientTls) -> Option<TlsCertificates> {
    let client_tls = tls.identity().map(|(chain, key)| ClientTlsConfig {
        client_cert: chain.to_vec(),
        client_key: key.to_vec(),
    });
    let root_cert = tls.ca().map(<[u8]>::to_vec);
    (!tls.is_default()).then_some(TlsCertificates { client_tls, root_cert })
}

fn info(url: &Secret, tls: Option<&TlsCertificates>) -> Result<ConnectionInfo, JournalError> {
    let url = String::from_utf8_lossy(url.expose()).into_owned();
    let mut info = url.into_connection_info().map_err(unreadable)?;
    if let Some(tls) = tls {
        let client = Client::build_with_tls(info, tls.clone()).map_err(unreadable)?;
        info = client.get_connection_info().clone();
    }
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

/// A primary that was demoted refuses writes for ever, and a connection that was cut silently does
/// not answer for minutes. The address may lead to a new primary by now.
fn server(info: ConnectionInfo) -> Result<Replaced<ConnectionManager>, JournalError> {
    let client = Client::open(info).map_err(unreadable)?;
    let connect = move || {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER))
            .set_number_of_retries(3)
            .set_max_delay(Duration::from_millis(500));
        ConnectionManager::new_lazy_with_config(client.clone(), config)
    };
    Replaced::new(connect, |error| error.code() == Some("READONLY") || error.is_timeout())
        .map_err(failed)
}
