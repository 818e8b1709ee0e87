//! The inbox on PostgreSQL, by tokio-postgres.

use std::time::Duration;

use tokio_postgres::{Client, Error, Transaction};

use super::PORTION;
use crate::DeliveryKey;

/// Creates the table `zentra_inbox` and its index, if they don't exist. Call it once at the start.
/// On a large table of a version before 0.3.0 the index blocks writes while it is built.
pub async fn create(client: &Client) -> Result<(), Error> {
    // One process at a time: IF NOT EXISTS fails if two create it at once.
    let table = "SELECT pg_advisory_xact_lock(8172); \
                 CREATE TABLE IF NOT EXISTS zentra_inbox \
                 (key text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now()); \
                 CREATE INDEX IF NOT EXISTS zentra_inbox_at ON zentra_inbox (at)";
    client.batch_execute(table).await
}

/// Stores a delivery's key in the transaction of its effect. `false`: it was processed before, and
/// there is nothing to write. Waits for another uncommitted transaction with the same key. End the
/// transaction by [`commit`].
pub async fn first(transaction: &Transaction<'_>, key: &DeliveryKey) -> Result<bool, Error> {
    let insert = "INSERT INTO zentra_inbox (key) VALUES ($1) ON CONFLICT DO NOTHING";
    Ok(transaction.execute(insert, &[&key.as_str()]).await? == 1)
}

/// Commits, if the key is stored in this transaction. Without it an error of a statement that the
/// handler ignored is not seen: PostgreSQL then answers `COMMIT` with a rollback, and no error.
pub async fn commit(transaction: Transaction<'_>, key: &DeliveryKey) -> Result<(), Error> {
    let select = "SELECT 1 FROM zentra_inbox WHERE key = $1";
    transaction.query_one(select, &[&key.as_str()]).await?;
    transaction.commit().await
}

/// Removes keys that are older than `age`, in portions of 10,000. Returns their number.
pub async fn forget(client: &Client, age: Duration) -> Result<u64, Error> {
    let delete = "DELETE FROM zentra_inbox WHERE key IN (SELECT key FROM zentra_inbox \
                  WHERE at < now() - make_interval(secs => $1) ORDER BY at LIMIT $2)";
    let mut all = 0;
    loop {
        let removed = client.execute(delete, &[&age.as_secs_f64(), &PORTION]).await?;
        all += removed;
        if removed < PORTION.unsigned_abs() {
            return Ok(all);
        }
    }
}
