//! The operators' API: what the command line shows and does, by HTTP, under `/v1`. Who asks needs a
//! token (`zentra token create`), wherever it listens.

mod auth;
mod follow;
mod jobs;
mod listen;
mod problem;
mod queue_service;
mod queues;
mod routes;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router, middleware};
use tokio::net::TcpListener;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zentra_shared::config::Config;
use zentra_shared::shutdown;

use crate::backend::Backend;
use crate::failure::Failure;
use auth::Guard;
use problem::Problem;
use service::{Desk, Service};

/// The longest body, in bytes.
const LONGEST: usize = 64 * 1024;
/// The longest list of a provider's events.
const LISTS: usize = 8 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long that to a job's plan may take.
const PLANNING: Duration = Duration::from_secs(900);

/// Where it listens.
#[derive(clap::Args)]
pub(crate) struct Serve {
    /// The address; ":0" picks a free port and logs it.
    #[arg(long, default_value = "127.0.0.1:9470", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Something before it ends TLS: only then does it listen elsewhere than on this machine, since
    /// tokens must not travel in the clear.
    #[arg(long)]
    behind_tls: bool,
    /// It may also let refused callbacks in: for that, it needs the sources' secrets.
    #[arg(long)]
    pub(crate) admit: bool,
}

/// What all handlers share.
pub(crate) type State = axum::extract::State<Arc<dyn Service>>;

/// Serves until it is told to stop.
pub(crate) async fn serve<B>(
    config: &'static Config,
    backend: B,
    asked: &Serve,
) -> Result<(), Failure>
where
    B: Backend + Send + Sync + 'static,
{
    let Serve { listen, behind_tls, admit } = asked;
    if !listen.ip().is_loopback() && !behind_tls {
        return Err(Failure::Asked(format!(
            "{listen} can be reached by others, and this speaks plain HTTP.\nPut something before \
             it that ends TLS, and say so by --behind-tls; or listen on 127.0.0.1."
        )));
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Failure::Asked(format!("can't listen on {listen}: {error}\n\":0\" picks a free port."))
    })?;
    let stop = shutdown::on_signal().map_err(|error| Failure::Ours(error.to_string()))?;
    let service: Arc<dyn Service> = Arc::new(Desk::new(backend, config, *admit, stop.clone()));
    tracing::info!(listen = %listener.local_addr()?, "zentra serve started");
    let attending = tokio::spawn({
        let service = service.clone();
        async move { service.attend().await }
    });
    listen::serve(listener, router(service), stop).await;
    let _ = attending.await;
    tracing::info!("zentra serve stopped");
    Ok(())
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Zentra, for operators",
    description = "Histories, what is wrong, and what can be done about it. Times are RFC 3339 \
                   with milliseconds, in UTC. Errors are problem+json (RFC 9457)."
))]
struct Document;

type Routes = OpenApiRouter<Arc<dyn Service>>;

/// Each route with what the document says of it.
fn routes() -> Vec<Routes> {
    vec![
        Routes::new().routes(routes!(routes::status)),
        Routes::new().routes(routes!(routes::metrics)),
        Routes::new().routes(routes!(routes::events)),
        Routes::new().routes(routes!(routes::event)),
        Routes::new().routes(routes!(routes::dead)),
        Routes::new().routes(routes!(routes::body)),
        Routes::new().routes(routes!(routes::requeue)),
        Routes::new().routes(routes!(routes::workers)),
        Routes::new().routes(routes!(routes::destinations)),
        Routes::new().routes(routes!(routes::pause)),
        Routes::new().routes(routes!(routes::resume)),
        Routes::new().routes(routes!(routes::close_circuit)),
        Routes::new().routes(routes!(routes::audit)),
        Routes::new().routes(routes!(follow::find)),
        Routes::new().routes(routes!(follow::tail)),
        Routes::new().routes(routes!(queues::drain)),
        Routes::new().routes(routes!(queues::release)),
        Routes::new().routes(routes!(queues::end)),
        Routes::new().routes(routes!(queues::unrouted)),
        Routes::new().routes(routes!(queues::route)),
        Routes::new().routes(routes!(queues::archived)),
        Routes::new().routes(routes!(queues::archived_body)),
        Routes::new().routes(routes!(queues::refused)),
        Routes::new().routes(routes!(queues::refused_body)),
        Routes::new().routes(routes!(queues::admit)),
        Routes::new().routes(routes!(jobs::jobs, jobs::plan)),
        Routes::new().routes(routes!(jobs::job)),
        Routes::new().routes(routes!(jobs::run)),
        Routes::new().routes(routes!(jobs::pause)),
        Routes::new().routes(routes!(jobs::cancel)),
        Routes::new().routes(routes!(queues::reconcile)).layer(DefaultBodyLimit::max(LISTS)),
    ]
}

/// All routes, and their document.
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
pub(crate) fn document() -> Result<String, Failure> {
    let (_, document) = documented();
    document.to_pretty_json().map_err(|error| Failure::Ours(error.to_string()))
}

fn router(service: Arc<dyn Service>) -> Router {
    let (router, document) = documented();
    let guard = Guard::new(service.clone());
    router
        .layer(middleware::from_fn_with_state(guard, auth::admit))
        // What it can do is no secret.
        .route("/v1/openapi.json", get(move || async move { Json(document) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { Problem::unknown("there is nothing here: see /v1/openapi.json") })
        .method_not_allowed_fallback(|| async { Problem::method() })
        .layer(DefaultBodyLimit::max(LONGEST))
        .layer(middleware::map_response(never_kept))
        .with_state(service)
}

/// What is told of events is for who asked, and for now.
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

    /// Of two types with one name, the document would have only one.
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
