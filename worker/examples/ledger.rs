//! A worker of your own: the destination `ledger` is a function here, and its effect is
//! written in one transaction with the delivery's key.
//!
//! In the config, `[destination.ledger]` has `handler = true` instead of a `url`. Then:
//!
//! ```sh
//! cargo run -p zentra-worker --example ledger --features inbox-sqlite -- --config zentra.toml
//! ```

use std::sync::{Arc, Mutex};

use rusqlite::{Connection, TransactionBehavior};
use serde::Deserialize;
use zentra_worker::{Delivery, Failed, Worker, inbox};

#[derive(Deserialize)]
struct Transfer {
    amount_minor: i64,
}

fn main() -> anyhow::Result<()> {
    let database = Connection::open("ledger.sqlite")?;
    inbox::sqlite::create(&database)?;
    database.execute_batch("CREATE TABLE IF NOT EXISTS ledger (amount_minor INTEGER NOT NULL)")?;
    let database = Arc::new(Mutex::new(database));
    let book = move |delivery: Delivery| {
        let database = database.clone();
        async move { tokio::task::spawn_blocking(move || write(&database, &delivery)).await? }
    };
    Worker::new().handler("ledger", book).run()
}

/// Any error is tried again, unless it says that this can't help.
fn write(database: &Mutex<Connection>, delivery: &Delivery) -> Result<(), Failed> {
    let transfer: Transfer =
        serde_json::from_slice(&delivery.event.body).map_err(Failed::permanent)?;
    let mut database =
        database.lock().map_err(|_| Failed::again("the database was left locked"))?;
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if inbox::sqlite::first(&transaction, &delivery.key)? {
        transaction.execute("INSERT INTO ledger VALUES (?1)", [transfer.amount_minor])?;
    }
    Ok(transaction.commit()?)
}
