//! A worker that dies in a window between two of its steps, as by `kill -9`: nothing is unwound or
//! flushed. `DOOM_AT` names the window.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zentra_config::{Live, Origin, Role};
use zentra_core::clock::Timestamp;
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::{Answer, DeadReason};
use zentra_rabbitmq::{Amqp, AmqpConsumer, Settings};
use zentra_redis::RedisJournal;
use zentra_store::control::{DesiredStates, Heartbeat, WorkerControl};
use zentra_store::journal::{Claim, Delivery, First, Journal, JournalError, Settle};
use zentra_store::queue::{Delay, Message, Process, QueueError, Routes, Subscribe};
use zentra_telemetry::shutdown;
use zentra_worker::Worker;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    zentra_telemetry::init_logs("info");
    let origin = Origin {
        path: value("--config").context("no --config")?.into(),
        role: Role::Worker,
        environment: env::vars().collect(),
        set: Vec::new(),
    };
    let live = Live::start(origin, shutdown::hangups()?)?;
    let config = live.config();
    let doom = Doom(env::var("DOOM_AT")?.into());
    let servers = config.redis.servers.as_ref().context("no [redis]")?;
    let (tls, retention) = (&config.redis.tls, config.store.retention);
    let inner = RedisJournal::new(servers, tls, &config.namespace, retention)?;
    let journal = DoomedJournal { inner, doom: doom.clone() };
    let queue = DoomedQueue { inner: Amqp::processor(Settings::from(&*config)), doom };
    let admin = TcpListener::bind("127.0.0.1:0").await?;
    Worker::new().serve(live, queue, journal, admin, CancellationToken::new()).await
}

#[derive(Clone)]
struct Doom(Arc<str>);

impl Doom {
    fn at(&self, window: &str) {
        if &*self.0 == window {
            std::process::abort();
        }
    }
}

#[derive(Clone)]
struct DoomedJournal {
    inner: RedisJournal,
    doom: Doom,
}

impl Journal for DoomedJournal {
    const SYSTEM: &'static str = RedisJournal::SYSTEM;

    async fn claim(&self, claim: &Claim<'_>) -> Result<Answer, JournalError> {
        let answer = self.inner.claim(claim).await?;
        if matches!(answer, Answer::Claimed { .. }) {
            self.doom.at("claimed");
        }
        Ok(answer)
    }

    async fn known(&self, key: &DeliveryKey) -> Result<Option<Delivery>, JournalError> {
        self.inner.known(key).await
    }

    async fn first(
        &self,
        of: First<'_>,
        value: &str,
        retention: Duration,
    ) -> Result<String, JournalError> {
        self.inner.first(of, value, retention).await
    }

    async fn renew(
        &self,
        key: &DeliveryKey,
        fence: u64,
        lease: Duration,
    ) -> Result<Answer, JournalError> {
        // Only an attempt that still runs asks for it.
        self.doom.at("attempting");
        self.inner.renew(key, fence, lease).await
    }

    async fn settle(&self, settle: &Settle<'_>) -> Result<Answer, JournalError> {
        let answer = self.inner.settle(settle).await?;
        self.doom.at("settled");
        Ok(answer)
    }

    async fn oldest_dead(&self, destination: &str) -> Result<Option<Timestamp>, JournalError> {
        self.inner.oldest_dead(destination).await
    }

    async fn tidy(&self, retention: Duration) -> Result<(), JournalError> {
        self.inner.tidy(retention).await
    }

    async fn ready(&self) -> Result<(), JournalError> {
        self.inner.ready().await
    }
}

impl WorkerControl for DoomedJournal {
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<DesiredStates, JournalError> {
        self.inner.heartbeat(heartbeat).await
    }

    async fn leave(&self, worker: &str) -> Result<(), JournalError> {
        self.inner.leave(worker).await
    }
}

#[derive(Clone)]
struct DoomedQueue {
    inner: Amqp,
    doom: Doom,
}

impl Subscribe for DoomedQueue {
    const SYSTEM: &'static str = Amqp::SYSTEM;

    async fn subscribe(&self, routes: Routes) {
        self.inner.subscribe(routes).await;
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        self.inner.register(registry)
    }
}

impl Process for DoomedQueue {
    type Consumer = AmqpConsumer;

    fn consume(&self, destination: &str, prefetch: u16) -> AmqpConsumer {
        self.inner.consume(destination, prefetch)
    }

    async fn retry(
        &self,
        destination: &str,
        message: &Message,
        delay: Duration,
    ) -> Result<(), QueueError> {
        self.inner.retry(destination, message, delay).await?;
        self.doom.at("retried");
        Ok(())
    }

    fn delay(&self, wanted: Delay) -> Duration {
        self.inner.delay(wanted)
    }

    async fn dead(
        &self,
        destination: &str,
        message: &Message,
        reason: DeadReason,
        error: Option<&str>,
    ) -> Result<(), QueueError> {
        self.inner.dead(destination, message, reason, error).await?;
        self.doom.at("buried");
        Ok(())
    }

    fn ready(&self) -> bool {
        Process::ready(&self.inner)
    }
}
