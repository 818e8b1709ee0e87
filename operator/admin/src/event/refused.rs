//! Refused callbacks that claim an event. Nothing has verified them.

use std::net::IpAddr;

use serde::Serialize;
use zentra_config::Config;
use zentra_core::clock::Timestamp;
use zentra_core::event::{DeliveryKey, body_sha256};
use zentra_core::refused::RefusedRecord;
use zentra_store::queue::{Message, Operate, Place};

use crate::error::AdminError;
use crate::look::each;

/// Maximum number of refused callbacks that are read.
const LOOK: usize = 10_000;
/// Maximum number of matches.
const MOST: usize = 100;

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedCopy {
    /// Always the same text, like the state of a delivery's record.
    pub state: &'static str,
    /// Id of the refused callback.
    pub refused_id: String,
    pub source: String,
    pub reason: String,
    pub received_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    pub body_sha256: String,
}

/// The event that they may belong to.
pub(crate) struct Of<'a> {
    /// The id as the operator gave it.
    pub(crate) id: &'a str,
    /// Known events with this id: source and digest of the body.
    pub(crate) known: Vec<(&'a str, &'a str)>,
}

impl Of<'_> {
    /// The provider's id in a delivery key.
    fn id(&self) -> String {
        let key = DeliveryKey::parse(self.id);
        key.map_or_else(|| self.id.to_owned(), |key| key.identity().to_owned())
    }
}

/// Refused callbacks that claim the event's id or have its body, oldest first.
pub(crate) async fn find(
    queue: &impl Operate,
    config: &Config,
    of: &Of<'_>,
) -> Result<Vec<RefusedCopy>, AdminError> {
    let id = of.id();
    let mut found = Vec::new();
    let enough = |message: &Message| {
        let Ok((kept, callback)) = RefusedRecord::open(&config.seal, &message.sealed) else {
            return false;
        };
        let body = body_sha256(&callback.body);
        let source = config.sources.iter().find(|source| source.name == kept.source);
        let claimed = source.and_then(|source| callback.claimed_id(&source.endpoint.scheme));
        let same = of.known.contains(&(kept.source.as_str(), body.as_str()));
        if same || claimed.is_some_and(|claimed| claimed == id) {
            found.push(RefusedCopy {
                state: "refused",
                refused_id: kept.id,
                source: kept.source,
                reason: kept.reason,
                received_at: kept.received_at,
                peer: kept.peer,
                body_sha256: body,
            });
        }
        found.len() == MOST
    };
    each(queue, Place::Refused, LOOK, enough).await?;
    Ok(found)
}
