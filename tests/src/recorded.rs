//! What a version of Zentra has stored at RabbitMQ and Redis, in a form that does not depend on the servers: so that later
//! versions can be tested with it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};

use crate::eventually;
use crate::services::Rabbit;

/// How long restored keys are kept that were not kept for ever.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What was stored under one namespace.
#[derive(Serialize, Deserialize)]
pub struct Recorded {
    /// Messages by queue, the oldest first.
    pub queues: BTreeMap<String, Vec<StoredMessage>>,
    /// Redis's values by key.
    pub keys: BTreeMap<String, StoredValue>,
}

/// A message at RabbitMQ.
#[derive(Serialize, Deserialize)]
pub struct StoredMessage {
    id: Option<String>,
    headers: BTreeMap<String, Header>,
    body: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Header {
    Text(Bytes),
    Number(i64),
}

/// A value at Redis, and whether it expires.
#[derive(Serialize, Deserialize)]
pub struct StoredValue {
    expires: bool,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    String(Bytes),
    Hash(Vec<(Bytes, Bytes)>),
    Set(Vec<Bytes>),
    Sorted(Vec<(Bytes, f64)>),
    Stream(Vec<(String, Vec<(Bytes, Bytes)>)>),
}

/// Text as it is, and other bytes in Base64.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
struct Bytes(Vec<u8>);

/// How long a broker takes to notice that a program was killed.
const RETURNED: Duration = Duration::from_secs(30);

const BASE64: &str = "base64:";

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        let binary = text.strip_prefix(BASE64).and_then(|rest| STANDARD.decode(rest).ok());
        Self(binary.unwrap_or_else(|| text.into_bytes()))
    }
}

impl From<Bytes> for String {
    fn from(Bytes(bytes): Bytes) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) if !text.starts_with(BASE64) && !text.contains(char::is_control) => text,
            Ok(text) => format!("{BASE64}{}", STANDARD.encode(text)),
            Err(error) => format!("{BASE64}{}", STANDARD.encode(error.as_bytes())),
        }
    }
}

impl Recorded {
    /// Reads everything of a namespace. No program may run.
    ///
    /// # Errors
    /// Those of the servers, and values of a kind that Zentra does not use.
    pub async fn read(rabbit: &Rabbit, redis: &str, namespace: &str) -> anyhow::Result<Self> {
        let connection =
            Connection::connect(&rabbit.url(), ConnectionProperties::default()).await?;
        let listed = rabbit.control(&[
            "list_queues",
            "-q",
            "--no-table-headers",
            "name",
            "messages",
            "type",
        ]);
        // What a killed program held returns.
        eventually("all messages are in their queues", RETURNED, async || {
            let held = rabbit.control(&[
                "list_queues",
                "-q",
                "--no-table-headers",
                "messages_unacknowledged",
            ]);
            held.lines().all(|held| held.trim() == "0").then_some(())
        })
        .await;
        let mut queues = BTreeMap::new();
        for line in listed.lines() {
            let [name, count, kind] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
            if !name.starts_with(&format!("{namespace}.")) || name.ends_with(".probe") {
                continue;
            }
            let channel = connection.create_channel().await?;
            let messages = match kind.contains("stream") {
                true => streamed(&channel, name, count.parse()?).await?,
                false => queued(&channel, name).await?,
            };
            // Its messages return to the queue.
            channel.close(200, ShortString::default()).await?;
            if !messages.is_empty() {
                queues.insert(name.to_owned(), messages);
            }
        }
        connection.close(200, ShortString::default()).await?;
        Ok(Self { queues, keys: keys(redis, namespace).await? })
    }

    /// Stores the values at Redis.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn restore_keys(&self, redis: &str) -> anyhow::Result<()> {
        let mut redis = connected(redis).await?;
        for (key, StoredValue { expires, kind }) in &self.keys {
            let mut pipe = redis::pipe();
            match kind {
                Kind::String(value) => drop(pipe.set(key, &value.0)),
                Kind::Hash(fields) => fields.iter().for_each(|(field, value)| {
                    pipe.hset(key, &field.0, &value.0);
                }),
                Kind::Set(members) => members.iter().for_each(|member| {
                    pipe.sadd(key, &member.0);
                }),
                Kind::Sorted(members) => members.iter().for_each(|(member, score)| {
                    pipe.zadd(key, &member.0, *score);
                }),
                Kind::Stream(entries) => entries.iter().for_each(|(id, fields)| {
                    pipe.cmd("XADD").arg(key).arg(id);
                    for (name, value) in fields {
                        pipe.arg(&name.0).arg(&value.0);
                    }
                }),
            }
            if *expires {
                pipe.pexpire(key, i64::try_from(KEPT.as_millis())?);
            }
            pipe.exec_async(&mut redis).await?;
        }
        Ok(())
    }

    /// Puts the messages into their queues, which exist.
    ///
    /// # Errors
    /// Those of RabbitMQ.
    pub async fn restore_messages(&self, rabbit: &str) -> anyhow::Result<()> {
        let connection = Connection::connect(rabbit, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        for (queue, messages) in &self.queues {
            for StoredMessage { id, headers, body } in messages {
                let mut table = FieldTable::default();
                for (name, value) in headers {
                    let value = match value {
                        Header::Text(text) => {
                            AMQPValue::LongString(LongString::from(text.0.clone()))
                        }
                        Header::Number(number) => AMQPValue::LongLongInt(*number),
                    };
                    table.insert(name.as_str().into(), value);
                }
                let mut properties =
                    BasicProperties::default().with_delivery_mode(2).with_headers(table);
                if let Some(id) = id {
                    properties = properties.with_message_id(id.as_str().into());
                }
                let (exchange, key) = (ShortString::default(), queue.as_str().into());
                let confirm =
                    channel.basic_publish(exchange, key, options, &body.0, properties).await?;
                let confirmed = confirm.await?;
                if confirmed.take_message().is_some() {
                    bail!("there is no queue {queue}");
                }
            }
        }
        Ok(connection.close(200, ShortString::default()).await?)
    }
}

async fn queued(channel: &Channel, queue: &str) -> anyhow::Result<Vec<StoredMessage>> {
    let mut messages = Vec::new();
    while let Some(got) = channel.basic_get(queue.into(), BasicGetOptions::default()).await? {
        messages.push(message(&got.delivery.properties, &got.delivery.data));
    }
    Ok(messages)
}

async fn streamed(
    channel: &Channel,
    queue: &str,
    count: usize,
) -> anyhow::Result<Vec<StoredMessage>> {
    channel.basic_qos(100, BasicQosOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(queue.into(), ShortString::default(), options, arguments).await?;
    let mut messages = Vec::new();
    while messages.len() < count {
        let delivery = consumer.next().await.context("the stream has ended")??;
        messages.push(message(&delivery.properties, &delivery.data));
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(messages)
}

fn message(properties: &BasicProperties, body: &[u8]) -> StoredMessage {
    let all = properties.headers().as_ref().map(|table| table.inner().clone()).unwrap_or_default();
    // RabbitMQ's own headers are not carried over.
    let own = all.into_iter().filter(|(name, _)| !name.as_str().starts_with("x-"));
    let headers = own.filter_map(|(name, value)| {
        let value = match value {
            AMQPValue::LongString(text) => Header::Text(Bytes(text.as_bytes().to_vec())),
            AMQPValue::LongLongInt(number) => Header::Number(number),
            _ => return None,
        };
        Some((name.to_string(), value))
    });
    StoredMessage {
        id: properties.message_id().as_ref().map(ToString::to_string),
        headers: headers.collect(),
        body: Bytes(body.to_vec()),
    }
}

/// Fields and values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

async fn keys(redis: &str, namespace: &str) -> anyhow::Result<BTreeMap<String, StoredValue>> {
    let mut redis = connected(redis).await?;
    let mut names = redis::cmd("KEYS");
    let names: Vec<String> = names.arg(format!("{namespace}:*")).query_async(&mut redis).await?;
    let mut all = BTreeMap::new();
    for key in names {
        let (kind, expiry): (String, i64) =
            redis::pipe().cmd("TYPE").arg(&key).pttl(&key).query_async(&mut redis).await?;
        let bytes = |pairs: Pairs| {
            pairs.into_iter().map(|(name, value)| (Bytes(name), Bytes(value))).collect()
        };
        let mut read = redis::cmd(match kind.as_str() {
            "string" => "GET",
            "hash" => "HGETALL",
            "set" => "SMEMBERS",
            "zset" => "ZRANGE",
            "stream" => "XRANGE",
            other => bail!("{key} is a {other}"),
        });
        read.arg(&key);
        let kind = match kind.as_str() {
            "string" => Kind::String(Bytes(read.query_async(&mut redis).await?)),
            "hash" => Kind::Hash(bytes(read.query_async(&mut redis).await?)),
            "set" => {
                let members: Vec<Vec<u8>> = read.query_async(&mut redis).await?;
                Kind::Set(members.into_iter().map(Bytes).collect())
            }
            "zset" => {
                let members: Vec<(Vec<u8>, f64)> =
                    read.arg(0).arg(-1).arg("WITHSCORES").query_async(&mut redis).await?;
                Kind::Sorted(
                    members.into_iter().map(|(name, score)| (Bytes(name), score)).collect(),
                )
            }
            _ => {
                let entries: Vec<(String, Pairs)> =
                    read.arg("-").arg("+").query_async(&mut redis).await?;
                Kind::Stream(entries.into_iter().map(|(id, fields)| (id, bytes(fields))).collect())
            }
        };
        all.insert(key, StoredValue { expires: expiry >= 0, kind });
    }
    Ok(all)
}

async fn connected(redis: &str) -> anyhow::Result<MultiplexedConnection> {
    Ok(redis::Client::open(redis)?.get_multiplexed_async_connection().await?)
}
