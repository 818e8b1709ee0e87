//! The primary that Sentinel names.
//!
//! The client library asks Sentinel only when it connects. So the sentinels are asked each second,
//! and after each failure: a primary that was demoted, or that is cut off with a minority of the
//! sentinels, is left although its connection stands.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline,
    RedisError, RedisFuture, RedisResult, Value,
};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connection::ANSWER;
use crate::replaced::error_of;

/// How often the sentinels are asked.
const ASK: Duration = Duration::from_secs(1);
/// How soon they are asked again after a failure.
const AGAIN: Duration = Duration::from_millis(100);
/// Time limit for the answer of a sentinel, and of a primary that was just connected.
const SOON: Duration = Duration::from_millis(500);

/// Connections to the primary, one after the other.
#[derive(Clone)]
pub(crate) struct Primary {
    current: watch::Receiver<Option<Connected>>,
    failed: Arc<Notify>,
    db: i64,
    _stop_when_dropped: Arc<DropGuard>,
}

#[derive(Clone)]
struct Connected {
    connection: MultiplexedConnection,
    to: Address,
    /// Cancelled at the first failure.
    failed: CancellationToken,
}

type Address = (String, u16);

impl Primary {
    /// Connects in the background. Of `login` only the way to connect is used: TLS, user, password
    /// and database.
    pub(crate) fn new(
        sentinels: Vec<ConnectionInfo>,
        service: &str,
        login: ConnectionInfo,
    ) -> Self {
        let (publish, current) = watch::channel(None);
        let (failed, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let db = login.redis_settings().db();
        let sentinels = sentinels.into_iter().map(Sentinel::new).collect();
        let mut follower = Follower {
            sentinels,
            service: service.into(),
            login,
            publish,
            failed: failed.clone(),
            epoch: 0,
        };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(follower.follow()).await });
        Self { current, failed, db, _stop_when_dropped: Arc::new(stop.drop_guard()) }
    }

    async fn connected(&mut self) -> RedisResult<Connected> {
        let usable = |known: &Option<Connected>| {
            known.as_ref().is_some_and(|known| !known.failed.is_cancelled())
        };
        let found = timeout(ANSWER, self.current.wait_for(usable)).await;
        let found = found.ok().and_then(Result::ok).and_then(|known| known.clone());
        found.ok_or_else(|| {
            RedisError::from((ErrorKind::Io, "Sentinel names no primary that can be reached"))
        })
    }

    /// Leaves a primary that cannot be reached, or that was demoted.
    fn judge(&self, connected: &Connected, error: &RedisError) {
        let code = error.code();
        if error.is_io_error() || matches!(code, Some("READONLY" | "LOADING" | "MASTERDOWN")) {
            connected.failed.cancel();
            self.failed.notify_one();
        }
    }
}

impl ConnectionLike for Primary {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut connected = self.connected().await?;
            let answer = connected.connection.req_packed_command(command).await;
            let error = error_of(answer.as_ref().map(std::slice::from_ref));
            error.inspect(|error| self.judge(&connected, error));
            answer
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let mut connected = self.connected().await?;
            let answer = connected.connection.req_packed_commands(pipeline, offset, count).await;
            let error = error_of(answer.as_ref().map(Vec::as_slice));
            error.inspect(|error| self.judge(&connected, error));
            answer
        })
    }

    fn get_db(&self) -> i64 {
        self.db
    }
}

struct Follower {
    sentinels: Vec<Sentinel>,
    service: String,
    login: ConnectionInfo,
    publish: watch::Sender<Option<Connected>>,
    failed: Arc<Notify>,
    /// The newest configuration that was heard of.
    epoch: u64,
}

impl Follower {
    async fn follow(&mut self) {
        loop {
            let pause = if self.look().await { ASK } else { AGAIN };
            if timeout(pause, self.failed.notified()).await.is_ok() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Connects to the primary, unless the connection to it stands. Returns whether one stands.
    async fn look(&mut self) -> bool {
        let known = self.publish.borrow().clone().filter(|known| !known.failed.is_cancelled());
        // What no sentinel answers changes nothing.
        let current = known.as_ref().map(|known| &known.to);
        let Some(named) = self.named(current).await else { return known.is_some() };
        if known.is_some_and(|known| known.to == named) {
            return true;
        }
        // Whatever comes next, the old one is not the primary any more.
        self.publish.send_replace(None);
        let connected = timeout(ANSWER, self.connect(&named)).await;
        match connected {
            Ok(Ok(connection)) => {
                let (host, port) = &named;
                tracing::info!(
                    service = self.service,
                    host,
                    port,
                    "connected to the Redis primary"
                );
                let failed = CancellationToken::new();
                self.publish.send_replace(Some(Connected { connection, to: named, failed }));
                true
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot connect to the primary that Sentinel names");
                false
            }
            Err(_) => false,
        }
    }

    /// The primary by the newest configuration that a sentinel knows. A sentinel that was away knows
    /// an older one, unless most of them say the same: then they were reset. During a failover some
    /// name the old primary still, so another one than the current counts first.
    async fn named(&mut self, current: Option<&Address>) -> Option<Address> {
        let service = &self.service;
        let asked = self.sentinels.iter_mut().map(|sentinel| sentinel.ask(service));
        let answers: Vec<Named> = join_all(asked).await.into_iter().flatten().collect();
        let newest = answers.iter().map(|named| named.epoch).max()?;
        if newest < self.epoch && answers.len() * 2 <= self.sentinels.len() {
            return None;
        }
        self.epoch = newest;
        let mut newest = answers.into_iter().filter(|named| named.epoch == self.epoch);
        let first = newest.next()?.address;
        let other = newest.find(|named| Some(&named.address) != current);
        let is_other = Some(&first) != current;
        Some(if is_other { first } else { other.map_or(first, |named| named.address) })
    }

    async fn connect(&self, (host, port): &Address) -> RedisResult<MultiplexedConnection> {
        let addr = match self.login.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.clone(), *port),
        };
        let mut connection = connect(self.login.clone().set_addr(addr), ANSWER).await?;
        // A sentinel may name it before it knows it.
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
        match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
            _ => Err((ErrorKind::Client, "it is not a primary yet").into()),
        }
    }
}

async fn connect(info: ConnectionInfo, answer: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(answer))
        .set_response_timeout(Some(answer));
    Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
}

struct Sentinel {
    info: ConnectionInfo,
    connection: Option<MultiplexedConnection>,
}

struct Named {
    address: Address,
    /// Grows with each failover.
    epoch: u64,
}

impl Sentinel {
    fn new(info: ConnectionInfo) -> Self {
        Self { info, connection: None }
    }

    /// The primary of this service that this sentinel knows, or nothing.
    /// Source: <https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/>.
    async fn ask(&mut self, service: &str) -> Option<Named> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(self.info.clone(), SOON).await.ok()?,
        };
        // The first command names the new primary as soon as it is promoted, the second one only at
        // the end of the failover.
        let mut ask = redis::pipe();
        ask.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        ask.cmd("SENTINEL").arg("MASTER").arg(service);
        let asked = ask.query_async::<(Option<Address>, HashMap<String, String>)>(&mut connection);
        match asked.await {
            Ok((address, fields)) => {
                self.connection = Some(connection);
                Some(Named { address: address?, epoch: fields.get("config-epoch")?.parse().ok()? })
            }
            Err(error) => {
                tracing::debug!(%error, service, "a sentinel does not name the primary");
                None
            }
        }
    }
}
