//! The use cases of `zentra-admin` on any backend.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prometheus::{Registry, TextEncoder};
use serde_json::value::RawValue;
use tokio::sync::{Mutex, OnceCell, Semaphore};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use webhook_verify::Explanation;
use zentra_admin::audit::Actor;
use zentra_admin::copies::{Copies, Position};
use zentra_admin::dead::{self, Letters, PassReport};
use zentra_admin::deliveries;
use zentra_admin::destinations::{self, Action, Destination};
use zentra_admin::event::{self, EventDetails, Matches};
use zentra_admin::filter::Filter;
use zentra_admin::job::{self, New};
use zentra_admin::notify::{self, Notifier};
use zentra_admin::reconcile::{self, Report};
use zentra_admin::series::{COLLECT, Series, Window};
use zentra_admin::status::{self, Status};
use zentra_admin::test_callback::{self, Prepared};
use zentra_admin::{AdminError, Backend, ErrorCode};
use zentra_admin::{archive, audit, copies, payload, refused, tokens, unrouted};
use zentra_config::Config;
use zentra_core::clock::{self, Timestamp};
use zentra_store::control::{Attribution, AuditEntry, Heartbeat, OperatorControl, Token};
use zentra_store::incident::Incident;
use zentra_store::job::{Halt, Job, Jobs};
use zentra_store::journal::list::{Page, Query};
use zentra_store::journal::{Delivery, HistoryEvent};
use zentra_store::stored::Listing;

use zentra_worker::pull::{Nack, Pull, PullError, Pulled};

use crate::Secrets;
use crate::feed::{Feed, Listener};

/// Answer of a use case.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, AdminError>>;

/// The use cases, for handlers that know no backend.
pub(crate) trait Service: Send + Sync {
    /// The valid token with this text.
    fn token<'a>(&'a self, text: &'a str) -> Answer<'a, Option<Token>>;

    /// Exchanges a code for a token of the console.
    fn sign_in<'a>(&'a self, code: &'a str) -> Answer<'a, Option<(Token, String)>>;

    /// All tokens.
    fn tokens(&self) -> Answer<'_, Listing<Token>>;

    fn revoke_token<'a>(&'a self, id: &'a str, actor: &'a Actor) -> Answer<'a, ()>;

    /// Ends a session of the console. `false` if the token is not of one.
    fn sign_out<'a>(&'a self, token: &'a Token) -> Answer<'a, bool>;

    /// Sends a signed sample to the ingress, and returns its answer.
    fn test_callback<'a>(
        &'a self,
        source: &'a str,
        kind: &'a str,
        actor: &'a Actor,
    ) -> Answer<'a, (Prepared, String)>;

    fn status(&self) -> Answer<'_, Status>;

    /// The current status, with figures of the newest deliveries that are at most [`SNAPSHOT`] old.
    fn metrics(&self) -> Answer<'_, Status>;

    fn events<'a>(
        &'a self,
        query: &'a Query,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'a, Page>;

    fn event<'a>(&'a self, id: &'a str) -> Answer<'a, EventDetails>;

    /// Events whose bodies contain a text.
    fn find<'a>(&'a self, text: &'a str, attribution: &'a Attribution) -> Answer<'a, Matches>;

    /// The configuration.
    fn config(&self) -> &Config;

    /// Whether the configuration has the sources' secrets.
    fn admits(&self) -> bool;

    /// The last hour.
    fn series(&self) -> Window;

    /// Live changes from now on, or after a position.
    fn listen(&self, query: Query, id: Option<String>, after: Option<&str>) -> Listener;

    /// Releases an event, and returns its deliveries.
    fn release<'a>(&'a self, id: &'a str, actor: &'a Actor) -> Answer<'a, Vec<Delivery>>;

    /// Ends an event's retries, and returns its deliveries.
    fn end<'a>(&'a self, id: &'a str, actor: &'a Actor) -> Answer<'a, Vec<Delivery>>;

    fn dead<'a>(&'a self, filter: &'a Filter, limit: usize) -> Answer<'a, Vec<Delivery>>;

    fn dead_body<'a>(&'a self, id: &'a str, attribution: &'a Attribution) -> Answer<'a, Bytes>;

    fn requeue_dead(&self, ids: Vec<String>, actor: Actor) -> Answer<'_, PassReport>;

    fn drain_dead(&self, ids: Vec<String>, actor: Actor) -> Answer<'_, PassReport>;

    fn workers(&self) -> Answer<'_, Listing<Heartbeat>>;

    fn destinations(&self) -> Answer<'_, Vec<Destination>>;

    fn act<'a>(
        &'a self,
        destination: &'a str,
        action: Action,
        actor: &'a Actor,
    ) -> Answer<'a, Destination>;

    fn audited(&self, limit: usize) -> Answer<'_, Listing<AuditEntry>>;

    /// Incidents, newest first.
    fn incidents(&self, open: bool) -> Answer<'_, Vec<Incident>>;

    fn acknowledge_incident<'a>(&'a self, id: &'a str, actor: &'a Actor) -> Answer<'a, Incident>;

    fn resolve_incident<'a>(&'a self, id: &'a str, actor: &'a Actor) -> Answer<'a, Incident>;

    /// Notifies receivers of incidents until the server stops.
    fn notify(&self) -> BoxFuture<'_, ()>;

    fn jobs(&self) -> Answer<'_, Listing<Job>>;

    fn job<'a>(&'a self, id: &'a str) -> Answer<'a, Job>;

    fn plan_job<'a>(&'a self, new: &'a New, actor: &'a Actor) -> Answer<'a, Job>;

    /// Releases a job: this or another server of the API runs it.
    fn release_job<'a>(
        &'a self,
        id: &'a str,
        only_canary: bool,
        actor: &'a Actor,
    ) -> Answer<'a, Job>;

    fn halt_job<'a>(&'a self, id: &'a str, halt: Halt, actor: &'a Actor) -> Answer<'a, Job>;

    fn unrouted(
        &self,
        source: Option<String>,
        limit: usize,
    ) -> Answer<'_, Vec<unrouted::UnroutedEvent>>;

    fn requeue_unrouted(
        &self,
        source: Option<String>,
        limit: usize,
        actor: Actor,
    ) -> Answer<'_, Vec<unrouted::UnroutedEvent>>;

    fn archived<'a>(
        &'a self,
        wanted: &'a archive::ArchiveFilter,
    ) -> Answer<'a, Vec<archive::ArchivedEvent>>;

    fn archived_body<'a>(
        &'a self,
        id: &'a str,
        among: &'a archive::Among,
        attribution: &'a Attribution,
    ) -> Answer<'a, Bytes>;

    fn refused<'a>(
        &'a self,
        wanted: &'a refused::RefusedFilter,
        limit: usize,
    ) -> Answer<'a, Vec<refused::RefusedCallback>>;

    fn refused_body<'a>(&'a self, id: &'a str, attribution: &'a Attribution) -> Answer<'a, Bytes>;

    /// What is right and wrong with a refused callback.
    fn explain<'a>(&'a self, id: &'a str) -> Answer<'a, Explanation>;

    fn admit<'a>(
        &'a self,
        wanted: &'a refused::RefusedFilter,
        limit: usize,
        actor: &'a Actor,
    ) -> Answer<'a, Vec<refused::Outcome>>;

    /// Compares a provider's list with what came. With an actor, ingests what is missing.
    fn reconcile<'a>(
        &'a self,
        source: &'a str,
        events: &'a [Box<RawValue>],
        ingest: Option<&'a Actor>,
    ) -> Answer<'a, Report>;

    /// Copies of a destination's archived events. `begins` audits the first look.
    fn copies<'a>(
        &'a self,
        destination: &'a str,
        from: Position,
        most: usize,
        wait: Duration,
        begins: Option<&'a Attribution>,
    ) -> Answer<'a, Copies>;

    /// Metrics of what is handed out, as Prometheus reads them.
    fn pull_metrics(&self) -> Result<String, AdminError>;

    /// Leases events of a destination to a consumer.
    fn pull<'a>(&'a self, destination: &'a str, most: usize, wait: Duration) -> Answer<'a, Pulled>;

    /// Stores that an event was processed.
    fn ack<'a>(&'a self, destination: &'a str, receipt: &'a str) -> Answer<'a, ()>;

    /// Ends a consumer's attempt as failed.
    fn nack<'a>(&'a self, destination: &'a str, receipt: &'a str, nack: Nack) -> Answer<'a, ()>;

    /// Extends a lease, and returns its end.
    fn extend<'a>(&'a self, destination: &'a str, receipt: &'a str) -> Answer<'a, Timestamp>;

    /// Runs released jobs until this program stops.
    fn attend(&self) -> BoxFuture<'_, ()>;

    /// Collects what happens until this program stops.
    fn collect(&self) -> BoxFuture<'_, ()>;

    /// Closes the backend's connections.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The use cases on one backend.
pub(crate) struct BackendService<B: Backend> {
    pub(crate) backend: B,
    pub(crate) config: &'static Config,
    /// If the configuration has the sources' secrets.
    pub(crate) secrets: Option<Secrets>,
    /// Cancelled when this program stops.
    pub(crate) stop: CancellationToken,
    /// Figures of the newest deliveries, and when they were read.
    pub(crate) snapshot: Mutex<Option<(Instant, Status)>>,
    /// Live changes.
    pub(crate) feed: Feed,
    /// The last hour.
    pub(crate) series: Series,
    /// Hands out events, from the first request on.
    pub(crate) pull: OnceCell<Pull<B::Queue, B::DeliveryStore>>,
    /// Metrics of what is handed out.
    pub(crate) registry: Registry,
}

/// Explanations at a time.
static EXPLAINING: Semaphore = Semaphore::const_new(2);

/// Maximum age of the figures of the newest deliveries in metrics.
const SNAPSHOT: Duration = Duration::from_secs(60);

impl<B: Backend> BackendService<B> {
    /// Figures of the newest deliveries, at most [`SNAPSHOT`] old. Concurrent requests wait for the
    /// same read. A failed read isn't kept.
    async fn remembered(&self) -> Status {
        let mut snapshot = self.snapshot.lock().await;
        if let Some((at, status)) = &*snapshot
            && at.elapsed() < SNAPSHOT
        {
            return status.clone();
        }
        let Ok(status) = status::remembered(&self.backend, self.config).await else {
            return Status::unknown(self.config);
        };
        *snapshot = Some((Instant::now(), status.clone()));
        status
    }

    async fn pull_of(&self) -> Result<&Pull<B::Queue, B::DeliveryStore>, AdminError> {
        let start = async || {
            let (queue, journal) = (self.backend.queue().await?, self.backend.histories());
            let stop = self.stop.clone();
            let pull = Pull::new(self.config, queue, journal, &self.registry, stop);
            pull.map_err(|error| AdminError::new(ErrorCode::Internal, error.to_string()))
        };
        self.pull.get_or_try_init(start).await
    }

    fn secrets(&self) -> Result<&Secrets, AdminError> {
        let message = "this server has no access to the sources' secrets.";
        let missing = || AdminError::new(ErrorCode::AdmissionDisabled, message);
        self.secrets.as_ref().ok_or_else(missing)
    }
}

impl<B: Backend> Service for BackendService<B> {
    fn token<'a>(&'a self, text: &'a str) -> Answer<'a, Option<Token>> {
        Box::pin(async move { tokens::verify(&self.backend.histories(), text).await })
    }

    fn sign_in<'a>(&'a self, code: &'a str) -> Answer<'a, Option<(Token, String)>> {
        Box::pin(async move { tokens::sign_in(&self.backend.histories(), code).await })
    }

    fn tokens(&self) -> Answer<'_, Listing<Token>> {
        Box::pin(async move { Ok(self.backend.histories().tokens().await?) })
    }

    fn revoke_token<'a>(&'a self, id: &'a str, actor: &'a Actor) -> Answer<'a, ()> {
        Box::pin(async move { tokens::revoke(&self.backend.histories(), id, actor).await })
    }

    fn sign_out<'a>(&'a self, token: &'a Token) -> Answer<'a, bool> {
        Box::pin(async move { tokens::sign_out(&self.backend.histories(), token).await })
    }

    fn test_callback<'a>(
        &'a self,
        source: &'a str,
        kind: &'a str,
        actor: &'a Actor,
    ) -> Answer<'a, (Prepared, String)> {
        Box::pin(async move {
            let ingress = self.secrets()?.ingress.clone();
            let control = self.backend.histories();
            test_callback::send(&control, self.config, (source, kind), ingress, actor).await
        })
    }

    fn status(&self) -> Answer<'_, Status> {
        Box::pin(status::look(&self.backend, self.config))
    }

    fn metrics(&self) -> Answer<'_, Status> {
        Box::pin(async move {
            let mut status = self.remembered().await;
            status::refresh(&mut status, &self.backend).await;
            Ok(status)
        })
    }

    fn events<'a>(
        &'a self,
        query: &'a Query,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'a, Page> {
        Box::pin(async move { event::list(&self.backend.histories(), query, cursor, limit).await })
    }

    fn event<'a>(&'a self, id: &'a str) -> Answer<'a, EventDetails> {
        Box::pin(event::look(&self.backend, self.config, id))
    }

    fn find<'a>(&'a self, text: &'a str, attribution: &'a Attribution) -> Answer<'a, Matches> {
        Box::pin(event::find_text(&self.backend, self.config, text, false, attribution))
    }

    fn config(&self) -> &Config {
        self.config
    }

    fn admits(&self) -> bool {
        self.secrets.is_some()
    }

    fn series(&self) -> Window {
        self.series.window(self.config, clock::now())
    }

    fn collect(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut interval = interval(COLLECT);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.stop.run_until_cancelled(interval.tick()).await.is_some() {
                // What is away is looked at again.
                if let Ok(heartbeats) = self.backend.histories().workers().await {
                    self.series.add(self.config, &heartbeats.items, clock::now());
                }
            }
        })
    }

    fn listen(&self, query: Query, id: Option<String>, after: Option<&str>) -> Listener {
        self.feed.listen(self.backend.histories(), query, id, after)
    }

    fn release<'a>(&'a self, id: &'a str, actor: &'a Actor) -> Answer<'a, Vec<Delivery>> {
        Box::pin(async move {
            event::release(&self.backend, self.config, id, actor).await?;
            deliveries::find(&self.backend.histories(), &self.config.pairs(), id).await
        })
    }

    fn end<'a>(&'a self, id: &'a str, actor: &'a Actor) -> Answer<'a, Vec<Delivery>> {
        Box::pin(async move {
            event::end(&self.backend, self.config, id, actor).await?;
            deliveries::find(&self.backend.histories(), &self.config.pairs(), id).await
        })
    }

    fn dead<'a>(&'a self, filter: &'a Filter, limit: usize) -> Answer<'a, Vec<Delivery>> {
        Box::pin(dead::list(&self.backend, self.config, filter, limit))
    }

    fn dead_body<'a>(&'a self, id: &'a str, attribution: &'a Attribution) -> Answer<'a, Bytes> {
        Box::pin(dead::body(&self.backend, self.config, id, attribution))
    }

    fn requeue_dead(&self, ids: Vec<String>, actor: Actor) -> Answer<'_, PassReport> {
        Box::pin(async move {
            let Actor { name, reason } = actor;
            let (letters, what) = (Letters::of(ids), HistoryEvent::Requeued { reason, job: None });
            let done = dead::requeue(&self.backend, self.config, &letters, &what, &name, &());
            Ok(done.await?.tally)
        })
    }

    fn drain_dead(&self, ids: Vec<String>, actor: Actor) -> Answer<'_, PassReport> {
        Box::pin(async move {
            let letters = Letters::of(ids);
            dead::drain(&self.backend, self.config, &letters, None, &actor, &()).await
        })
    }

    fn workers(&self) -> Answer<'_, Listing<Heartbeat>> {
        Box::pin(async move { Ok(self.backend.histories().workers().await?) })
    }

    fn destinations(&self) -> Answer<'_, Vec<Destination>> {
        Box::pin(async move { destinations::list(&self.backend.histories(), self.config).await })
    }

    fn act<'a>(
        &'a self,
        destination: &'a str,
        action: Action,
        actor: &'a Actor,
    ) -> Answer<'a, Destination> {
        Box::pin(async move {
            let control = self.backend.histories();
            destinations::act(&control, self.config, destination, action, actor).await
        })
    }

    fn audited(&self, limit: usize) -> Answer<'_, Listing<AuditEntry>> {
        Box::pin(async move { Ok(self.backend.histories().audited(limit).await?) })
    }

    fn jobs(&self) -> Answer<'_, Listing<Job>> {
        Box::pin(async move { Ok(self.backend.histories().jobs().await?) })
    }

    fn job<'a>(&'a self, id: &'a str) -> Answer<'a, Job> {
        Box::pin(async move { job::find(&self.backend.histories(), id).await })
    }

    fn plan_job<'a>(&'a self, new: &'a New, actor: &'a Actor) -> Answer<'a, Job> {
        Box::pin(job::plan(&self.backend, self.config, new, actor, &()))
    }

    fn release_job<'a>(
        &'a self,
        id: &'a str,
        only_canary: bool,
        actor: &'a Actor,
    ) -> Answer<'a, Job> {
        Box::pin(job::release(&self.backend, id, only_canary, actor))
    }

    fn halt_job<'a>(&'a self, id: &'a str, halt: Halt, actor: &'a Actor) -> Answer<'a, Job> {
        Box::pin(job::halt(&self.backend, id, halt, actor))
    }

    fn unrouted(
        &self,
        source: Option<String>,
        limit: usize,
    ) -> Answer<'_, Vec<unrouted::UnroutedEvent>> {
        Box::pin(unrouted::list(&self.backend, self.config, source, limit))
    }

    fn requeue_unrouted(
        &self,
        source: Option<String>,
        limit: usize,
        actor: Actor,
    ) -> Answer<'_, Vec<unrouted::UnroutedEvent>> {
        Box::pin(async move {
            unrouted::requeue(&self.backend, self.config, source, limit, false, &actor).await
        })
    }

    fn archived<'a>(
        &'a self,
        wanted: &'a archive::ArchiveFilter,
    ) -> Answer<'a, Vec<archive::ArchivedEvent>> {
        Box::pin(
            async move { archive::list(&self.backend.queue().await?, self.config, wanted).await },
        )
    }

    fn archived_body<'a>(
        &'a self,
        id: &'a str,
        among: &'a archive::Among,
        attribution: &'a Attribution,
    ) -> Answer<'a, Bytes> {
        Box::pin(async move {
            let queue = self.backend.queue().await?;
            let (_, event) = archive::find(&queue, self.config, id, among).await?;
            audit::looked(&self.backend.histories(), "archive show body", id, attribution).await?;
            Ok(payload::shown(self.config, &event.envelope.source, &event.body))
        })
    }

    fn refused<'a>(
        &'a self,
        wanted: &'a refused::RefusedFilter,
        limit: usize,
    ) -> Answer<'a, Vec<refused::RefusedCallback>> {
        Box::pin(refused::list(&self.backend, self.config, wanted, limit))
    }

    fn refused_body<'a>(&'a self, id: &'a str, attribution: &'a Attribution) -> Answer<'a, Bytes> {
        Box::pin(async move {
            let found = refused::find(&self.backend, self.config, id).await?;
            audit::looked(&self.backend.histories(), "refused show body", id, attribution).await?;
            Ok(payload::shown(self.config, &found.kept.source, &found.body))
        })
    }

    fn explain<'a>(&'a self, id: &'a str) -> Answer<'a, Explanation> {
        Box::pin(async move {
            self.secrets()?;
            let (source, callback) = refused::received(&self.backend, self.config, id).await?;
            let busy =
                AdminError::new(ErrorCode::RateLimited, "too many explanations: retry later");
            let _one = EXPLAINING.try_acquire().map_err(|_| busy)?;
            // A large body is tried with many secrets and forms.
            let explain = || refused::explain(&callback, source, &self.config.sources, None);
            Ok(tokio::task::block_in_place(explain))
        })
    }

    fn admit<'a>(
        &'a self,
        wanted: &'a refused::RefusedFilter,
        limit: usize,
        actor: &'a Actor,
    ) -> Answer<'a, Vec<refused::Outcome>> {
        Box::pin(async move {
            self.secrets()?;
            refused::admit(&self.backend, self.config, wanted, limit, false, actor).await
        })
    }

    fn reconcile<'a>(
        &'a self,
        source: &'a str,
        events: &'a [Box<RawValue>],
        ingest: Option<&'a Actor>,
    ) -> Answer<'a, Report> {
        Box::pin(async move {
            if ingest.is_some() {
                self.secrets()?;
            }
            reconcile::compare_given(&self.backend, self.config, source, events, ingest).await
        })
    }

    fn copies<'a>(
        &'a self,
        destination: &'a str,
        from: Position,
        most: usize,
        wait: Duration,
        begins: Option<&'a Attribution>,
    ) -> Answer<'a, Copies> {
        Box::pin(async move {
            if let Some(by) = begins {
                let control = self.backend.histories();
                audit::looked(&control, "destination listen", destination, by).await?;
            }
            let (queue, again) = (self.backend.queue().await?, from.clone());
            let read = copies::read(&queue, self.config, destination, from, most, wait);
            tokio::select! {
                copies = read => copies,
                // The client goes on where it was.
                () = self.stop.cancelled() => {
                    Ok(Copies { events: Vec::new(), position: again, not_archived: Vec::new() })
                }
            }
        })
    }

    fn pull_metrics(&self) -> Result<String, AdminError> {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        text.map_err(|error| AdminError::new(ErrorCode::Internal, error.to_string()))
    }

    fn pull<'a>(&'a self, destination: &'a str, most: usize, wait: Duration) -> Answer<'a, Pulled> {
        Box::pin(async move {
            let pulled = self.pull_of().await?.pull(destination, most, wait).await;
            pulled.map_err(refused_pull)
        })
    }

    fn ack<'a>(&'a self, destination: &'a str, receipt: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.pull_of().await?.ack(destination, receipt).await.map_err(refused_pull)
        })
    }

    fn nack<'a>(&'a self, destination: &'a str, receipt: &'a str, nack: Nack) -> Answer<'a, ()> {
        Box::pin(async move {
            self.pull_of().await?.nack(destination, receipt, nack).await.map_err(refused_pull)
        })
    }

    fn extend<'a>(&'a self, destination: &'a str, receipt: &'a str) -> Answer<'a, Timestamp> {
        Box::pin(async move {
            self.pull_of().await?.extend(destination, receipt).await.map_err(refused_pull)
        })
    }

    fn incidents(&self, open: bool) -> Answer<'_, Vec<Incident>> {
        Box::pin(async move { notify::list(&self.backend.histories(), open).await })
    }

    fn acknowledge_incident<'a>(&'a self, id: &'a str, actor: &'a Actor) -> Answer<'a, Incident> {
        Box::pin(notify::acknowledge(&self.backend, id, actor))
    }

    fn resolve_incident<'a>(&'a self, id: &'a str, actor: &'a Actor) -> Answer<'a, Incident> {
        Box::pin(notify::resolve(&self.backend, id, actor))
    }

    fn notify(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut notifier = match Notifier::new(self.config) {
                Ok(Some(notifier)) => notifier,
                Ok(None) => return,
                Err(error) => return tracing::error!(error = error.message, "nobody is notified"),
            };
            let mut tick = interval(notify::LOOK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    _ = tick.tick() => {}
                }
                match self.metrics().await {
                    Ok(status) => notifier.look(&self.backend, &status).await,
                    Err(error) => tracing::warn!(error = error.message, "the status is unknown"),
                }
            }
        })
    }

    fn attend(&self) -> BoxFuture<'_, ()> {
        Box::pin(job::attend(&self.backend, self.config, &self.stop))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(pull) = self.pull.get() {
                pull.finish().await;
            }
            self.backend.close().await;
        })
    }
}

/// The error of a consumer's request.
fn refused_pull(error: PullError) -> AdminError {
    let text = format!("{error}.");
    match error {
        PullError::NotPulled(_) => AdminError::new(ErrorCode::NotPulled, text)
            .hint("Check the name, and destination.NAME.pull."),
        PullError::InvalidReceipt => AdminError::new(ErrorCode::InvalidRequest, text),
        PullError::LeaseLost => AdminError::new(ErrorCode::LeaseLost, text)
            .hint("The event is retried, or was settled. Undo nothing: its idempotency key stays the same."),
        PullError::LeaseLimit => AdminError::new(ErrorCode::LeaseLimit, text)
            .hint("Acknowledge the event when it is stored, and do long work after that."),
        PullError::Queue(error) => error.into(),
        PullError::Journal(error) => error.into(),
    }
}
