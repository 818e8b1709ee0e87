//! `zentra job`: many dead letters at once. Planned, tried on a few, then run at a pace of its own;
//! halted by an operator or by what fails, and gone on with by whoever comes next.

mod attend;
mod command;
mod replay;
mod run;
mod show;
mod watch;

use std::collections::HashSet;
use std::time::Duration;

use rand::RngCore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use zentra_shared::clock;
use zentra_shared::config::Config;
use zentra_shared::control::Said;
use zentra_shared::job::{HOLD, Halt, Job, Jobs, Pace, Plan, Progress, Stage, Through};
use zentra_shared::journal::What;
use zentra_shared::shutdown;

pub(crate) use attend::attend;
pub(crate) use command::{JobCommand, command};
use replay::{Nothing, Replay};
use run::Runner;
use show::{show, show_all};

use crate::backend::Backend;
use crate::control::{Asked, Audited};
use crate::dead::{Filter, Pass, Requeue};
use crate::failure::Failure;

/// How long an operator waits for a runner to halt.
const HEARD: Duration = Duration::from_secs(3);
/// Why a job has halted.
const ASKED: &str = "an operator asked for it";
const POLL: Duration = Duration::from_millis(100);

/// What a job is to be.
#[derive(clap::Args)]
pub(crate) struct New {
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// All of them.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) replay: Replaying,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whether it goes through the archive.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Replaying {
    /// Goes through the archive, not the dead letters: replays what was never run, and what is dead or
    /// was drained.
    #[arg(long)]
    pub(crate) archive: bool,
    /// Only this event of it, by the provider's id or the identity; may be given again.
    #[arg(long = "event", value_name = "ID", requires = "archive")]
    pub(crate) ids: Vec<String>,
    /// Replays also what is delivered, and what is so old that nobody knows: once more, under the same
    /// idempotency key.
    #[arg(long, requires = "archive")]
    pub(crate) force: bool,
}

impl Replaying {
    fn words(&self) -> String {
        let ids = self.ids.iter().map(|id| format!("--event {id}"));
        let flags = [("--archive", self.archive), ("--force", self.force)];
        let flags = flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned());
        flags.chain(ids).collect::<Vec<_>>().join(" ")
    }
}

/// How a job goes about it.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct How {
    /// So many go first, and all else waits for what comes of them; 0: none.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=100))]
    pub(crate) canary: u32,
    /// At most so many a second; 0 is no bound.
    #[arg(long, default_value_t = 100)]
    pub(crate) rate: u32,
    /// It stops when more than this part of those that are watched failed, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 10,
          value_parser = clap::value_parser!(u8).range(..=100))]
    pub(crate) max_failures: u8,
}

impl From<How> for Pace {
    fn from(How { canary, rate, max_failures }: How) -> Self {
        Self { canary, rate, max_failures }
    }
}

/// Looks what there is to do, and keeps it as a job. Asked twice, it is the same job; one that has
/// begun is left as it is.
pub(crate) async fn plan(
    backend: &impl Backend,
    config: &Config,
    filter: &Filter,
    replay: &Replaying,
    how: How,
    asked: &Asked,
) -> Result<Job, Failure> {
    let words = [replay.words(), filter.words()];
    let words = words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ");
    let words = if words.is_empty() { "--all".to_owned() } else { words };
    let destinations = crate::destinations(config, filter.destination.clone())?;
    let histories = backend.histories()?;
    let same =
        |job: &&Job| !job.stage.is_over() && job.asked == words && job.destinations == destinations;
    let jobs = histories.jobs().await?;
    let known = jobs.iter().find(same).cloned();
    if let Some(begun) = known.as_ref().filter(|job| job.stage != Stage::Planned) {
        return Ok(begun.clone());
    }
    let made = asked.said();
    let id = known.map_or_else(name, |job| job.id);
    let at = made.at;
    let mut job = Job {
        id,
        made,
        asked: words.clone(),
        destinations: destinations.clone(),
        through: match replay {
            Replaying { archive: false, .. } => Through::DeadLetters,
            Replaying { ids, force, .. } => Through::Archive { ids: ids.clone(), force: *force },
        },
        scope: filter.scope(at),
        pace: how.into(),
        plan: Plan::default(),
        stage: Stage::Planned,
        only_canary: false,
        runs: 0,
        why: String::new(),
        progress: Progress::default(),
        at,
    };
    job.plan = look(backend, config, &job).await?;
    if job.plan.letters == 0 {
        let holds = |job: &&Job| {
            let here = |name| destinations.contains(name);
            job.stage.is_active() && job.destinations.iter().any(here)
        };
        let next = jobs.iter().find(holds).map_or_else(
            || match job.through {
                Through::DeadLetters => "See zentra dead list.".to_owned(),
                Through::Archive { .. } => {
                    "See zentra archive list; what is delivered is replayed \
                                            by --force alone."
                        .to_owned()
                }
            },
            |job| {
                format!("Job {0} holds those of its destination: see zentra job show {0}.", job.id)
            },
        );
        return Err(Failure::Asked(format!(
            "nothing fits {words}: there is nothing to run.\n{next}"
        )));
    }
    let audited = audited(&histories, "job plan", &job, asked.said());
    audited.run(keep(&histories, &job), |()| format!("{} letters", job.plan.letters)).await?;
    Ok(job)
}

async fn keep(histories: &impl Jobs, job: &Job) -> Result<(), Failure> {
    Ok(histories.keep_job(job).await?)
}

fn audited<'a, C>(control: &'a C, action: &'a str, job: &Job, said: Said) -> Audited<'a, C> {
    let on = format!("{} {}", job.id, job.asked);
    Audited { control: Some(control), action, on, said }
}

fn name() -> String {
    let mut random = [0; 4];
    rand::rng().fill_bytes(&mut random);
    hex::encode(random)
}

/// A look through the queues or the archive, which changes nothing.
async fn look(backend: &impl Backend, config: &Config, job: &Job) -> Result<Plan, Failure> {
    let (histories, queue) = (backend.histories()?, backend.queue().await?);
    let (histories, rate, dry_run) = (&histories, 0, true);
    let Job { destinations, scope, .. } = job;
    let found = match &job.through {
        Through::DeadLetters => {
            let what = What::Requeued { reason: String::new(), job: None };
            let (queue, by) = (&queue, "");
            let mut act = Requeue { histories, queue, config, by, what: &what, last: None };
            let pass = Pass {
                histories,
                queue,
                sealer: &config.seal,
                destinations: destinations.clone(),
                scope,
                keys: HashSet::new(),
                limit: usize::MAX,
                rate,
                dry_run,
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
    backend.close(queue).await;
    let tally = found?;
    let rate = job.pace.rate;
    let seconds = (rate > 0).then(|| tally.done.div_ceil(rate.into()));
    Ok(Plan { letters: tally.done, by: tally.by, oldest: tally.oldest, seconds })
}

/// The job of this name.
pub(crate) async fn find(jobs: &impl Jobs, id: &str) -> Result<Job, Failure> {
    jobs.job(id)
        .await?
        .ok_or_else(|| Failure::Asked(format!("there is no job {id}.\nSee zentra job list.")))
}

/// Runs a job until it halts or is done.
pub(crate) async fn run(
    backend: &impl Backend,
    config: &Config,
    id: &str,
    only_canary: bool,
    asked: &Asked,
) -> Result<Job, Failure> {
    let histories = backend.histories()?;
    let holder = holder(id);
    let Some(job) = begin(&histories, id, &holder, only_canary).await? else {
        return find(&histories, id).await;
    };
    // Told to stop, the job pauses.
    let stop = shutdown::on_signal().map_err(|error| Failure::Ours(error.to_string()))?;
    let destinations = job.destinations.clone();
    let on = audited(&histories, "job run", &job, asked.said());
    let deed = run_held(backend, config, job, &holder, &stop, Some(Stage::Paused));
    let done = on.run(deed, outcome).await;
    histories.let_go(&destinations, &holder).await?;
    done
}

/// Lets a job be run by whoever serves the API.
pub(crate) async fn release(
    backend: &impl Backend,
    id: &str,
    only_canary: bool,
    asked: &Asked,
) -> Result<Job, Failure> {
    let histories = backend.histories()?;
    let job = find(&histories, id).await?;
    if job.stage.is_active() {
        return Ok(job);
    }
    let holder = holder(id);
    let Some(job) = begin(&histories, id, &holder, only_canary).await? else { return Ok(job) };
    let released = Job { stage: Stage::Canary, why: String::new(), at: clock::now(), ..job };
    let on = audited(&histories, "job run", &released, asked.said());
    let done = on.run(keep(&histories, &released), |()| String::new()).await;
    histories.let_go(&released.destinations, &holder).await?;
    done.map(|()| released)
}

fn holder(id: &str) -> String {
    format!("{id} {}", name())
}

/// Takes a job's destinations, and what was wanted of its last runner back. None: it is over.
async fn begin(
    histories: &impl Jobs,
    id: &str,
    holder: &str,
    only_canary: bool,
) -> Result<Option<Job>, Failure> {
    let job = find(histories, id).await?;
    if job.stage.is_over() {
        return Ok(None);
    }
    taken(histories, &job, holder).await?;
    // Whoever held it may have come further.
    let mut job = find(histories, id).await?;
    if histories.asked_of_job(id).await? == Some(Halt::Cancel) {
        // Its last runner was killed before it heard of it.
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

/// Runs a job whose destinations are held; `stopped` is where it stands after `stop`.
async fn run_held(
    backend: &impl Backend,
    config: &Config,
    job: Job,
    holder: &str,
    stop: &CancellationToken,
    stopped: Option<Stage>,
) -> Result<Job, Failure> {
    let (histories, queue) = (backend.histories()?, backend.queue().await?);
    let (id, destinations) = (job.id.clone(), job.destinations.clone());
    let runner = Runner { histories: &histories, queue: &queue, config, holder, stop, stopped };
    let ran = runner.run(job).await;
    backend.close(queue).await;
    // What can't pass by itself halts it, unless another one has it by now: else whoever serves the
    // API would try for ever.
    if let Err(failure) = &ran
        && !failure.may_pass()
        && histories.hold(&destinations, holder).await?.is_none()
    {
        let mut job = find(&histories, &id).await?;
        let why = failure.text().lines().next().unwrap_or_default().to_owned();
        (job.stage, job.why, job.at) = (Stage::Stopped, why, clock::now());
        histories.keep_job(&job).await?;
    }
    ran
}

/// Takes a job's destinations. An earlier runner of the same job, which may have been killed, is
/// waited for until its time is up; another job isn't.
async fn taken(jobs: &impl Jobs, job: &Job, holder: &str) -> Result<(), Failure> {
    let until = Instant::now() + HOLD + HEARD;
    loop {
        let Some(other) = jobs.hold(&job.destinations, holder).await? else { return Ok(()) };
        let of = other.split(' ').next().unwrap_or_default();
        if of != job.id {
            return Err(Failure::Asked(format!(
                "job {of} works on the same destination just now.\nWait for its end, or see zentra \
                 job show {of}."
            )));
        }
        if Instant::now() > until {
            return Err(Failure::Asked(format!(
                "job {of} is run by another one just now.\nSee zentra job show {of}; halt it with \
                 zentra job pause {of}."
            )));
        }
        sleep(POLL).await;
    }
}

/// Has a job halt: at once if nobody runs it, else its runner hears it within a second.
pub(crate) async fn halt(
    backend: &impl Backend,
    id: &str,
    halt: Halt,
    asked: &Asked,
) -> Result<Job, Failure> {
    let histories = backend.histories()?;
    let job = find(&histories, id).await?;
    if job.stage.is_over() || (halt == Halt::Pause && !job.stage.is_active()) {
        return Ok(job);
    }
    let (action, stage) = match halt {
        Halt::Pause => ("job pause", Stage::Paused),
        Halt::Cancel => ("job cancel", Stage::Cancelled),
    };
    let deed = halted(&histories, job.clone(), halt, stage);
    audited(&histories, action, &job, asked.said()).run(deed, outcome).await
}

async fn halted(jobs: &impl Jobs, job: Job, halt: Halt, stage: Stage) -> Result<Job, Failure> {
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

/// In a few words.
fn outcome(job: &Job) -> String {
    let Job { stage, progress, plan, .. } = job;
    format!("{}, {} of {} re-queued", stage.as_str(), progress.requeued, plan.letters)
}
