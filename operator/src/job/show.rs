//! Jobs, for a person.

use std::io::Write;
use std::time::Duration;

use zentra_shared::job::{Job, Progress, Stage};

use crate::dead::UNSUITED;

/// One, for a person.
pub(super) fn show(job: &Job, out: &mut impl Write) -> std::io::Result<()> {
    let Job { id, made, asked, destinations, pace, plan, stage, why, progress, .. } = job;
    let because = match made.because.as_str() {
        "" => String::new(),
        because => format!(": {because}"),
    };
    writeln!(out, "job          {id}, planned at {} by {}{because}", made.at, made.by)?;
    writeln!(out, "letters      {asked}, at {}", destinations.join(", "))?;
    let time = plan.seconds.map_or_else(String::new, |seconds| {
        format!(", in about {}", humantime::format_duration(Duration::from_secs(seconds)))
    });
    writeln!(out, "plan         {} letters{time}", plan.letters)?;
    for (of, count) in &plan.by {
        writeln!(out, "             {count:>7}  {of}")?;
    }
    if let Some(oldest) = plan.oldest {
        writeln!(out, "             the oldest was received at {oldest}")?;
    }
    let rate = match pace.rate {
        0 => "as fast as it goes".to_owned(),
        rate => format!("{rate} a second"),
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
    writeln!(out, "re-queued    {requeued}; watched: {delivered} delivered, {failed} failed")?;
    for (count, words) in [
        (again, "were given up again, and left"),
        (unsuited, UNSUITED),
        (busy, "left: a worker was at them"),
        (leftover, "had been dealt with before"),
        (forgotten, "left: so old that nobody knows whether they were delivered (--force)"),
    ] {
        if *count > 0 {
            writeln!(out, "             {count} {words}")?;
        }
    }
    match stage {
        Stage::Planned => writeln!(out, "nothing was changed; run it with zentra job run {id}"),
        Stage::Paused | Stage::Stopped => {
            writeln!(out, "go on with zentra job run {id}, or end it with zentra job cancel {id}")
        }
        Stage::Canary | Stage::Running | Stage::Cancelled | Stage::Done => Ok(()),
    }
}

/// All, for a person: one line each.
pub(super) fn show_all(jobs: &[Job], out: &mut impl Write) -> std::io::Result<()> {
    if jobs.is_empty() {
        return writeln!(out, "no jobs");
    }
    writeln!(out, "{:<8}  {:<9}  {:>17}  {:<24}  LETTERS", "JOB", "STAGE", "RE-QUEUED", "PLANNED")?;
    for Job { id, stage, progress, plan, made, asked, .. } in jobs {
        let done = format!("{} of {}", progress.requeued, plan.letters);
        let (stage, made) = (stage.as_str(), made.at.to_string());
        writeln!(out, "{id:<8}  {stage:<9}  {done:>17}  {made:<24}  {asked}")?;
    }
    Ok(())
}
