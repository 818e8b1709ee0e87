//! The inbox on PostgreSQL, by tokio-postgres.

use std::time::Duration;

use tokio_postgres::{Client, Error, Transaction};

use crate::DeliveryKey;

/// Makes the table `zentra_inbox`, if it isn't there. To be called once at the start.
pub async fn create(client: &Client) -> Result<(), Error> {
    let table = "CREATE TABLE IF NOT EXISTS zentra_inbox \
                 (key text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())";
    client.batch_execute(table).await
}

/// Notes a delivery in the transaction that writes its effect. `false`: it has been done
/// before, and there is nothing to write. While another transaction has noted the same one
/// and isn't committed, this waits for it.
pub async fn first(transaction: &Transaction<'_>, key: &DeliveryKey) -> Result<bool, Error> {
    let insert = "INSERT INTO zentra_inbox (key) VALUES ($1) ON CONFLICT DO NOTHING";
    Ok(transaction.execute(insert, &[&key.as_str()]).await? == 1)
}

/// Forgets deliveries that were done longer ago than `age`. Returns how many.
pub async fn forget(client: &Client, age: Duration) -> Result<u64, Error> {
    let delete = "DELETE FROM zentra_inbox WHERE at < now() - make_interval(secs => $1)";
    client.execute(delete, &[&age.as_secs_f64()]).await
}
