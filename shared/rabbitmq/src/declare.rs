//! Declares the [topology](super::topology). Declaring is idempotent.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::protocol::AMQPErrorKind;
use lapin::protocol::AMQPSoftError::{self, ACCESSREFUSED, PRECONDITIONFAILED};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::topology::{
    Binding, LEADER_LOCATOR, Names, Part, archive_exchange, archive_parts, insert, parts, record,
    shards_exchange, short, text, to_work,
};
use super::{Routes, Settings, Subscriber};

const REPLY_SUCCESS: u16 = 200;

/// Declares the queue that stores which bindings were applied.
pub(super) async fn declare_record(connection: &Connection, names: &Names) -> lapin::Result<()> {
    declare_parts(connection, &record(names)).await
}

/// Declares exchanges and queues.
pub(super) async fn declare(
    connection: &Connection,
    names: &Names,
    settings: &Settings,
    routes: &Routes,
) -> lapin::Result<()> {
    declare_parts(connection, &parts(names, settings, routes)).await
}

/// Declares the archive.
pub(super) async fn declare_archive(
    connection: &Connection,
    names: &Names,
    routes: &Routes,
) -> lapin::Result<()> {
    declare_parts(connection, &archive_parts(names, routes)).await
}

/// Unbinds the archive from the ingress: an archive that the broker cannot write to would keep
/// every event from being confirmed.
pub(super) async fn detach_archive(connection: &Connection, names: &Names) -> lapin::Result<()> {
    let mut declare = Declare::new(connection).await?;
    declare.part(&archive_exchange(names)).await?;
    let binding = Binding::to_exchange(names.archived(), names.ingress_exchange(), String::new());
    unbind(&declare.channel, &binding).await?;
    declare.end().await
}

/// Unbinds what leads to a destination's work queues if there were this many.
pub(super) async fn unbind_shards(
    connection: &Connection,
    names: &Names,
    subscriber: &Subscriber,
    count: u16,
) -> lapin::Result<()> {
    let mut declare = Declare::new(connection).await?;
    let former = Subscriber { shards: count, ..subscriber.clone() };
    if count > 1 {
        declare.part(&shards_exchange(names, &former)).await?;
    }
    let name = &subscriber.destination;
    unbind(&declare.channel, &to_work(names, &former, names.retry(), name)).await?;
    for pattern in &subscriber.patterns {
        unbind(&declare.channel, &to_work(names, &former, names.events(), pattern)).await?;
    }
    declare.end().await
}

pub(super) async fn unbind(channel: &Channel, binding: &Binding) -> lapin::Result<()> {
    let Binding { queue, exchange, pattern, to_exchange } = binding;
    let (target, exchange, pattern) = (short(queue)?, short(exchange)?, short(pattern)?);
    let none = FieldTable::default();
    match to_exchange {
        true => {
            let options = ExchangeUnbindOptions::default();
            channel.exchange_unbind(target, exchange, pattern, options, none).await
        }
        false => channel.queue_unbind(target, exchange, pattern, none).await,
    }
}

async fn declare_parts(connection: &Connection, parts: &[Part]) -> lapin::Result<()> {
    let mut declare = Declare::new(connection).await?;
    for part in parts {
        declare.part(part).await?;
    }
    declare.end().await
}

struct Declare<'a> {
    connection: &'a Connection,
    channel: Channel,
    /// Whether queues have [`LEADER_LOCATOR`]: an older version declared them without it.
    located: bool,
}

impl<'a> Declare<'a> {
    async fn new(connection: &'a Connection) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        Ok(Self { connection, channel, located: true })
    }

    async fn end(self) -> lapin::Result<()> {
        self.channel.close(REPLY_SUCCESS, short("")?).await
    }

    async fn part(&mut self, part: &Part) -> lapin::Result<()> {
        match part {
            Part::Exchange { name, kind, alternate } => {
                self.exchange(name, kind.clone(), alternate.as_deref()).await
            }
            Part::Queue { name, arguments, is_recent } => {
                self.located |= is_recent;
                self.queue(name, arguments).await
            }
            Part::Binding { binding, arguments } => self.bind(binding, arguments.clone()).await,
        }
    }

    async fn exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        alternate: Option<&str>,
    ) -> lapin::Result<()> {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        if let Some(alternate) = alternate {
            insert(&mut arguments, "alternate-exchange", text(alternate));
        }
        self.channel.exchange_declare(short(name)?, kind, options, arguments).await
    }

    /// A queue that exists without a leader locator stays so: its arguments cannot change.
    async fn queue(&mut self, name: &str, arguments: &FieldTable) -> lapin::Result<()> {
        match self.queue_as(name, arguments.clone()).await {
            Err(error) if is_about(&error, LEADER_LOCATOR) => {
                // The refusal closed the channel.
                self.channel = self.connection.create_channel().await?;
                self.located = !self.located;
                self.queue_as(name, arguments.clone()).await
            }
            declared => declared,
        }
    }

    async fn queue_as(&self, name: &str, mut arguments: FieldTable) -> lapin::Result<()> {
        if self.located {
            insert(&mut arguments, LEADER_LOCATOR, text("balanced"));
        }
        let options = QueueDeclareOptions::durable();
        self.channel.queue_declare(short(name)?, options, arguments).await.map(drop)
    }

    async fn bind(&self, binding: &Binding, arguments: FieldTable) -> lapin::Result<()> {
        let Binding { queue, exchange, pattern, to_exchange } = binding;
        let (to, from, key) = (short(queue)?, short(exchange)?, short(pattern)?);
        match to_exchange {
            true => {
                let options = ExchangeBindOptions::default();
                self.channel.exchange_bind(to, from, key, options, arguments).await
            }
            false => {
                let options = QueueBindOptions::default();
                self.channel.queue_bind(to, from, key, options, arguments).await
            }
        }
    }
}

/// How an existing queue or exchange differs from a part.
pub(super) enum Difference {
    None,
    /// This user may not configure it.
    Unknown,
    /// In its arguments, as the broker says it.
    Arguments(String),
}

/// Compares an existing queue or exchange with a part. Declaring what exists changes nothing: the broker only
/// compares. If somebody deletes it between the question and this, it is declared again, as a start does.
pub(super) async fn compare(connection: &Connection, part: &Part) -> lapin::Result<Difference> {
    let mut declare = Declare::new(connection).await?;
    match declare.part(part).await {
        Ok(()) => declare.end().await.map(|()| Difference::None),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(reply) if *reply.kind() == soft(ACCESSREFUSED) => {
                Ok(Difference::Unknown)
            }
            ErrorKind::ProtocolError(reply) if *reply.kind() == soft(PRECONDITIONFAILED) => {
                Ok(Difference::Arguments(reply.get_message().to_string()))
            }
            _ => Err(error),
        },
    }
}

fn soft(error: AMQPSoftError) -> AMQPErrorKind {
    AMQPErrorKind::Soft(error)
}

/// Whether the broker refused other arguments than a queue has, because of this one.
fn is_about(error: &lapin::Error, argument: &str) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(reply)
        if *reply.kind() == soft(PRECONDITIONFAILED) && reply.get_message().to_string().contains(argument))
}
