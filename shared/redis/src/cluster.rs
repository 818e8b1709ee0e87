//! A Redis Cluster.
//!
//! The client library learns of a failover from a node's answer, or from a connection that is
//! refused. A primary that is frozen or cut off gives neither, so commands would go to it for ever.
//! After a time-out the connection is replaced by a new one, which asks the other nodes.

use redis::cluster::{ClusterClientBuilder, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo};
use redis::io::tcp::TcpSettings;
use redis::{
    Cmd, ConnectionInfo, ErrorKind, FromRedisValue, InfoDict, RedisError, RedisResult,
    TlsCertificates,
};

use crate::connection::ANSWER;
use crate::replaced::Replaced;

pub(crate) type Cluster = Replaced<ClusterConnection>;

impl Cluster {
    /// Connects in the background.
    pub(crate) fn of(
        nodes: Vec<ConnectionInfo>,
        certificates: Option<TlsCertificates>,
    ) -> RedisResult<Self> {
        let builder = ClusterClientBuilder::new(nodes);
        let builder = match certificates {
            Some(certificates) => builder.certs(certificates),
            None => builder,
        };
        let client = builder
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .retries(3)
            .min_retry_wait(50)
            .max_retry_wait(500)
            .overall_response_timeout(Some(ANSWER))
            .build()?;
        let connect = move || {
            let config = ClusterConfig::new()
                .set_connection_timeout(ANSWER / 2)
                .set_response_timeout(ANSWER);
            Ok(client.get_pending_async_connection_with_config(config))
        };
        Self::new(connect, RedisError::is_io_error)
    }

    /// All primaries of the cluster.
    ///
    /// # Errors
    ///
    /// A primary that cannot be reached, or slots without one.
    pub(crate) async fn all_primaries(&self) -> RedisResult<Vec<(String, InfoDict)>> {
        let mut ask = redis::cmd("CLUSTER");
        let state: InfoDict = ask.arg("INFO").query_async(&mut self.clone()).await?;
        let found = self.primaries().await?;
        let works = state.get::<String>("cluster_state").is_some_and(|state| state == "ok");
        if !works || state.get::<usize>("cluster_size") != Some(found.len()) {
            return Err((ErrorKind::Client, "a primary of the cluster cannot be reached").into());
        }
        Ok(found)
    }

    /// The address of each primary, and its `INFO`.
    pub(crate) async fn primaries(&self) -> RedisResult<Vec<(String, InfoDict)>> {
        let primaries = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        self.route(redis::cmd("INFO"), primaries).await
    }

    /// The answer of one node.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: Cmd, node: &str) -> RedisResult<T> {
        let unknown = || RedisError::from((ErrorKind::Client, "a node has no address"));
        let (host, port) = node.rsplit_once(':').ok_or_else(unknown)?;
        let (host, port) = (host.into(), port.parse().map_err(|_| unknown())?);
        let node = SingleNodeRoutingInfo::ByAddress { host, port };
        self.route(command, RoutingInfo::SingleNode(node)).await
    }

    async fn route<T: FromRedisValue>(&self, command: Cmd, to: RoutingInfo) -> RedisResult<T> {
        let mut used = self.current();
        let found = used.connection.route_command(command, to).await;
        let found = found.inspect_err(|error| self.judge(&used, error))?;
        Ok(FromRedisValue::from_redis_value(found)?)
    }
}
