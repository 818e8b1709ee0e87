//! Conformance of the queue.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::*;

pub async fn a_confirmed_event_is_with_each_subscriber_as_it_was_until_it_is_acknowledged<
    B: Backend,
>() {
    let backend = B::new();
    let routes = subscribers(&[("ledger", "acme.#"), ("mail", "acme.mail.*"), ("other", "x.#")]);
    let (queue, _) = backend.open(routes).await;
    queue.publish(&sealed("acme.mail.sent", "{ \"as\":\u{a0}1}")).await.unwrap();
    for destination in ["ledger", "mail"] {
        let mut consumer = queue.consume(destination, 4);
        let (found, receipt) = next(&mut consumer).await;
        let sent = sealed("acme.mail.sent", "{ \"as\":\u{a0}1}");
        // Routing is the broker's task.
        let found_sealed = Sealed { route: sent.route.clone(), ..found.sealed };
        assert_eq!(found_sealed, sent);
        assert_eq!((found.attempt, found.generation, found.dead), (1, 0, None));
        receipt.ack().await;
        assert!(is_quiet(&mut consumer).await);
    }
    assert!(is_quiet(&mut queue.consume("other", 4)).await);
}

pub async fn what_waits_for_a_worker_can_be_looked_at_and_stays<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let bodies = ["1", "2", "3"];
    for body in bodies {
        queue.publish(&sealed("acme.x", body)).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(walked(&queue, Place::Work("ledger", 0), &[]).await, bodies);
    }
    let mut consumer = queue.consume("ledger", 1);
    for body in bodies {
        let (found, receipt) = next(&mut consumer).await;
        assert_eq!(found.sealed.body, body);
        receipt.ack().await;
    }
    assert!(walked(&queue, Place::Work("ledger", 0), &[]).await.is_empty());
}

pub async fn what_nobody_subscribed_to_is_kept_apart_and_can_be_routed_later<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    queue.publish(&sealed("github.push", "lost?")).await.unwrap();
    assert_eq!(walked(&queue, Place::Unrouted, &[]).await, ["lost?"]);
    queue.subscribe(subscribers(&[("ledger", "acme.#"), ("builds", "github.#")])).await;
    let mut walk = queue.walk(Place::Unrouted).await.unwrap();
    let (found, receipt) = walk.next().await.unwrap().unwrap();
    queue.reroute(&Sealed { route: "github.push".into(), ..found.sealed }).await.unwrap();
    receipt.ack().await;
    walk.finish().await.unwrap();
    let (found, receipt) = next(&mut queue.consume("builds", 1)).await;
    assert_eq!(found.sealed.body, "lost?");
    receipt.ack().await;
    assert!(walked(&queue, Place::Unrouted, &[]).await.is_empty());
}

pub async fn what_was_in_hand_when_a_program_ended_comes_again_to_the_next<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let bodies: Vec<String> = (0..10).map(|at| at.to_string()).collect();
    for body in &bodies {
        queue.publish(&sealed("acme.x", body)).await.unwrap();
    }
    let mut consumer = queue.consume("ledger", 10);
    let mut held = Vec::new();
    for body in &bodies {
        let (found, receipt) = next(&mut consumer).await;
        assert_eq!(found.sealed.body, body.as_str());
        held.push(receipt);
    }
    // Two of these are settled.
    for receipt in held.drain(..2) {
        receipt.ack().await;
    }
    consumer.stop().await;
    std::mem::forget(held);
    consumer.finish().await;
    drop(queue);
    let (queue, _) = backend.open(ledger()).await;
    let mut consumer = queue.consume("ledger", 10);
    let mut again = HashSet::new();
    while again.len() < 8 {
        let (found, receipt) = next(&mut consumer).await;
        again.insert(found.sealed.body);
        receipt.ack().await;
    }
    assert!(bodies[2..].iter().all(|body| again.contains(body.as_bytes())), "{again:?}");
}

pub async fn what_is_given_back_comes_again_at_once<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    queue.publish(&sealed("acme.x", "again")).await.unwrap();
    let mut consumer = queue.consume("ledger", 1);
    for _ in 0..3 {
        let (found, receipt) = next(&mut consumer).await;
        assert_eq!(found.sealed.body, "again");
        receipt.give_back().await;
    }
    let (_, receipt) = next(&mut consumer).await;
    receipt.ack().await;
    assert!(is_quiet(&mut consumer).await);
}

pub async fn what_is_fetched_on_request_is_no_more_than_that_and_nobody_elses<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let bodies: Vec<String> = (0..5).map(|at| at.to_string()).collect();
    for body in &bodies {
        queue.publish(&sealed("acme.x", body)).await.unwrap();
    }
    let mut fetcher = queue.fetcher("ledger");
    let mut first = fetcher.fetch(2).await.unwrap();
    let found = |fetched: &[(Message, _)]| -> Vec<Bytes> {
        fetched.iter().map(|(message, _)| message.sealed.body.clone()).collect()
    };
    assert_eq!(found(&first), bodies[..2]);
    // Another one gets the others, and only those.
    let mut other = queue.fetcher("ledger");
    let rest = other.fetch(10).await.unwrap();
    assert_eq!(found(&rest), bodies[2..]);
    assert!(fetcher.fetch(10).await.unwrap().is_empty());
    // What is acknowledged is gone, what is given back is there for all.
    let (_, given_back) = first.pop().unwrap();
    given_back.give_back().await;
    for (_, receipt) in first.into_iter().chain(rest) {
        receipt.ack().await;
    }
    let again = until_fetched(&mut other).await;
    assert_eq!(found(&again), bodies[1..2]);
    for (_, receipt) in again {
        receipt.ack().await;
    }
    drop((fetcher, other));
    assert!(is_quiet(&mut queue.consume("ledger", 10)).await);
}

/// A message that was given back may need a moment.
pub(super) async fn until_fetched<F: Fetcher>(fetcher: &mut F) -> Vec<(Message, F::Receipt)> {
    let fetching = async {
        loop {
            let fetched = fetcher.fetch(10).await.unwrap();
            if !fetched.is_empty() {
                return fetched;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(BOUND, fetching).await.unwrap()
}

pub async fn whoever_stops_waiting_while_a_consumer_or_a_walk_starts_holds_nothing<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let bodies = ["1", "2", "3", "4", "5", "6"];
    for body in bodies {
        queue.publish(&sealed("acme.x", body)).await.unwrap();
    }
    // Each gives up a little later than the one before.
    for at in 0..40 {
        let patience = Duration::from_micros(150 * at);
        let mut consumer = queue.consume("ledger", 10);
        drop(timeout(patience, consumer.next()).await);
        let walked = async { queue.walk(Place::Work("ledger", 0)).await.unwrap().next().await };
        drop(timeout(patience, walked).await);
    }
    let (mut consumer, mut found) = (queue.consume("ledger", 10), HashSet::new());
    while found.len() < bodies.len() {
        let (message, receipt) = next(&mut consumer).await;
        found.insert(message.sealed.body);
        receipt.ack().await;
    }
}

pub async fn with_less_room_what_was_fetched_goes_back_at_once_for_others<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let bodies = ["1", "2", "3", "4", "5", "6"];
    for body in bodies {
        queue.publish(&sealed("acme.x", body)).await.unwrap();
    }
    let mut first = queue.consume("ledger", 10);
    let (in_progress, receipt) = next(&mut first).await;
    let mut second = queue.consume("ledger", 10);
    assert!(is_quiet(&mut second).await, "the first one has fetched all of them");
    first.set_room(0, 0).await;
    let mut found = HashSet::from([in_progress.sealed.body]);
    while found.len() < bodies.len() {
        let (message, receipt) = next(&mut second).await;
        assert!(found.insert(message.sealed.body), "twice");
        receipt.ack().await;
    }
    // What is in progress is still acknowledged, and room can be made again.
    receipt.ack().await;
    second.stop().await;
    second.finish().await;
    first.set_room(1, 0).await;
    for body in ["7", "8", "9"] {
        queue.publish(&sealed("acme.x", body)).await.unwrap();
    }
    for body in ["7", "8", "9"] {
        let (message, receipt) = next(&mut first).await;
        assert_eq!(message.sealed.body, body);
        receipt.ack().await;
    }
    assert!(is_quiet(&mut first).await);
}

pub async fn what_a_consumer_had_not_handed_out_is_there_for_the_next<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    for body in ["1", "2", "3"] {
        queue.publish(&sealed("acme.x", body)).await.unwrap();
    }
    let mut consumer = queue.consume("ledger", 8);
    let (_, receipt) = next(&mut consumer).await;
    receipt.ack().await;
    drop(consumer);
    let mut consumer = queue.consume("ledger", 8);
    let mut found = HashSet::new();
    while found.len() < 2 {
        let (message, receipt) = next(&mut consumer).await;
        found.insert(message.sealed.body);
        receipt.ack().await;
    }
    assert!(!found.contains(&b"1"[..]));
}

pub async fn of_two_that_consume_one_queue_each_has_messages_of_its_own<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    for at in 0..200 {
        queue.publish(&sealed("acme.x", &at.to_string())).await.unwrap();
    }
    let take = async || {
        let mut consumer = queue.consume("ledger", 16);
        let mut found = Vec::new();
        while let Ok(Some((message, receipt))) = timeout(QUIET, consumer.next()).await {
            found.push(message.sealed.body);
            receipt.ack().await;
        }
        // Otherwise the message that it acknowledged last could be delivered to the other one.
        consumer.stop().await;
        consumer.finish().await;
        found
    };
    let (one, other) = tokio::join!(take(), take());
    let all: HashSet<&Bytes> = one.iter().chain(&other).collect();
    assert_eq!((one.len() + other.len(), all.len()), (200, 200));
}

pub async fn a_short_delay_isnt_kept_up_by_a_long_one_and_none_ends_early<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let mut consumer = queue.consume("ledger", 4);
    let started = Instant::now();
    let mut due = Vec::new();
    for (body, wanted) in [("long", 2000), ("short", 300), ("middle", 800)] {
        let delay = queue.delay(Delay::AtLeast(Duration::from_millis(wanted)));
        assert!(delay >= Duration::from_millis(wanted));
        queue.retry("ledger", &Message { attempt: 2, ..message(body) }, delay).await.unwrap();
        due.push((body, delay));
    }
    due.sort_by_key(|(_, delay)| *delay);
    for (body, delay) in due {
        let (found, receipt) = next(&mut consumer).await;
        assert_eq!((found.sealed.body, found.attempt), (Bytes::from(body), 2));
        let took = started.elapsed();
        assert!(took >= delay.saturating_sub(Duration::from_millis(50)), "{body}: {took:?}");
        assert!(took <= delay + Duration::from_secs(2), "{body}: {took:?}");
        receipt.ack().await;
    }
}

pub async fn dead_letters_are_walked_in_order_and_those_left_stay_in_it<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let bodies: Vec<String> = (0..200).map(|at| at.to_string()).collect();
    for body in &bodies {
        let reason = DeadReason::Exhausted;
        queue.dead("ledger", &message(body), reason, Some("no\nledger")).await.unwrap();
    }
    let place = Place::Dead("ledger");
    assert_eq!(walked(&queue, place, &["3", "150"]).await, bodies);
    let left: Vec<_> =
        bodies.iter().filter(|body| !["3", "150"].contains(&body.as_str())).collect();
    let mut walk = queue.walk(place).await.unwrap();
    let (first, receipt) = walk.next().await.unwrap().unwrap();
    assert_eq!((&first.sealed.body[..], first.dead), (&b"0"[..], Some(DeadReason::Exhausted)));
    // A second walk does not see what the first one holds.
    assert!(!walked(&queue, place, &[]).await.contains(&"0".to_owned()));
    let again = Message { generation: 1, dead: None, ..first };
    queue.requeue("ledger", &again).await.unwrap();
    receipt.ack().await;
    walk.finish().await.unwrap();
    let (back, receipt) = next(&mut queue.consume("ledger", 1)).await;
    assert_eq!((&back.sealed.body[..], back.generation, back.dead), (&b"0"[..], 1, None));
    receipt.ack().await;
    let mut now = walked(&queue, place, &[]).await;
    // Walks one after the other keep the order.
    now.sort_by_key(|body| body.parse::<u32>().unwrap());
    assert_eq!(now.iter().collect::<Vec<_>>(), left[1..]);
}

pub async fn refused_callbacks_are_kept_apart<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    kept(&queue, "forged?").await;
    assert_eq!(walked(&queue, Place::Refused, &["forged?"]).await, ["forged?"]);
    assert!(walked(&queue, Place::Refused, &[]).await.is_empty());
    assert!(walked(&queue, Place::Unrouted, &[]).await.is_empty());
    assert!(is_quiet(&mut queue.consume("ledger", 1)).await);
}

pub async fn the_archive_is_read_from_any_time_on_and_keeps_what_is_read<B: Backend>() {
    let backend = B::new();
    let mut routes = ledger();
    routes.archive.sources = vec!["acme".into()];
    let archive = routes.archive.clone();
    let (queue, _) = backend.open(routes).await;
    let bodies: Vec<String> = (0..600).map(|at| at.to_string()).collect();
    let mut middle = clock::now();
    for (at, body) in bodies.iter().enumerate() {
        if at == 400 {
            middle = clock::now();
        }
        queue.publish(&sealed("acme.x", body)).await.unwrap();
    }
    queue.publish(&sealed("github.push", "not archived")).await.unwrap();
    let read = async |from| {
        let (mut archived, mut found) = (queue.archived(&archive, from).await.unwrap(), Vec::new());
        while let Some(event) = archived.next().await.unwrap() {
            assert_eq!(event.seal, "v1,k,AA==");
            found.push(String::from_utf8(event.body.to_vec()).unwrap());
        }
        found
    };
    for _ in 0..2 {
        assert_eq!(read(Timestamp::default()).await, bodies);
    }
    // Perhaps with a few earlier ones.
    let later = read(middle).await;
    assert!(bodies.ends_with(&later) && later.len() >= 200, "{}", later.len());
    // Behind a position, without gap and repetition, also for what is archived later.
    let mut archived = queue.archived(&archive, Timestamp::default()).await.unwrap();
    assert_eq!(archived.position(), None);
    for body in &bodies[..250] {
        assert_eq!(archived.next().await.unwrap().unwrap().body, body.as_str());
    }
    let position = archived.position().unwrap();
    drop(archived);
    let mut rest = queue.archived_after(&archive, &position).await.unwrap();
    assert!(rest.position().is_none_or(|same| same == position));
    for body in &bodies[250..] {
        assert_eq!(rest.next().await.unwrap().unwrap().body, body.as_str());
    }
    assert!(rest.next().await.unwrap().is_none());
    queue.publish(&sealed("acme.x", "later")).await.unwrap();
    assert_eq!(rest.next().await.unwrap().unwrap().body, "later");
    let end = rest.position().unwrap();
    let mut end = queue.archived_after(&archive, &end).await.unwrap();
    assert!(end.next().await.unwrap().is_none());
    let unknown = queue.archived_after(&archive, "x").await;
    assert!(matches!(unknown, Err(QueueError::NoSuchPosition(_))));
    // Reading does not prevent delivery.
    let (first, receipt) = next(&mut queue.consume("ledger", 1)).await;
    assert_eq!(first.sealed.body, "0");
    receipt.ack().await;
}

pub async fn a_hundred_thousand_waiting_events_are_taken_once_each_also_over_a_restart<
    B: Backend,
>() {
    const ALL: usize = 100_000;
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let events = stream::iter(0..ALL).map(|at| {
        let queue = queue.clone();
        async move { queue.publish(&sealed("acme.x", &at.to_string())).await }
    });
    events.buffer_unordered(128).try_collect::<()>().await.unwrap();
    let mut seen = vec![0; ALL];
    let mut take = async |queue: &B::Queue, count: usize| {
        let mut consumer = queue.consume("ledger", 64);
        for _ in 0..count {
            let (found, receipt) = next(&mut consumer).await;
            let at: usize = std::str::from_utf8(&found.sealed.body).unwrap().parse().unwrap();
            seen[at] += 1;
            receipt.ack().await;
        }
        consumer.stop().await;
        // What a consumer holds is delivered again to the next one.
        consumer.finish().await;
    };
    take(&queue, ALL / 2).await;
    drop(queue);
    let (queue, _) = backend.open(ledger()).await;
    take(&queue, ALL - ALL / 2).await;
    assert!(is_quiet(&mut queue.consume("ledger", 1)).await);
    assert!(seen.iter().all(|count| *count == 1));
}
