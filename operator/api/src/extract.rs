//! What handlers take from a request, and the parts that several requests have.

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

/// A query string, or what is wrong with it.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(super) struct Query<T>(pub(super) T);

/// A part of the path, or what is wrong with it.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(super) struct Path<T>(pub(super) T);

/// A body, or what is wrong with it.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(super) struct Body<T>(pub(super) T);

pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// Why something is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    /// For the audit; at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub(super) because: String,
}

/// Who asks, and why.
pub(super) fn actor(who: &Who, reason: &str) -> Result<Actor, Problem> {
    Ok(Actor { name: who.name(), reason: audit::reason(reason)? })
}

/// Who looks at bytes, if the token allows it.
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
        _ => Err(Problem::invalid("limit is from 1 to 1000")),
    }
}

/// Whatever the provider sent, no browser runs it.
pub(super) fn attached(bytes: Bytes) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
    ];
    (headers, bytes)
}
