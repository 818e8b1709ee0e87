//! What the API can be asked for, whatever the backend: the same functions as the command line's.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use zentra_shared::config::Config;
use zentra_shared::control::{Act, Beat, Control, Said, Token};
use zentra_shared::job::{Halt, Job, Jobs};
use zentra_shared::journal::list::{Page, Query};
use zentra_shared::journal::{Delivery, What};

use super::follow::Lines;
use super::queue_service::Queues;
use crate::backend::Backend;
use crate::cli::Letters;
use crate::control::{self, Asked, Deed, Standing};
use crate::dead::{self, Filter, Tally};
use crate::event::{self, Found, Matches};
use crate::failure::Failure;
use crate::job::{self, How, Replaying};
use crate::payload::shown;
use crate::status::{self, Status};
use crate::token;

/// What comes of a request.
pub(super) type Answer<'a, T> = BoxFuture<'a, Result<T, Failure>>;

/// The operator's functions, for handlers that know no backend.
pub(crate) trait Service: Queues {
    /// The token that a text is, if it is good.
    fn token<'a>(&'a self, text: &'a str) -> Answer<'a, Option<Token>>;

    fn status(&self) -> Answer<'_, Status>;

    fn events<'a>(
        &'a self,
        query: &'a Query,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'a, Page>;

    fn event<'a>(&'a self, id: &'a str) -> Answer<'a, Found>;

    fn dead<'a>(&'a self, filter: &'a Filter, limit: usize) -> Answer<'a, Vec<Delivery>>;

    /// The bytes of a dead letter, once it is in the audit who has seen them.
    fn body<'a>(&'a self, id: &'a str, said: &'a Said) -> Answer<'a, Bytes>;

    /// Sends dead letters back to their work queues, by name.
    fn requeue(&self, ids: Vec<String>, asked: Asked) -> Answer<'_, Tally>;

    fn workers(&self) -> Answer<'_, Vec<Beat>>;

    fn destinations(&self) -> Answer<'_, Vec<Standing>>;

    /// None if there is no such destination.
    fn act<'a>(
        &'a self,
        destination: &'a str,
        deed: Deed,
        asked: &'a Asked,
    ) -> Answer<'a, Option<Standing>>;

    fn audited(&self, limit: usize) -> Answer<'_, Vec<Act>>;

    fn jobs(&self) -> Answer<'_, Vec<Job>>;

    /// None if there is no such job.
    fn job<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Job>>;

    fn plan<'a>(
        &'a self,
        filter: &'a Filter,
        replay: &'a Replaying,
        how: How,
        asked: &'a Asked,
    ) -> Answer<'a, Job>;

    /// Has a job run here, or wherever the API is served.
    fn release<'a>(&'a self, id: &'a str, only_canary: bool, asked: &'a Asked) -> Answer<'a, Job>;

    fn halt<'a>(&'a self, id: &'a str, halt: Halt, asked: &'a Asked) -> Answer<'a, Job>;

    /// Events whose bodies have a text in them, once it is in the audit who has looked.
    fn find<'a>(&'a self, text: &'a str, said: &'a Said) -> Answer<'a, Matches>;

    /// Tells what happens, until nobody reads it.
    fn tail<'a>(
        &'a self,
        query: &'a Query,
        id: Option<&'a str>,
        out: &'a mut Lines,
    ) -> Answer<'a, ()>;

    /// Runs the jobs that are to run, until this program stops.
    fn attend(&self) -> BoxFuture<'_, ()>;
}

/// Those functions on one backend.
pub(super) struct Desk<B> {
    pub(super) backend: B,
    pub(super) config: &'static Config,
    /// Whether the config has the sources' secrets.
    pub(super) admits: bool,
    /// This program is to stop.
    stop: CancellationToken,
}

impl<B: Backend> Desk<B> {
    pub(super) fn new(
        backend: B,
        config: &'static Config,
        admits: bool,
        stop: CancellationToken,
    ) -> Self {
        Self { backend, config, admits, stop }
    }

    async fn standing(&self, name: &str) -> Result<Option<Standing>, Failure> {
        let all = control::destinations(&self.backend.histories()?, self.config).await?;
        Ok(all.into_iter().find(|one| one.destination == name))
    }
}

impl<B: Backend + Send + Sync> Service for Desk<B> {
    fn token<'a>(&'a self, text: &'a str) -> Answer<'a, Option<Token>> {
        Box::pin(async move { token::verify(&self.backend.histories()?, text).await })
    }

    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async move { status::look(&self.backend, self.config).await })
    }

    fn events<'a>(
        &'a self,
        query: &'a Query,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'a, Page> {
        Box::pin(async move { event::list(&self.backend.histories()?, query, cursor, limit).await })
    }

    fn event<'a>(&'a self, id: &'a str) -> Answer<'a, Found> {
        Box::pin(async move { event::look(&self.backend, self.config, id).await })
    }

    fn dead<'a>(&'a self, filter: &'a Filter, limit: usize) -> Answer<'a, Vec<Delivery>> {
        Box::pin(async move {
            let names = crate::destinations(self.config, filter.destination.clone())?;
            dead::list(&self.backend.histories()?, &names, filter, limit).await
        })
    }

    fn body<'a>(&'a self, id: &'a str, said: &'a Said) -> Answer<'a, Bytes> {
        Box::pin(async move {
            let (histories, queue) = (self.backend.histories()?, self.backend.queue().await?);
            let pairs = self.config.pairs();
            let found = async {
                let desk = dead::desk(self.config, &histories, &queue, &pairs, None)?;
                let Delivery { key, event, .. } = desk.find(id).await?;
                let act = Act {
                    action: "dead show --body".into(),
                    on: key.to_string(),
                    result: String::new(),
                    said: said.clone(),
                };
                histories.audit(&act).await?;
                let letter = desk.letter(&key).await?;
                let letter = letter.ok_or_else(|| dead::no_letter(&key))?;
                Ok(shown(self.config, &event.source, &letter.sealed.body))
            };
            let found = found.await;
            self.backend.close(queue).await;
            found
        })
    }

    fn requeue(&self, ids: Vec<String>, asked: Asked) -> Answer<'_, Tally> {
        Box::pin(async move {
            let Asked { because: reason, by } = asked;
            let letters = Letters { limit: ids.len(), ids, by, ..Letters::default() };
            let what = What::Requeued { reason, job: None };
            Ok(dead::requeued(self.config, &self.backend, &letters, &what).await?.tally)
        })
    }

    fn workers(&self) -> Answer<'_, Vec<Beat>> {
        Box::pin(async move { Ok(self.backend.histories()?.workers().await?) })
    }

    fn destinations(&self) -> Answer<'_, Vec<Standing>> {
        Box::pin(
            async move { control::destinations(&self.backend.histories()?, self.config).await },
        )
    }

    fn act<'a>(
        &'a self,
        destination: &'a str,
        deed: Deed,
        asked: &'a Asked,
    ) -> Answer<'a, Option<Standing>> {
        Box::pin(async move {
            if self.standing(destination).await?.is_none() {
                return Ok(None);
            }
            control::act(&self.backend.histories()?, destination, deed, asked).await?;
            self.standing(destination).await
        })
    }

    fn audited(&self, limit: usize) -> Answer<'_, Vec<Act>> {
        Box::pin(async move { Ok(self.backend.histories()?.audited(limit).await?) })
    }

    fn jobs(&self) -> Answer<'_, Vec<Job>> {
        Box::pin(async move { Ok(self.backend.histories()?.jobs().await?) })
    }

    fn job<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Job>> {
        Box::pin(async move { Ok(self.backend.histories()?.job(id).await?) })
    }

    fn plan<'a>(
        &'a self,
        filter: &'a Filter,
        replay: &'a Replaying,
        how: How,
        asked: &'a Asked,
    ) -> Answer<'a, Job> {
        Box::pin(job::plan(&self.backend, self.config, filter, replay, how, asked))
    }

    fn release<'a>(&'a self, id: &'a str, only_canary: bool, asked: &'a Asked) -> Answer<'a, Job> {
        Box::pin(job::release(&self.backend, id, only_canary, asked))
    }

    fn halt<'a>(&'a self, id: &'a str, halt: Halt, asked: &'a Asked) -> Answer<'a, Job> {
        Box::pin(job::halt(&self.backend, id, halt, asked))
    }

    fn find<'a>(&'a self, text: &'a str, said: &'a Said) -> Answer<'a, Matches> {
        Box::pin(async move {
            self.seen("event find", text, said).await?;
            event::find_text(&self.backend, self.config, text, false).await
        })
    }

    fn tail<'a>(
        &'a self,
        query: &'a Query,
        id: Option<&'a str>,
        out: &'a mut Lines,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let histories = self.backend.histories()?;
            tokio::select! {
                told = event::tail(&histories, query, id, true, out) => told,
                () = self.stop.cancelled() => Ok(()),
            }
        })
    }

    fn attend(&self) -> BoxFuture<'_, ()> {
        Box::pin(job::attend(&self.backend, self.config, &self.stop))
    }
}
