//! What a start of this version with a configuration changes, and what an upgrade has to wait for. Changes nothing.

use serde::Serialize;
use zentra_config::Config;
use zentra_store::control::OperatorControl;
use zentra_store::job::Jobs;
use zentra_store::plan::{Action, Change};

use crate::backend::{Backend, File, Servers};
use crate::error::AdminError;

/// Number of audit entries that are looked at, the newest ones.
const AUDITED: usize = 1000;

/// What a start changes.
#[derive(Debug, Default, Serialize)]
pub struct Plan {
    /// Changes at RabbitMQ, or in the file.
    pub changes: Vec<Change>,
    /// Running workers. Empty if the file has to be upgraded first.
    pub workers: Vec<Running>,
    /// What a newer version of Zentra has stored and this one cannot read, such as `job 0a1b`.
    pub unreadable: Vec<String>,
}

/// A running worker and its version.
#[derive(Debug, Serialize)]
pub struct Running {
    /// Name of the worker.
    pub worker: String,
    /// Version of the program, or `newer` if this version cannot read it.
    pub version: String,
}

impl Plan {
    /// Whether a start with this configuration fails.
    pub fn conflicts(&self) -> bool {
        self.changes.iter().any(|change| change.action == Action::Conflict)
    }
}

/// Finds what a start of this version with this configuration changes.
///
/// # Errors
/// Those of RabbitMQ, Redis and the file.
pub async fn plan(config: &Config) -> Result<Plan, AdminError> {
    let Some(embedded) = &config.embedded else {
        let servers = Servers::new(config)?;
        let plan = of_servers(&servers, config).await;
        servers.close().await;
        return plan;
    };
    match zentra_sqlite::plan(&embedded.path)? {
        // Only a file of this version can be read.
        Some(change) => Ok(Plan { changes: vec![change], ..Plan::default() }),
        None => with(Vec::new(), &File::open(config, embedded)?.histories()).await,
    }
}

async fn of_servers(servers: &Servers<'_>, config: &Config) -> Result<Plan, AdminError> {
    let changes = servers.queue().await?.plan(&config.routes()).await?;
    with(changes, &servers.histories()).await
}

/// A plan with what runs and what cannot be read.
async fn with(
    changes: Vec<Change>,
    store: &(impl OperatorControl + Jobs),
) -> Result<Plan, AdminError> {
    let (workers, tokens) = (store.workers().await?, store.tokens().await?);
    let (jobs, audit) = (store.jobs().await?, store.audited(AUDITED).await?);
    let kinds = [("token", tokens.newer), ("job", jobs.newer), ("audit entry", audit.newer)];
    let unreadable = kinds
        .into_iter()
        .flat_map(|(kind, names)| names.into_iter().map(move |name| format!("{kind} {name}")));
    let readable = workers.items.into_iter().map(|one| (one.worker, one.version));
    let newer = workers.newer.into_iter().map(|worker| (worker, "newer".to_owned()));
    let running = readable.chain(newer).map(|(worker, version)| Running { worker, version });
    Ok(Plan { changes, workers: running.collect(), unreadable: unreadable.collect() })
}
