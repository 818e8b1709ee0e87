//! A Redis Cluster.
//!
//! The client library learns of a failover from a node's answer, or from a connection that is
//! refused. A primary that is frozen or cut off gives neither, so commands would go to it for ever.
//! After a time-out the connection is replaced by a new one, which asks the other nodes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::cluster::{ClusterClient, ClusterClientBuilder, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::io::tcp::TcpSettings;
use redis::{
    Cmd, ConnectionInfo, FromRedisValue, InfoDict, Pipeline, RedisError, RedisFuture, RedisResult,
    Value,
};

use crate::connection::ANSWER;

/// Minimum lifetime of a connection: other commands need it.
const LEAST: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Cluster {
    client: ClusterClient,
    current: Arc<Mutex<Current>>,
}

#[derive(Clone)]
struct Current {
    connection: ClusterConnection,
    made_at: Instant,
}

impl Cluster {
    /// Connects in the background.
    pub(crate) fn new(nodes: Vec<ConnectionInfo>) -> RedisResult<Self> {
        let client = ClusterClientBuilder::new(nodes)
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .retries(3)
            .min_retry_wait(50)
            .max_retry_wait(500)
            .overall_response_timeout(Some(ANSWER))
            .build()?;
        let current = Arc::new(Mutex::new(Current::new(&client)));
        Ok(Self { client, current })
    }

    /// `INFO` of each primary.
    pub(crate) async fn infos(&self) -> RedisResult<Vec<InfoDict>> {
        let primaries = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let mut used = self.current();
        let found = used.connection.route_command(redis::cmd("INFO"), primaries).await;
        let found = found.inspect_err(|error| self.judge(&used, error))?;
        let found: Vec<(String, InfoDict)> = FromRedisValue::from_redis_value(found)?;
        Ok(found.into_iter().map(|(_, info)| info).collect())
    }

    fn current(&self) -> Current {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn judge(&self, used: &Current, error: &RedisError) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = current.made_at == used.made_at && used.made_at.elapsed() >= LEAST;
        if error.is_io_error() && is_current {
            tracing::debug!(%error, "connecting anew to Redis Cluster");
            *current = Current::new(&self.client);
        }
    }
}

impl Current {
    fn new(client: &ClusterClient) -> Self {
        let config =
            ClusterConfig::new().set_connection_timeout(ANSWER / 2).set_response_timeout(ANSWER);
        let connection = client.get_pending_async_connection_with_config(config);
        Self { connection, made_at: Instant::now() }
    }
}

impl ConnectionLike for Cluster {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut used = self.current();
            let answer = used.connection.req_packed_command(command).await;
            answer.inspect_err(|error| self.judge(&used, error))
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let mut used = self.current();
            let answer = used.connection.req_packed_commands(pipeline, offset, count).await;
            answer.inspect_err(|error| self.judge(&used, error))
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}
