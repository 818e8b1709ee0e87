//! Dead letters: list, show, requeue, release and drain.

mod act;
mod letters;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use bytes::Bytes;
use zentra_config::Config;
use zentra_core::clock;
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::{DeadReason, State};
use zentra_store::control::{Attribution, OperatorControl};
use zentra_store::delivery;
use zentra_store::journal::{Delivery, DeliveryStore, HistoryEvent};
use zentra_store::queue::{Message, Operate, Place, Walk};

use act::{Drain, export};

pub(crate) use act::Requeue;
pub use letters::PassReport;
pub(crate) use letters::{Letter, LetterAction, Pass};

use crate::audit::{Actor, Audited, looked};
use crate::backend::Backend;
use crate::deliveries;
use crate::error::{AdminError, ErrorCode};
use crate::filter::{self, DEFAULT_LETTERS, DEFAULT_RATE, Filter};
use crate::payload::shown;
use crate::progress::Progress;

/// A selection of letters, with limits.
#[derive(Clone, Debug)]
pub struct Letters {
    /// Events or deliveries. Empty: the filter selects.
    pub ids: Vec<String>,
    /// Must not be empty, unless there are ids or `all`.
    pub filter: Filter,
    /// Select all letters.
    pub all: bool,
    /// Maximum number of letters.
    pub limit: usize,
    /// Maximum number of letters per second; 0 disables the limit.
    pub rate: u32,
    /// Count only.
    pub dry_run: bool,
}

impl Default for Letters {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            filter: Filter::default(),
            all: false,
            limit: DEFAULT_LETTERS,
            rate: DEFAULT_RATE,
            dry_run: false,
        }
    }
}

impl Letters {
    /// A selection of these ids.
    pub fn of(ids: Vec<String>) -> Self {
        Self { limit: ids.len(), ids, ..Self::default() }
    }

    fn words(&self) -> String {
        let filter = self.filter.words();
        match (&self.ids[..], filter.as_str()) {
            ([], "") => "all".to_owned(),
            ([], _) => filter,
            (ids, _) => ids.join(" "),
        }
    }
}

/// A file that letters are appended to before they are removed.
#[derive(Clone, Debug)]
pub struct Export {
    pub path: PathBuf,
    /// Include redacted fields.
    pub unredacted: bool,
}

/// Result of an action.
pub struct Done {
    pub tally: PassReport,
    /// Delivery key and generation of the last one.
    pub last: Option<(String, u32)>,
}

/// A dead delivery and its letter.
pub struct DeadLetter {
    pub delivery: Delivery,
    /// The body. `None` while another operator holds the letter.
    pub body: Option<Bytes>,
}

/// The dead that the filter selects, oldest first, at most `limit` of each destination.
///
/// # Errors
/// [`ErrorCode::DestinationNotFound`], and those of the store.
pub async fn list(
    backend: &impl Backend,
    config: &Config,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<Delivery>, AdminError> {
    let histories = backend.histories();
    let (mut found, scope) = (Vec::new(), filter.scope(clock::now()));
    for destination in filter::destinations(config, filter.destination.as_deref())? {
        let wanted = |dead: &Delivery| {
            scope.takes(&dead.event, dead.reason) && scope.takes_error(Some(dead))
        };
        found.extend(histories.dead(&destination, limit, &wanted).await?);
    }
    Ok(found)
}

/// The one dead delivery of this name, with its letter.
///
/// # Errors
/// [`ErrorCode::EventNotFound`], [`ErrorCode::NotDead`], [`ErrorCode::AmbiguousId`], and those of store and broker.
pub async fn show(
    backend: &impl Backend,
    config: &Config,
    id: &str,
) -> Result<DeadLetter, AdminError> {
    let (histories, queue) = (backend.histories(), backend.queue().await?);
    let dead = DeadLetters::new(config, &histories, &queue, None)?;
    let delivery = dead.find(id).await?;
    let letter = dead.letter(&delivery.key).await?;
    Ok(DeadLetter { delivery, body: letter.map(|letter| letter.sealed.body) })
}

/// The bytes of a dead letter without what its source redacts, once the audit log has who looks.
///
/// # Errors
/// As [`show`], and [`ErrorCode::DeadLetterUnavailable`].
pub async fn body(
    backend: &impl Backend,
    config: &Config,
    id: &str,
    attribution: &Attribution,
) -> Result<Bytes, AdminError> {
    let (histories, queue) = (backend.histories(), backend.queue().await?);
    let dead = DeadLetters::new(config, &histories, &queue, None)?;
    let Delivery { key, event, .. } = dead.find(id).await?;
    looked(&histories, "dead show body", key.as_str(), attribution).await?;
    let letter = dead.letter(&key).await?.ok_or_else(|| unavailable(&key))?;
    Ok(shown(config, &event.source, &letter.sealed.body))
}

/// Sends dead letters back to their work queues, in their order: as [`HistoryEvent::Requeued`], or
/// [`HistoryEvent::Released`] for suspected replays and conflicts. Each passes the same seal, claim and attempt as at
/// first, under the same idempotency key.
///
/// # Errors
/// [`ErrorCode::NothingSelected`], those of [`show`] for each id, [`ErrorCode::ReleaseRequired`],
/// [`ErrorCode::ReleaseNotApplicable`], [`ErrorCode::DeadLetterUnavailable`].
pub async fn requeue(
    backend: &impl Backend,
    config: &Config,
    letters: &Letters,
    what: &HistoryEvent,
    by: &str,
    progress: &dyn Progress,
) -> Result<Done, AdminError> {
    selected(letters)?;
    let (histories, queue) = (backend.histories(), backend.queue().await?);
    let dead = DeadLetters::new(config, &histories, &queue, letters.filter.destination.as_deref())?;
    let (action, why) = match what {
        HistoryEvent::Released { reason } => ("event release", reason.as_str()),
        HistoryEvent::Requeued { reason, .. } => ("dead requeue", reason.as_str()),
        _ => ("dead requeue", ""),
    };
    let result = |done: &Done| format!("{} of {}", done.tally.done, done.tally.looked);
    let deed = dead.requeue(letters, what, by, progress);
    let actor = Actor { name: by.to_owned(), reason: why.to_owned() };
    audited(&histories, action, letters, &actor).run(deed, result).await
}

/// Takes dead letters out of their queues for good, after an export if one is requested. A drained
/// letter can't be requeued; a job can replay it from the archive.
///
/// # Errors
/// As [`requeue`], and [`ErrorCode::FileUnusable`].
pub async fn drain(
    backend: &impl Backend,
    config: &Config,
    letters: &Letters,
    export: Option<Export>,
    actor: &Actor,
    progress: &dyn Progress,
) -> Result<PassReport, AdminError> {
    selected(letters)?;
    let (histories, queue) = (backend.histories(), backend.queue().await?);
    let dead = DeadLetters::new(config, &histories, &queue, letters.filter.destination.as_deref())?;
    let result = |tally: &PassReport| format!("{} of {}", tally.done, tally.looked);
    let deed = dead.drain(letters, export, actor, progress);
    audited(&histories, "dead drain", letters, actor).run(deed, result).await
}

/// The delivery keys of dead letters that can be requeued.
///
/// # Errors
/// Those of [`show`] for each id, and [`ErrorCode::ReleaseRequired`].
pub(crate) async fn requeueable(
    backend: &impl Backend,
    config: &Config,
    ids: &[String],
) -> Result<HashSet<DeliveryKey>, AdminError> {
    let (histories, queue) = (backend.histories(), backend.queue().await?);
    let what = HistoryEvent::Requeued { reason: String::new(), job: None };
    DeadLetters::new(config, &histories, &queue, None)?.keys(ids, Some(&what)).await
}

fn selected(letters: &Letters) -> Result<(), AdminError> {
    match letters.ids.is_empty() && !letters.all && letters.filter.is_empty() {
        true => Err(nothing_selected()),
        false => Ok(()),
    }
}

pub(crate) fn nothing_selected() -> AdminError {
    AdminError::new(ErrorCode::NothingSelected, "no dead letters are selected.")
        .hint("Give IDs or a filter, or select all.")
}

/// The error for a dead letter that isn't in its queue.
pub fn unavailable(key: &DeliveryKey) -> AdminError {
    let message = format!("{key} is dead, but its message is not in the dead-letter queue.");
    AdminError::new(ErrorCode::DeadLetterUnavailable, message)
        .hint("Another operator may hold it: retry later.")
        .about(key.as_str())
}

fn audited<'a, C: OperatorControl>(
    control: &'a C,
    action: &'a str,
    letters: &Letters,
    actor: &Actor,
) -> Audited<'a, C> {
    let control = (!letters.dry_run).then_some(control);
    Audited { control, action, on: letters.words(), attribution: actor.attribution() }
}

/// What these use cases share.
struct DeadLetters<'a, H, Q> {
    histories: &'a H,
    queue: &'a Q,
    config: &'a Config,
    /// Each destination with each source.
    pairs: Vec<(&'a str, &'a str)>,
    /// The selected destinations.
    destinations: Vec<String>,
}

impl<'a, H, Q> DeadLetters<'a, H, Q> {
    fn new(
        config: &'a Config,
        histories: &'a H,
        queue: &'a Q,
        destination: Option<&str>,
    ) -> Result<Self, AdminError> {
        let destinations = filter::destinations(config, destination)?;
        Ok(Self { histories, queue, config, pairs: config.pairs(), destinations })
    }
}

impl<H: DeliveryStore, Q: Operate> DeadLetters<'_, H, Q> {
    async fn requeue(
        &self,
        letters: &Letters,
        what: &HistoryEvent,
        by: &str,
        progress: &dyn Progress,
    ) -> Result<Done, AdminError> {
        let keys = self.keys(&letters.ids, Some(what)).await?;
        let (histories, queue, config) = (self.histories, self.queue, self.config);
        let mut act = Requeue { histories, queue, config, by, what, last: None };
        let tally = self.run(letters, keys, &mut act, progress).await?;
        Ok(Done { tally, last: act.last })
    }

    async fn drain(
        &self,
        letters: &Letters,
        to: Option<Export>,
        actor: &Actor,
        progress: &dyn Progress,
    ) -> Result<PassReport, AdminError> {
        let keys = self.keys(&letters.ids, None).await?;
        let to = to.filter(|_| !letters.dry_run);
        let file = to.as_ref().map(|to| export(&to.path)).transpose()?;
        let redacts = to.filter(|to| !to.unredacted).map(|_| self.config);
        let Actor { name: by, reason } = actor;
        let histories = self.histories;
        let mut act = Drain { histories, by, reason, file, redacts, waiting: Vec::new() };
        self.run(letters, keys, &mut act, progress).await
    }

    /// The one dead delivery with this id.
    async fn find(&self, id: &str) -> Result<Delivery, AdminError> {
        one_dead(deliveries::find(self.histories, &self.pairs, id).await?, id)
    }

    /// The body of a dead letter.
    async fn letter(&self, key: &DeliveryKey) -> Result<Option<Message>, AdminError> {
        let destination = key.destination();
        let mut walk = self.queue.walk(Place::Dead(destination)).await?;
        while let Some((message, _held)) = walk.next().await? {
            if delivery::open(&self.config.seal, destination, &message.sealed).key == *key {
                walk.finish().await?;
                return Ok(Some(message));
            }
        }
        walk.finish().await?;
        Ok(None)
    }

    async fn run(
        &self,
        letters: &Letters,
        keys: HashSet<DeliveryKey>,
        act: &mut impl LetterAction,
        progress: &dyn Progress,
    ) -> Result<PassReport, AdminError> {
        let named = keys.len();
        let destinations = match keys.is_empty() {
            true => self.destinations.clone(),
            false => {
                let of_keys: BTreeSet<_> = keys.iter().map(|key| key.destination()).collect();
                of_keys.into_iter().map(str::to_owned).collect()
            }
        };
        let scope = letters.filter.scope(clock::now());
        let pass = Pass {
            histories: self.histories,
            queue: self.queue,
            sealer: &self.config.seal,
            destinations,
            scope: &scope,
            keys,
            limit: letters.limit,
            rate: letters.rate,
            dry_run: letters.dry_run,
            progress,
        };
        let tally = pass.run(act).await?;
        match tally.done < named as u64 && letters.limit >= named {
            true => {
                let message = format!(
                    "{} of {named} dead letters were found in the dead-letter queues.",
                    tally.done
                );
                Err(AdminError::new(ErrorCode::DeadLetterUnavailable, message)
                    .hint("Another operator may hold the others: retry later."))
            }
            false => Ok(tally),
        }
    }

    /// The deliveries with these ids; each is dead.
    async fn keys(
        &self,
        ids: &[String],
        what: Option<&HistoryEvent>,
    ) -> Result<HashSet<DeliveryKey>, AdminError> {
        let mut keys = HashSet::new();
        for id in ids {
            let delivery = self.find(id).await?;
            fits(what, &delivery)?;
            keys.insert(delivery.key);
        }
        Ok(keys)
    }
}

/// Events that were set apart are released, all others are requeued.
fn fits(what: Option<&HistoryEvent>, delivery: &Delivery) -> Result<(), AdminError> {
    let reason = delivery.reason.filter(|reason| reason.is_released());
    let key = &delivery.key;
    let found = match reason {
        Some(DeadReason::Conflict) => {
            "a conflict: another body was received before under the same ID"
        }
        _ => "a suspected replay: the same signed bytes were received before",
    };
    match (what, reason) {
        (Some(HistoryEvent::Requeued { .. }), Some(_)) => {
            Err(AdminError::new(ErrorCode::ReleaseRequired, format!("{key} is {found}."))
                .hint("If it is genuine, release it.")
                .about(key.as_str()))
        }
        (Some(HistoryEvent::Released { .. }), None) => {
            let message = format!("{key} is dead, but neither a suspected replay nor a conflict.");
            Err(AdminError::new(ErrorCode::ReleaseNotApplicable, message)
                .hint("Requeue it.")
                .about(key.as_str()))
        }
        _ => Ok(()),
    }
}

fn one_dead(found: Vec<Delivery>, id: &str) -> Result<Delivery, AdminError> {
    let (mut dead, alive): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|delivery| delivery.record.state == State::Dead);
    match (dead.pop(), dead.as_slice()) {
        (Some(only), []) => Ok(only),
        (Some(last), others) => {
            let keys = others.iter().chain([&last]).map(|delivery| format!("  {}", delivery.key));
            let keys = keys.collect::<Vec<_>>().join("\n");
            let message = format!("{id} is dead at several destinations:\n{keys}");
            Err(AdminError::new(ErrorCode::AmbiguousId, message)
                .hint("Give one of these delivery keys.")
                .about(id))
        }
        (None, _) => {
            let states = alive.iter().map(|d| format!("  {}: {}", d.key, deliveries::status(d)));
            let states = states.collect::<Vec<_>>().join("\n");
            let message = format!("{id} is not dead, so there is nothing to requeue:\n{states}");
            Err(AdminError::new(ErrorCode::NotDead, message).about(id))
        }
    }
}
