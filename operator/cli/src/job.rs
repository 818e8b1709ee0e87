//! `zentra job`.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use zentra_admin::Backend;
use zentra_admin::filter::DEFAULT_RATE;
use zentra_admin::job::{self, NewPace, Replaying};
use zentra_admin::list::List;
use zentra_admin::progress::Progress as _;
use zentra_admin::{AdminError, ErrorCode};
use zentra_config::Config;
use zentra_store::job::{Halt, Job, Jobs, Progress, Stage};
use zentra_telemetry::shutdown;

use crate::actor::ActorArgs;
use crate::dead::{FilterArgs, UNSUITED};
use crate::failure::Failure;
use crate::progress::Bar;
use crate::table;
use crate::text::{self, duration, print_json, show_newer};

#[derive(Subcommand)]
pub(crate) enum JobCommand {
    /// Plan a job: count the selected dead letters or archived events, with their kinds and age,
    /// and store the selection. Changes nothing else. The same plan twice is the same job.
    Plan(New),
    /// Run a job: the canary first, then the rest at the job's rate. It stops when too many
    /// deliveries fail. A killed job continues when it is run again. Exit status 1 if it stopped.
    Run {
        #[command(flatten)]
        args: JobArgs,
        /// Pause after the canary.
        #[arg(long)]
        only_canary: bool,
    },
    /// Pause a job, within a second. `zentra job run` continues it.
    Pause(JobArgs),
    /// Cancel a job. Letters that it has requeued stay requeued.
    Cancel(JobArgs),
    /// List jobs, newest first.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a job: its plan and progress.
    Show {
        /// The id, from the list.
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A control action on a job.
#[derive(clap::Args)]
pub(crate) struct JobArgs {
    /// The id, from the list.
    id: String,
    #[command(flatten)]
    actor: ActorArgs,
    /// Print the resulting state as JSON.
    #[arg(long)]
    json: bool,
}

/// What a job does.
#[derive(clap::Args)]
pub(crate) struct New {
    #[command(flatten)]
    filter: FilterArgs,
    /// Select all letters.
    #[arg(long)]
    all: bool,
    /// Replay from the archive instead: events that were never processed, are dead, or were
    /// drained.
    #[arg(long)]
    archive: bool,
    /// Only this event, by the provider's id or the identity; a dead letter also by its delivery
    /// key. Can be repeated.
    #[arg(long = "event", value_name = "ID")]
    ids: Vec<String>,
    /// Replay delivered events too, and events older than the retention, under the same idempotency
    /// key.
    #[arg(long, requires = "archive")]
    force: bool,
    /// Number of canary letters to send first (0 disables the canary).
    #[arg(long, default_value_t = NewPace::default().canary,
          value_parser = clap::value_parser!(u32).range(..=100))]
    canary: u32,
    /// Maximum number of letters per second (0 disables the limit).
    #[arg(long, default_value_t = DEFAULT_RATE)]
    rate: u32,
    /// Stop when more than this percentage of the watched deliveries fail.
    #[arg(long, value_name = "PERCENT", default_value_t = NewPace::default().max_failures,
          value_parser = clap::value_parser!(u8).range(..=100))]
    max_failures: u8,
    #[command(flatten)]
    actor: ActorArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: JobCommand,
) -> Result<(), Failure> {
    let (job, json) = match command {
        JobCommand::Plan(asked) => {
            let New { filter, all, archive, ids, force, canary, rate, max_failures, .. } = asked;
            let replay = archive.then_some(Replaying { force });
            let pace = NewPace { canary, rate, max_failures };
            let new = job::New { ids, filter: filter.into(), all, replay, pace };
            let bar = Bar::new();
            let job = job::plan(backend, config, &new, &asked.actor.into(), &bar).await;
            bar.done();
            (job?, asked.json)
        }
        JobCommand::Run { args: JobArgs { id, actor, json }, only_canary } => {
            // Told to stop, the job pauses.
            let (stop, bar) = (shutdown::on_signal()?, Bar::new());
            let actor = actor.into();
            let job = job::run(backend, config, &id, only_canary, &actor, &stop, &bar).await;
            bar.done();
            let job = job?;
            tell(&job, json, &mut text::stdout())?;
            return stopped(&job);
        }
        JobCommand::Pause(JobArgs { id, actor, json }) => {
            (job::halt(backend, &id, Halt::Pause, &actor.into()).await?, json)
        }
        JobCommand::Cancel(JobArgs { id, actor, json }) => {
            (job::halt(backend, &id, Halt::Cancel, &actor.into()).await?, json)
        }
        JobCommand::Show { id, json } => (job::find(&backend.histories(), &id).await?, json),
        JobCommand::List { json } => {
            let jobs = backend.histories().jobs().await?;
            let mut out = text::stdout();
            return match json {
                true => print_json(&List::from(jobs), &mut out),
                false => {
                    show_newer(&jobs.newer);
                    Ok(show_all(&jobs.items, &mut out)?)
                }
            };
        }
    };
    tell(&job, json, &mut text::stdout())
}

fn tell(job: &Job, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    match json {
        true => print_json(job, out)?,
        false => show(job, out)?,
    }
    Ok(())
}

/// An error if the job stopped.
fn stopped(job: &Job) -> Result<(), Failure> {
    match job.stage {
        Stage::Stopped => {
            let message = format!("job {} has stopped: {}.", job.id, job.why);
            Err(AdminError::new(ErrorCode::JobStopped, message).about(&job.id).into())
        }
        _ => Ok(()),
    }
}

/// Prints one job.
fn show(job: &Job, out: &mut impl Write) -> std::io::Result<()> {
    let Job { id, made, asked, destinations, pace, plan, stage, why, progress, .. } = job;
    let because = match made.because.as_str() {
        "" => String::new(),
        because => format!(": {because}"),
    };
    writeln!(out, "job          {id}, planned at {} by {}{because}", made.at, made.by)?;
    writeln!(out, "letters      {asked}, at {}", destinations.join(", "))?;
    let time = plan.seconds.map_or_else(String::new, |seconds| {
        format!(", in about {}", duration(Duration::from_secs(seconds)))
    });
    writeln!(out, "plan         {} letters{time}", plan.letters)?;
    for (of, count) in &plan.by {
        writeln!(out, "             {count:>7}  {of}")?;
    }
    if let Some(oldest) = plan.oldest {
        writeln!(out, "             the oldest was received at {oldest}")?;
    }
    let rate = match pace.rate {
        0 => "without a limit".to_owned(),
        rate => format!("{rate} per second"),
    };
    writeln!(
        out,
        "pace         a canary of {}, then {rate}; stops when more than {} % fail",
        pace.canary, pace.max_failures
    )?;
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    writeln!(out, "stage        {}{why}", stage.as_str())?;
    let Progress { requeued, delivered, failed, .. } = progress;
    let Progress { again, unsuited, busy, leftover, forgotten, .. } = progress;
    writeln!(out, "requeued    {requeued}; watched: {delivered} delivered, {failed} failed")?;
    for (count, words) in [
        (again, "were dead-lettered again, and left"),
        (unsuited, UNSUITED),
        (busy, "left: a worker was processing them"),
        (leftover, "were handled before"),
        (forgotten, "left: older than the retention, so they may have been delivered (--force)"),
    ] {
        if *count > 0 {
            writeln!(out, "             {count} {words}")?;
        }
    }
    match stage {
        Stage::Planned => writeln!(out, "nothing was changed; run it with zentra job run {id}"),
        Stage::Paused | Stage::Stopped => {
            writeln!(
                out,
                "continue with zentra job run {id}, or cancel with zentra job cancel {id}"
            )
        }
        Stage::Canary | Stage::Running | Stage::Cancelled | Stage::Done => Ok(()),
    }
}

/// Prints all jobs, one line each.
fn show_all(jobs: &[Job], out: &mut impl Write) -> std::io::Result<()> {
    if jobs.is_empty() {
        return writeln!(out, "no jobs");
    }
    let rows = jobs.iter().map(|Job { id, stage, progress, plan, made, asked, .. }| {
        let done = format!("{} of {}", progress.requeued, plan.letters);
        let stage = stage.as_str().to_owned();
        [id.clone(), stage, done, made.at.to_string(), asked.clone()]
    });
    table::write(out, ["JOB", "STAGE", "REQUEUED", "PLANNED", "SELECTION"], rows)
}
