//! Runs released jobs in the server of the API, also those whose runner was killed.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use zentra_config::Config;
use zentra_store::job::{Job, Jobs};

use super::{holder, run_held};
use crate::backend::Backend;
use crate::error::AdminError;

/// Poll interval.
const LOOK: Duration = Duration::from_secs(1);

/// Runs released jobs until `stop`. The next runner continues them.
pub async fn attend(backend: &impl Backend, config: &Config, stop: &CancellationToken) {
    let (mut running, mut tick) = (FuturesUnordered::new(), interval(LOOK));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(()) = running.next() => {}
            _ = tick.tick() => match taken(backend).await {
                Ok(jobs) => {
                    running.extend(jobs.into_iter().map(|job| one(backend, config, job, stop)));
                }
                Err(error) => tracing::debug!(error = error.message, "cannot look for jobs"),
            },
        }
    }
    while running.next().await.is_some() {}
}

/// Released jobs without a runner, with the new holder of their destinations.
async fn taken(backend: &impl Backend) -> Result<Vec<(Job, String)>, AdminError> {
    let histories = backend.histories();
    let mut taken = Vec::new();
    for job in histories.jobs().await?.items.into_iter().filter(|job| job.stage.is_active()) {
        let holder = holder(&job.id);
        if histories.hold(&job.destinations, &holder).await?.is_some() {
            continue;
        }
        // Its last runner may have progressed.
        match histories.job(&job.id).await? {
            Some(job) if job.stage.is_active() => taken.push((job, holder)),
            _ => histories.let_go(&job.destinations, &holder).await?,
        }
    }
    Ok(taken)
}

async fn one(
    backend: &impl Backend,
    config: &Config,
    (job, holder): (Job, String),
    stop: &CancellationToken,
) {
    let (id, destinations) = (job.id.clone(), job.destinations.clone());
    tracing::info!(job = id, "this process runs a job");
    match run_held(backend, config, job, &holder, stop, None, &()).await {
        Ok(job) => tracing::info!(
            job = id,
            stage = job.stage.as_str(),
            why = job.why,
            "the job has ended or paused"
        ),
        Err(error) => tracing::warn!(
            job = id,
            error = error.message,
            "the job was interrupted: another runner continues it"
        ),
    }
    let gone =
        async { Ok::<_, AdminError>(backend.histories().let_go(&destinations, &holder).await?) };
    if let Err(error) = gone.await {
        tracing::debug!(
            error = error.message,
            "cannot release the job's destinations: the hold expires"
        );
    }
}
