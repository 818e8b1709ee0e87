//! The console: static files, and the exchange of a sign-in code for a token. The console itself is a
//! client of the API: whatever it shows or does needs a token.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use rust_embed::{EmbeddedFile, RustEmbed};
use serde::{Deserialize, Serialize};
use zentra_admin::ErrorCode;

use crate::extract::Body;
use crate::problem::Problem;
use crate::service::Service;
use crate::time::Time;

/// Timeout of a sign-in.
const PATIENCE: Duration = Duration::from_secs(10);
/// Refused sign-ins per second that are answered and logged, and the size of a burst. A code has 256
/// random bits.
const SIGN_INS: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// Nothing is loaded from elsewhere, no text becomes a script or a style, and no other page shows this
/// one. Templates of lit-html are the only trusted source of markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
                      require-trusted-types-for 'script'; trusted-types lit-html";

/// The files, as the repository has them.
#[derive(RustEmbed)]
#[folder = "../console"]
struct Files;

struct SignIn {
    service: Arc<dyn Service>,
    limiter: DefaultDirectRateLimiter,
}

/// The files at `/`, and `POST /console/sign-in`.
pub(crate) fn router(service: Arc<dyn Service>) -> Router {
    let sign_in = SignIn { service, limiter: RateLimiter::direct(Quota::per_second(SIGN_INS)) };
    let routes = Files::iter().fold(Router::new(), |routes, name| {
        let path = if name == "index.html" { String::new() } else { name.to_string() };
        routes.route(&format!("/{path}"), get(file))
    });
    routes
        .route("/console/sign-in", post(sign_in_once).layer(from_fn(guarded)))
        .with_state(Arc::new(sign_in))
}

async fn file(uri: Uri, headers: HeaderMap) -> Response {
    let name = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        name => name,
    };
    let Some(EmbeddedFile { data, metadata }) = Files::get(name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = format!("\"{}\"", hex::encode(&metadata.sha256_hash()[..16]));
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == *tag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => data.into_response(),
    };
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, kind(name)),
        // A new version is seen at the next load.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "text/plain; charset=utf-8",
    }
}

/// Bounds a sign-in in time. Its answer has a token.
async fn guarded(request: Request, next: Next) -> Response {
    let late = || Problem::new(ErrorCode::Timeout, "the request took too long").into_response();
    let answer = tokio::time::timeout(PATIENCE, next.run(request)).await;
    crate::never_kept(answer.unwrap_or_else(|_| late())).await
}

/// A code from `zentra console open`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    code: String,
}

/// A token for this session.
#[derive(Serialize)]
struct Session {
    token: String,
    expires_at: Time,
}

async fn sign_in_once(
    Shared(sign_in): Shared<Arc<SignIn>>,
    Body(Code { code }): Body<Code>,
) -> Result<Json<Session>, Problem> {
    let Some((token, text)) = sign_in.service.sign_in(&code).await? else {
        // Only these count: nobody can keep operators out by asking.
        if sign_in.limiter.check().is_err() {
            return Err(Problem::new(ErrorCode::RateLimited, "too many sign-ins: retry later"));
        }
        tracing::warn!("a sign-in code for the console was refused");
        let detail = "the link was used already, or is older than 10 minutes: zentra console open";
        return Err(Problem::new(ErrorCode::Unauthenticated, detail));
    };
    tracing::info!(name = token.name, "an operator has signed in to the console");
    Ok(Json(Session { token: text, expires_at: token.expires_at.into() }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;
    use sha2::{Digest, Sha256};

    use super::*;

    /// Files of others are as they were published: the list has their digests.
    #[test]
    fn vendored_files_are_unchanged_and_listed() {
        let list = Files::get("vendor/vendored.json").unwrap();
        let list: Vec<Value> = serde_json::from_slice(&list.data).unwrap();
        let mut listed = BTreeMap::new();
        for package in &list {
            assert!(["name", "version", "license"].iter().all(|key| package[*key].is_string()));
            for (path, digest) in package["files"].as_object().unwrap() {
                listed.insert(path.clone(), digest.as_str().unwrap().to_owned());
            }
        }
        let there: BTreeMap<_, _> = Files::iter()
            .filter(|name| name.starts_with("vendor/") && !name.ends_with("vendored.json"))
            .map(|name| {
                let digest = hex::encode(Sha256::digest(Files::get(&name).unwrap().data));
                (name.to_string(), digest)
            })
            .collect();
        assert_eq!(listed, there);
    }

    #[test]
    fn the_page_has_no_inline_script_or_style() {
        let page = Files::get("index.html").unwrap();
        let page = String::from_utf8(page.data.to_vec()).unwrap();
        assert!(!page.contains("style=") && !page.contains("<style") && !page.contains(" on"));
        assert!(
            page.matches("<script").count() == page.matches("<script type=\"module\" src=").count()
        );
    }
}
