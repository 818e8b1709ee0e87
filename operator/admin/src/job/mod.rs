//! Jobs: many dead letters or archived events. A job is planned, tried with a canary, and run at a
//! rate. An operator or failures stop it, and any runner can continue it.

mod attend;
mod replay;
mod run;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use rand::RngCore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use zentra_config::Config;
use zentra_core::clock;
use zentra_core::event::DeliveryKey;
use zentra_store::control::Attribution;
use zentra_store::job::{HOLD, Halt, Job, Jobs, Pace, Plan, Progress, Stage, Through};
use zentra_store::journal::HistoryEvent;

pub use attend::attend;
use replay::{Nothing, Replay};
use run::Runner;

use crate::audit::{Actor, Audited};
use crate::backend::Backend;
use crate::dead::{Pass, Requeue, nothing_selected, requeueable};
use crate::error::{AdminError, ErrorCode};
use crate::filter::{self, Filter};
use crate::progress::Progress as Shows;

/// How long an operator waits for a runner to stop.
const HEARD: Duration = Duration::from_secs(3);
/// Reason of a stop by an operator.
const ASKED: &str = "an operator asked for it";
const POLL: Duration = Duration::from_millis(100);

/// A new job.
#[derive(Clone, Debug, Default)]
pub struct New {
    /// Only these, by the provider's id or the identity; dead letters also by delivery key. Empty:
    /// the filter selects.
    pub ids: Vec<String>,
    /// Must not be empty, unless there are ids or `all`.
    pub filter: Filter,
    /// Select all letters.
    pub all: bool,
    /// Replay from the archive; `None`: dead letters.
    pub replay: Option<Replaying>,
    /// Canary, rate and failure limit.
    pub pace: NewPace,
}

/// A replay from the archive: events that were never processed, are dead, or were drained.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replaying {
    /// Include delivered events, and events older than the retention, under the same idempotency
    /// key.
    pub force: bool,
}

impl New {
    fn words(&self) -> String {
        const NAMED: usize = 3;
        let flags = match self.replay {
            None => &[][..],
            Some(Replaying { force: false }) => &["archive"],
            Some(Replaying { force: true }) => &["archive", "force"],
        };
        let flags = flags.iter().map(ToString::to_string);
        let ids = self.ids.iter().take(NAMED).map(|id| format!("event={id}"));
        let more = self.ids.len().checked_sub(NAMED).filter(|more| *more > 0);
        let more = more.map(|more| format!("and {more} more events"));
        let filter = Some(self.filter.words()).filter(|words| !words.is_empty());
        let words: Vec<String> = flags.chain(ids).chain(more).chain(filter).collect();
        if words.is_empty() { "all".to_owned() } else { words.join(" ") }
    }
}

/// Canary, rate and failure limit of a new job.
#[derive(Clone, Copy, Debug)]
pub struct NewPace {
    /// Number of canary letters to send first, 0 to 100; 0 disables the canary.
    pub canary: u32,
    /// Maximum number of letters per second; 0 disables the limit.
    pub rate: u32,
    /// Stop when more than this percentage of the watched deliveries fail.
    pub max_failures: u8,
}

impl Default for NewPace {
    fn default() -> Self {
        Self { canary: 10, rate: filter::DEFAULT_RATE, max_failures: 10 }
    }
}

impl From<NewPace> for Pace {
    fn from(NewPace { canary, rate, max_failures }: NewPace) -> Self {
        Self { canary, rate, max_failures }
    }
}

/// Counts what there is to do, and keeps it as a job; changes nothing else. Asked twice, it is the same job; one
/// that has begun is left as it is.
///
/// # Errors
/// [`ErrorCode::NothingSelected`], [`ErrorCode::NothingMatches`], [`ErrorCode::DestinationNotFound`],
/// [`ErrorCode::ArchiveDisabled`], for ids of dead letters those of [`crate::dead::requeue`], and those of store and
/// broker.
pub async fn plan(
    backend: &impl Backend,
    config: &Config,
    new: &New,
    actor: &Actor,
    progress: &dyn Shows,
) -> Result<Job, AdminError> {
    let New { ids, filter, all, replay, pace } = new;
    if !all && filter.is_empty() && ids.is_empty() {
        return Err(nothing_selected());
    }
    let words = new.words();
    let mut destinations = filter::destinations(config, filter.destination.as_deref())?;
    let through = match replay {
        Some(Replaying { force }) => Through::Archive { ids: ids.clone(), force: *force },
        None => {
            let keys: BTreeSet<_> = requeueable(backend, config, ids).await?.into_iter().collect();
            let has = |name: &String| keys.iter().any(|key| key.destination() == name);
            destinations.retain(|name| keys.is_empty() || has(name));
            match keys.is_empty() && filter.error.is_none() {
                true => Through::DeadLetters,
                false => Through::SelectedDeadLetters {
                    ids: keys.iter().map(ToString::to_string).collect(),
                },
            }
        }
    };
    let histories = backend.histories();
    let same = |job: &&Job| {
        !job.stage.is_over()
            && job.asked == words
            && job.destinations == destinations
            && job.through == through
    };
    let jobs = histories.jobs().await?;
    let known = jobs.items.iter().find(same).cloned();
    if let Some(begun) = known.as_ref().filter(|job| job.stage != Stage::Planned) {
        return Ok(begun.clone());
    }
    let made = actor.attribution();
    let id = known.map_or_else(name, |job| job.id);
    let at = made.at;
    let mut job = Job {
        id,
        made,
        asked: words.clone(),
        destinations: destinations.clone(),
        through,
        scope: filter.scope(at),
        pace: (*pace).into(),
        plan: Plan::default(),
        stage: Stage::Planned,
        only_canary: false,
        runs: 0,
        why: String::new(),
        progress: Progress::default(),
        at,
    };
    job.plan = look(backend, config, &job, progress).await?;
    if job.plan.letters == 0 {
        let holds = |job: &&Job| {
            let here = |name| destinations.contains(name);
            job.stage.is_active() && job.destinations.iter().any(here)
        };
        let message = format!("nothing matches {words}: there is nothing to run.");
        let error = AdminError::new(ErrorCode::NothingMatches, message);
        return Err(match (jobs.items.iter().find(holds), &job.through) {
            (Some(job), _) => error
                .hint(format!("Job {} holds dead letters of its destination.", job.id))
                .about(&job.id),
            (None, Through::DeadLetters | Through::SelectedDeadLetters { .. }) => error,
            (None, Through::Archive { .. }) => {
                error.hint("Delivered events are replayed only with force.")
            }
        });
    }
    let audited = audited(&histories, "job plan", &job, actor.attribution());
    audited.run(keep(&histories, &job), |()| format!("{} letters", job.plan.letters)).await?;
    Ok(job)
}

async fn keep(histories: &impl Jobs, job: &Job) -> Result<(), AdminError> {
    Ok(histories.keep_job(job).await?)
}

fn audited<'a, C>(
    control: &'a C,
    action: &'a str,
    job: &Job,
    attribution: Attribution,
) -> Audited<'a, C> {
    let on = format!("{} {}", job.id, job.asked);
    Audited { control: Some(control), action, on, attribution }
}

fn name() -> String {
    let mut random = [0; 4];
    rand::rng().fill_bytes(&mut random);
    hex::encode(random)
}

/// The delivery keys of a stored selection. Empty: the filter selects.
///
/// # Errors
/// [`ErrorCode::Internal`] for what is no key: without it, more would be selected.
fn keys(through: &Through) -> Result<HashSet<DeliveryKey>, AdminError> {
    let Through::SelectedDeadLetters { ids } = through else { return Ok(HashSet::new()) };
    let key = |id: &String| {
        let unreadable = || {
            AdminError::new(
                ErrorCode::Internal,
                format!("the job names {id}, which is no delivery key."),
            )
        };
        DeliveryKey::parse(id).ok_or_else(unreadable)
    };
    ids.iter().map(key).collect()
}

/// Counts letters or archived events, and changes nothing.
async fn look(
    backend: &impl Backend,
    config: &Config,
    job: &Job,
    progress: &dyn Shows,
) -> Result<Plan, AdminError> {
    let (histories, queue) = (backend.histories(), backend.queue().await?);
    let (histories, rate, dry_run) = (&histories, 0, true);
    let Job { destinations, scope, .. } = job;
    let found = match &job.through {
        Through::DeadLetters | Through::SelectedDeadLetters { .. } => {
            let what = HistoryEvent::Requeued { reason: String::new(), job: None };
            let (queue, by) = (&queue, "");
            let mut act = Requeue { histories, queue, config, by, what: &what, last: None };
            let pass = Pass {
                histories,
                queue,
                sealer: &config.seal,
                destinations: destinations.clone(),
                scope,
                keys: keys(&job.through)?,
                limit: usize::MAX,
                rate,
                dry_run,
                progress,
            };
            pass.run(&mut act).await
        }
        Through::Archive { ids, force } => {
            let replay = Replay {
                histories,
                queue: &queue,
                config,
                destinations,
                scope,
                ids,
                force: *force,
                planned: job.made.at,
                job: &job.id,
                rate,
                dry_run,
            };
            replay.run(&mut Nothing).await
        }
    };
    let tally = found?;
    let rate = job.pace.rate;
    let seconds = (rate > 0).then(|| tally.done.div_ceil(rate.into()));
    Ok(Plan { letters: tally.done, by: tally.by, oldest: tally.oldest, seconds })
}

/// The job of this name.
///
/// # Errors
/// [`ErrorCode::JobNotFound`].
pub async fn find(jobs: &impl Jobs, id: &str) -> Result<Job, AdminError> {
    let unknown =
        || AdminError::new(ErrorCode::JobNotFound, format!("unknown job {id}.")).about(id);
    jobs.job(id).await?.ok_or_else(unknown)
}

/// Runs a job until it halts or is done; after `stop` it pauses.
///
/// # Errors
/// [`ErrorCode::JobNotFound`], [`ErrorCode::JobBusy`], and those of store and broker.
pub async fn run(
    backend: &impl Backend,
    config: &Config,
    id: &str,
    only_canary: bool,
    actor: &Actor,
    stop: &CancellationToken,
    progress: &dyn Shows,
) -> Result<Job, AdminError> {
    let histories = backend.histories();
    let holder = holder(id);
    let Some(job) = begin(&histories, id, &holder, only_canary).await? else {
        return find(&histories, id).await;
    };
    let destinations = job.destinations.clone();
    let on = audited(&histories, "job run", &job, actor.attribution());
    let deed = run_held(backend, config, job, &holder, stop, Some(Stage::Paused), progress);
    let done = on.run(deed, outcome).await;
    histories.let_go(&destinations, &holder).await?;
    done
}

/// Lets a job be run by whoever serves the API.
///
/// # Errors
/// As [`run`].
pub async fn release(
    backend: &impl Backend,
    id: &str,
    only_canary: bool,
    actor: &Actor,
) -> Result<Job, AdminError> {
    let histories = backend.histories();
    let job = find(&histories, id).await?;
    if job.stage.is_active() {
        return Ok(job);
    }
    let holder = holder(id);
    let Some(job) = begin(&histories, id, &holder, only_canary).await? else { return Ok(job) };
    let released = Job { stage: Stage::Canary, why: String::new(), at: clock::now(), ..job };
    let on = audited(&histories, "job run", &released, actor.attribution());
    let done = on.run(keep(&histories, &released), |()| String::new()).await;
    histories.let_go(&released.destinations, &holder).await?;
    done.map(|()| released)
}

fn holder(id: &str) -> String {
    format!("{id} {}", name())
}

/// Holds a job's destinations, and removes the request to its last runner. `None`: the job is over.
async fn begin(
    histories: &impl Jobs,
    id: &str,
    holder: &str,
    only_canary: bool,
) -> Result<Option<Job>, AdminError> {
    let job = find(histories, id).await?;
    if job.stage.is_over() {
        return Ok(None);
    }
    taken(histories, &job, holder).await?;
    // The last holder may have progressed.
    let mut job = find(histories, id).await?;
    if histories.asked_of_job(id).await? == Some(Halt::Cancel) {
        // Its last runner was killed before it read the request.
        (job.stage, job.why) = (Stage::Cancelled, ASKED.into());
        histories.keep_job(&job).await?;
    }
    if job.stage.is_over() {
        histories.let_go(&job.destinations, holder).await?;
        return Ok(None);
    }
    histories.ask_job(id, None).await?;
    job.only_canary = only_canary;
    Ok(Some(job))
}

/// Runs a job whose destinations are held. `stopped` is its stage after `stop`.
async fn run_held(
    backend: &impl Backend,
    config: &Config,
    job: Job,
    holder: &str,
    stop: &CancellationToken,
    stopped: Option<Stage>,
    progress: &dyn Shows,
) -> Result<Job, AdminError> {
    let (histories, queue) = (backend.histories(), backend.queue().await?);
    let (id, destinations) = (job.id.clone(), job.destinations.clone());
    let (histories, queue) = (&histories, &queue);
    let runner = Runner { histories, queue, config, holder, stop, stopped, progress };
    let ran = runner.run(job).await;
    // A permanent error stops the job, unless another runner has it by now. Otherwise the server
    // would retry without end.
    if let Err(failure) = &ran
        && !failure.code.is_ours()
        && histories.hold(&destinations, holder).await?.is_none()
    {
        let mut job = find(histories, &id).await?;
        let why = failure.message.lines().next().unwrap_or_default().to_owned();
        (job.stage, job.why, job.at) = (Stage::Stopped, why, clock::now());
        histories.keep_job(&job).await?;
    }
    ran
}

/// Holds a job's destinations. Waits for an earlier runner of the same job until its hold expires;
/// doesn't wait for another job.
async fn taken(jobs: &impl Jobs, job: &Job, holder: &str) -> Result<(), AdminError> {
    let until = Instant::now() + HOLD + HEARD;
    loop {
        let Some(other) = jobs.hold(&job.destinations, holder).await? else { return Ok(()) };
        let of = other.split(' ').next().unwrap_or_default();
        if of != job.id {
            let message = format!("job {of} is working on the same destination.");
            return Err(AdminError::new(ErrorCode::JobBusy, message)
                .hint("Wait until it ends.")
                .about(of));
        }
        if Instant::now() > until {
            let message = format!("another process is running job {of}.");
            return Err(AdminError::new(ErrorCode::JobBusy, message)
                .hint("Pause it first.")
                .about(of));
        }
        sleep(POLL).await;
    }
}

/// Has a job halt: at once if nobody runs it, else its runner hears it within a second.
///
/// # Errors
/// [`ErrorCode::JobNotFound`], and those of the store.
pub async fn halt(
    backend: &impl Backend,
    id: &str,
    halt: Halt,
    actor: &Actor,
) -> Result<Job, AdminError> {
    let histories = backend.histories();
    let job = find(&histories, id).await?;
    if job.stage.is_over() || (halt == Halt::Pause && !job.stage.is_active()) {
        return Ok(job);
    }
    let (action, stage) = match halt {
        Halt::Pause => ("job pause", Stage::Paused),
        Halt::Cancel => ("job cancel", Stage::Cancelled),
    };
    let deed = halted(&histories, job.clone(), halt, stage);
    audited(&histories, action, &job, actor.attribution()).run(deed, outcome).await
}

async fn halted(jobs: &impl Jobs, job: Job, halt: Halt, stage: Stage) -> Result<Job, AdminError> {
    jobs.ask_job(&job.id, Some(halt)).await?;
    let (until, holder) = (Instant::now() + HEARD, holder(&job.id));
    loop {
        let now = find(jobs, &job.id).await?;
        if !now.stage.is_active() && now.stage == stage || now.stage.is_over() {
            return Ok(now);
        }
        if jobs.hold(&job.destinations, &holder).await?.is_none() {
            let mut now = find(jobs, &job.id).await?;
            if !now.stage.is_over() {
                (now.stage, now.why) = (stage, ASKED.into());
                now.at = clock::now();
                jobs.keep_job(&now).await?;
            }
            jobs.let_go(&job.destinations, &holder).await?;
            return Ok(now);
        }
        if Instant::now() > until {
            return Ok(now);
        }
        sleep(POLL).await;
    }
}

/// The result in a few words.
fn outcome(job: &Job) -> String {
    let Job { stage, progress, plan, .. } = job;
    format!("{}, {} of {} requeued", stage.as_str(), progress.requeued, plan.letters)
}
