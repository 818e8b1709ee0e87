//! Refused callbacks that say that they are of an event: nobody has vouched for it.

use std::net::IpAddr;

use serde::Serialize;
use utoipa::ToSchema;
use zentra_config::Config;
use zentra_core::clock::Timestamp;
use zentra_core::event::{DeliveryKey, body_sha256};
use zentra_core::refused::RefusedRecord;
use zentra_store::queue::{Message, Operate, Place};

use crate::error::AdminError;
use crate::look::each;

/// So many of those that are kept are looked at.
const LOOK: usize = 10_000;
/// So many of an event are told.
const MOST: usize = 100;

/// One of them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RefusedCopy {
    /// For who reads JSON: what a delivery has in its record.
    state: &'static str,
    /// The id of the refused callback.
    pub refused_id: String,
    pub source: String,
    pub reason: String,
    pub received_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub peer: Option<IpAddr>,
    pub body_sha256: String,
}

/// What is known of the event that they may be of.
pub(crate) struct Of<'a> {
    /// As the operator named it.
    pub(crate) id: &'a str,
    /// The events that are known by it: source and body.
    pub(crate) known: Vec<(&'a str, &'a str)>,
}

impl Of<'_> {
    /// The provider's id, where a delivery key was given.
    fn id(&self) -> String {
        let key = DeliveryKey::parse(self.id);
        key.map_or_else(|| self.id.to_owned(), |key| key.identity().to_owned())
    }
}

/// Those that claim the event's id, or have its body; oldest first.
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
