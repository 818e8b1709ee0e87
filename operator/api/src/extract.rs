//! Extractors, and parts that several requests have.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;
use zentra_admin::audit::{self, Actor};
use zentra_admin::filter::DEFAULT_LIMIT;
use zentra_store::control::Attribution;

use crate::auth::Who;
use crate::problem::Problem;

/// The query string, or the error.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(super) struct Query<T>(pub(super) T);

/// A part of the path, or the error.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(super) struct Path<T>(pub(super) T);

/// The body, or the error.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(super) struct Body<T>(pub(super) T);

pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// The reason of a request.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    /// Reason, for the audit log: at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub(super) because: String,
}

/// The actor of a request.
pub(super) fn actor(who: &Who, reason: &str) -> Result<Actor, Problem> {
    Ok(Actor { name: who.name(), reason: audit::reason(reason)? })
}

/// Attribution of a look at a payload, if the token allows it.
pub(super) fn looks(who: &Who) -> Result<Attribution, Problem> {
    who.may_see_payloads()?;
    Ok(Actor { name: who.name(), reason: String::new() }.attribution())
}

/// The default of `limit`.
pub(super) fn default_limit() -> usize {
    DEFAULT_LIMIT
}

/// Checks `limit`.
pub(super) fn within(limit: usize) -> Result<usize, Problem> {
    match limit {
        1..=1000 => Ok(limit),
        _ => Err(Problem::invalid("limit must be from 1 to 1000")),
    }
}

/// Prevents browsers from running what a provider sent.
pub(super) fn attached(bytes: Bytes) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
    ];
    (headers, bytes)
}
