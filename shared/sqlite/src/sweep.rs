//! Deletes what has expired, in small steps, so that nothing waits for it.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::{MissedTickBehavior, interval};
use zentra_core::clock::{self, Timestamp};
use zentra_store::queue::Archive;
use zentra_store::queue::RefusedBounds;

use super::store::{Store, StoreError, number};
use super::walk::release;

const TICK: Duration = Duration::from_secs(1);
/// Number of rounds between two counts of refused callbacks, and between two writes of the time.
const SELDOM: u64 = 10;
/// Maximum number of rows deleted in one commit.
const ROWS: usize = 500;
/// Number of unused pages that may stay: new rows use them.
const SPARE: i64 = 16_384;
/// Pages returned to the file system in one commit.
const PAGES: i64 = 1_024;
/// Deliveries examined in one commit.
const LOOK: i64 = 5_000;
/// Maximum difference of the stored time, in milliseconds, that does not count as a clock step: a
/// slow disk.
const OFF: i64 = 5_000;

/// Bounds of the archive and of refused callbacks.
pub(super) struct Bounds {
    pub(super) refused: RefusedBounds,
    pub(super) archive: Archive,
}

/// Enforces the bounds, and deletes expired deliveries, until the process ends.
pub(super) async fn sweep(store: Store, bounds: impl Fn() -> Bounds) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut at, mut seen) = (0, None);
    for round in 0u64.. {
        tick.tick().await;
        match follow_clock(&store, seen, round.is_multiple_of(SELDOM)).await {
            Ok(now) => seen = now.or(seen),
            Err(error) => {
                tracing::warn!(%error, "cannot shift due times after a clock step: retrying")
            }
        }
        match one(&store, &bounds(), round.is_multiple_of(SELDOM), at).await {
            Ok(next) => at = next,
            Err(error) => tracing::warn!(%error, "cannot delete what has expired: retrying"),
        }
    }
}

/// Shifts the due times of waiting messages with a clock that was set. The step counts from the
/// last call, or, at the start, from the time when the file was last worked on, and only if the
/// clock went back. `seen` is when the time was last stored, by [`clock::running`]. `write` says
/// whether to store it again. Returns when it was stored.
async fn follow_clock(
    store: &Store,
    seen: Option<Duration>,
    write: bool,
) -> Result<Option<Duration>, StoreError> {
    let (now, running) = (clock::now(), clock::running());
    let passed = seen.map(|seen| running.saturating_sub(seen));
    let last = store.read(last_seen).await?;
    let off = last.map_or(0, |last| stepped(last, passed, now));
    if off == 0 && !write {
        return Ok(None);
    }
    if off != 0 {
        tracing::warn!(
            off_ms = off,
            "the clock was set: due times of waiting messages are shifted"
        );
    }
    store.write(move |file| shift_due(file, now, off)).await?;
    Ok(Some(running))
}

fn last_seen(file: &Connection) -> rusqlite::Result<Option<i64>> {
    file.query_row("SELECT at FROM last_seen", (), |row| row.get(0)).optional()
}

/// By how many milliseconds the clock was set, when it showed `last` and `passed` has elapsed
/// since. At the start the elapsed time is unknown, so only a clock that went back is noticed.
fn stepped(last: i64, passed: Option<Duration>, now: Timestamp) -> i64 {
    let passed_ms =
        passed.map_or(0, |passed| i64::try_from(passed.as_millis()).unwrap_or(i64::MAX));
    let off = number(now).saturating_sub(last.saturating_add(passed_ms));
    let counts = if passed.is_some() { off.abs() > OFF } else { off < -OFF };
    if counts { off } else { 0 }
}

fn shift_due(file: &Connection, now: Timestamp, off: i64) -> rusqlite::Result<()> {
    let (now_ms, before) = (number(now), number(now).saturating_sub(off));
    // Forward: messages that were not due by the old clock, and were not written by the new one.
    // Backward: all messages that would wait for the old time.
    let (after, until) = if off > 0 { (before, now_ms) } else { (now_ms, i64::MAX) };
    if off != 0 {
        let wait = "UPDATE message SET due = due + ?1 \
                    WHERE queue LIKE 'work/%' AND due > ?2 AND due < ?3";
        file.execute(wait, params![off, after, until])?;
    }
    let seen = "INSERT INTO last_seen (id, at) VALUES (1, ?1) ON CONFLICT DO UPDATE SET at = ?1";
    file.execute(seen, [number(now)]).map(drop)
}

/// Trims everything beyond the bounds, in many commits. Returns where to look for expired
/// deliveries next.
async fn one(store: &Store, bounds: &Bounds, refused: bool, at: i64) -> Result<i64, StoreError> {
    let now = clock::now();
    // Messages that are still to be delivered have priority over the archive.
    let archived = store
        .read(|file| file.query_row("SELECT bytes FROM archived", (), |row| row.get::<_, i64>(0)));
    let (archived, crowding) = (archived.await?.unsigned_abs(), store.crowding());
    let most = match crowding {
        0 => bounds.archive.bytes,
        crowding => bounds.archive.bytes.min(archived.saturating_sub(crowding)),
    };
    loop {
        let (of_refused, archive) = (
            refused.then(|| bounds.refused.clone()),
            Archive { bytes: most, ..bounds.archive.clone() },
        );
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

/// Trims refused callbacks: too old, too many, too large. Returns the largest number that one rule
/// deleted.
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
    // The newest stay: the row of each, and the bytes up to it, counted from the newest.
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
    // The oldest rows that together are as large as the excess.
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

/// Returns unused pages after a flood.
fn shrink_file(file: &Connection) -> rusqlite::Result<()> {
    let spare: i64 = file.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    if spare > SPARE {
        // Each step returns one page.
        let mut vacuum = file.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let mut steps = vacuum.query(())?;
        while steps.next()?.is_some() {}
    }
    Ok(())
}

/// Examines some deliveries from row `at` on. Returns the next row, or 0 after the last.
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
        // The tighter of two bounds applies. Waiting messages and dead letters are never swept.
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

    #[test]
    fn a_step_shows_in_both_directions_and_at_the_start_only_backwards() {
        let (day, minute) = (24 * 3_600_000, Duration::from_secs(60));
        let at = |millis: i64| Timestamp::from_millis(millis.unsigned_abs());
        let last = 1_700_000_000_000;
        for (passed, now, off) in [
            (Some(minute), last + 60_000, 0),
            (Some(minute), last + 60_000 + OFF, 0),
            (Some(minute), last + 60_000 + day, day),
            (Some(minute), last + 60_000 - day, -day),
            (None, last + day, 0),
            (None, last - day, -day),
        ] {
            assert_eq!(stepped(last, passed, at(now)), off, "{passed:?} {now}");
        }
    }

    #[tokio::test]
    async fn what_waits_keeps_its_delay_when_the_clock_is_stepped() {
        let path = std::env::temp_dir().join(format!("zentra-step-{}.db", std::process::id()));
        let store = Store::open(&path, 1 << 30).unwrap();
        let day = 24 * 3_600_000;
        let old = number(clock::now());
        let message = "(queue, due, route, event, attempt, generation, seal, envelope, body)";
        let rest = "'', '', 1, 0, '', zeroblob(0), zeroblob(0)";
        let written = store.write(move |file| {
            for (queue, due) in
                [("work/d", old + 9_000), ("work/d", old - 5), ("dead/d", old + 9_000)]
            {
                let insert = format!("INSERT INTO message {message} VALUES (?1, ?2, {rest})");
                file.execute(&insert, params![queue, due])?;
            }
            Ok(())
        });
        written.await.unwrap();
        let dues = |file: &Connection| -> rusqlite::Result<Vec<i64>> {
            let mut select = file.prepare("SELECT due FROM message ORDER BY id")?;
            select.query_map((), |row| row.get(0))?.collect()
        };
        for off in [day, -day] {
            let before = store.read(dues).await.unwrap();
            let last = store.read(last_seen).await.unwrap().unwrap_or(old);
            let now = Timestamp::from_millis((last + off).unsigned_abs());
            store.write(move |file| shift_due(file, now, off)).await.unwrap();
            let after = store.read(dues).await.unwrap();
            assert_eq!(
                after,
                [before[0] + off, before[1], before[2]],
                "only what waits for its time"
            );
            assert_eq!(store.read(last_seen).await.unwrap(), Some(number(now)));
        }
        // The opposite: due messages stay due, and waiting ones get their delay again.
        for off in [-day, day] {
            let last = store.read(last_seen).await.unwrap().unwrap();
            let now = Timestamp::from_millis((last + off).unsigned_abs());
            store.write(move |file| shift_due(file, now, off)).await.unwrap();
            assert!(store.read(dues).await.unwrap()[1] <= number(now), "{off}");
        }
        assert_eq!(store.read(dues).await.unwrap()[0], old + 9_000);
        // A file that was worked on while the clock was ahead, and is opened after it was
        // corrected.
        let ahead = Timestamp::from_millis((old + day).unsigned_abs());
        store.write(move |file| shift_due(file, ahead, day)).await.unwrap();
        follow_clock(&store, None, false).await.unwrap().unwrap();
        let due = store.read(dues).await.unwrap()[0];
        assert!((due - old - 9_000).abs() < OFF, "{}", due - old);
        assert!(follow_clock(&store, Some(clock::running()), false).await.unwrap().is_none());
        let _ = std::fs::remove_file(&path);
    }

    #[tokio::test]
    async fn in_a_crowded_file_the_archive_makes_room_for_what_is_to_be_delivered() {
        let path = std::env::temp_dir().join(format!("zentra-crowded-{}.db", std::process::id()));
        let store = Store::open(&path, 20 << 20).unwrap();
        let fill = "WITH RECURSIVE at(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM at WHERE n < ";
        let insert = |rows: u32, what: &str| format!("{fill}{rows}) INSERT INTO {what} FROM at;");
        let archive = "archive (at, route, event, seal, envelope, body) \
                       SELECT 9e12, '', n, '', zeroblob(10), zeroblob(4000)";
        let waiting = "message (queue, due, route, event, attempt, generation, seal, envelope, body) \
                       SELECT 'work/d', n, '', n, 1, 0, '', zeroblob(0), zeroblob(4000)";
        let (archive, waiting) = (insert(2000, archive), insert(3000, waiting));
        store.write(move |file| file.execute_batch(&(archive + &waiting))).await.unwrap();
        let crowding = store.crowding();
        assert!(crowding > 1 << 20, "{:?}", store.sizes());
        let bounds = || Bounds {
            refused: RefusedBounds { count: 1, bytes: 1, age: FOREVER },
            archive: Archive { sources: Vec::new(), bytes: 10 << 20, age: FOREVER },
        };
        one(&store, &bounds(), false, 0).await.unwrap();
        let [archived, _, waiting, _] = store.read(counts).await.unwrap();
        assert_eq!((waiting, store.crowding()), (3000, 0), "{:?}", store.sizes());
        assert!(archived > 1000, "no more than it takes: {archived}");
        // A second run trims nothing more.
        one(&store, &bounds(), false, 0).await.unwrap();
        assert_eq!(store.read(counts).await.unwrap()[0], archived);
        let _ = std::fs::remove_file(&path);
    }
}
