//! The application of the shared suite of receiving libraries (`tests/tests/all/inbox.rs`), in Rust: `webhook-verify`
//! and `zentra_worker::inbox`.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rusqlite::{Connection, TransactionBehavior};
use serde::Deserialize;
use tokio_postgres::NoTls;
use webhook_verify::{Endpoint, NamedSecret, Secret, Unverified};
use zentra_core::event::DeliveryKey;
use zentra_tests::http::serve_on;
use zentra_worker::inbox;

const RETENTION: Duration = Duration::from_secs(60 * 24 * 3600);

struct Application {
    endpoint: Endpoint,
    database: String,
}

/// What the handler does after it has written.
#[derive(Deserialize)]
struct Event {
    then: Option<String>,
}

enum Failure {
    Permanent(&'static str),
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let secrets = env::var("SECRETS")?;
    let named = |secret: &str| NamedSecret { name: "key".into(), secret: Secret::new(secret) };
    let mut endpoint = Endpoint::new("standard-webhooks", &*secrets).context("no such provider")?;
    endpoint.secrets = secrets.split(' ').map(named).collect();
    let application = Arc::new(Application { endpoint, database: env::var("DATABASE")? });
    application.create_and_forget().await?;
    let answer = move |request| {
        let application = application.clone();
        async move { application.answer(request).await }
    };
    serve_on(env::var("PORT")?.parse()?, answer).await?;
    std::future::pending().await
}

impl Application {
    fn is_postgres(&self) -> bool {
        self.database.starts_with("postgres:")
    }

    async fn create_and_forget(&self) -> anyhow::Result<()> {
        if self.is_postgres() {
            let client = self.client().await?;
            inbox::postgres::create(&client).await?;
            inbox::postgres::forget(&client, RETENTION).await?;
        } else {
            let connection = self.connection()?;
            inbox::sqlite::create(&connection)?;
            inbox::sqlite::forget(&connection, RETENTION)?;
        }
        Ok(())
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        let (status, text) = self.receive(&parts.headers, body.unwrap_or_default()).await;
        if parts.headers.get("x-test-die").is_some_and(|at| at == "after the commit") {
            std::process::abort();
        }
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status.try_into().unwrap_or_default();
        response
    }

    async fn receive(&self, headers: &HeaderMap, body: Bytes) -> (u16, &'static str) {
        let request = Unverified::post(headers.clone(), body.clone());
        if let Err(refusal) = request.verify(&self.endpoint) {
            return (401, refusal.reason());
        }
        match self.once(headers, &body).await {
            Ok(true) => (200, "done"),
            Ok(false) => (200, "done before"),
            Err(Failure::Permanent(text)) => (422, text),
            Err(Failure::Other(error)) => {
                eprintln!("{error}");
                (500, "failed")
            }
        }
    }

    async fn once(&self, headers: &HeaderMap, body: &[u8]) -> Result<bool, Failure> {
        let id = headers.get("webhook-id").and_then(|id| id.to_str().ok());
        let key = id.and_then(DeliveryKey::parse).context("not a delivery's key")?;
        let event: Event = serde_json::from_slice(body)?;
        let dies = headers.get("x-test-die").is_some_and(|at| at == "before the commit");
        match self.is_postgres() {
            true => self.once_on_postgres(&key, &event, dies).await,
            false => tokio::task::block_in_place(|| self.once_on_sqlite(&key, &event, dies)),
        }
    }

    async fn once_on_postgres(
        &self,
        key: &DeliveryKey,
        event: &Event,
        dies: bool,
    ) -> Result<bool, Failure> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await?;
        if !inbox::postgres::first(&transaction, key).await? {
            return Ok(false);
        }
        let insert = "INSERT INTO effect (event_key) VALUES ($1)";
        transaction.execute(insert, &[&key.as_str()]).await?;
        if let Some(statement) = event.then(dies)? {
            // As a handler that ignores an error.
            let _ = transaction.batch_execute(statement).await;
        }
        inbox::postgres::commit(transaction, key).await?;
        Ok(true)
    }

    fn once_on_sqlite(
        &self,
        key: &DeliveryKey,
        event: &Event,
        dies: bool,
    ) -> Result<bool, Failure> {
        let mut connection = self.connection()?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !inbox::sqlite::first(&transaction, key)? {
            return Ok(false);
        }
        transaction.execute("INSERT INTO effect (event_key) VALUES (?1)", [key.as_str()])?;
        if let Some(statement) = event.then(dies)? {
            let _ = transaction.execute_batch(statement);
        }
        transaction.commit()?;
        Ok(true)
    }

    fn connection(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.database)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        Ok(connection)
    }

    async fn client(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.database, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Event {
    /// The statement that the handler still runs.
    fn then(&self, dies: bool) -> Result<Option<&'static str>, Failure> {
        if dies {
            std::process::abort();
        }
        match self.then.as_deref() {
            Some("is permanent") => Err(Failure::Permanent("no such account")),
            Some("fails") => Err(anyhow::anyhow!("the ledger is closed").into()),
            Some("rolls back") => Ok(Some("ROLLBACK")),
            Some("goes on after an error") => Ok(Some("INSERT INTO no_such_table (a) VALUES (1)")),
            _ => Ok(None),
        }
    }
}
