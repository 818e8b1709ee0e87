//! The command line of jobs.

use std::io::Write;

use clap::Subcommand;
use zentra_shared::config::Config;
use zentra_shared::job::{Halt, Job, Jobs, Stage};

use super::New;
use crate::backend::Backend;
use crate::control::Asked;
use crate::failure::Failure;
use crate::list::List;
use crate::print_json;
use crate::text;

#[derive(Subcommand)]
pub(crate) enum JobCommand {
    /// Looks how many dead letters, or events of the archive, the options choose, which, and how old,
    /// and keeps that as a job; changes nothing else. Asked twice, it is the same job.
    Plan(New),
    /// Runs a job: first a canary, and when that went well the others, at the job's rate. It stops
    /// when too much fails. Whoever runs it may be killed: run it again, and it goes on. Exit
    /// status 1 if it stopped.
    Run {
        #[command(flatten)]
        told: Told,
        /// Halts behind the canary.
        #[arg(long)]
        only_canary: bool,
    },
    /// Has a job halt, within a second; zentra job run goes on with it.
    Pause(Told),
    /// Ends a job. What it has re-queued stays so.
    Cancel(Told),
    /// Lists jobs, the newest first.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows a job: its plan, and how far it is.
    Show {
        /// As listed.
        id: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What is told to a job.
#[derive(clap::Args)]
pub(crate) struct Told {
    /// As listed.
    id: String,
    #[command(flatten)]
    asked: Asked,
    /// As JSON: how it stands.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: JobCommand,
) -> Result<(), Failure> {
    let (job, json) = match command {
        JobCommand::Plan(New { filter, all, replay, how, asked, json }) => {
            if !all && filter.is_empty() && replay.ids.is_empty() {
                return Err(crate::dead::nothing_chosen());
            }
            (super::plan(backend, config, &filter, &replay, how, &asked).await?, json)
        }
        JobCommand::Run { told: Told { id, asked, json }, only_canary } => {
            let job = super::run(backend, config, &id, only_canary, &asked).await?;
            tell(&job, json, &mut text::stdout())?;
            return stopped(&job);
        }
        JobCommand::Pause(Told { id, asked, json }) => {
            (super::halt(backend, &id, Halt::Pause, &asked).await?, json)
        }
        JobCommand::Cancel(Told { id, asked, json }) => {
            (super::halt(backend, &id, Halt::Cancel, &asked).await?, json)
        }
        JobCommand::Show { id, json } => (super::find(&backend.histories()?, &id).await?, json),
        JobCommand::List { json } => {
            let jobs = backend.histories()?.jobs().await?;
            let mut out = text::stdout();
            return match json {
                true => print_json(&List::from(jobs), &mut out),
                false => Ok(super::show_all(&jobs, &mut out)?),
            };
        }
    };
    tell(&job, json, &mut text::stdout())
}

fn tell(job: &Job, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    match json {
        true => print_json(job, out)?,
        false => super::show(job, out)?,
    }
    Ok(())
}

/// Who runs a job hears that it has stopped.
fn stopped(job: &Job) -> Result<(), Failure> {
    match job.stage {
        Stage::Stopped => Err(Failure::Asked(format!(
            "job {} has stopped: {}.\nSee zentra event list --state dead, mend what fails, and go \
             on with zentra job run {}.",
            job.id, job.why, job.id
        ))),
        _ => Ok(()),
    }
}
