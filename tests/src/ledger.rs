//! A ledger: the application behind Zentra, as a developer would write it.
//!
//! `POST /transfers` receives the callback's exact bytes and writes one row per `Idempotency-Key`
//! into SQLite. It can be told to fail, or to write and then withhold its response, so that a
//! worker can be killed at the worst moment.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rusqlite::Connection;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What the ledger reads of a callback.
#[derive(Deserialize)]
struct Transfer {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    idempotency_key: String,
    amount_minor: i64,
    currency: String,
}

/// How the ledger answers one request.
#[derive(Debug)]
pub enum Turn {
    /// Writes nothing and answers with this status.
    Answer(u16, Vec<(&'static str, String)>),
    /// Writes, reports it, and never answers.
    WriteAndHang,
    /// Writes nothing, reports the request, and never answers.
    Hang,
}

/// One received request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Seen {
    /// A header's value, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A row.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// The `Idempotency-Key` of the request.
    pub key: String,
    /// The ID of the transfer.
    pub transfer: String,
    /// The amount in cents.
    pub amount_minor: i64,
    /// The currency, ISO 4217.
    pub currency: String,
    /// The callback's bytes.
    pub body: Vec<u8>,
}

/// A running ledger.
pub struct Ledger {
    shared: Arc<Shared>,
    /// The URL for transfers.
    pub url: String,
    /// Receives the idempotency key of each request that hangs.
    pub hung: mpsc::UnboundedReceiver<String>,
}

struct Shared {
    rows: Mutex<Connection>,
    turns: Mutex<VecDeque<Turn>>,
    /// The number of first attempts that each event fails.
    fails: AtomicU32,
    seen: Mutex<Vec<Seen>>,
    hung: mpsc::UnboundedSender<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Starts a ledger with its database in `folder`.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let rows = Connection::open(folder.join("ledger.db"))?;
        rows.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS transfers (
                 idempotency_key TEXT PRIMARY KEY, event TEXT NOT NULL, kind TEXT NOT NULL,
                 transfer TEXT NOT NULL, amount_minor INTEGER NOT NULL, currency TEXT NOT NULL,
                 body BLOB NOT NULL)",
        )?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/transfers", listener.local_addr()?);
        let (sender, hung) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            rows: Mutex::new(rows),
            turns: Mutex::default(),
            fails: AtomicU32::default(),
            seen: Mutex::default(),
            hung: sender,
        });
        tokio::spawn(serve(listener, shared.clone()));
        Ok(Self { shared, url, hung })
    }

    /// A URL that accepts everything and writes nothing.
    pub fn any(&self) -> String {
        self.url.replace("/transfers", "/any")
    }

    /// The next requests get these answers. After them, the ledger works normally.
    pub fn take_turns(&self, turns: impl IntoIterator<Item = Turn>) {
        lock(&self.shared.turns).extend(turns);
    }

    /// From the next request on, the ledger works normally.
    pub fn forget_turns(&self) {
        lock(&self.shared.turns).clear();
    }

    /// Each event fails this many of its first attempts.
    pub fn fail_first_attempts(&self, count: u32) {
        self.shared.fails.store(count, Ordering::Relaxed);
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// All rows, by key.
    pub fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let rows = lock(&self.shared.rows);
        let mut select = rows.prepare(
            "SELECT idempotency_key, transfer, amount_minor, currency, body
             FROM transfers ORDER BY idempotency_key",
        )?;
        let found = select.query_map((), |row| {
            Ok(Row {
                key: row.get(0)?,
                transfer: row.get(1)?,
                amount_minor: row.get(2)?,
                currency: row.get(3)?,
                body: row.get(4)?,
            })
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        let service = service_fn(move |request| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(shared.answer(request).await) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let writes = match (&parts.method, parts.uri.path()) {
            (&Method::POST, "/transfers") => true,
            (&Method::POST, "/any") => false,
            _ => return respond(404, "POST /transfers or /any", &[]),
        };
        let Ok(body) = Limited::new(body, 1 << 20).collect().await else {
            return respond(400, "the body can't be read", &[]);
        };
        let seen = Seen { headers: parts.headers, body: body.to_bytes() };
        lock(&self.seen).push(seen.clone());
        let attempt = seen.header("zentra-attempt").parse::<u32>().unwrap_or(u32::MAX);
        if attempt <= self.fails.load(Ordering::Relaxed) {
            return respond(500, "not at this attempt", &[]);
        }
        let turn = lock(&self.turns).pop_front();
        match turn {
            Some(Turn::Answer(status, headers)) => respond(status, "not now", &headers),
            Some(turn) => {
                if matches!(turn, Turn::WriteAndHang) {
                    let _ = self.write(&seen);
                }
                let _ = self.hung.send(seen.header("idempotency-key").to_owned());
                std::future::pending().await
            }
            None if !writes => respond(200, "seen", &[]),
            None => match self.write(&seen) {
                Ok(written) => respond(200, written, &[]),
                Err(error) => respond(422, &error.to_string(), &[]),
            },
        }
    }

    /// One row per key, however often it is delivered.
    fn write(&self, seen: &Seen) -> anyhow::Result<&'static str> {
        let key = seen.header("idempotency-key");
        anyhow::ensure!(!key.is_empty(), "no Idempotency-Key");
        let transfer: Transfer = serde_json::from_slice(&seen.body)?;
        let new = lock(&self.rows).execute(
            "INSERT OR IGNORE INTO transfers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                key,
                &transfer.id,
                &transfer.kind,
                &transfer.idempotency_key,
                transfer.amount_minor,
                &transfer.currency,
                &seen.body[..],
            ),
        )?;
        Ok(if new == 1 { "written" } else { "already written" })
    }
}

fn respond(status: u16, text: &str, headers: &[(&'static str, String)]) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    let body = Full::new(Bytes::from(format!("{text}\n")));
    response.body(body).unwrap_or_default()
}

/// The body of a callback about a transfer.
pub fn transfer(id: &str, key: &str, amount_minor: i64) -> String {
    format!(
        r#"{{"id": "{id}", "type": "transfer.settled", "idempotency_key": "{key}", "amount_minor": {amount_minor}, "currency": "USD"}}"#
    )
}
