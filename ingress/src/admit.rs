//! Admitting a callback: verify → fresh → identify → seal → publish.

use std::collections::HashMap;

use zentra_shared::queue::Publish;
use zentra_shared::seal::Sealer;
use zentra_shared::verify::{Source, Unverified};

use crate::refusal::Refusal;

/// All that it takes to let a callback in.
pub(crate) struct Gate<Q> {
    pub(crate) sources: HashMap<String, Source>,
    pub(crate) sealer: Sealer,
    pub(crate) queue: Q,
}

impl<Q: Publish> Gate<Q> {
    pub(crate) fn source(&self, name: &str) -> Result<&Source, Refusal> {
        self.sources.get(name).ok_or(Refusal::UnknownSource)
    }

    /// Returns when the broker has confirmed the event: only then may a 2xx go out.
    pub(crate) async fn admit(&self, callback: Unverified, source: &Source) -> Result<(), Refusal> {
        let verified = callback.verify(source)?;
        let sealed = self.sealer.seal(verified.into_event()).map_err(|_| Refusal::Seal)?;
        self.queue.publish(&sealed).await?;
        Ok(())
    }
}
