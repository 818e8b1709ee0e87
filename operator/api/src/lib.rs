//! The HTTP API for operators under `/v1`: the use cases of `zentra-admin`. Each request needs a
//! token.

mod archive;
mod audit;
mod auth;
mod configuration;
mod console;
mod consume;
mod copies;
mod dead;
mod delivery;
mod destinations;
mod events;
mod extract;
mod feed;
mod incidents;
mod jobs;
mod list;
mod listen;
mod me;
mod problem;
mod pull;
mod reconcile;
mod refused;
mod series;
mod service;
mod sources;
mod status;
mod time;
mod tokens;
mod unrouted;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router, middleware};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zentra_admin::series::Series;
use zentra_admin::{Backend, ErrorCode};
use zentra_config::Config;

use auth::Guard;
use feed::Feed;
use problem::Problem;
pub use problem::status as http_status;
use service::{BackendService, Service};

/// Maximum size of a body, in bytes.
const LONGEST: usize = 64 * 1024;
/// Maximum size of a list of a provider's events, in bytes.
const LISTS: usize = 8 << 20;
/// Maximum size of a list of receipts, in bytes.
const RECEIPTS: usize = 256 * 1024;
/// Maximum size of a sign-in, in bytes.
const CODES: usize = 4096;
/// Timeout of a request.
const PATIENCE: Duration = Duration::from_secs(60);
/// Timeout of a request that plans a job.
const PLANNING: Duration = Duration::from_secs(900);

/// State of all handlers.
pub(crate) type State = axum::extract::State<Arc<dyn Service>>;

/// What needs the sources' secrets: refused callbacks are explained and admitted, and test callbacks are sent.
pub struct Secrets {
    /// Address of the ingress, without `/in/…`. `None`: the one that the configuration names.
    pub ingress: Option<String>,
}

/// Serves until `stop`, then finishes running requests and closes the backend's connections. With
/// `secrets`, the configuration must have the sources' secrets.
pub async fn serve<B: Backend + 'static>(
    listener: TcpListener,
    config: &'static Config,
    backend: B,
    secrets: Option<Secrets>,
    stop: CancellationToken,
) {
    let (stopped, snapshot) = (stop.clone(), Mutex::default());
    let service: Arc<dyn Service> = Arc::new(BackendService {
        backend,
        config,
        secrets,
        series: Series::default(),
        feed: Feed::new(stopped.clone()),
        stop: stopped,
        snapshot,
        pull: OnceCell::new(),
        registry: Registry::new(),
    });
    let attending = tokio::spawn({
        let service = service.clone();
        async move { service.attend().await }
    });
    let collecting = tokio::spawn({
        let service = service.clone();
        async move { service.collect().await }
    });
    let notifying = tokio::spawn({
        let service = service.clone();
        async move { service.notify().await }
    });
    listen::serve(listener, router(service.clone()), stop).await;
    let _ = notifying.await;
    let _ = attending.await;
    let _ = collecting.await;
    service.close().await;
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Zentra, for operators",
    description = "Histories, status, and the actions of operators. Times are RFC 3339 \
                   with milliseconds, in UTC. Errors are problem+json (RFC 9457)."
))]
struct Document;

type Routes = OpenApiRouter<Arc<dyn Service>>;

/// All routes with their documentation.
fn routes() -> Vec<Routes> {
    vec![
        Routes::new().routes(routes!(status::status)),
        Routes::new().routes(routes!(status::metrics)),
        Routes::new().routes(routes!(me::me)),
        Routes::new().routes(routes!(tokens::sign_out)),
        Routes::new().routes(routes!(tokens::tokens)),
        Routes::new().routes(routes!(tokens::revoke)),
        Routes::new().routes(routes!(configuration::configuration)),
        Routes::new().routes(routes!(sources::test)),
        Routes::new().routes(routes!(series::series)),
        Routes::new().routes(routes!(events::events)),
        Routes::new().routes(routes!(events::event)),
        Routes::new().routes(routes!(dead::dead)),
        Routes::new().routes(routes!(dead::body)),
        Routes::new().routes(routes!(dead::requeue)),
        Routes::new().routes(routes!(destinations::workers)),
        Routes::new().routes(routes!(destinations::destinations)),
        Routes::new().routes(routes!(destinations::pause)),
        Routes::new().routes(routes!(destinations::resume)),
        Routes::new().routes(routes!(destinations::close_circuit)),
        Routes::new().routes(routes!(audit::audit)),
        Routes::new().routes(routes!(incidents::incidents)),
        Routes::new().routes(routes!(incidents::acknowledge)),
        Routes::new().routes(routes!(incidents::resolve)),
        Routes::new().routes(routes!(events::find)),
        Routes::new().routes(routes!(events::tail)),
        Routes::new().routes(routes!(dead::drain)),
        Routes::new().routes(routes!(events::release)),
        Routes::new().routes(routes!(events::end)),
        Routes::new().routes(routes!(unrouted::unrouted)),
        Routes::new().routes(routes!(unrouted::requeue)),
        Routes::new().routes(routes!(archive::archived)),
        Routes::new().routes(routes!(archive::body)),
        Routes::new().routes(routes!(refused::refused)),
        Routes::new().routes(routes!(refused::body)),
        Routes::new().routes(routes!(refused::explain)),
        Routes::new().routes(routes!(refused::admit)),
        Routes::new().routes(routes!(jobs::jobs, jobs::plan)),
        Routes::new().routes(routes!(jobs::job)),
        Routes::new().routes(routes!(jobs::run)),
        Routes::new().routes(routes!(jobs::pause)),
        Routes::new().routes(routes!(jobs::cancel)),
        Routes::new().routes(routes!(copies::listen)),
        Routes::new().routes(routes!(pull::pull)),
        Routes::new().routes(routes!(pull::ack)).layer(DefaultBodyLimit::max(RECEIPTS)),
        Routes::new().routes(routes!(pull::nack)).layer(DefaultBodyLimit::max(RECEIPTS)),
        Routes::new().routes(routes!(pull::extend)).layer(DefaultBodyLimit::max(RECEIPTS)),
        Routes::new().routes(routes!(reconcile::reconcile)).layer(DefaultBodyLimit::max(LISTS)),
    ]
}

/// All routes, and the OpenAPI document.
fn documented() -> (Router<Arc<dyn Service>>, utoipa::openapi::OpenApi) {
    let all = Routes::with_openapi(Document::openapi());
    let (router, mut document) =
        routes().into_iter().fold(all, OpenApiRouter::merge).split_for_parts();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    (router, document)
}

/// The OpenAPI document, as `docs/openapi.json` has it.
///
/// # Errors
/// If it can't be written as JSON: never.
pub fn document() -> serde_json::Result<String> {
    let (_, document) = documented();
    document.to_pretty_json()
}

fn router(service: Arc<dyn Service>) -> Router {
    let (router, document) = documented();
    let guard = Guard::new(service.clone());
    router
        .layer(middleware::from_fn_with_state(guard, auth::admit))
        // The document is public.
        .route("/v1/openapi.json", get(move || async move { Json(document) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async {
            Problem::new(ErrorCode::RouteNotFound, "no such path: see /v1/openapi.json")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                ErrorCode::MethodNotAllowed,
                "the path does not support this method: see /v1/openapi.json",
            )
        })
        .layer(DefaultBodyLimit::max(LONGEST))
        .layer(middleware::map_response(never_kept))
        .with_state(service.clone())
        .merge(console::router(service).layer(DefaultBodyLimit::max(CODES)))
}

/// Answers must not be cached.
async fn never_kept(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_committed_document_is_the_codes() {
        let page = include_str!("../../../docs/openapi.json");
        let document = document().unwrap();
        assert!(page.trim_end() == document, "run: zentra openapi > docs/openapi.json");
    }

    /// Two types with one name would share one schema.
    #[test]
    fn a_schemas_name_is_one_types() {
        let mut known = BTreeMap::new();
        for route in routes() {
            let components = route.get_openapi().components.clone().unwrap_or_default();
            for (name, schema) in components.schemas {
                let schema = serde_json::to_value(schema).unwrap();
                let first = known.entry(name.clone()).or_insert_with(|| schema.clone());
                assert_eq!(*first, schema, "{name} is the name of two types");
            }
        }
        assert!(known.len() > 20, "{known:?}");
    }
}
