//! A message on the wire: the exact body is the payload, and the envelope is a header.
//!
//! Headers are written anew at each publish. So the broker's `x-death` and similar headers are not
//! carried over (RabbitMQ 3.10 treats them as a cycle).

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use tokio::sync::oneshot;
use zentra_core::lifecycle::DeadReason;
use zentra_core::seal::Sealed;

use super::lane::Job;
use super::shards::{BUCKET, bucket};
use super::topology::{Names, short};
use super::{Message, QueueError};
use crate::error::failed;

const ENVELOPE: &str = "zentra-envelope";
const SEAL: &str = "zentra-seal";
const ATTEMPT: &str = "zentra-attempt";
const GENERATION: &str = "zentra-generation";
const COUNTERSIGNATURE: &str = "zentra-countersignature";
/// W3C Trace Context, by the same names as in HTTP.
const TRACE: &str = "traceparent";
const DEAD_REASON: &str = "zentra-dead-reason";
const DEAD_ERROR: &str = "zentra-dead-error";
/// Maximum length of an error, in characters.
const MAX_ERROR: usize = 512;
/// The broker's own header on a message that it dead-lettered.
const BROKER_REASON: &str = "x-first-death-reason";

const PERSISTENT: u8 = 2;

/// A message to the queue of probes. Its confirm shows that the broker confirms.
pub(super) fn probe(
    names: &Names,
    done: oneshot::Sender<Result<(), QueueError>>,
) -> Result<Job, QueueError> {
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short("probe").map_err(failed)?);
    let exchange = short(&names.internal()).map_err(failed)?;
    let key = short(&names.probe()).map_err(failed)?;
    Ok(Job { exchange, key, body: Bytes::new(), properties, done })
}

/// The properties of a new event.
pub(super) fn new(sealed: &Sealed) -> lapin::Result<BasicProperties> {
    written(sealed, None, None)
}

/// The properties of a message, and the last error of a dead letter.
pub(super) fn properties(message: &Message, error: Option<&str>) -> lapin::Result<BasicProperties> {
    written(&message.sealed, Some(message), error)
}

/// `message` is `None` for a new event.
fn written(
    sealed: &Sealed,
    message: Option<&Message>,
    error: Option<&str>,
) -> lapin::Result<BasicProperties> {
    let mut headers = FieldTable::default();
    let mut set = |name: &'static str, value: AMQPValue| {
        if let Ok(name) = ShortString::try_new(name) {
            headers.insert(name, value);
        }
    };
    let bytes = |value: &[u8]| AMQPValue::LongString(LongString::from(value));
    // Foreign messages stay recognisable as foreign.
    if !sealed.envelope.is_empty() {
        set(ENVELOPE, bytes(&sealed.envelope));
        set(SEAL, bytes(sealed.seal.as_bytes()));
    }
    // What equals a new event's default is not written, because every node stores every byte.
    if let Some(message) = message {
        if message.attempt != 1 {
            set(ATTEMPT, AMQPValue::LongLongInt(message.attempt.into()));
        }
        if message.generation != 0 {
            set(GENERATION, AMQPValue::LongLongInt(message.generation.into()));
        }
        if let Some(text) = &message.countersignature {
            set(COUNTERSIGNATURE, bytes(text.as_bytes()));
        }
        if let Some(reason) = message.dead {
            set(DEAD_REASON, bytes(reason.as_str().as_bytes()));
        }
    }
    set(BUCKET, bytes(bucket(&sealed.id).to_string().as_bytes()));
    if let Some(trace) = sealed.trace {
        set(TRACE, bytes(trace.to_string().as_bytes()));
    }
    if let Some(error) = error {
        let start: String = error.chars().take(MAX_ERROR).collect();
        set(DEAD_ERROR, bytes(start.as_bytes()));
    }
    let properties =
        BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
    Ok(match sealed.id.as_str() {
        "" => properties,
        id => properties.with_message_id(short(id)?),
    })
}

/// Reads a delivery. Never fails: whatever somebody else put into the queue becomes a message
/// whose seal does not open.
pub(super) fn read(delivery: &mut Delivery) -> Message {
    let headers = delivery.properties.headers();
    let find = |name| headers.as_ref()?.inner().get(name);
    let bytes = |name| match find(name) {
        Some(AMQPValue::LongString(value)) => value.as_bytes().to_vec(),
        _ => Vec::new(),
    };
    let number = |name| match find(name) {
        Some(AMQPValue::LongLongInt(value)) => u32::try_from(*value).ok(),
        _ => None,
    };
    let sealed = Sealed {
        envelope: bytes(ENVELOPE).into(),
        seal: String::from_utf8(bytes(SEAL)).unwrap_or_default(),
        route: String::new(),
        trace: std::str::from_utf8(&bytes(TRACE)).ok().and_then(|text| text.parse().ok()),
        id: delivery.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default(),
        body: Bytes::new(),
    };
    let (attempt, generation) = (number(ATTEMPT), number(GENERATION));
    let countersignature = String::from_utf8(bytes(COUNTERSIGNATURE)).ok();
    let reason = std::str::from_utf8(&bytes(DEAD_REASON)).ok().and_then(DeadReason::named);
    // The broker dead-letters from a work queue only what was returned too often.
    let crashed = || (bytes(BROKER_REASON) == b"delivery_limit").then_some(DeadReason::Crashed);
    Message {
        sealed: Sealed { body: std::mem::take(&mut delivery.data).into(), ..sealed },
        attempt: attempt.unwrap_or(1).max(1),
        generation: generation.unwrap_or(0),
        dead: reason.or_else(crashed),
        countersignature: countersignature.filter(|text| !text.is_empty()),
    }
}
