//! Conformance of the job store.

use crate::control::Attribution;
use crate::job::{Halt, Job, KEPT, Pace, Plan, Progress, Scope, Stage, Through};

use super::*;

fn job(id: &str, at: u64, stage: Stage) -> Job {
    let at = Timestamp::from_millis(at);
    Job {
        id: id.into(),
        made: Attribution { by: "ada".into(), at, because: "mended".into() },
        asked: "--source acme".into(),
        destinations: vec!["ledger".into()],
        through: Through::Archive { ids: vec!["evt_1".into()], force: true },
        scope: Scope { source: Some("acme".into()), before: Some(at), ..Scope::default() },
        pace: Pace { canary: 10, rate: 100, max_failures: 5 },
        plan: Plan { letters: 12, oldest: Some(at), ..Plan::default() },
        stage,
        only_canary: false,
        runs: 1,
        why: String::new(),
        progress: Progress { requeued: 3, ..Progress::default() },
        at,
    }
}

pub async fn a_job_is_kept_and_what_is_wanted_of_it<B: Backend>() {
    let backend = B::new();
    let (_, journal) = backend.open(ledger()).await;
    assert_eq!(journal.job("a").await.unwrap(), None);
    let first = job("a", 1, Stage::Planned);
    journal.keep_job(&first).await.unwrap();
    journal.keep_job(&job("b", 2, Stage::Done)).await.unwrap();
    let (_, journal) = backend.open(ledger()).await;
    assert_eq!(journal.job("a").await.unwrap(), Some(first));
    journal.ask_job("a", Some(Halt::Pause)).await.unwrap();
    let later = job("a", 1, Stage::Running);
    journal.keep_job(&later).await.unwrap();
    assert_eq!(journal.asked_of_job("a").await.unwrap(), Some(Halt::Pause), "kept is not heard");
    assert_eq!(journal.asked_of_job("b").await.unwrap(), None);
    journal.ask_job("a", None).await.unwrap();
    assert_eq!(journal.asked_of_job("a").await.unwrap(), None);
    assert_eq!(journal.jobs().await.unwrap().all().unwrap(), [job("b", 2, Stage::Done), later]);
}

pub async fn destinations_are_held_by_one_at_a_time_all_or_none<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (both, one, other) = (of(&["a", "b"]), of(&["a"]), of(&["b", "c"]));
    assert_eq!(journal.hold(&both, "x 1").await.unwrap(), None);
    assert_eq!(journal.hold(&both, "x 1").await.unwrap(), None, "for longer");
    assert_eq!(journal.hold(&one, "y 2").await.unwrap(), Some("x 1".into()));
    assert_eq!(journal.hold(&other, "y 2").await.unwrap(), Some("x 1".into()));
    assert_eq!(journal.hold(&of(&["c"]), "z 3").await.unwrap(), None, "y took none of its two");
    journal.let_go(&both, "y 2").await.unwrap();
    assert_eq!(journal.hold(&one, "y 2").await.unwrap(), Some("x 1".into()), "not y's to let go");
    journal.let_go(&both, "x 1").await.unwrap();
    assert_eq!(journal.hold(&one, "y 2").await.unwrap(), None);
}

pub async fn of_many_jobs_the_newest_are_kept_and_those_that_are_not_over<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    for at in 0..=KEPT as u64 + 1 {
        let stage = if at == 1 { Stage::Paused } else { Stage::Done };
        journal.keep_job(&job(&format!("{at}"), at, stage)).await.unwrap();
    }
    let known = journal.jobs().await.unwrap().items;
    assert_eq!(known.len(), KEPT + 1);
    assert!(known.iter().any(|job| job.id == "1") && known.iter().all(|job| job.id != "0"));
}
