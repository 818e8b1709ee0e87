//! The routes that look for a text, and that tell what happens.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use utoipa::IntoParams;
use zentra_shared::journal::list::Query as Asking;
use zentra_shared::lifecycle::{DeadReason, State as Standing};

use super::State;
use super::auth::{PerToken, Who};
use super::problem::Problem;
use super::routes::{Answer, Query, bad};
use crate::control::Asked;
use crate::event::Matches;

/// So many may be told at a time what happens,
static LISTENERS: Semaphore = Semaphore::const_new(8);
/// So many of them by one token.
const BY_TOKEN: usize = 3;
static BY_ONE: PerToken = PerToken::new();
/// each for so long, lest a token that was revoked is told for ever,
const AN_HOUR: Duration = Duration::from_secs(3600);
/// and each may be so many looks behind.
const BEHIND: usize = 64;

/// What is looked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Find {
    /// The text, as it stands in the body: 1 to 200 characters.
    #[param(min_length = 1, max_length = 200)]
    text: String,
}

/// Events whose bodies have a text in them, like a transfer's number. For tokens with payloads, since
/// who asks often enough learns what is in a body; each look is in the audit.
#[utoipa::path(
    get, path = "/v1/find", tag = "look", params(Find), security(("token" = [])),
    responses((status = 200, body = Matches), (status = "default", body = Problem))
)]
pub(super) async fn find(
    who: Who,
    state: State,
    Query(Find { text }): Query<Find>,
) -> Answer<Matches> {
    who.may_see_payloads()?;
    if !(1..=200).contains(&text.chars().count()) {
        return Err(bad("text has 1 to 200 characters".into()));
    }
    let said = Asked { because: String::new(), by: who.name() }.said();
    Ok(Json(state.find(&text, &said).await?))
}

/// Of which deliveries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Tail {
    /// Only this source's.
    source: Option<String>,
    /// Only those to this destination.
    destination: Option<String>,
    /// Only those of this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only those that stand so.
    state: Option<Standing>,
    /// Only those that are dead for this reason.
    reason: Option<DeadReason>,
    /// Only those of this event: the provider's id, an identity, or a delivery key.
    id: Option<String>,
}

/// What happens, as it happens, of the newest thousand deliveries: a line of JSON each, for an hour.
#[utoipa::path(
    get, path = "/v1/tail", tag = "look", params(Tail), security(("token" = [])),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson"),
        (status = "default", body = Problem)
    )
)]
pub(super) async fn tail(
    who: Who,
    state: State,
    Query(asked): Query<Tail>,
) -> Result<impl IntoResponse, Problem> {
    let too_many = |detail: &str| Problem::new(StatusCode::TOO_MANY_REQUESTS, detail);
    let by_one = BY_ONE.take(who.token(), BY_TOKEN);
    let by_one = by_one.ok_or_else(|| too_many("three tails at a time by one token"))?;
    let listens = LISTENERS.try_acquire();
    let listens = listens.map_err(|_| too_many("too many are told already: try again"))?;
    let Tail { source, destination, kind, state: stands, reason, id } = asked;
    let query =
        Asking { source, destination, kind, state: stands, reason, since: None, until: None };
    let (sender, receiver) = mpsc::channel(BEHIND);
    let service = Arc::clone(&state.0);
    tokio::spawn(async move {
        let _listens = (listens, by_one);
        let mut lines = Lines { written: Vec::new(), sender };
        let told = service.tail(&query, id.as_deref(), &mut lines);
        // It ends when its reader does.
        let _ = tokio::time::timeout(AN_HOUR, told).await;
    });
    let lines = stream::unfold(receiver, |mut receiver| async {
        let next: Bytes = receiver.recv().await?;
        Some((Ok::<_, io::Error>(next), receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)))
}

/// What was written since it was flushed, for a reader that may be gone or too slow.
pub(crate) struct Lines {
    written: Vec<u8>,
    sender: mpsc::Sender<Bytes>,
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        if self.written.is_empty() {
            return if self.sender.is_closed() { Err(gone()) } else { Ok(()) };
        }
        let written = std::mem::take(&mut self.written);
        self.sender.try_send(written.into()).map_err(|_| gone())
    }
}
