//! Authentication by a bearer token, before anything else of a request is read.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;
use zentra_admin::ErrorCode;
use zentra_admin::tokens::role;
use zentra_store::control::{Role, Token};
use zentra_telemetry::places::Connection;

use crate::problem::Problem;
use crate::service::Service;
use crate::{PATIENCE, PLANNING};

/// Requests per second for one token, and the size of a burst.
const PER_TOKEN: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// Requests per second for one consumer's token, and the size of a burst. Each can have 100 events.
const PER_CONSUMER: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// Failed authentications and refused roles that are logged per second. The others are counted.
const LOGGED: NonZeroU32 = NonZeroU32::new(5).unwrap();
/// Maximum length of a path in the log.
const LOGGED_PATH: usize = 200;

/// Authenticates and limits requests.
#[derive(Clone)]
pub(super) struct Guard(Arc<Inner>);

struct Inner {
    service: Arc<dyn Service>,
    by_token: DefaultKeyedRateLimiter<String>,
    by_consumer: DefaultKeyedRateLimiter<String>,
    /// For operators' requests.
    operators: Room,
    /// For requests that wait for events.
    waiting: Room,
    /// For answers of consumers, which do not wait.
    answers: Room,
    logged: DefaultDirectRateLimiter,
    /// Refusals since the last logged one.
    not_logged: AtomicU64,
}

/// Requests at a time, in all and per token. Consumers do not take operators' room, and requests
/// that wait for events do not take the room of acknowledgements.
struct Room {
    at_once: Semaphore,
    places: PerToken,
    per_token: usize,
}

impl Room {
    fn new(at_once: usize, per_token: usize) -> Self {
        Self { at_once: Semaphore::new(at_once), places: PerToken::new(), per_token }
    }
}

/// What a request is for, according to its path.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Operate,
    Wait,
    Answer,
}

impl Purpose {
    fn of(path: &str) -> Self {
        let pull = path.strip_prefix("/v1/pull/");
        match (pull, path.starts_with("/v1/listen/")) {
            (Some(rest), _) if rest.contains('/') => Self::Answer,
            (Some(_), _) | (_, true) => Self::Wait,
            _ => Self::Operate,
        }
    }
}

impl Inner {
    fn room(&self, purpose: Purpose) -> &Room {
        match purpose {
            Purpose::Operate => &self.operators,
            Purpose::Wait => &self.waiting,
            Purpose::Answer => &self.answers,
        }
    }

    /// Logs a failed authentication or a refused role.
    fn note(&self, status: StatusCode, request: &str, token: Option<&Token>) {
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return;
        }
        if self.logged.check().is_err() {
            self.not_logged.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let not_logged = self.not_logged.swap(0, Ordering::Relaxed);
        let (token, name) = token.map_or(("", ""), |token| (&token.id, &token.name));
        let status = status.as_u16();
        tracing::warn!(
            status,
            request,
            token,
            name,
            not_logged,
            "an operator's request was refused"
        );
    }

    /// Whether the token was used less often than its limit.
    fn limit(&self, token: &Token) -> Result<(), Problem> {
        let (limiter, most) = match token.role {
            Role::Consumer => (&self.by_consumer, PER_CONSUMER),
            _ => (&self.by_token, PER_TOKEN),
        };
        let over = |_| too_many(&format!("at most {most} requests per second and token"));
        limiter.check_key(&token.id).map_err(over)
    }
}

/// Whether the token's role allows requests like this one. Its path and method decide, so nothing
/// else of a request is read before.
fn allows(known: &Who, purpose: Purpose, request: &Request) -> Result<(), Problem> {
    if purpose != Purpose::Operate {
        return known.is_consumer();
    }
    // A viewer only looks, and may end its own session.
    let looks = request.method().is_safe() || request.uri().path() == "/v1/me/sign-out";
    known.may(if looks { Role::Viewer } else { Role::Operator })
}

/// Counts what each token holds.
#[derive(Default)]
pub(super) struct PerToken(Mutex<BTreeMap<String, usize>>);

/// One place of a token, until this is dropped.
pub(super) struct Held<'a> {
    of: &'a PerToken,
    token: String,
}

impl PerToken {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Takes a place, if the token holds fewer than `most`.
    pub(super) fn take(&self, token: &str, most: usize) -> Option<Held<'_>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(token.to_owned()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Held { of: self, token: token.to_owned() })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.token);
            }
        }
    }
}

impl Guard {
    pub(super) fn new(service: Arc<dyn Service>) -> Self {
        Self(Arc::new(Inner {
            service,
            by_token: RateLimiter::keyed(Quota::per_second(PER_TOKEN)),
            by_consumer: RateLimiter::keyed(Quota::per_second(PER_CONSUMER)),
            operators: Room::new(32, 8),
            waiting: Room::new(256, 32),
            answers: Room::new(64, 32),
            logged: RateLimiter::direct(Quota::per_second(LOGGED)),
            not_logged: AtomicU64::new(0),
        }))
    }
}

/// Admits a request with a valid token, if there is room.
pub(super) async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Guard(guard) = guard;
    // A plan reads all dead letters; a million take a minute and a half.
    let plans = request.method() == Method::POST && request.uri().path() == "/v1/jobs";
    let patience = if plans { PLANNING } else { PATIENCE };
    let asked = format!("{} {}", request.method(), request.uri().path());
    let asked: String = asked.chars().take(LOGGED_PATH).collect();
    let known_as = OnceLock::new();
    let answer = async {
        let purpose = Purpose::of(request.uri().path());
        let room = guard.room(purpose);
        let Ok(_room) = room.at_once.try_acquire() else {
            return too_many("too many concurrent requests: retry later").into_response();
        };
        let text = request.headers().get(header::AUTHORIZATION);
        let text = text.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let known = match who(&guard, text).await {
            Ok(token) => Who(known_as.get_or_init(|| token).clone()),
            Err(problem) => return problem.into_response(),
        };
        if let Some(connection) = request.extensions().get::<Connection>() {
            connection.trust();
        }
        if let Err(problem) = allows(&known, purpose, &request) {
            return problem.into_response();
        }
        let most = room.per_token;
        let Some(_place) = room.places.take(&known.0.id, most) else {
            return too_many(&format!("at most {most} concurrent requests per token"))
                .into_response();
        };
        let mut request = request;
        request.extensions_mut().insert(known);
        next.run(request).await
    };
    let late = || {
        let detail = format!("no response within {} s: ask for less", patience.as_secs());
        Problem::new(ErrorCode::Timeout, detail).into_response()
    };
    let answer = tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| late());
    guard.note(answer.status(), &asked, known_as.get());
    answer
}

async fn who(guard: &Inner, text: Option<String>) -> Result<Token, Problem> {
    let found = match text.as_deref().and_then(|text| text.strip_prefix("Bearer ")) {
        Some(text) => guard.service.token(text).await?,
        None => None,
    };
    let unknown = || {
        let detail = "a valid token is needed: Authorization: Bearer …";
        Problem::new(ErrorCode::Unauthenticated, detail)
    };
    let token = found.ok_or_else(unknown)?;
    guard.limit(&token)?;
    Ok(token)
}

fn too_many(detail: &str) -> Problem {
    Problem::new(ErrorCode::RateLimited, detail)
}

/// The token of a request.
#[derive(Clone)]
pub(super) struct Who(Token);

impl Who {
    /// The token itself.
    pub(super) fn into_token(self) -> Token {
        self.0
    }

    /// The token's id.
    pub(super) fn token(&self) -> &str {
        &self.0.id
    }

    /// The token's name, for the audit log.
    pub(super) fn name(&self) -> String {
        self.0.name.clone()
    }

    /// Whether the token allows payloads.
    pub(super) fn may_see_payloads(&self) -> Result<(), Problem> {
        match self.0.payloads {
            true => Ok(()),
            false => Err(Problem::new(
                ErrorCode::PayloadsRequired,
                "this requires a token that allows payloads",
            )),
        }
    }

    /// Whether the token is a consumer's. No other role takes events from their consumers.
    fn is_consumer(&self) -> Result<(), Problem> {
        match self.0.role {
            Role::Consumer => Ok(()),
            other => Err(Problem::new(
                ErrorCode::RoleRequired,
                format!("this requires the role consumer; the token has {}", role(other)),
            )),
        }
    }

    /// Whether the token is for a consumer of this destination.
    pub(super) fn may_consume(&self, destination: &str) -> Result<(), Problem> {
        self.is_consumer()?;
        match self.0.destinations.iter().any(|name| name == destination) {
            true => Ok(()),
            false => Err(Problem::new(
                ErrorCode::DestinationDenied,
                format!("the token is not for the destination {destination}"),
            )),
        }
    }

    /// Whether the token has this role, or a higher one.
    pub(super) fn may(&self, least: Role) -> Result<(), Problem> {
        match self.0.role >= least {
            true => Ok(()),
            false => Err(Problem::new(
                ErrorCode::RoleRequired,
                format!(
                    "this requires the role {}; the token has {}",
                    role(least),
                    role(self.0.role)
                ),
            )),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let who = parts.extensions.get::<Self>().cloned();
        who.ok_or_else(|| Problem::new(ErrorCode::Unauthenticated, "a token is needed"))
    }
}
