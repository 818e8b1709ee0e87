use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const LEASE: Duration = Duration::from_millis(500);
const FINGERPRINT: Fingerprint = Fingerprint { body: [1; 32], id: Some([1; 8]) };
const OTHER_BODY: Fingerprint = Fingerprint { body: [2; 32], id: None };
const UNKNOWN_BODY: Fingerprint = Fingerprint { body: Fingerprint::UNKNOWN, id: None };
const OTHER_ID: Fingerprint = Fingerprint { body: [1; 32], id: Some([2; 8]) };

fn record(state: State, until: u64) -> Record {
    Record {
        state,
        generation: 1,
        attempt: 2,
        expired: if state == State::InFlight { 3 } else { 0 },
        fence: 2_000_000,
        until: Timestamp::from_millis(until),
        fingerprint: FINGERPRINT,
    }
}

fn name(record: Option<&Record>) -> String {
    record.map_or("absent".into(), |r| {
        let Record { state, generation, attempt, expired, fence, until, .. } = r;
        format!("{state:?}/g{generation}a{attempt}e{expired}f{fence}u{}", until.millis())
    })
}

/// Every state × every kind of event. A change of behaviour changes this table.
#[test]
fn the_table_of_every_state_and_event_is_as_written() {
    let states = [
        ("absent", None),
        ("in_flight", Some(record(State::InFlight, 1_000_300))),
        ("expired", Some(record(State::InFlight, 1_000_000))),
        ("waiting", Some(record(State::Waiting, 1_000_300))),
        ("delivered", Some(record(State::Delivered, 0))),
        ("dead", Some(record(State::Dead, 0))),
    ];
    let claim_as = |generation, attempt, fingerprint| Input::Claim {
        generation,
        attempt,
        lease: LEASE,
        fingerprint,
    };
    let claim = |generation, attempt| claim_as(generation, attempt, FINGERPRINT);
    let settle = |fence, outcome| Input::Settle {
        fence,
        generation: 1,
        attempt: 2,
        outcome,
        fingerprint: FINGERPRINT,
    };
    let renew = |fence| Input::Renew { fence, lease: LEASE };
    let retry = Outcome::Retry { next_at: Timestamp::from_millis(1_009_000) };
    let dead = Outcome::Dead(DeadReason::Exhausted);
    let events = [
        ("claim same", claim(1, 2)),
        ("claim older attempt", claim(1, 1)),
        ("claim newer attempt", claim(1, 3)),
        ("claim older generation", claim(0, 7)),
        ("claim newer generation", claim(2, 1)),
        ("claim other body", claim_as(1, 2, OTHER_BODY)),
        ("claim unknown body", claim_as(1, 2, UNKNOWN_BODY)),
        ("claim other unsigned id", claim_as(1, 2, OTHER_ID)),
        ("renew", renew(2_000_000)),
        ("renew, old fence", renew(1_999_999)),
        ("delivered", settle(2_000_000, Outcome::Delivered)),
        ("delivered, old fence", settle(1_999_999, Outcome::Delivered)),
        ("retry", settle(2_000_000, retry)),
        ("retry, old fence", settle(1_999_999, retry)),
        ("dead", settle(2_000_000, dead)),
        ("dead, old fence", settle(1_999_999, dead)),
        ("reopen", Input::Reopen),
    ];
    let mut table = String::new();
    for (state_name, state) in &states {
        for (event_name, event) in &events {
            let (next, answer) = step(state.as_ref(), event, NOW);
            let change = if next == *state { "unchanged".into() } else { name(next.as_ref()) };
            table += &format!("{state_name} | {event_name} | {answer:?} | {change}\n");
        }
    }
    let expected = include_str!("lifecycle_table.txt");
    assert_eq!(table, expected, "the table is now:\n{table}");
}

fn events() -> impl Strategy<Value = Vec<(Input, u64)>> {
    let outcome = prop_oneof![
        Just(Outcome::Delivered),
        Just(Outcome::Retry { next_at: Timestamp::from_millis(1) }),
        Just(Outcome::Dead(DeadReason::Permanent)),
    ];
    let event = prop_oneof![
        (0..3u32, 1..4u32).prop_map(|(generation, attempt)| Input::Claim {
            generation,
            attempt,
            lease: LEASE,
            fingerprint: FINGERPRINT
        }),
        (0..6u64).prop_map(|fence| Input::Renew { fence: NOW.millis() + fence, lease: LEASE }),
        (0..3u32, 1..4u32, 0..6u64, outcome).prop_map(|(generation, attempt, fence, outcome)| {
            let fence = NOW.millis() + fence;
            Input::Settle { fence, generation, attempt, outcome, fingerprint: FINGERPRINT }
        }),
        Just(Input::Reopen),
    ];
    prop::collection::vec((event, 0..400u64), 1..40)
}

proptest! {
    #[test]
    fn delivered_is_absorbing_until_an_operator_says_so_and_two_claims_never_overlap(walk in events()) {
        let (mut record, mut now, mut last_fence) = (None::<Record>, NOW, 0);
        let mut held_until = None::<Timestamp>;
        for (event, passed) in walk {
            now = now.plus(Duration::from_millis(passed));
            let was_delivered = record.as_ref().is_some_and(|r| r.state == State::Delivered);
            let (next, answer) = step(record.as_ref(), &event, now);
            if let Answer::Claimed { fence, .. } = answer {
                prop_assert!(!was_delivered);
                prop_assert!(fence > last_fence);
                prop_assert!(held_until.is_none_or(|until| now >= until));
                last_fence = fence;
                held_until = Some(now.plus(LEASE));
            } else if answer == Answer::Settled {
                held_until = None;
            } else if answer == Answer::Renewed {
                held_until = held_until.max(Some(now.plus(LEASE)));
            }
            if was_delivered && event == Input::Reopen {
                let generation = record.as_ref().map_or(0, |known| known.generation) + 1;
                prop_assert_eq!(answer, Answer::Reopened { generation });
                prop_assert_eq!(next.as_ref().map(|r| r.state), Some(State::Waiting));
                // Whoever was delivering it when another one's success came is past.
                held_until = None;
            } else if was_delivered {
                prop_assert_eq!(next.as_ref().map(|r| r.state), Some(State::Delivered));
            }
            record = next;
        }
    }
}
