//! A connection that is replaced after errors that it would not recover from by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value};

/// Minimum lifetime of a connection: other commands need it.
const LEAST: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Replaced<C> {
    make: Arc<dyn Fn() -> RedisResult<C> + Send + Sync>,
    current: Arc<Mutex<Made<C>>>,
    is_fatal: fn(&RedisError) -> bool,
}

#[derive(Clone)]
pub(crate) struct Made<C> {
    pub(crate) connection: C,
    at: Instant,
}

impl<C: Clone> Replaced<C> {
    /// `make` connects in the background. `is_fatal` says after which errors it is called again.
    pub(crate) fn new(
        make: impl Fn() -> RedisResult<C> + Send + Sync + 'static,
        is_fatal: fn(&RedisError) -> bool,
    ) -> RedisResult<Self> {
        let first = Made { connection: make()?, at: Instant::now() };
        Ok(Self { make: Arc::new(make), current: Arc::new(Mutex::new(first)), is_fatal })
    }

    pub(crate) fn current(&self) -> Made<C> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces a connection that an error makes useless.
    pub(crate) fn judge(&self, used: &Made<C>, error: &RedisError) {
        if !(self.is_fatal)(error) {
            return;
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.at != used.at || used.at.elapsed() < LEAST {
            return;
        }
        if let Ok(connection) = (self.make)() {
            tracing::debug!(%error, "connecting to Redis anew");
            *current = Made { connection, at: Instant::now() };
        }
    }
}

/// The error in an answer: a server's error is a value here.
pub(crate) fn error_of(answer: Result<&[Value], &RedisError>) -> Option<RedisError> {
    let values = match answer {
        Err(error) => return Some(error.clone()),
        Ok(values) => values,
    };
    values.iter().find_map(|value| match value {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    })
}

impl<C: ConnectionLike + Clone + Send> ConnectionLike for Replaced<C> {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut used = self.current();
            let answer = used.connection.req_packed_command(command).await;
            let error = error_of(answer.as_ref().map(std::slice::from_ref));
            error.inspect(|error| self.judge(&used, error));
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
            let mut used = self.current();
            let answer = used.connection.req_packed_commands(pipeline, offset, count).await;
            let error = error_of(answer.as_ref().map(Vec::as_slice));
            error.inspect(|error| self.judge(&used, error));
            answer
        })
    }

    fn get_db(&self) -> i64 {
        self.current().connection.get_db()
    }
}
