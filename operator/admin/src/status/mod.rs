//! The status: health of parts, sources and destinations, from the newest deliveries, the queues
//! and the refused callbacks.

mod destination;
mod metrics;
mod source;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use zentra_config::Config;
use zentra_core::clock::{self, Timestamp};
use zentra_store::control::{HEARTBEAT_TIMEOUT, OperatorControl};
use zentra_store::journal::DeliveryStore;
use zentra_store::journal::list::{Listed, Query};
use zentra_store::queue::{Operate, Place, QueueError};

pub use destination::Destination;
pub use metrics::metrics;
pub use source::{Rate, Source};

use crate::backend::{Backend, broker_unavailable};
use crate::error::AdminError;
use crate::refused;

/// Maximum number of deliveries to read, newest first.
const LOOK: usize = 5000;
/// Deliveries per page.
const PAGE: usize = 1000;
/// Maximum number of refused callbacks to count.
const REFUSED: usize = 10_000;
/// Timeout of the broker for optional questions.
const BRIEFLY: Duration = Duration::from_secs(2);
/// Timeout of a connection to the broker: whoever asks for the status also wants it while the broker is away.
const CONNECT: Duration = Duration::from_secs(4);
/// Age up to which something counts as recent.
const RECENT: Duration = Duration::from_secs(3600);

/// The status.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub at: Timestamp,
    pub parts: Vec<Part>,
    /// The deliveries that the status is based on.
    pub seen: Coverage,
    pub sources: Vec<Source>,
    pub destinations: Vec<Destination>,
    /// Accepted events that no destination subscribes to.
    pub unrouted: Option<u64>,
    /// Refused callbacks that are stored.
    pub refused: Option<u64>,
    /// Workers with a recent heartbeat.
    #[serde(skip)]
    pub(crate) workers: usize,
    /// Whether the deliveries could be read.
    #[serde(skip)]
    pub(crate) knows_deliveries: bool,
}

/// A part that everything depends on.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    pub name: &'static str,
    pub up: bool,
    /// The problem, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The deliveries that the status is based on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Coverage {
    pub deliveries: usize,
    /// Time of the oldest one.
    pub since: Option<Timestamp>,
    /// Whether these are all remembered deliveries.
    pub all: bool,
}

impl Status {
    /// Whether all parts are up.
    pub fn is_up(&self) -> bool {
        self.parts.iter().all(|part| part.up)
    }
}

/// Looks at everything. Where a part is away, what it would say is left out. Refused callbacks are held while
/// they are counted: other operators see none of them meanwhile.
///
/// # Errors
/// Those of the broker, if it fails while it is asked.
pub async fn look(backend: &impl Backend, config: &Config) -> Result<Status, AdminError> {
    let known = remembered(backend, config).await;
    let mut status = known.unwrap_or_else(|_| Status::unknown(config));
    if let Some(queue) = refresh(&mut status, backend).await {
        let kept = count_refused(&queue, config).await?;
        status.with_refused(&kept);
    }
    Ok(status)
}

/// Refused callbacks of the last hour, by source and reason.
pub(crate) type Refusals = BTreeMap<(String, String), u64>;

/// Counts refused callbacks of the last hour. They are held meanwhile: other operators see none of them.
///
/// # Errors
/// Those of the broker.
pub(crate) async fn count_refused(
    queue: &impl Operate,
    config: &Config,
) -> Result<Refusals, AdminError> {
    refused::count(queue, &config.seal, REFUSED, clock::now().minus(RECENT)).await
}

/// What the newest deliveries say of sources and destinations. It reads up to 5,000 histories.
///
/// # Errors
/// Those of the store.
pub async fn remembered(backend: &impl Backend, config: &Config) -> Result<Status, AdminError> {
    let histories = backend.histories();
    let (listed, all) = newest(&histories).await?;
    let mut status = Status::of(config, &listed, all);
    for one in &mut status.destinations {
        one.count_dead(&histories).await?;
    }
    Ok(status)
}

impl Status {
    pub(crate) fn with_refused(&mut self, kept: &Refusals) {
        for one in &mut self.sources {
            one.refused(kept);
            one.judge();
        }
    }

    /// Of a store that doesn't answer.
    pub fn unknown(config: &Config) -> Self {
        Self { knows_deliveries: false, ..Self::of(config, &[], false) }
    }

    /// By these deliveries, newest first, which may be `all`.
    fn of(config: &Config, listed: &[Listed], all: bool) -> Self {
        let at = clock::now();
        let (sources, destinations) = (config.sources.iter(), config.destinations.iter());
        Self {
            at,
            parts: Vec::new(),
            seen: Coverage {
                deliveries: listed.len(),
                since: listed.last().map(|listed| listed.first_claimed_at),
                all,
            },
            sources: sources.map(|source| Source::new(source, listed, at)).collect(),
            destinations: destinations.map(|one| Destination::new(one, listed, at)).collect(),
            unrouted: None,
            refused: None,
            workers: 0,
            knows_deliveries: true,
        }
    }
}

/// What holds now: parts, queues, workers. It costs the same however many events there are, and holds no message.
/// Returns the queue, if it answers.
pub async fn refresh<B: Backend>(status: &mut Status, backend: &B) -> Option<B::Queue> {
    (status.at, status.parts) = (clock::now(), Vec::new());
    (status.unrouted, status.refused) = (None, None);
    let answers = read_workers(status, backend).await;
    let read = async {
        let connected = tokio::time::timeout(CONNECT, backend.queue()).await;
        let queue = connected.map_err(|_| broker_unavailable())??;
        read_queues(status, &queue, answers).await?;
        Ok::<_, AdminError>(queue)
    };
    let queue = match read.await {
        Ok(queue) => {
            let problem = queue.blocked().map(|reason| {
                format!("accepts no messages ({reason}): callbacks get 503, waiting events are delivered")
            });
            status.parts.push(Part { name: backend.broker_name(), up: problem.is_none(), problem });
            Some(queue)
        }
        Err(error) => {
            // What was read before it failed is no whole.
            for one in &mut status.destinations {
                (one.backlog, one.queue_missing) = (None, false);
            }
            (status.unrouted, status.refused) = (None, None);
            let problem = Some(error.text());
            status.parts.push(Part { name: backend.broker_name(), up: false, problem });
            None
        }
    };
    // On one file, both are the same.
    status.parts.dedup_by(|a, b| a.name == b.name);
    if status.parts[0].up {
        let none = || format!("no heartbeat for {} s", HEARTBEAT_TIMEOUT.as_secs());
        let problem = (status.workers == 0).then(none);
        status.parts.push(Part { name: "workers", up: problem.is_none(), problem });
    }
    status.sources.iter_mut().for_each(Source::judge);
    status.destinations.iter_mut().for_each(Destination::judge);
    queue
}

async fn read_queues(
    status: &mut Status,
    queue: &impl Operate,
    answers: bool,
) -> Result<(), AdminError> {
    for one in &mut status.destinations {
        one.backlog = backlog(queue, one).await?;
        one.queue_missing = one.backlog.is_none();
        if answers {
            one.compare(depth(queue, Place::Dead(&one.destination)).await?);
        }
    }
    status.unrouted = depth(queue, Place::Unrouted).await?;
    status.refused = depth(queue, Place::Refused).await?;
    Ok(())
}

/// Reads workers and desired states from the store. Returns whether it answers.
async fn read_workers(status: &mut Status, backend: &impl Backend) -> bool {
    let histories = backend.histories();
    let read = async {
        Ok::<_, AdminError>((histories.workers().await?, histories.desired_states().await?))
    };
    let (problem, read) = match read.await {
        // Redis may forbid the question: then the workers show it.
        Ok(read) => {
            let refused = histories.refuses_claims().await.unwrap_or_default();
            (refused.map(claims_are_refused), Some(read))
        }
        Err(error) => (Some(error.text()), None),
    };
    let (up, answers) = (problem.is_none(), read.is_some());
    status.parts.push(Part { name: backend.store_name(), up, problem });
    let (heartbeats, desired_states) = read.unwrap_or_default();
    status.workers = heartbeats.items.len() + heartbeats.newer.len();
    for one in &mut status.destinations {
        // Without the store, no worker can be heard.
        match up {
            true => one.heard(&heartbeats.items, desired_states.get(&one.destination)),
            false => one.unheard(),
        }
    }
    answers
}

fn claims_are_refused(why: String) -> String {
    format!("claims are refused: {why}")
}

/// The destinations whose dead-letter queues have more letters than are known to be dead, and how many
/// more. None where the broker doesn't answer soon.
pub async fn unlisted_letters(
    backend: &impl Backend,
    config: &Config,
    names: &[String],
) -> Vec<(String, u64)> {
    let counted = tokio::time::timeout(BRIEFLY, count_unlisted(backend, config, names)).await;
    counted.ok().and_then(Result::ok).unwrap_or_default()
}

async fn count_unlisted(
    backend: &impl Backend,
    config: &Config,
    names: &[String],
) -> Result<Vec<(String, u64)>, AdminError> {
    let queue = backend.queue().await?;
    let (histories, mut all) = (backend.histories(), Vec::new());
    for destination in config.destinations.iter().filter(|one| names.contains(&one.name)) {
        let mut one = Destination::new(destination, &[], clock::now());
        one.count_dead(&histories).await?;
        one.compare(depth(&queue, Place::Dead(&one.destination)).await?);
        all.extend(
            one.unlisted_letters.filter(|count| *count > 0).map(|count| (one.destination, count)),
        );
    }
    Ok(all)
}

/// The newest deliveries, and whether those are all.
async fn newest(histories: &impl DeliveryStore) -> Result<(Vec<Listed>, bool), AdminError> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    while all.len() < LOOK {
        let page = histories.list(&Query::default(), cursor.as_deref(), PAGE).await?;
        all.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok((all, true));
        }
    }
    Ok((all, false))
}

/// Number of messages in a destination's work queues. `None` if it has none yet.
async fn backlog(queue: &impl Operate, one: &Destination) -> Result<Option<u64>, AdminError> {
    let Some(mut messages) = depth(queue, Place::Work(&one.destination, 0)).await? else {
        return Ok(None);
    };
    for shard in 1..one.shards {
        messages += depth(queue, Place::Work(&one.destination, shard)).await?.unwrap_or(0);
    }
    Ok(Some(messages))
}

/// How many messages wait there. What no program has declared is none.
pub(crate) async fn depth(
    queue: &impl Operate,
    place: Place<'_>,
) -> Result<Option<u64>, AdminError> {
    match queue.depth(place).await {
        Ok(depth) => Ok(Some(depth)),
        Err(QueueError::Missing(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
