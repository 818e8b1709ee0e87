//! Reload of sources, secrets, seal keys, destinations and certificate. Connections stay; a running
//! callback keeps the settings that it started with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zentra_config::{Config, Live, Tls};
use zentra_store::queue::Publish;

use crate::metrics::Metrics;
use crate::server;
use crate::state::IngressState;

/// Interval of checking the certificate's files.
const LOOK: Duration = Duration::from_secs(2);

/// The current settings.
pub(crate) struct Current<Q> {
    pub(crate) gate: watch::Receiver<Arc<IngressState<Q>>>,
    pub(crate) tls: server::Tls,
    /// Recorders of refused callbacks, old and new.
    pub(crate) keeping: TaskTracker,
}

/// Follows the config until `stop`, and the certificate's files besides.
pub(crate) fn follow<Q: Publish>(
    live: Live,
    queue: Q,
    metrics: Metrics,
    stop: CancellationToken,
) -> Current<Q> {
    let keeping = TaskTracker::new();
    keeping.close();
    let config = live.config();
    let (gates, gate) = watch::channel(Arc::new(open(&config, &queue, &metrics, &keeping)));
    let (servers, tls) = watch::channel(server(config.ingress.tls.as_ref(), &metrics));
    let follower = Follower { live, queue, metrics, keeping: keeping.clone(), gates, servers };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follower.run(config.ingress.tls.clone()) => {}
        }
    });
    Current { gate, tls, keeping }
}

struct Follower<Q> {
    live: Live,
    queue: Q,
    metrics: Metrics,
    keeping: TaskTracker,
    gates: watch::Sender<Arc<IngressState<Q>>>,
    servers: watch::Sender<Option<Arc<rustls::ServerConfig>>>,
}

impl<Q: Publish> Follower<Q> {
    async fn run(mut self, mut tls: Option<Tls>) {
        let mut look = tokio::time::interval(LOOK);
        let mut logged = String::new();
        loop {
            tokio::select! {
                new = self.live.next() => {
                    // The queues of new destinations must exist before events are accepted for
                    // them.
                    self.queue.subscribe(new.routes()).await;
                    let gate = open(&new, &self.queue, &self.metrics, &self.keeping);
                    self.gates.send_replace(Arc::new(gate));
                    if tls.is_some() && new.ingress.tls.is_some() {
                        tls = new.ingress.tls.clone();
                        self.servers.send_replace(server(tls.as_ref(), &self.metrics));
                    }
                    self.live.in_force();
                }
                _ = look.tick() => self.look_at_certificate(&mut tls, &mut logged),
            }
        }
    }

    /// Loads a changed certificate. Open connections keep the old one.
    fn look_at_certificate(&self, tls: &mut Option<Tls>, logged: &mut String) {
        let Some(current) = tls else {
            return;
        };
        match current.changed(&self.live.origin.environment) {
            Ok(None) => logged.clear(),
            Ok(Some(new)) => {
                logged.clear();
                tracing::info!("the certificate was reloaded");
                self.servers.send_replace(server(Some(&new), &self.metrics));
                *current = new;
            }
            // Certificate and key are seldom replaced in one step.
            Err(problem) if problem == *logged => {}
            Err(problem) => {
                tracing::error!(
                    problem,
                    "the new certificate is unusable; the old one stays in use"
                );
                *logged = problem;
            }
        }
    }
}

fn open<Q: Publish>(
    config: &Config,
    queue: &Q,
    metrics: &Metrics,
    keeping: &TaskTracker,
) -> IngressState<Q> {
    let (gate, kept) = IngressState::new(config, queue.clone(), metrics);
    keeping.spawn(kept);
    gate
}

fn server(tls: Option<&Tls>, metrics: &Metrics) -> Option<Arc<rustls::ServerConfig>> {
    metrics.serves(tls.map(Tls::certificate));
    tls.map(|tls| Arc::clone(&tls.server))
}
