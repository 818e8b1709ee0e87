//! What has had its time goes: little by little, so that nothing waits for it.

use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::time::{MissedTickBehavior, interval};

use super::store::{Store, StoreError, number};
use crate::clock::{self, Timestamp};
use crate::queue::Archive;
use crate::queue::amqp::RefusedBounds;

const TICK: Duration = Duration::from_secs(1);
/// Each so manyth time, refused callbacks are counted.
const SELDOM: u64 = 10;
/// Rows that go, at most, in one commit.
const ROWS: i64 = 500;
/// Pages without use that may stay: what comes next takes them.
const SPARE: i64 = 16_384;
/// Pages that go back to the disk in one commit.
const PAGES: i64 = 1_024;
/// Deliveries that are looked at in one commit.
const LOOK: i64 = 5_000;

/// Keeps to the bounds of archive and refused callbacks, and forgets deliveries, for ever.
pub(super) async fn sweep(store: Store, refused: RefusedBounds, archive: impl Fn() -> Archive) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut at = 0;
    for round in 0u64.. {
        tick.tick().await;
        let refused = round.is_multiple_of(SELDOM).then(|| refused.clone());
        match once(&store, refused, archive(), at).await {
            Ok(next) => at = next,
            Err(error) => tracing::warn!(%error, "what has had its time stays for now"),
        }
    }
}

/// Returns where to look for forgotten deliveries next.
async fn once(
    store: &Store,
    refused: Option<RefusedBounds>,
    archive: Archive,
    at: i64,
) -> Result<i64, StoreError> {
    let now = clock::now();
    store
        .write(move |file| {
            if let Some(refused) = refused {
                shrink_refused(file, &refused, now)?;
            }
            shrink_archive(file, &archive, now)?;
            file.prepare_cached("DELETE FROM held WHERE until <= ?1")?.execute([number(now)])?;
            shrink_file(file)?;
            forget(file, now, at)
        })
        .await
}

/// Refused callbacks: too old, too many, too large.
fn shrink_refused(
    file: &Connection,
    bounds: &RefusedBounds,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let oldest =
        number(now).saturating_sub(i64::try_from(bounds.age.as_millis()).unwrap_or(i64::MAX));
    file.prepare_cached(
        "DELETE FROM message WHERE id IN (SELECT id FROM message WHERE queue = 'refused' \
         AND due <= ?1 ORDER BY due, id LIMIT ?2)",
    )?
    .execute(params![oldest, ROWS])?;
    // The newest stay: each one's place, and the bytes up to it, counted from the newest.
    file.prepare_cached(
        "DELETE FROM message WHERE id IN (SELECT id FROM (SELECT id, \
         row_number() OVER newest AS place, sum(length(body)) OVER newest AS bytes \
         FROM message WHERE queue = 'refused' WINDOW newest AS (ORDER BY due DESC, id DESC)) \
         WHERE place > ?1 OR bytes > ?2 LIMIT ?3)",
    )?
    .execute(params![bounds.count, i64::try_from(bounds.bytes).unwrap_or(i64::MAX), ROWS])?;
    Ok(())
}

fn shrink_archive(file: &Connection, bounds: &Archive, now: Timestamp) -> rusqlite::Result<()> {
    let oldest =
        number(now).saturating_sub(i64::try_from(bounds.age.as_millis()).unwrap_or(i64::MAX));
    file.prepare_cached(
        "DELETE FROM archive WHERE id IN \
         (SELECT id FROM (SELECT id, at FROM archive ORDER BY id LIMIT ?2) WHERE at <= ?1)",
    )?
    .execute(params![oldest, ROWS])?;
    file.prepare_cached(
        "DELETE FROM archive WHERE (SELECT bytes FROM archived) > ?1 \
         AND id IN (SELECT id FROM archive ORDER BY id LIMIT ?2)",
    )?
    .execute(params![i64::try_from(bounds.bytes).unwrap_or(i64::MAX), ROWS])?;
    Ok(())
}

/// After a flood.
fn shrink_file(file: &Connection) -> rusqlite::Result<()> {
    let spare: i64 = file.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    match spare > SPARE {
        true => file.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})")),
        false => Ok(()),
    }
}

/// Of the deliveries from `at` on, some; 0 after the last.
fn forget(file: &Connection, now: Timestamp, at: i64) -> rusqlite::Result<i64> {
    let next = at.saturating_add(LOOK);
    file.prepare_cached("DELETE FROM delivery WHERE id >= ?1 AND id < ?2 AND until <= ?3")?
        .execute(params![at, next, number(now)])?;
    let last: Option<i64> =
        file.prepare_cached("SELECT max(id) FROM delivery")?.query_row((), |row| row.get(0))?;
    Ok(if last.is_some_and(|last| last >= next) { next } else { 0 })
}
