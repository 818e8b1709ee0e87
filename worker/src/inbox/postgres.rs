//! The inbox on PostgreSQL, by tokio-postgres.

use std::time::Duration;

use tokio_postgres::{Client, Error, Transaction};

use crate::DeliveryKey;

/// Creates the table `zentra_inbox`, if it doesn't exist. Call it once at the start.
pub async fn create(client: &Client) -> Result<(), Error> {
    let table = "CREATE TABLE IF NOT EXISTS zentra_inbox \
                 (key text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())";
    client.batch_execute(table).await
}

/// Stores a delivery's key in the transaction of its effect. `false`: it was processed before, and
/// there is nothing to write. Waits for another uncommitted transaction with the same key.
pub async fn first(transaction: &Transaction<'_>, key: &DeliveryKey) -> Result<bool, Error> {
    let insert = "INSERT INTO zentra_inbox (key) VALUES ($1) ON CONFLICT DO NOTHING";
    Ok(transaction.execute(insert, &[&key.as_str()]).await? == 1)
}

/// Removes keys that are older than `age`. Returns their number.
pub async fn forget(client: &Client, age: Duration) -> Result<u64, Error> {
    let delete = "DELETE FROM zentra_inbox WHERE at < now() - make_interval(secs => $1)";
    client.execute(delete, &[&age.as_secs_f64()]).await
}
