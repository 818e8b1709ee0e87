//! The inbox on SQLite, by rusqlite.

use std::time::Duration;

use rusqlite::{Connection, Result, Transaction};

use super::PORTION;
use crate::DeliveryKey;

/// Creates the table `zentra_inbox` and its index, if they don't exist. Call it once at the start.
pub fn create(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS zentra_inbox \
         (key TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID; \
         CREATE INDEX IF NOT EXISTS zentra_inbox_at ON zentra_inbox (at)",
    )
}

/// Stores a delivery's key in the transaction of its effect. `false`: it was processed before, and
/// there is nothing to write. Use an immediate transaction, so that two workers can't both read
/// first.
pub fn first(transaction: &Transaction<'_>, key: &DeliveryKey) -> Result<bool> {
    let new = transaction.execute(
        "INSERT INTO zentra_inbox (key, at) VALUES (?1, unixepoch()) ON CONFLICT DO NOTHING",
        [key.as_str()],
    )?;
    Ok(new == 1)
}

/// Removes keys that are older than `age`, in portions of 10,000. Returns their number.
pub fn forget(connection: &Connection, age: Duration) -> Result<usize> {
    let delete = "DELETE FROM zentra_inbox WHERE key IN (SELECT key FROM zentra_inbox \
                  WHERE at < unixepoch() - ?1 ORDER BY at LIMIT ?2)";
    let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
    let mut all = 0;
    loop {
        let removed = connection.execute(delete, [seconds, PORTION])?;
        all += removed;
        if i64::try_from(removed) != Ok(PORTION) {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_the_first_once_and_only_if_its_transaction_is_committed() {
        let mut database = Connection::open_in_memory().unwrap();
        create(&database).unwrap();
        create(&database).unwrap();
        let key = DeliveryKey::parse("ledger/acme/evt_1").unwrap();
        let undone = database.transaction().unwrap();
        assert!(first(&undone, &key).unwrap());
        undone.rollback().unwrap();
        let done = database.transaction().unwrap();
        assert!(first(&done, &key).unwrap());
        assert!(!first(&done, &key).unwrap());
        done.commit().unwrap();
        let again = database.transaction().unwrap();
        assert!(!first(&again, &key).unwrap());
        again.commit().unwrap();
        assert_eq!(forget(&database, Duration::from_secs(3600)).unwrap(), 0);
    }
}
