//! A user's own worker. Its handler for `ledger` writes rows under an inbox, and misbehaves as the
//! event's ID says.

use std::env;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use serde::Deserialize;
use zentra_worker::{Delivery, Failed, Worker, inbox};

#[derive(Clone, Deserialize)]
struct Transfer {
    id: String,
}

fn main() -> anyhow::Result<()> {
    if let Ok(url) = env::var("HANDLER_PG") {
        let book = move |delivery| handle_by_postgres(url.clone(), delivery);
        return Worker::new().handler("ledger", book).run();
    }
    let database = Connection::open(env::var("HANDLER_DB")?)?;
    database.busy_timeout(Duration::from_secs(5))?;
    inbox::sqlite::create(&database)?;
    database.execute_batch("CREATE TABLE IF NOT EXISTS booked (id TEXT NOT NULL) STRICT")?;
    let database = Arc::new(Mutex::new(database));
    let book = move |delivery| handle(database.clone(), delivery);
    Worker::new().handler("ledger", book).run()
}

async fn handle(database: Arc<Mutex<Connection>>, delivery: Delivery) -> Result<(), Failed> {
    let transfer: Transfer = serde_json::from_slice(&delivery.event.body)?;
    let first = delivery.attempt == 1;
    match transfer.id.split('_').next().unwrap_or_default() {
        "panics" if first => panic!("no ledger today"),
        "slow" if first => std::future::pending().await,
        "fails" if first => return Err(Failed::after(Duration::from_secs(1), "not yet")),
        "never" => return Err(Failed::permanent("not mine")),
        "tells" => {
            let context = &delivery.event.envelope.context;
            let shop = context.headers.iter().find(|(name, _)| name == "x-shop");
            return Err(Failed::permanent(format!("{:?} {shop:?}", context.query)));
        }
        _ => {}
    }
    let new = tokio::task::spawn_blocking({
        let id = transfer.id.clone();
        move || write(&database, &delivery, &id)
    })
    .await??;
    // Killed between its commit and the worker's settle.
    if new && transfer.id.starts_with("dies") {
        std::process::abort();
    }
    Ok(())
}

/// The same on PostgreSQL. The table `booked` exists.
async fn handle_by_postgres(url: String, delivery: Delivery) -> Result<(), Failed> {
    let transfer: Transfer = serde_json::from_slice(&delivery.event.body)?;
    let (mut client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    inbox::postgres::create(&client).await?;
    let transaction = client.transaction().await?;
    let new = inbox::postgres::first(&transaction, &delivery.key).await?;
    if new {
        transaction.execute("INSERT INTO booked VALUES ($1)", &[&transfer.id]).await?;
        inbox::postgres::commit(transaction, &delivery.key).await?;
    }
    if new && transfer.id.starts_with("dies") {
        std::process::abort();
    }
    Ok(())
}

/// Whether it was written now, and not before.
fn write(database: &Mutex<Connection>, delivery: &Delivery, id: &str) -> Result<bool, Failed> {
    let mut database = database.lock().map_err(|_| Failed::again("left locked"))?;
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let new = inbox::sqlite::first(&transaction, &delivery.key)?;
    if new {
        transaction.execute("INSERT INTO booked VALUES (?1)", [id])?;
    }
    transaction.commit()?;
    Ok(new)
}
