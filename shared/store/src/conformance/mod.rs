//! The promises of a backend, as tests that run on any of them: implement [`Backend`], and call
//! [`suite`]. Behind the feature `conformance`. A broken promise panics.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashSet;
use std::future::Future;
use std::time::{Duration, Instant};

use crate::incident::Incidents;
use crate::job::Jobs;
use crate::journal::{AttemptResult, Claim, DeliveryStore, HistoryEvent, Journal, Settle, Summary};
use crate::queue::{
    Archive, Archived, Consumer, Delay, Fetch, Fetcher, Message, Operate, Place, Process, Publish,
    QueueError, Receipt, Routes, Subscribe, Subscriber, Walk,
};
use bytes::Bytes;
use tokio::time::timeout;
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::{DeliveryKey, Identity};
use zentra_core::lifecycle::{Answer, DeadReason, Fingerprint, Outcome, State};
use zentra_core::seal::Sealed;

const BOUND: Duration = Duration::from_secs(20);
/// A queue that delivers nothing for this long is empty.
const QUIET: Duration = Duration::from_secs(1);
/// How long a backend's delivery store remembers an operator's change, at least.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Storage for messages and deliveries, which outlives the programs that use it.
pub trait Backend: Sized + Send {
    /// The queue.
    type Queue: Publish + Fetch + Operate;
    /// The delivery store.
    type Journal: Journal + DeliveryStore + Jobs + Incidents;

    /// Creates empty storage.
    fn new() -> Self;

    /// Opens it as a program that has just started.
    fn open(&self, routes: Routes) -> impl Future<Output = (Self::Queue, Self::Journal)> + Send;
}

/// Makes a test of each promise, for one [`Backend`]: `suite!(Servers)`, or of the promises of its
/// delivery store: `suite!(Servers, store)`. The crate that calls it needs `tokio` with its macros and its multi-threaded runtime.
#[macro_export]
macro_rules! conformance_suite {
    ($backend:ident) => {
        $crate::conformance_suite! { $backend:
            restart { all_is_there_after_a_restart }
            queue {
                a_confirmed_event_is_with_each_subscriber_as_it_was_until_it_is_acknowledged
                what_waits_for_a_worker_can_be_looked_at_and_stays
                what_nobody_subscribed_to_is_kept_apart_and_can_be_routed_later
                what_was_in_hand_when_a_program_ended_comes_again_to_the_next
                what_is_given_back_comes_again_at_once
                what_is_fetched_on_request_is_no_more_than_that_and_nobody_elses
                with_less_room_what_was_fetched_goes_back_at_once_for_others
                whoever_stops_waiting_while_a_consumer_or_a_walk_starts_holds_nothing
                what_a_consumer_had_not_handed_out_is_there_for_the_next
                of_two_that_consume_one_queue_each_has_messages_of_its_own
                a_short_delay_isnt_kept_up_by_a_long_one_and_none_ends_early
                dead_letters_are_walked_in_order_and_those_left_stay_in_it
                refused_callbacks_are_kept_apart
                the_archive_is_read_from_any_time_on_and_keeps_what_is_read
                a_hundred_thousand_waiting_events_are_taken_once_each_also_over_a_restart
            }
            pull {
                an_event_of_a_lost_lease_comes_again_and_only_its_new_lease_is_current
                an_event_that_a_consumer_failed_is_leased_again_after_its_delay
            }
        }
        $crate::conformance_suite! { $backend, store }
    };
    ($backend:ident, store) => {
        $crate::conformance_suite! { $backend:
            journal {
                of_claimers_at_once_one_is_granted_and_the_others_hear_how_long_it_takes
                a_claim_that_ran_out_is_granted_anew_and_the_old_fence_changes_nothing
                a_late_success_counts_and_nothing_undoes_it
                another_body_is_a_conflict_and_a_copy_is_counted_without_effect
                a_dead_delivery_is_listed_until_it_is_requeued_or_discarded
                what_is_delivered_runs_once_more_only_when_an_operator_forces_it
                a_delivery_is_found_by_event_id_by_identity_and_by_key
                what_has_had_its_time_is_forgotten_and_begins_anew
                of_a_long_history_the_newest_lines_are_kept
                what_is_remembered_is_listed_newest_first_page_by_page_and_only_what_is_wanted
                of_many_each_is_listed_once_however_large_the_pages_are
            }
            leases {
                a_lease_that_is_extended_is_granted_to_nobody_else
                of_answers_to_one_lease_at_once_the_first_counts
            }
            incidents {
                of_two_changes_of_an_incident_one_is_kept
                the_newest_closed_incidents_are_kept_and_all_open_ones
            }
            jobs {
                a_job_is_kept_and_what_is_wanted_of_it
                destinations_are_held_by_one_at_a_time_all_or_none
                of_many_jobs_the_newest_are_kept_and_those_that_are_not_over
            }
        }
    };
    ($backend:ident: $($part:ident { $($promise:ident)* })*) => {
        $(mod $part {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                $crate::conformance::$part::$promise::<super::$backend>().await;
            })*
        })*
    };
}

pub use crate::conformance_suite as suite;

pub mod incidents;
pub mod jobs;
pub mod journal;
pub mod leases;
pub mod pull;
pub mod queue;
pub mod restart;

use journal::{Claimant, LEASE};

fn subscribers(all: &[(&str, &str)]) -> Routes {
    let one = |(destination, pattern): &(&str, &str)| Subscriber {
        destination: (*destination).into(),
        patterns: vec![(*pattern).into()],
        shards: 1,
    };
    let archive = Archive { sources: Vec::new(), bytes: 1 << 24, age: Duration::from_secs(3600) };
    Routes { subscribers: all.iter().map(one).collect(), archive }
}

fn ledger() -> Routes {
    subscribers(&[("ledger", "acme.#")])
}

fn sealed(route: &str, body: &str) -> Sealed {
    Sealed {
        envelope: Bytes::from_static(b"{\"version\":1}"),
        seal: "v1,k,AA==".into(),
        body: body.to_owned().into(),
        route: route.into(),
        id: format!("acme/{body}"),
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap()),
    }
}

fn message(body: &str) -> Message {
    Message::new(sealed("acme.x", body))
}

async fn next<C: Consumer>(consumer: &mut C) -> (Message, C::Receipt) {
    timeout(BOUND, consumer.next()).await.unwrap().unwrap()
}

async fn is_quiet(consumer: &mut impl Consumer) -> bool {
    timeout(QUIET, consumer.next()).await.is_err()
}

/// The bodies in a queue, in order. Unwanted ones are removed.
async fn walked(queue: &impl Operate, place: Place<'_>, unwanted: &[&str]) -> Vec<String> {
    let (mut walk, mut seen) = (queue.walk(place).await.unwrap(), Vec::new());
    while let Some((message, receipt)) = walk.next().await.unwrap() {
        let body = String::from_utf8(message.sealed.body.to_vec()).unwrap();
        if unwanted.contains(&body.as_str()) {
            receipt.ack().await;
        }
        seen.push(body);
    }
    walk.finish().await.unwrap();
    seen
}

/// Stored as soon as there is a connection for it. Nobody waits for it.
async fn kept(queue: &impl Publish, body: &str) {
    eventually("it is kept", BOUND, async || queue.keep(&sealed("acme.x", body)).await.ok()).await;
}

/// Calls `ask` until it returns a value. Panics with `what` when the time limit has passed.
async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    bound: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + bound;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {bound:?}: {what}");
    }
}
