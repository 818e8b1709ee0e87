//! What can be asked of queues and the archive, whatever the backend.

use bytes::Bytes;
use serde_json::value::RawValue;
use zentra_shared::control::{Act, Control, Said};
use zentra_shared::journal::Delivery;

use super::service::{Answer, Desk};
use crate::backend::Backend;
use crate::cli::Letters;
use crate::control::{Asked, Audited};
use crate::dead::Tally;
use crate::failure::Failure;
use crate::payload::shown;
use crate::reconcile::{self, Report};
use crate::unrouted::{self, Look};
use crate::{archive, event, refused};

/// The operator's functions on queues, for handlers that know no backend.
pub(crate) trait Queues: Send + Sync {
    /// Dead letters out of their queues for good, by name.
    fn drain(&self, ids: Vec<String>, asked: Asked) -> Answer<'_, Tally>;

    /// Lets a suspected replay go on, or has one that waits attempted now.
    fn let_go<'a>(&'a self, id: &'a str, asked: &'a Asked) -> Answer<'a, Vec<Delivery>>;

    /// Ends the retries of one that waits.
    fn end<'a>(&'a self, id: &'a str, asked: &'a Asked) -> Answer<'a, Vec<Delivery>>;

    fn unrouted(&self, source: Option<String>, limit: usize) -> Answer<'_, Vec<unrouted::Found>>;

    /// Routes those that a destination subscribes to by now.
    fn route(
        &self,
        source: Option<String>,
        limit: usize,
        asked: Asked,
    ) -> Answer<'_, Vec<unrouted::Found>>;

    fn archived<'a>(&'a self, wanted: &'a archive::Wanted) -> Answer<'a, Vec<archive::Found>>;

    /// The bytes of an archived event, once it is in the audit who has seen them.
    fn archived_body<'a>(&'a self, id: &'a str, said: &'a Said) -> Answer<'a, Bytes>;

    fn refused<'a>(
        &'a self,
        wanted: &'a refused::Wanted,
        limit: usize,
    ) -> Answer<'a, Vec<refused::Found>>;

    /// The bytes of a refused callback, once it is in the audit who has seen them.
    fn refused_body<'a>(&'a self, id: &'a str, said: &'a Said) -> Answer<'a, Bytes>;

    /// Compares a provider's list with what came. With `ingest`, brings in what is missing: none if
    /// this program hasn't the sources' secrets.
    fn reconcile<'a>(
        &'a self,
        source: &'a str,
        events: &'a [Box<RawValue>],
        ingest: Option<&'a Asked>,
    ) -> Answer<'a, Option<Report>>;

    /// Lets in what verifies now. None if this program hasn't the sources' secrets.
    fn admit<'a>(
        &'a self,
        wanted: &'a refused::Wanted,
        limit: usize,
        asked: &'a Asked,
    ) -> Answer<'a, Option<Vec<refused::Outcome>>>;
}

impl<B: Backend + Send + Sync> Desk<B> {
    /// Before anybody sees bytes.
    pub(super) async fn seen(&self, action: &str, on: &str, said: &Said) -> Result<(), Failure> {
        let (action, on, result) = (action.to_owned(), on.to_owned(), String::new());
        let act = Act { action, on, result, said: said.clone() };
        Ok(self.backend.histories()?.audit(&act).await?)
    }
}

impl<B: Backend + Send + Sync> Queues for Desk<B> {
    fn drain(&self, ids: Vec<String>, asked: Asked) -> Answer<'_, Tally> {
        Box::pin(async move {
            let Asked { because, by } = asked;
            let letters = Letters { limit: ids.len(), ids, by, ..Letters::default() };
            crate::dead::drained(self.config, &self.backend, &letters, None, &because).await
        })
    }

    fn let_go<'a>(&'a self, id: &'a str, asked: &'a Asked) -> Answer<'a, Vec<Delivery>> {
        Box::pin(async move {
            event::let_go(self.config, &self.backend, id, asked).await?;
            event::find(&self.backend.histories()?, &self.config.pairs(), id).await
        })
    }

    fn end<'a>(&'a self, id: &'a str, asked: &'a Asked) -> Answer<'a, Vec<Delivery>> {
        Box::pin(async move {
            event::waiting::end(&self.backend, self.config, id, asked).await?;
            event::find(&self.backend.histories()?, &self.config.pairs(), id).await
        })
    }

    fn unrouted(&self, source: Option<String>, limit: usize) -> Answer<'_, Vec<unrouted::Found>> {
        Box::pin(async move {
            let queue = self.backend.queue().await?;
            let (sealer, subscribers) = (&self.config.seal, &self.config.subscribers());
            let look = Look { sealer, subscribers, source, limit };
            let found = unrouted::list(&queue, &look).await;
            self.backend.close(queue).await;
            found
        })
    }

    fn route(
        &self,
        source: Option<String>,
        limit: usize,
        asked: Asked,
    ) -> Answer<'_, Vec<unrouted::Found>> {
        Box::pin(async move {
            let (control, queue) = (self.backend.histories()?, self.backend.queue().await?);
            let audited = Audited {
                control: Some(&control),
                action: "unrouted requeue",
                on: source.as_ref().map_or_else(String::new, |name| format!("--source {name}")),
                said: asked.said(),
            };
            let (sealer, subscribers) = (&self.config.seal, &self.config.subscribers());
            let look = Look { sealer, subscribers, source, limit };
            let deed = unrouted::requeue(&queue, &look, false);
            let found = audited.run(deed, |found| found.len().to_string()).await;
            self.backend.close(queue).await;
            found
        })
    }

    fn archived<'a>(&'a self, wanted: &'a archive::Wanted) -> Answer<'a, Vec<archive::Found>> {
        Box::pin(async move {
            let queue = self.backend.queue().await?;
            let found = archive::list(&queue, self.config, wanted).await;
            self.backend.close(queue).await;
            found
        })
    }

    fn archived_body<'a>(&'a self, id: &'a str, said: &'a Said) -> Answer<'a, Bytes> {
        Box::pin(async move {
            let queue = self.backend.queue().await?;
            let found = archive::find(&queue, self.config, id).await;
            self.backend.close(queue).await;
            let (_, event) = found?;
            self.seen("archive show --body", id, said).await?;
            Ok(shown(self.config, &event.envelope.source, &event.body))
        })
    }

    fn refused<'a>(
        &'a self,
        wanted: &'a refused::Wanted,
        limit: usize,
    ) -> Answer<'a, Vec<refused::Found>> {
        Box::pin(async move {
            let queue = self.backend.queue().await?;
            let found = refused::list(&queue, &self.config.seal, wanted, limit).await;
            self.backend.close(queue).await;
            let masked = |found| refused::masked(found, &self.config.sources);
            Ok(found?.into_iter().map(masked).collect())
        })
    }

    fn refused_body<'a>(&'a self, id: &'a str, said: &'a Said) -> Answer<'a, Bytes> {
        Box::pin(async move {
            let queue = self.backend.queue().await?;
            let wanted = refused::Wanted { ids: vec![id.to_owned()], ..Default::default() };
            let found = refused::list(&queue, &self.config.seal, &wanted, 1).await;
            self.backend.close(queue).await;
            let found = found?.pop().ok_or_else(|| refused::no_refused(id))?;
            self.seen("refused show --body", id, said).await?;
            let (source, body) = refused::body(&found);
            Ok(shown(self.config, source, body))
        })
    }

    fn reconcile<'a>(
        &'a self,
        source: &'a str,
        events: &'a [Box<RawValue>],
        ingest: Option<&'a Asked>,
    ) -> Answer<'a, Option<Report>> {
        Box::pin(async move {
            if ingest.is_some() && !self.admits {
                return Ok(None);
            }
            let report = reconcile::given(&self.backend, self.config, source, events, ingest);
            report.await.map(Some)
        })
    }

    fn admit<'a>(
        &'a self,
        wanted: &'a refused::Wanted,
        limit: usize,
        asked: &'a Asked,
    ) -> Answer<'a, Option<Vec<refused::Outcome>>> {
        Box::pin(async move {
            if !self.admits {
                return Ok(None);
            }
            let (control, queue) = (self.backend.histories()?, self.backend.queue().await?);
            let outcomes =
                refused::admitted(self.config, &queue, &control, wanted, limit, false, asked).await;
            self.backend.close(queue).await;
            outcomes.map(Some)
        })
    }
}
