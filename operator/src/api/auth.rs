//! Who asks: a bearer token, checked before anything else is looked at.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;
use zentra_shared::control::{Role, Token};

use super::problem::Problem;
use super::service::Service;
use super::{PATIENCE, PLANNING};
use crate::token::role;

/// So many requests a second by one token, after as many at once.
const PER_TOKEN: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// So many requests are answered at a time.
const AT_ONCE: usize = 32;

/// The door.
#[derive(Clone)]
pub(super) struct Guard(Arc<Inner>);

struct Inner {
    service: Arc<dyn Service>,
    by_token: DefaultKeyedRateLimiter<String>,
    room: Semaphore,
}

impl Guard {
    pub(super) fn new(service: Arc<dyn Service>) -> Self {
        Self(Arc::new(Inner {
            service,
            by_token: RateLimiter::keyed(Quota::per_second(PER_TOKEN)),
            room: Semaphore::new(AT_ONCE),
        }))
    }
}

/// Lets a request in, with who asks, if it has a good token and there is room.
pub(super) async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Guard(guard) = guard;
    // A plan goes through all dead letters: of a million, that takes a minute and a half.
    let plans = request.method() == Method::POST && request.uri().path() == "/v1/jobs";
    let patience = if plans { PLANNING } else { PATIENCE };
    let answer = async {
        let Ok(_room) = guard.room.try_acquire() else {
            return too_many("too many requests are under way: ask again").into_response();
        };
        let text = request.headers().get(header::AUTHORIZATION);
        let text = text.and_then(|value| value.to_str().ok()).map(str::to_owned);
        match who(&guard, text).await {
            Ok(token) => {
                let mut request = request;
                request.extensions_mut().insert(Who(token));
                next.run(request).await
            }
            Err(problem) => problem.into_response(),
        }
    };
    let late = || {
        let detail = format!("no answer within {} s: ask for less", patience.as_secs());
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
    };
    tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| late())
}

async fn who(guard: &Inner, text: Option<String>) -> Result<Token, Problem> {
    let found = match text.as_deref().and_then(|text| text.strip_prefix("Bearer ")) {
        Some(text) => guard.service.token(text).await?,
        None => None,
    };
    let unknown = || {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "a good token is needed: Authorization: Bearer … (zentra token create)",
        )
    };
    let token = found.ok_or_else(unknown)?;
    match guard.by_token.check_key(&token.id) {
        Ok(()) => Ok(token),
        Err(_) => Err(too_many(&format!("{PER_TOKEN} requests a second, and no more"))),
    }
}

fn too_many(detail: &str) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
}

/// Who asks.
#[derive(Clone)]
pub(super) struct Who(Token);

impl Who {
    /// His name, for the audit.
    pub(super) fn name(&self) -> String {
        self.0.name.clone()
    }

    /// Whether he may see payloads.
    pub(super) fn may_see_payloads(&self) -> Result<(), Problem> {
        match self.0.payloads {
            true => Ok(()),
            false => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "that takes a token that was made with --payloads, and this one wasn't",
            )),
        }
    }

    /// Whether he may do that.
    pub(super) fn may(&self, least: Role) -> Result<(), Problem> {
        match self.0.role >= least {
            true => Ok(()),
            false => Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!(
                    "that takes the role {}, and this token has {}",
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
        who.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "a token is needed"))
    }
}
