//! The job runner on fakes and a paused clock: each branch fails in milliseconds.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use zentra_core::clock;
use zentra_core::lifecycle::State;
use zentra_store::control::Attribution;
use zentra_store::job::{Halt, Job, Pace, Plan, Progress, Scope, Stage, Through};

use super::run::Runner;
use crate::error::{AdminError, ErrorCode};
use crate::fakes::{Fakes, LEDGER, Worker};

/// A planned job over all dead letters of the destination.
fn job(canary: u32) -> Job {
    let now = clock::now();
    Job {
        id: "0a1b2c3d".into(),
        made: Attribution { by: "ada".into(), at: now, because: "mended".into() },
        asked: "all".into(),
        destinations: vec![LEDGER.into()],
        through: Through::DeadLetters,
        scope: Scope::default(),
        pace: Pace { canary, rate: 0, max_failures: 10 },
        plan: Plan::default(),
        stage: Stage::Planned,
        only_canary: false,
        runs: 0,
        why: String::new(),
        progress: Progress::default(),
        at: now,
    }
}

/// Five events that are dead, `evt_1` to `evt_5`.
fn five_dead() -> Fakes {
    let fakes = Fakes::new();
    for number in 1..=5 {
        fakes.add_dead(&format!("evt_{number}"));
    }
    fakes
}

async fn run(fakes: &Fakes, job: Job) -> Result<Job, AdminError> {
    run_until(fakes, job, &CancellationToken::new(), None).await
}

async fn run_until(
    fakes: &Fakes,
    job: Job,
    stop: &CancellationToken,
    stopped: Option<Stage>,
) -> Result<Job, AdminError> {
    let (histories, queue, config) = (fakes, fakes, &*fakes.config);
    let runner = Runner { histories, queue, config, holder: "me", stop, stopped, progress: &() };
    runner.run(job).await
}

fn requeues(fakes: &Fakes) -> Vec<String> {
    let log = fakes.take_log();
    log.iter().filter_map(|line| Some(line.strip_prefix("requeue ")?.to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn after_a_canary_that_went_well_the_rest_follows() {
    let fakes = five_dead();
    let done = run(&fakes, job(2)).await.unwrap();
    assert_eq!((done.stage, done.why.as_str(), done.runs), (Stage::Done, "", 1));
    assert_eq!((done.progress.requeued, done.progress.delivered), (5, 5));
    assert_eq!(requeues(&fakes), ["evt_1 1", "evt_2 1", "evt_3 1", "evt_4 1", "evt_5 1"]);
    assert!(fakes.dead().is_empty());
}

#[tokio::test(start_paused = true)]
async fn letters_that_are_named_are_requeued_and_no_others() {
    let fakes = five_dead();
    let ids = ["evt_2", "evt_4"].map(|id| fakes.key(id).to_string()).to_vec();
    let done =
        run(&fakes, Job { through: Through::SelectedDeadLetters { ids }, ..job(1) }).await.unwrap();
    assert_eq!((done.stage, done.progress.requeued), (Stage::Done, 2));
    assert_eq!(requeues(&fakes), ["evt_2 1", "evt_4 1"]);
    assert_eq!(fakes.dead(), ["evt_1", "evt_3", "evt_5"]);
}

#[tokio::test(start_paused = true)]
async fn a_selection_that_cannot_be_read_selects_nothing() {
    let fakes = five_dead();
    let through = Through::SelectedDeadLetters { ids: vec!["no key".into()] };
    assert!(run(&fakes, Job { through, ..job(0) }).await.is_err());
    assert_eq!(fakes.dead().len(), 5);
}

#[test]
fn a_job_has_the_form_of_older_versions_unless_they_would_requeue_too_much() {
    let form = |through| serde_json::to_value(Job { through, ..job(0) }).unwrap()["from"].clone();
    assert_eq!(form(Through::DeadLetters), "dead_letters");
    let ids = vec!["ledger/acme/evt_1".to_owned()];
    assert_eq!(form(Through::SelectedDeadLetters { ids }), "selected_dead_letters");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_fails_stops_the_job_before_the_rest() {
    let fakes = five_dead();
    fakes.worker(Worker::Fails);
    let stopped = run(&fakes, job(2)).await.unwrap();
    assert_eq!(
        (stopped.stage, stopped.why.as_str()),
        (Stage::Stopped, "the canary: 2 of 2 failed")
    );
    assert_eq!(requeues(&fakes), ["evt_1 1", "evt_2 1"]);
    assert_eq!(fakes.dead(), ["evt_3", "evt_4", "evt_5", "evt_1", "evt_2"]);
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_no_worker_takes_stops_the_job_after_five_minutes() {
    let fakes = five_dead();
    fakes.worker(Worker::Absent);
    let begun = tokio::time::Instant::now();
    let stopped = run(&fakes, job(2)).await.unwrap();
    assert_eq!(stopped.stage, Stage::Stopped);
    assert!(stopped.why.contains("2 of 2 were not attempted within 5m"), "{}", stopped.why);
    assert!(begun.elapsed() >= Duration::from_secs(300));
    assert_eq!(requeues(&fakes).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_canary_nothing_is_awaited_before_the_rest() {
    let fakes = five_dead();
    let done = run(&fakes, job(0)).await.unwrap();
    assert_eq!((done.stage, done.progress.requeued), (Stage::Done, 5));
}

#[tokio::test(start_paused = true)]
async fn a_canary_alone_pauses_and_the_next_run_takes_the_rest() {
    let fakes = five_dead();
    let paused = run(&fakes, Job { only_canary: true, ..job(2) }).await.unwrap();
    assert_eq!((paused.stage, paused.why.as_str()), (Stage::Paused, "the canary succeeded"));
    assert_eq!(requeues(&fakes).len(), 2);
    let done = run(&fakes, Job { only_canary: false, ..paused }).await.unwrap();
    assert_eq!((done.stage, done.runs, done.progress.requeued), (Stage::Done, 2, 5));
}

#[tokio::test(start_paused = true)]
async fn a_request_of_an_operator_halts_between_two_letters() {
    for (halt, stage) in [(Halt::Pause, Stage::Paused), (Halt::Cancel, Stage::Cancelled)] {
        let fakes = five_dead();
        fakes.ask_after(2, halt);
        let halted = run(&fakes, job(2)).await.unwrap();
        assert_eq!((halted.stage, halted.progress.requeued), (stage, 2));
        assert_eq!(fakes.dead(), ["evt_3", "evt_4", "evt_5"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_is_stopped_leaves_the_job_for_the_next_one() {
    let fakes = five_dead();
    let stop = CancellationToken::new();
    stop.cancel();
    let left = run_until(&fakes, job(2), &stop, None).await.unwrap();
    assert_eq!((left.stage, left.progress.requeued), (Stage::Canary, 0));
    let paused = run_until(&fakes, job(2), &stop, Some(Stage::Paused)).await.unwrap();
    assert_eq!(paused.stage, Stage::Paused);
    assert_eq!(fakes.dead().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_has_lost_its_hold_acts_no_more() {
    let fakes = five_dead();
    fakes.take_over("another");
    let failure = run(&fakes, job(2)).await.err().unwrap();
    assert_eq!(failure.code, ErrorCode::JobBusy);
    assert!(requeues(&fakes).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_waited_for_and_a_long_one_ends_the_run() {
    let fakes = five_dead();
    fakes.block(3);
    let done = run(&fakes, job(2)).await.unwrap();
    assert_eq!((done.stage, done.progress.requeued), (Stage::Done, 5));
    assert_eq!(requeues(&fakes).len(), 5, "none went twice");

    let fakes = five_dead();
    fakes.block(u32::MAX);
    let begun = tokio::time::Instant::now();
    let failure = run(&fakes, job(2)).await.err().unwrap();
    assert_eq!(failure.code, ErrorCode::BrokerBlocked);
    assert!(begun.elapsed() >= Duration::from_secs(120));
    assert_eq!(fakes.dead().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_is_not_taken_again_by_the_same_run() {
    let fakes = five_dead();
    fakes.worker(Worker::Fails);
    let mut planned = job(0);
    planned.pace.max_failures = 100;
    let done = run(&fakes, planned).await.unwrap();
    assert_eq!((done.stage, done.progress.requeued, done.progress.failed), (Stage::Done, 5, 5));
    assert_eq!(requeues(&fakes).len(), 5);
    assert_eq!(fakes.dead().len(), 5);
    // A killed runner's successor recognises its letters by their histories.
    let again = run(&fakes, Job { runs: 0, ..done.clone() }).await.unwrap();
    assert_eq!((again.progress.again, again.progress.unsuited), (5, 0));
    assert!(requeues(&fakes).is_empty());
    // Another run is another decision.
    let next = run(&fakes, done).await.unwrap();
    assert_eq!((next.runs, requeues(&fakes).len()), (2, 5));
}

#[tokio::test(start_paused = true)]
async fn what_was_received_after_the_plan_is_left() {
    let fakes = five_dead();
    let mut planned = job(0);
    planned.made.at = clock::now().minus(Duration::from_secs(60));
    let done = run(&fakes, planned).await.unwrap();
    assert_eq!((done.stage, done.progress.requeued), (Stage::Done, 0));
    assert_eq!(done.progress.unsuited, 0, "the plan did not count them");
    assert_eq!(fakes.dead().len(), 5);
}

/// An archive job over four events: one that no worker claimed, one dead, one in progress, one
/// delivered.
fn archive(force: bool) -> (Fakes, Job) {
    let fakes = Fakes::new();
    for id in ["unknown", "dead", "claimed", "delivered"] {
        fakes.add_archived(id);
    }
    fakes.add_delivery("dead", State::Dead, 2);
    fakes.add_delivery("claimed", State::InFlight, 0);
    fakes.add_delivery("delivered", State::Delivered, 0);
    (fakes, Job { through: Through::Archive { ids: Vec::new(), force }, ..job(0) })
}

#[tokio::test(start_paused = true)]
async fn a_replay_runs_what_never_ran_and_what_is_dead() {
    let (fakes, planned) = archive(false);
    let done = run(&fakes, planned).await.unwrap();
    assert_eq!(done.stage, Stage::Done);
    let Progress { requeued, busy, leftover, .. } = done.progress;
    assert_eq!((requeued, busy, leftover), (2, 1, 1));
    assert_eq!(requeues(&fakes), ["unknown 1", "dead 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_forced_replay_delivers_once_more_and_only_once() {
    let (fakes, planned) = archive(true);
    let done = run(&fakes, planned).await.unwrap();
    let log = fakes.take_log();
    let at = |line: &str| log.iter().position(|one| one == line).unwrap();
    assert!(at("note delivered replayed 1") < at("requeue delivered 1"), "{log:?}");
    let again = run(&fakes, done).await.unwrap();
    assert_eq!(again.stage, Stage::Done);
    assert!(!requeues(&fakes).contains(&"delivered 2".to_owned()), "this job has replayed it");
}

#[tokio::test(start_paused = true)]
async fn a_forced_replay_whose_first_answer_was_lost_is_queued() {
    let (fakes, planned) = archive(true);
    fakes.repeat_reopen();
    run(&fakes, planned).await.unwrap();
    assert!(requeues(&fakes).contains(&"delivered 1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_named_events_leaves_the_others() {
    let (fakes, mut planned) = archive(false);
    planned.through = Through::Archive { ids: vec!["dead".into()], force: false };
    let done = run(&fakes, planned).await.unwrap();
    assert_eq!((done.progress.requeued, done.progress.leftover), (1, 0));
    assert_eq!(requeues(&fakes), ["dead 3"]);
}
