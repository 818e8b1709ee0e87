//! `zentra status`: whether all is well, and if not, where. From what is remembered and what waits:
//! the newest deliveries, the queues, and the refused callbacks that were kept.

mod destination;
mod metrics;
mod show;
mod source;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use zentra_shared::clock::{self, Timestamp};
use zentra_shared::config::Config;
use zentra_shared::control::{AWAY, Control};
use zentra_shared::journal::Histories;
use zentra_shared::journal::list::{Listed, Query};
use zentra_shared::queue::{Operate, Place, QueueError};

use destination::Destination;
pub(crate) use metrics::metrics;
pub(crate) use show::show;
use source::Source;

use crate::backend::Backend;
use crate::failure::Failure;
use crate::refused;

/// So many deliveries are looked at, the newest ones.
const LOOK: usize = 5000;
/// So many are asked for at a time.
const PAGE: usize = 1000;
/// So many refused callbacks are looked at.
const REFUSED: usize = 10_000;
/// How long the broker is waited for where it is asked besides.
const BRIEFLY: Duration = Duration::from_secs(2);
/// What is as old as this says nothing of now.
const RECENT: Duration = Duration::from_secs(3600);

/// How all stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    at: Timestamp,
    parts: Vec<Part>,
    /// Of what was looked at.
    seen: Seen,
    sources: Vec<Source>,
    destinations: Vec<Destination>,
    /// Accepted events that no destination subscribes to.
    unrouted: Option<u64>,
}

/// Something that all depends on.
#[derive(Debug, Serialize, ToSchema)]
struct Part {
    name: &'static str,
    up: bool,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// The deliveries that it is judged by.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Seen {
    deliveries: usize,
    /// The time of the oldest of them.
    since: Option<Timestamp>,
    /// Whether that is all that is remembered.
    all: bool,
}

impl Status {
    /// Whether all parts are up.
    pub(crate) fn is_up(&self) -> bool {
        self.parts.iter().all(|part| part.up)
    }
}

/// Looks at everything. Where a part is away, what it would tell is left out.
pub(crate) async fn look(backend: &impl Backend, config: &Config) -> Result<Status, Failure> {
    let now = clock::now();
    let histories = backend.histories()?;
    let (listed, all, journal) = match newest(&histories).await {
        Ok((listed, all)) => (listed, all, None),
        Err(failure) => (Vec::new(), false, Some(failure.text().to_owned())),
    };
    let answers = journal.is_none();
    let journal = match journal {
        // Redis may forbid the question: then the workers show it.
        None => histories.refuses_claims().await.unwrap_or_default().map(claims_are_refused),
        away => away,
    };
    let mut parts = vec![Part { name: backend.journal(), up: journal.is_none(), problem: journal }];
    let (beats, orders) = match answers {
        true => (histories.workers().await?, histories.orders().await?),
        false => Default::default(),
    };
    let mut sources: Vec<Source> =
        config.sources.iter().map(|source| Source::new(source, &listed, now)).collect();
    let mut destinations = Vec::new();
    for destination in &config.destinations {
        let mut one = Destination::new(&destination.name, &listed, now);
        if answers {
            one.count_dead(&histories).await?;
        }
        // Workers can't tell of themselves otherwise.
        if parts[0].up {
            one.heard(&beats, orders.get(&destination.name));
        }
        destinations.push(one);
    }
    let mut unrouted = None;
    match backend.queue().await {
        Ok(queue) => {
            for one in &mut destinations {
                one.backlog = depth(&queue, Place::Work(&one.destination)).await?;
                one.queue_missing = one.backlog.is_none();
                if answers {
                    one.compare(depth(&queue, Place::Dead(&one.destination)).await?);
                }
            }
            unrouted = depth(&queue, Place::Unrouted).await?;
            let kept = refused::count(&queue, &config.seal, REFUSED, now.minus(RECENT)).await;
            let blocked = queue.blocked().map(|reason| {
                format!("takes no messages ({reason}): callbacks get 503, what waits is delivered")
            });
            backend.close(queue).await;
            let kept: BTreeMap<(String, String), u64> = kept?;
            for one in &mut sources {
                one.refused(&kept);
            }
            parts.push(Part { name: backend.carrier(), up: blocked.is_none(), problem: blocked });
        }
        Err(failure) => {
            let problem = Some(failure.text().to_owned());
            parts.push(Part { name: backend.carrier(), up: false, problem });
        }
    }
    // On one file, both are the same.
    parts.dedup_by(|a, b| a.name == b.name);
    if parts[0].up {
        let none = || format!("none has told of itself for {} s", AWAY.as_secs());
        let problem = beats.is_empty().then(none);
        parts.push(Part { name: "workers", up: problem.is_none(), problem });
    }
    sources.iter_mut().for_each(Source::judge);
    destinations.iter_mut().for_each(Destination::judge);
    let since = listed.last().map(|listed| listed.taken_up);
    let seen = Seen { deliveries: listed.len(), since, all };
    Ok(Status { at: now, parts, seen, sources, destinations, unrouted })
}

fn claims_are_refused(why: String) -> String {
    format!("claims are refused: {why}")
}

/// The destinations whose dead-letter queues have more letters than are known to be dead, and how many
/// more. None where the broker doesn't answer soon.
pub(crate) async fn unlisted_letters(
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
) -> Result<Vec<(String, u64)>, Failure> {
    let queue = backend.queue().await?;
    let (histories, mut all) = (backend.histories()?, Vec::new());
    for destination in config.destinations.iter().filter(|one| names.contains(&one.name)) {
        let mut one = Destination::new(&destination.name, &[], clock::now());
        one.count_dead(&histories).await?;
        one.compare(depth(&queue, Place::Dead(&one.destination)).await?);
        all.extend(
            one.unlisted_letters.filter(|count| *count > 0).map(|count| (one.destination, count)),
        );
    }
    backend.close(queue).await;
    Ok(all)
}

/// The newest deliveries, and whether those are all.
async fn newest(histories: &impl Histories) -> Result<(Vec<Listed>, bool), Failure> {
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

/// How many messages wait there. What no program has declared is none.
async fn depth(queue: &impl Operate, place: Place<'_>) -> Result<Option<u64>, Failure> {
    match queue.depth(place).await {
        Ok(depth) => Ok(Some(depth)),
        Err(QueueError::Missing(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
