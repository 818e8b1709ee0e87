//! Runs a job: the canary, the rest, and stops.
//!
//! A runner can be killed at any time. Each letter is safe by itself (see `dead::letters`). The
//! next runner uses the job's stage and the letters' histories, which name the job.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use zentra_config::Config;
use zentra_core::clock;
use zentra_core::lifecycle::State;
use zentra_store::delivery::countersign;
use zentra_store::job::{HOLD, Halt, Job, Jobs, Progress, Stage, Through};
use zentra_store::journal::{DeliveryStore, HistoryEvent};
use zentra_store::queue::{Message, Operate};

use super::keys;
use super::replay::Replay;
use super::watch::Watch;
use crate::dead::{Letter, LetterAction, Pass, PassReport, Requeue};
use crate::error::{AdminError, ErrorCode};
use crate::progress::Progress as Shows;

/// Interval in which a runner renews its hold, reads requests, and checks watched letters.
const TEND: Duration = Duration::from_millis(500);
/// Timeout of a watched letter's first attempt.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long RabbitMQ or Redis can be unreachable.
const BACKEND_TIMEOUT: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(1);

/// A runner of jobs.
pub(super) struct Runner<'a, H, Q> {
    pub(super) histories: &'a H,
    pub(super) queue: &'a Q,
    pub(super) config: &'a Config,
    /// Name of the holder.
    pub(super) holder: &'a str,
    /// Cancelled when this program stops.
    pub(super) stop: &'a CancellationToken,
    /// Stage of the job after a stop. `None`: unchanged.
    pub(super) stopped: Option<Stage>,
    pub(super) progress: &'a dyn Shows,
}

impl<H: DeliveryStore + Jobs, Q: Operate> Runner<'_, H, Q> {
    /// Runs a job whose destinations are held, until it stops or is done.
    pub(super) async fn run(&self, mut job: Job) -> Result<Job, AdminError> {
        (job.stage, job.why, job.runs) = (Stage::Canary, String::new(), job.runs.saturating_add(1));
        if job.pace.canary == 0 {
            job.stage = Stage::Running;
        }
        self.keep(&mut job).await?;
        let mut since = Instant::now();
        loop {
            let before = job.progress.requeued;
            match self.pass(&mut job).await {
                Ok(()) => break,
                Err(failure) if failure.code.is_ours() => {
                    tracing::warn!(
                        error = failure.message,
                        job = job.id,
                        "the job is interrupted: retrying"
                    );
                    if job.progress.requeued > before {
                        since = Instant::now();
                    }
                    if since.elapsed() > BACKEND_TIMEOUT {
                        return Err(failure);
                    }
                    sleep(AGAIN).await;
                }
                Err(failure) => return Err(failure),
            }
        }
        self.keep(&mut job).await?;
        Ok(job)
    }

    async fn pass(&self, job: &mut Job) -> Result<(), AdminError> {
        let of = job.clone();
        let (run, reason) = (format!("{}/{}", of.id, of.runs), of.made.because.clone());
        let what = match &of.through {
            Through::DeadLetters | Through::SelectedDeadLetters { .. } => {
                HistoryEvent::Requeued { reason, job: Some(run.clone()) }
            }
            Through::Archive { .. } => HistoryEvent::Replayed { reason, job: run.clone() },
        };
        let (histories, queue, config) = (self.histories, self.queue, self.config);
        let by = &of.made.by;
        let requeue = Requeue { histories, queue, config, by, what: &what, last: None };
        let before = job.progress.clone();
        let mut running = Running {
            runner: self,
            job,
            run,
            requeue,
            watch: Watch::default(),
            before,
            sent: 0,
            again: 0,
            later: 0,
            tended: None,
            held: None,
            halted: false,
        };
        let (scope, rate, dry_run) = (&of.scope, of.pace.rate, false);
        let tally = match &of.through {
            Through::DeadLetters | Through::SelectedDeadLetters { .. } => {
                let pass = Pass {
                    histories,
                    queue,
                    sealer: &self.config.seal,
                    destinations: of.destinations.clone(),
                    scope,
                    keys: keys(&of.through)?,
                    limit: usize::MAX,
                    rate,
                    dry_run,
                    progress: &(),
                };
                pass.run(&mut running).await?
            }
            Through::Archive { ids, force } => {
                let replay = Replay {
                    histories,
                    queue,
                    config: self.config,
                    destinations: &of.destinations,
                    scope,
                    ids,
                    force: *force,
                    planned: of.made.at,
                    job: &of.id,
                    rate,
                    dry_run,
                };
                replay.run(&mut running).await?
            }
        };
        running.count(&tally);
        running.end().await
    }

    async fn keep(&self, job: &mut Job) -> Result<(), AdminError> {
        job.at = clock::now();
        Ok(self.histories.keep_job(job).await?)
    }
}

/// A running job.
struct Running<'a, 'r, H, Q> {
    runner: &'a Runner<'r, H, Q>,
    job: &'a mut Job,
    /// Name of the run in histories.
    run: String,
    requeue: Requeue<'a, H, Q>,
    watch: Watch,
    /// Progress before this pass.
    before: Progress,
    /// Number requeued by this pass.
    sent: u32,
    /// Requeued by this run before, and dead again.
    again: u64,
    /// Received after the plan.
    later: u64,
    tended: Option<Instant>,
    /// Last renewal of the hold.
    held: Option<Instant>,
    halted: bool,
}

impl<H: DeliveryStore + Jobs, Q: Operate> LetterAction for Running<'_, '_, H, Q> {
    async fn goes_on(&mut self, so_far: &PassReport) -> Result<bool, AdminError> {
        self.count(so_far);
        if self.job.stage == Stage::Canary && self.sent >= self.job.pace.canary {
            match self.judge().await? {
                true if self.job.only_canary => {
                    self.halt(Stage::Paused, "the canary succeeded".into());
                }
                true => self.job.stage = Stage::Running,
                false => {}
            }
        } else if self.tended.is_none_or(|at| at.elapsed() >= TEND) {
            self.tend().await?;
        }
        Ok(!self.halted)
    }

    fn suits(&mut self, letter: &Letter<'_>) -> bool {
        let received = letter.opened.summary.received_at;
        if received.is_some_and(|received| received > self.job.made.at) {
            self.later += 1;
            return false;
        }
        let generation = letter.message.generation;
        let again = letter.known.is_some_and(|known| {
            let is_dead = known.record.state == State::Dead;
            known.history.iter().any(|entry| {
                let by_this = match &entry.what {
                    HistoryEvent::Requeued { job, .. } => job.as_ref() == Some(&self.run),
                    HistoryEvent::Replayed { job, .. } => *job == self.run && is_dead,
                    _ => false,
                };
                by_this && entry.generation <= generation
            })
        });
        if again {
            self.again += 1;
        }
        !again && self.requeue.suits(letter)
    }

    async fn on(&mut self, letter: &Letter<'_>) -> Result<bool, AdminError> {
        self.requeue.last = None;
        let done = match self.job.through {
            Through::DeadLetters | Through::SelectedDeadLetters { .. } => {
                self.requeue.on(letter).await?
            }
            Through::Archive { .. } => self.replay(letter).await?,
        };
        self.sent = self.sent.saturating_add(1);
        if let Some((_, generation)) = &self.requeue.last {
            self.watch.add(letter.opened.key.clone(), *generation);
        }
        Ok(done)
    }
}

impl<H: DeliveryStore + Jobs, Q: Operate> Running<'_, '_, H, Q> {
    fn count(&mut self, so_far: &PassReport) {
        let (before, left) = (&self.before, self.again + self.later);
        self.job.progress = Progress {
            requeued: before.requeued + so_far.done,
            delivered: before.delivered + self.watch.delivered,
            failed: before.failed + self.watch.failed,
            again: self.again,
            unsuited: so_far.unsuited.saturating_sub(left),
            busy: so_far.busy,
            leftover: match self.job.through {
                Through::DeadLetters | Through::SelectedDeadLetters { .. } => {
                    before.leftover + so_far.leftover
                }
                Through::Archive { .. } => so_far.leftover,
            },
            forgotten: so_far.forgotten,
        };
    }

    /// Replays an archived event. The history entry comes first: no replay without one.
    async fn replay(&mut self, letter: &Letter<'_>) -> Result<bool, AdminError> {
        let Requeue { histories, queue, config, by, what, .. } = &self.requeue;
        let key = &letter.opened.key;
        let record = letter.known.map(|known| &known.record);
        let generation = match record {
            Some(known) if known.state == State::Delivered => {
                match histories.reopen(key, by, what).await? {
                    Some(generation) => generation,
                    // Somebody else was faster, or the answer of a first command was lost and the
                    // client repeated it. Then nothing is queued yet, and a second message of one
                    // generation is only a copy.
                    None => match histories.history(key).await? {
                        Some(now) if now.record.state == State::Waiting => now.record.generation,
                        _ => return Ok(true),
                    },
                }
            }
            Some(known) if known.state == State::Waiting => known.generation,
            record => {
                let generation = record.map_or(0, |known| known.generation).saturating_add(1);
                histories.note(key, generation, by, what).await?;
                generation
            }
        };
        let next = Message { attempt: 1, generation, dead: None, ..letter.message.clone() };
        let next = countersign(&config.seal, key.destination(), next)?;
        queue.requeue(key.destination(), &next).await?;
        self.requeue.last = Some((key.to_string(), generation));
        Ok(true)
    }

    /// Renews the hold, reads requests, and checks watched letters.
    async fn tend(&mut self) -> Result<(), AdminError> {
        let Runner { histories, holder, .. } = self.runner;
        self.tended = Some(Instant::now());
        if self.held.is_none_or(|at| at.elapsed() >= HOLD / 3) {
            if let Some(other) = histories.hold(&self.job.destinations, holder).await? {
                let message = format!(
                    "another runner ({other}) has taken over, because this one was stopped."
                );
                return Err(AdminError::new(ErrorCode::JobBusy, message).about(&self.job.id));
            }
            self.held = Some(Instant::now());
        }
        match histories.asked_of_job(&self.job.id).await? {
            Some(Halt::Pause) => self.halt(Stage::Paused, super::ASKED.into()),
            Some(Halt::Cancel) => self.halt(Stage::Cancelled, super::ASKED.into()),
            None if self.runner.stop.is_cancelled() => {
                let stage = self.runner.stopped.unwrap_or(self.job.stage);
                self.halt(stage, "its runner was stopped".into());
            }
            None => {}
        }
        self.watch.look(*histories).await?;
        if let Some((failed, known)) = self.watch.too_many(self.job.pace.max_failures, false) {
            let why = format!("{failed} of the last {known} failed");
            self.halt(Stage::Stopped, why);
        }
        let Progress { requeued, .. } = self.job.progress;
        self.runner.progress.show(format!(
            "{}: {requeued} of {} requeued; watched: {} delivered, {} failed",
            self.job.stage.as_str(),
            self.job.plan.letters,
            self.watch.delivered,
            self.watch.failed
        ));
        self.runner.keep(self.job).await
    }

    fn halt(&mut self, stage: Stage, why: String) {
        if !self.halted {
            (self.job.stage, self.job.why, self.halted) = (stage, why, true);
        }
    }

    /// Waits for the results of all watched letters, up to the timeout.
    async fn settle(&mut self) -> Result<(), AdminError> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.tend().await?;
            if self.halted || self.watch.waiting() == 0 || Instant::now() > until {
                return Ok(());
            }
            tokio::select! {
                () = sleep(TEND / 4) => {}
                () = self.runner.stop.cancelled() => {}
            }
        }
    }

    /// Whether the canary succeeded.
    async fn judge(&mut self) -> Result<bool, AdminError> {
        self.settle().await?;
        let (waiting, sent) = (self.watch.waiting(), self.sent);
        if self.halted {
            return Ok(false);
        }
        if waiting > 0 {
            let why = format!(
                "the canary: {waiting} of {sent} were not attempted within {}; does a worker work \
                 for the destination, or is it paused?",
                humantime::format_duration(PATIENCE)
            );
            self.halt(Stage::Stopped, why);
        } else if let Some((failed, known)) = self.watch.too_many(self.job.pace.max_failures, true)
        {
            self.halt(Stage::Stopped, format!("the canary: {failed} of {known} failed"));
        }
        Ok(!self.halted)
    }

    /// All letters were read.
    async fn end(mut self) -> Result<(), AdminError> {
        if self.halted {
            return Ok(());
        }
        let well = match self.job.stage {
            Stage::Canary => self.judge().await?,
            _ => {
                self.settle().await?;
                !self.halted
            }
        };
        let (before, progress) = (&self.before, &mut self.job.progress);
        progress.delivered = before.delivered + self.watch.delivered;
        progress.failed = before.failed + self.watch.failed;
        if well {
            self.job.stage = Stage::Done;
        }
        Ok(())
    }
}
