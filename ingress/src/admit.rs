//! Admitting a callback: verify → fresh → identify → seal → publish.

use std::collections::HashMap;

use zentra_shared::event::Admitted;
use zentra_shared::queue::Publish;
use zentra_shared::seal::Sealer;
use zentra_shared::verify::{Source, Unverified, Verified};

use crate::keep::Keeper;
use crate::refusal::Refusal;

/// The one way in, for a callback that has just come and for one that was refused at
/// first and is `admitted` by an operator. Returns when the broker has confirmed the
/// event: only then may a 2xx go out.
pub async fn admit(
    callback: &Unverified,
    source: &Source,
    sealer: &Sealer,
    queue: &impl Publish,
    admitted: Option<Admitted>,
) -> Result<(), Refusal> {
    publish(callback.verify(source)?, sealer, queue, admitted).await
}

async fn publish(
    verified: Verified,
    sealer: &Sealer,
    queue: &impl Publish,
    admitted: Option<Admitted>,
) -> Result<(), Refusal> {
    let mut event = verified.into_event();
    event.envelope.admitted = admitted;
    let sealed = sealer.seal(event).map_err(|_| Refusal::Seal)?;
    Ok(queue.publish(&sealed).await?)
}

/// All that it takes to let a callback in.
pub(crate) struct Gate<Q> {
    pub(crate) sources: HashMap<String, Source>,
    pub(crate) sealer: Sealer,
    pub(crate) queue: Q,
    pub(crate) keeper: Keeper,
}

impl<Q: Publish> Gate<Q> {
    pub(crate) fn source(&self, name: &str) -> Result<&Source, Refusal> {
        self.sources.get(name).ok_or(Refusal::UnknownSource)
    }

    /// Admits a callback, or keeps it where it doesn't verify.
    pub(crate) async fn admit(&self, callback: Unverified, source: &Source) -> Result<(), Refusal> {
        match callback.verify(source) {
            Ok(verified) => publish(verified, &self.sealer, &self.queue, None).await,
            Err(refusal) => {
                self.keeper.keep(callback, source, refusal);
                Err(refusal.into())
            }
        }
    }
}
