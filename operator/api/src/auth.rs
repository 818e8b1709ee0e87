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
/// Maximum number of requests at a time.
const AT_ONCE: usize = 32;

/// Maximum number of them for one token.
const PLACES: usize = 8;
/// Requests per second for one consumer's token, and the size of a burst. Each can have 100 events.
const PER_CONSUMER: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// Maximum number of consumers' requests at a time: most of them only wait for events.
const CONSUMERS_AT_ONCE: usize = 256;
/// Maximum number of them for one token.
const CONSUMER_PLACES: usize = 32;
/// Paths for consumers.
const CONSUMERS: &str = "/v1/pull/";
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
    room: Semaphore,
    room_for_consumers: Semaphore,
    places: PerToken,
    logged: DefaultDirectRateLimiter,
    /// Refusals since the last logged one.
    not_logged: AtomicU64,
}

impl Inner {
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

    /// Room for a request. Consumers, whose requests wait for events, do not take operators' room.
    fn room(&self, consumes: bool) -> &Semaphore {
        if consumes { &self.room_for_consumers } else { &self.room }
    }

    /// A place of the token, or why it has none left.
    fn place(&self, token: &Token) -> Result<Held<'_>, Problem> {
        let most = if token.role == Role::Consumer { CONSUMER_PLACES } else { PLACES };
        let full = || too_many(&format!("at most {most} concurrent requests per token"));
        self.places.take(&token.id, most).ok_or_else(full)
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
fn allows(known: &Who, consumes: bool, request: &Request) -> Result<(), Problem> {
    if consumes {
        return known.is_consumer();
    }
    // A viewer only looks.
    known.may(if request.method().is_safe() { Role::Viewer } else { Role::Operator })
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
            room: Semaphore::new(AT_ONCE),
            room_for_consumers: Semaphore::new(CONSUMERS_AT_ONCE),
            places: PerToken::new(),
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
        let consumes = request.uri().path().starts_with(CONSUMERS);
        let Ok(_room) = guard.room(consumes).try_acquire() else {
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
        if let Err(problem) = allows(&known, consumes, &request) {
            return problem.into_response();
        }
        let _place = match guard.place(&known.0) {
            Ok(place) => place,
            Err(problem) => return problem.into_response(),
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
