//! The dead-letter walk on fakes: each branch fails in milliseconds.

use std::collections::HashSet;
use std::time::Duration;

use zentra_core::clock::{self, Timestamp};
use zentra_core::event::SetApart;
use zentra_core::lifecycle::{DeadReason, State};
use zentra_store::job::Scope;
use zentra_store::journal::{AttemptResult, Entry, HistoryEvent};
use zentra_store::queue::Message;

use super::act::{Drain, Requeue};
use super::letters::{Pass, PassReport};
use crate::error::{AdminError, ErrorCode};
use crate::fakes::{Fakes, LEDGER, Worker, event};

fn pass<'a>(fakes: &'a Fakes, scope: &'a Scope) -> Pass<'a, Fakes, Fakes> {
    Pass {
        histories: fakes,
        queue: fakes,
        sealer: &fakes.config.seal,
        destinations: vec![LEDGER.into()],
        scope,
        keys: HashSet::new(),
        limit: usize::MAX,
        rate: 0,
        dry_run: false,
        progress: &(),
    }
}

/// Runs a pass over all letters that requeues them, or releases them.
async fn run(fakes: &Fakes, what: &HistoryEvent) -> Result<PassReport, AdminError> {
    run_pass(pass(fakes, &Scope::default()), what).await
}

async fn run_pass(
    pass: Pass<'_, Fakes, Fakes>,
    what: &HistoryEvent,
) -> Result<PassReport, AdminError> {
    let (histories, config) = (pass.histories, &*pass.histories.config);
    let mut act = Requeue { histories, queue: pass.queue, config, by: "ada", what, last: None };
    pass.run(&mut act).await
}

fn requeued() -> HistoryEvent {
    HistoryEvent::Requeued { reason: "mended".into(), job: None }
}

fn released() -> HistoryEvent {
    HistoryEvent::Released { reason: "genuine".into() }
}

#[tokio::test]
async fn a_letter_is_noted_then_requeued_and_only_then_acknowledged() {
    let fakes = Fakes::new();
    fakes.add_dead("evt_1");
    fakes.add_dead("evt_2");
    let report = run(&fakes, &requeued()).await.unwrap();
    assert_eq!((report.looked, report.done), (2, 2));
    let expected = [
        "note evt_1 requeued 1",
        "requeue evt_1 1",
        "ack evt_1",
        "note evt_2 requeued 1",
        "requeue evt_2 1",
        "ack evt_2",
    ];
    assert_eq!(fakes.take_log(), expected);
    assert!(fakes.dead().is_empty());
}

#[tokio::test]
async fn a_letter_that_dies_again_at_once_is_requeued_once_by_one_pass() {
    let fakes = Fakes::new();
    fakes.worker(Worker::Fails);
    fakes.add_dead("evt_1");
    fakes.add_dead("evt_2");
    let report = run(&fakes, &requeued()).await.unwrap();
    assert_eq!((report.looked, report.done), (4, 2));
    assert_eq!(fakes.dead(), ["evt_1", "evt_2"]);
}

#[tokio::test]
async fn a_letter_whose_requeue_fails_stays_where_it_is() {
    let fakes = Fakes::new();
    fakes.add_dead("evt_1");
    fakes.add_dead("evt_2");
    fakes.block(1);
    let failure = run(&fakes, &requeued()).await.err().unwrap();
    assert_eq!(failure.code, ErrorCode::BrokerBlocked);
    assert_eq!(fakes.take_log(), ["note evt_1 requeued 1"]);
    assert_eq!(fakes.dead(), ["evt_1", "evt_2"]);
}

#[tokio::test]
async fn without_a_history_entry_nothing_is_requeued() {
    let fakes = Fakes::new();
    fakes.add_dead("evt_1");
    fakes.fail_notes();
    let failure = run(&fakes, &requeued()).await.err().unwrap();
    assert_eq!(failure.code, ErrorCode::StoreUnavailable);
    assert_eq!((fakes.take_log(), fakes.dead()), (Vec::new(), vec!["evt_1".to_owned()]));
}

#[tokio::test]
async fn what_was_handled_before_is_removed_and_what_a_worker_has_is_left() {
    let fakes = Fakes::new();
    for (id, state, generation) in [
        ("delivered", State::Delivered, 0),
        ("requeued", State::Waiting, 1),
        ("waiting", State::Waiting, 0),
        ("claimed", State::InFlight, 0),
        ("crashed", State::InFlight, 0),
        ("dead", State::Dead, 0),
    ] {
        fakes.add_letter(fakes.message(id));
        fakes.add_delivery(id, state, generation);
    }
    // Its lease has expired: the broker dead-lettered it after several crashes.
    fakes.change("crashed", |known| known.record.until = Timestamp::default());

    let scope = Scope::default();
    let dry = Pass { dry_run: true, ..pass(&fakes, &scope) };
    let report = run_pass(dry, &requeued()).await.unwrap();
    assert_eq!((report.done, report.leftover, report.busy), (2, 2, 2));
    assert_eq!((fakes.take_log().len(), fakes.dead().len()), (0, 6), "a dry run changes nothing");

    let report = run(&fakes, &requeued()).await.unwrap();
    assert_eq!((report.done, report.leftover, report.busy), (2, 2, 2));
    assert_eq!(fakes.dead(), ["waiting", "claimed"]);
    let log = fakes.take_log();
    let expected = [
        "ack delivered",
        "ack requeued",
        "note crashed requeued 1",
        "requeue crashed 1",
        "ack crashed",
        "note dead requeued 1",
        "requeue dead 1",
        "ack dead",
    ];
    assert_eq!(log, expected);
}

#[tokio::test]
async fn an_event_that_was_set_apart_is_released_and_never_requeued() {
    let fakes = Fakes::new();
    let mut apart = event("evt_1");
    apart.envelope.set_apart = Some(SetApart::Id);
    let apart = fakes.message_of(apart);
    let id = apart.sealed.id.rsplit('/').next().unwrap();
    fakes.add_delivery_of(&apart, State::Dead, 0);
    fakes.add_letter(apart.clone());
    fakes.add_dead("evt_2");

    let report = run(&fakes, &requeued()).await.unwrap();
    assert_eq!((report.done, report.unsuited), (1, 1));
    assert_eq!(fakes.dead(), [id]);
    let report = run(&fakes, &released()).await.unwrap();
    assert_eq!((report.done, report.unsuited), (1, 0));
    assert!(fakes.take_log().contains(&format!("note {id} released 1")));

    // After its release it is a dead letter like any other.
    fakes.add_letter(Message { generation: 1, ..apart.clone() });
    fakes.add_delivery_of(&apart, State::Dead, 1);
    assert_eq!(run(&fakes, &released()).await.unwrap().unsuited, 1);
    assert_eq!(run(&fakes, &requeued()).await.unwrap().done, 1);
}

#[tokio::test]
async fn an_unknown_letter_is_requeued_where_its_destination_subscribes() {
    let fakes = Fakes::new();
    fakes.worker(Worker::Absent);
    fakes.add_letter(fakes.message("evt_1"));
    let mut other = event("evt_2");
    other.envelope.source = "other".into();
    fakes.add_letter(fakes.message_of(other));
    let report = run(&fakes, &requeued()).await.unwrap();
    assert_eq!((report.done, report.unsuited), (1, 1));
    assert_eq!(fakes.dead(), ["evt_2"]);
}

#[tokio::test]
async fn filter_ids_and_limit_select() {
    let fakes = Fakes::new();
    for id in ["evt_1", "evt_2", "evt_3", "evt_4"] {
        fakes.add_dead(id);
    }
    let long_ago = Scope { before: Some(Timestamp::default()), ..Scope::default() };
    let all = Scope::default();
    let other = Scope { source: Some("other".into()), ..Scope::default() };
    let soon = Scope { after: Some(clock::now().plus(Duration::from_secs(60))), ..all.clone() };
    for scope in [&long_ago, &other, &soon] {
        let report = run_pass(pass(&fakes, scope), &requeued()).await.unwrap();
        assert_eq!((report.looked, report.done), (4, 0), "{scope:?}");
    }
    let dead = |status| HistoryEvent::Dead {
        reason: DeadReason::Permanent,
        result: AttemptResult {
            status,
            error: Some("no answer".into()),
            ..AttemptResult::default()
        },
    };
    for (id, status) in [("evt_1", Some(422)), ("evt_2", Some(404)), ("evt_3", None)] {
        let entry = Entry {
            at: clock::now(),
            generation: 0,
            attempt: 1,
            by: String::new(),
            what: dead(status),
        };
        fakes.change(id, |delivery| delivery.history.push(entry));
    }
    for (error, done) in [("answered 422", 1), ("no answer", 1), ("answered", 0), ("", 0)] {
        let scope = Scope { error: Some(error.into()), ..Scope::default() };
        let counted = Pass { dry_run: true, ..pass(&fakes, &scope) };
        assert_eq!(run_pass(counted, &requeued()).await.unwrap().done, done, "{error}");
    }
    let one = Pass { limit: 1, ..pass(&fakes, &all) };
    let report = run_pass(one, &requeued()).await.unwrap();
    assert_eq!((report.looked, report.done), (1, 1));
    let keys = HashSet::from([fakes.key("evt_3")]);
    let named = Pass { keys, ..pass(&fakes, &all) };
    let report = run_pass(named, &requeued()).await.unwrap();
    assert_eq!((report.looked, report.done), (2, 1), "it ends once all that were named are done");
    assert_eq!(fakes.dead(), ["evt_2", "evt_4"]);
}

#[tokio::test]
async fn drained_letters_are_noted_before_they_are_removed() {
    let fakes = Fakes::new();
    for id in ["evt_1", "evt_2"] {
        fakes.add_dead(id);
    }
    let scope = Scope::default();
    let (by, reason, file, redacts) = ("ada", "obsolete", None, None);
    let mut drain = Drain { histories: &fakes, by, reason, file, redacts, waiting: Vec::new() };
    let report = pass(&fakes, &scope).run(&mut drain).await.unwrap();
    assert_eq!(report.done, 2);
    let expected = ["note evt_1 discarded 0", "note evt_2 discarded 0", "ack evt_1", "ack evt_2"];
    assert_eq!(fakes.take_log(), expected);
}
