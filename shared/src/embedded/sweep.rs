//! What has had its time goes: little by little, so that nothing waits for it.

use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::time::{MissedTickBehavior, interval};

use super::store::{Store, StoreError, number};
use super::walk::release;
use crate::clock::{self, Timestamp};
use crate::queue::Archive;
use crate::queue::amqp::RefusedBounds;

const TICK: Duration = Duration::from_secs(1);
/// Each so manyth time, refused callbacks are counted.
const SELDOM: u64 = 10;
/// Rows that go, at most, in one commit.
const ROWS: usize = 500;
/// Pages without use that may stay: what comes next takes them.
const SPARE: i64 = 16_384;
/// Pages that go back to the disk in one commit.
const PAGES: i64 = 1_024;
/// Deliveries that are looked at in one commit.
const LOOK: i64 = 5_000;

/// What is kept beside what is delivered.
pub(super) struct Bounds {
    pub(super) refused: RefusedBounds,
    pub(super) archive: Archive,
}

/// Keeps to the bounds, and forgets deliveries, for ever.
pub(super) async fn sweep(store: Store, bounds: impl Fn() -> Bounds) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut at = 0;
    for round in 0u64.. {
        tick.tick().await;
        match one(&store, &bounds(), round.is_multiple_of(SELDOM), at).await {
            Ok(next) => at = next,
            Err(error) => tracing::warn!(%error, "what has had its time stays for now"),
        }
    }
}

/// All that is beyond the bounds, by many commits. Returns where to look for forgotten
/// deliveries next.
async fn one(store: &Store, bounds: &Bounds, refused: bool, at: i64) -> Result<i64, StoreError> {
    let now = clock::now();
    loop {
        let (of_refused, archive) =
            (refused.then(|| bounds.refused.clone()), bounds.archive.clone());
        let gone = store.write(move |file| {
            let refused = of_refused.map_or(Ok(0), |of| shrink_refused(file, &of, now))?;
            Ok(refused.max(shrink_archive(file, &archive, now)?))
        });
        if gone.await? < ROWS {
            break;
        }
    }
    let rest = move |file: &Connection| {
        release(file, now)?;
        shrink_file(file)?;
        forget(file, now, at)
    };
    store.write(rest).await
}

/// Refused callbacks: too old, too many, too large. Returns how many went at most by one rule.
fn shrink_refused(
    file: &Connection,
    bounds: &RefusedBounds,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let old = file
        .prepare_cached(
            "DELETE FROM message WHERE id IN (SELECT id FROM message WHERE queue = 'refused' \
         AND due <= ?1 ORDER BY due, id LIMIT ?2)",
        )?
        .execute(params![before(now, bounds.age), rows()])?;
    // The newest stay: each one's place, and the bytes up to it, counted from the newest.
    let many = file
        .prepare_cached(
            "DELETE FROM message WHERE id IN (SELECT id FROM (SELECT id, \
         row_number() OVER newest AS place, sum(length(body)) OVER newest AS bytes \
         FROM message WHERE queue = 'refused' WINDOW newest AS (ORDER BY due DESC, id DESC)) \
         WHERE place > ?1 OR bytes > ?2 LIMIT ?3)",
        )?
        .execute(params![bounds.count, i64::try_from(bounds.bytes).unwrap_or(i64::MAX), rows()])?;
    Ok(old.max(many))
}

fn shrink_archive(file: &Connection, bounds: &Archive, now: Timestamp) -> rusqlite::Result<usize> {
    let old = file
        .prepare_cached(
            "DELETE FROM archive WHERE id IN \
         (SELECT id FROM (SELECT id, at FROM archive ORDER BY id LIMIT ?2) WHERE at <= ?1)",
        )?
        .execute(params![before(now, bounds.age), rows()])?;
    // The oldest that are as large as what is too much.
    let many = file
        .prepare_cached(
            "DELETE FROM archive WHERE id IN (SELECT id FROM (SELECT id, \
         sum(length(envelope) + length(body)) OVER (ORDER BY id) - length(envelope) - length(body) \
         AS before FROM (SELECT id, envelope, body FROM archive ORDER BY id LIMIT ?2)) \
         WHERE before < (SELECT bytes FROM archived) - ?1)",
        )?
        .execute(params![i64::try_from(bounds.bytes).unwrap_or(i64::MAX), rows()])?;
    Ok(old.max(many))
}

fn before(now: Timestamp, age: Duration) -> i64 {
    number(now).saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

fn rows() -> i64 {
    i64::try_from(ROWS).unwrap_or(i64::MAX)
}

/// After a flood.
fn shrink_file(file: &Connection) -> rusqlite::Result<()> {
    let spare: i64 = file.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    if spare > SPARE {
        // Each step gives one page back.
        let mut vacuum = file.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let mut steps = vacuum.query(())?;
        while steps.next()?.is_some() {}
    }
    Ok(())
}

/// Of the deliveries from `at` on, some; 0 after the last.
fn forget(file: &Connection, now: Timestamp, at: i64) -> rusqlite::Result<i64> {
    file.prepare_cached(
        "DELETE FROM first_type WHERE key IN \
         (SELECT key FROM first_type WHERE until <= ?1 ORDER BY until LIMIT ?2)",
    )?
    .execute(params![number(now), rows()])?;
    let next = at.saturating_add(LOOK);
    file.prepare_cached("DELETE FROM delivery WHERE id >= ?1 AND id < ?2 AND until <= ?3")?
        .execute(params![at, next, number(now)])?;
    let last: Option<i64> =
        file.prepare_cached("SELECT max(id) FROM delivery")?.query_row((), |row| row.get(0))?;
    Ok(if last.is_some_and(|last| last >= next) { next } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: Duration = Duration::from_secs(1 << 32);

    fn counts(file: &Connection) -> rusqlite::Result<[i64; 4]> {
        let mut all = [0; 4];
        for (count, of) in all.iter_mut().zip([
            "archive",
            "message WHERE queue = 'refused'",
            "message WHERE queue = 'work/d'",
            "delivery",
        ]) {
            *count = file.query_row(&format!("SELECT count(*) FROM {of}"), (), |row| row.get(0))?;
        }
        Ok(all)
    }

    #[tokio::test]
    async fn archive_and_refused_keep_to_their_bounds_and_deliveries_to_their_retention() {
        let path = std::env::temp_dir().join(format!("zentra-sweep-{}.db", std::process::id()));
        let store = Store::open(&path, 1 << 30).unwrap();
        let fill =
            "WITH RECURSIVE at(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM at WHERE n < 3000)";
        let message = "(queue, due, route, event, attempt, generation, seal, envelope, body)";
        let now = number(clock::now());
        let written = store.write(move |file| {
            file.execute_batch(&format!(
                "{fill} INSERT INTO archive (at, route, event, seal, envelope, body) \
                 SELECT {now}, '', n, '', zeroblob(10), zeroblob(90) FROM at;
                 {fill} INSERT INTO message {message} \
                 SELECT 'refused', n, '', n, 1, 0, '', zeroblob(0), zeroblob(100) FROM at;
                 {fill} INSERT INTO message {message} \
                 SELECT 'work/d', n, '', n, 1, 0, '', zeroblob(0), zeroblob(100) FROM at;
                 {fill} INSERT INTO delivery (key, destination, until, record, summary, history) \
                 SELECT n, 'd', iif(n % 3 = 0, NULL, iif(n % 3 = 1, 5, {now} + 100000)), \
                 zeroblob(9), zeroblob(9), zeroblob(9) FROM at;"
            ))
        });
        written.await.unwrap();
        let refused = RefusedBounds { count: 1000, bytes: 70_050, age: FOREVER };
        let archive = Archive { sources: Vec::new(), bytes: 50_000, age: FOREVER };
        let at = one(&store, &Bounds { refused: refused.clone(), archive }, true, 0).await.unwrap();
        // By the tighter of two bounds; what waits is nobody's to sweep; a dead one is kept.
        assert_eq!(store.read(counts).await.unwrap(), [500, 700, 3000, 2000]);
        let newest = "SELECT min(CAST(event AS INTEGER)) FROM archive";
        let oldest: i64 =
            store.read(|file| file.query_row(newest, (), |row| row.get(0))).await.unwrap();
        assert_eq!((oldest, at), (2501, 0));
        let bounds = Bounds {
            refused: RefusedBounds { age: Duration::ZERO, ..refused },
            archive: Archive { sources: Vec::new(), bytes: 50_000, age: Duration::ZERO },
        };
        one(&store, &bounds, true, at).await.unwrap();
        assert_eq!(store.read(counts).await.unwrap(), [0, 0, 3000, 2000]);
        drop(store);
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", path.display()));
        }
    }

    #[tokio::test]
    async fn after_a_flood_the_file_gives_its_pages_back() {
        let path = std::env::temp_dir().join(format!("zentra-flood-{}.db", std::process::id()));
        let store = Store::open(&path, 1 << 30).unwrap();
        let pages = |file: &Connection| {
            file.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))
        };
        let flood = store.write(|file| {
            file.execute_batch(
                "WITH RECURSIVE at(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM at WHERE n < 900)
                 INSERT INTO archive (at, route, event, seal, envelope, body)
                 SELECT 0, '', n, '', x'', zeroblob(100000) FROM at;
                 DELETE FROM archive;",
            )
        });
        flood.await.unwrap();
        let before = store.read(pages).await.unwrap();
        let refused = RefusedBounds { count: 1, bytes: 1, age: FOREVER };
        let archive = Archive { sources: Vec::new(), bytes: 1 << 30, age: FOREVER };
        let bounds = Bounds { refused, archive };
        one(&store, &bounds, false, 0).await.unwrap();
        let after = store.read(pages).await.unwrap();
        assert!(before > SPARE && after <= before - PAGES, "{before} pages, then {after}");
        drop(store);
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", path.display()));
        }
    }
}
